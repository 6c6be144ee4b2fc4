//! Serves a data directory to kubectl until Ctrl-C, with the definitions of Graphplane.
//!
//! `cargo run -p graphplane-embedded --example serve -- DIRECTORY [PORT]`, then `kubectl --kubeconfig DIRECTORY/kubeconfig …`

use graphplane_embedded::{EmbeddedServer, ServerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut arguments = std::env::args().skip(1);
    let directory: std::path::PathBuf = arguments
        .next()
        .ok_or("say which directory to use for the state")?
        .into();
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let server = EmbeddedServer::open(ServerConfig::new(&directory).with_crds(graphplane_crds::all_crds())).await?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let kubeconfig = directory.join("kubeconfig");
    server.write_kubeconfig(&kubeconfig, &format!("https://{}", listener.local_addr()?))?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    let stop = CancellationToken::new();
    let interrupt = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        interrupt.cancel();
    });
    server.serve(listener, stop).await?;
    server.shutdown().await;
    Ok(())
}
