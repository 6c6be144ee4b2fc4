//! One pass over one object: observe, plan, act, observe again, until the plan has no action left; then the status.

use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::write;
use graphplane_core::plan::{self, Plan};
use graphplane_crds::conditions::{self, Says};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::runtime::controller::Action as Next;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Actions of one pass. The longest plan has fewer than ten; more is a plan that goes in a circle.
const STEPS: usize = 25;

/// What an action did to the object.
pub(crate) enum Done<K> {
    /// Nothing; the world changed.
    World,
    /// It was written, and this was the answer.
    Written(Arc<K>),
    /// Its status has to say something that is written with the rest at the end of the pass.
    Noted(Arc<K>),
    /// It is gone.
    Gone,
}

/// What is special about the reconciler of a kind.
pub(crate) trait Reconcile: Managed {
    /// What the plan looks at.
    type Seen: Send + Sync;
    /// What it can do.
    type Action: Clone + Debug + Send + Sync;
    /// The state in one word.
    type Phase: Send + Sync;
    /// What a pass has learnt by acting.
    type Memory: Default + Send + Sync;

    /// Looks at the world.
    fn observe(
        object: &Arc<Self>,
        ctx: &Context,
        memory: &Self::Memory,
    ) -> impl Future<Output = Result<Self::Seen, Error>> + Send;

    /// Decides; no input or output.
    fn plan(object: &Self, seen: &Self::Seen, now: Timestamp) -> Plan<Self::Action, Self::Phase>;

    /// Does one thing.
    fn act(
        object: &Arc<Self>,
        action: &Self::Action,
        seen: &Self::Seen,
        ctx: &Context,
        memory: &mut Self::Memory,
    ) -> impl Future<Output = Result<Done<Self>, Error>> + Send;

    /// The status to write, without conditions.
    fn status(
        object: &Self,
        seen: &Self::Seen,
        phase: &Self::Phase,
        ctx: &Context,
        memory: &Self::Memory,
        now: Timestamp,
    ) -> impl Serialize;
}

/// Reconciles an object: the function that a `Controller` calls.
pub(crate) async fn reconcile<K: Reconcile>(object: Arc<K>, ctx: Arc<Context>) -> Result<Next, Error> {
    let started = Instant::now();
    let (namespace, name) = key(&*object);
    let span = tracing::info_span!("reconcile", kind = K::KIND, namespace, name);
    let result = run(object, &ctx).instrument(span.clone()).await;
    let outcome = result.as_ref().map_or_else(Error::metric_label, |_| "ok");
    ctx.metrics.reconciled(K::KIND, outcome, started.elapsed());
    let wait = result?;
    ctx.backoff.lock().succeeded(&(K::KIND, (namespace, name)));
    Ok(match wait {
        Wait::Gone => Next::await_change(),
        Wait::At(after) => Next::requeue(after.unwrap_or(ctx.resync).min(ctx.resync)),
    })
}

/// When to try again after an error.
pub(crate) fn after_error<K: Reconcile>(object: Arc<K>, error: &Error, ctx: Arc<Context>) -> Next {
    let (namespace, name) = key(&*object);
    let wait = ctx.backoff.lock().failed(&(K::KIND, (namespace.clone(), name.clone())));
    if error.is_routine() {
        tracing::debug!(kind = K::KIND, namespace, name, %error, ?wait, "reconcile goes on later");
    } else {
        tracing::warn!(kind = K::KIND, namespace, name, %error, ?wait, "reconcile failed");
    }
    Next::requeue(wait)
}

enum Wait {
    Gone,
    At(Option<Duration>),
}

async fn run<K: Reconcile>(object: Arc<K>, ctx: &Context) -> Result<Wait, Error> {
    let (namespace, name) = key(&*object);
    if name.is_empty() || object.uid().is_none() {
        return Err(Error::Incomplete("name or UID"));
    }
    // What a write of our own was answered with may be newer than what the controller was triggered with.
    let mut object = K::cache(&ctx.hubs).get(&namespace, &name).unwrap_or(object);
    match (
        object.meta().deletion_timestamp.is_some(),
        write::has_finalizer(&*object),
    ) {
        // Ours is done, or never began; others may still hold it.
        (true, false) => return Ok(Wait::Gone),
        (false, false) => object = write::add_finalizer(ctx, &*object).await?,
        (_, true) => {}
    }
    let mut written = object.clone();
    let mut memory = K::Memory::default();
    for _ in 0..STEPS {
        let now = ctx.now();
        let seen = match K::observe(&object, ctx, &memory).await {
            Ok(seen) => seen,
            Err(error) => {
                return Err(told(&written, &error, ctx, now, error_says(&error))
                    .await
                    .err()
                    .unwrap_or(error));
            }
        };
        let plan = K::plan(&object, &seen, now);
        let Some(action) = plan.actions.first() else {
            let status = full_status(&*object, &seen, &plan.phase, ctx, &memory, &plan.says, now)?;
            let planned = object.clone();
            object = write::status(ctx, &written, status, false).await?;
            written = object.clone();
            if changed(&*planned, &*object) {
                // The answer shows a change that the plan has not seen.
                continue;
            }
            K::cache(&ctx.hubs).handled(&*object);
            return Ok(Wait::At(plan.requeue));
        };
        tracing::debug!(?action, "acts");
        match K::act(&object, action, &seen, ctx, &mut memory).await {
            Ok(Done::World) => {}
            Ok(Done::Written(answer)) => {
                object = answer.clone();
                written = answer;
            }
            Ok(Done::Noted(noted)) => object = noted,
            Ok(Done::Gone) => return Ok(Wait::Gone),
            Err(error) => {
                if !error.is_routine() {
                    let says = plan::after_failure(plan.says, error.reason(), &error.to_string());
                    // What was learnt before the failure is kept, too.
                    let status = full_status(&*object, &seen, &plan.phase, ctx, &memory, &says, now)?;
                    write::status(ctx, &written, status, false).await?;
                }
                return Err(error);
            }
        }
    }
    Err(Error::Steps(write::label(&*object)))
}

fn error_says(error: &Error) -> Vec<Says> {
    vec![Says::yes(conditions::PROGRESSING, error.reason(), error.to_string())]
}

/// Writes into the conditions why the world cannot be looked at.
async fn told<K: Reconcile>(
    object: &Arc<K>,
    error: &Error,
    ctx: &Context,
    now: Timestamp,
    says: Vec<Says>,
) -> Result<(), Error> {
    if error.is_routine() {
        return Ok(());
    }
    let whole = serde_json::to_value(&**object).unwrap_or_default();
    let status = whole
        .get("status")
        .cloned()
        .filter(Value::is_object)
        .unwrap_or_else(|| Value::Object(Default::default()));
    let status = with_conditions(
        status,
        object.conditions(),
        &says,
        object.meta().generation.unwrap_or(0),
        now,
    )?;
    write::status(ctx, object, status, false).await.map(|_| ())
}

fn full_status<K: Reconcile>(
    object: &K,
    seen: &K::Seen,
    phase: &K::Phase,
    ctx: &Context,
    memory: &K::Memory,
    says: &[Says],
    now: Timestamp,
) -> Result<Value, Error> {
    let generation = object.meta().generation.unwrap_or(0);
    let status = serde_json::to_value(K::status(object, seen, phase, ctx, memory, now)).map_err(write::unreadable)?;
    let mut status = with_conditions(status, object.conditions(), says, generation, now)?;
    let paused = says
        .iter()
        .any(|s| s.type_ == conditions::PAUSED && s.status == Some(true));
    if !paused {
        // While it is paused, nothing was done for this generation.
        status["observedGeneration"] = generation.into();
    }
    Ok(status)
}

fn with_conditions(
    mut status: Value,
    before: &[Condition],
    says: &[Says],
    generation: i64,
    now: Timestamp,
) -> Result<Value, Error> {
    // Whole seconds, as the API keeps them: otherwise the status would differ from what was written a moment ago.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let merged = conditions::merge(before, says, generation, &Time(now));
    status["conditions"] = serde_json::to_value(merged).map_err(write::unreadable)?;
    Ok(status)
}

/// Whether an object was changed in a way that a plan looks at.
fn changed<K: Managed>(planned: &K, now: &K) -> bool {
    let (a, b) = (planned.meta(), now.meta());
    a.generation != b.generation
        || a.annotations != b.annotations
        || a.deletion_timestamp.is_some() != b.deletion_timestamp.is_some()
}
