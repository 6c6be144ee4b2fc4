//! The document of an export: what made it, what is in it, and what lies beside it.

use crate::{
    backup::{BackupKey, Encryption, Unusable, Uploaded},
    engines::{DatabaseId, Portable, PortableTable, Sequence},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One object of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Its name beside the document.
    pub name: String,
    /// Its sizes and hashes, compressed and plain.
    #[serde(flatten)]
    pub object: Uploaded,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedTable {
    /// Which, and how many.
    #[serde(flatten)]
    pub table: PortableTable,
    /// Where they are.
    pub file: ExportedFile,
}

/// A whole export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportManifest {
    /// Version of this document.
    pub format: u32,
    /// Whose export it is.
    pub graph_id: String,
    /// Where it lies.
    pub key: String,
    /// When it was begun (RFC 3339, UTC).
    pub created_at: String,
    /// Epoch under which it was made.
    pub epoch: u64,
    /// Nodes of the graph.
    pub node_count: u64,
    /// Relationships of the graph.
    pub relationship_count: u64,
    /// Version of LadybugDB that wrote it.
    pub ladybug_version: String,
    /// Version of that engine's files.
    pub storage_version: u64,
    /// Version of DuckDB that wrote the staging tables.
    pub duckdb_version: String,
    /// Version of the agent.
    pub agent_version: String,
    /// How its files are encrypted; absent if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The statements that make the tables.
    pub schema: ExportedFile,
    /// Its sequences.
    pub sequences: Vec<Sequence>,
    /// The rows, nodes first.
    pub tables: Vec<ExportedTable>,
    /// Its staging tables, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<ExportedFile>,
}

impl ExportManifest {
    /// The version that this agent writes and reads.
    pub const FORMAT: u32 = 1;

    /// As JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A document of texts and numbers can always be encoded.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// What the object with the statements is called.
    pub(super) fn schema_name(encrypted: bool) -> String {
        named("schema.cypher", encrypted)
    }

    /// What the object with the rows of a table is called.
    pub(super) fn table_name(index: usize, encrypted: bool) -> String {
        named(&format!("table-{index:04}.parquet"), encrypted)
    }

    /// What the object with the staging tables is called.
    pub(super) fn staging_name(encrypted: bool) -> String {
        named("staging.duckdb", encrypted)
    }

    /// Every object, with the name that it must have.
    fn files(&self) -> impl Iterator<Item = (&ExportedFile, String)> {
        let encrypted = self.encryption.is_some();
        let schema = [(&self.schema, Self::schema_name(encrypted))];
        let tables = self.tables.iter().enumerate();
        let tables = tables.map(move |(index, table)| (&table.file, Self::table_name(index, encrypted)));
        let staging = self
            .staging
            .iter()
            .map(move |file| (file, Self::staging_name(encrypted)));
        schema.into_iter().chain(tables).chain(staging)
    }

    /// Checks a document that somebody may have tampered with: then names and sizes may be used.
    ///
    /// # Errors
    /// Why nothing is imported from it.
    pub fn check(&self) -> Result<(), Unusable> {
        let field = |message: String| Err(Unusable::Field(message));
        if self.format != Self::FORMAT {
            return Err(Unusable::Format {
                found: self.format,
                own: Self::FORMAT,
            });
        }
        if DatabaseId::parse(&self.graph_id).is_err() || self.created_at.len() > 64 {
            return field("graph_id or created_at".into());
        }
        if self
            .encryption
            .as_ref()
            .is_some_and(|encryption| !encryption.is_known())
        {
            return field("encryption.algorithm".into());
        }
        for (file, name) in self.files() {
            if file.name != name {
                return field(format!("expected a file {name}"));
            }
            if !file.object.has_digests() {
                return field(format!("a hash of {name} is not SHA-256"));
            }
        }
        if self.schema.object.plain_size_bytes > SCHEMA_LIMIT {
            return field(format!("its schema has more than {SCHEMA_LIMIT} bytes"));
        }
        if self.portable(String::new()).counts() != (self.node_count, self.relationship_count) {
            return field("its tables have not as many rows together as it says".into());
        }
        if self.plain_bytes() == u64::MAX {
            return field("its sizes are impossible".into());
        }
        Ok(())
    }

    /// What makes the graph again.
    pub(super) fn portable(&self, ddl: String) -> Portable {
        Portable {
            ddl,
            sequences: self.sequences.clone(),
            tables: self.tables.iter().map(|table| table.table.clone()).collect(),
        }
    }

    /// With what its files are encrypted.
    pub fn key_id(&self) -> Option<&str> {
        self.encryption.as_ref().map(|encryption| encryption.key_id.as_str())
    }

    /// Whether it is encrypted with this key, or with none.
    pub(super) fn is_encrypted_with(&self, key: Option<&BackupKey>) -> bool {
        self.encryption == key.map(Encryption::with)
    }

    /// Size of all plain files, in bytes.
    pub fn plain_bytes(&self) -> u64 {
        self.files()
            .fold(0, |sum, (file, _)| sum.saturating_add(file.object.plain_size_bytes))
    }

    /// Size of all objects, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files()
            .fold(0, |sum, (file, _)| sum.saturating_add(file.object.size_bytes))
    }

    /// The result of the task that made it.
    pub fn result(&self) -> Value {
        json!({
            "graph_id": self.graph_id,
            "key": self.key,
            "manifest": format!("{}/{}", self.key, super::EXPORT),
            "created_at": self.created_at,
            "epoch": self.epoch,
            "node_count": self.node_count,
            "relationship_count": self.relationship_count,
            "tables": self.tables.iter().map(|table| &table.table).collect::<Vec<_>>(),
            "size_bytes": self.size_bytes(),
            "plain_size_bytes": self.plain_bytes(),
            "ladybug_version": self.ladybug_version,
            "storage_version": self.storage_version.to_string(),
            "duckdb_included": self.staging.is_some(),
            "is_encrypted": self.encryption.is_some(),
        })
    }
}

/// Bytes of the statements of a schema.
const SCHEMA_LIMIT: u64 = 16 << 20;

fn named(name: &str, encrypted: bool) -> String {
    format!("{name}.zst{}", if encrypted { ".enc" } else { "" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str) -> ExportedFile {
        ExportedFile {
            name: name.to_owned(),
            object: Uploaded {
                sha256: "a".repeat(64),
                size_bytes: 10,
                plain_sha256: "b".repeat(64),
                plain_size_bytes: 4096,
            },
        }
    }

    fn table(index: usize, ends: Option<[&str; 2]>, rows: u64) -> ExportedTable {
        ExportedTable {
            table: PortableTable {
                table: "T".into(),
                ends: ends.map(|ends| ends.map(str::to_owned)),
                rows,
            },
            file: file(&format!("table-{index:04}.parquet.zst")),
        }
    }

    fn manifest() -> ExportManifest {
        ExportManifest {
            format: 1,
            graph_id: "kg1".into(),
            key: "exports/kg1/0/x".into(),
            created_at: "2026-01-01T00:00:00.000Z".into(),
            epoch: 0,
            node_count: 3,
            relationship_count: 5,
            ladybug_version: "0.22.1".into(),
            storage_version: 49,
            duckdb_version: "1.5.6".into(),
            agent_version: "0.1.0".into(),
            encryption: None,
            schema: file("schema.cypher.zst"),
            sequences: Vec::new(),
            tables: vec![table(0, None, 3), table(1, Some(["T", "T"]), 5)],
            staging: Some(file("staging.duckdb.zst")),
        }
    }

    #[test]
    fn an_export_of_ours_is_used() {
        let manifest = manifest();
        let read: ExportManifest = serde_json::from_slice(&manifest.to_bytes()).unwrap();
        assert_eq!(read, manifest);
        read.check().unwrap();
        assert_eq!((read.plain_bytes(), read.size_bytes()), (4 * 4096, 40));
    }

    #[test]
    fn a_hostile_export_is_refused() {
        let changes: [fn(&mut ExportManifest); 11] = [
            |m| m.format = 2,
            |m| m.graph_id = "../kg1".into(),
            |m| m.schema.name = "../../schema.cypher.zst".into(),
            |m| m.tables[1].file.name = "table-0000.parquet.zst".into(),
            |m| m.tables[0].file.object.sha256 = "x".into(),
            |m| m.tables[0].table.rows = 4,
            |m| m.node_count = u64::MAX,
            |m| m.tables[0].file.object.plain_size_bytes = u64::MAX,
            |m| m.schema.object.plain_size_bytes = 1 << 30,
            |m| m.staging = Some(file("table-0000.parquet.zst")),
            |m| {
                m.encryption = Some(Encryption {
                    algorithm: "none".into(),
                    key_id: String::new(),
                });
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut manifest = manifest();
            change(&mut manifest);
            assert!(manifest.check().is_err(), "change {index}");
            if manifest.format != ExportManifest::FORMAT {
                let (found, own) = (manifest.format, ExportManifest::FORMAT);
                assert_eq!(manifest.check(), Err(Unusable::Format { found, own }));
            }
        }
    }
}
