//! Names of objects and keys that the operator makes. They are computed, never counted, so that two passes (or the pass
//! after a crash) make the same ones.

use graphplane_crds::ids::{DatabaseId, GraphId};
use graphplane_crds::quantities::Epoch;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Key of a node's Secret: what callers of its agent present.
pub const API_KEY: &str = "apiKey";
/// Key of a node's Secret: SHA-256, in hex, of the one-time token of the first registration; the REST API removes it
/// once the token was used.
pub const BOOTSTRAP_TOKEN_SHA256: &str = "bootstrapTokenSha256";
/// Key of a node's Secret: what the one-time tokens of its machines are made of; it never leaves the operator.
pub const LAUNCH_KEY: &str = "launchKey";
/// Key of a node's Secret: SHA-256, in hex, of the agent's long-lived token; written by the REST API, like all that follow.
pub const CREDENTIAL_SHA256: &str = "credentialSha256";
/// Key of a node's Secret: since when that token is in use.
pub const CREDENTIAL_TIME: &str = "credentialTime";
/// Key of a node's Secret: the machine that proved to be the node's when it got that token, as in `status.providerID`.
pub const CREDENTIAL_MACHINE: &str = "credentialMachine";
/// Key of a node's Secret: SHA-256, in hex, of the token that takes the place of the present one once it was used.
pub const OFFERED_SHA256: &str = "offeredCredentialSha256";
/// Key of a node's Secret: when that one was offered.
pub const OFFERED_TIME: &str = "offeredCredentialTime";

/// Secret and Lease of a node, both in the system namespace.
pub fn node_object(node: &str) -> String {
    format!("node-{node}")
}

/// The GraphNode that a Secret or Lease belongs to, by its name.
pub fn node_of_object(name: &str) -> Option<&str> {
    name.strip_prefix("node-").filter(|node| !node.is_empty())
}

/// The first `<tier>-<n>` that is not `taken`: name of a node and of its volume.
pub fn next_node(tier: &str, taken: &BTreeSet<String>) -> String {
    // There are fewer names than numbers, so the search ends after `taken.len()` steps.
    (0..=taken.len())
        .map(|n| format!("{tier}-{n}"))
        .find(|name| !taken.contains(name))
        .unwrap_or_default()
}

/// The final Backup of an object that is being deleted: `<name>-final-<8 hex digits of its UID's hash>`, so that an
/// object of the same name that is made later has another one. Long names are cut to fit into 253 characters.
pub fn final_backup(name: &str, uid: &str) -> String {
    let digest = hex::encode(Sha256::digest(uid.as_bytes()));
    let name: String = name.chars().take(200).collect();
    format!("{}-final-{}", name.trim_end_matches(['-', '.']), &digest[..8])
}

/// A schedule's name as a label of its backups: itself, or cut to 54 characters with 8 hex digits of its hash.
pub fn schedule_label(schedule: &str) -> String {
    if schedule.len() <= 63 {
        return schedule.to_owned();
    }
    let digest = hex::encode(Sha256::digest(schedule.as_bytes()));
    let name: String = schedule.chars().take(54).collect();
    format!("{}-{}", name.trim_end_matches(['-', '.']), &digest[..8])
}

/// The Backup of a schedule for one of its times: `<schedule>-<yyyymmddhhmm>`, UTC.
pub fn scheduled_backup(schedule: &str, time: Timestamp) -> String {
    format!("{}-{}", schedule_label(schedule), time.strftime("%Y%m%d%H%M"))
}

/// The `n`-th node of a read fleet: `<Replica>-<8 hex digits of its UID's hash>-<n>`. The digits keep fleets of two
/// namespaces apart, and long names are cut, so that the names of the node's own objects fit.
pub fn replica_node(replica: &str, uid: &str, n: u32) -> String {
    let digest = hex::encode(Sha256::digest(uid.as_bytes()));
    let name: String = replica.chars().take(40).collect();
    format!("{}-{}-{n}", name.trim_end_matches(['-', '.']), &digest[..8])
}

/// Secret in the system namespace with the key of the machines of a read fleet that its provider keeps as a group.
pub fn fleet_object(replica_uid: &str) -> String {
    format!("fleet-{replica_uid}")
}

/// Whether a Secret has the key of a read fleet, by its name.
pub fn is_fleet_object(name: &str) -> bool {
    name.starts_with("fleet-")
}

/// The stack of a read fleet: `graphplane-replica-<16 hex digits of the hash of namespace and name>`.
pub fn replica_stack(namespace: &str, name: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("{namespace}/{name}")));
    format!("graphplane-replica-{}", &digest[..16])
}

/// Where the seeds of a read fleet are published in the object store. Graph ids are unique, and a graph's fleets are all in
/// its namespace, so nobody else publishes there.
pub fn seeds_key(graph: &GraphId, replica: &str) -> String {
    format!("seeds/{graph}/{replica}")
}

/// The database that one on a volume belongs to: `<id>-wip` is being made to take the place of `<id>`.
pub fn lasting_database(name: &str) -> &str {
    name.strip_suffix("-wip").unwrap_or(name)
}

/// Where a backup lies in the object store. The epoch keeps writers apart: one that was replaced cannot overwrite what
/// its successor stores.
pub fn backup_key(database: &DatabaseId, epoch: Epoch, backup: &str) -> String {
    format!("backups/{database}/{epoch}/{backup}")
}

/// Key of the annotation of a volume that says who a kept database belonged to; `None` for an id that is too long for
/// an annotation (63 characters), whose data cannot be claimed again by name.
pub fn retained_annotation(database: &str) -> Option<String> {
    (database.len() <= 63).then(|| format!("{}{database}", graphplane_crds::annotations::RETAINED_PREFIX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_stable() {
        assert_eq!(node_object("std-0"), "node-std-0");
        assert_eq!(node_of_object("node-std-0"), Some("std-0"));
        assert_eq!(node_of_object("node-"), None);
        assert_eq!(node_of_object("graphplane-operator"), None);
        let backup = final_backup("karate", "u-1");
        assert_eq!(backup, final_backup("karate", "u-1"));
        assert_ne!(backup, final_backup("karate", "u-2"));
        assert!(backup.starts_with("karate-final-") && backup.len() == "karate-final-".len() + 8);
        let id: DatabaseId = "kg0123456789abcdef".parse().unwrap();
        assert_eq!(backup_key(&id, Epoch(3), "b"), "backups/kg0123456789abcdef/3/b");
        assert_eq!(seeds_key(&id.graph(), "readers"), "seeds/kg0123456789abcdef/readers");
        assert_eq!(
            (lasting_database("kg1-wip"), lasting_database("kg1_dev")),
            ("kg1", "kg1_dev")
        );
        let node = replica_node("readers", "u-1", 2);
        assert!(node.starts_with("readers-") && node.ends_with("-2") && node.len() == "readers-".len() + 10);
        assert_ne!(node, replica_node("readers", "u-2", 2));
        assert!(replica_node(&"x".repeat(253), "u", 999).len() <= 63);
        let due: Timestamp = "2026-11-22T03:05:00Z".parse().unwrap();
        assert_eq!(scheduled_backup("nightly", due), "nightly-202611220305");
        let (long, other) = ("x".repeat(253), format!("{}y", "x".repeat(252)));
        assert!(schedule_label(&long).len() <= 63 && schedule_label(&long) != schedule_label(&other));
        let stack = replica_stack("default", "readers");
        assert!(stack.starts_with("graphplane-replica-") && stack.len() == "graphplane-replica-".len() + 16);
        assert_ne!(stack, replica_stack("defaultr", "eaders"));
        assert!(is_fleet_object(&fleet_object("u-1")) && !is_fleet_object(&node_object("fleet-u")));
    }

    #[test]
    fn a_gap_is_filled_first() {
        let taken: BTreeSet<String> = ["std-0", "std-2", "other-1"].map(str::to_owned).into();
        assert_eq!(next_node("std", &taken), "std-1");
    }

    proptest! {
        #[test]
        fn a_new_name_is_free_and_valid(numbers in proptest::collection::btree_set(0usize..20, 0..20)) {
            let taken: BTreeSet<String> = numbers.iter().map(|n| format!("t-{n}")).collect();
            let name = next_node("t", &taken);
            prop_assert!(!taken.contains(&name) && name.len() > 2);
        }

        #[test]
        fn a_final_backup_is_a_valid_name(name in "[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", uid in "\\PC{0,40}") {
            let name = final_backup(&name, &uid);
            prop_assert!(name.len() <= 253 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b)));
        }
    }
}
