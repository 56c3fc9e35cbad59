//! Long-lived tasks that must not end by themselves: if one does, by a panic or otherwise, the owner learns which.
//!
//! Only detects it. The caller decides what to do: end the process visibly.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::AppError;

/// Tasks that live and end together. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lifelines {
    shared: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether they may end now.
    may_end: bool,
    /// The first that ended too early.
    ended: Option<(&'static str, bool)>,
}

/// Dropped with its task.
struct Lifeline {
    what: &'static str,
    lifelines: Lifelines,
}

impl Lifelines {
    pub(super) fn new() -> Self {
        Self { shared: Arc::new(watch::Sender::default()) }
    }

    /// Starts a task, which must not end before [`Lifelines::may_end`].
    pub(super) fn spawn<F>(&self, what: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let lifeline = Lifeline { what, lifelines: self.clone() };
        tokio::spawn(async move {
            let _lifeline = lifeline;
            task.await
        })
    }

    /// The tasks are being stopped and may end.
    pub(super) fn may_end(&self) {
        self.shared.send_modify(|state| state.may_end = true);
    }

    /// The task that ended too early, if any.
    pub(super) fn failure(&self) -> Option<AppError> {
        let (what, panicked) = self.shared.borrow().ended?;
        Some(AppError::Ended { what, how: if panicked { "panicked" } else { "ended by itself" } })
    }

    /// Waits until a task ends too early; for ever if none does.
    pub(super) fn failed(&self) -> impl Future<Output = AppError> + use<> {
        let (lifelines, mut changes) = (self.clone(), self.shared.subscribe());
        async move {
            loop {
                if let Some(error) = lifelines.failure() {
                    return error;
                }
                // The sender is in `lifelines`, so this cannot fail.
                let _ = changes.changed().await;
            }
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.lifelines.shared.send_if_modified(|state| {
            let is_news = !state.may_end && state.ended.is_none();
            if is_news {
                state.ended = Some((self.what, panicked));
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Start<'a> = &'a dyn Fn(&Lifelines) -> tokio::task::AbortHandle;

    #[tokio::test]
    async fn a_task_that_panics_ends_or_is_aborted_is_named() {
        let panics = |lifelines: &Lifelines| {
            lifelines.spawn("the one", async { panic!("as scripted") }).abort_handle()
        };
        let ends = |lifelines: &Lifelines| lifelines.spawn("the one", async {}).abort_handle();
        let aborted = |lifelines: &Lifelines| {
            let task = lifelines.spawn("the one", std::future::pending::<()>()).abort_handle();
            task.abort();
            task
        };
        for (start, how) in [
            (&panics as Start<'_>, "the one panicked"),
            (&ends, "the one ended by itself"),
            (&aborted, "the one ended by itself"),
        ] {
            let lifelines = Lifelines::new();
            let _well = lifelines.spawn("the other", std::future::pending::<()>());
            let failed = lifelines.failed();
            start(&lifelines);
            assert!(failed.await.to_string().starts_with(how));
            assert!(lifelines.failed().await.to_string().starts_with(how), "it stays known");
        }
    }

    #[tokio::test]
    async fn what_is_stopped_may_end() {
        let lifelines = Lifelines::new();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = lifelines.spawn("the one", stopped);
        lifelines.may_end();
        drop(stop);
        let _ = task.await;
        assert!(lifelines.failure().is_none());
    }
}
