//! Which rows have to be written, and which write counts.
//!
//! Two operators may write for a moment: one that was replaced, and has not noticed, and its successor. Every write carries
//! a `generation`, and the table takes it only where the row is of the same object and of a lower generation. A projection
//! begins above every generation that it finds, at the present in microseconds at least, and gives each write the next
//! number; so whoever began later wins, in whatever order the writes arrive. A row that did not exist is only ever
//! inserted, and one that existed is only ever replaced, so that a late change does not bring back what was removed.
//!
//! What is left is a late insertion after a removal, and a late change where the successor had nothing to write. They are
//! found when the tables are read again, which a projection does from time to time.

use super::rows::{Owner, Row};
use super::{Key, Table};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a table is known to hold at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whose row it is.
    pub owner: Owner,
    /// The write that made it.
    pub generation: u64,
    /// What it says; `None` if that is of another version, so that it has to be written anew.
    pub row: Option<Row>,
}

/// What a table holds at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
// There is one for each row, and nearly all are rows.
#[allow(clippy::large_enum_variant)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// A row that no projection of ours wrote.
    Foreign,
    /// A row of a projection, of this cluster or of another.
    Row(Kept),
}

/// Reads the attributes of a row.
pub fn read(table: Table, attributes: Value) -> Standing {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).map(str::to_owned);
    let owner = || {
        Some(Owner {
            cluster: text("cluster")?,
            uid: text("uid")?,
            object: text("object")?,
        })
    };
    match (owner(), attributes.get("generation").and_then(Value::as_u64)) {
        (Some(owner), Some(generation)) => Standing::Row(Kept {
            owner,
            generation,
            row: Row::read(table, attributes).ok(),
        }),
        _ => Standing::Foreign,
    }
}

/// A conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Inserts a row where there is none.
    Insert {
        /// The row.
        row: Row,
        /// Its generation.
        generation: u64,
    },
    /// Replaces a row of the same object and of a lower generation.
    Replace {
        /// The row.
        row: Row,
        /// Its generation.
        generation: u64,
    },
    /// Removes a row of the object and of a lower generation; succeeds where there is none.
    Delete {
        /// Its table and key.
        key: Key,
        /// UID of the object.
        uid: String,
        /// Generation of this write.
        generation: u64,
    },
}

impl Write {
    /// The row that is written.
    pub fn key(&self) -> Key {
        match self {
            Self::Insert { row, .. } | Self::Replace { row, .. } => row.key(),
            Self::Delete { key, .. } => key.clone(),
        }
    }

    /// UID of the object that it is written for.
    pub fn uid(&self) -> &str {
        match self {
            Self::Insert { row, .. } | Self::Replace { row, .. } => &row.owner().uid,
            Self::Delete { uid, .. } => uid,
        }
    }

    /// Its generation.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Insert { generation, .. } | Self::Replace { generation, .. } | Self::Delete { generation, .. } => {
                *generation
            }
        }
    }

    /// Whether a table takes it where it holds `found`: what the condition of the request says.
    pub fn is_permitted(&self, found: &Standing) -> bool {
        let older = |kept: &Kept| kept.owner.uid == self.uid() && kept.generation < self.generation();
        match (self, found) {
            (Self::Insert { .. } | Self::Delete { .. }, Standing::Absent) => true,
            (Self::Replace { .. } | Self::Delete { .. }, Standing::Row(kept)) => older(kept),
            _ => false,
        }
    }

    /// When it is done, among the writes of one plan.
    pub fn stage(&self) -> Stage {
        match (self, self.key().0) {
            (Self::Insert { .. } | Self::Replace { .. }, Table::Instances) => Stage::Machines,
            (Self::Insert { .. } | Self::Replace { .. }, Table::Graphs | Table::Volumes) => Stage::Rows,
            (Self::Delete { .. }, Table::Graphs | Table::Volumes) => Stage::Removals,
            (Self::Delete { .. }, Table::Instances) => Stage::MachinesGone,
        }
    }
}

/// The order of writes. A machine's row is there before rows that name it and goes after them: by the machines' rows the
/// others are found again. A row goes before another object's row takes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Rows of machines are written.
    Machines,
    /// Rows of graphs and volumes are removed.
    Removals,
    /// Rows of graphs and volumes are written.
    Rows,
    /// Rows of machines are removed.
    MachinesGone,
}

/// What to do about a write that the table refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: there is no row of the object any more.
    Settled,
    /// What was known was out of date; plan again.
    Again,
    /// The row is of another object, or of something else than a projection. It is left alone.
    Taken,
    /// The row was written by a projection that began later, or is to be taken for it. It is left alone until the tables
    /// are read again: who is still at work then has begun later.
    Superseded,
}

/// What the tables are known to hold of one cluster.
#[derive(Clone, Debug)]
pub struct Projection {
    cluster: String,
    generation: u64,
    kept: HashMap<Key, Kept>,
    by_uid: HashMap<String, BTreeSet<Key>>,
}

impl Projection {
    /// Nothing is known yet.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            generation: 0,
            kept: HashMap::new(),
            by_uid: HashMap::new(),
        }
    }

    /// Begins with the rows that were read; `now` is the present in microseconds. Rows of other clusters are passed over.
    pub fn begin(&mut self, rows: impl IntoIterator<Item = (Key, Kept)>, now: u64) {
        self.kept.clear();
        self.by_uid.clear();
        self.generation = self.generation.max(now);
        for (key, kept) in rows {
            if kept.owner.cluster == self.cluster {
                self.generation = self.generation.max(kept.generation);
                self.keep(key, kept);
            }
        }
    }

    /// Rows that stand for no object: their tables and owners.
    pub fn orphans(&self, objects: &HashSet<String>) -> Vec<(Table, Owner)> {
        let orphans = self.kept.iter().filter(|(_, kept)| !objects.contains(&kept.owner.uid));
        orphans.map(|((table, _), kept)| (*table, kept.owner.clone())).collect()
    }

    /// What to write so that an object has the row `wanted` and no other, in the order of its stages; nothing if it is so.
    pub fn plan(&mut self, uid: &str, wanted: Option<Row>) -> Vec<Write> {
        let wanted_key = wanted.as_ref().map(Row::key);
        let known = self.by_uid.get(uid).into_iter().flatten();
        let others: Vec<Key> = known.filter(|key| Some(*key) != wanted_key.as_ref()).cloned().collect();
        let mut writes = Vec::new();
        for key in others {
            let (uid, generation) = (uid.to_owned(), self.next());
            writes.push(Write::Delete { key, uid, generation });
        }
        if let Some(row) = wanted {
            let kept = self.kept.get(&row.key()).filter(|kept| kept.owner.uid == uid);
            let (is_new, is_same) = (kept.is_none(), kept.is_some_and(|k| k.row.as_ref() == Some(&row)));
            if !is_same {
                let generation = self.next();
                writes.push(match is_new {
                    true => Write::Insert { row, generation },
                    false => Write::Replace { row, generation },
                });
            }
        }
        writes.sort_by_key(Write::stage);
        writes
    }

    /// The table took a write.
    pub fn written(&mut self, write: Write) {
        match write {
            Write::Insert { row, generation } | Write::Replace { row, generation } => {
                let (key, owner) = (row.key(), row.owner().clone());
                let row = Some(row);
                self.keep(key, Kept { owner, generation, row });
            }
            Write::Delete { key, uid, .. } => self.forget(&key, &uid),
        }
    }

    /// The table refused a write, and `found` is what it holds.
    pub fn refused(&mut self, write: &Write, found: Standing) -> Refusal {
        let (key, uid) = (write.key(), write.uid());
        let deletes = matches!(write, Write::Delete { .. });
        self.forget(&key, uid);
        match found {
            Standing::Absent if deletes => Refusal::Settled,
            Standing::Absent => Refusal::Again,
            Standing::Row(kept) if kept.owner.uid == uid => {
                let is_newer = kept.generation >= write.generation();
                self.keep(key, kept);
                if is_newer { Refusal::Superseded } else { Refusal::Again }
            }
            // What somebody else has there is not the object's row, so there is nothing to delete.
            Standing::Foreign | Standing::Row(_) if deletes => Refusal::Settled,
            Standing::Foreign => Refusal::Taken,
            Standing::Row(kept) => {
                // If its object is gone, it goes too when the tables are read again.
                if kept.owner.cluster == self.cluster {
                    self.keep(key, kept);
                }
                Refusal::Taken
            }
        }
    }

    /// How many rows are known.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no row is known.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn next(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn keep(&mut self, key: Key, kept: Kept) {
        let uid = kept.owner.uid.clone();
        if let Some(before) = self.kept.insert(key.clone(), kept)
            && before.owner.uid != uid
        {
            self.unlink(&key, &before.owner.uid);
        }
        self.by_uid.entry(uid).or_default().insert(key);
    }

    fn forget(&mut self, key: &Key, uid: &str) {
        if self.kept.get(key).is_some_and(|kept| kept.owner.uid == uid) {
            self.kept.remove(key);
            self.unlink(key, uid);
        }
    }

    fn unlink(&mut self, key: &Key, uid: &str) {
        if let Some(keys) = self.by_uid.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_uid.remove(uid);
            }
        }
    }
}

#[cfg(test)]
#[path = "projection_tests.rs"]
mod tests;
