//! An account of AWS, played by moto behind the proxy that writes down every call.

use crate::Result;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use graphplane_operator::{
    AwsSettings, Registries,
    provider::aws::{Aws, sdk_config, templates},
};
use graphplane_tests::{
    Moto,
    emulator::{AGENT, BUCKETS, Cloud, Entry, Network, OPERATOR, Proxy, REGION, REGISTRIES},
};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

/// Calls by service and action.
pub(super) type Calls = BTreeMap<String, usize>;

/// The account.
pub(super) struct Account {
    proxy: Proxy,
    network: Network,
    _moto: Moto,
}

impl Account {
    /// An account with a network, buckets and registries. It waits for moto: for a thread, not for a task.
    pub(super) fn open(runtime: &Handle) -> Self {
        let moto = Moto::start();
        let cloud = Cloud::new(moto.url(), runtime);
        let network = Network::make(&cloud);
        BUCKETS.iter().for_each(|bucket| cloud.bucket(bucket));
        let registries = [
            ("StackName", "graphplane-registries"),
            ("TemplateBody", templates::REGISTRIES),
            ("Parameters.member.1.ParameterKey", "Prefix"),
            ("Parameters.member.1.ParameterValue", REGISTRIES),
        ];
        let made = cloud.call("cloudformation", "CreateStack", &registries);
        assert!(made.ok(), "moto makes the registries");
        Self {
            proxy: Proxy::start(&cloud, runtime),
            network,
            _moto: moto,
        }
    }

    fn settings(&self, faster: u32) -> Result<AwsSettings> {
        let subnets = self.network.subnets_text();
        let mut settings = AwsSettings::parse(&format!(
            "{{region: {REGION}, endpointUrl: '{url}', vpcId: {vpc}, vpcCidr: {cidr}, subnets: {{{subnets}}}, \
             controlPlane: {{url: 'https://graphplane.example', cidr: {cidr}}}, agentSha256: {AGENT}, \
             artifactBucket: {artifacts}, objectBucket: {objects}}}",
            url = self.proxy.url(),
            vpc = self.network.vpc,
            cidr = self.network.cidr,
            artifacts = BUCKETS[0],
            objects = BUCKETS[1],
        ))?;
        settings.listing_lasts /= faster;
        Ok(settings)
    }

    /// A provider that knows nothing of what others did, whose listings last so much shorter than in life, and the registries.
    pub(super) async fn provider(&self, cluster: &str, faster: u32) -> Result<(Aws, Registries)> {
        let settings = self.settings(faster)?;
        let credentials = Credentials::new(OPERATOR, "secret", None, None, "bench");
        let config = sdk_config(&settings).await.into_builder();
        let config = config
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let registries = Registries::new(&config, REGISTRIES);
        Ok((Aws::with_config(settings, cluster.to_owned(), &config), registries))
    }

    /// How many calls were made so far.
    pub(super) fn now(&self) -> usize {
        self.proxy.log().len()
    }

    /// The calls that were made since.
    pub(super) fn calls(&self, since: usize) -> Calls {
        let mut calls = Calls::new();
        for Entry { call, .. } in self.proxy.log().into_iter().skip(since) {
            *calls.entry(format!("{}.{}", call.service, call.action)).or_default() += 1;
        }
        calls
    }
}
