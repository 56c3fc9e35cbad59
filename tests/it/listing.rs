//! The scheduler with the list of all runs: in place of many runs, and to look for more.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runwatch::api::{Listed, PollErrorKind};
use runwatch::poll::{Command, Discovery, Mode, Policy, Settings};
use runwatch::run::{DoubtKind, Ending, Patience, Run, Terminal};
use runwatch::store::Outbox as _;
use tokio::time::sleep;

use crate::support::scripted::{
    Api, Watch, doubt, fails, going, listed, one_channel, seconds, settings, status, to_be_told, watched,
};

/// Every list that is worth anything.
fn always() -> Settings {
    Settings { batch: Mode::Always, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn one_request_for_many_runs() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..300).map(|n| format!("r{n:03}")).collect();
    for id in &ids {
        api = api.with(id, |_, at| status(if at < seconds(600) { "PROCESSING" } else { "SUCCEEDED" }));
    }
    let in_list = ids.clone();
    let api = api.with_list(move |_, at| {
        let run = || if at < seconds(600) { going(1) } else { status("SUCCEEDED").unwrap() };
        // One is not in the list, although it is there.
        Ok(in_list.iter().filter(|id| *id != "r007").map(|id| listed(id, run())).collect())
    });
    let mut watch = Watch::known(api, Settings { batch: Mode::Auto, routes: one_channel(), ..settings() });
    for _ in &ids {
        assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    }
    let late = watch.api.started.elapsed().saturating_sub(seconds(600));
    let told = watch.store.undelivered().await.unwrap().len();
    let (_, api) = watch.stop().await;
    assert_eq!(told, 300, "each once");
    // At 120 a minute the ends alone take two minutes and a half: each is confirmed by itself.
    assert!(late < seconds(240), "{late:?} late");
    let before: usize = api.asked.lock().unwrap().iter().filter(|(at, _)| *at < seconds(600)).count();
    let lists = api.lists().len();
    // By themselves the runs would have taken 1200 requests in that time, and waited two and a half minutes for each.
    assert!(before < 700 && lists > 5, "{before} requests and {lists} lists");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_costs_nothing_but_itself() {
    let mut api = Api::new();
    for n in 0..20 {
        api = api.with(&format!("r{n:02}"), |_, at| {
            status(if at < seconds(60) { "PROCESSING" } else { "FAILED" })
        });
    }
    let mut watch = Watch::start(api, Settings { batch: Mode::Always, ..settings() });
    for _ in 0..20 {
        assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    }
    let (_, api) = watch.stop().await;
    assert!(api.lists().len() < 12, "ever more seldom");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_list_leaves_the_runs_their_turn() {
    let api = Api::new()
        .with("r", |times, _| status(if times < 2 { "PROCESSING" } else { "SUCCEEDED" }))
        .with_list(|_, _| fails(PollErrorKind::Throttled, Some(30)));
    let mut watch = Watch::known(api, always());
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    let (_, api) = watch.stop().await;
    assert_eq!(api.lists(), [0.0]);
    assert_eq!(api.times("r"), [30.0, 31.0], "nothing is asked before the time is up, and then the run");
}

#[tokio::test(start_paused = true)]
async fn what_a_list_left_to_be_confirmed_goes_out_before_the_next_list() {
    let ids: Vec<String> = (0..30).map(|n| format!("r{n:02}")).collect();
    let mut api = Api::new();
    for id in &ids {
        api = api.with(id, |_, _| status("SUCCEEDED"));
    }
    let api = api
        .with_list(move |_, _| Ok(ids.iter().map(|id| listed(id, status("SUCCEEDED").unwrap())).collect()));
    let mut watch = Watch::known(api, Settings { requests_per_minute: 6, ..always() });
    for _ in 0..30 {
        watch.ended().await;
    }
    assert_eq!(
        watch.stop().await.1.lists(),
        [0.0],
        "a list in between would take a run's place in the budget"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_changes_nothing_that_was_answered_after_it_was_asked_for() {
    let mut api = Api::new().with("new", |_, _| status("PROCESSING"));
    api.list_latency = seconds(20);
    let api = api.with_list(|_, _| Ok(vec![listed("new", status("PENDING").unwrap())]));
    let discovery = Discovery { every: seconds(3600), wanted: Arc::new(|_| true) };
    let mut watch = Watch::idle(api, Settings { discovery: Some(discovery), ..settings() });
    sleep(seconds(10)).await;
    watch.commands.send(Command::Add(vec![watched("new".parse().unwrap())])).await.unwrap();
    sleep(seconds(30)).await;
    let view = watch.ask(|reply| Command::View("new".parse().unwrap(), reply)).await.unwrap();
    assert_eq!(view.state.status, Some(status("PROCESSING").unwrap().status));
    assert_eq!(watch.found(), [(vec![], None)], "nor is it found, which is watched already");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_the_list_does_not_have_is_asked_about_by_itself() {
    let api = Api::new()
        .with("listed", |_, _| Ok(going(1)))
        .with("unlisted", |_, at| status(if at < seconds(300) { "PROCESSING" } else { "FAILED" }))
        .with_list(|_, _| Ok(vec![listed("listed", going(1))]));
    let mut watch = Watch::known(api, always());
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    let (_, api) = watch.stop().await;
    assert!(api.times("unlisted").len() > 8, "on its own schedule: {:?}", api.times("unlisted"));
    assert!(api.times("listed").len() <= 3 && api.lists().len() > 5, "{:?}", api.times("listed"));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_says_nothing_new_leaves_a_run_its_schedule() {
    let script = |_, at: Duration| status(if at < seconds(300) { "PENDING" } else { "SUCCEEDED" });
    let mut times = Vec::new();
    for discovery in [None, Some(Discovery { every: seconds(1), wanted: Arc::new(|_| false) })] {
        let api =
            Api::new().with("r", script).with_list(|_, _| Ok(vec![listed("r", status("PENDING").unwrap())]));
        let mut watch = Watch::start(api, Settings { discovery, ..settings() });
        watch.ended().await;
        times.push(watch.stop().await.1.times("r"));
    }
    // The first list brings the first answer in the place of the run's own.
    assert_eq!(times[1].last(), times[0].last());
}

fn look(every: u64) -> Settings {
    let wanted = |listed: &mut Listed| listed.id.as_str() != "other";
    let discovery = Discovery { every: seconds(every), wanted: Arc::new(wanted) };
    let patience = Patience { refused_ends: false, ..settings().patience };
    Settings { discovery: Some(discovery), routes: one_channel(), patience, ..settings() }
}

fn created(second: i64) -> Run {
    Run { created_at: Timestamp::from_second(second).ok(), ..status("PENDING").unwrap() }
}

#[tokio::test(start_paused = true)]
async fn new_runs_are_found_within_the_interval() {
    let api = Api::new().with_list(|_, at| {
        let mut runs = vec![listed("other", created(7)), listed("old", created(1))];
        if at >= seconds(61) {
            runs.insert(0, listed("new", created(9)));
        }
        Ok(runs)
    });
    let mut watch = Watch::idle(api, look(60));
    sleep(seconds(125)).await;
    let at = |second| Timestamp::from_second(second).ok();
    let (old, new) = (vec!["old"], vec!["new", "old"]);
    let expected = [(old.clone(), at(7)), (old, at(7)), (new, at(9))];
    assert_eq!(
        watch.found(),
        expected.map(|(ids, newest)| (ids.into_iter().map(str::to_owned).collect(), newest))
    );
    assert_eq!(watch.api.lists(), [0.0, 60.0, 120.0]);
    // A machine that was asleep, and other settings, are reasons to look at once.
    watch.commands.send(Command::Resumed).await.unwrap();
    sleep(seconds(1)).await;
    watch
        .commands
        .send(Command::Reconfigure(Box::new(look(1000)), Arc::clone(&watch.api) as _))
        .await
        .unwrap();
    sleep(seconds(900)).await;
    assert_eq!(watch.api.lists()[3..], [125.0, 126.0]);
}

#[tokio::test(start_paused = true)]
async fn looking_outlives_an_outage_and_tells_of_it() {
    let api = Api::new().with_list(|_, at| match at.as_secs() {
        0..2000 => fails(PollErrorKind::Transient, None),
        _ => Ok(vec![listed("new", created(9))]),
    });
    let mut watch = Watch::idle(api, look(60));
    sleep(seconds(1990)).await;
    assert_eq!(watch.notices(), ["down"]);
    let unreachable = [("api.unreachable".to_owned(), Some("no_answer".to_owned()))];
    assert_eq!(to_be_told(&watch.store).await, unreachable);
    sleep(seconds(70)).await;
    assert_eq!(watch.found().len(), 1, "as soon as the interval after it is over");
    let lists = watch.api.lists();
    assert_eq!(lists[..4], [0.0, 10.0, 30.0, 70.0], "ever more seldom, and no more seldom than otherwise");
    assert!(lists.len() < 40, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn looking_with_a_refused_key_reads_it_again_and_tells() {
    let api = Api::new().with_list(|_, at| match at.as_secs() {
        0..1000 => doubt(DoubtKind::KeyRefused),
        _ => Ok(vec![]),
    });
    let mut watch = Watch::idle(api, look(10));
    sleep(seconds(990)).await;
    let refused = [("api.unreachable".to_owned(), Some("key_refused".to_owned()))];
    assert_eq!(to_be_told(&watch.store).await, refused);
    let asked = watch.api.lists().len();
    assert!(asked < 60, "{asked} requests with a refused key in 990 s");
    assert_eq!(watch.api.reloads.load(std::sync::atomic::Ordering::SeqCst), asked);
    sleep(seconds(100)).await;
    assert!(!watch.found().is_empty());
}

#[tokio::test(start_paused = true)]
async fn looking_keeps_to_the_budget() {
    let api = Api::new().with_list(|_, _| Ok(vec![]));
    let watch = Watch::idle(api, Settings { requests_per_minute: 4, ..look(1) });
    sleep(seconds(600)).await;
    let lists = watch.api.lists();
    let most =
        lists.iter().map(|at| lists.iter().filter(|other| (*at..at + 60.0).contains(*other)).count()).max();
    assert!(most <= Some(4) && lists.len() > 30, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_due_between_two_lists_wait_for_the_next() {
    // 40 runs that end one after the other, as their counts foretell.
    let ids: Vec<String> = (0..40).map(|n| format!("r{n:02}")).collect();
    let now = |number: usize, at: Duration| {
        let done = at.as_secs() * 100 / (100 + 2 * number as u64);
        if done >= 100 { status("SUCCEEDED").unwrap() } else { going(done) }
    };
    let mut api = Api::new();
    for (number, id) in ids.iter().enumerate() {
        api = api.with(id, move |_, at| Ok(now(number, at)));
    }
    let api = api.with_list(move |_, at| {
        Ok(ids.iter().enumerate().map(|(number, id)| listed(id, now(number, at))).collect())
    });
    let policy = Policy { price: Some(2.0), ..settings().policy };
    let mut watch = Watch::known(api, Settings { batch: Mode::Auto, policy, ..settings() });
    for number in 0..40 {
        watch.ended().await;
        let late = watch.api.started.elapsed().saturating_sub(seconds(100 + 2 * number));
        assert!(late < seconds(5), "{number} {late:?} late");
    }
    let (_, api) = watch.stop().await;
    let by_id = api.asked.lock().unwrap().len();
    assert!(by_id <= 60, "{by_id} requests by id, for 40 ends");
    let lists = api.lists();
    assert!(lists.windows(2).all(|pair| pair[1] - pair[0] >= 2.0), "apart as is worth it: {lists:?}");
}
