//! The command line of Graphplane, as a library so that it can be tested: `main.rs` only calls [`run`].
//!
//! `up` runs the control plane in this process. Every other command that needs a server talks to its REST API, which
//! [`server::find`] finds; `infra` talks to AWS.

pub mod args;
pub mod client;
pub mod commands;
pub mod data_dir;
pub mod duration;
pub mod failure;
pub mod files;
pub mod output;
pub mod server;

use args::{Arguments, Command, CreateCommand, DeleteCommand, GlobalOptions, InfraCommand, TiersCommand};
use clap::CommandFactory;
use client::Client;
use failure::Failure;
use server::Surroundings;

/// Chooses the cryptography of every TLS connection of the process. Calling it again changes nothing.
pub fn install_tls_provider() {
    // It fails only if one was installed before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Does what the command line asks for.
///
/// # Errors
/// What went wrong, for people, with the exit code of the process.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Up(up) => commands::up::run(&up, server::directory_of_up(&global, &Surroundings::of_process())).await,
        Command::Load(load) => commands::load::run(&load, &global, &connect(&global)?).await,
        Command::Query(query) => commands::query::cypher(&query, &global, &connect(&global)?).await,
        Command::Sql(sql) => commands::query::sql(&sql, &global, &connect(&global)?).await,
        Command::Status(status) => commands::status::run(&status, &global, &connect(&global)?).await,
        Command::Create {
            what: CreateCommand::Graph(graph),
        } => commands::create::graph(&graph, &global, &connect(&global)?).await,
        Command::Delete {
            what: DeleteCommand::Graph(graph),
        } => commands::delete::graph(&graph, &global, &connect(&global)?).await,
        Command::Backup(backup) => commands::backup::run(&backup, &global, &connect(&global)?).await,
        Command::Tiers {
            what: TiersCommand::Render(render),
        } => commands::tiers::render(&render),
        Command::Tiers {
            what: TiersCommand::Check(check),
        } => commands::tiers::check(&check),
        Command::Infra {
            what: InfraCommand::Deploy(deploy),
        } => commands::infra::deploy(&deploy, &global).await,
        Command::Infra {
            what: InfraCommand::Diff(diff),
        } => commands::infra::diff(&diff, &global).await,
        Command::Infra {
            what: InfraCommand::Destroy(destroy),
        } => commands::infra::destroy(&destroy).await,
        Command::Completion { shell } => completion(shell),
        Command::Version => output::print(concat!("graphplane ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn connect(global: &GlobalOptions) -> Result<Client, Failure> {
    Client::new(
        server::find(global, &Surroundings::of_process())?,
        global.namespace.clone(),
    )
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "graphplane", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
