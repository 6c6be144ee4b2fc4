//! The lists of strategic merge patches: which are merged, how, and in which order items end up.

use super::{
    PatchError,
    strategic::{DIRECTIVE, Place, without_directives},
};
use serde_json::Value;

/// Prefix of the directive that lists scalars to take out of a merged list.
pub(super) const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";
/// Prefix of the directive that gives the order of a merged list.
pub(super) const ORDER: &str = "$setElementOrder/";
/// The directive that lists the fields to keep.
pub(super) const RETAIN_KEYS: &str = "$retainKeys";

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListRule {
    /// The patch replaces it.
    Replace,
    /// Scalars; those of the patch are added.
    Set,
    /// Maps, identified by a field.
    Keyed(&'static str),
}

/// The lists of the built-in kinds that are merged, beside those of `metadata`.
pub(super) const LISTS: &[(&str, &[(&str, ListRule)])] = &[
    ("Namespace", &[("status.conditions", ListRule::Keyed("type"))]),
    ("Secret", &[]),
    ("ConfigMap", &[]),
    (
        "ServiceAccount",
        &[
            ("secrets", ListRule::Keyed("name")),
            ("imagePullSecrets", ListRule::Keyed("name")),
        ],
    ),
    ("Event", &[]),
    ("Lease", &[]),
    ("CustomResourceDefinition", &[]),
];

impl ListRule {
    /// What identifies an item.
    fn identity(self, item: &Value) -> Result<&Value, PatchError> {
        match self {
            Self::Replace | Self::Set => Ok(item),
            Self::Keyed(key) => item
                .get(key)
                .ok_or_else(|| PatchError::Rejected(format!("map: {item} does not contain declared merge key: {key}"))),
        }
    }

    /// The position of the item with the same identity.
    fn position(self, items: &[Value], item: &Value) -> Result<Option<usize>, PatchError> {
        let identity = self.identity(item)?;
        Ok(items
            .iter()
            .position(|other| self.identity(other).is_ok_and(|other| other == identity)))
    }

    /// Whether the order that a patch gives contains all that the patch sets, in the order of the patch.
    pub(super) fn check_order(self, patch: &[Value], order: &[Value]) -> Result<(), PatchError> {
        if order.is_empty() || self == Self::Replace {
            return Ok(());
        }
        let mut from = 0;
        for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
            let rest = order.get(from..).unwrap_or_default();
            let Some(position) = self.position(rest, item)? else {
                return Err(PatchError::Malformed(format!(
                    "The order in patch list:\n{patch:?}\n doesn't match $setElementOrder list:\n{order:?}\n"
                )));
            };
            from += position + 1;
        }
        Ok(())
    }
}

/// Merges the list of a patch into the list of an object.
pub(super) fn merge_list(
    place: &Place<'_>,
    rule: ListRule,
    old: Vec<Value>,
    new: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    let (merged, patch, old) = match rule {
        ListRule::Replace => return Ok(new),
        ListRule::Set => {
            if old.iter().chain(&new).any(|item| item.is_object() || item.is_array()) {
                return Err(PatchError::Rejected("cannot merge lists without merge key".to_owned()));
            }
            let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
            for item in old.iter().chain(&new) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            (merged, new, old)
        }
        ListRule::Keyed(_) => merge_keyed(place, rule, old, new)?,
    };
    order_by(rule, merged, &patch, &old)
}

type Lists = (Vec<Value>, Vec<Value>, Vec<Value>);

/// The merged list, the patch without directives, and the list of the object without what the directives deleted.
fn merge_keyed(place: &Place<'_>, rule: ListRule, mut old: Vec<Value>, new: Vec<Value>) -> Result<Lists, PatchError> {
    let mut patch = Vec::with_capacity(new.len());
    let mut replace = false;
    for item in new {
        match item
            .get(DIRECTIVE)
            .map(|directive| directive.as_str().unwrap_or_default())
        {
            None => patch.push(item),
            Some("replace") => replace = true,
            Some("delete") => {
                let identity = rule.identity(&item)?;
                old.retain(|item| rule.identity(item).ok() != Some(identity));
            }
            Some("merge") => {
                return Err(PatchError::Rejected(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => return Err(PatchError::Rejected(format!("unknown patch type {other:?} in {item}"))),
        }
    }
    if replace {
        return Ok((patch, Vec::new(), Vec::new()));
    }
    let mut merged = old.clone();
    for item in &patch {
        match rule.position(&merged, item)? {
            None => merged.extend(without_directives(item.clone())),
            Some(position) => {
                let (Value::Object(into), Value::Object(item)) = (merged[position].clone(), item.clone()) else {
                    return Err(PatchError::Rejected(format!(
                        "expected a map in a merged list, got {item}"
                    )));
                };
                merged[position] = Value::Object(place.merge(into, item)?);
            }
        }
    }
    Ok((merged, patch, old))
}

/// Puts a merged list in order: items of the patch as `order` says, the others as they were, the two interleaved by
/// where they were before.
pub(super) fn order_by(
    rule: ListRule,
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let mut ordered = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        match rule.position(order, &item)? {
            Some(position) => ordered.push((position, item)),
            None => others.push((rule.position(before, &item)?, item)),
        }
    }
    ordered.sort_by_key(|(position, _)| *position);
    others.sort_by_key(|(position, _)| *position);
    let mut out = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, item) in ordered {
        let was_at = rule.position(before, &item)?;
        while let Some((_, other)) = others.next_if(|(position, _)| position.is_some() && *position < was_at) {
            out.push(other);
        }
        out.push(item);
    }
    out.extend(others.map(|(_, item)| item));
    Ok(out)
}
