//! Prometheus metrics. Names follow its conventions: base units, `_total` on counters.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::notify::{AttemptOutcome, AttemptReport};
use crate::poll::{Counters, SchedulerStats};
use crate::store::{ChannelName, Stats};

/// Buckets for the duration of deliveries, in seconds: from loopback to the longest attempt.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    polls: IntCounterVec,
    /// A vector without labels, so that the metric can be absent.
    last_poll: GaugeVec,
    runs: IntGaugeVec,
    in_flight: IntGauge,
    budget: IntGauge,
    budget_used: Gauge,
    api_up: IntGauge,
    store_up: IntGauge,
    config_accepted: IntGauge,
    deliveries: IntCounterVec,
    delivery_seconds: HistogramVec,
    pending: IntGaugeVec,
    dead: IntGaugeVec,
    oldest_pending: GaugeVec,
    /// The configured channels. Each has all its series from the start, before its first delivery.
    channels: Mutex<Vec<ChannelName>>,
}

/// The daemon's figures at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) scheduler: SchedulerStats,
    /// Ended runs in the store, by their last status.
    pub(super) ended: Vec<(String, i64)>,
    /// Statistics of the outbox, by channel.
    pub(super) outbox: Vec<Stats>,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let int_gauges = |name, help, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let int_gauge = |name, help| register(&registry, IntGauge::new(name, help));
        let gauge = |name, help| register(&registry, Gauge::new(name, help));
        let version = int_gauges("runwatch_build_info", "The version, as a label.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        gauge("runwatch_start_time_seconds", "When the daemon was started.")?
            .set(seconds(crate::clock::wall()));
        let took = HistogramOpts::new(
            "runwatch_delivery_duration_seconds",
            "Duration of delivery attempts in seconds.",
        );
        let oldest = Opts::new(
            "runwatch_oldest_pending_delivery_timestamp_seconds",
            "When the oldest pending event was observed; absent if there is none.",
        );
        let last_poll = Opts::new(
            "runwatch_last_poll_timestamp_seconds",
            "When a request to the API last finished; absent before the first.",
        );
        let metrics = Self {
            polls: counters("runwatch_polls_total", "Requests to the API by outcome.", &["outcome"])?,
            last_poll: register(&registry, GaugeVec::new(last_poll, &[]))?,
            runs: int_gauges(
                "runwatch_runs",
                "Known runs by their last status; UNSEEN before the first answer.",
                &["status"],
            )?,
            in_flight: int_gauge("runwatch_polls_in_flight", "Requests to the API in flight.")?,
            budget: int_gauge("runwatch_request_budget_per_minute", "Request budget per minute.")?,
            budget_used: gauge(
                "runwatch_request_budget_used_ratio",
                "Spent share of the request budget; at 1, runs wait.",
            )?,
            api_up: int_gauge("runwatch_api_up", "Whether the API can be reached.")?,
            store_up: int_gauge("runwatch_store_up", "Whether the store can be written.")?,
            config_accepted: int_gauge(
                "runwatch_config_last_reload_successful",
                "Whether the configuration was accepted when it was last read.",
            )?,
            deliveries: counters(
                "runwatch_delivery_attempts_total",
                "Delivery attempts by channel, outcome (delivered, retried, dead or superseded) and reason.",
                &["channel", "outcome", "reason"],
            )?,
            delivery_seconds: register(
                &registry,
                HistogramVec::new(took.buckets(BUCKETS.to_vec()), &["channel"]),
            )?,
            pending: int_gauges("runwatch_deliveries_pending", "Pending deliveries.", &["channel"])?,
            dead: int_gauges("runwatch_deliveries_dead", "Deliveries given up.", &["channel"])?,
            oldest_pending: register(&registry, GaugeVec::new(oldest, &["channel"]))?,
            registry: registry.clone(),
            channels: Mutex::default(),
        };
        metrics.api_up.set(1);
        metrics.store_up.set(1);
        metrics.config_accepted.set(1);
        Ok(metrics)
    }

    pub(super) fn set_api_up(&self, up: bool) {
        self.api_up.set(i64::from(up));
    }

    pub(super) fn set_store_up(&self, up: bool) {
        self.store_up.set(i64::from(up));
    }

    pub(super) fn set_config_accepted(&self, accepted: bool) {
        self.config_accepted.set(i64::from(accepted));
    }

    /// Sets the configured channels. A rate over a counter needs a 0 before its first 1.
    pub(super) fn set_channels(&self, channels: Vec<ChannelName>) {
        for channel in &channels {
            for outcome in AttemptOutcome::ALL {
                self.attempts(channel, outcome);
            }
            self.delivery_seconds.with_label_values(&[&**channel]);
        }
        *self.channels.lock().unwrap_or_else(PoisonError::into_inner) = channels;
    }

    pub(super) fn count_attempt(&self, attempt: &AttemptReport) {
        self.attempts(&attempt.channel, attempt.outcome).inc();
        self.delivery_seconds.with_label_values(&[&*attempt.channel]).observe(attempt.took.as_secs_f64());
    }

    fn attempts(&self, channel: &ChannelName, outcome: AttemptOutcome) -> IntCounter {
        let (outcome, reason) = match outcome {
            AttemptOutcome::Delivered => ("delivered", "accepted"),
            AttemptOutcome::Retried => ("retried", "error"),
            AttemptOutcome::Held => ("retried", "asked_to_wait"),
            AttemptOutcome::Exhausted => ("dead", "exhausted"),
            AttemptOutcome::Undeliverable => ("dead", "undeliverable"),
            AttemptOutcome::Disabled => ("dead", "disabled"),
            AttemptOutcome::Superseded => ("superseded", "run_ended"),
        };
        self.deliveries.with_label_values(&[&**channel, outcome, reason])
    }

    /// The text for Prometheus.
    pub(super) fn render(
        &self,
        polls: &Counters,
        figures: &Figures,
        budget: u32,
    ) -> prometheus::Result<String> {
        for (outcome, count) in polls.polls() {
            let counter = self.polls.with_label_values(&[outcome]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        if let Some(at) = polls.last_poll() {
            self.last_poll.with_label_values::<&str>(&[]).set(seconds(at));
        }
        self.runs.reset();
        for (status, count) in &figures.scheduler.runs {
            self.runs.with_label_values(&[status]).add(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        for (status, count) in &figures.ended {
            self.runs.with_label_values(&[status]).add(*count);
        }
        self.in_flight.set(i64::try_from(figures.scheduler.in_flight).unwrap_or(i64::MAX));
        self.budget.set(i64::from(budget));
        self.budget_used.set(figures.scheduler.budget_used);
        self.pending.reset();
        self.dead.reset();
        self.oldest_pending.reset();
        for channel in &*self.channels.lock().unwrap_or_else(PoisonError::into_inner) {
            self.pending.with_label_values(&[&**channel]).set(0);
            self.dead.with_label_values(&[&**channel]).set(0);
        }
        for stats in &figures.outbox {
            let channel = [&*stats.channel];
            self.pending.with_label_values(&channel).set(stats.pending);
            self.dead.with_label_values(&channel).set(stats.dead);
            if let Some(at) = stats.oldest_pending {
                self.oldest_pending.with_label_values(&channel).set(seconds(at));
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The content type of `/metrics`: the classic text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

/// Registers a metric.
fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<M>,
) -> prometheus::Result<M> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Shared by the loop, which counts, and the server, which renders.
pub(super) type SharedMetrics = Arc<Metrics>;
