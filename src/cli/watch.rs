//! `runwatch watch`: in the foreground, with live progress and notifications.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use super::args::{Global, WatchArgs};
use super::exit::Exit;
use super::foreground::{EndWhen, View, Watch};
use super::lines::Lines;
use super::out::Out;
use super::progress::Progress;
use super::readers::Shown;
use super::verdict::{Gate, judge};
use super::{runs, setup};
use crate::api::ApiClient;
use crate::app;
use crate::config::ChannelKind;
use crate::notify::desktop;
use crate::run::Subject;

/// Watches runs to their end.
pub(super) async fn run(out: &Out, global: &Global, args: &WatchArgs) -> Exit {
    watch(out, global, args).await.unwrap_or_else(|exit| exit)
}

async fn watch(out: &Out, global: &Global, args: &WatchArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, args.grace, LevelFilter::WARN, out)?;
    let channels = match &args.notify {
        Some(names) => setup::choose_channels(&config, names)?,
        None if args.no_notify => Vec::new(),
        None => config.channels.clone(),
    };
    let unasked = args.notify.is_none() && !args.no_notify;
    let has_desktop = channels.iter().any(|channel| matches!(channel.kind, ChannelKind::Desktop { .. }));
    let extra = unasked && !has_desktop && desktop::is_there().await;
    let source = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let runs = runs::choose(out, &config, &source, args).await?;
    let watch = Watch {
        config: &config,
        runs: &runs,
        extra: extra.then(|| app::default_desktop(&channels)),
        channels,
        channels_win: args.notify.is_some(),
        end_when: if args.any { EndWhen::Any } else { EndWhen::All },
        timeout: args.timeout,
        keep_bodies: false,
        shown: Shown::OnStdout,
    };
    let mut view = view(out, watch.subjects());
    let session = watch.run(out, source, view.as_mut()).await?;
    let (judged, exit) = judge(session.ended.runs, &Gate::default(), session.cut);
    for judged in judged.iter().filter(|judged| judged.verdict == Exit::TimedOut) {
        out.error(format_args!("the deadline passed while {} was going", judged.run.subject.label()));
    }
    // Everything has been said by now, or is stuck.
    out.finish();
    Ok(if exit == Exit::Succeeded && out.has_failed() { Exit::Internal } else { exit })
}

/// Live progress on a terminal, lines elsewhere.
pub(super) fn view(out: &Out, subjects: Vec<Subject>) -> Box<dyn View> {
    if is_screen() {
        Box::new(Progress::new(subjects, out))
    } else {
        Box::new(Lines::on_stdout(out, subjects.len()))
    }
}

/// Whether there is a terminal that can be drawn on.
fn is_screen() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
