//! Who calls: API keys, roles and tenants.
//!
//! A key belongs to one namespace, which is a tenant, and has one role. A valid key is never refused because of other
//! callers' failures; only failures are limited.

mod failures;
pub(crate) mod key;
pub(crate) mod manage;
mod ring;

pub(crate) use failures::Failures;
pub use key::BootstrapKey;
pub(crate) use ring::{KeyRing, index_words};

use crate::names::is_namespace;
use crate::problem::{Kind, Problem, kind};
use crate::query::UrlQuery;
use crate::state::App;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Value of the purpose label of Secrets that hold API keys.
pub(crate) const API_KEY_PURPOSE: &str = "api-key";
/// Header with a key, beside `Authorization: Bearer`.
pub(crate) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Header with which an admin names another tenant.
pub(crate) static X_NAMESPACE: HeaderName = HeaderName::from_static("x-graphplane-namespace");

/// What a key permits; each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads resources and runs queries that change nothing.
    Viewer,
    /// Creates, changes and deletes the tenant's resources and data.
    Editor,
    /// Sees nodes and volumes, changes tiers, manages keys, and reaches every tenant.
    Admin,
}

impl Role {
    /// The word in keys and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

/// Who calls, and in which tenant's name.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Name of the key, for logs and annotations.
    pub(crate) key: String,
    pub(crate) role: Role,
    /// The tenant that the request is about.
    pub(crate) namespace: String,
}

impl Caller {
    fn require(&self, app: &App, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        app.metrics.refused_key("role");
        Err(forbidden(self.role, role))
    }
}

/// 403: the role is not enough.
pub(crate) fn forbidden(has: Role, needs: Role) -> Problem {
    let (has, needs) = (has.as_str(), needs.as_str());
    Problem::new(
        &kind::FORBIDDEN,
        format!("the key has role `{has}`; this needs role `{needs}`"),
    )
}

macro_rules! extractor {
    ($(#[$doc:meta])* $name:ident, $role:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<App> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
                let caller = parts.extensions.get::<Caller>().cloned();
                let caller = caller.ok_or_else(|| Problem::internal("a route without authentication"))?;
                caller.require(app, $role)?;
                Ok(Self(caller))
            }
        }
    };
}

extractor! {
    /// A caller of any role.
    Viewer, Role::Viewer
}
extractor! {
    /// A caller who may write.
    Editor, Role::Editor
}
extractor! {
    /// A caller who may do everything.
    Admin, Role::Admin
}

/// Finds out who calls; refuses requests without a valid key.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let Source(source) = Source::of(request.extensions());
    let Some(key) = presented(request.headers()) else {
        app.metrics.refused_key("missing");
        return Err(Problem::new(
            &kind::UNAUTHORIZED,
            "send a key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
        ));
    };
    let Some(identity) = app.keys.identify(key) else {
        return Err(refuse(
            &app,
            source,
            "wrong",
            "the key is not valid; ask an admin for a new one",
        ));
    };
    let namespace = tenant(&app, &request, identity.role, &identity.namespace)?;
    request.extensions_mut().insert(Caller {
        key: identity.name,
        role: identity.role,
        namespace,
    });
    Ok(next.run(request).await)
}

/// The key of a request, from either header.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    bearer(headers)
        .or_else(|| {
            headers
                .get(&X_API_KEY)
                .and_then(|value| value.to_str().ok())
                .map(str::trim)
        })
        .filter(|key| !key.is_empty())
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Counts a failure and says 401, or 429 when there were too many from the same place.
pub(crate) fn refuse(app: &App, source: IpAddr, reason: &'static str, detail: &str) -> Problem {
    refuse_as(&kind::UNAUTHORIZED, app, source, reason, detail)
}

/// As [`refuse`], with another problem than 401.
pub(crate) fn refuse_as(what: &'static Kind, app: &App, source: IpAddr, reason: &'static str, detail: &str) -> Problem {
    match app.failures.count(source) {
        Ok(()) => {
            app.metrics.refused_key(reason);
            tracing::info!(%source, reason, "a request was refused for its key");
            Problem::new(what, detail)
        }
        Err(wait) => {
            app.metrics.refused_key("limited");
            Problem::new(
                &kind::RATE_LIMITED,
                "too many requests with wrong keys from this address",
            )
            .retry_after(wait)
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source(pub(crate) IpAddr);

impl Source {
    /// Without a socket, as in process, all requests come from one place.
    fn of(extensions: &Extensions) -> Self {
        let info = extensions.get::<ConnectInfo<SocketAddr>>();
        Self(info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip()))
    }
}

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// The namespace that a request is about: the key's own, or, for admins, the one they name.
fn tenant(app: &App, request: &Request, role: Role, own: &str) -> Result<String, Problem> {
    let query = UrlQuery::parse(request.uri().query());
    let header = request
        .headers()
        .get(&X_NAMESPACE)
        .and_then(|value| value.to_str().ok());
    let Some(named) = query
        .get("namespace")
        .or(header)
        .map(str::trim)
        .filter(|name| !name.is_empty())
    else {
        return Ok(own.to_owned());
    };
    if !is_namespace(named) {
        return Err(Problem::parameter(
            "namespace",
            "expected the name of a namespace",
            named,
        ));
    }
    if named != own && role < Role::Admin {
        // The same answer whether the namespace exists or not.
        app.metrics.refused_key("namespace");
        return Err(Problem::new(
            &kind::FORBIDDEN,
            format!("the key belongs to namespace `{own}` and reaches no other"),
        ));
    }
    Ok(named.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn roles_include_each_other() {
        assert!(Role::Admin > Role::Editor && Role::Editor > Role::Viewer);
        for role in [Role::Viewer, Role::Editor, Role::Admin] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("root"), None);
    }

    #[test]
    fn keys_come_in_either_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(presented(&headers), None);
        headers.insert("x-api-key", " k1 ".parse().unwrap());
        assert_eq!(presented(&headers), Some("k1"));
        headers.insert("authorization", "bearer k2".parse().unwrap());
        assert_eq!(presented(&headers), Some("k2"));
        headers.insert("authorization", "Basic abc".parse().unwrap());
        assert_eq!(presented(&headers), Some("k1"));
    }
}
