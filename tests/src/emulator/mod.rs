//! AWS for scenarios: moto, the proxy before it that adds what moto lacks and fails calls, and the machines.

mod call;
mod cloud;
mod host;
mod iam;
mod ledger;
mod machine;
mod metadata;
mod moto;
mod network;
mod policy;
mod proxy;
mod rules;
mod stack_calls;
mod user_data;
mod xml;

pub use call::{Answer, Call};
pub use cloud::{ACCOUNT, Cloud, REGION};
pub use host::{CLUSTER, Event, Host, What};
pub use iam::{Request, Statement, like};
pub use ledger::violations;
pub use moto::{Moto, python};
pub use network::{Network, ZONES};
pub use policy::{Verdict, judge, statements, taken_by_machines, taken_by_operator};
pub use proxy::{Entry, Fault, Hold, MACHINE, OPERATOR, Proxy, Side};
pub use rules::Knobs;

use crate::repository;
use std::{collections::BTreeSet, fs, path::PathBuf};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Buckets of agents and of objects.
pub const BUCKETS: [&str; 2] = ["graphplane-artifacts", "graphplane-objects"];

/// Digest of the agent's archive, which no machine here fetches.
pub const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What the names of the registries' tables begin with.
pub const REGISTRIES: &str = "graphplane";

/// An account of AWS of its own, with a network, buckets and registries, and nothing else in it.
pub struct Emulator {
    // Dropped in this order: machines before what they talk to.
    host: Host,
    proxy: Proxy,
    cloud: Cloud,
    network: Network,
    _moto: Moto,
    folder: TempDir,
    _runtime: Runtime,
}

impl Emulator {
    /// Starts everything.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let moto = Moto::start();
        let cloud = Cloud::new(moto.url(), runtime.handle());
        let network = Network::make(&cloud);
        BUCKETS.iter().for_each(|bucket| cloud.bucket(bucket));
        let template = fs::read_to_string(repository().join("cloudformation/registries.yaml"));
        let template = template.expect("the template can be read");
        let params = [
            ("StackName", "graphplane-registries"),
            ("TemplateBody", template.as_str()),
            ("Parameters.member.1.ParameterKey", "Prefix"),
            ("Parameters.member.1.ParameterValue", REGISTRIES),
        ];
        cloud.ask("cloudformation", "CreateStack", &params);
        let proxy = Proxy::start(&cloud, runtime.handle());
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let metadata = metadata::start(&cloud, runtime.handle());
        let host = Host::start(folder.path(), &cloud, &proxy, metadata);
        Self {
            host,
            proxy,
            cloud,
            network,
            _moto: moto,
            folder,
            _runtime: runtime,
        }
    }

    /// The machines.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What stands before moto.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// moto itself.
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Settings for `graphplane up --aws FILE`.
    pub fn settings(&self) -> PathBuf {
        let subnets = self.network.subnets_text();
        let text = format!(
            "region: {REGION}\nendpointUrl: {url}\nvpcId: {vpc}\nvpcCidr: {cidr}\nsubnets: {{{subnets}}}\n\
             controlPlane: {{cidr: {cidr}}}\nagentSha256: {AGENT}\nartifactBucket: {artifacts}\nobjectBucket: {objects}\n\
             registryPrefix: {REGISTRIES}\nidentityCertificates: {certificate}\naccountId: '{ACCOUNT}'\n",
            url = self.proxy.url(),
            vpc = self.network.vpc,
            cidr = self.network.cidr,
            artifacts = BUCKETS[0],
            objects = BUCKETS[1],
            certificate = metadata::certificate().display(),
        );
        let path = self.folder.path().join("aws.yaml");
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Identities of our machines that are not terminated.
    pub fn instances(&self) -> Vec<String> {
        let tagged = [("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", CLUSTER)];
        let found = self.cloud.ask("ec2", "DescribeInstances", &tagged);
        let sets = found.all("instancesSet");
        let lives = |machine: &&xml::Element| machine.text_of(&["instanceState", "name"]) != "terminated";
        sets.iter()
            .flat_map(|set| set.children.iter())
            .filter(lives)
            .map(|machine| machine.text_of(&["instanceId"]).to_owned())
            .collect()
    }

    /// Identities of the disks of GraphVolumes; root disks of machines go with these.
    pub fn volumes(&self) -> Vec<String> {
        let kind = ("Filter.2.Name", "tag:graphplane.dev/kind");
        let of_volumes = [kind, ("Filter.2.Value.1", "GraphVolume")];
        self.listed("DescribeVolumes", &of_volumes, "volumeSet", "volumeId")
    }

    /// Identities of our snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        self.listed("DescribeSnapshots", &[], "snapshotSet", "snapshotId")
    }

    fn listed(&self, action: &str, more: &[(&str, &str)], set: &str, id: &str) -> Vec<String> {
        let tagged = [("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", CLUSTER)];
        let found = self.cloud.ask("ec2", action, &[&tagged, more].concat());
        let items = found.child(set).map_or(&[][..], |set| set.children.as_slice());
        items.iter().map(|item| item.text_of(&[id]).to_owned()).collect()
    }

    /// Names of the stacks of tiers and fleets, with their status.
    pub fn stacks(&self) -> Vec<(String, String)> {
        let found = self.cloud.ask("cloudformation", "DescribeStacks", &[]);
        let stacks = found
            .all("Stacks")
            .into_iter()
            .flat_map(|stacks| stacks.children.iter());
        stacks
            .map(|stack| {
                (
                    stack.text_of(&["StackName"]).to_owned(),
                    stack.text_of(&["StackStatus"]).to_owned(),
                )
            })
            .filter(|(name, _)| name != "graphplane-registries")
            .collect()
    }

    /// Keys in the object bucket below a prefix.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        self.cloud.objects(BUCKETS[1], prefix)
    }

    /// Rows of the registries, as `<table>/<key>`.
    pub fn rows(&self) -> BTreeSet<String> {
        let kinds = ["instance", "graph", "volume"];
        kinds.into_iter().flat_map(|kind| self.rows_of(kind)).collect()
    }

    fn rows_of(&self, kind: &str) -> Vec<String> {
        let asked = serde_json::json!({"TableName": format!("{REGISTRIES}-{kind}-registry")});
        let (_, found) = self.cloud.json("dynamodb", "DynamoDB_20120810.Scan", &asked);
        let rows = found["Items"].as_array().cloned().unwrap_or_default();
        let key = format!("{kind}_id");
        let name = |row: &serde_json::Value| format!("{kind}/{}", row[&key]["S"].as_str().unwrap_or("?"));
        rows.iter().map(name).collect()
    }

    /// Everything that is ours beside objects and rows: machines, volumes, snapshots, stacks.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let stacks = self.stacks().into_iter().map(|(name, _)| name);
        let volumes = self.listed("DescribeVolumes", &[], "volumeSet", "volumeId");
        let parts = [self.instances(), volumes, self.snapshots()];
        parts.into_iter().flatten().chain(stacks).collect()
    }

    /// The identity of the control plane, as the first thing that it made has it in its tags.
    pub fn cluster(&self) -> Option<String> {
        let log = self.proxy.log();
        log.iter()
            .find_map(|entry| entry.call.new_tags("").get(CLUSTER).cloned())
    }

    /// What the log of the whole run says that must not be.
    pub fn violations(&self) -> Vec<String> {
        violations(&self.proxy.log(), &self.host.events())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in self
                .proxy
                .log()
                .iter()
                .filter(|entry| entry.call.changes() && entry.call.service != "s3")
            {
                let code = entry.answer.code().unwrap_or_default();
                eprintln!(
                    "{:?} {}.{} {} {code}",
                    entry.at, entry.call.service, entry.call.action, entry.answer.status
                );
            }
            eprintln!("{}", self.host.logs());
        }
    }
}
