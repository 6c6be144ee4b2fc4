//! Tests of the real program over HTTP: one agent process per test, on a free port, in a directory of its own.

#![allow(clippy::unwrap_used, missing_docs)]

mod backups;
mod conformance;
mod contract;
mod document;
mod downloads;
mod drain;
mod durability;
mod embeddings;
mod executes;
mod fixture;
mod forks;
mod formats;
mod hostile;
mod keys;
mod lease;
mod loading;
mod migrations;
mod observability;
mod operations;
mod peer;
mod plane;
mod python;
mod rebuilds;
mod replicas;
mod replicas_cut;
mod restores;
mod restores_cut;
mod security;
mod semantic_memory;
mod sources;
mod streaming;
mod tasks;
mod vector_copies;
mod vectors;
