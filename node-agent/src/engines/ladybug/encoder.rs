//! Rows of one result, written in the encoding that its caller asked for.

use std::sync::Arc;

use bytes::Bytes;
use lbug::{LogicalType, Value};

use super::super::arrow_stream::ArrowStream;
use super::super::error::EngineError;
use super::super::rows::CHUNK_BYTES;
use super::columns::{record_batch, schema, weight};
use super::session::ResultShape;
use super::value::write_row;

/// Takes rows, and gives the bytes of those that it has taken since the last time.
pub(crate) enum Encoder {
    Json {
        shape: Arc<ResultShape>,
        out: Vec<u8>,
        /// Bytes of the chunk before.
        before: usize,
    },
    Arrow(Box<ArrowRows>),
}

/// Rows wait here as values until a record batch is made of them.
pub(crate) struct ArrowRows {
    stream: ArrowStream,
    types: Vec<LogicalType>,
    rows: usize,
    columns: Vec<Vec<Value>>,
    /// About as much memory as the waiting values take.
    bytes: usize,
}

impl Encoder {
    pub(crate) fn json(shape: Arc<ResultShape>) -> Self {
        Self::Json {
            shape,
            out: Vec::new(),
            before: 0,
        }
    }

    pub(crate) fn arrow(names: &[String], types: Vec<LogicalType>) -> Result<Self, EngineError> {
        Ok(Self::Arrow(Box::new(ArrowRows {
            stream: ArrowStream::start(schema(names, &types))?,
            rows: 0,
            columns: types.iter().map(|_| Vec::new()).collect(),
            types,
            bytes: 0,
        })))
    }

    /// Makes room for about this many rows.
    pub(crate) fn expect(&mut self, rows: u64) {
        if let Self::Json { out, before, .. } = self {
            // Chunks of one result are about alike; growing would copy each of them several times.
            let alike = (*before + *before / 8).min(CHUNK_BYTES);
            *out = Vec::with_capacity(if rows > 16 { alike.max(16 * 1024) } else { 512 });
        }
    }

    pub(crate) fn push(&mut self, row: Vec<Value>) {
        match self {
            Self::Json { shape, out, .. } => {
                if !out.is_empty() {
                    out.push(b',');
                }
                write_row(out, &shape.keys, &row);
            }
            Self::Arrow(waiting) => {
                waiting.rows += 1;
                for (column, value) in waiting.columns.iter_mut().zip(row) {
                    waiting.bytes += weight(&value);
                    column.push(value);
                }
            }
        }
    }

    /// Bytes that wait to be taken; for Arrow an estimate.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json { out, .. } => out.len(),
            Self::Arrow(waiting) => waiting.bytes,
        }
    }

    /// The rows since the last call; with the end of the encoding, if there is one, after the `last`.
    pub(crate) fn take(&mut self, last: bool) -> Result<Bytes, EngineError> {
        match self {
            Self::Json { out, before, .. } => {
                *before = out.len();
                Ok(Bytes::from(std::mem::take(out)))
            }
            Self::Arrow(waiting) => waiting.take(last),
        }
    }
}

impl ArrowRows {
    fn take(&mut self, last: bool) -> Result<Bytes, EngineError> {
        if self.rows > 0 {
            let batch = record_batch(self.stream.schema(), &self.types, &self.columns, self.rows)?;
            self.stream.write(&batch)?;
            self.columns.iter_mut().for_each(Vec::clear);
            (self.rows, self.bytes) = (0, 0);
        }
        if last {
            self.stream.end()?;
        }
        Ok(Bytes::from(self.stream.take()))
    }
}
