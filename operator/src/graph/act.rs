//! What can be done for a Graph.

use super::{Memory, observe};
use crate::agent::{AgentError, CreateDatabase, Creation};
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::reconcile::Done;
use crate::schema;
use crate::write;
use graphplane_core::ending::{Database, NodeSeen};
use graphplane_core::fleet::NodeView;
use graphplane_core::graph_plan::{self, Action, Observed, graph_id};
use graphplane_core::{names, statements};
use graphplane_crds::annotations::{FINALIZER, GRAPH_ID_LABEL, GRAPH_LABEL};
use graphplane_crds::backup::{BackupMethod, BackupSpec};
use graphplane_crds::graph::{AppliedSchema, Graph, GraphStatus, SchemaType};
use graphplane_crds::ids::GraphId;
use graphplane_crds::{Backup, GraphVolume};
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

pub(super) async fn act(
    graph: &Arc<Graph>,
    action: &Action,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Graph>, Error> {
    let (namespace, name) = key(&**graph);
    match action {
        Action::StartNode(_) | Action::Place { .. } => place(graph, ctx, memory).await,
        Action::Unplace => {
            let before = graph.status.clone().unwrap_or_default();
            let status = GraphStatus {
                node: None,
                volume: None,
                endpoint: None,
                epoch: None,
                ..before
            };
            write::guarded_status(ctx, graph, status).await.map(Done::Written)
        }
        Action::CreateDatabase => create_database(graph, seen, ctx, memory).await,
        Action::ApplySchema { from, to } => apply_schema(graph, *from, *to, seen, ctx, memory).await,
        Action::DeleteSubgraph(subgraph) => {
            if let Some(object) = ctx.hubs.subgraphs.cache().get(&namespace, subgraph) {
                write::delete(ctx, &*object).await?;
            }
            Ok(Done::World)
        }
        Action::CreateFinalBackup(backup) => {
            let object = final_backup(&namespace, backup, &name, graph_id(graph).ok().as_ref(), None);
            write::create(ctx, &object).await?;
            write::event(
                ctx,
                &**graph,
                "FinalSnapshot",
                "Delete",
                format!("final backup {backup} is made before the data is destroyed"),
            );
            Ok(Done::World)
        }
        Action::DeleteFinalBackup(backup) => {
            if let Some(object) = ctx.hubs.backups.cache().get(&namespace, backup) {
                write::delete(ctx, &*object).await?;
            }
            Ok(Done::World)
        }
        Action::KeepData => {
            let volume = graph.status.as_ref().and_then(|s| s.volume.clone());
            keep(
                ctx,
                graph_id(graph).ok().as_ref().map(GraphId::as_str),
                volume.as_deref(),
                &format!("{namespace}/{name}"),
            )
            .await?;
            memory.kept = true;
            Ok(Done::World)
        }
        Action::DeleteDatabase => {
            let (node, id) = target(graph, seen)?;
            ctx.agent(node)?.delete(id.as_str()).await?;
            let volume = graph.status.as_ref().and_then(|s| s.volume.clone());
            forget(ctx, id.as_str(), volume.as_deref()).await?;
            memory.database = Some(Database::Absent);
            Ok(Done::World)
        }
        Action::RemoveFinalizer => {
            if matches!(seen.node, NodeSeen::Gone { volume: false })
                && graph.status.as_ref().is_some_and(|s| s.applied_schema.is_some())
            {
                write::event(
                    ctx,
                    &**graph,
                    "DataLost",
                    "Delete",
                    "its node and volume were gone already, so nothing could be kept",
                );
            }
            write::remove_finalizer(ctx, &**graph).await?;
            Ok(Done::Gone)
        }
    }
}

/// Decides again, with nobody else deciding at the same time, and writes down the place.
async fn place(graph: &Arc<Graph>, ctx: &Context, memory: &Memory) -> Result<Done<Graph>, Error> {
    let alone = ctx.placer.alone().await;
    let seen = observe::observe(graph, ctx, memory).await?;
    let plan = graph_plan::plan(graph, &seen, ctx.now());
    match plan.actions.first() {
        Some(Action::StartNode(new)) => {
            let Some(tier) = &seen.tier else { return Ok(Done::World) };
            ctx.placer.start(&alone, ctx, tier, new).await?;
            Ok(Done::World)
        }
        Some(Action::Place { node, volume }) => {
            let promise = ctx.placer.promise(&alone, &graph.uid().unwrap_or_default(), node);
            drop(alone);
            let status = GraphStatus {
                node: Some(node.clone()),
                volume: Some(volume.clone()),
                endpoint: None,
                epoch: None,
                graph_id: graph_id(graph).ok(),
                phase: Some(plan.phase),
                ..graph.status.clone().unwrap_or_default()
            };
            let done = write::guarded_status(ctx, graph, status).await.map(Done::Written);
            drop(promise);
            if done.is_ok() {
                write::event(
                    ctx,
                    &**graph,
                    "Placed",
                    "Place",
                    format!("on node {node}, volume {volume}"),
                );
            }
            done
        }
        // Somebody else took the room in between.
        _ => Ok(Done::World),
    }
}

/// The node and the id that a call to the agent is about.
fn target<'a>(graph: &Graph, seen: &'a Observed) -> Result<(&'a NodeView, GraphId), Error> {
    let node = seen
        .node
        .serving()
        .ok_or_else(|| AgentError::NoKey("that the graph is on".into()))?;
    let id = graph_id(graph).map_err(Error::Settings)?;
    Ok((node, id))
}

/// The graph with the part of its schema that its database has; written with the rest at the end of the pass.
fn noted(graph: &Graph, applied: AppliedSchema) -> Done<Graph> {
    let mut graph = graph.clone();
    graph.status.get_or_insert_default().applied_schema = Some(applied);
    Done::Noted(Arc::new(graph))
}

fn refused(message: String) -> String {
    format!("spec.schema.ddl: {message}")
}

async fn create_database(
    graph: &Arc<Graph>,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Graph>, Error> {
    let (node, id) = target(graph, seen)?;
    let agent = ctx.agent(node)?;
    let (schema_type, repository) = match graph.spec.schema.type_ {
        SchemaType::Entity => ("entity", None),
        SchemaType::Shared => ("shared", Some(id.as_str())),
        SchemaType::Custom => ("custom", None),
    };
    let statements = graph_plan::ddl(graph);
    let want = CreateDatabase {
        id: id.as_str(),
        schema_type,
        repository,
        ddl: graph.spec.schema.ddl.clone(),
        is_subgraph: false,
        tier: &graph.spec.tier,
    };
    match agent.create(&want).await {
        Ok(Creation::Made) => {
            write::event(
                ctx,
                &**graph,
                "DatabaseCreated",
                "Create",
                format!("{id} on node {}", node.name),
            );
        }
        // Made by a pass whose note of it was lost, or kept from an object that was deleted: what it lacks is added.
        Ok(Creation::Existed) => {
            if let Err(why) = schema::complete(&agent, id.as_str(), &statements).await? {
                memory.refused = Some(refused(why));
                return Ok(Done::World);
            }
            write::event(
                ctx,
                &**graph,
                "DatabaseAdopted",
                "Create",
                format!("{id} exists on node {} and is taken over", node.name),
            );
        }
        Err(AgentError::Refused(why)) => {
            memory.refused = Some(refused(why));
            return Ok(Done::World);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(noted(graph, statements::applied(&statements, statements.len())))
}

async fn apply_schema(
    graph: &Arc<Graph>,
    from: usize,
    to: usize,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Graph>, Error> {
    let (node, id) = target(graph, seen)?;
    let statements = graph_plan::ddl(graph);
    let to = to.min(statements.len());
    match schema::apply(&ctx.agent(node)?, id.as_str(), &statements, from, to).await? {
        Ok(()) => Ok(noted(graph, statements::applied(&statements, to))),
        Err(why) => {
            memory.refused = Some(refused(why));
            Ok(Done::World)
        }
    }
}

/// Writes down on a volume whose database it keeps.
pub(crate) async fn keep(
    ctx: &Context,
    database: Option<&str>,
    volume: Option<&str>,
    owner: &str,
) -> Result<(), Error> {
    let annotation = database.and_then(names::retained_annotation);
    let volume = volume.and_then(|v| ctx.hubs.volumes.cache().get("", v));
    let (Some(annotation), Some(volume)) = (annotation, volume) else {
        return Ok(());
    };
    let patch = json!({"metadata": {"annotations": {annotation: owner}}});
    write::merge::<GraphVolume>(ctx, &volume, patch, "note kept data on").await?;
    Ok(())
}

/// Removes the note of kept data: the database is gone.
async fn forget(ctx: &Context, database: &str, volume: Option<&str>) -> Result<(), Error> {
    let volume = volume.and_then(|v| ctx.hubs.volumes.cache().get("", v));
    let (Some(annotation), Some(volume)) = (names::retained_annotation(database), volume) else {
        return Ok(());
    };
    if volume.annotations().contains_key(&annotation) {
        let patch = json!({"metadata": {"annotations": {annotation: null}}});
        write::merge::<GraphVolume>(ctx, &volume, patch, "forget data on").await?;
    }
    Ok(())
}

/// The final Backup of a graph, or of a subgraph of it. It has no owner: it outlives what it was made of.
pub(crate) fn final_backup(
    namespace: &str,
    name: &str,
    graph: &str,
    id: Option<&GraphId>,
    subgraph: Option<&str>,
) -> Backup {
    let spec = BackupSpec {
        graph: graph.to_owned(),
        subgraph: subgraph.map(str::to_owned),
        method: BackupMethod::Object,
        retention_days: None,
    };
    let mut backup = Backup::new(name, spec);
    backup.metadata.namespace = Some(namespace.to_owned());
    backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let labels = [(GRAPH_LABEL, Some(graph)), (GRAPH_ID_LABEL, id.map(GraphId::as_str))];
    let labels = labels
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
    backup.metadata.labels = Some(labels.collect());
    backup
}
