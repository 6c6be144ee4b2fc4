//! GET and LIST: versions, pages and selections.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::selector::{Fields, Labels};
use super::{Target, convert};
use crate::cluster::Cluster;
use crate::kinds::Resource;
use crate::status::{ApiError, Cause};
use crate::store::{Expired, Object, PageQuery, Position};

/// Which objects of a resource are meant.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) resource: Arc<Resource>,
    /// `None`: all namespaces, or a cluster-scoped resource.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) fields: Fields,
}

impl Selection {
    pub(crate) fn everything(resource: Arc<Resource>, namespace: Option<String>) -> Self {
        Self {
            resource,
            namespace,
            labels: Labels::default(),
            fields: Fields::default(),
        }
    }

    /// Parses the selectors of a request.
    pub(crate) fn parse(
        resource: Arc<Resource>,
        namespace: Option<String>,
        labels: &str,
        fields: &str,
    ) -> Result<Self, ApiError> {
        let labels = Labels::parse(labels)?;
        let fields = Fields::parse(fields, |field| convert::selectable(&resource, field))?;
        Ok(Self {
            resource,
            namespace,
            labels,
            fields,
        })
    }

    /// Whether every object matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        if !self.labels.matches(|key| object.facts.label(key)) {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        let name = |field: &str| match field {
            "metadata.name" => object.key.name.to_string(),
            _ => object.key.namespace.to_string(),
        };
        if self.fields.only_names() {
            return self.fields.matches(name);
        }
        // Names first: they need no parsing.
        if self
            .fields
            .exact("metadata.name")
            .is_some_and(|n| *n != *object.key.name)
        {
            return false;
        }
        let view: Value = convert::view(&self.resource, object);
        self.fields
            .matches(|field| convert::field_text(&self.resource, &view, field))
    }
}

/// The current objects of a selection.
pub(crate) fn select(cluster: &Cluster, selection: &Selection) -> Result<Vec<Arc<Object>>, ApiError> {
    let name = convert::storage_name(&selection.resource);
    let query = PageQuery {
        resource: &name,
        namespace: selection.namespace.as_deref(),
        ..PageQuery::default()
    };
    let page = cluster.store.page(&query).map_err(|e| too_old(&e))?;
    Ok(page.objects.into_iter().filter(|o| selection.matches(o)).collect())
}

/// How old a state a read accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The newest state, or any (the state in memory is the newest).
    #[default]
    Newest,
    /// Not older than this revision.
    NotOlderThan(u64),
    /// The state at exactly this revision.
    Exactly(u64),
}

/// Options of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    /// 0: no limit.
    pub(crate) limit: usize,
    /// The token of the page before, empty for the first page.
    pub(crate) continue_token: String,
    pub(crate) freshness: Freshness,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
    /// Empty on the last page.
    pub(crate) continue_token: String,
    /// How many follow after this page; unknown where selectors apply.
    pub(crate) remaining: Option<usize>,
}

/// The object, if it exists and is fresh enough.
pub(crate) fn get(cluster: &Cluster, target: &Target, freshness: Freshness) -> Result<Arc<Object>, ApiError> {
    if let Freshness::NotOlderThan(revision) | Freshness::Exactly(revision) = freshness {
        not_from_the_future(cluster, revision)?;
    }
    cluster.store.get(&target.key()).ok_or_else(|| target.not_found())
}

/// Lists a selection.
pub(crate) fn list(cluster: &Cluster, selection: &Selection, options: &ListOptions) -> Result<Listed, ApiError> {
    let mut after = None;
    let mut at = match options.freshness {
        Freshness::Newest => None,
        Freshness::NotOlderThan(revision) => {
            not_from_the_future(cluster, revision)?;
            None
        }
        Freshness::Exactly(revision) => {
            not_from_the_future(cluster, revision)?;
            Some(revision)
        }
    };
    if !options.continue_token.is_empty() {
        let token = Token::decode(&options.continue_token)?;
        at = u64::try_from(token.rv).ok();
        after = Some(token.position()?);
    }
    let name = convert::storage_name(&selection.resource);
    let query = PageQuery {
        resource: &name,
        namespace: selection.namespace.as_deref(),
        after,
        at,
    };
    let page = cluster.store.page(&query).map_err(|expired| {
        if options.continue_token.is_empty() {
            too_old(&expired)
        } else {
            continue_too_old()
        }
    })?;
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let total = page.objects.len();
    let mut objects = Vec::with_capacity(total.min(limit));
    let mut looked_at = 0;
    let mut more = false;
    for object in page.objects {
        if !selection.matches(&object) {
            looked_at += 1;
            continue;
        }
        if objects.len() == limit {
            more = true;
            break;
        }
        looked_at += 1;
        objects.push(object);
    }
    let continue_token = match objects.last() {
        Some(last) if more => Token::new(page.revision, &last.key.namespace, &last.key.name).encode(),
        _ => String::new(),
    };
    let remaining = (more && selection.is_everything()).then_some(total - looked_at);
    Ok(Listed {
        revision: page.revision,
        objects,
        continue_token,
        remaining,
    })
}

/// Nothing can be known about a revision that has not been written.
pub(crate) fn not_from_the_future(cluster: &Cluster, revision: u64) -> Result<(), ApiError> {
    let current = cluster.store.revision();
    if revision <= current {
        return Ok(());
    }
    let message = format!("Too large resource version: {revision}, current: {current}");
    let mut error = ApiError::timeout(&message, 1);
    error.message = message;
    if let Some(details) = &mut error.details {
        details.causes.push(Cause::plain("Too large resource version"));
    }
    Err(error)
}

/// 410 for a revision whose history is gone.
pub(crate) fn too_old(expired: &Expired) -> ApiError {
    ApiError::expired(&format!(
        "too old resource version: {} ({})",
        expired.requested, expired.oldest
    ))
}

fn continue_too_old() -> ApiError {
    ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
}

/// The token that goes on from the place of `token` at whatever revision is current then.
pub(crate) fn inconsistent_token(token: &str) -> Option<String> {
    Token::decode(token)
        .ok()
        .map(|token| Token { rv: -1, ..token }.encode())
}

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on: after `start` (`namespace/name`), at revision `rv` (-1: the newest).
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn new(revision: u64, namespace: &str, name: &str) -> Self {
        let rv = i64::try_from(revision).unwrap_or(i64::MAX);
        Self {
            v: VERSION.to_owned(),
            rv,
            start: format!("{namespace}/{name}"),
        }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| invalid(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
        if token.v == VERSION {
            Ok(token)
        } else {
            Err(invalid("server does not recognize this encoded version"))
        }
    }

    fn position(&self) -> Result<Position, ApiError> {
        let (namespace, name) = self
            .start
            .split_once('/')
            .ok_or_else(|| ApiError::bad_request("continue key is not valid: no position"))?;
        Ok((namespace.into(), name.into()))
    }
}
