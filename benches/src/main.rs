//! The benches: what Graphplane claims, measured on this machine and printed as Markdown.
//!
//! `make bench` runs them all with release builds; `cargo run --release -p graphplane-benches -- point-query` runs one.
//! Figures of a bench are printed, never asserted: a shared machine is no judge.

mod agent;
mod control;
mod idle;
mod machine;
mod plane;
mod point_query;
mod ready;
mod samples;
mod store;

use clap::{Parser, ValueEnum};
use std::{error::Error, path::PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures what docs/benchmarks.md reports.
#[derive(Parser)]
struct Args {
    /// Which benches to run; none: all.
    benches: Vec<Bench>,
    /// Folder of the programs under test.
    #[arg(long)]
    bin: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// apply -> Ready, on a running node and with a new one
    Ready,
    /// Point queries by primary key over HTTP, and /health during a long query
    PointQuery,
    /// Memory at rest
    Idle,
    /// The embedded server's durable writes and watch latency
    Store,
    /// Calls to AWS per graph and hour when nothing happens
    Control,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // The provider may be installed only once in a process; a second time is no error here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bin = match args.bin {
        Some(bin) => bin,
        None => std::env::current_exe()?
            .parent()
            .ok_or("the bench has no folder")?
            .to_owned(),
    };
    let benches = if args.benches.is_empty() {
        Bench::value_variants().to_vec()
    } else {
        args.benches
    };
    println!("{}", machine::describe()?);
    println!("| what | figure |\n|---|---|");
    for bench in benches {
        match bench {
            Bench::Ready => ready::run(&bin).await?,
            Bench::PointQuery => point_query::run(&bin).await?,
            Bench::Idle => idle::run(&bin).await?,
            Bench::Store => store::run().await?,
            Bench::Control => control::run().await?,
        }
    }
    Ok(())
}
