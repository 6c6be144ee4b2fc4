//! Which node takes a database: best fit, deterministic, never on a node that may not have it.

use crate::fleet::{Accepts, Candidate, Fleet, SpareVolume};
use crate::names;
use crate::resources::{amounts, capacity, fits, largest_volume, plus};
use graphplane_crds::node::NodeResources;
use graphplane_crds::quantities::{GiB, MiB};
use graphplane_crds::tier::TierSpec;

/// What placement decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take this node.
    Node {
        /// The GraphNode.
        node: String,
        /// Its GraphVolume.
        volume: String,
    },
    /// Start this node, then ask again.
    Start(NewNode),
    /// A node that would do is expected back; ask again when it changes.
    Wait {
        /// The GraphNode.
        node: String,
        /// Why it cannot be taken now.
        why: String,
    },
    /// No node has room, and no more may be started.
    NoCapacity(String),
    /// Not even an empty node would do.
    DoesNotFit(String),
}

/// A node that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Name of the GraphNode.
    pub node: String,
    /// Name of the GraphVolume.
    pub volume: String,
    /// Zone of both.
    pub zone: String,
    /// Size of the volume.
    pub size_gib: GiB,
    /// Whether the volume has to be made; otherwise it is one that has no node.
    pub new_volume: bool,
}

/// Decides where something that takes `demand` goes. `pinned` names the volume that holds its data already, if any: it
/// goes nowhere else.
pub fn decide(tier: &TierSpec, fleet: &Fleet, demand: &NodeResources, pinned: Option<&str>) -> Decision {
    let may_have = |c: &&Candidate| pinned.is_none_or(|volume| c.volume == volume);
    let roomy: Vec<&Candidate> = fleet
        .candidates
        .iter()
        .filter(may_have)
        .filter(|c| fits(&c.capacity, &c.used, demand))
        .collect();
    let best = |wanted: Accepts| {
        roomy
            .iter()
            .filter(|c| c.accepts == wanted)
            .min_by_key(|c| (leftover(c, demand), c.name.as_str()))
    };
    if let Some(c) = best(Accepts::Now).or_else(|| best(Accepts::Soon)) {
        return Decision::Node {
            node: c.name.clone(),
            volume: c.volume.clone(),
        };
    }
    let late = roomy
        .iter()
        .filter(|c| matches!(c.accepts, Accepts::Perhaps(_)))
        .min_by_key(|c| c.name.as_str());
    if let Some(Candidate {
        name,
        accepts: Accepts::Perhaps(why),
        ..
    }) = late
    {
        return Decision::Wait {
            node: name.clone(),
            why: why.clone(),
        };
    }
    match pinned {
        Some(volume) => start_for(fleet, volume),
        None => start(tier, fleet, demand),
    }
}

/// The node that would be started next for something that takes `demand`, or why none may be.
pub fn start(tier: &TierSpec, fleet: &Fleet, demand: &NodeResources) -> Decision {
    let largest = largest_volume(tier);
    let empty = NodeResources::default();
    if !fits(&capacity(tier, largest), &empty, demand) {
        return Decision::DoesNotFit(too_large(tier, fleet, demand, largest));
    }
    if fleet.nodes >= fleet.max_nodes {
        return Decision::NoCapacity(full(fleet));
    }
    let spare = fleet
        .spare_volumes
        .iter()
        .filter(|v| !v.holds_data && v.size_gib.bytes() >= demand.disk_mib.bytes());
    if let Some(volume) = spare.min_by_key(|v| (v.size_gib, v.name.as_str())) {
        return Decision::Start(with_volume(fleet, volume));
    }
    let name = names::next_node(&fleet.tier, &fleet.taken);
    let size_gib = tier.storage.size_gib.max(GiB::ceil(demand.disk_mib.bytes()));
    Decision::Start(NewNode {
        volume: name.clone(),
        node: name,
        zone: fleet.zone.clone(),
        size_gib,
        new_volume: true,
    })
}

fn start_for(fleet: &Fleet, pinned: &str) -> Decision {
    if let Some(c) = fleet.candidates.iter().find(|c| c.volume == pinned) {
        let why = match &c.accepts {
            Accepts::No(why) | Accepts::Never(why) => format!("which {why}"),
            _ => "which has no room for it".to_owned(),
        };
        return Decision::NoCapacity(format!("the data is on volume {pinned} of node {}, {why}", c.name));
    }
    match fleet.spare_volumes.iter().find(|v| v.name == pinned) {
        None => Decision::NoCapacity(format!("the data is on volume {pinned}, which is not usable now")),
        Some(_) if fleet.nodes >= fleet.max_nodes => Decision::NoCapacity(full(fleet)),
        Some(volume) => Decision::Start(with_volume(fleet, volume)),
    }
}

// The node is named like its volume where that name is free: people look for the two together.
fn with_volume(fleet: &Fleet, volume: &SpareVolume) -> NewNode {
    let free = !fleet.candidates.iter().any(|c| c.name == volume.name) && !fleet.node_names.contains(&volume.name);
    let node = if free {
        volume.name.clone()
    } else {
        names::next_node(&fleet.tier, &fleet.taken)
    };
    NewNode {
        node,
        volume: volume.name.clone(),
        zone: volume.zone.clone(),
        size_gib: volume.size_gib,
        new_volume: false,
    }
}

fn full(fleet: &Fleet) -> String {
    format!(
        "no node of tier {} has room, and its {} allowed nodes are running: raise scaling.maxNodes of the tier, or delete \
         graphs",
        fleet.tier, fleet.max_nodes
    )
}

fn too_large(tier: &TierSpec, fleet: &Fleet, demand: &NodeResources, largest: GiB) -> String {
    if demand.disk_mib.bytes() > largest.bytes() {
        return format!(
            "storage.sizeGiB is {}, but volumes of tier {} hold at most {} GiB: choose a larger tier or raise \
             storage.autogrow.maxGiB of the tier",
            GiB::ceil(demand.disk_mib.bytes()).0,
            fleet.tier,
            largest.0
        );
    }
    format!(
        "it takes {} MiB of memory, but nodes of tier {} have {} MiB",
        demand.memory_mib.0, fleet.tier, tier.memory.node_mib.0
    )
}

/// How much of a node stays free when it takes `demand`: the sum of the free shares, in thousandths. The least is the
/// best fit.
fn leftover(candidate: &Candidate, demand: &NodeResources) -> u64 {
    let after = amounts(&plus(&candidate.used, demand));
    let capacity = amounts(&candidate.capacity);
    (0..4)
        .filter(|i| capacity[*i] > 0)
        .map(|i| capacity[i].saturating_sub(after[i]) * 1000 / capacity[i])
        .sum()
}

/// Nothing at all: what the tier's minimum of nodes is started for.
pub fn nothing() -> NodeResources {
    NodeResources {
        disk_mib: MiB(0),
        ..NodeResources::default()
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
