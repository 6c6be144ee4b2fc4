//! Structural schemas: what Kubernetes does to an object between decoding and storing it.
//!
//! The order is the one of kube-apiserver: [`prune`](Structural::prune) unknown fields, fill in
//! [`default`](Structural::default)s, then [`validate`](Structural::validate) the result, which also runs the CEL rules
//! of `x-kubernetes-validations`. A [`Structural`] is compiled once per version of a kind and shared.

mod cel;
mod compile;
mod default;
mod duplicates;
pub(crate) mod format;
mod invariants;
mod keywords;
pub(crate) mod node;
pub(crate) mod number;
pub(crate) mod path;
mod pattern;
mod prune;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use crate::status::{Cause, CauseReason};
use node::Node;
use path::Path;

/// A compiled structural schema; cloning copies one pointer.
#[derive(Clone, Debug)]
pub struct Structural {
    root: Arc<Node>,
}

impl Structural {
    /// Compiles an OpenAPI v3 schema.
    ///
    /// # Errors
    /// One cause per broken rule of structural schemas, invalid regular expression, invalid default or CEL rule that does
    /// not compile. Paths start at the schema itself, for example `properties[spec].type`.
    pub fn new(schema: &Value) -> Result<Self, Vec<Cause>> {
        Self::compile(schema, &Path::ROOT)
    }

    /// As [`new`](Self::new), with error paths that start at `path`.
    pub(crate) fn compile(schema: &Value, path: &Path<'_>) -> Result<Self, Vec<Cause>> {
        let mut causes = invariants::check(schema, path);
        if causes.is_empty() {
            let root = compile::compile(schema, path, &mut causes);
            if causes.is_empty() {
                return Ok(Self { root: Arc::new(root) });
            }
        }
        Err(causes)
    }

    /// Removes the fields that the schema does not know and returns their paths (`spec.foo[0].bar`), sorted.
    /// `apiVersion`, `kind` and `metadata` of the object itself always stay.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Fills in the defaults, recursively, also inside defaults. A `null` where null is not allowed counts as absent: the
    /// default takes its place, or the field goes.
    pub fn default(&self, object: &mut Value) {
        default::apply(&self.root, object);
    }

    /// What is wrong with `new`; empty when nothing is. `old` is the stored object of an update: transition rules compare
    /// with it, and parts that did not change are not checked again. Without `old`, rules that need one are skipped.
    ///
    /// `metadata` is not looked at, except by rules of the schema about `metadata.name`.
    #[must_use]
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate::validate(&self.root, new, old);
        let mut repeated = Vec::new();
        duplicates::find(&self.root, new, &Path::ROOT, &mut repeated);
        if !repeated.is_empty() {
            let mut before = Vec::new();
            if let Some(old) = old {
                duplicates::find(&self.root, old, &Path::ROOT, &mut before);
            }
            // An object that was stored with duplicates may keep them.
            if before.is_empty() {
                causes.append(&mut repeated);
            }
        }
        // Rules are written for values of the right shape; on others they fail in ways that explain nothing.
        let unfit = |cause: &Cause| {
            matches!(
                cause.reason,
                Some(CauseReason::Required | CauseReason::TooLong | CauseReason::TooMany | CauseReason::TypeInvalid)
            )
        };
        if !causes.iter().any(unfit) {
            causes.extend(cel::validate(&self.root, new, old));
        } else if self.root.has_rules() {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                          errors to complete validation";
            causes.push(Cause::invalid("", &Value::Null, detail));
        }
        causes
    }

    /// The compiled tree, for whoever needs to walk it along an object.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}
