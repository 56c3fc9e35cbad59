//! The scheduler against an API that answers 429: which runs wait, and that users are notified.

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
async fn a_run_whose_own_polls_fail_is_overdue_while_the_api_answers_about_others() {
    let alerts = Alerts { overdue_after: Some(seconds(3600)), ..settings().alerts };
    for (others, told) in [(true, vec!["run.overdue"; 2]), (false, Vec::new())] {
        let mut api = Api::new().with("r", |_, _| fails(PollErrorKind::Transient, None));
        if others {
            api = api.with("s", |_, _| status("PROCESSING"));
        }
        // They are watched since 1970.
        let watch = Watch::start(api, Settings { alerts, routes: one_channel(), ..settings() });
        sleep(seconds(60)).await;
        assert_eq!(kinds(to_be_told(&watch.store).await), told, "in an outage it may have ended unseen");
    }
}

#[tokio::test(start_paused = true)]
async fn the_final_poll_continues_after_one_429_and_not_past_two() {
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
        watch.commands.send(Command::FinalPoll(reply)).await.unwrap();
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

/// A run that is watched from now on.
fn watched_now(id: &str, deadline: Option<std::time::Duration>) -> runwatch::poll::Watched {
    let subject = runwatch::run::Subject { id: id.parse().unwrap(), name: None };
    let mut run = runwatch::poll::Watched::new(subject, jiff::Timestamp::now());
    run.deadline = deadline;
    run
}

/// By the clock: deadlines are wall time, which no test can move.
#[tokio::test]
async fn a_run_becomes_overdue_in_time_though_nothing_is_polled_for_an_hour() {
    let soon = Some(std::time::Duration::from_millis(300));
    // One run that is held back alone, or by a 503; and two that are, with which a third waits that was answered.
    let (busy, down) = (PollErrorKind::Throttled, PollErrorKind::Transient);
    for (case, refused, kind) in [("alone", 1, busy), ("the account", 2, busy), ("a 503", 1, down)] {
        let mut api = Api::new();
        let mut runs = Vec::new();
        for n in 0..refused {
            api = api.with(&format!("r{n}"), move |_, _| fails(kind, Some(3600)));
            runs.push(watched_now(&format!("r{n}"), soon));
        }
        if refused > 1 {
            api = api.with("q", |_, _| status("PROCESSING"));
            runs.push(watched_now("q", soon));
        }
        let (many, store) =
            (runs.len(), std::sync::Arc::new(runwatch::store::SqliteStore::in_memory().unwrap()));
        let slow =
            runwatch::poll::Curve { initial: seconds(100), max: seconds(100), ..settings().policy.healthy };
        let policy = runwatch::poll::Policy { healthy: slow, ..settings().policy };
        let settings = Settings { policy, routes: one_channel(), ..settings() };
        let recorder = std::sync::Arc::clone(&store) as _;
        let mut watch = Watch::start_on(api, settings, runs, recorder, store);
        let told = tokio::time::timeout(seconds(20), async {
            while to_be_told(&watch.store).await.len() < many {
                watch.updates.recv().await.unwrap();
            }
        });
        told.await.unwrap_or_else(|_| panic!("{case}: never told"));
        assert_eq!(kinds(to_be_told(&watch.store).await), vec!["run.overdue"; many], "{case}");
        let (runs, api) = watch.stop().await;
        assert!(runs.iter().all(|run| run.watched.state.overdue_told_at.is_some()), "{case}");
        assert_eq!(api.asked.lock().unwrap().len(), many, "{case}: `Retry-After` holds");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_asks_for_an_hour_of_silence_is_an_outage_before_that_is_over() {
    for runs in [1, 2] {
        let mut api = Api::new();
        for n in 0..runs {
            api = api.with(&format!("r{n}"), |times, _| {
                if times == 1 { throttled(Some(3600)) } else { status("PROCESSING") }
            });
        }
        let mut watch = Watch::start(api, Settings { routes: one_channel(), ..settings() });
        sleep(seconds(890)).await;
        assert_eq!(to_be_told(&watch.store).await, [], "{runs}");
        sleep(seconds(20)).await;
        let throttled = [("api.unreachable".to_owned(), Some("throttled".to_owned()))];
        assert_eq!(to_be_told(&watch.store).await, throttled, "{runs}");
        let words = std::iter::from_fn(|| watch.updates.try_recv().ok());
        let words: Vec<String> = words.filter_map(|update| runwatch::words::notice(&update)).collect();
        assert!(
            matches!(&words[..], [one] if one.starts_with("API throttling requests since ")),
            "{words:?}"
        );
        sleep(seconds(2800)).await;
        assert_eq!(watch.notices(), ["up"], "{runs}");
        let (_, api) = watch.stop().await;
        assert_eq!(api.times("r0")[..2], [0.0, 3600.0], "{runs}");
    }
}
