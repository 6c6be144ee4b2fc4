//! Making a seed of a database, and moving the pointer to it.

use super::pointer::{Pointer, SeedVersion};
use crate::{
    backup::{BackupError, BackupJob, Manifest},
    objects::{BackupStore, StoreError},
};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path as ObjectPath};
use std::collections::BTreeMap;

/// Seeds that stay in the object store: a replica may still be fetching one that was just replaced.
const KEEP: usize = 3;

/// A seed that was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The copy could not be made or uploaded.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pointer there cannot be read.
    #[error("{key} cannot be read: {message}; remove it to publish anew")]
    Pointer {
        /// The pointer.
        key: String,
        /// Why.
        message: String,
    },
    /// The prefix holds another graph's seeds.
    #[error("{prefix} holds seeds of {other} already; choose another key")]
    Occupied {
        /// The prefix.
        prefix: String,
        /// Whose they are.
        other: String,
    },
    /// A later writer has published.
    #[error("{found} is published, and this writer makes seeds of epoch {own}: it is not the graph's writer any more")]
    Superseded {
        /// What is published.
        found: SeedVersion,
        /// The epoch of this writer.
        own: u64,
    },
}

/// Makes a seed below `prefix` and moves the pointer to it, unless a later one was published meanwhile; removes seeds that
/// are older than the last few. `job` has the database and its store; what makes it a seed is filled in here. Dropping the
/// future leaves a seed without a pointer, which a later call removes.
///
/// # Errors
/// When the seed cannot be made, or is not the newest; the pointer is as it was then.
pub async fn publish(
    job: BackupJob,
    prefix: &ObjectPath,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<Manifest, PublishError> {
    let (store, epoch, graph) = (job.store.clone(), job.epoch, job.database.id().to_string());
    let key = Pointer::key(prefix);
    let present = match store.read(&key).await? {
        None => None,
        Some(bytes) => {
            let unreadable = |message| PublishError::Pointer {
                key: key.to_string(),
                message,
            };
            Some(Pointer::from_bytes(&bytes).map_err(unreadable)?)
        }
    };
    if let Some(other) = present.as_ref().filter(|present| present.graph_id != graph) {
        return Err(PublishError::Occupied {
            prefix: prefix.to_string(),
            other: other.graph_id.clone(),
        });
    }
    if let Some(later) = present.as_ref().filter(|present| present.at.epoch > epoch) {
        return Err(PublishError::Superseded {
            found: later.at,
            own: epoch,
        });
    }
    let last = present.map_or(0, |present| {
        if present.at.epoch == epoch {
            present.at.version
        } else {
            0
        }
    });
    // A time, so that what a cut publication left never has the number of a later one.
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let at = SeedVersion {
        epoch,
        version: now.max(last + 1),
    };
    let job = BackupJob {
        key: at.below(prefix),
        version: Some(at.version),
        ..job
    };
    let manifest = job.run(progress).await?;
    let pointer = Pointer::to(&manifest);
    let moved = store.update(&key, |present| {
        let present = present.and_then(|bytes| Pointer::from_bytes(bytes).ok());
        present
            .is_none_or(|present| present.at < at)
            .then(|| pointer.to_bytes())
    });
    if !moved.await? {
        sweep(&store, prefix, |seed| seed.at == at).await;
        let bytes = store.read(&key).await?.unwrap_or_default();
        let found = Pointer::from_bytes(&bytes).map_or(at, |pointer| pointer.at);
        return Err(PublishError::Superseded { found, own: epoch });
    }
    tracing::info!(operation = "publish", graph, epoch, version = at.version, key = %prefix, "seed published");
    // An older one that is not whole was cut off: nobody else publishes now.
    sweep(&store, prefix, |seed| {
        seed.at < at && (seed.newer >= KEEP || !seed.whole)
    })
    .await;
    Ok(manifest)
}

/// A seed in the store.
#[derive(Clone, Copy)]
struct Stored {
    at: SeedVersion,
    whole: bool,
    /// Whole seeds that are newer.
    newer: usize,
}

/// Removes the seeds below `prefix` of which `unwanted` says so. What cannot be removed is removed the next time.
async fn sweep(store: &BackupStore, prefix: &ObjectPath, unwanted: impl Fn(Stored) -> bool) {
    if let Err(error) = try_sweep(store, prefix, unwanted).await {
        tracing::warn!(operation = "publish", %prefix, %error, "old seeds not removed; the next publication tries again");
    }
}

async fn try_sweep(
    store: &BackupStore,
    prefix: &ObjectPath,
    unwanted: impl Fn(Stored) -> bool,
) -> object_store::Result<()> {
    let mut seeds = BTreeMap::<SeedVersion, Vec<ObjectPath>>::new();
    let mut listed = store.objects().list(Some(prefix));
    while let Some(object) = listed.try_next().await? {
        if let Some(at) = version_of(prefix, &object.location) {
            seeds.entry(at).or_default().push(object.location);
        }
    }
    let mut newer = 0;
    for (at, mut files) in seeds.into_iter().rev() {
        let is_manifest = |file: &ObjectPath| file.filename() == Some("manifest.json");
        let whole = files.iter().any(is_manifest);
        if unwanted(Stored { at, whole, newer }) {
            // Without its manifest it is no seed any more, however far this gets.
            files.sort_by_key(|file| !is_manifest(file));
            for file in files {
                store.objects().delete(&file).await?;
            }
        } else {
            newer += usize::from(whole);
        }
    }
    Ok(())
}

/// The seed to which an object belongs.
fn version_of(prefix: &ObjectPath, object: &ObjectPath) -> Option<SeedVersion> {
    let mut parts = object.prefix_match(prefix)?;
    let mut number = || parts.next()?.as_ref().parse::<u64>().ok();
    let (epoch, version) = (number()?, number()?);
    // The file itself; there is nothing further below.
    (parts.next().is_some() && parts.next().is_none()).then_some(SeedVersion { epoch, version })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn only_whole_seeds_count_as_newer_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        for key in [
            "seeds/kg1/latest.json",
            "seeds/kg1/1/5/manifest.json",
            "seeds/kg1/1/5/graph.lbug.zst",
            "seeds/kg1/2/1/graph.lbug.zst",
            "seeds/kg1/2/2/manifest.json",
            "seeds/kg1/2/3/manifest.json",
            "seeds/kg1/2/3/deeper/file",
            "seeds/kg1/2/4/graph.lbug.zst",
            "seeds/kg1/notes/3/manifest.json",
            "seeds/kg11/1/1/manifest.json",
        ] {
            store
                .write(&BackupStore::key(key).unwrap(), bytes::Bytes::new())
                .await
                .unwrap();
        }
        let prefix = BackupStore::key("seeds/kg1").unwrap();
        sweep(&store, &prefix, |seed| seed.newer >= 2 || !seed.whole).await;
        let objects: Vec<_> = store.objects().list(None).try_collect().await.unwrap();
        let mut left: Vec<String> = objects.into_iter().map(|object| object.location.to_string()).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "seeds/kg1/2/2/manifest.json",
                "seeds/kg1/2/3/deeper/file",
                "seeds/kg1/2/3/manifest.json",
                "seeds/kg1/latest.json",
                "seeds/kg1/notes/3/manifest.json",
                "seeds/kg11/1/1/manifest.json",
            ]
        );
        assert_eq!(
            version_of(&prefix, &BackupStore::key("seeds/kg1/latest.json.lock").unwrap()),
            None
        );
    }
}
