//! The scripted API: its own account of every run, its faults, and what it checks about the requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runwatch::BoxFuture;
use runwatch::api::{Answer, Listed, Listing, PollError, PollErrorKind, RunSource, Wanted};
use runwatch::run::{DoubtKind, Progress, Run, RunId, RunStatus, Terminal};
use tokio::time::sleep;

use super::plan::{CALM, Course, Fate, HOUR, Plan, Trouble};
use super::world::{World, wall_at};

/// A request that gets no answer ends by itself after this time.
const REQUEST: Duration = Duration::from_secs(30);

/// The most polls at once.
pub const AT_ONCE: usize = 3;

pub struct Api {
    world: Arc<World>,
    plan: Arc<Plan>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    runs: BTreeMap<RunId, Asked>,
    /// The list's own pause.
    list: Asked,
    in_flight: usize,
}

/// What was asked and answered about one run.
#[derive(Default)]
struct Asked {
    /// Doubtful answers since the last good one.
    odd: u32,
    /// Whether a poll in this life had a good answer.
    is_seen: bool,
    /// The end that a poll was answered with.
    ended: Option<Terminal>,
    /// Until when the API wants no request, and when it said so. The process forgets it when it dies.
    not_before: Option<(Duration, Duration)>,
    /// The same of a 429, which two requests make a pause for all.
    throttled: Option<(Duration, Duration)>,
    /// When it was last asked in this life.
    asked_at: Option<Duration>,
}

/// A request in flight.
struct InFlight<'a>(&'a Api);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.known().in_flight -= 1;
    }
}

impl Api {
    pub fn new(world: Arc<World>, plan: Arc<Plan>) -> Self {
        Self { world, plan, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// A new process knows nothing of the pauses that the last one was asked for.
    pub fn new_life(&self) {
        let mut known = self.known();
        known.list = Asked::default();
        for asked in known.runs.values_mut() {
            (asked.not_before, asked.throttled, asked.asked_at) = (None, None, None);
            asked.is_seen = false;
        }
    }

    /// The requests in flight are broken off. What was said at this moment may not have been heard.
    pub fn broken_off(&self) {
        let now = self.world.now();
        let mut known = self.known();
        let Known { runs, list, .. } = &mut *known;
        for asked in runs.values_mut().chain([list]) {
            asked.not_before = asked.not_before.filter(|(_, said)| *said < now);
            asked.throttled = asked.throttled.filter(|(_, said)| *said < now);
        }
    }

    pub fn course(&self, id: &RunId) -> &Course {
        self.plan.runs.iter().find(|run| run.id == *id).unwrap()
    }

    /// The end that a poll of this run was answered with.
    pub fn said_ended(&self, id: &RunId) -> Option<Terminal> {
        self.known().runs.get(id).and_then(|asked| asked.ended)
    }

    /// Whether the API has no such run now.
    pub fn is_missing(&self, id: &RunId) -> bool {
        let (run, now) = (self.course(id), self.world.now());
        match run.fate {
            Fate::Never => true,
            Fate::Deleted => now >= run.ends_at,
            _ => false,
        }
    }

    /// Checks that a request may be sent now.
    fn arrives(&self, id: Option<&RunId>) -> InFlight<'_> {
        let now = self.world.now();
        let mut known = self.known();
        let Known { runs, list, in_flight } = &mut *known;
        let held = runs
            .values()
            .chain([&*list])
            .filter(|asked| asked.throttled.is_some_and(|(until, said)| said < now && now < until));
        let held = held.count();
        let asked = match id {
            Some(id) => runs.entry(id.clone()).or_default(),
            None => list,
        };
        let before = asked.asked_at.replace(now);
        let not_before = asked.not_before;
        *in_flight += 1;
        let in_flight = *in_flight;
        drop(known);
        let name = id.map_or("the list", RunId::as_str);
        if let Some((until, said)) = not_before
            && now < until
        {
            self.world.broken(format_args!("{name} was asked before {until:?}, as said at {said:?}"));
        }
        if held >= 2 {
            self.world.broken(format_args!("{name} was asked while {held} requests are throttled"));
        }
        if in_flight > AT_ONCE + 1 {
            self.world.broken(format_args!("{in_flight} requests at once"));
        }
        let longest = self.plan.longest * 3 + HOUR * 2;
        if id.is_some() && before.is_some_and(|before| now - before > longest) {
            self.world
                .broken(format_args!("{name} was not asked for {:?}", now - before.unwrap_or_default()));
        }
        InFlight(self)
    }

    /// What goes wrong with a request now.
    fn fault(&self) -> Option<Trouble> {
        let now = self.world.now();
        if now >= CALM {
            return None;
        }
        match Plan::trouble(&self.plan.api, now) {
            Some(trouble) if self.world.chance(0.95) => Some(trouble),
            _ => self.world.chance(self.plan.bad).then_some(Trouble::Mixed),
        }
    }

    /// A pause that the API asks for, in some of the cases.
    fn pause(&self) -> Option<Duration> {
        let seconds = self.world.draw(|dice| if dice.bool() { dice.u64(1..3600) } else { dice.u64(1..30) });
        self.world.chance(0.6).then_some(Duration::from_secs(seconds))
    }

    fn error(kind: PollErrorKind, from_api: bool, is_page: bool, retry_after: Option<Duration>) -> PollError {
        PollError { kind, message: "as scripted".into(), from_api, is_page, retry_after }
    }

    /// An error instead of an answer; `None` for an answer after all.
    async fn err(&self, trouble: Trouble, id: Option<&RunId>) -> Option<PollError> {
        let transient = |pause| Self::error(PollErrorKind::Transient, false, false, pause);
        let trouble = match trouble {
            Trouble::Mixed => self.world.draw(|dice| {
                *dice
                    .choice(&[
                        Trouble::Down,
                        Trouble::Hangs,
                        Trouble::Throttles,
                        Trouble::Page,
                        Trouble::Refuses,
                        Trouble::Mixed,
                        Trouble::Mixed,
                    ])
                    .unwrap()
            }),
            other => other,
        };
        match trouble {
            Trouble::Down => Some(transient(self.pause())),
            Trouble::Hangs => {
                sleep(REQUEST).await;
                Some(transient(None))
            }
            Trouble::Throttles => Some(Self::error(PollErrorKind::Throttled, true, false, self.pause())),
            Trouble::Page => {
                let kind = if self.world.chance(0.5) { DoubtKind::KeyRefused } else { DoubtKind::NoSuchPage };
                Some(Self::error(PollErrorKind::Doubt(kind), false, true, None))
            }
            Trouble::Refuses => {
                let kind = if self.world.chance(0.5) { DoubtKind::KeyRefused } else { DoubtKind::Rejected };
                Some(Self::error(PollErrorKind::Doubt(kind), self.world.chance(0.5), false, self.pause()))
            }
            Trouble::Mixed => self.odd(id?),
        }
    }

    /// An odd answer: the run is missing, as a lagging replica says. Not often enough in a row to be believed.
    fn odd(&self, id: &RunId) -> Option<PollError> {
        let from_api = self.world.chance(0.5);
        let mut known = self.known();
        let asked = known.runs.entry(id.clone()).or_default();
        let run = self.plan.runs.iter().find(|run| run.id == *id)?;
        let most = if asked.is_seen { 2 } else { u32::from(run.visible_at == run.added_at) };
        if asked.odd >= most {
            return None;
        }
        asked.odd += 1;
        let kind = if from_api { DoubtKind::Missing } else { DoubtKind::NoSuchPage };
        Some(Self::error(PollErrorKind::Doubt(kind), from_api, false, None))
    }

    /// The run as it is now; `None` if there is none.
    fn truth(&self, run: &Course) -> Option<Run> {
        let now = self.world.now();
        if self.is_missing(&run.id) || now < run.visible_at {
            return None;
        }
        let ended = match run.fate {
            Fate::Finishes(terminal) if now >= run.ends_at => Some(terminal),
            _ => None,
        };
        let status = match ended {
            Some(terminal) => status_of(terminal),
            // It flaps, or is one that nobody knows.
            None if now < CALM && self.world.chance(self.plan.bad / 4.0) => RunStatus::parse(Some(
                ["PENDING", "PROCESSING", "PAUSED"][self.world.draw(|dice| dice.usize(..3))],
            )),
            None if now < run.starts_at => RunStatus::Pending,
            None => RunStatus::Processing,
        };
        let length = run.ends_at.saturating_sub(run.starts_at).as_secs_f64();
        let share = (now.saturating_sub(run.starts_at).as_secs_f64() / length).min(1.0);
        let completed = (run.samples as f64 * share) as u64;
        Some(Run {
            status,
            progress: Progress { completed: Some(completed), failed: Some(0), total: Some(run.samples) },
            created_at: Some(wall_at(run.created_at)),
            completed_at: ended.map(|_| wall_at(run.ends_at)),
            spec_id: None,
            details: None,
        })
    }

    async fn answer(&self, id: &RunId) -> Result<Run, PollError> {
        sleep(self.latency()).await;
        let run = self.course(id);
        let fault = match self.fault() {
            // Nothing odd is said of a run before it was seen: it would count.
            Some(Trouble::Mixed) if self.world.now() < run.visible_at => None,
            fault => fault,
        };
        if let Some(trouble) = fault
            && let Some(error) = self.err(trouble, Some(id)).await
        {
            return Err(error);
        }
        let answer = self.truth(run);
        sleep(self.latency()).await;
        answer.ok_or_else(|| Self::error(PollErrorKind::Doubt(DoubtKind::Missing), true, false, None))
    }

    fn latency(&self) -> Duration {
        self.world.draw(|dice| match dice.u8(..10) {
            0 => Duration::from_millis(dice.u64(..6000)),
            _ => Duration::from_millis(dice.u64(..50)),
        })
    }

    /// Writes down what was said.
    fn said<T>(&self, id: Option<&RunId>, said: &Result<T, PollError>) {
        let now = self.world.now();
        let mut known = self.known();
        let asked = match id {
            Some(id) => known.runs.entry(id.clone()).or_default(),
            None => &mut known.list,
        };
        let error = said.as_ref().err();
        asked.not_before = error.and_then(|error| error.retry_after).map(|pause| (now + pause, now));
        asked.throttled =
            asked.not_before.filter(|_| error.is_some_and(|error| error.kind == PollErrorKind::Throttled));
        if error.is_none() {
            (asked.odd, asked.is_seen) = (0, true);
        }
    }
}

impl RunSource for Api {
    fn poll<'a>(&'a self, id: &'a RunId) -> BoxFuture<'a, Result<Answer, PollError>> {
        Box::pin(async move {
            self.world.step(format!("ask {id}")).await;
            let in_flight = self.arrives(Some(id));
            let said = self.answer(id).await;
            let text = match &said {
                Ok(run) => format!("{:?} {:?}", run.status, run.progress.completed),
                Err(error) => format!("{:?} {:?} {}", error.kind, error.retry_after, error.from_api),
            };
            self.world.step(format!("answer {id} {text}")).await;
            drop(in_flight);
            self.said(Some(id), &said);
            let run = said?;
            if let Some(terminal) = run.status.terminal() {
                self.known().runs.entry(id.clone()).or_default().ended = Some(terminal);
            }
            Ok(Answer { run, body: "{}".into() })
        })
    }

    fn list(&self, wanted: Wanted) -> BoxFuture<'_, Result<Listing, PollError>> {
        Box::pin(async move {
            self.world.step("list".to_owned()).await;
            let in_flight = self.arrives(None);
            sleep(self.latency()).await;
            let said = match self.fault() {
                Some(trouble) => self.err(trouble, None).await.map_or(Ok(()), Err),
                None => Ok(()),
            };
            let mut runs = Vec::new();
            if said.is_ok() {
                for course in &self.plan.runs {
                    // Some are left out, and of some it says that they have ended, which they have not.
                    let Some(mut run) = self.truth(course) else { continue };
                    let wrong = self.world.now() < CALM && self.world.chance(self.plan.bad / 2.0);
                    if wrong && self.world.chance(0.5) {
                        continue;
                    }
                    run.status = if wrong { RunStatus::Succeeded } else { run.status };
                    run.progress.total = None;
                    runs.push(Listed { id: course.id.clone(), run });
                }
            }
            sleep(self.latency()).await;
            let pause = said.as_ref().err().map(|error| (error.kind, error.retry_after));
            self.world.step(format!("listed {} {pause:?}", runs.len())).await;
            drop(in_flight);
            self.said(None, &said);
            said?;
            for listed in &runs {
                // A list is as good as a poll, for the time being.
                if let Some(asked) = self.known().runs.get_mut(&listed.id) {
                    asked.asked_at = Some(self.world.now());
                }
            }
            runs.retain_mut(|listed| wanted(listed));
            Ok(Listing { bytes: 600 * runs.len(), runs, ..Listing::default() })
        })
    }

    fn reload_key(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

fn status_of(terminal: Terminal) -> RunStatus {
    match terminal {
        Terminal::Succeeded => RunStatus::Succeeded,
        Terminal::Failed => RunStatus::Failed,
        Terminal::Canceled => RunStatus::Canceled,
    }
}
