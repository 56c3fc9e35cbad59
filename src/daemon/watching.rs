//! Which runs a daemon watches: those that the configuration names, those that were added, and those that were found.

use std::collections::HashSet;

use crate::config::{Config, ConfiguredRun};
use crate::run::{RunId, Subject};
use crate::store::{Origin, RunStore, StoreError, Watched};

/// What is to be watched, and what was found on the way.
#[derive(Debug, Default)]
pub(super) struct WatchList {
    /// The runs that go on, or are not known yet.
    pub(super) going: Vec<Watched>,
    /// How many have ended.
    pub(super) ended: usize,
    /// Runs that the configuration names no more and nobody else wants: not watched.
    pub(super) dropped: Vec<RunId>,
}

/// Brings the store up to date with the configuration and gives what is to be watched. An end that the API never gave is
/// taken back: whatever was wrong may have been mended, which is what a restart or a reload is for.
pub(super) async fn watch_list(config: &Config, store: &dyn RunStore) -> Result<WatchList, StoreError> {
    let now = crate::clock::wall();
    let configured: Vec<Watched> = config.runs.iter().map(|run| watched(run, now)).collect();
    store.add(configured).await?;
    let names: HashSet<&RunId> = config.runs.iter().map(|run| &run.id).collect();
    let mut list = WatchList::default();
    let mut again = Vec::new();
    for mut run in store.load().await? {
        let wanted = run.origin != Origin::Configured || names.contains(&run.subject.id);
        let finished = matches!(run.state.ended, Some(crate::run::Ending::Finished(_)));
        if finished {
            list.ended += 1;
        } else if wanted {
            if run.state.ended.is_some() {
                run.state.watch_again();
                again.push(run.clone());
            }
            list.going.push(run);
        } else if run.state.ended.is_none() {
            list.dropped.push(run.subject.id);
        }
    }
    store.add(again).await?;
    store.forget(list.dropped.clone()).await?;
    Ok(list)
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
    use crate::run::{Ending, Terminal};
    use crate::store::{Commit, SqliteStore};

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
        assert_eq!(ids(&list.going), ["added", "added-and-lost", "new"]);
        assert!(list.going.iter().all(|run| run.state.ended.is_none()));
        assert_eq!((list.ended, list.dropped), (1, vec!["no-longer-configured".parse().unwrap()]));
        let new = list.going.iter().find(|run| run.subject.id.as_str() == "new").unwrap();
        assert_eq!(new.deadline, Some(std::time::Duration::from_hours(2)));
        assert_eq!(ids(&store.load().await.unwrap()), ["added", "added-and-lost", "finished", "new"]);
    }
}
