//! A materialise run, on the writer's thread of the graph.

use std::sync::Arc;

use duckdb::Connection;
use tokio_util::sync::CancellationToken;

use super::super::duckdb::{
    FILE_ID, OpenStaging, SqlControl, StagingColumn, StagingKind, StagingTable, describe, table_names,
};
use super::super::error::EngineError;
use super::super::ladybug::schema::{count, run_script, table};
use super::super::ladybug::session::Session;
use super::super::ladybug::{JobControl, TableInfo, TableKind};
use super::super::names::{FileId, TableName, cypher_identifier, sql_identifier, sql_string};
use super::mover::Mover;
use super::plan::{Plan, create_table, new_table};
use super::slices::Halves;
use super::{MaterializeReport, MaterializeRequest, MaterializeStatus, Progress, Rejected};

pub(super) struct Run<'r, 'c, 'db> {
    pub(super) session: &'r mut Session<'c, 'db>,
    pub(super) job: &'r Arc<JobControl>,
    pub(super) staging: &'r OpenStaging,
    pub(super) sql: &'r SqlControl,
    /// Looked at between slices; within one, the caller's interrupts end the statement that runs.
    pub(super) cancel: &'r CancellationToken,
    pub(super) slice_bytes: usize,
    pub(super) progress: &'r Progress,
}

/// What the staged rows are like, before any is moved.
#[derive(Clone, Copy, Debug, Default)]
struct Survey {
    rows: u64,
    with_keys: u64,
}

/// Memory for one value while DuckDB sorts: twice what numbers take. Rows with longer text go to its spill directory, which
/// doubles what sorting takes.
const SORTED_VALUE_BYTES: u64 = 32;

impl Run<'_, '_, '_> {
    pub(super) fn table(mut self, request: &MaterializeRequest) -> Result<MaterializeReport, EngineError> {
        let duck = self.staging.connect()?;
        self.sql.attach(&duck)?;
        let Some(staged) = self.staged(&duck, request)? else {
            return Ok(skipped(request));
        };
        if request.dry_run {
            return self.rehearse(&duck, request, &staged);
        }
        let (target, created) = self.target(request, &staged)?;
        let outcome = self.fill(&duck, request, &staged, &target, created);
        if created && !matches!(outcome, Ok(_) | Err(EngineError::Partial { .. })) {
            // A table that this run made and did not fill would only be in the way of the next one.
            let drop_table = format!("DROP TABLE {}", cypher_identifier(&target.name));
            if let Err(error) = self.session.run_once(self.job, &drop_table) {
                tracing::warn!(%error, table = target.name, "the table of a failed run stays");
            }
            self.session.shared.schema_changed();
        }
        outcome
    }

    fn staged(&self, duck: &Connection, request: &MaterializeRequest) -> Result<Option<StagingTable>, EngineError> {
        let names = table_names(duck).map_err(|error| self.staging.failure(error))?;
        match names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(request.table.as_str()))
        {
            None => Ok(None),
            Some(name) => describe(self.staging, duck, name).map(Some),
        }
    }

    /// The table of the graph, made if it may be.
    fn target(
        &mut self,
        request: &MaterializeRequest,
        staged: &StagingTable,
    ) -> Result<(TableInfo, bool), EngineError> {
        let name = request.table.as_str();
        if let Some(found) = table(self.session, self.job, name)? {
            return Ok((found, false));
        }
        if !request.create_table {
            return Err(EngineError::NotFound {
                what: "table of the graph",
                name: name.to_owned(),
            });
        }
        let statement = create_table(&draft(request, staged)?);
        run_script(self.session, self.job, &[statement]).map_err(|failure| failure.error)?;
        match table(self.session, self.job, name)? {
            Some(made) => Ok((made, true)),
            None => Err(EngineError::internal(format!("{name} was made and is not there"))),
        }
    }

    pub(super) fn plan(
        &mut self,
        request: &MaterializeRequest,
        staged: &StagingTable,
        target: &TableInfo,
    ) -> Result<Plan, EngineError> {
        let reduced;
        let staged = if request.embeddings {
            staged
        } else {
            reduced = without_embeddings(staged);
            &reduced
        };
        if target.kind == TableKind::Node {
            return Plan::nodes(target, staged);
        }
        let wanted = |name: &str, side: &Option<TableName>| {
            side.as_ref()
                .is_none_or(|side| side.as_str().eq_ignore_ascii_case(name))
        };
        let pairs: Vec<&(String, String)> = target
            .connections
            .iter()
            .filter(|(from, to)| wanted(from, &request.from_table) && wanted(to, &request.to_table))
            .collect();
        let [(from, to)] = pairs.as_slice() else {
            let known: Vec<String> = target
                .connections
                .iter()
                .map(|(from, to)| format!("{from} to {to}"))
                .collect();
            return Err(EngineError::invalid(
                "from_table",
                format!(
                    "{} connects {}; from_table and to_table must choose one of them",
                    target.name,
                    known.join(", ")
                ),
            ));
        };
        let mut end = |name: &str| {
            table(self.session, self.job, name)?.ok_or_else(|| EngineError::NotFound {
                what: "node table",
                name: name.to_owned(),
            })
        };
        let (from, to) = (end(from)?, end(to)?);
        Plan::relationships(target, &from, &to, staged)
    }

    fn fill(
        &mut self,
        duck: &Connection,
        request: &MaterializeRequest,
        staged: &StagingTable,
        target: &TableInfo,
        created_table: bool,
    ) -> Result<MaterializeReport, EngineError> {
        let plan = self.plan(request, staged, target)?;
        let failure = |error| self.staging.failure(error);
        let before = count(self.session, self.job, &target.name, target.kind)?;
        let first_nodes = plan.kind == TableKind::Node && before == 0;
        // One state of the staging table for counting and for moving.
        let halves = Halves::begin(self.staging, duck, staged, first_nodes)?;
        let source = source_of(request, staged, &plan);
        let survey = survey(duck, &plan, &source).map_err(failure)?;
        let mut rejected = Rejected {
            null_keys: survey.rows - survey.with_keys,
            ..Rejected::default()
        };
        let select = format!("SELECT {} FROM {source}", plan.select());
        let mut condition = plan.keys_present();
        let mut mover = Mover::new(self, &plan, survey.with_keys);
        let mut moved = Ok(false);
        if first_nodes {
            // Nearly always all keys are different, and COPY refuses them as a whole if they are not: when everything
            // goes in one transaction, that is the cheapest way to find out.
            moved = mover.at_once(duck, halves, &format!("{select} AND {condition}"));
        }
        if matches!(moved, Ok(false)) {
            if plan.kind == TableKind::Node && !plan.keys.is_empty() {
                rejected.duplicates = mover
                    .run
                    .exclude_duplicates(duck, &plan, &source, &mut condition, survey)?;
                if before > 0 {
                    rejected.already_present =
                        mover
                            .run
                            .exclude_present(duck, &plan, &source, &mut condition, before)?;
                }
            }
            if plan.kind == TableKind::Relationship && before > 0 && survey.with_keys > 0 {
                rejected.already_present =
                    mover
                        .run
                        .exclude_present_relationships(duck, &plan, &source, &mut condition, before)?;
            }
            mover.total = survey.with_keys - rejected.duplicates - rejected.already_present;
            let order = mover.run.order(&plan, mover.total);
            moved = mover.all(duck, &format!("{select} AND {condition}{order}"));
        }
        let (rows, slices) = (mover.moved, mover.slices);
        rejected.dangling = mover.dangling;
        moved.map_err(|error| partial(self.sql.explain(error), rows))?;
        self.settle(&plan, before, rows).map_err(|error| partial(error, rows))?;
        let rejected_rows = self.rows_left_out(duck, &plan, &source, &condition, &rejected);
        Ok(MaterializeReport {
            status: MaterializeStatus::Done,
            table: target.name.clone(),
            kind: target.kind,
            rows_staged: survey.rows,
            rows_ingested: rows,
            rejected,
            invalid_columns: Vec::new(),
            rejected_rows,
            created_table,
            filled_with_null: plan.filled_with_null,
            ignored_columns: plan.ignored_columns,
            slices,
            execution_ms: 0.0,
        })
    }

    /// The order in which rows are read: relationships by their start, as far as DuckDB can sort them in memory. The engine
    /// looks both ends up and files each row under its start, which takes a sixth less time when equal starts come
    /// together, and saves more than sorting costs; and a slice fills groups that the slices before it have left alone.
    fn order(&self, plan: &Plan, rows: u64) -> &'static str {
        let bytes = rows.saturating_mul(plan.width() as u64 * SORTED_VALUE_BYTES);
        match plan.kind {
            TableKind::Relationship if bytes <= self.staging.memory_bytes() => " ORDER BY 1",
            TableKind::Relationship | TableKind::Node => "",
        }
    }

    /// Makes the rows durable, and checks that they are all there.
    fn settle(&mut self, plan: &Plan, before: u64, rows: u64) -> Result<(), EngineError> {
        self.session.run_once(self.job, "CHECKPOINT")?;
        let after = count(self.session, self.job, &plan.table, plan.kind)?;
        if after != before + rows {
            return Err(EngineError::internal(format!(
                "{} has {after} rows where {before} + {rows} were expected; restore the graph from a backup and report this",
                plan.table
            )));
        }
        Ok(())
    }

    /// Finds staged rows that share their key with a later one.
    fn exclude_duplicates(
        &mut self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        condition: &mut String,
        survey: Survey,
    ) -> Result<u64, EngineError> {
        let failure = |error| self.staging.failure(error);
        let distinct = format!("SELECT count(DISTINCT {}) FROM {source}", plan.keys[0].sql);
        let distinct: i64 = duck.query_row(&distinct, [], |row| row.get(0)).map_err(failure)?;
        let duplicates = survey
            .with_keys
            .saturating_sub(u64::try_from(distinct).unwrap_or_default());
        if duplicates > 0 {
            *condition = keep_last(duck, plan, source, condition).map_err(failure)?;
        }
        Ok(duplicates)
    }

    /// Finds the staged rows whose key the graph has already. The graph looks the keys up; only row numbers come back,
    /// so the type of the key does not matter.
    pub(super) fn exclude_present(
        &mut self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        condition: &mut String,
        before: u64,
    ) -> Result<u64, EngineError> {
        let failure = |error| self.staging.failure(error);
        let key = &plan.keys[0];
        let mut statement = duck
            .prepare(&format!(
                "SELECT {} AS c0, rowid AS c1 FROM {source} AND {condition}",
                key.sql
            ))
            .map_err(failure)?;
        let _ = statement.stream_arrow([]).map_err(failure)?;
        let target = cypher_identifier(&plan.table);
        let property = cypher_identifier(&key_name(self.session, self.job, plan)?);
        let cast = |text: &str| match &key.cast {
            Some(ty) => format!("CAST({text} AS {ty})"),
            None => text.to_owned(),
        };
        // The staging connection is busy with the stream until its end, so what is found is kept here.
        let mut present: Vec<i64> = Vec::new();
        while let Some(slice) = self.slice(&statement)? {
            // Few keys are looked up in the index one by one; for many, one pass over the column is faster.
            let lookup = |transient: &str| match slice.rows.saturating_mul(4) < before {
                true => format!(
                    "MATCH (s:{transient}) WITH s.c1 AS number, {} AS key MATCH (t:{target}) WHERE t.{property} = key RETURN number",
                    cast("s.c0")
                ),
                false => format!(
                    "MATCH (s:{transient}), (t:{target}) WHERE t.{property} = {} RETURN s.c1",
                    cast("s.c0")
                ),
            };
            present.extend(self.look_up(&slice, lookup)?);
        }
        if !present.is_empty() {
            remember(duck, "gp_present", &present).map_err(failure)?;
            *condition = format!("({condition}) AND rowid NOT IN (SELECT number FROM gp_present)");
        }
        Ok(present.len() as u64)
    }

    /// Runs `work` in a transaction that is always given up: it only looks.
    pub(super) fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.session.run_once(self.job, "BEGIN TRANSACTION")?;
        let outcome = work(self);
        // A failing statement has ended the transaction already.
        let ended = self.session.run_once(self.job, "ROLLBACK");
        if outcome.is_ok() {
            ended?;
        }
        outcome
    }
}

/// Keeps numbers of staged rows in a table of this name, for as long as the connection lives.
pub(super) fn remember(duck: &Connection, name: &str, numbers: &[i64]) -> Result<(), duckdb::Error> {
    duck.execute_batch(&format!("CREATE TEMP TABLE {name}(number BIGINT)"))?;
    let mut appender = duck.appender_to_catalog_and_db(name, "temp", "main")?;
    for number in numbers {
        appender.append_row([number])?;
    }
    appender.flush()
}

fn key_name(session: &mut Session<'_, '_>, job: &Arc<JobControl>, plan: &Plan) -> Result<String, EngineError> {
    let found = table(session, job, &plan.table)?;
    let key = found
        .as_ref()
        .and_then(TableInfo::primary_key)
        .map(|key| key.name.clone());
    key.ok_or_else(|| EngineError::internal(format!("{} has no key", plan.table)))
}

/// The table that a request would make.
pub(super) fn draft(request: &MaterializeRequest, staged: &StagingTable) -> Result<TableInfo, EngineError> {
    let name = request.table.as_str();
    let ends = match (&request.from_table, &request.to_table, staged.kind) {
        (Some(from), Some(to), _) => Some((from.as_str(), to.as_str())),
        (None, None, StagingKind::Node | StagingKind::Other) => None,
        _ => {
            return Err(EngineError::invalid(
                "from_table",
                format!("{name} becomes a relationship table; from_table and to_table say which nodes it connects"),
            ));
        }
    };
    new_table(name, staged, ends)
}

/// The staged rows that a request is about; more conditions can follow.
pub(super) fn source_of(request: &MaterializeRequest, staged: &StagingTable, plan: &Plan) -> String {
    let part = request.batch.map_or_else(String::new, |batch| {
        format!(" AND hash({}) % {} = {}", plan.key_text(), batch.of, batch.number)
    });
    format!(
        "{}{}{part}",
        sql_identifier(&staged.name),
        only_files(request.file_ids.as_deref())
    )
}

fn without_embeddings(staged: &StagingTable) -> StagingTable {
    let is_embedding =
        |column: &StagingColumn| column.name.eq_ignore_ascii_case("embedding") && column.type_name.ends_with(']');
    let mut staged = staged.clone();
    staged.columns.retain(|column| !is_embedding(column));
    staged
}

fn only_files(files: Option<&[FileId]>) -> String {
    match files {
        None => " WHERE true".into(),
        Some([]) => " WHERE false".into(),
        Some(files) => {
            let ids: Vec<String> = files.iter().map(|file| sql_string(file.as_str())).collect();
            format!(" WHERE {FILE_ID} IN ({})", ids.join(", "))
        }
    }
}

fn survey(duck: &Connection, plan: &Plan, source: &str) -> Result<Survey, duckdb::Error> {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE {}) FROM {source}",
        plan.keys_present()
    );
    duck.query_row(&sql, [], |row| {
        let number = |index| {
            row.get::<_, i64>(index)
                .map(|number| u64::try_from(number).unwrap_or_default())
        };
        Ok(Survey {
            rows: number(0)?,
            with_keys: number(1)?,
        })
    })
}

/// Of several rows with one key, the one that was staged last is kept.
pub(super) fn keep_last(
    duck: &Connection,
    plan: &Plan,
    source: &str,
    condition: &str,
) -> Result<String, duckdb::Error> {
    let key = &plan.keys[0].sql;
    duck.execute_batch(&format!(
        "CREATE TEMP TABLE gp_keep AS SELECT max(rowid) AS number FROM {source} AND {condition} GROUP BY {key}"
    ))?;
    Ok("rowid IN (SELECT number FROM gp_keep)".into())
}

fn partial(error: EngineError, rows: u64) -> EngineError {
    if rows == 0 {
        error
    } else {
        EngineError::Partial {
            rows,
            source: Box::new(error),
        }
    }
}

fn skipped(request: &MaterializeRequest) -> MaterializeReport {
    MaterializeReport {
        status: MaterializeStatus::Skipped,
        table: request.table.to_string(),
        kind: TableKind::Node,
        rows_staged: 0,
        rows_ingested: 0,
        rejected: Rejected::default(),
        invalid_columns: Vec::new(),
        rejected_rows: Vec::new(),
        created_table: false,
        filled_with_null: Vec::new(),
        ignored_columns: Vec::new(),
        slices: 0,
        execution_ms: 0.0,
    }
}
