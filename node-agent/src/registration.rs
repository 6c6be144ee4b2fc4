//! The agent's standing with its control plane: who it is, which epoch it holds, and until when it may write.
//!
//! [`lease::Machine`] is the rule, pure and with the time passed in; [`Standing`] is the machine with a clock and a
//! lock, asked before every change; [`follow`] is the loop that talks to the control plane; [`files`] keeps the epoch
//! and the identity on the volume; [`metadata`] has the proof of a machine on AWS.

pub mod client;
pub mod files;
mod follow;
pub mod lease;
pub mod metadata;
mod standing;

pub use follow::{Follower, Host, follow};
pub use standing::{Clock, Standing, SystemClock};
