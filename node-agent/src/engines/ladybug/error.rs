//! The engine reports everything as text; this turns the text into a class.

use std::time::Duration;

use super::super::error::{EngineError, SyntaxStage};
use super::control::JobControl;

/// The text of an engine error, without the binding's own prefix.
pub(crate) fn text_of(error: lbug::Error) -> String {
    match error {
        lbug::Error::FailedQuery(text) | lbug::Error::FailedPreparedStatement(text) => text,
        lbug::Error::CxxException(exception) => exception.what().to_owned(),
        other => other.to_string(),
    }
}

/// The engine stopped because it was told to, or because its timer ran out.
pub(crate) fn is_interrupt(text: &str) -> bool {
    text.starts_with("Interrupted.")
}

/// A parameter without a type where the engine needs one (an empty list, in an expression of its own).
pub(crate) fn needs_types(text: &str) -> bool {
    text.contains("vector with ANY type")
}

/// Another write transaction is open.
pub(crate) fn is_second_writer(text: &str) -> bool {
    text.contains("Cannot start a new write transaction")
}

/// After these the handle refuses every further write until the database is opened again.
pub(crate) fn needs_reopen(text: &str) -> bool {
    text.contains("refuses further writes") || text.contains("WAL is poisoned") || text.contains("poisoned")
}

/// Gives the engine's text a class.
pub(crate) fn classify_text(text: String, memory_mib: u64, job: Option<&JobControl>) -> EngineError {
    const CONSTRAINTS: &[&str] = &[
        "Found duplicated primary key value",
        "violates the non-null constraint",
        "Unable to find primary key value",
        "has connected edges in table",
        "violates the rel multiplicity constraint",
        "The maximum length of",
    ];
    if is_interrupt(&text) {
        return job.map_or(EngineError::Cancelled, JobControl::interrupted);
    }
    if CONSTRAINTS.iter().any(|part| text.contains(part)) {
        return EngineError::Constraint { message: text };
    }
    if text.contains("Cannot execute write operations in a read-only database") {
        return EngineError::ReadOnly {
            message: "the database is open for reading only; send writes to its writer".into(),
        };
    }
    if is_second_writer(&text) || text.contains("Timeout waiting for active") {
        return EngineError::Busy {
            reason: text,
            retry_after: Duration::from_secs(2),
        };
    }
    let refused = text.starts_with("std::bad_alloc");
    if refused || text.starts_with("Buffer manager exception: Unable to allocate memory") {
        return EngineError::OutOfMemory {
            message: match refused {
                true => "a list or text of the statement is larger than the memory that is free on the node".into(),
                false => text,
            },
            limit_mib: memory_mib,
        };
    }
    if let Some(name) = text
        .strip_prefix("Parameter ")
        .and_then(|rest| rest.strip_suffix(" not found."))
    {
        return EngineError::invalid(format!("parameters.{name}"), "is used by the query and was not sent");
    }
    let stage = [
        ("Parser exception:", SyntaxStage::Parser),
        ("Binder exception:", SyntaxStage::Binder),
        ("Catalog exception:", SyntaxStage::Catalog),
    ];
    if let Some((_, stage)) = stage.into_iter().find(|(prefix, _)| text.starts_with(prefix)) {
        return EngineError::Syntax { stage, message: text };
    }
    if text.starts_with("Cannot evaluate expression") {
        return EngineError::Syntax {
            stage: SyntaxStage::Binder,
            message: format!(
                "Binder exception: {text} A property of NULL or of a parameter without a type was asked for."
            ),
        };
    }
    let run_time = [
        "Runtime exception:",
        "Conversion exception:",
        "Overflow exception:",
        "Copy exception:",
        "Function exception:",
    ];
    if run_time.iter().any(|prefix| text.starts_with(prefix)) && !needs_reopen(&text) {
        return EngineError::Runtime { message: text };
    }
    EngineError::Internal { message: text }
}

/// What a panic of the binding says: it panics on values that have no Rust form.
pub(crate) fn from_panic(payload: &(dyn std::any::Any + Send)) -> EngineError {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no further information");
    EngineError::Runtime {
        message: format!(
            "a value of the result is outside of what can be returned ({text}); cast it to STRING in the query"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::ErrorClass;
    use super::*;

    #[test]
    fn engine_texts_have_a_class() {
        for (text, class) in [
            ("Parser exception: extraneous input 'MTACH'", ErrorClass::Syntax),
            ("Binder exception: Table Nope does not exist.", ErrorClass::Syntax),
            ("Catalog exception: function NOPE does not exist.", ErrorClass::Syntax),
            (
                "Runtime exception: Found duplicated primary key value 1, which violates …",
                ErrorClass::Constraint,
            ),
            (
                "Runtime exception: Found NULL, which violates the non-null constraint of …",
                ErrorClass::Constraint,
            ),
            ("Runtime exception: Divide by zero.", ErrorClass::Invalid),
            ("Conversion exception: Cast failed.", ErrorClass::Invalid),
            (
                "Buffer manager exception: Unable to allocate memory! The buffer pool is full",
                ErrorClass::OutOfMemory,
            ),
            ("std::bad_alloc", ErrorClass::OutOfMemory),
            (
                "Connection exception: Cannot execute write operations in a read-only database!",
                ErrorClass::ReadOnly,
            ),
            (
                "Cannot start a new write transaction in the system. Only one",
                ErrorClass::Busy,
            ),
            ("Parameter id not found.", ErrorClass::Invalid),
            ("Interrupted.", ErrorClass::Cancelled),
            (
                "Runtime exception: Checkpoint cleanup failed; the database refuses further writes until restart.",
                ErrorClass::Internal,
            ),
            ("IO exception: No space left on device", ErrorClass::Internal),
        ] {
            assert_eq!(classify_text(text.to_owned(), 256, None).class(), class, "{text}");
        }
    }
}
