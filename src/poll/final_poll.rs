//! The final poll of every run when a deadline passes: which runs are left to poll, and who waits for the result.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

/// The final poll in progress, if any.
#[derive(Debug, Default)]
pub(super) struct FinalPoll(Option<Pending>);

#[derive(Debug)]
struct Pending {
    /// Runs that are not polled yet.
    remaining: BTreeSet<u32>,
    /// Those of `remaining` with an older answer still being recorded. That answer does not count.
    stale: BTreeSet<u32>,
    reply: oneshot::Sender<()>,
}

impl FinalPoll {
    /// Starts the final poll of the `due` runs, and of the runs with an older answer still being `recording`.
    pub(super) fn begin(&mut self, due: Vec<u32>, recording: Vec<u32>, reply: oneshot::Sender<()>) {
        let stale: BTreeSet<u32> = recording.into_iter().collect();
        let remaining = due.into_iter().chain(stale.iter().copied()).collect();
        self.0 = Some(Pending { remaining, stale, reply });
    }

    /// Whether a final poll is in progress.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a run's next poll is part of it.
    pub(super) fn includes(&self, run: u32) -> bool {
        self.0.as_ref().is_some_and(|poll| poll.remaining.contains(&run))
    }

    /// A run's answer is recorded. Returns whether to poll the run again because that answer is older than the final
    /// poll. `may_ask` is whether a request is allowed.
    pub(super) fn saw(&mut self, run: u32, may_ask: bool) -> bool {
        let Some(poll) = &mut self.0 else { return false };
        if poll.stale.remove(&run) && may_ask {
            return true;
        }
        poll.remaining.remove(&run);
        self.answer_if_done();
        false
    }

    /// The API accepts no more requests, so the final poll ends here. The reply is sent with the next run that is
    /// recorded.
    pub(super) fn cut_short(&mut self) {
        if let Some(poll) = &mut self.0 {
            poll.remaining.clear();
            poll.stale.clear();
        }
    }

    /// Replies if every run has been polled.
    pub(super) fn answer_if_done(&mut self) {
        if let Some(poll) = self.0.take_if(|poll| poll.remaining.is_empty()) {
            // The receiver may have stopped waiting.
            let _ = poll.reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn begun(due: Vec<u32>, recording: Vec<u32>) -> (FinalPoll, oneshot::Receiver<()>) {
        let (reply, done) = oneshot::channel();
        let mut poll = FinalPoll::default();
        poll.begin(due, recording, reply);
        (poll, done)
    }

    #[test]
    fn it_is_over_when_every_run_was_seen() {
        let (mut poll, mut done) = begun(vec![1, 2], Vec::new());
        assert!(poll.includes(1) && !poll.includes(3));
        assert!(!poll.saw(1, true) && !poll.saw(3, true));
        assert_eq!(done.try_recv(), Err(TryRecvError::Empty));
        assert!(!poll.saw(2, true) && !poll.is_under_way());
        assert_eq!(done.try_recv(), Ok(()));
    }

    #[test]
    fn what_was_being_recorded_is_polled_once_more_if_it_may_be() {
        let (mut poll, mut done) = begun(Vec::new(), vec![1, 2]);
        assert!(poll.saw(1, true), "older than the poll");
        assert!(!poll.saw(1, true));
        assert_eq!(done.try_recv(), Err(TryRecvError::Empty));
        assert!(!poll.saw(2, false));
        assert_eq!(done.try_recv(), Ok(()));
    }

    #[test]
    fn cut_short_it_is_over_with_the_next_run() {
        let (mut poll, mut done) = begun(vec![1, 2, 3], Vec::new());
        poll.cut_short();
        assert_eq!(done.try_recv(), Err(TryRecvError::Empty));
        poll.saw(1, true);
        assert_eq!(done.try_recv(), Ok(()));
    }
}
