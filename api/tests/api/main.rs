//! The API over real sockets, on the embedded server, with node agents that are small programs of the tests.
#![allow(clippy::unwrap_used)]

mod access;
mod agents;
mod connections;
mod documents;
mod events;
mod fake_agent;
mod gateway;
mod gateway_faults;
mod identity;
mod plane;
mod replicas;
mod resources;
mod writing;
