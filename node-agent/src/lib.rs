//! The node agent: one process that hosts every graph database of a node and serves them over HTTP.
//!
//! - [`engines`] runs LadybugDB and DuckDB on threads of their own;
//! - [`http`] is the contract: routes, authentication, limits, streams;
//! - [`tasks`] keeps what takes longer than a request, on disk, and [`changes`] what a request changes itself;
//! - [`registration`] decides whether this agent may write;
//! - [`quota`] counts the loads of a day;
//! - [`admission`] decides whether there is room for one more request;
//! - [`seeds`] are what replicas serve from;
//! - [`embed`] turns texts into vectors, if there is a model;
//! - [`backup`] and [`objects`] move data from and to object storage;
//! - [`migration`] moves databases between versions of the engines;
//! - [`metrics`] counts, and documents every series.

pub mod admission;
pub mod args;
pub mod backup;
pub mod changes;
pub mod config;
pub mod disk;
pub mod embed;
pub mod engines;
pub mod http;
pub mod metrics;
pub mod migration;
pub mod objects;
pub mod quota;
pub mod registration;
pub mod reload;
pub mod run;
pub mod seeds;
pub mod state;
pub mod tasks;
