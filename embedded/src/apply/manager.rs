//! The field manager: who owns what after a write, and whether the write may be made.

use super::{
    ApplyError, Conflict,
    field_set::FieldSet,
    json_order, last_applied,
    managed::{Managed, ManagerId, Ownership, strip},
    typed::{self, Comparison, Type},
};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::LazyLock;

/// What nobody ever owns: identity, and what the server itself maintains.
static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The manager of fields that were set before anything was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The rules of one request: the type of the object and the fields that the endpoint does not write.
pub(crate) struct FieldManager<'a> {
    ty: Type<'a>,
    subresource: Option<&'a str>,
    /// Fields that this endpoint resets to their stored values: whoever writes through it does not own them.
    reset: FieldSet,
    now: Timestamp,
}

impl<'a> FieldManager<'a> {
    /// The rules for an endpoint. The object's own endpoint never writes `status` where the schema declares one, since
    /// all kinds that declare it have a status subresource; the status subresource writes nothing else.
    pub(crate) fn new(schema: &'a Value, subresource: Option<&'a str>, now: Timestamp) -> Self {
        let reset = match subresource {
            Some("status") => FieldSet::of_fields(&[&["metadata"], &["spec"]]),
            None if schema["properties"].get("status").is_some() => FieldSet::of_fields(&[&["status"]]),
            _ => FieldSet::default(),
        };
        Self {
            ty: Type::resource(schema),
            subresource,
            reset,
            now,
        }
    }

    /// Server-side apply: the object that results, with its managed fields.
    pub(crate) fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        check_request(live, config)?;
        let empty = empty_object(config);
        let managed = Managed::of(live.unwrap_or(&empty))
            .map_err(|error| ApplyError::Invalid(format!("failed to decode managed fields: {error}")))?;
        let mut live = live.cloned().unwrap_or(empty);
        strip(&mut live);

        let outcome = match self.apply_to(&live, config, managed.clone(), manager, force) {
            Err(ApplyError::Conflict(conflicts)) if manager == last_applied::MANAGER => {
                let left = last_applied::remaining_conflicts(self.ty, &live, conflicts);
                if left.is_empty() {
                    self.apply_to(&live, config, managed, manager, true)
                } else {
                    Err(ApplyError::Conflict(left))
                }
            }
            outcome => outcome,
        };
        let (mut object, managed) = outcome?;
        if manager == last_applied::MANAGER {
            last_applied::refresh(&mut object, config);
        }
        managed.write_to(&mut object);
        Ok(object)
    }

    fn apply_to(
        &self,
        live: &Value,
        config: &Value,
        mut managed: Managed,
        manager: &str,
        force: bool,
    ) -> Result<(Value, Managed), ApplyError> {
        let api_version = config["apiVersion"].as_str().unwrap_or_default();
        if managed.0.is_empty() {
            // Nothing was tracked so far. What is there belongs to somebody, so the first applier meets it as owned.
            self.update_to(&empty_object(live), live, &mut managed, BEFORE_FIRST_APPLY);
        }
        let id = ManagerId::applier(manager, self.subresource);
        let errors = typed::validate(self.ty, config);
        if !errors.is_empty() {
            return Err(ApplyError::Invalid(format!(
                "failed to create typed patch object ({}): {}",
                described(config),
                typed::joined(&errors)
            )));
        }
        self.reconcile(&mut managed);
        let previous = managed.0.get(&id).cloned();
        let mut owned = Ownership {
            api_version: api_version.to_owned(),
            fields: typed::field_set(self.ty, config).recursive_difference(&self.reset),
            time: previous.as_ref().and_then(|previous| previous.time),
        };
        managed.0.insert(id.clone(), owned.clone());

        let merged = typed::merge(self.ty, live, config);
        let previous = previous.map(|previous| previous.fields).unwrap_or_default();
        let object = self.prune(merged, &managed, &previous);
        self.settle(live, &object, &mut managed, Some(&id), force)
            .map_err(ApplyError::Conflict)?;

        let unchanged = json_order::equal(live, &object);
        if !unchanged {
            owned.time = Some(self.now);
        }
        owned.fields = owned.fields.difference(&NEVER_OWNED);
        if owned.fields.is_empty() {
            managed.0.remove(&id);
        } else {
            managed.0.insert(id, owned);
        }
        Ok((if unchanged { live.clone() } else { object }, managed))
    }

    /// Any other write: sets the managed fields of the new object. `live` is nothing when the object is created.
    pub(crate) fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let mut managed = Managed::of_request(live, new, self.subresource.is_some());
        strip(new);
        // After a reset, tracking starts again with the next apply.
        if live.is_none() || !managed.0.is_empty() {
            let empty = empty_object(new);
            let mut live = live.cloned().unwrap_or(empty);
            strip(&mut live);
            self.update_to(&live, new, &mut managed, manager);
            managed.cap_updaters();
        }
        managed.write_to(new);
    }

    /// Gives what differs between two objects to an updater.
    fn update_to(&self, live: &Value, new: &Value, managed: &mut Managed, manager: &str) {
        let api_version = new["apiVersion"].as_str().unwrap_or_default();
        self.reconcile(managed);
        // With force nothing is refused.
        let Ok(comparison) = self.settle(live, new, managed, None, true) else {
            return;
        };
        let fields = comparison.changed().difference(&NEVER_OWNED);
        if fields.is_empty() {
            return;
        }
        let id = ManagerId::updater(manager, api_version, self.subresource);
        let earlier = managed.0.remove(&id).map(|owned| owned.fields).unwrap_or_default();
        let owned = Ownership {
            api_version: api_version.to_owned(),
            fields: fields.union(&earlier),
            time: Some(self.now),
        };
        managed.0.insert(id, owned);
    }

    fn reconcile(&self, managed: &mut Managed) {
        for owned in managed.0.values_mut() {
            owned.fields = typed::reconcile(self.ty, &owned.fields);
        }
    }

    /// Takes from every other manager what the write sets or removes. Without `force`, setting what another manager
    /// owns is a conflict.
    fn settle(
        &self,
        live: &Value,
        new: &Value,
        managed: &mut Managed,
        writer: Option<&ManagerId>,
        force: bool,
    ) -> Result<Comparison, Vec<Conflict>> {
        let comparison = typed::compare(self.ty, live, new).without(&self.reset);
        let changed = comparison.changed();
        let others = |id: &ManagerId| Some(id) != writer;
        if !force {
            let conflicts: Vec<_> = managed
                .0
                .iter()
                .filter(|(id, _)| others(id))
                .flat_map(|(id, owned)| {
                    let contested = owned.fields.intersection(&changed).paths();
                    contested.into_iter().map(|path| Conflict::new(id, owned, path))
                })
                .collect();
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        for (_, owned) in managed.0.iter_mut().filter(|(id, _)| others(id)) {
            owned.fields = owned.fields.difference(&changed).difference(&comparison.removed);
        }
        managed.0.retain(|_, owned| !owned.fields.is_empty());
        Ok(comparison)
    }

    /// Takes out of the merged object what the applier had applied before, applies no more, and nobody else owns.
    fn prune(&self, merged: Value, managed: &Managed, previous: &FieldSet) -> Value {
        if previous.is_empty() {
            return merged;
        }
        let named = |fields: &FieldSet| typed::with_named_fields(self.ty, fields);
        let fields_of = |object: &Value| named(&typed::field_set(self.ty, object));
        let previous = named(previous);
        let all = fields_of(&merged);
        // First everything goes that the applier had; that takes too much, since containers go with their content.
        let without_previous = fields_of(&typed::remove(self.ty, &merged, &previous));
        // What anybody owns now, the applier included, stays.
        let unowned = all.difference(&without_previous.union(&named(&managed.all_fields())));
        let kept = fields_of(&typed::remove(self.ty, &merged, &unowned));
        // What the applier never had stays as well, even when it lay in something that was taken.
        typed::remove(self.ty, &merged, &all.difference(&kept).intersection(&previous))
    }
}

fn check_request(live: Option<&Value>, config: &Value) -> Result<(), ApplyError> {
    if !config.is_object() {
        return Err(ApplyError::BadRequest(
            "an applied configuration must be an object".to_owned(),
        ));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let kind = |object: &Value| (object["apiVersion"].clone(), object["kind"].clone());
    if live.is_some_and(|live| kind(live) != kind(config)) {
        return Err(ApplyError::BadRequest(format!(
            "invalid object type: {}",
            described_kind(config)
        )));
    }
    Ok(())
}

/// An object that has a kind and nothing else.
fn empty_object(like: &Value) -> Value {
    let fields = ["apiVersion", "kind"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), like.get(name)?.clone())));
    Value::Object(fields.collect())
}

fn described(object: &Value) -> String {
    let metadata = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!(
        "{}/{}; {}",
        metadata("namespace"),
        metadata("name"),
        described_kind(object)
    )
}

fn described_kind(object: &Value) -> String {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    // The core group has no name, only a version.
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!(
        "{slash}{api_version}, Kind={}",
        object["kind"].as_str().unwrap_or_default()
    )
}
