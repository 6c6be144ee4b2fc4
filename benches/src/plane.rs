//! A control plane as a user starts it.

use crate::Result;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// `graphplane up` in a temporary directory; stopped when dropped.
pub(crate) struct Plane {
    folder: TempDir,
    child: Child,
}

impl Plane {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(bin: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = Command::new(bin.join("graphplane"))
            .args(["up", "--kube-port", "0", "--api-port", "0", "--data-dir"])
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let plane = Self { folder, child };
        while !plane.folder.path().join("data/endpoints.json").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(plane)
    }

    /// Process id of `graphplane up`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client over its TLS port, as kubectl's.
    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.folder.path().join("data/kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
    }
}
