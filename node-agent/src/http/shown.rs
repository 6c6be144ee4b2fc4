//! What failures say about files: where they lie on the volume, and not in which directory of this machine the volume is.
//! That is nobody's business but the node's log.

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Response, StatusCode, header},
    response::IntoResponse,
};
use std::path::Path;

use super::error::ApiError;

/// A text in which files of the volume in `data_dir` have the names that they have there (`databases/kg1.lbug`).
pub(crate) fn on_volume(text: &str, data_dir: &Path) -> String {
    let directory = data_dir.to_string_lossy();
    without(text, directory.trim_matches('/'))
}

fn without(text: &str, directory: &str) -> String {
    if directory.is_empty() {
        return text.to_owned();
    }
    // Object stores leave out the first slash; a directory of one name could be any word then.
    let is_rare = directory.contains('/');
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(directory) {
        let (before, after) = (&rest[..at], &rest[at + directory.len()..]);
        let start = before.strip_suffix('/').unwrap_or(before);
        let is_path = start.len() < before.len() || is_rare;
        if !is_path || start.ends_with(in_name) || after.starts_with(in_name) {
            shown.push_str(&rest[..at + directory.len()]);
            rest = after;
            continue;
        }
        shown.push_str(start);
        rest = match after.strip_prefix('/').filter(|inside| !inside.is_empty()) {
            Some(inside) => inside,
            None => {
                shown.push_str("the volume");
                after
            }
        };
    }
    shown.push_str(rest);
    shown
}

/// The answer of a failure as callers get it. What it said before is logged, if that was more.
pub(super) async fn failure(answer: Response<Body>, data_dir: &Path, operation: &str) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    // It is in memory already: failures are no streams.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error; the node's log has the reason",
        )
        .into_response();
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    // As it stands within the texts of JSON.
    let quoted = serde_json::Value::from(data_dir.to_string_lossy()).to_string();
    let shown = without(text, quoted[1..quoted.len() - 1].trim_matches('/'));
    if shown == text {
        return Response::from_parts(parts, Body::from(body));
    }
    tracing::warn!(
        operation,
        status = parts.status.as_u16(),
        answer = text,
        "a failure of files of the volume"
    );
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Bytes::from(shown)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_have_the_names_that_they_have_on_the_volume() {
        let shown = |text: &str| on_volume(text, Path::new("/mnt/data"));
        for (text, expected) in [
            (
                "create /mnt/data/staging/kg1.incoming: no",
                "create staging/kg1.incoming: no",
            ),
            ("\"/mnt/data/databases/kg1.lbug\"", "\"databases/kg1.lbug\""),
            ("list /mnt/data: no", "list the volume: no"),
            ("/mnt/data and /mnt/data/a/mnt/data/b", "the volume and a/mnt/data/b"),
            ("at mnt/data/vectors/kg1/x not found", "at vectors/kg1/x not found"),
            ("/mnt/data2/x, /other/mnt/data/x", "/mnt/data2/x, /other/mnt/data/x"),
            ("nothing of that kind", "nothing of that kind"),
        ] {
            assert_eq!(shown(text), expected);
        }
        // One name is a word like others, and the root is in every path.
        let shown = |text: &str| on_volume(text, Path::new("/data"));
        assert_eq!(shown("no data/x in /data/y"), "no data/x in y");
        assert_eq!(on_volume("read /etc: no", Path::new("/")), "read /etc: no");
    }

    #[tokio::test]
    async fn answers_of_failures_do_not_tell_the_directory() {
        let data_dir = Path::new("/mnt/a \"b\"");
        let text = format!("create {}/tmp/x: no", data_dir.display());
        let answer = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        let answer = failure(answer, data_dir, "backup").await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, r#"{"detail":"create tmp/x: no"}"#);
    }
}
