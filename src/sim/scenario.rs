//! A simulated run over time: a queue, samples that settle at seeded times, an end. Pure.

use std::str::FromStr;
use std::time::Duration;

use crate::run::{Progress, RunId, RunStatus, Terminal};
use crate::span;

/// Share of a run's time after which its last sample settles. The API reports the end a while later.
const SAMPLES_DONE_AT: f64 = 0.97;

/// A run to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct SimRun {
    /// Its id.
    pub id: RunId,
    /// The name of its spec.
    pub spec_name: String,
    /// The name of its seed dataset; derived from the spec's by default.
    pub dataset_name: Option<String>,
    /// Who started it.
    pub created_by_email: String,
    /// Its terminal status.
    pub end: Terminal,
    /// Samples requested.
    pub samples: u64,
    /// Samples that fail.
    pub failed: u64,
    /// Time in PENDING.
    pub queue: Duration,
    /// Time in PROCESSING.
    pub duration: Duration,
    /// Its age when the simulator starts.
    pub age: Duration,
    /// Time after the simulator's start when it is created; excludes `age`.
    pub after: Duration,
}

/// A run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    pub(super) status: RunStatus,
    pub(super) progress: Progress,
    /// Time from its creation to its end.
    pub(super) ended_after: Option<Duration>,
}

/// A run with its seeded times.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub(super) run: SimRun,
    /// When each sample settles, in seconds of processing, in order; and whether it fails.
    settles: Vec<(f64, bool)>,
}

impl SimRun {
    /// A run of 20 samples that takes ten seconds and succeeds.
    pub fn new(id: RunId) -> Self {
        Self {
            spec_name: "support_tickets".to_owned(),
            dataset_name: None,
            created_by_email: "simulator@example.com".to_owned(),
            end: Terminal::Succeeded,
            samples: 20,
            failed: 0,
            queue: Duration::ZERO,
            duration: Duration::from_secs(10),
            age: Duration::ZERO,
            after: Duration::ZERO,
            id,
        }
    }
}

impl Timeline {
    pub(super) fn new(run: SimRun, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ fnv(run.id.as_str()));
        let duration = run.duration.as_secs_f64() * SAMPLES_DONE_AT;
        let count = usize::try_from(run.samples).unwrap_or(usize::MAX).min(1_000_000);
        let mut at: Vec<f64> = (0..count).map(|_| random.f64() * duration).collect();
        at.sort_by(f64::total_cmp);
        let mut settles: Vec<(f64, bool)> = at.into_iter().map(|at| (at, false)).collect();
        let failed = usize::try_from(run.failed).unwrap_or(usize::MAX).min(count);
        for index in random.choose_multiple(0..count, failed) {
            settles[index].1 = true;
        }
        Self { run, settles }
    }

    /// The run at this time after its creation. `canceled_after` ends it early.
    pub(super) fn at(&self, age: Duration, canceled_after: Option<Duration>) -> Snapshot {
        let run = &self.run;
        let natural_end = run.queue + run.duration;
        let (end, ended_after) = match canceled_after {
            Some(canceled) if canceled < natural_end => (Terminal::Canceled, canceled),
            _ => (run.end, natural_end),
        };
        let now = age.min(ended_after);
        let processing = now.saturating_sub(run.queue).as_secs_f64();
        // A run that does not succeed stops before its last sample.
        let reached = match end {
            Terminal::Succeeded => processing,
            Terminal::Failed | Terminal::Canceled => processing.min(run.duration.as_secs_f64() * 0.6),
        };
        let settled = self.settles.partition_point(|(at, _)| *at <= reached);
        let failed = self.settles[..settled].iter().filter(|(_, failed)| *failed).count() as u64;
        Snapshot {
            status: match end {
                _ if age < run.queue.min(ended_after) => RunStatus::Pending,
                _ if age < ended_after => RunStatus::Processing,
                Terminal::Succeeded => RunStatus::Succeeded,
                Terminal::Failed => RunStatus::Failed,
                Terminal::Canceled => RunStatus::Canceled,
            },
            progress: Progress {
                completed: Some(settled as u64 - failed),
                failed: Some(failed),
                total: Some(run.samples),
            },
            ended_after: (age >= ended_after).then_some(ended_after),
        }
    }
}

/// FNV-1a, so that a seed has the same effect on every machine.
pub(super) fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for SimRun {
    type Err = String;

    /// Parses `ID` or `id=ID,end=failed,samples=40,failed=2,queue=5s,duration=1m,age=30s,spec=NAME`, and `after`, `by`
    /// and `dataset`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut pairs = text.split(',').map(|pair| pair.split_once('=').unwrap_or(("id", pair)));
        let id = pairs.clone().find(|(key, _)| *key == "id").ok_or("there is no id in it")?.1;
        let mut run = Self::new(id.parse().map_err(|error: crate::run::RunIdError| error.to_string())?);
        let number = |value: &str| value.parse().map_err(|_| format!("`{value}` is not a number"));
        let time = |value: &str| span::parse_or_zero(value).map_err(|error| error.to_string());
        pairs.try_for_each(|(key, value)| {
            match key {
                "id" => {}
                "end" => {
                    run.end = RunStatus::parse(Some(value)).terminal().ok_or(format!(
                        "`{value}` is not an end; expected succeeded, failed or canceled"
                    ))?;
                }
                "samples" => run.samples = number(value)?,
                "failed" => run.failed = number(value)?,
                "queue" => run.queue = time(value)?,
                "duration" => run.duration = time(value)?,
                "age" => run.age = time(value)?,
                "after" => run.after = time(value)?,
                "spec" => value.clone_into(&mut run.spec_name),
                "by" => value.clone_into(&mut run.created_by_email),
                "dataset" => run.dataset_name = Some(value.to_owned()),
                _ => {
                    return Err(format!(
                        "`{key}` is not known; expected id, end, samples, failed, queue, duration, age, after, spec, by or dataset"
                    ));
                }
            }
            Ok(())
        })?;
        if run.samples > 20_000 {
            return Err("the API allows 20000 samples at most".to_owned());
        }
        if !run.age.is_zero() && !run.after.is_zero() {
            return Err(
                "a run that is created after the start has no age then; leave age or after out".to_owned()
            );
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(text: &str) -> Timeline {
        Timeline::new(text.parse().unwrap(), 7)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn goes_through_its_statuses() {
        let run = timeline("id=r,queue=2s,duration=10s,samples=100,failed=3");
        assert_eq!(run.at(seconds(1.0), None).status, RunStatus::Pending);
        let half = run.at(seconds(7.0), None);
        assert_eq!(half.status, RunStatus::Processing);
        assert!((30..70).contains(&half.progress.done().unwrap()), "{half:?}");
        // All samples are settled before the status says so.
        let nearly = run.at(seconds(11.9), None);
        assert_eq!((nearly.status, nearly.progress.done()), (RunStatus::Processing, Some(100)));
        let end = run.at(seconds(99.0), None);
        assert_eq!((end.status, end.ended_after), (RunStatus::Succeeded, Some(seconds(12.0))));
        assert_eq!(end.progress, Progress { completed: Some(97), failed: Some(3), total: Some(100) });
    }

    #[test]
    fn a_run_that_does_not_succeed_does_not_finish_its_samples() {
        for end in ["failed", "canceled"] {
            let done = timeline(&format!("id=r,end={end},samples=100")).at(seconds(99.0), None);
            assert!((40..80).contains(&done.progress.done().unwrap()), "{done:?}");
            assert!(done.status.terminal().is_some());
        }
    }

    #[test]
    fn can_be_canceled_before_its_end_only() {
        let run = timeline("id=r,duration=10s");
        assert_eq!(run.at(seconds(5.0), Some(seconds(4.0))).status, RunStatus::Canceled);
        assert_eq!(run.at(seconds(20.0), Some(seconds(15.0))).status, RunStatus::Succeeded);
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let progress =
            |seed| Timeline::new("id=r,samples=1000".parse().unwrap(), seed).at(seconds(5.0), None).progress;
        assert_eq!(progress(1), progress(1));
        assert_ne!(progress(1), progress(2));
    }

    #[test]
    fn wrong_descriptions_are_refused() {
        for text in [
            "",
            "id=",
            "end=failed",
            "id=r,end=paused",
            "id=r,samples=x",
            "id=r,samples=20001",
            "id=r,size=3",
            "id=r,queue=-1s",
            "id=r,age=1s,after=1s",
        ] {
            assert!(text.parse::<SimRun>().is_err(), "{text}");
        }
        assert_eq!("nightly".parse::<SimRun>().unwrap().id.as_str(), "nightly");
    }
}
