//! EC2 instances.

use super::Aws;
use crate::provider::{InstanceRequest, Instances, ProviderError};
use async_trait::async_trait;
use graphplane_core::node_plan::Instance;
use std::collections::BTreeMap;

/// What is remembered of machines between two listings.
#[derive(Default)]
pub(super) struct Memory;

impl Aws {
    pub(super) async fn list_instances(&self) -> Result<BTreeMap<String, Instance>, ProviderError> {
        Ok(BTreeMap::new())
    }
}

#[async_trait]
impl Instances for Aws {
    async fn ensure_instance(&self, _want: &InstanceRequest) -> Result<Instance, ProviderError> {
        Err(ProviderError::Occupied(String::new()))
    }

    async fn stop_instance(&self, _node: &str, _force: bool) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn forget_instance(&self, _node: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}
