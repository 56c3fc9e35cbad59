//! A receiver of webhooks on loopback, which verifies what it gets and remembers it.

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

/// What came.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// When.
    pub at: Instant,
    /// `webhook-id`.
    pub id: String,
    /// Whether the signature was right and the timestamp fresh.
    pub verified: bool,
    /// The body as it came.
    pub body: Bytes,
    /// What was answered.
    pub status: u16,
}

/// A receiver. It ends when this is dropped.
#[derive(Debug)]
pub struct Receiver {
    server: Server,
    shared: Arc<Shared>,
    /// Deliveries as they come.
    pub deliveries: mpsc::UnboundedReceiver<Delivered>,
}

struct Shared {
    verify: Verify,
    /// Statuses to answer with, the next one last; then 204.
    script: Mutex<Vec<u16>>,
    delivered: mpsc::UnboundedSender<Delivered>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Starts to receive on a free port.
    pub async fn start(verify: Verify) -> io::Result<Self> {
        let (delivered, deliveries) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { verify, script: Mutex::default(), delivered });
        let server = serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::clone(&shared)).await?;
        Ok(Self { server, shared, deliveries })
    }

    /// Where to send to.
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
        // A receiver refuses what is older or newer than five minutes, as Standard Webhooks advises.
        let fresh = |at: &i64| (crate::clock::wall().as_second() - at).abs() <= 300;
        let verified = timestamp
            .parse()
            .ok()
            .filter(fresh)
            .is_some_and(|timestamp| (self.verify)(&id, timestamp, &body, &signature));
        // Nobody listens any more: it came all the same.
        let _ = self.delivered.send(Delivered { at: Instant::now(), id, verified, body, status });
        if status == 0 {
            return Reply::Reset;
        }
        let mut response = Response::new(ReplyBody::whole(Bytes::new()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT);
        Reply::Answer(response)
    }
}
