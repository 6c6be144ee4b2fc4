//! EBS snapshots.
//!
//! CreateSnapshot takes no client token, so the token is a tag: a snapshot that has it is the one that is asked for.

use super::ec2::{bare, specification, tagged, time, to_gib};
use super::{Aws, code, failed, tags};
use crate::provider::ProviderError;
use crate::provider::snapshots::{SnapshotFacts, SnapshotRequest, SnapshotState, Snapshots};
use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, ResourceType, Snapshot, SnapshotState as Ec2State};
use graphplane_crds::quantities::GiB;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Listings are as new as this at the worst.
const REMEMBERED: Duration = Duration::from_secs(300);

/// What was made in the last minutes, by token: a listing may not show it yet.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<String, (Instant, SnapshotFacts)>>);

impl Memory {
    fn remember(&self, made: &SnapshotFacts) {
        self.0.lock().insert(made.token.clone(), (Instant::now(), made.clone()));
    }

    fn forget(&self, id: &str) {
        self.0.lock().retain(|_, (_, made)| made.id != id);
    }

    fn get(&self, token: &str) -> Option<SnapshotFacts> {
        let remembered = self.0.lock();
        let (at, made) = remembered.get(token)?;
        (at.elapsed() < REMEMBERED).then(|| made.clone())
    }

    /// Adds to a listing what it does not show yet.
    fn complete(&self, listed: &mut Vec<SnapshotFacts>) {
        let mut remembered = self.0.lock();
        remembered.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        for (_, made) in remembered.values() {
            if !listed.iter().any(|shown| shown.id == made.id) {
                listed.push(made.clone());
            }
        }
    }
}

impl Aws {
    pub(super) async fn list_snapshots(&self) -> Result<Vec<SnapshotFacts>, ProviderError> {
        let mut listed = self.snapshots_with(None).await?;
        self.inner.snapshots.complete(&mut listed);
        Ok(listed)
    }

    /// Snapshots of this cluster, the oldest first; those of other accounts that use our tags are none of ours.
    async fn snapshots_with(&self, also: Option<Filter>) -> Result<Vec<SnapshotFacts>, ProviderError> {
        let cluster = tagged(tags::CLUSTER, [self.inner.cluster_id.as_str()]);
        let listed = self
            .inner
            .ec2
            .describe_snapshots()
            .owner_ids("self")
            .set_filters(Some([cluster].into_iter().chain(also).collect()))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeSnapshots"))?;
        let mut found: Vec<SnapshotFacts> = listed.iter().filter_map(facts).collect();
        found.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
        Ok(found)
    }
}

#[async_trait]
impl Snapshots for Aws {
    async fn ensure_snapshot(&self, want: &SnapshotRequest) -> Result<SnapshotFacts, ProviderError> {
        if let Some(made) = self.inner.snapshots.get(&want.token) {
            return Ok(made);
        }
        let found = self
            .snapshots_with(Some(tagged(tags::TOKEN, [want.token.as_str()])))
            .await?;
        if let Some(made) = found.into_iter().next() {
            return Ok(made);
        }
        let mut with_token = want.tags.clone();
        with_token.insert("token".to_owned(), want.token.clone());
        with_token.insert("volume".to_owned(), want.volume.clone());
        let made = self
            .inner
            .ec2
            .create_snapshot()
            .volume_id(&want.disk)
            .description(format!("Graphplane volume {}", want.volume))
            .tag_specifications(specification(ResourceType::Snapshot, &with_token))
            .send()
            .await
            .map_err(failed("CreateSnapshot"))?;
        let id = made.snapshot_id().ok_or_else(|| ProviderError::Call {
            call: "CreateSnapshot",
            message: "the answer names no snapshot".to_owned(),
        })?;
        let made = SnapshotFacts {
            id: id.to_owned(),
            token: want.token.clone(),
            disk: want.disk.clone(),
            size_gib: to_gib(made.volume_size()).unwrap_or_default(),
            started: time(made.start_time()).unwrap_or_else(Timestamp::now),
            state: SnapshotState::Pending(0),
            tags: with_token,
        };
        self.inner.snapshots.remember(&made);
        Ok(made)
    }

    async fn delete_snapshot(&self, id: &str) -> Result<(), ProviderError> {
        match self.inner.ec2.delete_snapshot().snapshot_id(id).send().await {
            Err(error) if code(&error) != Some("InvalidSnapshot.NotFound") => Err(failed("DeleteSnapshot")(error)),
            _ => {
                self.inner.snapshots.forget(id);
                Ok(())
            }
        }
    }
}

fn facts(snapshot: &Snapshot) -> Option<SnapshotFacts> {
    let tags = bare(snapshot.tags());
    Some(SnapshotFacts {
        id: snapshot.snapshot_id()?.to_owned(),
        token: tags.get("token").cloned().unwrap_or_default(),
        disk: snapshot.volume_id().unwrap_or_default().to_owned(),
        size_gib: to_gib(snapshot.volume_size()).unwrap_or(GiB(0)),
        started: time(snapshot.start_time())?,
        state: match snapshot.state() {
            Some(Ec2State::Completed) => SnapshotState::Complete,
            Some(Ec2State::Error) => SnapshotState::Failed,
            _ => SnapshotState::Pending(percent(snapshot.progress())),
        },
        tags,
    })
}

/// `37%`, as EC2 writes it.
fn percent(progress: Option<&str>) -> u8 {
    let number = progress.and_then(|text| text.trim_end_matches('%').parse().ok());
    number.unwrap_or(0).min(100)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_sdk_ec2::types::Tag;
    use aws_smithy_types::DateTime;

    #[test]
    fn what_ec2_lists_is_read() {
        let listed = |state: Ec2State| {
            let tag = Tag::builder().key("graphplane.dev/token").value("t1").build();
            let snapshot = Snapshot::builder()
                .snapshot_id("snap-1")
                .volume_id("vol-1")
                .volume_size(50)
                .start_time(DateTime::from_secs(9))
                .progress("37%")
                .state(state)
                .tags(tag);
            facts(&snapshot.build()).unwrap()
        };
        let pending = listed(Ec2State::Pending);
        assert_eq!(
            (pending.token.as_str(), pending.state),
            ("t1", SnapshotState::Pending(37))
        );
        assert_eq!(listed(Ec2State::Completed).state, SnapshotState::Complete);
        assert_eq!(listed(Ec2State::Error).state, SnapshotState::Failed);
        assert!(facts(&Snapshot::builder().snapshot_id("snap-1").build()).is_none());
    }

    #[test]
    fn a_listing_that_is_behind_is_completed() {
        let memory = Memory::default();
        let made = SnapshotFacts {
            id: "snap-1".into(),
            token: "t1".into(),
            disk: "vol-1".into(),
            size_gib: GiB(50),
            started: Timestamp::from_second(9).unwrap(),
            state: SnapshotState::Pending(0),
            tags: Default::default(),
        };
        memory.remember(&made);
        let complete = SnapshotFacts {
            state: SnapshotState::Complete,
            ..made.clone()
        };
        let mut listed = vec![complete.clone()];
        memory.complete(&mut listed);
        assert_eq!(listed, [complete], "what is listed is newer");
        listed.clear();
        memory.complete(&mut listed);
        assert_eq!(listed, [made]);
        memory.forget("snap-1");
        assert!(memory.get("t1").is_none());
    }
}
