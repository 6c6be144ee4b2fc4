//! Answers: objects, lists and errors in the form and notation that the client wants.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::accept::{Form, Notation, Wanted};
use crate::kinds::Resource;
use crate::status::ApiError;
use crate::store::Object;
use crate::table::{self, IncludeObject};
use crate::verbs::read::Listed;
use crate::verbs::{Stored, convert, metadata};

/// How objects are shown to one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) wanted: Wanted,
    pub(super) include: IncludeObject,
}

/// A JSON document in the notation that the client wants.
pub(super) fn document(status: StatusCode, notation: Notation, value: &Value) -> Response {
    let body = match notation {
        Notation::Json => Ok(value.to_string()),
        Notation::Yaml => serde_saphyr::to_string(value).map_err(ApiError::internal),
    };
    match body {
        Ok(body) => bytes(status, notation, body.into()),
        Err(error) => error.into_response(),
    }
}

fn bytes(status: StatusCode, notation: Notation, body: Bytes) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, HeaderValue::from_static(notation.media_type()))],
        body,
    )
        .into_response()
}

/// `PartialObjectMetadata` of an object.
fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default()})
}

/// One object.
pub(super) fn object(status: StatusCode, view: View, resource: &Resource, stored: &Stored) -> Response {
    let Wanted { form, notation } = view.wanted;
    if let (Form::Full | Form::Discovery, Notation::Json, Stored::Object(object)) = (form, notation, stored) {
        return bytes(status, notation, convert::view_bytes(resource, object));
    }
    document(status, notation, &shown(view, resource, stored.view(resource)))
}

/// An object in the form that the client wants.
pub(super) fn shown(view: View, resource: &Resource, object: Value) -> Value {
    match view.wanted.form {
        Form::Full | Form::Discovery => object,
        Form::Metadata => partial(&object),
        Form::Table => {
            let version = json!({"resourceVersion": metadata::text(&object, "resourceVersion")});
            table::to_table(resource, &[object], &version, view.include)
        }
    }
}

/// The JSON of a stored object in the form that the client wants.
pub(super) fn shown_bytes(view: View, resource: &Resource, object: &Object) -> Bytes {
    match view.wanted.form {
        Form::Full | Form::Discovery => convert::view_bytes(resource, object),
        _ => shown(view, resource, convert::view(resource, object))
            .to_string()
            .into(),
    }
}

/// A list.
pub(super) fn list(view: View, resource: &Resource, listed: &Listed) -> Response {
    let mut meta = json!({"resourceVersion": listed.revision.to_string()});
    if !listed.continue_token.is_empty() {
        meta["continue"] = json!(listed.continue_token);
    }
    if let Some(remaining) = listed.remaining {
        meta["remainingItemCount"] = json!(remaining);
    }
    objects(view, resource, &meta, &listed.objects)
}

/// Objects with the metadata of their list.
pub(super) fn objects(view: View, resource: &Resource, meta: &Value, objects: &[Arc<Object>]) -> Response {
    let Wanted { form, notation } = view.wanted;
    let views = || objects.iter().map(|object| convert::view(resource, object));
    let value = match (form, notation) {
        (Form::Full | Form::Discovery, Notation::Json) => {
            let (kind, version) = (json!(resource.list_kind), json!(resource.api_version()));
            let items: Vec<Bytes> = objects
                .iter()
                .map(|object| convert::view_bytes(resource, object))
                .collect();
            return bytes(StatusCode::OK, notation, raw_list(&kind, &version, meta, &items));
        }
        (Form::Full | Form::Discovery, Notation::Yaml) => json!({"apiVersion": resource.api_version(),
            "kind": resource.list_kind, "metadata": meta, "items": views().collect::<Vec<_>>()}),
        (Form::Metadata, _) => json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": meta, "items": views().map(|v| partial(&v)).collect::<Vec<_>>()}),
        (Form::Table, _) => table::to_table(resource, &views().collect::<Vec<_>>(), meta, view.include),
    };
    document(StatusCode::OK, notation, &value)
}

/// A list of objects that are JSON already.
fn raw_list(kind: &Value, version: &Value, meta: &Value, items: &[Bytes]) -> Bytes {
    let head = format!("{{\"apiVersion\":{version},\"kind\":{kind},\"metadata\":{meta},\"items\":[");
    let mut body = Vec::with_capacity(head.len() + 2 + items.iter().map(|i| i.len() + 1).sum::<usize>());
    body.extend_from_slice(head.as_bytes());
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// Adds `Warning` headers.
pub(super) fn with_warnings(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_of_bytes_are_json() {
        for items in [
            vec![],
            vec![Bytes::from("{\"a\":1}")],
            vec![Bytes::from("{}"), Bytes::from("[]")],
        ] {
            let body = raw_list(&json!("L"), &json!("v1"), &json!({"resourceVersion": "1"}), &items);
            let value: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["items"].as_array().unwrap().len(), items.len());
            assert_eq!(value["kind"], "L");
        }
    }

    #[test]
    fn warnings_are_quoted() {
        let response = with_warnings(StatusCode::OK.into_response(), &["unknown field \"spec.a\"".to_owned()]);
        assert_eq!(
            response.headers()[header::WARNING],
            "299 - \"unknown field \\\"spec.a\\\"\""
        );
    }
}
