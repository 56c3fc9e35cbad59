//! Polling or notifying ends by itself: the caller learns at once which one.

use std::sync::Arc;
use std::time::Duration;

use runwatch::app::{self, Plan, Running};
use runwatch::poll::OutagesTold;
use runwatch::store::SqliteStore;
use tokio_util::sync::CancellationToken;

use crate::support::faulty_store::{Call, Faulty};
use crate::support::scripted::{Api, settings, status};

fn start(outbox_panics: bool) -> Running {
    let api = Api::new().with("r", |_, _| status("PROCESSING"));
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let store = Faulty::new(store, move |call| {
        assert!(!(outbox_panics && call == Call::Changed), "as scripted");
        Ok(())
    });
    let desktop = app::default_desktop(&[]);
    let plan = Plan {
        settings: settings(),
        runs: Vec::new(),
        channels: vec![desktop],
        outages_told: OutagesTold::default(),
    };
    app::start(plan, Arc::new(api), Arc::new(store))
}

#[tokio::test(start_paused = true)]
async fn a_delivery_half_that_panics_is_noticed_at_once_and_named() {
    let running = start(true);
    let error = running.failed().await;
    assert!(error.to_string().starts_with("the delivery of notifications panicked"), "{error}");
    let second = Duration::from_secs(1);
    let stopped = running.stop(second, second, CancellationToken::new()).await;
    assert!(stopped.unwrap_err().to_string().contains("the delivery of notifications panicked"));
}

#[tokio::test(start_paused = true)]
async fn both_halves_live_until_they_are_stopped() {
    let running = start(false);
    let failed = running.failed();
    tokio::select! {
        error = failed => panic!("{error}"),
        () = tokio::time::sleep(Duration::from_hours(1)) => {}
    }
    let second = Duration::from_secs(1);
    running.stop(second, second, CancellationToken::new()).await.unwrap();
}
