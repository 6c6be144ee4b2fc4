//! The provider for AWS against an independent emulator of AWS.
#![allow(clippy::unwrap_used)]

mod disks;
mod fleets;
mod instances;
mod moto;
mod stacks;
