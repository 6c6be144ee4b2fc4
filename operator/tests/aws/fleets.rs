//! Read fleets of the provider against an emulator.

use crate::moto::{Account, ZONE};
use aws_sdk_autoscaling::types::{LaunchTemplate, LaunchTemplateSpecification, MixedInstancesPolicy, Tag as GroupTag};
use aws_sdk_ec2::types::{InstanceType, RequestLaunchTemplateData};
use graphplane_core::fleet_plan::Resize;
use graphplane_operator::provider::Provider;
use graphplane_operator::provider::fleets::{FleetSize, MemberState};

/// A group of the account, as the stack of a Replica makes one.
async fn group(account: &Account, name: &str, replica: &str) {
    let images = account.ec2.describe_images().owners("amazon").send().await.unwrap();
    let image = images.images()[0].image_id().unwrap();
    let machine = RequestLaunchTemplateData::builder()
        .image_id(image)
        .instance_type(InstanceType::M7gLarge)
        .build();
    let template = account
        .ec2
        .create_launch_template()
        .launch_template_name(name)
        .launch_template_data(machine)
        .send()
        .await
        .unwrap();
    let id = template
        .launch_template()
        .unwrap()
        .launch_template_id()
        .unwrap()
        .to_owned();
    let used = LaunchTemplateSpecification::builder()
        .launch_template_id(id)
        .version("1")
        .build();
    let used = LaunchTemplate::builder().launch_template_specification(used).build();
    let tag = |key: &str, value: &str| {
        GroupTag::builder()
            .resource_id(name)
            .resource_type("auto-scaling-group")
            .key(format!("graphplane.dev/{key}"))
            .value(value)
            .propagate_at_launch(true)
            .build()
    };
    aws_sdk_autoscaling::Client::new(&account.config)
        .create_auto_scaling_group()
        .auto_scaling_group_name(name)
        .mixed_instances_policy(MixedInstancesPolicy::builder().launch_template(used).build())
        .min_size(1)
        .max_size(5)
        .desired_capacity(2)
        .vpc_zone_identifier(&account.settings.subnets[ZONE])
        .tags(tag("cluster", &account.cluster))
        .tags(tag("kind", "Replica"))
        .tags(tag("name", replica))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_group_is_listed_with_its_machines_and_resized() {
    let account = Account::open("fleets-resized").await;
    group(&account, "fleets-resized-g", "default.readers").await;
    let provider = account.provider();
    let listed = provider.describe().await.unwrap().fleets;
    assert_eq!(listed.len(), 1);
    let fleet = &listed["fleets-resized-g"];
    assert_eq!(
        fleet.size,
        FleetSize {
            min: 1,
            max: 5,
            desired: 2
        }
    );
    assert_eq!(
        (fleet.tags["name"].as_str(), fleet.tags["kind"].as_str()),
        ("default.readers", "Replica")
    );
    assert_eq!((fleet.members.len(), &fleet.refresh), (2, &None));
    for member in &fleet.members {
        assert!(
            member.id.starts_with("i-") && member.healthy && member.state == MemberState::InService,
            "{member:?}"
        );
        let address = member.address.as_deref().unwrap();
        assert!(
            address.starts_with("http://10.") || address.starts_with("http://172."),
            "{address}"
        );
        assert!(address.ends_with(":8001"), "{address}");
        assert_eq!(member.zone, ZONE);
    }
    let fleets = provider.fleets().unwrap();
    let resize = async |min, max, desired| {
        let to = Resize { min, max, desired };
        // Twice, as after a crash.
        fleets.resize("fleets-resized-g", to).await.unwrap();
        fleets.resize("fleets-resized-g", to).await.unwrap();
        let fleet = provider
            .describe()
            .await
            .unwrap()
            .fleets
            .remove("fleets-resized-g")
            .unwrap();
        let serving = fleet.members.iter().filter(|m| m.state == MemberState::InService);
        (fleet.size.desired, serving.count())
    };
    assert_eq!(resize(0, 5, Some(4)).await, (4, 4));
    // Bounds alone leave the number of machines alone, unless it is out of them.
    assert_eq!(resize(0, 10, None).await, (4, 4));
    assert_eq!(resize(0, 3, None).await, (3, 3));
    assert!(
        fleets
            .resize(
                "fleets-none",
                Resize {
                    min: 0,
                    max: 1,
                    desired: None
                }
            )
            .await
            .is_err()
    );
}

#[tokio::test]
async fn groups_of_another_cluster_are_not_listed() {
    let (mine, other) = (Account::open("fleets-mine").await, Account::open("fleets-other").await);
    group(&other, "fleets-other-g", "default.readers").await;
    assert!(mine.provider().describe().await.unwrap().fleets.is_empty());
    assert_eq!(other.provider().describe().await.unwrap().fleets.len(), 1);
}

#[tokio::test]
async fn the_key_of_a_fleet_is_a_secret_parameter_that_may_be_put_again_and_goes() {
    let account = Account::open("fleets-keys").await;
    let ssm = aws_sdk_ssm::Client::new(&account.config);
    let provider = account.provider();
    let fleets = provider.fleets().unwrap();
    let name = "/graphplane/replicas/fleets-keys/default/readers";
    // A Replica of another cluster that is called like it.
    let other = Account::open("fleets-other-keys").await.provider();
    for key in ["first", "first", "second"] {
        fleets.put_key("default", "readers", key).await.unwrap();
        let of_other = other.fleets().unwrap();
        of_other.put_key("default", "readers", "of-the-other").await.unwrap();
        of_other.delete_key("default", "readers").await.unwrap();
        let found = ssm
            .get_parameter()
            .name(name)
            .with_decryption(true)
            .send()
            .await
            .unwrap();
        let found = found.parameter().unwrap();
        assert_eq!(
            (found.value(), found.r#type().unwrap().as_str()),
            (Some(key), "SecureString")
        );
    }
    let tags = ssm
        .list_tags_for_resource()
        .resource_type(aws_sdk_ssm::types::ResourceTypeForTagging::Parameter)
        .resource_id(name)
        .send()
        .await
        .unwrap();
    let whose = |tag: &&aws_sdk_ssm::types::Tag| tag.key() == "graphplane.dev/name";
    assert_eq!(
        tags.tag_list().iter().find(whose).map(|tag| tag.value()),
        Some("default.readers")
    );
    for _ in 0..2 {
        fleets.delete_key("default", "readers").await.unwrap();
    }
    assert!(ssm.get_parameter().name(name).send().await.is_err());
}
