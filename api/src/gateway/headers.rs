//! Which headers cross the gateway.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Key with which this server calls an agent.
static AGENT_KEY: HeaderName = HeaderName::from_static("x-graph-api-key");
/// Epoch under which this server believes the node to be.
static EPOCH: HeaderName = HeaderName::from_static("x-graphplane-epoch");

/// Headers that concern one connection only (RFC 9110, 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header belongs to the dealings between two neighbours, and not to the message.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-graphplane-")
        || name.starts_with("x-graph-api-")
        || matches!(name, "cookie" | "set-cookie" | "set-cookie2")
}

fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

fn passes(name: &HeaderName, connection: &[String]) -> bool {
    !HOP_BY_HOP.contains(&name.as_str()) && !connection.iter().any(|named| named == name.as_str()) && !is_ours(name)
}

/// What an agent gets with a call.
pub(super) struct Call<'a> {
    pub(super) api_key: &'a str,
    pub(super) epoch: u64,
    pub(super) request_id: &'a str,
    pub(super) read_only: bool,
    /// The body is sent on as it comes, so that its length, if it is known, is that of the client.
    pub(super) streaming: bool,
}

/// Headers of a call to an agent: those of the client without its key, and ours. `None` if the agent's key cannot be
/// sent as a header.
pub(super) fn to_agent(client: &HeaderMap, call: &Call<'_>) -> Option<HeaderMap> {
    let connection = named_by_connection(client);
    let mut headers = HeaderMap::with_capacity(client.len() + 4);
    for (name, value) in client {
        let key = *name == header::AUTHORIZATION || *name == crate::auth::X_API_KEY;
        let of_server = *name == header::HOST || *name == header::EXPECT;
        let length = *name == header::CONTENT_LENGTH && !call.streaming;
        if passes(name, &connection) && !key && !of_server && !length {
            headers.append(name.clone(), value.clone());
        }
    }
    let mut key = HeaderValue::from_str(call.api_key).ok()?;
    key.set_sensitive(true);
    headers.insert(AGENT_KEY.clone(), key);
    // An agent changes nothing for a call of another epoch, and runs its statement read-only. No epoch is ever 0.
    headers.insert(
        EPOCH.clone(),
        HeaderValue::from(if call.read_only { 0 } else { call.epoch }),
    );
    if let Ok(id) = HeaderValue::from_str(call.request_id) {
        headers.insert(crate::problem::finish::REQUEST_ID.clone(), id);
    }
    Some(headers)
}

/// Headers of an agent's answer that the client may see.
pub(super) fn to_client(agent: &HeaderMap) -> HeaderMap {
    let connection = named_by_connection(agent);
    let mut headers = HeaderMap::with_capacity(agent.len());
    for (name, value) in agent {
        if passes(name, &connection) && *name != header::WWW_AUTHENTICATE {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    const CALL: Call<'static> = Call {
        api_key: "agent",
        epoch: 4,
        request_id: "r1",
        read_only: false,
        streaming: false,
    };

    #[test]
    fn the_clients_key_stays_here_and_it_cannot_speak_for_us() {
        let client = map(&[
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("cookie", "a=b"),
            ("host", "api"),
            ("x-graph-api-key", "forged"),
            ("x-graphplane-epoch", "9"),
            ("x-graphplane-namespace", "other"),
            ("x-graphplane-access", "write"),
            ("accept", "application/x-ndjson"),
            ("content-length", "7"),
        ]);
        let sent = to_agent(&client, &CALL).unwrap();
        let expected = map(&[
            ("accept", "application/x-ndjson"),
            ("x-graph-api-key", "agent"),
            ("x-graphplane-epoch", "4"),
            ("x-request-id", "r1"),
        ]);
        assert_eq!(sent, expected);
        let streamed = to_agent(
            &client,
            &Call {
                streaming: true,
                ..CALL
            },
        )
        .unwrap();
        assert_eq!(streamed["content-length"], "7");
    }

    #[test]
    fn who_may_only_read_calls_without_an_epoch_that_permits_changes() {
        let sent = to_agent(
            &HeaderMap::new(),
            &Call {
                read_only: true,
                ..CALL
            },
        )
        .unwrap();
        assert_eq!(sent["x-graphplane-epoch"], "0");
    }

    #[test]
    fn headers_of_a_connection_end_at_it() {
        let client = map(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("x-other", "2"),
        ]);
        let sent = to_agent(&client, &CALL).unwrap();
        assert!(!sent.contains_key("x-secret") && !sent.contains_key("te") && !sent.contains_key("connection"));
        assert_eq!(sent["x-other"], "2");
    }

    #[test]
    fn the_agents_key_never_reaches_a_client() {
        let agent = map(&[
            ("x-graph-api-key", "agent"),
            ("x-graphplane-epoch", "4"),
            ("set-cookie", "a=b"),
            ("transfer-encoding", "chunked"),
            ("www-authenticate", "Bearer"),
            ("content-type", "application/json"),
            ("retry-after", "5"),
        ]);
        assert_eq!(
            to_client(&agent),
            map(&[("content-type", "application/json"), ("retry-after", "5")])
        );
    }

    #[test]
    fn a_key_that_is_no_header_is_not_sent() {
        assert!(
            to_agent(
                &HeaderMap::new(),
                &Call {
                    api_key: "a\nb",
                    ..CALL
                }
            )
            .is_none()
        );
    }
}
