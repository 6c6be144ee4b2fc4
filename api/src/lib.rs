//! The REST API of Graphplane: it writes resources and reads their status, and passes queries on to node agents.
//!
//! ```text
//!  client ── key ──▶ auth ──▶ graphs, subgraphs, backups, tiers ──▶ Kubernetes API   (resources are the only state)
//!                      │          operations: a view of conditions, followed over SSE
//!                      └────▶ gateway ──▶ node agent of the graph                    (streams both ways)
//!  node agent ── token ──▶ nodes: registration, lease ──▶ GraphNode.status, Lease
//! ```
//!
//! There is no database here: everything that outlives a request is a Kubernetes object. What is kept in memory (watch
//! caches, circuit breakers, failure counters) can be lost at any time without harm, so that any number of servers may
//! run side by side.
//!
//! ```no_run
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use graphplane_api::{BootstrapKey, ConnectionLimits, Settings};
//! let settings = Settings::new("laptop").with_key(BootstrapKey::admin("up", "gp_0123…", "default"));
//! let router = graphplane_api::start(client, settings).await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! graphplane_api::serve(listener, router, ConnectionLimits::default(), stop).await?;
//! # Ok(()) }
//! ```

mod auth;
mod backups;
mod body;
mod cache;
mod error;
mod gateway;
mod graphs;
mod health;
mod idempotency;
mod metrics;
mod names;
mod nodes;
pub mod openapi;
mod operations;
mod pagination;
mod problem;
mod query;
mod resources;
mod routes;
mod server;
mod settings;
mod state;
mod subgraphs;
mod tiers;
pub mod types;
mod volumes;

pub use auth::{BootstrapKey, Role};
pub use error::Error;
pub use graphplane_client::breaker::{Breaker, BreakerSettings, Decision};
pub use nodes::identity::{CertificateError, IdentityCertificates};
pub use server::{ConnectionLimits, serve};
pub use settings::{AwsIdentity, GatewaySettings, LeaseSettings, Settings};

use axum::Router;

/// Name under which this server owns fields of the objects that it writes.
pub const FIELD_MANAGER: &str = "graphplane-api";

/// The API as a router, with its watch caches filling in the background.
///
/// Requests are answered at once; until the caches are filled `/readyz` says so and the gateway asks the Kubernetes API
/// itself. The background tasks end when the last clone of the router is dropped.
///
/// # Errors
/// The HTTP client of the gateway cannot be built.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn router(client: kube::Client, settings: Settings) -> Result<Router, Error> {
    let state = state::App::new(client, settings)?;
    Ok(routes::build(state))
}

/// Like [`router`], and returns when every watch cache is filled.
///
/// # Errors
/// As [`router`]; and the caches are not filled within [`Settings::cache_timeout`], which is so when the API server
/// cannot be reached or does not know the resource types.
pub async fn start(client: kube::Client, settings: Settings) -> Result<Router, Error> {
    let timeout = settings.cache_timeout;
    let state = state::App::new(client, settings)?;
    tokio::time::timeout(timeout, state.caches.ready())
        .await
        .map_err(|_| Error::CachesNotReady {
            seconds: timeout.as_secs(),
            missing: state.caches.missing(),
        })?;
    Ok(routes::build(state))
}
