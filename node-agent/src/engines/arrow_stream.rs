//! Record batches as the bytes of an Arrow IPC stream, which are taken out as they come.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::error::EngineError;

/// A stream that is being written. Its schema is its first message, before any batch.
pub(crate) struct ArrowStream {
    writer: StreamWriter<Vec<u8>>,
    schema: SchemaRef,
}

impl ArrowStream {
    pub(crate) fn start(schema: Schema) -> Result<Self, EngineError> {
        Ok(Self {
            writer: StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?,
            schema: Arc::new(schema),
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), EngineError> {
        self.writer.write(batch).map_err(failed)
    }

    /// Writes the marker of the end. A stream without it is not whole.
    pub(crate) fn end(&mut self) -> Result<(), EngineError> {
        self.writer.finish().map_err(failed)
    }

    /// What was written since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

fn failed(error: ArrowError) -> EngineError {
    EngineError::internal(format!("write an Arrow stream: {error}"))
}
