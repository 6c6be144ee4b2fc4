//! The loop that registers the agent, renews its lease, and applies what the answers say.

use super::{
    client::{CallError, ControlPlane, LeaseRequest, RegisterRequest},
    files::{FileError, Identity, VolumeFiles},
    lease::{Grant, Outcome, State},
    metadata::{Metadata, MetadataError},
    standing::Standing,
};
use crate::config::{ConfigError, IdentitySource, NodeConfig, Settings};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the loop needs from the agent: facts to report, and places to put what the control plane says.
pub trait Host: Send + Sync + 'static {
    /// Body of a registration.
    fn register_request(&self, config: &NodeConfig, volume_epoch: u64) -> RegisterRequest;
    /// Body of a renewal.
    fn lease_request(&self, epoch: u64, fenced: bool) -> LeaseRequest;
    /// Figures of the tier have arrived; they may be the same as before.
    fn apply_settings(&self, settings: &Settings);
    /// The role of this node and the key of its callers have arrived.
    fn apply_identity(&self, role: Option<&str>, api_key: &str, config: &NodeConfig);
    /// The control plane wants this node to take no new writes.
    fn drain(&self);
}

/// Where the loop finds its things.
#[derive(Clone)]
pub struct Follower {
    /// File of `--config`.
    pub config: PathBuf,
    /// Files of the volume.
    pub files: VolumeFiles,
    /// The agent's standing, which this loop alone changes.
    pub standing: Standing,
    /// The agent.
    pub host: Arc<dyn Host>,
    /// Client of the control plane.
    pub control_plane: ControlPlane,
    /// Where the machine's proof comes from, if the configuration says that it has one.
    pub metadata: Metadata,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("the control plane names epoch {answered}, but this volume has seen epoch {volume}; refused")]
    StaleEpoch { answered: u64, volume: u64 },
    #[error("the answer took longer than the lease that it grants")]
    TooLate,
    #[error("the agent has neither a credential nor a bootstrap token for node {0}; give it a new one")]
    NoToken(String),
}

struct Session {
    /// As it is on the volume.
    identity: Identity,
    renew_every: Duration,
}

/// Registers, renews, and starts over when told to, until `stop`. Never gives up: attempts that fail are repeated with a
/// pause that doubles from 200 ms to 5 s, with jitter.
pub async fn follow(follower: Follower, stop: CancellationToken) {
    let mut session: Option<Session> = None;
    let mut failures: u32 = 0;
    loop {
        let before = follower.standing.state();
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = follower.step(&mut session) => result,
        };
        let pause = match result {
            Ok(pause) => {
                failures = 0;
                jitter(pause)
            }
            Err(trouble) => {
                failures = failures.saturating_add(1);
                // The first failure and then every tenth: a control plane that is away for an hour must not fill a disk.
                if failures == 1 || failures.is_multiple_of(10) {
                    tracing::warn!(operation = "lease", attempt = failures, error = %trouble, "no lease from the control plane");
                }
                jitter(backoff(failures))
            }
        };
        log_change(before, follower.standing.state());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Follower {
    async fn step(&self, session: &mut Option<Session>) -> Result<Duration, Trouble> {
        // Read on every attempt: the control plane's port changes when it restarts, and the provider then rewrites it.
        let config = {
            let path = self.config.clone();
            tokio::task::spawn_blocking(move || NodeConfig::read(&path))
                .await
                .unwrap_or_else(|error| {
                    Err(ConfigError::Read {
                        path: self.config.clone(),
                        source: std::io::Error::other(error),
                    })
                })?
        };
        match session {
            Some(current) if current.identity.node == config.node => match self.renew(&config, current).await {
                Ok(pause) => Ok(pause),
                Err(trouble) => {
                    match &trouble {
                        Trouble::Call(CallError::Conflict(_)) => {
                            self.standing.refused();
                            *session = None;
                        }
                        Trouble::Call(CallError::UnknownNode(_) | CallError::Unauthorized(_))
                        | Trouble::StaleEpoch { .. } => *session = None,
                        _ => {}
                    }
                    Err(trouble)
                }
            },
            _ => {
                let registered = self.register(&config).await?;
                let pause = registered.renew_every;
                *session = Some(registered);
                Ok(pause)
            }
        }
    }

    async fn register(&self, config: &NodeConfig) -> Result<Session, Trouble> {
        let known = self.files.identity(&config.node);
        let tokens: Vec<String> = known
            .iter()
            .flat_map(|identity| [identity.offered.clone(), Some(identity.credential.clone())])
            .flatten()
            .chain(Some(config.bootstrap_token.clone()))
            .filter(|token| !token.is_empty())
            .collect();
        // Read anew: it changes when a machine is stopped and started.
        let proof = match config.identity {
            Some(IdentitySource::Aws) => Some(self.metadata.identity().await?),
            None => None,
        };
        let mut last = Trouble::NoToken(config.node.clone());
        for token in tokens {
            let request = RegisterRequest {
                identity: proof.clone(),
                ..self.host.register_request(config, self.standing.volume_epoch())
            };
            let sent = self.standing.now();
            let answer = match self
                .control_plane
                .register(&config.control_plane, &token, &request)
                .await
            {
                Ok(answer) => answer,
                Err(refused @ CallError::Unauthorized(_)) => {
                    last = refused.into();
                    continue;
                }
                Err(refused @ CallError::Conflict(_)) => {
                    self.standing.refused();
                    return Err(refused.into());
                }
                Err(error) => return Err(error.into()),
            };
            if !self.standing.accepts_epoch(answer.epoch) {
                self.standing.refused();
                return Err(Trouble::StaleEpoch {
                    answered: answer.epoch,
                    volume: self.standing.volume_epoch(),
                });
            }
            let credential = answer.credential.unwrap_or(token);
            self.host
                .apply_identity(answer.role.as_deref(), &answer.api_key, config);
            if let Some(settings) = &answer.settings {
                self.host.apply_settings(settings);
            }
            // The epoch is on the volume before the first write under it, and the credential before it is needed again:
            // the one-time token is spent by now. What is there already is not written again, since requests wait.
            let (epoch, before) = (answer.epoch, self.standing.volume_epoch());
            let identity = Identity {
                node: config.node.clone(),
                credential,
                offered: None,
                api_key: answer.api_key,
                epoch,
            };
            let written = (known.as_ref() != Some(&identity)).then(|| identity.clone());
            self.write(move |files| {
                if let Some(identity) = written {
                    files.write_identity(&identity)?;
                }
                if epoch == before {
                    Ok(())
                } else {
                    files.write_epoch(epoch)
                }
            })
            .await?;
            let lease = Duration::from_secs(answer.lease_duration_seconds);
            return match self.standing.registered(Grant { epoch, sent, lease }) {
                Outcome::Held => Ok(Session {
                    identity,
                    renew_every: renew_pause(answer.renew_interval_seconds, answer.lease_duration_seconds),
                }),
                Outcome::TooLate => Err(Trouble::TooLate),
                Outcome::WrongEpoch => Err(Trouble::StaleEpoch {
                    answered: epoch,
                    volume: self.standing.volume_epoch(),
                }),
            };
        }
        Err(last)
    }

    async fn renew(&self, config: &NodeConfig, session: &mut Session) -> Result<Duration, Trouble> {
        let fenced = matches!(self.standing.state(), State::Fenced { .. });
        // Looks at files, so it is not for a thread that serves requests.
        let (host, epoch) = (Arc::clone(&self.host), session.identity.epoch);
        let request = tokio::task::spawn_blocking(move || host.lease_request(epoch, fenced))
            .await
            .map_err(|error| CallError::Transport(error.to_string()))?;
        let sent = self.standing.now();
        let Identity {
            node,
            credential,
            offered,
            ..
        } = &session.identity;
        let token = offered.as_ref().unwrap_or(credential);
        let answer = self
            .control_plane
            .renew(&config.control_plane, node, token, &request)
            .await?;
        if answer.draining {
            self.host.drain();
        }
        if let Some(settings) = &answer.settings {
            self.host.apply_settings(settings);
        }
        let lease = Duration::from_secs(answer.lease_duration_seconds);
        session.renew_every = renew_pause(answer.renew_interval_seconds, answer.lease_duration_seconds);
        match self.standing.renewed(Grant {
            epoch: answer.epoch,
            sent,
            lease,
        }) {
            Outcome::Held => {
                self.keep(session, answer.credential).await?;
                Ok(session.renew_every)
            }
            Outcome::TooLate => Err(Trouble::TooLate),
            Outcome::WrongEpoch => Err(Trouble::StaleEpoch {
                answered: answer.epoch,
                volume: self.standing.volume_epoch(),
            }),
        }
    }

    /// Notes what a renewal that was accepted says of credentials: the one that was offered before is in use now, and perhaps
    /// there is a new offer. What is not on the volume is not used, so that a crash at any moment leaves a good one there.
    async fn keep(&self, session: &mut Session, offered: Option<String>) -> Result<(), FileError> {
        let mut identity = session.identity.clone();
        if let Some(used) = identity.offered.take() {
            identity.credential = used;
        }
        identity.offered = offered.filter(|token| !token.is_empty());
        if identity == session.identity {
            return Ok(());
        }
        let written = identity.clone();
        self.write(move |files| files.write_identity(&written)).await?;
        session.identity = identity;
        Ok(())
    }

    async fn write(
        &self,
        write: impl FnOnce(&VolumeFiles) -> Result<(), FileError> + Send + 'static,
    ) -> Result<(), FileError> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || write(&files))
            .await
            .unwrap_or_else(|error| {
                Err(FileError::Io {
                    action: "write",
                    path: self.config.clone(),
                    source: std::io::Error::other(error),
                })
            })
    }
}

/// The pause between renewals: what the control plane says, but always early enough for two more attempts.
fn renew_pause(interval_seconds: u64, lease_seconds: u64) -> Duration {
    let interval = Duration::from_secs(interval_seconds.max(1));
    interval
        .min(Duration::from_secs(lease_seconds) / 3)
        .max(Duration::from_millis(100))
}

fn backoff(failures: u32) -> Duration {
    let doubled = Duration::from_millis(200).saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(Duration::from_secs(5))
}

// Half to all of the pause, never more: a renewal that comes late by jitter would eat into the lease.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

fn log_change(before: State, after: State) {
    if before.name() == after.name() {
        return;
    }
    match after {
        State::Active { epoch, .. } => {
            tracing::info!(operation = "lease", epoch, from = before.name(), "writes allowed")
        }
        State::Fenced { epoch } => tracing::warn!(
            operation = "lease",
            epoch,
            from = before.name(),
            "fenced: writes refused"
        ),
        other => tracing::info!(
            operation = "lease",
            state = other.name(),
            from = before.name(),
            "standing changed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_within_bounds() {
        assert_eq!(backoff(1), Duration::from_millis(200));
        assert_eq!(backoff(3), Duration::from_millis(800));
        assert_eq!(backoff(u32::MAX), Duration::from_secs(5));
        assert_eq!(renew_pause(5, 15), Duration::from_secs(5));
        assert_eq!(
            renew_pause(60, 15),
            Duration::from_secs(5),
            "an interval longer than the lease would fence the agent"
        );
        for _ in 0..200 {
            let pause = jitter(Duration::from_secs(4));
            assert!(pause >= Duration::from_secs(2) && pause <= Duration::from_secs(4));
        }
    }
}
