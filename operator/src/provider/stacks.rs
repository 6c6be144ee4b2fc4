//! Stacks: groups of things that a provider makes, changes and removes together from a template.

use super::ProviderError;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Outputs of a Tier's stack that its machines are started from: the identity and the version of a launch template.
pub const LAUNCH_TEMPLATE: [&str; 2] = ["LaunchTemplateId", "LaunchTemplateVersion"];

/// A stack that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackRequest {
    /// Its name, unique in the account and region.
    pub name: String,
    /// The template.
    pub template: &'static str,
    /// Values of the template's parameters; those that are not named keep the template's default.
    pub parameters: BTreeMap<String, String>,
    /// Ownership: cluster, kind, name, UID.
    pub tags: BTreeMap<String, String>,
}

/// A stack at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFacts {
    /// Identity at the provider.
    pub id: String,
    /// What the provider says of it, in its own words, such as `CREATE_COMPLETE`.
    pub status: String,
    /// Why, where it says so.
    pub reason: Option<String>,
    /// What it has to offer to others.
    pub outputs: BTreeMap<String, String>,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
}

/// A change of a stack that was worked out and not yet made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// Its name; made from the request, so that the same request finds the same change set.
    pub name: String,
    /// Whether it can be executed, or why not.
    pub state: ChangeSetState,
    /// What it would do: one line for each resource.
    pub changes: Vec<String>,
}

/// Whether a change set can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeSetState {
    /// The provider still works it out.
    Pending,
    /// It can be executed.
    Ready,
    /// There is nothing to change.
    Empty,
    /// It cannot be made.
    Failed(String),
}

/// A provider's stacks. Every call may be repeated.
#[async_trait]
pub trait Stacks: Send + Sync {
    /// Works out what has to be changed for the stack to be as asked for, or finds what was worked out before.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn propose(&self, want: &StackRequest) -> Result<ChangeSet, ProviderError>;

    /// Begins to make the change. Returns before it is made; the stack's status tells the rest.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn execute(&self, stack: &str, change_set: &str) -> Result<(), ProviderError>;

    /// Begins to remove a stack; one that does not exist is removed already.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn delete(&self, stack: &str) -> Result<(), ProviderError>;
}
