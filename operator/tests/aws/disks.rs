//! Disks and snapshots of the provider against an emulator.

use crate::moto;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, InstanceType};
use graphplane_core::orphans::{Kind, Thing};
use graphplane_crds::quantities::GiB;
use graphplane_operator::provider::aws::{Aws, AwsSettings};
use graphplane_operator::provider::snapshots::{SnapshotRequest, SnapshotState};
use graphplane_operator::provider::{Attachment, Performance, Provider, ProviderError, VolumeRequest, Volumes};
use graphplane_tests::Moto;
use std::collections::BTreeMap;

const CLUSTER: &str = "c1";

/// A provider and a client of an emulator.
struct World {
    aws: Aws,
    ec2: Client,
    server: Moto,
}

async fn world() -> World {
    let server = tokio::task::spawn_blocking(Moto::start).await.unwrap();
    let config = moto::config(&settings(server.url())).await;
    World {
        aws: Aws::with_config(settings(server.url()), CLUSTER.to_owned(), &config),
        ec2: Client::new(&config),
        server,
    }
}

impl World {
    /// Another operator.
    async fn other(&self, cluster: &str) -> Aws {
        let settings = settings(self.server.url());
        let config = moto::config(&settings).await;
        Aws::with_config(settings, cluster.to_owned(), &config)
    }
}

fn settings(url: &str) -> AwsSettings {
    let digest = "0".repeat(64);
    AwsSettings::parse(&format!(
        "
region: us-east-1
endpointUrl: {url}
vpcId: vpc-1
vpcCidr: 10.80.0.0/16
subnets: {{us-east-1a: subnet-a}}
controlPlane: {{cidr: 10.80.0.0/16}}
agentSha256: {digest}
artifactBucket: artifacts
objectBucket: objects
"
    ))
    .unwrap()
}

fn tags(name: &str) -> BTreeMap<String, String> {
    [
        ("cluster", CLUSTER),
        ("kind", "GraphVolume"),
        ("name", name),
        ("uid", "u1"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn want(name: &str, size: u32) -> VolumeRequest {
    VolumeRequest {
        name: name.to_owned(),
        zone: "us-east-1a".to_owned(),
        size_gib: GiB(size),
        performance: Performance::default(),
        snapshot: None,
        client_token: format!("token-{name}"),
        tags: tags(name),
    }
}

async fn machine(ec2: &Client) -> String {
    let images = ec2.describe_images().owners("amazon").send().await.unwrap();
    let image = images.images().first().unwrap().image_id().unwrap().to_owned();
    let run = ec2
        .run_instances()
        .image_id(image)
        .instance_type(InstanceType::M7gLarge);
    let made = run.min_count(1).max_count(1).send().await.unwrap();
    made.instances().first().unwrap().instance_id().unwrap().to_owned()
}

async fn count(ec2: &Client) -> usize {
    let ours = Filter::builder()
        .name("tag:graphplane.dev/cluster")
        .values(CLUSTER)
        .build();
    ec2.describe_volumes()
        .filters(ours)
        .send()
        .await
        .unwrap()
        .volumes()
        .len()
}

#[tokio::test]
async fn a_disk_that_is_made_twice_is_one() {
    let world = world().await;
    let first = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    let again = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    assert_eq!(first.id, again.id);
    // Another operator, which remembers nothing, finds it by its tags.
    let other = world.other(CLUSTER).await;
    assert_eq!(other.ensure_volume(&want("std-0", 50)).await.unwrap().id, first.id);
    assert_eq!(count(&world.ec2).await, 1);
    let listed = other.describe().await.unwrap().disks;
    let disk = &listed["std-0"];
    assert_eq!(
        (disk.size_gib, disk.performance),
        (Some(GiB(50)), Some(Performance::default()))
    );
    assert_eq!((&disk.attachment, &disk.databases), (&Attachment::Detached, &None));
    let volume = world.ec2.describe_volumes().volume_ids(&first.id).send().await.unwrap();
    let volume = volume.volumes().first().unwrap().clone();
    assert_eq!(volume.encrypted(), Some(true));
    let uid = volume.tags().iter().find(|t| t.key() == Some("graphplane.dev/uid"));
    assert_eq!(uid.and_then(|t| t.value()), Some("u1"));
    // Another cluster of the account has nothing to do with it.
    let stranger = world.other("c2").await;
    assert!(stranger.describe().await.unwrap().disks.is_empty());
}

#[tokio::test]
async fn a_disk_grows_and_never_shrinks() {
    let world = world().await;
    let id = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap().id;
    let mut larger = want("std-0", 80);
    larger.performance.iops = 4000;
    let grown = world.aws.ensure_volume(&larger).await.unwrap();
    assert_eq!((grown.id.as_str(), grown.size_gib), (id.as_str(), Some(GiB(80))));
    assert!(grown.modification.is_some(), "somebody has to count it");
    let same = world.aws.ensure_volume(&larger).await.unwrap();
    assert_eq!(
        (same.size_gib, same.modification),
        (Some(GiB(80)), None),
        "nothing was left to change"
    );
    let mut smaller = want("std-0", 60);
    smaller.performance = larger.performance;
    assert_eq!(world.aws.ensure_volume(&smaller).await.unwrap().size_gib, Some(GiB(80)));
}

#[tokio::test]
async fn a_disk_is_of_one_machine_and_is_not_destroyed_beneath_it() {
    let world = world().await;
    let (one, two) = (machine(&world.ec2).await, machine(&world.ec2).await);
    world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    for _ in 0..2 {
        world.aws.attach_volume("std-0", &one).await.unwrap();
    }
    let disk = world.aws.describe().await.unwrap().disks["std-0"].clone();
    assert_eq!(disk.attachment, Attachment::Attached(one.clone()));
    let second = world.aws.attach_volume("std-0", &two).await;
    assert!(matches!(second, Err(ProviderError::Occupied(_))), "{second:?}");
    let destroyed = world.aws.delete_volume("std-0").await;
    assert!(matches!(destroyed, Err(ProviderError::Occupied(_))), "{destroyed:?}");
    for _ in 0..2 {
        world.aws.detach_volume("std-0", &one, false).await.unwrap();
    }
    world.aws.attach_volume("std-0", &two).await.unwrap();
    // Somebody who takes the first machine for the newest one, and knows that it is dead.
    world.aws.detach_volume("std-0", &one, true).await.unwrap();
    let disk = world.aws.describe().await.unwrap().disks["std-0"].clone();
    assert_eq!(
        disk.attachment,
        Attachment::Attached(two.clone()),
        "from no other machine"
    );
    world.aws.detach_volume("std-0", &two, true).await.unwrap();
    for _ in 0..2 {
        world.aws.delete_volume("std-0").await.unwrap();
    }
    assert!(world.aws.describe().await.unwrap().disks.is_empty());
    assert_eq!(count(&world.ec2).await, 0);
}

#[tokio::test]
async fn a_snapshot_is_found_by_its_token_and_a_disk_is_made_from_it() {
    let world = world().await;
    let disk = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    let request = SnapshotRequest {
        volume: "std-0".to_owned(),
        disk: disk.id.clone(),
        token: "t1".to_owned(),
        tags: tags("std-0"),
    };
    let snapshots = world.aws.snapshots().unwrap();
    let made = snapshots.ensure_snapshot(&request).await.unwrap();
    let other = world.other(CLUSTER).await;
    assert_eq!(
        other.snapshots().unwrap().ensure_snapshot(&request).await.unwrap().id,
        made.id
    );
    let listed = other.describe().await.unwrap().snapshots;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].token.as_str(), &listed[0].disk, listed[0].state),
        ("t1", &disk.id, SnapshotState::Complete)
    );
    let restored = VolumeRequest {
        snapshot: Some(made.id.clone()),
        ..want("std-1", 60)
    };
    let restored = world.aws.ensure_volume(&restored).await.unwrap();
    let volume = world
        .ec2
        .describe_volumes()
        .volume_ids(&restored.id)
        .send()
        .await
        .unwrap();
    assert_eq!(volume.volumes().first().unwrap().snapshot_id(), Some(made.id.as_str()));
    for _ in 0..2 {
        snapshots.delete_snapshot(&made.id).await.unwrap();
    }
    assert!(world.aws.describe().await.unwrap().snapshots.is_empty());
}

#[tokio::test]
async fn a_disk_that_is_kept_is_nobodys_and_stays() {
    let world = world().await;
    let disk = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    let inventory = world.aws.inventory().unwrap();
    inventory.keep_disk(&disk.id).await.unwrap();
    assert!(world.aws.describe().await.unwrap().disks.is_empty());
    let next = world
        .aws
        .ensure_volume(&VolumeRequest {
            client_token: "next".into(),
            ..want("std-0", 50)
        })
        .await
        .unwrap();
    assert_ne!(next.id, disk.id, "a new volume of that name begins with an empty disk");
    let things = inventory.things().await.unwrap();
    let kept = things.iter().find(|t| t.id == disk.id).unwrap();
    assert!(kept.tags.contains_key("retained") && kept.kind == Kind::Volume && !kept.busy);
}

#[tokio::test]
async fn what_nobody_owns_is_listed_and_removed() {
    let world = world().await;
    let disk = world.aws.ensure_volume(&want("std-0", 50)).await.unwrap();
    let inventory = world.aws.inventory().unwrap();
    let find = |things: Vec<Thing>| things.into_iter().find(|t| t.id == disk.id);
    let thing = find(inventory.things().await.unwrap()).unwrap();
    assert_eq!(thing.tags.get("name").map(String::as_str), Some("std-0"));
    for _ in 0..2 {
        inventory.remove(&thing).await.unwrap();
    }
    assert_eq!(find(inventory.things().await.unwrap()), None);
    assert_eq!(count(&world.ec2).await, 0);
}
