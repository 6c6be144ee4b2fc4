//! Auto Scaling groups of read fleets.
//!
//! A group is made and removed with its stack, see `fleet_stack`. Its machines have no registration: they read the key of
//! their callers from a parameter of SSM, and the operator calls them at their private addresses.

use super::{Aws, code, failed, fleet_stack, tags};
use crate::provider::ProviderError;
use crate::provider::fleets::{FleetFacts, FleetMember, FleetRefresh, FleetRequest, FleetSize, Fleets, MemberState};
use crate::provider::stacks::StackRequest;
use async_trait::async_trait;
use aws_sdk_autoscaling::types::{
    AutoScalingGroup, Filter as GroupFilter, Instance, InstanceRefresh, LifecycleState, RefreshPreferences,
};
use aws_sdk_ec2::types::{Filter, Reservation};
use aws_sdk_ssm::types::{ParameterType, Tag};
use graphplane_core::fleet_plan::Resize;
use std::collections::{BTreeMap, HashMap};

/// Port of agents on machines of their own.
const PORT: u16 = 8001;
/// Kind of the object that a fleet is for.
const REPLICA: &str = "Replica";

impl Aws {
    /// Groups of this cluster, by their name.
    pub(super) async fn list_fleets(&self) -> Result<BTreeMap<String, FleetFacts>, ProviderError> {
        let ours = GroupFilter::builder()
            .name(format!("tag:{}", tags::CLUSTER))
            .values(&self.inner.cluster_id)
            .build();
        let groups: Vec<AutoScalingGroup> = self
            .inner
            .autoscaling
            .describe_auto_scaling_groups()
            .filters(ours)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeAutoScalingGroups"))?;
        let addresses = match groups.iter().any(|group| !group.instances().is_empty()) {
            true => self.addresses().await?,
            false => HashMap::new(),
        };
        let mut fleets = BTreeMap::new();
        for group in &groups {
            let Some(name) = group.auto_scaling_group_name() else {
                continue;
            };
            let mut found = facts(group, &addresses);
            if is_mixed(group, &found) {
                found.refresh = self.newest_refresh(name).await?;
            }
            fleets.insert(name.to_owned(), found);
        }
        Ok(fleets)
    }

    /// Private addresses of all machines of fleets, by their id.
    async fn addresses(&self) -> Result<HashMap<String, String>, ProviderError> {
        let with = |tag: &str, value: &str| Filter::builder().name(format!("tag:{tag}")).values(value).build();
        let reservations: Vec<Reservation> = self
            .inner
            .ec2
            .describe_instances()
            .filters(with(tags::CLUSTER, &self.inner.cluster_id))
            .filters(with(tags::KIND, REPLICA))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeInstances"))?;
        let machines = reservations.iter().flat_map(|reservation| reservation.instances());
        let known = machines.filter_map(|machine| {
            let address = machine.private_ip_address()?;
            Some((machine.instance_id()?.to_owned(), format!("http://{address}:{PORT}")))
        });
        Ok(known.collect())
    }

    async fn newest_refresh(&self, group: &str) -> Result<Option<FleetRefresh>, ProviderError> {
        let answer = self
            .inner
            .autoscaling
            .describe_instance_refreshes()
            .auto_scaling_group_name(group)
            .max_records(1)
            .send()
            .await
            .map_err(failed("DescribeInstanceRefreshes"))?;
        Ok(answer.instance_refreshes().first().map(refresh))
    }
}

/// Whether some of a group's machines are not of the version that it starts now: only then a replacement may run or be
/// needed, and is worth a call.
fn is_mixed(group: &AutoScalingGroup, found: &FleetFacts) -> bool {
    let version = group
        .mixed_instances_policy()
        .and_then(|policy| policy.launch_template())
        .and_then(|template| template.launch_template_specification())
        .and_then(|used| used.version())
        .or_else(|| group.launch_template()?.version());
    // Where the group does not say, its machines are compared with each other.
    let mut versions = found.members.iter().map(|member| member.template_version.as_deref());
    let Some(first) = versions.next() else {
        return false;
    };
    let own = version.or(first);
    first != own || versions.any(|other| other != own)
}

fn facts(group: &AutoScalingGroup, addresses: &HashMap<String, String>) -> FleetFacts {
    let pairs = group.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value()?)));
    let members = group
        .instances()
        .iter()
        .filter_map(|instance| member(instance, addresses));
    FleetFacts {
        size: FleetSize {
            min: count(group.min_size()),
            max: count(group.max_size()),
            desired: count(group.desired_capacity()),
        },
        members: members.collect(),
        refresh: None,
        tags: tags::bare(pairs),
    }
}

fn member(instance: &Instance, addresses: &HashMap<String, String>) -> Option<FleetMember> {
    let id = instance.instance_id()?.to_owned();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let template = instance.launch_template();
    Some(FleetMember {
        zone: text(instance.availability_zone()),
        instance_type: text(instance.instance_type()),
        template_version: template.and_then(|used| used.version()).map(str::to_owned),
        state: state(instance.lifecycle_state()),
        healthy: instance
            .health_status()
            .is_some_and(|status| status.eq_ignore_ascii_case("healthy")),
        address: addresses.get(&id).cloned(),
        id,
    })
}

fn state(of: Option<&LifecycleState>) -> MemberState {
    match of {
        Some(LifecycleState::InService) => MemberState::InService,
        Some(LifecycleState::Pending | LifecycleState::PendingWait | LifecycleState::PendingProceed) | None => {
            MemberState::Starting
        }
        // Also one that was put aside: the load balancer sends nothing to it.
        Some(_) => MemberState::Leaving,
    }
}

fn refresh(found: &InstanceRefresh) -> FleetRefresh {
    FleetRefresh {
        id: found.instance_refresh_id().unwrap_or_default().to_owned(),
        status: found
            .status()
            .map(|status| status.as_str())
            .unwrap_or_default()
            .to_owned(),
        reason: found.status_reason().map(str::to_owned),
        percent: u8::try_from(found.percentage_complete().unwrap_or_default()).unwrap_or_default(),
    }
}

fn count(figure: Option<i32>) -> u32 {
    figure.and_then(|figure| u32::try_from(figure).ok()).unwrap_or_default()
}

/// A figure as AWS counts; the schema of a Replica allows no larger one than 1,000.
fn figure(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[async_trait]
impl Fleets for Aws {
    fn stack(&self, want: &FleetRequest) -> StackRequest {
        fleet_stack::request(&self.inner.settings, &self.inner.cluster_id, want)
    }

    async fn put_key(&self, namespace: &str, name: &str, key: &str) -> Result<(), ProviderError> {
        let (settings, cluster) = (&self.inner.settings, &self.inner.cluster_id);
        let parameter = fleet_stack::key_parameter(settings, cluster, namespace, name);
        let put = || {
            self.inner
                .ssm
                .put_parameter()
                .name(&parameter)
                .r#type(ParameterType::SecureString)
                .value(key)
        };
        let owner = fleet_stack::owner(cluster, namespace, name);
        let mut labels = Vec::new();
        for (key, value) in tags::prefixed(&owner) {
            let tag = Tag::builder().key(key).value(value).build();
            labels.push(tag.map_err(|error| ProviderError::Call {
                call: "PutParameter",
                message: error.to_string(),
            })?);
        }
        match put().set_tags(Some(labels)).send().await {
            Ok(_) => Ok(()),
            // Tags and a new value are not taken in one call.
            Err(error) if code(&error) == Some("ParameterAlreadyExists") => {
                let replaced = put().overwrite(true).send().await;
                replaced.map(|_| ()).map_err(failed("PutParameter"))
            }
            Err(error) => Err(failed("PutParameter")(error)),
        }
    }

    async fn delete_key(&self, namespace: &str, name: &str) -> Result<(), ProviderError> {
        let (settings, cluster) = (&self.inner.settings, &self.inner.cluster_id);
        let parameter = fleet_stack::key_parameter(settings, cluster, namespace, name);
        match self.inner.ssm.delete_parameter().name(parameter).send().await {
            Err(error) if code(&error) != Some("ParameterNotFound") => Err(failed("DeleteParameter")(error)),
            _ => Ok(()),
        }
    }

    async fn resize(&self, fleet: &str, to: Resize) -> Result<(), ProviderError> {
        let resized = self
            .inner
            .autoscaling
            .update_auto_scaling_group()
            .auto_scaling_group_name(fleet)
            .min_size(figure(to.min))
            .max_size(figure(to.max))
            .set_desired_capacity(to.desired.map(figure))
            .send()
            .await;
        resized.map(|_| ()).map_err(failed("UpdateAutoScalingGroup"))
    }

    async fn refresh(&self, fleet: &str, min_healthy_percent: u8) -> Result<Option<String>, ProviderError> {
        // Machines that are of the right version already are left alone, so that a repeated call replaces nothing twice.
        let preferences = RefreshPreferences::builder()
            .min_healthy_percentage(i32::from(min_healthy_percent))
            .skip_matching(true)
            .build();
        let started = self
            .inner
            .autoscaling
            .start_instance_refresh()
            .auto_scaling_group_name(fleet)
            .preferences(preferences)
            .send()
            .await;
        match started {
            Ok(started) => Ok(started.instance_refresh_id().map(str::to_owned)),
            Err(error) if code(&error) == Some("InstanceRefreshInProgress") => Ok(None),
            Err(error) => Err(failed("StartInstanceRefresh")(error)),
        }
    }
}
