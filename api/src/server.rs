//! Serving a router until it is told to stop.

use crate::error::Error;
use axum::serve::ListenerExt;
use axum::{Extension, Router};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Requests that still run when the server is told to stop get so long to end.
const GRACE: Duration = Duration::from_secs(10);

/// Tells streams that would otherwise never end that the server stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown(pub(crate) CancellationToken);

/// Serves until `stop` is cancelled, then lets running requests end for at most 10 s.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> Result<(), Error> {
    let service = router
        .layer(Extension(Shutdown(stop.clone())))
        .into_make_service_with_connect_info::<SocketAddr>();
    let graceful = stop.clone();
    // Events and chunks are small and wanted at once.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move { graceful.cancelled().await });
    tokio::select! {
        result = serving => result.map_err(Error::Serve),
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests still ran {GRACE:?} after the API was told to stop; they are cut off");
            Ok(())
        }
    }
}
