#![allow(clippy::unwrap_used)]
use super::*;
use crate::registry::rows::{BACKEND, GraphRow, InstanceRow};
use proptest::prelude::*;
use serde_json::json;

const CLUSTER: &str = "c1";

fn owner(uid: &str) -> Owner {
    Owner {
        cluster: CLUSTER.into(),
        uid: uid.into(),
        object: format!("acme/{uid}"),
    }
}

fn graph(uid: &str, id: &str, says: u64) -> Row {
    Row::Graph(GraphRow {
        graph_id: id.into(),
        owner: owner(uid),
        entity_id: "acme".into(),
        graph_type: "entity".into(),
        backend_type: BACKEND.into(),
        cluster_tier: "std".into(),
        status: "active".into(),
        instance_id: "i-1".into(),
        node: None,
        private_ip: None,
        endpoint_url: None,
        epoch: Some(says),
        read_endpoints: vec![],
        availability_zone: None,
        database_size_mb: 0,
        created_at: None,
    })
}

fn machine(uid: &str, id: &str) -> Row {
    Row::Instance(InstanceRow {
        instance_id: id.into(),
        owner: owner(uid),
        node_type: "writer".into(),
        backend_type: BACKEND.into(),
        status: "healthy".into(),
        cluster_tier: "std".into(),
        availability_zone: "a".into(),
        instance_type: None,
        private_ip: None,
        endpoint_url: None,
        epoch: 1,
        database_count: 0,
        max_databases: 1,
        available_capacity_pct: 100,
        shared_repositories: vec![],
        created_at: None,
    })
}

/// A table as DynamoDB keeps it: it takes a write or refuses it, whole.
#[derive(Clone, Debug, Default)]
struct Tables(HashMap<Key, Kept>);

impl Tables {
    fn standing(&self, key: &Key) -> Standing {
        self.0.get(key).cloned().map_or(Standing::Absent, Standing::Row)
    }

    fn take(&mut self, write: &Write) -> bool {
        let key = write.key();
        let taken = write.is_permitted(&self.standing(&key));
        if taken {
            match write {
                Write::Insert { row, generation } | Write::Replace { row, generation } => {
                    let kept = Kept {
                        owner: row.owner().clone(),
                        generation: *generation,
                        row: Some(row.clone()),
                    };
                    self.0.insert(key, kept);
                }
                Write::Delete { .. } => {
                    self.0.remove(&key);
                }
            }
        }
        taken
    }

    fn rows(&self) -> Vec<(Key, Kept)> {
        self.0.iter().map(|(key, kept)| (key.clone(), kept.clone())).collect()
    }

    fn says(&self, id: &str) -> Option<Row> {
        self.0.get(&(Table::Graphs, id.to_owned()))?.row.clone()
    }
}

/// Brings an object's rows to what is wanted, as the operator does.
fn bring(projection: &mut Projection, tables: &mut Tables, uid: &str, wanted: Option<Row>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for _ in 0..3 {
        let mut again = false;
        for write in projection.plan(uid, wanted.clone()) {
            if tables.take(&write) {
                projection.written(write);
            } else {
                let refusal = projection.refused(&write, tables.standing(&write.key()));
                again |= refusal == Refusal::Again;
                refusals.push(refusal);
            }
        }
        if !again {
            break;
        }
    }
    refusals
}

fn begun(tables: &Tables, now: u64) -> Projection {
    let mut projection = Projection::new(CLUSTER);
    projection.begin(tables.rows(), now);
    projection
}

#[test]
fn what_is_as_wanted_is_not_written() {
    let (mut tables, mut projection) = (Tables::default(), Projection::new(CLUSTER));
    projection.begin([], 1000);
    let row = graph("u", "g1", 1);
    assert_eq!(bring(&mut projection, &mut tables, "u", Some(row.clone())), []);
    assert_eq!(tables.says("g1"), Some(row.clone()));
    assert!(projection.plan("u", Some(row.clone())).is_empty());
    assert!(
        begun(&tables, 2000).plan("u", Some(row)).is_empty(),
        "nor by the next operator"
    );
}

#[test]
fn a_machine_that_is_replaced_takes_its_row_along() {
    let (mut tables, mut projection) = (Tables::default(), Projection::new(CLUSTER));
    bring(&mut projection, &mut tables, "n", Some(machine("n", "i-1")));
    let writes = projection.plan("n", Some(machine("n", "i-2")));
    assert!(
        matches!(writes[0], Write::Insert { .. }),
        "the new one comes before the old one goes: {writes:?}"
    );
    assert!(matches!(writes[1], Write::Delete { .. }));
    assert_eq!(
        writes.iter().map(Write::stage).collect::<Vec<_>>(),
        [Stage::Machines, Stage::MachinesGone]
    );
}

#[test]
fn a_row_of_somebody_else_is_neither_overwritten_nor_deleted() {
    let (mut tables, mut ours) = (Tables::default(), Projection::new(CLUSTER));
    let mut theirs = Projection::new("c2");
    let Row::Graph(mut row) = graph("other", "g1", 1) else {
        unreachable!()
    };
    row.owner.cluster = "c2".into();
    bring(&mut theirs, &mut tables, "other", Some(Row::Graph(row)));
    let before = tables.0.clone();
    assert_eq!(
        bring(&mut ours, &mut tables, "u", Some(graph("u", "g1", 1))),
        [Refusal::Taken]
    );
    assert_eq!(bring(&mut ours, &mut tables, "u", None), []);
    assert_eq!(tables.0, before);
    let write = Write::Insert {
        row: graph("u", "g1", 1),
        generation: 1 << 60,
    };
    assert!(!write.is_permitted(&Standing::Foreign));
}

#[test]
fn an_answer_that_was_lost_is_found_out() {
    let (mut tables, mut projection) = (Tables::default(), Projection::new(CLUSTER));
    projection.begin([], 1000);
    let row = graph("u", "g1", 1);
    for write in projection.plan("u", Some(row.clone())) {
        assert!(tables.take(&write), "and nobody heard of it");
    }
    assert_eq!(
        bring(&mut projection, &mut tables, "u", Some(row.clone())),
        [Refusal::Again]
    );
    assert!(projection.plan("u", Some(row)).is_empty());
}

#[test]
fn what_was_removed_is_not_brought_back_by_a_late_replacement() {
    let (mut tables, mut old) = (Tables::default(), Projection::new(CLUSTER));
    bring(&mut old, &mut tables, "u", Some(graph("u", "g1", 1)));
    let late = old.plan("u", Some(graph("u", "g1", 2)));
    let mut new = begun(&tables, 5000);
    bring(&mut new, &mut tables, "u", None);
    assert!(!tables.take(&late[0]));
    assert!(tables.0.is_empty());
    assert_eq!(old.refused(&late[0], Standing::Absent), Refusal::Again);
}

#[test]
fn rows_of_another_version_are_written_anew() {
    let attributes = json!({"graph_id": "g1", "cluster": CLUSTER, "uid": "u", "object": "acme/u", "generation": 7});
    let Standing::Row(kept) = read(Table::Graphs, attributes) else {
        panic!()
    };
    assert_eq!((kept.generation, &kept.row), (7, &None));
    let mut projection = Projection::new(CLUSTER);
    projection.begin([((Table::Graphs, "g1".to_owned()), kept)], 1);
    let writes = projection.plan("u", Some(graph("u", "g1", 1)));
    assert!(
        matches!(&writes[..], [Write::Replace { generation: 8, .. }]),
        "{writes:?}"
    );
    assert_eq!(
        read(Table::Graphs, json!({"graph_id": "g1", "status": "active"})),
        Standing::Foreign
    );
}

#[derive(Clone, Debug)]
enum Step {
    /// An object changes, or goes, and the newest operator is told.
    Change(usize, Option<u64>),
    /// An older operator writes what it had planned before it was replaced.
    Late(usize),
    /// Another operator takes over; its clock may be behind.
    TakeOver(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, proptest::option::of(0u64..5)).prop_map(|(object, says)| Step::Change(object, says)),
        2 => (0usize..100).prop_map(Step::Late),
        1 => (0u64..2000).prop_map(Step::TakeOver),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Writes of operators that were replaced arrive at any later time. Where a successor has written a row they change
    /// nothing; and once the tables are read again, every row is as wanted and no other is left.
    #[test]
    fn a_stale_writer_never_wins(steps in steps()) {
        const IDS: [&str; 3] = ["g0", "g1", "g2"];
        const UIDS: [&str; 3] = ["u0", "u1", "u2"];
        let mut tables = Tables::default();
        let mut now = 1_000_000u64;
        let mut operator = begun(&tables, now);
        let mut wanted: [Option<u64>; 3] = [None; 3];
        let mut late: Vec<Write> = Vec::new();
        for step in steps {
            now += 1000;
            match step {
                Step::Change(object, says) => {
                    wanted[object] = says;
                    let row = says.map(|says| graph(UIDS[object], IDS[object], says));
                    // Some of it is on its way still when the operator is replaced.
                    late.extend(operator.clone().plan(UIDS[object], row.clone()));
                    bring(&mut operator, &mut tables, UIDS[object], row.clone());
                    // What is gone may come back by a late insertion, until the tables are read again.
                    if row.is_some() {
                        prop_assert_eq!(tables.says(IDS[object]), row);
                    }
                }
                Step::Late(which) if !late.is_empty() => {
                    let write = late.remove(which % late.len());
                    let before = tables.standing(&write.key());
                    let taken = tables.take(&write);
                    if let Standing::Row(kept) = before {
                        prop_assert!(!taken || write.generation() > kept.generation);
                    }
                }
                Step::Late(_) => {}
                Step::TakeOver(behind) => {
                    operator = begun(&tables, now.saturating_sub(behind));
                }
            }
        }
        let mut last = begun(&tables, now + 1_000_000);
        let exist = UIDS.iter().zip(&wanted).filter(|(_, says)| says.is_some());
        let objects: HashSet<String> = exist.map(|(uid, _)| (*uid).to_owned()).collect();
        for (_, orphan) in last.orphans(&objects) {
            bring(&mut last, &mut tables, &orphan.uid, None);
        }
        for (object, says) in wanted.iter().enumerate() {
            let row = says.map(|says| graph(UIDS[object], IDS[object], says));
            bring(&mut last, &mut tables, UIDS[object], row.clone());
            prop_assert_eq!(tables.says(IDS[object]), row);
        }
        prop_assert_eq!(tables.0.len(), objects.len());
    }

    /// Generations of a row only rise, as long as it exists.
    #[test]
    fn generations_rise(changes in proptest::collection::vec((0u64..4, any::<bool>()), 1..40)) {
        let mut tables = Tables::default();
        let mut operator = begun(&tables, 10);
        let mut highest = 0;
        for (says, replaced) in changes {
            if replaced {
                operator = begun(&tables, 10);
            }
            bring(&mut operator, &mut tables, "u", Some(graph("u", "g1", says)));
            let generation = tables.rows()[0].1.generation;
            prop_assert!(generation >= highest);
            highest = generation;
        }
    }
}
