//! Stacks: groups of things that a provider makes, changes and removes together from a template.

use super::ProviderError;
use async_trait::async_trait;
use graphplane_core::stack_plan::Wanted;
pub use graphplane_core::stack_plan::{Change, ChangeSet, ChangeSetState, Drift, StackFacts};
use sha2::{Digest, Sha256};
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
    /// Values of the template's parameters; those that are not named have the template's default.
    pub parameters: BTreeMap<String, String>,
    /// Ownership: cluster, kind, name, UID.
    pub tags: BTreeMap<String, String>,
}

impl StackRequest {
    /// 32 hex digits of everything that is asked for.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        part(&self.name);
        part(self.template);
        for map in [&self.parameters, &self.tags] {
            part(&map.len().to_string());
            for (key, value) in map {
                part(key);
                part(value);
            }
        }
        let mut digest = hex::encode(hash.finalize());
        digest.truncate(32);
        digest
    }

    /// What the plan compares with what exists.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            name: self.name.clone(),
            digest: self.digest(),
            tags: self.tags.clone(),
        }
    }
}

/// A provider's stacks. Every call may be repeated.
#[async_trait]
pub trait Stacks: Send + Sync {
    /// The stack of that name as it is now, whoever's it is.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn find(&self, stack: &str) -> Result<Option<StackFacts>, ProviderError>;

    /// Works out what has to be changed for the stack to be as asked for, or finds what was worked out before. One that
    /// says that there is nothing to change, or that cannot be made, is removed.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn propose(&self, want: &StackRequest) -> Result<ChangeSet, ProviderError>;

    /// Begins to make the change. Returns before it is made; the stack's status tells the rest.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn execute(&self, stack: &str, change_set: &str) -> Result<(), ProviderError>;

    /// Begins to take a change back again whose taking back failed.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn continue_rollback(&self, stack: &str) -> Result<(), ProviderError>;

    /// Begins to compare a stack with its template; the listing tells the result later.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn detect_drift(&self, stack: &str) -> Result<(), ProviderError>;

    /// Begins to remove a stack; one that does not exist is removed already. Named by its identity, it is that one and
    /// none that took its name.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn delete(&self, stack: &str) -> Result<(), ProviderError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> StackRequest {
        StackRequest {
            name: "graphplane-tier-std".into(),
            template: "Resources: {}",
            parameters: [("A".to_owned(), "1".to_owned())].into(),
            tags: [("cluster".to_owned(), "c".to_owned())].into(),
        }
    }

    #[test]
    fn the_digest_tells_all_that_is_asked_for_apart() {
        let digest = request().digest();
        assert_eq!(digest.len(), 32);
        assert_eq!(digest, request().digest());
        let other = [
            StackRequest {
                name: "other".into(),
                ..request()
            },
            StackRequest {
                template: "Resources: {A: 1}",
                ..request()
            },
            StackRequest {
                parameters: [("A".to_owned(), "2".to_owned())].into(),
                ..request()
            },
            // The same texts, as a tag instead of a parameter.
            StackRequest {
                parameters: BTreeMap::new(),
                tags: request().parameters.into_iter().chain(request().tags).collect(),
                ..request()
            },
        ];
        for other in other {
            assert_ne!(digest, other.digest(), "{other:?}");
        }
    }
}
