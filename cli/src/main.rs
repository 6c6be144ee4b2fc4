//! The program `graphplane`.

use clap::Parser;
use graphplane_cli::args::{Arguments, Command};
use graphplane_cli::failure::{Exit, Failure};
use graphplane_cli::output;
use std::process::ExitCode;
use std::time::Duration;

// Returns memory after bursts, and is faster than the system's under many small allocations of several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // What a server says must not be able to drive the terminal.
                let lines: Vec<String> = failure.to_string().lines().map(output::printable).collect();
                output::note(format_args!("error: {}", lines.join("\n")));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn start(arguments: Arguments) -> Result<(), Failure> {
    graphplane_cli::install_tls_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the runtime", &error))?;
    let is_server = matches!(arguments.command, Command::Up(_));
    let done = runtime.block_on(async {
        let work = graphplane_cli::run(arguments);
        if is_server {
            // It has its own way to stop, in order.
            return work.await;
        }
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    });
    // Whatever still runs on a thread of its own, such as a read of standard input, must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    done
}
