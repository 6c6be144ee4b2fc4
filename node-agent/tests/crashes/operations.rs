//! What is done to a node. Each operation is a function that draws one from a world, or finds that there is nothing in
//! this world to do it to.

mod backups;
mod databases;
mod forks;
mod loads;
mod rebuilds;
mod seeds;
mod staging;
pub(crate) mod vectors;
mod writes;

pub(crate) use backups::{BACKUPS, restore_of};
pub(crate) use databases::{DATABASES, create};
pub(crate) use forks::FORKS;
pub(crate) use loads::LOADS;
pub(crate) use rebuilds::REBUILDS;
pub(crate) use seeds::{PREFIX, SEEDED, SEEDS, take_up};
pub(crate) use staging::STAGING;
pub(crate) use vectors::VECTORS;
pub(crate) use writes::{WRITES, add};

use super::{
    caller::{Answered, Caller},
    fixture::parquet_at,
    history::Step,
    world::{Content, World, select_links, select_people},
};
use futures::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::path::{Path, PathBuf};

/// All tables.
pub(crate) const GROUPS: [&[Operation]; 9] = [
    WRITES, STAGING, LOADS, REBUILDS, VECTORS, BACKUPS, FORKS, SEEDS, DATABASES,
];

/// The operation of this name.
pub(crate) fn named(name: &str) -> Operation {
    let mut all = GROUPS.iter().copied().flatten();
    *all.find(|operation| operation.name == name).unwrap()
}

/// One sort of operation.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub name: &'static str,
    /// `None` if this world has nothing to do it to.
    pub draw: fn(&mut Draw, &World) -> Option<Drawn>,
    /// Files whose appearance is a moment to kill at: directories below the volume or its object store, and how the
    /// names begin.
    pub marks: &'static [(&'static str, &'static str)],
}

/// Who does an operation, and is killed in the middle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Writer,
    Replica,
}

/// One operation that is about to be done.
pub(crate) struct Drawn {
    pub steps: Vec<Step>,
    pub victim: Victim,
    pub call: Box<dyn FnOnce(Caller) -> BoxFuture<'static, Answered> + Send>,
}

impl Drawn {
    /// An operation of one step, which the writer does.
    pub(crate) fn new<F>(
        step: impl Fn(&mut World) -> bool + Send + Sync + 'static,
        call: impl FnOnce(Caller) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        Self::of(vec![Box::new(step)], call)
    }

    /// The same of several steps.
    pub(crate) fn of<F>(steps: Vec<Step>, call: impl FnOnce(Caller) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        Self {
            steps,
            victim: Victim::Writer,
            call: Box::new(move |caller| Box::pin(call(caller))),
        }
    }
}

/// Graph, staging and vectors of a database are copied one after the other.
pub(crate) fn copy(id: &str, to: &str, parts: fn(&Content, &mut Content)) -> Step {
    let (id, to) = (id.to_owned(), to.to_owned());
    Box::new(move |world: &mut World| world.copy(&id, &to, parts))
}

pub(crate) fn copy_graph(id: &str, to: &str) -> Step {
    copy(id, to, |content, copy| copy.graph = content.graph.clone())
}

pub(crate) fn copy_vectors(id: &str, to: &str) -> Step {
    copy(id, to, |content, copy| copy.vectors = content.vectors.clone())
}

/// Where everything that is drawn comes from.
pub(crate) struct Draw {
    rng: StdRng,
    next: u64,
    import: PathBuf,
}

impl Draw {
    pub(crate) fn new(seed: u64, import: &Path) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            next: 0,
            import: import.to_owned(),
        }
    }

    /// A number that was not drawn before: of a batch, or for a name.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.rng.random_range(0..limit)
    }

    /// A part of one.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.rng.random_range(0.0..1.0)
    }

    pub(crate) fn pick<T>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let mut all: Vec<T> = from.into_iter().collect();
        match all.len() {
            0 => None,
            length => Some(all.swap_remove(self.below(length))),
        }
    }

    /// A database.
    pub(crate) fn database(&mut self, world: &World) -> Option<String> {
        self.pick(world.databases.keys().cloned())
    }

    /// A database with a batch of its graph that fits.
    pub(crate) fn batch(&mut self, world: &World, fits: impl Fn(u64, bool) -> bool) -> Option<(String, u64)> {
        let all = world.databases.iter().flat_map(|(id, content)| {
            let batches = content.graph.batches.iter();
            let fitting = batches.filter(|(number, batch)| fits(**number, batch.linked));
            fitting.map(move |(number, _)| (id.clone(), *number))
        });
        self.pick(all)
    }

    /// A new file of a table below the import directory.
    pub(crate) fn file(&mut self, table: &str, batch: u64) -> PathBuf {
        let name = format!("{table}-{}.parquet", self.fresh());
        let path = self.import.join(name);
        parquet_at(&path, &select(table, batch));
        path
    }
}

/// The rows of a batch for a staging table.
pub(crate) fn select(table: &str, batch: u64) -> String {
    match table {
        "Person" => select_people(batch),
        _ => select_links(batch),
    }
}
