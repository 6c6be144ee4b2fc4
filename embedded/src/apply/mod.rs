//! Server-side apply and field ownership.
//!
//! Every write to an object records who set which fields, in `metadata.managedFields`. An applier sends the fields it
//! cares about and owns exactly those: fields it stops sending go away unless somebody else owns them, and setting a
//! field that somebody else owns to another value is a conflict, unless forced. Everybody else who writes, takes
//! ownership of what the write changed.
//!
//! ```text
//!   configuration ──► validate ──► merge over live ──► prune ──► settle with the other managers ──► object
//!                                       │                 ▲                  │
//!                   schema: which lists are keyed …    fields owned      conflicts
//! ```
//!
//! All of it is pure: values in, values out. The semantics are those of kube-apiserver for custom resources; `tests/`
//! holds answers recorded from Kubernetes' own field manager, and these functions to them.

mod field_set;
mod go_text;
mod json_order;
mod last_applied;
mod managed;
mod manager;
mod path;
#[cfg(test)]
mod tests;
mod typed;

pub(crate) use self::json_order::equal as equal_json;

use self::managed::{ManagerId, Operation, Ownership};
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write as _;

/// Why a configuration was not applied. The texts are those that kube-apiserver sends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Other managers own fields that the configuration sets to other values: 409, reason `Conflict`, one cause
    /// `FieldManagerConflict` for each.
    #[error("{}", conflict_message(.0))]
    Conflict(Vec<Conflict>),
    /// The configuration does not fit the schema, or the stored managed fields are unreadable: 500 in Kubernetes,
    /// without a reason.
    #[error("{0}")]
    Invalid(String),
    /// The request makes no sense: 400.
    #[error("{0}")]
    BadRequest(String),
}

/// A field that the configuration sets and another manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conflict {
    /// The other manager.
    pub(crate) manager: String,
    /// The subresource through which it wrote.
    pub(crate) subresource: Option<String>,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    /// The version of the object that it wrote.
    pub(crate) api_version: String,
    /// The field as kube-apiserver prints it: `.spec.tier`, `.status.conditions[type="Ready"].status`.
    pub(crate) field: String,
    path: Vec<path::PathElement>,
}

impl Conflict {
    fn new(id: &ManagerId, owned: &Ownership, path: Vec<path::PathElement>) -> Self {
        Self {
            manager: id.name.clone(),
            subresource: Some(id.subresource.clone()).filter(|subresource| !subresource.is_empty()),
            operation: id.operation.to_string(),
            api_version: owned.api_version.clone(),
            field: path.iter().map(ToString::to_string).collect(),
            path,
        }
    }

    /// The message of the cause: `conflict with "kubectl-edit" using graphplane.dev/v1alpha1`.
    pub(crate) fn message(&self) -> String {
        format!("conflict with {}", self.described_manager())
    }

    fn described_manager(&self) -> String {
        let mut out = go_text::quoted(&self.manager);
        // Writing to a String cannot fail.
        if let Some(subresource) = &self.subresource {
            let _ = write!(out, " with subresource {}", go_text::quoted(subresource));
        }
        if self.operation == Operation::Update.to_string() {
            let _ = write!(out, " using {}", self.api_version);
        }
        out
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.message(), only.field);
    }
    let by_manager = conflicts.chunk_by(|left, right| left.described_manager() == right.described_manager());
    let lines: Vec<_> = by_manager
        .flat_map(|of_manager| {
            let head = of_manager
                .first()
                .map(|first| format!("conflicts with {}:", first.described_manager()));
            head.into_iter()
                .chain(of_manager.iter().map(|conflict| format!("- {}", conflict.field)))
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Applies a configuration on behalf of a manager and returns the object that results, with its managed fields.
///
/// `live` is the stored object, nothing if there is none; `patch` the configuration as the client sent it, with
/// `apiVersion` and `kind`; `schema` the `openAPIV3Schema` of its version, null when there is none; `now` an RFC 3339
/// time. Defaults are not applied here: apply them to the result. An apply that changes nothing returns an object equal
/// to the stored one.
///
/// # Errors
/// See [`ApplyError`]; nothing is changed then.
pub(crate) fn apply(
    live: Option<&Value>,
    patch: &Value,
    manager: &str,
    force: bool,
    schema: &Value,
    subresource: Option<&str>,
    now: &str,
) -> Result<Value, ApplyError> {
    manager::FieldManager::new(schema, subresource, timestamp(now)).apply(live, patch, manager, force)
}

/// Records who changed what, for every write that is not an apply: create, update, and the other patches.
///
/// `live` is the stored object, nothing on create; `new` the object as it would be stored, after pruning and defaulting,
/// with the `managedFields` that the client sent, if any: `[]` or `[{}]` there resets them. The managed fields are
/// replaced in `new`; an update that changes nothing leaves them as they are.
pub(crate) fn update_managed_fields(
    live: Option<&Value>,
    new: &mut Value,
    manager: &str,
    schema: &Value,
    subresource: Option<&str>,
    now: &str,
) {
    manager::FieldManager::new(schema, subresource, timestamp(now)).update(live, new, manager);
}

/// The caller's clock; were it ever not a time, entries would carry the epoch.
fn timestamp(now: &str) -> Timestamp {
    now.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}
