//! The scenario suite's harness: a whole control plane as a user starts it, driven by the programs a user has.
//!
//! Scenarios see only what users see: the `graphplane` binary, its data directory, kubectl and HTTP. Nothing in here
//! reaches into a crate of ours, so that the same scenarios can run against another server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod binaries;
mod command;
pub mod emulator;
mod http;
mod plane;
mod processes;

pub use binaries::{binary, repository};
pub use command::{Output, run};
pub use emulator::Moto;
pub use http::Response;
pub use plane::Plane;
pub use processes::{alive, command_lines_with};
