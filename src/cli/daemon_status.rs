//! `runwatch daemon status`: shows the daemon's version, counts and problems.

use clap::Args;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output};
use super::out::Out;
use super::socket::{Failure, connect, end};
use super::{report, setup};
use crate::control::Status;
use crate::run::text::one_line;
use crate::words;

/// `runwatch daemon status`.
#[derive(Debug, Clone, Args)]
pub struct DaemonStatusArgs {
    #[command(flatten)]
    output: Output,
}

/// Asks the daemon.
pub(super) async fn run(out: &Out, global: &Global, args: &DaemonStatusArgs) -> Exit {
    end(out, ask(global, args).await)
}

async fn ask(global: &Global, args: &DaemonStatusArgs) -> Result<Exit, Failure> {
    let client = connect(global).await?;
    let status = client.status().await?;
    let text = match args.output.format {
        ListFormat::Json => report::line(&status),
        ListFormat::Text => shown(&status, &client.socket().display().to_string()),
    };
    setup::print_result(&text)?;
    Ok(Exit::Succeeded)
}

fn shown(status: &Status, socket: &str) -> String {
    let mut rows = vec![
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        ("started", words::time(status.started_at)),
        ("api", status.api.clone()),
        ("socket", socket.to_owned()),
        ("runs", format!("{} active, {} finished", status.going, status.ended)),
        ("deliveries", format!("{} pending", status.deliveries_pending)),
    ];
    rows.extend(status.troubles.iter().map(|trouble| ("problem", trouble.clone())));
    let line = |(name, value): &(&str, String)| format!("{name:10} {}\n", one_line(value));
    rows.iter().map(line).collect()
}
