//! Tests of the whole: what an apply or another write makes of an object and its managed fields.
#![allow(clippy::unwrap_used)]

mod applying;
mod metadata;
mod properties;
mod recorded;
mod updating;

use super::{
    ApplyError, apply,
    field_set::FieldSet,
    managed::{Managed, ManagerId},
    update_managed_fields,
};
use serde_json::{Value, json};

pub(super) const NOW: &str = "2026-01-01T00:00:00Z";
pub(super) const LATER: &str = "2026-01-01T00:00:05Z";

/// A kind with every sort of field that merging tells apart.
pub(super) fn schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "tier": text,
            "size": {"type": "integer"},
            "labels": {"type": "object", "additionalProperties": text},
            "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text, "b": text}},
            "zones": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "args": {"type": "array", "items": text},
            "nested": {"type": "object", "properties": {"inner": {"type": "object", "properties": {"a": text, "b": text}}}},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"},
                    "protocol": {"type": "string", "default": "TCP"},
                    "name": text,
                    "target": {"x-kubernetes-int-or-string": true},
                }},
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {
            "phase": text,
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "required": ["type"], "properties": {"type": text, "status": text}},
            },
        }},
    }})
}

pub(super) fn thing(fields: Value) -> Value {
    let mut object =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "n", "namespace": "d"}});
    let (Value::Object(fields), Some(into)) = (fields, object.as_object_mut()) else {
        panic!("fields must be an object")
    };
    into.extend(fields);
    object
}

pub(super) fn with_spec(spec: Value) -> Value {
    thing(json!({"spec": spec}))
}

/// A stored object, and what happens to it.
pub(super) struct Stored {
    pub(super) object: Option<Value>,
    pub(super) schema: Value,
}

impl Stored {
    pub(super) fn nothing() -> Self {
        Self {
            object: None,
            schema: schema(),
        }
    }

    pub(super) fn applied(manager: &str, spec: Value) -> Self {
        Self::nothing().apply(manager, spec)
    }

    pub(super) fn try_apply(&self, manager: &str, config: &Value, force: bool, now: &str) -> Result<Value, ApplyError> {
        apply(self.object.as_ref(), config, manager, force, &self.schema, None, now)
    }

    pub(super) fn apply(mut self, manager: &str, spec: Value) -> Self {
        self.object = Some(self.try_apply(manager, &with_spec(spec), false, NOW).unwrap());
        self
    }

    /// Applies an object that says nothing but its name.
    pub(super) fn apply_nothing(mut self, manager: &str) -> Self {
        self.object = Some(self.try_apply(manager, &thing(json!({})), false, NOW).unwrap());
        self
    }

    pub(super) fn force(mut self, manager: &str, spec: Value) -> Self {
        self.object = Some(self.try_apply(manager, &with_spec(spec), true, NOW).unwrap());
        self
    }

    pub(super) fn apply_status(mut self, manager: &str, status: Value) -> Self {
        let config = thing(json!({"status": status}));
        let object = apply(
            self.object.as_ref(),
            &config,
            manager,
            false,
            &self.schema,
            Some("status"),
            NOW,
        )
        .unwrap();
        self.object = Some(object);
        self
    }

    /// Any other write: the change is made to the stored object and the result is put back.
    pub(super) fn update(mut self, manager: &str, change: impl FnOnce(&mut Value)) -> Self {
        let mut new = self.object.clone().unwrap_or_else(|| thing(json!({})));
        change(&mut new);
        update_managed_fields(self.object.as_ref(), &mut new, manager, &self.schema, None, NOW);
        self.object = Some(new);
        self
    }

    pub(super) fn object(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    pub(super) fn spec(&self) -> &Value {
        &self.object()["spec"]
    }

    pub(super) fn managers(&self) -> Vec<String> {
        entries(self.object())
            .iter()
            .map(|entry| entry["manager"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The fields of a manager below `spec`; null when it owns nothing.
    pub(super) fn owned(&self, manager: &str) -> Value {
        let entries = entries(self.object());
        let entry = entries.iter().find(|entry| entry["manager"] == manager);
        entry.map_or(Value::Null, |entry| entry["fieldsV1"]["f:spec"].clone())
    }

    /// All fields of an applier.
    pub(super) fn fields_of(&self, manager: &str) -> FieldSet {
        let managed = Managed::of(self.object()).unwrap();
        managed
            .0
            .get(&ManagerId::applier(manager, None))
            .map(|owned| owned.fields.clone())
            .unwrap_or_default()
    }

    /// Manager and field of every conflict that an apply runs into.
    pub(super) fn conflicts(&self, manager: &str, spec: Value) -> Vec<(String, String)> {
        match self.try_apply(manager, &with_spec(spec), false, NOW) {
            Err(ApplyError::Conflict(conflicts)) => conflicts
                .into_iter()
                .map(|conflict| (conflict.manager, conflict.field))
                .collect(),
            Ok(_) => Vec::new(),
            Err(other) => panic!("{other}"),
        }
    }
}

pub(super) fn entries(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}
