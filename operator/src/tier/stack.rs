//! The stack of a Tier: what its machines have in common.

use super::Memory;
use crate::context::Context;
use crate::error::Error;
use crate::stack;
use graphplane_core::stack_plan::Step;
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
    let seen = stack::observe(stacks, &wanted, ctx, memory.change_set.as_ref()).await?;
    Ok(Some(Stack { wanted, seen }))
}

pub(super) async fn act(
    tier: &Arc<Tier>,
    step: &Step,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<(), Error> {
    let provider = ctx.listing.provider();
    let (Some(stacks), Some(request), Some(stack)) = (provider.stacks(), provider.tier_stack(tier), &seen.stack) else {
        return Ok(());
    };
    stack::take(
        stacks,
        &**tier,
        step,
        &request,
        &stack.seen,
        ctx,
        &mut memory.change_set,
    )
    .await
}
