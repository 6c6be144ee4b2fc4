//! Lists in pages, over the continue tokens of the Kubernetes API.
//!
//! A token of ours wraps one of the API server together with what was listed, so that a token cannot be carried over to
//! another list or another tenant.

use crate::problem::{Problem, kind};
use crate::query::UrlQuery;
use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use kube::api::{ListParams, ObjectList};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Items of a page where the request does not say.
pub(crate) const DEFAULT_LIMIT: u32 = 100;
/// Most items of a page.
pub(crate) const MAX_LIMIT: u32 = 500;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Give it as `continue` to get the next page; absent on the last one. It is good for some minutes.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_: Option<String>,
    /// How many objects follow this page, where the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    /// What is listed, with the namespace.
    s: String,
    /// The API server's token.
    t: String,
}

/// Which page of which list a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Paging {
    limit: u32,
    token: Option<String>,
    scope: String,
}

impl Paging {
    /// The page that `limit` and `continue` ask for; `scope` names the list with its namespace and filters.
    pub(crate) fn from_query(query: &UrlQuery, scope: String) -> Result<Self, Problem> {
        let limit = query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        let token = query.get("continue").map(|text| open(text, &scope)).transpose()?;
        Ok(Self { limit, token, scope })
    }

    /// Parameters of the list call.
    pub(crate) fn params(&self) -> ListParams {
        ListParams {
            limit: Some(self.limit),
            continue_token: self.token.clone(),
            ..ListParams::default()
        }
    }

    /// The page of a list, with each object as `view` shows it.
    pub(crate) fn page<K: Clone, T>(&self, list: ObjectList<K>, view: impl FnMut(K) -> T) -> Page<T> {
        let token = list.metadata.continue_.filter(|token| !token.is_empty());
        Page {
            items: list.items.into_iter().map(view).collect(),
            continue_: token.map(|token| seal(token, &self.scope)),
            remaining: list.metadata.remaining_item_count,
        }
    }
}

fn seal(token: String, scope: &str) -> String {
    let token = Token {
        s: scope.to_owned(),
        t: token,
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn open(text: &str, scope: &str) -> Result<String, Problem> {
    let refuse = || Problem::parameter("continue", "it is not a token of this list; begin without it", text);
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
    if token.s == scope { Ok(token.t) } else { Err(refuse()) }
}

/// What a list call failed with: an expired token is worth words of its own.
pub(crate) fn list_failed(error: kube::Error) -> Problem {
    match &error {
        kube::Error::Api(status) if status.code == 410 => Problem::new(
            &kind::EXPIRED,
            "the objects have changed too much since the token was given; list again without `continue`",
        ),
        _ => Problem::from(error),
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let next = self.continue_.clone();
        let mut response = Json(self).into_response();
        if let Some(token) = next
            && let Ok(link) = HeaderValue::from_str(&format!("<?continue={token}>; rel=\"next\""))
        {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn paging(query: &str, scope: &str) -> Result<Paging, Problem> {
        Paging::from_query(&UrlQuery::parse(Some(query)), scope.to_owned())
    }

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let token = seal("abc".into(), "graphs/a");
        assert_eq!(
            paging(&format!("continue={token}"), "graphs/a")
                .unwrap()
                .params()
                .continue_token
                .unwrap(),
            "abc"
        );
        assert!(paging(&format!("continue={token}"), "graphs/b").is_err());
        assert!(paging("continue=abc", "graphs/a").is_err());
        assert!(paging("limit=501", "graphs/a").is_err());
        assert_eq!(paging("", "graphs/a").unwrap().params().limit, Some(DEFAULT_LIMIT));
    }
}
