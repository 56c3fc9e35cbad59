//! Many runs of one account at once, through the scheduler itself in virtual time: what the list of all of them is worth. As
//! soon as one ends another begins, so that there are always as many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use runwatch::BoxFuture;
use runwatch::api::{Answer, Listed, Listing, PollError, RunSource, Wanted};
use runwatch::poll::{Alerts, Command, Mode, Scheduler, Settings, Update, Watched};
use runwatch::run::{Patience, Progress, Run, RunChange, RunId, RunStatus, Subject};
use runwatch::store::{Routes, SqliteStore};
use tokio::time::Instant;

use super::trace::{Trace, policy};

/// How long a run's entry in the list is, in bytes, and an answer about it.
const LISTED: usize = 600;
const ANSWER: usize = 1000;

/// How long the API takes to answer.
const LATENCY: Duration = Duration::from_millis(200);

/// The account.
struct Account {
    started: Instant,
    epoch: Timestamp,
    traces: HashMap<RunId, Trace>,
    /// When each was created, since the start.
    begun: Mutex<HashMap<RunId, Duration>>,
    asked: AtomicUsize,
    listed: AtomicUsize,
}

/// What so many runs cost.
pub(super) struct Bill {
    pub(super) lists: usize,
    pub(super) by_id: usize,
    /// Seconds from each end to when it was known.
    pub(super) delays: Vec<f64>,
}

/// Watches all of these to their ends, `many` at a time.
pub(super) fn watch(traces: &[Trace], many: usize, mode: Mode, price: f64, requests_per_minute: u32) -> Bill {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let id = |number: usize| format!("r{number:04}").parse::<RunId>().unwrap();
        let account = Arc::new(Account {
            started: Instant::now(),
            epoch: Timestamp::from_second(1_800_000_000).unwrap(),
            traces: traces.iter().enumerate().map(|(number, trace)| (id(number), trace.clone())).collect(),
            begun: Mutex::default(),
            asked: AtomicUsize::new(0),
            listed: AtomicUsize::new(0),
        });
        let (sender, mut updates) = tokio::sync::mpsc::unbounded_channel();
        let (commands, receiver) = tokio::sync::mpsc::channel(1);
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let mut scheduler = Scheduler::new(
            settings(mode, price, requests_per_minute),
            Arc::clone(&account) as _,
            store,
            sender,
            receiver,
        );
        let watched = |number| {
            account.begun.lock().unwrap().insert(id(number), account.started.elapsed());
            Watched::new(Subject { id: id(number), name: None }, account.epoch)
        };
        (0..many).for_each(|number| scheduler.watch(watched(number)));
        let task = tokio::spawn(scheduler.run(tokio_util::sync::CancellationToken::new()));
        let mut delays = Vec::new();
        // The last ones would be fewer and fewer, and long.
        while many + delays.len() <= traces.len() {
            if let Some(Update::Run(run, RunChange::Ended)) = updates.recv().await {
                let id = &run.subject.id;
                let ended = account.begun.lock().unwrap()[id].as_secs_f64() + account.traces[id].end;
                if delays.len() == many {
                    // From here on as many begin as end.
                    account.asked.store(0, Ordering::Relaxed);
                    account.listed.store(0, Ordering::Relaxed);
                }
                delays.push(account.started.elapsed().as_secs_f64() - ended);
                let next = many + delays.len() - 1;
                if next < traces.len() {
                    commands.send(Command::Add(vec![watched(next)])).await.unwrap();
                }
            }
        }
        task.abort();
        Bill {
            lists: account.listed.load(Ordering::Relaxed),
            by_id: account.asked.load(Ordering::Relaxed),
            delays: delays.split_off(many),
        }
    })
}

fn settings(mode: Mode, price: f64, requests_per_minute: u32) -> Settings {
    Settings {
        policy: policy(Some(price)),
        requests_per_minute,
        max_in_flight: 8,
        patience: Patience { grace: Duration::from_mins(1), unknown_after: None, refused_ends: false },
        source: "replay".into(),
        routes: Routes::default().fixed(),
        alerts: Alerts {
            stalled_after: None,
            overdue_after: None,
            unreachable_after: None,
            remind_every: Duration::from_hours(6),
        },
        batch: mode,
        discovery: None,
        keep_bodies: false,
        keep_ended: false,
        counters: Arc::default(),
        save_every: None,
    }
}

impl Account {
    fn run(&self, id: &RunId, begun: Duration, by_id: bool) -> Run {
        let trace = &self.traces[id];
        let now = self.started.elapsed().as_secs_f64() - begun.as_secs_f64();
        let seen = trace.progress.iter().take_while(|(at, ..)| *at <= now).last();
        let word = match seen {
            _ if now >= trace.end => "SUCCEEDED",
            Some((_, completed, failed)) if completed + failed > 0 => "PROCESSING",
            _ => "PENDING",
        };
        Run {
            status: RunStatus::parse(Some(word)),
            progress: Progress {
                completed: seen.map(|(_, completed, _)| *completed),
                failed: seen.map(|(_, _, failed)| *failed),
                total: by_id.then_some(trace.samples),
            },
            created_at: Some(self.epoch + begun),
            completed_at: None,
            spec_id: None,
            details: None,
        }
    }
}

impl RunSource for Account {
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            Ok(Answer {
                run: self.run(id, self.begun.lock().unwrap()[id], true),
                body: vec![b' '; ANSWER].into(),
            })
        })
    }

    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            let begun = self.begun.lock().unwrap();
            let all =
                begun.iter().map(|(id, begun)| Listed { id: id.clone(), run: self.run(id, *begun, false) });
            let runs = all.filter_map(|mut listed| wanted(&mut listed).then_some(listed)).collect();
            Ok(Listing { runs, bytes: begun.len() * LISTED, ..Listing::default() })
        })
    }

    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
