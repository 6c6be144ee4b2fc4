//! Staging tables.

use super::{Draw, Drawn, Operation, select};
use crate::{fixture::parquet, world::World};
use serde_json::json;

pub(crate) const STAGING: &[Operation] = &[
    Operation {
        name: "upload people",
        draw: upload_people,
        marks: INCOMING,
    },
    Operation {
        name: "upload links",
        draw: upload_links,
        marks: INCOMING,
    },
    Operation {
        name: "replace table",
        draw: replace,
        marks: INCOMING,
    },
    Operation {
        name: "insert file",
        draw: insert,
        marks: INCOMING,
    },
    Operation {
        name: "remove file",
        draw: remove_file,
        marks: &[],
    },
    Operation {
        name: "drop table",
        draw: drop_table,
        marks: &[],
    },
];

const INCOMING: &[(&str, &str)] = &[("staging/kg1.incoming", "")];

/// New people.
fn upload_people(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    Some(upload(draw, id, batch, "Person"))
}

/// Links of people who are staged or in the graph.
fn upload_links(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let people = world.databases.iter().flat_map(|(id, content)| {
        let staged = content.staging.iter().filter(|((table, _), _)| table == "Person");
        let batches = staged
            .map(|(_, batch)| *batch)
            .chain(content.graph.batches.keys().copied());
        batches.map(move |batch| (id.clone(), batch))
    });
    let (id, batch) = draw.pick(people)?;
    Some(upload(draw, id, batch, "KNOWS"))
}

fn upload(draw: &mut Draw, id: String, batch: u64, table: &'static str) -> Drawn {
    let file = format!("f{}", draw.fresh());
    let body = parquet(&select(table, batch));
    let (of, key) = (id.clone(), (table.to_owned(), file.clone()));
    let step = move |world: &mut World| {
        world
            .staging(&of)
            .map(|staging| staging.insert(key.clone(), batch))
            .is_some()
    };
    Drawn::new(step, move |caller| async move {
        caller
            .put(&format!("/databases/{id}/tables/{table}/files/{file}"), body)
            .await
    })
}

/// The table consists of one file afterwards.
fn replace(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let uri = format!("file://{}", draw.file("Person", batch).display());
    let (of, key) = (id.clone(), ("Person".to_owned(), uri.clone()));
    let step = move |world: &mut World| {
        let Some(staging) = world.staging(&of) else {
            return false;
        };
        staging.retain(|(table, _), _| table != "Person");
        staging.insert(key.clone(), batch);
        true
    };
    Some(Drawn::new(step, |caller| async move {
        let body = json!({"graph_id": id, "table_name": "Person", "s3_pattern": uri});
        caller.post(&format!("/databases/{id}/tables"), body).await
    }))
}

fn insert(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, batch) = (draw.database(world)?, draw.fresh());
    let uri = format!("file://{}", draw.file("Person", batch).display());
    let (of, key) = (id.clone(), ("Person".to_owned(), uri.clone()));
    let step = move |world: &mut World| {
        world
            .staging(&of)
            .map(|staging| staging.insert(key.clone(), batch))
            .is_some()
    };
    Some(Drawn::new(step, |caller| async move {
        caller
            .post(
                &format!("/databases/{id}/tables/Person/insert"),
                json!({"s3_pattern": uri}),
            )
            .await
    }))
}

/// A file that was uploaded; the others have addresses for names.
fn uploaded(draw: &mut Draw, world: &World) -> Option<(String, (String, String))> {
    let files = world.databases.iter().flat_map(|(id, content)| {
        let keys = content
            .staging
            .keys()
            .filter(|(_, file)| file.starts_with('f') && !file.contains(':'));
        keys.map(move |key| (id.clone(), key.clone()))
    });
    draw.pick(files)
}

fn remove_file(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, key) = uploaded(draw, world)?;
    let path = format!("/databases/{id}/tables/{}/files/{}", key.0, key.1);
    let step = move |world: &mut World| world.staging(&id).map(|staging| staging.remove(&key)).is_some();
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}

fn drop_table(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, (table, _)) = uploaded(draw, world)?;
    let path = format!("/databases/{id}/tables/{table}");
    let step = move |world: &mut World| {
        let staging = world.staging(&id);
        staging
            .map(|staging| staging.retain(|(name, _), _| *name != table))
            .is_some()
    };
    Some(Drawn::new(step, |caller| async move { caller.delete(&path).await }))
}
