//! Graphs that are replaced as a whole while they serve.

use super::{Draw, Drawn, Operation, databases::created};
use crate::world::{Batch, World};
use serde_json::json;
use std::collections::BTreeSet;

pub(crate) const REBUILDS: &[Operation] = &[
    Operation {
        name: "rebuild",
        draw: rebuild,
        marks: &[
            ("tasks", "rebuild_"),
            ("databases", ".creating-"),
            ("databases", ".swap-"),
            ("databases", ".previous-"),
        ],
    },
    Operation {
        name: "create successor",
        draw: create_successor,
        marks: &[("databases", ".creating-")],
    },
    Operation {
        name: "swap",
        draw: swap,
        marks: &[("databases", ".swap-"), ("databases", ".previous-")],
    },
];

/// The graph has what staging has, and nothing else.
fn rebuild(draw: &mut Draw, world: &World) -> Option<Drawn> {
    // A graph is not rebuilt if that would empty a table.
    let staged = world.databases.iter().filter(|(_, content)| {
        let has = |wanted: &str| content.staging.keys().any(|(table, _)| table == wanted);
        let is_linked = content.graph.batches.values().any(|batch| batch.linked);
        has("Person") && (has("KNOWS") || !is_linked)
    });
    let id = draw.pick(staged.map(|(id, _)| id.clone()))?;
    let path = format!("/databases/{id}/rebuild");
    let step = move |world: &mut World| {
        let Some(content) = world.databases.get_mut(&id) else {
            return false;
        };
        let batches = |table: &str| -> BTreeSet<u64> {
            let files = content.staging.iter().filter(|((name, _), _)| name == table);
            files.map(|(_, batch)| *batch).collect()
        };
        let (people, links) = (batches("Person"), batches("KNOWS"));
        let batch = |number: &u64| Batch {
            revision: 0,
            linked: links.contains(number),
        };
        content.graph.batches = people.iter().map(|number| (*number, batch(number))).collect();
        true
    };
    Some(Drawn::new(
        step,
        |caller| async move { caller.post(&path, json!({})).await },
    ))
}

fn successor(id: &str) -> String {
    format!("{id}-wip")
}

/// A database that is to take another one's place; what fills graphs fills it.
fn create_successor(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let without = world
        .graphs()
        .filter(|id| !world.databases.contains_key(&successor(id)));
    Some(created(successor(draw.pick(without)?)))
}

fn swap(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let with = world.graphs().filter(|id| world.databases.contains_key(&successor(id)));
    let id = draw.pick(with)?.clone();
    let path = format!("/databases/{id}/swap");
    let step = move |world: &mut World| {
        let Some(successor) = world.databases.remove(&successor(&id)) else {
            return false;
        };
        // Staging and vectors are those of the id, also if its graph was deleted meanwhile.
        let mut content = world.take(&id).unwrap_or_default();
        content.graph = successor.graph;
        world.databases.insert(id.clone(), content).is_none()
    };
    Some(Drawn::new(
        step,
        |caller| async move { caller.post(&path, json!({})).await },
    ))
}
