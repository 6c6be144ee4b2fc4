//! What an agent says of itself when it renews its lease.

use graphplane_crds::graph::Sizes;
use serde::{Deserialize, Serialize};

/// Body of a renewal, as the REST API keeps it in the annotation of the node's Lease.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Epoch that the agent holds.
    pub epoch: u64,
    /// URL of the agent.
    pub address: String,
    /// Databases on its volume.
    pub databases: Vec<DatabaseUsage>,
    /// Memory of the agent's process, in MiB.
    #[serde(rename = "memoryUsedMiB")]
    pub memory_used_mib: u64,
    /// Used space of the volume, in MiB.
    #[serde(rename = "diskUsedMiB")]
    pub disk_used_mib: u64,
    /// Free space of the volume, in MiB.
    #[serde(rename = "diskFreeMiB")]
    pub disk_free_mib: u64,
    /// Whether the agent refuses writes.
    pub fenced: bool,
    /// Queries that run.
    pub active_queries: u64,
}

/// One database of [`Usage`].
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseUsage {
    /// Its id.
    pub id: String,
    /// Size of the graph's files, in bytes.
    pub size_bytes: u64,
    /// Size of the staging files, in bytes.
    pub staging_bytes: u64,
    /// Another number after everything that changed the graph or its vectors, under one epoch.
    pub revision: u64,
}

impl Usage {
    /// Reads the annotation; what cannot be read counts as not there, since the next renewal replaces it.
    pub fn parse(annotation: &str) -> Option<Self> {
        serde_json::from_str(annotation).ok()
    }

    /// The state of a database's graph: another text after everything that changed it. A copy that is begun after it was
    /// told has at least that state. `None` if the database is not among those that were reported.
    pub fn mark(&self, database: &str) -> Option<String> {
        let found = self.databases.iter().find(|d| d.id == database)?;
        Some(format!("{}.{}", self.epoch, found.revision))
    }

    /// Sizes of a database, rounded so that an idle graph's status does not change.
    pub fn sizes(&self, database: &str) -> Option<Sizes> {
        self.databases.iter().find(|d| d.id == database).map(|d| Sizes {
            database_bytes: rounded(d.size_bytes),
            staging_bytes: rounded(d.staging_bytes),
        })
    }
}

/// Rounds up to 64 KiB.
pub fn rounded(bytes: u64) -> i64 {
    const STEP: u64 = 64 << 10;
    i64::try_from(bytes.div_ceil(STEP).saturating_mul(STEP)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_body_of_a_renewal_is_read() {
        let usage = Usage::parse(
            r#"{"epoch":4,"address":"http://127.0.0.1:1","databases":[{"id":"kg0123456789abcdef","sizeBytes":70000,"stagingBytes":0}],
                "memoryUsedMiB":80,"diskUsedMiB":12,"diskFreeMiB":9000,"fenced":false,"activeQueries":0,"later":1}"#,
        )
        .unwrap();
        assert_eq!((usage.epoch, usage.disk_used_mib), (4, 12));
        assert_eq!(
            usage.sizes("kg0123456789abcdef").unwrap(),
            Sizes {
                database_bytes: 131_072,
                staging_bytes: 0
            }
        );
        assert_eq!(usage.sizes("kgother"), None);
        let counting = r#"{"epoch":4,"databases":[{"id":"kg1","revision":7}]}"#;
        let mark = |id| Usage::parse(counting).unwrap().mark(id);
        assert_eq!((mark("kg1").as_deref(), mark("kg2")), (Some("4.7"), None));
        assert_eq!(Usage::parse("not json"), None);
    }

    #[test]
    fn rounding_goes_up_and_never_overflows() {
        assert_eq!(
            (rounded(0), rounded(1), rounded(65_536), rounded(65_537)),
            (0, 65_536, 65_536, 131_072)
        );
        assert_eq!(rounded(u64::MAX), i64::MAX);
    }
}
