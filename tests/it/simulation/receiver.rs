//! A scripted receiver: what it took, what it refuses, and what it checks about what comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runwatch::BoxFuture;
use runwatch::notify::{Channel, Notice, Notifier, NotifyError, Retry, RetrySchedule};
use runwatch::run::{EventId, EventKind, RunId};
use runwatch::secret::KnownSecrets;
use tokio::time::sleep;

use super::ledger::Ledger;
use super::plan::{CALM, Kind, MINUTE, Plan, Trouble};
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// An attempt is broken off after this time.
const ATTEMPT: Duration = Duration::from_secs(20);

pub struct Receiver {
    world: Arc<World>,
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    pub name: &'static str,
    nth: usize,
    came: Mutex<Came>,
}

#[derive(Default)]
struct Came {
    /// What it took, in order, with the bytes.
    taken: Vec<(EventId, Arc<str>)>,
    /// The runs with an event under way.
    under_way: BTreeSet<RunId>,
    /// Until when it wants nothing, when it said so, and in which life.
    closed: Option<Pause>,
    /// The same for single events.
    later: BTreeMap<EventId, Pause>,
}

#[derive(Clone, Copy)]
struct Pause {
    until: Duration,
    said: Duration,
    life: u32,
}

struct UnderWay<'a>(&'a Receiver, Option<RunId>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(run) = &self.1 {
            self.0.came().under_way.remove(run);
        }
    }
}

impl Receiver {
    pub fn new(world: &Arc<World>, plan: &Arc<Plan>, ledger: &Arc<Ledger>, nth: usize) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            plan: Arc::clone(plan),
            ledger: Arc::clone(ledger),
            name: ["first", "second"][nth],
            nth,
            came: Mutex::default(),
        })
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap()
    }

    /// What kind of receiver it is.
    pub fn kind(&self) -> Kind {
        if self.nth == 0 { Kind::Sound } else { self.plan.second }
    }

    pub fn channel(self: &Arc<Self>) -> Channel {
        let pauses = [SECOND, SECOND * 10, MINUTE, MINUTE * 5].into_iter().chain([MINUTE * 10; 50]);
        Channel {
            name: self.name.into(),
            kind: "webhook",
            notifier: Arc::clone(self) as _,
            concurrency: 2,
            timeout: ATTEMPT,
            schedule: Arc::new(RetrySchedule::after(&pauses.collect::<Vec<_>>())),
            gather: if self.kind() == Kind::Gathers { SECOND * 30 } else { Duration::ZERO },
            fingerprint: "as it is".into(),
            formerly: Vec::new(),
            known: KnownSecrets::default(),
        }
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<(EventId, Arc<str>)> {
        self.came().taken.clone()
    }

    /// Whether it can never take this event.
    pub fn can_never_take(&self, id: &EventId) -> bool {
        self.kind() == Kind::Picky && id.as_str().as_bytes()[4].is_multiple_of(3)
    }

    /// Checks that an event may come now.
    fn arrives(&self, notice: &Notice) -> UnderWay<'_> {
        let (now, life) = (self.world.now(), self.world.life());
        let run = notice.payload.data.run_id.clone();
        let run = run.filter(|_| notice.payload.kind != EventKind::DeliveryFailed);
        self.ledger.comes(self.name, notice);
        let mut came = self.came();
        let holds = |pause: &&Pause| now < pause.until && pause.said < now;
        let same_life = |pause: &&Pause| pause.life == life;
        let closed = came.closed.as_ref().filter(holds).filter(same_life);
        let later = came.later.get(&notice.event_id).filter(holds).filter(same_life);
        // The store keeps microseconds.
        let after = now + Duration::from_micros(1);
        let recorded = self.ledger.not_before(self.name, &notice.event_id).filter(|until| after < *until);
        for pause in [closed, later].into_iter().flatten() {
            self.world.broken(format_args!("{} was sent to before {:?}", self.name, pause.until));
        }
        if let Some(until) = recorded {
            self.world.broken(format_args!("{} was sent to before {until:?}, as recorded", self.name));
        }
        if let Some(run) = &run
            && !came.under_way.insert(run.clone())
        {
            self.world.broken(format_args!("two events of {run} are under way to {}", self.name));
        }
        drop(came);
        UnderWay(self, run)
    }

    fn takes(&self, notice: &Notice) {
        self.ledger.taken(self.name, notice);
        self.came().taken.push((notice.event_id.clone(), Arc::clone(&notice.json)));
    }

    fn asks_to_wait(&self, notice: &Notice) -> NotifyError {
        let wait = self
            .world
            .draw(|dice| Duration::from_secs(if dice.bool() { dice.u64(1..30) } else { dice.u64(1..900) }));
        let pause = Pause { until: self.world.now() + wait, said: self.world.now(), life: self.world.life() };
        let mut came = self.came();
        came.later.insert(notice.event_id.clone(), pause);
        match self.world.draw(|dice| dice.u8(..4)) {
            0 => {
                came.closed = Some(pause);
                NotifyError::new(Retry::SlowDown(Some(wait)), "429")
            }
            1 => {
                came.later.remove(&notice.event_id);
                NotifyError::new(Retry::SlowDown(None), "429")
            }
            2 => NotifyError::new(Retry::Unavailable(wait), "503"),
            _ => NotifyError::new(Retry::NotBefore(Some(wait)), "500"),
        }
    }

    /// Its answer to an event, which it may have taken all the same.
    async fn answer(&self, notice: &Notice) -> Result<(), NotifyError> {
        let now = self.world.now();
        if let Kind::Finished(from) = self.kind()
            && now >= from
        {
            return Err(NotifyError::new(Retry::Disable, "410"));
        }
        if self.can_never_take(&notice.event_id) {
            return Err(NotifyError::new(Retry::Undeliverable, "400"));
        }
        let trouble = match Plan::trouble(&self.plan.receivers[self.nth], now) {
            Some(trouble) => Some(trouble),
            None => (now < CALM && self.world.chance(self.plan.bad / 2.0)).then_some(Trouble::Mixed),
        };
        let trouble = match trouble {
            Some(Trouble::Mixed) => self.world.draw(|dice| {
                *dice.choice(&[Trouble::Down, Trouble::Hangs, Trouble::Throttles, Trouble::Page]).unwrap()
            }),
            Some(other) => other,
            None => {
                self.takes(notice);
                return Ok(());
            }
        };
        match trouble {
            Trouble::Hangs => {
                sleep(MINUTE).await;
                Ok(())
            }
            Trouble::Throttles | Trouble::Refuses => Err(self.asks_to_wait(notice)),
            // It takes it, and the connection breaks before it can say so.
            Trouble::Page => {
                self.takes(notice);
                Err(NotifyError::retryable("reset"))
            }
            Trouble::Down | Trouble::Mixed => Err(NotifyError::retryable("500")),
        }
    }
}

impl Notifier for Receiver {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let id = &notice.event_id;
            self.world.step(format!("send {} {id} {}", self.name, notice.payload.kind)).await;
            let under_way = self.arrives(notice);
            sleep(Duration::from_millis(self.world.draw(|dice| dice.u64(..300)))).await;
            let answer = self.answer(notice).await;
            drop(under_way);
            let retry = answer.as_ref().err().map(|error| error.retry);
            self.world.step(format!("sent {} {id} {retry:?}", self.name)).await;
            answer
        })
    }
}
