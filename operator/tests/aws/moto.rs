//! AWS as moto plays it: one server for all tests of this process. Tests keep apart by the cluster's identity.

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::types::Filter;
use graphplane_operator::provider::aws::{Aws, AwsSettings, sdk_config};
use graphplane_tests::Moto;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Zone of what tests make.
pub(crate) const ZONE: &str = "eu-central-1a";

/// URL of the emulator, which is started where it does not run yet.
pub(crate) fn url() -> &'static str {
    // Values of statics are not dropped: the emulator ends with the process that it is a child of.
    static SERVER: OnceLock<Moto> = OnceLock::new();
    SERVER.get_or_init(Moto::start).url()
}

/// The configuration of the SDK, with credentials that the emulator takes.
pub(crate) async fn config(settings: &AwsSettings) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = sdk_config(settings).await.into_builder();
    config
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// An account of the emulator, as one test sees it.
pub(crate) struct Account {
    pub(crate) cluster: String,
    pub(crate) settings: AwsSettings,
    pub(crate) config: SdkConfig,
    pub(crate) ec2: aws_sdk_ec2::Client,
}

impl Account {
    /// The account, with the subnets of its default VPC.
    pub(crate) async fn open(cluster: &str) -> Self {
        let url = tokio::task::spawn_blocking(url).await.unwrap();
        let text = format!(
            "{{region: eu-central-1, endpointUrl: '{url}', vpcId: vpc-1, vpcCidr: 10.0.0.0/16, \
             subnets: {{{ZONE}: none}}, controlPlane: {{url: 'https://graphplane.example', cidr: 10.0.0.0/16}}, \
             agentSha256: '{}', artifactBucket: artifacts, objectBucket: objects}}",
            "0123456789abcdef".repeat(4)
        );
        let mut settings = AwsSettings::parse(&text).unwrap();
        let config = config(&settings).await;
        let ec2 = aws_sdk_ec2::Client::new(&config);
        let defaults = Filter::builder().name("default-for-az").values("true").build();
        let subnets = ec2.describe_subnets().filters(defaults).send().await.unwrap();
        let of_zone =
            |s: &aws_sdk_ec2::types::Subnet| Some((s.availability_zone()?.to_owned(), s.subnet_id()?.to_owned()));
        settings.subnets = subnets.subnets().iter().filter_map(of_zone).collect();
        assert!(settings.subnets.contains_key(ZONE), "{:?}", settings.subnets);
        Self {
            cluster: cluster.to_owned(),
            settings,
            config,
            ec2,
        }
    }

    /// A provider that knows nothing of what others did.
    pub(crate) fn provider(&self) -> Aws {
        Aws::with_config(self.settings.clone(), self.cluster.clone(), &self.config)
    }

    /// Tags of what belongs to an object.
    pub(crate) fn tags(&self, kind: &str, name: &str) -> BTreeMap<String, String> {
        let tags = [
            ("cluster", self.cluster.as_str()),
            ("kind", kind),
            ("name", name),
            ("uid", "u"),
        ];
        tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}
