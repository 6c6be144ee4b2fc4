//! Bodies in and out: read within a limit, written without a copy.

use super::error::ApiError;
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How long a body that is read as a whole may take, and how long one that is not may pause.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes, whether its length was announced or not.
///
/// # Errors
/// 413 when it is longer, 400 when it ends early, 408 when it takes too long.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    within(PATIENCE, collect(body, limit)).await
}

/// What `reading` gives, unless it takes longer than `patience`.
///
/// # Errors
/// Those of `reading`, and 408.
pub(super) async fn within<T>(
    patience: Duration,
    reading: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("The request's body did not come within {seconds} s"),
        ))
    })
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large(limit as u64));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => {
            Err(too_large(limit as u64))
        }
        Err(error) => Err(ApiError::bad_request(format!(
            "The request's body could not be read: {error}"
        ))),
    }
}

/// 413 with the limit.
pub(super) fn too_large(limit: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Request body too large; this endpoint takes at most {limit} bytes"),
    )
}

/// A body of known length from a few pieces, which are sent as they are.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    /// The pieces, one after the other.
    pub(super) fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self {
            pieces: pieces.into_iter(),
            left,
        }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.find(|piece| !piece.is_empty());
        if let Some(piece) = &next {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// 200 with JSON that is written already.
pub(super) fn json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 with a value as JSON.
pub(super) fn value(value: &impl serde::Serialize) -> Result<Response, ApiError> {
    serde_json::to_vec(value).map(json).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be encoded: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn the_limit_holds_with_and_without_a_length() {
        let announced = Body::from(vec![0u8; 11]);
        assert_eq!(
            read(announced, 10).await.unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        let chunks = futures::stream::iter(vec![Ok::<_, Infallible>(Bytes::from_static(b"12345")); 3]);
        assert_eq!(
            read(Body::from_stream(chunks), 10).await.unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(read(Body::from("12345"), 5).await.unwrap(), "12345");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let begun = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"1"))]);
        let stalled = Body::from_stream(begun.chain(futures::stream::pending()));
        let answer = within(Duration::from_millis(10), collect(stalled, 10)).await;
        assert_eq!(answer.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn pieces_are_joined_on_the_wire() {
        let pieces = vec![Bytes::from_static(b"[1"), Bytes::new(), Bytes::from_static(b",2]")];
        let body = Body::new(Pieces::new(pieces));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[1,2]");
        assert!(Pieces::new(vec![]).is_end_stream());
    }
}
