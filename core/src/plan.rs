//! What every plan answers with.

use graphplane_crds::conditions::{self, Says, reasons};
use std::time::Duration;

/// What to do, what to say, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<A, P = ()> {
    /// Actions in order. Only the first is executed before the world is observed again; the others show what is to be
    /// expected.
    pub actions: Vec<A>,
    /// Conditions to write.
    pub says: Vec<Says>,
    /// The state in one word.
    pub phase: P,
    /// Look again after this time at the latest; `None` means when something changes.
    pub requeue: Option<Duration>,
}

/// How an object stands, as the conditions that every kind has say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as the spec says.
    Ready(String),
    /// It is being worked on: reason and message.
    Progressing(&'static str, String),
    /// It serves, and something is still being worked on: reason and message.
    ReadyAndProgressing(&'static str, String),
    /// Nothing can be done until the spec or the world changes: reason and message.
    Stalled(&'static str, String),
    /// It serves, and something in the spec cannot be done: reason and message.
    ReadyButStalled(&'static str, String),
    /// It does nothing, as the spec says: reason and message.
    Off(&'static str, String),
}

impl Verdict {
    /// Whether it serves, whatever else is to be done.
    pub fn serves(&self) -> bool {
        matches!(
            self,
            Self::Ready(_) | Self::ReadyAndProgressing(..) | Self::ReadyButStalled(..)
        )
    }

    /// Reason and message.
    pub fn why(&self) -> (&'static str, String) {
        match self {
            Self::Ready(message) => (reasons::READY, message.clone()),
            Self::Progressing(reason, message)
            | Self::ReadyAndProgressing(reason, message)
            | Self::Stalled(reason, message)
            | Self::ReadyButStalled(reason, message)
            | Self::Off(reason, message) => (*reason, message.clone()),
        }
    }

    /// `Ready`, `Progressing` and `Stalled`.
    pub fn says(&self) -> Vec<Says> {
        use conditions::{PROGRESSING, READY, STALLED};
        let idle = || Says::no(PROGRESSING, reasons::RECONCILED, "");
        let free = || Says::no(STALLED, reasons::RECONCILED, "");
        match self {
            Self::Ready(message) => vec![Says::yes(READY, reasons::READY, message), idle(), free()],
            Self::Progressing(reason, message) => {
                vec![
                    Says::no(READY, reason, message),
                    Says::yes(PROGRESSING, reason, message),
                    free(),
                ]
            }
            Self::ReadyAndProgressing(reason, message) => {
                vec![
                    Says::yes(READY, reasons::READY, ""),
                    Says::yes(PROGRESSING, reason, message),
                    free(),
                ]
            }
            Self::Stalled(reason, message) => {
                vec![
                    Says::no(READY, reason, message),
                    idle(),
                    Says::yes(STALLED, reason, message),
                ]
            }
            Self::ReadyButStalled(reason, message) => {
                vec![
                    Says::yes(READY, reasons::READY, ""),
                    idle(),
                    Says::yes(STALLED, reason, message),
                ]
            }
            Self::Off(reason, message) => vec![Says::no(READY, reason, message), idle(), free()],
        }
    }
}

/// `Paused`.
pub fn paused(by: Option<&str>) -> Says {
    match by {
        Some(by) => Says::yes(
            conditions::PAUSED,
            reasons::PAUSED,
            format!("{by} is set: nothing is changed until it is removed"),
        ),
        None => Says::no(conditions::PAUSED, reasons::ACTIVE, ""),
    }
}

/// `Deleting`, for an object that is not being deleted.
pub fn not_deleting() -> Says {
    Says::no(conditions::DELETING, reasons::NOT_DELETING, "")
}

/// `Deleting`, for an object whose deletion waits or goes on.
pub fn deleting(reason: &'static str, message: impl Into<String>) -> Says {
    Says::yes(conditions::DELETING, reason, message)
}

/// What the conditions say instead when the first action failed: the object keeps being ready if it was, and
/// `Progressing` names the failure.
pub fn after_failure(mut says: Vec<Says>, reason: &'static str, message: &str) -> Vec<Says> {
    let ready = says
        .iter()
        .any(|s| s.type_ == conditions::READY && s.status == Some(true));
    for say in &mut says {
        if say.type_ == conditions::PROGRESSING {
            *say = Says::yes(conditions::PROGRESSING, reason, message);
        } else if say.type_ == conditions::READY && !ready {
            *say = Says::no(conditions::READY, reason, message);
        } else if say.type_ == conditions::DELETING && say.status == Some(true) {
            *say = Says::yes(conditions::DELETING, reason, message);
        }
    }
    says
}

/// The sooner of two times to look again; `None` is never.
pub fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(says: &[Says], type_: &str) -> Option<bool> {
        says.iter().find(|s| s.type_ == type_).and_then(|s| s.status)
    }

    #[test]
    fn every_verdict_says_all_three_and_never_progresses_while_stalled() {
        let text = String::new;
        for verdict in [
            Verdict::Ready(text()),
            Verdict::Progressing("R", text()),
            Verdict::ReadyAndProgressing("R", text()),
            Verdict::Stalled("R", text()),
            Verdict::ReadyButStalled("R", text()),
            Verdict::Off("R", text()),
        ] {
            let says = verdict.says();
            assert_eq!(says.len(), 3);
            let stalled = status(&says, conditions::STALLED) == Some(true);
            let progressing = status(&says, conditions::PROGRESSING) == Some(true);
            assert!(!(stalled && progressing), "{verdict:?}");
        }
    }

    #[test]
    fn a_failure_does_not_make_a_serving_object_unready() {
        let says = after_failure(Verdict::Ready(String::new()).says(), reasons::AGENT_ERROR, "timeout");
        assert_eq!(status(&says, conditions::READY), Some(true));
        assert_eq!(status(&says, conditions::PROGRESSING), Some(true));
        let says = after_failure(
            Verdict::Progressing("R", String::new()).says(),
            reasons::AGENT_ERROR,
            "timeout",
        );
        assert!(
            says.iter()
                .any(|s| s.type_ == conditions::READY && s.message == "timeout")
        );
    }

    #[test]
    fn the_sooner_time_wins() {
        let second = Duration::from_secs(1);
        assert_eq!(sooner(Some(second), Some(second * 2)), Some(second));
        assert_eq!(sooner(None, Some(second)), Some(second));
        assert_eq!(sooner(None, None), None);
    }
}
