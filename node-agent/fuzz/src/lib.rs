//! What must hold for the agent's readers of what strangers send. They are compiled here from their own files, without
//! the engines that they guard; each target in `fuzz_targets` calls one function of this library.

mod naive;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

#[path = "../../src/engines"]
#[allow(dead_code, unused_imports)]
mod engines {
    pub(crate) mod error;
    pub(crate) mod names;
    pub(crate) mod type_names;
    pub(crate) mod ladybug {
        pub(crate) mod guard;
        pub(crate) mod tokens;
        pub(crate) use tokens::position;
    }
    pub(crate) mod duckdb {
        pub(crate) mod sql_guard;
    }
    pub(crate) mod lance {
        pub(crate) mod unpack;
    }
}
#[path = "../../src/http"]
mod http {
    pub(crate) mod multipart;
}
#[path = "../../src/backup"]
mod backup {
    pub(crate) mod unpack;
}

use engines::{
    duckdb::sql_guard,
    error::{EngineError, ErrorClass},
    ladybug::{
        guard::{StatementKind, admit, schema_script},
        tokens::{TokenKind, tokenize},
    },
    names::{DatabaseId, FileId, TableName, cypher_identifier, sql_identifier, sql_string},
    type_names,
};

/// The guard of Cypher: its verdict does not depend on how a statement is spaced, commented and spelled, and what it lets
/// pass (and what is made of it) has no forbidden word outside of literals, by another reading than its own.
pub fn cypher(text: &str) {
    let verdict = admit(text);
    let summary = |verdict: &Result<_, EngineError>| match verdict {
        Ok(kind) => Ok(*kind),
        Err(error) => Err(error.class()),
    };
    let kind = verdict.as_ref().map(|admitted| admitted.kind).map_err(Clone::clone);
    if let Ok(tokens) = tokenize(text) {
        for turn in 0..3 {
            let other = naive::respell(
                tokens.iter().map(|token| (token.text, token.kind == TokenKind::Word)),
                turn,
            );
            let again = admit(&other).map(|admitted| admitted.kind);
            assert_eq!(summary(&kind), summary(&again), "{other:?}");
        }
    }
    if let Ok(admitted) = &verdict {
        assert_eq!(naive::forbidden_in_cypher(text), None);
        assert_eq!(naive::forbidden_in_cypher(&admitted.text), None);
        if admitted.kind == StatementKind::Read {
            let left = naive::cypher(text).expect("a statement that passes has an end");
            assert!(!naive::first_word_is(
                &left,
                &["CREATE", "MERGE", "SET", "DELETE", "DROP", "ALTER"]
            ));
        }
    }
    if let Ok(statements) = schema_script(text) {
        for statement in statements {
            assert_eq!(naive::forbidden_in_cypher(statement.text), None);
            let left = naive::cypher(statement.text).expect("a statement that passes has an end");
            assert!(naive::first_word_is(&left, &["CREATE", "COMMENT"]));
        }
    }
}

/// The guard of SQL: one statement that reads, also when it is spelled differently.
pub fn sql(text: &str) {
    let verdict = sql_guard::check(text).map_err(|error| error.class());
    let reading = naive::sql(text);
    for other in [format!("{text}\n"), format!(" \t{text}"), naive::other_case(text)] {
        let again = sql_guard::check(&other).map_err(|error| error.class());
        assert_eq!(verdict, again, "{other:?}");
    }
    if verdict.is_ok() {
        let reading = reading.expect("a statement that passes has an end");
        assert!(naive::first_word_is(&reading, &["SELECT", "WITH"]), "{reading:?}");
        assert!(!reading.trim_end_matches([';', ' ']).contains(';'), "{reading:?}");
        let called = reading.to_ascii_lowercase();
        for function in ["read_text(", "read_csv(", "read_parquet(", "getenv(", "sniff_csv("] {
            assert!(!naive::calls(&called, function), "{reading:?}");
        }
    }
}

/// Names and what is made of them: a name is one component of a path and stays what it was; a quoted text stays quoted.
pub fn names(text: &str) {
    for name in [
        DatabaseId::parse(text).ok().map(|id| id.to_string()),
        TableName::parse(text).ok().map(|name| name.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert_eq!(name, text);
        assert!((1..=128).contains(&name.len()) && !name.contains(['/', '\\', '.', '\0']));
        let path = Path::new("/volume").join(&name);
        assert_eq!(path.parent(), Some(Path::new("/volume")));
        assert_eq!(path.components().count(), 3);
    }
    if let Ok(id) = FileId::parse(text) {
        assert!(id.as_str() == text && !text.chars().any(char::is_control));
    }
    let quoted = cypher_identifier(text);
    let tokens = tokenize(&quoted).expect("a quoted name is closed");
    assert!(tokens.iter().all(|token| token.kind == TokenKind::Quoted));
    if !text.contains('\0') {
        for quoted in [sql_identifier(text), sql_string(text)] {
            assert!(sql_guard::check(&format!("SELECT {quoted}")).is_ok());
            assert!(sql_guard::check(&format!("SELECT {quoted}; x")).is_err());
        }
    }
    if let Some(ty) = type_names::parse(text) {
        let _ = (ty.to_string(), ty.collects_decimals());
    }
}

/// Multipart bodies: what is read is in the body, is no more than may be, and is read again from a body made of it.
pub fn forms(data: &[u8]) {
    const MOST: usize = 20;
    let (parameters, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let Ok(parameters) = std::str::from_utf8(parameters) else {
        return;
    };
    let Some(boundary) = http::multipart::boundary(parameters) else {
        return;
    };
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let Ok(texts) = http::multipart::texts(body, boundary, MOST) else {
        return;
    };
    let bytes: usize = texts.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(texts.len() <= MOST && bytes <= body.len());
    let plain = |(name, value): &(String, String)| {
        !value.contains("--other") && name.trim() == name && !name.contains(['"', ';', '\r', '\n'])
    };
    if !texts.is_empty() && texts.iter().all(plain) {
        let mut body = String::new();
        for (name, value) in &texts {
            body += &format!("--other\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        body += "--other--\r\n";
        assert_eq!(http::multipart::texts(body.as_bytes(), "other", MOST), Ok(texts));
    }
}

/// Compressed files: never more comes out than may, and what was compressed comes back.
pub fn archives(data: &[u8]) {
    let (limit, data) = data.split_at(data.len().min(2));
    let limit = limit.iter().fold(0, |limit, byte| limit << 8 | u64::from(*byte));
    let unpack = |packed: &[u8], limit| {
        let (mut output, written) = (Vec::new(), AtomicU64::new(0));
        let outcome = backup::unpack::unpack(packed, &mut output, limit, &written).map(|(_, digest)| digest);
        assert!(output.len() as u64 <= limit && output.len() as u64 == written.load(Ordering::Relaxed));
        (outcome, output)
    };
    let _ = unpack(data, limit);
    let packed = zstd::encode_all(data, 1).expect("memory can be written");
    let (outcome, output) = unpack(&packed, data.len() as u64);
    assert!(outcome.is_ok() && output == data);
    if let Some(less) = (data.len() as u64).checked_sub(1) {
        assert!(unpack(&packed, less).0.is_err());
    }
}

/// Archives of tables: plain files appear below one directory, and no more than may.
pub fn tables(data: &[u8]) {
    let (limit, data) = data.split_at(data.len().min(2));
    let limit = limit.iter().fold(0, |limit, byte| limit << 8 | u64::from(*byte));
    let around = tempfile::tempdir().expect("there is a directory for temporary files");
    let directory = around.path().join("table");
    let outcome = engines::lance::unpack::unpack(data, &directory, limit, || false);
    let beside = fs::read_dir(around.path()).expect("the directory can be read").count();
    assert!(beside == 1 && size(&directory) <= limit);
    if let Err(error) = outcome {
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    }
}

/// Bytes of the plain files below a directory, in which there is nothing else.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    let sizes = entries.map(|entry| {
        let path = entry.expect("the directory can be read").path();
        let metadata = fs::symlink_metadata(&path).expect("what is there can be looked at");
        assert!(metadata.is_dir() || metadata.is_file(), "{path:?}");
        if metadata.is_dir() { size(&path) } else { metadata.len() }
    });
    sizes.sum()
}
