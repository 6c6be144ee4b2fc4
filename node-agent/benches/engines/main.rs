//! What the agent costs beside the engines that it hosts: each bench runs the same work over HTTP, or through our own
//! code, and by the engine called in this process, in turn, and prints medians as Markdown. Timings are never asserted.
//!
//! `make bench` runs them with release builds; `cargo bench --workspace --bench engines -- queries` runs
//! one. Variables make them smaller for a try; they are listed in docs/development.md.
#![allow(missing_docs)]

mod agent;
mod figures;
mod graph;
mod many;
mod materialize;
mod queries;
mod raw;
mod staging;
mod streams;
mod vectors;

use std::{error::Error, process::Command};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

// The agent's allocator, so that both sides have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BENCHES: [&str; 6] = ["materialize", "queries", "streams", "staging", "many", "vectors"];

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [name] = &asked[..] {
        // The provider may be installed only once in a process; the client wants one even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        return one(name).await;
    }
    // A process for each, so that none finds the memory of another.
    let names = if asked.is_empty() {
        BENCHES.map(str::to_owned).to_vec()
    } else {
        asked
    };
    for name in names {
        let status = Command::new(std::env::current_exe()?).arg(&name).status()?;
        if !status.success() {
            return Err(format!("{name}: {status}").into());
        }
    }
    Ok(())
}

async fn one(name: &str) -> Result<()> {
    match name {
        "materialize" => materialize::run().await,
        "queries" => queries::run().await,
        "streams" => streams::run().await,
        "staging" => staging::run().await,
        "many" => many::run().await,
        "vectors" => vectors::run().await,
        _ => Err(format!("there is no bench {name}; there are {}", BENCHES.join(", ")).into()),
    }
}
