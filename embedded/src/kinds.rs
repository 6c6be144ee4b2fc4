//! The kinds that the server knows: the built-in ones and those of the CustomResourceDefinitions.
//!
//! A [`Registry`] is an immutable snapshot. Applying or deleting a CustomResourceDefinition makes a new one, so that a
//! request sees one consistent set of kinds from beginning to end and no lock is held while it runs.

mod builtin;
mod contents;
mod definition;
mod wire;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use kube::core::GroupVersionKind;
use serde_json::Value;

pub(crate) use builtin::definitions as builtin_definitions;
pub use contents::{merge_secret_string_data, validate_builtin};
pub use wire::decode_protobuf;

use crate::{schema, status::Cause, table};

/// The `scale` subresource of a kind: where the three figures stand in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Path of the wanted number, for example `.spec.replicas`.
    pub spec_path: String,
    /// Path of the observed number, for example `.status.replicas`.
    pub status_path: String,
    /// Path of the label selector in its string form, if the kind has one.
    pub selector_path: Option<String>,
}

/// One kind in one served version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list of objects.
    pub list_kind: String,
    /// Plural name, the one in URLs.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names for the command line.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The OpenAPI v3 schema as declared; the source for `/openapi`.
    pub schema: Value,
    /// The compiled schema; shared, so cloning a resource is cheap in this part.
    pub structural: schema::Structural,
    /// Whether `/status` is served and `status` is ignored elsewhere.
    pub status_subresource: bool,
    /// The `/scale` subresource, if there is one.
    pub scale: Option<Scale>,
    /// Columns of `kubectl get` after the name; empty means only the age.
    pub columns: Vec<table::Column>,
    /// JSON paths such as `.spec.tier` that field selectors may use besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
    /// Whether the kind is compiled in and cannot be deleted.
    pub builtin: bool,
    /// The version in which objects are stored; all versions of a kind share their objects and differ in `apiVersion`.
    pub storage_version: String,
    /// The sentence that clients of a deprecated version are warned with.
    pub deprecation: Option<String>,
}

impl Resource {
    /// Group, version and kind.
    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::gvk(&self.group, &self.version, &self.kind)
    }

    /// `group/version`, or only the version for the core group: the `apiVersion` of objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `plural.group`, or only the plural for the core group: the name in messages and of the CustomResourceDefinition.
    #[must_use]
    pub fn group_resource(&self) -> String {
        crate::status::qualified(&self.plural, &self.group)
    }

    /// The path below the server's root at which objects are listed across namespaces, for example
    /// `/apis/graphplane.dev/v1alpha1/graphs`.
    #[must_use]
    pub fn base_path(&self) -> String {
        let prefix = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}/{}", self.api_version(), self.plural)
    }
}

/// The kinds of one group by plural name; each with its served versions, the preferred one first.
type Kinds = BTreeMap<(String, String), Vec<Arc<Resource>>>;

/// An immutable set of kinds; cloning copies one pointer.
#[derive(Clone, Debug)]
pub struct Registry {
    kinds: Arc<Kinds>,
}

/// Compiling the schemas of the built-in kinds takes a while; they never change.
static BUILTIN: LazyLock<Registry> = LazyLock::new(|| {
    let mut kinds = Kinds::new();
    for resource in builtin::resources() {
        kinds
            .entry((resource.group.clone(), resource.plural.clone()))
            .or_default()
            .push(Arc::new(resource));
    }
    Registry { kinds: Arc::new(kinds) }
});

impl Registry {
    /// The compiled-in kinds: Namespace, Secret, ConfigMap, Event (both groups), ServiceAccount, Lease and
    /// CustomResourceDefinition.
    #[must_use]
    pub fn builtin() -> Self {
        BUILTIN.clone()
    }

    /// A new registry that also has the kinds of this CustomResourceDefinition (or has them changed).
    ///
    /// # Errors
    /// What is wrong with the definition, with paths inside the definition: names, versions, schema rules, columns,
    /// names that another definition has taken.
    pub fn with_crd(&self, crd: &Value) -> Result<Self, Vec<Cause>> {
        let resources = definition::resources(crd, self)?;
        let mut kinds = Kinds::clone(&self.kinds);
        if let Some(first) = resources.first() {
            let key = (first.group.clone(), first.plural.clone());
            kinds.insert(key, resources.into_iter().map(Arc::new).collect());
        }
        Ok(Self { kinds: Arc::new(kinds) })
    }

    /// A new registry without this kind; built-in kinds stay.
    #[must_use]
    pub fn without(&self, group: &str, plural: &str) -> Self {
        let key = (group.to_owned(), plural.to_owned());
        let removable = |versions: &Vec<Arc<Resource>>| versions.iter().all(|resource| !resource.builtin);
        if !self.kinds.get(&key).is_some_and(removable) {
            return self.clone();
        }
        let mut kinds = Kinds::clone(&self.kinds);
        kinds.remove(&key);
        Self { kinds: Arc::new(kinds) }
    }

    /// The resource behind `/apis/{group}/{version}/…/{plural}`; the core group is the empty string.
    #[must_use]
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.kinds
            .get(&(group.to_owned(), plural.to_owned()))?
            .iter()
            .find(|resource| resource.version == version)
            .cloned()
    }

    /// The resource of a kind, as named by `apiVersion` and `kind` of an object or an owner reference.
    #[must_use]
    pub fn lookup_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.resources()
            .find(|resource| resource.group == group && resource.version == version && resource.kind == kind)
            .cloned()
    }

    /// All served resources, ordered by group, plural, and version (the preferred version first).
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.kinds.values().flatten()
    }

    /// The groups and their versions, the preferred version first; the core group is the empty string.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.resources() {
            let versions = groups.entry(&resource.group).or_default();
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by(|a, b| definition::version_order(a, b));
        }
        groups
    }
}

#[cfg(test)]
mod tests;
