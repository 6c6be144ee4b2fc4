//! Server-sent events of a response.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::pin::Pin;

/// A line beyond this is not an event of ours; reading on would only fill memory.
const MAX_LINE: usize = 8 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` if the server gave none.
    pub name: String,
    /// Its data; several `data` lines are joined by newlines.
    pub data: String,
}

/// The events of a stream of bytes.
pub struct Events<E> {
    bytes: Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>>,
    buffer: BytesMut,
}

impl<E> Events<E> {
    /// Reads events from a body.
    pub fn new(bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        Self {
            bytes: Box::pin(bytes),
            buffer: BytesMut::new(),
        }
    }

    /// The next event; `None` when the stream ends. An event without its closing empty line is left out, as the
    /// specification asks.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, E> {
        let mut event = Event::default();
        let mut has_data = false;
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            if line.is_empty() {
                if has_data {
                    if event.name.is_empty() {
                        event.name.push_str("message");
                    }
                    return Ok(Some(event));
                }
                event = Event::default();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                // A comment keeps the connection alive; `id` and `retry` are for reconnecting.
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> Result<Option<String>, E> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            if self.buffer.len() > MAX_LINE {
                return Ok(None);
            }
            match self.bytes.next().await {
                Some(bytes) => self.buffer.extend_from_slice(&bytes?),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::convert::Infallible;

    async fn events(parts: Vec<&'static str>) -> Vec<(String, String)> {
        let bytes = futures::stream::iter(parts.into_iter().map(|part| Ok::<_, Infallible>(Bytes::from(part))));
        let mut events = Events::new(bytes);
        let mut seen = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            seen.push((event.name, event.data));
        }
        seen
    }

    #[tokio::test]
    async fn events_are_read_wherever_the_bytes_are_cut() {
        let text = "event: progress\ndata: {\"a\":1}\nid: 7\n\n: keepalive\n\ndata: one\r\ndata: two\r\n\r\n";
        let expected = [("progress", "{\"a\":1}"), ("message", "one\ntwo")];
        for cut in 0..text.len() {
            let seen = events(vec![&text[..cut], &text[cut..]]).await;
            let seen: Vec<(&str, &str)> = seen.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
            assert_eq!(seen, expected, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn an_event_that_is_cut_off_is_left_out() {
        assert_eq!(events(vec!["data: whole\n\ndata: cut"]).await.len(), 1);
        assert_eq!(events(vec!["data: whole\n\ndata: cut\n"]).await.len(), 1);
        assert_eq!(events(vec!["event: only-a-name\n\n"]).await.len(), 0);
    }
}
