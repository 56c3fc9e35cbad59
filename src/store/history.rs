//! Durations of a spec's finished runs, to predict those of later runs.

use rusqlite::{Connection, params};

use crate::run::SpecId;

/// The duration of a run, from its creation to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunDuration {
    /// Duration in seconds.
    pub seconds: f64,
    /// Number of samples requested.
    pub samples: Option<u64>,
}

/// Maximum number of runs to read. More do not improve the estimate.
const MOST: i64 = 20;

/// The runs that succeeded, latest first.
pub(super) fn read(db: &Connection, spec: SpecId) -> rusqlite::Result<Vec<RunDuration>> {
    let mut select = db.prepare_cached(
        "SELECT completed_at - created_at, number_of_samples FROM runs \
         WHERE spec_id = ?1 AND ended = 'SUCCEEDED' AND completed_at > created_at \
         ORDER BY ended_at DESC LIMIT ?2",
    )?;
    let rows = select.query_map(params![spec.to_string(), MOST], |row| {
        let samples: Option<i64> = row.get(1)?;
        let samples = samples.and_then(|samples| u64::try_from(samples).ok());
        Ok(RunDuration { seconds: row.get::<_, i64>(0)? as f64 / 1e6, samples })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::{Ending, Subject, Terminal};
    use crate::store::testing::at;
    use crate::store::{Commit, RunStore as _, SqliteStore, Watched};

    #[tokio::test]
    async fn what_runs_of_a_spec_took_is_remembered() {
        let store = SqliteStore::in_memory().unwrap();
        let spec = SpecId::parse("3c90c3cc-0d44-4b50-8888-8dd25736052a").unwrap();
        for (id, ended, minutes) in [
            ("a", Some(Terminal::Succeeded), 10),
            ("b", Some(Terminal::Failed), 1),
            ("c", Some(Terminal::Succeeded), 30),
            ("d", None, 9),
        ] {
            let mut run = Watched::new(Subject { id: id.parse().unwrap(), name: None }, at(0));
            run.state.ended = ended.map(Ending::Finished);
            run.state.spec_id = Some(spec);
            run.state.created_at = Some(at(1000));
            run.state.completed_at = Some(at(1000) + Duration::from_mins(minutes));
            run.state.ended_at = run.state.completed_at;
            run.state.progress.total = Some(minutes);
            store.commit(Commit { run: Some(run), ..Commit::default() }).await.unwrap();
        }
        let took = |minutes: u64| RunDuration { seconds: minutes as f64 * 60.0, samples: Some(minutes) };
        assert_eq!(store.durations(spec).await.unwrap(), [took(30), took(10)]);
        let other = SpecId::parse("00000000-0000-0000-0000-000000000000").unwrap();
        assert_eq!(store.durations(other).await.unwrap(), []);
    }
}
