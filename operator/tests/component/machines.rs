//! A provider whose machines are agents of this process. It outlives the operator, as real machines do.

use crate::agent::{self, Behaviour, Disk, Running};
use crate::gate::Gate;
use crate::registrar;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use graphplane_core::node_plan::{Instance, InstanceState, Pace};
use graphplane_crds::quantities::GiB;
use graphplane_operator::provider::{
    Attachment, DiskFacts, InstanceRequest, Instances, Provider, ProviderError, Purpose, VolumeRequest, Volumes, World,
};
use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

struct Machine {
    token: String,
    purpose: Purpose,
    state: InstanceState,
    started: Timestamp,
    template: Option<String>,
    agent: Option<Arc<Running>>,
    registrar: Option<JoinHandle<()>>,
}

struct Storage {
    size_gib: GiB,
    token: String,
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<String, Machine>,
    disks: BTreeMap<String, Storage>,
    /// Disks of machines that have no volume, by node.
    scratch: BTreeMap<String, Arc<Mutex<Disk>>>,
    /// Tokens of machines that were started, in order.
    launches: Vec<String>,
    disks_made: Vec<String>,
    /// What machines are started from.
    template: Option<String>,
    /// The fewest machines that lived since that was changed.
    fewest: usize,
}

/// The provider of a test.
#[derive(Clone)]
pub(crate) struct Machines {
    client: Client,
    objects: PathBuf,
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<String>,
    pub(crate) behaviour: Arc<Behaviour>,
    /// The gate of the operator that runs now.
    pub(crate) gate: Arc<Mutex<Gate>>,
}

impl Machines {
    pub(crate) fn new(client: Client, objects: PathBuf) -> Self {
        let (changes, _) = broadcast::channel(64);
        Self {
            client,
            objects,
            state: Arc::default(),
            changes,
            behaviour: Arc::default(),
            gate: Arc::default(),
        }
    }

    /// Kills the machine of a node.
    pub(crate) fn kill(&self, node: &str) {
        {
            let mut state = self.state.lock();
            if let Some(machine) = state.machines.get_mut(node) {
                end(machine);
            }
            let left = state.machines.values().filter(|m| m.state == InstanceState::Running);
            state.fewest = left.count().min(state.fewest);
        }
        let _ = self.changes.send(node.to_owned());
    }

    /// From now on machines are started from this.
    pub(crate) fn set_template(&self, template: &str) {
        let mut state = self.state.lock();
        state.template = Some(template.to_owned());
        state.fewest = usize::MAX;
    }

    /// The fewest machines that were left when one was stopped, since the template was set.
    pub(crate) fn fewest(&self) -> usize {
        self.state.lock().fewest
    }

    /// Takes a disk away, as if somebody had removed it by hand.
    pub(crate) fn lose_disk(&self, volume: &str) {
        self.state.lock().disks.remove(volume);
    }

    /// Nodes whose machine lives.
    pub(crate) fn alive(&self) -> Vec<String> {
        let state = self.state.lock();
        let alive = state.machines.iter().filter(|(_, m)| m.state == InstanceState::Running);
        alive.map(|(node, _)| node.clone()).collect()
    }

    /// How many machines were started.
    pub(crate) fn launches(&self) -> usize {
        self.state.lock().launches.len()
    }

    /// Names of the disks that exist.
    pub(crate) fn disks(&self) -> Vec<String> {
        self.state.lock().disks.keys().cloned().collect()
    }

    /// How many disks were made.
    pub(crate) fn disks_made(&self) -> usize {
        self.state.lock().disks_made.len()
    }

    /// What is on a disk.
    pub(crate) fn disk(&self, volume: &str) -> Arc<Mutex<Disk>> {
        self.state.lock().disks[volume].disk.clone()
    }

    /// The disks of machines that have no volume.
    pub(crate) fn scratch(&self) -> BTreeMap<String, Arc<Mutex<Disk>>> {
        self.state.lock().scratch.clone()
    }

    /// Every database of every disk.
    pub(crate) fn databases(&self) -> BTreeMap<String, Vec<String>> {
        let state = self.state.lock();
        state
            .disks
            .values()
            .flat_map(|s| s.disk.lock().databases.clone())
            .collect()
    }

    /// How often databases were made.
    pub(crate) fn made(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        state.disks.values().flat_map(|s| s.disk.lock().made.clone()).collect()
    }

    async fn start(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        let (disk, seeds) = {
            let mut state = self.state.lock();
            if let Some(machine) = state
                .machines
                .get(&want.node)
                .filter(|m| m.state != InstanceState::Dead)
            {
                return match machine.token == want.client_token {
                    true => Ok(instance(&want.node, machine)),
                    false => Err(ProviderError::Occupied(want.node.clone())),
                };
            }
            let writes = matches!(want.purpose, Purpose::Write { .. });
            let writer = |m: &&Machine| writes && m.purpose == want.purpose && m.state != InstanceState::Dead;
            assert!(
                state.machines.values().find(writer).is_none(),
                "two writers: {:?}",
                want.purpose
            );
            assert!(
                !state.launches.contains(&want.client_token),
                "{} was started twice under one token",
                want.node
            );
            match &want.purpose {
                Purpose::Serve { seeds } => (
                    state.scratch.entry(want.node.clone()).or_default().clone(),
                    seeds.clone(),
                ),
                Purpose::Write { volume } => {
                    let storage = state.disks.get(volume).map(|s| s.disk.clone());
                    let disk = storage.ok_or_else(|| ProviderError::Occupied("no disk".into()))?;
                    (disk, Vec::new())
                }
            }
        };
        let agent = agent::start(
            disk.clone(),
            seeds,
            self.objects.clone(),
            self.behaviour.clone(),
            self.gate.clone(),
        )
        .await;
        let agent = Arc::new(agent);
        let follow = registrar::follow(
            self.client.clone(),
            want.node.clone(),
            want.bootstrap_token.clone(),
            agent.clone(),
            disk,
            self.behaviour.clone(),
        );
        let machine = Machine {
            token: want.client_token.clone(),
            purpose: want.purpose.clone(),
            state: InstanceState::Running,
            started: Timestamp::now(),
            template: want.tags.get("template").cloned(),
            agent: Some(agent),
            registrar: Some(tokio::spawn(follow)),
        };
        let facts = instance(&want.node, &machine);
        let mut state = self.state.lock();
        state.launches.push(want.client_token.clone());
        state.machines.insert(want.node.clone(), machine);
        Ok(facts)
    }
}

fn instance(node: &str, machine: &Machine) -> Instance {
    Instance {
        id: format!("test:///{node}"),
        token: machine.token.clone(),
        state: machine.state,
        started: machine.started,
        notice: None,
        template: machine.template.clone(),
    }
}

fn end(machine: &mut Machine) {
    machine.state = InstanceState::Dead;
    machine.registrar.take().iter().for_each(JoinHandle::abort);
    machine.agent = None;
}

fn facts(name: &str, storage: &Storage) -> DiskFacts {
    DiskFacts {
        id: format!("test:///{name}"),
        size_gib: Some(storage.size_gib),
        databases: Some(storage.disk.lock().databases.keys().cloned().collect()),
        performance: None,
        attachment: Attachment::NotNeeded,
        modification: None,
        made_for: None,
    }
}

#[async_trait]
impl Volumes for Machines {
    async fn ensure_volume(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("ensure disk {}", want.name), async {
            let mut state = self.state.lock();
            if !state.disks.contains_key(&want.name) {
                state.disks_made.push(want.client_token.clone());
            }
            let storage = state.disks.entry(want.name.clone()).or_insert_with(|| Storage {
                size_gib: want.size_gib,
                token: want.client_token.clone(),
                disk: Arc::default(),
            });
            assert_eq!(storage.token, want.client_token, "a disk of somebody else was taken");
            storage.size_gib = storage.size_gib.max(want.size_gib);
            Ok(facts(&want.name, storage))
        })
        .await
    }

    async fn delete_volume(&self, name: &str) -> Result<(), ProviderError> {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("delete disk {name}"), async {
            let mut state = self.state.lock();
            let files: Vec<String> = state
                .disks
                .get(name)
                .map(|s| s.disk.lock().databases.keys().cloned().collect())
                .unwrap_or_default();
            if !files.is_empty() {
                return Err(ProviderError::NotEmpty {
                    volume: name.to_owned(),
                    files,
                });
            }
            state.disks.remove(name);
            Ok(())
        })
        .await
    }

    async fn attach_volume(&self, _name: &str, _machine: &str) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn detach_volume(&self, _name: &str, _machine: &str, _force: bool) -> Result<(), ProviderError> {
        Ok(())
    }
}

#[async_trait]
impl Instances for Machines {
    async fn ensure_instance(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("start {}", want.node), self.start(want)).await
    }

    async fn stop_instance(&self, node: &str, _force: bool) -> Result<(), ProviderError> {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("stop {node}"), async {
            self.kill(node);
            Ok(())
        })
        .await
    }

    async fn forget_instance(&self, node: &str) -> Result<(), ProviderError> {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("forget {node}"), async {
            let mut state = self.state.lock();
            if state.machines.get(node).is_some_and(|m| m.state != InstanceState::Dead) {
                return Err(ProviderError::Occupied(node.to_owned()));
            }
            state.machines.remove(node);
            state.scratch.remove(node);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Provider for Machines {
    fn name(&self) -> &'static str {
        "test"
    }

    fn zones(&self) -> Vec<String> {
        vec!["local".into()]
    }

    fn template(&self, _outputs: &BTreeMap<String, String>) -> Option<String> {
        self.state.lock().template.clone()
    }

    fn pace(&self) -> Pace {
        Pace {
            // Agents of tests that do not register are meant to be waited for.
            registration: Duration::from_secs(600),
            stop: Duration::from_secs(30),
            look: None,
            lag: Duration::ZERO,
        }
    }

    async fn describe(&self) -> Result<World, ProviderError> {
        let state = self.state.lock();
        Ok(World {
            instances: state
                .machines
                .iter()
                .map(|(node, m)| (node.clone(), instance(node, m)))
                .collect(),
            disks: state
                .disks
                .iter()
                .map(|(name, s)| (name.clone(), facts(name, s)))
                .collect(),
            ..World::default()
        })
    }

    fn changes(&self) -> BoxStream<'static, String> {
        let receiver = self.changes.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await.ok()?, receiver))
        })
        .boxed()
    }

    async fn shutdown(&self, _stop_nodes: bool) {}
}
