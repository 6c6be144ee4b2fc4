//! `/v1/api-keys`: admins make, list and delete keys.

use super::key::{Hash, generate};
use super::{API_KEY_PURPOSE, Admin, Role};
use crate::FIELD_MANAGER;
use crate::body::Body;
use crate::names::{is_namespace, is_object_name};
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::Problem;
use crate::query::UrlQuery;
use crate::state::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use graphplane_crds::annotations;
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

const NAME_ANNOTATION: &str = "graphplane.dev/display-name";
const NAME_PREFIX: &str = "api-key-";
/// How long a change of a key may take to be seen by this server before it answers all the same.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// A key to make.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeyCreate {
    /// What the key is for.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// What it permits.
    pub role: Role,
    /// The tenant that it belongs to; absent: that of the request. It is made if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A key, without the key itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyView {
    /// Identifies the key when it is deleted.
    pub id: String,
    /// What the key is for.
    pub name: String,
    /// What it permits.
    pub role: Option<Role>,
    /// The tenant that it belongs to.
    pub namespace: String,
    /// When it was made.
    pub created_at: Option<Time>,
}

/// A key that was just made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreated {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub view: ApiKeyView,
    /// The key; it is shown this once and stored nowhere.
    pub key: String,
}

fn view(secret: &Secret) -> ApiKeyView {
    let text = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
            .unwrap_or_default()
    };
    ApiKeyView {
        id: secret.name_any().trim_start_matches(NAME_PREFIX).to_owned(),
        name: secret.annotations().get(NAME_ANNOTATION).cloned().unwrap_or_default(),
        role: Role::parse(&text("role")),
        namespace: text("namespace"),
        created_at: secret.creation_timestamp(),
    }
}

/// Makes a key.
pub(crate) async fn create(
    State(app): State<App>,
    Admin(caller): Admin,
    query: UrlQuery,
    Body { content, .. }: Body<ApiKeyCreate>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let namespace = content.namespace.clone().unwrap_or_else(|| caller.namespace.clone());
    let system = &app.settings.system_namespace;
    if !is_namespace(&namespace) || (namespace == *system || namespace.starts_with("kube-")) {
        let detail = "expected the name of a namespace that is not the system's own";
        return Err(Problem::field("namespace", detail, Value::from(namespace)));
    }
    if content.name.trim().is_empty() || content.name.len() > 255 {
        return Err(Problem::field(
            "name",
            "expected 1 to 255 characters",
            Value::from(content.name),
        ));
    }
    if !dry_run {
        ensure_namespace(&app, &namespace).await?;
    }
    let key = generate("gp");
    let data = [
        ("sha256", Hash::of(&key).to_hex()),
        ("role", content.role.as_str().to_owned()),
        ("namespace", namespace.clone()),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!(
                "{NAME_PREFIX}{}",
                &uuid::Uuid::new_v4().simple().to_string()[..12]
            )),
            labels: Some([(annotations::SECRET_PURPOSE_LABEL.to_owned(), API_KEY_PURPOSE.to_owned())].into()),
            annotations: Some([(NAME_ANNOTATION.to_owned(), content.name)].into()),
            ..ObjectMeta::default()
        },
        type_: Some("graphplane.dev/api-key".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    let params = PostParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    };
    let created = app.api::<Secret>(system).create(&params, &secret).await?;
    if !dry_run {
        tracing::info!(
            by = caller.key,
            key = created.name_any(),
            namespace,
            role = content.role.as_str(),
            "an API key was made"
        );
        // The key must be good when the client has it.
        let seen = app
            .caches
            .secrets
            .wait_until(|cache| cache.get(system, &created.name_any()).is_some());
        let _ = tokio::time::timeout(SEEN_WITHIN, seen).await;
    }
    let view = view(&created);
    let location = format!("/v1/api-keys/{}", view.id);
    let mut response = (StatusCode::CREATED, Json(ApiKeyCreated { view, key })).into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// Lists keys of all tenants.
pub(crate) async fn list(State(app): State<App>, _: Admin, query: UrlQuery) -> Result<Page<ApiKeyView>, Problem> {
    let paging = Paging::from_query(&query, "api-keys".to_owned())?;
    let params = ListParams {
        label_selector: Some(format!("{}={API_KEY_PURPOSE}", annotations::SECRET_PURPOSE_LABEL)),
        ..paging.params()
    };
    let found = app
        .api::<Secret>(&app.settings.system_namespace)
        .list(&params)
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |secret| view(&secret)))
}

/// Deletes a key; it is refused from then on.
pub(crate) async fn delete(
    State(app): State<App>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    query: UrlQuery,
) -> Result<StatusCode, Problem> {
    let dry_run = query.dry_run()?;
    let missing = || Problem::not_found(format!("API key `{}`", crate::problem::clip(&id)));
    let name = format!("{NAME_PREFIX}{id}");
    if !is_object_name(&name) {
        return Err(missing());
    }
    let system = &app.settings.system_namespace;
    let api = app.api::<Secret>(system);
    let found = api.get_opt(&name).await?.ok_or_else(missing)?;
    if found
        .labels()
        .get(annotations::SECRET_PURPOSE_LABEL)
        .map(String::as_str)
        != Some(API_KEY_PURPOSE)
    {
        return Err(missing());
    }
    api.delete(
        &name,
        &DeleteParams {
            dry_run,
            ..DeleteParams::default()
        },
    )
    .await?;
    if !dry_run {
        tracing::info!(by = caller.key, key = name, "an API key was deleted");
        let gone = app
            .caches
            .secrets
            .wait_until(|cache| cache.get(system, &name).is_none());
        let _ = tokio::time::timeout(SEEN_WITHIN, gone).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant is a namespace; a key for one that nobody made yet would be of no use.
async fn ensure_namespace(app: &App, name: &str) -> Result<(), Problem> {
    let api = app.cluster_api::<Namespace>();
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
