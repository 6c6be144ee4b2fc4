//! For how long the backups of a schedule are kept.

use super::Made;
use crate::ending::after;
use graphplane_crds::backup::{BackupPhase, Retention};
use jiff::Timestamp;
use std::time::Duration;

/// Backups that are deleted in one pass at most; the others go in the next.
const MOST: usize = 20;

/// The backups whose days are over. The newest complete ones stay whatever their age, and so does what is protected, and
/// the one that is being drilled. `limit` is the tier's longest retention.
pub(super) fn expired(
    retention: &Retention,
    limit: Option<u32>,
    backups: &[Made],
    drilled: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let days = limit.map_or(retention.days, |limit| limit.min(retention.days));
    let kept = Duration::from_secs(u64::from(days) * 86_400);
    let of_phase = |phase| backups.iter().filter(move |b| b.phase == phase && !b.deleting);
    let mut complete: Vec<(Timestamp, &Made)> = of_phase(BackupPhase::Completed)
        .map(|b| (b.completed.unwrap_or(b.created), b))
        .collect();
    complete.sort_by(|(a, x), (b, y)| (b, &y.name).cmp(&(a, &x.name)));
    let newest = usize::try_from(retention.keep_at_least.max(1)).unwrap_or(usize::MAX);
    let failed = of_phase(BackupPhase::Failed).map(|b| (b.created, b));
    let over = complete.into_iter().skip(newest).chain(failed);
    over.filter(|(at, b)| after(*at, kept) <= now && !b.protected && drilled != Some(b.name.as_str()))
        .map(|(_, b)| b.name.clone())
        .take(MOST)
        .collect()
}
