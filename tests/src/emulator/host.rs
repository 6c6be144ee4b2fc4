//! The machines: for each running instance of moto with our tags the real node agent, started as the instance's user data
//! says, with a directory for each volume. An instance has its private address, which is one of the loopback network here.

use super::cloud::Cloud;
use super::machine::{Machine, Place};
use super::proxy::Proxy;
use super::user_data::Settings;
use super::xml::Element;
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The tag that everything of ours has.
pub const CLUSTER: &str = "graphplane.dev/cluster";

/// How long a machine that is terminated may take to stop.
const GRACE: Duration = Duration::from_secs(60);

/// How long systemd waits before it starts an agent again.
const RESTART: Duration = Duration::from_secs(1);

/// What happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its agent's process was started.
    Started,
    /// The volume has this epoch.
    Epoch(u64),
    /// The process has ended.
    Ended,
}

/// An event of a machine.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, in the time of the proxy's log.
    pub at: Duration,
    /// The instance.
    pub instance: String,
    /// The volume that it writes; none for a replica.
    pub volume: Option<String>,
    /// What happened.
    pub what: What,
}

struct Inner {
    place: Place,
    machines: BTreeMap<String, Machine>,
    events: Vec<Event>,
}

/// The computer that all machines run on. Dropping it ends their processes.
pub struct Host {
    inner: Arc<Mutex<Inner>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A volume as moto has it.
struct Volume {
    snapshot: String,
    instance: String,
}

impl Host {
    /// Looks at moto from now on, and keeps its files below `root`.
    pub fn start(root: &Path, cloud: &Cloud, proxy: &Proxy, metadata: String) -> Self {
        for folder in ["volumes", "snapshots", "machines"] {
            fs::create_dir_all(root.join(folder)).expect("a folder can be made");
        }
        let inner = Arc::new(Mutex::new(Inner {
            place: Place {
                root: root.to_owned(),
                cloud: cloud.clone(),
                proxy: proxy.clone(),
                metadata,
            },
            machines: BTreeMap::new(),
            events: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (looked, told) = (inner.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                looked.lock().tick();
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            inner,
            stop,
            thread: Some(thread),
        }
    }

    /// The machine dies: its process at once, the instance in moto after it.
    pub fn kill_instance(&self, id: &str) {
        let mut inner = self.inner.lock();
        if let Some(machine) = inner.machines.get_mut(id) {
            machine.signal(Signal::KILL);
            if let Some(child) = &mut machine.child {
                let _ = child.wait();
            }
        }
        inner.reap();
        inner
            .place
            .cloud
            .ask("ec2", "TerminateInstances", &[("InstanceId.1", id)]);
    }

    /// Instances with a process that runs.
    pub fn running(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let alive = inner.machines.iter().filter(|(_, machine)| machine.child.is_some());
        alive.map(|(id, _)| id.clone()).collect()
    }

    /// Everything that happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.inner.lock().events.clone()
    }

    /// The ends of all agents' logs, for messages.
    pub fn logs(&self) -> String {
        let inner = self.inner.lock();
        let end = |id: &String| {
            let log = fs::read_to_string(inner.place.machine(id, "log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{id}:\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        inner.machines.keys().map(end).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for machine in self.inner.lock().machines.values_mut() {
            if let Some(child) = &mut machine.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Inner {
    fn note(&mut self, instance: &str, what: What) {
        let volume = self
            .machines
            .get(instance)
            .and_then(|machine| machine.settings.volume());
        self.events.push(Event {
            at: self.place.proxy.now(),
            instance: instance.to_owned(),
            volume,
            what,
        });
    }

    /// One look at the world.
    fn tick(&mut self) {
        self.reap();
        // Snapshots are listed after volumes: what was deleted by then has left the snapshot that it was saved to.
        let volumes = self.volumes();
        self.save_snapshots();
        self.keep_volumes(&volumes);
        let instances = self.tagged("DescribeInstances");
        let instances: Vec<&Element> = instances
            .all("instancesSet")
            .into_iter()
            .flat_map(|set| set.children.iter())
            .collect();
        let mut running = Vec::new();
        for instance in instances {
            if instance.text_of(&["instanceState", "name"]) == "running" {
                running.push(instance.text_of(&["instanceId"]).to_owned());
                self.meet(instance);
            }
        }
        for id in self.machines.keys().cloned().collect::<Vec<_>>() {
            if running.contains(&id) {
                self.run(&id, &volumes);
            } else {
                self.end(&id);
            }
        }
        self.read_epochs();
    }

    fn tagged(&self, action: &str) -> Element {
        self.place.cloud.ask(
            "ec2",
            action,
            &[("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", CLUSTER)],
        )
    }

    fn volumes(&self) -> BTreeMap<String, Volume> {
        let found = self.tagged("DescribeVolumes");
        let set = found.child("volumeSet").map_or(&[][..], |set| set.children.as_slice());
        set.iter()
            .map(|volume| {
                let facts = Volume {
                    snapshot: volume.text_of(&["snapshotId"]).to_owned(),
                    instance: volume.text_of(&["attachmentSet", "item", "instanceId"]).to_owned(),
                };
                (volume.text_of(&["volumeId"]).to_owned(), facts)
            })
            .collect()
    }

    /// A snapshot has what the volume had at that moment: its writer stands still while it is copied.
    fn save_snapshots(&mut self) {
        let found = self.tagged("DescribeSnapshots");
        for snapshot in found
            .child("snapshotSet")
            .map_or(&[][..], |set| set.children.as_slice())
        {
            let (id, volume) = (snapshot.text_of(&["snapshotId"]), snapshot.text_of(&["volumeId"]));
            let (to, from) = (self.place.root.join("snapshots").join(id), self.place.volume(volume));
            if to.exists() || !from.exists() {
                continue;
            }
            let of_volume = |machine: &&Machine| machine.settings.volume().as_deref() == Some(volume);
            let writer = self.machines.values().find(of_volume);
            if let Some(machine) = writer {
                machine.signal(Signal::STOP);
            }
            copy(&from, &to);
            if let Some(machine) = writer {
                machine.signal(Signal::CONT);
            }
        }
    }

    /// Directories of volumes come and go with them.
    fn keep_volumes(&self, volumes: &BTreeMap<String, Volume>) {
        for (id, volume) in volumes {
            let (folder, seed) = (
                self.place.volume(id),
                self.place.root.join("snapshots").join(&volume.snapshot),
            );
            if folder.exists() {
                continue;
            }
            if !volume.snapshot.is_empty() && seed.exists() {
                copy(&seed, &folder);
            } else {
                fs::create_dir(&folder).expect("a folder can be made");
            }
        }
        for entry in fs::read_dir(self.place.root.join("volumes"))
            .expect("a folder can be listed")
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !volumes.contains_key(&name) && !self.busy(&name) {
                fs::remove_dir_all(entry.path()).expect("a folder can be removed");
            }
        }
    }

    /// Whether a process still has the volume.
    fn busy(&self, volume: &str) -> bool {
        let has = |machine: &Machine| machine.child.is_some() && machine.settings.volume().as_deref() == Some(volume);
        self.machines.values().any(has)
    }

    /// A machine that was not seen before reads its user data.
    fn meet(&mut self, instance: &Element) {
        let id = instance.text_of(&["instanceId"]);
        if self.machines.contains_key(id) {
            return;
        }
        let attribute = [("InstanceId", id), ("Attribute", "userData")];
        let found = self.place.cloud.ask("ec2", "DescribeInstanceAttribute", &attribute);
        let data = STANDARD
            .decode(found.text_of(&["userData", "value"]))
            .expect("user data are base64");
        let settings = Settings::read(&String::from_utf8(data).expect("user data are text"));
        let machine = Machine::new(settings, instance.text_of(&["privateIpAddress"]));
        self.machines.insert(id.to_owned(), machine);
    }

    /// What the boot script and systemd do: wait for the volume, start the agent, start it again when it ends.
    fn run(&mut self, id: &str, volumes: &BTreeMap<String, Volume>) {
        let machine = &self.machines[id];
        let attached = match machine.settings.volume() {
            Some(volume) => volumes.get(&volume).is_some_and(|found| found.instance == id),
            None => true,
        };
        if machine.child.is_some() {
            if !attached {
                // Its disk went away below it.
                machine.signal(Signal::KILL);
            }
            return;
        }
        let volume_free = machine.settings.volume().is_none_or(|volume| !self.busy(&volume));
        if !attached || !volume_free || machine.ended.is_some_and(|at| at.elapsed() < RESTART) {
            return;
        }
        let child = self.machines[id].start(id, &self.place);
        self.place.proxy.set(|knobs| {
            knobs.busy.insert(id.to_owned());
        });
        self.machines.get_mut(id).expect("it was met").child = Some(child);
        self.note(id, What::Started);
    }

    /// A machine that is to end: first it is asked, then it is killed.
    fn end(&mut self, id: &str) {
        let Some(machine) = self.machines.get_mut(id).filter(|machine| machine.child.is_some()) else {
            return;
        };
        match machine.stopping {
            None => {
                machine.signal(Signal::TERM);
                machine.stopping = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => machine.signal(Signal::KILL),
            Some(_) => {}
        }
    }

    fn reap(&mut self) {
        let mut ended = Vec::new();
        for (id, machine) in &mut self.machines {
            let exit = machine.child.as_mut().and_then(|child| child.try_wait().ok()).flatten();
            if exit.is_some() {
                machine.child = None;
                machine.ended = Some(Instant::now());
                ended.push(id.clone());
            }
        }
        for id in ended {
            self.note(&id, What::Ended);
            self.place.proxy.set(|knobs| {
                knobs.busy.remove(&id);
            });
        }
    }

    fn read_epochs(&mut self) {
        let writers: Vec<(String, String)> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.child.is_some())
            .filter_map(|(id, machine)| Some((id.clone(), machine.settings.volume()?)))
            .collect();
        for (id, volume) in writers {
            let text = fs::read_to_string(self.place.volume(&volume).join("epoch")).unwrap_or_default();
            let epoch = text.trim().parse().unwrap_or(0);
            let machine = self.machines.get_mut(&id).expect("it was listed");
            if epoch != machine.epoch {
                machine.epoch = epoch;
                self.note(&id, What::Epoch(epoch));
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let part = to.with_extension("part");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(&part)
        .status()
        .expect("cp starts");
    assert!(copied.success(), "{} cannot be copied", from.display());
    fs::rename(part, to).expect("a folder can be renamed");
}
