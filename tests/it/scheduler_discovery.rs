//! Discovery by the scheduler: when it fetches the list, what it finds, and what it reports when that fails.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runwatch::api::{Listed, PollErrorKind};
use runwatch::poll::{Alerts, Command, Discovery, Mode, Outage, Policy, Settings, Update};
use runwatch::run::{DoubtKind, Ending, Patience, Run};
use runwatch::store::RunStore as _;
use tokio::time::{sleep, timeout};

use crate::support::scripted::{
    Api, Watch, doubt, fails, going, listed, one_channel, seconds, settings, status, to_be_told,
};

fn discovering(every: u64) -> Settings {
    let wanted = |listed: &mut Listed| listed.id.as_str() != "other";
    let discovery = Discovery { every: seconds(every), wanted: Arc::new(wanted), generation: 0 };
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
    let mut watch = Watch::idle(api, discovering(60));
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
        .send(Command::Reconfigure(Box::new(discovering(1000)), Arc::clone(&watch.api) as _))
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
    let mut watch = Watch::idle(api, discovering(60));
    sleep(seconds(1990)).await;
    assert_eq!(watch.notices(), ["down"]);
    let unreachable = [("api.unreachable".to_owned(), Some("no_answer".to_owned()))];
    assert_eq!(to_be_told(&watch.store).await, unreachable);
    sleep(seconds(70)).await;
    assert_eq!(watch.found().len(), 1, "as soon as the interval after it is over");
    let lists = watch.api.lists();
    assert_eq!(lists[..5], [0.0, 1.0, 3.0, 7.0, 15.0], "ever more seldom, as after any error");
    assert!(lists.len() < 45, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn looking_with_a_refused_key_reads_it_again_and_tells() {
    let api = Api::new().with_list(|_, at| match at.as_secs() {
        0..1000 => doubt(DoubtKind::KeyRefused),
        _ => Ok(vec![]),
    });
    let mut watch = Watch::idle(api, discovering(10));
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
    let watch = Watch::idle(api, Settings { requests_per_minute: 4, ..discovering(1) });
    sleep(seconds(600)).await;
    let lists = watch.api.lists();
    let most =
        lists.iter().map(|at| lists.iter().filter(|other| (*at..at + 60.0).contains(*other)).count()).max();
    assert!(most <= Some(4) && lists.len() > 30, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn a_small_budget_is_for_the_runs_and_for_looking() {
    // Six a minute, and a list wanted every ten seconds.
    let api = Api::new().with("r", |_, _| Ok(going(1))).with_list(|_, _| Ok(vec![]));
    let watch = Watch::known(api, Settings { requests_per_minute: 6, ..discovering(10) });
    sleep(seconds(600)).await;
    let (_, api) = watch.stop().await;
    assert!(api.times("r").len() >= 10 && api.lists().len() >= 20, "{:?} {:?}", api.times("r"), api.lists());
    // Runs that are all to be confirmed do not keep it from looking.
    let ids: Vec<String> = (0..30).map(|n| format!("r{n:02}")).collect();
    let ended = || status("SUCCEEDED").unwrap();
    let mut api = Api::new();
    for id in &ids {
        api = api.with(id, move |_, _| Ok(ended()));
    }
    let api = api.with_list(move |_, _| Ok(ids.iter().map(|id| listed(id, ended())).collect()));
    let mut watch = Watch::known(api, Settings { requests_per_minute: 6, ..discovering(10) });
    for _ in 0..30 {
        watch.ended().await;
    }
    let took = watch.api.started.elapsed();
    let (_, api) = watch.stop().await;
    assert!(api.lists().len() >= 10 && took < seconds(700), "{took:?} {:?}", api.lists());
}

#[tokio::test(start_paused = true)]
async fn what_the_api_asked_for_is_kept_and_what_was_only_a_pause_is_not() {
    let api = Api::new().with_list(|times, _| match times {
        1 => fails(PollErrorKind::Transient, Some(100)),
        _ => fails(PollErrorKind::Transient, None),
    });
    let watch = Watch::idle(api, discovering(60));
    sleep(seconds(10)).await;
    watch.commands.send(Command::Resumed).await.unwrap();
    let anew = || Command::Reconfigure(Box::new(discovering(60)), Arc::clone(&watch.api) as _);
    watch.commands.send(anew()).await.unwrap();
    sleep(seconds(300)).await;
    let lists = watch.api.lists();
    assert_eq!(lists[..2], [0.0, 100.0]);
    // By now the pauses are long.
    let last = *lists.last().unwrap();
    assert!(310.0 - last > 1.0 && last - lists[lists.len() - 2] > 30.0, "{lists:?}");
    watch.commands.send(anew()).await.unwrap();
    sleep(seconds(1)).await;
    assert_eq!(watch.api.lists()[lists.len()..], [310.0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_had_while_the_api_answers_is_told_of_once() {
    let api = Api::new().with("r", |_, _| Ok(going(1))).with_list(|_, at| match at.as_secs() {
        0..2000 | 3000..5000 => doubt(DoubtKind::NoSuchPage),
        _ => Ok(vec![listed("r", going(1))]),
    });
    let mut watch = Watch::known(api, discovering(60));
    sleep(seconds(10)).await;
    let failed = |update: &Update| matches!(update, Update::DiscoveryFailed(_));
    assert!(std::iter::from_fn(|| watch.updates.try_recv().ok()).any(|update| failed(&update)), "at once");
    sleep(seconds(880)).await;
    assert_eq!(to_be_told(&watch.store).await, []);
    sleep(seconds(1000)).await;
    let told = || ("api.unreachable".to_owned(), Some("list_failed".to_owned()));
    assert_eq!(to_be_told(&watch.store).await, [told()]);
    let moment = || watch.store.moment(Outage::List.moment().into());
    assert!(moment().await.unwrap().is_some(), "a restart does not tell it again");
    sleep(seconds(500)).await;
    assert_eq!(moment().await.unwrap(), None, "it is over");
    sleep(seconds(2500)).await;
    assert_eq!(to_be_told(&watch.store).await, [told(), told()]);
}

#[tokio::test(start_paused = true)]
async fn a_blip_of_the_list_is_nobodys_business() {
    let api = Api::new().with("r", |_, _| Ok(going(1))).with_list(|times, _| match times {
        2 => fails(PollErrorKind::Transient, None),
        _ => Ok(vec![listed("r", going(1))]),
    });
    let mut watch = Watch::known(api, discovering(60));
    sleep(seconds(600)).await;
    assert!(watch.api.lists().len() > 5);
    while let Ok(update) = watch.updates.try_recv() {
        assert!(!matches!(update, Update::DiscoveryFailed(_)), "{update:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_no_outage_of_an_api_that_answers_whether_or_not_runs_are_watched() {
    let api = Api::new()
        .with("r", |_, at| status(if at < seconds(100) { "PROCESSING" } else { "SUCCEEDED" }))
        .with_list(|_, _| fails(PollErrorKind::Transient, None));
    let mut watch = Watch::known(api, discovering(60));
    watch.ended().await;
    sleep(seconds(7200)).await;
    let told = to_be_told(&watch.store).await;
    let expected = [("run.succeeded", None), ("api.unreachable", Some("list_failed"))]
        .map(|(kind, reason)| (kind.to_owned(), reason.map(str::to_owned)));
    assert_eq!(told, expected);
    assert_eq!(watch.notices(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_is_not_told_again_as_one_of_the_list() {
    let api = Api::new()
        .with(
            "r",
            |_, at| if at < seconds(2000) { fails(PollErrorKind::Transient, None) } else { Ok(going(1)) },
        )
        .with_list(|_, at| match at.as_secs() {
            0..2100 => fails(PollErrorKind::Transient, None),
            _ => Ok(vec![listed("r", going(1))]),
        });
    let watch = Watch::known(api, discovering(10));
    sleep(seconds(4000)).await;
    let no_answer = ("api.unreachable".to_owned(), Some("no_answer".to_owned()));
    assert_eq!(to_be_told(&watch.store).await, [no_answer]);
}

#[tokio::test(start_paused = true)]
async fn a_list_does_not_hide_that_no_run_can_be_read() {
    let api = Api::new()
        .with("r", |_, _| fails(PollErrorKind::Transient, None))
        .with_list(|_, _| Ok(vec![listed("r", going(1))]));
    let mut watch = Watch::known(api, discovering(10));
    sleep(seconds(1000)).await;
    assert_eq!(watch.notices(), ["down"], "and not up and down again");
    let no_answer = ("api.unreachable".to_owned(), Some("no_answer".to_owned()));
    assert_eq!(to_be_told(&watch.store).await, [no_answer]);
}

#[tokio::test(start_paused = true)]
async fn one_run_that_the_key_may_not_read_does_not_stop_looking() {
    let api = Api::new()
        .with("r", |_, _| doubt(DoubtKind::KeyRefused))
        .with_list(|_, _| Ok(vec![listed("new", created(9))]));
    let mut watch = Watch::known(api, discovering(60));
    sleep(seconds(1000)).await;
    let (found, asked) = (watch.found().len(), watch.api.times("r").len());
    assert!(found > 5 && asked > 5, "{found} lists, {asked} requests about the run");
}

#[tokio::test(start_paused = true)]
async fn what_was_wrong_with_the_list_is_forgotten_where_nobody_looks() {
    let api = Api::new().with("r", |_, _| Ok(going(1))).with_list(|_, _| doubt(DoubtKind::NoSuchPage));
    let watch = Watch::known(api, discovering(60));
    let moment = || watch.store.moment(Outage::List.moment().into());
    sleep(seconds(1000)).await;
    assert!(moment().await.unwrap().is_some());
    let anew = |discovery| {
        let settings = Settings { discovery, ..discovering(60) };
        Command::Reconfigure(Box::new(settings), Arc::clone(&watch.api) as _)
    };
    watch.commands.send(anew(None)).await.unwrap();
    sleep(seconds(100)).await;
    assert_eq!(moment().await.unwrap(), None);
    // Turned on again, it is another outage, with its own time.
    watch.commands.send(anew(discovering(60).discovery)).await.unwrap();
    sleep(seconds(800)).await;
    assert_eq!(to_be_told(&watch.store).await.len(), 1);
    sleep(seconds(200)).await;
    assert_eq!(to_be_told(&watch.store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn looking_often_keeps_no_run_from_its_turn() {
    for (every, price) in [(1, 0.5), (1, 2.0), (2, 2.0), (5, 10.0), (60, 2.0)] {
        let mut api = Api::new().with("missing", |_, _| doubt(DoubtKind::Missing));
        for n in 0..4 {
            api = api.with(&format!("r{n}"), |_, _| status("PENDING"));
        }
        let in_list = || (0..4).map(|n| listed(&format!("r{n}"), status("PENDING").unwrap())).collect();
        let policy = Policy { price: Some(price), ..settings().policy };
        // The wall clock stands still in here but for the time that the test itself takes.
        let alerts = Alerts { stalled_after: Some(Duration::from_nanos(1)), ..settings().alerts };
        let settings = Settings { batch: Mode::Auto, policy, alerts, ..discovering(every) };
        let mut watch = Watch::known(api.with_list(move |_, _| Ok(in_list())), settings);
        let ended = timeout(seconds(3600), watch.ended()).await;
        assert_eq!(ended, Ok(Ending::NeverFound), "with a list every {every} s at {price}");
        let took = watch.api.started.elapsed();
        assert!(took < seconds(130), "{took:?} with a list every {every} s at {price}");
        sleep(seconds(60)).await;
        let mut told: Vec<_> = to_be_told(&watch.store).await.into_iter().map(|(kind, _)| kind).collect();
        told.sort();
        let stalled = told.iter().filter(|kind| *kind == "run.stalled").count();
        // The one that is missing has never moved either.
        assert!(told.contains(&"run.lost".to_owned()) && stalled >= 4, "{told:?} at {every} s, {price}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_long_holds_no_run_up() {
    let now =
        |at: Duration| if at < seconds(100) { going(at.as_secs()) } else { status("SUCCEEDED").unwrap() };
    let ids = ["a", "b", "c"];
    let mut api = ids.iter().fold(Api::new(), |api, id| api.with(id, move |_, at| Ok(now(at))));
    api.list_latency = seconds(8);
    let api = api.with_list(move |_, at| Ok(ids.iter().map(|id| listed(id, now(at))).collect()));
    let policy = Policy { price: Some(2.0), ..settings().policy };
    let mut watch = Watch::known(api, Settings { batch: Mode::Auto, policy, ..discovering(10) });
    for id in ids {
        watch.ended().await;
        let late = watch.api.started.elapsed().saturating_sub(seconds(100));
        assert!(late < seconds(3), "{id} {late:?} late");
    }
}
