//! The threads of an open database: one that owns it and interrupts what has to stop, some that read, one that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use lbug::Connection;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::budget::Reservation;
use super::super::error::EngineError;
use super::control::{Backlog, Counters, Interrupt, JobControl, Line, Lines, Slot, watch};
use super::decimals::Decimals;
use super::error::text_of;
use super::open::{OpenOptions, Opened, open};
use super::session::Session;
use super::worker::{Message, serve};

/// As long as this lives, no reader of the database is at work.
pub(crate) type ReadersOut<'a> = RwLockWriteGuard<'a, ()>;

/// What all threads of a database share.
pub(crate) struct Shared {
    pub(crate) options: OpenOptions,
    schema_epoch: AtomicU64,
    reopen: AtomicBool,
    senders: AtomicUsize,
    /// Set while the watching thread knows that queries wait.
    backlog: AtomicBool,
    readers: flume::Sender<Message>,
    writer: flume::Sender<Message>,
    /// Held for reading by every statement of a reader while the engine executes it.
    scans: RwLock<()>,
    /// What the graph has of decimals, and with which schema.
    decimals: RwLock<Option<(u64, Arc<Decimals>)>>,
}

impl Shared {
    /// Called by readers around what the engine does for them. Waits while readers are kept out.
    pub(crate) fn scan(&self) -> RwLockReadGuard<'_, ()> {
        self.scans.read()
    }

    /// Keeps readers out until the guard is dropped, if none of them is at work; never waits for one.
    pub(crate) fn keep_readers_out(&self) -> Option<ReadersOut<'_>> {
        self.scans.try_write()
    }

    /// Keeps readers out when those that are at work have ended. Others come before it for ten seconds, and wait then.
    pub(crate) fn outlast_readers(&self) -> ReadersOut<'_> {
        for _ in 0..50 {
            if let Some(alone) = self.scans.try_write() {
                return alone;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.scans.write()
    }

    /// Changes whenever a table is made, changed or dropped; prepared statements older than that are forgotten.
    pub(crate) fn schema_epoch(&self) -> u64 {
        self.schema_epoch.load(Ordering::Acquire)
    }

    pub(crate) fn schema_changed(&self) {
        self.schema_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The engine's handle is of no more use for writing.
    pub(crate) fn ask_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// What the graph has of decimals, if somebody has looked since the schema changed last.
    pub(crate) fn decimals(&self, epoch: u64) -> Option<Arc<Decimals>> {
        let known = self.decimals.read();
        let (_, decimals) = known.as_ref().filter(|(of, _)| *of == epoch)?;
        Some(Arc::clone(decimals))
    }

    pub(crate) fn remember_decimals(&self, epoch: u64, decimals: Arc<Decimals>) {
        *self.decimals.write() = Some((epoch, decimals));
    }

    /// Whether a statement of a caller may change the graph now.
    pub(crate) fn may_change(&self) -> Result<(), EngineError> {
        if !self.options.writes_held.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(EngineError::Busy {
            reason: "the graph is being rebuilt; until that is done it can only be read".into(),
            retry_after: Duration::from_secs(30),
        })
    }

    /// Tells the reader that comes next to stop as well.
    pub(crate) fn pass_stop_on(&self) {
        let _ = self.readers.send(Message::Stop);
    }

    pub(crate) fn to_writer(&self, message: Message) {
        // The receiver lives as long as the writer's thread; after that the job is dropped, and its caller told.
        let _ = self.writer.send(message);
    }
}

/// An open database. The last handle to be dropped closes it.
pub(crate) struct OpenDatabase {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    interrupts: flume::Sender<Interrupt>,
    closed: flume::Receiver<()>,
    recovered: bool,
}

impl OpenDatabase {
    /// Opens the file on a thread of its own. `memory` is given back when the engine has closed it.
    pub(crate) async fn open(options: OpenOptions, memory: Reservation) -> Result<Self, EngineError> {
        let (readers, reader_messages) = flume::unbounded();
        let (writer, writer_messages) = flume::unbounded();
        let (interrupts, watched) = flume::unbounded();
        let (started, opened) = flume::bounded(1);
        let (closing, closed) = flume::bounded(0);
        let counters = Arc::new(Counters::default());
        let shared = Arc::new(Shared {
            options,
            schema_epoch: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
            senders: AtomicUsize::new(0),
            backlog: AtomicBool::new(false),
            readers,
            writer,
            scans: RwLock::new(()),
            decimals: RwLock::default(),
        });
        let on_thread = Arc::clone(&shared);
        let counted = Arc::clone(&counters);
        Builder::new()
            .name(format!("lbug-{}", shared.options.id))
            .spawn(move || {
                let threads = Threads {
                    shared: &on_thread,
                    reader_messages,
                    writer_messages,
                    interrupts: watched,
                    counters: counted,
                };
                threads.run(&started);
                drop(memory);
                drop(closing);
            })
            .map_err(|error| EngineError::internal(format!("no thread for the database: {error}")))?;
        let recovered = opened
            .recv_async()
            .await
            .map_err(|_| EngineError::internal("the database's thread ended while it opened the file"))??;
        Ok(Self {
            shared,
            counters,
            interrupts,
            closed,
            recovered,
        })
    }

    /// The queue that all readers share.
    pub(crate) fn readers(&self) -> &flume::Sender<Message> {
        &self.shared.readers
    }

    /// Called when a query was sent to the readers: has it to wait behind others?
    pub(crate) fn report_backlog(&self) {
        let may_wait = self.counters.active() > self.shared.options.readers;
        if may_wait && !self.shared.backlog.load(Ordering::Acquire) && !self.shared.backlog.swap(true, Ordering::AcqRel)
        {
            let _ = self.interrupts.send(Interrupt::Backlog);
        }
    }

    /// The queue of the one writer.
    pub(crate) fn writer(&self) -> &flume::Sender<Message> {
        &self.shared.writer
    }

    pub(crate) fn options(&self) -> &OpenOptions {
        &self.shared.options
    }

    pub(crate) fn needs_reopen(&self) -> bool {
        self.shared.reopen.load(Ordering::Acquire)
    }

    pub(crate) fn active(&self) -> usize {
        self.counters.active()
    }

    pub(crate) fn started(&self) -> u64 {
        self.counters.started()
    }

    /// Disconnects when the engine has closed the file and the lock is free.
    pub(crate) fn closed(&self) -> flume::Receiver<()> {
        self.closed.clone()
    }

    pub(crate) fn recovered(&self) -> bool {
        self.recovered
    }

    /// Refuses new jobs and interrupts those that run, or ends that state.
    pub(crate) fn set_closing(&self, closing: bool) {
        self.counters.set_closing(closing);
        if closing {
            let _ = self.interrupts.send(Interrupt::Everything);
        }
    }

    pub(crate) fn control(&self, writes: bool, limit: Duration) -> Arc<JobControl> {
        JobControl::new(&self.counters, &self.interrupts, writes, limit)
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        self.shared.pass_stop_on();
        self.shared.to_writer(Message::Stop);
    }
}

/// The receiving ends, on the thread that owns the database.
struct Threads<'a> {
    shared: &'a Shared,
    reader_messages: flume::Receiver<Message>,
    writer_messages: flume::Receiver<Message>,
    interrupts: flume::Receiver<Interrupt>,
    counters: Arc<Counters>,
}

impl Threads<'_> {
    fn run(self, started: &flume::Sender<Result<bool, EngineError>>) {
        let Opened {
            database,
            recovered,
            lock,
        } = match open(&self.shared.options) {
            Ok(opened) => opened,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        self.serve(&database, recovered, started);
        // Closing makes a checkpoint; the lock is given back after it.
        drop(database);
        drop(lock);
    }

    fn serve(&self, database: &lbug::Database, recovered: bool, started: &flume::Sender<Result<bool, EngineError>>) {
        let lines = Lines::default();
        let base = self.shared.options.readers.max(1);
        std::thread::scope(|scope| {
            let spawn = |writer: bool, stay: bool| -> Result<(), EngineError> {
                let mut connection =
                    Connection::new(database).map_err(|error| EngineError::internal(text_of(error)))?;
                connection.set_max_num_threads_for_exec(self.shared.options.engine_threads.max(1));
                let line = Arc::new(Line {
                    connection,
                    slot: Slot::default(),
                    writer,
                });
                lines.lock().push(Arc::clone(&line));
                let messages = if writer {
                    &self.writer_messages
                } else {
                    &self.reader_messages
                };
                let patience = if stay { None } else { Some(EXTRA_READER_STAYS) };
                let (lines, shared) = (&lines, self.shared);
                Builder::new()
                    .name((if writer { "lbug-writer" } else { "lbug-reader" }).to_owned())
                    .stack_size(STACK)
                    .spawn_scoped(scope, move || {
                        serve(scope, Session::new(&line, shared), messages, patience, &shared.senders);
                        lines.lock().retain(|other| !Arc::ptr_eq(other, &line));
                    })
                    .map(drop)
                    .map_err(|error| EngineError::internal(format!("no thread for a connection: {error}")))
            };
            let spawned = (0..base)
                .try_for_each(|_| spawn(false, true))
                .and_then(|()| spawn(true, true));
            if let Err(error) = spawned {
                // Those that did start find this and leave.
                self.shared.pass_stop_on();
                let _ = started.send(Err(error));
                return;
            }
            let _ = started.send(Ok(recovered));
            let add_reader = || {
                if lines.lock().len() <= self.shared.options.max_readers.max(base)
                    && let Err(error) = spawn(false, false)
                {
                    tracing::warn!(%error, database = %self.shared.options.id, "no further reader");
                }
            };
            let waiting = || self.reader_messages.len();
            let backlog = Backlog {
                waiting: &waiting,
                reported: &self.shared.backlog,
            };
            watch(&lines, &self.interrupts, &self.counters, &backlog, add_reader);
        });
    }
}

/// Stack of a thread that parses and plans: what the guard lets pass fits into a small part of it. Only what is used of it
/// takes memory.
const STACK: usize = 16 << 20;

/// How long a reader that was added because queries waited stays without work.
const EXTRA_READER_STAYS: Duration = Duration::from_secs(10);
