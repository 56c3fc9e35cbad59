//! `runwatch notify list`: the configured channels, without their secrets.

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::table::{self, Column};
use super::{report, setup};
use crate::config::{ChannelKind, ConfiguredChannel};

/// `runwatch notify list`.
#[derive(Debug, Args)]
pub struct ChannelsArgs {
    #[command(flatten)]
    output: Output,
}

/// Lists the channels.
pub(super) fn run(out: &Out, global: &Global, args: &ChannelsArgs) -> Exit {
    list(out, global, args).unwrap_or_else(|exit| exit)
}

fn list(out: &Out, global: &Global, args: &ChannelsArgs) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, out)?;
    let text = match args.output.format {
        ListFormat::Json => {
            let channels: Vec<_> = config.channels.iter().map(described).collect();
            report::line(&serde_json::json!({ "version": 1, "channels": channels }))
        }
        ListFormat::Text if config.channels.is_empty() => {
            "no channels: add a [[notify.…]] table to the configuration (see runwatch config init)\n"
                .to_owned()
        }
        ListFormat::Text => {
            let columns = [
                Column::whole("CHANNEL"),
                Column::whole("KIND"),
                Column::whole("TO").cut(12).rank(2),
                Column::whole("EVENTS").cut(12).rank(3),
                Column::whole("UNUSABLE").cut(20).rank(1),
            ];
            let rows: Vec<_> = config.channels.iter().map(row).collect();
            table::for_stdout(&columns, &rows)
        }
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

/// The kind, the target, and why the channel cannot be used. Only scheme and host of a URL are shown; the rest is a secret.
fn about(channel: &ConfiguredChannel) -> (Option<&'static str>, Option<String>, Option<&str>) {
    match &channel.kind {
        ChannelKind::Webhook { url, .. } => {
            (Some("webhook"), Some(url.0.origin().ascii_serialization()), None)
        }
        ChannelKind::Desktop { .. } => (Some("desktop"), None, None),
        ChannelKind::Log => (Some("log"), None, None),
        ChannelKind::Command(command) => (Some("command"), Some(command.shown_program()), None),
        ChannelKind::Unusable(why) => (None, None, Some(why)),
    }
}

fn events(channel: &ConfiguredChannel) -> Option<Vec<&'static str>> {
    channel.events.as_ref().map(|events| events.iter().map(|event| event.as_str()).collect())
}

fn row(channel: &ConfiguredChannel) -> [String; 5] {
    let (kind, to, unusable) = about(channel);
    [
        channel.name.to_string(),
        kind.unwrap_or("?").to_owned(),
        to.unwrap_or_default(),
        events(channel).map_or_else(|| "all".to_owned(), |events| events.join(", ")),
        unusable.unwrap_or_default().to_owned(),
    ]
}

fn described(channel: &ConfiguredChannel) -> serde_json::Value {
    let (kind, to, unusable) = about(channel);
    serde_json::json!({
        "name": &*channel.name,
        "kind": kind,
        "to": to,
        "events": events(channel),
        "unusable": unusable,
    })
}
