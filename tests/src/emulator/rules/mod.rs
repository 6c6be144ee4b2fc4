//! What moto 5.2 lacks of AWS, one rule in each file with the page that it follows. What moto has is not in here.

mod attachments;
#[cfg(test)]
mod bench;
mod capacity;
mod change_sets;
mod client_token;
mod drift;
mod modifications;
mod phases;
mod refresh;

use super::call::{Answer, Call};
use super::cloud::Cloud;
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};

/// What a test may tell the rules.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Where there are no machines: zone and instance type.
    pub short: BTreeSet<(String, String)>,
    /// How many reads show a state on the way, such as `pending`.
    pub on_the_way: u32,
    /// How many reads do not show what was just made.
    pub unseen: u32,
    /// Stacks that somebody changed by hand.
    pub drifted: BTreeSet<String>,
    /// Machines with a process that runs: one that is terminated is `shutting-down`, and keeps its volumes, until it ended.
    pub busy: BTreeSet<String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            short: BTreeSet::new(),
            on_the_way: 1,
            unseen: 0,
            drifted: BTreeSet::new(),
            busy: BTreeSet::new(),
        }
    }
}

/// A rule sees every call before moto does, and the answer after.
pub(crate) trait Rule: Send {
    /// Changes the call, or answers in place of moto.
    fn before(&mut self, _call: &mut Call, _cloud: &Cloud) -> Option<Answer> {
        None
    }

    /// Changes moto's answer.
    fn after(&mut self, _call: &Call, _answer: &mut Answer, _cloud: &Cloud) {}
}

/// All of them, in the order in which they see a call; answers go the other way.
pub(crate) fn all(knobs: &Arc<Mutex<Knobs>>) -> Vec<Box<dyn Rule>> {
    vec![
        // A repeated call is repeated for the rules below, too: none of them sees it.
        Box::new(client_token::ClientTokens::default()),
        Box::new(capacity::Capacity::new(knobs)),
        Box::new(phases::Phases::new(knobs)),
        Box::new(attachments::Attachments),
        Box::new(modifications::Modifications::new(knobs)),
        Box::new(change_sets::ChangeSets::default()),
        Box::new(drift::Drifts::new(knobs)),
        Box::new(refresh::Refreshes::default()),
    ]
}
