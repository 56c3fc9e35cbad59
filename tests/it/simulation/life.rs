//! One life of the daemon: it starts on what the store has, works until it is killed or stopped, and restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runwatch::clock::WallClock;
use runwatch::notify::Dispatcher;
use runwatch::poll::{Alerts, Command, Curve, Mode, OutagesTold, Policy, Scheduler, Settings, Update};
use runwatch::run::{Patience, RunChange, Subject};
use runwatch::store::{Origin, Outbox, Route, Routes, RunStore, SqliteStore, Watched};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::api::{AT_ONCE, Api};
use super::ledger::{Ledger, SOURCE};
use super::plan::{Action, CALM, DAY, GRACE, HOUR, MINUTE, Plan, YEAR, between};
use super::receiver::Receiver;
use super::store::Door;
use super::world::World;

/// Minimum time between two warnings about one problem.
pub const REMIND: Duration = DAY.saturating_mul(5);

/// Everything of one seed.
pub struct Stage {
    pub world: Arc<World>,
    pub plan: Arc<Plan>,
    pub api: Arc<Api>,
    pub ledger: Arc<Ledger>,
    pub receivers: [Arc<Receiver>; 2],
    /// The directory of the store, and the number of its files so far; `None` in memory.
    dir: Option<(tempfile::TempDir, u32)>,
    pub store: SqliteStore,
    /// The number of actions that are done.
    done: usize,
}

/// How a life ends.
#[derive(Clone, Copy)]
enum End {
    /// Killed after so many steps.
    Steps(u32),
    /// Killed at this time.
    Kill(Duration),
    /// Stopped in order at this time.
    Stop(Duration),
}

impl Stage {
    pub fn new(seed: u64, talks: bool) -> Self {
        let world = Arc::new(World::new(seed, talks));
        let plan = Arc::new(Plan::of(seed, &world));
        let api = Arc::new(Api::new(Arc::clone(&world), Arc::clone(&plan)));
        let ledger = Ledger::new(&world, &api);
        let receivers = [0, 1].map(|nth| Receiver::new(&world, &plan, &ledger, nth));
        let dir = plan.on_disk.then(|| (tempfile::tempdir().unwrap(), 0));
        let store = match &dir {
            Some(dir) => SqliteStore::open(&file(dir)).unwrap(),
            None => SqliteStore::in_memory().unwrap(),
        };
        Self { world, plan, api, ledger, receivers, dir, store, done: 0 }
    }

    /// The whole year.
    pub fn play(&mut self) {
        for nth in 0..self.plan.lives {
            if self.world.now() >= CALM {
                break;
            }
            if !self.world.verdict().is_empty() {
                return;
            }
            let end = self.end_of_life(nth);
            self.live(end);
            self.reopen();
        }
        self.live(End::Stop(YEAR));
    }

    fn end_of_life(&self, nth: usize) -> End {
        let (now, left) = (self.world.now(), (self.plan.lives - nth) as f64);
        let runs = &self.plan.runs;
        self.world.draw(|dice| {
            // Somewhere, or a while after something happened to a run.
            let of = dice.choice(runs).unwrap();
            let event = *dice.choice(&[of.added_at, of.ends_at]).unwrap();
            let at = if event > now && event < CALM && dice.bool() {
                event + between(dice, Duration::from_millis(1), HOUR * 30)
            } else {
                now + (CALM - now).mul_f64(dice.f64() / left)
            };
            match dice.u8(..5) {
                0 => End::Stop(at.min(CALM)),
                1 | 2 => End::Kill(at.min(CALM)),
                _ => End::Steps(dice.u32(1..300)),
            }
        })
    }

    /// A killed process leaves its files as they are.
    fn reopen(&mut self) {
        let Some(dir) = &mut self.dir else { return };
        let old = file(dir);
        dir.1 += 1;
        let new = file(dir);
        for part in ["", "-wal"] {
            let name = |path: &PathBuf| PathBuf::from(format!("{}{part}", path.display()));
            // A store that was closed has no log.
            let _ = std::fs::copy(name(&old), name(&new));
        }
        self.store = SqliteStore::open(&new).unwrap();
    }

    fn live(&mut self, end: End) {
        let down = self.world.draw(|dice| between(dice, Duration::from_secs(1), HOUR * 6));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let steps = if let End::Steps(steps) = &end { Some(*steps) } else { None };
        let (until, kills) = match end {
            End::Steps(_) => (YEAR, false),
            End::Kill(at) => (at, true),
            End::Stop(at) => (at, false),
        };
        let world = Arc::clone(&self.world);
        runtime.block_on(async {
            world.begin(down, steps);
            self.api.new_life();
            tokio::select! {
                biased;
                () = world.killed() => world.say(format_args!("killed")),
                () = self.work(until, kills) => {}
            }
            world.end();
        });
    }

    async fn work(&mut self, until: Duration, kills: bool) {
        let door = Arc::new(Door::new(self.store.clone(), &self.world, &self.ledger));
        let life = loop {
            if let Some(life) = Life::start(self, &door).await {
                break life;
            }
            // The service manager starts it again.
            sleep(MINUTE).await;
        };
        while let Some((at, action)) = self.plan.actions.get(self.done).copied()
            && at < until
        {
            self.world_until(at).await;
            self.act(&life, &door, action).await;
            self.done += 1;
        }
        self.world_until(until).await;
        if kills {
            self.world.kill();
            std::future::pending::<()>().await;
        }
        life.stop(self).await;
    }

    async fn world_until(&self, at: Duration) {
        if self.world.now() < CALM && at > CALM {
            sleep(CALM - self.world.now()).await;
            self.world.spare();
        }
        sleep(at.saturating_sub(self.world.now())).await;
    }

    async fn act(&self, life: &Life, door: &Door, action: Action) {
        self.world.step(format!("{action:?}")).await;
        let _ = match action {
            Action::Add(nth) => {
                let course = &self.plan.runs[nth];
                let subject = Subject { id: course.id.clone(), name: None };
                let run = Watched {
                    deadline: course.deadline,
                    origin: Origin::Added,
                    ..Watched::new(subject, self.world.wall())
                };
                let known = loop {
                    // A user tries again.
                    match door.add(vec![run.clone()]).await {
                        Ok(known) => break known,
                        Err(_) => sleep(MINUTE).await,
                    }
                };
                let active = known.into_iter().filter(|run| run.state.ended.is_none()).collect();
                life.commands.send(Command::Add(active)).await
            }
            Action::Resume => {
                self.api.broken_off();
                life.commands.send(Command::Resumed).await
            }
            Action::FinalPoll => {
                self.api.broken_off();
                life.commands.send(Command::FinalPoll(oneshot::channel().0)).await
            }
        };
    }
}

fn file(dir: &(tempfile::TempDir, u32)) -> PathBuf {
    dir.0.path().join(format!("{}.db", dir.1))
}

/// A process at work.
struct Life {
    commands: mpsc::Sender<Command>,
    scheduler: JoinHandle<Vec<runwatch::poll::FinalRun>>,
    delivery: JoinHandle<()>,
    stop_polling: CancellationToken,
    stop_delivering: CancellationToken,
}

impl Life {
    /// Starts as the daemon does; `None` if the store fails.
    async fn start(stage: &Stage, door: &Arc<Door>) -> Option<Self> {
        let channels: Vec<_> = stage.receivers.iter().map(Receiver::channel).collect();
        let routes =
            Routes::new(channels.iter().map(|channel| Route { channel: channel.name.clone(), events: None }));
        let routes = routes.fixed();
        let runs = door.load().await.ok()?;
        let told = OutagesTold::load(&**door).await.ok()?;
        let world = Arc::clone(&stage.world);
        let wall: WallClock = Arc::new(move || world.wall());
        let (updates, mut updated) = mpsc::unbounded_channel();
        let (commands, receiver) = mpsc::channel(16);
        let settings = settings(&stage.plan, routes.clone());
        let runs_of = Arc::clone(door) as Arc<dyn RunStore>;
        let mut scheduler = Scheduler::new(settings, Arc::clone(&stage.api) as _, runs_of, updates, receiver)
            .with_wall(Arc::clone(&wall));
        scheduler.outages_were_told(told);
        for run in runs.into_iter().filter(|run| run.state.ended.is_none()) {
            scheduler.watch(run);
        }
        let (ledger, world) = (Arc::clone(&stage.ledger), Arc::clone(&stage.world));
        tokio::spawn(async move {
            while let Some(update) = updated.recv().await {
                if let Update::Run(run, RunChange::Ended) = update {
                    let id = &run.subject.id;
                    if ledger.state(id).is_none_or(|state| state.ended != run.state.ended) {
                        world.broken(format_args!("{id} was shown as ended before it was recorded"));
                    }
                }
            }
        });
        let delivery = Dispatcher::new(Arc::clone(door) as Arc<dyn Outbox>, channels, routes, wall);
        let (stop_polling, stop_delivering) = (CancellationToken::new(), CancellationToken::new());
        Some(Self {
            commands,
            scheduler: tokio::spawn(scheduler.run(stop_polling.clone())),
            delivery: tokio::spawn(delivery.run(stop_delivering.clone())),
            stop_polling,
            stop_delivering,
        })
    }

    /// Stops in order, as the daemon does.
    async fn stop(self, stage: &Stage) {
        stage.world.say(format_args!("stops"));
        self.stop_polling.cancel();
        let _ = timeout(MINUTE, self.scheduler).await;
        self.stop_delivering.cancel();
        self.delivery.await.unwrap();
    }
}

fn settings(plan: &Plan, routes: tokio::sync::watch::Receiver<Routes>) -> Settings {
    // The backoff rounds to a nanosecond at random, and a timer to the next millisecond: half of one makes that the same.
    let half = Duration::from_micros(500);
    let curve =
        |max| Curve { initial: Duration::from_secs(1) + half, multiplier: 3.0, max: max + half, jitter: 0.0 };
    Settings {
        policy: Policy { healthy: curve(plan.longest), error: curve(HOUR), price: plan.price },
        requests_per_minute: 120,
        max_in_flight: AT_ONCE,
        patience: Patience { grace: GRACE, unknown_after: None, refused_ends: false },
        source: SOURCE.into(),
        routes,
        alerts: Alerts {
            stalled_after: Some(DAY),
            overdue_after: None,
            unreachable_after: Some(MINUTE * 15),
            remind_every: REMIND,
        },
        batch: if plan.lists { Mode::Always } else { Mode::Never },
        discovery: None,
        keep_bodies: false,
        keep_ended: false,
        counters: Arc::default(),
        save_every: Some(plan.save_every),
    }
}
