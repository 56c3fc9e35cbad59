//! One more look at everything, when a deadline passes.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::scheduler::Scheduler;

/// A look that is being taken.
pub(super) struct LastLook {
    /// Runs that have not been looked at yet.
    remaining: BTreeSet<u32>,
    /// Those of them of which something older is being recorded: it does not count.
    stale: BTreeSet<u32>,
    reply: oneshot::Sender<()>,
}

impl LastLook {
    /// Whether a run's next poll is part of this look.
    pub(super) fn includes(&self, index: u32) -> bool {
        self.remaining.contains(&index)
    }
}

impl Scheduler {
    /// Makes every run due that the API has not asked to leave alone. Polls under way began too early to count, and may
    /// hang: they are broken off and made again.
    pub(super) fn look_once_more(&mut self, reply: oneshot::Sender<()>) {
        self.break_off_list();
        let now = Instant::now();
        let recalled = self.slots.recall(now);
        for task in &recalled.tasks {
            self.polled.remove(task);
        }
        let stale: BTreeSet<u32> = recalled.recording.into_iter().collect();
        let remaining = recalled.due.into_iter().chain(stale.iter().copied()).collect();
        let look = LastLook { remaining, stale, reply };
        let held = self.limiter.is_held(now);
        self.last_look = Some(look);
        if held {
            self.end_look();
        }
        self.end_look_if_done();
    }

    /// Ticks a run off the look, or sends it round once more if what came of it is older than the look.
    pub(super) fn looked_at(&mut self, index: u32) {
        let Some(look) = &mut self.last_look else { return };
        let slot = self.slots.get(index);
        let may_ask = slot
            .is_some_and(|slot| slot.is_active() && slot.not_before.is_none_or(|at| at <= Instant::now()));
        if look.stale.remove(&index) && may_ask {
            self.slots.schedule(index, Instant::now());
            return;
        }
        look.remaining.remove(&index);
        self.end_look_if_done();
    }

    /// The API wants no more requests: the look is over as far as it has come.
    pub(super) fn end_look(&mut self) {
        if let Some(look) = &mut self.last_look {
            look.remaining.clear();
            look.stale.clear();
        }
    }

    fn end_look_if_done(&mut self) {
        if let Some(look) = self.last_look.take_if(|look| look.remaining.is_empty()) {
            // Whoever asked may have given up waiting.
            let _ = look.reply.send(());
        }
    }
}
