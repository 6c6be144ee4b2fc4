//! Making tables of vectors, adding to them, and keeping their index good.

use std::sync::Arc;

use arrow::datatypes::Schema;
use lance::Dataset;
use lance::dataset::optimize::{CompactionOptions, compact_files};
use lance::dataset::{CommitBuilder, InsertBuilder, WriteMode, WriteParams};
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_index::optimize::OptimizeOptions;
use lance_index::vector::ivf::IvfBuildParams;
use lance_index::vector::pq::PQBuildParams;
use lance_linalg::distance::MetricType;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::TableName;
use super::super::rows::RowStream;
use super::change::Change;
use super::error::failed;
use super::layout::{Name, Record};
use super::plan::{Plan, outgrown};
use super::source::{Checked, Counts, RejectedVectors};
use super::table::{Generation, INDEX, IndexInfo, VECTOR, Vectors, describe, no_vectors};

/// Fragments of a table before they are joined.
const FRAGMENTS: usize = 4;

/// Told how many rows were written.
pub(crate) type Written = Arc<dyn Fn(u64) + Send + Sync>;

/// What came of a build or of an addition.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildReport {
    /// The table as it is now.
    pub table: IndexInfo,
    /// Rows that were written.
    pub added: u64,
    /// Rows that were left out because they have no usable vector.
    pub rejected: RejectedVectors,
}

/// What was done to an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Reindexed {
    /// The table as it is now.
    pub table: IndexInfo,
    /// True if the index was trained on the rows of today; false if the new rows were only put into it.
    pub trained: bool,
}

impl Vectors {
    /// Makes the vectors of a table from the rows of a query, in the place of those that are there. Rows without a usable
    /// vector are counted and left out with `skip_invalid`, and end the build without.
    ///
    /// # Errors
    /// `Invalid` if the rows are not what a table can have; `Cancelled`; nothing has changed then.
    pub async fn build(
        &self,
        table: &TableName,
        rows: RowStream,
        skip_invalid: bool,
        written: Written,
        stop: &CancellationToken,
    ) -> Result<BuildReport, EngineError> {
        let change = self.change(Name::Index(table.clone())).await?;
        let rows = change.until(stop, Checked::open(rows, None)).await?;
        let mut made = change.begin(rows.dimension()).await?;
        let counts = rows.counts();
        let session = Arc::clone(&self.lance().session);
        let uri = made.directory.to_string_lossy().into_owned();
        let work = async move {
            let params = WriteParams {
                session: Some(session),
                ..WriteParams::default()
            };
            let insert = InsertBuilder::new(uri.as_str()).with_params(&params);
            let insert = insert.progress(move |done| written(done.rows_written));
            insert.execute_stream(rows.stream()).await.map_err(failed("write"))
        };
        let dataset = change.until(stop, self.lance().pool.run(work)).await;
        let dataset = accepted(&counts, skip_invalid, dataset)?;
        let (added, rejected) = totals(&counts);
        let dataset = self.train(&change, &mut made.record, dataset, added, stop).await?;
        let generation = change.publish(made, dataset).await?;
        Ok(BuildReport {
            table: self.lance().pool.run(describe(generation)).await?,
            added,
            rejected,
        })
    }

    /// Adds the rows of a query to the vectors of a table. They are found at once, and go into the index with the next
    /// [`reindex`](Self::reindex).
    ///
    /// # Errors
    /// `NotFound` if there are no vectors yet; otherwise as [`build`](Self::build).
    pub async fn append(
        &self,
        table: &TableName,
        rows: RowStream,
        skip_invalid: bool,
        written: Written,
        stop: &CancellationToken,
    ) -> Result<BuildReport, EngineError> {
        let change = self.change(Name::Index(table.clone())).await?;
        let generation = change.current().await?.ok_or_else(|| no_vectors(table))?;
        let dataset = generation.dataset();
        let schema = Schema::from(dataset.schema());
        let rows = change.until(stop, Checked::open(rows, Some(&schema))).await?;
        let counts = rows.counts();
        let target = Arc::clone(&dataset);
        let work = async move {
            let params = WriteParams {
                mode: WriteMode::Append,
                ..WriteParams::default()
            };
            let insert = InsertBuilder::new(target).with_params(&params);
            let insert = insert.progress(move |done| written(done.rows_written));
            insert
                .execute_uncommitted_stream(rows.stream())
                .await
                .map_err(failed("write"))
        };
        let writing = async {
            let transaction = change.until(stop, self.lance().pool.run(work)).await;
            accepted(&counts, skip_invalid, transaction)
        };
        let transaction = match change.in_place(writing).await {
            Ok(transaction) => transaction,
            Err(error) => {
                // What was written belongs to no version. What is still being written is left to the mark.
                let cleaning = change.clean(&generation);
                let cleaned = match error {
                    EngineError::Cancelled => change.in_place(cleaning).await,
                    _ => cleaning.await,
                };
                if let Err(error) = cleaned {
                    tracing::warn!(%table, %error, "rows that were not added stay on the volume until the next reindex");
                }
                return Err(error);
            }
        };
        let commit = async move {
            let committed = CommitBuilder::new(dataset).execute(transaction).await;
            committed.map_err(failed("commit"))
        };
        let dataset = change.in_place(self.lance().pool.run(commit)).await?;
        change.advance(&generation, dataset).await?;
        let (added, rejected) = totals(&counts);
        Ok(BuildReport {
            table: self.lance().pool.run(describe(generation)).await?,
            added,
            rejected,
        })
    }

    /// Puts all rows into the index. It is trained anew if there is none, if there are twice as many rows as it was
    /// trained on, or if `train` asks for it.
    ///
    /// # Errors
    /// `NotFound` if there are no vectors; `Cancelled`; searches go on as before then.
    pub async fn reindex(
        &self,
        table: &TableName,
        train: bool,
        stop: &CancellationToken,
    ) -> Result<Reindexed, EngineError> {
        let change = self.change(Name::Index(table.clone())).await?;
        let generation = change.current().await?.ok_or_else(|| no_vectors(table))?;
        change.clean(&generation).await?;
        change
            .in_place(self.reindex_in_place(&change, &generation, train, stop))
            .await
    }

    async fn reindex_in_place(
        &self,
        change: &Change,
        generation: &Generation,
        train: bool,
        stop: &CancellationToken,
    ) -> Result<Reindexed, EngineError> {
        let mut record = generation.record.clone();
        let dataset = Dataset::clone(&generation.dataset());
        let compacting = async move {
            let mut dataset = dataset;
            if dataset.count_fragments() > FRAGMENTS {
                let compacted = compact_files(&mut dataset, CompactionOptions::default(), None).await;
                compacted.map_err(failed("join the files"))?;
            }
            let rows = dataset.count_rows(None).await.map_err(failed("count"))?;
            Ok((dataset, rows as u64))
        };
        let (mut dataset, rows) = change.until(stop, self.lance().pool.run(compacting)).await?;
        change.advance(generation, dataset.clone()).await?;
        let trained = train || record.partitions == 0 || outgrown(record.trained_rows, rows);
        if trained {
            dataset = self.train(change, &mut record, dataset, rows, stop).await?;
        } else {
            let optimizing = async move {
                let options = OptimizeOptions::merge(1);
                dataset.optimize_indices(&options).await.map_err(failed("index"))?;
                Ok(dataset)
            };
            dataset = change.until(stop, self.lance().pool.run(optimizing)).await?;
        }
        let generation = change.advance_with(generation, record.clone(), dataset).await?;
        Ok(Reindexed {
            table: self.lance().pool.run(describe(generation)).await?,
            trained: trained && record.partitions > 0,
        })
    }

    /// Trains an index on all rows and writes into the record what it is like; small tables get none.
    async fn train(
        &self,
        change: &Change,
        record: &mut Record,
        mut dataset: Dataset,
        rows: u64,
        stop: &CancellationToken,
    ) -> Result<Dataset, EngineError> {
        record.built_at = crate::tasks::timestamp();
        let memory = self.engines.limits().node_memory / 2;
        let Some(plan) = Plan::new(rows, record.dimension, memory) else {
            return Ok(dataset);
        };
        let _memory = self.engines.inner.reserve(plan.bytes, self.id()).await?;
        let training = async move {
            let mut ivf = IvfBuildParams::new(plan.partitions);
            ivf.sample_rate = plan.sample_rate;
            let mut pq = PQBuildParams::new(plan.sub_vectors, 8);
            pq.sample_rate = plan.sample_rate;
            let params = VectorIndexParams::with_ivf_pq_params(MetricType::Cosine, ivf, pq);
            let index = dataset.create_index(&[VECTOR], IndexType::Vector, Some(INDEX.to_owned()), &params, true);
            index.await.map_err(failed("index"))?;
            Ok(dataset)
        };
        let dataset = change.until(stop, self.lance().pool.run(training)).await?;
        record.trained_rows = rows;
        record.partitions = plan.partitions as u64;
        record.sub_vectors = plan.sub_vectors as u64;
        Ok(dataset)
    }
}

/// What was written, unless the rows were not good.
fn accepted<T>(counts: &Mutex<Counts>, skip_invalid: bool, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
    let mut counts = counts.lock();
    if let (Err(_), Some(failure)) = (&outcome, counts.failure.take()) {
        return Err(failure);
    }
    let outcome = outcome?;
    let rejected = counts.rejected;
    if rejected.rows() > 0 && (!skip_invalid || counts.accepted == 0) {
        let message = format!(
            "gives {} of {} rows without a usable vector ({} NULL, {} not finite, {} of another length, {} only zeros); \
             leave them out in the query, or send skip_invalid",
            rejected.rows(),
            rejected.rows() + counts.accepted,
            rejected.null,
            rejected.not_finite,
            rejected.other_length,
            rejected.zero
        );
        return Err(EngineError::invalid("query", message));
    }
    Ok(outcome)
}

fn totals(counts: &Mutex<Counts>) -> (u64, RejectedVectors) {
    let counts = counts.lock();
    (counts.accepted, counts.rejected)
}
