//! Events about tokens that came from elsewhere.

use super::secret::Token;
use crate::FIELD_MANAGER;
use graphplane_crds::GraphNode;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long nothing more is said about a node. Whoever has its token could otherwise fill the store with events.
const QUIET: Duration = Duration::from_secs(60);
/// The API takes at most 1 kB.
const LONGEST_NOTE: usize = 1000;

/// Tells of misused tokens, with restraint.
pub(crate) struct Misuses {
    recorder: Recorder,
    told: Told,
}

/// When something was said of each node.
#[derive(Default)]
struct Told(Mutex<HashMap<String, Instant>>);

impl Misuses {
    /// Nothing was said yet.
    pub(crate) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client, reporter),
            told: Told::default(),
        }
    }

    /// Writes an Event about a node, unless one was written a moment ago. One that cannot be written is in the log.
    pub(super) async fn tell(&self, node: &GraphNode, token: Token, note: String) {
        let name = node.name_any();
        if !self.told.is_news(&name, Instant::now()) {
            return;
        }
        let (reason, what) = match token {
            Token::Bootstrap => ("BootstrapTokenMisused", "its one-time token was used"),
            Token::Credential | Token::Offered => ("CredentialMisused", "its credential was used"),
        };
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(format!("{what} {note}").chars().take(LONGEST_NOTE).collect()),
            action: "Register".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &node.object_ref(&())).await {
            tracing::warn!(node = name, reason, %error, "an event was not written");
        }
    }

    /// Forgets nodes that are gone.
    pub(crate) fn forget(&self, gone: impl Fn(&str) -> bool) {
        self.told.forget(gone);
    }
}

impl Told {
    fn is_news(&self, node: &str, now: Instant) -> bool {
        let mut told = self.0.lock();
        if told
            .get(node)
            .is_some_and(|before| now.saturating_duration_since(*before) < QUIET)
        {
            return false;
        }
        told.insert(node.to_owned(), now);
        true
    }

    fn forget(&self, gone: impl Fn(&str) -> bool) {
        self.0.lock().retain(|node, _| !gone(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_news_once_in_a_while() {
        let told = Told::default();
        let start = Instant::now();
        assert!(told.is_news("n1", start) && told.is_news("n2", start));
        assert!(!told.is_news("n1", start + QUIET / 2));
        assert!(told.is_news("n1", start + QUIET));
        told.forget(|node| node == "n1");
        assert!(told.is_news("n1", start + QUIET) && !told.is_news("n2", start + QUIET / 2));
    }
}
