//! Replacing a small object only as long as nobody else does: the one thing in the store that several writers share.

use super::store::{BackupStore, StoreError};
use crate::engines::{EngineError, FileLock};
use bytes::Bytes;
use object_store::{Error, ObjectStoreExt, PutMode, UpdateVersion, path::Path as ObjectPath};
use std::time::Duration;

/// How often a change is tried again because somebody else was faster.
const ATTEMPTS: u32 = 20;

/// What came of one attempt.
enum Attempt {
    Written,
    Left,
    /// Somebody else has it, or was faster.
    Lost,
}

impl BackupStore {
    /// Makes the object `key` what `change` says, which is given the present content and answers `None` to leave it. If
    /// others change it meanwhile, `change` is asked again with what they wrote, so nobody's change is lost. Returns
    /// whether something was written.
    ///
    /// # Errors
    /// When the store cannot be read or written, or others are faster again and again.
    pub async fn update(
        &self,
        key: &ObjectPath,
        change: impl Fn(Option<&Bytes>) -> Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        for attempt in 0..ATTEMPTS {
            let outcome = match &self.directory {
                // A directory has no conditional writes; but all who write there are on one machine.
                Some(directory) => match FileLock::acquire(&directory.join(format!("{key}.lock"))) {
                    Ok(_lock) => self.attempt(key, &change, false).await?,
                    Err(EngineError::Locked { .. }) => Attempt::Lost,
                    // The directory of the object's first version does not exist yet.
                    Err(_) if self.make_parent(key)? => Attempt::Lost,
                    Err(error) => return Err(failed("lock", key)(generic(error))),
                },
                None => self.attempt(key, &change, true).await?,
            };
            match outcome {
                Attempt::Written => return Ok(true),
                Attempt::Left => return Ok(false),
                Attempt::Lost => {
                    let pause = Duration::from_millis(20).saturating_mul(1 << attempt.min(6));
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
            }
        }
        Err(StoreError::Contended { key: key.to_string() })
    }

    async fn attempt(
        &self,
        key: &ObjectPath,
        change: &impl Fn(Option<&Bytes>) -> Option<Vec<u8>>,
        conditional: bool,
    ) -> Result<Attempt, StoreError> {
        let (present, version) = match self.store.get(key).await {
            Ok(object) => {
                let version = UpdateVersion {
                    e_tag: object.meta.e_tag.clone(),
                    version: object.meta.version.clone(),
                };
                (Some(Self::small(key, object).await?), Some(version))
            }
            Err(Error::NotFound { .. }) => (None, None),
            Err(error) => return Err(failed("read", key)(error)),
        };
        let Some(content) = change(present.as_ref()) else {
            return Ok(Attempt::Left);
        };
        let mode = match (conditional, version) {
            (false, _) => PutMode::Overwrite,
            (true, None) => PutMode::Create,
            (true, Some(version)) => PutMode::Update(version),
        };
        match self.store.put_opts(key, content.into(), mode.into()).await {
            Ok(_) => Ok(Attempt::Written),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Attempt::Lost),
            Err(error) => Err(failed("write", key)(error)),
        }
    }

    /// Makes the directory in which the object is to lie; false if it was there.
    fn make_parent(&self, key: &ObjectPath) -> Result<bool, StoreError> {
        let path = self.directory.as_ref().map(|directory| directory.join(key.as_ref()));
        match path.as_deref().and_then(std::path::Path::parent) {
            Some(parent) if !parent.is_dir() => match std::fs::create_dir_all(parent) {
                Ok(()) => Ok(true),
                Err(error) => Err(failed("write", key)(generic(error))),
            },
            _ => Ok(false),
        }
    }
}

fn failed(action: &'static str, key: &ObjectPath) -> impl Fn(Error) -> StoreError {
    move |source| StoreError::Store {
        action,
        key: key.to_string(),
        source,
    }
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic {
        store: "directory",
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn no_change_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        let key = BackupStore::key("seeds/kg1/latest.json").unwrap();
        let count = |present: Option<&Bytes>| -> u32 {
            present.map_or(0, |text| String::from_utf8_lossy(text).parse().unwrap())
        };
        let add = || store.update(&key, |present| Some((count(present) + 1).to_string().into_bytes()));
        let written = futures::future::join_all((0..8).map(|_| add())).await;
        assert!(written.into_iter().all(Result::unwrap));
        assert_eq!(store.read(&key).await.unwrap().unwrap(), "8");
        assert!(
            !store
                .update(&key, |present| (count(present) < 8).then(Vec::new))
                .await
                .unwrap()
        );
        assert_eq!(store.read(&key).await.unwrap().unwrap(), "8");
    }
}
