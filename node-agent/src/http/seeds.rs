//! `POST /admin/seed/refresh`: a look for newer seeds now; and what `/info` says of seeds.

use super::{body, error::ApiError, headers, openapi::Operation, system::wait_seconds};
use crate::{
    seeds::{SeedStatus, SeedVersion},
    state::AppState,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new("post /admin/seed/refresh", "seed_refresh", "Looks for newer seeds now")
        .notes("Waits, if asked to, until that was done: a newer seed is served then, or refused. On replicas only.")
        .with([wait_seconds()])
        .fails(&[400])
        .gives::<SeedsRefreshed>("The followed seeds.");
    vec![operation]
}

#[derive(Serialize, JsonSchema)]
struct SeedsRefreshed {
    seeds: Vec<FollowedSeed>,
}

/// A seed that a replica follows.
#[derive(Serialize, JsonSchema)]
pub(super) struct FollowedSeed {
    /// The key that is followed.
    seed: String,
    /// The graph, once that is known.
    graph_id: Option<String>,
    /// `waiting`, `fetching`, `ready` or `refreshing`.
    state: &'static str,
    /// What is served.
    served: Option<ServedSeed>,
    /// Seconds since what is served was begun.
    age_seconds: Option<f64>,
    /// What the object store had when it was last asked.
    latest: Option<PublishedSeed>,
    /// When it was last asked and answered.
    checked_at: Option<String>,
    /// Why the newest seed is not served.
    error: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct ServedSeed {
    epoch: u64,
    version: u64,
    /// When it was begun: what was written later is not in it.
    created_at: String,
    /// Its files on this node.
    size_bytes: u64,
    node_count: u64,
    relationship_count: u64,
}

#[derive(Serialize, JsonSchema)]
struct PublishedSeed {
    epoch: u64,
    version: u64,
}

/// Has every followed seed looked at; with `?wait_seconds=n` waits until that was done, and a newer one is served or
/// refused.
pub(super) async fn refresh(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let wait = headers::wait_seconds(request.uri().query())?;
    if state.seeds.is_empty() {
        return Err(ApiError::bad_request(
            "this node follows no seeds; start it with --role replica and --seed",
        ));
    }
    state.seeds.refresh(Duration::from_secs(wait)).await;
    let seeds = list(&state);
    body::value(&SeedsRefreshed { seeds })
}

/// The followed seeds with what is served of them.
pub(super) fn list(state: &AppState) -> Vec<FollowedSeed> {
    state.seeds.list().into_iter().map(FollowedSeed::from).collect()
}

impl From<SeedStatus> for FollowedSeed {
    fn from(status: SeedStatus) -> Self {
        let SeedStatus {
            seed,
            graph_id,
            state,
            served,
            latest,
            checked_at,
            error,
        } = status;
        Self {
            seed,
            graph_id,
            state: state.as_str(),
            age_seconds: served.as_ref().map(|served| served.age_seconds()),
            served: served.map(|served| ServedSeed {
                epoch: served.at.epoch,
                version: served.at.version,
                created_at: served.created_at,
                size_bytes: served.size_bytes,
                node_count: served.node_count,
                relationship_count: served.relationship_count,
            }),
            latest: latest.map(|SeedVersion { epoch, version }| PublishedSeed { epoch, version }),
            checked_at,
            error,
        }
    }
}
