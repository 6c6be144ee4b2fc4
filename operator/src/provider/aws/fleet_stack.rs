//! The stack of a read fleet: what goes into the parameters of `replica-fleet.yaml`.

use super::settings::AwsSettings;
use super::{templates, tier_stack};
use crate::provider::fleets::FleetRequest;
use crate::provider::stacks::StackRequest;
use std::collections::BTreeMap;

/// Seconds between two looks of a machine for newer seeds, as many as it takes: the operator says when it should look, so
/// that a fleet does not take up a seed all at once.
const SEED_POLL: &str = "86400";
/// Types that the template takes, by the names of its parameters.
const TYPES: [&str; 4] = ["InstanceType", "InstanceType2", "InstanceType3", "InstanceType4"];
/// Room on a machine's disk beside the two seeds, in GiB: the system, the agent, and what engines spill.
const SYSTEM_GIB: u32 = 20;
/// The largest disk that a machine may have, in GiB.
const LARGEST_GIB: u32 = 16_384;

/// The stack that a fleet should have.
pub(super) fn request(settings: &AwsSettings, cluster: &str, want: &FleetRequest) -> StackRequest {
    let mut parameters = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(parameters.insert(name.to_owned(), value));
    set("ClusterId", cluster.to_owned());
    set("Replica", full_name(&want.namespace, &want.name));
    set("SeedKey", want.seeds.clone());
    set("SeedPollSeconds", SEED_POLL.to_owned());
    set("VpcId", settings.vpc_id.clone());
    set("VpcCidr", settings.vpc_cidr.clone());
    let subnets: Vec<&str> = settings.subnets.values().map(String::as_str).collect();
    set("SubnetIds", subnets.join(","));
    set("ControlPlaneCidr", settings.control_plane.cidr.clone());
    let (image, type_) = tier_stack::defaults(want.architecture);
    if let Some(type_) = type_.filter(|_| want.instance_types.is_empty()) {
        set(TYPES[0], type_.to_owned());
    }
    for (name, type_) in TYPES.into_iter().zip(&want.instance_types) {
        set(name, type_.clone());
    }
    set("MinSize", want.min.to_string());
    set("MaxSize", want.max.to_string());
    set(
        "TargetCpuPercent",
        want.target_cpu_percent.unwrap_or_default().to_string(),
    );
    let disk = want.graph_gib.saturating_mul(2).saturating_add(SYSTEM_GIB);
    set("RootVolumeGiB", disk.min(LARGEST_GIB).to_string());
    set("MemoryMiB", want.memory_mib.to_string());
    set("MemoryPerDatabaseMiB", want.memory_per_database_mib.to_string());
    set("AgentSha256", settings.agent_sha256.clone());
    set(
        "KeyParameter",
        key_parameter(settings, cluster, &want.namespace, &want.name),
    );
    set("ObjectBucket", settings.object_bucket.clone());
    set("ObjectPrefix", settings.object_prefix.clone());
    set("ArtifactBucket", settings.artifact_bucket.clone());
    for (name, value) in [
        ("ImageId", settings.image_parameter.as_deref().or(image)),
        ("KmsKeyArn", settings.kms_key_arn.as_deref()),
        ("AlarmTopicArn", settings.alarm_topic_arn.as_deref()),
        ("PermissionsBoundary", settings.permissions_boundary.as_deref()),
    ] {
        if let Some(value) = value {
            set(name, value.to_owned());
        }
    }
    let mut tags = owner(cluster, &want.namespace, &want.name);
    tags.insert("uid".to_owned(), want.uid.clone());
    StackRequest {
        name: want.stack.clone(),
        template: templates::REPLICA_FLEET,
        parameters,
        tags,
    }
}

/// Whose a thing is.
pub(super) fn owner(cluster: &str, namespace: &str, name: &str) -> BTreeMap<String, String> {
    [
        ("cluster", cluster.to_owned()),
        ("kind", "Replica".to_owned()),
        ("name", full_name(namespace, name)),
    ]
    .map(|(tag, value)| (tag.to_owned(), value))
    .into()
}

/// Name of the SSM parameter with the key of a fleet's machines. A Replica of another cluster of the account may have the
/// same name, and its machines another key.
pub(super) fn key_parameter(settings: &AwsSettings, cluster: &str, namespace: &str, name: &str) -> String {
    format!("{}/{cluster}/{namespace}/{name}", settings.key_parameter_prefix)
}

fn full_name(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use graphplane_crds::tier::Architecture;

    fn settings() -> AwsSettings {
        let text = format!(
            "{{region: eu-central-1, vpcId: vpc-1, vpcCidr: 10.80.0.0/16, agentSha256: {}, artifactBucket: artifacts, \
             objectBucket: objects, objectPrefix: prod/, controlPlane: {{cidr: 10.81.0.0/16}}, \
             subnets: {{eu-central-1a: subnet-a, eu-central-1b: subnet-b}}}}",
            "a".repeat(64)
        );
        AwsSettings::parse(&text).unwrap()
    }

    fn want() -> FleetRequest {
        FleetRequest {
            namespace: "default".into(),
            name: "readers".into(),
            uid: "u-1".into(),
            stack: "graphplane-replica-0".into(),
            seeds: "seeds/sec/readers".into(),
            architecture: Architecture::Arm64,
            instance_types: ["m7g.large", "r7g.large"].map(str::to_owned).into(),
            memory_mib: 7168,
            memory_per_database_mib: 716,
            graph_gib: 50,
            min: 2,
            max: 10,
            target_cpu_percent: None,
        }
    }

    /// The template's parameters, and whether they have a default.
    fn declared() -> BTreeMap<&'static str, bool> {
        let section = templates::REPLICA_FLEET.split("\nParameters:\n").nth(1).unwrap();
        let section = section.split("\nConditions:\n").next().unwrap();
        let (mut found, mut last) = (BTreeMap::new(), "");
        for line in section.lines() {
            let own = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '));
            if let Some((name, _)) = own.and_then(|rest| rest.split_once(':')) {
                last = name;
                found.insert(name, false);
            }
            if line.contains("Default: ") {
                found.insert(last, true);
            }
        }
        found
    }

    #[test]
    fn every_parameter_is_one_of_the_template_and_all_without_default_are_given() {
        let mut all = settings();
        all.image_parameter = Some("/image".into());
        all.kms_key_arn = Some("arn:key".into());
        all.alarm_topic_arn = Some("arn:topic".into());
        all.permissions_boundary = Some("arn:boundary".into());
        let declared = declared();
        assert!(
            declared.len() > 20 && declared["MinSize"] && !declared["Replica"],
            "{declared:?}"
        );
        let stack = request(&all, "c1", &want());
        for name in stack.parameters.keys() {
            assert!(declared.contains_key(name.as_str()), "{name} is not in {declared:?}");
        }
        let given = request(&settings(), "c1", &want()).parameters;
        for (name, has_default) in declared {
            assert!(has_default || given.contains_key(name), "{name} is missing");
        }
    }

    #[test]
    fn the_figures_of_a_fleet_reach_its_stack() {
        let stack = request(&settings(), "c1", &want());
        let given = |name: &str| stack.parameters.get(name).map(String::as_str);
        assert_eq!(given("KeyParameter"), Some("/graphplane/replicas/c1/default/readers"));
        assert_eq!(
            (given("SubnetIds"), given("RootVolumeGiB")),
            (Some("subnet-a,subnet-b"), Some("120"))
        );
        assert_eq!(
            (given("InstanceType2"), given("InstanceType3")),
            (Some("r7g.large"), None)
        );
        assert_eq!(
            (given("TargetCpuPercent"), given("SeedPollSeconds")),
            (Some("0"), Some("86400"))
        );
        assert_eq!((given("MinSize"), given("MaxSize")), (Some("2"), Some("10")));
        assert_eq!(stack.tags["name"], "default.readers");
        let target = request(
            &settings(),
            "c1",
            &FleetRequest {
                target_cpu_percent: Some(60),
                ..want()
            },
        );
        assert_eq!(target.parameters["TargetCpuPercent"], "60");
        let amd = FleetRequest {
            architecture: Architecture::Amd64,
            instance_types: vec![],
            ..want()
        };
        let amd = request(&settings(), "c1", &amd).parameters;
        assert!(amd["ImageId"].ends_with("x86_64") && amd["InstanceType"] == "m7i.large");
        let large = FleetRequest {
            graph_gib: 60_000,
            ..want()
        };
        assert_eq!(request(&settings(), "c1", &large).parameters["RootVolumeGiB"], "16384");
    }
}
