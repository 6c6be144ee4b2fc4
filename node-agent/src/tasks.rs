//! Work that outlives its request: kept on disk, listed, followed, cancelled, and told honestly after a restart.
//!
//! A task is one file `<data-dir>/tasks/<id>.json`. It is written before the task starts and whenever its state
//! changes, so that a restarted agent knows what it had begun. What ran when the process died is recorded as failed
//! with the error `interrupted by restart`: neither a materialise nor a backup nor a restore is repeated on its own, because the
//! caller (or the control plane) may have moved on.

mod asked;
mod record;
mod store;

pub use asked::Asked;
pub use record::{Interruption, TaskRecord, TaskStatus, TaskType, timestamp};
pub use store::{Retention, TaskContext, TaskError, TaskHandle, TaskStats, TaskStore};
