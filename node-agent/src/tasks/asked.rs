//! Whose request a task was started for: its end is told to the audit log together with that.

use super::record::TaskRecord;
use crate::http::KeyId;
use axum::http::HeaderValue;

tokio::task_local! {
    static ASKED: Asked;
}

/// A request, as the audit log names it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its id.
    pub request_id: HeaderValue,
    /// Whose it is.
    pub key: KeyId,
}

impl Asked {
    /// Does the work of this request: tasks that it starts are started for it.
    pub async fn during<W: Future>(self, work: W) -> W::Output {
        ASKED.scope(self, work).await
    }

    /// The request that is worked on now, if this is the work of one.
    pub(super) fn now() -> Option<Self> {
        ASKED.try_with(Clone::clone).ok()
    }
}

/// Tells the audit log how a task ended. Why it failed is not in it, since that may have a tenant's values.
pub(super) fn audit(record: &TaskRecord, asked: Option<&Asked>) {
    tracing::info!(
        target: "audit",
        task = record.task_id,
        task_type = record.task_type.as_str(),
        graph = record.metadata.get("graph_id").and_then(|graph| graph.as_str()),
        outcome = record.status.as_str(),
        key = asked.map(|asked| asked.key.to_string()),
        request_id = asked.and_then(|asked| asked.request_id.to_str().ok()),
        duration_ms = record.duration().as_millis() as u64,
        "task ended"
    );
}
