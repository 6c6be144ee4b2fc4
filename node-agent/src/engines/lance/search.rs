//! Finding rows: the nearest to a vector, and those that meet a condition.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::Float32Array;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use lance::Dataset;
use lance::dataset::scanner::Scanner;
use lance_linalg::distance::MetricType;

use super::super::duckdb::write_object;
use super::super::error::EngineError;
use super::super::names::TableName;
use super::error::refused;
use super::predicate::Predicate;
use super::source::check_given;
use super::table::{Generation, VECTOR, Vectors};

/// What a scan reads ahead, in bytes and in rows.
const READ_AHEAD: u64 = 32 << 20;
const BATCH_ROWS: usize = 4096;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;
const DISTANCE: &str = "_distance";

/// What to look for.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// Near what.
    pub embedding: Vec<f32>,
    /// Most rows.
    pub limit: usize,
    /// Columns of the answer; all but the vector if absent.
    pub select: Option<Vec<String>>,
    /// A condition on the rows.
    pub filter: Option<String>,
    /// Partitions to look into at least.
    pub nprobes: usize,
    /// How many times `limit` rows are compared by their true distance.
    pub refine: u32,
    /// Look at every row, whatever the index says.
    pub exact: bool,
    /// Time for waiting and looking together.
    pub timeout: Duration,
}

/// Rows of an answer: JSON objects, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub rows: usize,
    /// Themselves.
    pub json: Vec<u8>,
}

/// How the nearest rows are found.
pub(crate) struct Nearest {
    pub(crate) embedding: Vec<f32>,
    pub(crate) limit: usize,
    pub(crate) columns: Vec<String>,
    pub(crate) filter: Option<Predicate>,
    pub(crate) nprobes: usize,
    pub(crate) refine: u32,
    pub(crate) use_index: bool,
}

impl Vectors {
    /// The rows of a table that are nearest to a vector, the nearest first, each with its `distance`: 1 less the cosine.
    ///
    /// # Errors
    /// `NotFound` if there are no vectors; `Invalid` if the request does not fit the table; `Timeout`.
    pub async fn search(&self, table: &TableName, request: SearchRequest) -> Result<Found, EngineError> {
        let timeout = request.timeout;
        let searching = async {
            let generation = self.existing(table).await?;
            let nearest = nearest(&generation, request)?;
            let _turn = self.lance().searches.acquire().await;
            // The generation stays until the rows have been read.
            let work = async move { find(&generation.dataset(), &nearest).await };
            self.lance().pool.run(work).await
        };
        within(timeout, searching).await
    }
}

/// What `work` gives, unless it takes longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(EngineError::Timeout {
            limit,
            outcome_unknown: false,
        }))
}

/// Checks a request against its table.
fn nearest(generation: &Generation, request: SearchRequest) -> Result<Nearest, EngineError> {
    check_given("embedding", &request.embedding, generation.record.dimension)?;
    let schema = Schema::from(generation.dataset().schema());
    let columns = match request.select {
        Some(columns) => known_columns("select", columns, &schema)?,
        None => without_vector(&schema),
    };
    let filter = request.filter.map(|text| Predicate::parse("filter", &text, &schema));
    Ok(Nearest {
        embedding: request.embedding,
        limit: request.limit,
        columns,
        filter: filter.transpose()?,
        nprobes: request.nprobes,
        refine: request.refine,
        use_index: generation.record.partitions > 0 && !request.exact,
    })
}

/// All columns but the vector.
pub(crate) fn without_vector(schema: &Schema) -> Vec<String> {
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.filter(|name| name != VECTOR).collect()
}

/// Columns that a caller named, once each.
pub(crate) fn known_columns(
    field: &str,
    mut columns: Vec<String>,
    schema: &Schema,
) -> Result<Vec<String>, EngineError> {
    columns.sort();
    columns.dedup();
    match columns.iter().find(|name| schema.index_of(name).is_err()) {
        None => Ok(columns),
        Some(unknown) => {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let unknown: String = unknown.chars().take(100).collect();
            let message = format!("there is no column {unknown:?}; there are {}", known.join(", "));
            Err(EngineError::invalid(field, message))
        }
    }
}

pub(crate) async fn find(dataset: &Arc<Dataset>, nearest: &Nearest) -> Result<Found, EngineError> {
    let failed = refused("search");
    let mut scan = scan(dataset);
    let query = Float32Array::from(nearest.embedding.clone());
    scan.nearest(VECTOR, &query, nearest.limit).map_err(&failed)?;
    scan.distance_metric(MetricType::Cosine);
    scan.use_index(nearest.use_index);
    if nearest.use_index {
        // Partitions that hold too few rows which meet the condition are no reason to find fewer, so this is the least. Without
        // any effort beyond it, since Lance would start with up to 77 partitions otherwise, by their distances.
        scan.minimum_nprobes(nearest.nprobes).refine(nearest.refine);
        scan.search_effort(0.0).map_err(&failed)?;
    }
    if let Some(filter) = &nearest.filter {
        scan.filter(filter.sql()).map_err(refused("filter"))?;
        scan.prefilter(true);
    }
    scan.disable_scoring_autoprojection();
    let columns: Vec<&str> = nearest.columns.iter().map(String::as_str).chain([DISTANCE]).collect();
    scan.project(&columns).map_err(&failed)?;
    let rows = scan.try_into_batch().await.map_err(refused("filter"))?;
    written(&rows)
}

/// Rows that meet a condition, in the order in which they were written.
pub(crate) async fn select(
    dataset: &Arc<Dataset>,
    columns: &[String],
    filter: Option<&Predicate>,
    limit: usize,
    offset: usize,
) -> Result<RecordBatch, EngineError> {
    let failed = refused("where");
    let mut scan = scan(dataset);
    if let Some(filter) = filter {
        scan.filter(filter.sql()).map_err(&failed)?;
    }
    scan.project(columns).map_err(&failed)?;
    let places = |number| i64::try_from(number).unwrap_or(i64::MAX);
    scan.limit(Some(places(limit)), Some(places(offset))).map_err(&failed)?;
    scan.try_into_batch().await.map_err(&failed)
}

/// A scan that holds little in memory; by default one may read two GiB ahead.
fn scan(dataset: &Arc<Dataset>) -> Scanner {
    let mut scan = Scanner::new(Arc::clone(dataset));
    scan.io_buffer_size(READ_AHEAD)
        .batch_size(BATCH_ROWS)
        .batch_readahead(2);
    scan
}

/// Rows as JSON; the distance under the name of the contract.
pub(crate) fn written(rows: &RecordBatch) -> Result<Found, EngineError> {
    let schema = rows.schema();
    let fields: Vec<Field> = (schema.fields().iter())
        .map(|field| match field.name().as_str() {
            DISTANCE => Field::clone(field).with_name("distance"),
            _ => Field::clone(field),
        })
        .collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec())
        .map_err(|error| EngineError::internal(format!("vectors, name the columns: {error}")))?;
    let mut json = Vec::new();
    for row in 0..rows.num_rows() {
        if row > 0 {
            json.push(b',');
        }
        write_object(&mut json, &rows, row);
        if json.len() > MAX_ANSWER {
            let message = format!(
                "the answer has more than {} MiB; select fewer columns or rows",
                MAX_ANSWER >> 20
            );
            return Err(EngineError::invalid("limit", message));
        }
    }
    Ok(Found {
        rows: rows.num_rows(),
        json,
    })
}
