//! What the verbs of the Kubernetes API do to objects, without HTTP: the routes and the controllers of the server itself
//! both call these.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod metadata;
mod names;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod selector;
pub(crate) mod strategy;
pub(crate) mod update;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::Resource;
use crate::status::{ApiError, Cause};
use crate::store::{Key, Object, Refusal};

/// What happens to fields that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options that all writes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Who writes, for `managedFields`.
    pub(crate) manager: String,
    /// Do everything but write.
    pub(crate) dry_run: bool,
    pub(crate) validation: Validation,
    /// `duplicate field "…"` sentences about the body, found while decoding.
    pub(crate) duplicates: Vec<String>,
}

impl WriteOptions {
    /// For writes of the server itself.
    pub(crate) fn internal(manager: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            ..Self::default()
        }
    }
}

/// An object to answer with.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    Object(Arc<Object>),
    /// What would have been stored, in the version of the request (dry run).
    Imagined(Value),
}

impl Stored {
    /// The object as a client of `resource` sees it.
    pub(crate) fn view(&self, resource: &Resource) -> Value {
        match self {
            Self::Object(object) => convert::view(resource, object),
            Self::Imagined(value) => value.clone(),
        }
    }
}

/// The outcome of a create, an update or a patch.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: Stored,
    /// The object did not exist before.
    pub(crate) created: bool,
    /// Sentences for `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

/// One object of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    pub(crate) fn key(&self) -> Key {
        Key::new(&convert::storage_name(&self.resource), &self.namespace, &self.name)
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    fn conflict(&self, message: &str) -> ApiError {
        ApiError::conflict(&self.resource.group, &self.resource.plural, &self.name, message)
    }

    fn invalid(&self, causes: Vec<Cause>) -> ApiError {
        ApiError::invalid(&self.resource.group, &self.resource.kind, &self.name, causes)
    }

    /// Refuses an object whose `uid` or `resourceVersion` is not the expected one.
    fn check_preconditions(&self, uid: Option<&str>, version: Option<&str>, live: &Value) -> Result<(), ApiError> {
        for (what, expected, field) in [("UID", uid, "uid"), ("ResourceVersion", version, "resourceVersion")] {
            let actual = metadata::text(live, field);
            if let Some(expected) = expected
                && expected != actual
            {
                return Err(self.conflict(&format!(
                    "Precondition failed: {what} in precondition: {expected}, {what} in object meta: {actual}"
                )));
            }
        }
        Ok(())
    }

    /// The error for a write that storage refused for another reason than a lost race.
    fn refused(&self, refusal: &Refusal) -> ApiError {
        let r = &self.resource;
        match refusal {
            Refusal::Exists => ApiError::already_exists(&r.group, &r.plural, &self.name),
            Refusal::Modified => self.conflict(ApiError::MODIFIED),
            Refusal::Gone => self.not_found(),
            Refusal::NoNamespace => ApiError::not_found("", "namespaces", &self.namespace),
            Refusal::NamespaceTerminating => {
                let message = format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    self.namespace
                );
                let mut error = ApiError::forbidden(&r.group, &r.plural, &self.name, &message);
                if let Some(details) = &mut error.details {
                    let mut cause = Cause::plain(format!("namespace {} is being terminated", self.namespace));
                    cause.field = "metadata.namespace".to_owned();
                    details.causes.push(cause);
                }
                error
            }
            Refusal::Disk(problem) => ApiError::internal(problem),
            Refusal::Closed => ApiError::unavailable("the server is shutting down"),
        }
    }
}

/// The error for an object that cannot be stored, which the checks before have to have found.
fn not_storable(error: crate::store::StoreError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// Brings the body of a request into the shape of its kind: right `apiVersion` and `kind`, known fields only. Gives the
/// sentences about duplicate and unknown fields.
fn admit(resource: &Resource, object: &mut Value, options: &WriteOptions) -> Result<Vec<String>, ApiError> {
    type_meta(resource, object)?;
    let mut unknown = metadata::normalise(object)?;
    unknown.extend(resource.structural.prune(object));
    let mut problems = options.duplicates.clone();
    problems.extend(unknown.iter().map(|path| ApiError::unknown_field(path)));
    Ok(problems)
}

/// Reports duplicate and unknown fields as the request wants it; `refuse` is the error of a strict one.
fn report(
    problems: Vec<String>,
    validation: Validation,
    warnings: &mut Vec<String>,
    refuse: impl FnOnce(&[String]) -> ApiError,
) -> Result<(), ApiError> {
    if problems.is_empty() {
        return Ok(());
    }
    match validation {
        Validation::Ignore => Ok(()),
        Validation::Warn => {
            for problem in problems {
                if !warnings.contains(&problem) {
                    warnings.push(problem);
                }
            }
            Ok(())
        }
        Validation::Strict => Err(refuse(&problems)),
    }
}

fn type_meta(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is not a JSON object"));
    }
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())];
    for (field, expected) in expected {
        match object.get(field) {
            Some(Value::String(found)) if *found == expected => {}
            None | Some(Value::Null) if resource.builtin => object[field] = json!(expected),
            None | Some(Value::Null) => {
                let what = if field == "kind" { "Kind" } else { "apiVersion" };
                return Err(ApiError::bad_request(format!(
                    "Object '{what}' is missing in '{object}'"
                )));
            }
            Some(found) => {
                let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    Ok(())
}
