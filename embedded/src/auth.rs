//! Who calls: the bearer token, the identity behind it, and the questions that clients ask about themselves.
//!
//! There is one credential, made when the data directory is, and it may do everything. Calls inside the process need
//! none.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::status::ApiError;

/// Who a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: &'static str,
    pub(crate) groups: &'static [&'static str],
}

/// The holder of the token.
pub(crate) const ADMIN: Identity = Identity {
    name: "graphplane-admin",
    groups: &["system:masters", "system:authenticated"],
};
/// The process itself.
pub(crate) const INTERNAL: Identity = Identity {
    name: "system:graphplane",
    groups: &["system:masters", "system:authenticated"],
};

/// The token, kept as a digest: comparing digests of equal length tells an attacker nothing about the token.
#[derive(Clone)]
pub(crate) struct Token(Arc<[u8; 32]>);

impl Token {
    pub(crate) fn new(text: &str) -> Self {
        Self(Arc::new(Sha256::digest(text.as_bytes()).into()))
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        !presented.is_empty() && bool::from(digest.ct_eq(&*self.0))
    }
}

/// Lets requests with the token through, and anybody to what says no more than that the server lives.
pub(crate) async fn require_token(State(token): State<Token>, mut request: Request, next: Next) -> Response {
    // Whoever asks to act as somebody else must not act as the administrator instead.
    let mut headers = request.headers().iter();
    if let Some((_, user)) = headers.find(|(name, _)| name.as_str().starts_with("impersonate-")) {
        let user = String::from_utf8_lossy(user.as_bytes()).into_owned();
        let message = "this server has one user and does not impersonate others";
        return ApiError::forbidden("", "users", &user, message).into_response();
    }
    let open = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz" | "/version");
    if token.accepts(request.headers()) {
        request.extensions_mut().insert(ADMIN);
    } else if !open {
        let mut response = ApiError::unauthorized().into_response();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

/// Marks requests that come from inside the process.
pub(crate) async fn trust(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(INTERNAL);
    next.run(request).await
}

/// The questions that have an answer: (group, version, resource, kind).
const REVIEWS: [(&str, &str, &str, &str); 3] = [
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
    ),
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"),
];

/// The kind of question behind a resource, if it is one.
pub(crate) fn review_kind(group: &str, version: &str, plural: &str) -> Option<&'static str> {
    REVIEWS
        .iter()
        .find(|(g, v, p, _)| (*g, *v, *p) == (group, version, plural))
        .map(|(.., kind)| *kind)
}

/// Answers a question about the caller. `question` is the body of the request.
pub(crate) fn review(kind: &str, identity: Identity, question: &Value) -> Result<(StatusCode, Value), ApiError> {
    if !question.is_object() {
        return Err(ApiError::bad_request(format!("the body must be a {kind}")));
    }
    if let Some(found) = question["kind"].as_str()
        && found != kind
    {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({found}) does not match the expected kind ({kind})"
        )));
    }
    let mut answer = question.clone();
    answer["kind"] = json!(kind);
    answer["metadata"] = json!({"creationTimestamp": null});
    let group = if kind == "SelfSubjectReview" {
        "authentication.k8s.io"
    } else {
        "authorization.k8s.io"
    };
    answer["apiVersion"] = json!(format!("{group}/v1"));
    answer["status"] = match kind {
        "SelfSubjectReview" => json!({"userInfo": {"username": identity.name, "groups": identity.groups}}),
        "SelfSubjectRulesReview" => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        _ => json!({"allowed": true, "reason": "the one user of this server may do everything"}),
    };
    Ok((StatusCode::CREATED, answer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_token_is_accepted() {
        let token = Token::new("secret");
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            token.accepts(&headers)
        };
        assert!(with("Bearer secret"));
        assert!(with("bearer  secret"));
        for bad in ["Bearer secret2", "Bearer ", "secret", "Basic secret", "Bearer secre"] {
            assert!(!with(bad), "{bad}");
        }
        assert!(!token.accepts(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn nobody_acts_as_somebody_else() {
        use tower::ServiceExt as _;
        let guard = axum::middleware::from_fn_with_state(Token::new("secret"), require_token);
        let server = axum::Router::new()
            .route("/api", axum::routing::get(|| async {}))
            .layer(guard);
        let mut statuses = Vec::new();
        for name in [
            "x-other",
            "impersonate-user",
            "impersonate-group",
            "impersonate-extra-scopes",
        ] {
            let request = axum::http::Request::get("/api")
                .header("authorization", "Bearer secret")
                .header(name, "somebody")
                .body(axum::body::Body::empty())
                .unwrap();
            statuses.push(server.clone().oneshot(request).await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, [200, 403, 403, 403]);
    }

    #[test]
    fn questions_are_answered() {
        let question = json!({"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get"}}});
        let (_, answer) = review("SelfSubjectAccessReview", ADMIN, &question).unwrap();
        assert_eq!(answer["status"]["allowed"], true);
        assert_eq!(answer["spec"], question["spec"]);
        let (_, who) = review("SelfSubjectReview", INTERNAL, &json!({})).unwrap();
        assert_eq!(who["status"]["userInfo"]["username"], "system:graphplane");
        assert!(review("SelfSubjectReview", ADMIN, &question).is_err());
        assert_eq!(
            review_kind("authorization.k8s.io", "v1", "selfsubjectrulesreviews"),
            Some("SelfSubjectRulesReview")
        );
        assert_eq!(review_kind("", "v1", "pods"), None);
    }
}
