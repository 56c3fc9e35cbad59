//! Which runs a daemon watches: those in the configuration, those that were added, and those that were discovered.

use super::discover::SEEN_AT;
use crate::config::{Config, ConfiguredRun};
use crate::run::{Ending, Subject};
use crate::store::{Adopted, Adoption, Fate, Origin, SqliteStore, StoreError, Watched};

/// Updates the store from the configuration in one transaction, and returns the runs to watch.
pub(super) async fn watch_list(config: &Config, store: &SqliteStore) -> Result<Adopted, StoreError> {
    let now = crate::clock::wall();
    let runs = config.runs.iter().map(|run| watched(run, now)).collect();
    // If `[discover]` was removed, a later one starts anew.
    let forgotten_moments = config.discover.is_none().then_some(SEEN_AT);
    store.adopt(Adoption { runs, forgotten_moments, fate }).await
}

/// What to do with a stored run. Takes back an end that did not come from the API, because a restart or reload may
/// follow a fix.
fn fate(run: &Watched, named: bool) -> Fate {
    let wanted = named || run.origin != Origin::Configured;
    match run.state.ended {
        Some(Ending::Finished(_)) => Fate::Ended,
        Some(_) if wanted => Fate::WatchAgain,
        Some(_) => Fate::Leave,
        None if wanted => Fate::Watch,
        None => Fate::Forget,
    }
}

fn watched(run: &ConfiguredRun, now: jiff::Timestamp) -> Watched {
    let subject = Subject { id: run.id.clone(), name: run.name.clone() };
    let notify = run.notify.as_deref().map(Into::into);
    Watched { notify, deadline: run.deadline, ..Watched::new(subject, now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};
    use crate::run::{RunId, Terminal};
    use crate::store::{Commit, RunStore as _};

    fn config(text: &str) -> Config {
        parse(Some((std::path::Path::new("c"), text)), &|_| None, &Overrides::default()).unwrap().config
    }

    fn ids(runs: &[Watched]) -> Vec<String> {
        let mut ids: Vec<_> = runs.iter().map(|run| run.subject.id.to_string()).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn configured_and_added_runs_are_watched_until_they_have_ended() {
        let store = SqliteStore::in_memory().unwrap();
        let at = jiff::Timestamp::UNIX_EPOCH;
        let run = |id: &str| Watched::new(Subject { id: id.parse().unwrap(), name: None }, at);
        for (mut run, origin, ended) in [
            (run("added"), Origin::Added, None),
            (run("added-and-lost"), Origin::Found, Some(Ending::NeverFound)),
            (run("no-longer-configured"), Origin::Configured, None),
            (run("finished"), Origin::Configured, Some(Ending::Finished(Terminal::Failed))),
        ] {
            run.origin = origin;
            run.state.ended = ended;
            store.commit(Commit { run: Some(run), ..Commit::default() }).await.unwrap();
        }
        let text =
            "[[run]]\nid = \"new\"\nname = \"nightly\"\ndeadline = \"2h\"\n[[run]]\nid = \"finished\"\n";
        let list = watch_list(&config(text), &store).await.unwrap();
        assert_eq!(ids(&list.watched), ["added", "added-and-lost", "new"]);
        assert!(list.watched.iter().all(|run| run.state.ended.is_none()));
        assert_eq!((list.ended, list.forgotten), (1, vec!["no-longer-configured".parse::<RunId>().unwrap()]));
        let new = list.watched.iter().find(|run| run.subject.id.as_str() == "new").unwrap();
        assert_eq!(new.deadline, Some(std::time::Duration::from_hours(2)));
        assert_eq!(ids(&store.load().await.unwrap()), ["added", "added-and-lost", "finished", "new"]);
    }
}
