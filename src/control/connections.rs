//! The connections of a server: their maximum number, which one is closed for a new one, and the maximum time of each
//! phase.
//!
//! No client can keep others out. When there are too many connections, a new one replaces the one that has been
//! inactive longest. So `/healthz` is answered even if hundreds of clients send or read nothing. `serve` answers the
//! requests; this file never reads them.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use crate::http::Accept;

/// Maximum number of connections. For each more, one is closed.
const CONNECTIONS: usize = 128;

/// A connection younger than this is not closed for another, because it had no time to send anything.
const GRACE: Duration = Duration::from_millis(20);

/// Above this number, a connection is closed after its current request, so that others get a turn.
const CROWD: usize = 16;

/// Pause after accepting failed when no connection could be closed.
const PAUSE: Duration = Duration::from_millis(20);

/// Number of connections to close when accepting fails, most likely for lack of file descriptors. Other parts need some
/// too.
const CLOSED_FOR_WANT: usize = 8;

/// How long to keep fewer connections after accepting failed.
const WANT: Duration = Duration::from_mins(1);

/// A connection older than this is closed after its current request.
const LONGEST_LIFE: Duration = Duration::from_mins(10);

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// The client sends a request's head.
    Head,
    /// The client sends a request's body.
    Body,
    /// The daemon makes the answer.
    Answering,
    /// The client reads a part of the answer, not the last.
    Sending,
    /// The client reads the answer, or its last part.
    Writing,
}

impl Phase {
    /// Maximum time of the phase, whatever happens in it.
    fn bound(self) -> Duration {
        Duration::from_secs(match self {
            Self::Head => 10,
            Self::Idle | Self::Body => 30,
            Self::Sending | Self::Writing => 60,
            // `serve` has its own limit, and answers.
            Self::Answering => 150,
        })
    }
}

/// The progress of a connection, shared by its transport, its requests and the table of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The phase, and when it began.
    phase: Arc<watch::Sender<(Phase, Instant)>>,
    /// Whether there are many connections.
    crowd: Arc<AtomicBool>,
}

impl Progress {
    #[cfg(test)]
    pub(super) fn new() -> Self {
        Self::among(Arc::default())
    }

    fn among(crowd: Arc<AtomicBool>) -> Self {
        Self { phase: Arc::new(watch::Sender::new((Phase::Idle, Instant::now()))), crowd }
    }

    /// Whether to close the connection after its current request, because many others wait.
    pub(super) fn is_in_a_crowd(&self) -> bool {
        self.crowd.load(Ordering::Relaxed)
    }

    /// Begins the next phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace((phase, Instant::now()));
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.borrow().0 == phase
    }

    /// Waits until a phase exceeds its maximum time.
    async fn overdue(&self) {
        let mut phases = self.phase.subscribe();
        loop {
            let (phase, since) = *phases.borrow_and_update();
            tokio::select! {
                () = sleep_until(since + phase.bound()) => return,
                // The sender is in `self`, so this is no error.
                _ = phases.changed() => {}
            }
        }
    }
}

/// A connection's transport, which records what is sent and received.
pub(super) struct Tracked<S> {
    stream: S,
    progress: Progress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before && self.progress.is(Phase::Idle) {
            self.progress.enter(Phase::Head);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Called when all earlier data has been written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) && self.progress.is(Phase::Writing) {
            self.progress.enter(Phase::Idle);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// HTTP on a transport, which can be told to end after the current request.
pub(super) trait Conversation: Future {
    /// Ends it after the current request.
    fn end_soon(self: Pin<&mut Self>);
}

/// Runs a conversation until it ends, or until a phase exceeds its maximum time.
pub(super) async fn bounded<S, C: Conversation>(
    stream: S,
    progress: Progress,
    begin: impl FnOnce(TokioIo<Tracked<S>>, Progress) -> C,
) {
    let transport = TokioIo::new(Tracked { stream, progress: progress.clone() });
    let mut conversation = pin!(begin(transport, progress.clone()));
    let mut overdue = pin!(progress.overdue());
    let mut life = pin!(sleep(LONGEST_LIFE));
    let mut is_ending = false;
    loop {
        tokio::select! {
            // The side that closed the connection knows the reason.
            _ = conversation.as_mut() => return,
            () = overdue.as_mut() => return,
            () = life.as_mut(), if !is_ending => {
                is_ending = true;
                conversation.as_mut().end_soon();
            }
        }
    }
}

/// An entry in the table of connections.
struct Entry {
    accepted: Instant,
    progress: Progress,
    task: AbortHandle,
}

/// Serves every connection until the handle is aborted; the connections end with it.
pub(super) fn serve_all<A, F>(
    listener: A,
    serve: impl Fn(A::Stream, Progress) -> F + Send + 'static,
) -> JoinHandle<()>
where
    A: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let mut table = Table::default();
        loop {
            if let Ok(stream) = listener.accept().await {
                table.make_room().await;
                table.add(|progress| serve(stream, progress));
                // Lets it start before the next connection is accepted.
                yield_now().await;
            } else {
                table.want().await;
            }
        }
    })
}

/// The open connections. They end when the table is dropped.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    tasks: JoinSet<()>,
    crowd: Arc<AtomicBool>,
    /// A reduced maximum number, and since when it applies.
    limit: Option<(usize, Instant)>,
}

impl Table {
    fn add<F: Future<Output = ()> + Send + 'static>(&mut self, serve: impl FnOnce(Progress) -> F) {
        let progress = Progress::among(Arc::clone(&self.crowd));
        let task = self.tasks.spawn(serve(progress.clone()));
        self.entries.push(Entry { accepted: Instant::now(), progress, task });
        self.crowd.store(self.entries.len() > CROWD, Ordering::Relaxed);
    }

    /// Waits until there is room for one more connection. The wait is short, because old connections are closed.
    async fn make_room(&mut self) {
        loop {
            self.reap();
            let limit = self
                .limit
                .filter(|(_, since)| since.elapsed() < WANT)
                .map_or(CONNECTIONS, |(limit, _)| limit);
            if self.entries.len() < limit || self.close_one() {
                return;
            }
            let oldest = self.entries.iter().map(|entry| entry.accepted).min().unwrap_or_else(Instant::now);
            tokio::select! {
                _ = self.tasks.join_next() => {}
                () = sleep_until(oldest + GRACE) => {}
            }
        }
    }

    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.entries.retain(|entry| !entry.task.is_finished());
    }

    /// Accepting failed: reduces the number of connections for a while.
    async fn want(&mut self) {
        self.reap();
        let limit = self.entries.len().saturating_sub(CLOSED_FOR_WANT).max(1);
        self.limit = Some((limit, Instant::now()));
        let closed = (0..CLOSED_FOR_WANT).filter(|_| self.close_one()).count();
        if closed > 0 {
            // They are closed once their tasks have run.
            yield_now().await;
        } else {
            sleep(PAUSE).await;
        }
    }

    /// Closes the connection that has been in its phase longest, preferring those that do not wait for the daemon.
    /// Returns whether there was one.
    fn close_one(&mut self) -> bool {
        let now = Instant::now();
        let old = self.entries.iter().enumerate().filter(|(_, entry)| now >= entry.accepted + GRACE);
        let rank = |entry: &Entry| {
            let (phase, since) = *entry.progress.phase.borrow();
            (phase == Phase::Answering, since)
        };
        let Some((index, _)) = old.min_by_key(|(_, entry)| rank(entry)) else { return false };
        let closed = self.entries.swap_remove(index);
        tracing::debug!(phase = ?closed.progress.phase.borrow().0, "closing a connection to make room for another");
        closed.task.abort();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a connection that does nothing in this phase. Returns a check whether it is still open.
    fn add(table: &mut Table, phase: Phase) -> impl Fn() -> bool + use<> {
        let held = Arc::new(());
        let alive = Arc::downgrade(&held);
        table.add(|progress| {
            progress.enter(phase);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        move || alive.strong_count() > 0
    }

    async fn pass(milliseconds: u64) {
        sleep(Duration::from_millis(milliseconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_did_nothing_for_longest_makes_room() {
        let mut table = Table::default();
        let answering = add(&mut table, Phase::Answering);
        pass(1).await;
        let idle = add(&mut table, Phase::Idle);
        pass(1).await;
        let writing = add(&mut table, Phase::Writing);
        pass(100).await;
        let others: Vec<_> = (3..CONNECTIONS).map(|_| add(&mut table, Phase::Head)).collect();
        for expected in [[true, false, true], [true, false, false]] {
            table.make_room().await;
            drop(add(&mut table, Phase::Head));
            pass(1).await;
            assert_eq!([answering(), idle(), writing()], expected);
        }
        assert!(others.iter().all(|is_there| is_there()));
        assert_eq!(table.entries.len(), CONNECTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_one_is_never_kept_out_for_longer_than_the_grace() {
        let mut table = Table::default();
        for _ in 0..10 * CONNECTIONS {
            let began = Instant::now();
            table.make_room().await;
            // Timers have a millisecond's precision.
            assert!(began.elapsed() <= GRACE + Duration::from_millis(2), "{:?}", began.elapsed());
            drop(add(&mut table, Phase::Answering));
            assert!(table.entries.len() <= CONNECTIONS);
        }
        pass(1).await;
        table.make_room().await;
        assert!(table.tasks.len() <= CONNECTIONS, "those that were closed are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn without_file_descriptors_there_are_fewer_for_a_while() {
        let mut table = Table::default();
        for _ in 0..40 {
            drop(add(&mut table, Phase::Idle));
        }
        pass(100).await;
        table.want().await;
        assert_eq!(table.entries.len(), 32);
        for (pause, expected) in [(0, 32), (60_000, 33)] {
            pass(pause).await;
            table.make_room().await;
            drop(add(&mut table, Phase::Idle));
            assert_eq!(table.entries.len(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn young_ones_are_let_speak() {
        let mut table = Table::default();
        let young: Vec<_> = (0..CONNECTIONS).map(|_| add(&mut table, Phase::Idle)).collect();
        assert!(!table.close_one());
        pass(10).await;
        assert!(young.iter().all(|is_there| is_there()));
    }
}
