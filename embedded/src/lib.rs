//! A Kubernetes-compatible API server for custom resources, in process, on one file.
//!
//! It serves the part of the Kubernetes API that `kubectl` and kube-rs controllers use, for the kinds of
//! CustomResourceDefinitions and for Namespace, Secret, ConfigMap, ServiceAccount, Event, Lease and
//! CustomResourceDefinition itself. The same controllers run on it and on a cluster, unchanged.
//!
//! ```text
//!  kube::Client in the process ─┐                    ┌─ schema, CEL, defaults     kinds, schema
//!  kubectl over TLS + token ────┴─ http ──▶ verbs ───┼─ field ownership, patches  apply, patch
//!                                            │  ▲    └─ tables, discovery, docs   table, discovery, openapi
//!                                            ▼  │
//!            one file ◀── writer thread ◀── store ──▶ watchers, garbage collector, lifecycle controllers
//! ```
//!
//! - Every write is on disk before it is acknowledged or seen; writers that come together share one fsync.
//! - Reads and watches are served from memory; the history of each resource is bounded, and a client that is too late
//!   gets `410 Gone`.
//! - Wrong requests get the `Status` that kube-apiserver gives: code, reason, causes, wording.
//! - It is for one machine and one user: there is one credential, which may do everything. Admission webhooks, conversion
//!   webhooks, RBAC and protobuf answers are not served.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use graphplane_embedded::{EmbeddedServer, ServerConfig};
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::api::{Api, ListParams};
//!
//! let server = EmbeddedServer::open(ServerConfig::new("data")).await?;
//! // In the process: no socket, no credential.
//! let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
//! println!("{} config maps", maps.list(&ListParams::default()).await?.items.len());
//!
//! // For kubectl.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("https://{}", listener.local_addr()?);
//! server.write_kubeconfig("kubeconfig".as_ref(), &url)?;
//! server.serve(listener, tokio_util::sync::CancellationToken::new()).await?;
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod apply;
mod auth;
mod cluster;
pub mod discovery;
mod gc;
mod http;
pub mod kinds;
mod lifecycle;
pub mod openapi;
mod patch;
pub mod schema;
mod server;
pub mod status;
mod store;
pub mod table;
mod tls;
mod verbs;

pub use server::{EmbeddedServer, Error, ServerConfig};
pub use store::StoreError;
pub use tls::TlsError;
