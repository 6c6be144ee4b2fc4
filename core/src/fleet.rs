//! Nodes and volumes as plans see them: computed from the objects and their leases, never counted up and down.

use crate::lease::{LeaseFacts, Standing};
use graphplane_crds::annotations::DRAIN;
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::node::{GraphNode, NodePhase, NodeResources};
use graphplane_crds::quantities::{Epoch, GiB};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// What placement chooses from: one tier's nodes, and what may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Name of the tier.
    pub tier: String,
    /// Its nodes.
    pub candidates: Vec<Candidate>,
    /// Its volumes that no node mounts.
    pub spare_volumes: Vec<SpareVolume>,
    /// Names of all GraphNodes.
    pub node_names: BTreeSet<String>,
    /// Names of all GraphNodes and GraphVolumes.
    pub taken: BTreeSet<String>,
    /// How many nodes it has.
    pub nodes: u32,
    /// How many it may have.
    pub max_nodes: u32,
    /// Zone of new nodes.
    pub zone: String,
}

/// A node that might take a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the GraphNode.
    pub name: String,
    /// Name of its GraphVolume.
    pub volume: String,
    /// Whether it may be given something.
    pub accepts: Accepts,
    /// What it has.
    pub capacity: NodeResources,
    /// What is taken of it.
    pub used: NodeResources,
}

/// Whether a node may be given a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Its agent holds the lease under the current epoch.
    Now,
    /// It is starting. A database may be promised to it, and is made when the agent holds its lease.
    Soon,
    /// It is behind on its lease and may come back: the reason.
    Perhaps(String),
    /// It gets nothing new: the reason.
    No(String),
    /// It never had a machine and gets none at present: the reason. What was promised to it may go elsewhere.
    Never(String),
}

/// A volume that no node mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareVolume {
    /// Name of the GraphVolume.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its size.
    pub size_gib: GiB,
    /// Whether databases are on it. Such a volume is used again only for one of them.
    pub holds_data: bool,
}

/// Whether a node's agent can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Not yet: its agent has not registered under the current epoch.
    Starting,
    /// Its agent renews its lease.
    Yes,
    /// Its agent stopped renewing its lease.
    Lost,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Name of the GraphNode.
    pub name: String,
    /// Name of its tier.
    pub tier: String,
    /// Name of its volume.
    pub volume: Option<String>,
    /// Whether its agent can be called.
    pub serving: Serving,
    /// Whether it may be given a database.
    pub accepts: Accepts,
    /// URL of its agent, while it can be called.
    pub endpoint: Option<String>,
    /// Its epoch.
    pub epoch: Epoch,
    /// How long until this view changes if nothing is heard of the node.
    pub changes_in: Option<Duration>,
}

/// The lease of a node: what the Lease object says, or the registration where that is newer. A registration grants a
/// lease too, and only one under the node's current epoch counts.
pub fn effective_lease(node: &GraphNode, lease: Option<&LeaseFacts>) -> Option<LeaseFacts> {
    let status = node.status.as_ref()?;
    let registration = status.registration.as_ref().filter(|r| Some(r.epoch) == status.epoch)?;
    let granted = |duration| LeaseFacts {
        renewed: registration.time.0,
        duration,
        usage: None,
    };
    match lease {
        // The Lease of an agent that was replaced lives on until its successor renews it.
        Some(lease) if lease.renewed >= registration.time.0 => Some(lease.clone()),
        Some(lease) => Some(granted(lease.duration)),
        None => Some(granted(Duration::from_secs(15))),
    }
}

/// How a node stands at `now`. `watched_since` is when this operator began to watch: an agent has had no chance to come
/// back before that.
pub fn view(node: &GraphNode, lease: Option<&LeaseFacts>, now: Timestamp, watched_since: Timestamp) -> NodeView {
    let name = node.metadata.name.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let current = effective_lease(node, lease);
    let standing = current.as_ref().map(|l| l.standing(now));
    // A node that waits for its volume has no machine that could serve, whatever its lease says; and one whose agent was
    // quicker than the status of the node is about to have one.
    let waits = status.phase == Some(NodePhase::Pending);
    let serving = match standing {
        None => Serving::Starting,
        Some(Standing::Expired) => Serving::Lost,
        Some(_) if waits => Serving::Starting,
        Some(_) => Serving::Yes,
    };
    let draining = node
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.get(DRAIN).is_some_and(|v| v == "true"));
    let leaves = status.phase == Some(NodePhase::Draining);
    let accepts = if node.metadata.deletion_timestamp.is_some() {
        Accepts::No("is being removed".to_owned())
    } else if draining {
        Accepts::No(format!("is draining (annotation {DRAIN})"))
    } else if leaves && standing.is_some() {
        Accepts::No("is draining: its machine is going to be replaced".to_owned())
    } else {
        match (standing, &current) {
            (None, _) | (_, None) => Accepts::Soon,
            (Some(Standing::Held), _) => Accepts::Now,
            (Some(Standing::Late | Standing::Expired), Some(l)) if now < l.replace_at(watched_since) => {
                Accepts::Perhaps(format!("node {name} is behind on its lease"))
            }
            _ => Accepts::No("lost its lease".to_owned()),
        }
    };
    NodeView {
        tier: node.spec.tier.clone(),
        volume: node.spec.volume.clone(),
        serving,
        accepts,
        endpoint: status
            .registration
            .filter(|_| serving == Serving::Yes)
            .map(|r| r.address),
        epoch: status.epoch.unwrap_or_default(),
        changes_in: current.and_then(|l| l.changes_in(now)),
        name,
    }
}

/// Whether the provider has no machine for a node and never gave it one, so that nothing can be on its volume: what was
/// promised to it may go elsewhere.
pub fn never_had_a_machine(node: &GraphNode) -> bool {
    node.status.as_ref().is_some_and(|status| {
        let refused = conditions::get(&status.conditions, conditions::PROGRESSING)
            .is_some_and(|c| c.status == "True" && c.reason == reasons::NO_CAPACITY);
        let first = status.epoch.is_none_or(|epoch| epoch <= Epoch(1));
        refused && first && status.registration.is_none() && status.provider_id.is_none()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use graphplane_crds::node::{GraphNodeSpec, GraphNodeStatus, Registration};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(epoch: u64, registered: Option<(u64, i64)>) -> GraphNode {
        let spec = GraphNodeSpec {
            tier: "std".into(),
            role: Default::default(),
            zone: "local".into(),
            volume: Some("v".into()),
            instance_type: None,
            replica: None,
        };
        let mut node = GraphNode::new("std-0", spec);
        let registration = registered.map(|(epoch, time)| Registration {
            address: "http://127.0.0.1:1".into(),
            instance_id: "i".into(),
            agent_version: "0".into(),
            engines: Default::default(),
            capacity: Default::default(),
            epoch: Epoch(epoch),
            time: Time(at(time)),
        });
        node.status = Some(GraphNodeStatus {
            epoch: Some(Epoch(epoch)),
            registration,
            ..Default::default()
        });
        node
    }

    fn lease(renewed: i64) -> LeaseFacts {
        LeaseFacts {
            renewed: at(renewed),
            duration: Duration::from_secs(15),
            usage: None,
        }
    }

    #[test]
    fn a_node_serves_only_under_its_current_epoch() {
        let fresh = view(&node(2, Some((2, 100))), Some(&lease(100)), at(101), at(0));
        assert_eq!((fresh.serving, &fresh.accepts), (Serving::Yes, &Accepts::Now));
        assert_eq!(fresh.endpoint.as_deref(), Some("http://127.0.0.1:1"));
        // Its agent was replaced; the former one renewed a second ago.
        let replaced = view(&node(3, Some((2, 100))), Some(&lease(100)), at(101), at(0));
        assert_eq!(
            (replaced.serving, &replaced.accepts, replaced.endpoint),
            (Serving::Starting, &Accepts::Soon, None)
        );
        // The new one registered and has not renewed yet.
        let again = view(&node(3, Some((3, 100))), Some(&lease(50)), at(101), at(0));
        assert_eq!(again.serving, Serving::Yes);
    }

    #[test]
    fn an_agent_that_is_quicker_than_the_status_of_its_node_is_not_lost() {
        let mut quick = node(2, Some((2, 100)));
        if let Some(status) = &mut quick.status {
            status.phase = Some(NodePhase::Pending);
        }
        let seen = view(&quick, None, at(101), at(0));
        assert_eq!((seen.serving, seen.endpoint), (Serving::Starting, None));
        let later = view(&quick, None, at(160), at(0));
        assert_eq!(later.serving, Serving::Lost);
    }

    #[test]
    fn a_node_behind_on_its_lease_gets_nothing_new() {
        let node = node(2, Some((2, 100)));
        let accepts = |now, since| view(&node, Some(&lease(100)), at(now), at(since)).accepts;
        assert_eq!(accepts(109, 0), Accepts::Now);
        assert!(matches!(accepts(110, 0), Accepts::Perhaps(_)));
        assert!(matches!(accepts(120, 0), Accepts::Perhaps(_)));
        assert!(matches!(accepts(160, 0), Accepts::No(_)));
        assert!(
            matches!(accepts(160, 150), Accepts::Perhaps(_)),
            "the operator has only just come back"
        );
        assert_eq!(view(&node, Some(&lease(100)), at(120), at(0)).serving, Serving::Lost);
    }

    #[test]
    fn a_draining_or_removed_node_serves_and_gets_nothing_new() {
        let mut draining = node(2, Some((2, 100)));
        draining.metadata.annotations = Some([(DRAIN.to_owned(), "true".to_owned())].into());
        let seen = view(&draining, Some(&lease(100)), at(101), at(0));
        assert!(seen.serving == Serving::Yes && matches!(seen.accepts, Accepts::No(_)));
        let mut removed = node(2, Some((2, 100)));
        removed.metadata.deletion_timestamp = Some(Time(at(100)));
        assert!(matches!(
            view(&removed, Some(&lease(100)), at(101), at(0)).accepts,
            Accepts::No(_)
        ));
    }

    #[test]
    fn a_node_whose_machine_is_going_to_be_replaced_gets_nothing_new() {
        let mut leaving = node(2, Some((2, 100)));
        leaving.status.as_mut().unwrap().phase = Some(NodePhase::Draining);
        let seen = view(&leaving, Some(&lease(100)), at(101), at(0));
        assert!(seen.serving == Serving::Yes && matches!(seen.accepts, Accepts::No(_)));
    }

    #[test]
    fn only_a_node_that_never_had_a_machine_can_be_given_up() {
        let condition = |reason: &str| k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
            type_: conditions::PROGRESSING.into(),
            status: "True".into(),
            reason: reason.into(),
            last_transition_time: Time(at(0)),
            message: String::new(),
            observed_generation: None,
        };
        let refused = |mut node: GraphNode, reason: &str| {
            node.status.as_mut().unwrap().conditions = vec![condition(reason)];
            node
        };
        assert!(never_had_a_machine(&refused(node(1, None), reasons::NO_CAPACITY)));
        assert!(!never_had_a_machine(&refused(node(1, None), reasons::NODE_STARTING)));
        assert!(
            !never_had_a_machine(&refused(node(2, None), reasons::NO_CAPACITY)),
            "its disk may hold data"
        );
        assert!(!never_had_a_machine(&refused(
            node(1, Some((1, 0))),
            reasons::NO_CAPACITY
        )));
        let mut seen = refused(node(1, None), reasons::NO_CAPACITY);
        seen.status.as_mut().unwrap().provider_id = Some("aws:///a/i-1".into());
        assert!(!never_had_a_machine(&seen));
    }

    proptest! {
        #[test]
        fn nothing_lands_on_a_late_or_older_node(
            epoch in 1u64..4, registered in proptest::option::of((1u64..4, 0i64..100)), renewed in 0i64..100, now in 0i64..200,
        ) {
            let node = node(epoch, registered);
            let seen = view(&node, Some(&lease(renewed)), at(now), at(0));
            if seen.accepts == Accepts::Now {
                let (registered_epoch, time) = registered.unwrap();
                prop_assert_eq!(registered_epoch, epoch);
                prop_assert!(now - renewed.max(time) < 10);
            }
            prop_assert_eq!(seen.endpoint.is_some(), seen.serving == Serving::Yes);
        }
    }
}
