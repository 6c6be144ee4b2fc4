//! DuckDB reports a kind in the first words of its message; this turns it into a class.

use super::super::error::{EngineError, SyntaxStage};

pub(crate) fn from_duckdb(error: duckdb::Error, memory_mib: u64) -> EngineError {
    let text = match error {
        duckdb::Error::DuckDBFailure(_, Some(text)) => text,
        duckdb::Error::NulError(_) => return EngineError::invalid("sql", "contains a NUL character"),
        duckdb::Error::InvalidParameterCount(given, expected) => {
            let message = format!("has {given} values where the statement has {expected} places");
            return EngineError::invalid("parameters", message);
        }
        other => other.to_string(),
    };
    classify(text, memory_mib)
}

pub(crate) fn classify(text: String, memory_mib: u64) -> EngineError {
    let kind = text.split_once(" Error:").map_or("", |(kind, _)| kind);
    match kind {
        "INTERRUPT" => EngineError::Cancelled,
        "Parser" | "Syntax" => EngineError::Syntax {
            stage: SyntaxStage::Parser,
            message: text,
        },
        "Binder" => EngineError::Syntax {
            stage: SyntaxStage::Binder,
            message: text,
        },
        "Catalog" => EngineError::Syntax {
            stage: SyntaxStage::Catalog,
            message: text,
        },
        "Constraint" => EngineError::Constraint { message: text },
        "Permission" => EngineError::Forbidden {
            token: "a file or setting".into(),
            line: 1,
            column: 1,
            reason: format!(
                "SQL here sees the staging tables only ({})",
                text.lines().next().unwrap_or_default()
            ),
        },
        "Out of Memory" => EngineError::OutOfMemory {
            message: text,
            limit_mib: memory_mib,
        },
        "Conversion" | "Invalid Input" | "Out of Range" | "Invalid" | "Mismatch Type" | "Not implemented"
        | "Invalid type" | "Divide by Zero" => EngineError::Runtime { message: text },
        _ if text.contains("read-only mode") => EngineError::Forbidden {
            token: "a change".into(),
            line: 1,
            column: 1,
            reason: "SQL here only reads; staging tables are changed through their own paths".into(),
        },
        _ => EngineError::Internal { message: text },
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::ErrorClass;
    use super::*;

    #[test]
    fn duckdb_texts_have_a_class() {
        for (text, class) in [
            ("Parser Error: syntax error at or near \"x\"", ErrorClass::Syntax),
            ("Binder Error: Referenced column \"x\" not found", ErrorClass::Syntax),
            ("Catalog Error: Table with name x does not exist!", ErrorClass::Syntax),
            (
                "Permission Error: Cannot access file \"/etc/passwd\"",
                ErrorClass::Forbidden,
            ),
            (
                "TransactionContext Error: Cannot write to database \"x\" - transaction is launched in read-only mode",
                ErrorClass::Forbidden,
            ),
            ("INTERRUPT Error: Interrupted!", ErrorClass::Cancelled),
            ("Out of Memory Error: failed to allocate", ErrorClass::OutOfMemory),
            (
                "Conversion Error: Could not convert string 'x' to INT64",
                ErrorClass::Invalid,
            ),
            ("IO Error: Could not write", ErrorClass::Internal),
        ] {
            assert_eq!(classify(text.to_owned(), 1).class(), class, "{text}");
        }
    }
}
