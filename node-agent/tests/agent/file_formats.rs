//! CSV, JSON and Arrow through the API: by the ending of a name, by the field `format`, and as uploads.

use crate::fixture::{Agent, PEOPLE};
use serde_json::json;

#[tokio::test]
async fn the_ending_or_the_request_says_the_format() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let agent = Agent::with(&["--import-dir", base.to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    std::fs::write(base.join("a.csv"), "identifier,name,score\n1,one,1.5\n2,two,\n").unwrap();
    std::fs::write(base.join("b.jsonl"), "{\"identifier\": 3, \"name\": \"three\"}\n").unwrap();
    std::fs::write(base.join("c.txt"), "identifier,name\n4,four\n").unwrap();
    let at = |name: &str| format!("file://{}/{name}", base.display());
    let body = json!({"table_name": "Person", "s3_pattern": [at("a.csv"), at("b.jsonl")]});
    let made = agent.post("/databases/kg1/tables", body).await.ok();
    assert_eq!(
        (&made["row_count"], &made["kind"]),
        (&json!(3), &json!("node")),
        "{made}"
    );
    let insert = "/databases/kg1/tables/Person/insert";
    // Without an ending that says otherwise it is Parquet, which this is not.
    let refused = agent.post(insert, json!({"s3_pattern": at("c.txt")})).await;
    assert_eq!(refused.status.as_u16(), 400);
    let body = json!({"s3_pattern": at("c.txt"), "format": "csv"});
    assert_eq!(agent.post(insert, body).await.ok()["row_count"], 4);
    let upload = agent
        .put(
            "/databases/kg1/tables/Person/files/up?format=json",
            b"[{\"identifier\": 5, \"name\": \"five\"}]".to_vec(),
        )
        .await
        .ok();
    assert_eq!((&upload["row_count"], &upload["total_rows"]), (&json!(1), &json!(5)));
    let wrong = agent
        .put("/databases/kg1/tables/Person/files/up?format=avro", b"x".to_vec())
        .await;
    assert_eq!(wrong.status.as_u16(), 400);
    // A value that does not fit says where it is, and nothing of its file is there.
    std::fs::write(base.join("d.csv"), "identifier,name\n6,six\nseven,7\n").unwrap();
    let refused = agent.post(insert, json!({"s3_pattern": at("d.csv")})).await;
    assert_eq!(refused.status.as_u16(), 400);
    let detail = &refused.text;
    for part in ["d.csv", "identifier", "row 2", "seven"] {
        assert!(detail.contains(part), "{detail}");
    }
    let done = agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    assert_eq!(done["rows_ingested"], 5, "{done}");
    assert_eq!(
        agent
            .number("kg1", "MATCH (p:Person) RETURN CAST(sum(p.identifier) AS INT64)")
            .await,
        15
    );
}
