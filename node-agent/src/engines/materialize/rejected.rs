//! The staged rows that a run left out, with the reason, for people who have to mend them: one JSON object a line, and
//! no more than somebody reads.

use arrow::record_batch::RecordBatch;
use duckdb::Connection;

use super::super::duckdb::write_object;
use super::super::error::EngineError;
use super::Rejected;
use super::plan::Plan;
use super::run::{Run, remember};

/// Rows that are kept.
const MAX_ROWS: usize = 10_000;
/// Bytes that are kept.
const MAX_BYTES: usize = 1 << 20;

impl Run<'_, '_, '_> {
    /// The rows that a run left out; `condition` held for those that it took or that lack an end. None if they cannot be
    /// had: the run itself has succeeded.
    pub(super) fn rows_left_out(
        &mut self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        condition: &str,
        rejected: &Rejected,
    ) -> Vec<u8> {
        let found = match rejected.dangling {
            0 => Ok(0),
            _ => self.find_dangling(duck, plan, source, condition),
        };
        found
            .and_then(|_| self.rejected_rows(duck, plan, source, "false", rejected))
            .unwrap_or_else(|error| {
                tracing::warn!(%error, table = plan.table, "rejected rows are not kept");
                Vec::new()
            })
    }

    /// The rows behind the figures of `rejected`, as far as they are kept. `invalid` holds for rows with a value that
    /// does not fit.
    pub(super) fn rejected_rows(
        &self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        invalid: &str,
        rejected: &Rejected,
    ) -> Result<Vec<u8>, EngineError> {
        let keys = plan.keys_present();
        let reasons = [
            (rejected.invalid, "invalid", format!("({invalid})")),
            (
                rejected.null_keys,
                "null_keys",
                format!("NOT ({keys}) AND NOT ({invalid})"),
            ),
            (
                rejected.dangling,
                "dangling",
                "rowid IN (SELECT number FROM gp_dangling)".into(),
            ),
            (
                rejected.duplicates,
                "duplicates",
                format!("({keys}) AND NOT ({invalid}) AND rowid NOT IN (SELECT number FROM gp_keep)"),
            ),
            (
                rejected.already_present,
                "already_present",
                "rowid IN (SELECT number FROM gp_present)".into(),
            ),
        ];
        let mut lines = Lines::default();
        for (rows, reason, condition) in reasons {
            if rows > 0 && lines.rows < MAX_ROWS {
                let left = MAX_ROWS - lines.rows;
                let select = format!("SELECT * FROM {source} AND {condition} ORDER BY rowid LIMIT {left}");
                self.write_rows(duck, &select, reason, &mut lines)?;
            }
        }
        Ok(lines.bytes)
    }

    /// Keeps the numbers of staged relationships of which an end is not in the graph.
    pub(super) fn find_dangling(
        &mut self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        condition: &str,
    ) -> Result<u64, EngineError> {
        let failure = |error| self.staging.failure(error);
        let mut statement = duck
            .prepare(&format!(
                "SELECT {} AS c0, {} AS c1, rowid AS c2 FROM {source} AND {condition}",
                plan.keys[0].sql, plan.keys[1].sql
            ))
            .map_err(failure)?;
        let _ = statement.stream_arrow([]).map_err(failure)?;
        // The staging connection is busy with the stream until its end, so what is found is kept here.
        let mut linked: Vec<i64> = Vec::new();
        while let Some(slice) = self.slice(&statement)? {
            linked.extend(self.look_up(&slice, |transient| plan.linked(transient))?);
        }
        remember(duck, "gp_linked", &linked).map_err(failure)?;
        duck.execute_batch(&format!(
            "CREATE TEMP TABLE gp_dangling AS SELECT rowid AS number FROM {source} AND {condition} \
             AND rowid NOT IN (SELECT number FROM gp_linked)"
        ))
        .map_err(failure)?;
        let dangling: i64 = duck
            .query_row("SELECT count(*) FROM gp_dangling", [], |row| row.get(0))
            .map_err(failure)?;
        Ok(u64::try_from(dangling).unwrap_or_default())
    }

    fn write_rows(&self, duck: &Connection, select: &str, reason: &str, lines: &mut Lines) -> Result<(), EngineError> {
        let failure = |error| self.staging.failure(error);
        let mut statement = duck.prepare(select).map_err(failure)?;
        let _ = statement.stream_arrow([]).map_err(failure)?;
        while let Some(array) = statement.step().map_err(failure)? {
            self.sql.check()?;
            let batch = RecordBatch::from(&array);
            for row in 0..batch.num_rows() {
                if lines.bytes.len() >= MAX_BYTES {
                    return Ok(());
                }
                lines.push(reason, &batch, row);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    rows: usize,
}

impl Lines {
    fn push(&mut self, reason: &str, batch: &RecordBatch, row: usize) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(b"{\"reason\":\"");
        self.bytes.extend_from_slice(reason.as_bytes());
        self.bytes.extend_from_slice(b"\",\"row\":");
        write_object(&mut self.bytes, batch, row);
        self.bytes.extend_from_slice(b"}\n");
        if self.bytes.len() > MAX_BYTES {
            // A last line that is cut would be no JSON.
            self.bytes.truncate(begin);
            self.rows = MAX_ROWS;
        } else {
            self.rows += 1;
        }
    }
}
