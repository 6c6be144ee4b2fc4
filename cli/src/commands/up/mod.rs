//! `graphplane up`: the whole control plane in one process tree, in the foreground.

mod agent_binary;
mod announce;
mod api_key;
mod control_plane;
mod default_tiers;
mod lock;
mod logging;
mod returning;

use crate::args::UpArguments;
use crate::data_dir::{DataDir, Endpoints};
use crate::failure::{Exit, Failure};
use crate::files;
use control_plane::{ControlPlane, Nodes, Parts};
use graphplane_operator::{AwsSettings, SourceRules};
use kube::Client;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the parts may take to stop after a signal before the process ends all the same. Node agents finish what
/// runs and write a checkpoint, for which they have a minute.
const STOP_WITHIN: Duration = Duration::from_secs(75);

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// Another instance holds the directory, a port is taken, a part cannot start, or a part ended by itself.
pub async fn run(arguments: &UpArguments, dir: DataDir) -> Result<(), Failure> {
    // Installed first: a signal during the start must stop in order, too.
    let mut signals = Signals::install()?;
    files::private_dir(dir.path())?;
    let _lock = lock::InstanceLock::take(&dir)?;
    // A file of a process that was killed would send clients to ports that nobody, or somebody else, listens on.
    files::remove(&dir.endpoints())?;
    logging::start(&dir.log(), arguments.log_format)?;
    let nodes = match &arguments.aws {
        Some(file) => {
            let settings = AwsSettings::read(file).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            Nodes::Aws(Box::new(settings))
        }
        None => Nodes::Local {
            agent_binary: agent_binary::find(
                arguments.agent_binary.as_deref(),
                std::env::current_exe().ok().as_deref(),
                std::env::var_os("PATH").as_deref(),
            )?,
            backup_key_file: absolute(arguments.backup_key_file.as_deref())?,
            embedding_model: absolute(arguments.embedding_model.as_deref())?,
        },
    };
    let parts = Parts {
        kube_listener: listen("--kube-port", arguments.kube_port).await?,
        api_listener: listen("--api-port", arguments.api_port).await?,
        api_key: api_key::ensure(&dir)?,
        nodes,
        sources: SourceRules {
            places: arguments.sources.clone(),
            endpoints: arguments.source_endpoints.clone(),
        },
    };
    let mut plane = tokio::select! {
        started = ControlPlane::start(&dir, parts) => started?,
        name = signals.next() => {
            return Err(Failure::new(Exit::Interrupted, format!("stopped by {name} while starting")));
        }
    };
    let ended = tokio::select! {
        Err(failure) = ready(&dir, plane.client(), plane.endpoints(), arguments.aws.is_none()) => Err(failure),
        failure = plane.first_end() => Err(failure),
        name = signals.next() => {
            tracing::info!("stopping after {name}");
            Ok(())
        }
    };
    // Clients must not find servers that are about to stop.
    let removed = files::remove(&dir.endpoints());
    tokio::select! {
        () = plane.stop() => {}
        () = tokio::time::sleep(STOP_WITHIN) => tracing::warn!("some parts did not stop within {STOP_WITHIN:?}; ending all the same"),
        name = signals.next() => tracing::warn!("ending at once after a second {name}"),
    }
    ended.and(removed)
}

/// Makes what a newcomer needs, then says that everything is ready: last, since scripts wait for `endpoints.json`.
async fn ready(dir: &DataDir, client: Client, endpoints: Endpoints, default_tiers: bool) -> Result<(), Failure> {
    if default_tiers {
        default_tiers::ensure(&client).await?;
    }
    let tiers = default_tiers::names(&client).await?;
    let missing = returning::wait(client).await?;
    if !missing.is_empty() {
        tracing::warn!(
            graphs = missing.join(", "),
            "not served again yet; `graphplane status` says why"
        );
    }
    dir.write_endpoints(&endpoints)?;
    tracing::info!(kube = endpoints.kube, api = endpoints.api, "ready");
    let program = announce::program(
        std::env::var_os("PATH").as_deref(),
        &std::env::current_dir().unwrap_or_default(),
        std::env::args().next(),
    );
    // A server goes on serving also when nobody reads what it says.
    let _ = crate::output::print(&announce::ready_text(dir, &endpoints, &tiers, &program));
    Ok(())
}

/// A path as node agents can use it, whose working directory is another one.
fn absolute(path: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let found = path.map(|path| {
        std::fs::canonicalize(path).map_err(|error| Failure::io(format!("finding {}", path.display()), &error))
    });
    found.transpose()
}

/// Binds a port of this machine alone.
async fn listen(option: &str, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        let failure = Failure::plain(format!("cannot listen on 127.0.0.1:{port}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.advise(format!("choose another port with {option}; 0 takes any free one"))
            }
            std::io::ErrorKind::PermissionDenied => failure.advise(format!("choose a port above 1023 with {option}")),
            _ => failure,
        }
    })
}

/// The signals that stop the process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let fail = |error| Failure::io("installing the signal handlers", &error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(fail)?,
            terminate: signal(SignalKind::terminate()).map_err(fail)?,
        })
    }

    /// Waits for the next one and gives its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_the_option_that_changes_it() {
        let taken = listen("--api-port", 0).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = listen("--api-port", port).await.unwrap_err();
        assert!(failure.message.contains(&port.to_string()), "{failure}");
        assert!(failure.advice.unwrap().contains("--api-port"));
    }
}
