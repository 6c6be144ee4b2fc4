//! Logs that name Arrow tables.
//!
//! A load reads its rows from Arrow tables, which its transaction makes and drops. Its commit writes both into the log, and
//! the checkpoint that follows empties that. A crash between the two leaves a log that the engine (lbug 0.22.1) cannot
//! replay: it makes the table again, does not find the Arrow data, which went with the process, and the database cannot be
//! opened (`Failed to retrieve Arrow data for ID: arrow_0`), not even in part.
//!
//! So such logs are replayed before anything else, with stand-ins for the data. The ids of Arrow data count from 0 in each
//! process: now every id can be had, and later no more. Nobody sees the rows of a stand-in, since the log drops the table
//! again; the rows of the load are not in the log, so of a load that was cut off nothing is there.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow55::array::{ArrayRef, Int64Array};
use arrow55::record_batch::RecordBatch;
use lbug::{Connection, Database, SystemConfig};

use super::super::error::EngineError;
use super::error::text_of;
use super::open::{OpenOptions, Opened, beside, open};

/// Replays the logs of these databases that seem to name Arrow tables; the others are left alone. A database that cannot
/// be opened in this way is left as it is, for whoever asks for it to be told.
///
/// # Errors
/// A log cannot be read, or no stand-ins can be made.
pub(crate) fn replay_logs(databases: &[OpenOptions]) -> Result<(), EngineError> {
    let mut stand_ins = None;
    for options in databases {
        if !may_name_arrow_tables(&options.path)? {
            continue;
        }
        match opened(options, &mut stand_ins)?.and_then(|opened| checkpoint(&opened)) {
            Ok(()) => tracing::info!(database = %options.id, "the log of a load was replayed"),
            Err(error) => tracing::error!(database = %options.id, %error, "the log of a load cannot be replayed"),
        }
    }
    Ok(())
}

/// Opens a database, with stand-ins as long as the engine asks for more of them.
fn opened(options: &OpenOptions, stand_ins: &mut Option<StandIns>) -> Result<Result<Opened, EngineError>, EngineError> {
    loop {
        let error = match open(options) {
            Ok(opened) => return Ok(Ok(opened)),
            Err(error) => error,
        };
        let Some(id) = missing(&error.to_string()) else {
            return Ok(Err(error));
        };
        let made = match stand_ins {
            Some(made) => made,
            None => stand_ins.insert(StandIns::none()?),
        };
        if id < made.next {
            return Ok(Err(error));
        }
        made.up_to(id)?;
    }
}

fn checkpoint(opened: &Opened) -> Result<(), EngineError> {
    let connection = Connection::new(&opened.database).map_err(|error| EngineError::internal(text_of(error)))?;
    let outcome = connection.query("CHECKPOINT");
    outcome.map(drop).map_err(|error| EngineError::internal(text_of(error)))
}

/// Arrow tables of a database that is nowhere, for as long as this lives.
struct StandIns {
    nowhere: Database,
    rows: RecordBatch,
    next: u64,
}

impl StandIns {
    fn none() -> Result<Self, EngineError> {
        let config = SystemConfig::default().buffer_pool_size(64 << 20).max_db_size(1 << 30);
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        Ok(Self {
            nowhere: Database::in_memory(config).map_err(failed)?,
            rows: RecordBatch::try_from_iter([("id", rows)])
                .map_err(|error| EngineError::internal(format!("stand-ins for Arrow tables: {error}")))?,
            next: 0,
        })
    }

    fn up_to(&mut self, id: u64) -> Result<(), EngineError> {
        let connection = Connection::new(&self.nowhere).map_err(failed)?;
        while self.next <= id {
            let name = format!("stand_in_{}", self.next);
            connection
                .create_arrow_table(&name, std::slice::from_ref(&self.rows))
                .map_err(failed)?;
            self.next += 1;
        }
        Ok(())
    }
}

fn failed(error: lbug::Error) -> EngineError {
    EngineError::internal(format!("stand-ins for Arrow tables: {}", text_of(error)))
}

/// Looks into the logs beside a database: the present one, and the one that a checkpoint was about to empty. Rows of a
/// tenant can look like such a name, which costs no more than opening the database.
fn may_name_arrow_tables(graph: &Path) -> Result<bool, EngineError> {
    const NAME: &[u8] = b"arrow://arrow_";
    for log in ["wal", "wal.checkpoint"].map(|suffix| beside(graph, suffix)) {
        match fs::read(&log) {
            Ok(text) if text.windows(NAME.len()).any(|bytes| bytes == NAME) => return Ok(true),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EngineError::io("read", &log, error));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// Which Arrow data the engine did not find.
fn missing(error: &str) -> Option<u64> {
    let (_, id) = error.split_once("Failed to retrieve Arrow data for ID: arrow_")?;
    let digits = id.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_says_which_arrow_data_it_wants() {
        let error = "open /v/g.lbug: Runtime exception: Failed to retrieve Arrow data for ID: arrow_17; more";
        assert_eq!(missing(error), Some(17));
        assert_eq!(missing("Failed to retrieve Arrow data for ID: arrow_rel_1"), None);
        assert_eq!(missing("something else"), None);
    }
}
