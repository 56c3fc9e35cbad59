//! `deliveries`: list what was delivered or not, retry it, send it once more.
//!
//! The outbox does all of it; this checks the channels that are named.

use crate::clock;
use crate::control::{Deliveries, ResendRequest, Settled};
use crate::daemon::handle::{Handle, Refusal, known};
use crate::store::{DeliveryFilter, Route};

impl Handle {
    pub(in crate::daemon) async fn deliveries(
        &self,
        filter: DeliveryFilter,
        limit: u32,
    ) -> Result<Deliveries, Refusal> {
        Ok(Deliveries { deliveries: self.parts()?.store.deliveries(filter, limit).await? })
    }

    pub(in crate::daemon) async fn retry(&self, filter: DeliveryFilter) -> Result<Settled, Refusal> {
        Ok(Settled { deliveries: self.parts()?.store.retry(filter, clock::wall()).await? })
    }

    pub(in crate::daemon) async fn resend(&self, request: ResendRequest) -> Result<Settled, Refusal> {
        let parts = self.parts()?;
        let routes = parts.routes.borrow().clone();
        let anew = request.channels.is_some();
        let channels: Vec<Route> = match request.channels {
            None => routes.iter().cloned().collect(),
            Some(names) => {
                names.iter().map(|name| known(&routes, name).cloned()).collect::<Result<_, _>>()?
            }
        };
        let deliveries = parts.store.resend(request.since, channels, anew, clock::wall()).await?;
        Ok(Settled { deliveries })
    }
}
