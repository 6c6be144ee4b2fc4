//! The node agent's program: reads the command line and runs the agent.

use clap::Parser;
use graphplane_node_agent::{args::Args, run::run};
use std::process::ExitCode;
use tracing_subscriber::{EnvFilter, filter::Directive};

// Requests allocate and free small pieces on several threads; this is faster at that than the system's allocator, and
// gives memory back after a large answer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What holds unless the filter names the target itself: a quieter log must not lose who changed what, and Lance tells of
/// every file and of every plan, with the values of callers in it.
const UNLESS_NAMED: [(&str, &str); 2] = [("audit", "audit=info"), ("lance", "lance=warn")];

fn complete(filter: EnvFilter) -> EnvFilter {
    let given = filter.to_string();
    let missing = UNLESS_NAMED.into_iter().filter(|(target, _)| !given.contains(target));
    missing
        .filter_map(|(_, directive)| directive.parse::<Directive>().ok())
        .fold(filter, EnvFilter::add_directive)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&args.log_level));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(complete(filter))
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
