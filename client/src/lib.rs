//! Finds where a graph is served, so that a data plane can call its node agent directly.
//!
//! The REST API knows, and so do the registries in DynamoDB, which are there while the control plane is not. A
//! [`Resolver`] asks them in the order that it is given:
//!
//! ```no_run
//! # async fn example(dynamodb: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use graphplane_client::{Registry, Resolver, Rest, Settings, Source};
//! use std::sync::Arc;
//!
//! let sources: Vec<Arc<dyn Source>> = vec![
//!     Arc::new(Rest::new("https://graphs.example.org", "gpk_…", None)?),
//!     Arc::new(Registry::new(dynamodb, "graphplane")),
//! ];
//! let resolver = Resolver::new(sources, Settings::default())?;
//!
//! let endpoint = resolver.resolve("kg0123456789abcdef_dev").await?;
//! let url = format!("{}/databases/{}/query", endpoint.url, endpoint.database);
//! // Call it with the node's key and `endpoint.epoch`. When it cannot be reached, or answers that it has another epoch:
//! resolver.invalidate(&endpoint.database);
//! # let _ = url;
//! # Ok(())
//! # }
//! ```
//!
//! | what | how |
//! |---|---|
//! | answers are remembered | for [`Freshness::ttl`]; that there is no such graph for [`Freshness::negative_ttl`] |
//! | nobody answers | the last known place is used for [`Freshness::longest_stale`], and says so (`is_stale`) |
//! | many callers at once | one question for each graph |
//! | a source in trouble | is left alone by a circuit [`breaker`], a bounded time for each answer |
//! | retries | with full jitter, and only as many as a shared [`budget`] allows |
//! | memory | a bounded number of graphs; the least recently used is forgotten |
//!
//! A subgraph is served where its parent is, so that only graphs are looked up. Ids are checked before anybody is asked.

pub mod breaker;
pub mod budget;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod error;
mod freshness;
mod id;
mod resolver;
mod rest;
mod source;

#[cfg(feature = "dynamodb")]
pub use dynamodb::Registry;
pub use error::{Error, SourceError};
pub use freshness::{Age, Freshness, Use};
pub use resolver::{Endpoint, Resolver, Settings};
pub use rest::Rest;
pub use source::{Answer, Place, Source};
