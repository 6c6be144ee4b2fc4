//! Settings of the provider for AWS.

use super::checks;
use crate::error::Error;
use graphplane_core::sources::SourceRules;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of the provider for AWS: where machines are, and what they are started with. Credentials come from the usual
/// chain of AWS: environment, profile, web identity, metadata service.
///
/// ```yaml
/// region: eu-central-1
/// vpcId: vpc-0123456789abcdef0
/// vpcCidr: 10.80.0.0/16
/// subnets: {eu-central-1a: subnet-0a, eu-central-1b: subnet-0b}
/// controlPlane: {url: https://graphplane.internal, cidr: 10.80.0.0/16}
/// agentSha256: 4b0f…
/// artifactBucket: graphplane-artifacts-123456789012-eu-central-1
/// objectBucket: graphplane-objects-123456789012-eu-central-1
/// identityCertificates: /etc/graphplane/aws-eu-central-1.pem
/// accountId: "123456789012"
/// ```
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSettings {
    /// Region of everything.
    pub region: String,
    /// Where all services answer instead of AWS: an emulator.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// The VPC of the machines.
    pub vpc_id: String,
    /// Its addresses.
    pub vpc_cidr: String,
    /// Subnet of each zone that may be used.
    pub subnets: BTreeMap<String, String>,
    /// Where agents find the control plane, and it them.
    pub control_plane: ControlPlane,
    /// Digest of the agent's archive, `agents/<digest>.tar.gz` in the artifact bucket.
    pub agent_sha256: String,
    /// Bucket with archives of the agent.
    pub artifact_bucket: String,
    /// Bucket of backups and seeds.
    pub object_bucket: String,
    /// What their keys begin with: empty, or segments that each end with `/`.
    #[serde(default)]
    pub object_prefix: String,
    /// Key of the object bucket; absent: keys of S3.
    #[serde(default)]
    pub kms_key_arn: Option<String>,
    /// Buckets and objects that staging tables are read from.
    #[serde(default)]
    pub source_arns: Vec<String>,
    /// Boundary of the roles of machines.
    #[serde(default)]
    pub permissions_boundary: Option<String>,
    /// SNS topic of alarms.
    #[serde(default)]
    pub alarm_topic_arn: Option<String>,
    /// SSM parameter that names the image of machines; absent: that of the templates.
    #[serde(default)]
    pub image_parameter: Option<String>,
    /// Prefix of the registries' tables; absent: there are none.
    #[serde(default)]
    pub registry_prefix: Option<String>,
    /// What names of SSM parameters with keys of replica fleets begin with.
    #[serde(default = "key_parameter_prefix")]
    pub key_parameter_prefix: String,
    /// File with the certificates of the keys that AWS signs instance identity documents with, in PEM. Without it no machine
    /// can register; the REST API reads it.
    #[serde(default)]
    pub identity_certificates: Option<PathBuf>,
    /// Account of all machines; absent: any.
    #[serde(default)]
    pub account_id: Option<String>,
    /// From where tenants may load with the machines' own role, and which endpoints they may name.
    #[serde(skip)]
    pub sources: SourceRules,
    /// For how long a listing serves when nothing is known to have changed.
    #[serde(skip, default = "listing_lasts")]
    pub listing_lasts: Duration,
}

/// Where agents find the control plane, and it them.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// URL of the REST API as machines reach it; absent: that of this process.
    #[serde(default)]
    pub url: Option<String>,
    /// From where operator, API and gateway call agents.
    pub cidr: String,
    /// Port of the REST API.
    #[serde(default = "https")]
    pub port: u16,
}

// Six listings an hour of some seven calls each: with 1,000 graphs 0.04 calls per graph and hour, where at most 0.05 are the
// goal. What the operator itself changes ends a listing at once.
fn listing_lasts() -> Duration {
    Duration::from_secs(600)
}

fn key_parameter_prefix() -> String {
    "/graphplane/replicas".to_owned()
}

fn https() -> u16 {
    443
}

impl AwsSettings {
    /// Reads settings from text in YAML.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let settings: Self =
            serde_saphyr::from_str(text).map_err(|error| Error::Settings(format!("settings of AWS: {error}")))?;
        checks::check(&settings).map_err(|why| Error::Settings(format!("settings of AWS: {why}")))?;
        Ok(settings)
    }

    /// Reads settings from a file in YAML.
    ///
    /// # Errors
    /// When it cannot be read, or as [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Settings(format!("settings of AWS in {}: {error}", path.display())))?;
        Self::parse(&text)
    }

    /// URL of the object store, as agents and the operator take it.
    pub fn object_store_url(&self) -> String {
        format!(
            "s3://{}/{}",
            self.object_bucket,
            self.object_prefix.trim_end_matches('/')
        )
        .trim_end_matches('/')
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "
region: eu-central-1
vpcId: vpc-1
vpcCidr: 10.80.0.0/16
subnets: {eu-central-1a: subnet-a}
controlPlane: {cidr: 10.80.0.0/16}
agentSha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
artifactBucket: artifacts
objectBucket: objects
";

    #[test]
    fn a_file_is_read_and_what_is_left_out_has_its_default() {
        let settings = AwsSettings::parse(GOOD).unwrap();
        assert_eq!(
            (settings.control_plane.port, settings.registry_prefix.as_deref()),
            (443, None)
        );
        assert_eq!(settings.object_store_url(), "s3://objects");
        let below = AwsSettings::parse(&format!("{GOOD}objectPrefix: a/b/\n")).unwrap();
        assert_eq!(below.object_store_url(), "s3://objects/a/b");
    }

    #[test]
    fn what_is_unknown_or_missing_is_named() {
        let wrong = [
            (format!("{GOOD}vpc: x\n"), "vpc"),
            (GOOD.replace("region: eu-central-1\n", ""), "region"),
        ];
        for (text, named) in wrong {
            let error = AwsSettings::parse(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
