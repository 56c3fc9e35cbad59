//! The scheduler's warnings: overdue and stalled runs, and an API that cannot be used.

use std::time::Duration;

use jiff::Timestamp;
use runwatch::api::PollErrorKind;
use runwatch::poll::{Alerts, Curve, Outage, Policy, Settings};
use runwatch::run::{DoubtKind, Ending, Patience, Run, Terminal};
use runwatch::store::{DeliveryFilter, RunStore as _};
use tokio::time::sleep;

use crate::support::scripted::{
    Api, Watch, doubt, fails, one_channel, seconds, settings, status, to_be_told,
};

#[tokio::test(start_paused = true)]
async fn an_overdue_and_a_stalled_run_are_told_once_and_watched_on() {
    let created_at = Timestamp::now() - seconds(7200);
    let api = Api::new().with("late", move |_, at| {
        let word = if at < seconds(600) { "PROCESSING" } else { "SUCCEEDED" };
        status(word).map(|run| Run { created_at: Some(created_at), ..run })
    });
    let alerts = Alerts {
        overdue_after: Some(seconds(3600)),
        // The wall clock stands still in here but for the time that the test itself takes.
        stalled_after: Some(Duration::from_nanos(1)),
        ..settings().alerts
    };
    let mut watch = Watch::start(api, Settings { alerts, routes: one_channel(), ..settings() });
    assert_eq!(watch.ended().await, Ending::Finished(Terminal::Succeeded));
    let told = watch.store.deliveries(DeliveryFilter::default(), 9).await.unwrap();
    let mut told: Vec<_> = told.iter().map(|one| (one.kind.as_str(), one.state.as_str())).collect();
    told.sort_unstable();
    // Nobody delivers in here: the end overtakes both.
    let superseded = "superseded";
    assert_eq!(
        told,
        [("run.overdue", superseded), ("run.stalled", superseded), ("run.succeeded", "pending")]
    );
    let stored = watch.store.load().await.unwrap();
    assert!(stored[0].state.overdue_told_at.is_some(), "a restart does not tell it again");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_polled_when_it_becomes_overdue_however_long_its_pause_is() {
    let created_at = Timestamp::now();
    let api = Api::new().with("late", move |_, _| {
        status("PROCESSING").map(|run| Run { created_at: Some(created_at), ..run })
    });
    let alerts = Alerts { overdue_after: Some(seconds(600)), ..settings().alerts };
    let day = Curve { initial: seconds(86_400), multiplier: 1.0, max: seconds(86_400), jitter: 0.0 };
    let policy = Policy { healthy: day, ..settings().policy };
    let watch = Watch::start(api, Settings { alerts, policy, ..settings() });
    sleep(seconds(610)).await;
    let polled = watch.api.times("late");
    // The wall clock hardly moves in here, so the run is not overdue even then.
    assert!(polled.len() == 2 && polled[1] <= 600.0, "{polled:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_stays_away_is_told_after_its_time_and_forgotten_when_it_is_back() {
    let api = Api::new().with("r", |_, at| match at.as_secs() {
        0..2000 => fails(PollErrorKind::Transient, None),
        _ => status("PROCESSING"),
    });
    let watch = Watch::start(api, Settings { routes: one_channel(), ..settings() });
    sleep(seconds(890)).await;
    assert_eq!(to_be_told(&watch.store).await, []);
    sleep(seconds(80)).await;
    let expected = [("api.unreachable".to_owned(), Some("no_answer".to_owned()))];
    assert_eq!(to_be_told(&watch.store).await, expected);
    assert!(
        watch.store.moment(Outage::Api.moment().into()).await.unwrap().is_some(),
        "a restart does not tell it again"
    );
    sleep(seconds(1200)).await;
    assert_eq!(to_be_told(&watch.store).await, expected);
    assert_eq!(watch.store.moment(Outage::Api.moment().into()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stays_refused_is_told_and_not_tried_for_every_run() {
    let mut api = Api::new();
    let ids: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
    for id in &ids {
        api = api.with(id, |_, _| doubt(DoubtKind::KeyRefused));
    }
    let patience = Patience { refused_ends: false, ..settings().patience };
    let watch = Watch::start(api, Settings { patience, routes: one_channel(), ..settings() });
    sleep(seconds(1000)).await;
    let expected = [("api.unreachable".to_owned(), Some("key_refused".to_owned()))];
    assert_eq!(to_be_told(&watch.store).await, expected);
    let asked = watch.api.asked.lock().unwrap().len();
    assert!(asked < 50, "{asked} requests with a refused key in 1000 s");
}
