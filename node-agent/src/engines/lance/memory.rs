//! The semantic memory of a graph: texts with their vectors, added, changed and removed one by one.
//!
//! It is small and read as a whole, so it has no index. One change at a time; a row that is changed is never made.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use lance::Dataset;
use lance::dataset::optimize::{CompactionOptions, compact_files};
use lance::dataset::{InsertBuilder, MergeInsertBuilder, WhenMatched, WhenNotMatched, WriteMode, WriteParams};

use super::super::error::EngineError;
use super::change::{Change, clean};
use super::error::{failed, refused};
use super::layout::Name;
use super::memory_rows::{MEMORY_DIMENSION, MemoryChange, MemoryRow, batch, check_row, check_rows, read, schema};
use super::predicate::Predicate;
use super::search::{Found, Nearest, find, known_columns, select, within, without_vector, written};
use super::source::check_given;
use super::table::{Generation, VECTOR, Vectors};

/// Changes after which small files are joined and old versions removed.
const TIDY_EVERY: u64 = 32;

impl Vectors {
    /// Adds memories, all or none, and counts those that there are then.
    ///
    /// # Errors
    /// `AlreadyExists` if an id is taken; `Invalid` if a vector has no direction or another length.
    pub async fn remember(&self, rows: Vec<MemoryRow>) -> Result<u64, EngineError> {
        check_rows(&rows)?;
        let batch = batch(&rows)?;
        let change = self.change(Name::Memory).await?;
        let session = Arc::clone(&self.lance().session);
        let Some(generation) = change.current().await? else {
            let made = change.begin(MEMORY_DIMENSION).await?;
            let uri = made.directory.to_string_lossy().into_owned();
            let work = async move {
                let params = WriteParams {
                    session: Some(session),
                    ..WriteParams::default()
                };
                let insert = InsertBuilder::new(uri.as_str()).with_params(&params);
                insert.execute(vec![batch]).await.map_err(failed("write"))
            };
            let dataset = self.lance().pool.run(work).await?;
            change.publish(made, dataset).await?;
            return Ok(rows.len() as u64);
        };
        let dataset = generation.dataset();
        let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
        let looked_at = Arc::clone(&dataset);
        let looking = async move {
            let known = Predicate::one_of("id", &ids);
            select(&looked_at, &["id".to_owned()], Some(&known), 1, 0).await
        };
        let taken = self.lance().pool.run(looking).await?;
        if taken.num_rows() > 0 {
            return Err(EngineError::AlreadyExists {
                what: "memory",
                name: taken.column(0).as_string::<i32>().value(0).to_owned(),
            });
        }
        let work = async move {
            let params = WriteParams {
                mode: WriteMode::Append,
                ..WriteParams::default()
            };
            let insert = InsertBuilder::new(tidy(dataset).await?).with_params(&params);
            let dataset = insert.execute(vec![batch]).await.map_err(failed("write"))?;
            let rows = dataset.count_rows(None).await.map_err(failed("count"))?;
            Ok((dataset, rows as u64))
        };
        let (dataset, total) = change.in_place(self.lance().pool.run(work)).await?;
        change.advance(&generation, dataset).await?;
        Ok(total)
    }

    /// The memories nearest to a vector, the nearest first, each with its `distance`.
    ///
    /// # Errors
    /// `Invalid` if the vector or the condition is not one; `Timeout`.
    pub async fn recall(
        &self,
        embedding: Vec<f32>,
        limit: usize,
        condition: Option<&str>,
        columns: Option<Vec<String>>,
        timeout: Duration,
    ) -> Result<Found, EngineError> {
        let schema = schema();
        check_given("embedding", &embedding, MEMORY_DIMENSION)?;
        let filter = condition
            .map(|text| Predicate::parse("where", text, &schema))
            .transpose()?;
        let mut columns = match columns {
            Some(columns) => known_columns("select_columns", columns, &schema)?,
            None => without_vector(&schema),
        };
        columns.retain(|name| name != VECTOR);
        let nearest = Nearest {
            embedding,
            limit,
            columns,
            filter,
            nprobes: 1,
            refine: 1,
            use_index: false,
        };
        let searching = async {
            let Some(generation) = self.current(&Name::Memory).await? else {
                return Ok(Found::default());
            };
            let _turn = self.lance().searches.acquire().await;
            let work = async move { find(&generation.dataset(), &nearest).await };
            self.lance().pool.run(work).await
        };
        within(timeout, searching).await
    }

    /// Memories that meet a condition, and how many there are of them.
    ///
    /// # Errors
    /// `Invalid` if the condition is not one; `Timeout`.
    pub async fn memories(
        &self,
        condition: Option<&str>,
        limit: usize,
        offset: usize,
        timeout: Duration,
    ) -> Result<(Found, u64), EngineError> {
        let schema = schema();
        let filter = condition
            .map(|text| Predicate::parse("where", text, &schema))
            .transpose()?;
        let listing = async {
            let Some(generation) = self.current(&Name::Memory).await? else {
                return Ok((Found::default(), 0));
            };
            let _turn = self.lance().searches.acquire().await;
            let work = async move {
                let dataset = generation.dataset();
                let sql = filter.as_ref().map(|filter| filter.sql().to_owned());
                let total = dataset.count_rows(sql).await.map_err(refused("where"))?;
                let rows = select(&dataset, &without_vector(&schema), filter.as_ref(), limit, offset).await?;
                Ok((written(&rows)?, total as u64))
            };
            self.lance().pool.run(work).await
        };
        within(timeout, listing).await
    }

    /// One memory as JSON, if there is one with this id.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn memory(&self, id: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(generation) = self.current(&Name::Memory).await? else {
            return Ok(None);
        };
        let filter = Predicate::equals("id", id);
        let work = async move {
            let columns = without_vector(&schema());
            let rows = select(&generation.dataset(), &columns, Some(&filter), 1, 0).await?;
            Ok((rows.num_rows() > 0).then_some(written(&rows)?.json))
        };
        self.lance().pool.run(work).await
    }

    /// Changes a memory; false if there is none with this id.
    ///
    /// # Errors
    /// `Invalid` if the new vector has no direction or another length.
    pub async fn change_memory(&self, id: &str, wanted: MemoryChange) -> Result<bool, EngineError> {
        let change = self.change(Name::Memory).await?;
        let Some(generation) = change.current().await? else {
            return Ok(false);
        };
        let (dataset, filter) = (generation.dataset(), Predicate::equals("id", id));
        let work = async move {
            let columns: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
            let found = select(&dataset, &columns, Some(&filter), 1, 0).await?;
            if found.num_rows() == 0 {
                return Ok(None);
            }
            let row = wanted.apply(read(&found, 0)?);
            check_row(&row)?;
            let mut merge =
                MergeInsertBuilder::try_new(tidy(dataset).await?, vec!["id".to_owned()]).map_err(failed("change"))?;
            merge
                .when_matched(WhenMatched::UpdateAll)
                .when_not_matched(WhenNotMatched::DoNothing);
            let merge = merge.try_build().map_err(failed("change"))?;
            let (dataset, _) = merge
                .execute_batches(vec![batch(&[row])?])
                .await
                .map_err(failed("change"))?;
            Ok(Some(Dataset::clone(&dataset)))
        };
        self.finish(&change, &generation, work).await
    }

    /// Removes a memory; false if there is none with this id.
    ///
    /// # Errors
    /// The files cannot be written.
    pub async fn forget_memory(&self, id: &str) -> Result<bool, EngineError> {
        let change = self.change(Name::Memory).await?;
        let Some(generation) = change.current().await? else {
            return Ok(false);
        };
        let (dataset, filter) = (generation.dataset(), Predicate::equals("id", id));
        let work = async move {
            let found = select(&dataset, &["id".to_owned()], Some(&filter), 1, 0).await?;
            if found.num_rows() == 0 {
                return Ok(None);
            }
            let dataset: Arc<Dataset> = tidy(dataset).await?;
            let mut dataset = Dataset::clone(&dataset);
            dataset.delete(filter.sql()).await.map_err(failed("remove"))?;
            Ok(Some(dataset))
        };
        self.finish(&change, &generation, work).await
    }

    async fn finish<W>(&self, change: &Change, generation: &Generation, work: W) -> Result<bool, EngineError>
    where
        W: Future<Output = Result<Option<Dataset>, EngineError>> + Send + 'static,
    {
        match change.in_place(self.lance().pool.run(work)).await? {
            None => Ok(false),
            Some(dataset) => change.advance(generation, dataset).await.map(|()| true),
        }
    }
}

/// Removes old versions and joins small files, every now and then; before a change, since what readers see is then the
/// last version, which stays.
async fn tidy(dataset: Arc<Dataset>) -> Result<Arc<Dataset>, EngineError> {
    if !dataset.version_id().is_multiple_of(TIDY_EVERY) {
        return Ok(dataset);
    }
    let mut dataset = clean(Dataset::clone(&dataset)).await?;
    let compacted = compact_files(&mut dataset, CompactionOptions::default(), None).await;
    compacted.map_err(failed("join the files"))?;
    Ok(Arc::new(dataset))
}
