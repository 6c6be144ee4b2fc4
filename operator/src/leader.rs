//! Of several operators, one acts.
//!
//! The holder of a Lease renews it every third of its duration and stops acting after two thirds without success, so that
//! it has stopped before the Lease is over and somebody else begins. A Lease alone does not stop a write that is under
//! way; what must not happen twice is guarded by resource versions and epochs on top.

use crate::error::Error;
use crate::events::NAME;
use crate::settings::LeaderElection;
use graphplane_crds::SYSTEM_NAMESPACE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A candidate, and the holder once [`acquire`](Self::acquire) has returned.
pub(crate) struct Leader {
    api: Api<Lease>,
    settings: LeaderElection,
}

/// What an attempt found.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    /// Somebody else holds it, for so long at most.
    Taken(Duration),
}

impl Leader {
    pub(crate) fn new(client: Client, settings: LeaderElection) -> Self {
        Self {
            api: Api::namespaced(client, SYSTEM_NAMESPACE),
            settings,
        }
    }

    fn renew_every(&self) -> Duration {
        self.settings.duration / 3
    }

    /// Waits until this operator holds the Lease; false when `stop` came first.
    pub(crate) async fn acquire(&self, stop: &CancellationToken) -> bool {
        let mut told = false;
        loop {
            let wait = match self.attempt(Timestamp::now()).await {
                Ok(Attempt::Held) => return true,
                Ok(Attempt::Taken(left)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(lease = self.settings.lease, "another operator acts; this one waits");
                    }
                    left.clamp(Duration::from_millis(100), self.renew_every())
                }
                Err(error) => {
                    tracing::warn!(%error, "the leader's lease cannot be taken");
                    self.renew_every()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews the Lease until `stop`, or until it could not be renewed for too long.
    ///
    /// # Errors
    /// [`Error::LostLeadership`].
    pub(crate) async fn keep(&self, stop: &CancellationToken) -> Result<(), Error> {
        let mut held = Instant::now();
        let patience = self.settings.duration * 2 / 3;
        loop {
            let left = patience.saturating_sub(held.elapsed());
            tokio::select! {
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
                () = tokio::time::sleep(self.renew_every().min(left)) => {}
            }
            let asked = Instant::now();
            // A request that hangs must not keep this operator acting.
            let left = patience.saturating_sub(held.elapsed());
            match tokio::time::timeout(left, self.attempt(Timestamp::now())).await {
                Ok(Ok(Attempt::Held)) => held = asked,
                Ok(Ok(Attempt::Taken(_))) => return Err(Error::LostLeadership),
                Ok(Err(error)) => tracing::warn!(%error, "the leader's lease cannot be renewed"),
                Err(_) => tracing::warn!("renewing the leader's lease took too long"),
            }
            if held.elapsed() >= patience {
                return Err(Error::LostLeadership);
            }
        }
    }

    async fn attempt(&self, now: Timestamp) -> Result<Attempt, kube::Error> {
        let existing = self.api.get_opt(&self.settings.lease).await?;
        let mut lease = existing.clone().unwrap_or_default();
        lease.metadata.name = Some(self.settings.lease.clone());
        let spec = lease.spec.get_or_insert_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.settings.identity);
        if let Some(left) = remaining(spec, now).filter(|_| !ours) {
            return Ok(Attempt::Taken(left));
        }
        if !ours {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(MicroTime(now));
        }
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.settings.duration.as_secs().max(1)).ok();
        spec.renew_time = Some(MicroTime(now));
        let params = PostParams {
            field_manager: Some(NAME.to_owned()),
            ..PostParams::default()
        };
        // Both fail when somebody else was faster: creation by the name, replacement by the resource version.
        let written = match existing {
            None => self.api.create(&params, &lease).await,
            Some(_) => self.api.replace(&self.settings.lease, &params, &lease).await,
        };
        match written {
            Ok(_) => Ok(Attempt::Held),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Attempt::Taken(Duration::ZERO))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that the next operator need not wait for its end.
    async fn release(&self) {
        let given_back = async {
            let Some(mut lease) = self.api.get_opt(&self.settings.lease).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.renew_time = None;
            self.api
                .replace(&self.settings.lease, &PostParams::default(), &lease)
                .await
                .map(|_| ())
        };
        if let Err(error) = given_back.await {
            let error: kube::Error = error;
            tracing::debug!(%error, "the leader's lease was not given back; it ends by itself");
        }
    }
}

/// How long the holder of a Lease still has; `None` when nobody holds it.
fn remaining(spec: &LeaseSpec, now: Timestamp) -> Option<Duration> {
    spec.holder_identity.as_ref().filter(|h| !h.is_empty())?;
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    let end = spec
        .renew_time
        .as_ref()?
        .0
        .checked_add(SignedDuration::from_secs(seconds))
        .ok()?;
    Duration::try_from(end.duration_since(now))
        .ok()
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lease_is_free_when_it_is_over_or_given_back() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let held = LeaseSpec {
            holder_identity: Some("a".into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(at(100))),
            ..LeaseSpec::default()
        };
        assert_eq!(remaining(&held, at(110)), Some(Duration::from_secs(5)));
        assert_eq!(remaining(&held, at(115)), None);
        assert_eq!(
            remaining(
                &LeaseSpec {
                    holder_identity: None,
                    ..held.clone()
                },
                at(110)
            ),
            None
        );
        assert_eq!(
            remaining(
                &LeaseSpec {
                    renew_time: None,
                    ..held
                },
                at(110)
            ),
            None
        );
    }
}
