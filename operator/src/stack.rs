//! The stack that an object owns, whatever its kind: what the plan looks at, and each step of it.

use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::provider::stacks::{ChangeSet, StackFacts, StackRequest, Stacks};
use crate::write;
use graphplane_core::stack_plan::{Seen, Step, Wanted};

/// What the provider has of a stack.
pub(crate) async fn observe(
    stacks: &dyn Stacks,
    wanted: &Wanted,
    ctx: &Context,
    change_set: Option<&ChangeSet>,
) -> Result<Seen, Error> {
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
    Ok(Seen {
        stack,
        change_set: change_set.cloned(),
        machines: 0,
    })
}

fn status(stack: Option<&StackFacts>) -> Option<(&str, Option<&str>)> {
    stack.map(|s| (s.status.as_str(), s.digest()))
}

/// Takes a step of the stack that `seen` shows. `change_set` is what the pass has worked out.
pub(crate) async fn take<K: Managed>(
    stacks: &dyn Stacks,
    object: &K,
    step: &Step,
    request: &StackRequest,
    seen: &Seen,
    ctx: &Context,
    change_set: &mut Option<ChangeSet>,
) -> Result<(), Error> {
    let name = &request.name;
    // By its identity, so that it is the one that was looked at.
    let id = seen.stack.as_ref().map_or(name, |s| &s.id);
    match step {
        Step::Propose => {
            *change_set = Some(ctx.listing.counted("propose_stack", stacks.propose(request)).await?);
        }
        Step::Execute(proposal) => {
            let proposed = change_set.take();
            let executed = stacks.execute(id, proposal);
            ctx.listing.changing("execute_stack", executed).await?;
            let changes: Vec<String> = proposed
                .iter()
                .flat_map(|p| &p.changes)
                .map(ToString::to_string)
                .collect();
            let note = format!("change set {proposal} of stack {name}: {}", changes.join(", "));
            write::event(ctx, object, "StackChanging", "Change", note);
        }
        Step::ContinueRollback => {
            let continued = stacks.continue_rollback(id);
            ctx.listing.changing("continue_stack_rollback", continued).await?;
            let note = format!("the failed change of stack {name} is taken back again");
            write::event(ctx, object, "StackRollingBack", "Change", note);
        }
        Step::DetectDrift => {
            // Nothing rests on it, so a refusal must not keep the object from anything; it is asked for again tomorrow.
            let asked = ctx
                .listing
                .changing("detect_stack_drift", stacks.detect_drift(id))
                .await;
            if let Err(error) = asked {
                tracing::warn!(stack = name, %error, "a stack cannot be compared with its template");
            }
        }
        Step::Delete => {
            ctx.listing.changing("delete_stack", stacks.delete(id)).await?;
            let note = format!("stack {name} is deleted");
            write::event(ctx, object, "StackDeleting", "Delete", note);
        }
    }
    Ok(())
}
