//! Laying an applied configuration over the live object. Merging never removes anything; see `remove` for that.

use super::{
    compare::items_of,
    schema::{Form, ListType, MapType, Type},
};
use crate::apply::path::PathElement;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The live object with everything set that the configuration sets.
pub(crate) fn merge(ty: Type<'_>, live: &Value, config: &Value) -> Value {
    places(ty, Some(live), Some(config)).unwrap_or_else(|| config.clone())
}

/// Merges what is at one place; at least one of the values is there. Nothing comes back where only containers without
/// content would be left.
fn places(ty: Type<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let leaf = || config.or(live).cloned();
    // Where the two are of different forms, the form of the configuration wins.
    match ty.forms_of_pair(live, config).1 {
        Form::Scalar(_) => leaf(),
        Form::Map(map) => {
            let (live, config) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if map.atomic || [live, config].into_iter().flatten().all(Map::is_empty) {
                leaf()
            } else {
                maps(map, live, config)
            }
        }
        Form::List(list) => {
            let (live_items, config_items) = (items_of(live), items_of(config));
            if list.is_atomic() || (live_items.is_empty() && config_items.is_empty()) {
                return leaf();
            }
            match (list.identified(live_items), list.identified(config_items)) {
                (Some(live), Some(config)) => lists(list, &live, &config),
                _ => leaf(),
            }
        }
    }
}

fn maps(ty: MapType<'_>, live: Option<&Map<String, Value>>, config: Option<&Map<String, Value>>) -> Option<Value> {
    let names: BTreeSet<&String> = [live, config].into_iter().flatten().flat_map(Map::keys).collect();
    let mut out = Map::new();
    for name in names {
        let (live, config) = (
            live.and_then(|fields| fields.get(name)),
            config.and_then(|fields| fields.get(name)),
        );
        if let Some(value) = places(ty.field_or_deduced(name), live, config) {
            out.insert(name.clone(), value);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

type Items<'v> = [(PathElement, &'v Value)];

/// Merges two lists whose items have identities. Items of the configuration keep its order; items that only the live
/// list has stay, as far as they can, behind the items that they follow there.
fn lists(ty: ListType<'_>, live: &Items<'_>, config: &Items<'_>) -> Option<Value> {
    let mut live_by_element: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, item) in live {
        // Live items that share an identity are not merged: the configuration replaces them all.
        live_by_element
            .entry(element)
            .and_modify(|item| *item = &Value::Null)
            .or_insert(item);
    }
    let configured: BTreeSet<&PathElement> = config.iter().map(|(element, _)| element).collect();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut shared: VecDeque<&PathElement> = config
        .iter()
        .map(|(element, _)| element)
        .filter(|element| live_by_element.contains_key(*element))
        .collect();
    let mut next_shared = shared.pop_front();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut live, mut config) = (live.iter().peekable(), config.iter().peekable());
    loop {
        if let (Some((live_element, _)), Some((config_element, _))) = (live.peek(), config.peek())
            && live_element != config_element
            && configured.contains(live_element)
            && next_shared.is_some_and(|next| next != live_element)
        {
            // The configuration places this item further on.
            live.next();
            continue;
        }
        if let Some((element, item)) = live.peek() {
            if !configured.contains(element) {
                out.extend(places(ty.items(), Some(item), None));
                live.next();
                continue;
            }
            if merged.contains(element) || config.peek().is_some_and(|(next, _)| next == element) {
                live.next();
            }
        }
        if let Some((element, item)) = config.next() {
            merged.insert(element);
            out.extend(places(ty.items(), live_by_element.get(element).copied(), Some(item)));
            if next_shared == Some(element) {
                next_shared = shared.pop_front();
            }
        } else if live.peek().is_none() {
            break;
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
