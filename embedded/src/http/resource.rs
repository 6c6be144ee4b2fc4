//! The verbs on objects: from a request to a verb and back.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Closing;
use super::accept::{self, Form};
use super::body::{self, Decoded};
use super::encode::{self, View};
use super::params::{self, Params};
use super::path::ResourcePath;
use super::watch;
use crate::cluster::Cluster;
use crate::kinds::{Resource, Scale};
use crate::status::{self, ApiError, Cause};
use crate::table::IncludeObject;
use crate::verbs::delete::{self, DeleteOptions, Deleted, Propagation};
use crate::verbs::read::{self, Freshness, Selection};
use crate::verbs::update::{self, Edit, Part};
use crate::verbs::{Stored, Target, Written, create, scale};

/// A request about objects.
struct Call {
    cluster: Arc<Cluster>,
    resource: Arc<Resource>,
    path: ResourcePath,
    params: Params,
    view: View,
    headers: HeaderMap,
    body: axum::body::Body,
    /// Ends watches.
    closing: CancellationToken,
}

/// Answers a request about objects.
pub(super) async fn handle(cluster: Arc<Cluster>, path: ResourcePath, request: Request) -> Result<Response, ApiError> {
    let kinds = cluster.kinds();
    let resource = kinds
        .registry
        .lookup(&path.group, &path.version, &path.plural)
        .filter(|r| r.namespaced || path.namespace.is_none())
        .ok_or_else(ApiError::unknown_path)?;
    drop(kinds);
    let (head, body) = request.into_parts();
    let params = Params::of(&head.uri)?;
    let include = match params.text("includeObject") {
        "" => IncludeObject::default(),
        text => IncludeObject::parse(text).ok_or_else(|| {
            let cause = Cause::not_supported("includeObject", &text.into(), &["None", "Metadata", "Object"]);
            ApiError::invalid("meta.k8s.io", "TableOptions", "", vec![cause])
        })?,
    };
    let view = View {
        wanted: accept::negotiate(&head.headers, &[Form::Table, Form::Metadata])?,
        include,
    };
    let closing = head
        .extensions
        .get::<Closing>()
        .map_or_else(|| cluster.stopping.clone(), |c| c.0.clone());
    let call = Call {
        cluster,
        resource,
        path,
        params,
        view,
        headers: head.headers,
        body,
        closing,
    };
    let deprecation = call.resource.deprecation.clone();
    let response = call.answer(&head.method).await?;
    Ok(encode::with_warnings(response, deprecation.as_slice()))
}

impl Call {
    async fn answer(self, method: &Method) -> Result<Response, ApiError> {
        let subresource = self.path.subresource.clone();
        match (self.path.name.is_some(), subresource.as_deref()) {
            (false, _) => self.collection(method).await,
            (true, _) if self.resource.namespaced && self.path.namespace.is_none() => Err(ApiError::unknown_path()),
            (true, None) => self.item(method).await,
            (true, Some("status")) if self.resource.status_subresource => self.part(method, Part::Status).await,
            (true, Some("finalize")) if self.resource.builtin && self.resource.plural == "namespaces" => {
                self.part(method, Part::Finalize).await
            }
            (true, Some("scale")) => match self.resource.scale.clone() {
                Some(scale) => self.scale(method, &scale).await,
                None => Err(ApiError::unknown_path()),
            },
            (true, Some(_)) => Err(ApiError::unknown_path()),
        }
    }

    fn target(&self) -> Target {
        Target {
            resource: self.resource.clone(),
            namespace: self.path.namespace.clone().unwrap_or_default(),
            name: self.path.name.clone().unwrap_or_default(),
        }
    }

    fn not_allowed(&self) -> ApiError {
        ApiError::method_not_allowed("", "", "")
    }

    fn selection(&self) -> Result<Selection, ApiError> {
        let (labels, fields) = (self.params.text("labelSelector"), self.params.text("fieldSelector"));
        let mut fields = fields.to_owned();
        // `GET …/{name}?watch=true` is a watch of one object.
        if let Some(name) = &self.path.name {
            let escaped = name.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            fields = format!("metadata.name={escaped},{fields}");
        }
        Selection::parse(self.resource.clone(), self.path.namespace.clone(), labels, &fields)
    }

    async fn collection(self, method: &Method) -> Result<Response, ApiError> {
        match *method {
            Method::GET if self.params.flag("watch")? => self.watch(),
            Method::GET => self.list(),
            _ if self.resource.namespaced && self.path.namespace.is_none() => Err(self.not_allowed()),
            Method::POST => self.create().await,
            Method::DELETE => self.delete_collection().await,
            _ => Err(self.not_allowed()),
        }
    }

    async fn item(self, method: &Method) -> Result<Response, ApiError> {
        match *method {
            Method::GET if self.params.flag("watch")? => self.watch(),
            Method::GET => self.get(),
            Method::PUT | Method::PATCH => self.part(method, Part::Whole).await,
            Method::DELETE => self.delete().await,
            _ => Err(self.not_allowed()),
        }
    }

    fn get(&self) -> Result<Response, ApiError> {
        let object = read::get(&self.cluster, &self.target(), self.params.freshness()?)?;
        Ok(encode::object(
            StatusCode::OK,
            self.view,
            &self.resource,
            &Stored::Object(object),
        ))
    }

    fn list(&self) -> Result<Response, ApiError> {
        if self.params.has("sendInitialEvents") {
            let cause = Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
        }
        let selection = self.selection()?;
        let options = self.params.list_options()?;
        match read::list(&self.cluster, &selection, &options) {
            Ok(listed) => Ok(encode::list(self.view, &self.resource, &listed)),
            Err(error) if error.code == StatusCode::GONE => {
                // The client may go on where it was, if it can do with another revision.
                let mut body = error.to_json();
                if let Some(token) = read::inconsistent_token(&options.continue_token) {
                    body["metadata"]["continue"] = json!(token);
                }
                Ok(encode::document(error.code, self.view.wanted.notation, &body))
            }
            Err(error) => Err(error),
        }
    }

    fn watch(self) -> Result<Response, ApiError> {
        let selection = self.selection()?;
        watch::respond(&self.cluster, selection, self.view, &self.params, self.closing)
    }

    async fn create(mut self) -> Result<Response, ApiError> {
        let mut options = self.params.write_options(&self.resource, &agent(&self.headers))?;
        let target = self.target();
        let Decoded { value, duplicates } = self.decode().await?;
        options.duplicates = duplicates;
        let written = create::create(&self.cluster, &target, value, &options).await?;
        Ok(self.written(&written))
    }

    /// PUT and PATCH of an object or a part of it, and GET of the part.
    async fn part(mut self, method: &Method, part: Part) -> Result<Response, ApiError> {
        if *method == Method::GET {
            return self.get();
        }
        if part == Part::Finalize && *method == Method::PATCH {
            return Err(self.not_allowed());
        }
        let mut options = self.params.write_options(&self.resource, &agent(&self.headers))?;
        let (edit, duplicates) = self.edit(method).await?;
        options.duplicates = duplicates;
        let written = update::update(&self.cluster, &self.target(), part, &edit, &options).await?;
        Ok(self.written(&written))
    }

    async fn scale(mut self, method: &Method, scale: &Scale) -> Result<Response, ApiError> {
        let target = self.target();
        let stored = if *method == Method::GET {
            Stored::Object(read::get(&self.cluster, &target, Freshness::Newest)?)
        } else {
            let options = self.params.write_options(&self.resource, &agent(&self.headers))?;
            let (edit, _) = self.edit(method).await?;
            scale::update(&self.cluster, &target, scale, &edit, &options)
                .await?
                .object
        };
        let found = scale::of(scale, &stored.view(&self.resource));
        Ok(encode::document(StatusCode::OK, self.view.wanted.notation, &found))
    }

    async fn delete(mut self) -> Result<Response, ApiError> {
        let options = self.delete_options().await?;
        let target = self.target();
        match delete::delete(&self.cluster, &target, &options).await? {
            Deleted::Pending(object) => Ok(encode::object(StatusCode::OK, self.view, &self.resource, &object)),
            Deleted::Gone(object) => {
                let view = object.view(&self.resource);
                let uid = crate::verbs::metadata::text(&view, "uid");
                let done = status::success(&self.resource.group, &self.resource.plural, &target.name, uid);
                Ok(encode::document(StatusCode::OK, self.view.wanted.notation, &done))
            }
        }
    }

    async fn delete_collection(mut self) -> Result<Response, ApiError> {
        let selection = self.selection()?;
        let options = self.delete_options().await?;
        let deleted = delete::delete_collection(&self.cluster, &selection, &options).await?;
        let meta = json!({"resourceVersion": self.cluster.store.revision().to_string()});
        Ok(encode::objects(self.view, &self.resource, &meta, &deleted))
    }

    fn written(&self, written: &Written) -> Response {
        let status = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let response = encode::object(status, self.view, &self.resource, &written.object);
        encode::with_warnings(response, &written.warnings)
    }

    async fn bytes(&mut self) -> Result<bytes::Bytes, ApiError> {
        body::read(std::mem::take(&mut self.body)).await
    }

    async fn decode(&mut self) -> Result<Decoded, ApiError> {
        let bytes = self.bytes().await?;
        let media_type = body::media_type(&self.headers);
        // As in Kubernetes, custom resources do not have this notation.
        if media_type == body::PROTOBUF && !self.resource.builtin && self.path.subresource.is_none() {
            return Err(body::unsupported());
        }
        body::decode(&media_type, &bytes)
    }

    /// The change that a PUT or a PATCH asks for, and the sentences about duplicate fields in it.
    async fn edit(&mut self, method: &Method) -> Result<(Edit, Vec<String>), ApiError> {
        match *method {
            Method::PUT => {
                let Decoded { value, duplicates } = self.decode().await?;
                Ok((Edit::Replace(value), duplicates))
            }
            Method::PATCH => self.patch().await,
            _ => Err(self.not_allowed()),
        }
    }

    async fn patch(&mut self) -> Result<(Edit, Vec<String>), ApiError> {
        let bytes = self.bytes().await?;
        let media_type = body::media_type(&self.headers);
        let force = self.params.flag("force")?;
        let options_invalid = |cause| ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]);
        if media_type == "application/apply-patch+yaml" {
            if !self.params.has("fieldManager") {
                return Err(options_invalid(Cause::required(
                    "fieldManager",
                    "is required for apply patch",
                )));
            }
            let Decoded { value, duplicates } = body::yaml(&bytes)?;
            return Ok((Edit::Apply { patch: value, force }, duplicates));
        }
        if self.params.has("force") {
            return Err(options_invalid(Cause::forbidden(
                "force",
                "may not be specified for non-apply patch",
            )));
        }
        let edit = match media_type.as_str() {
            "application/json-patch+json" => Edit::JsonPatch,
            "application/merge-patch+json" => Edit::MergePatch,
            "application/strategic-merge-patch+json" => Edit::StrategicMergePatch,
            _ => {
                return Err(ApiError::unsupported_media_type(&[
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/apply-patch+yaml",
                    "application/strategic-merge-patch+json",
                ]));
            }
        };
        let Decoded { value, duplicates } = body::json(&bytes)?;
        Ok((edit(value), duplicates))
    }

    /// The options of a deletion: from the body if there is one, otherwise from the query.
    async fn delete_options(&mut self) -> Result<DeleteOptions, ApiError> {
        let bytes = self.bytes().await?;
        if !bytes.is_empty() {
            let options = body::decode(&body::media_type(&self.headers), &bytes)?.value;
            return delete_options(&options);
        }
        let options = json!({
            "propagationPolicy": self.params.text("propagationPolicy"),
            "orphanDependents": self.params.flag("orphanDependents")?,
        });
        Ok(DeleteOptions {
            dry_run: self.params.dry_run()?,
            ..delete_options(&options)?
        })
    }
}

fn delete_options(options: &Value) -> Result<DeleteOptions, ApiError> {
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let propagation = match options["propagationPolicy"].as_str().unwrap_or_default() {
        "" if options["orphanDependents"].as_bool() == Some(true) => Some(Propagation::Orphan),
        "" => None,
        "Orphan" => Some(Propagation::Orphan),
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        other => {
            let allowed = ["Orphan", "Foreground", "Background", ""];
            let cause = Cause::not_supported("propagationPolicy", &other.into(), &allowed);
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
    };
    let values = options["dryRun"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    Ok(DeleteOptions {
        dry_run: params::dry_run(values)?,
        propagation,
        uid: text(&options["preconditions"]["uid"]),
        resource_version: text(&options["preconditions"]["resourceVersion"]),
    })
}

/// The manager that a client is when it does not name one: its program's name.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    agent
        .split('/')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(128)
        .collect()
}

/// A failed request as a response.
pub(super) fn answer(result: Result<Response, ApiError>) -> Response {
    result.unwrap_or_else(IntoResponse::into_response)
}
