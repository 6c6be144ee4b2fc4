#![allow(clippy::unwrap_used)]
use super::*;
use graphplane_crds::tier::{Autogrow, Memory};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn tier(databases: u32, node_mib: u32, size: u32, max: Option<u32>) -> TierSpec {
    let text = serde_json::json!({
        "memory": {"nodeMiB": node_mib, "perDatabaseMiB": 10}, "databasesPerNode": databases,
        "storage": {"sizeGiB": size},
    });
    let mut tier: TierSpec = serde_json::from_value(text).unwrap();
    tier.storage.autogrow = max.map(|max| Autogrow {
        at_percent: 80,
        max_gib: GiB(max),
    });
    assert_eq!(
        tier.memory,
        Memory {
            node_mib: MiB(node_mib),
            ..tier.memory.clone()
        }
    );
    tier
}

fn resources(memory: u32, databases: u32, subgraphs: u32, disk: u32) -> NodeResources {
    NodeResources {
        memory_mib: MiB(memory),
        databases,
        subgraphs,
        disk_mib: MiB(disk),
    }
}

fn candidate(name: &str, accepts: Accepts, capacity: NodeResources, used: NodeResources) -> Candidate {
    Candidate {
        name: name.into(),
        volume: format!("v-{name}"),
        accepts,
        capacity,
        used,
    }
}

fn fleet(candidates: Vec<Candidate>, max_nodes: u32) -> Fleet {
    let node_names: BTreeSet<String> = candidates.iter().map(|c| c.name.clone()).collect();
    let taken = node_names
        .iter()
        .cloned()
        .chain(candidates.iter().map(|c| c.volume.clone()))
        .collect();
    Fleet {
        tier: "std".into(),
        nodes: candidates.len() as u32,
        candidates,
        spare_volumes: vec![],
        node_names,
        taken,
        max_nodes,
        zone: "local".into(),
    }
}

fn one() -> NodeResources {
    resources(10, 1, 0, 1024)
}

#[test]
fn the_fullest_node_that_has_room_is_taken() {
    let capacity = resources(100, 10, 30, 51_200);
    let nodes = vec![
        candidate("std-0", Accepts::Now, capacity, resources(20, 2, 0, 2048)),
        candidate("std-1", Accepts::Now, capacity, resources(80, 8, 0, 8192)),
        candidate("std-2", Accepts::Now, capacity, resources(100, 10, 0, 10_240)),
        candidate(
            "std-3",
            Accepts::No("is draining".into()),
            capacity,
            resources(90, 9, 0, 9216),
        ),
    ];
    let tier = tier(10, 100, 50, None);
    let taken = decide(&tier, &fleet(nodes, 4), &one(), None);
    assert_eq!(
        taken,
        Decision::Node {
            node: "std-1".into(),
            volume: "v-std-1".into()
        }
    );
}

#[test]
fn a_ready_node_goes_before_a_starting_one_and_that_before_a_new_one() {
    let capacity = resources(100, 10, 30, 51_200);
    let full = resources(100, 10, 0, 10_240);
    let tier = tier(10, 100, 50, None);
    let starting = candidate("std-0", Accepts::Soon, capacity, resources(90, 9, 0, 9216));
    let ready = |used| candidate("std-1", Accepts::Now, capacity, used);
    let taken = |used| decide(&tier, &fleet(vec![starting.clone(), ready(used)], 9), &one(), None);
    assert_eq!(
        taken(resources(0, 0, 0, 0)),
        Decision::Node {
            node: "std-1".into(),
            volume: "v-std-1".into()
        }
    );
    assert_eq!(
        taken(full),
        Decision::Node {
            node: "std-0".into(),
            volume: "v-std-0".into()
        }
    );
    let late = candidate(
        "std-0",
        Accepts::Perhaps("behind".into()),
        capacity,
        resources(0, 0, 0, 0),
    );
    assert_eq!(
        decide(&tier, &fleet(vec![late], 9), &one(), None),
        Decision::Wait {
            node: "std-0".into(),
            why: "behind".into()
        }
    );
    let new = decide(&tier, &fleet(vec![ready(full)], 9), &one(), None);
    let Decision::Start(new) = new else { panic!("{new:?}") };
    assert_eq!(
        (new.node.as_str(), new.volume.as_str(), new.size_gib, new.new_volume),
        ("std-0", "std-0", GiB(50), true)
    );
}

#[test]
fn a_full_tier_says_what_to_do() {
    let capacity = resources(100, 10, 30, 51_200);
    let full = candidate("std-0", Accepts::Now, capacity, resources(100, 10, 0, 0));
    let Decision::NoCapacity(why) = decide(&tier(10, 100, 50, None), &fleet(vec![full], 1), &one(), None) else {
        panic!()
    };
    assert!(why.contains("scaling.maxNodes"), "{why}");
    let huge = resources(10, 1, 0, 60 * 1024);
    let Decision::DoesNotFit(why) = decide(&tier(10, 100, 50, None), &fleet(vec![], 1), &huge, None) else {
        panic!()
    };
    assert!(why.contains("storage.sizeGiB is 60") && why.contains("50 GiB"), "{why}");
    let Decision::Start(new) = decide(&tier(10, 100, 50, Some(100)), &fleet(vec![], 1), &huge, None) else {
        panic!()
    };
    assert_eq!(
        new.size_gib,
        GiB(60),
        "a volume that may grow is made as large as its first graph"
    );
}

#[test]
fn kept_data_pins_its_graph_to_its_volume() {
    let capacity = resources(100, 10, 30, 51_200);
    let other = candidate("std-1", Accepts::Now, capacity, resources(0, 0, 0, 0));
    let mut fleet = fleet(vec![other], 9);
    fleet.taken.insert("std-0".into());
    fleet.spare_volumes = vec![SpareVolume {
        name: "std-0".into(),
        zone: "local".into(),
        size_gib: GiB(5),
        holds_data: true,
    }];
    let tier = tier(10, 100, 50, None);
    let Decision::Start(new) = decide(&tier, &fleet, &one(), Some("std-0")) else {
        panic!()
    };
    assert_eq!(
        (new.node.as_str(), new.volume.as_str(), new.new_volume),
        ("std-0", "std-0", false)
    );
    // A volume with data is never taken for somebody else.
    fleet.candidates.clear();
    let Decision::Start(new) = decide(&tier, &fleet, &one(), None) else {
        panic!()
    };
    assert!(new.new_volume && new.volume != "std-0");
    assert!(matches!(
        decide(&tier, &fleet, &one(), Some("gone")),
        Decision::NoCapacity(_)
    ));
}

#[test]
fn an_empty_volume_without_a_node_is_used_again() {
    let mut fleet = fleet(vec![], 9);
    fleet.taken = ["std-0".to_owned()].into();
    fleet.spare_volumes = vec![SpareVolume {
        name: "std-0".into(),
        zone: "local".into(),
        size_gib: GiB(50),
        holds_data: false,
    }];
    let Decision::Start(new) = decide(&tier(10, 100, 50, None), &fleet, &one(), None) else {
        panic!()
    };
    assert_eq!(
        (new.node.as_str(), new.volume.as_str(), new.new_volume),
        ("std-0", "std-0", false)
    );
}

fn accepts() -> impl Strategy<Value = Accepts> {
    prop_oneof![
        4 => Just(Accepts::Now),
        2 => Just(Accepts::Soon),
        1 => Just(Accepts::Perhaps("late".into())),
        1 => Just(Accepts::No("draining".into())),
    ]
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    let node = (accepts(), 1u32..12, 0u32..12, 0u32..200, 0u32..20).prop_map(|(accepts, slots, used, memory, disk)| {
        (
            accepts,
            resources(100, slots, 9, 10 * 1024),
            resources(memory, used, 0, disk * 1024),
        )
    });
    (proptest::collection::vec(node, 0..8), 0u32..10).prop_map(|(nodes, max)| {
        let named = |(i, (a, c, u)): (usize, _)| candidate(&format!("std-{i}"), a, c, u);
        fleet(nodes.into_iter().enumerate().map(named).collect(), max)
    })
}

proptest! {
    #[test]
    fn placement_never_overcommits_and_never_takes_a_node_that_refuses(fleet in any_fleet(), disk in 1u32..6) {
        let (tier, demand) = (tier(10, 100, 10, None), resources(10, 1, 0, disk * 1024));
        match decide(&tier, &fleet, &demand, None) {
            Decision::Node { node, .. } => {
                let taken = fleet.candidates.iter().find(|c| c.name == node).unwrap();
                prop_assert!(matches!(taken.accepts, Accepts::Now | Accepts::Soon));
                let after = amounts(&plus(&taken.used, &demand));
                for (i, has) in amounts(&taken.capacity).into_iter().enumerate() {
                    prop_assert!(amounts(&demand)[i] == 0 || after[i] <= has);
                }
                // Best fit: no other node of the same standing would be left with less.
                for other in fleet.candidates.iter().filter(|c| c.accepts == taken.accepts) {
                    if fits(&other.capacity, &other.used, &demand) {
                        prop_assert!(leftover(taken, &demand) <= leftover(other, &demand));
                    }
                }
                if taken.accepts == Accepts::Soon {
                    let ready = |c: &Candidate| c.accepts == Accepts::Now && fits(&c.capacity, &c.used, &demand);
                    prop_assert!(!fleet.candidates.iter().any(ready));
                }
            }
            Decision::Start(new) => {
                prop_assert!(fleet.nodes < fleet.max_nodes);
                prop_assert!(!fleet.taken.contains(&new.node));
                prop_assert!(new.size_gib.bytes() >= demand.disk_mib.bytes());
            }
            Decision::NoCapacity(_) => prop_assert!(fleet.nodes >= fleet.max_nodes),
            Decision::DoesNotFit(_) => prop_assert!(false, "an empty node has room for it"),
            Decision::Wait { node, .. } => {
                let late = fleet.candidates.iter().find(|c| c.name == node).unwrap();
                prop_assert!(matches!(late.accepts, Accepts::Perhaps(_)));
            }
        }
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(fleet in any_fleet(), seed in any::<u64>()) {
        let (tier, demand) = (tier(10, 100, 10, None), one());
        let mut shuffled = fleet.clone();
        let n = shuffled.candidates.len().max(1);
        shuffled.candidates.rotate_left(seed as usize % n);
        shuffled.candidates.reverse();
        prop_assert_eq!(decide(&tier, &fleet, &demand, None), decide(&tier, &shuffled, &demand, None));
    }

    #[test]
    fn filling_a_tier_takes_every_slot_once(count in 0usize..40) {
        // The model: place, and count what was placed. Never more than fits, and no node is started while another has room.
        let (tier, demand) = (tier(3, 100, 10, None), one());
        let capacity = capacity(&tier, tier.storage.size_gib);
        let mut fleet = fleet(vec![], 5);
        let mut refused = 0;
        for _ in 0..count {
            if let Decision::Start(new) = decide(&tier, &fleet, &demand, None) {
                fleet.candidates.push(candidate(&new.node, Accepts::Now, capacity, NodeResources::default()));
                fleet.taken.insert(new.node);
                fleet.nodes += 1;
            }
            match decide(&tier, &fleet, &demand, None) {
                Decision::Node { node, .. } => {
                    let taken = fleet.candidates.iter_mut().find(|c| c.name == node).unwrap();
                    taken.used = plus(&taken.used, &demand);
                }
                Decision::NoCapacity(_) => refused += 1,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(refused, count.saturating_sub(15));
        prop_assert_eq!(fleet.candidates.len(), count.min(15).div_ceil(3));
        prop_assert!(fleet.candidates.iter().all(|c| c.used.databases <= 3));
    }
}
