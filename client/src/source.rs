//! Who can say where a graph is.

use crate::error::SourceError;
use async_trait::async_trait;

/// Where a graph is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// URL of the node agent that writes it.
    pub url: String,
    /// Epoch of that agent, to be sent along: an agent of another epoch refuses the call.
    pub epoch: Option<u64>,
    /// Name of the node.
    pub node: Option<String>,
    /// URLs that answer reads beside the writer, from seeds that may be a little older.
    pub readers: Vec<String>,
    /// Whether the graph was ready. One that was not may answer nevertheless.
    pub is_ready: bool,
}

/// What a source says of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is served.
    Found(Place),
    /// It exists, in this state, and nobody serves it.
    NotReady(String),
    /// It does not exist.
    NotFound,
}

/// Somebody who can say where a graph is: the REST API, the registries, or a source of the caller's own.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Looks for a graph. `graph` is a valid graph id. One attempt: repeating it, and bounding its time, is the resolver's.
    async fn find(&self, graph: &str) -> Result<Answer, SourceError>;
}
