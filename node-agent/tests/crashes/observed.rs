//! Reading the whole world back from an agent.

use super::{
    caller::Caller,
    history::Outcome,
    operations::vectors::path,
    world::{Batch, Content, DIMENSION, Graph, Staging, check_links, first, people, revision},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// All databases of an agent. An error says what is damaged.
pub(crate) async fn databases(caller: &Caller) -> Result<BTreeMap<String, Content>, String> {
    let told = |outcome: Outcome| format!("{outcome:?}");
    let list = caller.get("/databases").await.map_err(told)?;
    let mut databases = BTreeMap::new();
    for database in list["databases"].as_array().unwrap() {
        let id = database["graph_id"].as_str().unwrap().to_owned();
        let content = Content {
            graph: graph(caller, &id).await.map_err(|error| format!("{id}: {error}"))?,
            staging: staging(caller, &id).await.map_err(|error| format!("{id}: {error}"))?,
            vectors: vectors(caller, &id).await.map_err(|error| format!("{id}: {error}"))?,
        };
        databases.insert(id, content);
    }
    Ok(databases)
}

/// What a replica has of a graph.
pub(crate) async fn seed(caller: &Caller, id: &str) -> Result<Content, String> {
    Ok(Content {
        graph: graph(caller, id).await?,
        vectors: vectors(caller, id).await?,
        ..Content::default()
    })
}

async fn graph(caller: &Caller, id: &str) -> Result<Graph, String> {
    let told = |outcome: Outcome| format!("{outcome:?}");
    let schema = caller.get(&format!("/databases/{id}/schema")).await.map_err(told)?;
    let mut graph = Graph::default();
    for table in schema["tables"].as_array().unwrap() {
        graph.tables.insert(table["name"].as_str().unwrap().to_owned());
    }
    if !graph.tables.remove("Person") || !graph.tables.remove("KNOWS") {
        return Err(format!("tables of the schema are missing: {schema}"));
    }
    let rows = caller
        .cypher(
            id,
            "MATCH (p:Person) RETURN p.batch, count(*), sum(p.identifier), sum(p.score), sum(size(p.name))",
        )
        .await
        .map_err(told)?;
    for row in rows {
        let batch = whole(&row[0]);
        let revision = revision(batch, whole(&row[1]), whole(&row[2]), decimal(&row[3]), whole(&row[4]))?;
        let linked = false;
        graph.batches.insert(batch, Batch { revision, linked });
    }
    // From both ends, since each direction has storage of its own.
    for pattern in ["(a:Person)-[k:KNOWS]->(b:Person)", "(b:Person)<-[k:KNOWS]-(a:Person)"] {
        let text =
            format!("MATCH {pattern} RETURN k.batch, count(*), sum(a.identifier), sum(b.identifier), sum(k.weight)");
        for row in caller.cypher(id, &text).await.map_err(told)? {
            let batch = whole(&row[0]);
            check_links(batch, whole(&row[1]), whole(&row[2]), whole(&row[3]), decimal(&row[4]))?;
            let found = graph.batches.get_mut(&batch);
            found
                .ok_or_else(|| format!("batch {batch} has links and no people"))?
                .linked = true;
        }
    }
    // By the key's index, which is stored apart from the rows.
    for batch in graph.batches.keys() {
        let key = first(*batch) + people(*batch) - 1;
        let text = format!("MATCH (p:Person {{identifier: {key}}}) RETURN p.batch");
        if caller.cypher(id, &text).await.map_err(told)? != [[json!(batch)]] {
            return Err(format!("batch {batch}: the key {key} finds nothing"));
        }
    }
    Ok(graph)
}

async fn staging(caller: &Caller, id: &str) -> Result<Staging, String> {
    let told = |outcome: Outcome| format!("{outcome:?}");
    let mut staging = Staging::new();
    let tables = caller.get(&format!("/databases/{id}/tables")).await.map_err(told)?;
    for table in tables.as_array().unwrap() {
        let name = table["table_name"].as_str().unwrap();
        let columns = match name {
            "Person" => "sum(identifier)::BIGINT, sum(score), sum(length(name))::BIGINT",
            "KNOWS" => "sum(src)::BIGINT, sum(dst)::BIGINT, sum(weight)",
            other => return Err(format!("there is a staging table {other}")),
        };
        let sql = format!("SELECT file_id, batch, count(*), {columns} FROM {name} GROUP BY ALL");
        let answer = caller
            .post(&format!("/databases/{id}/tables/query"), json!({"sql": sql}))
            .await
            .map_err(told)?;
        for row in answer["rows"].as_array().unwrap() {
            let (batch, rows) = (whole(&row[1]), whole(&row[2]));
            if name == "Person" {
                revision(batch, rows, whole(&row[3]), decimal(&row[4]), whole(&row[5]))?;
            } else {
                check_links(batch, rows, whole(&row[3]), whole(&row[4]), decimal(&row[5]))?;
            }
            let key = (name.to_owned(), row[0].as_str().unwrap().to_owned());
            if staging.insert(key, batch).is_some() {
                return Err(format!("a file of {name} has rows of two batches: {answer}"));
            }
        }
    }
    Ok(staging)
}

async fn vectors(caller: &Caller, id: &str) -> Result<Option<BTreeSet<u64>>, String> {
    let told = |outcome: Outcome| format!("{outcome:?}");
    let info = caller.get(&path(id)).await.map_err(told)?;
    if info.is_null() {
        return Ok(None);
    }
    // With the index where there is one; then without it.
    let firsts = nearest(caller, id, "place = 0", false).await?;
    let batches: BTreeSet<u64> = firsts.iter().map(|row| whole(&row["batch"])).collect();
    for batch in &batches {
        let last = first(*batch) + people(*batch) - 1;
        let found = nearest(caller, id, &format!("identifier = {last}"), true).await?;
        if found.len() != 1 || found[0]["batch"] != *batch {
            return Err(format!("the last vector of batch {batch} is not there once: {found:?}"));
        }
    }
    let rows: u64 = batches.iter().map(|batch| people(*batch)).sum();
    if firsts.len() != batches.len() || info["row_count"] != rows {
        return Err(format!("vectors of the batches {firsts:?} are not those of {info}"));
    }
    Ok(Some(batches))
}

async fn nearest(caller: &Caller, id: &str, filter: &str, exact: bool) -> Result<Vec<Value>, String> {
    let body = json!({"embedding": vec![1; DIMENSION], "limit": 100, "filter": filter, "exact": exact});
    let answer = caller.post(&format!("{}/search", path(id)), body).await;
    let answer = answer.map_err(|outcome| format!("{outcome:?}"))?;
    Ok(answer["results"].as_array().unwrap().clone())
}

fn whole(value: &Value) -> u64 {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn decimal(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}
