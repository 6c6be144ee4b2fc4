//! The manifest of a backup: what lies beside it, with sizes and hashes of both the stored and the plain bytes.

use super::{
    crypt::{ALGORITHM, BackupKey, FileCipher},
    upload::Uploaded,
};
use crate::engines::{DatabaseId, TableName, VectorsName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which engine's file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// The graph.
    Graph,
    /// Its staging tables.
    Staging,
    /// One of its tables of vectors; there may be any number.
    Vectors,
    /// Its semantic memory.
    Memory,
}

/// Which file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The graph.
    Graph,
    /// Its staging tables.
    Staging,
    /// One of its tables of vectors, or its semantic memory.
    Vectors(VectorsName),
}

impl Piece {
    /// Of which kind it is.
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Graph => FileKind::Graph,
            Self::Staging => FileKind::Staging,
            Self::Vectors(VectorsName::Index(_)) => FileKind::Vectors,
            Self::Vectors(VectorsName::Memory) => FileKind::Memory,
        }
    }

    /// What its object is called.
    pub(super) fn name(&self, encrypted: bool) -> String {
        let table = match self {
            Self::Vectors(VectorsName::Index(table)) => table.as_str(),
            _ => "",
        };
        format!("{table}{}", self.kind().ending(encrypted))
    }
}

impl FileKind {
    /// The end of the names of its objects. Names of tables have no dot, so no two pieces have the same name.
    fn ending(self, encrypted: bool) -> String {
        let ending = match self {
            Self::Graph => "graph.lbug.zst",
            Self::Staging => "staging.duckdb.zst",
            Self::Vectors => ".lance.tar.zst",
            Self::Memory => "semantic-memory.tar.zst",
        };
        format!("{ending}{}", if encrypted { ".enc" } else { "" })
    }

    /// The piece whose object has this name.
    fn piece(self, name: &str, encrypted: bool) -> Option<Piece> {
        let table = name.strip_suffix(&self.ending(encrypted))?;
        match self {
            Self::Vectors => {
                let table = TableName::parse(table).ok()?;
                Some(Piece::Vectors(VectorsName::Index(table)))
            }
            _ if !table.is_empty() => None,
            Self::Graph => Some(Piece::Graph),
            Self::Staging => Some(Piece::Staging),
            Self::Memory => Some(Piece::Vectors(VectorsName::Memory)),
        }
    }
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// `graph`, `staging`, `vectors` or `memory`.
    pub kind: FileKind,
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

const ZSTD: &str = "zstd";

impl BackupFile {
    /// A file that was uploaded.
    pub(super) fn uploaded(piece: &Piece, encrypted: bool, uploaded: &Uploaded) -> Self {
        Self {
            kind: piece.kind(),
            name: piece.name(encrypted),
            compression: ZSTD.to_owned(),
            sha256: uploaded.sha256.clone(),
            size_bytes: uploaded.size_bytes,
            plain_sha256: uploaded.plain_sha256.clone(),
            plain_size_bytes: uploaded.plain_size_bytes,
        }
    }

    /// The object, whatever is in it.
    pub(crate) fn object(&self) -> Uploaded {
        Uploaded {
            sha256: self.sha256.clone(),
            size_bytes: self.size_bytes,
            plain_sha256: self.plain_sha256.clone(),
            plain_size_bytes: self.plain_size_bytes,
        }
    }

    /// The table of vectors in it.
    fn table(&self) -> Option<&str> {
        match self.kind {
            FileKind::Vectors => self.name.split('.').next(),
            _ => None,
        }
    }
}

/// How the files of a backup are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// `AES-256-GCM`.
    pub algorithm: String,
    /// Which key: the beginning of a hash of it.
    pub key_id: String,
}

impl Encryption {
    /// With this key.
    pub(crate) fn with(key: &BackupKey) -> Self {
        Self {
            algorithm: ALGORITHM.to_owned(),
            key_id: key.id(),
        }
    }

    /// Whether this agent knows the algorithm.
    pub(crate) fn is_known(&self) -> bool {
        self.algorithm == ALGORITHM
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
    /// When it was begun (RFC 3339, UTC).
    pub created_at: String,
    /// Epoch under which it was made.
    pub epoch: u64,
    /// Its number among the seeds of this epoch; other backups have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
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
    /// How its files are encrypted; absent if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// What lies beside it.
    pub files: Vec<BackupFile>,
}

/// A manifest from which this agent restores nothing: of another version, damaged, or made to do harm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Another version of the document.
    #[error("its manifest has format {found}, and this agent reads format {own}")]
    Format {
        /// Which.
        found: u32,
        /// What this agent reads.
        own: u32,
    },
    /// A newer engine made it.
    #[error(
        "LadybugDB {ladybug} wrote it in storage version {found}, and this agent reads up to {own}: restore it on a newer agent"
    )]
    Storage {
        /// Version of the engine.
        ladybug: String,
        /// Version of its files.
        found: u64,
        /// What this agent reads.
        own: u64,
    },
    /// A field that this agent never writes like that.
    #[error("its manifest is not one that an agent wrote: {0}")]
    Field(String),
    /// It has another graph size than the node can open.
    #[error("its graph has {found} bytes, and this node opens graphs of up to {limit}")]
    TooLarge {
        /// Size of the graph.
        found: u64,
        /// What the node opens.
        limit: u64,
    },
}

/// What a node can restore.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Newest storage version that its engine reads.
    pub storage_version: u64,
    /// Largest graph that it opens, in bytes.
    pub graph_bytes: u64,
}

/// The files of a manifest that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The graph.
    pub graph: BackupFile,
    /// Its staging tables.
    pub staging: Option<BackupFile>,
    /// Its tables of vectors and its semantic memory.
    pub vectors: BTreeMap<VectorsName, BackupFile>,
}

impl Content {
    /// Size of the plain files, in bytes.
    pub fn plain_bytes(&self) -> u64 {
        let further = self.staging.iter().chain(self.vectors.values());
        further.fold(self.graph.plain_size_bytes, |sum, file| {
            sum.saturating_add(file.plain_size_bytes)
        })
    }
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

    /// Checks a manifest that somebody may have tampered with: whoever gets the content may use names and sizes.
    ///
    /// # Errors
    /// Why nothing is restored from it.
    pub fn content(&self, abilities: Abilities) -> Result<Content, Unusable> {
        let field = |message: String| Err(Unusable::Field(message));
        if self.format != Self::FORMAT {
            return Err(Unusable::Format {
                found: self.format,
                own: Self::FORMAT,
            });
        }
        if self.storage_version > abilities.storage_version {
            return Err(Unusable::Storage {
                ladybug: self.ladybug_version.chars().take(32).collect(),
                found: self.storage_version,
                own: abilities.storage_version,
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
            return field(format!("encryption.algorithm is not {ALGORITHM}"));
        }
        let (mut graph, mut staging, mut vectors) = (None, None, BTreeMap::new());
        for file in &self.files {
            let encrypted = self.encryption.is_some();
            let piece = file.kind.piece(&file.name, encrypted);
            let Some(piece) = piece.filter(|_| file.compression == ZSTD) else {
                let ending = file.kind.ending(encrypted);
                return field(format!("expected a file {ending} compressed with {ZSTD}"));
            };
            let name = &file.name;
            if !file.object().has_digests() {
                return field(format!("a hash of {name} is not SHA-256"));
            }
            let before = match piece {
                Piece::Graph => graph.replace(file.clone()),
                Piece::Staging => staging.replace(file.clone()),
                Piece::Vectors(name) => vectors.insert(name, file.clone()),
            };
            if before.is_some() {
                return field(format!("{name} is listed twice"));
            }
        }
        let Some(graph) = graph else {
            return field("it lists no graph".into());
        };
        if graph.plain_size_bytes > abilities.graph_bytes {
            return Err(Unusable::TooLarge {
                found: graph.plain_size_bytes,
                limit: abilities.graph_bytes,
            });
        }
        let content = Content {
            graph,
            staging,
            vectors,
        };
        if content.plain_bytes() == u64::MAX {
            return field("its sizes are impossible".into());
        }
        Ok(content)
    }

    /// Encryption of one file of this backup with `key`: bound to the backup and to the file's name there.
    pub(crate) fn cipher(graph_id: &str, created_at: &str, name: &str, key: &BackupKey) -> FileCipher {
        FileCipher {
            key: key.clone(),
            context: format!("{graph_id}\n{created_at}\n{name}"),
        }
    }

    /// Size of all objects, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// Size of the plain files, in bytes.
    pub fn plain_size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.plain_size_bytes).sum()
    }

    /// Whether it has a file of this kind.
    pub fn has(&self, kind: FileKind) -> bool {
        self.files.iter().any(|file| file.kind == kind)
    }

    /// The tables of vectors in it.
    pub fn vector_tables(&self) -> Vec<&str> {
        self.files.iter().filter_map(BackupFile::table).collect()
    }

    /// The result of the task that made it.
    pub fn result(&self) -> Value {
        let graph = self.files.iter().find(|file| file.kind == FileKind::Graph);
        json!({
            "key": self.key,
            "manifest": format!("{}/manifest.json", self.key),
            "sha256": graph.map(|file| &file.sha256),
            "size_bytes": self.size_bytes(),
            "plain_size_bytes": self.plain_size_bytes(),
            "node_count": self.node_count,
            "relationship_count": self.relationship_count,
            "ladybug_version": self.ladybug_version,
            "storage_version": self.storage_version.to_string(),
            "duckdb_included": self.has(FileKind::Staging),
            "vector_tables": self.vector_tables(),
            "semantic_memory_included": self.has(FileKind::Memory),
            "created_at": self.created_at,
            "epoch": self.epoch,
            "version": self.version,
            "is_encrypted": self.encryption.is_some(),
            "encryption": self.encryption,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ABILITIES: Abilities = Abilities {
        storage_version: 49,
        graph_bytes: 1 << 30,
    };

    fn file(piece: &Piece) -> BackupFile {
        let uploaded = Uploaded {
            sha256: "a".repeat(64),
            size_bytes: 10,
            plain_sha256: "b".repeat(64),
            plain_size_bytes: 4096,
        };
        BackupFile::uploaded(piece, false, &uploaded)
    }

    fn vectors(table: &str) -> BackupFile {
        BackupFile {
            kind: FileKind::Vectors,
            name: format!("{table}.lance.tar.zst"),
            ..file(&Piece::Graph)
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            format: Manifest::FORMAT,
            graph_id: "kg1".into(),
            key: "backups/kg1/0/x".into(),
            created_at: "2026-01-01T00:00:00.000Z".into(),
            epoch: 0,
            version: None,
            node_count: 1,
            relationship_count: 0,
            ladybug_version: "0.22.1".into(),
            storage_version: 49,
            agent_version: "0.1.0".into(),
            encryption: None,
            files: vec![file(&Piece::Graph), file(&Piece::Staging)],
        }
    }

    #[test]
    fn a_manifest_of_ours_is_used() {
        let written = Manifest::from_bytes(&manifest().to_bytes()).unwrap();
        let content = written.content(ABILITIES).unwrap();
        assert_eq!((content.plain_bytes(), content.staging.is_some()), (8192, true));
        let older = Manifest {
            storage_version: 42,
            files: vec![file(&Piece::Graph)],
            ..manifest()
        };
        assert_eq!(older.content(ABILITIES).unwrap().staging, None);
        let mut more = manifest();
        more.files.extend(["memory", "Element"].map(vectors));
        more.files.push(file(&Piece::Vectors(VectorsName::Memory)));
        let more = Manifest::from_bytes(&more.to_bytes()).unwrap();
        let content = more.content(ABILITIES).unwrap();
        assert_eq!(content.plain_bytes(), 5 * 4096);
        let table = |name: &str| VectorsName::Index(name.parse().unwrap());
        let names: Vec<VectorsName> = content.vectors.into_keys().collect();
        assert_eq!(names, [table("Element"), table("memory"), VectorsName::Memory]);
        let result = more.result();
        assert_eq!(result["vector_tables"], json!(["memory", "Element"]));
        assert_eq!(result["semantic_memory_included"], true);
    }

    #[test]
    fn a_manifest_from_before_there_were_vectors_has_none() {
        let content = manifest().content(ABILITIES).unwrap();
        assert!(content.vectors.is_empty());
        let result = manifest().result();
        assert_eq!(result["vector_tables"], json!([]));
        assert_eq!(result["semantic_memory_included"], false);
    }

    #[test]
    fn every_piece_has_a_name_of_its_own() {
        let tables = ["graph", "staging", "memory", "semantic-memory", "lance", "Element"];
        let tables = tables.map(|table| Piece::Vectors(VectorsName::Index(table.parse().unwrap())));
        let others = [Piece::Graph, Piece::Staging, Piece::Vectors(VectorsName::Memory)];
        for encrypted in [false, true] {
            let mut names = Vec::new();
            for piece in tables.iter().chain(&others) {
                let name = piece.name(encrypted);
                assert_eq!(piece.kind().piece(&name, encrypted).as_ref(), Some(piece));
                assert_eq!(piece.kind().piece(&name, !encrypted), None);
                assert!(!names.contains(&name), "{name}");
                names.push(name);
            }
        }
    }

    #[test]
    fn a_hostile_manifest_is_refused() {
        let with = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.content(ABILITIES).unwrap_err()
        };
        assert_eq!(with(|m| m.format = 2), Unusable::Format { found: 2, own: 1 });
        assert!(matches!(
            with(|m| m.storage_version = 50),
            Unusable::Storage { found: 50, own: 49, .. }
        ));
        assert!(matches!(
            with(|m| m.files[0].plain_size_bytes = u64::MAX),
            Unusable::TooLarge { .. }
        ));
        let changes: [fn(&mut Manifest); 18] = [
            |m| m.files[0].name = "../../../etc/passwd".into(),
            |m| m.files[0].name = "staging.duckdb.zst".into(),
            |m| m.files[1].plain_size_bytes = u64::MAX,
            |m| m.files[0].sha256 = "A".repeat(63),
            |m| m.files[0].plain_sha256 = "../".repeat(21) + "x",
            |m| m.files[0].compression = "none".into(),
            |m| m.files.push(file(&Piece::Graph)),
            |m| m.files.extend([vectors("T"), vectors("T")]),
            |m| m.files.push(vectors("")),
            |m| m.files.push(vectors("../T")),
            |m| m.files.push(vectors("a.b")),
            |m| m.files.extend(vec![file(&Piece::Vectors(VectorsName::Memory)); 2]),
            |m| {
                let memory = file(&Piece::Vectors(VectorsName::Memory));
                m.files.push(BackupFile {
                    name: "T.lance.tar.zst".into(),
                    ..memory
                });
            },
            |m| {
                m.files.push(BackupFile {
                    plain_size_bytes: u64::MAX,
                    ..vectors("T")
                });
            },
            |m| {
                m.files[1] = BackupFile {
                    kind: FileKind::Vectors,
                    ..m.files[1].clone()
                }
            },
            |m| {
                m.files.remove(0);
            },
            |m| m.graph_id = "../kg1".into(),
            |m| {
                m.encryption = Some(Encryption {
                    algorithm: "none".into(),
                    key_id: String::new(),
                });
            },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert!(matches!(with(change), Unusable::Field(_)), "change {index}");
        }
        // To take encryption out of the manifest is not enough to have other files restored as if they were plain.
        let mut plain = manifest();
        plain.files[0].name = Piece::Graph.name(true);
        assert!(matches!(plain.content(ABILITIES), Err(Unusable::Field(_))));
    }
}
