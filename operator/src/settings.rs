//! How an operator is set up.

use crate::metrics::Metrics;
use crate::provider::Provider;
use crate::provider::aws::AwsSettings;
use crate::registry::Registries;
use graphplane_core::orphans::Patience;
use graphplane_core::sources::SourceRules;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How an operator is set up. [`Settings::local`] is what `graphplane up` needs.
#[derive(Clone)]
pub struct Settings {
    /// Where machines and disks come from.
    pub provider: ProviderChoice,
    /// Root of the object store for backups: `file:///directory` or `s3://bucket/prefix`. `None`: no backups.
    pub object_store_url: Option<String>,
    /// Identity of this cluster in client tokens and tags; `None` takes the UID of the system namespace.
    pub cluster_id: Option<String>,
    /// Objects of one kind that are reconciled at the same time.
    pub concurrency: u16,
    /// Every object is looked at again after this time at the latest, in addition to every change.
    pub resync: Duration,
    /// Stop the machines that run as processes of this machine when the operator stops. Their objects stay, so that the
    /// next start begins them again.
    pub stop_nodes_on_shutdown: bool,
    /// Of several operators, only the one that holds the lease acts. `None`: this is the only one.
    pub leader_election: Option<LeaderElection>,
    /// Tables in which clients outside of Kubernetes find nodes, graphs and volumes. `None`: those that the settings of AWS
    /// name.
    pub registries: Option<Registries>,
    /// How long machines and disks that belong to no object are left alone.
    pub orphans: Patience,
    /// Where figures are counted; the caller serves [`Metrics::encode`].
    pub metrics: Metrics,
}

/// Where machines and disks come from.
#[derive(Clone)]
pub enum ProviderChoice {
    /// Processes and directories of this machine.
    Local(LocalSettings),
    /// Machines and disks of AWS.
    Aws(Box<AwsSettings>),
    /// A provider that the caller made.
    Custom(Arc<dyn Provider>),
}

/// Settings of the provider that runs node agents as processes and keeps volumes as directories.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// Directory below which `nodes/` and `volumes/` are.
    pub data_dir: PathBuf,
    /// The program `graphplane-node-agent`.
    pub agent_binary: PathBuf,
    /// URL of the REST API that agents register with.
    pub control_plane_url: String,
    /// Object store that agents are told of.
    pub object_store_url: Option<String>,
    /// File with the keys for encrypted backups that agents are told of.
    pub backup_key_file: Option<PathBuf>,
    /// Directory of the model that turns texts into vectors that agents are told of.
    pub embedding_model: Option<PathBuf>,
    /// From where tenants may load with the agents' own credentials, and which endpoints they may name.
    pub sources: SourceRules,
    /// An agent that was asked to stop is stopped by force after this time.
    pub stop_grace: Duration,
}

/// Which Lease makes an operator the leader.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// Name of this operator, such as its pod's.
    pub identity: String,
    /// Name of the Lease in the system namespace.
    pub lease: String,
    /// How long the lease lasts. An operator that cannot renew it stops acting after two thirds of that.
    pub duration: Duration,
}

impl LeaderElection {
    /// The usual Lease, for an operator of this name.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            lease: "graphplane-operator".into(),
            duration: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// An operator that is alone, with the local provider, as `graphplane up` runs it: `object_store_url` is a directory
    /// of the data directory, and its agents stop with it. `sources` is what they are told of where tenants may load from.
    pub fn local(
        data_dir: impl Into<PathBuf>,
        agent_binary: impl Into<PathBuf>,
        control_plane_url: impl Into<String>,
        sources: SourceRules,
    ) -> Self {
        let data_dir = data_dir.into();
        // An agent compares the URL literally, so it has to be absolute whatever the caller's directory is.
        let objects = std::path::absolute(&data_dir)
            .unwrap_or_else(|_| data_dir.clone())
            .join("objects");
        let object_store_url = Some(format!("file://{}", objects.display()));
        let local = LocalSettings {
            data_dir,
            agent_binary: agent_binary.into(),
            control_plane_url: control_plane_url.into(),
            object_store_url: object_store_url.clone(),
            backup_key_file: None,
            embedding_model: None,
            sources,
            // An agent finishes what runs and writes a checkpoint; it takes up to 50 s for that by its own limits.
            stop_grace: Duration::from_secs(60),
        };
        Self {
            object_store_url,
            stop_nodes_on_shutdown: true,
            ..Self::with_provider(ProviderChoice::Local(local))
        }
    }

    /// An operator that is alone, with machines of AWS and the object store of its settings.
    pub fn aws(aws: AwsSettings) -> Self {
        Self {
            object_store_url: Some(aws.object_store_url()),
            ..Self::with_provider(ProviderChoice::Aws(Box::new(aws)))
        }
    }

    /// An operator with a provider, without an object store, and alone.
    pub fn with_provider(provider: ProviderChoice) -> Self {
        Self {
            provider,
            object_store_url: None,
            cluster_id: None,
            concurrency: 16,
            // Triggers do the work; this only bounds how long a lost trigger goes unnoticed.
            resync: Duration::from_secs(600),
            stop_nodes_on_shutdown: false,
            leader_election: None,
            registries: None,
            orphans: Patience::default(),
            metrics: Metrics::default(),
        }
    }
}
