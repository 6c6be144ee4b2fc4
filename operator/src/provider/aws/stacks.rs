//! CloudFormation stacks.

use super::Aws;
use crate::provider::ProviderError;
use crate::provider::stacks::{ChangeSet, StackFacts, StackRequest, Stacks};
use async_trait::async_trait;
use std::collections::BTreeMap;

impl Aws {
    pub(super) async fn list_stacks(&self) -> Result<BTreeMap<String, StackFacts>, ProviderError> {
        Ok(BTreeMap::new())
    }
}

#[async_trait]
impl Stacks for Aws {
    async fn propose(&self, _want: &StackRequest) -> Result<ChangeSet, ProviderError> {
        Err(ProviderError::Occupied(String::new()))
    }

    async fn execute(&self, _stack: &str, _change_set: &str) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn delete(&self, _stack: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}
