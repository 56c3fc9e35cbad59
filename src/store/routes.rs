//! Who is to be told: from an event to the channels it gets an outbox row for.
//!
//! A process has one set of routes, behind one `watch::Sender` (the daemon's reload changes it). Everybody else holds a
//! receiver and reads it at the moment of use, so that nobody routes by a set that was replaced.

use std::sync::Arc;

use tokio::sync::watch;

use super::ChannelName;
use crate::run::EventKind;

/// The channels there are and the events each wants.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    channels: Arc<[Route]>,
}

/// One channel's wishes.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub channel: ChannelName,
    /// The events it wants; `None` wants all.
    pub events: Option<Vec<EventKind>>,
}

impl Routes {
    /// Routes to these channels.
    pub fn new(channels: impl IntoIterator<Item = Route>) -> Self {
        Self { channels: channels.into_iter().collect() }
    }

    /// A receiver of these routes, for a process in which they never change.
    pub fn fixed(self) -> watch::Receiver<Self> {
        watch::Sender::new(self).subscribe()
    }

    /// Whether there is a channel of this name.
    pub fn has(&self, name: &str) -> bool {
        self.channels.iter().any(|route| *route.channel == *name)
    }

    /// What one channel wants, if there is one of this name.
    pub fn get(&self, name: &str) -> Option<&Route> {
        self.channels.iter().find(|route| *route.channel == *name)
    }

    /// Every channel and what it wants.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.channels.iter()
    }

    /// The channels that tell an event, of those in `chosen` (a run's own choice; `None` chooses all). A choice of which
    /// nothing is left, because the configuration has changed, is none: better to the wrong ones than to nobody.
    pub fn of(&self, kind: EventKind, chosen: Option<&[ChannelName]>) -> Vec<ChannelName> {
        let chosen = chosen.filter(|chosen| chosen.is_empty() || chosen.iter().any(|name| self.has(name)));
        self.channels
            .iter()
            .filter(|route| chosen.is_none_or(|chosen| chosen.contains(&route.channel)))
            .filter(|route| route.events.as_ref().is_none_or(|events| events.contains(&kind)))
            .map(|route| route.channel.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_choose_events_and_runs_choose_channels() {
        let routes = Routes::new([
            Route { channel: "all".into(), events: None },
            Route { channel: "bad".into(), events: Some(vec![EventKind::RunFailed, EventKind::RunLost]) },
        ]);
        let names = |kind, chosen: Option<&[&str]>| {
            let chosen: Option<Vec<ChannelName>> =
                chosen.map(|names| names.iter().map(|n| (*n).into()).collect());
            routes.of(kind, chosen.as_deref()).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(EventKind::RunFailed, None), ["all", "bad"]);
        assert_eq!(names(EventKind::RunSucceeded, None), ["all"]);
        assert_eq!(names(EventKind::RunFailed, Some(&["bad"])), ["bad"]);
        assert!(names(EventKind::RunSucceeded, Some(&["bad"])).is_empty());
        assert!(names(EventKind::RunFailed, Some(&[])).is_empty());
        assert_eq!(names(EventKind::RunFailed, Some(&["renamed"])), ["all", "bad"]);
    }
}
