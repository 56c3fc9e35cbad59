//! Wording of updates for people, shared by all displays.

use std::time::Duration;

use crate::poll::{RunView, Update};
use crate::run::{DoubtKind, Ending, Progress, RunStatus, Terminal};
use crate::span;

/// A run's status in one line, without its name.
pub fn standing(run: &RunView) -> String {
    let state = &run.state;
    let status = state.status.as_ref().map_or("not seen yet", RunStatus::as_str);
    let mut parts = vec![match state.ended {
        Some(Ending::NeverFound) => "not found: the API does not know this run".to_owned(),
        Some(Ending::Gone) => format!("gone: the API does not know it any more (it was {status})"),
        Some(Ending::KeyRefused) => "given up: the API refuses the key".to_owned(),
        Some(Ending::Unknowable) => format!("given up: its status stayed {status}"),
        Some(Ending::Rejected) => "given up: the API keeps refusing the request".to_owned(),
        Some(Ending::Finished(_)) | None => status.to_owned(),
    }];
    parts.extend(samples(state.progress));
    if let (Some(Ending::Finished(_)), Some(took)) = (state.ended, state.took()) {
        parts.push(format!("in {}", span::human(took)));
    }
    parts.join(" ")
}

/// A warning for a run that SUCCEEDED with failed samples.
pub fn partial(run: &RunView) -> Option<String> {
    let progress = run.state.progress;
    let failed = progress.failed.filter(|failed| *failed > 0)?;
    if run.state.ended != Some(Ending::Finished(Terminal::Succeeded)) {
        return None;
    }
    let of = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
    Some(format!("warning: {} SUCCEEDED with {failed}{of} samples failed", run.subject.label()))
}

/// The message for an update that is not about a run's progress.
pub fn notice(update: &Update) -> Option<String> {
    Some(match update {
        Update::Run(..) | Update::WatchList | Update::Found(_) => return None,
        Update::DiscoveryFailed(error) => format!("new runs cannot be discovered: {error}"),
        Update::Doubt { subject, kind, message } => {
            let label = subject.label();
            let message = message.trim_end_matches('.');
            match kind {
                DoubtKind::UnknownStatus => format!(
                    "warning: {label}: {message}, which this version of runwatch does not know; still watching"
                ),
                DoubtKind::Missing | DoubtKind::NoSuchPage => format!("{label}: {message}; asking again"),
                DoubtKind::KeyRefused => format!("{label}: {message}; reading the key again"),
                DoubtKind::Rejected => format!("warning: {label}: {message}; asking again"),
            }
        }
        Update::ApiDown(down, reason) if down.throttled => {
            format!("API throttling requests since {}: {reason}; still trying", time(down.since.wall))
        }
        Update::ApiDown(down, reason) => {
            format!("API unreachable since {}: {reason}; still trying", time(down.since.wall))
        }
        Update::ApiUp(up) if up.throttled => format!(
            "API answering again after {} (it was throttling since {})",
            span::human(up.lasted),
            time(up.since.wall)
        ),
        Update::ApiUp(up) => format!(
            "API reachable again after {} (it was unreachable since {})",
            span::human(up.lasted),
            time(up.since.wall)
        ),
        Update::StoreFailed(error) => format!("cannot record what was seen: {error}; still trying"),
        Update::KeyAccepted => "the API accepts the key again".to_owned(),
        Update::StoreWell => "recording works again".to_owned(),
    })
}

/// A time for people: UTC, to the second.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `about 5m left`, or nothing.
pub fn left(run: &RunView) -> Option<String> {
    let left = run.expected_end?.saturating_duration_since(tokio::time::Instant::now());
    (!left.is_zero()).then(|| format!("about {} left", span::human(round(left))))
}

/// An estimate has no milliseconds.
pub fn round(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

/// Samples as `193/200, 7 failed`; `None` if the API gives no counts.
pub fn samples(progress: Progress) -> Option<String> {
    let completed = progress.completed?;
    let of = progress.total.map(|total| format!("/{total}")).unwrap_or_default();
    let failed = match progress.failed.unwrap_or(0) {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    Some(format!("{completed}{of}{failed}"))
}
