//! Registration, renewal, fencing and epochs, against a control plane that can fall silent.

use crate::{
    fixture::{Agent, Answer, PEOPLE, eventually, people},
    plane::{API_KEY, CREDENTIAL, Plane, TOKEN},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

async fn managed(plane: &Plane) -> Agent {
    let root = TempDir::new().unwrap();
    let config = plane.config(root.path());
    let mut agent = Agent::launch(root, &["--config", config.to_str().unwrap()], &[]).await;
    agent.key = API_KEY.to_owned();
    agent
}

async fn state(agent: &Agent) -> Value {
    Answer::to(agent.bare(Method::GET, "/info")).await.ok()["state"].clone()
}

async fn until(agent: &Agent, wanted: &str) {
    eventually(&format!("state {wanted}"), || state(agent), |state| state == wanted).await;
}

#[tokio::test]
async fn an_agent_registers_once_with_its_token_and_then_with_its_credential() {
    let plane = Plane::start().await;
    let mut agent = managed(&plane).await;
    until(&agent, "active").await;
    let (token, body) = plane.registrations()[0].clone();
    assert_eq!(token, TOKEN);
    assert_eq!(
        (&body["node"], &body["volumeEpoch"], &body["databases"]),
        (&json!("node-1"), &json!(0), &json!([]))
    );
    assert_eq!(body["address"], json!(agent.url));
    assert_eq!(
        body["engines"],
        json!({"ladybug": "0.22.1", "ladybugStorage": "49", "duckdb": "1.5.6"})
    );
    assert!(body["capacity"]["memoryMiB"].as_u64().unwrap() > 0 && body["capacity"]["diskMiB"].as_u64().unwrap() > 0);

    // The figures of the tier are in force.
    let info = agent.get("/info").await.ok();
    assert_eq!((&info["max_databases"], &info["epoch"]), (&json!(3), &json!(4)));
    assert_eq!(info["configuration"]["query_limits"]["timeout_seconds"], 20);
    assert_eq!(
        std::fs::read_to_string(agent.volume().join("epoch")).unwrap().trim(),
        "4"
    );
    let identity = agent.volume().join("agent.identity.json");
    assert_eq!(
        std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777,
        0o600
    );

    agent.database("kg1", PEOPLE).await;
    let newest = || async { plane.renewals().last().cloned().unwrap_or_default() };
    let renewal = eventually("a renewal that names the database", newest, |renewal| {
        renewal["databases"][0]["id"] == "kg1"
    })
    .await;
    assert_eq!((&renewal["epoch"], &renewal["fenced"]), (&json!(4), &json!(false)));
    assert!(renewal["databases"][0]["sizeBytes"].as_u64().unwrap() > 0);
    assert!(renewal["memoryUsedMiB"].as_u64().unwrap() > 0 && renewal["diskFreeMiB"].is_u64());

    // New figures arrive with a renewal, without a restart.
    plane.say(|says| says.query_timeout = 7);
    let limits = || async { agent.get("/info").await.ok()["configuration"]["query_limits"].clone() };
    eventually("the new limit", limits, |limits| limits["timeout_seconds"] == 7).await;

    plane.say(|says| says.epoch = 5);
    agent.restart_after_kill().await;
    until(&agent, "active").await;
    let (token, body) = plane.registrations().last().unwrap().clone();
    assert_eq!(
        (token.as_str(), &body["volumeEpoch"], &body["databases"]),
        (CREDENTIAL, &json!(4), &json!(["kg1"]))
    );
    assert_eq!(agent.get("/info").await.ok()["epoch"], 5);
    for secret in [TOKEN, CREDENTIAL, API_KEY] {
        assert!(!agent.log().contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn a_renewal_tells_of_every_change_and_of_nothing_else() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    // The second renewal from now on was certainly begun after it.
    let revision = || async {
        let before = plane.renewals().len();
        let count = || async { plane.renewals().len() };
        eventually("two renewals", count, |count| *count >= before + 2).await;
        let newest = plane.renewals().last().cloned().unwrap_or_default();
        newest["databases"][0]["revision"].as_u64().unwrap()
    };
    let made = revision().await;
    agent.cypher("kg1", "MATCH (n) RETURN count(*)").await.ok();
    agent.backup("kg1", "backups/kg1/one", false).await;
    assert_eq!(revision().await, made, "what is read, and copied, is not changed");
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
    let written = revision().await;
    assert!(written > made);
    let ddl = json!({"type": "ddl", "ddl": "CREATE NODE TABLE City(name STRING PRIMARY KEY);"});
    agent.post("/databases/kg1/schema", ddl).await.ok();
    let grown = revision().await;
    assert!(grown > written);
    agent
        .restore("kg1", json!({"s3_key": "backups/kg1/one", "force_overwrite": true}))
        .await;
    assert!(revision().await > grown);
}

#[tokio::test]
async fn a_silent_control_plane_fences_the_agent() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();

    plane.say(|says| says.last_lease_seconds = Some(2));
    until(&agent, "fenced").await;
    let refused = agent.cypher("kg1", "CREATE (:Person {identifier: 2})").await;
    let detail = refused.fails(503);
    assert_eq!(detail["reason"], "fenced", "{detail}");
    assert!(refused.header("retry-after").is_some());
    agent.post("/databases", json!({"graph_id": "kg2"})).await.fails(503);
    agent
        .put("/databases/kg1/tables/Person/files/f", vec![1])
        .await
        .fails(503);
    agent.delete("/databases/kg1").await.fails(503);
    agent
        .post("/databases/kg1/restore", json!({"s3_key": "k"}))
        .await
        .fails(503);
    agent.get("/databases/kg1/backup").await.fails(503);
    // Reads go on.
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);

    plane.say(|says| {
        says.last_lease_seconds = None;
        says.silent = false;
    });
    until(&agent, "active").await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 2})").await.ok();
}

#[tokio::test]
async fn a_write_that_runs_when_the_lease_ends_is_interrupted() {
    let plane = Plane::start().await;
    plane.say(|says| says.query_timeout = 600);
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent
        .database(
            "kg1",
            "CREATE NODE TABLE N(id INT64 PRIMARY KEY); CREATE NODE TABLE M(id INT64 PRIMARY KEY);",
        )
        .await;
    agent
        .cypher("kg1", "UNWIND range(1, 3000) AS i CREATE (:N {id: i})")
        .await
        .ok();
    // Searches for hours what is not there before it would write: far longer than the lease.
    let write = "MATCH (a:N), (b:N), (c:N), (d:N) WHERE a.id + b.id + c.id + d.id = -1 CREATE (:M {id: a.id})";
    let lease_ends = async {
        agent.runs("kg1", 1).await;
        plane.say(|says| says.last_lease_seconds = Some(1));
    };
    let (answer, ()) = tokio::join!(agent.cypher("kg1", write), lease_ends);
    let detail = answer.fails(503);
    assert_eq!(detail["reason"], "fenced", "{detail}");
    assert!(
        detail["error"].as_str().unwrap().contains("while this statement ran"),
        "{detail}"
    );
    assert_eq!(agent.number("kg1", "MATCH (m:M) RETURN count(m)").await, 0);
}

#[tokio::test]
async fn a_refused_renewal_fences_at_once() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    // Another agent got the volume: renewals are refused, and so is an older epoch at the next registration.
    plane.say(|says| {
        says.refuse_renewals = true;
        says.epoch = 3;
    });
    until(&agent, "fenced").await;
    let registered = plane.registrations().len();
    let count = || async { plane.registrations().len() };
    eventually("attempts to register again", count, |count| *count > registered + 1).await;
    assert_eq!(state(&agent).await, "fenced", "an answer with a lower epoch was taken");
    assert_eq!(
        std::fs::read_to_string(agent.volume().join("epoch")).unwrap().trim(),
        "4"
    );
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.fails(503);
    plane.say(|says| {
        says.refuse_renewals = false;
        says.epoch = 6;
    });
    until(&agent, "active").await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
}

#[tokio::test]
async fn a_change_for_another_epoch_is_refused() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    let send = |epoch: &'static str, cypher: &'static str| {
        let request = agent
            .request(Method::POST, "/databases/kg1/query")
            .header("X-Graphplane-Epoch", epoch);
        async move { Answer::to(request.json(&json!({"cypher": cypher}))).await }
    };
    send("4", "CREATE (:Person {identifier: 1})").await.ok();
    send("3", "CREATE (:Person {identifier: 2})").await.fails(409);
    send("5", "CREATE (:Person {identifier: 2})").await.fails(409);
    send("3", "MATCH (p:Person) RETURN count(p)").await.ok();
    for (method, path) in [
        (Method::DELETE, "/databases/kg1"),
        (Method::POST, "/databases/kg1/restore"),
        (Method::GET, "/databases/kg1/backup"),
    ] {
        let request = agent.request(method, path).header("X-Graphplane-Epoch", "3");
        Answer::to(request).await.fails(409);
    }
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);
}

#[tokio::test]
async fn only_changes_are_refused_and_counted_for_their_epoch() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    let send = |method: Method, path: &'static str, epoch: &'static str, body: Value| {
        let request = agent.request(method, path).header("X-Graphplane-Epoch", epoch);
        async move { Answer::to(request.json(&body)).await }
    };
    let (query, sql) = ("/databases/kg1/query", "/databases/kg1/tables/query");
    let refusals = async || {
        let metrics = Answer::to(agent.bare(Method::GET, "/metrics")).await.text;
        let lines = metrics
            .lines()
            .filter(|l| l.starts_with("graphplane_agent_rejected_total{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let read = json!({"cypher": "MATCH (p:Person) RETURN count(p)"});
    // The gateway sends 0 for who may only read.
    for epoch in ["0", "3"] {
        send(Method::POST, query, epoch, read.clone()).await.ok();
        send(Method::POST, sql, epoch, json!({"sql": "SELECT 1"})).await.ok();
        send(Method::GET, "/databases/kg1/tables", epoch, json!(null))
            .await
            .ok();
    }
    let change = json!({"cypher": "CREATE (:Person {identifier: 1})"});
    let refused = send(Method::POST, query, "0", change.clone()).await.fails(403);
    assert!(refused.to_string().contains("may only read"), "{refused}");
    assert_eq!(refusals().await, Vec::<String>::new());
    send(Method::POST, query, "3", change).await.fails(409);
    assert_eq!(
        refusals().await,
        ["graphplane_agent_rejected_total{reason=\"epoch\"} 1"]
    );
}

#[tokio::test]
async fn loads_of_a_day_are_limited_by_the_tier_across_restarts() {
    let plane = Plane::start().await;
    plane.say(|says| says.loads_per_day = 2);
    let mut agent = managed(&plane).await;
    until(&agent, "active").await;
    for graph in ["kg1", "kg2"] {
        agent.database(graph, PEOPLE).await;
        let file = format!("/databases/{graph}/tables/Person/files/f");
        agent.put(&file, people(10)).await.ok();
    }
    let load = "/databases/kg1/tables/Person/materialize";
    for wrong in [json!({"surplus": 1}), json!({"file_ids": "f"})] {
        agent.post(load, wrong).await.fails(422);
    }
    agent.post(load, json!({})).await.ok();
    agent.post(load, json!({})).await.ok();
    let refused = agent.post(load, json!({})).await;
    let wait: i64 = refused.header("retry-after").unwrap().parse().unwrap();
    let detail = refused.fails(429);
    assert_eq!(
        (&detail["reason"], &detail["limit"]),
        (&json!("copy_per_day"), &json!(2))
    );
    let resets: jiff::Timestamp = detail["resets_at"].as_str().unwrap().parse().unwrap();
    assert!(
        resets.as_second() % 86_400 == 0 && (1..=86_400).contains(&wait),
        "{detail}, {wait} s"
    );
    agent
        .post("/databases/kg2/tables/Person/materialize", json!({}))
        .await
        .ok();

    agent.restart_after_kill().await;
    until(&agent, "active").await;
    agent.post(load, json!({})).await.fails(429);
    plane.say(|says| says.loads_per_day = -1);
    let again = || async { agent.post(load, json!({})).await.status };
    eventually("the tier's new figure has reached the agent", again, |status| {
        *status == 200
    })
    .await;
}

#[tokio::test]
async fn before_registration_nobody_gets_in() {
    let plane = Plane::start().await;
    plane.say(|says| says.silent = true);
    let agent = managed(&plane).await;
    let health = Answer::to(agent.bare(Method::GET, "/health")).await.ok();
    assert_eq!(health["accepts_writes"], false);
    let refused = agent.get("/databases").await;
    assert_eq!(refused.fails(503)["reason"], "registering");
    assert!(refused.header("retry-after").is_some());
    plane.say(|says| says.silent = false);
    until(&agent, "active").await;
    agent.get("/databases").await.ok();
    let stranger = agent.bare(Method::GET, "/databases").header("X-Graph-API-Key", "other");
    Answer::to(stranger).await.fails(401);
}

#[tokio::test]
async fn a_restarted_agent_reads_before_it_is_registered_again() {
    let plane = Plane::start().await;
    let mut agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    plane.say(|says| says.silent = true);
    agent.restart_after_kill().await;
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 0);
    let detail = agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.fails(503);
    assert_eq!(detail["reason"], "registering");
}

#[tokio::test]
async fn the_control_plane_can_drain_a_node() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.database("kg1", PEOPLE).await;
    plane.say(|says| says.draining = true);
    until(&agent, "draining").await;
    assert_eq!(
        agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.fails(503)["reason"],
        "draining"
    );
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 0);
    let status = Answer::to(agent.bare(Method::GET, "/status")).await;
    assert_eq!(status.status.as_u16(), 503);
    assert!(status.header("retry-after").is_some());
    agent.get("/health").await.ok();
}

#[tokio::test]
async fn a_replica_of_the_control_plane_only_reads() {
    let plane = Plane::start().await;
    plane.say(|says| says.role = "replica");
    let agent = managed(&plane).await;
    until(&agent, "active").await;
    agent.post("/databases", json!({"graph_id": "kg1"})).await.fails(403);
    assert_eq!(agent.get("/info").await.ok()["node_type"], "shared_replica");
}

#[tokio::test]
async fn a_volume_of_another_node_lends_no_identity() {
    let plane = Plane::start().await;
    let root = TempDir::new().unwrap();
    let config = plane.config(root.path());
    std::fs::create_dir_all(root.path().join("volume")).unwrap();
    let stranger = json!({"node": "node-0", "credential": "strangers", "apiKey": "strangers", "epoch": 3});
    std::fs::write(root.path().join("volume/agent.identity.json"), stranger.to_string()).unwrap();
    std::fs::write(root.path().join("volume/epoch"), "3\n").unwrap();
    let mut agent = Agent::launch(root, &["--config", config.to_str().unwrap()], &[]).await;
    agent.key = API_KEY.to_owned();
    until(&agent, "active").await;
    let (token, body) = plane.registrations()[0].clone();
    assert_eq!((token.as_str(), &body["volumeEpoch"]), (TOKEN, &json!(3)));
}
