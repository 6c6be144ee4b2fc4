//! `metadata.managedFields`: who owns what of an object, since when and by which operation.

use super::field_set::FieldSet;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt};

/// At most this many managers that write by other means than apply are kept apart.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager into which the oldest of them are merged.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        })
    }
}

/// What tells two entries apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ManagerId {
    /// The name that the client gave itself.
    pub(crate) name: String,
    /// How it wrote.
    pub(crate) operation: Operation,
    /// The version that it wrote; nothing for appliers, which keep their identity from version to version.
    pub(crate) api_version: Option<String>,
    /// The subresource that it wrote, empty for the object itself.
    pub(crate) subresource: String,
}

impl ManagerId {
    /// An applier.
    pub(crate) fn applier(name: &str, subresource: Option<&str>) -> Self {
        Self {
            name: or_unknown(name),
            operation: Operation::Apply,
            api_version: None,
            subresource: subresource.unwrap_or_default().to_owned(),
        }
    }

    /// A manager that writes by other means.
    pub(crate) fn updater(name: &str, api_version: &str, subresource: Option<&str>) -> Self {
        Self {
            name: or_unknown(name),
            operation: Operation::Update,
            api_version: Some(api_version.to_owned()),
            subresource: subresource.unwrap_or_default().to_owned(),
        }
    }
}

fn or_unknown(name: &str) -> String {
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name.to_owned()
    }
}

/// One entry without what identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// The version in which the fields are named.
    pub(crate) api_version: String,
    /// What the manager owns.
    pub(crate) fields: FieldSet,
    /// When the entry last changed; an applier that never changed the object has no time.
    pub(crate) time: Option<Timestamp>,
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Managed(pub(crate) BTreeMap<ManagerId, Ownership>);

impl Managed {
    /// Reads the entries of an object; an object without any gives none.
    ///
    /// # Errors
    /// What makes an entry unreadable.
    pub(crate) fn of(object: &Value) -> Result<Self, String> {
        match &object["metadata"]["managedFields"] {
            Value::Null => Ok(Self::default()),
            Value::Array(entries) => {
                let entries = entries
                    .iter()
                    .enumerate()
                    .map(|(position, entry)| decode_entry(position, entry));
                entries.collect::<Result<_, _>>().map(Self)
            }
            other => Err(format!("metadata.managedFields must be a list, got {other}")),
        }
    }

    /// The entries to go on from when `new` replaces `live`. A client may set them, mostly by sending back what it
    /// read; it may drop them all with `[]` or `[{}]`; and a client that knows nothing of them cannot lose them.
    pub(crate) fn of_request(live: Option<&Value>, new: &Value, subresource: bool) -> Self {
        let of_live = || live.and_then(|live| Self::of(live).ok()).unwrap_or_default();
        if subresource {
            return of_live();
        }
        if is_reset(&new["metadata"]["managedFields"]) {
            return Self::default();
        }
        match Self::of(new) {
            Ok(managed) if !managed.0.is_empty() => managed,
            _ => of_live(),
        }
    }

    /// Writes the entries into an object, in the order of Kubernetes; none at all leaves no field behind.
    pub(crate) fn write_to(&self, object: &mut Value) {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(id, owned)| {
            (
                id.operation,
                seconds(owned.time),
                &id.name,
                &owned.api_version,
                &id.subresource,
            )
        });
        let entries: Vec<_> = entries.into_iter().map(|(id, owned)| encode_entry(id, owned)).collect();
        strip(object);
        if let (false, Some(metadata)) = (entries.is_empty(), metadata_of(object)) {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }

    /// Everything that anybody owns.
    pub(crate) fn all_fields(&self) -> FieldSet {
        self.0
            .values()
            .fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// Merges the oldest updaters of each version into one entry until no more than ten updaters are left.
    pub(crate) fn cap_updaters(&mut self) {
        let mut updaters: Vec<_> = self
            .0
            .iter()
            .filter(|(id, _)| id.operation == Operation::Update)
            .map(|(id, owned)| (seconds(owned.time), id.clone()))
            .collect();
        let mut surplus = updaters.len().saturating_sub(MAX_UPDATE_MANAGERS);
        updaters.sort();
        let mut oldest_of_version: BTreeMap<Option<String>, ManagerId> = BTreeMap::new();
        for (_, id) in updaters {
            if surplus == 0 {
                break;
            }
            let Some(first) = oldest_of_version.get(&id.api_version) else {
                oldest_of_version.insert(id.api_version.clone(), id);
                continue;
            };
            let bucket = ManagerId {
                name: ANCIENT_CHANGES.to_owned(),
                operation: Operation::Update,
                api_version: id.api_version.clone(),
                subresource: String::new(),
            };
            // The first one waits until there is a second to merge it with; the bucket may exist from earlier writes.
            let (merged, time) = if id == bucket {
                (first.clone(), None)
            } else {
                if !self.0.contains_key(&bucket)
                    && let Some(owned) = self.0.remove(first)
                {
                    self.0.insert(bucket.clone(), owned);
                }
                (id.clone(), self.0.get(&id).map(|owned| owned.time))
            };
            if let (Some(owned), Some(bucket)) = (self.0.remove(&merged), self.0.get_mut(&bucket)) {
                bucket.fields = bucket.fields.union(&owned.fields);
                // What was merged last is the most recent, by the order in which they are merged.
                bucket.time = time.unwrap_or(bucket.time);
            }
            surplus -= 1;
        }
    }
}

/// Takes the entries out of an object, so that they are never part of what is merged or owned.
pub(crate) fn strip(object: &mut Value) {
    if let Some(metadata) = metadata_of(object) {
        metadata.remove("managedFields");
    }
}

fn metadata_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Kubernetes compares times by whole seconds, an absent one as the epoch.
fn seconds(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_second)
}

fn decode_entry(position: usize, entry: &Value) -> Result<(ManagerId, Ownership), String> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let operation = match entry["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match entry["fieldsType"].as_str().unwrap_or_default() {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {position}")),
        other => {
            return Err(format!(
                "invalid fieldsType \"{other}\" in managed fields entry {position}"
            ));
        }
    }
    let time = match &entry["time"] {
        Value::Null => None,
        Value::String(time) => Some(
            time.parse()
                .map_err(|error| format!("time of managed fields entry {position}: {error}"))?,
        ),
        other => {
            return Err(format!(
                "time of managed fields entry {position} must be a string, got {other}"
            ));
        }
    };
    let fields = FieldSet::decode(&entry["fieldsV1"])
        .map_err(|error| format!("fieldsV1 of managed fields entry {position}: {error}"))?;
    let id = ManagerId {
        name: text("manager"),
        operation,
        api_version: (operation == Operation::Update).then(|| api_version.clone()),
        subresource: text("subresource"),
    };
    Ok((
        id,
        Ownership {
            api_version,
            fields,
            time,
        },
    ))
}

fn encode_entry(id: &ManagerId, owned: &Ownership) -> Value {
    let mut entry = json!({
        "operation": id.operation.to_string(),
        "apiVersion": owned.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.fields.encode(),
    });
    if !id.name.is_empty() {
        entry["manager"] = Value::from(id.name.as_str());
    }
    if !id.subresource.is_empty() {
        entry["subresource"] = Value::from(id.subresource.as_str());
    }
    if let Some(time) = owned.time {
        entry["time"] = Value::from(whole_seconds(time));
    }
    entry
}

/// `2026-01-31T12:00:00Z`: fractions are cut off, as in every time of `metadata`.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
#[path = "managed_tests.rs"]
mod tests;
