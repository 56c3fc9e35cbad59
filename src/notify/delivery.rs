//! Delivers events from the outbox to the channels: claim, send, record. At least once, with one worker per channel.
//!
//! Owns the set of workers. Each channel has its own (`worker`), so a slow or dead channel delays no other. A
//! reconfigured channel gets a new worker, while the old one finishes its attempts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Channel;
pub use super::attempt::Made;
use super::attempt::{Context, Shared};
use super::worker::Worker;
use crate::clock::WallClock;
use crate::store::{ChannelName, Outbox, Owner, Routes};

/// Pause before a worker that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Ends the workers once nothing is due before the given time.
pub type Drain = watch::Sender<Option<Instant>>;

/// A finished attempt, for the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The channel.
    pub channel: ChannelName,
    /// `webhook`, `desktop`, `log` or `command`.
    pub kind: &'static str,
    /// The result.
    pub outcome: AttemptOutcome,
    /// How long the attempt took.
    pub took: Duration,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver accepted it.
    Delivered,
    /// It failed and is retried.
    Retried,
    /// The receiver asked to wait. It is retried, and this attempt does not count.
    Held,
    /// Given up after the last attempt.
    Exhausted,
    /// Given up, because it can never be delivered to this channel.
    Undeliverable,
    /// Given up, because the receiver refuses everything.
    Disabled,
    /// Not retried, because the end of its run supersedes it.
    Superseded,
}

impl AttemptOutcome {
    /// Every outcome, for counters that start at 0.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Retried,
        Self::Held,
        Self::Exhausted,
        Self::Undeliverable,
        Self::Disabled,
        Self::Superseded,
    ];
}

/// Runs the workers of all channels.
pub struct Dispatcher {
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    drain: Drain,
    changes: Option<mpsc::Receiver<Vec<Channel>>>,
}

impl Dispatcher {
    /// Workers for these channels, not started yet.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        channels: Vec<Channel>,
        routes: watch::Receiver<Routes>,
        wall: WallClock,
    ) -> Self {
        // Unique among the owners of a store: the process id and its start time.
        let owner = Owner(format!("{}-{}", std::process::id(), wall().as_microsecond()).into());
        let shared = Shared {
            outbox,
            owner,
            wall,
            routes,
            reports: None,
            in_hand: Mutex::default(),
            made: Made::default(),
        };
        Self { shared: Arc::new(shared), channels, drain: watch::Sender::new(None), changes: None }
    }

    /// The handle that ends the workers.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// The deliveries made but not recorded, while the workers run and after they have ended.
    pub fn made(&self) -> Made {
        self.shared.made.clone()
    }

    /// Sends every attempt there.
    #[must_use]
    pub fn reporting(mut self, reports: mpsc::UnboundedSender<AttemptReport>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.reports = Some(reports);
        }
        self
    }

    /// Receives new sets of channels, which replace all current ones.
    #[must_use]
    pub fn changing(mut self, changes: mpsc::Receiver<Vec<Channel>>) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Runs until cancelled or drained. Unfinished deliveries stay in the outbox.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { shared, channels, drain, mut changes } = self;
        let mut crew = Crew { shared, drain, cancel, workers: JoinSet::new(), posts: HashMap::new() };
        crew.set(channels);
        let mut drained = crew.drain.subscribe();
        let cancel = crew.cancel.clone();
        // Without channels it keeps running, because channels may be added.
        while !(crew.workers.is_empty() && (crew.drain.borrow().is_some() || cancel.is_cancelled())) {
            let change = async {
                match &mut changes {
                    Some(changes) => changes.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                biased;
                Some(ended) = crew.workers.join_next_with_id() => crew.ended(ended),
                Some(channels) = change => crew.set(channels),
                Ok(()) = drained.changed() => {}
                () = cancel.cancelled(), if !cancel.is_cancelled() => {}
            }
        }
    }
}

/// The workers.
struct Crew {
    shared: Arc<Shared>,
    drain: Drain,
    cancel: CancellationToken,
    workers: JoinSet<()>,
    /// The worker of each channel.
    posts: HashMap<Id, Post>,
}

/// A worker and its channel.
struct Post {
    context: Arc<Context>,
    /// Ends the worker after its attempts in flight.
    retire: CancellationToken,
}

impl Crew {
    /// Replaces the set of workers by one for each of these channels. A channel with the same configuration and retry
    /// schedule keeps its worker.
    fn set(&mut self, channels: Vec<Channel>) {
        let mut kept = Vec::new();
        for post in self.posts.values() {
            let channel = &post.context.channel;
            let stays = channels.iter().any(|new| {
                new.name == channel.name
                    && new.fingerprint == channel.fingerprint
                    && new.schedule == channel.schedule
                    && !post.retire.is_cancelled()
            });
            if stays {
                kept.push(channel.name.clone());
            } else {
                post.retire.cancel();
            }
        }
        for channel in channels {
            if !kept.contains(&channel.name) {
                let context = Arc::new(Context::new(Arc::clone(&self.shared), channel));
                self.start(Post { context, retire: CancellationToken::new() }, Duration::ZERO);
            }
        }
    }

    fn start(&mut self, post: Post, after: Duration) {
        let worker = Worker::new(Arc::clone(&post.context), self.drain.subscribe(), post.retire.clone());
        let id = self.workers.spawn(worker.run(self.cancel.clone(), after)).id();
        self.posts.insert(id, post);
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        match ended {
            Ok((id, ())) => drop(self.posts.remove(&id)),
            // After a panic, the channel gets a new worker.
            Err(panic) => {
                let Some(post) = self.posts.remove(&panic.id()) else { return };
                let channel = &post.context.channel.name;
                error!(%channel, "the delivery worker of {channel} panicked and is started again: {panic}");
                self.start(post, RESTART_PAUSE);
            }
        }
    }
}
