//! Machines as processes of this computer, volumes as directories.
//!
//! The operator may be killed at any moment; its agents go on, and the next operator finds them again by pid, start time
//! and token. See [`launch`] for how a start survives a crash, and the agent's lock on its data directory for the last
//! line of defence against two of them.

mod launch;
mod layout;
mod process;
mod volumes;

use super::{DiskFacts, InstanceRequest, Instances, Provider, ProviderError, Purpose, VolumeRequest, Volumes, World};
use crate::settings::LocalSettings;
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use graphplane_core::node_plan::{Instance, InstanceState, Pace};
use jiff::Timestamp;
use launch::{AgentConfig, Record, Stop, Surroundings};
use layout::{Layout, NodeFiles, io_error};
use parking_lot::Mutex;
use process::Identity;
use rustix::process::Signal;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// The only zone.
pub const ZONE: &str = graphplane_core::identity::LOCAL_ZONE;

/// The provider that `graphplane up` uses.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    settings: LocalSettings,
    layout: Layout,
    changes: broadcast::Sender<String>,
    /// Processes whose end is being waited for, by node.
    watched: Mutex<HashMap<String, Identity>>,
}

impl Local {
    /// Opens the data directory: makes what is missing, and tells agents that run already where the control plane is now.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(settings: LocalSettings) -> Result<Self, ProviderError> {
        let (layout, settings) = blocking(move || {
            let layout = Layout::open(&settings.data_dir)?;
            volumes::remove_leftovers(&layout)?;
            follow_control_plane(&layout, &settings)?;
            Ok((layout, settings))
        })
        .await?;
        let (changes, _) = broadcast::channel(1024);
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                layout,
                changes,
                watched: Mutex::default(),
            }),
        })
    }

    /// Waits for the end of a process, once, and tells of it. False if it has ended before: then nobody is told.
    fn watch(&self, node: &str, identity: &Identity) -> bool {
        let mut watched = self.inner.watched.lock();
        if watched.get(node) == Some(identity) {
            return true;
        }
        if !identity.is_alive() {
            return false;
        }
        watched.insert(node.to_owned(), identity.clone());
        let (node, identity, inner) = (node.to_owned(), identity.clone(), Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            if let Err(error) = identity.ended().await {
                tracing::warn!(node, %error, "the end of an agent cannot be waited for; it is noticed at the next listing");
            }
            let Some(inner) = inner.upgrade() else { return };
            let mut watched = inner.watched.lock();
            if watched.get(&node) == Some(&identity) {
                watched.remove(&node);
            }
            drop(watched);
            tracing::info!(node, pid = identity.pid, "an agent's process ended");
            // Nobody listening is no failure: the next listing shows it.
            let _ = inner.changes.send(node);
        });
        true
    }

    /// A machine that is not dead is watched from now on, so that its end is either seen here or told later.
    fn watched(&self, node: &str, instance: Instance, process: Option<&Identity>) -> Instance {
        if process.is_some_and(|identity| self.watch(node, identity)) {
            return instance;
        }
        Instance {
            state: InstanceState::Dead,
            ..instance
        }
    }

    async fn stop(&self, node: &str, signal: Signal) -> Result<Option<Identity>, ProviderError> {
        let files = self.inner.layout.node(node)?;
        blocking(move || {
            if !files.dir().is_dir() {
                return Ok(None);
            }
            let _lock = files.lock()?;
            let Some(Record {
                process: Some(identity),
                ..
            }) = launch::record(&files)?
            else {
                return Ok(None);
            };
            if !identity.is_alive() {
                return Ok(None);
            }
            if layout::read::<Stop>(&files.stop())?.is_none() {
                layout::write(
                    &files.stop(),
                    &Stop {
                        since: Timestamp::now(),
                    },
                )?;
            }
            let sent = identity
                .signal(signal)
                .map_err(io_error("signal the process of", files.dir()))?;
            Ok(sent.then_some(identity))
        })
        .await
    }

    async fn records(&self) -> Result<BTreeMap<String, (Instance, Option<Identity>)>, ProviderError> {
        let layout = self.inner.layout.clone();
        blocking(move || {
            let mut found = BTreeMap::new();
            for node in Layout::names(&layout.nodes())? {
                let files = layout.node(&node)?;
                // A start that is under way is waited for, so that it is not seen half-done.
                let begun = files.launch().exists() || !files.pid().exists();
                let _lock = begun.then(|| files.lock()).transpose()?;
                if let Some(record) = launch::record(&files)? {
                    let instance = launch::instance(&node, &files, &record)?;
                    found.insert(node, (instance, record.process));
                }
            }
            Ok(found)
        })
        .await
    }
}

/// Runs work with files on a thread of its own. The work is finished even when the caller is gone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(ProviderError::Call {
            call: "local",
            message: error.to_string(),
        }),
    }
}

/// Agents read their configuration before each attempt to register or renew, so this is how they hear of a control plane
/// that came back on another port.
fn follow_control_plane(layout: &Layout, settings: &LocalSettings) -> Result<(), ProviderError> {
    for node in Layout::names(&layout.nodes())? {
        let path = layout.node(&node)?.config();
        let Some(config) = layout::read::<AgentConfig>(&path)? else {
            continue;
        };
        let followed = AgentConfig {
            control_plane: settings.control_plane_url.clone(),
            object_store: settings.object_store_url.clone(),
            sources: settings.sources.clone(),
            ..config.clone()
        };
        if followed != config {
            layout::write(&path, &followed)?;
        }
    }
    Ok(())
}

#[async_trait]
impl Volumes for Local {
    async fn ensure_volume(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
        let (layout, want) = (self.inner.layout.clone(), want.clone());
        blocking(move || volumes::ensure(&layout, &want)).await
    }

    async fn delete_volume(&self, name: &str) -> Result<(), ProviderError> {
        let (layout, name) = (self.inner.layout.clone(), name.to_owned());
        blocking(move || volumes::delete(&layout, &name)).await
    }

    async fn attach_volume(&self, _name: &str, _machine: &str) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn detach_volume(&self, _name: &str, _machine: &str, _force: bool) -> Result<(), ProviderError> {
        Ok(())
    }
}

#[async_trait]
impl Instances for Local {
    async fn ensure_instance(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        let files = self.inner.layout.node(&want.node)?;
        let data_dir = match &want.purpose {
            Purpose::Write { volume } => self.inner.layout.volume(volume)?,
            Purpose::Serve { .. } => files.data(),
        };
        let (inner, request) = (self.inner.clone(), want.clone());
        let (record, instance, child) = blocking(move || {
            // An agent makes its data directory where there is none, but a volume that is gone must not come back empty.
            if matches!(request.purpose, Purpose::Write { .. }) && !data_dir.is_dir() {
                let message = format!("{} does not exist", data_dir.display());
                return Err(ProviderError::Call {
                    call: "ensure_instance",
                    message,
                });
            }
            let around = Surroundings {
                settings: &inner.settings,
                data_dir: &data_dir,
            };
            let (record, child) = launch::launch(&files, &request, &around)?;
            let instance = launch::instance(&request.node, &files, &record)?;
            Ok((record, instance, child))
        })
        .await?;
        if let Some(mut child) = child {
            // Reaps it when it ends, as long as this process lives; after that init does.
            tokio::spawn(async move { child.wait().await });
        }
        Ok(self.watched(&want.node, instance, record.process.as_ref()))
    }

    async fn stop_instance(&self, node: &str, force: bool) -> Result<(), ProviderError> {
        let signal = if force { Signal::KILL } else { Signal::TERM };
        if let Some(identity) = self.stop(node, signal).await? {
            self.watch(node, &identity);
        }
        Ok(())
    }

    async fn forget_instance(&self, node: &str) -> Result<(), ProviderError> {
        let files: NodeFiles = self.inner.layout.node(node)?;
        let name = node.to_owned();
        blocking(move || {
            if !files.dir().is_dir() {
                return Ok(());
            }
            let _lock = files.lock()?;
            if launch::record(&files)?
                .and_then(|r| r.process)
                .is_some_and(|p| p.is_alive())
            {
                return Err(ProviderError::Occupied(format!(
                    "the process of node {name} still runs"
                )));
            }
            layout::remove_tree(files.dir())
        })
        .await
    }
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn zones(&self) -> Vec<String> {
        vec![ZONE.to_owned()]
    }

    fn pace(&self) -> Pace {
        // A process registers within a second; a minute covers a machine that swaps.
        Pace {
            registration: Duration::from_secs(60),
            stop: self.inner.settings.stop_grace,
            // The end of a process is told, and what was started is written down first.
            look: None,
            lag: Duration::ZERO,
        }
    }

    async fn describe(&self) -> Result<World, ProviderError> {
        let records = self.records().await?;
        let layout = self.inner.layout.clone();
        let disks = blocking(move || volumes::list(&layout)).await?;
        let mut instances = BTreeMap::new();
        for (node, (instance, identity)) in records {
            let instance = self.watched(&node, instance, identity.as_ref());
            instances.insert(node, instance);
        }
        Ok(World {
            instances,
            disks,
            ..World::default()
        })
    }

    fn changes(&self) -> BoxStream<'static, String> {
        let receiver = self.inner.changes.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(node) => return Some((node, receiver)),
                    // What was missed is seen at the next listing.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    async fn shutdown(&self, stop_nodes: bool) {
        if !stop_nodes {
            return;
        }
        let records = match self.records().await {
            Ok(records) => records,
            Err(error) => return tracing::error!(%error, "agents are not stopped: they cannot be listed"),
        };
        let live = records
            .into_iter()
            .filter(|(_, (_, identity))| identity.as_ref().is_some_and(Identity::is_alive));
        futures::future::join_all(live.map(|(node, _)| self.stop_and_wait(node))).await;
    }
}

impl Local {
    async fn stop_and_wait(&self, node: String) {
        let asked = match self.stop(&node, Signal::TERM).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return,
            Err(error) => return tracing::error!(node, %error, "an agent is not stopped"),
        };
        match tokio::time::timeout(self.inner.settings.stop_grace, asked.ended()).await {
            Ok(Ok(())) => tracing::info!(node, "an agent has stopped"),
            Ok(Err(error)) => {
                tracing::error!(node, %error, "an agent was asked to stop, and its end cannot be waited for")
            }
            Err(_) => {
                tracing::warn!(node, grace = ?self.inner.settings.stop_grace, "an agent did not stop in time and is killed");
                if let Err(error) = asked.signal(Signal::KILL) {
                    tracing::error!(node, %error, "an agent cannot be killed");
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
