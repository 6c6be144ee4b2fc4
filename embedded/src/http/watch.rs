//! WATCH: a stream of events, one JSON document per line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::Form;
use super::encode::{self, View};
use super::params::Params;
use crate::cluster::Cluster;
use crate::status::{ApiError, Cause};
use crate::store::{Before, Event, Object, PageQuery, Watcher};
use crate::table;
use crate::verbs::read::{self, Selection};
use crate::verbs::{convert, metadata};

/// How often a client that wants bookmarks learns how far it is.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// How long a watch lasts when the client does not say: at least this, at most twice as long, spread so that clients
/// that came together do not come back together.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// Objects of the initial state per chunk.
const CHUNK: usize = 128;

/// Where a watch begins.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// With the current state as ADDED events.
    State {
        /// Mark the end of it with a bookmark.
        bookmark: bool,
    },
    /// With what comes after the current state.
    Now,
    /// With what comes after a revision.
    After(u64),
}

impl Start {
    fn of(params: &Params) -> Result<Self, ApiError> {
        let rule = params.text("resourceVersionMatch");
        let revision = params.revision()?.unwrap_or(0);
        let invalid = |cause| Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
        if !params.has("sendInitialEvents") {
            if !rule.is_empty() {
                let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return invalid(Cause::forbidden("resourceVersionMatch", detail));
            }
            return Ok(if revision == 0 {
                Self::State { bookmark: false }
            } else {
                Self::After(revision)
            });
        }
        match rule {
            "NotOlderThan" => {}
            "" => {
                let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return invalid(Cause::forbidden("resourceVersionMatch", detail));
            }
            other => {
                let allowed = ["NotOlderThan"];
                return invalid(Cause::not_supported("resourceVersionMatch", &other.into(), &allowed));
            }
        }
        Ok(match (params.flag("sendInitialEvents")?, revision) {
            (true, _) => Self::State {
                bookmark: params.flag("allowWatchBookmarks")?,
            },
            (false, 0) => Self::Now,
            (false, revision) => Self::After(revision),
        })
    }
}

/// Answers a WATCH.
pub(super) fn respond(
    cluster: &Cluster,
    selection: Selection,
    view: View,
    params: &Params,
    closing: CancellationToken,
) -> Result<Response, ApiError> {
    let name = convert::storage_name(&selection.resource);
    let namespace = selection.namespace.clone();
    let mut initial = VecDeque::new();
    let mut marks_initial = false;
    // Waiting for a revision that was never written would be waiting in silence for ever.
    read::not_from_the_future(cluster, params.revision()?.unwrap_or(0))?;
    let after = match Start::of(params)? {
        Start::After(revision) => revision,
        Start::Now => cluster.store.revision(),
        Start::State { bookmark } => {
            let query = PageQuery {
                resource: &name,
                namespace: namespace.as_deref(),
                ..PageQuery::default()
            };
            let page = cluster.store.page(&query).map_err(|e| read::too_old(&e))?;
            initial.extend(page.objects.into_iter().filter(|o| selection.matches(o)));
            marks_initial = bookmark;
            page.revision
        }
    };
    let timeout = match params.timeout()? {
        Some(timeout) => timeout,
        None => DEFAULT_TIMEOUT.mul_f64(1.0 + rand::random_range(0.0..1.0)),
    };
    let feed = Feed {
        closing,
        end: cluster.end_of(&selection.resource),
        watcher: cluster.store.watch(&name, namespace.as_deref(), after),
        selection,
        view,
        initial,
        marks_initial,
        bookmarks: params.flag("allowWatchBookmarks")?,
        deadline: Instant::now() + timeout,
        next_bookmark: Instant::now() + BOOKMARKS,
        ended: false,
    };
    let chunks = stream::unfold(feed, |mut feed| async move {
        let chunk = feed.next().await?;
        Some((Ok::<_, Infallible>(chunk), feed))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// One watch.
struct Feed {
    closing: CancellationToken,
    /// The definition of the kind is gone.
    end: CancellationToken,
    watcher: Watcher,
    selection: Selection,
    view: View,
    /// What of the initial state has not been sent.
    initial: VecDeque<Arc<Object>>,
    /// A bookmark is due after the initial state.
    marks_initial: bool,
    bookmarks: bool,
    deadline: Instant,
    next_bookmark: Instant,
    ended: bool,
}

impl Feed {
    /// The next chunk of the response, `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        if !self.initial.is_empty() {
            for object in self.initial.drain(..self.initial.len().min(CHUNK)) {
                line(
                    &mut out,
                    "ADDED",
                    &encode::shown_bytes(self.view, &self.selection.resource, &object),
                );
            }
            return Some(out.freeze());
        }
        if std::mem::take(&mut self.marks_initial) {
            self.bookmark(&mut out, true);
            return Some(out.freeze());
        }
        while out.is_empty() {
            let wake = if self.bookmarks {
                self.deadline.min(self.next_bookmark)
            } else {
                self.deadline
            };
            let found = tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                // Before the events, of which there may always be more.
                () = tokio::time::sleep_until(wake) => None,
                found = self.watcher.next() => Some(found),
                // After the events: the last of them are the deletions of what was defined.
                () = self.end.cancelled() => return None,
            };
            match found {
                Some(Ok(events)) => self.events(&mut out, &events),
                Some(Err(expired)) => {
                    line(
                        &mut out,
                        "ERROR",
                        read::too_old(&expired).to_json().to_string().as_bytes(),
                    );
                    self.ended = true;
                }
                None => self.pause(&mut out),
            }
            if self.ended && out.is_empty() {
                return None;
            }
        }
        Some(out.freeze())
    }

    /// Nothing happened for a while: a bookmark, or the end.
    fn pause(&mut self, out: &mut BytesMut) {
        self.ended = Instant::now() >= self.deadline;
        if !self.bookmarks {
            return;
        }
        self.next_bookmark = Instant::now() + BOOKMARKS;
        // Nothing may lie between the last event and the bookmark.
        match self.watcher.ready() {
            Ok(events) => self.events(out, &events),
            Err(_) => return,
        }
        self.bookmark(out, false);
    }

    fn bookmark(&self, out: &mut BytesMut, initial: bool) {
        let resource = &self.selection.resource;
        let version = self.watcher.position().to_string();
        let mut object = json!({"apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"resourceVersion": version}});
        if initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.view.wanted.form {
            Form::Table => {
                let none: [Value; 0] = [];
                table::to_table(resource, &none, &object["metadata"], self.view.include)
            }
            _ => encode::shown(self.view, resource, object),
        };
        line(out, "BOOKMARK", object.to_string().as_bytes());
    }

    fn events(&self, out: &mut BytesMut, events: &[Arc<Event>]) {
        let resource = &self.selection.resource;
        for event in events {
            match self.judge(event) {
                None => {}
                Some(Seen::Is(kind)) => line(out, kind, &encode::shown_bytes(self.view, resource, &event.object)),
                Some(Seen::Left(last)) => {
                    // It left the selection: for this client it is deleted, in the state in which it was last seen.
                    let mut object = convert::view(resource, last);
                    let version = event.revision().to_string();
                    metadata::of_mut(&mut object).insert("resourceVersion".into(), json!(version));
                    let shown = encode::shown(self.view, resource, object);
                    line(out, "DELETED", shown.to_string().as_bytes());
                }
            }
        }
    }

    /// What an event means to somebody who sees the selection only.
    fn judge<'e>(&self, event: &'e Event) -> Option<Seen<'e>> {
        if self.selection.is_everything() {
            return Some(Seen::Is(match event {
                e if e.deleted => "DELETED",
                e if e.created() => "ADDED",
                _ => "MODIFIED",
            }));
        }
        let matched = match &event.before {
            Before::Absent => Some(false),
            Before::Known(object) => Some(self.selection.matches(object)),
            Before::Unknown => None,
        };
        let matches = self.selection.matches(&event.object);
        match (matched, matches && !event.deleted) {
            (Some(true), _) if event.deleted => Some(Seen::Is("DELETED")),
            (Some(false), true) => Some(Seen::Is("ADDED")),
            (_, true) => Some(Seen::Is("MODIFIED")),
            (Some(false), false) => None,
            (Some(true), false) => match &event.before {
                Before::Known(last) => Some(Seen::Left(last)),
                _ => None,
            },
            // It may have been seen: telling too much is harmless, telling too little is not.
            (None, false) => Some(Seen::Is("DELETED")),
        }
    }
}

enum Seen<'e> {
    /// An event of this type with the object of the event.
    Is(&'static str),
    /// The object left the selection; what it was before.
    Left(&'e Object),
}

fn line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn where_watches_begin() {
        let start = |query: &str| {
            Start::of(&Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()).map_err(|e| e.code.as_u16())
        };
        assert_eq!(start(""), Ok(Start::State { bookmark: false }));
        assert_eq!(start("resourceVersion=0"), Ok(Start::State { bookmark: false }));
        assert_eq!(start("resourceVersion=5"), Ok(Start::After(5)));
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(
            start(&format!("{streaming}&allowWatchBookmarks=true")),
            Ok(Start::State { bookmark: true })
        );
        assert_eq!(
            start("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"),
            Ok(Start::Now)
        );
        assert_eq!(
            start("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=5"),
            Ok(Start::After(5))
        );
        assert_eq!(start("sendInitialEvents=true"), Err(422));
        assert_eq!(start("sendInitialEvents=true&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(start("resourceVersionMatch=NotOlderThan"), Err(422));
    }
}
