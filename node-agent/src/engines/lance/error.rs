//! Lance's errors as ours.

use super::super::error::EngineError;

/// A failure of our own doing, or of the disk's.
pub(crate) fn failed(action: &'static str) -> impl Fn(lance::Error) -> EngineError {
    move |error| EngineError::internal(format!("vectors, {action}: {}", short(&error)))
}

/// A failure that the caller's values may have caused, told about `field`.
pub(crate) fn refused(field: &'static str) -> impl Fn(lance::Error) -> EngineError {
    move |error| match error {
        lance::Error::InvalidInput { .. } | lance::Error::Execution { .. } | lance::Error::Arrow { .. } => {
            EngineError::invalid(field, short(&error))
        }
        other => failed("read")(other),
    }
}

/// The first line of a text without the place in the engine's source where it arose.
fn short(error: &lance::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.rfind(", ") {
        Some(end) if line[end..].contains(".rs:") => line[..end].to_owned(),
        _ => line.to_owned(),
    }
}
