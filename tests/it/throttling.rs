//! The scheduler against an API that answers 429: whom it holds back, and that those who wait are told.

use runwatch::api::PollErrorKind;
use runwatch::poll::{Alerts, Command, Mode, Settings};
use runwatch::run::{Ending, Run, RunId, Terminal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::support::scripted::{
    Api, Watch, fails, going, listed, one_channel, seconds, settings, status, to_be_told,
};

fn throttled<T>(seconds: Option<u64>) -> Result<T, runwatch::api::PollError> {
    fails(PollErrorKind::Throttled, seconds)
}

fn kinds(told: Vec<(String, Option<String>)>) -> Vec<String> {
    told.into_iter().map(|(kind, _)| kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_429_about_one_run_holds_back_that_run_alone() {
    let api = Api::new()
        .with("a", |times, _| if times == 1 { throttled(Some(3600)) } else { status("SUCCEEDED") })
        .with("b", |times, _| status(if times < 3 { "PROCESSING" } else { "SUCCEEDED" }));
    let mut watch = Watch::start(api, settings());
    watch.ended().await;
    watch.ended().await;
    assert_eq!(watch.notices(), Vec::<&str>::new(), "it is no outage");
    let (_, api) = watch.stop().await;
    assert_eq!((api.times("a"), api.times("b")), (vec![0.0, 3600.0], vec![0.0, 1.0, 2.5]));
}

#[tokio::test(start_paused = true)]
async fn two_runs_refused_hold_back_the_account_as_long_as_both_are_to_wait() {
    let first = |wait| move |times, _| if times == 1 { throttled(Some(wait)) } else { status("SUCCEEDED") };
    let api = Api::new()
        .with("a", first(3600))
        .with("b", first(30))
        .with("c", |times, _| status(if times < 3 { "PROCESSING" } else { "SUCCEEDED" }));
    let mut watch = Watch::start(api, settings());
    for _ in 0..3 {
        watch.ended().await;
    }
    let (_, api) = watch.stop().await;
    assert_eq!(api.times("c"), [0.0, 30.0, 31.5]);
    assert_eq!((api.times("a"), api.times("b")), (vec![0.0, 3600.0], vec![0.0, 30.0]));
}

#[tokio::test(start_paused = true)]
async fn endless_throttling_is_an_outage_for_those_who_wait() {
    // With every way to ask for a pause, for one run and for many, by themselves and by the list.
    for wait in [None, Some(2), Some(600)] {
        for (runs, batch) in [(1, Mode::Never), (5, Mode::Never), (30, Mode::Auto), (30, Mode::Always)] {
            let case = format!("{wait:?} {runs} {batch:?}");
            let until = seconds(4000);
            let mut api = Api::new();
            for n in 0..runs {
                api = api.with(&format!("r{n:02}"), move |_, at| {
                    if at < until { throttled(wait) } else { status("PROCESSING") }
                });
            }
            let api =
                api.with_list(
                    move |_, at| {
                        if at < until { throttled(wait) } else { Ok(vec![listed("r00", going(1))]) }
                    },
                );
            let settings = Settings { batch, routes: one_channel(), ..settings() };
            let mut watch = Watch::known(api, settings);
            sleep(seconds(1900)).await;
            assert_eq!(watch.notices(), ["down"], "{case}");
            let unreachable = [("api.unreachable".to_owned(), Some("throttled".to_owned()))];
            assert_eq!(to_be_told(&watch.store).await, unreachable, "{case}");
            sleep(seconds(3000)).await;
            assert_eq!(watch.notices(), ["up"], "{case}");
            watch.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_long_overdue_is_told_though_the_api_only_throttles() {
    let api = Api::new().with("r", |_, _| throttled(Some(3600)));
    let alerts = Alerts { overdue_after: Some(seconds(3600)), ..settings().alerts };
    // It is watched since 1970.
    let watch = Watch::start(api, Settings { alerts, routes: one_channel(), ..settings() });
    sleep(seconds(5)).await;
    assert_eq!(kinds(to_be_told(&watch.store).await), ["run.overdue"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_look_goes_on_past_one_429_and_not_past_two() {
    for (refused, asked) in [(1, true), (2, false)] {
        let mut api = Api::new();
        for (n, id) in ["a", "b"].into_iter().enumerate() {
            api = api.with(id, move |times, _| {
                if times > 1 && n < refused { throttled(Some(50)) } else { status("PROCESSING") }
            });
        }
        let api = api.with("c", |times, _| status(if times == 1 { "PROCESSING" } else { "SUCCEEDED" }));
        let slow =
            runwatch::poll::Curve { initial: seconds(100), max: seconds(100), ..settings().policy.healthy };
        let policy = runwatch::poll::Policy { healthy: slow, ..settings().policy };
        let watch = Watch::start(api, Settings { max_in_flight: 1, policy, ..settings() });
        sleep(seconds(5)).await;
        let (reply, looked) = oneshot::channel();
        watch.commands.send(Command::LastPoll(reply)).await.unwrap();
        looked.await.unwrap();
        assert_eq!(watch.api.started.elapsed(), seconds(5), "silence is not waited out");
        let (runs, _) = watch.stop().await;
        let id: RunId = "c".parse().unwrap();
        let c = runs.iter().find(|run| run.watched.subject.id == id).unwrap();
        assert_eq!(
            c.watched.state.ended == Some(Ending::Finished(Terminal::Succeeded)),
            asked,
            "{refused} refused"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_last_run_that_could_have_seen_it_end() {
    for error in [PollErrorKind::Transient, PollErrorKind::Throttled] {
        let api = Api::new().with("r", move |_, _| fails::<Run>(error, None));
        let mut watch = Watch::start(api, Settings { routes: one_channel(), ..settings() });
        sleep(seconds(1000)).await;
        assert_eq!(watch.notices(), ["down"]);
        watch.ask(|reply| Command::Remove("r".parse().unwrap(), reply)).await;
        sleep(seconds(1)).await;
        assert_eq!(watch.notices(), ["up"], "{error:?}: nobody polls");
        let moment =
            runwatch::store::RunStore::moment(&*watch.store, runwatch::poll::Outage::Api.moment().into());
        assert_eq!(moment.await.unwrap(), None, "and what was told of it is over");
    }
}
