//! Names of the annotations, labels and finalizers that Graphplane reads and writes.

/// `"true"` stops reconciling of the object; its `Paused` condition shows that the operator saw it.
pub const PAUSED: &str = "graphplane.dev/paused";
/// `"true"` refuses deletion of what the object stands for until the annotation is removed.
pub const DELETION_PROTECTION: &str = "graphplane.dev/deletion-protection";
/// Finalizer of every object that owns something outside Kubernetes.
pub const FINALIZER: &str = "graphplane.dev/finalizer";

/// Label: name of the [`crate::Tier`] of a node or volume.
pub const TIER_LABEL: &str = "graphplane.dev/tier";
/// Label: name of the [`crate::Graph`] that a dependent object belongs to.
pub const GRAPH_LABEL: &str = "graphplane.dev/graph";
/// Label: graph id of the [`crate::Graph`] that a dependent object belongs to.
pub const GRAPH_ID_LABEL: &str = "graphplane.dev/graph-id";
/// Label: name of the [`crate::GraphNode`] that a Secret or Lease belongs to; on the Secret of a group of machines, its own
/// name.
pub const NODE_LABEL: &str = "graphplane.dev/node";
/// Label: UID of the [`crate::Replica`] that a node belongs to.
pub const REPLICA_LABEL: &str = "graphplane.dev/replica";
/// Label of a [`crate::Backup`]: name of the [`crate::BackupSchedule`] that made it, cut where it is longer than a label.
pub const SCHEDULE_LABEL: &str = "graphplane.dev/schedule";
/// Annotation of a [`crate::Backup`]: the time of its schedule for which it was made.
pub const SCHEDULED_FOR: &str = "graphplane.dev/scheduled-for";
/// Label of API-key Secrets: what the Secret is for.
pub const SECRET_PURPOSE_LABEL: &str = "graphplane.dev/purpose";
/// Annotation: the idempotency key under which the REST API created an object.
pub const IDEMPOTENCY_KEY: &str = "graphplane.dev/idempotency-key";
/// Annotation: hash of the request that created an object under an idempotency key.
pub const REQUEST_HASH: &str = "graphplane.dev/request-hash";
/// Annotation of a [`crate::GraphNode`]: `"true"` moves nothing new onto it and lets the operator empty it.
pub const DRAIN: &str = "graphplane.dev/drain";
/// Annotation of a [`crate::GraphNode`] or a [`crate::Graph`]: `"true"` keeps the operator from replacing the machine that it
/// is, or is placed on, by one that is up to date.
pub const DO_NOT_DISRUPT: &str = "graphplane.dev/do-not-disrupt";
/// Annotation of a [`crate::GraphNode`], written by the operator: the epoch whose machine is to be replaced by one that is
/// up to date. It never applies to the machine of a later epoch, and is removed when that one serves.
pub const REPLACE: &str = "graphplane.dev/replace";
/// Annotation of the Lease of a node: JSON body of the agent's last renewal.
pub const USAGE: &str = "graphplane.dev/usage";
/// Prefix of annotations of a [`crate::GraphVolume`], completed by a database id: `<namespace>/<name>` of the object
/// whose database was kept by `deletionPolicy: Retain`. Only an object of that namespace may have it again.
pub const RETAINED_PREFIX: &str = "retained.graphplane.dev/";
/// Annotation of a [`crate::GraphVolume`]: identity of a snapshot of the provider. A disk that does not exist, because it
/// is new or lost, is made from it; once for each snapshot.
pub const RESTORE_FROM: &str = "graphplane.dev/restore-from";
