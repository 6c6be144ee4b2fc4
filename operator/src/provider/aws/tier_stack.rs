//! The stack of a Tier: `cloudformation/tier.yaml`, filled in from the Tier and the settings.

use super::settings::AwsSettings;
use super::templates;
use crate::provider::stacks::StackRequest;
use graphplane_crds::Tier;
use graphplane_crds::tier::Architecture;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What the name of the stack of a Tier begins with.
const PREFIX: &str = "graphplane-tier-";

/// The stack of a Tier, for the cluster of that identity.
pub(super) fn request(tier: &Tier, settings: &AwsSettings, cluster_id: &str) -> StackRequest {
    let name = tier.name_any();
    let types = tier.spec.instance.types.first().map(String::as_str);
    let (image, type_) = defaults(tier.spec.instance.architecture);
    let sources = (!settings.source_arns.is_empty()).then(|| settings.source_arns.join(","));
    let port = settings.control_plane.port.to_string();
    let parameters: [(&str, Option<&str>); 14] = [
        ("ClusterId", Some(cluster_id)),
        ("Tier", Some(&name)),
        ("VpcId", Some(&settings.vpc_id)),
        ("ControlPlaneCidr", Some(&settings.control_plane.cidr)),
        ("ControlPlanePort", Some(&port)),
        ("ImageId", settings.image_parameter.as_deref().or(image)),
        ("InstanceType", types.or(type_)),
        ("AgentSha256", Some(&settings.agent_sha256)),
        ("ObjectBucket", Some(&settings.object_bucket)),
        ("ObjectPrefix", Some(&settings.object_prefix)),
        ("ArtifactBucket", Some(&settings.artifact_bucket)),
        ("KmsKeyArn", settings.kms_key_arn.as_deref()),
        ("SourceArns", sources.as_deref()),
        ("PermissionsBoundary", settings.permissions_boundary.as_deref()),
    ];
    let tags: [(&str, &str); 5] = [
        ("cluster", cluster_id),
        ("kind", "Tier"),
        ("name", &name),
        ("uid", tier.metadata.uid.as_deref().unwrap_or_default()),
        ("tier", &name),
    ];
    StackRequest {
        name: format!("{PREFIX}{name}"),
        template: templates::TIER,
        parameters: owned(parameters.into_iter().filter_map(|(key, value)| Some((key, value?)))),
        tags: owned(tags),
    }
}

/// Image and type of machines where nobody names one; none where the templates' own are right, which are Graviton.
pub(super) fn defaults(of: Architecture) -> (Option<&'static str>, Option<&'static str>) {
    match of {
        Architecture::Arm64 => (None, None),
        Architecture::Amd64 => (
            Some("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"),
            Some("m7i.large"),
        ),
    }
}

fn owned<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SETTINGS: &str = "
region: eu-central-1
vpcId: vpc-1
vpcCidr: 10.80.0.0/16
subnets: {eu-central-1a: subnet-a}
controlPlane: {cidr: 10.80.0.0/16, port: 8443}
agentSha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
artifactBucket: artifacts
objectBucket: objects
";

    const ARNS: &str = "
kmsKeyArn: arn:aws:kms:eu-central-1:123456789012:key/k
sourceArns: ['arn:aws:s3:::lake', 'arn:aws:s3:::lake/*']
permissionsBoundary: arn:aws:iam::123456789012:policy/p
";

    fn tier(instance: serde_json::Value) -> Tier {
        let spec = serde_json::json!({"memory": {"nodeMiB": 100, "perDatabaseMiB": 10}, "databasesPerNode": 2,
            "instance": instance});
        let mut tier = Tier::new("ladybug-standard", serde_json::from_value(spec).unwrap());
        tier.metadata.uid = Some("u1".into());
        tier
    }

    #[test]
    fn the_first_type_and_the_settings_fill_the_template() {
        let settings = AwsSettings::parse(SETTINGS).unwrap();
        let tier = tier(serde_json::json!({"types": ["r7g.large", "m7g.large"]}));
        let request = request(&tier, &settings, "c1");
        assert_eq!(request.name, "graphplane-tier-ladybug-standard");
        let expected = [
            ("AgentSha256", settings.agent_sha256.as_str()),
            ("ArtifactBucket", "artifacts"),
            ("ClusterId", "c1"),
            ("ControlPlaneCidr", "10.80.0.0/16"),
            ("ControlPlanePort", "8443"),
            ("InstanceType", "r7g.large"),
            ("ObjectBucket", "objects"),
            ("ObjectPrefix", ""),
            ("Tier", "ladybug-standard"),
            ("VpcId", "vpc-1"),
        ];
        assert_eq!(request.parameters, owned(expected));
        let tags = [
            ("cluster", "c1"),
            ("kind", "Tier"),
            ("name", "ladybug-standard"),
            ("tier", "ladybug-standard"),
            ("uid", "u1"),
        ];
        assert_eq!(request.tags, owned(tags));
    }

    #[test]
    fn what_is_set_is_handed_on_and_the_architecture_has_its_image() {
        let text = format!("{SETTINGS}{ARNS}objectPrefix: a/\n");
        let settings = AwsSettings::parse(&text).unwrap();
        let amd = request(&tier(serde_json::json!({"architecture": "amd64"})), &settings, "c1").parameters;
        assert!(amd["ImageId"].ends_with("x86_64") && amd["InstanceType"] == "m7i.large");
        assert_eq!(
            (amd["ObjectPrefix"].as_str(), amd["KmsKeyArn"].as_str()),
            ("a/", "arn:aws:kms:eu-central-1:123456789012:key/k")
        );
        assert_eq!(
            (amd["SourceArns"].as_str(), amd["PermissionsBoundary"].as_str()),
            (
                "arn:aws:s3:::lake,arn:aws:s3:::lake/*",
                "arn:aws:iam::123456789012:policy/p"
            )
        );
        let own = AwsSettings::parse(&format!("{SETTINGS}imageParameter: /images/ours\n")).unwrap();
        let named = request(&tier(serde_json::json!({"architecture": "amd64"})), &own, "c1").parameters;
        assert_eq!(named["ImageId"], "/images/ours");
    }

    #[test]
    fn every_parameter_is_one_of_the_template() {
        let settings = AwsSettings::parse(&format!("{SETTINGS}{ARNS}imageParameter: /i\n"));
        let request = request(
            &tier(serde_json::json!({"types": ["m7g.large"]})),
            &settings.unwrap(),
            "c1",
        );
        let known: Vec<&str> = templates::parameters(request.template).collect();
        for name in request.parameters.keys() {
            assert!(known.contains(&name.as_str()), "{name}");
        }
    }
}
