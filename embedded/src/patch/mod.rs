//! The patches that are not server-side apply: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and, for built-in
//! kinds, strategic merge patch. All are pure: a document and a patch give a new document or an error.

mod json;
mod strategic;
mod strategic_lists;

pub(crate) use json::json_patch;
pub(crate) use strategic::strategic_merge_patch;

use serde_json::Value;

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    /// The patch itself is not well formed: 400, reason `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and cannot be applied to this object, for instance because a `test` failed: 422, reason
    /// `Invalid`. kube-apiserver hides the reason behind "the server rejected our request due to an error in our
    /// request"; the text here says it.
    #[error("{0}")]
    Rejected(String),
    /// The patch has more operations than are accepted: 413, reason `RequestEntityTooLarge`.
    #[error("{0}")]
    TooLarge(String),
    /// Objects of this kind cannot be patched this way: 415, reason `UnsupportedMediaType`.
    #[error("{0}")]
    Unsupported(String),
}

/// Applies a JSON merge patch.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no object: it would replace the object as a whole.
pub(crate) fn merge_patch(doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(format!(
            "a merge patch must be an object, got {patch}"
        )));
    }
    let mut out = doc.clone();
    json_patch::merge(&mut out, patch);
    Ok(out)
}

#[cfg(test)]
mod tests;
