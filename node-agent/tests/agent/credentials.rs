//! How an agent proves its machine, and how its credential is replaced, whatever is lost on the way.

use crate::{
    fixture::{Agent, Answer, eventually},
    plane::{API_KEY, CREDENTIAL, Plane, TOKEN, serve},
};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, put},
};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

async fn managed(plane: &Plane) -> Agent {
    let root = TempDir::new().unwrap();
    let config = plane.config(root.path());
    let mut agent = Agent::launch(root, &["--config", config.to_str().unwrap()], &[]).await;
    agent.key = API_KEY.to_owned();
    active(&agent).await;
    agent
}

async fn active(agent: &Agent) {
    let state = || async { Answer::to(agent.bare(Method::GET, "/info")).await.ok()["state"].clone() };
    eventually("the agent is active", state, |state| state == "active").await;
}

fn identity(agent: &Agent) -> Value {
    let text = std::fs::read(agent.volume().join("agent.identity.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Waits until the volume has these credentials: the one in use, and the one that was offered.
async fn kept(agent: &Agent, credential: &str, offered: Option<&str>) {
    let wanted = (json!(credential), json!(offered));
    let look = || async {
        let identity = identity(agent);
        (identity["credential"].clone(), identity["offered"].clone())
    };
    eventually("the credentials are on the volume", look, |seen| *seen == wanted).await;
}

fn last_token(plane: &Plane) -> String {
    plane.registrations().last().unwrap().0.clone()
}

#[tokio::test]
async fn a_new_credential_takes_the_place_of_the_old_one() {
    let plane = Plane::start().await;
    let mut agent = managed(&plane).await;
    kept(&agent, CREDENTIAL, None).await;
    plane.say(|says| says.offer = Some("second-credential"));
    kept(&agent, "second-credential", None).await;
    assert_eq!(plane.credential(), "second-credential");
    assert_eq!(plane.registrations().len(), 1, "renewals alone replace it");
    agent.restart_after_kill().await;
    active(&agent).await;
    assert_eq!(last_token(&plane), "second-credential");
    for secret in [TOKEN, CREDENTIAL, "second-credential"] {
        assert!(!agent.log().contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn an_offer_that_is_lost_on_its_way_changes_nothing() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    plane.say(|says| {
        says.offer = Some("second-credential");
        says.lose_answer = true;
    });
    let served = plane.renewals().len();
    let renewals = || async { plane.renewals().len() };
    eventually("renewals go on", renewals, |count| *count >= served + 3).await;
    assert_eq!(plane.credential(), CREDENTIAL);
    assert_eq!(identity(&agent)["offered"], json!(null));
    plane.say(|says| says.offer = Some("third-credential"));
    kept(&agent, "third-credential", None).await;
    assert_eq!(plane.registrations().len(), 1);
}

#[tokio::test]
async fn an_agent_that_crashes_with_an_offer_comes_back() {
    let plane = Plane::start().await;
    let mut agent = managed(&plane).await;
    let file = agent.volume().join("agent.identity.json");
    let before = std::fs::read(&file).unwrap();
    let offer = |credential| {
        plane.say(|says| {
            says.offer = Some(credential);
            says.silent_after_offer = true;
        });
    };
    offer("second-credential");
    kept(&agent, CREDENTIAL, Some("second-credential")).await;
    agent.kill();
    // As if it had crashed before the offer was on the volume.
    std::fs::write(&file, before).unwrap();
    plane.say(|says| says.silent = false);
    agent.spawn().await;
    active(&agent).await;
    assert_eq!(
        (last_token(&plane), plane.credential()),
        (CREDENTIAL.into(), CREDENTIAL.into())
    );

    offer("third-credential");
    kept(&agent, CREDENTIAL, Some("third-credential")).await;
    agent.kill();
    plane.say(|says| says.silent = false);
    agent.spawn().await;
    active(&agent).await;
    assert_eq!(last_token(&plane), "third-credential");
    kept(&agent, "third-credential", None).await;
}

#[tokio::test]
async fn an_offer_that_the_control_plane_forgot_is_dropped() {
    let plane = Plane::start().await;
    let agent = managed(&plane).await;
    plane.say(|says| {
        says.offer = Some("second-credential");
        says.silent_after_offer = true;
    });
    kept(&agent, CREDENTIAL, Some("second-credential")).await;
    plane.withdraw();
    plane.say(|says| says.silent = false);
    kept(&agent, CREDENTIAL, None).await;
    assert_eq!(last_token(&plane), CREDENTIAL);
    active(&agent).await;
}

type Document = Arc<Mutex<Option<&'static str>>>;

async fn session(headers: HeaderMap) -> (StatusCode, &'static str) {
    match headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
        true => (StatusCode::OK, "session"),
        false => (StatusCode::BAD_REQUEST, ""),
    }
}

async fn fact(State(document): State<Document>, Path(name): Path<String>, headers: HeaderMap) -> (StatusCode, String) {
    if headers["x-aws-ec2-metadata-token"] != "session" {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    match (*document.lock(), name.as_str()) {
        (Some(text), "document") => (StatusCode::OK, text.to_owned()),
        (Some(_), "signature") => (StatusCode::OK, "c2ln\nbmVk".to_owned()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

#[tokio::test]
async fn an_agent_on_aws_registers_with_the_proof_of_its_machine() {
    let plane = Plane::start().await;
    let document = Document::default();
    let router = Router::new()
        .route("/latest/api/token", put(session))
        .route("/latest/dynamic/instance-identity/{name}", get(fact))
        .with_state(Arc::clone(&document));
    let service = serve(router).await;
    let root = TempDir::new().unwrap();
    let config = plane.config(root.path());
    let mut written: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    written["identity"] = json!("aws");
    std::fs::write(&config, written.to_string()).unwrap();
    let envs = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.as_str())];
    let mut agent = Agent::launch(root, &["--config", config.to_str().unwrap()], &envs).await;
    agent.key = API_KEY.to_owned();

    // Without a proof there is no use in asking, and the token stays where it is.
    let log = || async { agent.log() };
    eventually("the agent says what it lacks", log, |log| {
        log.contains("the metadata service answers 404")
    })
    .await;
    assert!(plane.registrations().is_empty());
    *document.lock() = Some("{ \"instanceId\" : \"i-1\" }\n");
    active(&agent).await;
    let sent = |plane: &Plane| plane.registrations().last().unwrap().1["identity"].clone();
    let proof = json!({"document": "{ \"instanceId\" : \"i-1\" }\n", "signature": "c2ln\nbmVk"});
    assert_eq!(sent(&plane), proof);

    *document.lock() = Some("{ \"instanceId\" : \"i-1\", \"pendingTime\" : \"later\" }");
    agent.restart_after_kill().await;
    active(&agent).await;
    assert!(
        sent(&plane)["document"].as_str().unwrap().contains("later"),
        "it is read anew"
    );
}
