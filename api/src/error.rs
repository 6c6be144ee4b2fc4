//! Errors of starting and serving; errors of requests are problems ([`crate::types::ProblemDetails`]).

/// Why the API cannot start or serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client of the gateway cannot be built.
    #[error("cannot build the HTTP client for node agents: {0}")]
    HttpClient(#[source] reqwest::Error),
    /// Some watch cache did not fill in time.
    #[error(
        "the Kubernetes API did not list {missing} within {seconds} s; check that it can be reached, that the resource \
         definitions are installed and that this server may list and watch them"
    )]
    CachesNotReady {
        /// How long it was waited, in seconds.
        seconds: u64,
        /// The kinds that were not listed.
        missing: String,
    },
    /// The listener failed for good.
    #[error("serving the REST API failed: {0}")]
    Serve(#[source] std::io::Error),
}
