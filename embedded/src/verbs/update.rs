//! PUT and PATCH: a new version of an object, and what both share.

use http::StatusCode;
use serde_json::{Value, json};

use super::create::{check_place, create_managed};
use super::{Stored, Target, Validation, WriteOptions, Written, admit, convert, metadata, report, strategy};
use crate::apply::{self, ApplyError};
use crate::cluster::Cluster;
use crate::patch::{self, PatchError};
use crate::status::{ApiError, Cause, CauseReason, Details};
use crate::store::{Change, Draft, Expect, Refusal, Write};

/// The part of an object that a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but `status`, where that is a subresource.
    Whole,
    /// `status` alone.
    Status,
    /// `spec.finalizers` of a Namespace.
    Finalize,
    /// The whole object, changed through its `scale` subresource.
    Scale,
}

impl Part {
    /// The subresource as `managedFields` name it.
    fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Status => Some("status"),
            Self::Finalize => Some("finalize"),
            Self::Scale => Some("scale"),
        }
    }
}

/// A change to an object.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// PUT.
    Replace(Value),
    /// `application/json-patch+json`.
    JsonPatch(Value),
    /// `application/merge-patch+json`.
    MergePatch(Value),
    /// `application/strategic-merge-patch+json`.
    StrategicMergePatch(Value),
    /// `application/apply-patch+yaml`.
    Apply { patch: Value, force: bool },
}

/// How often a change is computed anew because somebody else was faster. Only changes without a `resourceVersion` of
/// their own come here; each lost race means that another write succeeded.
const TRIES: usize = 50;

/// The result of one application of an [`Edit`].
struct Proposal {
    value: Value,
    /// `managedFields` are complete already.
    managed: bool,
    /// It is the stored object with a patch in it, not what the client sent.
    patched: bool,
}

/// Changes one object.
pub(crate) async fn update(
    cluster: &Cluster,
    target: &Target,
    part: Part,
    edit: &Edit,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    let resource = &target.resource;
    let mut warnings = Vec::new();
    let edit = prepare(target, part, edit, options, &mut warnings)?;
    for _ in 0..TRIES {
        let Some(object) = cluster.store.get(&target.key()) else {
            match create_instead(cluster, target, part, &edit, options).await {
                // Somebody else created it just now: it can be updated.
                Err(error) if error.reason == "AlreadyExists" => continue,
                result => {
                    return result.map(|written| Written {
                        warnings: merge(warnings, written.warnings),
                        ..written
                    });
                }
            }
        };
        let live = convert::view(resource, &object);
        let proposal = propose(target, part, &edit, &live, options)?;
        let new = complete(cluster, target, part, &live, proposal, options, &mut warnings)?;
        let released = strategy::is_released(resource, &new);
        if metadata::same_content(&live, &new) && !released {
            return Ok(Written {
                object: Stored::Object(object),
                created: false,
                warnings,
            });
        }
        if options.dry_run {
            return Ok(Written {
                object: Stored::Imagined(new),
                created: false,
                warnings,
            });
        }
        let draft = Draft::new(convert::stored_form(resource, new)).map_err(super::not_storable)?;
        let write = Write {
            key: target.key(),
            expect: Expect::Revision(object.revision),
            change: if released {
                Change::Delete(draft)
            } else {
                Change::Put(draft)
            },
            in_active_namespace: false,
        };
        match cluster.store.commit(write).await {
            Ok(object) => {
                if strategy::special(resource) == strategy::Special::Definition {
                    cluster.reload_definitions();
                }
                return Ok(Written {
                    object: Stored::Object(object),
                    created: false,
                    warnings,
                });
            }
            Err(Refusal::Modified | Refusal::Gone) => {}
            Err(refusal) => return Err(target.refused(&refusal)),
        }
    }
    Err(target.refused(&Refusal::Modified))
}

fn merge(mut warnings: Vec<String>, more: Vec<String>) -> Vec<String> {
    warnings.extend(more);
    warnings.dedup();
    warnings
}

/// Checks and trims the edit once, before it meets the stored object.
fn prepare(
    target: &Target,
    part: Part,
    edit: &Edit,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Edit, ApiError> {
    let resource = &target.resource;
    match edit {
        Edit::Apply { patch, force } => {
            if options.manager.is_empty() {
                let cause = Cause::required("fieldManager", "is required for apply patch");
                return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
            }
            let mut patch = patch.clone();
            if patch
                .get("metadata")
                .and_then(|m| m.get("managedFields"))
                .is_some_and(|m| !m.is_null())
            {
                return Err(ApiError::bad_request("metadata.managedFields must be nil"));
            }
            super::type_meta(resource, &mut patch)?;
            // Fields that are not declared stay: an apply that has some is refused by name, whatever `fieldValidation` says.
            let mut known = patch.clone();
            if metadata::normalise(&mut known)?.is_empty() {
                patch = known;
            }
            report(options.duplicates.clone(), options.validation, warnings, |duplicates| {
                ApiError::bad_request(format!("error strict decoding YAML: {}", duplicates.join(", ")))
            })?;
            check_place(target, &patch)?;
            trim(target, part, &mut patch);
            Ok(Edit::Apply { patch, force: *force })
        }
        Edit::StrategicMergePatch(_) if !resource.builtin => Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ])),
        other => Ok(other.clone()),
    }
}

/// Leaves in an apply patch what its subresource may set; what remains is what the manager will own.
fn trim(target: &Target, part: Part, patch: &mut Value) {
    let Some(map) = patch.as_object_mut() else { return };
    match part {
        Part::Status => {
            map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
            }
        }
        _ if target.resource.status_subresource => {
            map.remove("status");
        }
        _ => {}
    }
    let metadata = metadata::of_mut(patch);
    metadata.insert("name".into(), json!(target.name));
    if !target.namespace.is_empty() {
        metadata.insert("namespace".into(), json!(target.namespace));
    }
    // What the server sets cannot be owned by anybody.
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        metadata.remove(field);
    }
}

/// What an edit does when there is no object.
async fn create_instead(
    cluster: &Cluster,
    target: &Target,
    part: Part,
    edit: &Edit,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    if part != Part::Whole {
        return Err(target.not_found());
    }
    match edit {
        Edit::Apply { patch, force } => {
            let mut patch = patch.clone();
            let metadata = metadata::of_mut(&mut patch);
            if metadata.remove("resourceVersion").is_some() || metadata.remove("uid").is_some() {
                return Err(
                    target.conflict("the object does not exist, but the patch names its uid or resourceVersion")
                );
            }
            let now = metadata::now();
            let applied = apply::apply(
                None,
                &patch,
                &options.manager,
                *force,
                &target.resource.schema,
                None,
                &now,
            )
            .map_err(apply_failed)?;
            create_managed(cluster, target, applied, options, true).await
        }
        Edit::Replace(body) if strategy::allows_create_on_update(&target.resource) => {
            let mut body = body.clone();
            check_place(target, &body)?;
            if !metadata::text(&body, "resourceVersion").is_empty() {
                return Err(target.not_found());
            }
            metadata::of_mut(&mut body).remove("uid");
            create_managed(cluster, target, body, options, false).await
        }
        _ => Err(target.not_found()),
    }
}

/// Applies the edit to the stored object.
fn propose(
    target: &Target,
    part: Part,
    edit: &Edit,
    live: &Value,
    options: &WriteOptions,
) -> Result<Proposal, ApiError> {
    let resource = &target.resource;
    let patched = |value| Proposal {
        value,
        managed: false,
        patched: true,
    };
    match edit {
        Edit::Replace(body) => {
            if wanted_version(body).is_empty()
                && !strategy::allows_unconditional_update(resource)
                && part != Part::Finalize
            {
                let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                return Err(target.invalid(vec![cause]));
            }
            Ok(Proposal {
                value: body.clone(),
                managed: false,
                patched: false,
            })
        }
        Edit::JsonPatch(operations) => patch::json_patch(live, operations).map_err(patch_failed).map(patched),
        Edit::MergePatch(merge) => patch::merge_patch(live, merge).map_err(patch_failed).map(patched),
        Edit::StrategicMergePatch(merge) => patch::strategic_merge_patch(live, merge, &resource.kind)
            .map_err(patch_failed)
            .map(patched),
        Edit::Apply { patch, force } => {
            let now = metadata::now();
            let mut value = apply::apply(
                Some(live),
                patch,
                &options.manager,
                *force,
                &resource.schema,
                part.subresource(),
                &now,
            )
            .map_err(apply_failed)?;
            // An apply without a version of its own builds on what is there now; with one, it is a precondition.
            let wanted = match wanted_version(patch) {
                "" => metadata::text(live, "resourceVersion"),
                version => version,
            };
            metadata::of_mut(&mut value).insert("resourceVersion".into(), json!(wanted));
            Ok(Proposal {
                value,
                managed: true,
                patched: false,
            })
        }
    }
}

/// The error for a patch that was not applied.
pub(super) fn patch_failed(error: PatchError) -> ApiError {
    let (code, reason) = match &error {
        PatchError::Malformed(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
        PatchError::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        PatchError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
        PatchError::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
    };
    ApiError {
        code,
        reason,
        message: error.to_string(),
        details: None,
    }
}

fn apply_failed(error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflict(conflicts) => {
            let cause = |c: &apply::Conflict| Cause::new(CauseReason::FieldManagerConflict, &c.field, c.message());
            ApiError {
                code: StatusCode::CONFLICT,
                reason: "Conflict",
                message,
                details: Some(Box::new(Details {
                    causes: conflicts.iter().map(cause).collect(),
                    ..Details::default()
                })),
            }
        }
        // kube-apiserver says 500 to a configuration that does not fit its schema; it is the client's mistake.
        ApplyError::Invalid(_) | ApplyError::BadRequest(_) => ApiError::bad_request(message),
    }
}

/// Brings the proposal under the rules of its kind and of the part that it may change.
fn complete(
    cluster: &Cluster,
    target: &Target,
    part: Part,
    live: &Value,
    proposal: Proposal,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let resource = &target.resource;
    let Proposal {
        value: mut new,
        managed,
        patched,
    } = proposal;
    let sent = (patched && options.validation == Validation::Strict).then(|| new.to_string());
    let problems = admit(resource, &mut new, options)?;
    report(problems, options.validation, warnings, |problems| match sent {
        Some(object) => ApiError::strict_patch(object, problems),
        None => ApiError::strict_decoding(&resource.kind, &resource.version, problems),
    })?;
    check_place(target, &new)?;
    let version = wanted_version(&new);
    if !version.is_empty() && version != metadata::text(live, "resourceVersion") {
        return Err(target.conflict(ApiError::MODIFIED));
    }
    let uid = Some(metadata::text(&new, "uid")).filter(|uid| !uid.is_empty());
    target.check_preconditions(uid, None, live)?;
    // A body may leave name and namespace to the address.
    let fields = metadata::of_mut(&mut new);
    fields.insert("name".into(), json!(target.name));
    if target.namespace.is_empty() {
        fields.remove("namespace");
    } else {
        fields.insert("namespace".into(), json!(target.namespace));
    }

    match part {
        Part::Whole | Part::Scale => {
            if resource.status_subresource {
                replace_field(&mut new, live, "status");
            }
            metadata::keep_system_fields(&mut new, live);
            resource.structural.default(&mut new);
            strategy::prepare_update(resource, &mut new, live);
        }
        Part::Status | Part::Finalize => {
            let mut kept = live.clone();
            let field = if part == Part::Status { "status" } else { "spec" };
            replace_field(&mut kept, &new, field);
            match metadata::of(&new).get("managedFields").cloned() {
                Some(fields) => drop(metadata::of_mut(&mut kept).insert("managedFields".into(), fields)),
                // An apply that left no entries.
                None if managed => drop(metadata::of_mut(&mut kept).remove("managedFields")),
                None => {}
            }
            resource.structural.default(&mut kept);
            new = kept;
        }
    }
    if !managed {
        let now = metadata::now();
        let (manager, subresource) = (&options.manager, part.subresource());
        apply::update_managed_fields(Some(live), &mut new, manager, &resource.schema, subresource, &now);
    }
    let causes = strategy::validate(cluster, resource, &new, Some(live));
    if causes.is_empty() {
        Ok(new)
    } else {
        Err(target.invalid(causes))
    }
}

/// The version that an object must have for the change to be made; empty: any.
fn wanted_version(object: &Value) -> &str {
    match metadata::text(object, "resourceVersion") {
        "0" => "",
        version => version,
    }
}

/// Makes `field` of `to` what it is in `from`, absent if it is absent there.
fn replace_field(to: &mut Value, from: &Value, field: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}
