//! The agents of a series: a writer, and where seeds are among the operations a replica that follows it.

use super::{
    caller::Caller,
    checks,
    fixture::{Agent, eventually},
    observed,
    operations::{PREFIX, SEEDED, Victim},
    world::Content,
};
use reqwest::Method;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Lines of a log that a failure shows.
const LINES: usize = 60;

pub(crate) struct Agents {
    writer: Agent,
    replica: Option<Agent>,
    pub callers: Callers,
    outside: TempDir,
}

/// A caller of each agent.
#[derive(Clone)]
pub(crate) struct Callers {
    pub writer: Caller,
    replica: Option<Caller>,
}

impl Callers {
    /// For one operation.
    pub(crate) fn of(&self, victim: Victim) -> Caller {
        match victim {
            Victim::Writer => self.writer.remembering(),
            Victim::Replica => self.replica.as_ref().unwrap().remembering(),
        }
    }
}

impl Agents {
    pub(crate) async fn start(with_replica: bool) -> Self {
        let outside = TempDir::new().unwrap();
        let import = outside.path().join("import");
        fs::create_dir(&import).unwrap();
        let import = import.display().to_string();
        let more = [
            "--import-dir",
            &import,
            "--max-databases",
            "100",
            "--memory-mib",
            "4096",
            "--memory-per-database-mib",
            "64",
        ];
        let writer = Agent::with_store(outside.path(), &more).await;
        let follow = ["--role", "replica", "--seed", PREFIX, "--seed-poll-seconds", "86400"];
        let replica = match with_replica {
            true => Some(Agent::with_store(outside.path(), &follow).await),
            false => None,
        };
        Self {
            callers: Callers {
                writer: Caller::of(&writer),
                replica: replica.as_ref().map(Caller::of),
            },
            writer,
            replica,
            outside,
        }
    }

    /// Where there are a directory to import from and the object store.
    pub(crate) fn outside(&self) -> &Path {
        self.outside.path()
    }

    pub(crate) fn import(&self) -> PathBuf {
        self.outside().join("import")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.outside().join("objects")
    }

    pub(crate) fn volume(&self, of: Victim) -> PathBuf {
        match of {
            Victim::Writer => self.writer.volume(),
            Victim::Replica => self.replica.as_ref().unwrap().volume(),
        }
    }

    pub(crate) fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Writer => self.writer.kill(),
            Victim::Replica => self.replica.as_mut().unwrap().kill(),
        }
    }

    /// Kills all that still run, starts them again, and checks their files and tasks. Gives what the replica serves.
    pub(crate) async fn restart(&mut self) -> Option<Content> {
        self.writer.kill();
        let served = self.restart_replica().await;
        self.writer.spawn().await;
        self.callers.writer = Caller::of(&self.writer);
        checks::after_start(&self.writer, &self.callers.writer).await;
        served
    }

    /// Without the object store: what the replica has on its volume is all that it has.
    async fn restart_replica(&mut self) -> Option<Content> {
        let (store, away) = (self.store(), self.outside().join("away"));
        let replica = self.replica.as_mut()?;
        replica.kill();
        fs::rename(&store, &away).unwrap();
        replica.spawn().await;
        let replica = &*replica;
        let caller = Caller::of(replica);
        let health = || async { replica.bare(Method::GET, "/health").send().await.unwrap().status() };
        eventually("the replica serves", health, |status| status.is_success()).await;
        let followed = replica.volume().join(PREFIX);
        let seeds = || async { fs::read_dir(&followed).unwrap().count() };
        // Before its files are looked at: one that goes is neither whole nor gone.
        eventually("one seed is left", seeds, |count| *count == 1).await;
        checks::after_start(replica, &caller).await;
        let served = observed::seed(&caller, SEEDED).await.unwrap();
        // The replica has made it anew, and empty.
        let _ = fs::remove_dir(&store);
        fs::rename(&away, &store).unwrap();
        self.callers.replica = Some(caller);
        Some(served)
    }

    /// What the replica serves.
    pub(crate) async fn served(&self) -> Option<Content> {
        let caller = self.callers.replica.as_ref()?;
        Some(observed::seed(caller, SEEDED).await.unwrap())
    }

    pub(crate) async fn terminate(&mut self) {
        for agent in std::iter::once(&mut self.writer).chain(&mut self.replica) {
            let status = agent.terminate().await;
            assert!(status.success(), "{status}");
        }
    }

    /// The ends of the logs.
    pub(crate) fn logs(&self) -> String {
        let end = |(name, agent): (&str, &Agent)| {
            let log = agent.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
            format!("the end of the {name}'s log:\n  {last}\n")
        };
        let replica = self.replica.as_ref().map(|replica| ("replica", replica));
        std::iter::once(("writer", &self.writer))
            .chain(replica)
            .map(end)
            .collect()
    }
}
