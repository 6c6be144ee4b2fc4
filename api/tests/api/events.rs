//! Operations as server-sent events.

use crate::plane::{EDITOR, PATIENCE, Plane};
use crate::resources::karate;
use futures::StreamExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

/// The events of a stream, as they come.
struct Events {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Events {
    async fn of(plane: &Plane, operation: &str) -> Self {
        let response = plane
            .request("GET", &format!("{operation}/events"), EDITOR)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            bytes: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// Name and content of the next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::trim)
                        .map(str::to_owned)
                };
                // Lines that begin with a colon keep the connection open.
                let Some(name) = field("event:") else { continue };
                return Some((name, serde_json::from_str(&field("data:").unwrap()).unwrap()));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.bytes.next())
                .await
                .expect("an event comes")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// Waits for an event of this name about this stage or status.
    async fn until(&mut self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (event, content) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended without {name}"));
            if event == name && holds(&content) {
                return content;
            }
        }
    }
}

#[tokio::test]
async fn a_creation_is_followed_to_its_end() {
    let plane = Plane::start().await;
    let operation = plane.post("/v1/graphs", karate()).await.expect(202).text("/links/self");
    let mut events = Events::of(&plane, &operation).await;
    let (name, connected) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &connected["status"]), ("connected", &json!("pending")));
    plane
        .graph_status(
            "default",
            "karate",
            json!({}),
            &[
                ("Placed", "True", "Placed"),
                ("DatabaseReady", "False", "CreatingDatabase"),
            ],
        )
        .await;
    let progress = events
        .until("progress", |operation| operation["stage"] == "DatabaseReady")
        .await;
    assert_eq!(progress["progressPercent"], 25);
    plane
        .graph_status("default", "karate", json!({}), &[("Ready", "True", "Ready")])
        .await;
    let done = events.until("completed", |_| true).await;
    assert_eq!((&done["status"], &done["done"]), (&json!("completed"), &json!(true)));
    assert!(events.next().await.is_none(), "the stream ends with the operation");

    // Whoever comes late hears the same end.
    let mut late = Events::of(&plane, &operation).await;
    assert_eq!(late.next().await.unwrap().0, "connected");
    assert_eq!(late.next().await.unwrap().0, "completed");
    assert!(late.next().await.is_none());
}

#[tokio::test]
async fn a_stalled_operation_fails_with_its_reason() {
    let plane = Plane::start().await;
    let operation = plane.post("/v1/graphs", karate()).await.expect(202).text("/links/self");
    let mut events = Events::of(&plane, &operation).await;
    let stalled = [("Ready", "False", "NoCapacity"), ("Stalled", "True", "NoCapacity")];
    plane.graph_status("default", "karate", json!({}), &stalled).await;
    let failed = events.until("failed", |_| true).await;
    assert_eq!(
        (&failed["reason"], &failed["message"]),
        (&json!("NoCapacity"), &json!("because NoCapacity"))
    );
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_deletion_is_followed_until_the_object_is_gone() {
    let plane = Plane::start().await;
    plane.post("/v1/graphs", karate()).await.expect(202);
    let graphs = plane.graphs("default");
    let hold = json!({"metadata": {"finalizers": ["graphplane.dev/finalizer"]}});
    graphs
        .patch("karate", &PatchParams::default(), &Patch::Merge(&hold))
        .await
        .unwrap();
    let operation = plane
        .call("DELETE", "/v1/graphs/karate", EDITOR, None)
        .await
        .expect(202)
        .text("/links/self");
    let mut events = Events::of(&plane, &operation).await;
    plane
        .graph_status("default", "karate", json!({}), &[("Deleting", "True", "FinalSnapshot")])
        .await;
    events
        .until("progress", |operation| operation["reason"] == "FinalSnapshot")
        .await;
    graphs
        .patch(
            "karate",
            &PatchParams::default(),
            &Patch::Merge(&json!({"metadata": {"finalizers": null}})),
        )
        .await
        .unwrap();
    let done = events.until("completed", |_| true).await;
    assert_eq!(done["message"], "deleted");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_graph_that_is_deleted_while_it_is_made_fails_its_creation() {
    let plane = Plane::start().await;
    let operation = plane.post("/v1/graphs", karate()).await.expect(202).text("/links/self");
    let mut events = Events::of(&plane, &operation).await;
    plane
        .graphs("default")
        .delete("karate", &DeleteParams::default())
        .await
        .unwrap();
    let failed = events.until("failed", |_| true).await;
    assert_eq!(failed["reason"], "Deleted");
}

#[tokio::test]
async fn followers_are_limited_and_end_with_the_server() {
    let plane = Plane::with(|mut settings| {
        settings.max_event_streams = 1;
        settings
    })
    .await;
    let operation = plane.post("/v1/graphs", karate()).await.expect(202).text("/links/self");
    let mut events = Events::of(&plane, &operation).await;
    assert_eq!(events.next().await.unwrap().0, "connected");
    let refused = plane.get(&format!("{operation}/events")).await.expect(503);
    assert_eq!(refused.problem(), "unavailable");
    plane.stop.cancel();
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn ids_that_are_made_up_lead_nowhere() {
    let plane = Plane::start().await;
    for id in ["x", "op_", "op_AAAA", "op_%2e%2e"] {
        assert_eq!(
            plane.get(&format!("/v1/operations/{id}")).await.expect(404).problem(),
            "not-found",
            "{id}"
        );
        assert_eq!(
            plane
                .get(&format!("/v1/operations/{id}/events"))
                .await
                .expect(404)
                .problem(),
            "not-found",
            "{id}"
        );
    }
}
