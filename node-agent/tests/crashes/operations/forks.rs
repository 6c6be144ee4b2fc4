//! Subgraphs that begin as copies.

use super::{Draw, Drawn, Operation};
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

const CREATING: &[(&str, &str)] = &[("databases", ".creating-"), ("tasks", "fork_")];

fn forked(id: &str, parent: &str, existing: bool) -> Drawn {
    let path = format!("/databases/{id}/fork-from/{parent}");
    let (id, parent) = (id.to_owned(), parent.to_owned());
    let step = move |world: &mut World| {
        let Some(graph) = world.databases.get(&parent).map(|content| content.graph.clone()) else {
            return false;
        };
        match world.databases.get_mut(&id) {
            Some(found) if existing && found.graph.batches.is_empty() => {
                found.graph = graph;
                true
            }
            None if !existing => {
                let content = Content {
                    graph,
                    ..Content::default()
                };
                world.databases.insert(id.clone(), content).is_none()
            }
            _ => false,
        }
    };
    Drawn::new(step, |caller| async move { caller.post(&path, json!({})).await })
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
        world.databases[*id].graph == Graph::default()
            && id
                .split_once('_')
                .is_some_and(|(parent, _)| world.databases.contains_key(parent))
    };
    let id = draw.pick(world.databases.keys().filter(empty).cloned())?;
    let parent = id.split_once('_')?.0;
    Some(forked(&id, parent, true))
}
