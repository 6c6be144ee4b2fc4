//! EBS volumes.
//!
//! A listing of EC2 may be older than what was just done. What was made or changed here is therefore remembered for some
//! minutes, and takes part in listings that do not show it yet.

use super::ec2::{bare, filter, from_gib, int, specification, tagged, time, to_gib};
use super::{Aws, code, failed, tags};
use crate::provider::{
    Attachment, DiskFacts, Modification, ModificationState, Performance, ProviderError, VolumeRequest, Volumes,
};
use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, ResourceType, Volume, VolumeAttachmentState, VolumeModificationState, VolumeState, VolumeType as Ec2Type,
};
use graphplane_crds::tier::VolumeType;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Kind of the object that a disk is for.
const KIND: &str = "GraphVolume";
/// The name under which the disk is attached. The machine finds it by its serial number; EC2 wants one nevertheless.
const DEVICE: &str = "/dev/sdf";
/// Listings are as new as this at the worst.
const REMEMBERED: Duration = Duration::from_secs(300);

/// What is remembered of disks between two listings.
#[derive(Default)]
pub(super) struct Memory {
    /// What was made or changed in the last minutes, by name.
    made: Mutex<HashMap<String, (Instant, DiskFacts)>>,
    /// Disks that are nobody's any more, by their identity: a listing may still show them, and a new object of the same
    /// name would take one of them for its own.
    gone: Mutex<HashMap<String, Instant>>,
}

impl Memory {
    fn remember(&self, name: &str, disk: DiskFacts) {
        self.made.lock().insert(name.to_owned(), (Instant::now(), disk));
    }

    /// The disk is nobody's any more.
    pub(super) fn gone(&self, id: &str) {
        self.made.lock().retain(|_, (_, disk)| disk.id != id);
        let mut gone = self.gone.lock();
        gone.retain(|_, at| at.elapsed() < REMEMBERED);
        gone.insert(id.to_owned(), Instant::now());
    }

    fn is_gone(&self, id: &str) -> bool {
        let gone = self.gone.lock();
        gone.get(id).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn get(&self, name: &str) -> Option<DiskFacts> {
        let remembered = self.made.lock();
        let (at, disk) = remembered.get(name)?;
        (at.elapsed() < REMEMBERED).then(|| disk.clone())
    }

    /// Adds to a listing what it does not show yet.
    fn complete(&self, listed: &mut BTreeMap<String, DiskFacts>) {
        let mut remembered = self.made.lock();
        remembered.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        for (name, (_, disk)) in remembered.iter() {
            match listed.get_mut(name) {
                None => drop(listed.insert(name.clone(), disk.clone())),
                Some(shown) if shown.id == disk.id && shown.modification.is_none() => {
                    let behind = shown.size_gib < disk.size_gib || shown.performance != disk.performance;
                    shown.modification = disk.modification.clone().filter(|_| behind);
                }
                Some(_) => {}
            }
        }
    }
}

impl Aws {
    pub(super) async fn list_disks(&self) -> Result<BTreeMap<String, DiskFacts>, ProviderError> {
        let (mut volumes, modifications) = tokio::try_join!(self.volumes(None), self.modifications())?;
        // Of two with one name, the first that was made counts: it is the one with the data.
        volumes.sort_by_key(|volume| (time(volume.create_time()), volume.volume_id().map(str::to_owned)));
        let mut disks = BTreeMap::new();
        for (name, mut disk) in volumes.iter().filter_map(facts) {
            disk.modification = modifications.get(&disk.id).cloned();
            match disks.get(&name) {
                None => drop(disks.insert(name, disk)),
                Some(DiskFacts { id, .. }) => {
                    tracing::warn!(volume = name, id = disk.id, other = id, "two disks have one name");
                }
            }
        }
        self.inner.disks.complete(&mut disks);
        Ok(disks)
    }

    /// Volumes of this cluster; with a name, the one of that GraphVolume.
    async fn volumes(&self, name: Option<&str>) -> Result<Vec<Volume>, ProviderError> {
        let named = name.map(|name| tagged(tags::NAME, [name]));
        let mut found: Vec<Volume> = self
            .inner
            .ec2
            .describe_volumes()
            .set_filters(Some(self.ours(KIND).into_iter().chain(named).collect()))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeVolumes"))?;
        found.retain(|volume| volume.volume_id().is_some_and(|id| !self.inner.disks.is_gone(id)));
        Ok(found)
    }

    /// Things of this cluster that are for a kind.
    pub(super) fn ours(&self, kind: &str) -> Vec<Filter> {
        vec![
            tagged(tags::CLUSTER, [self.inner.cluster_id.as_str()]),
            tagged(tags::KIND, [kind]),
        ]
    }

    /// Modifications that run or failed, by volume. Those that are complete are of no interest: the volume shows what it
    /// became.
    async fn modifications(&self) -> Result<HashMap<String, Modification>, ProviderError> {
        let states = ["modifying", "optimizing", "failed"];
        let listed = self
            .inner
            .ec2
            .describe_volumes_modifications()
            .filters(filter("modification-state", states))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeVolumesModifications"))?;
        let one = |m: &aws_sdk_ec2::types::VolumeModification| {
            let modification = Modification {
                state: modification_state(m.modification_state()),
                started: time(m.start_time())?,
            };
            Some((m.volume_id()?.to_owned(), modification))
        };
        Ok(listed.iter().filter_map(one).collect())
    }

    /// The disk of a GraphVolume as it is now, or as it was made a moment ago.
    async fn disk(&self, name: &str) -> Result<Option<DiskFacts>, ProviderError> {
        let mut found = self.volumes(Some(name)).await?;
        found.sort_by_key(|volume| (time(volume.create_time()), volume.volume_id().map(str::to_owned)));
        let disk = found.iter().find_map(facts).map(|(_, disk)| disk);
        Ok(disk.or_else(|| self.inner.disks.get(name)))
    }

    async fn create(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
        let made = self
            .inner
            .ec2
            .create_volume()
            .availability_zone(&want.zone)
            .size(from_gib(want.size_gib))
            .encrypted(true)
            .volume_type(type_of(want.performance))
            .iops(int(want.performance.iops))
            .set_throughput(throughput(want.performance))
            .set_snapshot_id(want.snapshot.clone())
            .client_token(&want.client_token)
            .tag_specifications(specification(ResourceType::Volume, &want.tags))
            .send()
            .await
            .map_err(failed("CreateVolume"))?;
        let id = made.volume_id().ok_or_else(|| ProviderError::Call {
            call: "CreateVolume",
            message: "the answer names no volume".to_owned(),
        })?;
        let disk = DiskFacts {
            id: id.to_owned(),
            size_gib: Some(want.size_gib),
            databases: None,
            performance: Some(normal(want.performance)),
            attachment: Attachment::Detached,
            modification: None,
            made_for: want.tags.get("uid").cloned(),
        };
        self.inner.disks.remember(&want.name, disk.clone());
        Ok(disk)
    }

    async fn change(&self, want: &VolumeRequest, disk: DiskFacts) -> Result<DiskFacts, ProviderError> {
        let size = disk.size_gib.map_or(want.size_gib, |has| has.max(want.size_gib));
        let performance = Some(normal(want.performance));
        if disk.size_gib == Some(size) && disk.performance == performance {
            return Ok(disk);
        }
        let answer = self
            .inner
            .ec2
            .modify_volume()
            .volume_id(&disk.id)
            .size(from_gib(size))
            .volume_type(type_of(want.performance))
            .iops(int(want.performance.iops))
            .set_throughput(throughput(want.performance))
            .send()
            .await
            .map_err(failed("ModifyVolume"))?;
        let modification = answer.volume_modification();
        let disk = DiskFacts {
            size_gib: Some(size),
            performance,
            modification: Some(Modification {
                state: modification_state(modification.and_then(|m| m.modification_state())),
                started: time(modification.and_then(|m| m.start_time())).unwrap_or_else(Timestamp::now),
            }),
            ..disk
        };
        self.inner.disks.remember(&want.name, disk.clone());
        Ok(disk)
    }
}

#[async_trait]
impl Volumes for Aws {
    async fn ensure_volume(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
        match self.disk(&want.name).await? {
            None => self.create(want).await,
            Some(disk) => self.change(want, disk).await,
        }
    }

    async fn delete_volume(&self, name: &str) -> Result<(), ProviderError> {
        let Some(disk) = self.disk(name).await? else {
            return Ok(());
        };
        if let Some(machine) = machine(&disk.attachment) {
            let why = format!(
                "volume {name} ({}) is attached to {machine}: it is not destroyed",
                disk.id
            );
            return Err(ProviderError::Occupied(why));
        }
        match self.inner.ec2.delete_volume().volume_id(&disk.id).send().await {
            Err(error) if code(&error) != Some("InvalidVolume.NotFound") => Err(failed("DeleteVolume")(error)),
            _ => {
                self.inner.disks.gone(&disk.id);
                Ok(())
            }
        }
    }

    async fn attach_volume(&self, name: &str, to: &str) -> Result<(), ProviderError> {
        let disk = self.disk(name).await?.ok_or_else(|| ProviderError::Call {
            call: "AttachVolume",
            message: format!("volume {name} does not exist"),
        })?;
        match &disk.attachment {
            Attachment::NotNeeded => return Ok(()),
            Attachment::Attached(machine) | Attachment::Attaching(machine) if machine == to => return Ok(()),
            attachment => {
                if let Some(machine) = machine(attachment) {
                    let why = format!("volume {name} ({}) is attached to {machine}", disk.id);
                    return Err(ProviderError::Occupied(why));
                }
            }
        }
        let call = self.inner.ec2.attach_volume().volume_id(&disk.id).instance_id(to);
        match call.device(DEVICE).send().await {
            // Somebody was faster; the next listing tells who.
            Err(error) if code(&error) == Some("VolumeInUse") => {
                let why = format!("volume {name} ({}) is attached to another machine than {to}", disk.id);
                Err(ProviderError::Occupied(why))
            }
            result => result.map(drop).map_err(failed("AttachVolume")),
        }
    }

    async fn detach_volume(&self, name: &str, from: &str, force: bool) -> Result<(), ProviderError> {
        let Some(disk) = self.disk(name).await? else {
            return Ok(());
        };
        if machine(&disk.attachment) != Some(from) || (matches!(disk.attachment, Attachment::Detaching(_)) && !force) {
            return Ok(());
        }
        let call = self.inner.ec2.detach_volume().volume_id(&disk.id).instance_id(from);
        match call.force(force).send().await {
            // The disk was attached to another machine in between.
            Err(error) if code(&error) == Some("InvalidAttachment.NotFound") => Ok(()),
            result => result.map(drop).map_err(failed("DetachVolume")),
        }
    }
}

/// The machine that has something to do with a disk.
fn machine(attachment: &Attachment) -> Option<&str> {
    match attachment {
        Attachment::NotNeeded | Attachment::Detached => None,
        Attachment::Attached(machine) | Attachment::Attaching(machine) | Attachment::Detaching(machine) => {
            Some(machine)
        }
    }
}

/// Name and facts of a volume that exists and belongs to a GraphVolume. One that a deleted GraphVolume left behind, as
/// its policy said, belongs to nobody, whatever is called like it now.
fn facts(volume: &Volume) -> Option<(String, DiskFacts)> {
    if matches!(volume.state(), Some(VolumeState::Deleting | VolumeState::Deleted)) {
        return None;
    }
    let tags = bare(volume.tags());
    if tags.contains_key(tags::RETAINED) {
        return None;
    }
    let disk = DiskFacts {
        id: volume.volume_id()?.to_owned(),
        size_gib: to_gib(volume.size()),
        databases: None,
        performance: performance(volume),
        attachment: attachment(volume),
        modification: None,
        made_for: tags.get("uid").cloned(),
    };
    Some((tags.get("name")?.clone(), disk))
}

pub(super) fn attachment(volume: &Volume) -> Attachment {
    let attached = volume
        .attachments()
        .iter()
        .find(|a| a.state() != Some(&VolumeAttachmentState::Detached));
    let Some((attached, machine)) = attached.and_then(|a| Some((a, a.instance_id()?.to_owned()))) else {
        return Attachment::Detached;
    };
    match attached.state() {
        Some(VolumeAttachmentState::Attaching) => Attachment::Attaching(machine),
        // Busy: it is to be detached, and the machine still uses it.
        Some(VolumeAttachmentState::Detaching | VolumeAttachmentState::Busy) => Attachment::Detaching(machine),
        _ => Attachment::Attached(machine),
    }
}

fn performance(volume: &Volume) -> Option<Performance> {
    let type_ = match volume.volume_type()? {
        Ec2Type::Gp3 => VolumeType::Gp3,
        Ec2Type::Io2 => VolumeType::Io2,
        _ => return None,
    };
    let figure = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
    Some(normal(Performance {
        type_,
        iops: figure(volume.iops())?,
        throughput_mibps: figure(volume.throughput()).unwrap_or_default(),
    }))
}

/// The same figures for the same performance: io2 has no throughput of its own.
fn normal(performance: Performance) -> Performance {
    Performance {
        throughput_mibps: match performance.type_ {
            VolumeType::Gp3 => performance.throughput_mibps,
            VolumeType::Io2 => 0,
        },
        ..performance
    }
}

fn throughput(performance: Performance) -> Option<i32> {
    (performance.type_ == VolumeType::Gp3).then(|| int(performance.throughput_mibps))
}

fn type_of(performance: Performance) -> Ec2Type {
    match performance.type_ {
        VolumeType::Gp3 => Ec2Type::Gp3,
        VolumeType::Io2 => Ec2Type::Io2,
    }
}

fn modification_state(state: Option<&VolumeModificationState>) -> ModificationState {
    match state {
        Some(VolumeModificationState::Completed) => ModificationState::Completed,
        Some(VolumeModificationState::Optimizing) => ModificationState::Optimizing,
        Some(VolumeModificationState::Failed) => ModificationState::Failed,
        // A state that is new to us is one in which nothing else should be begun.
        _ => ModificationState::Modifying,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_sdk_ec2::types::{Tag, VolumeAttachment};
    use graphplane_crds::quantities::GiB;

    fn volume(state: VolumeAttachmentState, tags: &[(&str, &str)]) -> Volume {
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(*value).build());
        Volume::builder()
            .volume_id("vol-1")
            .size(50)
            .volume_type(Ec2Type::Gp3)
            .iops(3000)
            .throughput(125)
            .attachments(VolumeAttachment::builder().instance_id("i-1").state(state).build())
            .set_tags(Some(tags.collect()))
            .build()
    }

    #[test]
    fn what_ec2_lists_is_read() {
        let named = [("graphplane.dev/name", "std-0"), ("Name", "other")];
        let (name, disk) = facts(&volume(VolumeAttachmentState::Busy, &named)).unwrap();
        assert_eq!((name.as_str(), disk.size_gib), ("std-0", Some(GiB(50))));
        assert_eq!(disk.attachment, Attachment::Detaching("i-1".into()));
        assert_eq!(disk.performance, Some(Performance::default()));
        let detached = attachment(&volume(VolumeAttachmentState::Detached, &named));
        assert_eq!(detached, Attachment::Detached);
        let kept = [
            ("graphplane.dev/name", "std-0"),
            ("graphplane.dev/retained", "2026-11-22T00:00:00Z"),
        ];
        assert!(facts(&volume(VolumeAttachmentState::Attached, &kept)).is_none());
    }

    #[test]
    fn a_listing_that_is_behind_is_completed() {
        let memory = Memory::default();
        let (_, disk) = facts(&volume(
            VolumeAttachmentState::Detached,
            &[("graphplane.dev/name", "std-0")],
        ))
        .unwrap();
        memory.remember("std-0", disk.clone());
        let mut listed = BTreeMap::new();
        memory.complete(&mut listed);
        assert_eq!(listed.get("std-0"), Some(&disk), "made a moment ago");
        let modification = Modification {
            state: ModificationState::Modifying,
            started: Timestamp::from_second(9).unwrap(),
        };
        let grown = DiskFacts {
            size_gib: Some(GiB(80)),
            modification: Some(modification.clone()),
            ..disk.clone()
        };
        memory.remember("std-0", grown.clone());
        memory.complete(&mut listed);
        assert_eq!(
            listed["std-0"].modification,
            Some(modification),
            "the size is not there yet"
        );
        listed.insert(
            "std-0".into(),
            DiskFacts {
                modification: None,
                ..grown
            },
        );
        memory.complete(&mut listed);
        assert_eq!(listed["std-0"].modification, None, "it is there");
        assert!(!memory.is_gone("vol-1"));
        memory.gone("vol-1");
        listed.clear();
        memory.complete(&mut listed);
        assert!(listed.is_empty() && memory.is_gone("vol-1") && !memory.is_gone("vol-2"));
    }
}
