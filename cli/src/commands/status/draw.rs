//! The snapshot as a tree: tiers, on them nodes, on these volumes and graphs, in these subgraphs.

use super::conditions::{lines, state};
use super::snapshot::{GraphView, NodeView, Snapshot, SubgraphView, TierView, VolumeView};
use crate::output::{Paint, Palette, Tree, bytes, printable};
use graphplane_crds::graph::Sizes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::fmt::Debug;

/// The tree; `all` shows every condition.
pub(super) fn tree(snapshot: &Snapshot, title: &str, all: bool, palette: Palette) -> Tree {
    let drawer = Drawer { snapshot, all, palette };
    let mut children: Vec<Tree> = snapshot.tiers.iter().map(|tier| drawer.tier(tier)).collect();
    let strays: Vec<&GraphView> = snapshot
        .graphs
        .iter()
        .filter(|graph| !snapshot.tiers.iter().any(|tier| tier.name == graph.tier))
        .collect();
    if !strays.is_empty() {
        children.push(Tree::node(
            "tiers that do not exist",
            strays.into_iter().map(|graph| drawer.graph(graph)).collect(),
        ));
    }
    if children.is_empty() {
        children.push(Tree::leaf(
            palette.paint(Paint::Dim, "nothing yet; `kubectl apply` a Tier and a Graph"),
        ));
    }
    Tree::node(palette.paint(Paint::Strong, title), children)
}

struct Drawer<'a> {
    snapshot: &'a Snapshot,
    all: bool,
    palette: Palette,
}

impl Drawer<'_> {
    /// `kind name  State  details`, with the conditions and what hangs below.
    fn object(
        &self,
        kind: &str,
        name: &str,
        state: (String, Paint),
        details: &[String],
        conditions: &[Condition],
        below: Vec<Tree>,
    ) -> Tree {
        let (word, paint) = state;
        let kind = self.palette.paint(Paint::Dim, kind);
        let mut label = format!(
            "{kind} {}  {}",
            self.palette.paint(Paint::Strong, &printable(name)),
            self.palette.paint(paint, &word)
        );
        if !details.is_empty() {
            label.push_str(&format!("  {}", details.join(", ")));
        }
        let mut children: Vec<Tree> = lines(conditions, self.all, self.palette)
            .into_iter()
            .map(Tree::leaf)
            .collect();
        children.extend(below);
        Tree::node(label, children)
    }

    fn tier(&self, tier: &TierView) -> Tree {
        let mut details = Vec::new();
        let mut conditions: &[Condition] = &[];
        if let Some(status) = &tier.status {
            let (nodes, capacity) = (&status.nodes, &status.capacity);
            details.push(format!("{} of {} nodes ready", nodes.ready, nodes.total));
            details.push(format!(
                "{} of {} databases",
                capacity.used_databases, capacity.databases
            ));
            conditions = &status.conditions;
        } else {
            details.push(format!("{} databases per node", tier.spec.databases_per_node));
        }
        let nodes = self.snapshot.nodes.iter().filter(|node| node.spec.tier == tier.name);
        let mut below: Vec<Tree> = nodes.map(|node| self.node(node)).collect();
        // Graphs without a node, and for callers who see no nodes, all graphs.
        let homeless = self
            .snapshot
            .graphs
            .iter()
            .filter(|graph| graph.tier == tier.name && self.node_of(graph).is_none());
        below.extend(homeless.map(|graph| self.graph(graph)));
        let state = match &tier.status {
            Some(_) => state(None, conditions),
            None => (String::new(), Paint::Dim),
        };
        self.object("tier", &tier.name, state, &details, conditions, below)
    }

    fn node_of(&self, graph: &GraphView) -> Option<&NodeView> {
        self.snapshot
            .nodes
            .iter()
            .find(|node| graph.node.as_ref() == Some(&node.name))
    }

    fn node(&self, node: &NodeView) -> Tree {
        let status = node.status.clone().unwrap_or_default();
        let mut details = vec![word(&node.spec.role).to_lowercase()];
        if let Some(epoch) = status.epoch {
            details.push(format!("epoch {epoch}"));
        }
        if node.draining {
            details.push("draining".to_owned());
        }
        if let Some(registration) = &status.registration {
            details.push(printable(&registration.address));
        }
        let volumes = self
            .snapshot
            .volumes
            .iter()
            .filter(|volume| node.spec.volume.as_ref() == Some(&volume.name));
        let mut below: Vec<Tree> = volumes.map(|volume| self.volume(volume)).collect();
        let graphs = self
            .snapshot
            .graphs
            .iter()
            .filter(|graph| graph.node.as_ref() == Some(&node.name));
        below.extend(graphs.map(|graph| self.graph(graph)));
        let state = state(status.phase.map(|phase| word(&phase)), &status.conditions);
        self.object("node", &node.name, state, &details, &status.conditions, below)
    }

    fn volume(&self, volume: &VolumeView) -> Tree {
        let status = volume.status.clone().unwrap_or_default();
        let size = status.size_gib.unwrap_or(volume.spec.size_gib);
        let mut details = vec![bytes(size.bytes())];
        if let Some(used) = status.used_mib {
            details.push(format!("{} used", bytes(used.bytes())));
        }
        let state = state(status.state.map(|state| word(&state)), &status.conditions);
        self.object("volume", &volume.name, state, &details, &status.conditions, Vec::new())
    }

    fn graph(&self, graph: &GraphView) -> Tree {
        let mut details: Vec<String> = graph.id.iter().map(|id| printable(id)).collect();
        details.extend(size(graph.sizes.as_ref()));
        let below = graph
            .workspaces
            .iter()
            .map(|subgraph| self.subgraph(subgraph))
            .collect();
        let state = state(graph.phase.map(|phase| word(&phase)), &graph.conditions);
        self.object("graph", &graph.name, state, &details, &graph.conditions, below)
    }

    fn subgraph(&self, subgraph: &SubgraphView) -> Tree {
        let mut details = vec![printable(&subgraph.type_)];
        details.extend(size(subgraph.sizes.as_ref()));
        let state = state(None, &subgraph.conditions);
        self.object(
            "subgraph",
            &subgraph.name,
            state,
            &details,
            &subgraph.conditions,
            Vec::new(),
        )
    }
}

/// The name of a variant, as it stands in manifests.
fn word(variant: &impl Debug) -> String {
    format!("{variant:?}")
}

fn size(sizes: Option<&Sizes>) -> Option<String> {
    sizes.map(|sizes| bytes(sizes.database_bytes.max(0) as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn ready(generation: i64) -> serde_json::Value {
        json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": generation,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn snapshot() -> Snapshot {
        let tier = json!({
            "name": "laptop",
            "spec": {"memory": {"nodeMiB": 2048, "perDatabaseMiB": 512}, "databasesPerNode": 4},
            "status": {"nodes": {"total": 1, "ready": 1}, "capacity": {"usedDatabases": 2, "databases": 4},
                       "conditions": [ready(1)]},
        });
        let node = json!({
            "name": "laptop-a1", "spec": {"tier": "laptop", "zone": "local", "volume": "laptop-a1"},
            "status": {"phase": "Ready", "epoch": 2, "conditions": [ready(1)]},
        });
        let volume = json!({
            "name": "laptop-a1", "spec": {"tier": "laptop", "zone": "local", "sizeGiB": 20},
            "status": {"state": "InUse", "usedMiB": 3, "conditions": [ready(1)]},
        });
        let graph = json!({
            "name": "airports", "namespace": "default", "tier": "laptop", "phase": "Ready", "node": "laptop-a1",
            "id": "kg0123456789abcdef", "sizes": {"databaseBytes": 1_572_864, "stagingBytes": 0}, "subgraphs": 1,
            "conditions": [ready(1)],
        });
        let waiting = json!({
            "name": "books", "namespace": "default", "tier": "laptop", "phase": "Pending",
            "conditions": [{"type": "Placed", "status": "False", "reason": "NoCapacity", "message": "no node has room",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let mut airports: GraphView = serde_json::from_value(graph).unwrap();
        let subgraph = json!({"name": "dev", "type": "static", "conditions": [ready(1)]});
        airports.workspaces.push(serde_json::from_value(subgraph).unwrap());
        Snapshot {
            tiers: vec![serde_json::from_value(tier).unwrap()],
            nodes: vec![serde_json::from_value(node).unwrap()],
            volumes: vec![serde_json::from_value(volume).unwrap()],
            graphs: vec![airports, serde_json::from_value(waiting).unwrap()],
        }
    }

    #[test]
    fn everything_hangs_below_what_it_stands_on() {
        let drawing = tree(&snapshot(), "http://127.0.0.1:8000", false, Palette::PLAIN).draw();
        let expected = "\
http://127.0.0.1:8000
└─ tier laptop  Ready  1 of 1 nodes ready, 2 of 4 databases
   ├─ node laptop-a1  Ready  writer, epoch 2
   │  ├─ volume laptop-a1  InUse  20.0 GiB, 3.0 MiB used
   │  └─ graph airports  Ready  kg0123456789abcdef, 1.5 MiB
   │     └─ subgraph dev  Ready  static
   └─ graph books  Pending
      └─ ● Placed NoCapacity: no node has room
";
        assert_eq!(drawing, expected);
    }

    #[test]
    fn callers_who_see_no_nodes_see_their_graphs_below_the_tier() {
        let mut snapshot = snapshot();
        snapshot.nodes.clear();
        snapshot.volumes.clear();
        snapshot.tiers[0].status = None;
        let drawing = tree(&snapshot, "t", false, Palette::PLAIN).draw();
        assert!(
            drawing.contains("└─ tier laptop    4 databases per node\n   ├─ graph airports"),
            "{drawing}"
        );
    }

    #[test]
    fn a_graph_of_a_missing_tier_and_an_empty_server_are_shown() {
        let mut snapshot = snapshot();
        snapshot.graphs[1].tier = "gone".into();
        assert!(
            tree(&snapshot, "t", false, Palette::PLAIN)
                .draw()
                .contains("└─ tiers that do not exist\n   └─ graph books")
        );
        assert!(
            tree(&Snapshot::default(), "t", false, Palette::PLAIN)
                .draw()
                .contains("nothing yet")
        );
    }
}
