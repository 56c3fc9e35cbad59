//! Claims, sends and records of one channel in progress at the same time, in virtual time: what each changes while
//! another is not finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runwatch::notify::{NotifyError, Retry};
use runwatch::store::{DeliveryFilter, DeliveryState, Outbox as _, StoreError, StoreErrorKind};
use tokio::time::{sleep, timeout};

use crate::pacing::{Receiver, SECOND, Stage, names};
use crate::support::faulty_store::{Call, Faulty};

#[tokio::test(start_paused = true)]
async fn what_was_claimed_before_the_receiver_refused_is_not_sent_while_it_is_to_wait() {
    let stage = Stage::new();
    let receiver = Receiver::new(|_, _| Err(NotifyError::new(Retry::SlowDown(Some(60 * SECOND)), "429")));
    let slow =
        Faulty::new(Arc::clone(&stage.store), |_| Ok(())).slow(Duration::from_millis(50), Duration::ZERO);
    drop(stage.deliver_from(Arc::new(slow), &receiver));
    stage.end("first").await;
    // It is claimed at once, sent after 50 ms and refused after 55.
    sleep(Duration::from_millis(52)).await;
    stage.end("second").await;
    sleep(30 * SECOND).await;
    assert_eq!(receiver.came().len(), 1, "{:?}", receiver.came());
    let undelivered = stage.store.undelivered().await.unwrap();
    assert!(undelivered.iter().all(|one| !one.in_flight), "nothing is kept from other events");
    sleep(60 * SECOND).await;
    assert!(receiver.came().iter().any(|(_, run, ..)| run == "second"), "{:?}", receiver.came());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_recorded_when_the_workers_are_stopped_and_a_store_that_hangs_stops_nothing() {
    let hour = Duration::from_hours(1);
    for (finishing, expected) in [(SECOND / 2, DeliveryState::Delivered), (hour, DeliveryState::Pending)] {
        let stage = Stage::new();
        let receiver = Receiver::new(|_, _| Ok(()));
        for run in names(5) {
            stage.end(&run).await;
        }
        let slow = Faulty::new(Arc::clone(&stage.store), |_| Ok(())).slow(Duration::ZERO, finishing);
        let (workers, _) = stage.deliver_from(Arc::new(slow), &receiver);
        sleep(SECOND / 4).await;
        stage.cancel.cancel();
        timeout(4 * SECOND, workers).await.expect("within what a stop allows").unwrap();
        assert_eq!(receiver.came().len(), 5);
        let fates = stage.fates().await;
        assert!(fates.iter().all(|(_, state, _)| *state == expected), "{finishing:?}: {fates:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_recording_it_panicked_is_taken_up_again() {
    let (stage, panics) = (Stage::new(), AtomicBool::new(true));
    let mut receiver = Receiver::new(|_, _| Ok(()));
    Arc::get_mut(&mut receiver).unwrap().latency = 20 * SECOND;
    let store = Faulty::new(Arc::clone(&stage.store), move |call| {
        assert!(call != Call::Finish || !panics.swap(false, Ordering::Relaxed), "as scripted");
        Ok(())
    });
    drop(stage.deliver_from(Arc::new(store), &receiver));
    stage.end("r1").await;
    sleep(10 * SECOND).await;
    // The store is asked, and has nothing but what is under way.
    let nothing = DeliveryFilter { id: Some(99), ..Default::default() };
    stage.store.retry(nothing, &[], (stage.wall)()).await.unwrap();
    sleep(300 * SECOND).await;
    let fates = stage.fates().await;
    assert_eq!(fates, [("r1".to_owned(), DeliveryState::Delivered, 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_is_sent_although_the_store_cannot_say_what_is_next() {
    let (stage, fails) = (Stage::new(), AtomicBool::new(true));
    let receiver = Receiver::new(|_, _| Ok(()));
    stage.end("r1").await;
    let store = Faulty::new(Arc::clone(&stage.store), move |call| {
        if call == Call::Next && fails.swap(false, Ordering::Relaxed) {
            return Err(StoreError { kind: StoreErrorKind::Io, message: "as scripted".into() });
        }
        Ok(())
    });
    drop(stage.deliver_from(Arc::new(store), &receiver));
    sleep(5 * SECOND).await;
    assert_eq!(receiver.came().len(), 1, "it does not wait for the end of its lease");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_could_not_be_recorded_is_known_when_the_workers_have_ended() {
    let stage = Stage::new();
    let receiver = Receiver::new(|notice, _| match notice.payload.data.run_id.as_ref() {
        Some(run) if run.as_str() == "r01" => Err(NotifyError::retryable("500")),
        _ => Ok(()),
    });
    for run in names(2) {
        stage.end(&run).await;
    }
    let broken = Faulty::new(Arc::clone(&stage.store), |call| match call {
        Call::Finish => Err(StoreError { kind: StoreErrorKind::Corrupt, message: "as scripted".into() }),
        _ => Ok(()),
    });
    let (workers, made) = stage.deliver_from(Arc::new(broken), &receiver);
    sleep(SECOND).await;
    stage.cancel.cancel();
    workers.await.unwrap();
    assert_eq!(made.unrecorded().len(), 1);
    // Whoever goes on with another store records it there.
    stage.store.were_made(made.unrecorded(), (stage.wall)()).await.unwrap();
    let fates: Vec<_> = stage.fates().await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(fates, [DeliveryState::Delivered, DeliveryState::Pending]);
}
