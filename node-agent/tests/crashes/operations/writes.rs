//! Cypher and schema.

use super::{Draw, Drawn, Operation};
use crate::{
    caller::{Answered, Caller},
    world::{Batch, World, first, people},
};
use serde_json::{Value, json};

pub(crate) const WRITES: &[Operation] = &[
    Operation {
        name: "add",
        draw: add,
        marks: &[],
    },
    Operation {
        name: "revise",
        draw: revise,
        marks: &[],
    },
    Operation {
        name: "link",
        draw: link,
        marks: &[],
    },
    Operation {
        name: "remove",
        draw: remove,
        marks: &[],
    },
    Operation {
        name: "extend schema",
        draw: extend,
        marks: &[],
    },
    Operation {
        name: "read",
        draw: read,
        marks: &[],
    },
];

async fn query(caller: Caller, id: String, text: String) -> Answered {
    caller.cypher(&id, &text).await.map(Value::from)
}

/// People are made.
pub(crate) fn add(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let (first, last) = (first(batch), people(batch) - 1);
    let text = format!(
        "UNWIND range(0, {last}) AS i CREATE (:Person {{identifier: {first} + i, batch: {batch}, \
         name: concat('n', CAST(i AS STRING)), score: CAST(i AS DOUBLE)}})"
    );
    let of = id.clone();
    let step = move |world: &mut World| {
        let graph = world.graph(&of);
        graph
            .map(|graph| graph.batches.insert(batch, Batch::default()))
            .is_some()
    };
    Some(Drawn::new(step, |caller| query(caller, id, text)))
}

fn revise(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = draw.batch(world, |_, _| true)?;
    let text = format!("MATCH (p:Person) WHERE p.batch = {batch} SET p.score = p.score + 1.0");
    let of = id.clone();
    let step = move |world: &mut World| {
        let Some(graph) = world.graph(&of) else { return false };
        if let Some(found) = graph.batches.get_mut(&batch) {
            found.revision += 1;
        }
        true
    };
    Some(Drawn::new(step, |caller| query(caller, id, text)))
}

/// People get to know each other.
fn link(draw: &mut Draw, world: &World) -> Option<Drawn> {
    // Larger batches take long: their people are compared with each other.
    let (id, batch) = draw.batch(world, |batch, linked| !linked && people(batch) < 300)?;
    let text = format!(
        "MATCH (a:Person), (b:Person) WHERE a.batch = {batch} AND b.batch = {batch} AND b.identifier = a.identifier + 1 \
         MERGE (a)-[:KNOWS {{batch: {batch}, weight: CAST(a.identifier - {} AS DOUBLE)}}]->(b)",
        first(batch)
    );
    let of = id.clone();
    let step = move |world: &mut World| {
        let Some(graph) = world.graph(&of) else { return false };
        if let Some(found) = graph.batches.get_mut(&batch) {
            found.linked = true;
        }
        true
    };
    Some(Drawn::new(step, |caller| query(caller, id, text)))
}

fn remove(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = draw.batch(world, |_, _| true)?;
    let text = format!("MATCH (p:Person) WHERE p.batch = {batch} DETACH DELETE p");
    let of = id.clone();
    let step = move |world: &mut World| world.graph(&of).map(|graph| graph.batches.remove(&batch)).is_some();
    Some(Drawn::new(step, |caller| query(caller, id, text)))
}

fn extend(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, table) = (draw.database(world)?, format!("Extra{}", draw.fresh()));
    let ddl = format!("CREATE NODE TABLE {table}(x INT64 PRIMARY KEY)");
    let of = id.clone();
    let step = move |world: &mut World| world.graph(&of).is_some_and(|graph| graph.tables.insert(table.clone()));
    Some(Drawn::new(step, |caller| async move {
        caller
            .post(&format!("/databases/{id}/schema"), json!({"type": "ddl", "ddl": ddl}))
            .await
    }))
}

fn read(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let id = draw.database(world)?;
    let text = "MATCH (a:Person)-[:KNOWS]->(b:Person) RETURN count(*), sum(a.score + b.score)".to_owned();
    Some(Drawn::new(|_| true, |caller| query(caller, id, text)))
}
