//! The engines as the rest of the agent uses them, with real databases in temporary directories.
#![allow(clippy::unwrap_used)]

mod arrow;
mod cut_off;
mod durability;
mod file_formats;
mod isolation;
mod legacy;
mod lifecycle;
mod materialize;
mod parameters;
mod queries;
mod staging;
mod support;
