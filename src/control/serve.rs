//! A small HTTP/1.1 server, on a Unix socket or on a port of this machine.
//!
//! Handles one request and its answer (`exchange`). `connections` limits the time of each phase. On a port, the
//! request's `Host` decides whether it is accepted. The daemon makes the answers.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::connections::{Conversation, Phase, Progress, bounded, serve_all};
use super::exchange::{Answer, Asked, Serve};
use super::payload::{Payload, Sent};
use super::place::{Opened, Place, listen};
use crate::http::{Accept, HostError};
use crate::run::printable;

/// Maximum size of a request's head, in bytes.
const LARGEST_HEAD: usize = 64 << 10;

/// Maximum time for a request's body. A little less than `connections` allows, so that the client gets an answer.
const PATIENCE: Duration = Duration::from_secs(29);

/// Maximum time to make an answer.
const LONGEST_ANSWER: Duration = Duration::from_mins(2);

/// Maximum length of a request's path in the log, in characters.
const LONGEST_LOGGED: usize = 200;

/// A server that stops when it is dropped. Its socket is removed too, unless something else has replaced it.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
    place: Option<Place>,
}

impl Server {
    /// The location of its socket, if it has one.
    pub fn place(&self) -> Option<Place> {
        self.place.clone()
    }
}

/// Waits until one of these servers stops by itself, such as by a panic; for ever if none does.
pub async fn any_ended<'s>(servers: impl Iterator<Item = &'s mut Server>) {
    let mut tasks: Vec<_> = servers.map(|server| Pin::new(&mut server.task)).collect();
    poll_fn(|context| {
        let is_over = tasks.iter_mut().any(|task| task.as_mut().poll(context).is_ready());
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(place) = &self.place {
            place.clear();
        }
    }
}

/// Serves on a Unix socket with these permissions. Replaces a socket that nobody listens on, and nothing else.
pub fn serve_unix(path: &Path, mode: u32, serve: Arc<dyn Serve>) -> io::Result<Server> {
    serve_opened(listen(path, mode)?, serve)
}

/// Serves on a socket that exists already.
pub fn serve_opened(opened: Opened, serve: Arc<dyn Serve>) -> io::Result<Server> {
    let Opened { listener, place } = opened;
    listener.set_nonblocking(true)?;
    Ok(Server { task: spawn(UnixListener::from_std(listener)?, serve), place: Some(place) })
}

/// Serves on a port. Also returns the address, for port 0.
pub async fn serve_tcp(address: SocketAddr, serve: Arc<dyn Serve>) -> io::Result<(Server, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((Server { task: spawn(listener, serve), place: None }, address))
}

fn spawn(listener: impl Accept, serve: Arc<dyn Serve>) -> JoinHandle<()> {
    serve_all(listener, move |stream, progress| connection(stream, progress, Arc::clone(&serve)))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    progress: Progress,
    serve: Arc<dyn Serve>,
) {
    bounded(stream, progress, |transport, progress| {
        let service = service_fn(move |request: Request<Incoming>| {
            progress.enter(Phase::Body);
            let (serve, progress) = (Arc::clone(&serve), progress.clone());
            async move {
                let mut answer = answer(request, serve, &progress).await;
                if progress.is_in_a_crowd() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                progress.enter(Phase::Writing);
                Ok::<_, io::Error>(answer.map(|payload| Sent { payload, progress }))
            }
        });
        // `bounded` limits the times.
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(transport, service)
    })
    .await;
}

impl<I, S> Conversation for http1::Connection<I, S>
where
    S: HttpService<Incoming, ResBody = Sent>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn end_soon(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn answer(request: Request<Incoming>, serve: Arc<dyn Serve>, progress: &Progress) -> Response<Payload> {
    let (head, body) = request.into_parts();
    let began = Instant::now();
    let (method, path) = (head.method.clone(), printable(head.uri.path(), LONGEST_LOGGED));
    let Answer { status, content_type, body } = match serve.hosts().map_or(Ok(()), |hosts| hosts.check(&head))
    {
        Ok(()) => answer_to(head, body, serve, progress).await,
        Err(error @ HostError::Malformed) => Answer::error(400, error.to_string()),
        Err(error @ HostError::Foreign(_)) => Answer::error(403, error.to_string()),
    };
    let took_ms = began.elapsed().as_millis();
    debug!(%method, path, status = status.as_u16(), took_ms, "answered a control request");
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn answer_to(head: Parts, body: Incoming, serve: Arc<dyn Serve>, progress: &Progress) -> Answer {
    let body = match timeout(PATIENCE, Limited::new(body, serve.largest_request()).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Answer::error(400, format!("the request cannot be read: {error}")),
        Err(_) => return Answer::error(408, "the request did not come to its end"),
    };
    progress.enter(Phase::Answering);
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let is_safe = head.method.is_safe();
    let asked = Asked { method: head.method, path, query, body };
    let answered = if is_safe {
        timeout(LONGEST_ANSWER, serve.answer(asked)).await.ok()
    } else {
        // Runs in its own task, so that a change is completed even if the client disconnects.
        let task = tokio::spawn(async move { serve.answer(asked).await });
        let broken = |error| Answer::error(500, format!("an internal task failed: {error}"));
        timeout(LONGEST_ANSWER, task).await.ok().map(|answered| answered.unwrap_or_else(broken))
    };
    let late = || {
        let bound = crate::span::human(LONGEST_ANSWER);
        Answer::error(503, format!("this is not done after {bound}; it may still be done later"))
    };
    answered.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::BoxFuture;

    /// Answers with this many bytes, after this delay.
    struct Slow(usize, Duration);

    impl Serve for Slow {
        fn answer(&self, _: Asked) -> BoxFuture<'_, Answer> {
            Box::pin(async {
                sleep(self.1).await;
                Answer::text(200, "text/plain", "x".repeat(self.0))
            })
        }
    }

    /// A connection, and the time after which it is closed.
    fn connect(serve: Slow) -> (DuplexStream, tokio::task::JoinHandle<Duration>) {
        let (client, far_end) = duplex(1024);
        let began = Instant::now();
        let served = tokio::spawn(async move {
            connection(far_end, Progress::new(), Arc::new(serve)).await;
            began.elapsed()
        });
        (client, served)
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn one_answer(client: &mut DuplexStream) {
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"x") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "it is closed");
        }
    }

    /// Sends a byte per second until the connection is closed.
    async fn drip(client: &mut DuplexStream, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_phase_of_a_connection_is_bounded() {
        let quick = || Slow(1, Duration::ZERO);
        let seconds = |seconds| Duration::from_secs(seconds)..=Duration::from_secs(seconds + 1);
        // A silent client.
        let (client, served) = connect(quick());
        assert!(seconds(30).contains(&served.await.unwrap()));
        drop(client);
        // The head at one byte per second.
        let (mut client, served) = connect(quick());
        drip(&mut client, GET.bytes().cycle()).await;
        assert!(seconds(10).contains(&served.await.unwrap()));
        // The body at one byte per second.
        let (mut client, served) = connect(quick());
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n").await.unwrap();
        drip(&mut client, std::iter::repeat(b' ')).await;
        assert!(seconds(29).contains(&served.await.unwrap()));
        // A client that does not read the answer.
        let (mut client, served) = connect(Slow(1 << 20, Duration::ZERO));
        client.write_all(GET.as_bytes()).await.unwrap();
        assert!(seconds(60).contains(&served.await.unwrap()));
        // A client that reads the answer at one byte per second.
        let (mut client, served) = connect(Slow(1 << 20, Duration::ZERO));
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut read = 0;
        while !served.is_finished() && client.read_u8().await.is_ok() {
            read += 1;
            sleep(Duration::from_secs(1)).await;
        }
        assert!(seconds(60).contains(&served.await.unwrap()) && read < 100, "{read}");
        // Requests in a row whose answers are not read.
        let (mut client, served) = connect(Slow(700, Duration::ZERO));
        while client.write_all(GET.as_bytes()).await.is_ok() {}
        let ended = served.await.unwrap();
        assert!(ended <= Duration::from_secs(120), "{ended:?}");
        // Idle after an answer.
        let (mut client, served) = connect(quick());
        sleep(Duration::from_secs(9)).await;
        one_answer(&mut client).await;
        assert!(seconds(39).contains(&served.await.unwrap()));
        // An answer that never comes.
        let (mut client, served) = connect(Slow(1, Duration::from_hours(9)));
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("2m"), "{answer}");
        assert!(served.await.unwrap() <= Duration::from_secs(160));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_the_next_request_but_not_for_ever() {
        let (mut client, served) = connect(Slow(1, Duration::from_secs(5)));
        while !served.is_finished() {
            one_answer(&mut client).await;
            sleep(Duration::from_secs(21)).await;
        }
        let ended = served.await.unwrap();
        assert!((Duration::from_secs(600)..Duration::from_secs(605)).contains(&ended), "{ended:?}");
    }

    /// Answers with a file.
    struct Large;

    impl Serve for Large {
        fn answer(&self, _: Asked) -> BoxFuture<'_, Answer> {
            Box::pin(async {
                // Without a thread, whose time the test does not control.
                let (sender, chunks) = tokio::sync::mpsc::channel(12);
                for _ in 0..12 {
                    sender.try_send(Ok(vec![0; 256 << 10].into())).unwrap();
                }
                let body = Payload::Chunks(chunks, 3 << 20);
                Answer { status: StatusCode::OK, content_type: "application/octet-stream", body }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_may_take_long_as_long_as_it_moves() {
        let (mut client, far_end) = duplex(64 << 10);
        let served = tokio::spawn(connection(far_end, Progress::new(), Arc::new(Large)));
        client.write_all(GET.as_bytes()).await.unwrap();
        let (began, mut read) = (Instant::now(), 0);
        let mut buffer = vec![0; 64 << 10];
        while read < 3 << 20 {
            let length = client.read(&mut buffer).await.unwrap();
            assert!(length > 0, "closed after {:?}", began.elapsed());
            read += length;
            sleep(Duration::from_secs(5)).await;
        }
        assert!(began.elapsed() > Duration::from_mins(2));
        drop(client);
        served.await.unwrap();
    }

    /// Counts the requests that were completed.
    #[derive(Default)]
    struct Counting(std::sync::atomic::AtomicUsize);

    impl Serve for Counting {
        fn answer(&self, _: Asked) -> BoxFuture<'_, Answer> {
            Box::pin(async {
                sleep(Duration::from_secs(1)).await;
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Answer::json(&())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_something_is_done_in_full_when_the_client_is_gone() {
        for (method, done) in [("POST", 1), ("GET", 0)] {
            let counting = Arc::new(Counting::default());
            let (mut client, far_end) = duplex(1024);
            let serve: Arc<dyn Serve> = Arc::clone(&counting) as _;
            let served = tokio::spawn(connection(far_end, Progress::new(), serve));
            let request = format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            drop(client);
            served.await.unwrap();
            sleep(Duration::from_secs(5)).await;
            assert_eq!(counting.0.load(std::sync::atomic::Ordering::Relaxed), done, "{method}");
        }
    }
}
