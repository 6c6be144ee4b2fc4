//! The seeds that a replica follows, as everybody else sees them.

use super::{SeedSetupError, pointer::SeedVersion};
use crate::objects::BackupStore;
use object_store::path::Path as ObjectPath;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How far a followed seed is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeedState {
    /// Nothing is served, and nothing is on its way.
    #[default]
    Waiting,
    /// Nothing is served; the first seed is on its way.
    Fetching,
    /// A seed is served.
    Ready,
    /// A seed is served, and a newer one is on its way.
    Refreshing,
}

impl SeedState {
    /// Every state, in the order in which they are reached.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Fetching, Self::Ready, Self::Refreshing];

    /// The word in answers and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
        }
    }
}

/// A seed that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedSeed {
    /// Its epoch and number.
    pub at: SeedVersion,
    /// When it was begun (RFC 3339, UTC): what was written later is not in it.
    pub created_at: String,
    /// Size of its files on this node, in bytes; tables of vectors as the tars that they were.
    pub size_bytes: u64,
    /// Nodes of the graph.
    pub node_count: u64,
    /// Relationships of the graph.
    pub relationship_count: u64,
}

impl ServedSeed {
    /// Seconds since it was begun.
    pub fn age_seconds(&self) -> f64 {
        let since = self.created_at.parse::<jiff::Timestamp>().ok();
        let age = since.and_then(|since| Duration::try_from(jiff::Timestamp::now().duration_since(since)).ok());
        age.unwrap_or_default().as_secs_f64()
    }
}

/// What is known of one followed seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedStatus {
    /// The key that is followed.
    pub seed: String,
    /// The graph, once that is known.
    pub graph_id: Option<String>,
    /// How far it is.
    pub state: SeedState,
    /// What is served.
    pub served: Option<ServedSeed>,
    /// What the object store had when it was last asked.
    pub latest: Option<SeedVersion>,
    /// When it was last asked and answered.
    pub checked_at: Option<String>,
    /// Why the newest seed is not served.
    pub error: Option<String>,
}

/// One followed seed: its status, and the wish of callers that it be looked at now.
#[derive(Clone, Debug)]
pub struct Seed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: ObjectPath,
    status: watch::Sender<SeedStatus>,
    /// Looks that were asked for, and the last of them that was answered.
    wanted: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Seed {
    /// The key that is followed.
    pub fn key(&self) -> &ObjectPath {
        &self.0.key
    }

    /// Its present status.
    pub fn status(&self) -> SeedStatus {
        self.0.status.borrow().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut SeedStatus)) {
        self.0.status.send_modify(change);
    }

    pub(super) fn wanted(&self) -> watch::Receiver<u64> {
        self.0.wanted.subscribe()
    }

    pub(super) fn answer(&self, asked: u64) {
        self.0.answered.send_replace(asked);
    }
}

/// All seeds that this agent follows; none on a writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Seeds(Arc<[Seed]>);

impl Seeds {
    /// Seeds below these keys; a key that is given twice is followed once.
    ///
    /// # Errors
    /// When one is not a key.
    pub fn new(keys: &[String]) -> Result<Self, SeedSetupError> {
        let mut seeds: Vec<Seed> = Vec::new();
        for key in keys {
            let key = BackupStore::key(key.trim_end_matches('/'))?;
            if seeds.iter().all(|seed| *seed.key() != key) {
                let status = SeedStatus {
                    seed: key.to_string(),
                    ..SeedStatus::default()
                };
                seeds.push(Seed(Arc::new(Inner {
                    key,
                    status: watch::Sender::new(status),
                    wanted: watch::Sender::new(0),
                    answered: watch::Sender::new(0),
                })));
            }
        }
        Ok(Self(seeds.into()))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Seed> {
        self.0.iter()
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is not served yet.
    pub fn is_warming(&self) -> bool {
        self.iter().any(|seed| seed.0.status.borrow().served.is_none())
    }

    /// The status of each.
    pub fn list(&self) -> Vec<SeedStatus> {
        self.iter().map(Seed::status).collect()
    }

    /// Has every seed looked at now, and waits until that was done, at most for `patience`.
    pub async fn refresh(&self, patience: Duration) {
        let mut asked = Vec::new();
        for seed in self.iter() {
            let mut number = 0;
            seed.0.wanted.send_modify(|wanted| {
                *wanted += 1;
                number = *wanted;
            });
            asked.push((seed.0.answered.subscribe(), number));
        }
        let all = async {
            for (mut answered, number) in asked {
                // Fails only if the seed is gone, and then there is nothing to wait for.
                let _ = answered.wait_for(|answered| *answered >= number).await;
            }
        };
        // Who runs out of patience reads the status as it is.
        let _ = tokio::time::timeout(patience, all).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_look_that_was_asked_for_is_waited_for() {
        let seeds = Seeds::new(&["seeds/kg1/".into(), "seeds/kg1".into(), "seeds/kg2".into()]).unwrap();
        assert_eq!((seeds.list().len(), seeds.is_warming()), (2, true));
        for seed in seeds.iter() {
            let seed = seed.clone();
            // Before anybody asks: a look that was wanted earlier is no change for who comes later.
            let mut wanted = seed.wanted();
            tokio::spawn(async move {
                while wanted.changed().await.is_ok() {
                    let asked = *wanted.borrow_and_update();
                    seed.update(|status| status.state = SeedState::Ready);
                    seed.answer(asked);
                }
            });
        }
        seeds.refresh(Duration::from_secs(60)).await;
        assert!(seeds.list().iter().all(|status| status.state == SeedState::Ready));
        Seeds::new(&["../x".into()]).unwrap_err();
    }
}
