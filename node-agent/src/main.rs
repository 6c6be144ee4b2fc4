//! The node agent's program: reads the command line and runs the agent.

use clap::Parser;
use graphplane_node_agent::{args::Args, run::run};
use std::process::ExitCode;
use tracing_subscriber::{EnvFilter, filter::Directive, filter::LevelFilter};

// Requests allocate and free small pieces on several threads; this is faster at that than the system's allocator, and
// gives memory back after a large answer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn audit() -> Directive {
    "audit=info".parse().unwrap_or_else(|_| LevelFilter::INFO.into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&args.log_level));
    // A quieter log must not lose who changed what, unless it names the target itself.
    let named = filter.to_string().contains("audit");
    let filter = if named { filter } else { filter.add_directive(audit()) };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.resolved_http_threads())
        .thread_name("http")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(operation = "start", %error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let keys = ["GRAPH_API_KEY", "GRAPH_API_KEY_NEXT"].map(|name| std::env::var(name).unwrap_or_default());
    let result = runtime.block_on(run(args, &keys));
    // Threads that wait for a disk or an engine must not keep the process after everything is checkpointed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(operation = "start", %error, "the agent cannot start");
            eprintln!("graphplane-node-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
