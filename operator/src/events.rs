//! Events: what happened to an object, for people who look at it with `kubectl describe`.
//!
//! They are sent by a task of their own, one after the other: a reconcile does not wait for them, and a full queue drops
//! them. What matters for machines is in the conditions.

use graphplane_crds::conditions::{self, reasons};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Name of the operator in events and as field manager.
pub(crate) const NAME: &str = "graphplane-operator";
/// Events that wait to be sent. A burst beyond it is a storm that nobody reads.
const QUEUE: usize = 1024;
/// The API takes at most 1 kB.
const LONGEST_NOTE: usize = 1000;

/// Where events are handed in.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    /// A queue, and the task that sends what is in it until `stop`.
    pub(crate) fn new(client: Client, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let recorder = Recorder::new(
            client,
            Reporter {
                controller: NAME.into(),
                instance: None,
            },
        );
        let send = async move {
            loop {
                let (event, object) = tokio::select! {
                    () = stop.cancelled() => return,
                    next = waiting.recv() => match next {
                        Some(next) => next,
                        None => return,
                    },
                };
                if let Err(error) = recorder.publish(&event, &object).await {
                    tracing::debug!(reason = event.reason, %error, "an event was not sent");
                }
            }
        };
        (Self { queue }, send)
    }

    /// Hands in an event.
    pub(crate) fn publish(&self, object: ObjectReference, type_: EventType, reason: &str, action: &str, note: String) {
        let note = Some(note.chars().take(LONGEST_NOTE).collect());
        let event = Event {
            type_,
            reason: reason.into(),
            note,
            action: action.into(),
            secondary: None,
        };
        if self.queue.try_send((event, object)).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

/// Reasons of conditions that somebody should look at.
const WORRYING: [&str; 18] = [
    reasons::AGENT_ERROR,
    reasons::BACKUP_FAILED,
    reasons::DATABASE_MISSING,
    reasons::DELETION_PROTECTED,
    reasons::DOES_NOT_FIT,
    reasons::LEASE_EXPIRED,
    reasons::NAME_TAKEN,
    reasons::NODE_LOST,
    reasons::NO_CAPACITY,
    reasons::PROVIDER_ERROR,
    reasons::PUBLISH_FAILED,
    reasons::REPLACEMENT_FAILED,
    reasons::RESTARTING,
    reasons::SCHEMA_CONFLICT,
    reasons::SCHEMA_REFUSED,
    reasons::SEED_NOT_SERVED,
    reasons::VOLUME_IN_USE,
    reasons::WAITING_FOR_DEPENDENTS,
];

/// What changed between two lists of conditions, in words: type of event, reason, note.
pub(crate) fn announce(before: &[Condition], after: &[Condition]) -> Vec<(EventType, String, String)> {
    let mut news = Vec::new();
    let mut tell = |type_: &str, when: &str| {
        let Some(now) = conditions::get(after, type_) else {
            return;
        };
        let same = |c: &Condition| (c.status.as_str(), c.reason.as_str()) == (now.status.as_str(), now.reason.as_str());
        if now.status != when || conditions::get(before, type_).is_some_and(same) {
            return;
        }
        // Two conditions may tell the same.
        if news.iter().any(|(_, reason, _)| *reason == now.reason) {
            return;
        }
        let worrying = type_ == conditions::STALLED || WORRYING.contains(&now.reason.as_str());
        let kind = if worrying {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let note = if now.message.is_empty() {
            format!("{type_} is {}", now.status)
        } else {
            now.message.clone()
        };
        news.push((kind, now.reason.clone(), note));
    };
    tell(conditions::STALLED, "True");
    tell(conditions::DELETING, "True");
    tell(conditions::PAUSED, "True");
    tell(conditions::READY, "True");
    tell(conditions::READY, "False");
    tell(conditions::PROGRESSING, "True");
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphplane_crds::conditions::Says;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn written(says: &[Says]) -> Vec<Condition> {
        conditions::merge(&[], says, 1, &Time(jiff::Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn only_news_is_told_and_says_why_not() {
        let waiting = written(&[Says::no(
            conditions::READY,
            reasons::NO_CAPACITY,
            "raise scaling.maxNodes",
        )]);
        let told = announce(&[], &waiting);
        assert_eq!(
            told,
            [(
                EventType::Warning,
                reasons::NO_CAPACITY.to_owned(),
                "raise scaling.maxNodes".to_owned()
            )]
        );
        assert!(announce(&waiting, &waiting).is_empty());
        let ready = written(&[Says::yes(conditions::READY, reasons::READY, "")]);
        assert_eq!(announce(&waiting, &ready)[0].0, EventType::Normal);
        assert!(announce(&ready, &ready).is_empty());
    }

    #[test]
    fn the_same_is_told_once() {
        let says = [
            Says::no(conditions::READY, reasons::TIER_NOT_FOUND, "create it"),
            Says::yes(conditions::STALLED, reasons::TIER_NOT_FOUND, "create it"),
        ];
        let told = announce(&[], &written(&says));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, EventType::Warning);
    }
}
