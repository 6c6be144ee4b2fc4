//! Databases that come and go.

use super::{Draw, Drawn, Operation};
use crate::world::{Content, Graph, SCHEMA, World};
use serde_json::json;

pub(crate) const DATABASES: &[Operation] = &[
    Operation {
        name: "create",
        draw: create,
        marks: &[("databases", ".creating-")],
    },
    Operation {
        name: "create subgraph",
        draw: create_subgraph,
        marks: &[("databases", ".creating-")],
    },
    Operation {
        name: "delete",
        draw: delete,
        marks: &[],
    },
    Operation {
        name: "delete for a new start",
        draw: delete_graph,
        marks: &[("staging", "kg1.kept"), ("staging", "kg2.kept")],
    },
    Operation {
        name: "delete staging",
        draw: delete_staging,
        marks: &[],
    },
];

pub(super) fn created(id: String) -> Drawn {
    let body = json!({
        "graph_id": id, "schema_type": "custom", "custom_schema_ddl": SCHEMA, "is_subgraph": id.contains('_'),
    });
    let step = move |world: &mut World| {
        let content = match world.databases.contains_key(&id) {
            true => return false,
            false => world.kept.remove(&id).unwrap_or_default(),
        };
        world.databases.insert(id.clone(), content).is_none()
    };
    Drawn::new(step, |caller| async move { caller.post("/databases", body).await })
}

pub(crate) fn create(draw: &mut Draw, world: &World) -> Option<Drawn> {
    // The first two are always kg1 and kg2, so that their files can be watched for.
    let first = ["kg1", "kg2"].into_iter().find(|id| !world.databases.contains_key(*id));
    let kept = || world.kept.keys().find(|id| !id.contains('_')).cloned();
    let id = first.map(str::to_owned).or_else(kept);
    Some(created(id.unwrap_or_else(|| format!("kg{}", 100 + draw.fresh()))))
}

fn create_subgraph(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let parent = draw.pick(world.graphs())?;
    Some(created(format!("{parent}_e{}", draw.fresh())))
}

fn delete(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let id = draw.database(world).filter(|_| world.databases.len() > 2)?;
    let path = format!("/databases/{id}");
    let step = move |world: &mut World| world.databases.remove(&id).is_some();
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}

/// Its staging tables and its vectors wait for a graph of the same id.
fn delete_graph(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let id = draw.database(world).filter(|_| world.databases.len() > 2)?;
    let path = format!("/databases/{id}?preserve_duckdb=true");
    let step = move |world: &mut World| {
        // With this parameter it may be repeated: what is not there is acknowledged, too.
        let Some(content) = world.databases.remove(&id) else {
            return true;
        };
        let graph = Graph::default();
        world.kept.insert(id.clone(), Content { graph, ..content }).is_none()
    };
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}

fn delete_staging(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let staged = world
        .databases
        .iter()
        .filter(|(_, content)| !content.staging.is_empty());
    let id = draw.pick(staged.map(|(id, _)| id.clone()))?;
    let path = format!("/databases/{id}?staging_only=true");
    let step = move |world: &mut World| world.staging(&id).map(std::collections::BTreeMap::clear).is_some();
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}
