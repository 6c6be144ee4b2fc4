//! One connection with its prepared statements, owned by one thread.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lbug::{Connection, PreparedStatement, QueryResult, Value};
use lru::LruCache;

use super::super::error::EngineError;
use super::super::rows::Columns;
use super::control::{JobControl, Line};
use super::error::{classify_text, from_panic, is_second_writer, needs_reopen, needs_types, text_of};
use super::guard::{Decimals, StatementKind};
use super::params::Parameters;
use super::threads::Shared;
use super::value::RowKeys;

/// The names of a result's columns, in both forms that are needed.
pub(crate) struct ResultShape {
    pub(crate) columns: Columns,
    pub(crate) keys: RowKeys,
}

struct Cached {
    statement: PreparedStatement,
    /// Known after the first execution.
    shape: Option<Arc<ResultShape>>,
}

/// A connection, and what its thread remembers about it.
pub(crate) struct Session<'c, 'db> {
    line: &'c Line<'db>,
    pub(crate) shared: &'c Shared,
    statements: LruCache<Box<str>, Cached>,
    /// The schema for which the statements are prepared, and what is known of it.
    schema_epoch: Option<u64>,
    decimals: Arc<Decimals>,
}

/// Why a statement has no result.
pub(crate) enum Refused {
    /// It changes something, so it belongs to the writer's thread.
    NeedsWriter(Parameters),
    Failed(EngineError),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl<'c, 'db> Session<'c, 'db> {
    pub(crate) fn new(line: &'c Line<'db>, shared: &'c Shared) -> Self {
        let capacity = NonZeroUsize::new(shared.options.statement_cache).unwrap_or(NonZeroUsize::MIN);
        Self {
            line,
            shared,
            statements: LruCache::new(capacity),
            schema_epoch: None,
            decimals: Arc::default(),
        }
    }

    /// Runs one statement of a caller.
    pub(crate) fn execute(
        &mut self,
        job: &Arc<JobControl>,
        text: &str,
        kind: StatementKind,
        parameters: Parameters,
    ) -> Result<(QueryResult<'db>, Arc<ResultShape>), Refused> {
        if self.line.writer {
            self.shared.may_change()?;
        }
        let changes = self.line.writer && kind != StatementKind::Checkpoint;
        let _changing = changes.then(|| self.shared.options.revision.changing());
        self.follow_schema(job)?;
        if matches!(kind, StatementKind::Ddl | StatementKind::Checkpoint) {
            self.decimals.check(text)?;
            let executed = self.run_once(job, text);
            self.shared.schema_changed();
            let result = executed?;
            let shape = shape_of(&result);
            return Ok((result, shape));
        }
        if !self.statements.contains(text) {
            self.decimals.check(text)?;
            let statement = match self.line.connection.prepare(text) {
                Ok(statement) => statement,
                Err(error) => {
                    let text = text_of(error);
                    if !self.line.writer && is_second_writer(&text) {
                        return Err(Refused::NeedsWriter(parameters));
                    }
                    return Err(self.failure(text, Some(job)).into());
                }
            };
            self.statements.push(Box::from(text), Cached { statement, shape: None });
        }
        let Some(cached) = self.statements.get_mut(text) else {
            return Err(EngineError::internal("the cache of prepared statements has no place").into());
        };
        if !self.line.writer && !cached.statement.is_read_only() {
            return Err(Refused::NeedsWriter(parameters));
        }
        let retry = parameters.has_untyped_list().then(|| parameters.clone());
        let scan = (!self.line.writer).then(|| self.shared.scan());
        let occupied = self.line.slot.occupy(job);
        let mut outcome = execute(&self.line.connection, &mut cached.statement, parameters);
        if let (Some(parameters), Err(Failure::Text(text))) = (retry, &outcome)
            && needs_types(text)
        {
            outcome = execute(&self.line.connection, &mut cached.statement, parameters.typed());
        }
        drop((occupied, scan));
        match outcome {
            Ok(result) => {
                let shape = cached.shape.get_or_insert_with(|| shape_of(&result));
                Ok((result, Arc::clone(shape)))
            }
            Err(Failure::Text(text)) => Err(self.failure(text, Some(job)).into()),
            Err(Failure::Error(error)) => Err(error.into()),
        }
    }

    /// Forgets what does not hold for the schema of now.
    fn follow_schema(&mut self, job: &Arc<JobControl>) -> Result<(), EngineError> {
        let epoch = self.shared.schema_epoch();
        if self.schema_epoch == Some(epoch) {
            return Ok(());
        }
        self.statements.clear();
        self.decimals = match self.shared.decimals(epoch) {
            Some(known) => known,
            None => {
                let found = Arc::new(Decimals::find(self, job)?);
                self.shared.remember_decimals(epoch, Arc::clone(&found));
                found
            }
        };
        self.schema_epoch = Some(epoch);
        Ok(())
    }

    /// Runs a statement of our own, without a cache.
    pub(crate) fn run_once(&self, job: &JobControl, text: &str) -> Result<QueryResult<'db>, EngineError> {
        let scan = (!self.line.writer).then(|| self.shared.scan());
        let occupied = self.line.slot.occupy(job);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.line.connection.query(text)));
        drop((occupied, scan));
        match outcome {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(self.failure(text_of(error), Some(job))),
            Err(panic) => Err(from_panic(&*panic)),
        }
    }

    /// Ends a transaction. It is not interrupted: whether its rows are in would be left open.
    pub(crate) fn commit(&self) -> Result<(), EngineError> {
        self.undisturbed("COMMIT").map(drop)
    }

    /// Gives a transaction up; an error says that it had ended already.
    pub(crate) fn rollback(&self) -> Result<(), EngineError> {
        self.undisturbed("ROLLBACK").map(drop)
    }

    /// Runs a statement of our own that nothing interrupts; for short ones only.
    fn undisturbed(&self, text: &str) -> Result<QueryResult<'db>, EngineError> {
        match catch_unwind(AssertUnwindSafe(|| self.line.connection.query(text))) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(self.failure(text_of(error), None)),
            Err(panic) => Err(from_panic(&*panic)),
        }
    }

    /// All rows of a statement of our own.
    pub(crate) fn rows(&self, job: &JobControl, text: &str) -> Result<Vec<Vec<Value>>, EngineError> {
        collect(self.run_once(job, text)?)
    }

    /// All rows of a statement of our own that nothing interrupts; for short ones only.
    pub(crate) fn rows_undisturbed(&self, text: &str) -> Result<Vec<Vec<Value>>, EngineError> {
        collect(self.undisturbed(text)?)
    }

    /// Makes Arrow batches readable as a table. Only to be used inside a transaction that also drops the table: a
    /// crash would otherwise leave a database that does not open.
    pub(crate) fn create_arrow_table(
        &self,
        job: &JobControl,
        name: &str,
        batches: &[arrow55::record_batch::RecordBatch],
    ) -> Result<(), EngineError> {
        match catch_unwind(AssertUnwindSafe(|| {
            self.line.connection.create_arrow_table(name, batches)
        })) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failure(text_of(error), Some(job))),
            Err(panic) => Err(from_panic(&*panic)),
        }
    }

    pub(crate) fn drop_arrow_table(&self, job: &JobControl, name: &str) -> Result<(), EngineError> {
        match self.line.connection.drop_arrow_table(name) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(text_of(error), Some(job))),
        }
    }

    fn failure(&self, text: String, job: Option<&JobControl>) -> EngineError {
        if needs_reopen(&text) {
            tracing::error!(database = %self.shared.options.id, error = text, "the database must be opened again");
            self.shared.ask_reopen();
        }
        classify_text(text, self.shared.options.pool_bytes >> 20, job)
    }
}

fn collect(result: QueryResult<'_>) -> Result<Vec<Vec<Value>>, EngineError> {
    catch_unwind(AssertUnwindSafe(|| result.collect())).map_err(|panic| from_panic(&*panic))
}

enum Failure {
    Text(String),
    Error(EngineError),
}

fn execute<'db>(
    connection: &Connection<'db>,
    statement: &mut PreparedStatement,
    parameters: Parameters,
) -> Result<QueryResult<'db>, Failure> {
    let (names, values): (Vec<String>, Vec<Value>) = parameters.values().into_iter().unzip();
    let named = names.iter().map(String::as_str).zip(values).collect();
    match catch_unwind(AssertUnwindSafe(|| connection.execute(statement, named))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(Failure::Text(text_of(error))),
        Err(panic) => Err(Failure::Error(from_panic(&*panic))),
    }
}

fn shape_of(result: &QueryResult<'_>) -> Arc<ResultShape> {
    let columns = result.get_column_names();
    let keys = RowKeys::new(&columns);
    Arc::new(ResultShape {
        columns: Columns::from(columns),
        keys,
    })
}
