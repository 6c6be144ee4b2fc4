//! Subgraphs that begin as copies.

use super::{Draw, Drawn, Operation, copy_graph, copy_vectors};
use crate::world::{Content, Graph, World};
use serde_json::json;

pub(crate) const FORKS: &[Operation] = &[
    Operation {
        name: "fork",
        draw: fork,
        marks: CREATING,
    },
    Operation {
        name: "fork in an empty database's place",
        draw: fork_over,
        marks: CREATING,
    },
];

const CREATING: &[(&str, &str)] = &[
    ("tasks", "fork_"),
    ("databases", ".creating-"),
    ("vectors", ".creating-"),
    ("databases", ".swap-"),
];

/// It has the parent's vectors, too, and the staging tables that it had before.
fn forked(id: &str, parent: &str, existing: bool) -> Drawn {
    let path = format!("/databases/{id}/fork-from/{parent}");
    let copied = format!("fork {id}");
    let mut steps = vec![copy_graph(parent, &copied), copy_vectors(parent, &copied)];
    let id = id.to_owned();
    steps.push(Box::new(move |world: &mut World| {
        let Some(mut content) = world.copies.remove(&copied) else {
            return false;
        };
        match world.databases.get(&id) {
            Some(found) if existing && is_bare(found) => content.staging = found.staging.clone(),
            None if !existing => {}
            _ => return false,
        }
        world.databases.insert(id.clone(), content);
        true
    }));
    Drawn::of(steps, |caller| async move { caller.post(&path, json!({})).await })
}

/// Whether a fork may take its place.
fn is_bare(content: &Content) -> bool {
    content.graph.batches.is_empty() && content.vectors.is_none()
}

/// A graph that may have subgraphs.
fn parent(draw: &mut Draw, world: &World) -> Option<String> {
    draw.pick(world.graphs().cloned())
}

fn fork(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let parent = parent(draw, world)?;
    let id = format!("{parent}_s{}", draw.fresh());
    Some(forked(&id, &parent, false))
}

/// As the clients of the contract do it: the database is made first.
fn fork_over(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let empty = |id: &&String| {
        let content = &world.databases[*id];
        content.graph == Graph::default()
            && is_bare(content)
            && id
                .split_once('_')
                .is_some_and(|(parent, _)| world.databases.contains_key(parent))
    };
    let id = draw.pick(world.databases.keys().filter(empty).cloned())?;
    let parent = id.split_once('_')?.0;
    Some(forked(&id, parent, true))
}
