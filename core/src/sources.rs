//! Which objects a node may read with its own credentials when a tenant names them, and which endpoints a tenant may name.
//!
//! A node's credentials reach what all of its tenants may read, and often more. So they are used for [`SourcePlace`]s
//! alone; for everything else a request brings credentials of its own.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What stands for the graph's id in a place.
pub const GRAPH: &str = "{graph}";

const MAX_LENGTH: usize = 1024;

/// A rule that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidSourceRule {
    /// The refused text, cut to 100 characters.
    pub value: String,
    /// The rule in words.
    pub expected: &'static str,
}

/// A bucket and a path in it: an object, or a folder and everything below.
///
/// Paths are compared by segments, so `a/b` does not hold `a/bc`, and a path with an empty segment, `.` or `..` is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    bucket: String,
    segments: Vec<String>,
}

impl Location {
    /// The location of this path in a bucket; the empty path is the whole bucket. `None` for a path that has a segment
    /// which is empty, `.` or `..`.
    pub fn new(bucket: &str, path: &str) -> Option<Self> {
        let segments: Vec<String> = match path {
            "" => Vec::new(),
            path => path.split('/').map(str::to_owned).collect(),
        };
        let plain = |segment: &String| !matches!(segment.as_str(), "" | "." | "..");
        (!bucket.is_empty() && segments.iter().all(plain)).then(|| Self {
            bucket: bucket.to_owned(),
            segments,
        })
    }

    /// Whether the other one is this one, or below it.
    pub fn holds(&self, other: &Self) -> bool {
        self.bucket == other.bucket && other.segments.starts_with(&self.segments)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// A place from which tenants may load with the node's credentials: `s3://bucket/folder`. `{graph}` in it stands for the
/// id of the graph that is loaded, so that each has a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourcePlace(Location);

impl SourcePlace {
    /// The place of one graph; subgraphs load from that of their parent.
    pub fn of(&self, graph: &str) -> Location {
        let filled = |text: &String| text.replace(GRAPH, graph);
        Location {
            bucket: filled(&self.0.bucket),
            segments: self.0.segments.iter().map(filled).collect(),
        }
    }
}

impl FromStr for SourcePlace {
    type Err = InvalidSourceRule;

    fn from_str(text: &str) -> Result<Self, InvalidSourceRule> {
        let literal = text.replace(GRAPH, "");
        let wild = |c: char| matches!(c, '{' | '}' | '*' | '?' | '[' | ']' | '\\') || c.is_control();
        let place = text.strip_prefix("s3://").and_then(|rest| {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            Location::new(bucket, path.strip_suffix('/').unwrap_or(path))
        });
        place
            .filter(|_| text.len() <= MAX_LENGTH && !literal.contains(wild))
            .map(Self)
            .ok_or_else(|| InvalidSourceRule {
                value: text.chars().take(100).collect(),
                expected: "a place of sources: expected s3://bucket/folder without wildcards, where {graph} may stand for the graph's id",
            })
    }
}

/// An endpoint of an object store that requests may name although its address is not public: `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceEndpoint(String);

impl SourceEndpoint {
    /// Scheme, host and port as the origin of a URL is written: lower case, without the usual port.
    pub fn origin(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceEndpoint {
    type Err = InvalidSourceRule;

    fn from_str(text: &str) -> Result<Self, InvalidSourceRule> {
        let lower = text.to_ascii_lowercase();
        let origin = [("http://", ":80"), ("https://", ":443")]
            .into_iter()
            .find_map(|(scheme, usual)| {
                let authority = lower.strip_prefix(scheme)?.trim_end_matches('/');
                let host = authority.strip_suffix(usual).unwrap_or(authority);
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
                (!host.is_empty() && host.chars().all(plain)).then(|| format!("{scheme}{host}"))
            });
        origin
            .filter(|_| text.len() <= MAX_LENGTH)
            .map(Self)
            .ok_or_else(|| InvalidSourceRule {
                value: text.chars().take(100).collect(),
                expected: "an endpoint: expected http://host:port or https://host:port, without a path",
            })
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidSourceRule;
            fn try_from(text: String) -> Result<Self, InvalidSourceRule> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(rule: $name) -> Self {
                rule.to_string()
            }
        }
    )*};
}
as_text!(SourcePlace, SourceEndpoint);

/// The rules of a node. Without any, its own credentials are used for nothing that a tenant names, and endpoints that
/// tenants name are public ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRules {
    /// Where the node's own credentials may read.
    #[serde(rename = "sources", default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<SourcePlace>,
    /// What requests with credentials of their own may name beside public endpoints.
    #[serde(rename = "sourceEndpoints", default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SourceEndpoint>,
}

impl SourceRules {
    /// Whether the node may read this with its own credentials for this graph. `kept` is what the platform keeps for
    /// itself: a place opens something of it only if it is a folder in it, and not because it holds all of it.
    pub fn may_read(&self, graph: &str, asked: &Location, kept: Option<&Location>) -> bool {
        self.places.iter().map(|place| place.of(graph)).any(|place| {
            let named = |kept: &Location| kept.holds(&place) && place != *kept;
            place.holds(asked) && kept.is_none_or(|kept| !kept.holds(asked) || named(kept))
        })
    }

    /// Both rules' places and endpoints.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        Self {
            places: self.places.iter().chain(&more.places).cloned().collect(),
            endpoints: self.endpoints.iter().chain(&more.endpoints).cloned().collect(),
        }
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
