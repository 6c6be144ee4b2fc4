//! The bounded history of one resource: what watchers are sent, and what lets a list go back to an older revision.

use std::collections::VecDeque;
use std::sync::Arc;

use super::object::Object;
use super::{Expired, HistoryLimits};

/// What an object was before an event.
#[derive(Debug, Clone)]
pub(crate) enum Before {
    /// It did not exist.
    Absent,
    /// It was this.
    Known(Arc<Object>),
    /// It existed, but that version is older than the history that was on disk at the start of this process.
    Unknown,
}

/// One write, as watchers see it.
#[derive(Debug)]
pub(crate) struct Event {
    /// The new version, or for a deletion the last state. Its revision is the event's revision.
    pub(crate) object: Arc<Object>,
    pub(crate) before: Before,
    pub(crate) deleted: bool,
}

impl Event {
    pub(crate) fn revision(&self) -> u64 {
        self.object.revision
    }

    pub(crate) fn created(&self) -> bool {
        !self.deleted && matches!(self.before, Before::Absent)
    }
}

/// Events of one resource in order of revision, none missing above `floor`.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The revision of the newest event that was forgotten.
    floor: u64,
}

impl History {
    pub(super) fn set_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// Appends an event, and gives the revisions of those that had to go.
    pub(super) fn push(&mut self, event: Arc<Event>, limits: HistoryLimits) -> Vec<u64> {
        self.bytes += event.object.json.len();
        self.events.push_back(event);
        let mut forgotten = Vec::new();
        while self.events.len() > limits.events.max(1) || (self.bytes > limits.bytes && self.events.len() > 1) {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.object.json.len();
                self.floor = old.revision();
                forgotten.push(old.revision());
            }
        }
        forgotten
    }

    /// Events with a revision above `after`.
    pub(super) fn since(&self, after: u64) -> Result<impl Iterator<Item = &Arc<Event>>, Expired> {
        if after < self.floor {
            return Err(Expired {
                requested: after,
                oldest: self.floor,
            });
        }
        let start = self.events.partition_point(|e| e.revision() <= after);
        Ok(self.events.range(start..))
    }
}
