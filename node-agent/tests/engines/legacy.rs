//! Graphs of older agents, with columns that the engine cannot be trusted with.

use super::support::{PATIENCE, graph, id, limits, materialize, one, rows, stage, start, table};
use graphplane_node_agent::engines::{Database, Engines, ErrorClass, MaterializeRequest, StageMode};
use lbug::{Connection, SystemConfig};
use std::path::Path;

/// A graph that has such a column, as an agent without a guard would have made it.
fn make(directory: &Path) {
    let databases = directory.join("databases");
    std::fs::create_dir_all(&databases).unwrap();
    let config = SystemConfig::default().buffer_pool_size(64 << 20).max_db_size(1 << 30);
    let database = lbug::Database::new(databases.join("g.lbug"), config).unwrap();
    let connection = Connection::new(&database).unwrap();
    for statement in [
        "CREATE NODE TABLE T(identifier INT64 PRIMARY KEY, name STRING, prices DECIMAL(6, 2)[])",
        "CREATE (:T {identifier: 1, name: 'a', prices: [CAST('1.50' AS DECIMAL(6, 2)), CAST('2' AS DECIMAL(6, 2))]})",
    ] {
        connection.query(statement).unwrap();
    }
}

async fn opened(directory: &Path) -> (Engines, Database) {
    let engines = start(directory, limits()).await;
    let database = engines.database(&id("g")).await.unwrap();
    (engines, database)
}

#[tokio::test]
async fn a_column_that_ends_the_engine_is_read_and_dropped_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let (engines, g) = opened(directory.path()).await;
    for statement in [
        "CREATE (:T {identifier: 2, prices: ['1.5']})",
        "MATCH (n:T) SET n.prices = ['1.5']",
        "MATCH (n:T) WHERE n.Prices = ['1.5'] RETURN n",
        "MERGE (n:T {identifier: 1}) ON MATCH SET n.`prices` = ['1']",
    ] {
        let error = rows(&g, statement).await.expect_err(statement);
        assert_eq!(error.class(), ErrorClass::Forbidden, "{statement}: {error}");
        assert!(error.to_string().contains("drop it"), "{error}");
    }
    let staging = engines.staging(&id("g")).await.unwrap();
    let file = ("f", "SELECT 2 AS identifier, 'b' AS name, ['1.5'] AS prices");
    stage(&staging, "T", &[file], StageMode::ReplaceTable).await.unwrap();
    let request = MaterializeRequest::new(table("T"));
    let error = materialize(&g, &staging, request.clone()).await.unwrap_err();
    assert!(error.to_string().contains("prices"), "{error}");

    // What there is can be read, and the rest of the table be written.
    let node = one(&g, "MATCH (n:T) RETURN n").await;
    assert_eq!(node["prices"], serde_json::json!(["1.50", "2.00"]), "{node}");
    rows(&g, "CREATE (:T {identifier: 3, name: 'c'})").await.unwrap();
    rows(&g, "ALTER TABLE T DROP prices").await.unwrap();
    materialize(&g, &staging, request).await.unwrap();
    rows(&g, "MATCH (n:T) SET n.name = 'prices'").await.unwrap();
    rows(&g, "ALTER TABLE T ADD prices STRING[]").await.unwrap();
    assert_eq!(one(&g, "MATCH (n:T) WHERE n.prices IS NULL RETURN count(n)").await, 3);
    g.checkpoint(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn no_statement_gathers_decimals() {
    let (_directory, _engines, g) =
        graph("CREATE NODE TABLE T(identifier INT64 PRIMARY KEY, price DECIMAL(6, 2), tags STRING[])").await;
    rows(
        &g,
        "CREATE (:T {identifier: 1, price: CAST('1.5' AS DECIMAL(6, 2)), tags: ['1.50']})",
    )
    .await
    .unwrap();
    // Each of the first three would end this process.
    for statement in [
        "RETURN [CAST('1' AS DECIMAL(6, 2))] = ['1.5']",
        "MATCH (n:T) WITH collect(n.price) AS p, collect(n.tags[1]) AS q RETURN p = q",
        "MATCH (n:T) WITH n.price AS a MATCH (m:T {tags: [a]}) RETURN m",
        "EXPLAIN MATCH (n:T) RETURN collect(n.price)",
    ] {
        let error = rows(&g, statement).await.expect_err(statement);
        assert_eq!(error.class(), ErrorClass::Forbidden, "{statement}: {error}");
    }
    let cast = "MATCH (n:T) RETURN collect(CAST(n.price AS STRING)) = ['1.50']";
    assert_eq!(one(&g, cast).await, true);
    // Known at once: the column is new.
    rows(&g, "ALTER TABLE T ADD cost DECIMAL(6, 2)").await.unwrap();
    rows(&g, "MATCH (n:T) RETURN collect(n.cost)").await.unwrap_err();
    rows(&g, "CREATE MACRO wrapped(x) AS [x]").await.unwrap_err();
    rows(&g, "ALTER TABLE T DROP cost").await.unwrap();
    assert_eq!(one(&g, "MATCH (n:T) WHERE n.price > 1 RETURN count(n)").await, 1);
}
