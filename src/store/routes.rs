//! Routes: which channels get an outbox row for an event.
//!
//! A process has one set of routes behind one `watch::Sender`, and the daemon's reload changes it. All others hold a
//! receiver and read it when they need it, so that nobody uses routes that were replaced.

use std::sync::Arc;

use tokio::sync::watch;

use super::ChannelName;
use crate::run::EventKind;

/// The channels and the events that each of them wants.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    channels: Arc<[Route]>,
}

/// One channel's events.
#[derive(Debug, Clone)]
pub struct Route {
    /// The channel's name.
    pub channel: ChannelName,
    /// The wanted events; `None` for all.
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

    /// The route to the channel of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Route> {
        self.channels.iter().find(|route| *route.channel == *name)
    }

    /// Every route.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.channels.iter()
    }

    /// The channels that get an event, among `chosen` (the run's own choice; `None` for all). If none of the chosen
    /// channels exists any more, all of them get it: the wrong channel is better than none.
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
