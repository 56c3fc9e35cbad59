//! Watching in the foreground: what `watch`, `wait` and `demo` share.
//!
//! Owns the end of a watch (all ended, enough ended, deadline, signal) and the bounded delivery after it. A [`View`]
//! shows the updates; nothing is ever asked of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::out::Out;
use super::readers::{Readers, Shown};
use super::setup;
use super::signals::{Resizes, SAME_SIGNAL, Signals};
use super::verdict::Cut;
use crate::api::RunSource;
use crate::app::{self, Ended, Plan, Running};
use crate::config::{Config, ConfiguredChannel};
use crate::notify::{Channel, Message};
use crate::poll::{FINAL_POLL, OutagesTold, Update, Watched};
use crate::run::event::Payload;
use crate::run::{Ending, Patience, RunChange, RunId, RunState, Subject};
use crate::store::{SqliteStore, Undelivered};
use crate::{clock, span};

/// Maximum time for deliveries after the watch has ended.
const DELIVERY: Duration = Duration::from_secs(10);

/// Shows the updates of a watch.
pub(super) trait View {
    /// Receives an update.
    fn update(&mut self, update: &Update);
    /// When to call [`View::tick`] if no update comes before.
    fn next_tick(&self) -> Option<Instant>;
    /// Called at that moment.
    fn tick(&mut self);
    /// The terminal has another size.
    fn resized(&mut self) {}
    /// The watch has ended: clean up the terminal. Updates that were recorded meanwhile still come.
    fn finish(&mut self);
}

/// What ends a watch before its deadline and before all runs have ended.
pub(super) enum EndWhen<'a> {
    /// Nothing: wait for all runs.
    All,
    /// One run has a terminal status.
    Any,
    /// One run has ended and is not good.
    FirstBad(Box<dyn Fn(&RunState) -> bool + 'a>),
}

impl EndWhen<'_> {
    /// How this run ends the watch, if it does.
    fn is_met_by(&self, state: &RunState) -> Option<Cut> {
        match self {
            Self::All => None,
            Self::Any => matches!(state.ended, Some(Ending::Finished(_))).then_some(Cut::OneFinished),
            Self::FirstBad(is_good) => (state.ended.is_some() && !is_good(state)).then_some(Cut::OneBad),
        }
    }
}

/// A watch that is about to start.
pub(super) struct Watch<'a> {
    pub(super) config: &'a Config,
    pub(super) runs: &'a [RunId],
    /// The channels, and whether the command line named them: then they override the channels of each run.
    pub(super) channels: Vec<ConfiguredChannel>,
    pub(super) channels_win: bool,
    /// A channel that is not configured (the desktop). It gets one attempt.
    pub(super) extra: Option<Channel>,
    pub(super) end_when: EndWhen<'a>,
    /// The start of the timeout.
    pub(super) began: Instant,
    pub(super) timeout: Option<Duration>,
    pub(super) keep_bodies: bool,
    /// The streams that show it. The watch ends when nobody reads them any more.
    pub(super) shown: Shown,
}

/// A watch that has ended.
pub(super) struct Session {
    pub(super) ended: Ended,
    pub(super) cut: Cut,
    pub(super) signals: Signals,
}

impl Watch<'_> {
    /// Watches until the end. The error is an exit code; its reason was shown already.
    pub(super) async fn run(
        self,
        out: &Out,
        source: Arc<dyn RunSource>,
        view: &mut dyn View,
    ) -> Result<Session, Exit> {
        let mut signals = Signals::in_foreground().map_err(|error| setup::internal(out, &error))?;
        let store = Arc::new(SqliteStore::in_memory().map_err(|error| setup::internal(out, &error))?);
        let mut running = app::start(self.plan()?, source, store);
        let deadline = self.timeout.map(|timeout| self.began + timeout);
        let mut cut = self.until_over(out, &mut running, &mut signals, deadline, view).await;
        if matches!(cut, Cut::Deadline | Cut::NobodyReads) {
            tokio::select! {
                () = running.final_poll(FINAL_POLL) => {}
                signal = signals.next() => cut = Cut::Signal(signal),
            }
        }
        // Outlives the scheduler: what it records until its end counts for the verdict, and is shown.
        let mut updates = std::mem::replace(&mut running.updates, mpsc::unbounded_channel().1);
        show(&mut updates, view);
        view.finish();
        let ended = stop(out, running, &mut signals, cut).await;
        show(&mut updates, view);
        let ended = ended?;
        if matches!(cut, Cut::Deadline | Cut::NobodyReads) {
            cut = self.after_final_poll(&ended, cut);
        }
        let undelivered = ended.undelivered.as_deref().map_err(|error| setup::internal(out, error))?;
        for left in undelivered {
            out.error(could_not_deliver(left));
        }
        Ok(Session { ended, cut, signals })
    }

    /// Why a watch that was cut short ended. Results of the final poll count as if they had come in time.
    fn after_final_poll(&self, ended: &Ended, cut: Cut) -> Cut {
        let all_ended = ended.runs.iter().all(|run| run.watched.state.ended.is_some());
        let otherwise = if all_ended { Cut::AllEnded } else { cut };
        ended.runs.iter().find_map(|run| self.end_when.is_met_by(&run.watched.state)).unwrap_or(otherwise)
    }

    fn plan(&self) -> Result<Plan, Exit> {
        let poll = &self.config.poll;
        let patience = Patience {
            grace: poll.grace,
            unknown_after: Some(poll.unknown_status_after),
            refused_ends: true,
        };
        let channels: Result<Vec<_>, _> =
            self.channels.iter().map(|channel| app::channel(channel, self.config)).collect();
        let mut channels = channels.map_err(setup::refuse)?;
        channels.extend(self.extra.clone());
        let extra = self.extra.iter().map(|extra| (extra.name.clone(), None));
        let routes = app::routes(&self.channels, extra);
        Ok(Plan {
            settings: app::poll_settings(self.config, routes.fixed(), patience, self.keep_bodies),
            runs: self.watched(),
            channels,
            outages_told: OutagesTold::default(),
        })
    }

    /// The requested runs without duplicates, with their configured names.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        setup::subjects(self.config, self.runs)
    }

    fn watched(&self) -> Vec<Watched> {
        let now = clock::wall();
        let watched = |subject: Subject| {
            let configured = self.config.runs.iter().find(|run| run.id == subject.id);
            let chosen = configured.and_then(|run| run.notify.as_deref()).filter(|_| !self.channels_win);
            // The extra channel is for whoever sits here, whatever the run's own choice.
            let notify = chosen.map(|chosen| {
                chosen.iter().cloned().chain(self.extra.iter().map(|extra| extra.name.clone())).collect()
            });
            let deadline = configured.and_then(|run| run.deadline);
            Watched { notify, deadline, ..Watched::new(subject, now) }
        };
        self.subjects().into_iter().map(watched).collect()
    }

    async fn until_over(
        &self,
        out: &Out,
        running: &mut Running,
        signals: &mut Signals,
        deadline: Option<Instant>,
        view: &mut dyn View,
    ) -> Cut {
        let (mut readers, mut resizes) = (Readers::of(self.shown), Resizes::listen());
        let mut going = self.runs.iter().collect::<HashSet<&RunId>>().len();
        let failed = running.failed();
        tokio::pin!(failed);
        loop {
            let tick = view.next_tick();
            tokio::select! {
                update = running.updates.recv() => {
                    // The scheduler is gone: `stop` finds out why.
                    let Some(update) = update else { return Cut::AllEnded };
                    view.update(&update);
                    let Update::Run(run, RunChange::Ended) = &update else { continue };
                    going = going.saturating_sub(1);
                    if let Some(cut) = self.end_when.is_met_by(&run.state) {
                        return cut;
                    }
                    if going == 0 {
                        return Cut::AllEnded;
                    }
                }
                // `stop` says what failed.
                _ = &mut failed => return Cut::AllEnded,
                signal = signals.next() => return Cut::Signal(signal),
                // Beside a result, progress is worth nothing: only the readers of both streams count.
                () = out.closed(), if self.shown == Shown::OnStdout => return Cut::NobodyReads,
                gone = readers.gone() => return gone,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Cut::Deadline,
                () = resizes.next() => view.resized(),
                () = sleep_until(tick.unwrap_or_else(Instant::now)), if tick.is_some() => view.tick(),
            }
        }
    }
}

/// Shows all updates that are waiting.
fn show(updates: &mut mpsc::UnboundedReceiver<Update>, view: &mut dyn View) {
    while let Ok(update) = updates.try_recv() {
        view.update(&update);
    }
}

/// Stops polling and delivering. A signal only shortens the deliveries and loses no verdict; a third signal ends at once.
async fn stop(out: &Out, running: Running, signals: &mut Signals, cut: Cut) -> Result<Ended, Exit> {
    let interrupted = matches!(cut, Cut::Signal(_));
    if interrupted && running.is_delivering().await {
        out.note(&format!(
            "runwatch: delivering notifications for up to {}; interrupt again to stop at once",
            span::human(DELIVERY)
        ));
    }
    let mut last_signal = interrupted.then(Instant::now);
    let hurry = CancellationToken::new();
    let stop = running.stop(DELIVERY, DELIVERY, hurry.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            ended = &mut stop => return ended.map_err(|error| setup::internal(out, &error)),
            signal = signals.next() => {
                if last_signal.is_some_and(|last| last.elapsed() < SAME_SIGNAL) {
                    continue;
                }
                if hurry.is_cancelled() {
                    return Err(signal);
                }
                last_signal = Some(Instant::now());
                hurry.cancel();
            }
        }
    }
}

fn could_not_deliver(left: &Undelivered) -> String {
    let what = serde_json::from_str::<Payload>(&left.payload)
        .map_or_else(|_| "an event".to_owned(), |payload| format!("\"{}\"", Message::of(&payload).title));
    let why = match (&left.last_error, left.in_flight) {
        (_, true) => "it was still under way".to_owned(),
        (Some(error), false) => error.clone(),
        (None, false) => "it was not tried".to_owned(),
    };
    let tries = match (left.attempts, &left.last_error) {
        (0, Some(_)) => "asked to wait".to_owned(),
        (1, _) => "1 attempt".to_owned(),
        (attempts, _) => format!("{attempts} attempts"),
    };
    format!("could not deliver {what} through `{}` ({tries}): {why}", left.channel)
}
