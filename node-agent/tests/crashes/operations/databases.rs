//! Databases that come and go.

use super::{Draw, Drawn, Operation};
use crate::world::{Content, SCHEMA, World};
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
        name: "delete staging",
        draw: delete_staging,
        marks: &[],
    },
];

fn created(id: String) -> Drawn {
    let body = json!({
        "graph_id": id, "schema_type": "custom", "custom_schema_ddl": SCHEMA, "is_subgraph": id.contains('_'),
    });
    let step = move |world: &mut World| world.databases.insert(id.clone(), Content::default()).is_none();
    Drawn::new(step, |caller| async move { caller.post("/databases", body).await })
}

pub(crate) fn create(draw: &mut Draw, world: &World) -> Option<Drawn> {
    // The first two are always kg1 and kg2, so that their files can be watched for.
    let id = ["kg1", "kg2"].iter().find(|id| !world.databases.contains_key(**id));
    Some(created(id.map_or_else(
        || format!("kg{}", 100 + draw.fresh()),
        |id| (*id).to_owned(),
    )))
}

fn create_subgraph(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let parent = draw.pick(world.databases.keys().filter(|id| !id.contains('_')))?;
    Some(created(format!("{parent}_e{}", draw.fresh())))
}

fn delete(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let id = draw.database(world).filter(|_| world.databases.len() > 2)?;
    let path = format!("/databases/{id}");
    let step = move |world: &mut World| world.databases.remove(&id).is_some();
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
