//! Writers' machines.

use crate::moto::{Account, ZONE};
use aws_sdk_ec2::types::{
    Filter, InstanceStateName, InstanceType, RequestLaunchTemplateData, ResourceType, Tag, TagSpecification,
};
use graphplane_core::node_plan::{Instance, InstanceState};
use graphplane_crds::quantities::{Epoch, GiB};
use graphplane_operator::provider::aws::Aws;
use graphplane_operator::provider::{
    InstanceRequest, Instances, Performance, Provider, ProviderError, Purpose, VolumeRequest, Volumes,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

const NODE: &str = "std-0";

/// An account with the launch template of a tier, and the disk of a node.
struct World {
    account: Account,
    outputs: BTreeMap<String, String>,
}

impl World {
    async fn open(cluster: &str) -> (Self, Aws) {
        let account = Account::open(cluster).await;
        let images = account.ec2.describe_images().send().await.unwrap();
        let image = images.images()[0].image_id().unwrap();
        let data = RequestLaunchTemplateData::builder()
            .image_id(image)
            .instance_type(InstanceType::from("m7g.large"))
            .build();
        let made = account.ec2.create_launch_template().launch_template_name(cluster);
        let made = made.launch_template_data(data).send().await.unwrap();
        let id = made.launch_template().unwrap().launch_template_id().unwrap();
        let outputs = [("LaunchTemplateId", id), ("LaunchTemplateVersion", "1")];
        let aws = account.provider();
        let volume = VolumeRequest {
            name: NODE.into(),
            zone: ZONE.into(),
            size_gib: GiB(10),
            performance: Performance::default(),
            snapshot: None,
            client_token: format!("{cluster}-volume"),
            tags: account.tags("GraphVolume", NODE),
        };
        aws.ensure_volume(&volume).await.unwrap();
        let outputs = outputs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        (Self { account, outputs }, aws)
    }

    fn want(&self, token: &str, epoch: u64) -> InstanceRequest {
        let mut tags = self.account.tags("GraphNode", NODE);
        tags.insert("epoch".into(), epoch.to_string());
        tags.insert("template".into(), "1:lt-1:1".into());
        InstanceRequest {
            node: NODE.into(),
            purpose: Purpose::Write { volume: NODE.into() },
            client_token: format!("{}-{token}", self.account.cluster),
            bootstrap_token: "once".into(),
            cluster_id: self.account.cluster.clone(),
            zone: ZONE.into(),
            instance_type: Some("m6g.large".into()),
            stack_outputs: self.outputs.clone(),
            epoch: Epoch(epoch),
            tags,
        }
    }

    /// Instances of this cluster as EC2 tells of them, with their state.
    async fn described(&self) -> Vec<(aws_sdk_ec2::types::Instance, InstanceStateName)> {
        let ours = Filter::builder()
            .name("tag:graphplane.dev/cluster")
            .values(&self.account.cluster);
        let answer = self
            .account
            .ec2
            .describe_instances()
            .filters(ours.build())
            .send()
            .await
            .unwrap();
        let instances = answer.reservations().iter().flat_map(|r| r.instances().to_vec());
        let with_state = |i: aws_sdk_ec2::types::Instance| {
            let state = i.state().unwrap().name().unwrap().clone();
            (i, state)
        };
        instances.map(with_state).collect()
    }

    async fn running(&self) -> usize {
        let all = self.described().await;
        all.iter()
            .filter(|(_, state)| *state == InstanceStateName::Running)
            .count()
    }
}

async fn listed(aws: &Aws) -> Option<Instance> {
    aws.describe().await.unwrap().instances.get(NODE).cloned()
}

#[tokio::test]
async fn a_machine_is_started_once_whoever_asks_and_how_often() {
    let (world, aws) = World::open("instances-once").await;
    assert_eq!(listed(&aws).await, None);
    let want = world.want("t1", 1);
    let started = aws.ensure_instance(&want).await.unwrap();
    assert!(started.id.starts_with(&format!("aws:///{ZONE}/i-")), "{}", started.id);
    assert_eq!(aws.ensure_instance(&want).await.unwrap().id, started.id);
    let other = world.account.provider();
    assert_eq!(
        other.ensure_instance(&want).await.unwrap().id,
        started.id,
        "found by its tag"
    );
    assert_eq!(world.running().await, 1);
    let shown = listed(&other).await.unwrap();
    assert_eq!(
        (&shown.id, &shown.token, shown.state),
        (&started.id, &want.client_token, InstanceState::Running)
    );
    assert_eq!(
        shown.template.as_deref(),
        Some("1:lt-1:1"),
        "it says what it was started from"
    );
    let [id, version] = ["LaunchTemplateId", "LaunchTemplateVersion"].map(|name| &world.outputs[name]);
    assert_eq!(aws.template(&world.outputs), Some(format!("1:{id}:{version}")));
    assert_eq!(aws.template(&Default::default()), None);
    let (instance, _) = world.described().await.remove(0);
    assert_eq!(instance.instance_type().map(|t| t.as_str()), Some("m6g.large"));
    assert_eq!(
        instance.subnet_id(),
        world.account.settings.subnets.get(ZONE).map(String::as_str)
    );
    let lifecycle = instance.instance_lifecycle().map(|l| l.as_str());
    assert_ne!(lifecycle, Some("spot"), "a writer is never a spot machine");
    let occupied = aws.ensure_instance(&world.want("t2", 2)).await.unwrap_err();
    assert!(matches!(occupied, ProviderError::Occupied(_)), "{occupied}");
}

#[tokio::test]
async fn a_machine_that_is_stopped_is_dead_and_its_token_is_used() {
    let (world, aws) = World::open("instances-stop").await;
    let want = world.want("t1", 1);
    let first = aws.ensure_instance(&want).await.unwrap();
    let refused = aws.forget_instance(NODE).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Occupied(_)), "{refused}");
    aws.stop_instance(NODE, false).await.unwrap();
    assert_eq!(listed(&aws).await.map(|i| i.state), Some(InstanceState::Dead));
    aws.stop_instance(NODE, true).await.unwrap();
    let again = aws.ensure_instance(&want).await.unwrap();
    assert_eq!((again.id, again.state), (first.id.clone(), InstanceState::Dead));
    let next = aws.ensure_instance(&world.want("t2", 2)).await.unwrap();
    assert_ne!(next.id, first.id);
    assert_eq!(
        listed(&aws).await.map(|i| i.id),
        Some(next.id),
        "the one that lives counts"
    );
    aws.stop_instance(NODE, true).await.unwrap();
    aws.forget_instance(NODE).await.unwrap();
    assert_eq!(listed(&aws).await, None);
    assert_eq!(world.running().await, 0);
}

#[tokio::test]
async fn a_machine_that_somebody_stopped_is_not_dead_until_it_is_terminated() {
    let (world, aws) = World::open("instances-stopped").await;
    aws.ensure_instance(&world.want("t1", 1)).await.unwrap();
    let (instance, _) = world.described().await.remove(0);
    let stop = world
        .account
        .ec2
        .stop_instances()
        .instance_ids(instance.instance_id().unwrap());
    stop.send().await.unwrap();
    let stopping = InstanceState::Stopping {
        since: Timestamp::UNIX_EPOCH,
    };
    assert_eq!(listed(&aws).await.map(|i| i.state), Some(stopping));
    aws.stop_instance(NODE, true).await.unwrap();
    assert_eq!(listed(&aws).await.map(|i| i.state), Some(InstanceState::Dead));
}

#[tokio::test]
async fn of_two_machines_of_a_node_the_newer_one_stays() {
    let (world, aws) = World::open("instances-twins").await;
    let started = aws.ensure_instance(&world.want("t2", 2)).await.unwrap();
    let mut tags = world.account.tags("GraphNode", NODE);
    tags.insert("epoch".into(), "1".into());
    tags.insert("token".into(), "t1".into());
    let tags = tags
        .into_iter()
        .map(|(key, value)| Tag::builder().key(format!("graphplane.dev/{key}")).value(value).build());
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .set_tags(Some(tags.collect()));
    let (described, _) = world.described().await.remove(0);
    let twin = world
        .account
        .ec2
        .run_instances()
        .image_id(described.image_id().unwrap());
    let twin = twin.min_count(1).max_count(1).tag_specifications(tags.build());
    twin.subnet_id(&world.account.settings.subnets[ZONE])
        .send()
        .await
        .unwrap();
    let shown = listed(&aws).await.unwrap();
    assert!(shown.id != started.id && shown.token.is_empty(), "{shown:?}");
    aws.stop_instance(NODE, true).await.unwrap();
    assert_eq!(listed(&aws).await.map(|i| i.id), Some(started.id));
    assert_eq!(world.running().await, 1);
}

#[tokio::test]
async fn what_a_start_needs_is_named_when_it_is_not_there() {
    let (world, aws) = World::open("instances-needs").await;
    let without_stack = InstanceRequest {
        stack_outputs: BTreeMap::new(),
        ..world.want("t1", 1)
    };
    let elsewhere = InstanceRequest {
        zone: "eu-central-1z".into(),
        ..world.want("t1", 1)
    };
    let without_disk = InstanceRequest {
        purpose: Purpose::Write { volume: "std-9".into() },
        ..world.want("t1", 1)
    };
    for (want, named) in [
        (without_stack, "launch template"),
        (elsewhere, "eu-central-1z"),
        (without_disk, "std-9"),
    ] {
        let error = aws.ensure_instance(&want).await.unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(world.running().await, 0);
}
