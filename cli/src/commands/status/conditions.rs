//! Conditions: which are as they should be, and how they are shown.

use crate::output::{Paint, Palette, printable};
use graphplane_crds::conditions as types;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Types that say something is wrong or unfinished when they are true; all others when they are not.
const TRUE_IS_NOTABLE: [&str; 5] = [
    types::STALLED,
    types::PROGRESSING,
    types::PAUSED,
    types::DELETING,
    types::DRIFT_DETECTED,
];

/// Whether a condition is as it should be.
pub(super) fn is_good(condition: &Condition) -> bool {
    match condition.status.as_str() {
        "True" => !TRUE_IS_NOTABLE.contains(&condition.type_.as_str()),
        "False" => TRUE_IS_NOTABLE.contains(&condition.type_.as_str()),
        _ => false,
    }
}

/// The state of an object in one word and its colour: the phase if it has one, else what `Ready` says.
pub(super) fn state(phase: Option<String>, conditions: &[Condition]) -> (String, Paint) {
    let ready = types::get(conditions, types::READY);
    let word = phase.unwrap_or_else(|| match ready {
        Some(condition) if condition.status == "True" => "Ready".to_owned(),
        Some(condition) => condition.reason.clone(),
        None => "Unknown".to_owned(),
    });
    let paint = if types::is_true(conditions, types::STALLED) {
        Paint::Bad
    } else {
        match ready.map(|condition| condition.status.as_str()) {
            Some("True") => Paint::Good,
            _ => Paint::Busy,
        }
    };
    (printable(&word), paint)
}

/// One line per condition that should be seen: with `all` every one, else those that are not good. `Ready` is left out
/// when another line says the same.
pub(super) fn lines(conditions: &[Condition], all: bool, palette: Palette) -> Vec<String> {
    let shown: Vec<&Condition> = conditions
        .iter()
        .filter(|condition| all || !is_good(condition))
        .collect();
    let says_the_same = |ready: &Condition| {
        shown
            .iter()
            .any(|other| other.type_ != ready.type_ && other.reason == ready.reason && other.message == ready.message)
    };
    shown
        .iter()
        .filter(|condition| all || condition.type_ != types::READY || !says_the_same(condition))
        .map(|condition| line(condition, palette))
        .collect()
}

fn line(condition: &Condition, palette: Palette) -> String {
    let bad = condition.type_ == types::STALLED && condition.status == "True";
    let (mark, paint) = match (is_good(condition), bad) {
        (true, _) => ("✓", Paint::Good),
        (false, true) => ("✗", Paint::Bad),
        (false, false) => ("●", Paint::Busy),
    };
    let head = palette.paint(paint, &format!("{mark} {}", condition.type_));
    let mut line = format!("{head} {}", condition.reason);
    if condition.status == "Unknown" {
        line.push_str(" (unknown)");
    }
    if !condition.message.is_empty() {
        line.push_str(&palette.paint(Paint::Dim, &format!(": {}", printable(&condition.message))));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: Some(1),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn polarity_decides_what_is_good() {
        for (type_, status, good) in [
            ("Ready", "True", true),
            ("Ready", "False", false),
            ("Ready", "Unknown", false),
            ("Stalled", "False", true),
            ("Stalled", "True", false),
            ("Paused", "Unknown", false),
            ("DatabaseReady", "False", false),
        ] {
            assert_eq!(is_good(&condition(type_, status, "R", "")), good, "{type_} {status}");
        }
    }

    #[test]
    fn only_what_is_not_good_is_shown_unless_all_is_asked_for() {
        let conditions = [
            condition("DatabaseReady", "False", "CreatingDatabase", "creating"),
            condition("Placed", "True", "Placed", ""),
            condition("Ready", "False", "CreatingDatabase", "creating"),
            condition("Stalled", "False", "Reconciling", ""),
        ];
        assert_eq!(
            lines(&conditions, false, Palette::PLAIN),
            ["● DatabaseReady CreatingDatabase: creating"]
        );
        let all = lines(&conditions, true, Palette::PLAIN);
        assert_eq!(
            all[1..],
            [
                "✓ Placed Placed",
                "● Ready CreatingDatabase: creating",
                "✓ Stalled Reconciling"
            ]
        );
    }

    #[test]
    fn a_stalled_object_is_bad_and_an_unknown_condition_says_so() {
        let stalled = [
            condition("Ready", "False", "NoCapacity", ""),
            condition("Stalled", "True", "NoCapacity", "x"),
        ];
        assert_eq!(state(None, &stalled), ("NoCapacity".to_owned(), Paint::Bad));
        assert_eq!(
            state(Some("Ready".into()), &[condition("Ready", "True", "Ready", "")]).1,
            Paint::Good
        );
        assert_eq!(state(None, &[]), ("Unknown".to_owned(), Paint::Busy));
        let unknown = lines(
            &[condition("LeaseHeld", "Unknown", "LeaseExpired", "")],
            false,
            Palette::PLAIN,
        );
        assert_eq!(unknown, ["● LeaseHeld LeaseExpired (unknown)"]);
    }
}
