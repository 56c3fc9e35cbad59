//! What a seed decides in advance: the runs and how they end, when either side fails, and when the process dies.

use std::time::Duration;

use runwatch::run::{RunId, Terminal};

use super::world::World;

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The end of the simulation.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Nothing fails from then on, so that at the end everything is known and delivered.
pub const CALM: Duration = Duration::from_secs(350 * 24 * 3600);

/// How long an id may be unknown before it is given up.
pub const GRACE: Duration = MINUTE;

/// One run, as the API knows it.
pub struct Course {
    pub id: RunId,
    /// When a user adds it to the watch.
    pub added_at: Duration,
    /// When the API begins to answer about it.
    pub visible_at: Duration,
    pub created_at: Duration,
    pub starts_at: Duration,
    pub ends_at: Duration,
    pub fate: Fate,
    pub samples: u64,
    /// Time after its creation when it is overdue.
    pub deadline: Option<Duration>,
}

/// What becomes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Finishes(Terminal),
    /// The API knows it no more.
    Deleted,
    /// The API never knew it.
    Never,
    /// It is active at the end of the year.
    Endless,
}

/// What goes wrong in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Down,
    Hangs,
    Throttles,
    /// A page of something in between.
    Page,
    /// The key is refused.
    Refuses,
    Mixed,
}

/// From when to when what goes wrong.
pub struct Span {
    pub from: Duration,
    pub to: Duration,
    pub trouble: Trouble,
}

/// What a user or the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Adds this run.
    Add(usize),
    /// Resumes from a suspension.
    Resume,
    /// Asks for a final poll.
    FinalPoll,
}

/// What is special about the second channel. The first one is sound: it takes everything in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sound,
    /// It gathers events.
    Gathers,
    /// It can never take some events.
    Picky,
    /// It refuses everything from then on.
    Finished(Duration),
}

pub struct Plan {
    pub runs: Vec<Course>,
    /// In order of time.
    pub actions: Vec<(Duration, Action)>,
    pub api: Vec<Span>,
    pub receivers: [Vec<Span>; 2],
    pub second: Kind,
    /// Share of single answers that are wrong at other times.
    pub bad: f64,
    /// The longest pause between two polls.
    pub longest: Duration,
    pub price: Option<f64>,
    pub save_every: Duration,
    pub lists: bool,
    /// Number of lives that end before the calm.
    pub lives: usize,
    /// Whether the store is a file, which is opened again after each kill.
    pub on_disk: bool,
}

impl Plan {
    pub fn of(seed: u64, world: &World) -> Self {
        world.draw(|dice| {
            let mut runs: Vec<Course> = Vec::new();
            for n in 0..dice.usize(1..5) {
                // Half of the runs are active beside another one.
                let beside = runs.last().map(|run| run.added_at).filter(|_| dice.bool());
                runs.push(course(n, beside, dice));
            }
            let mut actions: Vec<_> =
                runs.iter().enumerate().map(|(n, run)| (run.added_at, Action::Add(n))).collect();
            for action in [Action::Resume, Action::FinalPoll] {
                for run in &runs {
                    // While there is something to poll.
                    let spread = run.ends_at.saturating_sub(run.added_at).max(MINUTE);
                    actions.push((run.added_at + spread.mul_f64(dice.f64()), action));
                }
            }
            actions.sort_by_key(|(at, _)| *at);
            let times: Vec<Duration> =
                runs.iter().flat_map(|run| [run.added_at, run.ends_at]).filter(|at| *at < CALM).collect();
            let mut spans = |longest| {
                let mut spans: Vec<Span> =
                    (0..dice.usize(0..7)).map(|_| span(&times, longest, dice)).collect();
                spans.sort_by_key(|span| span.from);
                spans
            };
            let (api, receivers) = (spans(DAY), [spans(HOUR), spans(HOUR)]);
            let second = match dice.u8(..6) {
                0 => Kind::Picky,
                1 => Kind::Finished(CALM.mul_f64(dice.f64())),
                2 => Kind::Gathers,
                _ => Kind::Sound,
            };
            Self {
                runs,
                actions,
                api,
                receivers,
                second,
                bad: *dice.choice(&[0.0, 0.05, 0.2, 0.5]).unwrap(),
                longest: *dice.choice(&[HOUR * 12, DAY, DAY * 2]).unwrap(),
                price: *dice.choice(&[None, None, Some(6.0)]).unwrap(),
                save_every: *dice.choice(&[MINUTE, HOUR * 6]).unwrap(),
                lists: dice.u8(..3) == 0,
                lives: dice.usize(0..9),
                on_disk: seed.is_multiple_of(20),
            }
        })
    }

    /// What goes wrong now.
    pub fn trouble(spans: &[Span], now: Duration) -> Option<Trouble> {
        spans.iter().find(|span| (span.from..span.to).contains(&now)).map(|span| span.trouble)
    }
}

/// A length of time between two others, the shorter ones more often.
pub fn between(dice: &mut fastrand::Rng, least: Duration, most: Duration) -> Duration {
    let ratio = most.as_secs_f64() / least.as_secs_f64();
    Duration::from_millis((least.as_secs_f64() * ratio.powf(dice.f64()) * 1000.0) as u64)
}

fn course(n: usize, beside: Option<Duration>, dice: &mut fastrand::Rng) -> Course {
    let second = Duration::from_secs(1);
    let fate = match dice.u8(..10) {
        0 => Fate::Deleted,
        1 => Fate::Never,
        2 => Fate::Endless,
        _ => Fate::Finishes(
            *dice.choice(&[Terminal::Succeeded, Terminal::Failed, Terminal::Canceled]).unwrap(),
        ),
    };
    let added_at = match beside {
        Some(at) if fate != Fate::Endless => at + between(dice, second, HOUR),
        _ => DAY.mul_f64(if fate == Fate::Endless { 325.0 } else { 320.0 * dice.f64() }),
    };
    let created_at = added_at.saturating_sub(between(dice, second, DAY));
    let starts_at = created_at + between(dice, second, HOUR * 30);
    let ends_at = starts_at.max(added_at) + between(dice, second * 5, DAY * 3);
    let late = if dice.u8(..4) == 0 { GRACE / 2 } else { Duration::ZERO };
    Course {
        id: format!("run-{n}").parse().unwrap(),
        added_at,
        visible_at: added_at + late,
        created_at,
        starts_at,
        ends_at: if fate == Fate::Endless { YEAR * 2 } else { ends_at },
        fate,
        samples: dice.u64(1..1_000_000),
        deadline: dice.bool().then(|| between(dice, MINUTE, DAY * 5)),
    }
}

/// A span of trouble, most often when something happens to a run.
fn span(times: &[Duration], longest: Duration, dice: &mut fastrand::Rng) -> Span {
    let at = match dice.choice(times) {
        Some(at) if dice.u8(..4) > 0 => *at,
        _ => CALM.mul_f64(dice.f64()),
    };
    let length = between(dice, Duration::from_secs(1), longest);
    let from = at.saturating_sub(length.mul_f64(dice.f64()));
    let trouble = *dice
        .choice(&[
            Trouble::Down,
            Trouble::Hangs,
            Trouble::Throttles,
            Trouble::Page,
            Trouble::Refuses,
            Trouble::Mixed,
        ])
        .unwrap();
    Span { from, to: (from + length).min(CALM), trouble }
}
