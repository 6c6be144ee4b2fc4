//! EC2 instances.
//!
//! A machine is started once for each epoch of its node. What makes that sure, whenever this program ends:
//!
//! - It carries the token of its start in a tag, which comes into being with it. Before anything is started, machines with
//!   that tag are asked for, past every cache; one that is there is the one.
//! - A description may not show what was made a moment ago. Then EC2 recognises the start by its client token, which is made
//!   of the plan's token and the type, since EC2 refuses one client token with two types. A type is written into the GraphNode
//!   before it is asked for, and another one only after EC2 has refused that request for want of capacity, which says that it
//!   started nothing. So there is one type at most that may have a machine, and a repetition asks for that one: EC2
//!   answers with the machine that exists.
//! - Everything else in the request is a function of the node, its epoch and the settings. If the settings have changed in
//!   between, EC2 refuses (`IdempotentParameterMismatch`) and starts nothing; soon after a description shows the machine.

use super::machines::{Choice, Machine, Memory as Machines, choose};
use super::{Aws, capacity, code, failed, tags, user_data};
use crate::provider::stacks::LAUNCH_TEMPLATE;
use crate::provider::{InstanceRequest, Instances, ProviderError, Purpose};
use async_trait::async_trait;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{Filter, InstanceType, LaunchTemplateSpecification, ResourceType, Tag, TagSpecification};
use graphplane_core::node_plan::{Instance, InstanceState};
use graphplane_crds::GraphNode;
use jiff::Timestamp;
use kube::Resource;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What is remembered of machines between two listings.
pub(super) type Memory = Machines;

/// Tag with the token of a machine's start.
const TOKEN: &str = "graphplane.dev/token";

const RUN: &str = "RunInstances";

impl Aws {
    /// Machines by their node, with what is announced for them.
    pub(super) async fn list_instances(&self) -> Result<BTreeMap<String, Instance>, ProviderError> {
        let (machines, mut notices) = tokio::try_join!(self.machines(None), self.notices())?;
        let mut of_nodes: BTreeMap<String, Vec<Machine>> = BTreeMap::new();
        for machine in machines {
            of_nodes.entry(machine.node.clone()).or_default().push(machine);
        }
        let shown = of_nodes.into_iter().filter_map(|(node, machines)| {
            let Choice { shown, to_stop } = choose(machines)?;
            if shown.token.is_empty() {
                tracing::warn!(node, surplus = ?to_stop, "a node has several machines; those that are not its newest are stopped");
            }
            let notice = notices.remove(&shown.id);
            Some((node, shown.instance(notice)))
        });
        Ok(shown.collect())
    }

    /// Machines of all nodes, or of one, as EC2 describes them now and as they are remembered.
    async fn machines(&self, node: Option<&str>) -> Result<Vec<Machine>, ProviderError> {
        let filter = |name: &str, value: &str| Filter::builder().name(format!("tag:{name}")).values(value).build();
        let mut request = self
            .inner
            .ec2
            .describe_instances()
            .filters(filter(tags::CLUSTER, &self.inner.cluster_id))
            .filters(filter(tags::KIND, &GraphNode::kind(&())));
        if let Some(node) = node {
            request = request.filters(filter(tags::NAME, node));
        }
        let pages = request.into_paginator().page_size(1000).items().send();
        let reservations = pages.try_collect().await.map_err(failed("DescribeInstances"))?;
        let described = reservations
            .iter()
            .flat_map(|r| r.instances())
            .filter_map(Machine::read);
        let mut machines = self.inner.machines.merge(described.collect());
        machines.retain(|m| node.is_none_or(|node| m.node == node));
        Ok(machines)
    }

    async fn run(&self, want: &InstanceRequest, volume: &str) -> Result<Instance, ProviderError> {
        let type_ = want.instance_type.as_deref().unwrap_or_default();
        let error = match self.request(want, volume).await?.send().await {
            Ok(output) => {
                let started = output
                    .instances()
                    .first()
                    .and_then(|i| Machine::read(&complete(i, want)));
                let started = started.ok_or_else(|| refused("EC2 answered without a machine".to_owned()))?;
                self.inner.machines.note(started.clone());
                return Ok(started.instance(None));
            }
            Err(error) => error,
        };
        match code(&error) {
            Some(code) if capacity::is_short(code) => {
                self.inner.capacity.refused(type_, &want.zone);
                Err(ProviderError::NoCapacity {
                    instance_type: if type_.is_empty() { "machine" } else { type_ }.to_owned(),
                    zone: want.zone.clone(),
                    message: failed(RUN)(error).to_string(),
                })
            }
            Some("IdempotentParameterMismatch") => self.made_otherwise(want),
            _ => Err(failed(RUN)(error)),
        }
    }

    async fn request(&self, want: &InstanceRequest, volume: &str) -> Result<RunInstancesFluentBuilder, ProviderError> {
        let settings = &self.inner.settings;
        let [Some(template), Some(version)] = LAUNCH_TEMPLATE.map(|name| want.stack_outputs.get(name)) else {
            return Err(refused(format!(
                "the stack of node {}'s Tier has no launch template yet",
                want.node
            )));
        };
        let subnet = settings.subnets.get(&want.zone);
        let subnet = subnet.ok_or_else(|| refused(format!("the settings of AWS name no subnet in {}", want.zone)))?;
        let disks = self.list_disks().await?;
        let disk = disks.get(volume);
        let disk = disk.ok_or_else(|| refused(format!("the disk of volume {volume} does not exist")))?;
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(template)
            .version(version);
        let tags = |of: ResourceType| {
            let tag = |(key, value): (String, String)| Tag::builder().key(key).value(value).build();
            let token = (TOKEN.to_owned(), want.client_token.clone());
            let all = tags::prefixed(&want.tags).chain([token]).map(tag).collect();
            TagSpecification::builder()
                .resource_type(of)
                .set_tags(Some(all))
                .build()
        };
        let type_ = want.instance_type.as_deref();
        Ok(self
            .inner
            .ec2
            .run_instances()
            .launch_template(template.build())
            .set_instance_type(type_.map(InstanceType::from))
            .subnet_id(subnet)
            .min_count(1)
            .max_count(1)
            .client_token(attempt(&want.client_token, type_))
            .user_data(user_data::encoded(settings, want, &disk.id)?)
            .tag_specifications(tags(ResourceType::Instance))
            .tag_specifications(tags(ResourceType::Volume)))
    }

    /// EC2 has started a machine for this token, from other settings, and does not describe it. It will; and if it has not
    /// for a long time, the machine came to its end in between, and the epoch with it.
    fn made_otherwise(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        if !self.inner.machines.must_be_gone(&want.client_token) {
            let message = format!(
                "the machine of node {} was started already and is not described yet",
                want.node
            );
            return Err(refused(message));
        }
        let gone = Machine {
            id: format!("unknown-{}", want.client_token),
            node: want.node.clone(),
            zone: want.zone.clone(),
            token: want.client_token.clone(),
            epoch: want.epoch.0,
            state: InstanceState::Dead,
            started: Timestamp::now(),
            template: None,
        };
        self.inner.machines.note(gone.clone());
        Ok(gone.instance(None))
    }
}

fn refused(message: String) -> ProviderError {
    ProviderError::Call { call: RUN, message }
}

/// The machine in an answer, with the tags that it was asked for with, whether they are in the answer or not.
fn complete(instance: &aws_sdk_ec2::types::Instance, want: &InstanceRequest) -> aws_sdk_ec2::types::Instance {
    let token = (TOKEN.to_owned(), want.client_token.clone());
    let tags = tags::prefixed(&want.tags).chain([token]);
    let mut instance = instance.clone();
    instance.tags = Some(
        tags.map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect(),
    );
    instance
}

/// The client token of a start with a type: 64 hexadecimal digits, the most that EC2 takes.
fn attempt(token: &str, type_: Option<&str>) -> String {
    let mut hash = Sha256::new();
    for part in [token, type_.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[async_trait]
impl Instances for Aws {
    async fn ensure_instance(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        let Purpose::Write { volume } = &want.purpose else {
            return Err(refused(
                "read replicas are fleets on AWS, not single machines".to_owned(),
            ));
        };
        let machines = self.machines(Some(&want.node)).await?;
        let mut same: Vec<&Machine> = machines.iter().filter(|m| m.token == want.client_token).collect();
        same.sort_by_key(|m| !m.lives());
        match (same.first(), machines.iter().find(|m| m.lives())) {
            // Also when it is dead: there is one machine for each token.
            (Some(same), _) => Ok(same.instance(None)),
            (None, Some(other)) => {
                let message = format!("machine {} of node {} lives and has to stop first", other.id, want.node);
                Err(ProviderError::Occupied(message))
            }
            (None, None) => self.run(want, volume).await,
        }
    }

    async fn stop_instance(&self, node: &str, force: bool) -> Result<(), ProviderError> {
        let machines = self.machines(Some(node)).await?;
        let Some(Choice { to_stop, .. }) = choose(machines.clone()) else {
            return Ok(());
        };
        if to_stop.is_empty() {
            return Ok(());
        }
        // By force: without the shutdown of its operating system, and without what else may hold it up.
        let forced = force.then_some(true);
        let call = self.inner.ec2.terminate_instances();
        let call = call
            .set_instance_ids(Some(to_stop.clone()))
            .set_skip_os_shutdown(forced)
            .set_force(forced);
        call.send().await.map_err(failed("TerminateInstances"))?;
        // From the last time that it was asked, so that it is asked again only after it had its time.
        let since = Timestamp::now();
        for machine in machines.into_iter().filter(|m| to_stop.contains(&m.id)) {
            self.inner.machines.note(Machine {
                state: InstanceState::Stopping { since },
                ..machine
            });
        }
        Ok(())
    }

    async fn forget_instance(&self, node: &str) -> Result<(), ProviderError> {
        let machines = self.machines(Some(node)).await?;
        if let Some(machine) = machines.iter().find(|m| m.lives()) {
            return Err(ProviderError::Occupied(format!(
                "machine {} of node {node} lives",
                machine.id
            )));
        }
        // EC2 describes it for another hour; nobody needs to hear of it.
        machines.into_iter().for_each(|m| self.inner.machines.forget(m));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_client_token_of_its_own_and_always_the_same() {
        let (a, b) = (attempt("t1", Some("m7g.large")), attempt("t1", Some("m6g.large")));
        assert_eq!(a, attempt("t1", Some("m7g.large")));
        assert_eq!(a.len(), 64);
        assert!(a != b && a != attempt("t2", Some("m7g.large")) && a != attempt("t1", None));
    }
}
