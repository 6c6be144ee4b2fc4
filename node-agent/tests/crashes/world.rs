//! What a node holds, as far as these tests write it. All data are batches of rows that follow from the batch's number,
//! so that a batch is there wholly, or is not there, or is damaged.

use std::collections::{BTreeMap, BTreeSet};

/// The schema of every graph.
pub(crate) const SCHEMA: &str =
    "CREATE NODE TABLE Person(identifier INT64 PRIMARY KEY, batch INT64, name STRING, score DOUBLE);
     CREATE REL TABLE KNOWS(FROM Person TO Person, batch INT64, weight DOUBLE);";

/// All databases, all backups, and what a replica has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct World {
    pub databases: BTreeMap<String, Content>,
    pub backups: BTreeMap<String, Content>,
    /// What backups, publications and forks under way have copied, by what it is for.
    pub copies: BTreeMap<String, Content>,
    /// Staging tables and vectors of graphs that are gone, which wait for graphs of the same ids.
    pub kept: BTreeMap<String, Content>,
    /// Absent where no replica follows.
    pub seeds: Option<Seeds>,
}

/// The seeds of one graph, which a replica follows. There is no staging in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seeds {
    pub published: Option<Content>,
    pub served: Option<Content>,
}

/// One database.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Content {
    pub graph: Graph,
    pub staging: Staging,
    /// Batches that have vectors, if there is a table of vectors.
    pub vectors: Option<BTreeSet<u64>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Graph {
    /// Tables beside those of the schema.
    pub tables: BTreeSet<String>,
    pub batches: BTreeMap<u64, Batch>,
}

/// People of a batch that is in a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Batch {
    /// How many times each score was raised by one.
    pub revision: u64,
    /// Whether each of them knows the next.
    pub linked: bool,
}

/// The batches of staged files, by table and file.
pub(crate) type Staging = BTreeMap<(String, String), u64>;

impl World {
    pub(crate) fn graph(&mut self, id: &str) -> Option<&mut Graph> {
        self.databases.get_mut(id).map(|content| &mut content.graph)
    }

    pub(crate) fn staging(&mut self, id: &str) -> Option<&mut Staging> {
        self.databases.get_mut(id).map(|content| &mut content.staging)
    }

    /// Copies parts of a database as they are now; false if it is not there.
    pub(crate) fn copy(&mut self, id: &str, to: &str, parts: fn(&Content, &mut Content)) -> bool {
        let content = self.databases.get(id);
        content
            .map(|content| parts(content, self.copies.entry(to.to_owned()).or_default()))
            .is_some()
    }

    /// Takes a database out, or what was kept of one.
    pub(crate) fn take(&mut self, id: &str) -> Option<Content> {
        self.databases.remove(id).or_else(|| self.kept.remove(id))
    }

    /// Graphs that are neither subgraphs nor made to take another one's place.
    pub(crate) fn graphs(&self) -> impl Iterator<Item = &String> {
        self.databases.keys().filter(|id| !id.contains(['_', '-']))
    }

    pub(crate) fn nodes(content: &Content) -> u64 {
        content.graph.batches.keys().map(|batch| people(*batch)).sum()
    }
}

/// People of a batch.
pub(crate) fn people(batch: u64) -> u64 {
    [40, 250, 900, 4000][(batch % 4) as usize] + batch % 7
}

/// The first identifier of a batch.
pub(crate) fn first(batch: u64) -> u64 {
    batch * 100_000
}

/// The people of a batch as SQL.
pub(crate) fn select_people(batch: u64) -> String {
    let (first, people) = (first(batch), people(batch));
    format!(
        "SELECT {first} + i AS identifier, {batch}::BIGINT AS batch, 'n' || i AS name, i::DOUBLE AS score \
         FROM range({people}) t(i)"
    )
}

/// Who knows whom in a batch, as SQL.
pub(crate) fn select_links(batch: u64) -> String {
    let (first, links) = (first(batch), people(batch) - 1);
    format!(
        "SELECT {first} + i AS \"from\", {first} + i + 1 AS \"to\", {batch}::BIGINT AS batch, i::DOUBLE AS weight \
         FROM range({links}) t(i)"
    )
}

/// Numbers of each vector.
pub(crate) const DIMENSION: usize = 8;

/// The vectors of a batch as SQL.
pub(crate) fn select_vectors(batch: u64) -> String {
    let (first, people) = (first(batch), people(batch));
    format!(
        "SELECT {first} + i AS identifier, {batch}::BIGINT AS batch, i AS place, \
         [sin(i), cos(i), sin(2 * i), cos(2 * i), sin(3 * i), cos(3 * i), sin(5 * i), cos(5 * i)]::FLOAT[] AS vector \
         FROM range({people}) t(i)"
    )
}

/// The revision of a batch whose people were found to have these sums, if they are all there and whole.
pub(crate) fn revision(batch: u64, rows: u64, identifiers: u64, scores: f64, name_lengths: u64) -> Result<u64, String> {
    let n = people(batch);
    let indexes = n * (n - 1) / 2;
    let digits: u64 = (0..n).map(|i| i.to_string().len() as u64 + 1).sum();
    let raised = scores - indexes as f64;
    if rows != n
        || identifiers != n * first(batch) + indexes
        || name_lengths != digits
        || raised < 0.0
        || raised % n as f64 != 0.0
    {
        return Err(format!(
            "batch {batch} is damaged: {rows} of {n} people, identifiers {identifiers}, scores {scores}, names {name_lengths}"
        ));
    }
    Ok((raised / n as f64) as u64)
}

/// Whether relationships with these sums are those of a batch.
pub(crate) fn check_links(batch: u64, rows: u64, from: u64, to: u64, weights: f64) -> Result<(), String> {
    let n = people(batch) - 1;
    let indexes = n * (n - 1) / 2;
    let good = rows == n
        && from == n * first(batch) + indexes
        && to == n * first(batch) + indexes + n
        && weights == indexes as f64;
    match good {
        true => Ok(()),
        false => Err(format!(
            "the links of batch {batch} are damaged: {rows} of {n}, from {from}, to {to}, weights {weights}"
        )),
    }
}
