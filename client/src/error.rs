//! What can go wrong when a graph is looked for.

use std::sync::Arc;
use std::time::Duration;

/// A graph that was not found, or not looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No graph can have this id; nobody was asked.
    #[error("`{0}` is not the id of a graph or of a subgraph's database")]
    InvalidId(String),
    /// There is no such graph.
    #[error("graph `{0}` does not exist")]
    NotFound(String),
    /// There is such a graph, and nobody serves it at the moment.
    #[error("graph `{graph}` is {state}: nobody serves it at the moment")]
    NotReady {
        /// Its id.
        graph: String,
        /// Its state in one word.
        state: String,
    },
    /// Nobody could say where the graph is, and nothing usable was remembered.
    #[error("nobody can say where graph `{graph}` is: {}", in_words(failures))]
    Unavailable {
        /// Its id.
        graph: String,
        /// What became of the last attempt at each source.
        failures: Arc<[SourceError]>,
    },
    /// The resolver is set up wrongly.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotReady { .. } | Self::Unavailable { .. })
    }
}

fn in_words(failures: &[SourceError]) -> String {
    let words: Vec<String> = failures.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// A source that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or is in trouble.
    #[error("{name} is in trouble: {message}")]
    Failed {
        /// Which source.
        name: &'static str,
        /// Why.
        message: String,
    },
    /// It did not answer in time.
    #[error("{name} did not answer within {limit:?}")]
    Timeout {
        /// Which source.
        name: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// It refuses to answer; asking again is of no use.
    #[error("{name} refuses: {message}")]
    Refused {
        /// Which source.
        name: &'static str,
        /// Why.
        message: String,
    },
    /// It did not answer before, and is left alone for a while.
    #[error("{name} is left alone for {wait:?}, since it did not answer")]
    LeftAlone {
        /// Which source.
        name: &'static str,
        /// For how long.
        wait: Duration,
    },
}

impl SourceError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Timeout { .. })
    }
}
