//! Results of queries: lines of JSON, a chunk of rows each.

use super::Client;
use crate::failure::{Exit, Failure};
use crate::output::Summary;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::pin::Pin;

/// What is said of one chunk, whichever engine it is from.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    columns: Vec<String>,
    /// Of a Cypher statement.
    #[serde(default)]
    data: Vec<Map<String, Value>>,
    /// Of an SQL statement.
    #[serde(default)]
    rows: Vec<Vec<Value>>,
    #[serde(default)]
    is_last_chunk: bool,
    #[serde(default)]
    total_rows_sent: u64,
    #[serde(default)]
    execution_time_ms: Option<f64>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_type: Option<String>,
}

/// A result that is being received.
pub struct Rows {
    client: Client,
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    buffer: BytesMut,
    searched: usize,
    columns: Vec<String>,
    summary: Option<Summary>,
}

impl Client {
    /// Sends a statement, and gives its result when its first line has come.
    ///
    /// # Errors
    /// The server refuses the statement, or cannot be reached.
    pub async fn rows(&self, request: RequestBuilder) -> Result<Rows, Failure> {
        let request = request
            .query(&[("streaming", "true")])
            .header("accept", "application/x-ndjson");
        let response = self.send(request).await?;
        Ok(Rows {
            client: self.clone(),
            bytes: Box::pin(response.bytes_stream()),
            buffer: BytesMut::new(),
            searched: 0,
            columns: Vec::new(),
            summary: None,
        })
    }
}

impl Rows {
    /// The names of the columns, once the first chunk has come.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What is known at the end; `None` before.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// The next rows, each with a value per column; `None` after the last chunk.
    ///
    /// # Errors
    /// The statement failed, or the connection broke before the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Vec<Value>>>, Failure> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let Some(line) = self.line().await? else {
            // An answer of an older agent may be empty where there are no rows; a cut answer has begun.
            if self.columns.is_empty() {
                self.summary = Some(Summary::default());
                return Ok(None);
            }
            return Err(Failure::plain(
                "the answer ended before its last row; run the statement again",
            ));
        };
        let chunk: Chunk = serde_json::from_slice(&line).map_err(|error| {
            Failure::plain(format!(
                "the server answered with something that is not a chunk of rows: {error}"
            ))
        })?;
        if let Some(error) = chunk.error {
            return Err(statement_failure(&error, chunk.error_type.as_deref()));
        }
        if self.columns.is_empty() {
            self.columns = chunk.columns;
        }
        if chunk.is_last_chunk {
            self.summary = Some(Summary {
                rows: chunk.total_rows_sent,
                execution_ms: chunk.execution_time_ms,
                truncated: chunk.truncated,
            });
        }
        let in_order = |mut row: Map<String, Value>| -> Vec<Value> {
            self.columns
                .iter()
                .map(|name| row.remove(name).unwrap_or(Value::Null))
                .collect()
        };
        Ok(Some(if chunk.rows.is_empty() {
            chunk.data.into_iter().map(in_order).collect()
        } else {
            chunk.rows
        }))
    }

    async fn line(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            match self.bytes.next().await {
                Some(bytes) => self
                    .buffer
                    .extend_from_slice(&bytes.map_err(|error| self.client.transport(&error))?),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}

/// A failed statement: wrong text is the user's, running out of time has a code of its own.
fn statement_failure(error: &str, kind: Option<&str>) -> Failure {
    let exit = match kind.unwrap_or_default() {
        "ParserException" | "BinderException" | "CatalogException" => Exit::Usage,
        kind if kind.contains("Timeout") => Exit::Timeout,
        _ => Exit::Failure,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::GlobalOptions;
    use crate::data_dir::DataDir;
    use crate::server::{Surroundings, find};
    use std::path::Path;

    fn rows(parts: Vec<String>) -> Rows {
        let around = Surroundings {
            api: Some("http://h".into()),
            api_key: Some("k".into()),
            default_dir: DataDir::at(Path::new("/nowhere")),
        };
        let client = Client::new(find(&GlobalOptions::default(), &around).unwrap(), None).unwrap();
        let bytes = futures::stream::iter(parts.into_iter().map(|part| Ok(Bytes::from(part))));
        Rows {
            client,
            bytes: Box::pin(bytes),
            buffer: BytesMut::new(),
            searched: 0,
            columns: Vec::new(),
            summary: None,
        }
    }

    async fn all(rows: &mut Rows) -> Result<Vec<Vec<Value>>, Failure> {
        let mut all = Vec::new();
        while let Some(chunk) = rows.next().await? {
            all.extend(chunk);
        }
        Ok(all)
    }

    const CYPHER: &str = concat!(
        r#"{"chunk_index":0,"data":[{"a":1,"b":"x"},{"b":"y","a":2}],"columns":["b","a"],"is_last_chunk":false,"row_count":2,"total_rows_sent":2}"#,
        "\n",
        r#"{"chunk_index":1,"data":[{"a":3}],"columns":[],"is_last_chunk":true,"row_count":1,"total_rows_sent":3,"execution_time_ms":1.5,"truncated":true}"#,
        "\n"
    );

    #[tokio::test]
    async fn rows_are_put_into_the_order_of_the_columns_wherever_the_bytes_are_cut() {
        for cut in [0, 1, 50, 140, 141, 150, CYPHER.len()] {
            let mut rows = rows(vec![CYPHER[..cut].to_owned(), CYPHER[cut..].to_owned()]);
            let found = all(&mut rows).await.unwrap();
            assert_eq!(
                serde_json::json!(found),
                serde_json::json!([["x", 1], ["y", 2], [null, 3]]),
                "cut at {cut}"
            );
            assert_eq!(rows.columns(), ["b", "a"]);
            let expected = Summary {
                rows: 3,
                execution_ms: Some(1.5),
                truncated: true,
            };
            assert_eq!(rows.summary(), Some(&expected));
        }
    }

    #[tokio::test]
    async fn sql_rows_come_as_they_are() {
        let line = r#"{"columns":["n"],"rows":[[1],[2]],"chunk_index":0,"is_last_chunk":true,"row_count":2,"total_rows_sent":2}"#;
        let found = all(&mut rows(vec![line.to_owned()])).await.unwrap();
        assert_eq!(serde_json::json!(found), serde_json::json!([[1], [2]]));
        assert_eq!(all(&mut rows(vec![])).await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_cut_answer_is_not_taken_for_a_whole_one() {
        let first = CYPHER.lines().next().unwrap();
        let failure = all(&mut rows(vec![format!("{first}\n")])).await.unwrap_err();
        assert!(failure.message.contains("before its last row"), "{failure}");
        assert!(all(&mut rows(vec![CYPHER[..30].to_owned()])).await.is_err());
    }

    #[tokio::test]
    async fn a_failure_in_the_stream_is_the_statements() {
        let line =
            |kind: &str| format!(r#"{{"error":"Binder exception: x","error_type":"{kind}","is_last_chunk":true}}"#);
        let failure = all(&mut rows(vec![line("BinderException")])).await.unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Usage, "Binder exception: x")
        );
        assert_eq!(
            all(&mut rows(vec![line("TimeoutError")])).await.unwrap_err().exit,
            Exit::Timeout
        );
    }
}
