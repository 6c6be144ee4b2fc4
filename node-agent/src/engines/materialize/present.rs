//! Relationships that the graph has already. They have no key, so one is the same as a staged row if its ends and all
//! columns that a run fills are equal. Of rows that are alike as many count as present as the graph has, so parallel
//! relationships stay, and a run that is repeated adds nothing.

use std::ops::Range;

use duckdb::Connection;
use lbug::Value;

use super::super::error::EngineError;
use super::super::names::cypher_identifier;
use super::mover::transient_name;
use super::plan::Plan;
use super::run::{Run, remember};
use super::slices::Slice;

/// Memory of the engine's pool for each relationship of a pass: its hash table does not spill.
const BYTES_PER_RELATIONSHIP: u64 = 1024;

impl Run<'_, '_, '_> {
    /// Finds the staged relationships that the graph has already, and excludes them by `condition`.
    pub(super) fn exclude_present_relationships(
        &mut self,
        duck: &Connection,
        plan: &Plan,
        source: &str,
        condition: &mut String,
        before: u64,
    ) -> Result<u64, EngineError> {
        let failure = |error| self.staging.failure(error);
        let number = plan.width();
        let mut statement = duck
            .prepare(&format!(
                "SELECT {}, rowid AS c{number} FROM {source} AND {condition}",
                plan.select()
            ))
            .map_err(failure)?;
        let _ = statement.stream_arrow([]).map_err(failure)?;
        let passes = self.passes(plan, before)?;
        // The staging connection is busy with the stream until its end, so what is found is kept here.
        let mut matches: Vec<i64> = Vec::new();
        while let Some(slice) = self.slice(&statement)? {
            let mut left = passes.clone();
            while let Some(nodes) = left.pop() {
                match self.look_up(&slice, |transient| plan.present(transient, &nodes)) {
                    // The nodes of this pass have more relationships than most.
                    Err(EngineError::OutOfMemory { .. }) if nodes.end - nodes.start > 1 => {
                        let middle = nodes.start.midpoint(nodes.end);
                        left.extend([nodes.start..middle, middle..nodes.end]);
                    }
                    found => matches.extend(found?),
                }
            }
        }
        if matches.is_empty() {
            return Ok(0);
        }
        remember(duck, "gp_match", &matches).map_err(failure)?;
        let columns = plan.columns_sql().join(", ");
        duck.execute_batch(&format!(
            "CREATE TEMP TABLE gp_present AS SELECT staged.number FROM \
             (SELECT number, count(*) AS times FROM gp_match GROUP BY number) graph JOIN \
             (SELECT rowid AS number, row_number() OVER (PARTITION BY {columns} ORDER BY rowid) AS nth \
              FROM {source} AND {condition} AND rowid IN (SELECT number FROM gp_match)) staged \
             ON staged.number = graph.number WHERE staged.nth <= graph.times"
        ))
        .map_err(failure)?;
        *condition = format!("({condition}) AND rowid NOT IN (SELECT number FROM gp_present)");
        let present: i64 = duck
            .query_row("SELECT count(*) FROM gp_present", [], |row| row.get(0))
            .map_err(failure)?;
        Ok(u64::try_from(present).unwrap_or_default())
    }

    /// The staged rows that a statement answers with, by number; it only looks.
    pub(super) fn look_up(
        &mut self,
        slice: &Slice,
        statement: impl FnOnce(&str) -> String,
    ) -> Result<Vec<i64>, EngineError> {
        let name = transient_name();
        let statement = statement(&cypher_identifier(&name));
        let numbers = self.in_transaction(|run| {
            run.session.create_arrow_table(run.job, &name, &slice.batches)?;
            let rows = run.session.rows(run.job, &statement)?;
            run.session.drop_arrow_table(run.job, &name)?;
            Ok(rows)
        })?;
        let number = |row: &Vec<Value>| match row.as_slice() {
            [Value::Int64(number)] => Some(*number),
            _ => None,
        };
        Ok(numbers.iter().filter_map(number).collect())
    }

    /// Ranges of nodes where relationships begin, each with about as many relationships as fit into memory.
    fn passes(&mut self, plan: &Plan, relationships: u64) -> Result<Vec<Range<u64>>, EngineError> {
        let Some([from, _]) = &plan.ends else {
            return Err(EngineError::internal(format!("{} has no ends", plan.table)));
        };
        let last = format!("MATCH (a:{}) RETURN max(offset(id(a)))", cypher_identifier(&from.table));
        let nodes = match self.session.rows(self.job, &last)?.pop().and_then(|mut row| row.pop()) {
            Some(Value::Int64(last)) => u64::try_from(last).unwrap_or_default() + 1,
            // There are no nodes, so no staged row can be there.
            _ => return Ok(Vec::new()),
        };
        let at_once = (self.session.shared.options.pool_bytes / BYTES_PER_RELATIONSHIP).max(1);
        Ok(ranges(nodes, relationships.div_ceil(at_once)))
    }
}

/// `0..length` in `count` parts of about the same length.
fn ranges(length: u64, count: u64) -> Vec<Range<u64>> {
    let step = length.div_ceil(count.max(1)).max(1);
    (0..length.div_ceil(step))
        .map(|part| part * step..((part + 1) * step).min(length))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once() {
        for (length, count) in [(0, 0), (0, 3), (1, 0), (1, 5), (10, 1), (10, 3), (1000, 7), (7, 1000)] {
            let parts = ranges(length, count);
            let numbers: Vec<u64> = parts.iter().cloned().flatten().collect();
            assert_eq!(
                numbers,
                (0..length).collect::<Vec<_>>(),
                "{length} in {count}: {parts:?}"
            );
            assert!(parts.len() as u64 <= count.max(1));
        }
    }
}
