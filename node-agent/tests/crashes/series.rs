//! Series of kills on one volume each.

use super::{
    caller::Caller,
    checks,
    fixture::Agent,
    history::{Done, Outcome, possible},
    operations::{Draw, Drawn, GROUPS, Operation, add, create, restore_of},
    world::World,
};
use futures::{StreamExt, stream};
use rand::random;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Kills in all, unless `GRAPHPLANE_CRASH_RUNS` says another number; each group of operations has its part.
const RUNS: usize = 200;
/// Kills on one volume.
const KILLS: usize = 5;
/// Volumes of one group at the same time. They mostly wait for disks.
const TOGETHER: usize = 2;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Kills in the middle of these operations, or one series of them again.
pub(crate) async fn all(group: &'static [Operation]) {
    let runs = number("GRAPHPLANE_CRASH_RUNS").map_or(RUNS, |runs| runs as usize);
    let series = runs.div_ceil(GROUPS.len()).div_ceil(KILLS);
    let seeds: Vec<u64> = match number("GRAPHPLANE_SEED") {
        Some(seed) => vec![seed],
        None => (0..series).map(|_| random::<u32>().into()).collect(),
    };
    let started = stream::iter(seeds).map(|seed| tokio::spawn(one(seed, group)));
    let mut series = started.buffer_unordered(TOGETHER);
    while let Some(ended) = series.next().await {
        ended.unwrap();
    }
}

async fn one(seed: u64, group: &'static [Operation]) {
    let _told = Told(seed);
    let mut node = Node::start(seed).await;
    node.prepare().await;
    for _ in 0..KILLS {
        node.cut_off(group).await;
    }
    node.restore_everything().await;
    node.end().await;
}

/// Does every operation without a kill: one that is never acknowledged would show nothing when it is cut off.
pub(crate) async fn rehearse(operations: &[Operation]) {
    let seed = number("GRAPHPLANE_SEED").unwrap_or_else(|| random::<u32>().into());
    let _told = Told(seed);
    let mut node = Node::start(seed).await;
    node.prepare().await;
    let mut left: BTreeSet<&str> = operations.iter().map(|operation| operation.name).collect();
    for _ in 0..100 {
        // Some need what others make, and yet others take that away again.
        for operation in operations {
            if let Some(drawn) = node.draw(operation) {
                node.done_well(operation.name, drawn).await;
                left.remove(operation.name);
            }
        }
        if left.is_empty() {
            break;
        }
    }
    assert!(left.is_empty(), "these found nothing to do: {left:?}");
    node.restart().await;
    node.restore_everything().await;
    node.end().await;
}

/// Says how to see a failure again.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat this with GRAPHPLANE_SEED={}", self.0);
        }
    }
}

/// One agent on one volume, and what is known of it.
struct Node {
    agent: Agent,
    caller: Caller,
    draw: Draw,
    /// All worlds that this may be.
    worlds: BTreeSet<World>,
    /// Operations since the worlds were last compared with what is there.
    done: Vec<Done>,
    clock: Arc<AtomicUsize>,
    outside: TempDir,
}

/// How long operations take when nothing cuts them off, in seconds.
static USUAL: Mutex<Option<HashMap<&str, f64>>> = Mutex::new(None);

fn usual(name: &'static str) -> f64 {
    *USUAL.lock().unwrap().get_or_insert_default().entry(name).or_insert(0.1)
}

fn took(name: &'static str, seconds: f64) {
    let mut usual = USUAL.lock().unwrap();
    let before = usual.get_or_insert_default().entry(name).or_insert(seconds);
    *before = (*before + seconds) / 2.0;
}

impl Node {
    async fn start(seed: u64) -> Self {
        let outside = TempDir::new().unwrap();
        let import = outside.path().join("import");
        std::fs::create_dir(&import).unwrap();
        let import = import.display().to_string();
        let more = [
            "--import-dir",
            &import,
            "--max-databases",
            "100",
            "--memory-mib",
            "4096",
        ];
        let memory = ["--memory-per-database-mib", "64"];
        let agent = Agent::with_store(outside.path(), &[&more[..], &memory].concat()).await;
        Self {
            caller: Caller::of(&agent),
            agent,
            draw: Draw::new(seed, Path::new(&import)),
            worlds: BTreeSet::from([World::default()]),
            done: Vec::new(),
            clock: Arc::default(),
            outside,
        }
    }

    /// Some databases, data and a backup, so that there is something to lose.
    async fn prepare(&mut self) {
        let make: [fn(&mut Draw, &World) -> Option<Drawn>; 4] = [create, create, add, add];
        for make in make {
            let drawn = make(&mut self.draw, self.worlds.first().unwrap()).unwrap();
            self.done_well("preparation", drawn).await;
        }
        for name in [
            "upload people",
            "upload people",
            "materialise people",
            "upload links",
            "backup",
        ] {
            let operation = GROUPS
                .iter()
                .copied()
                .flatten()
                .find(|operation| operation.name == name)
                .unwrap();
            let drawn = self.draw(operation).unwrap();
            self.done_well(name, drawn).await;
        }
    }

    fn draw(&mut self, operation: &Operation) -> Option<Drawn> {
        (operation.draw)(&mut self.draw, self.worlds.first().unwrap())
    }

    /// Does something alone, which has to succeed.
    async fn done_well(&mut self, name: &'static str, drawn: Drawn) {
        let done = act(&self.caller, &self.clock, name, drawn).await;
        assert_eq!(done.outcome, Outcome::Acknowledged, "{name}");
        self.worlds = possible(&self.worlds, std::slice::from_ref(&done));
        self.done.push(done);
        assert!(!self.worlds.is_empty(), "{:#?}", self.done);
        self.done.clear();
    }

    /// Kills in the middle of an operation of the group, with others beside it.
    async fn cut_off(&mut self, group: &'static [Operation]) {
        let (victim, drawn) = loop {
            let operation = self.draw.pick(group).unwrap();
            if let Some(drawn) = self.draw(operation) {
                break (operation, drawn);
            }
            // What it needs is made by other operations.
            let other = *self.draw.pick(GROUPS.concat().iter()).unwrap();
            if let Some(drawn) = self.draw(&other) {
                self.done_well(other.name, drawn).await;
            }
        };
        let moment = Moment::draw(&mut self.draw, victim, &self.agent.volume(), self.outside.path());
        let mut lanes = JoinSet::new();
        for _ in 0..self.draw.below(3) {
            let mut lane = Vec::new();
            for _ in 0..=self.draw.below(2) {
                let other = *self.draw.pick(GROUPS.concat().iter()).unwrap();
                lane.extend(self.draw(&other).map(|drawn| (other.name, drawn)));
            }
            let (caller, clock) = (self.caller.clone(), Arc::clone(&self.clock));
            lanes.spawn(async move {
                let mut done = Vec::new();
                for (name, drawn) in lane {
                    done.push(act(&caller, &clock, name, drawn).await);
                }
                done
            });
        }
        let (caller, clock) = (self.caller.clone(), Arc::clone(&self.clock));
        let cut = tokio::spawn(async move { act(&caller, &clock, victim.name, drawn).await });
        moment.wait(|| cut.is_finished()).await;
        self.agent.kill();
        self.done.push(cut.await.unwrap());
        self.done.extend(lanes.join_all().await.into_iter().flatten());
        self.restart().await;
    }

    /// Kills, starts again, and checks everything.
    async fn restart(&mut self) {
        self.agent.restart_after_kill().await;
        self.caller = Caller::of(&self.agent);
        checks::after_start(&self.agent, &self.caller).await;
        self.compare().await;
        let databases: Vec<String> = self.worlds.first().unwrap().databases.keys().cloned().collect();
        for id in databases {
            let only = |world: &World| World {
                databases: world
                    .databases
                    .clone()
                    .into_iter()
                    .filter(|(other, _)| *other == id)
                    .collect(),
                ..World::default()
            };
            let drawn = add(&mut self.draw, &only(self.worlds.first().unwrap())).unwrap();
            self.done_well("a write after the start", drawn).await;
        }
    }

    async fn compare(&mut self) {
        let store = self.outside.path().join("objects");
        self.worlds = checks::explained(&self.caller, &store, &self.worlds, &self.done).await;
        self.done.clear();
    }

    /// Every backup is what it was a backup of.
    async fn restore_everything(&mut self) {
        let keys: Vec<String> = self.worlds.first().unwrap().backups.keys().cloned().collect();
        for key in keys {
            let drawn = restore_of(&mut self.draw, &key);
            self.done_well("restore as new", drawn).await;
        }
        self.compare().await;
    }

    /// SIGTERM is obeyed, too.
    async fn end(mut self) {
        let status = self.agent.terminate().await;
        assert!(status.success(), "{status}");
    }
}

async fn act(caller: &Caller, clock: &AtomicUsize, name: &'static str, drawn: Drawn) -> Done {
    let (began, started) = (clock.fetch_add(1, Ordering::SeqCst), Instant::now());
    let outcome = match (drawn.call)(caller.clone()).await {
        Ok(_) => {
            took(name, started.elapsed().as_secs_f64());
            Outcome::Acknowledged
        }
        Err(outcome) => outcome,
    };
    Done {
        name,
        steps: drawn.steps,
        outcome,
        began,
        ended: clock.fetch_add(1, Ordering::SeqCst),
    }
}

/// When to kill: after some time, or when a file appears.
enum Moment {
    After(Duration),
    Appears {
        directory: PathBuf,
        prefix: &'static str,
        before: HashSet<String>,
        and: Duration,
    },
}

impl Moment {
    fn draw(draw: &mut Draw, operation: &Operation, volume: &Path, outside: &Path) -> Self {
        let usual = usual(operation.name);
        match draw.pick(operation.marks.iter().copied()) {
            Some((directory, prefix)) if draw.below(2) == 0 => {
                let root = if directory.starts_with("objects") {
                    outside
                } else {
                    volume
                };
                let directory = root.join(directory);
                Self::Appears {
                    before: names(&directory),
                    directory,
                    prefix,
                    // At once, or a little later.
                    and: Duration::from_secs_f64((draw.fraction() - 0.5).max(0.0) * 0.2 * usual),
                }
            }
            _ => Self::After(Duration::from_secs_f64(draw.fraction() * 1.1 * usual)),
        }
    }

    /// Waits for the moment, or for the end of the operation.
    async fn wait(self, over: impl Fn() -> bool) {
        let pause = match &self {
            Self::After(pause) => *pause,
            Self::Appears {
                directory,
                prefix,
                before,
                and,
            } => {
                let appeared = || {
                    let mut names = names(directory).into_iter();
                    names.any(|name| name.starts_with(prefix) && !before.contains(&name))
                };
                while !over() && !appeared() {
                    // Some live for less than a millisecond, which is the least that the timer knows.
                    std::thread::sleep(Duration::from_micros(50));
                    tokio::task::yield_now().await;
                }
                *and
            }
        };
        let until = Instant::now() + pause;
        while !over() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn names(directory: &Path) -> HashSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
