//! `runwatch demo`: the simulator, a watch and a webhook receiver in one process, to try runwatch without an account.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout};
use tracing::level_filters::LevelFilter;

use super::exit::Exit;
use super::flags::duration;
use super::foreground::{EndWhen, Watch};
use super::out::{self, Out};
use super::readers::Shown;
use super::verdict::{Cut, Gate, judge};
use super::watch::view;
use super::{logging, setup, simulate};
use crate::api::ApiClient;
use crate::app;
use crate::config::{self, ChannelKind, Config, ConfiguredChannel, ConfiguredRun, SecretUrl};
use crate::notify::{SigningSecret, verify};
use crate::run::event::Payload;
use crate::sim::{Delivered, Receiver, SimRun, Simulator, SimulatorSettings};

/// `runwatch demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How long it takes
    #[arg(long, value_name = "DURATION", default_value = "13s", allow_hyphen_values = true, value_parser = duration)]
    length: Duration,
}

/// Shows it all.
pub(super) async fn run(out: &Out, args: &DemoArgs) -> Exit {
    demo(out, args).await.unwrap_or_else(|exit| exit)
}

async fn demo(out: &Out, args: &DemoArgs) -> Result<Exit, Exit> {
    let cannot = |error: &dyn std::fmt::Display| {
        out.error(format_args!("the demo cannot start: {error}"));
        Exit::Internal
    };
    let runs = simulate::three_runs(args.length);
    let settings = SimulatorSettings { runs: runs.clone(), ..SimulatorSettings::default() };
    let simulator = Simulator::start(settings).await.map_err(|error| cannot(&error))?;
    let secret = new_secret().map_err(|error| cannot(&error))?;
    let checked = secret.clone();
    let receiver =
        Receiver::start(Box::new(move |id, at, body, header| verify(&checked, id, at, body, header)))
            .await
            .map_err(|error| cannot(&error))?;
    let config = config(&simulator, &receiver, secret, &runs)?;
    logging::init(&config.log, LevelFilter::WARN, out);
    out.say(
        "Three runs on a simulated API, watched until each has ended.\nWebhooks go to a receiver in this process, which verifies their signatures.\n",
    );
    let client = Arc::new(ApiClient::new(&app::api_settings(&config)).map_err(setup::refuse)?);
    let ids: Vec<_> = config.runs.iter().map(|run| run.id.clone()).collect();
    let watch = Watch {
        config: &config,
        runs: &ids,
        channels: config.channels.clone(),
        channels_win: true,
        extra: None,
        end_when: EndWhen::All,
        began: Instant::now(),
        timeout: None,
        keep_bodies: false,
        shown: Shown::OnStdout,
    };
    let mut view = view(out, &client, watch.subjects());
    let told = tokio::spawn(show_deliveries(receiver, out.clone(), runs.len()));
    let mut session = watch.run(out, client, view.as_mut()).await?;
    let (judged, exit) = judge(session.ended.runs, &Gate::default(), session.cut);
    match session.cut {
        Cut::Signal(signal) => return Ok(signal),
        // The demo's own verdict needs its end; what was seen of the runs until now stays one.
        Cut::NobodyReads => return Ok(exit),
        _ => {}
    }
    // Everything that was delivered has been received; showing it takes no time.
    let verified = timeout(Duration::from_secs(1), told).await.map_or(0, Result::unwrap_or_default);
    let polls: u32 = judged.iter().map(|judged| judged.run.polls).sum();
    let result = format!(
        "\n{polls} requests were made, {verified} webhooks received and verified.\n\
         `runwatch wait` would have exited with {}: {}.\n",
        exit.code(),
        exit.meaning()
    );
    setup::hand_over(out, &out::on_stdout(&result), &mut session.signals).await?;
    if verified != runs.len() {
        out.error(format_args!("{verified} of {} webhooks arrived and were verified", runs.len()));
        return Ok(Exit::Internal);
    }
    Ok(Exit::Succeeded)
}

/// Shows webhooks as they come; gives how many were right once `expected` have come.
async fn show_deliveries(mut receiver: Receiver, out: Out, expected: usize) -> usize {
    let mut ids = HashSet::new();
    while ids.len() < expected {
        let Some(delivered) = receiver.deliveries.recv().await else { break };
        out.say(&describe(&delivered));
        if delivered.verified {
            ids.insert(delivered.id);
        }
    }
    ids.len()
}

fn describe(delivered: &Delivered) -> String {
    let payload: Option<Payload> = serde_json::from_slice(&delivered.body).ok();
    let kind = payload.map_or("?", |payload| payload.kind.as_str());
    let (mark, signature) = if delivered.verified { ("✓", "verified") } else { ("✗", "WRONG SIGNATURE") };
    format!("  {mark} webhook {kind}, {signature}, {}", delivered.id)
}

/// A secret as `openssl rand` would make one.
fn new_secret() -> Result<SigningSecret, Box<dyn std::error::Error>> {
    use base64::Engine as _;
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no randomness")?;
    let text = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes));
    Ok(SigningSecret::parse(&text)?)
}

/// The configuration of the demo. The user's own is not read.
fn config(
    simulator: &Simulator,
    receiver: &Receiver,
    secret: SigningSecret,
    runs: &[SimRun],
) -> Result<Config, Exit> {
    let env = |name: &str| match name {
        "DATAFRAMER_API_KEY" => Some("demo".to_owned()),
        "DATAFRAMER_BASE_URL" => Some(simulator.url()),
        _ => None,
    };
    let loaded = config::parse(None, &env, &config::Overrides::default()).map_err(|report| {
        setup::show(&report);
        Exit::Config
    })?;
    let url = receiver.url().parse().map_err(setup::refuse)?;
    let names = ["tickets", "invoices", "clinic-notes"];
    let mut config = loaded.config;
    // A demo is watched by a person: ask often.
    config.poll.policy.healthy.max = Duration::from_secs(1);
    config.poll.policy.healthy.initial = Duration::from_millis(250);
    config.poll.requests_per_minute = 600;
    config.runs = runs
        .iter()
        .zip(names)
        .map(|(run, name)| ConfiguredRun {
            id: run.id.clone(),
            name: Some(name.into()),
            notify: None,
            deadline: None,
        })
        .collect();
    config.channels = vec![ConfiguredChannel {
        name: "webhook".into(),
        events: None,
        kind: ChannelKind::Webhook { url: SecretUrl(url), secrets: vec![secret], ca_file: None },
    }];
    Ok(config)
}
