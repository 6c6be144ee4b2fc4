//! A short life that is lived again and again on the same account: a tier, a graph with a row in it, and their end.

use graphplane_tests::{
    Plane,
    emulator::{Emulator, Hold, Side},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(300);

/// The seed of this run: `GRAPHPLANE_SEED`, else always the same, so that a run that fails says something of the change that
/// it is about. `GRAPHPLANE_ALL_CUTS` looks at all calls.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("GRAPHPLANE_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(506_677_773)
}

pub(crate) struct Life<'a> {
    aws: &'a Emulator,
}

impl<'a> Life<'a> {
    pub(crate) const TIER: &'static str = "
apiVersion: graphplane.dev/v1alpha1
kind: Tier
metadata: {name: small}
spec:
  instance: {types: [m7g.large, r7g.large], architecture: arm64}
  memory: {nodeMiB: 1024, perDatabaseMiB: 256}
  databasesPerNode: 2
  storage: {sizeGiB: 10}
  scaling: {minNodes: 0, maxNodes: 2, consolidateAfterSeconds: 1}
";

    pub(crate) const GRAPH: &'static str = "
---
apiVersion: graphplane.dev/v1alpha1
kind: Graph
metadata: {name: g1, namespace: default}
spec:
  tier: small
  schema: {type: custom, ddl: 'CREATE NODE TABLE N(id INT64 PRIMARY KEY);'}
  deletionPolicy: Delete
";

    pub(crate) fn new(aws: &'a Emulator) -> Self {
        Self { aws }
    }

    /// Lives it; the operator dies beside its changing call of that number, if one is given, and another one goes on.
    /// Gives the number of changing calls.
    pub(crate) fn run(&self, plane: &mut Plane, cut: Option<(usize, Side)>) -> usize {
        let first = self.aws.proxy().changes();
        let mut hold = cut.map(|(number, side)| self.aws.proxy().hold(first + number, side));

        let all = [Self::TIER, Self::GRAPH].concat();
        plane.kubectl_with(&["apply", "-f", "-"], Some(&all)).ok();
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.until(plane, &mut hold, "the graph is ready", |plane| {
            plane.kubectl(&["get", "graph", "g1", "-o", ready]).stdout == "True"
        });
        self.until(plane, &mut hold, "it takes a write", |plane| {
            plane.graphplane(&["query", "g1", "MERGE (:N {id: 1})"]).code == Some(0)
        });
        let read = plane.graphplane(&["query", "g1", "MATCH (n:N) RETURN count(*) AS n", "-o", "csv"]);
        assert_eq!(read.ok(), "n\n1\n");
        // Where the first zone had no machine, an empty disk is left there for a moment.
        self.until(plane, &mut hold, "there is one machine and one disk", |_| {
            (self.aws.instances().len(), self.aws.volumes().len()) == (1, 1)
        });

        plane.kubectl(&["delete", "graph", "g1", "--wait=false"]).ok();
        let gone = |plane: &Plane, what: &str| plane.kubectl(&["get", what, "-A", "-o", "name"]).ok().is_empty();
        self.until(plane, &mut hold, "the graph is gone", |plane| gone(plane, "graphs"));
        plane.kubectl(&["delete", "tier", "small", "--wait=false"]).ok();
        self.until(plane, &mut hold, "everything of ours is gone", |plane| {
            ["tiers", "graphnodes", "graphvolumes"]
                .iter()
                .all(|kind| gone(plane, kind))
        });
        self.until(plane, &mut hold, "AWS has nothing of ours", |_| {
            self.aws.leftovers() == BTreeSet::new()
        });
        self.until(plane, &mut hold, "the registries are empty", |_| {
            self.aws.rows().is_empty()
        });
        if hold.is_some() {
            // Lives do not all take the same number of calls: what is read in between decides.
            println!("there was no such call in this life");
        }
        assert_eq!(self.aws.violations(), Vec::<String>::new());
        self.aws.proxy().changes() - first
    }

    /// Waits for a condition; meanwhile the operator dies at the held call, and is started again.
    fn until(&self, plane: &mut Plane, hold: &mut Option<Hold>, what: &str, condition: impl Fn(&Plane) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(action) = hold.as_ref().and_then(|hold| hold.wait(Duration::ZERO)) {
                println!("it dies at {action}");
                plane.kill();
                *hold = None;
                plane.start_again();
            }
            if condition(plane) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}:\n{}",
                plane.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
