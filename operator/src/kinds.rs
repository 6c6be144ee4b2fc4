//! What the reconcilers of all kinds need to know of each.

use crate::cache::Cache;
use crate::hub::Hub;
use graphplane_crds::{Backup, BackupSchedule, Graph, GraphNode, GraphVolume, Replica, Subgraph, Tier};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;

use crate::metrics::ConditionOf;

/// All watches.
pub(crate) struct Hubs {
    pub(crate) tiers: Hub<Tier>,
    pub(crate) graphs: Hub<Graph>,
    pub(crate) subgraphs: Hub<Subgraph>,
    pub(crate) replicas: Hub<Replica>,
    pub(crate) backups: Hub<Backup>,
    pub(crate) schedules: Hub<BackupSchedule>,
    pub(crate) nodes: Hub<GraphNode>,
    pub(crate) volumes: Hub<GraphVolume>,
    pub(crate) leases: Hub<Lease>,
    pub(crate) secrets: Hub<Secret>,
}

impl Hubs {
    pub(crate) fn new() -> Self {
        Self {
            tiers: Hub::new(),
            graphs: Hub::new(),
            subgraphs: Hub::new(),
            replicas: Hub::new(),
            backups: Hub::new(),
            schedules: Hub::new(),
            nodes: Hub::new(),
            volumes: Hub::new(),
            leases: Hub::new(),
            secrets: Hub::new(),
        }
    }

    /// Objects by condition type and status, for the metrics.
    pub(crate) fn count_conditions(&self) -> HashMap<ConditionOf, i64> {
        let mut counts = HashMap::new();
        count::<Tier>(self, &mut counts);
        count::<Graph>(self, &mut counts);
        count::<Subgraph>(self, &mut counts);
        count::<Replica>(self, &mut counts);
        count::<Backup>(self, &mut counts);
        count::<BackupSchedule>(self, &mut counts);
        count::<GraphNode>(self, &mut counts);
        count::<GraphVolume>(self, &mut counts);
        counts
    }
}

fn count<K: Managed>(hubs: &Hubs, counts: &mut HashMap<ConditionOf, i64>) {
    for object in K::cache(hubs).list() {
        for condition in object.conditions() {
            let labels = ConditionOf {
                kind: K::KIND,
                r#type: condition.type_.clone(),
                status: condition.status.clone(),
            };
            *counts.entry(labels).or_default() += 1;
        }
    }
}

/// A kind that the operator reconciles.
pub(crate) trait Managed:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its name.
    const KIND: &'static str;
    /// Fields of its status that others write, or another part of the operator under another name: they are never part
    /// of what its reconciler applies.
    const FOREIGN: &'static [&'static str] = &[];

    fn cache(hubs: &Hubs) -> &Cache<Self>;
    fn api(client: &Client, namespace: &str) -> Api<Self>;
    fn conditions(&self) -> &[Condition];
}

macro_rules! managed {
    ($kind:ident, $hub:ident, $scope:ident $(, $foreign:literal)*) => {
        impl Managed for $kind {
            const KIND: &'static str = stringify!($kind);
            const FOREIGN: &'static [&'static str] = &[$($foreign),*];

            fn cache(hubs: &Hubs) -> &Cache<Self> {
                hubs.$hub.cache()
            }

            fn api(client: &Client, namespace: &str) -> Api<Self> {
                managed!(@api $scope, client, namespace)
            }

            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
            }
        }
    };
    (@api namespaced, $client:ident, $namespace:ident) => { Api::namespaced($client.clone(), $namespace) };
    (@api cluster, $client:ident, $namespace:ident) => {{ let _ = $namespace; Api::all($client.clone()) }};
}

managed!(Tier, tiers, cluster);
managed!(Graph, graphs, namespaced);
managed!(Subgraph, subgraphs, namespaced);
managed!(Replica, replicas, namespaced);
managed!(Backup, backups, namespaced);
managed!(BackupSchedule, schedules, namespaced);
// The REST API writes what an agent said when it registered.
managed!(GraphNode, nodes, cluster, "registration");
// A node writes its claim on its volume, guarded by the volume's resource version.
managed!(GraphVolume, volumes, cluster, "attachedTo", "epoch");
