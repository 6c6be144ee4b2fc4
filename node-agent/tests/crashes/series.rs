//! Series of kills on one volume each.

use super::{
    agents::{Agents, Callers},
    checks,
    history::{Done, Outcome, possible},
    operations::{Draw, Drawn, GROUPS, Operation, PREFIX, SEEDS, add, create, named, restore_of, take_up},
    orphans,
    world::{Content, Seeds, World},
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
use tokio::task::JoinSet;

/// Kills in all, unless `GRAPHPLANE_CRASH_RUNS` says another number; each group of operations has its part, in whole
/// series.
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
    let mut node = Node::start(seed, group).await;
    node.prepare().await;
    for run in 1..=KILLS {
        node.run = run;
        node.cut_off(group).await;
    }
    node.publish_again().await;
    node.restore_everything().await;
    node.end().await;
}

/// Does every operation without a kill: one that is never acknowledged would show nothing when it is cut off.
pub(crate) async fn rehearse(operations: &[Operation]) {
    let seed = number("GRAPHPLANE_SEED").unwrap_or_else(|| random::<u32>().into());
    let mut node = Node::start(seed, operations).await;
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
    node.publish_again().await;
    node.restore_everything().await;
    node.end().await;
}

/// Agents with their volumes, and what is known of them.
struct Node {
    seed: u64,
    agents: Agents,
    draw: Draw,
    /// All worlds that this may be.
    worlds: BTreeSet<World>,
    /// Operations since the worlds were last compared with what is there.
    done: Vec<Done>,
    clock: Arc<AtomicUsize>,
    /// How many times something was cut off, with the present one.
    run: usize,
    /// All that was done, with what came of it.
    history: Vec<String>,
}

/// Says how to see a failure again, and what led to it. What was found is in the failure's own message.
impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let (seed, run, history) = (self.seed, self.run, self.history.join("\n  "));
        eprintln!(
            "repeat this with GRAPHPLANE_SEED={seed}; it failed in or after run {run} of {KILLS}\nwhat was done:\n  \
             {history}\nsince the last comparison: {:#?}\n{}",
            self.done,
            self.agents.logs(),
        );
    }
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
    async fn start(seed: u64, operations: &[Operation]) -> Self {
        let followed = |operation: &Operation| SEEDS.iter().any(|known| known.name == operation.name);
        let with_replica = operations.iter().any(followed);
        let agents = Agents::start(with_replica).await;
        let world = World {
            seeds: with_replica.then(Seeds::default),
            ..World::default()
        };
        Self {
            seed,
            draw: Draw::new(seed, &agents.import()),
            agents,
            worlds: BTreeSet::from([world]),
            done: Vec::new(),
            clock: Arc::default(),
            run: 0,
            history: Vec::new(),
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
            "build vectors",
            "backup",
        ] {
            let drawn = self.draw(&named(name)).unwrap();
            self.done_well(name, drawn).await;
        }
        for name in ["publish", "seed swap"] {
            if let Some(drawn) = self.draw(&named(name)) {
                self.done_well(name, drawn).await;
            }
        }
    }

    fn draw(&mut self, operation: &Operation) -> Option<Drawn> {
        (operation.draw)(&mut self.draw, self.worlds.first().unwrap())
    }

    /// Does something alone, which has to succeed.
    async fn done_well(&mut self, name: &'static str, drawn: Drawn) {
        let done = act(&self.agents.callers, &self.clock, name, drawn).await;
        self.history.push(format!("{done:?}"));
        assert_eq!(done.outcome, Outcome::Acknowledged, "{done:?}");
        let worlds = possible(&self.worlds, std::slice::from_ref(&done));
        assert!(!worlds.is_empty(), "{done:?} cannot happen in {:#?}", self.worlds);
        self.worlds = worlds;
    }

    /// Kills in the middle of an operation of the group, with others beside it.
    async fn cut_off(&mut self, group: &'static [Operation]) {
        let (victim, drawn) = loop {
            let operation = self.draw.pick(group).unwrap();
            if let Some(drawn) = self.draw(operation) {
                break (operation, drawn);
            }
            // What it needs is made by other operations, and mostly by those of its group.
            let others = match self.draw.below(2) {
                0 => group.to_vec(),
                _ => GROUPS.concat(),
            };
            let other = self.draw.pick(others).unwrap();
            if let Some(drawn) = self.draw(&other) {
                self.done_well(other.name, drawn).await;
            }
        };
        let killed = drawn.victim;
        let (volume, outside) = (self.agents.volume(killed), self.agents.outside());
        let moment = Moment::draw(&mut self.draw, victim, &volume, outside);
        let what = format!("run {}: {killed:?} killed in {}, {moment}", self.run, victim.name);
        self.history.push(what);
        let mut lanes = JoinSet::new();
        for _ in 0..self.draw.below(3) {
            let mut lane = Vec::new();
            for _ in 0..=self.draw.below(2) {
                let other = *self.draw.pick(GROUPS.concat().iter()).unwrap();
                lane.extend(self.draw(&other).map(|drawn| (other.name, drawn)));
            }
            let (callers, clock) = (self.agents.callers.clone(), Arc::clone(&self.clock));
            lanes.spawn(async move {
                let mut done = Vec::new();
                for (name, drawn) in lane {
                    done.push(act(&callers, &clock, name, drawn).await);
                }
                done
            });
        }
        let (callers, clock) = (self.agents.callers.clone(), Arc::clone(&self.clock));
        let cut = tokio::spawn(async move { act(&callers, &clock, victim.name, drawn).await });
        moment.wait(|| cut.is_finished()).await;
        self.agents.kill(killed);
        self.done.push(cut.await.unwrap());
        self.done.extend(lanes.join_all().await.into_iter().flatten());
        self.restart().await;
    }

    /// Kills, starts again, and checks everything.
    async fn restart(&mut self) {
        let served = self.agents.restart().await;
        self.compare(served.as_ref()).await;
        if served.is_some() {
            // It looks by itself after a start; from here on there is nothing that it has not taken up.
            self.done_well("take up what is published", take_up()).await;
        }
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

    async fn compare(&mut self, served: Option<&Content>) {
        let (caller, store) = (&self.agents.callers.writer, self.agents.store());
        self.worlds = checks::explained(caller, &store, served, &self.worlds, &self.done).await;
        self.history.extend(self.done.drain(..).map(|done| format!("{done:?}")));
    }

    /// A publication removes what those before it left that were cut off.
    async fn publish_again(&mut self) {
        let Some(drawn) = self.draw(&named("publish")) else {
            return;
        };
        self.done_well("publish again", drawn).await;
        self.done_well("take up what is published", take_up()).await;
        let halves = orphans::half_seeds(&self.agents.store().join(PREFIX));
        assert!(halves.is_empty(), "halves of seeds are left: {halves:?}");
    }

    /// Every backup is what it was a backup of.
    async fn restore_everything(&mut self) {
        let keys: Vec<String> = self.worlds.first().unwrap().backups.keys().cloned().collect();
        for key in keys {
            let drawn = restore_of(&mut self.draw, &key);
            self.done_well("restore as new", drawn).await;
        }
        let served = self.agents.served().await;
        self.compare(served.as_ref()).await;
    }

    /// SIGTERM is obeyed, too.
    async fn end(mut self) {
        self.agents.terminate().await;
    }
}

async fn act(callers: &Callers, clock: &AtomicUsize, name: &'static str, drawn: Drawn) -> Done {
    let Drawn { steps, victim, call } = drawn;
    let caller = callers.of(victim);
    let (began, started) = (clock.fetch_add(1, Ordering::SeqCst), Instant::now());
    let outcome = match call(caller.clone()).await {
        Ok(_) => {
            took(name, started.elapsed().as_secs_f64());
            Outcome::Acknowledged
        }
        Err(outcome) => outcome,
    };
    Done {
        name,
        request: caller.asked(),
        steps,
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

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(pause) => write!(f, "after {pause:?}"),
            Self::Appears {
                directory, prefix, and, ..
            } => write!(
                f,
                "{and:?} after {} appeared",
                directory.join(format!("{prefix}*")).display()
            ),
        }
    }
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
