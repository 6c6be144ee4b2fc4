//! Which worlds are possible after operations of which some were acknowledged.

use super::world::World;
use std::collections::{BTreeSet, HashSet};

/// One step of an operation; false if it cannot happen in this world. Most operations have one step: they happen wholly
/// or not at all.
pub(crate) type Step = Box<dyn Fn(&mut World) -> bool + Send + Sync>;

/// What the caller of an operation knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened.
    Acknowledged,
    /// It did not happen.
    Refused(String),
    /// Nobody said.
    Unknown(String),
}

/// An operation of the past. The numbers are those of one clock.
pub(crate) struct Done {
    pub name: &'static str,
    /// What was asked for.
    pub request: String,
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    pub began: usize,
    pub ended: usize,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, outcome, request) = (self.name, &self.outcome, &self.request);
        write!(f, "{name} [{}..{}] {outcome:?} to {request}", self.began, self.ended)
    }
}

/// Every world that may be there now: acknowledged operations have happened, in an order in which they can have; of the
/// others any have, and steps of an operation in their order.
pub(crate) fn possible(before: &BTreeSet<World>, done: &[Done]) -> BTreeSet<World> {
    let mut search = Search {
        done,
        seen: HashSet::new(),
        found: BTreeSet::new(),
    };
    for world in before {
        search.visit(world.clone(), vec![0; done.len()]);
    }
    search.found
}

struct Search<'a> {
    done: &'a [Done],
    seen: HashSet<(World, Vec<usize>)>,
    found: BTreeSet<World>,
}

impl Search<'_> {
    fn visit(&mut self, world: World, taken: Vec<usize>) {
        if !self.seen.insert((world.clone(), taken.clone())) {
            return;
        }
        let open = |other: &Done, taken: usize| other.outcome == Outcome::Acknowledged && taken < other.steps.len();
        if !self.done.iter().zip(&taken).any(|(done, taken)| open(done, *taken)) {
            let mut world = world.clone();
            world.copies.clear();
            self.found.insert(world);
        }
        for (index, done) in self.done.iter().enumerate() {
            if matches!(done.outcome, Outcome::Refused(_)) || taken[index] == done.steps.len() {
                continue;
            }
            let too_early = self
                .done
                .iter()
                .zip(&taken)
                .any(|(other, taken)| other.ended < done.began && open(other, *taken));
            if too_early {
                continue;
            }
            let mut next = world.clone();
            if done.steps[taken[index]](&mut next) {
                let mut taken = taken.clone();
                taken[index] += 1;
                self.visit(next, taken);
            }
        }
    }
}

#[test]
fn an_acknowledged_operation_has_happened_and_another_one_may_have() {
    let make = |id: &'static str, outcome, began, ended| Done {
        name: "create",
        request: String::new(),
        steps: vec![Box::new(move |world: &mut World| {
            world.databases.insert(id.into(), Default::default()).is_none()
        })],
        outcome,
        began,
        ended,
    };
    let unknown = || Outcome::Unknown(String::new());
    let before = BTreeSet::from([World::default()]);
    let names = |done: &[Done]| -> Vec<String> {
        let worlds = possible(&before, done);
        let names = |world: &World| world.databases.keys().cloned().collect::<Vec<_>>().join("+");
        worlds.iter().map(names).collect()
    };
    assert_eq!(
        names(&[make("a", Outcome::Acknowledged, 0, 1), make("b", unknown(), 2, 3)]),
        ["a", "a+b"]
    );
    assert_eq!(names(&[make("a", Outcome::Refused(String::new()), 0, 1)]), [""]);
    // Twice the same cannot both have happened.
    let twice = [
        make("a", Outcome::Acknowledged, 0, 1),
        make("a", Outcome::Acknowledged, 0, 1),
    ];
    assert!(names(&twice).is_empty());
}
