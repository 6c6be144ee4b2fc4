//! The kinds of problems; their URIs are part of the API.

use http::StatusCode;

/// A kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Last part of the type's URI.
    pub(crate) slug: &'static str,
    /// The kind in words.
    pub(crate) title: &'static str,
    /// Status of answers with it.
    pub(crate) status: StatusCode,
}

impl Kind {
    /// The type's URI.
    pub(crate) fn uri(&self) -> String {
        format!("https://graphplane.dev/problems/{}", self.slug)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        $($(#[$doc])* pub(crate) static $name: Kind = Kind { slug: $slug, title: $title, status: StatusCode::$status };)*
        /// Every kind, for the documentation.
        pub(crate) static ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    MALFORMED = "malformed", BAD_REQUEST, "The request cannot be read";
    UNAUTHORIZED = "unauthorized", UNAUTHORIZED, "A valid key is needed";
    FORBIDDEN = "forbidden", FORBIDDEN, "The key does not permit this";
    NOT_FOUND = "not-found", NOT_FOUND, "The object does not exist";
    NO_SUCH_ROUTE = "no-such-route", NOT_FOUND, "The path does not exist";
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not have this method";
    ALREADY_EXISTS = "already-exists", CONFLICT, "The name is taken";
    REQUEST_TIMEOUT = "request-timeout", REQUEST_TIMEOUT, "The body did not come in time";
    CONFLICT = "conflict", CONFLICT, "The object is not in a state that permits this";
    DELETION_PROTECTED = "deletion-protected", CONFLICT, "The object is protected from deletion";
    IDEMPOTENCY_MISMATCH = "idempotency-mismatch", CONFLICT, "The idempotency key was used for another request";
    EPOCH = "epoch", CONFLICT, "The epoch is not the current one";
    EXPIRED = "expired", GONE, "The continue token is too old";
    PRECONDITION_FAILED = "precondition-failed", PRECONDITION_FAILED, "The object was changed in the meantime";
    TOO_LARGE = "too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The content type is not understood";
    INVALID = "invalid", UNPROCESSABLE_ENTITY, "The content is not valid";
    RATE_LIMITED = "rate-limited", TOO_MANY_REQUESTS, "Too many requests";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "The API failed";
    UPSTREAM = "upstream", BAD_GATEWAY, "The node gave no usable answer";
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "The service is not available";
    NOT_READY = "not-ready", SERVICE_UNAVAILABLE, "The graph is not ready";
    CIRCUIT_OPEN = "circuit-open", SERVICE_UNAVAILABLE, "The node did not answer lately";
    UPSTREAM_TIMEOUT = "upstream-timeout", GATEWAY_TIMEOUT, "The node did not answer in time";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn uris_are_unique() {
        let uris: BTreeSet<_> = ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), ALL.len());
    }
}
