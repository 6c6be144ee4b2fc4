//! The world as the plans of `graphplane-core` see it, computed from what the watches know.

use crate::cache::key;
use crate::context::Context;
use crate::kinds::Hubs;
use graphplane_core::ending::{FinalBackup, NodeSeen};
use graphplane_core::fleet::{self, Accepts, Candidate, Fleet, NodeView, SpareVolume};
use graphplane_core::lease::LeaseFacts;
use graphplane_core::resources::{capacity, graph_demand, plus, subgraph_demand};
use graphplane_core::usage::Usage;
use graphplane_core::{epoch, names};
use graphplane_crds::annotations::{RETAINED_PREFIX, USAGE};
use graphplane_crds::backup::{Backup, BackupPhase};
use graphplane_crds::conditions;
use graphplane_crds::graph::{LastBackup, Sizes};
use graphplane_crds::node::NodeResources;
use graphplane_crds::{Graph, GraphNode, GraphVolume, SYSTEM_NAMESPACE, Subgraph, Tier};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a Lease object says; `None` while nobody has renewed it.
pub(crate) fn lease_facts(lease: &Lease) -> Option<LeaseFacts> {
    let spec = lease.spec.as_ref()?;
    let duration = Duration::from_secs(
        spec.lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .unwrap_or(15),
    );
    let usage = lease.annotations().get(USAGE).and_then(|text| Usage::parse(text));
    Some(LeaseFacts {
        renewed: spec.renew_time.as_ref()?.0,
        duration,
        usage,
    })
}

/// The lease of a node.
pub(crate) fn lease_of(hubs: &Hubs, node: &str) -> Option<LeaseFacts> {
    lease_facts(&*hubs.leases.cache().get(SYSTEM_NAMESPACE, &names::node_object(node))?)
}

/// What the agent of a node said with its newest renewal under the node's current epoch.
pub(crate) fn usage_of(hubs: &Hubs, node: &str) -> Option<(Timestamp, Duration, Usage)> {
    let epoch = hubs.nodes.cache().get("", node)?.status.as_ref()?.epoch?;
    let lease = lease_of(hubs, node)?;
    let usage = lease.usage.filter(|u| u.epoch == epoch.0)?;
    Some((lease.renewed, lease.duration, usage))
}

impl Context {
    /// How a node stands now.
    pub(crate) fn view(&self, node: &GraphNode) -> NodeView {
        let lease = lease_of(&self.hubs, &node.name_any());
        let view = fleet::view(node, lease.as_ref(), self.now(), self.watched_since);
        let tier = self.hubs.tiers.cache().get("", &node.spec.tier);
        match fleet::never_had_a_machine(node) && tier.is_some_and(|tier| self.zone(&tier) != node.spec.zone) {
            true => NodeView {
                accepts: Accepts::Never(format!("gets no machine in zone {} at present", node.spec.zone)),
                ..view
            },
            false => view,
        }
    }

    /// What a machine of a tier is started from now, as the provider notes it on the machine.
    pub(crate) fn template_of(&self, tier: &Tier) -> Option<String> {
        let outputs = tier.status.as_ref().map(|s| &s.stack_outputs)?;
        self.listing.provider().template(outputs)
    }

    /// The node that a status names.
    pub(crate) fn node_seen(&self, node: Option<&str>, volume: Option<&str>) -> NodeSeen {
        let Some(name) = node else { return NodeSeen::NotPlaced };
        match self.hubs.nodes.cache().get("", name) {
            Some(node) => NodeSeen::Present(self.view(&node)),
            None => {
                let volume = volume.is_some_and(|v| self.hubs.volumes.cache().get("", v).is_some());
                NodeSeen::Gone { volume }
            }
        }
    }

    /// The node that mounts a volume.
    pub(crate) fn node_of_volume(&self, volume: &str) -> NodeSeen {
        let nodes = self.hubs.nodes.cache().list();
        let mounts = nodes.iter().find(|n| n.spec.volume.as_deref() == Some(volume));
        match mounts {
            Some(node) => NodeSeen::Present(self.view(node)),
            None => NodeSeen::Gone {
                volume: self.hubs.volumes.cache().get("", volume).is_some(),
            },
        }
    }

    /// What placement may choose from on a tier.
    pub(crate) fn fleet(&self, tier: &Tier) -> Fleet {
        let name = tier.name_any();
        let (nodes, volumes) = (self.hubs.nodes.cache().list(), self.hubs.volumes.cache().list());
        let used = self.allocations();
        let of_tier: Vec<&Arc<GraphNode>> = nodes.iter().filter(|n| is_writer_of(n, &name)).collect();
        let candidates = of_tier
            .iter()
            .filter_map(|n| self.candidate(tier, n, &volumes, &used))
            .collect();
        let named = |v: &GraphVolume| nodes.iter().any(|n| n.spec.volume.as_deref() == Some(&v.name_any()));
        let spare = |v: &&Arc<GraphVolume>| v.spec.tier == name && v.metadata.deletion_timestamp.is_none() && !named(v);
        let holding = self.volumes_with_graphs();
        let spare_volumes = volumes.iter().filter(spare).map(|v| SpareVolume {
            name: v.name_any(),
            zone: v.spec.zone.clone(),
            size_gib: v.spec.size_gib,
            holds_data: holds_data(v) || holding.contains(&v.name_any()),
        });
        let node_names: std::collections::BTreeSet<String> = nodes.iter().map(|n| n.name_any()).collect();
        Fleet {
            tier: name.clone(),
            candidates,
            spare_volumes: spare_volumes.collect(),
            taken: node_names
                .iter()
                .cloned()
                .chain(volumes.iter().map(|v| v.name_any()))
                .collect(),
            node_names,
            nodes: u32::try_from(of_tier.len()).unwrap_or(u32::MAX),
            max_nodes: tier.spec.scaling.max_nodes,
            zone: self.zone(tier),
        }
    }

    /// Zone of a tier's new nodes: the first that it allows, of those where its machines can be had, if there is one.
    pub(crate) fn zone(&self, tier: &Tier) -> String {
        let zones = self.listing.provider().zones_with(&tier.spec.instance.types);
        let allowed = zones.iter().find(|z| tier.spec.instance.zones.contains(z));
        allowed.or(zones.first()).cloned().unwrap_or_default()
    }

    fn candidate(
        &self,
        tier: &Tier,
        node: &GraphNode,
        volumes: &[Arc<GraphVolume>],
        used: &HashMap<String, NodeResources>,
    ) -> Option<Candidate> {
        let volume = node.spec.volume.as_deref()?;
        let disk = volumes.iter().find(|v| v.name_any() == volume);
        let view = self.view(node);
        let status = node.status.as_ref();
        let current = |d: &GraphVolume| {
            let registered = status.and_then(|s| s.registration.as_ref()).map(|r| r.epoch);
            epoch::is_current(
                status.and_then(|s| s.epoch),
                d.status.as_ref().and_then(|s| s.epoch),
                registered,
            )
        };
        let accepts = match (disk, view.accepts) {
            (None, _) => Accepts::No("has no volume".to_owned()),
            (Some(d), _) if d.metadata.deletion_timestamp.is_some() => {
                Accepts::No("has a volume that is being deleted".to_owned())
            }
            (Some(d), Accepts::Now) if !current(d) => Accepts::No("is of an older epoch than its volume".to_owned()),
            (_, accepts) => accepts,
        };
        Some(Candidate {
            name: node.name_any(),
            volume: volume.to_owned(),
            accepts,
            capacity: capacity(&tier.spec, disk.map(|d| d.spec.size_gib).unwrap_or_default()),
            used: used.get(&node.name_any()).copied().unwrap_or_default(),
        })
    }

    /// What graphs and subgraphs take of each node, counted anew from their statuses and from what has been promised.
    pub(crate) fn allocations(&self) -> HashMap<String, NodeResources> {
        let tiers: HashMap<String, Arc<Tier>> = self
            .hubs
            .tiers
            .cache()
            .list()
            .into_iter()
            .map(|t| (t.name_any(), t))
            .collect();
        let tier_of_node = |node: &str| {
            self.hubs
                .nodes
                .cache()
                .get("", node)
                .and_then(|n| tiers.get(&n.spec.tier).cloned())
        };
        let mut used: HashMap<String, NodeResources> = HashMap::new();
        let mut add = |node: &str, demand: NodeResources| {
            let total = used.entry(node.to_owned()).or_default();
            *total = plus(total, &demand);
        };
        let promises = self.placer.promises();
        for graph in self.hubs.graphs.cache().list() {
            let placed = graph.status.as_ref().and_then(|s| s.node.as_deref());
            let promised = graph
                .metadata
                .uid
                .as_ref()
                .and_then(|uid| promises.get(uid))
                .map(String::as_str);
            let Some(node) = placed.or(promised) else { continue };
            // A graph whose tier is gone still takes a slot.
            let tier = tier_of_node(node).or_else(|| tiers.get(&graph.spec.tier).cloned());
            add(
                node,
                tier.map_or(
                    NodeResources {
                        databases: 1,
                        ..Default::default()
                    },
                    |t| graph_demand(&t.spec, &graph.spec),
                ),
            );
        }
        for subgraph in self.hubs.subgraphs.cache().list() {
            let Some(node) = subgraph.status.as_ref().and_then(|s| s.node.as_deref()) else {
                continue;
            };
            add(
                node,
                tier_of_node(node).map_or(
                    NodeResources {
                        subgraphs: 1,
                        ..Default::default()
                    },
                    |t| subgraph_demand(&t.spec),
                ),
            );
        }
        used
    }

    /// Volumes that graphs are placed on.
    fn volumes_with_graphs(&self) -> std::collections::HashSet<String> {
        self.hubs
            .graphs
            .cache()
            .list()
            .iter()
            .filter_map(|g| g.status.as_ref()?.volume.clone())
            .collect()
    }

    /// The final Backup of an object.
    pub(crate) fn final_backup(&self, namespace: &str, name: &str) -> Option<FinalBackup> {
        let backup = self.hubs.backups.cache().get(namespace, name)?;
        let status = backup.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let why = conditions::get(&status.conditions, conditions::READY);
        let failed = (phase == BackupPhase::Failed)
            .then(|| why.map(|c| (c.last_transition_time.0, c.message.clone())))
            .flatten();
        Some(FinalBackup {
            phase,
            failed,
            deleting: backup.metadata.deletion_timestamp.is_some(),
        })
    }

    /// The newest complete backup of a graph.
    pub(crate) fn last_backup(&self, graph: &Graph) -> Option<LastBackup> {
        let (namespace, name) = key(graph);
        let id = graph.status.as_ref().and_then(|s| s.graph_id.as_ref());
        let of_graph = |b: &&Arc<Backup>| {
            let status = b.status.as_ref();
            b.namespace().unwrap_or_default() == namespace
                && b.spec.graph == name
                && b.spec.subgraph.is_none()
                && status.is_some_and(|s| s.phase == Some(BackupPhase::Completed) && s.graph_id.as_ref() == id)
        };
        let backups = self.hubs.backups.cache().list();
        let newest = backups
            .iter()
            .filter(of_graph)
            .filter_map(|b| Some((b.status.as_ref()?.completed_at.clone()?, b)));
        newest
            .max_by(|(a, x), (b, y)| a.0.cmp(&b.0).then_with(|| x.name_any().cmp(&y.name_any())))
            .map(|(time, b)| LastBackup {
                name: b.name_any(),
                time,
            })
    }

    /// Sizes of a database as its agent reports them.
    pub(crate) fn sizes(&self, node: &str, database: &str) -> Option<Sizes> {
        usage_of(&self.hubs, node)?.2.sizes(database)
    }

    /// Whether the agent's newest list of databases, made well after the database was ready, lacks it.
    pub(crate) fn is_missing(&self, node: &NodeView, database: &str, ready_since: Option<Timestamp>) -> bool {
        let Some(since) = ready_since else { return false };
        let Some((renewed, duration, usage)) = usage_of(&self.hubs, &node.name) else {
            return false;
        };
        let well_after = Duration::try_from(renewed.duration_since(since)).is_ok_and(|age| age > duration);
        well_after && !usage.databases.iter().any(|d| d.id == database)
    }

    /// Subgraphs of a graph.
    pub(crate) fn subgraphs_of(&self, namespace: &str, graph: &str) -> Vec<Arc<Subgraph>> {
        let mut found = self.hubs.subgraphs.cache().list();
        found.retain(|s| s.spec.graph == graph && s.namespace().as_deref() == Some(namespace));
        found.sort_by_key(|s| s.name_any());
        found
    }
}

/// Whether a node holds databases of a tier; those of read fleets are counted where they belong.
pub(crate) fn is_writer_of(node: &GraphNode, tier: &str) -> bool {
    node.spec.tier == tier && node.spec.replica.is_none()
}

/// Whether databases are on a volume, as far as its status and the notes of kept data know. The note is there before the
/// object goes, the status may follow later.
pub(crate) fn holds_data(volume: &GraphVolume) -> bool {
    volume.status.as_ref().is_some_and(|s| !s.databases.is_empty())
        || volume.annotations().keys().any(|key| key.starts_with(RETAINED_PREFIX))
}

/// Since when a database is ready, by its object's conditions.
pub(crate) fn ready_since(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
) -> Option<Timestamp> {
    conditions::get(conditions, conditions::DATABASE_READY)
        .filter(|c| c.status == "True")
        .map(|c| c.last_transition_time.0)
}

/// The present in whole seconds, as the API keeps times.
pub(crate) fn whole(now: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
