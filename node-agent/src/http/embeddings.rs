//! `POST /embeddings`: vectors of texts, by the model that the node was started with.

use super::{BODY_LIMIT, body, error::ApiError, openapi::Operation, validation::Fields};
use crate::{
    embed::{EmbedError, Embedder},
    state::{AppState, PATIENCE},
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

const TEXTS: RangeInclusive<usize> = 1..=256;
/// Most characters of a text. Models read less than that; it keeps the tokenizer from reading on and on.
const TEXT_LENGTH: usize = 32_768;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /embeddings",
            "embeddings",
            "Vectors of texts, by the node's model",
        )
        .reads(read_texts)
        .gives::<Embeddings>("A vector for each text, in their order.")
        .fails(&[501]),
    ]
}

/// Vectors of texts.
#[derive(Serialize, JsonSchema)]
struct Embeddings {
    /// The model, by its name and a hash of its files: vectors of two models cannot be compared.
    model: String,
    dimension: usize,
    embeddings: Vec<Vec<f32>>,
}

/// The model that turns texts into vectors.
#[derive(Serialize, JsonSchema)]
pub(super) struct EmbeddingModel {
    configured: bool,
    model: Option<String>,
    dimension: Option<usize>,
}

/// Answers with one vector per text, in their order.
pub(super) async fn post(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let embedder = configured(&state)?;
    let mut fields = Fields::parse(&body::read(request.into_body(), BODY_LIMIT).await?)?;
    let texts = read_texts(&mut fields);
    fields.finish()?;
    let embeddings = embed(&state, texts).await?;
    body::value(&Embeddings {
        model: embedder.model().to_owned(),
        dimension: embedder.dimension(),
        embeddings,
    })
}

fn read_texts(fields: &mut Fields) -> Vec<String> {
    fields.shape("texts", || {
        let text = json!({"type": "string", "maxLength": TEXT_LENGTH});
        json!({"type": "array", "minItems": TEXTS.start(), "maxItems": TEXTS.end(), "items": text})
    });
    let texts = fields.texts("texts");
    match &texts {
        None => fields.missing("texts"),
        Some(texts) if !TEXTS.contains(&texts.len()) => {
            fields.wrong("too_long", "texts", "List should have 1 to 256 items", &Value::Null);
        }
        Some(texts) if texts.iter().any(|text| text.chars().count() > TEXT_LENGTH) => {
            let message = "Every text should have at most 32768 characters";
            fields.wrong("string_too_long", "texts", message, &Value::Null);
        }
        Some(_) => {}
    }
    texts.unwrap_or_default()
}

/// Vectors of texts. Requests take turns: each keeps a core busy and holds the memory of a batch.
///
/// # Errors
/// 501 without a model, 503 when no turn comes, 500 when the model fails.
pub(super) async fn embed(state: &AppState, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ApiError> {
    let embedder = configured(state)?;
    let turns = Arc::clone(&state.embed_turns).acquire_owned();
    // Nobody closes the semaphore; if somebody did, it would be as busy for ever.
    let Ok(Ok(turn)) = tokio::time::timeout(PATIENCE, turns).await else {
        let reason = "Other requests keep the embedding model busy";
        let pause = Duration::from_secs(5);
        let busy = ApiError::unavailable("Server temporarily unavailable", reason, "reject_embeddings", pause);
        return Err(busy.rejected("embeddings"));
    };
    let work = tokio::task::spawn_blocking(move || {
        // Until the work is done, also for a caller who no longer waits for it.
        let _turn = turn;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        embedder.embed(&texts)
    });
    let failed = |error: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    work.await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error: EmbedError| failed(error.to_string()))
}

/// What `/info` says of the model.
pub(super) fn info(state: &AppState) -> EmbeddingModel {
    let embedder = state.embedder.as_deref();
    EmbeddingModel {
        configured: embedder.is_some(),
        model: embedder.map(|embedder| embedder.model().to_owned()),
        dimension: embedder.map(Embedder::dimension),
    }
}

fn configured(state: &AppState) -> Result<Arc<dyn Embedder>, ApiError> {
    state.embedder.clone().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "This node has no embedding model: start it with --embedding-model DIR (GRAPHPLANE_EMBEDDING_MODEL), or send vectors",
        )
    })
}
