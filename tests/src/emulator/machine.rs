//! One machine: what its boot script and systemd make of its user data.

use super::cloud::{Cloud, REGION};
use super::proxy::{MACHINE, Proxy};
use super::user_data::Settings;
use crate::binary;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

/// What is around all machines.
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) cloud: Cloud,
    pub(super) proxy: Proxy,
    /// URL of the metadata service, without the machine.
    pub(super) metadata: String,
}

impl Place {
    /// The directory that stands for a volume.
    pub(super) fn volume(&self, id: &str) -> PathBuf {
        self.root.join("volumes").join(id)
    }

    /// A file of a machine: its log, its configuration.
    pub(super) fn machine(&self, id: &str, kind: &str) -> PathBuf {
        self.root.join("machines").join(format!("{id}.{kind}"))
    }
}

pub(super) struct Machine {
    pub(super) settings: Settings,
    address: String,
    pub(super) child: Option<Child>,
    /// When its last process ended, and since when it has to stop.
    pub(super) ended: Option<Instant>,
    pub(super) stopping: Option<Instant>,
    /// The last that was seen on its volume.
    pub(super) epoch: u64,
}

impl Machine {
    pub(super) fn new(settings: Settings, address: &str) -> Self {
        Self {
            settings,
            address: address.to_owned(),
            child: None,
            ended: None,
            stopping: None,
            epoch: 0,
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        if let Some(pid) = pid {
            // It may have ended by itself; then it is not reaped yet, and the signal goes nowhere.
            let _ = kill_process(pid, signal);
        }
    }

    /// Starts the agent as the unit of the machine has it, but for its directories.
    pub(super) fn start(&self, id: &str, place: &Place) -> Child {
        let data = match self.settings.volume() {
            Some(volume) => place.volume(&volume),
            None => place.root.join("machines").join(id),
        };
        let mut command = Command::new(binary("graphplane-node-agent"));
        command.arg("--data-dir").arg(data);
        command.args(["--port", "8001", "--host", self.address.as_str()]);
        command.args(["--advertise", format!("http://{}:8001", self.address).as_str()]);
        command.args(self.settings.arguments());
        if let Some(mut config) = self.settings.config() {
            config["instanceId"] = json!(id);
            let file = place.machine(id, "json");
            fs::write(&file, config.to_string()).expect("a file can be written");
            command.arg("--config").arg(file);
        }
        if let Some(parameter) = self.settings.parameter() {
            let asked = json!({"Name": parameter, "WithDecryption": true});
            let (_, found) = place.cloud.json("ssm", "AmazonSSM.GetParameter", &asked);
            let keys = found["Parameter"]["Value"].as_str();
            let keys = keys.unwrap_or_else(|| panic!("parameter {parameter}: {found}"));
            let file = place.machine(id, "keys");
            fs::write(&file, keys).expect("a file can be written");
            command.arg("--api-key-file").arg(file);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.machine(id, "log"));
        let log = log.expect("a log can be made");
        command
            .envs([
                ("AWS_ENDPOINT_URL", place.proxy.url()),
                ("AWS_ACCESS_KEY_ID", MACHINE),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_REGION", REGION),
                ("AWS_DEFAULT_REGION", REGION),
            ])
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("{}/{id}", place.metadata))
            .env_remove("GRAPH_API_KEY")
            .env_remove("AWS_SESSION_TOKEN")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("the agent starts")
    }
}
