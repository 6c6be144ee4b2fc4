//! Which objects have rows, what the rows should say, and which of them a change touches.

use crate::kinds::Hubs;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use graphplane_core::registry::{Owner, Row, Table, rows};
use graphplane_crds::{Graph, GraphNode, GraphVolume, Replica};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// An object that has a row, or had one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) table: Table,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Subject {
    fn of<K: ResourceExt>(table: Table, object: &K) -> Self {
        Self {
            table,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        }
    }

    /// The object that a row says it is of.
    pub(super) fn of_row(table: Table, owner: Owner) -> Self {
        let (namespace, name) = owner.object.split_once('/').unwrap_or(("", owner.object.as_str()));
        Self {
            table,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: owner.uid,
        }
    }
}

/// Something that rows depend on has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// An object that has a row.
    Of(Subject),
    /// A tier, by name.
    Tier(String),
    /// The read fleets of a graph: its namespace and name.
    Fleet(String, String),
    /// A node of a read fleet: the id of its graph.
    Serves(String),
}

/// Every change from now on.
pub(super) fn changes(hubs: &Hubs) -> BoxStream<'static, Vec<Change>> {
    let nodes = hubs.nodes.changes().map(|node| {
        let mut changes = vec![Change::Of(Subject::of(Table::Instances, &*node))];
        changes.extend(
            node.spec
                .replica
                .as_ref()
                .map(|of| Change::Serves(of.graph_id.to_string())),
        );
        changes
    });
    let graphs = hubs.graphs.changes();
    let graphs = graphs.map(|graph| vec![Change::Of(Subject::of(Table::Graphs, &*graph))]);
    let volumes = hubs.volumes.changes();
    let volumes = volumes.map(|volume| vec![Change::Of(Subject::of(Table::Volumes, &*volume))]);
    let tiers = hubs.tiers.changes().map(|tier| vec![Change::Tier(tier.name_any())]);
    let fleets = hubs.replicas.changes();
    let fleets = fleets.map(|r| vec![Change::Fleet(r.namespace().unwrap_or_default(), r.spec.graph.clone())]);
    stream::select_all([
        nodes.boxed(),
        graphs.boxed(),
        volumes.boxed(),
        tiers.boxed(),
        fleets.boxed(),
    ])
    .boxed()
}

/// What is known, arranged for making rows of many objects.
pub(super) struct Known<'a> {
    hubs: &'a Hubs,
    cluster: &'a str,
    fleets: HashMap<(String, String), Vec<Arc<Replica>>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(hubs: &'a Hubs, cluster: &'a str) -> Self {
        let mut fleets: HashMap<_, Vec<Arc<Replica>>> = HashMap::new();
        for fleet in hubs.replicas.cache().list() {
            let graph = (fleet.namespace().unwrap_or_default(), fleet.spec.graph.clone());
            fleets.entry(graph).or_default().push(fleet);
        }
        Self { hubs, cluster, fleets }
    }

    /// All objects that may have rows.
    pub(super) fn all(&self) -> HashSet<Subject> {
        let nodes = self.hubs.nodes.cache().list();
        let graphs = self.hubs.graphs.cache().list();
        let volumes = self.hubs.volumes.cache().list();
        let nodes = nodes.iter().map(|o| Subject::of(Table::Instances, &**o));
        let graphs = graphs.iter().map(|o| Subject::of(Table::Graphs, &**o));
        let volumes = volumes.iter().map(|o| Subject::of(Table::Volumes, &**o));
        nodes.chain(graphs).chain(volumes).collect()
    }

    /// The objects whose rows some changes touch. A node's row is part of those of what is on it.
    pub(super) fn touched(&self, changes: &HashSet<Change>) -> HashSet<Subject> {
        let mut touched = HashSet::new();
        let mut nodes = HashSet::new();
        for change in changes {
            if let Change::Of(subject) = change {
                touched.insert(subject.clone());
                if subject.table == Table::Instances {
                    nodes.insert(subject.name.as_str());
                }
            }
        }
        let only_of_itself =
            |change: &Change| matches!(change, Change::Of(subject) if subject.table != Table::Instances);
        if changes.iter().all(only_of_itself) {
            return touched;
        }
        for node in self.hubs.nodes.cache().list() {
            if changes.contains(&Change::Tier(node.spec.tier.clone())) {
                touched.insert(Subject::of(Table::Instances, &*node));
            }
        }
        for graph in self.hubs.graphs.cache().list() {
            let status = graph.status.as_ref();
            let on = status
                .and_then(|s| s.node.as_deref())
                .is_some_and(|n| nodes.contains(n));
            let id = status.and_then(|s| s.graph_id.as_ref());
            let served = id.is_some_and(|id| changes.contains(&Change::Serves(id.to_string())));
            let read = || changes.contains(&Change::Fleet(graph.namespace().unwrap_or_default(), graph.name_any()));
            if on || served || read() {
                touched.insert(Subject::of(Table::Graphs, &*graph));
            }
        }
        for volume in self.hubs.volumes.cache().list() {
            let attached = volume.status.as_ref().and_then(|s| s.attached_to.as_deref());
            if attached.is_some_and(|n| nodes.contains(n)) {
                touched.insert(Subject::of(Table::Volumes, &*volume));
            }
        }
        touched
    }

    /// What the row of an object should say; `None` if it should have none, or does not exist.
    pub(super) fn wanted(&self, subject: &Subject) -> Option<Row> {
        let Subject {
            namespace, name, uid, ..
        } = subject;
        let is_it = |found: Option<String>| found.as_ref() == Some(uid);
        match subject.table {
            Table::Instances => {
                let node = self.node(name).filter(|o| is_it(o.uid()))?;
                let tier = self.hubs.tiers.cache().get("", &node.spec.tier);
                rows::of_node(self.cluster, &node, tier.as_deref())
            }
            Table::Graphs => {
                let graph = self.hubs.graphs.cache().get(namespace, name);
                let graph = graph.filter(|o| is_it(o.uid()))?;
                let on = graph.status.as_ref().and_then(|s| s.node.as_deref());
                let node = on.and_then(|name| self.node(name));
                rows::of_graph(self.cluster, &graph, node.as_deref(), self.readers(&graph))
            }
            Table::Volumes => {
                let volume = self.hubs.volumes.cache().get("", name);
                let volume = volume.filter(|o| is_it(o.uid()))?;
                let attached = volume.status.as_ref().and_then(|s| s.attached_to.as_deref());
                let node = attached.and_then(|name| self.node(name));
                rows::of_volume(self.cluster, &volume, node.as_deref())
            }
        }
    }

    /// What an event about an object refers to.
    pub(super) fn reference(&self, subject: &Subject) -> ObjectReference {
        let (kind, api_version) = match subject.table {
            Table::Instances => (GraphNode::kind(&()), GraphNode::api_version(&())),
            Table::Graphs => (Graph::kind(&()), Graph::api_version(&())),
            Table::Volumes => (GraphVolume::kind(&()), GraphVolume::api_version(&())),
        };
        ObjectReference {
            kind: Some(kind.into_owned()),
            api_version: Some(api_version.into_owned()),
            namespace: Some(subject.namespace.clone()).filter(|n| !n.is_empty()),
            name: Some(subject.name.clone()),
            uid: Some(subject.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Identities of the machines that databases may be on, and the tiers that disks may be of.
    pub(super) fn places(&self) -> (HashSet<String>, HashSet<String>) {
        let nodes = self.hubs.nodes.cache().list();
        let writers = nodes.iter().filter(|n| n.spec.replica.is_none());
        let instances = writers.filter_map(|n| rows::instance_id(n).map(str::to_owned));
        let tiers = self.hubs.tiers.cache().list();
        let volumes = self.hubs.volumes.cache().list();
        let named = tiers.iter().map(|t| t.name_any());
        (
            instances.collect(),
            named.chain(volumes.iter().map(|v| v.spec.tier.clone())).collect(),
        )
    }

    fn node(&self, name: &str) -> Option<Arc<GraphNode>> {
        self.hubs.nodes.cache().get("", name)
    }

    /// URLs that serve seeds of a graph: the fleet's own where it has one, else those of its nodes that have a seed.
    fn readers(&self, graph: &Graph) -> Vec<String> {
        let key = (graph.namespace().unwrap_or_default(), graph.name_any());
        let id = graph.status.as_ref().and_then(|s| s.graph_id.as_ref());
        let fleets = self.fleets.get(&key).into_iter().flatten();
        let statuses = fleets
            .filter(|fleet| fleet.metadata.deletion_timestamp.is_none())
            .filter_map(|fleet| fleet.status.as_ref());
        let mut urls = Vec::new();
        for status in statuses {
            if let Some(endpoint) = status.endpoint.as_ref().filter(|_| status.ready_replicas > 0) {
                urls.push(endpoint.clone());
                continue;
            }
            for serving in status.nodes.iter().filter(|node| node.seed_version.is_some()) {
                // A node of that name that was made since may serve another graph.
                let node = self.node(&serving.name);
                let node = node.filter(|n| n.spec.replica.as_ref().map(|of| &of.graph_id) == id);
                urls.extend(node.and_then(|n| rows::endpoint(&n).map(str::to_owned)));
            }
        }
        urls
    }
}
