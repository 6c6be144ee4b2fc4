//! Changes of staging tables that a request makes itself: uploads, statements, deletions. What runs as a task is in the list
//! of tasks; these are here, so that nothing replaces a graph beneath them.

use crate::engines::DatabaseId;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// How many are under way, by graph.
#[derive(Debug, Default)]
pub struct Changes(Mutex<HashMap<DatabaseId, usize>>);

/// One of them; over when dropped.
#[derive(Debug)]
pub struct Change {
    changes: Arc<Changes>,
    id: DatabaseId,
}

impl Changes {
    /// Begins one.
    pub fn begin(self: &Arc<Self>, id: &DatabaseId) -> Change {
        *self.0.lock().entry(id.clone()).or_default() += 1;
        Change {
            changes: Arc::clone(self),
            id: id.clone(),
        }
    }

    /// How many of a graph are under way.
    pub fn of(&self, id: &DatabaseId) -> usize {
        self.0.lock().get(id).copied().unwrap_or_default()
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut changes = self.changes.0.lock();
        if let Some(count) = changes.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                changes.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn changes_count_by_graph_until_they_are_over() {
        let changes = Arc::new(Changes::default());
        let (one, other): (DatabaseId, DatabaseId) = ("kg1".parse().unwrap(), "kg2".parse().unwrap());
        let (first, second) = (changes.begin(&one), changes.begin(&one));
        assert_eq!((changes.of(&one), changes.of(&other)), (2, 0));
        drop(first);
        assert_eq!(changes.of(&one), 1);
        drop(second);
        assert_eq!(changes.of(&one), 0);
        assert!(changes.0.lock().is_empty());
    }
}
