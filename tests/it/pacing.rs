//! The kinds of failure of a channel, in virtual time: one that slows it down, one that only concerns an event, one
//! that lasts longer than a store failure. The order of a run's events is kept in all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::clock::WallClock;
use runwatch::notify::delivery::Made;
use runwatch::notify::{Channel, Dispatcher, Notice, Notifier, NotifyError, Retry, RetrySchedule};
use runwatch::run::{Ending, Event, EventKind, RunId, RunState, Subject, Terminal};
use runwatch::secret::KnownSecrets;
use runwatch::store::{
    Commit, DeliveryFilter, DeliveryState, Outbox, Route, Routes, RunStore as _, SqliteStore, StoreError,
    StoreErrorKind, Watched,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::faulty_store::{Call, Faulty};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// When it came, the run, the type, the attempt, and whether it was taken.
type Request = (Duration, String, EventKind, u32, bool);

type Answer = Box<dyn Fn(&Notice, usize) -> Result<(), NotifyError> + Send + Sync>;

/// A receiver in memory: what came, when, and what it took.
pub(crate) struct Receiver {
    began: Instant,
    came: Mutex<Vec<Request>>,
    answer: Answer,
    pub(crate) latency: Duration,
}

impl Receiver {
    pub(crate) fn new(
        answer: impl Fn(&Notice, usize) -> Result<(), NotifyError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (began, latency) = (Instant::now(), Duration::from_millis(5));
        Arc::new(Self { began, came: Mutex::default(), answer: Box::new(answer), latency })
    }

    pub(crate) fn came(&self) -> Vec<Request> {
        self.came.lock().unwrap().clone()
    }

    /// The runs in the order in which they were taken, and when the last was.
    fn taken(&self) -> (Vec<String>, Duration) {
        let taken: Vec<_> = self.came().into_iter().filter(|(.., taken)| *taken).collect();
        let last = taken.last().map(|(at, ..)| *at).unwrap_or_default();
        (taken.into_iter().map(|(_, run, ..)| run).collect(), last)
    }
}

impl Notifier for Receiver {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            sleep(self.latency).await;
            let mut came = self.came.lock().unwrap();
            let before = came.iter().filter(|(.., taken)| *taken).count();
            let result = (self.answer)(notice, before);
            let run = notice.payload.data.run_id.as_ref().map(ToString::to_string).unwrap_or_default();
            let taken = result.is_ok();
            came.push((self.began.elapsed(), run, notice.payload.kind, notice.attempt, taken));
            result
        })
    }
}

/// Both sides at work on a store.
pub(crate) struct Stage {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) wall: WallClock,
    pub(crate) cancel: CancellationToken,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(SqliteStore::in_memory().unwrap()))
    }

    fn on(store: Arc<SqliteStore>) -> Self {
        let (start, epoch) = (Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
        Self { store, wall: Arc::new(move || epoch + start.elapsed()), cancel: CancellationToken::new() }
    }

    /// Starts the workers of a process: one channel, `ops`, and one that is told of dead letters.
    fn deliver(&self, receiver: &Arc<Receiver>) {
        drop(self.deliver_from(Arc::clone(&self.store) as _, receiver));
    }

    pub(crate) fn deliver_from(
        &self,
        outbox: Arc<dyn Outbox>,
        receiver: &Arc<Receiver>,
    ) -> (JoinHandle<()>, Made) {
        let channel = Channel {
            name: "ops".into(),
            kind: "fake",
            notifier: Arc::clone(receiver) as _,
            concurrency: 8,
            timeout: Duration::from_secs(22),
            schedule: Arc::new(RetrySchedule::default()),
            gather: Duration::ZERO,
            fingerprint: "as it is".into(),
            formerly: Vec::new(),
            known: KnownSecrets::default(),
        };
        let routes = Routes::new([Route { channel: "ops".into(), events: None }]).fixed();
        let delivery = Dispatcher::new(outbox, vec![channel], routes, Arc::clone(&self.wall));
        let made = delivery.made();
        (tokio::spawn(delivery.run(self.cancel.clone())), made)
    }

    async fn commit(&self, run: &str, make: impl FnOnce(&Subject, &mut RunState, Timestamp) -> Event) {
        let subject = Subject { id: run.parse().unwrap(), name: None };
        let now = (self.wall)();
        let mut state = RunState::new(now);
        let event = make(&subject, &mut state, now);
        let run = Some(Watched { state, ..Watched::new(subject, now) });
        let events = vec![(event, vec!["ops".into()])];
        self.store.commit(Commit { run, events, moment: None }).await.unwrap();
    }

    pub(crate) async fn end(&self, run: &str) {
        self.commit(run, |subject, state, now| {
            let ending = Ending::Finished(Terminal::Succeeded);
            state.ended = Some(ending);
            Event::of_ending("test", subject, ending, state, None, now)
        })
        .await;
    }

    async fn warn(&self, run: &str, kind: EventKind) {
        self.commit(run, |subject, state, now| Event::of_warning("test", subject, kind, state, now, now))
            .await;
    }

    /// The deliveries in the order in which they were recorded: run, state, attempts.
    pub(crate) async fn fates(&self) -> Vec<(String, DeliveryState, u32)> {
        let all = self.store.deliveries(DeliveryFilter::default(), 999).await.unwrap();
        all.into_iter().rev().map(|one| (one.run_id.unwrap_or_default(), one.state, one.attempts)).collect()
    }
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("r{n:02}")).collect()
}

/// Takes five a second, and asks the rest to wait for one.
fn five_a_second() -> impl Fn(&Notice, usize) -> Result<(), NotifyError> + Send + Sync {
    let window = Mutex::new((Instant::now(), 0));
    move |_, _| {
        let mut window = window.lock().unwrap();
        if window.0.elapsed() >= SECOND {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        if window.1 <= 5 { Ok(()) } else { Err(NotifyError::new(Retry::SlowDown(Some(SECOND)), "429")) }
    }
}

#[tokio::test(start_paused = true)]
async fn sixty_ends_at_once_pass_a_receiver_that_takes_five_a_second() {
    let (stage, receiver) = (Stage::new(), Receiver::new(five_a_second()));
    stage.deliver(&receiver);
    for run in names(60) {
        stage.end(&run).await;
    }
    sleep(Duration::from_secs(20)).await;
    let (taken, last) = receiver.taken();
    assert_eq!(taken.len(), 60);
    assert!(last < Duration::from_millis(13_500), "the last at {last:?}");
    assert!(receiver.came().iter().all(|(_, _, _, attempt, _)| *attempt == 1), "no attempt was used up");
    assert!(
        stage
            .fates()
            .await
            .iter()
            .all(|(_, state, attempts)| { *state == DeliveryState::Delivered && *attempts == 1 })
    );
    // Together they may overtake each other by what is sent at once, and no further.
    for (place, run) in taken.iter().enumerate() {
        let expected: usize = run[1..].parse().unwrap();
        assert!(place.abs_diff(expected) < 8, "{run} was number {place}");
    }
    let refused = receiver.came().iter().filter(|(.., taken)| !taken).count();
    assert!(refused < 60, "{refused} requests in vain");
}

#[tokio::test(start_paused = true)]
async fn a_channel_waits_as_long_as_it_is_told_to_over_a_restart_too() {
    for retry in [Retry::SlowDown(Some(600 * SECOND)), Retry::Unavailable(600 * SECOND)] {
        let stage = Stage::new();
        let busy = Receiver::new(move |_, _| Err(NotifyError::new(retry, "busy")));
        stage.deliver(&busy);
        for run in ["a", "b", "c"] {
            stage.end(run).await;
        }
        sleep(300 * SECOND).await;
        let before = busy.came().len();
        assert!((1..=3).contains(&before), "{before} requests");
        stage.end("d").await;
        sleep(100 * SECOND).await;
        assert_eq!(busy.came().len(), before, "nothing is sent meanwhile, of this or any other run");
        stage.cancel.cancel();
        let (again, began) = (Stage { cancel: CancellationToken::new(), ..stage }, Instant::now());
        let well = Receiver::new(|_, _| Ok(()));
        again.deliver(&well);
        sleep(400 * SECOND).await;
        let came = well.came();
        assert!(came[0].0 >= 195 * SECOND && came[0].0 < 205 * SECOND, "{came:?} since {began:?}");
        assert_eq!(came.iter().map(|(_, _, _, attempt, _)| *attempt).collect::<Vec<_>>(), [1; 4]);
        assert_eq!(well.taken().0, ["a", "b", "c", "d"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_says_how_long_is_asked_ever_more_seldom_and_costs_no_attempt() {
    let (stage, open) = (Stage::new(), Arc::new(AtomicBool::new(false)));
    let is_open = Arc::clone(&open);
    let receiver = Receiver::new(move |_, _| {
        let refusal = NotifyError::new(Retry::SlowDown(None), "429");
        if is_open.load(Ordering::Relaxed) { Ok(()) } else { Err(refusal) }
    });
    stage.deliver(&receiver);
    for run in names(30) {
        stage.end(&run).await;
    }
    sleep(Duration::from_hours(100)).await;
    let asked = receiver.came().len();
    assert!(asked < 100 * 12 + 30, "{asked} requests in 100 hours");
    assert!(
        stage
            .fates()
            .await
            .iter()
            .all(|(_, state, attempts)| { *state == DeliveryState::Pending && *attempts == 0 })
    );
    open.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(310)).await;
    assert_eq!(receiver.taken().0, names(30));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_makes_the_receiver_unavailable_does_not_keep_the_others_from_it() {
    let stage = Stage::new();
    let receiver = Receiver::new(|notice, _| match notice.payload.data.run_id.as_ref().map(RunId::as_str) {
        Some("r00") => Err(NotifyError::new(Retry::Unavailable(10 * SECOND), "503")),
        _ => Ok(()),
    });
    stage.deliver(&receiver);
    for run in names(20) {
        stage.end(&run).await;
    }
    sleep(Duration::from_secs(300)).await;
    assert_eq!(receiver.taken().0.len(), 19);
    sleep(Duration::from_hours(100)).await;
    let fates = stage.fates().await;
    assert_eq!(fates[0].1, DeliveryState::Dead, "its attempts count, since others got through: {fates:?}");
    assert_eq!(fates[0].2, 10);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_delivered_is_dead_at_once_and_the_channel_is_well() {
    let stage = Stage::new();
    let receiver = Receiver::new(|notice, _| match notice.payload.data.run_id.as_ref().map(RunId::as_str) {
        Some("b") => {
            Err(NotifyError::new(Retry::Undeliverable, "400").with_answer("no such field".to_owned()))
        }
        _ => Ok(()),
    });
    stage.deliver(&receiver);
    for run in ["a", "b", "c"] {
        stage.end(run).await;
        sleep(SECOND).await;
    }
    sleep(Duration::from_hours(100)).await;
    assert_eq!(receiver.came().len(), 3);
    let all = stage.store.deliveries(DeliveryFilter::default(), 9).await.unwrap();
    assert_eq!((all[1].state, all[1].attempts), (DeliveryState::Dead, 1));
    assert_eq!(all[1].last_error.as_deref(), Some("400: no such field"));
    assert_eq!(all[1].answer.as_deref(), Some("no such field"));
    assert_eq!((all[0].state, all[2].state), (DeliveryState::Delivered, DeliveryState::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_stored_event_that_cannot_be_read_is_dead_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runwatch.db");
    let stage = Stage::on(Arc::new(SqliteStore::open(&path).unwrap()));
    stage.end("a").await;
    drop(stage);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE events SET payload = '{\"type\":'", ()).unwrap();
    drop(db);
    let stage = Stage::on(Arc::new(SqliteStore::open(&path).unwrap()));
    let receiver = Receiver::new(|_, _| Ok(()));
    stage.deliver(&receiver);
    stage.end("b").await;
    while receiver.came().is_empty() || stage.store.undelivered().await.unwrap()[0].due_at.is_some() {
        sleep(SECOND).await;
    }
    assert_eq!(receiver.taken().0, ["b"]);
    let left = stage.store.undelivered().await.unwrap();
    assert_eq!((left.len(), left[0].due_at), (1, None));
    assert!(left[0].last_error.as_deref().unwrap().contains("cannot be read"), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_overtakes_a_warning_that_was_refused() {
    let (stage, is_open) = (Stage::new(), Arc::new(AtomicBool::new(false)));
    let open = Arc::clone(&is_open);
    let receiver =
        Receiver::new(
            move |_, _| {
                if open.load(Ordering::Relaxed) { Ok(()) } else { Err(NotifyError::retryable("500")) }
            },
        );
    stage.deliver(&receiver);
    stage.warn("a", EventKind::RunOverdue).await;
    stage.warn("b", EventKind::RunOverdue).await;
    sleep(10 * SECOND).await;
    is_open.store(true, Ordering::Relaxed);
    stage.end("a").await;
    sleep(SECOND).await;
    let kinds = |run: &str| {
        let came = receiver.came().into_iter().filter(|(_, of, .., taken)| of == run && *taken);
        came.map(|(_, _, kind, ..)| kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds("a"), [EventKind::RunSucceeded], "at once, and not behind the warning");
    sleep(Duration::from_hours(1)).await;
    assert_eq!(kinds("a"), [EventKind::RunSucceeded]);
    assert_eq!(kinds("b"), [EventKind::RunOverdue], "that of a run that goes on is sent");
    let fates: Vec<_> = stage.fates().await.into_iter().map(|(_, state, _)| state).collect();
    let delivered = DeliveryState::Delivered;
    assert_eq!(fates, [DeliveryState::Superseded, delivered, delivered]);
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_no_run_goes_backwards_on_a_channel() {
    for seed in 0..5 {
        let (stage, rng) = (Stage::new(), Mutex::new(fastrand::Rng::with_seed(seed)));
        let receiver = Receiver::new(move |_, _| match rng.lock().unwrap().u8(..8) {
            0 | 1 => Err(NotifyError::retryable("500")),
            2 => Err(NotifyError::new(Retry::SlowDown(Some(2 * SECOND)), "429")),
            3 => Err(NotifyError::new(Retry::Unavailable(3 * SECOND), "503")),
            4 => Err(NotifyError::new(Retry::Undeliverable, "400")),
            _ => Ok(()),
        });
        stage.deliver(&receiver);
        for kind in
            [Some(EventKind::RunStalled), Some(EventKind::RunOverdue), Some(EventKind::RunStalled), None]
        {
            for run in names(12) {
                match kind {
                    Some(kind) => stage.warn(&run, kind).await,
                    None => stage.end(&run).await,
                }
                sleep(Duration::from_millis(fastrand::u64(0..400))).await;
            }
        }
        sleep(Duration::from_hours(90)).await;
        let mut ended = HashSet::new();
        for (at, run, kind, .., taken) in receiver.came() {
            assert!(!ended.contains(&run), "seed {seed}: {kind} of {run} at {at:?} came after its end");
            if taken && kind.is_end() {
                ended.insert(run);
            }
        }
        assert!(!ended.is_empty());
    }
}

/// A store whose file cannot be written for a while, as the workers see it; `claims` counts theirs.
fn flaky(store: &Arc<SqliteStore>, is_away: &Arc<AtomicBool>, claims: &Arc<AtomicUsize>) -> Faulty {
    let (is_away, claims) = (Arc::clone(is_away), Arc::clone(claims));
    Faulty::new(Arc::clone(store), move |call| {
        match call {
            Call::Claim => drop(claims.fetch_add(1, Ordering::Relaxed)),
            Call::Finish if is_away.load(Ordering::Relaxed) => {
                return Err(StoreError { kind: StoreErrorKind::Full, message: "no space left".into() });
            }
            Call::Finish | Call::Next | Call::Changed => {}
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_not_sent_again_because_the_store_was_away_for_longer_than_a_lease() {
    let (stage, is_away) = (Stage::new(), Arc::new(AtomicBool::new(true)));
    let receiver = Receiver::new(|_, _| Ok(()));
    let flaky = flaky(&stage.store, &is_away, &Arc::default());
    drop(stage.deliver_from(Arc::new(flaky), &receiver));
    for run in names(5) {
        stage.end(&run).await;
    }
    sleep(600 * SECOND).await;
    assert_eq!(receiver.came().len(), 5, "however long it is away");
    is_away.store(false, Ordering::Relaxed);
    sleep(60 * SECOND).await;
    stage.end("later").await;
    sleep(SECOND).await;
    let mut times: HashMap<String, usize> = HashMap::new();
    receiver.came().into_iter().for_each(|(_, run, ..)| *times.entry(run).or_default() += 1);
    assert!(times.len() == 6 && times.values().all(|times| *times == 1), "{times:?}");
    assert!(stage.fates().await.iter().all(|(_, state, _)| *state == DeliveryState::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_quick_receiver_of_many_shares_claims() {
    let (stage, claims) = (Stage::new(), Arc::new(AtomicUsize::new(0)));
    let receiver = Receiver::new(|_, _| Ok(()));
    for run in names(1000) {
        stage.end(&run).await;
    }
    let flaky = flaky(&stage.store, &Arc::default(), &claims);
    drop(stage.deliver_from(Arc::new(flaky), &receiver));
    sleep(60 * SECOND).await;
    assert_eq!(receiver.taken().0, names(1000), "in order");
    let claims = claims.load(Ordering::Relaxed);
    assert!(claims <= 40, "{claims} claims for 1000 deliveries");
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_ahead_is_given_back_when_the_receiver_refuses() {
    let stage = Stage::new();
    let receiver = Receiver::new(|_, before| {
        if before < 20 { Ok(()) } else { Err(NotifyError::new(Retry::SlowDown(Some(60 * SECOND)), "429")) }
    });
    for run in names(100) {
        stage.end(&run).await;
    }
    stage.warn("late", EventKind::RunStalled).await;
    stage.deliver(&receiver);
    sleep(30 * SECOND).await;
    assert_eq!(receiver.taken().0.len(), 20);
    let in_flight = stage.store.undelivered().await.unwrap().into_iter().filter(|one| one.in_flight).count();
    assert_eq!(in_flight, 0, "nothing is kept from other events");
    // So the end of a run can still overtake a warning about it.
    stage.end("late").await;
    let fates = stage.fates().await;
    let of_late =
        fates.iter().filter(|(run, ..)| run == "late").map(|(_, state, attempts)| (*state, *attempts));
    assert_eq!(of_late.collect::<Vec<_>>(), [(DeliveryState::Superseded, 0), (DeliveryState::Pending, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_receiver_is_to_get_is_not_claimed_ahead() {
    let stage = Stage::new();
    let mut receiver = Receiver::new(|_, _| Ok(()));
    Arc::get_mut(&mut receiver).unwrap().latency = SECOND;
    for run in names(100) {
        stage.end(&run).await;
    }
    stage.deliver(&receiver);
    sleep(SECOND * 5 / 2).await;
    let in_flight = stage.store.undelivered().await.unwrap().into_iter().filter(|one| one.in_flight).count();
    assert_eq!(in_flight, 8);
}
