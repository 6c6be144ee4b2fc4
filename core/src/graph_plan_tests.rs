#![allow(clippy::unwrap_used)]
use super::*;
use crate::fleet::{Accepts, Candidate, SpareVolume};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::graph::{AppliedSchema, GraphSpec, GraphStatus};
use graphplane_crds::node::NodeResources;
use graphplane_crds::quantities::{Epoch, GiB};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::BTreeSet;

const DDL: &str = "CREATE NODE TABLE A(x INT64 PRIMARY KEY);\nCREATE REL TABLE R(FROM A TO A);";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn tier() -> Arc<Tier> {
    let spec = serde_json::json!({"memory": {"nodeMiB": 100, "perDatabaseMiB": 10}, "databasesPerNode": 2,
        "scaling": {"maxNodes": 2}});
    Arc::new(Tier::new("std", serde_json::from_value(spec).unwrap()))
}

fn graph(spec: serde_json::Value) -> Graph {
    let mut base = serde_json::json!({"tier": "std", "schema": {"type": "custom", "ddl": DDL}});
    for (key, value) in spec.as_object().unwrap() {
        base[key] = value.clone();
    }
    let mut graph = Graph::new("karate", serde_json::from_value::<GraphSpec>(base).unwrap());
    graph.metadata.uid = Some("3f2a9c1e-0b5d-4c6f-8a7e-112233445566".into());
    graph.metadata.generation = Some(1);
    graph
}

fn node(serving: Serving) -> NodeView {
    NodeView {
        name: "std-0".into(),
        tier: "std".into(),
        volume: Some("std-0".into()),
        serving,
        accepts: Accepts::Now,
        endpoint: Some("http://127.0.0.1:1".into()),
        epoch: Epoch(1),
        changes_in: None,
    }
}

fn empty_fleet() -> Fleet {
    Fleet {
        tier: "std".into(),
        max_nodes: 2,
        zone: "local".into(),
        ..Fleet::default()
    }
}

fn fresh() -> Observed {
    Observed {
        tier: Some(tier()),
        node: NodeSeen::NotPlaced,
        fleet: Some(empty_fleet()),
        data: DataSeen::Nowhere,
        id_taken_by: None,
        database: Database::Unknown,
        missing: false,
        refused: None,
        subgraphs: vec![],
        final_backup: None,
        kept: false,
    }
}

/// A graph that was made, on a node.
fn made(graph: &mut Graph) {
    let statements = ddl(graph);
    let applied_schema = Some(statements::applied(&statements, statements.len()));
    graph.status = Some(GraphStatus {
        node: Some("std-0".into()),
        volume: Some("std-0".into()),
        applied_schema,
        phase: Some(GraphPhase::Ready),
        ..Default::default()
    });
}

fn condition<'a, P>(plan: &'a Plan<Action, P>, type_: &str) -> &'a Says {
    plan.says
        .iter()
        .find(|s| s.type_ == type_)
        .unwrap_or_else(|| panic!("no {type_} in {:?}", plan.says))
}

#[test]
fn a_new_graph_gets_a_node_then_a_database() {
    let plan = plan(&graph(serde_json::json!({})), &fresh(), at(0));
    assert!(
        matches!(
            &plan.actions[..],
            [Action::StartNode(_), Action::Place { .. }, Action::CreateDatabase]
        ),
        "{plan:?}"
    );
    assert_eq!(plan.phase, GraphPhase::Provisioning);
    assert_eq!(condition(&plan, conditions::READY).reason, reasons::NODE_STARTING);
}

#[test]
fn a_graph_leaves_a_node_that_never_had_a_machine_and_no_other() {
    let mut graph = graph(serde_json::json!({}));
    graph.status = Some(GraphStatus {
        node: Some("std-0".into()),
        volume: Some("std-0".into()),
        ..Default::default()
    });
    let on = |accepts| Observed {
        node: NodeSeen::Present(NodeView {
            accepts,
            ..node(Serving::Starting)
        }),
        ..fresh()
    };
    let why = || "gets no machine in zone a".to_owned();
    assert_eq!(
        plan(&graph, &on(Accepts::Never(why())), at(0)).actions,
        [Action::Unplace]
    );
    assert!(plan(&graph, &on(Accepts::No(why())), at(0)).actions.is_empty());
    made(&mut graph);
    assert!(
        plan(&graph, &on(Accepts::Never(why())), at(0)).actions.is_empty(),
        "its database is there"
    );
}

#[test]
fn what_this_version_does_not_do_is_said_by_field() {
    for (bootstrap, field) in [
        (serde_json::json!({"snapshot": "snap-1"}), "spec.bootstrap.snapshot"),
        (serde_json::json!({"backup": "b"}), "spec.bootstrap.backup"),
        (serde_json::json!({"graph": "g"}), "spec.bootstrap.graph"),
    ] {
        let plan = plan(&graph(serde_json::json!({"bootstrap": bootstrap})), &fresh(), at(0));
        let says = condition(&plan, conditions::STALLED);
        assert!(says.status == Some(true) && says.reason == reasons::NOT_SUPPORTED && says.message.contains(field));
        assert!(plan.actions.is_empty());
    }
    let mut moved = graph(serde_json::json!({"tier": "large"}));
    made(&mut moved);
    let seen = Observed {
        node: NodeSeen::Present(node(Serving::Yes)),
        ..fresh()
    };
    let plan = plan(&moved, &seen, at(0));
    assert_eq!(
        condition(&plan, conditions::READY).status,
        Some(true),
        "it goes on serving"
    );
    assert!(condition(&plan, conditions::STALLED).message.contains("spec.tier"));
}

#[test]
fn a_missing_tier_or_a_taken_id_stops_before_anything_is_made() {
    let without_tier = plan(
        &graph(serde_json::json!({})),
        &Observed { tier: None, ..fresh() },
        at(0),
    );
    assert_eq!(
        condition(&without_tier, conditions::STALLED).reason,
        reasons::TIER_NOT_FOUND
    );
    let taken = Observed {
        id_taken_by: Some("other/karate".into()),
        ..fresh()
    };
    let taken = plan(&graph(serde_json::json!({})), &taken, at(0));
    assert!(taken.actions.is_empty() && condition(&taken, conditions::READY).message.contains("other/karate"));
    let foreign = Observed {
        data: DataSeen::Foreign { volume: "std-7".into() },
        ..fresh()
    };
    let foreign = plan(&graph(serde_json::json!({})), &foreign, at(0));
    assert!(foreign.actions.is_empty() && condition(&foreign, conditions::READY).message.contains("std-7"));
}

#[test]
fn kept_data_is_found_again() {
    let mut fleet = empty_fleet();
    fleet.spare_volumes = vec![SpareVolume {
        name: "std-3".into(),
        zone: "local".into(),
        size_gib: GiB(50),
        holds_data: true,
    }];
    let seen = Observed {
        data: DataSeen::Kept { volume: "std-3".into() },
        fleet: Some(fleet),
        ..fresh()
    };
    let plan = plan(&graph(serde_json::json!({})), &seen, at(0));
    let [Action::StartNode(new), ..] = &plan.actions[..] else {
        panic!("{plan:?}")
    };
    assert!(new.volume == "std-3" && !new.new_volume);
}

#[test]
fn a_refused_statement_is_not_tried_again_until_the_spec_changes() {
    let mut graph = graph(serde_json::json!({}));
    graph.status = Some(GraphStatus {
        node: Some("std-0".into()),
        ..Default::default()
    });
    let seen = Observed {
        node: NodeSeen::Present(node(Serving::Yes)),
        ..fresh()
    };
    assert_eq!(plan(&graph, &seen, at(0)).actions, [Action::CreateDatabase]);
    let refused = Observed {
        refused: Some("spec.schema.ddl: statement 2: Binder exception".into()),
        ..seen.clone()
    };
    let refused = plan(&graph, &refused, at(0));
    assert!(refused.actions.is_empty() && refused.phase == GraphPhase::Failed);
    let status = graph.status.as_mut().unwrap();
    status.conditions = conditions::merge(&[], &refused.says, 1, &Time(at(0)));
    let again = plan(&graph, &seen, at(9));
    assert_eq!(
        (&again.actions, &again.says),
        (&vec![], &refused.says),
        "the same words, or the status is written for ever"
    );
    graph.metadata.generation = Some(2);
    assert_eq!(plan(&graph, &seen, at(9)).actions, [Action::CreateDatabase]);
}

#[test]
fn more_statements_are_applied_while_it_serves() {
    let mut graph = graph(serde_json::json!({}));
    made(&mut graph);
    let grown = format!("{DDL} CREATE NODE TABLE B(x INT64 PRIMARY KEY)");
    graph.spec.schema.ddl = Some(grown);
    let seen = Observed {
        node: NodeSeen::Present(node(Serving::Yes)),
        ..fresh()
    };
    let growing = plan(&graph, &seen, at(0));
    assert_eq!(growing.actions, [Action::ApplySchema { from: 2, to: 3 }]);
    assert_eq!(condition(&growing, conditions::READY).status, Some(true));
    graph.spec.schema.ddl = Some("CREATE NODE TABLE C(x INT64 PRIMARY KEY)".into());
    let conflict = plan(&graph, &seen, at(0));
    assert!(conflict.actions.is_empty());
    assert_eq!(
        condition(&conflict, conditions::STALLED).reason,
        reasons::SCHEMA_CONFLICT
    );
}

#[test]
fn a_lost_node_makes_it_unavailable_and_nothing_else() {
    let mut graph = graph(serde_json::json!({}));
    made(&mut graph);
    for serving in [Serving::Lost, Serving::Starting] {
        let plan = plan(
            &graph,
            &Observed {
                node: NodeSeen::Present(node(serving)),
                ..fresh()
            },
            at(0),
        );
        assert!(
            plan.actions.is_empty() && plan.phase == GraphPhase::Unavailable,
            "{plan:?}"
        );
        assert_eq!(condition(&plan, conditions::READY).status, Some(false));
    }
}

#[test]
fn a_database_that_vanished_is_never_made_anew() {
    let mut graph = graph(serde_json::json!({}));
    made(&mut graph);
    let present = NodeSeen::Present(node(Serving::Yes));
    for seen in [
        Observed {
            node: present.clone(),
            missing: true,
            ..fresh()
        },
        Observed {
            node: present,
            database: Database::Absent,
            ..fresh()
        },
        Observed {
            node: NodeSeen::Gone { volume: false },
            ..fresh()
        },
    ] {
        let plan = plan(&graph, &seen, at(0));
        assert!(plan.actions.is_empty(), "{plan:?}");
        assert_eq!(condition(&plan, conditions::STALLED).reason, reasons::DATABASE_MISSING);
    }
}

#[test]
fn suspended_and_paused_are_two_things() {
    let mut suspended = graph(serde_json::json!({"suspended": true}));
    made(&mut suspended);
    let seen = Observed {
        node: NodeSeen::Present(node(Serving::Yes)),
        ..fresh()
    };
    let plan_suspended = plan(&suspended, &seen, at(0));
    assert_eq!(
        (
            plan_suspended.phase,
            condition(&plan_suspended, conditions::READY).reason
        ),
        (GraphPhase::Suspended, reasons::SUSPENDED)
    );
    let mut paused = graph(serde_json::json!({"paused": true}));
    let plan_paused = plan(&paused, &fresh(), at(0));
    assert!(plan_paused.actions.is_empty() && condition(&plan_paused, conditions::PAUSED).status == Some(true));
    paused.spec.paused = false;
    paused.metadata.annotations = Some([(PAUSED.to_owned(), "true".to_owned())].into());
    assert!(plan(&paused, &fresh(), at(0)).actions.is_empty());
}

#[test]
fn deletion_takes_subgraphs_first_and_is_refused_by_the_annotation() {
    let mut graph = graph(serde_json::json!({"deletionPolicy": "Delete"}));
    made(&mut graph);
    graph.metadata.deletion_timestamp = Some(Time(at(0)));
    let subgraphs = vec![
        Dependent {
            name: "a".into(),
            deleting: false,
        },
        Dependent {
            name: "b".into(),
            deleting: true,
        },
    ];
    let seen = Observed {
        node: NodeSeen::Present(node(Serving::Yes)),
        subgraphs,
        ..fresh()
    };
    assert_eq!(plan(&graph, &seen, at(0)).actions, [Action::DeleteSubgraph("a".into())]);
    let alone = Observed {
        subgraphs: vec![],
        ..seen.clone()
    };
    assert_eq!(
        plan(&graph, &alone, at(0)).actions,
        [Action::DeleteDatabase, Action::RemoveFinalizer]
    );
    graph.metadata.annotations = Some([(DELETION_PROTECTION.to_owned(), "true".to_owned())].into());
    let refused = plan(&graph, &seen, at(0));
    assert!(refused.actions.is_empty() && refused.phase == GraphPhase::Ready);
    assert_eq!(
        condition(&refused, conditions::DELETING).reason,
        reasons::DELETION_PROTECTED
    );
}

/// A world in which every action takes effect, and in which everything else goes on by itself.
#[derive(Clone, Debug)]
struct World {
    graph: Graph,
    fleet: Fleet,
    running: BTreeSet<String>,
    volumes: BTreeSet<String>,
    databases: BTreeSet<String>,
    backup: Option<FinalBackup>,
    subgraphs: Vec<Dependent>,
    kept: bool,
    gone: bool,
    made: usize,
    destroyed_under: Option<(DeletionPolicy, bool)>,
}

impl World {
    fn new(graph: Graph, busy: u32, subgraphs: usize) -> Self {
        let mut fleet = empty_fleet();
        let capacity = resources::capacity(&tier().spec, GiB(50));
        let mut running = BTreeSet::new();
        for n in 0..busy.min(2) {
            let name = format!("std-{n}");
            let used = NodeResources {
                databases: 1 + n,
                ..Default::default()
            };
            fleet.candidates.push(Candidate {
                volume: name.clone(),
                name: name.clone(),
                accepts: Accepts::Now,
                capacity,
                used,
            });
            running.insert(name);
        }
        fleet.nodes = busy.min(2);
        fleet.taken = running.clone();
        fleet.node_names = running.clone();
        let subgraphs = (0..subgraphs)
            .map(|n| Dependent {
                name: format!("s{n}"),
                deleting: false,
            })
            .collect();
        let volumes = running.clone();
        Self {
            graph,
            fleet,
            running,
            volumes,
            subgraphs,
            databases: BTreeSet::new(),
            backup: None,
            kept: false,
            gone: false,
            made: 0,
            destroyed_under: None,
        }
    }

    fn observe(&self) -> Observed {
        let node = match self.graph.status.as_ref().and_then(|s| s.node.clone()) {
            None => NodeSeen::NotPlaced,
            Some(name) if self.fleet.node_names.contains(&name) => {
                let serving = if self.running.contains(&name) {
                    Serving::Yes
                } else {
                    Serving::Starting
                };
                NodeSeen::Present(NodeView {
                    name: name.clone(),
                    volume: Some(name),
                    serving,
                    ..node(Serving::Yes)
                })
            }
            Some(name) => NodeSeen::Gone {
                volume: self.volumes.contains(&name),
            },
        };
        Observed {
            node,
            fleet: Some(self.fleet.clone()),
            subgraphs: self.subgraphs.clone(),
            final_backup: self.backup.clone(),
            kept: self.kept,
            ..fresh()
        }
    }

    fn status(&mut self) -> &mut GraphStatus {
        self.graph.status.get_or_insert_default()
    }

    fn act(&mut self, action: &Action) {
        match action.clone() {
            Action::StartNode(new) => {
                let capacity = resources::capacity(&tier().spec, new.size_gib);
                let used = NodeResources::default();
                self.fleet.node_names.insert(new.node.clone());
                self.fleet.taken.insert(new.node.clone());
                self.fleet.nodes += 1;
                self.volumes.insert(new.volume.clone());
                let accepts = Accepts::Soon;
                self.fleet.candidates.push(Candidate {
                    name: new.node,
                    volume: new.volume,
                    accepts,
                    capacity,
                    used,
                });
            }
            Action::Place { node, volume } => {
                self.status().node = Some(node);
                self.status().volume = Some(volume);
            }
            Action::Unplace => self.graph.status = None,
            Action::CreateDatabase => {
                self.databases.insert("db".into());
                self.made += 1;
                let count = if self.graph.spec.schema.type_ == SchemaType::Custom {
                    usize::MAX
                } else {
                    0
                };
                let graph = self.graph.clone();
                self.status().applied_schema = Some(statements::applied(&ddl(&graph), count));
            }
            Action::ApplySchema { to, .. } => {
                let graph = self.graph.clone();
                self.status().applied_schema = Some(statements::applied(&ddl(&graph), to));
            }
            Action::DeleteSubgraph(name) => self
                .subgraphs
                .iter_mut()
                .filter(|s| s.name == name)
                .for_each(|s| s.deleting = true),
            Action::CreateFinalBackup(_) => {
                self.backup = Some(FinalBackup {
                    phase: BackupPhase::Pending,
                    failed: None,
                    deleting: false,
                });
            }
            Action::DeleteFinalBackup(_) => self.backup = None,
            Action::KeepData => self.kept = true,
            Action::DeleteDatabase => {
                let complete = self.backup.as_ref().is_some_and(|b| b.phase == BackupPhase::Completed);
                self.destroyed_under = Some((self.graph.spec.deletion_policy, complete));
                self.databases.clear();
            }
            Action::RemoveFinalizer => self.gone = true,
        }
    }

    /// Everything that other controllers do.
    fn tick(&mut self) {
        for c in &mut self.fleet.candidates {
            c.accepts = Accepts::Now;
            self.running.insert(c.name.clone());
        }
        self.subgraphs.retain(|s| !s.deleting);
        if let Some(backup) = &mut self.backup {
            backup.phase = BackupPhase::Completed;
        }
    }

    /// Plans and acts until nothing is left to do and nothing else happens; the number of actions.
    fn settle(&mut self, lose_answer: &dyn Fn(usize) -> bool) -> usize {
        let mut done = 0;
        for round in 0..200 {
            if self.gone {
                return done;
            }
            let seen = self.observe();
            let plan = plan(&self.graph, &seen, at(round));
            assert_eq!(
                plan,
                super::plan(&self.graph, &seen, at(round)),
                "a plan depends on nothing else"
            );
            match plan.actions.first() {
                Some(action) => {
                    done += 1;
                    let before = self.clone();
                    self.act(action);
                    if lose_answer(done) {
                        // The call took effect and its answer was lost: our own notes are as before.
                        self.graph = before.graph;
                    }
                    // The executor knows what it has just done.
                    if *action == Action::DeleteDatabase {
                        let seen = Observed {
                            database: Database::Absent,
                            ..self.observe()
                        };
                        let next = super::plan(&self.graph, &seen, at(round));
                        assert_eq!(next.actions, [Action::RemoveFinalizer]);
                        self.act(&next.actions[0]);
                    }
                }
                None => {
                    let before = format!("{self:?}");
                    self.tick();
                    if before == format!("{self:?}") {
                        return done;
                    }
                }
            }
        }
        panic!("it never settles: {self:?}");
    }
}

fn any_spec() -> impl Strategy<Value = Graph> {
    let schema = prop_oneof![
        Just(serde_json::json!({"type": "custom", "ddl": DDL})),
        Just(serde_json::json!({"type": "entity"})),
        Just(serde_json::json!({"type": "entity", "ddl": DDL})),
    ];
    let policy = prop_oneof![Just("Retain"), Just("Snapshot"), Just("Delete")];
    (schema, policy, 1u32..50, any::<bool>()).prop_map(|(schema, policy, size, suspended)| {
        graph(serde_json::json!({"schema": schema, "deletionPolicy": policy, "storage": {"sizeGiB": size}, "suspended": suspended}))
    })
}

proptest! {
    #[test]
    fn every_graph_converges_to_ready_and_then_to_nothing_left(
        graph in any_spec(), busy in 0u32..3, subgraphs in 0usize..3, lost in proptest::collection::btree_set(1usize..12, 0..4),
    ) {
        let mut world = World::new(graph, busy, subgraphs);
        world.settle(&|n| lost.contains(&n));
        let full = busy >= 2 && world.fleet.candidates.iter().all(|c| c.used.databases >= 2);
        prop_assert!(!full);
        prop_assert_eq!(world.databases.len(), 1);
        let ready = plan(&world.graph, &world.observe(), at(999));
        prop_assert!(ready.actions.is_empty(), "a fixed point: {:?}", ready);
        let wanted = if world.graph.spec.suspended { GraphPhase::Suspended } else { GraphPhase::Ready };
        prop_assert_eq!(ready.phase, wanted);
        prop_assert_eq!(world.settle(&|_| false), 0, "settled is settled");
        prop_assert!(world.fleet.nodes <= 2);

        world.graph.metadata.deletion_timestamp = Some(Time(at(0)));
        world.settle(&|n| lost.contains(&n));
        prop_assert!(world.gone);
        prop_assert!(world.subgraphs.is_empty());
        match world.graph.spec.deletion_policy {
            DeletionPolicy::Retain => prop_assert!(world.databases.len() == 1 && world.kept && world.destroyed_under.is_none()),
            DeletionPolicy::Snapshot => prop_assert_eq!(world.destroyed_under, Some((DeletionPolicy::Snapshot, true))),
            DeletionPolicy::Delete => prop_assert!(world.databases.is_empty()),
        }
    }

    #[test]
    fn nothing_is_destroyed_that_the_policy_keeps(
        graph in any_spec(), phase in 0u8..5, made_before in any::<bool>(), kept in any::<bool>(), now in 0i64..1000,
    ) {
        let mut graph = graph;
        if made_before {
            made(&mut graph);
        }
        graph.metadata.deletion_timestamp = Some(Time(at(0)));
        let final_backup = [None, Some(BackupPhase::Pending), Some(BackupPhase::Running), Some(BackupPhase::Completed), Some(BackupPhase::Failed)]
            [phase as usize].map(|phase| FinalBackup { phase, failed: None, deleting: false });
        let complete = phase == 3;
        let seen = Observed { node: NodeSeen::Present(node(Serving::Yes)), final_backup, kept, ..fresh() };
        let plan = plan(&graph, &seen, at(now));
        let first = plan.actions.first();
        match graph.spec.deletion_policy {
            DeletionPolicy::Retain => prop_assert!(!plan.actions.contains(&Action::DeleteDatabase)),
            DeletionPolicy::Snapshot => prop_assert!(complete || first != Some(&Action::DeleteDatabase)),
            DeletionPolicy::Delete => prop_assert_eq!(first, Some(&Action::DeleteDatabase)),
        }
        prop_assert!(first != Some(&Action::RemoveFinalizer) || kept);
    }
}

#[test]
fn the_identity_of_a_graph() {
    let plain = graph(serde_json::json!({}));
    assert_eq!(graph_id(&plain).unwrap().as_str(), "kg3f2a9c1e0b5d4c6f8a7e112233445566");
    let named = graph(serde_json::json!({"graphId": "kg0123456789abcdef"}));
    assert_eq!(graph_id(&named).unwrap().as_str(), "kg0123456789abcdef");
    let mut shared = graph(serde_json::json!({"schema": {"type": "shared"}}));
    assert_eq!(graph_id(&shared).unwrap().as_str(), "karate");
    shared.status = Some(GraphStatus {
        graph_id: Some("sec".parse().unwrap()),
        ..Default::default()
    });
    assert_eq!(graph_id(&shared).unwrap().as_str(), "sec", "once written it stays");
    shared.status = None;
    shared.metadata.name = Some("Not-An-Id".into());
    assert!(graph_id(&shared).unwrap_err().contains("Not-An-Id"));
    let empty = AppliedSchema::default();
    assert_ne!(
        statements::applied(&[], 0),
        empty,
        "an empty schema that was applied differs from none"
    );
}
