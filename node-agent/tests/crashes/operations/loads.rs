//! Rows into the graph.

use super::{Draw, Drawn, Operation};
use crate::{
    caller::Answered,
    history::Outcome,
    world::{Batch, World, people},
};
use serde_json::{Value, json};

pub(crate) const LOADS: &[Operation] = &[
    Operation {
        name: "materialise people",
        draw: |draw, world| materialise(draw, world, "Person"),
        marks: RECORDED,
    },
    Operation {
        name: "materialise links",
        draw: |draw, world| materialise(draw, world, "KNOWS"),
        marks: RECORDED,
    },
    Operation {
        name: "copy",
        draw: copy,
        marks: RECORDED,
    },
    Operation {
        name: "ingest",
        draw: ingest,
        marks: RECORDED,
    },
];

const RECORDED: &[(&str, &str)] = &[
    ("tasks", "ingest_"),
    ("staging/kg1.incoming", ""),
    ("databases", "kg1.lbug.wal.checkpoint"),
    ("databases", "kg2.lbug.wal.checkpoint"),
];

fn materialise(draw: &mut Draw, world: &World, table: &'static str) -> Option<Drawn> {
    let staged = world
        .databases
        .iter()
        .filter(|(_, content)| content.staging.keys().any(|(name, _)| name == table));
    let id = draw.pick(staged.map(|(id, _)| id.clone()))?;
    let of = id.clone();
    let step = move |world: &mut World| {
        let Some(content) = world.databases.get_mut(&of) else {
            return false;
        };
        let batches = &mut content.graph.batches;
        for (_, batch) in content.staging.iter().filter(|((name, _), _)| name == table) {
            if table == "Person" {
                batches.entry(*batch).or_default();
            } else if let Some(found) = batches.get_mut(batch) {
                // Links of people who are not there are left out.
                found.linked = true;
            }
        }
        true
    };
    Some(Drawn::new(step, move |caller| async move {
        caller
            .post(&format!("/databases/{id}/tables/{table}/materialize"), json!({}))
            .await
    }))
}

/// What a file straight into the graph does.
fn loaded(id: &str, batch: u64) -> impl Fn(&mut World) -> bool + Send + Sync + use<> {
    let id = id.to_owned();
    move |world| {
        world
            .graph(&id)
            .map(|graph| graph.batches.insert(batch, Batch::default()))
            .is_some()
    }
}

/// A load that came too late for its rows says so: its staging tables were replaced beneath it.
fn wholly(result: Value, batch: u64) -> Answered {
    match result["rows_ingested"] == people(batch) {
        true => Ok(result),
        false => Err(Outcome::Unknown(result.to_string())),
    }
}

fn copy(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let uri = format!("file://{}", draw.file("Person", batch).display());
    Some(Drawn::new(loaded(&id, batch), move |caller| async move {
        let body = json!({"s3_pattern": uri, "table_name": "Person"});
        wholly(caller.task(&format!("/databases/{id}/copy"), body).await?, batch)
    }))
}

fn ingest(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let path = draw.file("Person", batch);
    Some(Drawn::new(loaded(&id, batch), move |caller| async move {
        let body = json!({"file_path": path, "table_name": "Person"});
        wholly(caller.post(&format!("/databases/{id}/ingest"), body).await?, batch)
    }))
}
