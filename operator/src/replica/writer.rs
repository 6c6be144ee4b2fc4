//! The writer of the graph that a Replica serves.

use crate::agent::TaskState;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::views::usage_of;
use graphplane_core::backup_plan::Task;
use graphplane_core::ending::NodeSeen;
use graphplane_core::replica_plan::GraphSeen;
use graphplane_crds::Graph;
use graphplane_crds::ids::GraphId;
use graphplane_crds::replica::Replica;
use std::sync::Arc;

/// A graph and the node that writes it.
pub(super) struct Writer {
    pub(super) graph: Arc<Graph>,
    node: NodeSeen,
}

impl Writer {
    /// That of the graph that a Replica names, if there is one.
    pub(super) fn of(replica: &Replica, ctx: &Context) -> Option<Self> {
        let (namespace, _) = key(replica);
        let graph = ctx.hubs.graphs.cache().get(&namespace, &replica.spec.graph)?;
        let status = graph.status.as_ref();
        let node = status.and_then(|s| s.node.as_deref());
        let node = ctx.node_seen(node, status.and_then(|s| s.volume.as_deref()));
        Some(Self { graph, node })
    }

    /// Id of the graph, once its database was made.
    fn id(&self) -> Option<GraphId> {
        let status = self.graph.status.as_ref().filter(|s| s.applied_schema.is_some());
        status.and_then(|s| s.graph_id.clone())
    }

    /// As the plan sees it; `None` while it is being deleted.
    pub(super) fn seen(&self, ctx: &Context) -> Option<GraphSeen> {
        if self.graph.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let id = self.id();
        let node = self.graph.status.as_ref().and_then(|s| s.node.as_deref());
        let usage = node.and_then(|name| usage_of(&ctx.hubs, name));
        let mark = id.as_ref().zip(usage);
        let mark = mark.and_then(|(id, (_, _, usage))| usage.mark(id.as_str()));
        let node = self.node.clone();
        Some(GraphSeen {
            uid: self.graph.metadata.uid.clone(),
            id,
            node,
            mark,
        })
    }

    /// How far a publication is.
    pub(super) async fn task(&self, ctx: &Context, task: &str) -> Result<Task, Error> {
        match (self.node.serving(), &self.node) {
            (Some(node), _) => Ok(TaskState::seen(ctx.agent(node)?.task(task).await?)),
            (None, NodeSeen::Present(_)) => Ok(Task::Unknown),
            // Nobody is left who could be publishing.
            (None, _) => Ok(Task::None),
        }
    }

    /// The task of a publication below a key that is under way. A pass that was cut off may have begun one that no status
    /// names.
    pub(super) async fn publishing(&self, ctx: &Context, seeds: &str) -> Result<Option<String>, Error> {
        match (self.id(), self.node.serving()) {
            (Some(id), Some(node)) => Ok(ctx.agent(node)?.publishing(id.as_str(), seeds).await?),
            _ => Ok(None),
        }
    }

    /// Begins a publication below a key; its task.
    pub(super) async fn publish(&self, ctx: &Context, seeds: &str) -> Result<Option<String>, Error> {
        match (self.id(), self.node.serving()) {
            (Some(id), Some(node)) => Ok(Some(ctx.agent(node)?.start_seed(id.as_str(), seeds).await?)),
            _ => Ok(None),
        }
    }

    /// Asks a publication to stop.
    pub(super) async fn cancel(&self, ctx: &Context, task: &str) -> Result<(), Error> {
        match self.node.serving() {
            Some(node) => Ok(ctx.agent(node)?.cancel_task(task).await?),
            None => Ok(()),
        }
    }
}
