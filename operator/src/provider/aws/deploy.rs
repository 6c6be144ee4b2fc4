//! Stacks that people deploy: the same plan as that of the operator, driven to its end by one caller.

use super::stacks::{CloudFormation, Found, does_not_exist};
use super::{failed, templates};
use crate::provider::ProviderError;
use crate::provider::stacks::{ChangeSet, StackFacts, StackRequest, Stacks};
use aws_sdk_cloudformation::types::Stack;
use graphplane_core::plan::Verdict;
use graphplane_core::stack_plan::{self, LOOK, Seen, Step};
use jiff::Timestamp;
use std::collections::HashSet;
use std::time::Duration;

/// How often somebody who watches is told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A stack that is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// CloudFormation refused or could not be reached.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The stack is in a state in which nothing is done, or did not become what was asked for.
    #[error("{0}")]
    Stack(String),
}

/// Something that happened to a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackEvent {
    /// Identity of the event.
    pub id: String,
    /// Name of what it happened to, in the template.
    pub resource: String,
    /// What that is.
    pub type_: String,
    /// Its state since.
    pub status: String,
    /// Why, where CloudFormation says so.
    pub reason: Option<String>,
}

/// What may be done beside working out a change set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Nothing.
    No,
    /// A stack that was never made is deleted, and a failed way back is tried again.
    Yes,
}

impl CloudFormation {
    /// A stack from one of our templates. Parameters that are not given keep the values that the stack has; all others are
    /// said, too, so that the same stack has the same digest whoever asks.
    ///
    /// # Errors
    /// When CloudFormation refuses or cannot be reached.
    pub async fn with_present_parameters(&self, mut want: StackRequest) -> Result<StackRequest, ProviderError> {
        let known: HashSet<&str> = templates::parameters(want.template).collect();
        let stack = self.describe(&want.name).await?;
        for parameter in stack.iter().flat_map(Stack::parameters) {
            let (Some(key), Some(value)) = (parameter.parameter_key(), parameter.parameter_value()) else {
                continue;
            };
            if known.contains(key) && !want.parameters.contains_key(key) {
                want.parameters.insert(key.to_owned(), value.to_owned());
            }
        }
        for (key, value) in templates::defaults(want.template) {
            let present = want.parameters.entry(key.to_owned());
            present.or_insert_with(|| value.to_owned());
        }
        Ok(want)
    }

    /// Works out what has to be changed; `None` when nothing has to. With `adopt`, a stack without any tag of ours is taken
    /// for ours.
    ///
    /// # Errors
    /// When the stack is somebody else's or in a state in which nothing can be changed, when the change set cannot be made,
    /// or when CloudFormation cannot be reached.
    pub async fn prepare(
        &self,
        want: &StackRequest,
        adopt: bool,
        mend: Mend,
    ) -> Result<Option<ChangeSet>, DeployError> {
        let wanted = want.wanted();
        let mut change_set: Option<ChangeSet> = None;
        loop {
            let stack = self.find(&want.name).await?.map(|stack| at_once(stack, want, adopt));
            let id = stack.as_ref().map_or(want.name.clone(), |s| s.id.clone());
            let seen = Seen {
                stack,
                change_set: change_set.take(),
                machines: 0,
            };
            let next = stack_plan::keep(&wanted, &seen, Timestamp::now());
            match next.step {
                Some(Step::Propose) => {
                    change_set = Some(self.propose(want).await?);
                    continue;
                }
                Some(Step::Execute(_)) => return Ok(seen.change_set),
                Some(Step::Delete) if mend == Mend::Yes => self.delete(&id).await?,
                Some(Step::ContinueRollback) if mend == Mend::Yes => self.continue_rollback(&id).await?,
                Some(Step::Delete | Step::ContinueRollback) => return Err(DeployError::Stack(next.verdict.why().1)),
                Some(Step::DetectDrift) => return Ok(None),
                None => match next.verdict {
                    Verdict::Ready(_) => return Ok(None),
                    Verdict::Stalled(_, why) | Verdict::ReadyButStalled(_, why) => return Err(DeployError::Stack(why)),
                    Verdict::Progressing(..) | Verdict::ReadyAndProgressing(..) | Verdict::Off(..) => {}
                },
            }
            tokio::time::sleep(next.requeue.unwrap_or(LOOK).min(LOOK)).await;
        }
    }

    /// Removes a change set that nobody wants any more, and the stack that would have been made by it.
    ///
    /// # Errors
    /// When CloudFormation refuses or cannot be reached.
    pub async fn withdraw(&self, stack: &str, change_set: &str) -> Result<(), ProviderError> {
        self.discard(stack, change_set).await?;
        match self.find(stack).await? {
            Some(left) if left.status == "REVIEW_IN_PROGRESS" => self.delete(&left.id).await,
            _ => Ok(()),
        }
    }

    /// Executes a change set and follows the stack to the end of it.
    ///
    /// # Errors
    /// When the change failed, or CloudFormation cannot be reached.
    pub async fn carry_out(
        &self,
        want: &StackRequest,
        change_set: &ChangeSet,
        mut told: impl FnMut(&StackEvent) + Send,
    ) -> Result<StackFacts, DeployError> {
        let mut known = self.known(&want.name).await?;
        self.execute(&want.name, &change_set.name).await?;
        loop {
            self.tell(&want.name, &mut known, &mut told).await?;
            let stack = self.find(&want.name).await?;
            let Some(stack) = stack else {
                return Err(DeployError::Stack(format!("stack {} was deleted meanwhile", want.name)));
            };
            // A reading of the stack may be behind, and show what was before.
            let found = self.look(&want.name, &change_set.name).await?;
            let executed = !matches!(found, Some(Found::Is(_)));
            if executed && !stack.is_busy() && stack.status != "REVIEW_IN_PROGRESS" {
                self.tell(&want.name, &mut known, &mut told).await?;
                return ended(want, stack);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Deletes a stack and follows it to its end; `false` when there is none.
    ///
    /// # Errors
    /// When the stack is somebody else's, when something is in the way of its deletion, or when CloudFormation cannot be
    /// reached.
    pub async fn remove(
        &self,
        want: &StackRequest,
        adopt: bool,
        mut told: impl FnMut(&StackEvent) + Send,
    ) -> Result<bool, DeployError> {
        let wanted = want.wanted();
        let Some(first) = self.find(&want.name).await? else {
            return Ok(false);
        };
        let id = first.id.clone();
        let mut known = self.known(&id).await?;
        let mut asked = false;
        loop {
            // By its identity: the events of a deleted stack are found by that alone.
            let stack = self.find(&id).await?.map(|stack| at_once(stack, want, adopt));
            if let Some(stack) = stack.as_ref().filter(|s| asked && s.status == "DELETE_FAILED") {
                let reason = stack.reason.as_deref().unwrap_or("its events say why");
                return Err(DeployError::Stack(format!(
                    "stack {} cannot be deleted: {reason}",
                    want.name
                )));
            }
            let seen = Seen {
                stack,
                ..Seen::default()
            };
            let next = stack_plan::remove(&wanted, &seen, Timestamp::now());
            let Some(next) = next else {
                self.tell(&id, &mut known, &mut told).await?;
                return match seen.stack {
                    None => Ok(true),
                    Some(_) => Err(DeployError::Stack(
                        stack_plan::keep(&wanted, &seen, Timestamp::now()).verdict.why().1,
                    )),
                };
            };
            if next.step == Some(Step::Delete) && !asked {
                self.delete(&id).await?;
                asked = true;
            }
            self.tell(&id, &mut known, &mut told).await?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Identities of what has happened to a stack so far.
    async fn known(&self, stack: &str) -> Result<HashSet<String>, ProviderError> {
        let events = self.events(stack).await?;
        Ok(events.into_iter().map(|event| event.id).collect())
    }

    /// Tells of what has happened since.
    async fn tell(
        &self,
        stack: &str,
        known: &mut HashSet<String>,
        told: &mut (impl FnMut(&StackEvent) + Send),
    ) -> Result<(), ProviderError> {
        for event in self.events(stack).await? {
            if known.insert(event.id.clone()) {
                told(&event);
            }
        }
        Ok(())
    }

    /// The newest events of a stack, the oldest of them first; none of a stack that does not exist.
    async fn events(&self, stack: &str) -> Result<Vec<StackEvent>, ProviderError> {
        let answer = self.client().describe_stack_events().stack_name(stack).send().await;
        let answer = match answer {
            Err(error) if does_not_exist(&error) => return Ok(vec![]),
            answer => answer.map_err(failed("DescribeStackEvents"))?,
        };
        let events = answer.stack_events().iter().rev().map(|event| StackEvent {
            id: event.event_id().unwrap_or_default().to_owned(),
            resource: event.logical_resource_id().unwrap_or_default().to_owned(),
            type_: event.resource_type().unwrap_or_default().to_owned(),
            status: event.resource_status().map_or("", |s| s.as_str()).to_owned(),
            reason: event.resource_status_reason().map(str::to_owned),
        });
        Ok(events.collect())
    }
}

/// The stack as the plan takes it from a person, who asks now: nothing is tried too early. With `adopt`, one without any
/// tag of ours is ours.
fn at_once(mut stack: StackFacts, want: &StackRequest, adopt: bool) -> StackFacts {
    (stack.changed, stack.asked) = (None, None);
    if adopt && stack.tags.is_empty() {
        stack.tags = want.tags.clone();
    }
    stack
}

fn ended(want: &StackRequest, stack: StackFacts) -> Result<StackFacts, DeployError> {
    match stack.status.as_str() {
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => Ok(stack),
        status => {
            let reason = stack.reason.as_deref().unwrap_or("its events say why");
            Err(DeployError::Stack(format!("stack {} is {status}: {reason}", want.name)))
        }
    }
}
