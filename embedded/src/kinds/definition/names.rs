//! The names of a kind, and that no other kind of the group has them.

use serde_json::{Map, Value};

use super::{Definition, texts};
use crate::{kinds::Registry, schema::path::Path, status::Cause};

/// The names under which a kind is served.
pub(super) struct Names {
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
}

const LABEL_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                          alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', \
                          regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Whether the text is a DNS label that starts with a letter.
pub(super) fn label_problem(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let valid = bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|b| *b != b'-')
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if text.len() > 63 {
        Some("must be no more than 63 characters".to_owned())
    } else if valid {
        None
    } else {
        Some(LABEL_RULE.to_owned())
    }
}

/// Reads and checks `spec.names`; `None` when there is not enough to go on.
pub(super) fn check(
    definition: &Definition<'_>,
    registry: &Registry,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) -> Option<Names> {
    let empty = Map::new();
    let map = definition.spec["names"].as_object().unwrap_or(&empty);
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let or = |given: &str, otherwise: String| if given.is_empty() { otherwise } else { given.to_owned() };
    let kind = text("kind");
    let names = Names {
        plural: text("plural").to_owned(),
        singular: or(text("singular"), kind.to_lowercase()),
        kind: kind.to_owned(),
        list_kind: or(text("listKind"), format!("{kind}List")),
        short_names: texts(map, "shortNames"),
        categories: texts(map, "categories"),
    };
    for (key, name) in [("plural", &names.plural), ("kind", &names.kind)] {
        if name.is_empty() {
            causes.push(Cause::required(&path.field(key), ""));
        }
    }
    if names.plural.is_empty() || names.kind.is_empty() {
        return None;
    }
    spelling(&names, path, causes);
    let group = definition.text("group");
    let wanted = format!("{}.{group}", names.plural);
    let own = &definition.crd["metadata"]["name"];
    if own.as_str() != Some(wanted.as_str()) {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", own, detail));
    }
    taken(&names, group, registry, path, causes);
    Some(names)
}

fn spelling(names: &Names, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut check = |here: &Path<'_>, name: &str, prefix: &str| {
        let folded = if prefix.is_empty() {
            name.to_owned()
        } else {
            name.to_lowercase()
        };
        if let Some(problem) = label_problem(&folded) {
            causes.push(Cause::invalid(here, &Value::from(name), &format!("{prefix}{problem}")));
        }
    };
    let mixed = "may have mixed case, but should otherwise match: ";
    check(&path.field("plural"), &names.plural, "");
    check(&path.field("singular"), &names.singular, "");
    check(&path.field("kind"), &names.kind, mixed);
    check(&path.field("listKind"), &names.list_kind, mixed);
    for (key, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        let here = path.field(key);
        for (index, name) in list.iter().enumerate() {
            check(&here.index(index), name, "");
        }
    }
    if names.kind == names.list_kind {
        let detail = "kind and listKind may not be the same";
        causes.push(Cause::invalid(
            &path.field("listKind"),
            &Value::from(names.list_kind.as_str()),
            detail,
        ));
    }
}

/// Kubernetes accepts a definition whose names are taken and serves it under no name; refusing it says the same sooner.
fn taken(names: &Names, group: &str, registry: &Registry, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let builtin = |plural: &str| {
        registry
            .resources()
            .any(|other| other.builtin && other.group == group && other.plural == plural)
    };
    if builtin(&names.plural) {
        let detail = "this kind is built in and cannot be defined";
        causes.push(Cause::forbidden(&path.field("plural"), detail));
        return;
    }
    let mut refuse = |here: &Path<'_>, name: &str, owner: &str| {
        let detail = format!("is already in use by {owner}");
        causes.push(Cause::invalid(here, &Value::from(name), &detail));
    };
    let mut seen = Vec::new();
    for other in registry
        .resources()
        .filter(|other| other.group == group && other.plural != names.plural)
    {
        if seen.contains(&&other.plural) {
            continue;
        }
        seen.push(&other.plural);
        let owner = other.group_resource();
        let kinds = [&other.kind, &other.list_kind];
        for (key, name) in [("kind", &names.kind), ("listKind", &names.list_kind)] {
            if kinds.contains(&name) {
                refuse(&path.field(key), name, &owner);
            }
        }
        let words =
            |name: &String| *name == other.plural || *name == other.singular || other.short_names.contains(name);
        for (key, name) in [("plural", &names.plural), ("singular", &names.singular)] {
            if words(name) {
                refuse(&path.field(key), name, &owner);
            }
        }
        let list = path.field("shortNames");
        for (index, name) in names.short_names.iter().enumerate().filter(|(_, name)| words(name)) {
            refuse(&list.index(index), name, &owner);
        }
    }
}
