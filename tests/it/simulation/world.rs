//! What outlives a life of the daemon: the simulated time, the dice, the next kill, and the history.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

/// When the simulated year begins, in Unix seconds.
const EPOCH: i64 = 1_800_000_000;

/// The world of one seed.
pub struct World {
    /// Print each step.
    talks: bool,
    state: Mutex<State>,
    killed: Mutex<Arc<Notify>>,
}

struct State {
    dice: fastrand::Rng,
    /// The time when the current life began.
    began_at: Duration,
    /// The same by the clock of the life's runtime.
    began: Option<Instant>,
    /// The number of the current life.
    life: u32,
    is_dead: bool,
    /// The number of steps until the next kill.
    steps_left: Option<u32>,
    /// What must not happen and did.
    broken: Vec<String>,
    history: DefaultHasher,
    steps: u64,
}

impl World {
    pub fn new(seed: u64, talks: bool) -> Self {
        // The jitter of retries is drawn from this thread's dice.
        fastrand::seed(seed);
        let state = State {
            dice: fastrand::Rng::with_seed(seed),
            began_at: Duration::ZERO,
            began: None,
            life: 0,
            is_dead: false,
            steps_left: None,
            broken: Vec::new(),
            history: DefaultHasher::new(),
            steps: 0,
        };
        Self { talks, state: Mutex::new(state), killed: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Begins a life in the current runtime, `later` than the last one ended. It is killed after so many steps.
    pub fn begin(&self, later: Duration, steps: Option<u32>) {
        *self.killed.lock().unwrap() = Arc::default();
        let mut state = self.state();
        state.began_at += later;
        state.began = Some(Instant::now());
        state.life += 1;
        (state.is_dead, state.steps_left) = (false, steps);
        drop(state);
        self.say(format_args!("life begins"));
    }

    /// Ends a life, while its runtime still exists.
    pub fn end(&self) {
        let now = self.now();
        let mut state = self.state();
        (state.began_at, state.began, state.is_dead) = (now, None, true);
    }

    /// The time since the beginning of the year.
    pub fn now(&self) -> Duration {
        let state = self.state();
        state.began_at + state.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    pub fn wall(&self) -> Timestamp {
        wall_at(self.now())
    }

    pub fn life(&self) -> u32 {
        self.state().life
    }

    /// Draws from the dice.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.state().dice)
    }

    /// Whether something happens that happens in this share of cases.
    pub fn chance(&self, share: f64) -> bool {
        self.draw(fastrand::Rng::f64) < share
    }

    /// A step that has an effect outside the process. A killed process takes no more.
    pub async fn step(&self, what: String) {
        self.say(format_args!("{what}"));
        let dead = {
            let mut state = self.state();
            if let Some(left) = &mut state.steps_left {
                *left = left.saturating_sub(1);
                state.is_dead |= *left == 0;
            }
            state.is_dead
        };
        if dead {
            self.kill();
            std::future::pending::<()>().await;
        }
    }

    /// Kills the process at this point.
    pub fn kill(&self) {
        self.state().is_dead = true;
        self.killed.lock().unwrap().notify_one();
    }

    /// Kills the process no more.
    pub fn spare(&self) {
        self.state().steps_left = None;
    }

    pub async fn killed(&self) {
        let killed = Arc::clone(&self.killed.lock().unwrap());
        killed.notified().await;
    }

    /// Adds to the history.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        let now = self.now();
        let mut state = self.state();
        let text = what.to_string();
        if self.talks {
            eprintln!("{} {:?} {text}", state.life, now);
        }
        (now, text).hash(&mut state.history);
        state.steps += 1;
    }

    /// Something that must not happen has happened.
    pub fn broken(&self, what: fmt::Arguments<'_>) {
        let text = format!("{:?}, life {}: {what}", self.now(), self.life());
        self.say(what);
        // The history ends here: a fault may repeat for ever.
        self.state().broken.push(text);
        self.kill();
    }

    /// What is broken, if anything.
    pub fn verdict(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    /// A number that differs if the history does, and how many steps it has.
    pub fn history(&self) -> (u64, u64) {
        let state = self.state();
        (state.history.finish(), state.steps)
    }
}

/// The wall clock at a time of the year.
pub fn wall_at(at: Duration) -> Timestamp {
    Timestamp::from_second(EPOCH).unwrap() + at
}
