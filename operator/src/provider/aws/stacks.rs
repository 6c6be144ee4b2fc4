//! CloudFormation stacks.
//!
//! A change set has a name that is made from the digest of what is wanted and from the stack as it was found, so that a
//! repeated proposal finds the first one, and one that was executed is never taken for one that is to be.

use super::{code, failed, tags};
use crate::provider::ProviderError;
use crate::provider::stacks::{Change, ChangeSet, ChangeSetState, Drift, StackFacts, StackRequest, Stacks};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudformation::Client;
use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudformation::operation::describe_change_set::DescribeChangeSetOutput;
use aws_sdk_cloudformation::primitives::DateTime;
use aws_sdk_cloudformation::types::{
    Capability, ChangeSetStatus, ChangeSetType, ExecutionStatus, Parameter, Stack, StackDriftStatus, Tag,
};
use graphplane_core::stack_plan::{DIGEST_TAG, RETRY};
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// What names of our change sets begin with.
const CHANGE_SET: &str = "graphplane-";
/// What names of stacks that the operator makes begin with. One of somebody else is listed, too: its name is taken.
const STACKS: [&str; 2] = ["graphplane-tier-", "graphplane-replica-"];

/// Stacks of an account and region.
pub struct CloudFormation {
    client: Client,
    memory: Mutex<Memory>,
}

/// What is remembered of stacks between two listings, by their names.
#[derive(Default)]
struct Memory {
    /// When a change was asked for.
    asked: HashMap<String, Timestamp>,
    /// When a comparison with the template was asked for, whatever became of it.
    compared: HashMap<String, Timestamp>,
    /// Proposals that came to nothing, with what was wanted. They would come to nothing again.
    settled: HashMap<String, (Instant, String, ChangeSet)>,
}

/// What became of a change set that exists.
pub(super) enum Found {
    /// It is as it says.
    Is(ChangeSet),
    /// It was executed, or the stack changed since it was made.
    UsedUp,
}

impl CloudFormation {
    /// Stacks of the account and region of that configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            client: Client::new(config),
            memory: Mutex::default(),
        }
    }

    /// The client, for what only people ask for.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Stacks with a tag of ours, or with a name that might be one of ours, by their names.
    pub(super) async fn list(&self) -> Result<BTreeMap<String, StackFacts>, ProviderError> {
        let stacks: Vec<Stack> = self
            .client
            .describe_stacks()
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeStacks"))?;
        let facts = stacks.iter().filter_map(|stack| self.facts(stack));
        Ok(facts
            .filter(|(name, facts)| {
                facts.tags.contains_key("cluster") || STACKS.iter().any(|ours| name.starts_with(ours))
            })
            .collect())
    }

    pub(super) async fn describe(&self, name: &str) -> Result<Option<Stack>, ProviderError> {
        let answer = self.client.describe_stacks().stack_name(name).send().await;
        match answer {
            Ok(answer) => Ok(answer.stacks.unwrap_or_default().into_iter().find(lives)),
            Err(error) if does_not_exist(&error) => Ok(None),
            Err(error) => Err(failed("DescribeStacks")(error)),
        }
    }

    fn facts(&self, stack: &Stack) -> Option<(String, StackFacts)> {
        let name = stack.stack_name().filter(|_| lives(stack))?.to_owned();
        let outputs = stack.outputs().iter();
        let outputs = outputs.filter_map(|o| Some((o.output_key()?.to_owned(), o.output_value()?.to_owned())));
        let tags = stack.tags().iter();
        let times = [stack.creation_time(), stack.last_updated_time(), stack.deletion_time()];
        let drift = stack.drift_information();
        let memory = self.memory.lock();
        let compared = drift.and_then(|d| time(d.last_check_timestamp()));
        let facts = StackFacts {
            id: stack.stack_id().unwrap_or(&name).to_owned(),
            status: status(stack).to_owned(),
            reason: stack.stack_status_reason().map(str::to_owned),
            outputs: outputs.collect(),
            tags: tags::bare(tags.filter_map(|t| Some((t.key()?, t.value()?)))),
            changed: times.into_iter().filter_map(time).max(),
            asked: memory.asked.get(&name).copied(),
            tried: stack.change_set_id().and_then(digest_of),
            drift: Drift {
                differs: match drift.and_then(|d| d.stack_drift_status()) {
                    Some(StackDriftStatus::Drifted) => Some(true),
                    Some(StackDriftStatus::InSync) => Some(false),
                    _ => None,
                },
                checked: compared.max(memory.compared.get(&name).copied()),
            },
        };
        Some((name, facts))
    }

    /// The change set of that name, if it exists.
    pub(super) async fn look(&self, stack: &str, name: &str) -> Result<Option<Found>, ProviderError> {
        let answer = self
            .client
            .describe_change_set()
            .stack_name(stack)
            .change_set_name(name)
            .send()
            .await;
        match answer {
            Ok(found) => Ok(Some(read(name, &found))),
            Err(error) if does_not_exist(&error) => Ok(None),
            Err(error) => Err(failed("DescribeChangeSet")(error)),
        }
    }

    /// Begins to work out a change set; `Some` when CloudFormation refused it at once.
    async fn create(
        &self,
        want: &StackRequest,
        digest: &str,
        name: &str,
        new: bool,
    ) -> Result<Option<ChangeSetState>, ProviderError> {
        let parameters = want.parameters.iter();
        let parameters =
            parameters.map(|(key, value)| Parameter::builder().parameter_key(key).parameter_value(value).build());
        let mut tags = want.tags.clone();
        tags.insert(DIGEST_TAG.to_owned(), digest.to_owned());
        let tags = tags::prefixed(&tags).map(|(key, value)| Tag::builder().key(key).value(value).build());
        let answer = self
            .client
            .create_change_set()
            .stack_name(&want.name)
            .change_set_name(name)
            .client_token(name)
            .change_set_type(if new {
                ChangeSetType::Create
            } else {
                ChangeSetType::Update
            })
            .template_body(want.template)
            .set_parameters(Some(parameters.collect()))
            .set_tags(Some(tags.collect()))
            .capabilities(Capability::CapabilityIam)
            .send()
            .await;
        let Err(error) = answer else { return Ok(None) };
        let message = message(&error).to_owned();
        match code(&error) {
            // An attempt whose answer was lost has made it.
            Some("AlreadyExistsException") => Ok(None),
            Some("ValidationError") if nothing_to_change(&message) => Ok(Some(ChangeSetState::Empty)),
            // Somebody else changes it just now.
            Some("ValidationError") if message.contains("_IN_PROGRESS") => Ok(Some(ChangeSetState::Pending)),
            Some("ValidationError" | "InsufficientCapabilitiesException") => Ok(Some(ChangeSetState::Failed(message))),
            _ => Err(failed("CreateChangeSet")(error)),
        }
    }

    /// Removes a change set; one that does not exist is removed already.
    pub(super) async fn discard(&self, stack: &str, change_set: &str) -> Result<(), ProviderError> {
        let answer = self
            .client
            .delete_change_set()
            .stack_name(stack)
            .change_set_name(change_set)
            .send()
            .await;
        match answer {
            Err(error) if does_not_exist(&error) => Ok(()),
            answer => answer.map(|_| ()).map_err(failed("DeleteChangeSet")),
        }
    }

    /// Remembers a proposal that came to nothing and removes its change set.
    async fn settle(
        &self,
        want: &StackRequest,
        digest: String,
        found: ChangeSet,
        made: bool,
    ) -> Result<ChangeSet, ProviderError> {
        if matches!(found.state, ChangeSetState::Empty | ChangeSetState::Failed(_)) {
            if made {
                self.discard(&want.name, &found.name).await?;
            }
            let settled = (Instant::now(), digest, found.clone());
            self.memory.lock().settled.insert(want.name.clone(), settled);
        }
        Ok(found)
    }

    fn settled(&self, want: &StackRequest, digest: &str) -> Option<ChangeSet> {
        let memory = self.memory.lock();
        let (at, of, change_set) = memory.settled.get(&want.name)?;
        (of == digest && at.elapsed() < RETRY).then(|| change_set.clone())
    }

    fn asked(&self, stack: &str) {
        self.memory
            .lock()
            .asked
            .insert(name_of(stack).to_owned(), Timestamp::now());
    }
}

#[async_trait]
impl Stacks for CloudFormation {
    async fn find(&self, stack: &str) -> Result<Option<StackFacts>, ProviderError> {
        let found = self.describe(stack).await?;
        Ok(found.and_then(|stack| self.facts(&stack)).map(|(_, facts)| facts))
    }

    async fn propose(&self, want: &StackRequest) -> Result<ChangeSet, ProviderError> {
        let digest = want.digest();
        if let Some(settled) = self.settled(want, &digest) {
            return Ok(settled);
        }
        let stack = self.describe(&want.name).await?;
        let in_review = stack.as_ref().is_some_and(|s| status(s) == "REVIEW_IN_PROGRESS");
        let changed = stack.as_ref().filter(|_| !in_review);
        let name = change_set_name(&digest, changed);
        if stack.is_some() {
            match self.look(&want.name, &name).await? {
                Some(Found::Is(found)) => return self.settle(want, digest, found, true).await,
                Some(Found::UsedUp) => self.discard(&want.name, &name).await?,
                None => {}
            }
        }
        let refused = self.create(want, &digest, &name, changed.is_none()).await?;
        let pending = ChangeSet {
            name: name.clone(),
            state: ChangeSetState::Pending,
            changes: vec![],
        };
        if let Some(state) = refused {
            return self.settle(want, digest, ChangeSet { state, ..pending }, false).await;
        }
        match self.look(&want.name, &name).await? {
            Some(Found::Is(found)) => self.settle(want, digest, found, true).await,
            // It does not show yet.
            Some(Found::UsedUp) | None => Ok(pending),
        }
    }

    async fn execute(&self, stack: &str, change_set: &str) -> Result<(), ProviderError> {
        self.asked(stack);
        let answer = self
            .client
            .execute_change_set()
            .stack_name(stack)
            .change_set_name(change_set)
            .client_request_token(change_set)
            .send()
            .await;
        match answer {
            // An attempt whose answer was lost has begun it; or it is used up, and the next proposal makes another one.
            Err(error)
                if matches!(
                    code(&error),
                    Some("InvalidChangeSetStatus" | "TokenAlreadyExistsException")
                ) =>
            {
                Ok(())
            }
            answer => answer.map(|_| ()).map_err(failed("ExecuteChangeSet")),
        }
    }

    async fn continue_rollback(&self, stack: &str) -> Result<(), ProviderError> {
        self.asked(stack);
        let answer = self.client.continue_update_rollback().stack_name(stack).send().await;
        answer.map(|_| ()).map_err(failed("ContinueUpdateRollback"))
    }

    async fn detect_drift(&self, stack: &str) -> Result<(), ProviderError> {
        let name = name_of(stack).to_owned();
        self.memory.lock().compared.insert(name, Timestamp::now());
        let answer = self.client.detect_stack_drift().stack_name(stack).send().await;
        answer.map(|_| ()).map_err(failed("DetectStackDrift"))
    }

    async fn delete(&self, stack: &str) -> Result<(), ProviderError> {
        self.asked(stack);
        // No token: one that was refused has to be possible again.
        let answer = self.client.delete_stack().stack_name(stack).send().await;
        match answer {
            Err(error) if does_not_exist(&error) => Ok(()),
            answer => answer.map(|_| ()).map_err(failed("DeleteStack")),
        }
    }
}

fn status(stack: &Stack) -> &str {
    stack.stack_status().map_or("UNKNOWN", |s| s.as_str())
}

/// Whether a stack is more than a memory.
fn lives(stack: &Stack) -> bool {
    status(stack) != "DELETE_COMPLETE"
}

fn time(time: Option<&DateTime>) -> Option<Timestamp> {
    Timestamp::from_second(time?.secs()).ok()
}

fn message<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    let service = error.as_service_error();
    service.and_then(ProvideErrorMetadata::message).unwrap_or_default()
}

pub(super) fn does_not_exist<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    match code(error) {
        Some("ChangeSetNotFound" | "ChangeSetNotFoundException") => true,
        Some("ValidationError") => message(error).contains("does not exist"),
        _ => false,
    }
}

fn nothing_to_change(reason: &str) -> bool {
    // The two ways in which CloudFormation says it.
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

fn read(name: &str, found: &DescribeChangeSetOutput) -> Found {
    let reason = || found.status_reason().unwrap_or("without a reason").to_owned();
    let state = match found.status() {
        Some(ChangeSetStatus::Failed) if nothing_to_change(&reason()) => ChangeSetState::Empty,
        Some(ChangeSetStatus::Failed) => ChangeSetState::Failed(reason()),
        Some(ChangeSetStatus::CreateComplete) => match found.execution_status() {
            Some(ExecutionStatus::Available) => ChangeSetState::Ready,
            Some(ExecutionStatus::ExecuteComplete | ExecutionStatus::ExecuteFailed | ExecutionStatus::Obsolete) => {
                return Found::UsedUp;
            }
            _ => ChangeSetState::Pending,
        },
        _ => ChangeSetState::Pending,
    };
    let changes = found.changes().iter().filter_map(|change| change.resource_change());
    let changes = changes.map(|change| Change {
        action: change.action().map_or("", |a| a.as_str()).to_owned(),
        resource: change.logical_resource_id().unwrap_or_default().to_owned(),
        type_: change.resource_type().unwrap_or_default().to_owned(),
        replacement: change.replacement().map_or("", |r| r.as_str()).to_owned(),
    });
    Found::Is(ChangeSet {
        name: name.to_owned(),
        state,
        changes: changes.collect(),
    })
}

/// The name of the change set that makes a stack, as it is, what the digest is of.
fn change_set_name(digest: &str, stack: Option<&Stack>) -> String {
    let id = stack.and_then(|s| s.stack_id()).unwrap_or_default();
    let updated = stack.and_then(|s| s.last_updated_time()).map_or(0, |t| t.secs());
    let base = hex::encode(Sha256::digest(format!("{id} {updated}")));
    format!("{CHANGE_SET}{digest}-{}", &base[..8])
}

/// The digest in the identity of a change set of ours.
fn digest_of(change_set: &str) -> Option<String> {
    let name = name_of(change_set).strip_prefix(CHANGE_SET)?;
    let (digest, _) = name.rsplit_once('-')?;
    Some(digest.to_owned())
}

/// The name in the identity of a stack or a change set, `arn:…:stack/<name>/<uuid>`, or the name itself.
fn name_of(id: &str) -> &str {
    id.split('/').nth(1).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_cloudformation::types::{ChangeAction, Replacement, ResourceChange};

    fn read_state(status: ChangeSetStatus, execution: ExecutionStatus, reason: &str) -> Option<ChangeSetState> {
        let output = DescribeChangeSetOutput::builder()
            .status(status)
            .execution_status(execution)
            .status_reason(reason)
            .build();
        match read("cs", &output) {
            Found::Is(found) => Some(found.state),
            Found::UsedUp => None,
        }
    }

    #[test]
    fn a_change_set_is_read_as_what_can_be_done_with_it() {
        use ChangeSetStatus as S;
        use ExecutionStatus as E;
        let empty =
            "The submitted information didn't contain changes. Submit different information to create a change set.";
        let cases = [
            (S::CreatePending, E::Unavailable, "", Some(ChangeSetState::Pending)),
            (S::CreateInProgress, E::Unavailable, "", Some(ChangeSetState::Pending)),
            (S::CreateComplete, E::Available, "", Some(ChangeSetState::Ready)),
            (
                S::CreateComplete,
                E::ExecuteInProgress,
                "",
                Some(ChangeSetState::Pending),
            ),
            (S::CreateComplete, E::ExecuteComplete, "", None),
            (S::CreateComplete, E::Obsolete, "", None),
            (S::Failed, E::Unavailable, empty, Some(ChangeSetState::Empty)),
            (
                S::Failed,
                E::Unavailable,
                "No updates are to be performed.",
                Some(ChangeSetState::Empty),
            ),
            (
                S::Failed,
                E::Unavailable,
                "no",
                Some(ChangeSetState::Failed("no".into())),
            ),
        ];
        for (status, execution, reason, expected) in cases {
            assert_eq!(
                read_state(status.clone(), execution, reason),
                expected,
                "{status:?} {reason}"
            );
        }
    }

    #[test]
    fn changes_are_told_in_the_words_of_cloudformation() {
        let change = ResourceChange::builder()
            .action(ChangeAction::Modify)
            .logical_resource_id("Machine")
            .resource_type("AWS::EC2::LaunchTemplate")
            .replacement(Replacement::False)
            .build();
        let change = aws_sdk_cloudformation::types::Change::builder()
            .resource_change(change)
            .build();
        let output = DescribeChangeSetOutput::builder().changes(change).build();
        let Found::Is(found) = read("cs", &output) else {
            panic!()
        };
        let expected = Change {
            action: "Modify".into(),
            resource: "Machine".into(),
            type_: "AWS::EC2::LaunchTemplate".into(),
            replacement: "False".into(),
        };
        assert_eq!(found.changes, [expected]);
    }

    #[test]
    fn a_change_set_is_named_by_what_it_makes_of_what() {
        let stack = |updated| {
            let time = DateTime::from_secs(updated);
            Stack::builder().stack_id("arn:1").last_updated_time(time).build()
        };
        let digest = "0123456789abcdef0123456789abcdef";
        let name = change_set_name(digest, Some(&stack(1)));
        assert_eq!(name, change_set_name(digest, Some(&stack(1))));
        assert_ne!(name, change_set_name(digest, Some(&stack(2))));
        assert_ne!(name, change_set_name(digest, None));
        let id = format!("arn:aws:cloudformation:eu-central-1:1:changeSet/{name}/d1");
        assert_eq!(digest_of(&id).as_deref(), Some(digest));
        assert_eq!(
            digest_of("arn:aws:cloudformation:eu-central-1:1:changeSet/by-hand/d1"),
            None
        );
    }
}
