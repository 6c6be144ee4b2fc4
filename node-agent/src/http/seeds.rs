//! `POST /admin/seed/refresh`: a look for newer seeds now; and what `/info` says of seeds.

use super::{body, error::ApiError, headers};
use crate::{seeds::SeedStatus, state::AppState};
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};
use std::time::Duration;

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
    body::value(&json!({"seeds": list(&state)}))
}

/// The followed seeds with what is served of them.
pub(super) fn list(state: &AppState) -> Vec<Value> {
    state.seeds.list().iter().map(seed).collect()
}

fn seed(status: &SeedStatus) -> Value {
    let mut value = json!(status);
    value["age_seconds"] = json!(status.served.as_ref().map(|served| served.age_seconds()));
    value
}
