//! Writing objects: what all kinds have in common.

use crate::FIELD_MANAGER;
use crate::idempotency::Idempotency;
use crate::problem::{Problem, kind};
use crate::state::App;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// An object that was created, now or by an earlier request with the same idempotency key.
pub(crate) struct Created<K> {
    pub(crate) object: K,
    pub(crate) replayed: bool,
}

/// Creates an object; with an idempotency key at most one is ever made.
pub(crate) async fn create<K>(
    app: &App,
    namespace: &str,
    mut object: K,
    idempotency: Option<&Idempotency>,
    dry_run: bool,
) -> Result<Created<K>, Problem>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = app.api::<K>(namespace);
    let params = PostParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    };
    let Some(idempotency) = idempotency else {
        let object = api.create(&params, &object).await?;
        return Ok(Created {
            object,
            replayed: false,
        });
    };
    let _turn = app.locks.lock(idempotency).await;
    if let Some(earlier) = made_earlier(&api, idempotency, None).await? {
        return Ok(Created {
            object: earlier,
            replayed: true,
        });
    }
    let meta = object.meta_mut();
    idempotency.mark(
        meta.labels.get_or_insert_default(),
        meta.annotations.get_or_insert_default(),
    );
    let created = match api.create(&params, &object).await {
        Ok(created) => created,
        // Another server may have taken the same request at the same time.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = object.name_any();
            return match api.get_opt(&name).await? {
                Some(earlier) if idempotency.made(&earlier)? => Ok(Created {
                    object: earlier,
                    replayed: true,
                }),
                _ => Err(kube::Error::Api(status).into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    if !dry_run {
        withdraw_second(&api, idempotency, &created).await?;
    }
    Ok(Created {
        object: created,
        replayed: false,
    })
}

/// The object of an earlier request with the same key, `but` for one.
async fn made_earlier<K>(api: &Api<K>, idempotency: &Idempotency, but: Option<&str>) -> Result<Option<K>, Problem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = api.list(&ListParams::default().labels(&idempotency.selector())).await?;
    for object in found.items {
        if object.uid().as_deref() != but && idempotency.made(&object)? {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

/// Two servers may create objects of different names under one key at the same moment. Each then sees the other's at the
/// latest after its own creation, and withdraws its own: better none than two.
async fn withdraw_second<K>(api: &Api<K>, idempotency: &Idempotency, created: &K) -> Result<(), Problem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match made_earlier(api, idempotency, created.uid().as_deref()).await {
        Ok(Some(_)) => {}
        Err(problem) if *problem.kind() == kind::IDEMPOTENCY_MISMATCH => {}
        Ok(None) => return Ok(()),
        // Not seen for a fault of the way there; that the object exists is certain, a second one is unlikely.
        Err(_) => return Ok(()),
    }
    delete(api, created, false).await?;
    Err(Problem::new(
        &kind::CONFLICT,
        "another request with the same idempotency key came at the same moment; repeat it",
    ))
}

/// Deletes this very object, not another one that took its name in the meantime.
pub(crate) async fn delete<K>(api: &Api<K>, object: &K, dry_run: bool) -> Result<(), Problem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: None,
    };
    let params = DeleteParams {
        dry_run,
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    match api.delete(&object.name_any(), &params).await {
        Ok(_) => Ok(()),
        // Gone already, which is what was asked for.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Refuses what the protection annotation forbids, before anything is touched.
pub(crate) fn check_deletion<K: ResourceExt>(object: &K, what: &str) -> Result<(), Problem> {
    let protection = graphplane_crds::annotations::DELETION_PROTECTION;
    if object
        .annotations()
        .get(protection)
        .is_some_and(|value| value == "true")
    {
        let detail = format!("{what} has the annotation {protection}=true; remove it first");
        return Err(Problem::new(&kind::DELETION_PROTECTED, detail));
    }
    Ok(())
}

/// Changes the spec of an object by a JSON merge patch. With `version` (from `If-Match`) only if the object still has it.
pub(crate) async fn patch<K>(
    api: &Api<K>,
    name: &str,
    mut patch: Value,
    version: Option<&str>,
    dry_run: bool,
) -> Result<K, Problem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let params = PatchParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch(name, &params, &Patch::Merge(&patch)).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) if version.is_some() && status.is_conflict() => Err(Problem::new(
            &kind::PRECONDITION_FAILED,
            "the object is not what `If-Match` says any more; read it again and repeat the change",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The object version that a request insists on.
pub(crate) fn if_match(headers: &http::HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(http::header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    match text {
        "*" => Ok(None),
        _ => match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(version) if !version.is_empty() && !version.contains('"') => Ok(Some(version.to_owned())),
            _ => Err(Problem::parameter(
                "If-Match",
                "expected the ETag of one answer, or `*`",
                text,
            )),
        },
    }
}

/// A JSON answer with the object's version as its ETag.
pub(crate) fn with_etag<K: ResourceExt>(object: &K, body: impl Serialize) -> axum::response::Response {
    use axum::response::IntoResponse;
    let mut response = axum::Json(body).into_response();
    if let Some(tag) = object
        .resource_version()
        .and_then(|v| http::HeaderValue::from_str(&format!("\"{v}\"")).ok())
    {
        response.headers_mut().insert(http::header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn if_match_takes_one_strong_tag() {
        let of = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("if-match", text.parse().unwrap());
            if_match(&headers)
        };
        assert_eq!(of("\"12\"").unwrap().as_deref(), Some("12"));
        assert_eq!(of("*").unwrap(), None);
        for bad in ["12", "W/\"12\"", "\"1\", \"2\"", "\"\""] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(if_match(&http::HeaderMap::new()).unwrap(), None);
    }
}
