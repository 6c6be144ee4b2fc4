//! What every request and every controller of the server shares.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::kinds::{Registry, Resource};
use crate::openapi::Documents;
use crate::status::{ApiError, Cause};
use crate::store::{PageQuery, Store};
use crate::verbs::{convert, metadata};

/// The store, the served kinds and the switch that ends everything.
pub(crate) struct Cluster {
    pub(crate) store: Store,
    kinds: RwLock<Arc<Kinds>>,
    /// Name of each loaded CustomResourceDefinition -> what was loaded.
    loaded: Mutex<HashMap<String, Loaded>>,
    /// Ends watches, controllers and connections.
    pub(crate) stopping: CancellationToken,
    /// Namespaces that exist always and cannot be deleted.
    pub(crate) permanent_namespaces: BTreeSet<String>,
    /// How long Events live.
    pub(crate) event_ttl: Duration,
}

/// One set of kinds and what is rendered from it.
pub(crate) struct Kinds {
    pub(crate) registry: Registry,
    documents: OnceLock<Documents>,
}

impl Kinds {
    fn new(registry: Registry) -> Self {
        Self {
            registry,
            documents: OnceLock::new(),
        }
    }

    /// The OpenAPI documents, rendered at the first question.
    pub(crate) fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| Documents::new(&self.registry))
    }
}

/// What is served of a definition.
struct Loaded {
    /// The version that was looked at last; nothing has to be parsed to see that it is still the same.
    revision: u64,
    uid: String,
    generation: Option<i64>,
    group: String,
    plural: String,
    /// Ends the watches of its kind; the same for as long as the definition is the same object.
    end: CancellationToken,
}

/// The storage name of CustomResourceDefinitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

impl Cluster {
    pub(crate) fn new(store: Store, permanent_namespaces: BTreeSet<String>, event_ttl: Duration) -> Self {
        Self {
            store,
            kinds: RwLock::new(Arc::new(Kinds::new(Registry::builtin()))),
            loaded: Mutex::new(HashMap::new()),
            stopping: CancellationToken::new(),
            permanent_namespaces,
            event_ttl,
        }
    }

    /// The kinds that are served now.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        self.kinds.read().clone()
    }

    /// The resource behind a storage name, in its storage version.
    pub(crate) fn stored_resource(&self, name: &str) -> Option<Arc<Resource>> {
        let kinds = self.kinds();
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        kinds
            .registry
            .resources()
            .filter(|r| r.plural == plural && r.group == group)
            .max_by_key(|r| r.version == r.storage_version)
            .cloned()
    }

    /// Cancelled when a kind is no longer served, which its watches must not outlive.
    pub(crate) fn end_of(&self, resource: &Resource) -> CancellationToken {
        let loaded = self.loaded.lock();
        match loaded.get(&*convert::storage_name(resource)) {
            Some(known) => known.end.clone(),
            None => {
                let end = CancellationToken::new();
                if !resource.builtin {
                    end.cancel();
                }
                end
            }
        }
    }

    /// What is wrong with a CustomResourceDefinition; the kinds stay as they are.
    pub(crate) fn check_definition(&self, definition: &Value) -> Vec<Cause> {
        self.kinds().registry.with_crd(definition).err().unwrap_or_default()
    }

    /// Serves the kinds of the CustomResourceDefinitions that are stored now. Called after each write to one; compiles
    /// only what changed, since compiling schemas and rules takes milliseconds.
    pub(crate) fn reload_definitions(&self) {
        let mut loaded = self.loaded.lock();
        let Ok(page) = self.store.page(&PageQuery {
            resource: DEFINITIONS,
            ..PageQuery::default()
        }) else {
            return;
        };
        let mut registry = self.kinds().registry.clone();
        let mut changed = false;
        let mut present = BTreeSet::new();
        for object in &page.objects {
            let name = object.key.name.to_string();
            present.insert(name.clone());
            if loaded.get(&name).is_some_and(|known| known.revision == object.revision) {
                continue;
            }
            let definition = object.value();
            let identity = Loaded {
                revision: object.revision,
                uid: object.facts.uid.to_string(),
                generation: metadata::of(&definition).get("generation").and_then(Value::as_i64),
                group: definition["spec"]["group"].as_str().unwrap_or_default().to_owned(),
                plural: definition["spec"]["names"]["plural"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                end: match loaded.get(&name) {
                    Some(known) if *known.uid == *object.facts.uid => known.end.clone(),
                    _ => CancellationToken::new(),
                },
            };
            if let Some(known) = loaded.get_mut(&name)
                && (&known.uid, known.generation) == (&identity.uid, identity.generation)
            {
                known.revision = identity.revision;
                continue;
            }
            match registry.with_crd(&definition) {
                Ok(next) => {
                    registry = next;
                    changed = true;
                    let uid = identity.uid.clone();
                    let before = loaded.insert(name, identity);
                    if let Some(other) = before.filter(|before| before.uid != uid) {
                        other.end.cancel();
                    }
                }
                Err(causes) => {
                    let problem = ApiError::invalid("apiextensions.k8s.io", "CustomResourceDefinition", &name, causes);
                    tracing::error!(definition = %name, error = %problem, "a stored definition cannot be served");
                }
            }
        }
        loaded.retain(|name, identity| {
            let keep = present.contains(name);
            if !keep {
                registry = registry.without(&identity.group, &identity.plural);
                identity.end.cancel();
                changed = true;
            }
            keep
        });
        if changed {
            *self.kinds.write() = Arc::new(Kinds::new(registry));
        }
    }
}
