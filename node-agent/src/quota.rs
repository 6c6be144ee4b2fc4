//! How many loads each graph has begun on this day (UTC), against `copy.perDay` of the tier.
//!
//! The counts lie on the volume, written before a load begins: they survive a restart, and whoever takes the volume over
//! goes on counting. Without a limit nothing is counted. A load that fails was begun, and counts; what is refused before
//! it begins does not.

use crate::{
    engines::DatabaseId,
    registration::files::{FileError, write_atomically},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

const DAY: i64 = 24 * 3600;

/// Why a load may not begin.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The day's loads are used up.
    #[error("Daily limit of {limit} loads reached for {id} (copy.perDay of the tier); it starts anew at {resets}")]
    Spent {
        /// The graph.
        id: DatabaseId,
        /// Loads of one day.
        limit: u64,
        /// When the next day begins.
        resets: Timestamp,
    },
    /// The count could not be written, so nothing was begun.
    #[error("the load could not be counted: {0}")]
    Disk(#[from] FileError),
}

/// Loads that were begun on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    /// The day: `2026-11-21`.
    day: String,
    graphs: BTreeMap<String, u64>,
}

/// The day's loads of every graph of a volume.
#[derive(Debug)]
pub struct DailyLoads {
    path: PathBuf,
    begun: Mutex<Begun>,
}

impl DailyLoads {
    /// Reads the counts of a volume. A file that is damaged is a lost count, which is no reason to refuse to serve.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, FileError> {
        let path = data_dir.join("loads.json");
        let begun = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(operation = "start", file = %path.display(), %error, "the day's loads are counted anew");
                Begun::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Begun::default(),
            Err(source) => {
                return Err(FileError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        Ok(Self {
            path,
            begun: Mutex::new(begun),
        })
    }

    /// Counts a load that begins at `now`. Syncs a file: not for a thread that serves requests.
    ///
    /// # Errors
    /// When the graph has begun `limit` loads on this day, or the count cannot be written; then nothing is counted.
    pub fn begin(&self, id: &DatabaseId, limit: u64, now: Timestamp) -> Result<(), QuotaError> {
        let day = now.strftime("%Y-%m-%d").to_string();
        let mut begun = self.begun.lock();
        let mut next = if begun.day == day {
            begun.clone()
        } else {
            Begun {
                day,
                graphs: BTreeMap::new(),
            }
        };
        let count = next.graphs.entry(id.to_string()).or_default();
        if *count >= limit {
            let id = id.clone();
            let resets = midnight_after(now);
            return Err(QuotaError::Spent { id, limit, resets });
        }
        *count += 1;
        let text = serde_json::to_vec(&next).map_err(|error| FileError::Io {
            action: "encode",
            path: self.path.clone(),
            source: io::Error::other(error),
        })?;
        write_atomically(&self.path, &text, 0o644)?;
        *begun = next;
        Ok(())
    }
}

fn midnight_after(now: Timestamp) -> Timestamp {
    let today = now.as_second().div_euclid(DAY);
    Timestamp::from_second(today.saturating_add(1).saturating_mul(DAY)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(text: &str) -> DatabaseId {
        DatabaseId::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_graph_has_its_own_count_and_every_day_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let loads = DailyLoads::open(dir.path()).unwrap();
        let (one, two) = (id("kg1"), id("kg2"));
        let evening = at("2026-11-21T23:59:59Z");
        loads.begin(&one, 2, evening).unwrap();
        loads.begin(&one, 2, evening).unwrap();
        match loads.begin(&one, 2, evening).unwrap_err() {
            QuotaError::Spent { limit, resets, .. } => {
                assert_eq!((limit, resets), (2, at("2026-11-22T00:00:00Z")));
            }
            other => panic!("{other}"),
        }
        loads.begin(&two, 2, evening).unwrap();
        loads.begin(&one, 3, evening).unwrap();
        loads.begin(&one, 2, at("2026-11-22T00:00:00Z")).unwrap();
        assert!(loads.begin(&two, 0, evening).is_err(), "0 permits nothing");
    }

    #[test]
    fn counts_are_on_the_volume_and_a_damaged_file_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-11-21T12:00:00Z");
        DailyLoads::open(dir.path()).unwrap().begin(&id("kg1"), 1, now).unwrap();
        let again = DailyLoads::open(dir.path()).unwrap();
        assert!(matches!(again.begin(&id("kg1"), 1, now), Err(QuotaError::Spent { .. })));
        std::fs::write(dir.path().join("loads.json"), "{\"day\":").unwrap();
        DailyLoads::open(dir.path()).unwrap().begin(&id("kg1"), 1, now).unwrap();
    }

    #[test]
    fn a_count_that_cannot_be_written_begins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let loads = DailyLoads::open(&dir.path().join("absent")).unwrap();
        let now = at("2026-11-21T12:00:00Z");
        assert!(matches!(loads.begin(&id("kg1"), 1, now), Err(QuotaError::Disk(_))));
        std::fs::create_dir(dir.path().join("absent")).unwrap();
        loads.begin(&id("kg1"), 1, now).unwrap();
    }
}
