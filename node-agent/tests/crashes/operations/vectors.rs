//! Tables of vectors.

use super::{Draw, Drawn, Operation};
use crate::world::{World, select_vectors};
use serde_json::json;
use std::collections::BTreeSet;

pub(crate) const VECTORS: &[Operation] = &[
    Operation {
        name: "build vectors",
        draw: build,
        marks: CHANGING,
    },
    Operation {
        name: "append vectors",
        draw: append,
        marks: CHANGING,
    },
    Operation {
        name: "reindex vectors",
        draw: reindex,
        marks: CHANGING,
    },
    Operation {
        name: "delete vectors",
        draw: delete,
        marks: &[("vectors/kg1", "index-")],
    },
];

/// The last is what an index is sorted in.
const CHANGING: &[(&str, &str)] = &[
    ("tasks", "vector_"),
    ("vectors/kg1", "index-"),
    ("vectors/kg2", "index-"),
    ("tmp", ".tmp"),
];

/// Of the one table that has vectors.
pub(crate) fn path(id: &str) -> String {
    format!("/databases/{id}/tables/Person/vector")
}

/// A database that has vectors.
fn with_vectors(draw: &mut Draw, world: &World) -> Option<String> {
    let with = world.databases.iter().filter(|(_, content)| content.vectors.is_some());
    draw.pick(with.map(|(id, _)| id.clone()))
}

fn build(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let path = format!("{}/build", path(&id));
    let step = move |world: &mut World| {
        let content = world.databases.get_mut(&id);
        content
            .map(|content| content.vectors = Some(BTreeSet::from([batch])))
            .is_some()
    };
    Some(Drawn::new(step, move |caller| async move {
        caller.post(&path, json!({"query": select_vectors(batch)})).await
    }))
}

fn append(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (with_vectors(draw, world)?, draw.fresh());
    let path = format!("{}/append", path(&id));
    let step = move |world: &mut World| {
        let content = world.databases.get_mut(&id);
        let vectors = content.and_then(|content| content.vectors.as_mut());
        vectors.is_some_and(|vectors| vectors.insert(batch))
    };
    Some(Drawn::new(step, move |caller| async move {
        caller.post(&path, json!({"query": select_vectors(batch)})).await
    }))
}

/// The same rows as before, with all of them in the index.
fn reindex(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, retrain) = (with_vectors(draw, world)?, draw.below(2) == 0);
    let path = format!("{}/reindex", path(&id));
    let step = move |world: &mut World| {
        let content = world.databases.get(&id);
        content.is_some_and(|content| content.vectors.is_some())
    };
    Some(Drawn::new(step, move |caller| async move {
        caller.post(&path, json!({"retrain": retrain})).await
    }))
}

fn delete(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let id = with_vectors(draw, world)?;
    let path = path(&id);
    let step = move |world: &mut World| {
        let content = world.databases.get_mut(&id);
        content.map(|content| content.vectors = None).is_some()
    };
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}
