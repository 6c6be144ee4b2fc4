//! JSON patch as kube-apiserver applies it.

use super::PatchError;
use json_patch::{PatchOperation, TestOperation};
use serde_json::Value;

/// More operations than this are not looked at.
const MAX_OPERATIONS: usize = 10_000;

/// Applies the operations in order, all or none.
///
/// Differs from RFC 6902 where Kubernetes does: a `test` for null passes when the tested field is absent, as long as
/// the object that would hold it exists. The finalizer helper of kube-rs depends on it.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no list of operations, [`PatchError::TooLarge`] when there are more than
/// 10,000 of them, [`PatchError::Rejected`] with position, kind and path of the first that fails.
pub(crate) fn json_patch(doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding JSON patch: {error}")))?;
    let mut out = doc.clone();
    for (position, operation) in operations.iter().enumerate() {
        apply(&mut out, operation).map_err(|reason| {
            let path = operation.path();
            PatchError::Rejected(format!(
                "JSON patch operation {position} ({}) at \"{path}\": {reason}",
                name(operation)
            ))
        })?;
    }
    Ok(out)
}

fn apply(doc: &mut Value, operation: &PatchOperation) -> Result<(), String> {
    match operation {
        PatchOperation::Test(test) => check(doc, test),
        other => json_patch::patch(doc, std::slice::from_ref(other)).map_err(|error| error.kind.to_string()),
    }
}

fn check(doc: &Value, test: &TestOperation) -> Result<(), String> {
    match doc.pointer(test.path.as_str()) {
        Some(found) if crate::apply::equal_json(found, &test.value) => Ok(()),
        Some(found) => Err(format!("expected {}, found {found}", test.value)),
        None => {
            let holder = test.path.parent().and_then(|holder| doc.pointer(holder.as_str()));
            match holder {
                Some(Value::Object(_)) if test.value.is_null() => Ok(()),
                Some(_) => Err(format!("expected {}, found nothing", test.value)),
                None => Err("the path does not exist".to_owned()),
            }
        }
    }
}

fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}
