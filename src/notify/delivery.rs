//! From the outbox to the channels: claim, send, record. At least once, one worker a channel.
//!
//! Owns the set of workers. Each channel has one of its own (`worker`), so that a slow or dead one delays no other; a
//! channel that is configured differently gets a new one while the old one finishes what it has begun.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Channel;
use super::attempt::{Context, Shared};
use super::worker::Worker;
use crate::clock::WallClock;
use crate::store::{ChannelName, Outbox, Owner, Routes};

/// The pause before a worker that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Ends the workers once nothing is due before the moment given.
pub type Drain = watch::Sender<Option<Instant>>;

/// An attempt that was made, for whoever counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The channel.
    pub channel: ChannelName,
    /// `webhook`, `desktop`, `log` or `command`.
    pub kind: &'static str,
    /// What came of it.
    pub outcome: ToldOutcome,
    /// How long it took.
    pub took: Duration,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldOutcome {
    /// The receiver has it.
    Delivered,
    /// It failed and is tried again.
    Retried,
    /// The receiver asked to wait: it is tried again, and this attempt does not count.
    Held,
    /// Given up after the last attempt.
    Exhausted,
    /// Given up because it can never be delivered there.
    Undeliverable,
    /// Given up because the receiver wants nothing more.
    Disabled,
    /// Not tried again: the end of its run has overtaken it.
    Superseded,
}

impl ToldOutcome {
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

/// The notifying half: all channels' workers.
pub struct Delivery {
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    drain: Drain,
    changes: Option<mpsc::Receiver<Vec<Channel>>>,
}

impl Delivery {
    /// Workers for these channels. None runs yet.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        channels: Vec<Channel>,
        routes: watch::Receiver<Routes>,
        wall: WallClock,
    ) -> Self {
        // Unique among the owners of a store: the process and the moment it began.
        let owner = Owner(format!("{}-{}", std::process::id(), wall().as_microsecond()).into());
        let shared = Shared { outbox, owner, wall, routes, told: None, in_hand: Mutex::default() };
        Self { shared: Arc::new(shared), channels, drain: watch::Sender::new(None), changes: None }
    }

    /// The handle that ends the workers in good order.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Tells every attempt there.
    #[must_use]
    pub fn telling(mut self, told: mpsc::UnboundedSender<Told>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.told = Some(told);
        }
        self
    }

    /// Takes other channels from there, in place of all that there are.
    #[must_use]
    pub fn changing(mut self, changes: mpsc::Receiver<Vec<Channel>>) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Works until cancelled or drained. What is cut off stays in the outbox.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { shared, channels, drain, mut changes } = self;
        let mut crew = Crew { shared, drain, cancel, workers: JoinSet::new(), posts: HashMap::new() };
        crew.set(channels);
        let mut drained = crew.drain.subscribe();
        let cancel = crew.cancel.clone();
        // Without channels there is nothing to end, and still channels may come.
        while !(crew.workers.is_empty() && (crew.drain.borrow().is_some() || cancel.is_cancelled())) {
            let change = async {
                match &mut changes {
                    Some(changes) => changes.recv().await,
                    None => None,
                }
            };
            tokio::select! {
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
    /// Who works where.
    posts: HashMap<Id, Post>,
}

/// A worker's place.
struct Post {
    context: Arc<Context>,
    /// Ends it when it has finished what it has begun.
    retire: CancellationToken,
}

impl Crew {
    /// Has a worker for each of these channels and for no other. One that is configured as before, and is to try again when it
    /// was, keeps its worker.
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
            // A worker that panics does not leave its channel silent.
            Err(panic) => {
                let Some(post) = self.posts.remove(&panic.id()) else { return };
                let channel = &post.context.channel.name;
                error!(%channel, "the delivery worker of {channel} panicked and is started again: {panic}");
                self.start(post, RESTART_PAUSE);
            }
        }
    }
}
