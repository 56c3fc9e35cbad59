//! `runwatch notify test`: sends a test event to each channel and shows the result, so that broken channels are found early.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::setup::{self, environment};
use crate::config::{self, Located};
use crate::notify::{Channel, Notice, NotifyError};
use crate::run::Event;
use crate::run::text::one_line;
use crate::{app, clock};

/// Tests the channels named, or all.
pub(super) async fn run(out: &Out, global: &Global, names: &[String]) -> Exit {
    test(out, global, names).await.unwrap_or_else(|exit| exit)
}

async fn test(out: &Out, global: &Global, names: &[String]) -> Result<Exit, Exit> {
    let config = setup::configure(global, None, LevelFilter::WARN, out)?;
    let chosen = if names.is_empty() {
        setup::usable_channels(&config)
    } else {
        setup::choose_channels(&config, names)?
    };
    if chosen.is_empty() {
        return Err(setup::refuse(no_channel(&config::locate(global.config(), &environment))));
    }
    // A program may complain of it, or with it. Without one there is nothing to hide.
    let _ = (app::api_settings(&config).read_key)();
    let mut all_well = true;
    for configured in &chosen {
        let channel = app::channel(configured, &config).map_err(setup::refuse)?;
        let began = Instant::now();
        let result = send(&channel).await;
        let took = latency(began.elapsed());
        all_well &= result.is_ok();
        let line = match result {
            Ok(()) => format!("{:16} {:8} ok      {took}\n", channel.name, channel.kind),
            Err(error) => {
                let why = error.to_string();
                let said = error.answer.as_deref().map(one_line).filter(|said| !said.is_empty());
                let said =
                    said.map(|said| format!("{:16} {:8} answer: {said}\n", "", "")).unwrap_or_default();
                format!("{:16} {:8} FAILED  {took}  {}\n{said}", channel.name, channel.kind, one_line(&why))
            }
        };
        setup::print_result(&line)?;
    }
    if !all_well {
        out.error("not every channel works");
    }
    Ok(if all_well { Exit::Succeeded } else { Exit::Config })
}

/// Why there is nothing to test, and what to do.
fn no_channel(located: &Located) -> String {
    match located {
        Located::Nowhere(places) => {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            format!(
                "there is no channel to test, because there is no configuration file: looked for {}; create one with \
                 `runwatch config init` and add a [[notify.…]] table, or name one with --config FILE",
                places.join(" and ")
            )
        }
        Located::Named(path) | Located::Found(path) | Located::Hidden(path, _) => format!(
            "there is no channel to test: add a [[notify.…]] table to {} (see config.example.toml)",
            path.display()
        ),
    }
}

/// A latency in milliseconds with one decimal, so that a fast delivery does not show as 0.
fn latency(took: Duration) -> String {
    format!("{:.1}ms", took.as_secs_f64() * 1000.0)
}

async fn send(channel: &Channel) -> Result<(), NotifyError> {
    let event = Event::test(clock::wall());
    let json =
        serde_json::to_string(&event.payload).map_err(|error| NotifyError::retryable(error.to_string()))?;
    let notice = Notice { event_id: event.id, payload: event.payload, json: Arc::from(json), attempt: 1 };
    channel.attempt(vec![notice]).await
}
