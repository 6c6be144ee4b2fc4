//! The README's five-minute tour, with the answers checked.
#![allow(missing_docs, clippy::unwrap_used)]

use graphplane_tests::{Plane, repository};
use serde_json::{Value, json};

const TOP_ROUTES: &str = "MATCH (a:Airport)-[r:Route]->(b:Airport) \
     RETURN a.iata, b.iata, r.flights ORDER BY r.flights DESC, a.iata LIMIT 5";

/// The same aggregate, by DuckDB straight from the Parquet files.
fn true_routes() -> Vec<Value> {
    let folder = repository().join("examples/airports");
    let duckdb = duckdb::Connection::open_in_memory().unwrap();
    let sql = format!(
        r#"SELECT a.iata, b.iata, r.flights
           FROM '{0}/Route.parquet' r
           JOIN '{0}/Airport.parquet' a ON a.iata = r."from"
           JOIN '{0}/Airport.parquet' b ON b.iata = r."to"
           ORDER BY r.flights DESC, a.iata LIMIT 5"#,
        folder.display()
    );
    let mut statement = duckdb.prepare(&sql).unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok(json!({
                "a.iata": row.get::<_, String>(0)?,
                "b.iata": row.get::<_, String>(1)?,
                "r.flights": row.get::<_, i64>(2)?,
            }))
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn load(plane: &Plane) {
    let folder = repository().join("examples/airports");
    // Relationships first on the command line: nodes must be loaded first all the same.
    let loaded = plane
        .graphplane(&[
            "load",
            "airports",
            folder.join("Route.parquet").to_str().unwrap(),
            folder.join("Airport.parquet").to_str().unwrap(),
        ])
        .ok();
    assert!(
        loaded.contains("3,376") || loaded.contains("3376"),
        "rows of Airport: {loaded}"
    );
    assert!(
        loaded.contains("5,366") || loaded.contains("5366"),
        "rows of Route: {loaded}"
    );
}

#[test]
fn the_tour_gives_the_true_answers() {
    let mut plane = Plane::start();
    let manifest = repository().join("examples/airports/graph.yaml");
    let applied = plane.kubectl(&["apply", "-f", manifest.to_str().unwrap()]).ok();
    assert!(applied.contains("graph.graphplane.dev/airports created"), "{applied}");
    plane.until_ready("airports");

    let columns = plane.kubectl(&["get", "graphs"]).ok();
    let header: Vec<_> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[..3], ["NAME", "READY", "PHASE"], "{columns}");
    assert!(
        columns.lines().nth(1).unwrap().split_whitespace().nth(1) == Some("True"),
        "{columns}"
    );

    load(&plane);
    assert_eq!(plane.query("airports", TOP_ROUTES), true_routes());

    // A workspace that begins as a copy, and from then on is one of its own.
    let fork = json!({"name": "dev", "forkParent": true});
    let forked = plane
        .rest("POST", "/v1/graphs/airports/subgraphs", Some(&fork))
        .expect(202);
    let operation = forked.json()["id"].as_str().unwrap().to_owned();
    plane.until("the fork is made", || {
        plane.rest("GET", &format!("/v1/operations/{operation}"), None).json()["status"] == "completed"
    });
    let workspace = |cypher: &str| {
        let body = json!({"database": "airports_dev", "cypher": cypher});
        plane
            .rest("POST", "/v1/graphs/airports_dev/query", Some(&body))
            .expect(200)
            .json()["data"]
            .clone()
    };
    assert_eq!(workspace(TOP_ROUTES), json!(true_routes()));
    workspace("MATCH ()-[r:Route]->() DELETE r");
    assert_eq!(plane.query("airports", TOP_ROUTES), true_routes());

    // The same by REST: an operation to follow, then the query through the gateway.
    let created = plane
        .rest(
            "POST",
            "/v1/graphs",
            Some(&json!({
                "name": "members", "tier": "laptop",
                "schema": {"type": "custom", "ddl": "CREATE NODE TABLE Member(id INT64 PRIMARY KEY, club STRING);"},
            })),
        )
        .expect(202);
    assert!(
        created.headers.to_lowercase().contains("location: /v1/operations/"),
        "{}",
        created.headers
    );
    let operation = created.json()["id"].as_str().unwrap().to_owned();
    plane.until("the operation is done", || {
        plane.rest("GET", &format!("/v1/operations/{operation}"), None).json()["status"] == "completed"
    });
    plane
        .rest(
            "POST",
            "/v1/graphs/members/query",
            Some(&json!({"database": "members", "cypher": "CREATE (:Member {id: 1, club: 'chess'})"})),
        )
        .expect(200);
    let answer = plane
        .rest(
            "POST",
            "/v1/graphs/members/query",
            Some(&json!({
                "database": "members",
                "cypher": "MATCH (m:Member) WHERE m.id = $id RETURN m.club",
                "parameters": {"id": 1},
            })),
        )
        .expect(200)
        .json();
    assert_eq!(answer["data"], json!([{"m.club": "chess"}]));

    // Stop, start: everything is back, nothing was created twice.
    let id_before = plane
        .kubectl(&["get", "graph", "airports", "-o", "jsonpath={.status.graphId}"])
        .ok();
    let nodes_before = plane.kubectl(&["get", "graphnodes", "-o", "name"]).ok();
    let tier = ["tier", "ladybug-standard"];
    let change = ["--type=merge", "-p", r#"{"spec": {"description": "mine"}}"#];
    plane.kubectl(&[&["patch"][..], &tier[..], &change].concat()).ok();
    plane.stop();
    assert_eq!(plane.agents(), [], "stopping stops the agents");
    assert!(
        !plane.dir().join("endpoints.json").exists(),
        "what is not served is not announced"
    );
    plane.start_again();
    assert_eq!(
        plane
            .kubectl(&[&["get"][..], &tier[..], &["-o", "jsonpath={.spec.description}"]].concat())
            .ok(),
        "mine",
        "tiers that exist are not changed"
    );
    plane.until_ready("airports");
    plane.until("the query answers again", || {
        plane.graphplane(&["query", "airports", "RETURN 1"]).code == Some(0)
    });
    assert_eq!(plane.query("airports", TOP_ROUTES), true_routes());
    assert_eq!(
        plane.query("members", "MATCH (m:Member) RETURN count(*) AS n"),
        [json!({"n": 1})]
    );
    assert_eq!(
        plane
            .kubectl(&["get", "graph", "airports", "-o", "jsonpath={.status.graphId}"])
            .ok(),
        id_before
    );
    assert_eq!(plane.kubectl(&["get", "graphnodes", "-o", "name"]).ok(), nodes_before);

    // Deletion: a final snapshot is kept, then process and directory go.
    plane.kubectl(&["delete", "graph", "airports", "--timeout=240s"]).ok();
    let backups = plane.kubectl(&["get", "backups", "-o", "json"]).ok();
    let backups: Value = serde_json::from_str(&backups).unwrap();
    let (kept, of_subgraphs): (Vec<&Value>, Vec<&Value>) = backups["items"]
        .as_array()
        .unwrap()
        .iter()
        .partition(|backup| backup["spec"]["subgraph"].is_null());
    assert_eq!((kept.len(), of_subgraphs.len()), (1, 1), "{backups}");
    assert_eq!(kept[0]["status"]["phase"], "Completed");
    assert_eq!(of_subgraphs[0]["status"]["phase"], "Completed");
    assert_eq!(kept[0]["status"]["nodeCount"], 3376);
    let key = kept[0]["status"]["key"].as_str().unwrap();
    assert!(
        plane.dir().join("objects").join(key).join("manifest.json").is_file(),
        "{key}"
    );
    plane.kubectl(&["delete", "graph", "members", "--timeout=240s"]).ok();
    plane.until("the empty node's process is gone", || plane.agents().is_empty());
    plane.until("its directory is gone", || {
        std::fs::read_dir(plane.dir().join("volumes")).map_or(0, |entries| entries.count()) == 0
    });
    assert_eq!(
        plane
            .kubectl(&["get", "graphs,graphnodes,graphvolumes", "-A", "-o", "name"])
            .ok(),
        ""
    );
}
