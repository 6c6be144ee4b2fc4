//! What can be done for a Subgraph.

use super::{Memory, database_id, fork_key, observe};
use crate::agent::{Agent, AgentError, CreateDatabase, Creation};
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::graph::act::{final_backup, keep};
use crate::reconcile::Done;
use crate::schema;
use crate::write;
use graphplane_core::ending::Database;
use graphplane_core::memory_schema::MEMORY_SCHEMA;
use graphplane_core::subgraph_plan::{self, Action, Observed};
use graphplane_core::{schema_copy, statements};
use graphplane_crds::ids::DatabaseId;
use graphplane_crds::subgraph::{Subgraph, SubgraphType};
use std::sync::Arc;

pub(super) async fn act(
    subgraph: &Arc<Subgraph>,
    action: &Action,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Subgraph>, Error> {
    let (namespace, name) = key(&**subgraph);
    match action {
        Action::CreateDatabase => create_database(subgraph, seen, ctx, memory).await,
        Action::StartFork => start_fork(subgraph, seen, ctx, memory).await,
        Action::TakeFork => {
            let (_, id) = target(subgraph, seen, ctx)?;
            let note = format!("{id}, a copy of graph {}", subgraph.spec.graph);
            write::event(ctx, &**subgraph, "DatabaseForked", "Create", note);
            Ok(noted(subgraph, &id, statements::applied(&[], 0)))
        }
        Action::CancelFork => {
            let (agent, id) = target(subgraph, seen, ctx)?;
            if let Some(task) = agent.fork(id.as_str(), &fork_key(subgraph)).await? {
                agent.cancel_task(&task.id).await?;
            }
            memory.fork_cancelled = true;
            Ok(Done::World)
        }
        Action::ApplySchema { from, to } => {
            let (agent, id) = target(subgraph, seen, ctx)?;
            let statements = subgraph_plan::ddl(subgraph);
            match schema::apply(&agent, id.as_str(), &statements, *from, *to).await? {
                Ok(()) => Ok(noted(subgraph, &id, statements::applied(&statements, *to))),
                Err(why) => {
                    memory.refused = Some(format!("spec.ddl: {why}"));
                    Ok(Done::World)
                }
            }
        }
        Action::CreateFinalBackup(backup) => {
            let graph_id = observe::parent_id(subgraph, ctx);
            let object = final_backup(&namespace, backup, &subgraph.spec.graph, graph_id.as_ref(), Some(&name));
            write::create(ctx, &object).await?;
            let note = format!("final backup {backup} is made before the data is destroyed");
            write::event(ctx, &**subgraph, "FinalSnapshot", "Delete", note);
            Ok(Done::World)
        }
        Action::DeleteFinalBackup(backup) => {
            if let Some(object) = ctx.hubs.backups.cache().get(&namespace, backup) {
                write::delete(ctx, &*object).await?;
            }
            Ok(Done::World)
        }
        Action::KeepData => {
            let volume = observe::parent(subgraph, ctx).and_then(|g| g.status.as_ref()?.volume.clone());
            let id = database_id(subgraph);
            keep(
                ctx,
                id.as_ref().map(DatabaseId::as_str),
                volume.as_deref(),
                &format!("{namespace}/{name}"),
            )
            .await?;
            memory.kept = true;
            Ok(Done::World)
        }
        Action::DeleteDatabase => {
            let (agent, id) = target(subgraph, seen, ctx)?;
            agent.delete(id.as_str()).await?;
            memory.database = Some(Database::Absent);
            Ok(Done::World)
        }
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**subgraph).await?;
            Ok(Done::Gone)
        }
    }
}

/// The agent and the database that a call is about.
fn target(subgraph: &Subgraph, seen: &Observed, ctx: &Context) -> Result<(Agent, DatabaseId), Error> {
    let missing = || AgentError::NoKey("of the graph".into());
    let node = seen.node.serving().ok_or_else(missing)?;
    let id = database_id(subgraph).ok_or_else(missing)?;
    Ok((ctx.agent(node)?, id))
}

fn noted(subgraph: &Subgraph, id: &DatabaseId, applied: graphplane_crds::graph::AppliedSchema) -> Done<Subgraph> {
    let mut subgraph = subgraph.clone();
    let status = subgraph.status.get_or_insert_default();
    status.applied_schema = Some(applied);
    status.database_id = Some(id.clone());
    Done::Noted(Arc::new(subgraph))
}

/// Writes down which database is this subgraph's, before anything is made.
async fn claim(subgraph: &Arc<Subgraph>, ctx: &Context) -> Result<Done<Subgraph>, Error> {
    let parent = observe::parent_id(subgraph, ctx).ok_or_else(|| AgentError::NoKey("of the graph".into()))?;
    let mut status = subgraph.status.clone().unwrap_or_default();
    status.database_id = Some(parent.subgraph(&subgraph.spec.name));
    write::guarded_status(ctx, subgraph, status).await.map(Done::Written)
}

async fn start_fork(
    subgraph: &Arc<Subgraph>,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Subgraph>, Error> {
    if database_id(subgraph).is_none() {
        return claim(subgraph, ctx).await;
    }
    let (agent, id) = target(subgraph, seen, ctx)?;
    let parent = id.graph();
    let started = agent
        .start_fork(id.as_str(), parent.as_str(), &fork_key(subgraph))
        .await?;
    memory.occupied = started == Creation::Existed;
    Ok(Done::World)
}

async fn create_database(
    subgraph: &Arc<Subgraph>,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Subgraph>, Error> {
    if database_id(subgraph).is_none() {
        return claim(subgraph, ctx).await;
    }
    let (agent, id) = target(subgraph, seen, ctx)?;
    let (schema_type, ddl) = match subgraph.spec.type_ {
        SubgraphType::Empty => ("empty", None),
        SubgraphType::Memory => ("custom", Some(MEMORY_SCHEMA.to_owned())),
        // What the parent has now, also where it was loaded or altered after it was made.
        SubgraphType::Static => match schema_copy::ddl(&agent.tables(id.graph().as_str()).await?) {
            Ok(ddl) => ("custom", Some(ddl)),
            Err(why) => {
                memory.refused = Some(format!(
                    "spec.type: the schema of graph {} cannot be copied: {why}",
                    subgraph.spec.graph
                ));
                return Ok(Done::World);
            }
        },
    };
    let tier = observe::parent(subgraph, ctx)
        .map(|g| g.spec.tier.clone())
        .unwrap_or_default();
    let want = CreateDatabase {
        id: id.as_str(),
        schema_type,
        repository: None,
        ddl,
        is_subgraph: true,
        tier: &tier,
    };
    match agent.create(&want).await {
        // One that exists was made with all tables of its type, since a database is made whole or not at all.
        Ok(made) => {
            let reason = if made == Creation::Made {
                "DatabaseCreated"
            } else {
                "DatabaseAdopted"
            };
            write::event(ctx, &**subgraph, reason, "Create", id.to_string());
            Ok(noted(subgraph, &id, statements::applied(&[], 0)))
        }
        Err(AgentError::Refused(why)) => {
            memory.refused = Some(format!("spec.type: {why}"));
            Ok(Done::World)
        }
        Err(error) => Err(error.into()),
    }
}
