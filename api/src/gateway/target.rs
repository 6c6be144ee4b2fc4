//! Where a graph is: its node's agent, judged from objects in memory.
//!
//! A cache may lag. Whatever it says against a call is checked with the API server before the client hears it, so that
//! who has just seen `Ready` is not told otherwise.

use crate::cache::{Caches, subgraph_word};
use crate::graphs::{effective_id, find};
use crate::names::is_object_name;
use crate::nodes::secret;
use crate::problem::{Problem, clip, kind};
use crate::state::App;
use crate::subgraphs;
use graphplane_core::names::node_object;
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::ids::{GraphId, SubgraphName};
use graphplane_crds::{Graph, GraphNode, Subgraph, Tier};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A database that can be called now.
#[derive(Clone)]
pub(super) struct Target {
    /// Name of the Graph.
    pub(super) graph: String,
    pub(super) graph_id: GraphId,
    pub(super) database: String,
    pub(super) node: String,
    pub(super) address: String,
    pub(super) api_key: String,
    pub(super) epoch: u64,
    /// The node's own limit of a query.
    pub(super) query_timeout: Duration,
    /// The node's own limit of a load.
    pub(super) load_timeout: Duration,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            database,
            node,
            address,
            epoch,
            ..
        } = self;
        write!(f, "{database} on {node} at {address}, epoch {epoch}")
    }
}

/// The objects that say where a database is.
struct Found {
    graph: Arc<Graph>,
    /// Of a subgraph's id: its name, and the object if there is one.
    subgraph: Option<(SubgraphName, Option<Arc<Subgraph>>)>,
    node: Option<Arc<GraphNode>>,
    secret: Option<Arc<Secret>>,
    tier: Option<Arc<Tier>>,
}

/// A database's name in a URL: a graph's name or id, or `<either>_<subgraph>`.
fn split(text: &str) -> Option<(&str, Option<SubgraphName>)> {
    match text.split_once('_') {
        None => is_object_name(text).then_some((text, None)),
        Some((graph, name)) => is_object_name(graph).then_some((graph, Some(name.parse().ok()?))),
    }
}

/// Finds the database that a caller of a namespace names.
pub(super) async fn resolve(app: &App, namespace: &str, text: &str) -> Result<Target, Problem> {
    let missing = || Problem::not_found(format!("graph `{}` in namespace `{namespace}`", clip(text)));
    let (graph, subgraph) = split(text).ok_or_else(missing)?;
    let cached = from_cache(
        &app.caches,
        &app.settings.system_namespace,
        namespace,
        graph,
        subgraph.as_ref(),
    );
    if let Some(Ok(target)) = cached.map(|found| judge(&app.caches, &found)) {
        return Ok(target);
    }
    let graph = find(app, namespace, graph).await.map_err(|problem| {
        // Whichever part of the name is unknown, the answer names the whole.
        if *problem.kind() == kind::NOT_FOUND {
            missing()
        } else {
            problem
        }
    })?;
    judge(&app.caches, &from_server(app, graph, subgraph).await?)
}

fn from_cache(
    caches: &Caches,
    system: &str,
    namespace: &str,
    graph: &str,
    subgraph: Option<&SubgraphName>,
) -> Option<Found> {
    let by_id = caches
        .graphs
        .find(graph)
        .into_iter()
        .find(|found| found.namespace().as_deref() == Some(namespace));
    let graph = by_id.or_else(|| caches.graphs.get(namespace, graph))?;
    let node_name = graph.status.as_ref()?.node.clone()?;
    let subgraph = subgraph.map(|name| {
        let word = subgraph_word(namespace, &graph.name_any(), name.as_str());
        (name.clone(), caches.subgraphs.find(&word).into_iter().next())
    });
    let node = caches.nodes.get("", &node_name);
    let tier = node.as_ref().and_then(|node| caches.tiers.get("", &node.spec.tier));
    let secret = caches.secrets.get(system, &node_object(&node_name));
    Some(Found {
        graph,
        subgraph,
        node,
        secret,
        tier,
    })
}

async fn from_server(app: &App, graph: Graph, subgraph: Option<SubgraphName>) -> Result<Found, Problem> {
    let subgraph = match subgraph {
        None => None,
        Some(name) => {
            let found = subgraphs::find_in(app, &graph, name.as_str()).await?.map(Arc::new);
            Some((name, found))
        }
    };
    let node_name = graph.status.as_ref().and_then(|status| status.node.clone());
    let (mut node, mut secret) = (None, None);
    if let Some(name) = node_name.filter(|name| is_object_name(name)) {
        node = app.cluster_api::<GraphNode>().get_opt(&name).await?.map(Arc::new);
        let secrets = app.api::<Secret>(&app.settings.system_namespace);
        secret = secrets.get_opt(&node_object(&name)).await?.map(Arc::new);
    }
    let tier = node.as_ref().and_then(|node| app.caches.tiers.get("", &node.spec.tier));
    Ok(Found {
        graph: Arc::new(graph),
        subgraph,
        node,
        secret,
        tier,
    })
}

/// 503 with the reason that a condition gives.
fn not_ready(what: &str, condition: Option<&Condition>, reason: &str, message: &str, wait: u32) -> Problem {
    let reason = condition.map_or(reason, |condition| condition.reason.as_str());
    let message = condition
        .map(|condition| condition.message.as_str())
        .filter(|text| !text.is_empty())
        .unwrap_or(message);
    Problem::new(&kind::NOT_READY, format!("{what} is not ready: {message}"))
        .reason(reason)
        .retry_after(wait)
}

fn judge(caches: &Caches, found: &Found) -> Result<Target, Problem> {
    let graph_id = check_graph(&found.graph)?;
    let rivals = caches.graphs.find(graph_id.as_str());
    if rivals.iter().any(|rival| came_before(rival, &found.graph)) {
        // Only objects made past this API can claim a foreign id. The first one has it.
        let detail = format!("graph id `{graph_id}` belongs to another graph; delete this one and create it again");
        return Err(Problem::new(&kind::CONFLICT, detail));
    }
    let database = match &found.subgraph {
        None => graph_id.database().to_string(),
        Some((name, subgraph)) => {
            let Some(subgraph) = subgraph else {
                return Err(Problem::not_found(format!(
                    "subgraph `{name}` of graph `{}`",
                    found.graph.name_any()
                )));
            };
            check_subgraph(subgraph)?;
            graph_id.subgraph(name).to_string()
        }
    };
    let node = check_node(found)?;
    let tier = found.tier.as_deref();
    Ok(Target {
        graph: found.graph.name_any(),
        database,
        graph_id,
        node: node.name,
        address: node.address,
        api_key: node.api_key,
        epoch: node.epoch,
        query_timeout: Duration::from_secs(tier.map_or(30, |tier| tier.spec.engine.query_timeout_seconds.into())),
        load_timeout: Duration::from_secs(tier.map_or(300, |tier| tier.spec.copy.timeout_seconds.into())),
    })
}

/// Whether `other` is another object than `graph` and had the id before it.
fn came_before(other: &Graph, graph: &Graph) -> bool {
    let key = |graph: &Graph| (graph.creation_timestamp().map(|time| time.0), graph.uid());
    other.uid() != graph.uid() && key(other) < key(graph)
}

/// Whether a database exists and may be called, as far as its own object says.
fn check_graph(graph: &Graph) -> Result<GraphId, Problem> {
    let what = format!("graph `{}`", graph.name_any());
    let empty = Vec::new();
    let conditions = graph.status.as_ref().map_or(&empty, |status| &status.conditions);
    let condition = |type_| conditions::get(conditions, type_);
    if graph.metadata.deletion_timestamp.is_some() {
        let deleting = condition(conditions::DELETING).filter(|condition| condition.status == "True");
        return Err(not_ready(&what, deleting, reasons::DELETING, "it is being deleted", 30));
    }
    if graph.spec.suspended {
        return Err(not_ready(
            &what,
            None,
            reasons::SUSPENDED,
            "it is suspended; set `suspended` to false",
            30,
        ));
    }
    if graph.status.as_ref().and_then(|status| status.node.as_ref()).is_none() {
        let ready = condition(conditions::READY).filter(|condition| condition.status != "True");
        return Err(not_ready(&what, ready, reasons::PENDING, "no node was chosen yet", 1));
    }
    check_database(&what, conditions)?;
    effective_id(graph).ok_or_else(|| Problem::internal(format!("{what} has no id")))
}

fn check_subgraph(subgraph: &Subgraph) -> Result<(), Problem> {
    let what = format!("subgraph `{}`", subgraph.spec.name);
    if subgraph.metadata.deletion_timestamp.is_some() {
        return Err(not_ready(&what, None, reasons::DELETING, "it is being deleted", 30));
    }
    let empty = Vec::new();
    check_database(
        &what,
        subgraph.status.as_ref().map_or(&empty, |status| &status.conditions),
    )
}

fn check_database(what: &str, conditions: &[Condition]) -> Result<(), Problem> {
    match conditions::get(conditions, conditions::DATABASE_READY) {
        Some(condition) if condition.status == "True" => Ok(()),
        condition => Err(not_ready(
            what,
            condition,
            reasons::CREATING_DATABASE,
            "its database is being created",
            1,
        )),
    }
}

/// The agent of a node.
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) api_key: String,
    pub(super) epoch: u64,
}

fn check_node(found: &Found) -> Result<Agent, Problem> {
    let name = found
        .graph
        .status
        .as_ref()
        .and_then(|status| status.node.clone())
        .unwrap_or_default();
    let what = format!("node `{name}` of graph `{}`", found.graph.name_any());
    let gone = || {
        not_ready(
            &what,
            None,
            reasons::NODE_LOST,
            "it does not exist any more; the graph gets another",
            5,
        )
    };
    let node = found.node.as_ref().ok_or_else(gone)?;
    agent_of(&what, node, found.secret.as_deref())
}

/// The agent of a node, if it can be called now; `what` names the node in the reason why not.
pub(super) fn agent_of(what: &str, node: &GraphNode, secret: Option<&Secret>) -> Result<Agent, Problem> {
    let status = node.status.clone().unwrap_or_default();
    // A node that is drained is not Ready for new graphs, but serves those that it has as long as its lease is held.
    let lease = conditions::get(&status.conditions, conditions::LEASE_HELD);
    let lives = lease.or_else(|| conditions::get(&status.conditions, conditions::READY));
    if lives.is_none_or(|condition| condition.status != "True") {
        return Err(not_ready(
            what,
            lives,
            reasons::WAITING_FOR_REGISTRATION,
            "its agent has not registered yet",
            2,
        ));
    }
    let unregistered = || {
        not_ready(
            what,
            None,
            reasons::WAITING_FOR_REGISTRATION,
            "its agent has not registered yet",
            2,
        )
    };
    let registration = status.registration.ok_or_else(unregistered)?;
    let api_key = secret.and_then(secret::api_key).ok_or_else(unregistered)?;
    let epoch = status.epoch.ok_or_else(unregistered)?.0;
    Ok(Agent {
        name: node.name_any(),
        address: registration.address,
        api_key,
        epoch,
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    /// A target for tests of what is sent to it.
    pub(in crate::gateway) fn target() -> Target {
        Target {
            graph: "karate".into(),
            graph_id: "kg0123456789abcdef".parse().unwrap(),
            database: "kg0123456789abcdef".into(),
            node: "n1".into(),
            address: "http://127.0.0.1:1".into(),
            api_key: "agent".into(),
            epoch: 4,
            query_timeout: Duration::from_secs(30),
            load_timeout: Duration::from_secs(300),
        }
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": format!("because {reason}"),
               "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    }

    fn graph(status: Value) -> Graph {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph",
            "metadata": {"name": "karate", "namespace": "ns", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"tier": "t", "graphId": "kg0123456789abcdef"}, "status": status,
        }))
        .unwrap()
    }

    fn ready_graph() -> Graph {
        graph(json!({"node": "n1", "conditions": [condition("DatabaseReady", "True", "DatabaseCreated")]}))
    }

    fn node(conditions: Value) -> GraphNode {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": "n1"},
            "spec": {"tier": "t", "zone": "local", "volume": "v1"},
            "status": {"epoch": 4, "conditions": conditions, "registration": {
                "address": "http://127.0.0.1:41233", "instanceId": "i", "agentVersion": "0", "epoch": 4, "time": "2026-01-01T00:00:00Z"}},
        }))
        .unwrap()
    }

    fn found(graph: Graph, node: GraphNode) -> Found {
        let secret = Secret {
            data: Some([("apiKey".to_owned(), ByteString(b"k".to_vec()))].into()),
            ..Secret::default()
        };
        Found {
            graph: graph.into(),
            subgraph: None,
            node: Some(node.into()),
            secret: Some(secret.into()),
            tier: None,
        }
    }

    fn reason(problem: Problem) -> String {
        assert_eq!(*problem.kind(), kind::NOT_READY);
        problem.describe().reason.unwrap()
    }

    #[test]
    fn names_of_databases_split_at_the_underscore() {
        assert_eq!(split("karate"), Some(("karate", None)));
        assert_eq!(
            split("kg0123456789abcdef_Dev"),
            Some(("kg0123456789abcdef", Some("Dev".parse().unwrap())))
        );
        for bad in ["", "_dev", "karate_", "karate_a_b", "../x", "karate_a-b", "a/b"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_reason_of_a_graph_that_is_not_ready_is_its_own() {
        let placed = graph(json!({"conditions": [condition("Ready", "False", "NoCapacity")]}));
        assert_eq!(reason(check_graph(&placed).unwrap_err()), "NoCapacity");
        let creating =
            graph(json!({"node": "n1", "conditions": [condition("DatabaseReady", "False", "CreatingDatabase")]}));
        assert_eq!(reason(check_graph(&creating).unwrap_err()), "CreatingDatabase");
        let refused = graph(json!({"node": "n1", "conditions": [condition("DatabaseReady", "True", "SchemaRefused")]}));
        assert!(
            check_graph(&refused).is_ok(),
            "the database serves, although a change of its schema was refused"
        );
        let mut suspended = ready_graph();
        suspended.spec.suspended = true;
        assert_eq!(reason(check_graph(&suspended).unwrap_err()), "Suspended");
        assert_eq!(check_graph(&ready_graph()).unwrap().as_str(), "kg0123456789abcdef");
    }

    #[test]
    fn a_node_serves_while_its_lease_is_held() {
        let held = condition("LeaseHeld", "True", "LeaseRenewed");
        let draining = condition("Ready", "False", "Draining");
        let agent = check_node(&found(ready_graph(), node(json!([held, draining])))).unwrap();
        assert_eq!(
            (agent.address.as_str(), agent.epoch, agent.api_key.as_str()),
            ("http://127.0.0.1:41233", 4, "k")
        );
        let lost = node(json!([condition("LeaseHeld", "False", "LeaseExpired")]));
        assert_eq!(
            reason(check_node(&found(ready_graph(), lost)).err().unwrap()),
            "LeaseExpired"
        );
        let silent = found(ready_graph(), node(json!([])));
        assert_eq!(reason(check_node(&silent).err().unwrap()), "WaitingForRegistration");
        let mut gone = found(
            ready_graph(),
            node(json!([condition("LeaseHeld", "True", "LeaseRenewed")])),
        );
        gone.node = None;
        assert_eq!(reason(check_node(&gone).err().unwrap()), "NodeLost");
    }

    #[test]
    fn of_two_graphs_with_one_id_the_first_has_it() {
        let first = ready_graph();
        let mut second = ready_graph();
        second.metadata.uid = Some("u0".into());
        second.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap();
        assert!(came_before(&first, &second) && !came_before(&second, &first) && !came_before(&first, &first));
    }
}
