//! How far a disk should grow, and when EBS lets it be changed.
//!
//! EBS takes four changes of a volume in any 24 hours, and none while one is being made or optimised. So a disk grows in
//! few large steps: by half, at least by 10 GiB. Four steps of a day make five times the size, and a step is taken early
//! enough that a quarter of the disk is filled before the next one is needed.

use super::{Change, Disk, Observed};
use crate::ending::{after, until};
use crate::resources::mib;
use graphplane_crds::quantities::GiB;
use graphplane_crds::volume::GraphVolumeSpec;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// Changes of one volume in 24 hours that EBS allows.
pub const CHANGES_PER_DAY: usize = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// A change that is being made takes seconds to minutes.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Optimising takes minutes to a day, and nothing waits for it but another change.
const LOOK_LATER: Duration = Duration::from_secs(600);

/// The size that the spec should have; `None` when it is large enough or may not be larger.
pub(super) fn wanted_size(spec: &GraphVolumeSpec, seen: &Observed) -> Option<GiB> {
    let most = spec.autogrow.as_ref().map_or(spec.size_gib, |grow| grow.max_gib);
    let for_graphs = GiB::ceil(seen.reserved.bytes());
    let for_use = seen.disk.as_ref().filter(|disk| is_nearly_full(spec, seen, disk));
    let for_use = for_use.map_or(GiB(0), |_| stepped(spec.size_gib));
    let wanted = for_graphs.max(for_use).min(most);
    (wanted > spec.size_gib).then_some(wanted)
}

/// Half as much again, at least 10 GiB more.
fn stepped(size: GiB) -> GiB {
    let half = u32::try_from((u64::from(size.0) * 3).div_ceil(2)).unwrap_or(u32::MAX);
    GiB(half.max(size.0.saturating_add(10)))
}

/// Whether the file system is used as far as the volume is to be let grow. What is used of a file system that has not
/// taken in the last growth says nothing.
fn is_nearly_full(spec: &GraphVolumeSpec, seen: &Observed, disk: &Disk) -> bool {
    let (Some(grow), Some(fill)) = (&spec.autogrow, &seen.fill) else {
        return false;
    };
    let grown = disk.size_gib.is_some_and(|size| size >= spec.size_gib) && !is_behind(seen);
    let total = u64::from(fill.used.0) + u64::from(fill.free.0);
    disk.own_file_system && grown && total > 0 && u64::from(fill.used.0) * 100 >= total * u64::from(grow.at_percent)
}

/// Whether the file system is smaller than its disk by more than it keeps for itself.
pub(super) fn is_behind(seen: &Observed) -> bool {
    let disk = seen.disk.as_ref().filter(|disk| disk.own_file_system);
    let (Some(size), Some(fill)) = (disk.and_then(|disk| disk.size_gib), &seen.fill) else {
        return false;
    };
    let total = u64::from(fill.used.0) + u64::from(fill.free.0);
    // An agent that has not looked says 0.
    total > 0 && total * 100 < u64::from(mib(size).0) * 97
}

/// What stands between a disk and its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is as the spec says.
    None,
    /// It can be changed now.
    Change,
    /// A change is being made; whether the spec is reached with it is seen then.
    Running,
    /// It has to wait: why, and until when.
    Wait(String, Duration),
}

pub(super) fn step(spec: &GraphVolumeSpec, disk: &Disk, modifications: &[Time], now: Timestamp) -> Step {
    if disk.change == Change::Modifying {
        return Step::Running;
    }
    let smaller = disk.size_gib.is_some_and(|size| size < spec.size_gib);
    if !smaller && !disk.performance_differs {
        return Step::None;
    }
    if disk.change == Change::Optimizing {
        let why = "the provider still optimizes the last change; the next one is made after that";
        return Step::Wait(why.to_owned(), LOOK_LATER);
    }
    match next_change(modifications, now) {
        Some(at) => {
            let why = format!(
                "changed {CHANGES_PER_DAY} times in 24 h, the most that EBS allows: the next change is at {at}"
            );
            Step::Wait(why, until(at, now))
        }
        None => Step::Change,
    }
}

/// When the next change is allowed; `None` is now.
pub fn next_change(modifications: &[Time], now: Timestamp) -> Option<Timestamp> {
    let recent = recent(modifications, now);
    let oldest = recent.len().checked_sub(CHANGES_PER_DAY)?;
    recent.get(oldest).map(|time| after(time.0, DAY))
}

/// The changes of the last 24 hours, the oldest first.
pub fn recent(modifications: &[Time], now: Timestamp) -> Vec<Time> {
    let mut recent = modifications.to_vec();
    recent.retain(|time| after(time.0, DAY) > now);
    recent.sort_by_key(|time| time.0);
    recent.dedup();
    recent
}
