//! One more look at everything, when a deadline passes.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::scheduler::Scheduler;
use super::slots::Slot;

/// A look that is being taken.
pub(super) struct LastLook {
    /// Runs that have not been looked at yet.
    remaining: BTreeSet<u32>,
    /// Those of them whose poll under way began too early to count.
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
    /// Makes every run due that the API has not asked to leave alone.
    pub(super) fn look_once_more(&mut self, reply: oneshot::Sender<()>) {
        let now = Instant::now();
        let held = self.limiter.is_held(now);
        let mut look = LastLook { remaining: BTreeSet::new(), stale: BTreeSet::new(), reply };
        for (index, busy) in self.slots.active_runs() {
            let not_before = self.slots.get(index).and_then(|slot| slot.not_before);
            if held || not_before.is_some_and(|at| at > now) {
                continue;
            }
            look.remaining.insert(index);
            if busy {
                look.stale.insert(index);
            } else {
                self.slots.schedule(index, now);
            }
        }
        self.last_look = Some(look);
        self.end_look_if_done();
    }

    /// Ticks a run off the look, or sends it round once more if its poll began before the look did.
    pub(super) fn looked_at(&mut self, index: u32) {
        let Some(look) = &mut self.last_look else { return };
        if look.stale.remove(&index) && self.slots.get(index).is_some_and(Slot::is_active) {
            self.slots.schedule(index, Instant::now());
            return;
        }
        look.remaining.remove(&index);
        self.end_look_if_done();
    }

    fn end_look_if_done(&mut self) {
        if let Some(look) = self.last_look.take_if(|look| look.remaining.is_empty()) {
            // Whoever asked may have given up waiting.
            let _ = look.reply.send(());
        }
    }
}
