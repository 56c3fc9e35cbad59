//! `runwatch watch`: in the foreground, with live progress and notifications.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use super::args::{Global, WatchArgs};
use super::exit::Exit;
use super::foreground::{EndWhen, View, Watch};
use super::lines::Lines;
use super::progress::Progress;
use super::screen::Screen;
use super::verdict::{Gate, judge};
use super::{out, setup};
use crate::api::ApiClient;
use crate::app;
use crate::config::{ChannelKind, Config, ConfiguredChannel};
use crate::notify::session_bus;
use crate::run::Subject;

/// Watches runs to their end.
pub(super) async fn run(global: &Global, args: &WatchArgs) -> Exit {
    watch(global, args).await.unwrap_or_else(|exit| exit)
}

async fn watch(global: &Global, args: &WatchArgs) -> Result<Exit, Exit> {
    let screen = Screen::default();
    let config = setup::configure(global, args.grace, LevelFilter::WARN, &screen)?;
    let channels = channels(&config, args)?;
    let source = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let watch = Watch {
        config: &config,
        runs: &args.runs,
        channels,
        end_when: if args.any { EndWhen::Any } else { EndWhen::All },
        timeout: args.timeout,
        keep_bodies: false,
    };
    let subjects: Vec<Subject> = watch.subjects();
    let mut view: Box<dyn View> = if is_screen() {
        Box::new(Progress::new(subjects, &screen))
    } else {
        Box::new(Lines::on_stdout(subjects.len()))
    };
    let session = watch.run(source, view.as_mut()).await?;
    let (judged, exit) = judge(session.ended.runs, &Gate::default(), session.cut);
    for judged in judged.iter().filter(|judged| judged.verdict == Exit::TimedOut) {
        out::error(format_args!("the deadline passed while {} was going", judged.run.subject.label()));
    }
    Ok(exit)
}

/// Whether there is a terminal that can be drawn on.
pub(super) fn is_screen() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The channels chosen; without a choice all that are configured, and the desktop where there is one.
fn channels(config: &Config, args: &WatchArgs) -> Result<Vec<ConfiguredChannel>, Exit> {
    if args.no_notify {
        return Ok(Vec::new());
    }
    if let Some(names) = &args.notify {
        return setup::choose_channels(config, names);
    }
    let mut channels = config.channels.clone();
    let has_desktop = channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop));
    if !has_desktop && session_bus().is_some() {
        channels.push(ConfiguredChannel { name: "desktop".into(), events: None, kind: ChannelKind::Desktop });
    }
    Ok(channels)
}
