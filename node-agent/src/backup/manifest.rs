//! The manifest of a backup: what lies beside it, with sizes and hashes of both the compressed and the plain bytes.

use super::upload::Uploaded;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// `graph` or `staging`.
    pub kind: String,
    /// Name beside the manifest.
    pub name: String,
    /// How it is compressed.
    pub compression: String,
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// Size of the object, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the plain file, in hexadecimal.
    pub plain_sha256: String,
    /// Size of the plain file, in bytes.
    pub plain_size_bytes: u64,
}

impl BackupFile {
    pub(super) fn new(kind: &str, name: &str, uploaded: &Uploaded) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            compression: "zstd".to_owned(),
            sha256: uploaded.sha256.clone(),
            size_bytes: uploaded.size_bytes,
            plain_sha256: uploaded.plain_sha256.clone(),
            plain_size_bytes: uploaded.plain_size_bytes,
        }
    }
}

/// A whole backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document.
    pub format: u32,
    /// Whose backup it is.
    pub graph_id: String,
    /// Where it lies.
    pub key: String,
    /// When it was made (RFC 3339, UTC).
    pub created_at: String,
    /// Epoch under which it was made.
    pub epoch: u64,
    /// Nodes of the graph.
    pub node_count: u64,
    /// Relationships of the graph.
    pub relationship_count: u64,
    /// Version of LadybugDB.
    pub ladybug_version: String,
    /// Version of its file format: an older engine cannot open a newer one.
    pub storage_version: u64,
    /// Version of the agent.
    pub agent_version: String,
    /// What lies beside it.
    pub files: Vec<BackupFile>,
}

impl Manifest {
    /// The version that this agent writes.
    pub const FORMAT: u32 = 1;

    /// As JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A document of texts and numbers can always be encoded.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// From JSON.
    ///
    /// # Errors
    /// When it is not a manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Compressed size of all files, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// The result of the task that made it.
    pub fn result(&self) -> Value {
        let file = |kind: &str| self.files.iter().find(|file| file.kind == kind);
        let graph = file("graph");
        json!({
            "key": self.key,
            "manifest": format!("{}/manifest.json", self.key),
            "sha256": graph.map(|file| &file.sha256),
            "size_bytes": self.size_bytes(),
            "plain_size_bytes": self.files.iter().map(|file| file.plain_size_bytes).sum::<u64>(),
            "node_count": self.node_count,
            "relationship_count": self.relationship_count,
            "ladybug_version": self.ladybug_version,
            "storage_version": self.storage_version.to_string(),
            "duckdb_included": file("staging").is_some(),
            "created_at": self.created_at,
            "epoch": self.epoch,
        })
    }
}
