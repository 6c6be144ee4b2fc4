//! Arithmetic on what nodes have and databases take.

use graphplane_crds::graph::GraphSpec;
use graphplane_crds::node::NodeResources;
use graphplane_crds::quantities::{GiB, MiB};
use graphplane_crds::tier::TierSpec;

/// The four amounts, in one order, for arithmetic that treats them alike.
pub(crate) fn amounts(r: &NodeResources) -> [u64; 4] {
    [
        u64::from(r.memory_mib.0),
        u64::from(r.databases),
        u64::from(r.subgraphs),
        u64::from(r.disk_mib.0),
    ]
}

/// `GiB` as `MiB`; the largest `MiB` when it does not fit.
pub fn mib(size: GiB) -> MiB {
    MiB(size.0.saturating_mul(1024))
}

/// Both together.
#[must_use]
pub fn plus(a: &NodeResources, b: &NodeResources) -> NodeResources {
    NodeResources {
        memory_mib: MiB(a.memory_mib.0.saturating_add(b.memory_mib.0)),
        databases: a.databases.saturating_add(b.databases),
        subgraphs: a.subgraphs.saturating_add(b.subgraphs),
        disk_mib: MiB(a.disk_mib.0.saturating_add(b.disk_mib.0)),
    }
}

/// Whether `demand` fits beside `used` into `capacity`, in every respect.
pub fn fits(capacity: &NodeResources, used: &NodeResources, demand: &NodeResources) -> bool {
    let (capacity, used, demand) = (amounts(capacity), amounts(used), amounts(demand));
    // What is not asked for cannot be short: subgraphs may take more memory than a node has, and a graph that needs no
    // subgraph slot must not be refused for them.
    (0..4).all(|i| demand[i] == 0 || used[i] + demand[i] <= capacity[i])
}

/// What a node of the tier with a volume of `volume` has.
pub fn capacity(tier: &TierSpec, volume: GiB) -> NodeResources {
    NodeResources {
        memory_mib: tier.memory.node_mib,
        databases: tier.databases_per_node,
        subgraphs: tier
            .max_subgraphs
            .map_or(u32::MAX, |each| each.saturating_mul(tier.databases_per_node)),
        disk_mib: mib(volume),
    }
}

/// What a graph takes of its node.
pub fn graph_demand(tier: &TierSpec, graph: &GraphSpec) -> NodeResources {
    NodeResources {
        memory_mib: tier.memory.per_database_mib,
        databases: 1,
        subgraphs: 0,
        disk_mib: mib(graph.storage.size_gib),
    }
}

/// What a subgraph takes of its parent's node. Its disk is part of its parent's.
pub fn subgraph_demand(tier: &TierSpec) -> NodeResources {
    NodeResources {
        memory_mib: tier.memory.per_subgraph_mib.unwrap_or(tier.memory.per_database_mib),
        databases: 0,
        subgraphs: 1,
        disk_mib: MiB(0),
    }
}

/// The largest volume that nodes of the tier may have.
pub fn largest_volume(tier: &TierSpec) -> GiB {
    tier.storage
        .autogrow
        .as_ref()
        .map_or(tier.storage.size_gib, |grow| grow.max_gib.max(tier.storage.size_gib))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn some() -> impl Strategy<Value = NodeResources> {
        (0u32..100, 0u32..100, 0u32..100, 0u32..100).prop_map(|(m, d, s, k)| NodeResources {
            memory_mib: MiB(m),
            databases: d,
            subgraphs: s,
            disk_mib: MiB(k),
        })
    }

    proptest! {
        #[test]
        fn what_fits_leaves_no_amount_above_the_capacity(capacity in some(), used in some(), demand in some()) {
            if fits(&capacity, &used, &demand) {
                let total = amounts(&plus(&used, &demand));
                for ((total, demand), capacity) in total.into_iter().zip(amounts(&demand)).zip(amounts(&capacity)) {
                    prop_assert!(demand == 0 || total <= capacity);
                }
            } else {
                let total = amounts(&plus(&used, &demand));
                prop_assert!((0..4).any(|i| total[i] > amounts(&capacity)[i]));
            }
        }
    }

    #[test]
    fn huge_figures_do_not_wrap() {
        let huge = NodeResources {
            memory_mib: MiB(u32::MAX),
            databases: u32::MAX,
            subgraphs: u32::MAX,
            disk_mib: MiB(u32::MAX),
        };
        assert_eq!(plus(&huge, &huge), huge);
        assert!(!fits(
            &huge,
            &huge,
            &NodeResources {
                databases: 1,
                ..Default::default()
            }
        ));
        assert_eq!(mib(GiB(u32::MAX)), MiB(u32::MAX));
    }
}
