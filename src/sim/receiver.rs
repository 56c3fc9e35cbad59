//! A receiver of webhooks on loopback that verifies and records them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::serve::{Handler, Reply, ReplyBody, Server, body_of, serve};

/// Verifies a delivery: id, timestamp in Unix seconds, body, signature header.
pub type Verify = Box<dyn Fn(&str, i64, &[u8], &str) -> bool + Send + Sync>;

/// A received delivery.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// When it was received.
    pub at: Instant,
    /// `webhook-id`.
    pub id: String,
    /// Whether the signature was valid and the timestamp fresh.
    pub verified: bool,
    /// The body as received.
    pub body: Bytes,
    /// The status of the answer.
    pub status: u16,
}

/// A receiver. It stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    server: Server,
    shared: Arc<Shared>,
    /// Deliveries as they arrive.
    pub deliveries: mpsc::UnboundedReceiver<Delivered>,
}

struct Shared {
    verify: Verify,
    /// Statuses of the next answers, in reverse order; then 204.
    script: Mutex<Vec<u16>>,
    delivered: mpsc::UnboundedSender<Delivered>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Starts a receiver on a free port.
    pub async fn start(verify: Verify) -> io::Result<Self> {
        let (delivered, deliveries) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { verify, script: Mutex::default(), delivered });
        let server = serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::clone(&shared)).await?;
        Ok(Self { server, shared, deliveries })
    }

    /// The receiver's URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.server.address)
    }

    /// Answers the next requests with these statuses, and later ones with 204. A status of 0 resets the connection.
    pub fn answer_with(&self, statuses: &[u16]) {
        let mut script = self.shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        *script = statuses.iter().rev().copied().collect();
    }
}

impl Handler for Shared {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        let header = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (id, timestamp, signature) =
            (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
        let body = body_of(request).await;
        let status = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(204);
        // Standard Webhooks advises to reject timestamps that are off by more than five minutes.
        let fresh = |at: &i64| (crate::clock::wall().as_second() - at).abs() <= 300;
        let verified = timestamp
            .parse()
            .ok()
            .filter(fresh)
            .is_some_and(|timestamp| (self.verify)(&id, timestamp, &body, &signature));
        // If the channel is closed, the delivery was received all the same.
        let _ = self.delivered.send(Delivered { at: Instant::now(), id, verified, body, status });
        if status == 0 {
            return Reply::Reset;
        }
        let mut response = Response::new(ReplyBody::whole(Bytes::new()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT);
        Reply::Answer(response)
    }
}
