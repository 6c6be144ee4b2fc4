//! The life of a disk: make it, watch what is on it, never destroy data.

use crate::graph_plan::{annotation_is_true, paused_by};
use crate::plan::{self, Plan, Verdict};
use crate::resources::mib;
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::graph::DeletionPolicy;
use graphplane_crds::quantities::{GiB, MiB};
use graphplane_crds::volume::{GraphVolume, VolumeState};
use jiff::Timestamp;

/// What the plan looks at beside the GraphVolume itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What the provider has.
    pub disk: Option<Disk>,
    /// Databases on it: what the provider found on the disk, else what the agent said, else what was known before; and
    /// those of graphs that are placed on it.
    pub databases: Vec<String>,
    /// GraphNodes that name it, and do not let it go.
    pub nodes: Vec<String>,
    /// Disk that graphs on it reserve.
    pub reserved: MiB,
}

/// A disk at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Identity at the provider.
    pub id: String,
    /// Its size, where the provider knows sizes.
    pub size_gib: Option<GiB>,
}

/// What can be done for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the disk, or make it larger.
    EnsureDisk,
    /// Raise `spec.sizeGiB`: graphs on it reserve more than it has.
    RaiseSize(GiB),
    /// Destroy the disk, which holds no database.
    DeleteDisk,
    /// Let the object go.
    RemoveFinalizer,
}

/// Plans the next steps for `volume`.
pub fn plan(volume: &GraphVolume, seen: &Observed, _now: Timestamp) -> Plan<Action, Option<VolumeState>> {
    if volume.metadata.deletion_timestamp.is_some() {
        return ending(volume, seen);
    }
    let status = volume.status.clone().unwrap_or_default();
    if let Some(by) = paused_by(&volume.metadata, false) {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: status.state,
            requeue: None,
        };
    }
    let (verdict, actions, state) = living(volume, seen);
    let mut says = verdict.says();
    says.extend([plan::paused(None), plan::not_deleting()]);
    Plan {
        actions,
        says,
        phase: Some(state),
        requeue: None,
    }
}

fn living(volume: &GraphVolume, seen: &Observed) -> (Verdict, Vec<Action>, VolumeState) {
    let status = volume.status.clone().unwrap_or_default();
    let Some(disk) = &seen.disk else {
        if let Some(id) = &status.volume_id {
            // An empty one in its place would look like the old one that lost everything.
            let message = format!(
                "the provider no longer has {id}: restore it, or delete this volume and restore its graphs from backups"
            );
            return (
                Verdict::Stalled(reasons::VOLUME_LOST, message),
                vec![],
                VolumeState::Error,
            );
        }
        let verdict = Verdict::Progressing(reasons::CREATING, "the disk is made".into());
        return (verdict, vec![Action::EnsureDisk], VolumeState::Creating);
    };
    let state = if status.attached_to.is_some() {
        VolumeState::InUse
    } else {
        VolumeState::Available
    };
    if disk.size_gib.is_some_and(|size| size < volume.spec.size_gib) {
        let message = format!("grows to {} GiB", volume.spec.size_gib.0);
        return (
            Verdict::ReadyAndProgressing(reasons::RECONCILING, message),
            vec![Action::EnsureDisk],
            VolumeState::Modifying,
        );
    }
    let most = volume
        .spec
        .autogrow
        .as_ref()
        .map_or(volume.spec.size_gib, |grow| grow.max_gib);
    let wanted = GiB::ceil(seen.reserved.bytes());
    if wanted > volume.spec.size_gib && volume.spec.size_gib < most {
        let to = wanted.min(most);
        let message = format!("graphs on it reserve {} GiB", wanted.0);
        return (
            Verdict::ReadyAndProgressing(reasons::RECONCILING, message),
            vec![Action::RaiseSize(to)],
            state,
        );
    }
    if volume.spec.snapshots.is_some() {
        let message =
            "spec.snapshots: this version takes no scheduled snapshots; leave it out and create Backup objects";
        return (
            Verdict::ReadyButStalled(reasons::NOT_SUPPORTED, message.into()),
            vec![],
            state,
        );
    }
    let message = match seen.reserved > mib(volume.spec.size_gib) {
        true => format!("graphs on it reserve {} GiB, more than it has", wanted.0),
        false => String::new(),
    };
    (Verdict::Ready(message), vec![], state)
}

fn ending(volume: &GraphVolume, seen: &Observed) -> Plan<Action, Option<VolumeState>> {
    let status = volume.status.clone().unwrap_or_default();
    let paused = paused_by(&volume.metadata, false);
    let (reason, message, actions) = if annotation_is_true(&volume.metadata, DELETION_PROTECTION) {
        (
            reasons::DELETION_PROTECTED,
            format!("annotation {DELETION_PROTECTION} is set: remove it to delete"),
            vec![],
        )
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"), vec![])
    } else if !seen.nodes.is_empty() {
        (
            reasons::WAITING_FOR_DEPENDENTS,
            format!("waits for nodes {} to let it go", seen.nodes.join(", ")),
            vec![],
        )
    } else if !seen.databases.is_empty() {
        let message = format!(
            "databases {} are on it: a volume is never destroyed with data; move or delete them first",
            seen.databases.join(", ")
        );
        (reasons::VOLUME_IN_USE, message, vec![])
    } else {
        // Empty, so a snapshot of it would hold nothing.
        let keep = volume.spec.reclaim_policy == DeletionPolicy::Retain || seen.disk.is_none();
        let actions = if keep { vec![] } else { vec![Action::DeleteDisk] };
        let reason = if keep { reasons::RETAINED } else { reasons::DELETING };
        (
            reason,
            String::new(),
            actions.into_iter().chain([Action::RemoveFinalizer]).collect(),
        )
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    if !actions.is_empty() {
        says.extend(Verdict::Off(reasons::DELETING, message).says());
    } else if !conditions::is_true(&status.conditions, conditions::READY) {
        says.push(Says::no(conditions::READY, reason, message));
    }
    Plan {
        actions,
        says,
        phase: status.state,
        requeue: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use graphplane_crds::volume::{GraphVolumeSpec, GraphVolumeStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        Timestamp::from_second(0).unwrap()
    }

    fn volume(extra: serde_json::Value) -> GraphVolume {
        let mut spec = serde_json::json!({"tier": "std", "zone": "local", "sizeGiB": 50, "reclaimPolicy": "Delete"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        GraphVolume::new("std-0", serde_json::from_value::<GraphVolumeSpec>(spec).unwrap())
    }

    fn seen() -> Observed {
        let disk = Some(Disk {
            id: "dir".into(),
            size_gib: Some(GiB(50)),
        });
        Observed {
            disk,
            databases: vec![],
            nodes: vec![],
            reserved: MiB(0),
        }
    }

    #[test]
    fn a_disk_is_made_once_and_never_anew() {
        let mut new = volume(serde_json::json!({}));
        let none = Observed { disk: None, ..seen() };
        assert_eq!(plan(&new, &none, now()).actions, [Action::EnsureDisk]);
        assert!(plan(&new, &seen(), now()).actions.is_empty());
        new.status = Some(GraphVolumeStatus {
            volume_id: Some("dir".into()),
            ..Default::default()
        });
        let lost = plan(&new, &none, now());
        assert!(lost.actions.is_empty() && lost.phase == Some(VolumeState::Error));
        assert!(lost.says.iter().any(|s| s.reason == reasons::VOLUME_LOST));
    }

    #[test]
    fn it_grows_for_its_graphs_within_its_limit() {
        let reserved = |gib: u32| Observed {
            reserved: mib(GiB(gib)),
            ..seen()
        };
        let fixed = volume(serde_json::json!({}));
        assert!(plan(&fixed, &reserved(60), now()).actions.is_empty());
        let growing = volume(serde_json::json!({"autogrow": {"atPercent": 80, "maxGiB": 80}}));
        assert_eq!(
            plan(&growing, &reserved(60), now()).actions,
            [Action::RaiseSize(GiB(60))]
        );
        assert_eq!(
            plan(&growing, &reserved(90), now()).actions,
            [Action::RaiseSize(GiB(80))]
        );
        let grown = volume(serde_json::json!({"sizeGiB": 60}));
        assert_eq!(plan(&grown, &reserved(60), now()).actions, [Action::EnsureDisk]);
    }

    #[test]
    fn scheduled_snapshots_are_not_pretended() {
        let with = volume(serde_json::json!({"snapshots": {"schedule": "0 2 * * *", "retentionDays": 7}}));
        let plan = plan(&with, &seen(), now());
        assert!(
            plan.says
                .iter()
                .any(|s| s.reason == reasons::NOT_SUPPORTED && s.message.contains("spec.snapshots"))
        );
    }

    proptest! {
        #[test]
        fn a_disk_with_data_or_a_node_is_never_destroyed(
            databases in proptest::collection::vec("[a-z]{2}", 0..3), nodes in proptest::collection::vec("[a-z]{2}", 0..2),
            disk in any::<bool>(), policy in prop_oneof![Just("Retain"), Just("Snapshot"), Just("Delete")], protected in any::<bool>(),
        ) {
            let mut object = volume(serde_json::json!({"reclaimPolicy": policy}));
            object.metadata.deletion_timestamp = Some(Time(now()));
            if protected {
                object.metadata.annotations = Some([(DELETION_PROTECTION.to_owned(), "true".to_owned())].into());
            }
            let mut seen = Observed { databases, nodes, disk: seen().disk.filter(|_| disk), ..seen() };
            let busy = protected || !seen.databases.is_empty() || !seen.nodes.is_empty();
            let first = plan(&object, &seen, now());
            prop_assert_eq!(first.actions.is_empty(), busy);
            if first.actions.first() == Some(&Action::DeleteDisk) {
                prop_assert!(policy != "Retain" && disk);
                seen.disk = None;
                prop_assert_eq!(plan(&object, &seen, now()).actions, vec![Action::RemoveFinalizer]);
            }
        }
    }
}
