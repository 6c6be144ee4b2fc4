//! The operator against the embedded API server, with machines and agents that are played by the test: the agents speak
//! their contract over real sockets.
#![allow(clippy::unwrap_used)]

mod agent;
mod backups;
mod crashes;
mod databases;
mod gate;
mod leadership;
mod lifecycle;
mod machines;
mod placement;
mod registrar;
mod registries;
mod replicas;
mod replicas_cut;
mod restarts;
mod rollouts;
mod schedules;
mod subgraphs;
mod world;
