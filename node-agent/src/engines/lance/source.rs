//! Rows on their way into a table of vectors: the Arrow stream of a query, checked row by row, a batch at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array};
use arrow::buffer::Buffer;
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use lance::deps::datafusion::error::DataFusionError;
use lance::deps::datafusion::execution::SendableRecordBatchStream;
use lance::deps::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use parking_lot::Mutex;

use super::super::error::EngineError;
use super::super::rows::RowStream;
use super::columns::{columns, fit, vector_place};
use super::table::VECTOR;

/// Longest vector.
const MAX_DIMENSION: usize = 4096;
const CAST: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

/// Rows that have no vector which could be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectedVectors {
    /// The vector is NULL, or one of its values is.
    pub null: u64,
    /// One of its values is NaN or infinite.
    pub not_finite: u64,
    /// It is not as long as the others.
    pub other_length: u64,
    /// All its values are zero, so it points nowhere.
    pub zero: u64,
}

impl RejectedVectors {
    /// All of them.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.null + self.not_finite + self.other_length + self.zero
    }
}

/// The batches of a result.
struct Batches {
    rows: RowStream,
    decoder: StreamDecoder,
    buffer: Buffer,
}

impl Batches {
    fn new(rows: RowStream) -> Self {
        Self {
            rows,
            decoder: StreamDecoder::new(),
            buffer: Buffer::from(Vec::<u8>::new()),
        }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        loop {
            while !self.buffer.is_empty() {
                let decoded = self.decoder.decode(&mut self.buffer);
                let decoded =
                    decoded.map_err(|error| EngineError::internal(format!("read the rows of the query: {error}")))?;
                if let Some(batch) = decoded
                    && batch.num_rows() > 0
                {
                    return Ok(Some(batch));
                }
            }
            match self.rows.next_chunk().await? {
                Some(chunk) => self.buffer = Buffer::from(chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Rows that were checked: `vector` is a list of one length without gaps, the other columns are what can be kept.
pub(crate) struct Checked {
    batches: Batches,
    schema: SchemaRef,
    dimension: usize,
    /// For every column of `schema`, its place in the batches.
    places: Vec<usize>,
    /// Read already, to know the columns and the length.
    first: Option<RecordBatch>,
    counts: Arc<Mutex<Counts>>,
}

/// What was seen of the rows so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) rejected: RejectedVectors,
    /// Why the reading ended early.
    pub(crate) failure: Option<EngineError>,
}

impl Checked {
    /// Reads until the length of the vectors is known. With `like`, the rows must fit a table that is there.
    ///
    /// # Errors
    /// `Invalid` if the columns are not what a table of vectors can have, or there is no vector at all.
    pub(crate) async fn open(rows: RowStream, like: Option<&Schema>) -> Result<Self, EngineError> {
        let mut batches = Batches::new(rows);
        let mut counts = Counts::default();
        let none = || EngineError::invalid("query", "gives no row with a vector");
        let (first, dimension) = loop {
            let batch = batches.next().await?.ok_or_else(none)?;
            let vectors = batch.column(vector_place(&batch.schema())?);
            let length = match vectors.data_type() {
                DataType::FixedSizeList(_, length) => usize::try_from(*length).ok(),
                _ => (0..vectors.len())
                    .find(|row| vectors.is_valid(*row))
                    .map(|row| list(vectors, row).1),
            };
            match length {
                Some(length) => break (batch, length),
                None => counts.rejected.null += batch.num_rows() as u64,
            }
        };
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            let message = format!("has vectors of {dimension} values; 1 to {MAX_DIMENSION} are possible");
            return Err(EngineError::invalid("query", message));
        }
        let (schema, places) = match like {
            Some(like) => fit(like, &first.schema(), dimension)?,
            None => columns(&first.schema(), dimension)?,
        };
        Ok(Self {
            batches,
            schema: Arc::new(schema),
            dimension,
            places,
            first: Some(first),
            counts: Arc::new(Mutex::new(counts)),
        })
    }

    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// What was seen so far, also while the rows are being written.
    pub(crate) fn counts(&self) -> Arc<Mutex<Counts>> {
        Arc::clone(&self.counts)
    }

    /// The rows as Lance takes them.
    pub(crate) fn stream(self) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let rows = futures::stream::unfold(Some(self), |state| async move {
            let mut rows = state?;
            match rows.next().await {
                Ok(Some(batch)) => Some((Ok(batch), Some(rows))),
                Ok(None) => None,
                Err(error) => {
                    // Lance wraps errors in its own words; who asked for the rows takes this one.
                    let told = DataFusionError::Execution(error.to_string());
                    rows.counts.lock().failure = Some(error);
                    Some((Err(told), None))
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        loop {
            let batch = match self.first.take() {
                Some(first) => first,
                None => match self.batches.next().await? {
                    Some(batch) => batch,
                    None => return Ok(None),
                },
            };
            let checked = self.check(&batch)?;
            if checked.num_rows() > 0 {
                return Ok(Some(checked));
            }
        }
    }

    /// The rows of a batch that have a vector; the others are counted.
    fn check(&self, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let unreadable =
            |error: ArrowError| EngineError::invalid("query", format!("gives a column that cannot be kept: {error}"));
        let lists = batch.column(vector_place(&batch.schema())?);
        let values = cast_with_options(values(lists), &DataType::Float32, &CAST).map_err(unreadable)?;
        let values = values.as_primitive::<Float32Type>();
        let mut rejected = RejectedVectors::default();
        let mut kept = Vec::with_capacity(batch.num_rows());
        let mut vectors = Vec::with_capacity(batch.num_rows() * self.dimension);
        for row in 0..batch.num_rows() {
            let fault = match vector(lists, values, row, self.dimension) {
                Ok(vector) => {
                    vectors.extend_from_slice(vector);
                    None
                }
                Err(fault) => Some(fault),
            };
            kept.push(fault.is_none());
            match fault {
                None => {}
                Some(Fault::Null) => rejected.null += 1,
                Some(Fault::NotFinite) => rejected.not_finite += 1,
                Some(Fault::OtherLength) => rejected.other_length += 1,
                Some(Fault::Zero) => rejected.zero += 1,
            }
        }
        let kept = BooleanArray::from(kept);
        let mut columns = Vec::with_capacity(self.places.len());
        for (field, place) in self.schema.fields().iter().zip(&self.places) {
            columns.push(if field.name() == VECTOR {
                fixed(&vectors, self.dimension).map_err(unreadable)?
            } else {
                let column = filter(batch.column(*place), &kept).map_err(unreadable)?;
                cast_with_options(&column, field.data_type(), &CAST).map_err(unreadable)?
            });
        }
        let checked = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unreadable)?;
        let mut counts = self.counts.lock();
        counts.accepted += checked.num_rows() as u64;
        counts.rejected.null += rejected.null;
        counts.rejected.not_finite += rejected.not_finite;
        counts.rejected.other_length += rejected.other_length;
        counts.rejected.zero += rejected.zero;
        Ok(checked)
    }
}

enum Fault {
    Null,
    NotFinite,
    OtherLength,
    Zero,
}

fn vector<'a>(lists: &ArrayRef, values: &'a Float32Array, row: usize, dimension: usize) -> Result<&'a [f32], Fault> {
    if lists.is_null(row) {
        return Err(Fault::Null);
    }
    let (start, length) = list(lists, row);
    if length != dimension {
        return Err(Fault::OtherLength);
    }
    if values.null_count() > 0 && (start..start + length).any(|at| values.is_null(at)) {
        return Err(Fault::Null);
    }
    let vector = &values.values()[start..start + length];
    check(vector).map(|()| vector)
}

/// Whether a vector has a direction.
fn check(vector: &[f32]) -> Result<(), Fault> {
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(Fault::NotFinite);
    }
    if vector.iter().all(|value| *value == 0.0) {
        return Err(Fault::Zero);
    }
    Ok(())
}

/// Checks a vector that a caller gave.
pub(crate) fn check_given(field: &str, vector: &[f32], dimension: usize) -> Result<(), EngineError> {
    if vector.len() != dimension {
        let message = format!("has {} values where {dimension} are expected", vector.len());
        return Err(EngineError::invalid(field, message));
    }
    check(vector).map_err(|fault| {
        let message = match fault {
            Fault::Zero => "has only zeros, and so no direction",
            _ => "has a value that is not finite",
        };
        EngineError::invalid(field, message)
    })
}

/// Vectors, one after the other in `values`, as a column.
pub(crate) fn fixed(values: &[f32], dimension: usize) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values = Arc::new(Float32Array::from(values.to_vec()));
    let length = i32::try_from(dimension).unwrap_or(i32::MAX);
    Ok(Arc::new(FixedSizeListArray::try_new(item, length, values, None)?))
}

/// Where the values of a row's list begin, and how many they are.
fn list(lists: &ArrayRef, row: usize) -> (usize, usize) {
    match lists.data_type() {
        DataType::FixedSizeList(_, length) => {
            let length = usize::try_from(*length).unwrap_or(0);
            (row * length, length)
        }
        DataType::LargeList(_) => {
            let offsets = lists.as_list::<i64>().value_offsets();
            let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(0);
            (at(row), at(row + 1) - at(row))
        }
        _ => {
            let offsets = lists.as_list::<i32>().value_offsets();
            let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(0);
            (at(row), at(row + 1) - at(row))
        }
    }
}

fn values(lists: &ArrayRef) -> &ArrayRef {
    match lists.data_type() {
        DataType::FixedSizeList(..) => lists.as_fixed_size_list().values(),
        DataType::LargeList(_) => lists.as_list::<i64>().values(),
        _ => lists.as_list::<i32>().values(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn given_vectors_have_a_direction() {
        check_given("embedding", &[0.0, 1.0], 2).unwrap();
        for wrong in [&[1.0][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0]] {
            assert!(check_given("embedding", wrong, 2).is_err(), "{wrong:?}");
        }
    }
}
