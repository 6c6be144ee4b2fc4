//! Strategic merge patch: a merge patch that knows which lists of built-in kinds are merged, and by which key.

use super::{
    PatchError,
    strategic_lists::{DELETE_ITEMS, LISTS, ListRule, ORDER, RETAIN_KEYS, merge_list, order_by},
};
use serde_json::{Map, Value};

/// Marks what is to be done with the map that it is in.
pub(super) const DIRECTIVE: &str = "$patch";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a built-in kind.
///
/// # Errors
/// [`PatchError::Unsupported`] for kinds that are not built in, [`PatchError::Malformed`] when a directive has the wrong
/// form, [`PatchError::Rejected`] when the patch does not fit the object.
pub(crate) fn strategic_merge_patch(doc: &Value, patch: &Value, kind: &str) -> Result<Value, PatchError> {
    let Some((_, lists)) = LISTS.iter().find(|(of, _)| *of == kind) else {
        return Err(PatchError::Unsupported(format!(
            "strategic merge patch is not supported for {kind}: use a JSON patch, a merge patch or an apply patch"
        )));
    };
    let (Value::Object(doc), Value::Object(patch)) = (doc, patch) else {
        return Err(PatchError::Malformed(
            "a strategic merge patch and its target must be objects".to_owned(),
        ));
    };
    Place {
        lists,
        path: String::new(),
    }
    .merge(doc.clone(), patch.clone())
    .map(Value::Object)
}

/// A place in an object: what is known of the lists at and below it.
pub(super) struct Place<'a> {
    lists: &'a [(&'static str, ListRule)],
    path: String,
}

impl Place<'_> {
    fn below(&self, field: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Place {
            lists: self.lists,
            path: format!("{}{dot}{field}", self.path),
        }
    }

    /// How a list field here is merged.
    fn rule(&self, field: &str) -> ListRule {
        let path = self.below(field).path;
        // `metadata` is the same in every kind.
        let of_metadata = [
            ("metadata.finalizers", ListRule::Set),
            ("metadata.ownerReferences", ListRule::Keyed("uid")),
        ];
        self.lists
            .iter()
            .chain(&of_metadata)
            .find(|(of, _)| *of == path)
            .map_or(ListRule::Replace, |(_, rule)| *rule)
    }

    pub(super) fn merge(&self, mut doc: Object, mut patch: Object) -> Result<Object, PatchError> {
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Object::new()),
                Some("merge") => self.merge(doc, patch),
                _ => Err(PatchError::Rejected(format!(
                    "unknown patch type {directive} at {:?}",
                    self.path
                ))),
            };
        }
        retain_keys(&mut doc, &mut patch)?;
        self.merge_ordered_lists(&mut doc, &mut patch)?;
        for (key, value) in patch {
            if let Some(field) = key.strip_prefix(DELETE_ITEMS) {
                delete_items(&mut doc, field, &value)?;
                continue;
            }
            if value.is_null() {
                doc.remove(&key);
                continue;
            }
            let merged = match (doc.remove(&key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    let place = self.below(&key);
                    Some(Value::Object(place.merge(old, new)?))
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let rule = self.rule(&key);
                    Some(Value::Array(merge_list(&self.below(&key), rule, old, new)?))
                }
                // Something of another type, or nothing, was there.
                (_, value) => without_directives(value),
            };
            if let Some(merged) = merged {
                doc.insert(key, merged);
            }
        }
        Ok(doc)
    }

    /// Merges the lists for which the patch gives the order of items, and takes them out of the patch.
    fn merge_ordered_lists(&self, doc: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
        let orders: Vec<_> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
        for key in orders {
            let field = key.strip_prefix(ORDER).unwrap_or_default();
            let (order, new) = (
                list(patch.remove(&key))?.unwrap_or_default(),
                list(patch.remove(field))?,
            );
            let old = list(doc.get(field).cloned())?;
            let rule = self.rule(field);
            rule.check_order(new.as_deref().unwrap_or_default(), &order)?;
            let merged = match (old.clone(), new) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => match without_directives(Value::Array(new)) {
                    Some(Value::Array(new)) => new,
                    _ => continue,
                },
                (Some(old), Some(new)) => merge_list(&self.below(field), rule, old, new)?,
            };
            let ordered = order_by(rule, merged, &order, &old.unwrap_or_default())?;
            doc.insert(field.to_owned(), Value::Array(ordered));
        }
        Ok(())
    }
}

fn list(value: Option<Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(PatchError::Rejected(format!("expected a list, got {other}"))),
    }
}

/// `$retainKeys`: fields of the object that the directive does not list go away.
fn retain_keys(doc: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let keys: Vec<&str> = directive
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let is_directive = |key: &str| key.starts_with(DELETE_ITEMS) || key.starts_with(ORDER);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !is_directive(key) && !keys.contains(&key.as_str()))
    {
        return Err(malformed());
    }
    doc.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/<field>`: the listed items go away, the others keep their places.
fn delete_items(doc: &mut Object, field: &str, items: &Value) -> Result<(), PatchError> {
    match (doc.get_mut(field), items) {
        (_, Value::Null) => {
            doc.remove(field);
            Ok(())
        }
        (None, _) => Ok(()),
        (Some(Value::Array(list)), Value::Array(items)) => {
            list.retain(|item| !items.contains(item));
            Ok(())
        }
        _ => Err(PatchError::Malformed(
            "invalid patch format of primitive list".to_owned(),
        )),
    }
}

/// What a value of a patch means where nothing was before: nulls delete nothing, and there is nothing to direct.
pub(super) fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(
                kept.filter_map(|(key, value)| Some((key, without_directives(value)?)))
                    .collect(),
            ))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}
