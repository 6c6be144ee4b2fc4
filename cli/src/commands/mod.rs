//! One module per command.

pub mod backup;
pub mod create;
pub mod delete;
pub mod infra;
pub mod load;
pub mod query;
pub mod status;
pub mod tiers;
pub mod up;
mod waiting;
