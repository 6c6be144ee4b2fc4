//! LadybugDB in this process, with the settings that the agent gives it.

use crate::Result;
use lbug::{Connection, Database, SystemConfig};
use std::path::Path;

/// Threads for one statement, as the agent chooses them.
pub(crate) fn threads() -> u64 {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4) as u64
}

pub(crate) fn open(file: &Path, pool: u64) -> Result<Database> {
    let config = SystemConfig::default()
        .buffer_pool_size(pool)
        .max_db_size(1 << 34)
        .max_num_threads(threads());
    Ok(Database::new(file, config)?)
}

/// A new database with these tables.
pub(crate) fn create(file: &Path, pool: u64, ddl: &str) -> Result<Database> {
    let database = open(file, pool)?;
    let connection = Connection::new(&database)?;
    for statement in ddl.split_inclusive(';') {
        connection.query(statement)?;
    }
    drop(connection);
    Ok(database)
}
