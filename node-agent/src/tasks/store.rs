//! All tasks of an agent: on disk, in memory, and at work.

use super::asked::{Asked, audit};
use super::record::{Interruption, TaskRecord, TaskStatus, TaskType, timestamp};
use crate::engines::TableName;
use crate::http::on_volume;
use crate::metrics::{Histograms, TaskLabels};
use crate::registration::Standing;
use crate::registration::files::{FileError, write_atomically};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Which finished tasks are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long, unless there are more than `most`.
    pub time: Duration,
    /// How many; beyond this number the oldest are forgotten.
    pub most: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(24 * 3600),
            most: 1000,
        }
    }
}

/// How the name of a file ends that belongs to a task, beside its record.
const ATTACHED: &str = "attached";

/// A request about a task that cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// There is no such task, or it finished so long ago that it was forgotten.
    #[error("Task {0} not found; finished tasks are forgotten after some time")]
    NotFound(String),
    /// It has ended already.
    #[error("Task {id} is {status} already")]
    Final {
        /// Which task.
        id: String,
        /// How it ended.
        status: &'static str,
    },
    /// The agent is about to stop.
    #[error("The node is shutting down and takes no new tasks")]
    Stopping,
    /// The record could not be written.
    #[error("the task could not be recorded: {0}")]
    Disk(#[from] FileError),
}

/// Counts for `GET /tasks/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStats {
    /// All tasks that are remembered.
    pub total: usize,
    /// By status.
    pub by_status: BTreeMap<&'static str, usize>,
    /// By type.
    pub by_type: BTreeMap<&'static str, usize>,
}

/// A task to start.
#[derive(Debug)]
pub struct TaskHandle {
    /// Its id.
    pub id: String,
    /// Its state, now and whenever it changes.
    pub state: watch::Receiver<TaskRecord>,
}

struct Entry {
    state: watch::Sender<TaskRecord>,
    cancel: CancellationToken,
    /// Why `cancel` was called: what the record will say.
    reason: Mutex<Option<Interruption>>,
}

struct Inner {
    dir: PathBuf,
    retention: Retention,
    entries: RwLock<HashMap<String, Arc<Entry>>>,
    work: TaskTracker,
    durations: OnceLock<Histograms<TaskLabels>>,
    standing: OnceLock<Standing>,
}

/// The tasks of one agent. Cheap to clone.
#[derive(Clone)]
pub struct TaskStore(Arc<Inner>);

impl std::fmt::Debug for TaskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskStore")
            .field("dir", &self.0.dir)
            .finish_non_exhaustive()
    }
}

/// What a running task is given.
#[derive(Clone)]
pub struct TaskContext {
    entry: Arc<Entry>,
}

impl TaskContext {
    /// Cancelled when a caller or a shutdown wants the task to stop.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.entry.cancel
    }

    /// Reports progress. `total` of 0 means unknown.
    pub fn progress(&self, done: u64, total: u64) {
        self.entry.state.send_if_modified(|record| {
            let percent = if total == 0 {
                record.progress_percent
            } else {
                // 100 is kept for the end: what follows the last row (checkpoint, manifest) is part of the task.
                ((done as f64 / total as f64) * 100.0).clamp(0.0, 99.0).round()
            };
            let changed = record.records_processed != Some(done);
            record.records_processed = Some(done);
            record.estimated_size = (total > 0).then_some(total).or(record.estimated_size);
            record.progress_percent = percent.max(record.progress_percent);
            record.last_heartbeat = Some(timestamp());
            changed
        });
    }
}

impl TaskStore {
    /// Opens the directory, and marks as failed what was under way when the process ended.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, retention: Retention) -> Result<Self, TaskError> {
        let io = |action| {
            move |source| FileError::Io {
                action,
                path: dir.to_owned(),
                source,
            }
        };
        std::fs::create_dir_all(dir).map_err(io("create"))?;
        let mut entries = HashMap::new();
        for file in std::fs::read_dir(dir).map_err(io("list"))? {
            let path = file.map_err(io("list"))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                let attached = path.extension().is_some_and(|extension| extension == ATTACHED);
                if !attached || !dir.join(format!("{}.json", owner(&path))).is_file() {
                    // What a write left behind when the process was killed in its middle.
                    let _ = std::fs::remove_file(&path);
                }
                continue;
            }
            let mut record: TaskRecord = match std::fs::read(&path).map(|text| serde_json::from_slice(&text)) {
                Ok(Ok(record)) => record,
                Ok(Err(error)) => {
                    tracing::warn!(operation = "tasks", file = %path.display(), %error, "task record cannot be read, skipped");
                    continue;
                }
                Err(source) => {
                    return Err(FileError::Io {
                        action: "read",
                        path,
                        source,
                    }
                    .into());
                }
            };
            if !record.status.is_final() {
                record.error = Some(interrupted(&record));
                record.interrupted = Some(Interruption::Restart);
                record.status = TaskStatus::Failed;
                record.completed_at = Some(timestamp());
                write(dir, &record)?;
                audit(&record, None);
            }
            let cancel = CancellationToken::new();
            let (state, _) = watch::channel(record.clone());
            entries.insert(
                record.task_id,
                Arc::new(Entry {
                    state,
                    cancel,
                    reason: Mutex::new(None),
                }),
            );
        }
        let store = Self(Arc::new(Inner {
            dir: dir.to_owned(),
            retention,
            entries: RwLock::new(entries),
            work: TaskTracker::new(),
            durations: OnceLock::new(),
            standing: OnceLock::new(),
        }));
        store.forget_old();
        Ok(store)
    }

    /// Tells how long every task works from now on.
    pub fn measure(&self, durations: Histograms<TaskLabels>) {
        // A store has one owner with one set of figures; a second set would miss what the first has.
        let _ = self.0.durations.set(durations);
    }

    /// Learns from now on which tasks fail because the node has lost the right to write.
    pub fn follow(&self, standing: Standing) {
        // There is one node, as there is one store.
        let _ = self.0.standing.set(standing);
    }

    /// Records a task durably and starts it. `name` is the part of its id that tells what it is about; `turn` makes it
    /// wait, as pending, until others of its sort have finished. The work's error text goes into the record.
    ///
    /// # Errors
    /// When the record cannot be written (nothing has started then), or the agent is stopping.
    pub async fn start<F, W>(
        &self,
        task_type: TaskType,
        name: &str,
        metadata: Map<String, Value>,
        turn: Option<Arc<Semaphore>>,
        work: F,
    ) -> Result<TaskHandle, TaskError>
    where
        F: FnOnce(TaskContext) -> W + Send + 'static,
        W: Future<Output = Result<Value, String>> + Send + 'static,
    {
        if self.0.work.is_closed() {
            return Err(TaskError::Stopping);
        }
        let id = format!("{name}_{:08x}", rand::random::<u32>());
        let record = TaskRecord {
            task_id: id.clone(),
            task_type,
            status: TaskStatus::Pending,
            created_at: timestamp(),
            started_at: None,
            completed_at: None,
            progress_percent: 0.0,
            estimated_size: None,
            records_processed: None,
            last_heartbeat: None,
            error: None,
            interrupted: None,
            result: None,
            metadata,
        };
        self.persist(record.clone()).await?;
        let (state, receiver) = watch::channel(record);
        let entry = Arc::new(Entry {
            state,
            cancel: CancellationToken::new(),
            reason: Mutex::new(None),
        });
        self.0.entries.write().insert(id.clone(), entry.clone());
        self.forget_old();
        let store = self.clone();
        let asked = Asked::now();
        self.0
            .work
            .spawn(async move { store.run(entry, turn, work, asked).await });
        Ok(TaskHandle { id, state: receiver })
    }

    async fn run<F, W>(&self, entry: Arc<Entry>, turn: Option<Arc<Semaphore>>, work: F, asked: Option<Asked>)
    where
        F: FnOnce(TaskContext) -> W + Send + 'static,
        W: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let ends = self.0.standing.get().map(Standing::ends);
        let permit = match turn {
            None => None,
            Some(turn) => tokio::select! {
                permit = turn.acquire_owned() => permit.ok(),
                () = entry.cancel.cancelled() => None,
            },
        };
        let result = if entry.cancel.is_cancelled() {
            Err("cancelled before it started".to_owned())
        } else {
            entry.state.send_modify(|record| {
                record.status = TaskStatus::Running;
                record.started_at = Some(timestamp());
                record.last_heartbeat.clone_from(&record.started_at);
            });
            self.persist_or_log(&entry).await;
            // A task of its own, so that a panic fails this record instead of leaving it running for ever.
            match tokio::spawn(work(TaskContext { entry: entry.clone() })).await {
                Ok(result) => result,
                Err(error) => Err(format!("internal error: {error}")),
            }
        };
        drop(permit);
        let reason = *entry.reason.lock();
        // Decided on a copy and written first: a task is not shown as completed before a restart would show it so.
        let mut record = entry.state.borrow().clone();
        record.completed_at = Some(timestamp());
        match (result, reason) {
            (Ok(value), _) => {
                record.status = TaskStatus::Completed;
                record.progress_percent = 100.0;
                record.result = Some(value);
            }
            (Err(error), reason) => {
                let fenced = ends.is_some_and(|ends| ends.is_cancelled());
                record.interrupted = reason.or(fenced.then_some(Interruption::Fenced));
                (record.status, record.error) = match reason {
                    Some(Interruption::Request) => (TaskStatus::Cancelled, Some("cancelled by request".to_owned())),
                    Some(Interruption::Shutdown) => (
                        TaskStatus::Failed,
                        Some("interrupted by the node's shutdown".to_owned()),
                    ),
                    Some(Interruption::Restart | Interruption::Fenced) | None => (TaskStatus::Failed, Some(error)),
                };
            }
        }
        let duration = record.duration();
        if let Some(durations) = self.0.durations.get() {
            let labels = TaskLabels {
                task_type: record.task_type.as_str(),
                status: record.status.as_str(),
            };
            durations.get_or_create(&labels).observe(duration.as_secs_f64());
        }
        let duration_ms = duration.as_millis() as u64;
        tracing::info!(
            operation = record.task_type.as_str(),
            task = record.task_id,
            graph = record.metadata.get("graph_id").and_then(|graph| graph.as_str()),
            status = record.status.as_str(),
            error = record.error,
            duration_ms,
            "task ended"
        );
        audit(&record, asked.as_ref());
        // The log has the whole path.
        if let (Some(error), Some(data_dir)) = (&mut record.error, self.0.dir.parent()) {
            *error = on_volume(error, data_dir);
        }
        if let Err(error) = self.persist(record.clone()).await {
            tracing::error!(operation = "tasks", task = record.task_id, %error, "the end of a task could not be recorded");
        }
        entry.state.send_replace(record);
    }

    /// The present state of a task.
    ///
    /// # Errors
    /// When it is not known.
    pub fn get(&self, id: &str) -> Result<TaskRecord, TaskError> {
        Ok(self.entry(id)?.state.borrow().clone())
    }

    /// The state of a task, now and whenever it changes.
    ///
    /// # Errors
    /// When it is not known.
    pub fn subscribe(&self, id: &str) -> Result<watch::Receiver<TaskRecord>, TaskError> {
        Ok(self.entry(id)?.state.subscribe())
    }

    /// Asks a task to stop; it is `cancelled` once its work has let go.
    ///
    /// # Errors
    /// When it is not known, or has ended.
    pub fn cancel(&self, id: &str) -> Result<(), TaskError> {
        let entry = self.entry(id)?;
        let status = entry.state.borrow().status;
        if status.is_final() {
            return Err(TaskError::Final {
                id: id.to_owned(),
                status: status.as_str(),
            });
        }
        entry.reason.lock().get_or_insert(Interruption::Request);
        entry.cancel.cancel();
        Ok(())
    }

    /// Tasks, newest first.
    pub fn list(
        &self,
        status: Option<TaskStatus>,
        kind: Option<TaskType>,
        graph: Option<&str>,
        limit: usize,
    ) -> Vec<TaskRecord> {
        let mut records: Vec<TaskRecord> = self
            .0
            .entries
            .read()
            .values()
            .map(|entry| entry.state.borrow().clone())
            .filter(|record| status.is_none_or(|status| record.status == status))
            .filter(|record| kind.is_none_or(|kind| record.task_type == kind))
            .filter(|record| graph.is_none_or(|graph| record.says("graph_id", graph)))
            .collect();
        records.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.task_id.cmp(&a.task_id)));
        records.truncate(limit);
        records
    }

    /// The unfinished task with this metadata, if any: used to refuse a second load of the same table.
    pub fn find_unfinished(&self, kind: TaskType, metadata: &[(&str, &str)]) -> Option<String> {
        self.find(kind, metadata, |status| !status.is_final())
    }

    /// A task with this metadata and a status that fits, if any.
    pub fn find(&self, kind: TaskType, metadata: &[(&str, &str)], fits: impl Fn(TaskStatus) -> bool) -> Option<String> {
        self.0
            .entries
            .read()
            .values()
            .map(|entry| entry.state.borrow())
            .find_map(|record| {
                let same = record.task_type == kind
                    && fits(record.status)
                    && metadata.iter().all(|(key, value)| record.says(key, value));
                same.then(|| record.task_id.clone())
            })
    }

    /// Keeps a file about a table for as long as the task is remembered, in place of one that it has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn attach(&self, context: &TaskContext, table: &TableName, content: Vec<u8>) -> Result<(), TaskError> {
        let id = context.entry.state.borrow().task_id.clone();
        let path = self.attachment(&id, table);
        Ok(blocking(path.clone(), move || write_atomically(&path, &content, 0o600)).await?)
    }

    /// The file that a task keeps about a table, if it does.
    ///
    /// # Errors
    /// When the task is not known, or the file cannot be read.
    pub async fn attached(&self, id: &str, table: &TableName) -> Result<Option<Vec<u8>>, TaskError> {
        let id = self.get(id)?.task_id;
        let path = self.attachment(&id, table);
        let content = blocking(path.clone(), move || match std::fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Io {
                action: "read",
                path,
                source,
            }),
        });
        Ok(content.await?)
    }

    /// Counts by status and type.
    pub fn stats(&self) -> TaskStats {
        let mut stats = TaskStats::default();
        for entry in self.0.entries.read().values() {
            let record = entry.state.borrow();
            stats.total += 1;
            *stats.by_status.entry(record.status.as_str()).or_default() += 1;
            *stats.by_type.entry(record.task_type.as_str()).or_default() += 1;
        }
        stats
    }

    /// Takes no new tasks and waits for the running ones; those that are not done within `patience` are interrupted and
    /// recorded as failed.
    pub async fn shutdown(&self, patience: Duration) {
        self.0.work.close();
        if tokio::time::timeout(patience, self.0.work.wait()).await.is_ok() {
            return;
        }
        for entry in self.0.entries.read().values() {
            if !entry.state.borrow().status.is_final() {
                entry.reason.lock().get_or_insert(Interruption::Shutdown);
                entry.cancel.cancel();
            }
        }
        // Work that does not listen is abandoned; the next start records it as interrupted.
        let _ = tokio::time::timeout(Duration::from_secs(10), self.0.work.wait()).await;
    }

    /// The file of a task about a table. Both names together may be longer than those of files.
    fn attachment(&self, id: &str, table: &TableName) -> PathBuf {
        let digest = hex::encode(Sha256::digest(table.as_str()));
        self.0.dir.join(format!("{id}.{}.{ATTACHED}", &digest[..16]))
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, TaskError> {
        self.0
            .entries
            .read()
            .get(id)
            .cloned()
            .ok_or_else(|| TaskError::NotFound(id.to_owned()))
    }

    async fn persist(&self, record: TaskRecord) -> Result<(), TaskError> {
        let dir = self.0.dir.clone();
        Ok(blocking(dir.clone(), move || write(&dir, &record)).await?)
    }

    async fn persist_or_log(&self, entry: &Entry) {
        let record = entry.state.borrow().clone();
        if let Err(error) = self.persist(record).await {
            tracing::error!(operation = "tasks", %error, "the state of a task could not be recorded");
        }
    }

    fn forget_old(&self) {
        let horizon = jiff::Timestamp::now()
            .checked_sub(jiff::SignedDuration::try_from(self.0.retention.time).unwrap_or_default())
            .map(|time| format!("{time:.3}"))
            .unwrap_or_default();
        let mut entries = self.0.entries.write();
        let mut finished: Vec<(String, String)> = entries
            .values()
            .filter_map(|entry| {
                let record = entry.state.borrow();
                let ended = record.status.is_final().then(|| record.completed_at.clone()).flatten();
                ended.map(|ended| (ended, record.task_id.clone()))
            })
            .collect();
        finished.sort_unstable_by(|a, b| b.cmp(a));
        let mut forgotten = HashSet::new();
        for (index, (ended, id)) in finished.into_iter().enumerate() {
            if index >= self.0.retention.most || ended < horizon {
                entries.remove(&id);
                forgotten.insert(id);
            }
        }
        if forgotten.is_empty() {
            return;
        }
        // What cannot be listed or removed is tried again by the next start.
        for file in std::fs::read_dir(&self.0.dir).into_iter().flatten().flatten() {
            let path = file.path();
            if forgotten.contains(&owner(&path)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// The task to which a file belongs: ids of tasks have no dot.
fn owner(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Runs `work` on a file where it may block.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(FileError::Io {
            action: "use",
            path,
            source: std::io::Error::other(error),
        })
    })
}

fn interrupted(record: &TaskRecord) -> String {
    let consequence = match (record.status, record.task_type) {
        (TaskStatus::Pending, _) => "it had not started",
        (_, TaskType::Backup) => "no manifest was written, so no backup exists under its key",
        (_, TaskType::Restore) => {
            "the database is wholly as it was before or wholly the restored one, never a mixture: compare its counts with the backup's"
        }
        (_, TaskType::Export) => "no document was written, so no export exists under its key",
        (_, TaskType::Migration) if record.says("operation", "export") => {
            "no database waits for an import because of it"
        }
        (_, TaskType::Migration) => {
            "each database is wholly as it was before or wholly the imported one, never a mixture: see GET /migration/status, and start it again"
        }
        (_, TaskType::Vector) => {
            "the vectors of the table are wholly the old ones or wholly the new ones: compare their count"
        }
        (_, TaskType::Staging) => "the staging table is as it was before",
        (_, TaskType::Fork) => "the database was made as a whole or not at all, and nothing else of it is left",
        (_, TaskType::Rebuild) => "the graph is wholly the one that it was or wholly the rebuilt one",
        (_, TaskType::Ingestion) => {
            "what had been committed is in the graph, the rest was rolled back: compare the counts before you repeat it"
        }
    };
    format!("interrupted by restart: {consequence}")
}

fn write(dir: &Path, record: &TaskRecord) -> Result<(), FileError> {
    let path = dir.join(format!("{}.json", record.task_id));
    let text = serde_json::to_vec(record).map_err(|error| FileError::Io {
        action: "encode",
        path: path.clone(),
        source: std::io::Error::other(error),
    })?;
    write_atomically(&path, &text, 0o600)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
