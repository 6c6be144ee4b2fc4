//! Decisions of the control plane, as pure functions.
//!
//! Nothing here reads a clock, a file or an API: each `plan` takes what is wanted (the object with its spec, its status
//! and its deletion mark), what was observed, and the present time, and answers with actions to take, conditions to
//! write and when to look again. The operator executes the first action, observes, and plans again, until no action is
//! left; the command line and the REST API show the same list without executing it.
//!
//! ```text
//!  observe ──▶ plan(wanted, observed, now) ──▶ act (one action) ──▶ observe … ──▶ no action ──▶ status
//!                     ▲ this crate
//! ```
//!
//! | module | decides |
//! |---|---|
//! | [`placement`], [`fleet`], [`resources`] | which node takes a database, and when a new one is needed |
//! | [`graph_plan`], [`subgraph_plan`], [`backup_plan`], [`backup_schedule_plan`], [`replica_plan`], [`fleet_plan`] | the life of a tenant's objects |
//! | [`ending`] | what becomes of data when its object is deleted |
//! | [`node_plan`], [`volume_plan`], [`tier_plan`], [`stack_plan`] | the life of machines, disks and stacks |
//! | [`rollout`] | which machines of a tier are replaced by newer ones, and when |
//! | [`orphans`] | what becomes of machines and disks without an object |
//! | [`prices`] | what it costs |
//! | [`epoch`], [`lease`], [`usage`] | who may write |
//! | [`identity`] | whether an agent runs on the machine that was started for its node |
//! | [`statements`], [`schema_copy`] | which statements of a schema a database still lacks, or another one needs |
//! | [`sources`] | what a node reads with its own credentials when a tenant names it |
//! | [`registry`] | what clients outside of Kubernetes are told, and which write of it counts |
//! | [`backoff`], [`client_token`], [`cron`], [`names`] | when to repeat, and how a repeat is recognised |

pub mod backoff;
pub mod backup_plan;
pub mod backup_schedule_plan;
pub mod client_token;
pub mod cron;
pub mod ending;
pub mod epoch;
pub mod fleet;
pub mod fleet_plan;
pub mod graph_plan;
pub mod identity;
pub mod lease;
pub mod memory_schema;
pub mod names;
pub mod node_plan;
pub mod orphans;
pub mod placement;
pub mod plan;
pub mod prices;
pub mod registry;
pub mod replica_plan;
pub mod resources;
pub mod rollout;
pub mod schema_copy;
pub mod sources;
pub mod stack_plan;
pub mod statements;
pub mod subgraph_plan;
pub mod tier_plan;
pub mod usage;
pub mod volume_plan;

pub use plan::Plan;
