//! What carries the cluster's identity at a provider and belongs to no object: it costs money, and may hold data.
//!
//! An orphan is left by whoever removed an object's finalizer by force, or deleted an object while no operator ran and the
//! provider did not answer. It is told of first, and collected when it has been one for a while without a break. In doubt
//! it stays: nothing young, nothing in use, nothing whose owner may still be on its way. A disk may hold data, so a
//! snapshot of it is complete before it goes; that snapshot stays until a person removes it.

use crate::ending::{after, until};
use crate::plan::sooner;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A machine.
    Instance,
    /// A disk.
    Volume,
    /// A snapshot of a disk.
    Snapshot,
    /// A stack.
    Stack,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Instance, Self::Volume, Self::Snapshot, Self::Stack];

    /// A word for metrics and names.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::Stack => "stack",
        }
    }
}

/// A thing at a provider that carries the cluster's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Identity at the provider: letters, digits, `-`, `.` and `_`.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// It is attached, being made, changed or removed: it is left alone until it is not.
    pub busy: bool,
    /// Its tags, without prefix: `kind`, `name` and `uid` of the object that it is for, `tier`; `retained` when it is kept
    /// on purpose; `expires`, in seconds since 1970, when it is kept so long.
    pub tags: BTreeMap<String, String>,
    /// The disk that a snapshot is of.
    pub disk: Option<String>,
    /// Whether a snapshot can be restored.
    pub complete: bool,
}

impl Thing {
    /// A name that is unique among all things.
    pub fn key(&self) -> String {
        format!("{}.{}", self.kind.word(), self.id)
    }

    fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).map(String::as_str)
    }
}

/// An object that may own things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name as tags have it: `<namespace>.<name>` of a namespaced one.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Things that its status names.
    pub ids: Vec<String>,
}

/// How long things are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A thing that is younger than this may belong to an object that an operator is about to write.
    pub young: Duration,
    /// An orphan is collected when it has been one for so long.
    pub grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            young: Duration::from_secs(3600),
            grace: Duration::from_secs(86_400),
        }
    }
}

/// What to do about orphans, one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take a snapshot of a disk before it goes.
    Snapshot {
        /// The disk.
        disk: Thing,
        /// Since when it is an orphan: there is one such snapshot for each time that it is one.
        since: Timestamp,
    },
    /// Remove the thing.
    Collect(Thing),
}

impl Action {
    /// The thing that it is about.
    pub fn thing(&self) -> &Thing {
        match self {
            Self::Snapshot { disk: thing, .. } | Self::Collect(thing) => thing,
        }
    }
}

/// What is known of orphans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Things that belong to nobody.
    pub orphans: Vec<Thing>,
    /// Since when each is known to be one, by [`Thing::key`]; to be kept until the next look.
    pub since: BTreeMap<String, Timestamp>,
    /// What to do now.
    pub action: Option<Action>,
    /// Look again after this time at the latest.
    pub requeue: Option<Duration>,
}

/// Looks for orphans among `things`. `since` is what the last look found; `failed` are the keys of those whose removal did
/// not succeed: their turn is after all others, so that one that cannot be removed keeps nothing else.
pub fn plan(
    things: &[Thing],
    owners: &[Owner],
    since: &BTreeMap<String, Timestamp>,
    failed: &BTreeSet<String>,
    patience: Patience,
    now: Timestamp,
) -> Found {
    let uids: BTreeSet<&str> = owners
        .iter()
        .map(|o| o.uid.as_str())
        .filter(|u| !u.is_empty())
        .collect();
    let ids: BTreeSet<&str> = owners.iter().flat_map(|o| o.ids.iter().map(String::as_str)).collect();
    // An object that has not yet written down what is its own may mean whatever has its name.
    let names = owners.iter().filter(|o| o.ids.is_empty());
    let names: BTreeSet<(&str, &str)> = names.map(|o| (o.kind.as_str(), o.name.as_str())).collect();
    let owned = |thing: &Thing| {
        let named = thing
            .tag("kind")
            .zip(thing.tag("name"))
            .is_some_and(|name| names.contains(&name));
        named || ids.contains(thing.id.as_str()) || thing.tag("uid").is_some_and(|uid| uids.contains(uid))
    };
    let mut found = Found::default();
    let mut again = None;
    for thing in things {
        let young_until = after(thing.created, patience.young);
        if owned(thing) || is_kept(thing, now) {
            continue;
        }
        if young_until > now {
            found.requeue = sooner(found.requeue, Some(until(young_until, now)));
            continue;
        }
        let first = since
            .get(&thing.key())
            .copied()
            .filter(|first| *first <= now)
            .unwrap_or(now);
        found.since.insert(thing.key(), first);
        found.orphans.push(thing.clone());
        let due = after(first, patience.grace);
        if due > now {
            found.requeue = sooner(found.requeue, Some(until(due, now)));
        } else if !thing.busy {
            let turn = match failed.contains(&thing.key()) {
                true => &mut again,
                false => &mut found.action,
            };
            if turn.is_none() {
                *turn = removal(thing, first, things);
            }
        }
    }
    found.action = found.action.or(again);
    found
}

/// Kept on purpose, or until a time that has not come.
fn is_kept(thing: &Thing, now: Timestamp) -> bool {
    let expires = thing.tag("expires").and_then(|text| text.parse().ok());
    thing.tag("retained").is_some() || expires.is_some_and(|second: i64| second > now.as_second())
}

/// The next step of a removal; `None` while a snapshot is being made. What was written while the disk belonged to somebody
/// is not in a snapshot from before: only one that was begun since it is an orphan counts.
fn removal(thing: &Thing, since: Timestamp, things: &[Thing]) -> Option<Action> {
    if thing.kind != Kind::Volume {
        return Some(Action::Collect(thing.clone()));
    }
    let last = |t: &&Thing| {
        let of_disk = t.kind == Kind::Snapshot && t.disk.as_ref() == Some(&thing.id);
        of_disk && t.tag("purpose") == Some("orphan") && t.created >= since
    };
    let taken: Vec<&Thing> = things.iter().filter(last).collect();
    if taken.is_empty() {
        let disk = thing.clone();
        return Some(Action::Snapshot { disk, since });
    }
    taken.iter().any(|s| s.complete).then(|| Action::Collect(thing.clone()))
}

#[cfg(test)]
#[path = "orphans_tests.rs"]
mod tests;
