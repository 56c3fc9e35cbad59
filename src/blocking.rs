//! Runs blocking work on a new thread, for the few places that need this occasionally.
//!
//! Not tokio's `spawn_blocking`, which panics if the machine is short of threads. Here, that is an error of the one
//! call that needs a thread. Parts that must always work start their own thread early, as the store does.

use std::io;

use tokio::sync::oneshot;

/// What to do about a shortage of threads, to follow an error.
pub const ADVICE: &str = "; the user has too many processes or threads: see TasksMax and LimitNPROC of the service (ulimit -u), then try again";

/// Runs `work` on a new thread of this name. Fails if the thread cannot be started, or if `work` panics.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    // The caller may be gone.
    let run = move || drop(reply.send(work()));
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread: {error}")))?;
    answer.await.map_err(|_| io::Error::other(format!("the thread `{name}` panicked")))
}

/// Whether an error of [`run`] is a shortage of threads.
pub fn is_shortage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_result_and_a_panic_is_an_error() {
        assert_eq!(run("adder", || 1 + 1).await.unwrap(), 2);
        let error = run("broken", || panic!("a bug")).await.map(|()| 0).unwrap_err();
        assert_eq!(error.to_string(), "the thread `broken` panicked");
    }
}
