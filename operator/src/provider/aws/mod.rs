//! Machines as EC2 instances, volumes as EBS volumes, and the stacks and fleets around them.
//!
//! | file | what it knows |
//! |---|---|
//! | `instances`, `machines` | machines of writers |
//! | `capacity` | which types cannot be had at present |
//! | `notices` | what AWS is going to do to machines |
//! | `user_data` | what a machine is told when it starts |
//! | `disks`, `snapshots` | EBS |
//! | `stacks`, `deploy`, `templates` | CloudFormation |
//! | `tier_stack`, `fleet_stack` | what goes into the stacks of Tiers and Replicas |
//! | `fleets` | Auto Scaling groups of replicas |
//! | `inventory` | all of these, for the collection of orphans |
//! | `settings`, `checks` | what its users say, and what may be wrong with that |
//!
//! Whatever is made carries tags that say whose it is, and is made with a token, so that a repeated call finds what the
//! first one made. One listing of a few paginated calls serves every reconcile.

mod capacity;
mod checks;
pub mod deploy;
mod disks;
mod ec2;
mod fleet_stack;
mod fleets;
mod instances;
mod inventory;
mod machines;
mod notices;
mod settings;
mod snapshots;
mod stacks;
mod tags;
pub mod templates;
mod tier_stack;
mod user_data;

pub use settings::{AwsSettings, ControlPlane};
pub use stacks::CloudFormation;

use super::{Provider, ProviderError, World};
use crate::provider::fleets::Fleets;
use crate::provider::inventory::Inventory;
use crate::provider::snapshots::Snapshots;
use crate::provider::stacks::{LAUNCH_TEMPLATE, StackRequest, Stacks};
use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls::Provider as TlsProvider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::stream::{BoxStream, StreamExt};
use graphplane_core::node_plan::Pace;
use graphplane_core::rollout;
use graphplane_crds::Tier;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The provider that starts machines on AWS.
#[derive(Clone)]
pub struct Aws {
    inner: Arc<Inner>,
}

struct Inner {
    settings: AwsSettings,
    cluster_id: String,
    ec2: aws_sdk_ec2::Client,
    cloudformation: CloudFormation,
    autoscaling: aws_sdk_autoscaling::Client,
    ssm: aws_sdk_ssm::Client,
    machines: instances::Memory,
    capacity: capacity::Capacity,
    disks: disks::Memory,
    snapshots: snapshots::Memory,
}

/// The configuration of the SDK for every service: one HTTP client, adaptive retries (which slow down all calls of a
/// client when the service throttles one), and a bound for every attempt.
pub async fn sdk_config(settings: &AwsSettings) -> SdkConfig {
    config(Some(&settings.region), settings.endpoint_url.as_deref()).await
}

/// The same, where region and endpoint may be left to the usual chain of AWS.
pub async fn config(region: Option<&str>, endpoint_url: Option<&str>) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(TlsProvider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(120))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::adaptive().with_max_attempts(5))
        .timeout_config(timeouts);
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let Some(url) = endpoint_url {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

impl Aws {
    /// The provider for the cluster of that identity. Nothing is called yet.
    pub async fn open(settings: AwsSettings, cluster_id: String) -> Self {
        let config = sdk_config(&settings).await;
        Self::with_config(settings, cluster_id, &config)
    }

    /// The provider with a configuration of the SDK, for one that brings its own credentials.
    pub fn with_config(settings: AwsSettings, cluster_id: String, config: &SdkConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                ec2: aws_sdk_ec2::Client::new(config),
                cloudformation: CloudFormation::new(config),
                autoscaling: aws_sdk_autoscaling::Client::new(config),
                ssm: aws_sdk_ssm::Client::new(config),
                machines: instances::Memory::default(),
                capacity: capacity::Capacity::default(),
                disks: disks::Memory::default(),
                snapshots: snapshots::Memory::default(),
                settings,
                cluster_id,
            }),
        }
    }
}

/// What became of a call: the code and the message of the service, or why there was no answer.
fn failed<E, R>(call: &'static str) -> impl Fn(SdkError<E, R>) -> ProviderError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    move |error| ProviderError::Call {
        call,
        message: match error.as_service_error() {
            Some(service) => {
                let code = service.code().unwrap_or("unknown error");
                format!("{code}: {}", service.message().unwrap_or("without a message"))
            }
            None => chain(&error),
        },
    }
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The code of a service's refusal, such as `InvalidVolume.NotFound`.
fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn zones(&self) -> Vec<String> {
        self.inner.settings.subnets.keys().cloned().collect()
    }

    fn zones_with(&self, types: &[String]) -> Vec<String> {
        self.inner.capacity.order(self.zones(), types)
    }

    fn instance_type(&self, types: &[String], zone: &str) -> Option<String> {
        self.inner.capacity.first(types, zone)
    }

    fn template(&self, outputs: &BTreeMap<String, String>) -> Option<String> {
        let [Some(id), Some(version)] = LAUNCH_TEMPLATE.map(|name| outputs.get(name)) else {
            return None;
        };
        Some(rollout::template(&[id.as_str(), version.as_str()]))
    }

    fn pace(&self) -> Pace {
        Pace {
            // An image boots within a minute or two; a volume that is still attached elsewhere may take some more.
            registration: Duration::from_secs(600),
            // The agent's own limit for its last checkpoint, and the shutdown of a machine.
            stop: Duration::from_secs(180),
            look: Some(Duration::from_secs(5)),
            // What EC2 has made is described within seconds as a rule. No limit is promised: this is only for an operator
            // that has just started, everything that one has made itself it remembers.
            lag: Duration::from_secs(60),
        }
    }

    async fn describe(&self) -> Result<World, ProviderError> {
        let (instances, disks, snapshots, stacks, fleets) = tokio::try_join!(
            self.list_instances(),
            self.list_disks(),
            self.list_snapshots(),
            self.inner.cloudformation.list(),
            self.list_fleets(),
        )?;
        Ok(World {
            instances,
            disks,
            snapshots,
            stacks,
            fleets,
        })
    }

    fn listing_lasts(&self) -> Duration {
        self.inner.settings.listing_lasts
    }

    fn changes(&self) -> BoxStream<'static, String> {
        // Leases say that a machine is gone; AWS tells nobody who does not listen to a queue.
        futures::stream::pending().boxed()
    }

    // The machines live on without this process.
    async fn shutdown(&self, _stop_nodes: bool) {}

    fn stacks(&self) -> Option<&dyn Stacks> {
        Some(&self.inner.cloudformation)
    }

    fn tier_stack(&self, tier: &Tier) -> Option<StackRequest> {
        let inner = &self.inner;
        Some(tier_stack::request(tier, &inner.settings, &inner.cluster_id))
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn inventory(&self) -> Option<&dyn Inventory> {
        Some(self)
    }

    fn fleets(&self) -> Option<&dyn Fleets> {
        Some(self)
    }
}
