//! The stack of a Tier: what its machines have in common.

use super::Memory;
use crate::context::Context;
use crate::error::Error;
use crate::provider::stacks::StackFacts;
use crate::write;
use graphplane_core::stack_plan::{Seen, Step};
use graphplane_core::tier_plan::{Observed, Stack};
use graphplane_crds::Tier;
use std::sync::Arc;

/// What the provider has; `None` from one without stacks.
pub(super) async fn observe(tier: &Tier, ctx: &Context, memory: &Memory) -> Result<Option<Stack>, Error> {
    let provider = ctx.listing.provider();
    let (Some(stacks), Some(request)) = (provider.stacks(), provider.tier_stack(tier)) else {
        return Ok(None);
    };
    let wanted = request.wanted();
    let listed = ctx.listing.world().await?.stacks.get(&wanted.name).cloned();
    let settled = |stack: &StackFacts| !stack.is_busy() && stack.digest() == Some(wanted.digest.as_str());
    let stack = match listed {
        Some(stack) if settled(&stack) => Some(stack),
        // Listings are old, and something is about to be done or waited for.
        listed => {
            let found = stacks.find(&wanted.name).await?;
            if status(found.as_ref()) != status(listed.as_ref()) {
                ctx.listing.invalidate();
            }
            found
        }
    };
    let seen = Seen {
        stack,
        change_set: memory.change_set.clone(),
        machines: 0,
    };
    Ok(Some(Stack { wanted, seen }))
}

fn status(stack: Option<&StackFacts>) -> Option<(&str, Option<&str>)> {
    stack.map(|s| (s.status.as_str(), s.digest()))
}

pub(super) async fn act(
    tier: &Arc<Tier>,
    step: &Step,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<(), Error> {
    let provider = ctx.listing.provider();
    let (Some(stacks), Some(request)) = (provider.stacks(), provider.tier_stack(tier)) else {
        return Ok(());
    };
    let name = &request.name;
    let seen = seen.stack.as_ref().and_then(|s| s.seen.stack.as_ref());
    // By its identity, so that it is the one that was looked at.
    let id = seen.map_or(name, |s| &s.id);
    match step {
        Step::Propose => {
            memory.change_set = Some(ctx.listing.counted("propose_stack", stacks.propose(&request)).await?);
        }
        Step::Execute(change_set) => {
            let proposed = memory.change_set.take();
            ctx.listing
                .changing("execute_stack", stacks.execute(id, change_set))
                .await?;
            let changes: Vec<String> = proposed
                .iter()
                .flat_map(|p| &p.changes)
                .map(ToString::to_string)
                .collect();
            let note = format!("change set {change_set} of stack {name}: {}", changes.join(", "));
            write::event(ctx, &**tier, "StackChanging", "Change", note);
        }
        Step::ContinueRollback => {
            ctx.listing
                .changing("continue_stack_rollback", stacks.continue_rollback(id))
                .await?;
            let note = format!("the failed change of stack {name} is taken back again");
            write::event(ctx, &**tier, "StackRollingBack", "Change", note);
        }
        Step::DetectDrift => {
            // Nothing rests on it, so a refusal must not keep the tier from anything; it is asked for again tomorrow.
            if let Err(error) = ctx
                .listing
                .changing("detect_stack_drift", stacks.detect_drift(id))
                .await
            {
                tracing::warn!(stack = name, %error, "a stack cannot be compared with its template");
            }
        }
        Step::Delete => {
            ctx.listing.changing("delete_stack", stacks.delete(id)).await?;
            write::event(
                ctx,
                &**tier,
                "StackDeleting",
                "Delete",
                format!("stack {name} is deleted"),
            );
        }
    }
    Ok(())
}
