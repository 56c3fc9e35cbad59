//! Runs work that blocks on a thread of its own, for the few places that need one now and then.
//!
//! Not tokio's `spawn_blocking`: that panics when the machine is short of threads, and here it is an error like another, of
//! the one call that needed the thread. What has to work at all times has its own thread from the start instead, as the
//! store does.

use std::io;

use tokio::sync::oneshot;

/// Runs `work` on a new thread of this name. An error is that the thread could not be started, or that `work` panicked.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    // Whoever waits for it may give up meanwhile.
    let run = move || drop(reply.send(work()));
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread: {error}")))?;
    answer.await.map_err(|_| io::Error::other(format!("the thread `{name}` panicked")))
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
