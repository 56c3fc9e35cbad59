//! Delivery to channels in memory, in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::clock::WallClock;
use runwatch::notify::delivery::Drain;
use runwatch::notify::{Channel, Dispatcher, Notice, Notifier, NotifyError, Retry, RetrySchedule};
use runwatch::run::{Ending, Event, RunState, Subject, Terminal};
use runwatch::secret::KnownSecrets;
use runwatch::store::{Claim, Commit, Outbox, Owner, Route, Routes, RunStore as _, SqliteStore, Watched};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

type Answer = Box<dyn Fn(usize) -> Result<(), NotifyError> + Send + Sync>;

/// A channel in memory: what it was sent, when, and what it says to its nth attempt.
struct Fake {
    started: Instant,
    sent: Mutex<Vec<(Duration, String, u32)>>,
    /// When several were told together, and how many.
    together: Mutex<Vec<(Duration, usize)>>,
    answer: Answer,
    latency: Duration,
}

impl Fake {
    fn new(answer: impl Fn(usize) -> Result<(), NotifyError> + Send + Sync + 'static) -> Self {
        Self {
            started: Instant::now(),
            sent: Mutex::default(),
            together: Mutex::default(),
            answer: Box::new(answer),
            latency: Duration::ZERO,
        }
    }

    fn slow(latency: Duration) -> Self {
        Self { latency, ..Self::new(|_| Ok(())) }
    }

    fn told_together(&self) -> Vec<(Duration, usize)> {
        self.together.lock().unwrap().clone()
    }

    fn sent(&self) -> Vec<(Duration, String, u32)> {
        self.sent.lock().unwrap().clone()
    }
}

impl Notifier for Fake {
    fn send<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let times = {
                let mut sent = self.sent.lock().unwrap();
                sent.push((self.started.elapsed(), notice.event_id.to_string(), notice.attempt));
                sent.len()
            };
            sleep(self.latency).await;
            (self.answer)(times)
        })
    }

    fn send_all<'a>(&'a self, notices: &'a [Notice]) -> BoxFuture<'a, Result<(), NotifyError>> {
        self.together.lock().unwrap().push((self.started.elapsed(), notices.len()));
        Box::pin(async { Ok(()) })
    }
}

struct Setup {
    store: Arc<SqliteStore>,
    drain: Drain,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    wall: WallClock,
    changes: mpsc::Sender<Vec<Channel>>,
}

fn channel(name: &str, fake: &Arc<Fake>) -> Channel {
    Channel {
        name: name.into(),
        kind: "fake",
        notifier: Arc::clone(fake) as _,
        concurrency: 2,
        timeout: Duration::from_secs(20),
        schedule: Arc::new(RetrySchedule::default()),
        gather: Duration::ZERO,
        fingerprint: "as it is".into(),
        formerly: Vec::new(),
        known: KnownSecrets::default(),
    }
}

/// Workers for these channels, on a wall clock that follows the virtual one.
fn deliver(channels: &[(&str, Arc<Fake>)]) -> Setup {
    deliver_as(channels, |channel| channel)
}

/// The same, with the channels made different.
fn deliver_as(channels: &[(&str, Arc<Fake>)], change: impl Fn(Channel) -> Channel) -> Setup {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let (start, epoch) = (Instant::now(), Timestamp::from_second(1_800_000_000).unwrap());
    let wall: WallClock = Arc::new(move || epoch + start.elapsed());
    let routes =
        Routes::new(channels.iter().map(|(name, _)| Route { channel: (*name).into(), events: None }));
    let channels = channels.iter().map(|(name, fake)| change(channel(name, fake))).collect();
    let outbox: Arc<dyn Outbox> = Arc::clone(&store) as _;
    let (changes, receiver) = mpsc::channel(1);
    let delivery = Dispatcher::new(outbox, channels, routes.fixed(), Arc::clone(&wall)).changing(receiver);
    let cancel = CancellationToken::new();
    let drain = delivery.drain();
    Setup { store, drain, task: tokio::spawn(delivery.run(cancel.clone())), cancel, wall, changes }
}

impl Setup {
    /// A run fails, and these channels are to tell it. Gives the event's id.
    async fn fail(&self, run: &str, channels: &[&str]) -> String {
        let subject = Subject { id: run.parse().unwrap(), name: None };
        let state = RunState::new((self.wall)());
        let ending = Ending::Finished(Terminal::Failed);
        let event = Event::of_ending("test", &subject, ending, &state, None, (self.wall)());
        let id = event.id.to_string();
        let events = vec![(event, channels.iter().map(|name| (*name).into()).collect())];
        self.store
            .commit(Commit {
                run: Some(Watched { state, ..Watched::new(subject, (self.wall)()) }),
                events,
                moment: None,
            })
            .await
            .unwrap();
        id
    }
}

fn retryable() -> Result<(), NotifyError> {
    Err(NotifyError::retryable("as scripted"))
}

#[tokio::test(start_paused = true)]
async fn an_event_is_told_once_to_each_channel() {
    let (a, b) = (Arc::new(Fake::new(|_| Ok(()))), Arc::new(Fake::new(|_| Ok(()))));
    let setup = deliver(&[("a", Arc::clone(&a)), ("b", Arc::clone(&b))]);
    let id = setup.fail("r", &["a", "b"]).await;
    setup.fail("r", &["a", "b"]).await;
    sleep(Duration::from_secs(100_000)).await;
    for fake in [a, b] {
        let sent: Vec<_> = fake.sent().into_iter().map(|(_, id, attempt)| (id, attempt)).collect();
        assert_eq!(sent, [(id.clone(), 1)]);
    }
    assert!(setup.store.undelivered().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_claim_outlasts_the_longest_attempt_and_the_record_of_it() {
    let hangs = Arc::new(Fake::slow(Duration::from_secs(999)));
    let setup = deliver(&[("a", Arc::clone(&hangs))]);
    setup.fail("r", &["a"]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hangs.sent().len(), 1, "the attempt is under way");
    let (channel, owner) = ("a".into(), Owner("another process".into()));
    let claimed = async |after| {
        let now = (setup.wall)() + Duration::from_secs(after);
        let lease = Duration::from_secs(1);
        let claim = Claim { channel: &channel, owner: &owner, now, lease, limit: 9, in_hand: &[] };
        setup.store.claim(claim).await.unwrap().len()
    };
    // An attempt may take 20 s.
    assert_eq!(claimed(45).await, 0, "the result may still be on its way to the store");
    assert_eq!(claimed(60).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_hangs_delays_no_other() {
    let mut hangs = Fake::new(|_| Ok(()));
    hangs.latency = Duration::from_secs(999_999);
    let good = Arc::new(Fake::new(|_| Ok(())));
    let setup = deliver(&[("hangs", Arc::new(hangs)), ("good", Arc::clone(&good))]);
    for n in 0..20 {
        setup.fail(&format!("r{n}"), &["hangs", "good"]).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(good.sent().len(), 20);
    assert!(good.sent().iter().all(|(at, ..)| *at < Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn ten_attempts_over_three_days_and_then_a_dead_letter() {
    let fake = Arc::new(Fake::new(|_| retryable()));
    let setup = deliver(&[("a", Arc::clone(&fake))]);
    let id = setup.fail("r", &["a"]).await;
    sleep(Duration::from_hours(200)).await;
    let sent = fake.sent();
    assert_eq!(sent.iter().map(|(.., attempt)| *attempt).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert!(sent.iter().all(|(_, sent, _)| *sent == id), "the id never changes");
    let mut scheduled = Duration::ZERO;
    for (index, pause) in [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400].into_iter().enumerate()
    {
        let waited = sent[index + 1].0.saturating_sub(sent[index].0).as_secs_f64();
        let pause = f64::from(pause);
        assert!(
            (pause..=pause * 1.1 + 1.0).contains(&waited),
            "attempt {}: {waited} s after {pause} s",
            index + 2
        );
        scheduled += Duration::from_secs_f64(pause);
    }
    assert_eq!(scheduled, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
    let left = setup.store.undelivered().await.unwrap();
    assert_eq!((left.len(), left[0].due_at, left[0].attempts), (1, None, 10));
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_receiver_is_a_floor() {
    let busy = |times| match times {
        1 => Err(NotifyError::new(Retry::NotBefore(Some(Duration::from_secs(600))), "500")),
        _ => Ok(()),
    };
    let fake = Arc::new(Fake::new(busy));
    let setup = deliver(&[("a", Arc::clone(&fake))]);
    setup.fail("r", &["a"]).await;
    sleep(Duration::from_secs(599)).await;
    assert_eq!(fake.sent().len(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fake.sent().len(), 2);
    assert!(setup.store.undelivered().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_gets_nothing_more() {
    let gone = |_| Err(NotifyError::new(Retry::Disable, "410"));
    let fake = Arc::new(Fake::new(gone));
    let setup = deliver(&[("a", Arc::clone(&fake))]);
    setup.fail("r", &["a"]).await;
    sleep(Duration::from_secs(1)).await;
    setup.fail("s", &["a"]).await;
    sleep(Duration::from_hours(100)).await;
    assert_eq!(fake.sent().len(), 1);
    let left = setup.store.undelivered().await.unwrap();
    assert_eq!(
        left.iter().filter(|left| left.due_at.is_none()).count(),
        2,
        "both are dead letters: {left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_notifier_that_panics_or_overstays_is_tried_again() {
    let fake = Arc::new(Fake::new(|times| if times == 1 { panic!("as scripted") } else { Ok(()) }));
    let mut slow = Fake::new(|_| Ok(()));
    slow.latency = Duration::from_secs(21);
    let slow = Arc::new(slow);
    let setup = deliver(&[("a", Arc::clone(&fake)), ("slow", Arc::clone(&slow))]);
    setup.fail("r", &["a", "slow"]).await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(fake.sent().len(), 2, "again when the lease has ended");
    assert!(slow.sent().len() >= 2);
    let left = setup.store.undelivered().await.unwrap();
    assert_eq!(left.iter().map(|left| &*left.channel).collect::<Vec<_>>(), ["slow"]);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_is_due_and_no_longer() {
    let fine = Arc::new(Fake::new(|_| Ok(())));
    let bad = Arc::new(Fake::new(|_| retryable()));
    let setup = deliver(&[("fine", Arc::clone(&fine)), ("bad", Arc::clone(&bad))]);
    setup.fail("r", &["fine", "bad"]).await;
    let before = Instant::now();
    setup.drain.send_replace(Some(Instant::now() + Duration::from_secs(10)));
    setup.task.await.unwrap();
    // The second attempt is due after five seconds, the third after five minutes: nobody waits for that.
    assert!(before.elapsed() < Duration::from_secs(7), "{:?}", before.elapsed());
    assert_eq!((fine.sent().len(), bad.sent().len()), (1, 2));
    assert_eq!(setup.store.undelivered().await.unwrap().len(), 1);
    drop(setup.cancel);
}

#[tokio::test(start_paused = true)]
async fn what_ends_together_is_told_together() {
    let desk = Arc::new(Fake::new(|_| Ok(())));
    let setup = deliver_as(&[("desk", Arc::clone(&desk))], |channel| Channel {
        gather: Duration::from_secs(2),
        concurrency: 1,
        ..channel
    });
    for run in ["a", "b", "c"] {
        setup.fail(run, &["desk"]).await;
        sleep(Duration::from_millis(500)).await;
    }
    sleep(Duration::from_secs(10)).await;
    let together = Duration::from_secs(2);
    assert_eq!(desk.told_together(), [(together, 3)]);
    // One that comes later is told by itself.
    setup.fail("d", &["desk"]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(desk.told_together().len(), 1);
    assert_eq!(desk.sent().len(), 1);
    assert!(setup.store.undelivered().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_given_up_on_is_told_of_through_the_others() {
    let dead = Arc::new(Fake::new(|_| retryable()));
    let well = Arc::new(Fake::new(|_| Ok(())));
    let setup = deliver_as(&[("dead", dead), ("well", Arc::clone(&well))], |channel| Channel {
        schedule: Arc::new(RetrySchedule::after(&[Duration::from_secs(5)])),
        ..channel
    });
    let id = setup.fail("a", &["dead"]).await;
    sleep(Duration::from_secs(60)).await;
    let left = setup.store.undelivered().await.unwrap();
    assert_eq!(left.len(), 1, "only the event itself");
    assert_eq!((left[0].attempts, left[0].due_at), (2, None));
    let told = well.sent();
    assert_eq!(told.len(), 1, "the warning");
    assert_ne!(told[0].1, id, "is an event of its own");
    // A warning that cannot be told gives no further one.
    let (one, other) = (Arc::new(Fake::new(|_| retryable())), Arc::new(Fake::new(|_| retryable())));
    let setup = deliver_as(&[("one", one), ("other", Arc::clone(&other))], |channel| Channel {
        schedule: Arc::new(RetrySchedule::once()),
        ..channel
    });
    setup.fail("a", &["one"]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(setup.store.undelivered().await.unwrap().len(), 2);
    assert_eq!(other.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn channels_are_changed_while_it_runs() {
    let (kept, old, new) = (
        Arc::new(Fake::new(|_| Ok(()))),
        Arc::new(Fake::slow(Duration::from_secs(8))),
        Arc::new(Fake::new(|_| Ok(()))),
    );
    let setup = deliver(&[("kept", Arc::clone(&kept)), ("changed", Arc::clone(&old))]);
    setup.fail("a", &["kept", "changed"]).await;
    sleep(Duration::from_secs(1)).await;
    let changed = Channel { fingerprint: "another".into(), ..channel("changed", &new) };
    let channels = vec![channel("kept", &Arc::new(Fake::new(|_| panic!("this one is not used")))), changed];
    setup.changes.send(channels).await.unwrap();
    setup.fail("b", &["kept", "changed"]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((kept.sent().len(), old.sent().len(), new.sent().len()), (2, 1, 1));
    assert_eq!(old.sent()[0].2, 1, "what was under way was finished, and not begun again");
    assert!(setup.store.undelivered().await.unwrap().is_empty());
}
