//! The layout of the redb file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::StoreError;
use super::history::{Before, Event};
use super::object::{Key, Object};
use super::state::State;

/// (resource, namespace, name) -> (revision, JSON).
const OBJECTS: TableDefinition<'_, (&str, &str, &str), (u64, &[u8])> = TableDefinition::new("objects");
/// revision -> (what happened, resource, namespace, name, JSON).
const LOG: TableDefinition<'_, u64, (u8, &str, &str, &str, &[u8])> = TableDefinition::new("log");
/// resource -> revision of the newest event that was dropped from the log.
const FLOORS: TableDefinition<'_, &str, u64> = TableDefinition::new("floors");
/// Numbers about the file.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Names about the file.
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");

const FORMAT: u64 = 1;
const CREATED: u8 = 1;
const MODIFIED: u8 = 2;
const DELETED: u8 = 3;

/// Pages kept by redb. Reads are served from memory of our own, so that this only has to hold the paths to the leaves
/// that a batch touches.
const CACHE_BYTES: usize = 8 << 20;

pub(super) struct Disk {
    db: Database,
    path: PathBuf,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|source| StoreError::Open {
                path: path.to_path_buf(),
                source: Box::new(source),
            })?;
        restrict(path);
        // The name of a new file has to survive a power cut like its content.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all())?;
        }
        Ok(Self {
            db,
            path: path.to_path_buf(),
        })
    }

    /// Reads everything into `state`; returns the cluster's id.
    pub(super) fn load(&self, state: &mut State) -> Result<String, StoreError> {
        let cluster_id = self.prepare()?;
        let read = self.db.begin_read()?;
        let mut names = Interner::default();
        let mut current: HashMap<u64, Arc<Object>> = HashMap::new();
        for entry in read.open_table(OBJECTS)?.iter()? {
            let (key, value) = entry?;
            let (resource, namespace, name) = key.value();
            let (revision, json) = value.value();
            let object = Arc::new(Object::from_disk(names.key(resource, namespace, name), revision, json)?);
            current.insert(revision, object.clone());
            state.load_object(object);
        }
        for entry in read.open_table(FLOORS)?.iter()? {
            let (resource, floor) = entry?;
            state.load_floor(&names.get(resource.value()), floor.value());
        }
        let mut forgotten = Vec::new();
        let mut last: HashMap<Key, Arc<Object>> = HashMap::new();
        for entry in read.open_table(LOG)?.iter()? {
            let (revision, value) = entry?;
            let (what, resource, namespace, name, json) = value.value();
            let revision = revision.value();
            let key = names.key(resource, namespace, name);
            // The current version is in memory already: share it.
            let object = match current.get(&revision) {
                Some(object) => object.clone(),
                None => Arc::new(Object::from_disk(key.clone(), revision, json)?),
            };
            let before = match last.remove(&key) {
                _ if what == CREATED => Before::Absent,
                Some(object) => Before::Known(object),
                None => Before::Unknown,
            };
            if what != DELETED {
                last.insert(key.clone(), object.clone());
            }
            let dropped = state.load_event(Event {
                object,
                before,
                deleted: what == DELETED,
            });
            forgotten.extend(dropped.into_iter().map(|r| (key.resource.clone(), r)));
            state.set_revision(revision);
        }
        if let Some(revision) = read.open_table(NUMBERS)?.get("revision")? {
            state.set_revision(revision.value());
        }
        drop(read);
        self.write(&[], &forgotten)?;
        Ok(cluster_id)
    }

    /// Creates the tables of a new file, and checks the format of an old one.
    fn prepare(&self) -> Result<String, StoreError> {
        let write = self.db.begin_write()?;
        let cluster_id;
        {
            write.open_table(OBJECTS)?;
            write.open_table(LOG)?;
            write.open_table(FLOORS)?;
            let mut numbers = write.open_table(NUMBERS)?;
            let found = numbers.get("format")?.map(|v| v.value());
            match found {
                None => {
                    numbers.insert("format", FORMAT)?;
                }
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(StoreError::Format {
                        path: self.path.clone(),
                        found,
                        expected: FORMAT,
                    });
                }
            }
            let mut names = write.open_table(NAMES)?;
            let known = names.get("cluster")?.map(|v| v.value().to_string());
            cluster_id = match known {
                Some(id) => id,
                None => {
                    let id = uuid::Uuid::new_v4().to_string();
                    names.insert("cluster", id.as_str())?;
                    id
                }
            };
        }
        write.commit()?;
        Ok(cluster_id)
    }

    /// Writes a batch and drops old history, in one transaction that is durable when this returns.
    pub(super) fn write(&self, events: &[Event], forgotten: &[(Arc<str>, u64)]) -> Result<(), StoreError> {
        if events.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        let write = self.db.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut log = write.open_table(LOG)?;
            for event in events {
                let object = &event.object;
                let place = (&*object.key.resource, &*object.key.namespace, &*object.key.name);
                let what = match event {
                    e if e.deleted => DELETED,
                    e if e.created() => CREATED,
                    _ => MODIFIED,
                };
                if event.deleted {
                    objects.remove(place)?;
                } else {
                    objects.insert(place, (object.revision, &*object.json))?;
                }
                log.insert(object.revision, (what, place.0, place.1, place.2, &*object.json))?;
            }
            if !forgotten.is_empty() {
                let mut floors = write.open_table(FLOORS)?;
                let mut newest: HashMap<&str, u64> = HashMap::new();
                for (resource, revision) in forgotten {
                    log.remove(revision)?;
                    newest.insert(resource, *revision);
                }
                for (resource, revision) in newest {
                    floors.insert(resource, revision)?;
                }
            }
            if let Some(last) = events.last() {
                write.open_table(NUMBERS)?.insert("revision", last.revision())?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

/// Secrets are in this file.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "cannot restrict the state file to its owner");
    }
}

/// Shares the few resource and namespace names among all keys.
#[derive(Default)]
struct Interner(HashMap<String, Arc<str>>);

impl Interner {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(text.to_string(), new.clone());
        new
    }

    fn key(&mut self, resource: &str, namespace: &str, name: &str) -> Key {
        Key {
            resource: self.get(resource),
            namespace: self.get(namespace),
            name: name.into(),
        }
    }
}
