//! The command line against a whole control plane, as docs/cli.md, docs/tiers.md and docs/api.md show it.
#![allow(missing_docs, clippy::unwrap_used)]

use graphplane_tests::{Plane, repository};
use serde_json::{Value, json};

const DDL: &str = "CREATE NODE TABLE Airport(iata STRING PRIMARY KEY, name STRING, city STRING, state STRING, \
     country STRING, latitude DOUBLE, longitude DOUBLE);
     CREATE REL TABLE Route(FROM Airport TO Airport, flights INT64);";

#[test]
fn a_graph_is_made_loaded_asked_saved_and_deleted() {
    let plane = Plane::start();
    let config = repository().join("config/graph.yml");
    plane.graphplane(&["tiers", "check", config.to_str().unwrap()]).ok();
    let tiers = plane
        .graphplane(&["tiers", "render", "--environment", "development"])
        .ok();
    plane.kubectl_with(&["apply", "-f", "-"], Some(&tiers)).ok();

    let schema = plane.dir().join("airports.cypher");
    std::fs::write(&schema, DDL).unwrap();
    let create = [
        "create",
        "graph",
        "airports",
        "--schema-file",
        schema.to_str().unwrap(),
        "--wait",
    ];
    let created = plane.graphplane(&create);
    assert!(
        format!("{}{}", created.stdout, created.stderr).contains("graph airports is ready"),
        "{created:?}"
    );
    assert_eq!(plane.graphplane(&create).code, Some(7), "it exists already");

    let folder = repository().join("examples/airports");
    plane.graphplane(&["load", "airports", folder.to_str().unwrap()]).ok();
    let from_lga = "MATCH (:Airport {iata: $code})-[r:Route]->(b) \
         RETURN b.iata, r.flights ORDER BY r.flights DESC LIMIT 3";
    let answer = plane
        .graphplane(&["query", "airports", from_lga, "-p", "code=LGA", "-o", "csv"])
        .ok();
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines, ["b.iata,r.flights", "BOS,12035", "DCA,11063", "ORD,10862"]);
    // A column without a name of its own is called what the engine calls it.
    assert_eq!(
        plane.query("airports", "MATCH (a:Airport) RETURN count(*), count(*) AS airports"),
        [json!({"COUNT_STAR()": 3376, "airports": 3376})]
    );
    let sql = "SELECT state, count(*) AS airports FROM Airport GROUP BY state ORDER BY 2 DESC LIMIT 1";
    let rows = plane.graphplane(&["sql", "airports", sql, "-o", "json"]).ok();
    assert_eq!(
        serde_json::from_str::<Value>(&rows).unwrap(),
        json!([{"state": "AK", "airports": 263}])
    );
    assert_eq!(plane.graphplane(&["query", "airports", "nonsense"]).code, Some(2));
    assert_eq!(plane.graphplane(&["query", "nowhere", "RETURN 1"]).code, Some(3));

    // Tables that the graph does not have come from the files' columns, if that is wanted.
    plane.graphplane(&["create", "graph", "books", "--wait"]).ok();
    let load = ["load", "books", folder.to_str().unwrap()];
    plane.graphplane(&load).failed();
    let create = ["--create-tables", "--relationship", "Route=Airport:Airport"];
    plane.graphplane(&[&load[..], &create].concat()).ok();
    assert_eq!(
        plane.query(
            "books",
            "MATCH (:Airport)-[r:Route]->(:Airport) RETURN count(r) AS routes"
        ),
        [json!({"routes": 5366})]
    );
    plane.graphplane(&["delete", "graph", "books", "--wait"]).ok();

    let status = plane.graphplane(&["status"]).ok();
    assert!(status.contains("graph airports  Ready"), "{status}");
    plane.graphplane(&["backup", "airports", "--name", "b1", "--wait"]).ok();
    let phase = ["get", "backup", "b1", "-o", "jsonpath={.status.phase}"];
    assert_eq!(plane.kubectl(&phase).ok(), "Completed");
    plane.graphplane(&["delete", "graph", "airports", "--wait"]).ok();
    assert_eq!(plane.kubectl(&["get", "graphs", "-A", "-o", "name"]).ok(), "");
}
