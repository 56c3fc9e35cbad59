//! Accepting connections, for the servers on this machine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// How long nothing is accepted after accepting failed: out of file descriptors, most likely, of which some are free again
/// when connections end.
const PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Serves every connection, so many at once, until the handle aborts it; the connections end with it.
pub fn accept_all<A, F>(
    listener: A,
    at_once: usize,
    connection: impl Fn(A::Stream) -> F + Send + 'static,
) -> AbortHandle
where
    A: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    let task = tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(at_once));
        // Dropped with the task.
        let mut connections = JoinSet::new();
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
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
