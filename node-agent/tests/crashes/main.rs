//! `kill -9` in the middle of every operation. After each kill the agent starts again on its volume, and what is there
//! has to be what a world would have in which every acknowledged operation happened, and every other one wholly or not
//! at all ([`history`]); no task is at work for ever, no file is left over, no half backup can be restored, and every
//! graph takes a write ([`checks`]).
//!
//! What is done and when it is cut off comes from a seed. A failure prints it, with what was done, what was found and the
//! end of the agent's log. `GRAPHPLANE_SEED=n` does that series again: the same operations and moments, as far as two
//! processes and a disk are ever the same twice. `GRAPHPLANE_CRASH_RUNS=n` kills at least `n` times in all, instead of 200
//! times.
//!
//! A new operation is a function in [`operations`] and a line in one of its tables.

#![allow(clippy::unwrap_used, missing_docs)]

mod agents;
mod caller;
mod checks;
// What every answer of the fixture is held to.
#[path = "../agent/conformance.rs"]
mod conformance;
#[allow(dead_code)]
#[path = "../agent/fixture.rs"]
mod fixture;
mod history;
mod observed;
mod operations;
mod orphans;
mod series;
mod world;

use operations::{BACKUPS, DATABASES, FORKS, GROUPS, LOADS, REBUILDS, SEEDS, STAGING, VECTORS, WRITES};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_kill_every_operation_is_acknowledged() {
    series::rehearse(&GROUPS.concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_writes() {
    series::all(WRITES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_staging() {
    series::all(STAGING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_loads() {
    series::all(LOADS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_rebuilds_and_swaps() {
    series::all(REBUILDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_changes_of_vectors() {
    series::all(VECTORS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_backups_and_restores() {
    series::all(BACKUPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_during_forks() {
    series::all(FORKS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_writers_and_replicas_during_seed_swaps() {
    series::all(SEEDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_databases_come_and_go() {
    series::all(DATABASES).await;
}
