//! The scheduler with the list of all runs instead of polls: what that saves, and errors in the list.

use std::sync::Arc;
use std::time::Duration;

use runwatch::api::PollErrorKind;
use runwatch::poll::{Command, Curve, Discovery, Mode, Policy, Settings};
use runwatch::run::{DoubtKind, Ending, Patience, Terminal};
use runwatch::store::Outbox as _;
use tokio::time::sleep;

use crate::support::scripted::{
    Api, Watch, doubt, fails, going, listed, one_channel, seconds, settings, status, watched,
};

/// Every list that is worth anything.
fn always() -> Settings {
    Settings { batch: Mode::Always, ..settings() }
}

/// An API with so many runs that all succeed at a second, and a list of them; one of 300 is not in it, although it is there.
fn many(runs: usize, end: u64) -> Api {
    let now = move |at| if at < seconds(end) { going(1) } else { status("SUCCEEDED").unwrap() };
    let ids: Vec<String> = (0..runs).map(|n| format!("r{n:03}")).collect();
    let api = ids.iter().fold(Api::new(), |api, id| api.with(id, move |_, at| Ok(now(at))));
    api.with_list(move |_, at| {
        Ok(ids.iter().filter(|id| *id != "r299").map(|id| listed(id, now(at))).collect())
    })
}

#[tokio::test(start_paused = true)]
async fn one_request_for_many_runs() {
    let api = many(300, 600);
    let mut watch = Watch::known(api, Settings { batch: Mode::Auto, routes: one_channel(), ..settings() });
    for _ in 0..300 {
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
    let mut watch = Watch::start(api, always());
    for _ in 0..20 {
        assert_eq!(watch.ended().await, Ending::Finished(Terminal::Failed));
    }
    let (_, api) = watch.stop().await;
    assert!(api.lists().len() < 12, "ever more seldom");
    let alone = |batch| async move {
        let api = Api::new().with("r", |_, at| status(if at < seconds(300) { "PENDING" } else { "FAILED" }));
        let mut watch = Watch::known(api, Settings { batch, ..settings() });
        watch.ended().await;
        watch.stop().await.1.times("r")
    };
    assert_eq!(alone(Mode::Always).await, alone(Mode::Never).await, "nothing waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_list_holds_back_itself_and_not_the_runs() {
    let api = Api::new()
        .with("r", |times, _| status(if times < 2 { "PROCESSING" } else { "SUCCEEDED" }))
        .with_list(|_, _| fails(PollErrorKind::Throttled, Some(30)));
    let mut watch = Watch::known(api, always());
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    let (_, api) = watch.stop().await;
    assert_eq!(api.lists(), [0.0]);
    assert_eq!(api.times("r"), [0.0, 1.0], "only the list was refused");
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
    let (_, api) = watch.stop().await;
    assert_eq!(api.lists(), [0.0], "a list in between would take a run's place in the budget");
    assert_eq!(api.asked.lock().unwrap().len(), 30, "each by itself, once, for what the event tells");
}

#[tokio::test(start_paused = true)]
async fn a_list_changes_nothing_that_was_answered_after_it_was_asked_for() {
    let mut api = Api::new().with("new", |_, _| status("PROCESSING"));
    api.list_latency = seconds(20);
    let api = api.with_list(|_, _| Ok(vec![listed("new", status("PENDING").unwrap())]));
    let discovery = Discovery { every: seconds(3600), wanted: Arc::new(|_| true), generation: 0 };
    let mut watch = Watch::idle(api, Settings { discovery: Some(discovery), ..settings() });
    sleep(seconds(10)).await;
    watch.commands.send(Command::Add(vec![watched("new".parse().unwrap())])).await.unwrap();
    sleep(seconds(30)).await;
    let view = watch.ask(|reply| Command::View("new".parse().unwrap(), reply)).await.unwrap();
    assert_eq!(view.state.status, Some(status("PROCESSING").unwrap().status));
    assert_eq!(watch.found(), [(vec![], None)], "nor is it found, which is watched already");
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_during_a_list_that_failed_does_not_count_against_the_next() {
    let mut api = Api::new().with("r", |_, _| status("PENDING"));
    api.list_latency = seconds(5);
    let api = api.with_list(|times, _| match times {
        1 => fails(PollErrorKind::Transient, None),
        _ => Ok(vec![listed("r", going(77))]),
    });
    let discovery = Discovery { every: seconds(3600), wanted: Arc::new(|_| true), generation: 0 };
    let healthy = Curve { initial: seconds(20), ..settings().policy.healthy };
    let policy = Policy { healthy, ..settings().policy };
    let watch = Watch::known(api, Settings { discovery: Some(discovery), policy, ..settings() });
    // It is asked for again a second after it has failed, and no answer comes meanwhile.
    sleep(Duration::from_millis(11_100)).await;
    assert_eq!(watch.api.lists(), [0.0, 6.0]);
    let view = watch.ask(|reply| Command::View("r".parse().unwrap(), reply)).await.unwrap();
    assert_eq!(view.state.progress.completed, Some(77), "{:?}", watch.api.times("r"));
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
    for discovery in [None, Some(Discovery { every: seconds(1), wanted: Arc::new(|_| false), generation: 0 })]
    {
        let api =
            Api::new().with("r", script).with_list(|_, _| Ok(vec![listed("r", status("PENDING").unwrap())]));
        let mut watch = Watch::start(api, Settings { discovery, ..settings() });
        watch.ended().await;
        times.push(watch.stop().await.1.times("r"));
    }
    // The first list brings the first answer in the place of the run's own.
    assert_eq!(times[1].last(), times[0].last());
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

#[tokio::test(start_paused = true)]
async fn a_list_that_hangs_holds_nothing_up_for_long() {
    let api = Api { list_latency: seconds(100_000), ..many(30, 60) };
    let mut watch = Watch::known(api, always());
    for _ in 0..30 {
        watch.ended().await;
    }
    // By themselves, from the moment on at which nobody waits for it any more.
    let late = watch.api.started.elapsed().saturating_sub(seconds(60));
    let (_, api) = watch.stop().await;
    assert!(late < seconds(30), "{late:?} late");
    assert_eq!((api.lists(), api.times("r000")[0]), (vec![0.0], 5.0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_list_is_waited_for_as_long_as_lists_take() {
    let api = Api { list_latency: seconds(4), ..many(40, 600) };
    let mut watch = Watch::known(api, always());
    for _ in 0..40 {
        watch.ended().await;
    }
    let late = watch.api.started.elapsed().saturating_sub(seconds(600));
    let (_, api) = watch.stop().await;
    let before = api.asked.lock().unwrap().iter().filter(|(at, _)| *at < seconds(600)).count();
    assert_eq!(before, 0, "the list is enough");
    assert!(late < seconds(100), "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_to_be_left_alone_is_not_drawn_into_a_list() {
    let mut api = Api::new().with("r", |times, _| match times {
        1 => fails(PollErrorKind::Transient, Some(60)),
        _ => Ok(going(2)),
    });
    for n in 0..5 {
        api = api.with(&format!("other{n}"), |_, _| Ok(going(1)));
    }
    let api = api.with_list(|times, _| {
        let others = (0..5).map(|n| listed(&format!("other{n}"), going(1)));
        // The first list says that it has ended, so that it is asked about by itself.
        let r = if times == 1 { status("SUCCEEDED").unwrap() } else { going(1) };
        Ok(others.chain([listed("r", r)]).collect())
    });
    // The others are due all the time.
    let healthy = Curve { max: seconds(2), ..settings().policy.healthy };
    let policy = Policy { healthy, ..settings().policy };
    let watch = Watch::known(api, Settings { policy, ..always() });
    sleep(seconds(59)).await;
    let view = watch.ask(|reply| Command::View("r".parse().unwrap(), reply)).await.unwrap();
    assert_eq!((view.state.status, watch.api.times("r").len()), (None, 1));
    sleep(seconds(10)).await;
    assert_eq!(watch.api.times("r")[..2], [0.0, 60.0]);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_looked_through_by_a_list_before_anything_else() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..1000).map(|n| format!("r{n:04}")).collect();
    let now = |id: &str| if id == "r0987" { status("SUCCEEDED").unwrap() } else { going(1) };
    for id in &ids {
        let run = now(id);
        api = api.with(id, move |_, _| Ok(run.clone()));
    }
    let api = api.with_list(move |_, _| Ok(ids.iter().map(|id| listed(id, now(id))).collect()));
    let mut watch = Watch::start(api, Settings { batch: Mode::Auto, ..settings() });
    watch.ended().await;
    assert!(watch.api.started.elapsed() < seconds(2), "one by one it would be its turn after eight minutes");
    let (_, api) = watch.stop().await;
    assert_eq!(api.lists()[..1], [0.0]);
}

#[tokio::test(start_paused = true)]
async fn one_list_without_runs_does_not_send_them_by_themselves_for_ever() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..5).map(|n| format!("r{n}")).collect();
    for id in &ids {
        api = api.with(id, |_, _| Ok(going(1)));
    }
    let api = api.with_list(move |times, _| {
        let all = ids.iter().map(|id| listed(id, going(1)));
        Ok(if times == 1 { Vec::new() } else { all.collect() })
    });
    let watch = Watch::known(api, always());
    sleep(seconds(3000)).await;
    let (_, api) = watch.stop().await;
    let asked = |from: u64, to: u64| {
        let times = api.asked.lock().unwrap();
        times.iter().filter(|(at, _)| (seconds(from)..seconds(to)).contains(at)).count()
    };
    assert!(asked(0, 600) > 30, "by themselves at first");
    assert_eq!(asked(700, 3000), 0);
    assert!(api.lists().len() > 30, "{:?}", api.lists());
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_with_one_run_and_not_with_the_list() {
    let mut api = Api::new();
    for n in 0..20 {
        api = api.with(&format!("r{n:02}"), |_, _| doubt(DoubtKind::KeyRefused));
    }
    let api = api.with_list(|_, _| doubt(DoubtKind::KeyRefused));
    let patience = Patience { refused_ends: false, ..settings().patience };
    let watch = Watch::known(api, Settings { patience, ..always() });
    sleep(seconds(1000)).await;
    let (_, api) = watch.stop().await;
    let asked = api.asked.lock().unwrap().len();
    assert_eq!(api.lists(), [0.0]);
    assert!((5..50).contains(&asked), "{asked} requests with a refused key in 1000 s");
}
