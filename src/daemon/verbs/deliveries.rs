//! `deliveries`: list deliveries, retry them, or resend events.
//!
//! The outbox does the work; this file checks the channel names.

use crate::clock;
use crate::control::{Deliveries, ResendRequest, RetryRequest, Settled};
use crate::daemon::handle::{Handle, Parts, Refusal, known};
use crate::run::RunId;
use crate::store::{DeliveryFilter, DeliveryState, Retried, Route, SqliteStore};

impl Handle {
    pub(in crate::daemon) async fn deliveries(
        &self,
        filter: DeliveryFilter,
        limit: u32,
    ) -> Result<Deliveries, Refusal> {
        let Parts { store, routes, .. } = self.parts()?;
        if let Some(name) = &filter.channel {
            let configured = known(&routes.borrow(), name).map(|_| ());
            // A channel that was removed may have deliveries left.
            if let Err(unknown) = configured
                && !store.had_channel(name.clone()).await?
            {
                return Err(unknown);
            }
        }
        if let Some(run) = &filter.run {
            known_run(&store, run).await?;
        }
        Ok(Deliveries { deliveries: store.deliveries(filter, limit).await? })
    }

    pub(in crate::daemon) async fn retry(&self, request: RetryRequest) -> Result<Settled, Refusal> {
        let Parts { store, routes, .. } = self.parts()?;
        let filter = meant(request)?;
        let routes = routes.borrow().clone();
        if let Some(name) = &filter.channel {
            known(&routes, name)?;
        }
        if let Some(id) = filter.id {
            let one = DeliveryFilter { id: Some(id), ..DeliveryFilter::default() };
            let found = store.deliveries(one, 1).await?;
            let delivery =
                found.first().ok_or_else(|| Refusal::NotFound(format!("there is no delivery {id}")))?;
            if delivery.state == DeliveryState::Delivered {
                return Err(Refusal::Bad(format!(
                    "delivery {id} was delivered; `runwatch deliveries resend` sends events once more"
                )));
            }
            known(&routes, &delivery.channel)?;
            if store.deliveries(filter.clone(), 1).await?.is_empty() {
                let about =
                    delivery.run_id.as_deref().map(|run| format!(", about {run}")).unwrap_or_default();
                return Err(Refusal::Bad(format!(
                    "delivery {id} does not meet the other conditions: it is {}, to `{}`{about}",
                    delivery.state.as_str(),
                    delivery.channel
                )));
            }
        }
        if let Some(run) = &filter.run {
            known_run(&store, run).await?;
        }
        let channels: Vec<_> = routes.iter().map(|route| route.channel.clone()).collect();
        let Retried { due, skipped } = store.retry(filter, &channels, clock::wall()).await?;
        Ok(Settled {
            deliveries: due,
            skipped: skipped.iter().map(|(_, count)| count).sum(),
            skipped_channels: skipped.into_iter().map(|(channel, _)| channel).collect(),
        })
    }

    pub(in crate::daemon) async fn resend(&self, request: ResendRequest) -> Result<Settled, Refusal> {
        let parts = self.parts()?;
        let routes = parts.routes.borrow().clone();
        let anew = request.channels.is_some();
        let channels: Vec<Route> = match request.channels {
            None => routes.iter().cloned().collect(),
            Some(names) if names.is_empty() => {
                return Err(Refusal::Bad(
                    "`channels` is empty: name one, or leave it out for all".to_owned(),
                ));
            }
            Some(names) => {
                names.iter().map(|name| known(&routes, name).cloned()).collect::<Result<_, _>>()?
            }
        };
        let deliveries = parts.store.resend(request.since, channels, anew, clock::wall()).await?;
        Ok(Settled { deliveries, skipped: 0, skipped_channels: Vec::new() })
    }
}

/// Refuses a run that neither the daemon nor any delivery knows: its id is mistyped.
async fn known_run(store: &SqliteStore, run: &RunId) -> Result<(), Refusal> {
    let about = DeliveryFilter { run: Some(run.clone()), ..DeliveryFilter::default() };
    if store.run(run.clone()).await?.is_none() && store.deliveries(about, 1).await?.is_empty() {
        return Err(Refusal::NotFound(format!("the daemon does not know the run {run}")));
    }
    Ok(())
}

/// The deliveries that a request selects. Never selects everything by mistake.
fn meant(request: RetryRequest) -> Result<DeliveryFilter, Refusal> {
    let RetryRequest { all, id, state, channel, run, since } = request;
    let filter = DeliveryFilter { id, state, channel, run, since };
    if all == (filter == DeliveryFilter::default()) {
        return Ok(filter);
    }
    Err(Refusal::Bad(if all {
        "`all` means every undelivered delivery; leave it out to give conditions".to_owned()
    } else {
        "say which deliveries: {\"id\":7}, {\"channel\":\"…\"}, {\"run\":\"…\"}, or {\"all\":true}".to_owned()
    }))
}
