//! What a deployment chooses.

use crate::auth::BootstrapKey;
use crate::nodes::identity::IdentityCertificates;
use graphplane_client::breaker::BreakerSettings;
use std::time::Duration;

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identity of the control plane, shown in the OpenAPI document and in logs.
    pub cluster_id: String,
    /// Namespace of API keys, node credentials and leases.
    pub system_namespace: String,
    /// Keys that are valid beside those in Secrets.
    pub bootstrap_keys: Vec<BootstrapKey>,
    /// Leases of nodes.
    pub lease: LeaseSettings,
    /// A node's credential is replaced when it is older.
    pub credential_age: Duration,
    /// How machines on AWS prove themselves; without it none of them can register.
    pub aws_identity: Option<AwsIdentity>,
    /// The way to node agents.
    pub gateway: GatewaySettings,
    /// Followers of operations at once; one more is answered 503.
    pub max_event_streams: usize,
    /// How long [`crate::start`] waits for the watch caches.
    pub cache_timeout: Duration,
}

impl Settings {
    /// The usual settings.
    pub fn new(cluster_id: impl Into<String>) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            system_namespace: graphplane_crds::SYSTEM_NAMESPACE.to_owned(),
            bootstrap_keys: Vec::new(),
            lease: LeaseSettings::default(),
            credential_age: Duration::from_secs(24 * 3600),
            aws_identity: None,
            gateway: GatewaySettings::default(),
            max_event_streams: 1000,
            cache_timeout: Duration::from_secs(30),
        }
    }

    /// With one more key that needs no Secret.
    #[must_use]
    pub fn with_key(mut self, key: BootstrapKey) -> Self {
        self.bootstrap_keys.push(key);
        self
    }
}

/// How machines on AWS prove themselves.
#[derive(Clone, Debug)]
pub struct AwsIdentity {
    /// With which keys AWS signs instance identity documents.
    pub certificates: IdentityCertificates,
    /// The account of all machines; any if absent.
    pub account: Option<String>,
}

/// Leases of nodes.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// An agent that has not renewed for so long refuses writes; seconds.
    pub duration_seconds: u32,
    /// Agents renew so often; seconds.
    pub renew_interval_seconds: u32,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            duration_seconds: 15,
            renew_interval_seconds: 5,
        }
    }
}

/// The way to node agents.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer once the request is sent, where no figure of the tier says otherwise.
    pub answer_timeout: Duration,
    /// Longest silence within a request or an answer that streams; agents send heartbeats more often.
    pub idle_timeout: Duration,
    /// Attempts of a request that may be repeated, the first included.
    pub attempts: u32,
    /// Body that is read before it is sent on, because it must be looked at: statements and options; bytes.
    pub inspected_body_limit: usize,
    /// When calls to a node are stopped for a while.
    pub breaker: BreakerSettings,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            attempts: 3,
            inspected_body_limit: 4 << 20,
            breaker: BreakerSettings::default(),
        }
    }
}
