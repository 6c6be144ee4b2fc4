//! Events do not live for ever.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::is_gone;
use crate::cluster::Cluster;
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::metadata;

/// Looks per lifetime of an Event; one lives at most this fraction longer than it should.
const LOOKS: u32 = 60;

/// Deletes Events whose time is over, counted from their last change as kube-apiserver does.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let period = (cluster.event_ttl / LOOKS).max(Duration::from_millis(20));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let oldest = jiff::Timestamp::now() - jiff::SignedDuration::try_from(cluster.event_ttl).unwrap_or_default();
        for event in cluster.store.scan(|o| &*o.key.resource == "events") {
            if last_change(&event.value()).is_none_or(|time| time >= oldest) {
                continue;
            }
            let Some(target) = super::target(&cluster, &event.key) else {
                continue;
            };
            let options = DeleteOptions {
                uid: Some(event.facts.uid.to_string()),
                ..DeleteOptions::default()
            };
            match delete::delete(&cluster, &target, &options).await {
                Err(error) if !is_gone(&error) => tracing::warn!(%error, "an expired Event stays for now"),
                _ => {}
            }
        }
    }
}

/// When an Event was last written: the newest of the times in it.
fn last_change(event: &Value) -> Option<jiff::Timestamp> {
    let managed = metadata::of(event)
        .get("managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let written = managed
        .filter_map(|entry| entry["time"].as_str())
        .chain([metadata::text(event, "creationTimestamp")]);
    let happened = ["/lastTimestamp", "/eventTime", "/series/lastObservedTime"]
        .into_iter()
        .filter_map(|path| event.pointer(path).and_then(Value::as_str));
    written.chain(happened).filter_map(|text| text.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_time_counts() {
        let event = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "eventTime": "2026-01-01T00:00:01.5Z", "series": {"lastObservedTime": "2026-01-01T00:10:00.000000Z"}});
        assert_eq!(last_change(&event).unwrap(), "2026-01-01T00:10:00Z".parse().unwrap());
        assert_eq!(last_change(&json!({})), None);
    }
}
