//! Everything on AWS that carries the cluster's identity, whoever it is for.
//!
//! A root disk and what a stack made carry the cluster's tag without the kind of an object: they come and go with their
//! machine or stack, and are left to these.

use super::ec2::{bare, filter, tagged, time};
use super::{Aws, code, disks, failed, tags};
use crate::provider::inventory::Inventory;
use crate::provider::snapshots::{SnapshotState, Snapshots};
use crate::provider::stacks::Stacks;
use crate::provider::{Attachment, ProviderError};
use async_trait::async_trait;
use aws_sdk_ec2::types::{InstanceStateName, Tag, VolumeState};
use graphplane_core::orphans::{Kind, Thing};
use jiff::Timestamp;
use std::collections::BTreeMap;

impl Aws {
    async fn machines_of_anybody(&self) -> Result<Vec<Thing>, ProviderError> {
        let alive = ["pending", "running", "stopping", "stopped"];
        let reservations = self
            .inner
            .ec2
            .describe_instances()
            .filters(tagged(tags::CLUSTER, [self.inner.cluster_id.as_str()]))
            .filters(filter("instance-state-name", alive))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeInstances"))?;
        let things = reservations.iter().flat_map(|r| r.instances()).filter_map(|i| {
            let state = i.state().and_then(|s| s.name());
            Some(Thing {
                busy: matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Stopping)),
                ..thing(Kind::Instance, i.instance_id()?, time(i.launch_time())?, bare(i.tags()))
            })
        });
        Ok(things.collect())
    }

    async fn disks_of_anybody(&self) -> Result<Vec<Thing>, ProviderError> {
        let volumes = self
            .inner
            .ec2
            .describe_volumes()
            .filters(tagged(tags::CLUSTER, [self.inner.cluster_id.as_str()]))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeVolumes"))?;
        let things = volumes.iter().filter_map(|v| {
            let detached = disks::attachment(v) == Attachment::Detached;
            Some(Thing {
                busy: !detached || v.state() != Some(&VolumeState::Available),
                ..thing(Kind::Volume, v.volume_id()?, time(v.create_time())?, bare(v.tags()))
            })
        });
        Ok(things.collect())
    }

    async fn snapshots_of_anybody(&self) -> Result<Vec<Thing>, ProviderError> {
        let listed = self.list_snapshots().await?;
        let things = listed.into_iter().map(|s| Thing {
            busy: matches!(s.state, SnapshotState::Pending(_)),
            disk: Some(s.disk),
            complete: s.state == SnapshotState::Complete,
            ..thing(Kind::Snapshot, &s.id, s.started, s.tags)
        });
        Ok(things.collect())
    }

    async fn stacks_of_anybody(&self) -> Result<Vec<Thing>, ProviderError> {
        let stacks = self
            .inner
            .cloudformation
            .client()
            .describe_stacks()
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeStacks"))?;
        let things = stacks.iter().filter_map(|s| {
            let tags = tags::bare(s.tags().iter().filter_map(|t| Some((t.key()?, t.value()?))));
            let ours = tags.get("cluster") == Some(&self.inner.cluster_id);
            // What is part of another stack goes with it.
            (ours && s.root_id().is_none()).then_some(())?;
            Some(Thing {
                busy: s.stack_status().is_none_or(|s| s.as_str().ends_with("_IN_PROGRESS")),
                ..thing(Kind::Stack, s.stack_name()?, time(s.creation_time())?, tags)
            })
        });
        Ok(things.collect())
    }
}

fn thing(kind: Kind, id: &str, created: Timestamp, tags: BTreeMap<String, String>) -> Thing {
    Thing {
        kind,
        id: id.to_owned(),
        created,
        busy: false,
        tags,
        disk: None,
        complete: false,
    }
}

#[async_trait]
impl Inventory for Aws {
    async fn things(&self) -> Result<Vec<Thing>, ProviderError> {
        let (machines, disks, snapshots, stacks) = tokio::try_join!(
            self.machines_of_anybody(),
            self.disks_of_anybody(),
            self.snapshots_of_anybody(),
            self.stacks_of_anybody(),
        )?;
        let mut all: Vec<Thing> = [machines, disks, snapshots, stacks].into_iter().flatten().collect();
        all.retain(|thing| thing.tags.contains_key("kind"));
        Ok(all)
    }

    async fn keep_disk(&self, id: &str) -> Result<(), ProviderError> {
        let since = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let tag = Tag::builder()
            .key(format!("{}{}", tags::PREFIX, tags::RETAINED))
            .value(since);
        let call = self.inner.ec2.create_tags().resources(id).tags(tag.build());
        call.send().await.map(drop).map_err(failed("CreateTags"))?;
        self.inner.disks.gone(id);
        Ok(())
    }

    async fn remove(&self, thing: &Thing) -> Result<(), ProviderError> {
        let ec2 = &self.inner.ec2;
        match thing.kind {
            Kind::Instance => match ec2.terminate_instances().instance_ids(&thing.id).send().await {
                Err(error) if code(&error) != Some("InvalidInstanceID.NotFound") => {
                    Err(failed("TerminateInstances")(error))
                }
                _ => Ok(()),
            },
            Kind::Volume => match ec2.delete_volume().volume_id(&thing.id).send().await {
                Err(error) if code(&error) != Some("InvalidVolume.NotFound") => Err(failed("DeleteVolume")(error)),
                _ => {
                    self.inner.disks.gone(&thing.id);
                    Ok(())
                }
            },
            Kind::Snapshot => self.delete_snapshot(&thing.id).await,
            Kind::Stack => self.inner.cloudformation.delete(&thing.id).await,
        }
    }
}
