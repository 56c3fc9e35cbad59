//! `runwatch deliveries`: lists, shows, retries and resends the daemon's deliveries.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::exit::Exit;
use super::flags::{Global, ListFormat, Output, duration, run_id};
use super::out::Out;
use super::socket::{Failure, connect, end};
use super::table::{self, Column};
use super::times::Times;
use super::{report, setup};
use crate::clock;
use crate::control::{ClientError, ResendRequest, RetryRequest, Settled};
use crate::run::RunId;
use crate::run::text::one_line;
use crate::store::{Delivery, DeliveryFilter, DeliveryState};

/// `runwatch deliveries …`.
#[derive(Debug, Subcommand)]
pub enum DeliveriesVerb {
    /// List deliveries, the latest first
    List {
        #[command(flatten)]
        which: WhichDeliveries,

        /// List at most this many deliveries
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,

        #[command(flatten)]
        times: Times,

        #[command(flatten)]
        output: Output,
    },
    /// Show one delivery
    Show {
        /// Its number, as listed
        #[arg(value_name = "NUMBER")]
        id: i64,

        #[command(flatten)]
        times: Times,
    },
    /// Retry undelivered deliveries now, with the full retry schedule again; a disabled channel is enabled
    #[command(group = clap::ArgGroup::new("meant").required(true).multiple(true))]
    Retry {
        /// This delivery
        #[arg(value_name = "NUMBER", group = "meant")]
        id: Option<i64>,

        /// The deliveries of this channel
        #[arg(long, value_name = "CHANNEL", group = "meant")]
        channel: Option<String>,

        /// All undelivered deliveries
        #[arg(long, group = "meant")]
        all: bool,
    },
    /// Send events again, with the same ids, whether they were delivered or not
    Resend {
        /// Events seen within this time: 30m, 2h, 7d
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
        since: Duration,

        /// Send to these channels [default: all]
        #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
        channel: Option<Vec<String>>,
    },
}

/// A filter of deliveries.
#[derive(Debug, Args)]
pub struct WhichDeliveries {
    /// Only in this state
    #[arg(long, value_name = "STATE")]
    pub(super) state: Option<StateArg>,

    /// Only to this channel
    #[arg(long, value_name = "CHANNEL")]
    pub(super) channel: Option<String>,

    /// Only about this run
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(super) run: Option<RunId>,
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Waiting for an attempt
    Pending,
    /// The receiver has it
    Delivered,
    /// Given up on
    Dead,
    /// Not sent, because the run had ended
    Superseded,
}

/// Lists, shows, retries or resends deliveries.
pub(super) async fn run(out: &Out, global: &Global, verb: &DeliveriesVerb) -> Exit {
    end(out, deliveries(out, global, verb).await)
}

async fn deliveries(out: &Out, global: &Global, verb: &DeliveriesVerb) -> Result<Exit, Failure> {
    let client = connect(global).await?;
    match verb {
        DeliveriesVerb::List { which, limit, times, output } => {
            let found = client.deliveries(&filter(which), *limit).await?;
            setup::print_result(&match output.format {
                ListFormat::Json => report::line(&found),
                ListFormat::Text if found.deliveries.is_empty() => "no deliveries\n".to_owned(),
                ListFormat::Text => listed(&found.deliveries, times.short()),
            })?;
        }
        DeliveriesVerb::Show { id, times } => {
            let one = DeliveryFilter { id: Some(*id), ..DeliveryFilter::default() };
            let found = client.deliveries(&one, 1).await?;
            let Some(delivery) = found.deliveries.first() else {
                return Err(ClientError::NotFound(format!("there is no delivery {id}")).into());
            };
            setup::print_result(&described(delivery, times.long()))?;
        }
        DeliveriesVerb::Retry { id, channel, all } => {
            let meant =
                RetryRequest { all: *all, id: *id, channel: channel.clone(), ..RetryRequest::default() };
            settled(out, &client.retry(&meant).await?);
        }
        DeliveriesVerb::Resend { since, channel } => {
            let since = clock::wall().checked_sub(*since).unwrap_or(jiff::Timestamp::MIN);
            settled(out, &client.resend(&ResendRequest { since, channels: channel.clone() }).await?);
        }
    }
    Ok(Exit::Succeeded)
}

fn settled(out: &Out, settled: &Settled) {
    let plural = if settled.deliveries == 1 { "delivery is" } else { "deliveries are" };
    out.say(&format!("{} {plural} due now", settled.deliveries));
    if settled.skipped > 0 {
        out.say(&format!(
            "{} left alone: their channels are not configured: {}",
            settled.skipped,
            one_line(&settled.skipped_channels.join(", "))
        ));
    }
    out.finish();
}

fn filter(which: &WhichDeliveries) -> DeliveryFilter {
    let state = which.state.map(|state| match state {
        StateArg::Pending => DeliveryState::Pending,
        StateArg::Delivered => DeliveryState::Delivered,
        StateArg::Dead => DeliveryState::Dead,
        StateArg::Superseded => DeliveryState::Superseded,
    });
    DeliveryFilter {
        state,
        channel: which.channel.clone(),
        run: which.run.clone(),
        ..DeliveryFilter::default()
    }
}

const COLUMNS: [Column; 9] = [
    Column::whole("NUMBER"),
    Column::whole("EVENT"),
    Column::whole("RUN").cut(9).rank(2),
    Column::whole("CHANNEL").cut(8),
    Column::whole("STATE"),
    Column::whole("TRIES").rank(4),
    Column::whole("SEEN").rank(3),
    Column::whole("NEXT").rank(5),
    Column::whole("LAST ERROR").cut(12).rank(1),
];

/// One line per delivery.
pub(super) fn listed(deliveries: &[Delivery], time: impl Fn(Timestamp) -> String) -> String {
    let rows = deliveries.iter().map(|delivery| {
        [
            delivery.id.to_string(),
            delivery.kind.clone(),
            delivery.run_id.clone().unwrap_or_default(),
            delivery.channel.clone(),
            delivery.state.as_str().to_owned(),
            delivery.attempts.to_string(),
            delivery.at.map(&time).unwrap_or_default(),
            delivery.due_at.map(&time).unwrap_or_default(),
            // The error of an earlier attempt is not the fate of one that was delivered; `show` has it.
            delivery
                .last_error
                .clone()
                .filter(|_| delivery.state != DeliveryState::Delivered)
                .unwrap_or_default(),
        ]
    });
    table::for_stdout(&COLUMNS, &rows.collect::<Vec<_>>())
}

fn described(delivery: &Delivery, time: impl Fn(Timestamp) -> String) -> String {
    let lines = [
        ("number", Some(delivery.id.to_string())),
        ("event", Some(format!("{} {}", delivery.kind, delivery.event_id))),
        ("run", delivery.run_id.clone()),
        ("channel", Some(delivery.channel.clone())),
        ("state", Some(delivery.state.as_str().to_owned())),
        ("attempts", Some(delivery.attempts.to_string())),
        ("seen", delivery.at.map(&time)),
        ("next try", delivery.due_at.map(&time)),
        ("settled", delivery.settled_at.map(&time)),
        ("error", delivery.last_error.clone()),
        ("answer", delivery.answer.clone()),
    ];
    lines
        .iter()
        .filter_map(|(name, value)| Some(format!("{name:9} {}\n", one_line(value.as_ref()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pictures::compare;

    #[test]
    fn fits_the_terminal() {
        let rows = [
            [
                "2",
                "run.failed",
                "3c90c3cc-0d44-4b50-8888-8dd25736052a",
                "webhook",
                "pending",
                "3",
                "5 min ago",
                "in 2 min",
                "connection refused",
            ],
            [
                "1",
                "run.succeeded",
                "77aa01bc-0d44-4b50-8888-8dd25736052a",
                "desktop",
                "delivered",
                "1",
                "2 days ago",
                "",
                "",
            ],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        let drawn = [None, Some(120), Some(80), Some(40)].map(|width| {
            let of = width.map_or("a pipe".to_owned(), |width| width.to_string());
            format!("{of}\n{}", table::render(&COLUMNS, &rows, width, false))
        });
        compare("deliveries.txt", &drawn.concat());
    }
}
