//! What must hold at the end of the year: the API's account, the state and what the receivers got are the same.

use std::collections::BTreeSet;

use runwatch::run::{Ending, EventId, EventKind};
use runwatch::store::{Delivery, DeliveryState};

use super::ledger::{id_of_end, is_pending};
use super::life::Stage;
use super::plan::{Course, Fate, Kind, YEAR};
use super::receiver::Receiver;

pub fn check(stage: &Stage) {
    for course in &stage.plan.runs {
        check_run(stage, course);
    }
    let rows = stage.ledger.rows();
    for receiver in &stage.receivers {
        let taken = receiver.taken();
        let ids: BTreeSet<&EventId> = taken.iter().map(|(id, _)| id).collect();
        for row in rows.iter().filter(|row| row.channel == receiver.name) {
            check_row(stage, receiver, row, ids.contains(&EventId::from_stored(&row.event_id)), &rows);
        }
    }
}

fn check_run(stage: &Stage, course: &Course) {
    let (world, id) = (&stage.world, &course.id);
    let Some(state) = stage.ledger.state(id) else {
        return world.broken(format_args!("{id} was added and is not stored"));
    };
    let fine = match course.fate {
        Fate::Finishes(terminal) => state.ended == Some(Ending::Finished(terminal)),
        Fate::Never => state.ended == Some(Ending::NeverFound),
        Fate::Deleted => matches!(state.ended, Some(Ending::Gone | Ending::NeverFound)),
        Fate::Endless => state.ended.is_none(),
    };
    if !fine {
        world.broken(format_args!("{id} is {:?} and stored as {:?}", course.fate, state.ended));
    }
    if let Fate::Finishes(terminal) = course.fate {
        let end = id_of_end(id, terminal);
        for receiver in &stage.receivers {
            let taken = receiver.taken().iter().any(|(taken, _)| *taken == end);
            if !taken && receiver.kind() != Kind::Picky && !matches!(receiver.kind(), Kind::Finished(_)) {
                world.broken(format_args!("{} was not told of {id}", receiver.name));
            }
        }
    }
    let overdue_at = course.deadline.map(|deadline| course.created_at + deadline);
    if course.fate == Fate::Endless
        && overdue_at.is_some_and(|at| at < YEAR)
        && state.overdue_told_at.is_none()
    {
        world.broken(format_args!("{id} is overdue, which nobody was told"));
    }
}

fn check_row(stage: &Stage, receiver: &Receiver, row: &Delivery, taken: bool, rows: &[Delivery]) {
    let (id, channel) = (EventId::from_stored(&row.event_id), &row.channel);
    let ended = |row: &Delivery| {
        let run = row
            .run_id
            .as_ref()
            .and_then(|run| stage.plan.runs.iter().find(|course| course.id.as_str() == run));
        run.and_then(|course| stage.ledger.state(&course.id)).is_some_and(|state| state.ended.is_some())
    };
    let fine = match row.state {
        DeliveryState::Pending => false,
        DeliveryState::Delivered => taken,
        DeliveryState::Superseded => {
            let kind: EventKind = row.kind.parse().unwrap();
            kind.is_overtaken_by_end() && ended(row)
        }
        DeliveryState::Dead => {
            let told = row.kind == "delivery.failed" || {
                let letters =
                    rows.iter().filter(|other| other.kind == "delivery.failed" && other.channel != *channel);
                let of_this = EventId::derive(id.as_str(), None, EventKind::DeliveryFailed, channel);
                letters.into_iter().any(|letter| letter.event_id == of_this.as_str())
            };
            told && match receiver.kind() {
                Kind::Picky => receiver.can_never_take(&id),
                Kind::Finished(_) => true,
                Kind::Sound | Kind::Gathers => false,
            }
        }
    };
    if !fine || is_pending(row) {
        stage
            .world
            .broken(format_args!("{} for {channel} ends as {:?}: {:?}", row.kind, row.state, row.last_error));
    }
}
