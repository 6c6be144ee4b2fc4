//! The read fleets of a graph: which of their nodes may answer a question, and whose wish that is.

use super::target::{Target, agent_of};
use crate::cache::{Caches, fleet_word};
use crate::nodes::secret::api_key;
use crate::problem::Problem;
use crate::state::App;
use graphplane_core::names::{fleet_object, node_object};
use graphplane_crds::Replica;
use graphplane_crds::replica::Reads;
use http::{HeaderMap, HeaderName};
use kube::ResourceExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Header with which a request says who is to answer it.
static READ: HeaderName = HeaderName::from_static("x-graphplane-read");

/// Who is to answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// A replica, if one can.
    Replica,
    /// The writer, which knows everything that was acknowledged.
    Writer,
}

fn wish(headers: &HeaderMap) -> Result<Option<Wish>, Problem> {
    let Some(value) = headers.get(&READ) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok("replica") => Ok(Some(Wish::Replica)),
        Ok("writer") => Ok(Some(Wish::Writer)),
        given => {
            let given = given.unwrap_or_default();
            Err(Problem::parameter(
                "X-Graphplane-Read",
                "expected `replica` or `writer`",
                given,
            ))
        }
    }
}

/// Nodes that serve a seed of the graph whose writer is `writer`, in turn; none if the writer is to answer. A fleet behind a
/// load balancer is one of them: which of its machines answers is the balancer's choice.
pub(super) fn of(app: &App, namespace: &str, writer: &Target, headers: &HeaderMap) -> Result<Vec<Target>, Problem> {
    let wish = wish(headers)?;
    if wish == Some(Wish::Writer) {
        return Ok(Vec::new());
    }
    let fleets = app.caches.replicas.find(&fleet_word(namespace, &writer.graph));
    let asked = |fleet: &&Arc<Replica>| {
        let by_itself = fleet.spec.reads == Reads::Prefer || wish == Some(Wish::Replica);
        by_itself && fleet.metadata.deletion_timestamp.is_none()
    };
    let mut nodes: Vec<Target> = fleets
        .iter()
        .filter(asked)
        .flat_map(|fleet| serving(app, fleet, writer))
        .collect();
    if !nodes.is_empty() {
        let turn = app.gateway.turns.fetch_add(1, Ordering::Relaxed) % nodes.len();
        nodes.rotate_left(turn);
    }
    Ok(nodes)
}

/// Who answers for a fleet: its endpoint, or each of its nodes.
fn serving(app: &App, fleet: &Replica, writer: &Target) -> Vec<Target> {
    let Some(status) = &fleet.status else {
        return Vec::new();
    };
    let mut nodes = status.nodes.iter().filter(|node| node.seed_version.is_some());
    match &status.endpoint {
        // A balancer without a machine that serves answers nothing of use.
        Some(endpoint) => nodes
            .next()
            .and_then(|_| behind(app, fleet, endpoint, writer))
            .into_iter()
            .collect(),
        None => nodes.filter_map(|node| target(app, &node.name, writer)).collect(),
    }
}

/// A fleet behind a load balancer, with the key that all of its machines take. What is known of its health is kept under
/// `<namespace>/<name>`, which is no name of a node.
fn behind(app: &App, fleet: &Replica, endpoint: &str, writer: &Target) -> Option<Target> {
    let secret = fleet_object(&fleet.uid()?);
    let secret = app.caches.secrets.get(&app.settings.system_namespace, &secret)?;
    Some(Target {
        node: fleet_name(fleet),
        address: endpoint.trim_end_matches('/').to_owned(),
        api_key: api_key(&secret)?,
        // Its machines hold no epoch, and are only asked to read.
        epoch: 0,
        ..writer.clone()
    })
}

fn fleet_name(fleet: &Replica) -> String {
    format!("{}/{}", fleet.namespace().unwrap_or_default(), fleet.name_any())
}

/// Whether what is called by this name is a fleet that exists.
pub(crate) fn is_fleet(caches: &Caches, name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(namespace, name)| caches.replicas.get(namespace, name).is_some())
}

/// A node of a fleet, if it can be called.
fn target(app: &App, name: &str, writer: &Target) -> Option<Target> {
    let node = app.caches.nodes.get("", name)?;
    // A node of that name that was made since may serve another graph.
    let of = node.spec.replica.as_ref()?;
    if of.graph_id != writer.graph_id {
        return None;
    }
    let secret = app
        .caches
        .secrets
        .get(&app.settings.system_namespace, &node_object(name));
    let agent = agent_of(name, &node, secret.as_deref()).ok()?;
    Some(Target {
        node: agent.name,
        address: agent.address,
        api_key: agent.api_key,
        epoch: agent.epoch,
        ..writer.clone()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::problem::kind;
    use http::HeaderValue;

    #[test]
    fn a_request_says_who_is_to_answer() {
        let with = |value: &'static str| {
            let headers = HeaderMap::from_iter([(READ.clone(), HeaderValue::from_static(value))]);
            wish(&headers)
        };
        assert_eq!(wish(&HeaderMap::new()).unwrap(), None);
        assert_eq!(with("replica").unwrap(), Some(Wish::Replica));
        assert_eq!(with("writer").unwrap(), Some(Wish::Writer));
        assert_eq!(*with("anybody").unwrap_err().kind(), kind::MALFORMED);
    }
}
