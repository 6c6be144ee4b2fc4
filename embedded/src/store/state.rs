//! The in-memory index of everything that is on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::history::{Before, Event, History};
use super::object::{Key, Object};
use super::{Expired, HistoryLimits};

/// Place of an object inside its resource: namespace, then name. Lists are in this order.
pub(crate) type Position = (Arc<str>, Arc<str>);

/// Which objects a list wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageQuery<'a> {
    pub(crate) resource: &'a str,
    /// `None`: all namespaces.
    pub(crate) namespace: Option<&'a str>,
    /// Start after this position.
    pub(crate) after: Option<Position>,
    /// The revision to list at; `None`: now.
    pub(crate) at: Option<u64>,
}

/// What a list found, in order.
#[derive(Debug)]
pub(crate) struct Page {
    /// The revision of the store that this is the state of.
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
}

type Listener = (
    Box<dyn Fn(&Event) -> bool + Send + Sync>,
    mpsc::UnboundedSender<Arc<Event>>,
);

/// The objects and the history of one resource.
struct Kind {
    objects: BTreeMap<Position, Arc<Object>>,
    history: History,
    changed: watch::Sender<()>,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            history: History::default(),
            changed: watch::Sender::new(()),
        }
    }
}

/// Everything, at one revision.
pub(crate) struct State {
    revision: u64,
    limits: HistoryLimits,
    kinds: HashMap<Arc<str>, Kind>,
    uids: HashMap<Box<str>, Arc<Object>>,
    /// UID of an owner -> its dependents.
    owned: HashMap<Box<str>, BTreeSet<Key>>,
    listeners: Vec<Listener>,
}

impl State {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        Self {
            revision: 0,
            limits,
            kinds: HashMap::new(),
            uids: HashMap::new(),
            owned: HashMap::new(),
            listeners: Vec::new(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.kinds
            .get(&key.resource)?
            .objects
            .get(&(key.namespace.clone(), key.name.clone()))
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Object>> {
        self.uids.get(uid)
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        self.owned
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| self.get(key).cloned())
            .collect()
    }

    pub(super) fn scan(&self, keep: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        self.kinds
            .values()
            .flat_map(|k| k.objects.values())
            .filter(|o| keep(o))
            .cloned()
            .collect()
    }

    pub(super) fn add_listener(
        &mut self,
        interest: Box<dyn Fn(&Event) -> bool + Send + Sync>,
        sender: mpsc::UnboundedSender<Arc<Event>>,
    ) {
        self.listeners.push((interest, sender));
    }

    /// Puts an object in place without history: loading from disk.
    pub(super) fn load_object(&mut self, object: Arc<Object>) {
        self.index(&object);
        let place = (object.key.namespace.clone(), object.key.name.clone());
        self.kinds
            .entry(object.key.resource.clone())
            .or_default()
            .objects
            .insert(place, object);
    }

    /// Puts an event into the history without touching the objects: loading from disk. Gives the revisions that fell
    /// out because limits are smaller than when the file was written.
    pub(super) fn load_event(&mut self, event: Event) -> Vec<u64> {
        let limits = self.limits;
        self.kinds
            .entry(event.object.key.resource.clone())
            .or_default()
            .history
            .push(Arc::new(event), limits)
    }

    pub(super) fn load_floor(&mut self, resource: &Arc<str>, floor: u64) {
        self.kinds.entry(resource.clone()).or_default().history.set_floor(floor);
    }

    /// Makes a batch visible that is on disk. Gives the (resource, revision) pairs that fell out of the history.
    pub(super) fn publish(&mut self, events: Vec<Event>) -> Vec<(Arc<str>, u64)> {
        let mut forgotten = Vec::new();
        let mut touched: Vec<Arc<str>> = Vec::new();
        for event in events {
            self.revision = event.revision();
            if let Before::Known(old) = &event.before {
                self.unindex(old);
            }
            let object = event.object.clone();
            if !event.deleted {
                self.index(&object);
            }
            let resource = object.key.resource.clone();
            let kind = self.kinds.entry(resource.clone()).or_default();
            let place = (object.key.namespace.clone(), object.key.name.clone());
            if event.deleted {
                kind.objects.remove(&place);
            } else {
                kind.objects.insert(place, object);
            }
            let event = Arc::new(event);
            self.listeners
                .retain(|(interest, sender)| !interest(&event) || sender.send(event.clone()).is_ok());
            forgotten.extend(
                kind.history
                    .push(event, self.limits)
                    .into_iter()
                    .map(|r| (resource.clone(), r)),
            );
            if !touched.contains(&resource) {
                touched.push(resource);
            }
        }
        for resource in touched {
            if let Some(kind) = self.kinds.get(&resource) {
                kind.changed.send_replace(());
            }
        }
        forgotten
    }

    fn index(&mut self, object: &Arc<Object>) {
        if !object.facts.uid.is_empty() {
            self.uids.insert(object.facts.uid.clone(), object.clone());
        }
        for owner in &object.facts.owners {
            self.owned
                .entry(owner.uid.as_str().into())
                .or_default()
                .insert(object.key.clone());
        }
    }

    fn unindex(&mut self, object: &Object) {
        if self.uids.get(&object.facts.uid).is_some_and(|o| o.key == object.key) {
            self.uids.remove(&object.facts.uid);
        }
        for owner in &object.facts.owners {
            if let Some(keys) = self.owned.get_mut(owner.uid.as_str()) {
                keys.remove(&object.key);
                if keys.is_empty() {
                    self.owned.remove(owner.uid.as_str());
                }
            }
        }
    }

    /// A receiver that is told of every change of `resource`.
    pub(super) fn subscribe(&mut self, resource: &Arc<str>) -> watch::Receiver<()> {
        self.kinds.entry(resource.clone()).or_default().changed.subscribe()
    }

    /// Events of a resource above `after`, at most `limit`.
    pub(super) fn events(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Expired> {
        let Some(kind) = self.kinds.get(resource) else {
            return Ok(Vec::new());
        };
        Ok(kind
            .history
            .since(after)?
            .filter(|e| namespace.is_none_or(|ns| &*e.object.key.namespace == ns))
            .take(limit)
            .cloned()
            .collect())
    }

    pub(super) fn page(&self, query: &PageQuery<'_>) -> Result<Page, Expired> {
        let revision = query.at.unwrap_or(self.revision).min(self.revision);
        let Some(kind) = self.kinds.get(query.resource) else {
            return Ok(Page {
                revision,
                objects: Vec::new(),
            });
        };
        let start = match (&query.after, query.namespace) {
            (Some(place), _) => Bound::Excluded(place.clone()),
            (None, Some(ns)) => Bound::Included((Arc::from(ns), Arc::from(""))),
            (None, None) => Bound::Unbounded,
        };
        let in_range = |place: &Position| query.namespace.is_none_or(|ns| &*place.0 == ns);
        let now = kind
            .objects
            .range((start.clone(), Bound::Unbounded))
            .take_while(|(place, _)| in_range(place));
        if revision == self.revision {
            return Ok(Page {
                revision,
                objects: now.map(|(_, object)| object.clone()).collect(),
            });
        }

        // What each object that changed since was at that revision: the `before` of its first later event.
        let mut changed: BTreeMap<Position, Option<Arc<Object>>> = BTreeMap::new();
        for event in kind.history.since(revision)? {
            let place = (event.object.key.namespace.clone(), event.object.key.name.clone());
            let before = match &event.before {
                Before::Absent => None,
                Before::Known(object) => Some(object.clone()),
                Before::Unknown => {
                    return Err(Expired {
                        requested: revision,
                        oldest: event.revision(),
                    });
                }
            };
            changed.entry(place).or_insert(before);
        }
        let mut objects: Vec<(Position, Arc<Object>)> = now
            .filter(|(place, _)| !changed.contains_key(place))
            .map(|(place, object)| (place.clone(), object.clone()))
            .collect();
        objects.extend(
            changed
                .range((start, Bound::Unbounded))
                .take_while(|(place, _)| in_range(place))
                .filter_map(|(place, before)| Some((place.clone(), before.clone()?))),
        );
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Page {
            revision,
            objects: objects.into_iter().map(|(_, object)| object).collect(),
        })
    }
}
