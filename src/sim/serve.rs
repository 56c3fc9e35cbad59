//! An HTTP/1.1 server on loopback for a handler, with answers that break on purpose.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// Maximum number of connections, enough for large rehearsals.
const CONNECTIONS: usize = 10_000;

/// Pause after accepting failed, most likely for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A handler's answer.
pub(super) enum Reply {
    /// A response, complete or cut off.
    Answer(Response<ReplyBody>),
    /// Reset the connection.
    Reset,
}

/// Answers requests.
pub(super) trait Handler: Send + Sync + 'static {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// A server that stops when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a handler at `address`; port 0 chooses a free one.
pub(super) async fn serve(address: SocketAddr, handler: Arc<impl Handler>) -> io::Result<Server> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let task = accept_all(listener, CONNECTIONS, move |stream| connection(stream, Arc::clone(&handler)));
    Ok(Server { address, task })
}

/// Serves up to this many connections at once until the handle is aborted; the connections end with it.
fn accept_all<F>(
    listener: TcpListener,
    at_once: usize,
    connection: impl Fn(TcpStream) -> F + Send + 'static,
) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let task = tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(at_once));
        // Dropped with the task.
        let mut connections = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(stream);
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
            while connections.try_join_next().is_some() {}
        }
    });
    task.abort_handle()
}

async fn connection(stream: TcpStream, handler: Arc<impl Handler>) {
    // Otherwise every answer on a kept-alive connection waits for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            match handler.handle(request).await {
                Reply::Answer(response) => Ok(response),
                Reply::Reset => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            }
        })
    });
    let mut connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if ended.is_err_and(|error| error.is_user()) {
        // Closing with unsent data and no linger time sends a reset.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// A body that is sent completely, or cut off after its first half although its length was promised.
pub(super) struct ReplyBody {
    rest: Option<Bytes>,
    promised: u64,
    breaks: bool,
}

impl ReplyBody {
    pub(super) fn whole(body: Bytes) -> Self {
        Self { promised: body.len() as u64, rest: Some(body), breaks: false }
    }

    /// The same body, cut off half-way.
    pub(super) fn broken_half(self) -> Self {
        let half = self.rest.map(|body| body.slice(..body.len() / 2));
        Self { rest: half, breaks: true, ..self }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.rest.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.breaks => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

/// Reads a request's whole body; empty if it is cut off.
pub(super) async fn body_of(request: Request<Incoming>) -> Bytes {
    use http_body_util::BodyExt as _;
    request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}
