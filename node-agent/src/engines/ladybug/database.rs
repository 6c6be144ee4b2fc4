//! The handle of an open database, through which the rest of the agent talks to its threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::DatabaseId;
use super::super::rows::{Encoding, Producer as _, RowStream};
use super::control::{CancelOnDrop, JobControl};
use super::error::from_panic;
use super::guard::{StatementKind, admit};
use super::params::Parameters;
use super::session::Session;
use super::threads::OpenDatabase;
use super::worker::{Message, QueryJob};

/// What a query may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; a statement that changes anything is refused.
    ReadOnly,
    /// Everything that the guard lets pass.
    ReadWrite,
}

/// One Cypher statement with its limits.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// The statement, as the caller wrote it.
    pub text: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// What it may do.
    pub access: Access,
    /// Time for waiting and running together.
    pub timeout: Duration,
    /// Rows after which the result is cut (and says so); `None` for no limit.
    pub max_rows: Option<u64>,
    /// Bytes after which the result is cut (and says so); `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Rows per chunk.
    pub chunk_rows: usize,
    /// How rows are written.
    pub encoding: Encoding,
    /// Becomes true when it is known that the statement changes something: before it does, and also if it then may not.
    pub changes: Arc<AtomicBool>,
}

impl QueryRequest {
    /// A statement without parameters that may write, with 30 s, no limit on rows, and 1,000 rows per chunk.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            parameters: Parameters::default(),
            access: Access::ReadWrite,
            timeout: Duration::from_secs(30),
            max_rows: None,
            max_bytes: None,
            chunk_rows: 1_000,
            encoding: Encoding::Json,
            changes: Arc::default(),
        }
    }
}

/// A database of this node, open for as long as the handle (or a stream made by it) lives.
#[derive(Clone)]
pub struct Database {
    pub(crate) open: Arc<OpenDatabase>,
}

impl Database {
    pub(crate) fn new(open: Arc<OpenDatabase>) -> Self {
        Self { open }
    }

    /// The id of the database.
    #[must_use]
    pub fn id(&self) -> &DatabaseId {
        &self.open.options().id
    }

    /// True if the write-ahead log could not be replayed to its end when the database was opened. What could not be
    /// read is kept beside the file.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.open.recovered()
    }

    /// Runs one statement and waits for its first rows. Dropping the future or the stream interrupts it.
    ///
    /// # Errors
    /// Everything an engine can say, by [class](EngineError::class); `Busy` if the queue is full or the statement's time
    /// was spent waiting, in which case nothing was done.
    pub async fn query(&self, request: QueryRequest) -> Result<RowStream, EngineError> {
        let admitted = admit(&request.text)?;
        for name in &admitted.conditions.patterns {
            request.parameters.check_pattern(name)?;
        }
        let parameters = match admitted.conditions.typed_nulls {
            true => request.parameters.typed(),
            false => request.parameters,
        };
        let writes = admitted.kind != StatementKind::Read;
        if writes {
            request.changes.store(true, Ordering::Release);
        }
        let may_write = request.access == Access::ReadWrite && !self.open.options().read_only;
        if writes && !may_write {
            return Err(EngineError::ReadOnly {
                message: "the statement changes the database, which is open for reading only here".into(),
            });
        }
        let queue = if writes {
            self.open.writer()
        } else {
            self.open.readers()
        };
        self.check_queue(queue)?;
        let control = self.open.control(writes, request.timeout);
        let (reply, events) = flume::bounded(2);
        let kind = admitted.kind;
        let text = parameters.casting(admitted.text.into_owned());
        let job = QueryJob {
            text,
            kind,
            parameters,
            may_write,
            queued_at: Instant::now(),
            max_rows: request.max_rows.unwrap_or(u64::MAX),
            max_bytes: request.max_bytes.unwrap_or(u64::MAX),
            chunk_rows: request.chunk_rows.max(1) as u64,
            encoding: request.encoding,
            changes: request.changes,
            reply,
            control: Arc::clone(&control),
        };
        let deadline = control.deadline();
        let _ = queue.send(Message::Query(job));
        if !writes {
            self.open.report_backlog();
        }
        RowStream::start(events, control, Arc::<OpenDatabase>::clone(&self.open), deadline).await
    }

    /// Asks the engine for one row.
    ///
    /// # Errors
    /// The database does not answer within `timeout`.
    pub async fn ping(&self, timeout: Duration) -> Result<(), EngineError> {
        let request = QueryRequest {
            timeout,
            access: Access::ReadOnly,
            ..QueryRequest::new("RETURN 1")
        };
        self.query(request).await.map(drop)
    }

    /// Writes everything into the data file, so that its write-ahead log is empty.
    ///
    /// # Errors
    /// `Busy` if other writes take longer than `timeout`.
    pub async fn checkpoint(&self, timeout: Duration) -> Result<(), EngineError> {
        self.on_writer(timeout, |session, job| session.run_once(job, "CHECKPOINT").map(drop))
            .await
    }

    /// Runs `work` on the writer's thread, alone among writers. Dropping the future interrupts it.
    pub(crate) async fn on_writer<T, W>(&self, timeout: Duration, work: W) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: for<'c, 'db> FnOnce(&mut Session<'c, 'db>, &Arc<JobControl>) -> Result<T, EngineError> + Send + 'static,
    {
        self.on_writer_until(timeout, &CancellationToken::new(), work).await
    }

    /// The same; `cancel` interrupts it too, and its answer is still awaited.
    pub(crate) async fn on_writer_until<T, W>(
        &self,
        timeout: Duration,
        cancel: &CancellationToken,
        work: W,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: for<'c, 'db> FnOnce(&mut Session<'c, 'db>, &Arc<JobControl>) -> Result<T, EngineError> + Send + 'static,
    {
        if self.open.options().read_only {
            return Err(EngineError::ReadOnly {
                message: "the database is open for reading only here".into(),
            });
        }
        let control = self.open.control(true, timeout);
        let work = self.on_thread(self.open.writer(), &control, work);
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => return outcome,
            () = cancel.cancelled() => control.cancel(),
        }
        work.await
    }

    /// Runs `work` on a reader's thread.
    pub(crate) async fn on_reader<T, W>(&self, timeout: Duration, work: W) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: for<'c, 'db> FnOnce(&mut Session<'c, 'db>, &Arc<JobControl>) -> Result<T, EngineError> + Send + 'static,
    {
        let control = self.open.control(false, timeout);
        self.on_thread(self.open.readers(), &control, work).await
    }

    async fn on_thread<T, W>(
        &self,
        queue: &flume::Sender<Message>,
        control: &Arc<JobControl>,
        work: W,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: for<'c, 'db> FnOnce(&mut Session<'c, 'db>, &Arc<JobControl>) -> Result<T, EngineError> + Send + 'static,
    {
        self.check_queue(queue)?;
        let _cancel = CancelOnDrop(Arc::clone(control));
        let (reply, answer) = flume::bounded(1);
        let job = Arc::clone(control);
        let task = Message::Task(Box::new(move |session| {
            let outcome = job.begin().and_then(|()| {
                catch_unwind(AssertUnwindSafe(|| work(session, &job))).unwrap_or_else(|panic| Err(from_panic(&*panic)))
            });
            job.finish();
            // Nobody may be waiting any more.
            let _ = reply.send(outcome);
        }));
        let _ = queue.send(task);
        let lost = |_| EngineError::internal("the database closed before the work was done");
        match tokio::time::timeout_at(control.deadline().into(), answer.recv_async()).await {
            Ok(answer) => answer.map_err(lost)?,
            Err(_) => match Arc::clone(control).expire() {
                Some(error) => Err(error),
                None => answer.recv_async().await.map_err(lost)?,
            },
        }
    }

    fn check_queue(&self, queue: &flume::Sender<Message>) -> Result<(), EngineError> {
        let waiting = queue.len();
        if waiting < self.open.options().queue_length {
            return Ok(());
        }
        Err(EngineError::Busy {
            reason: format!("{waiting} statements wait for this database already"),
            retry_after: Duration::from_secs(1),
        })
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("id", self.id())
            .finish_non_exhaustive()
    }
}
