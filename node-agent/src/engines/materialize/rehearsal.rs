//! A run that changes nothing: what would be taken, and what would not, and why.

use duckdb::Connection;

use super::super::duckdb::StagingTable;
use super::super::error::EngineError;
use super::super::ladybug::TableKind;
use super::super::ladybug::schema::{count, table};
use super::plan::Plan;
use super::run::{Run, draft, keep_last, source_of};
use super::{InvalidColumn, MaterializeReport, MaterializeRequest, MaterializeStatus, Rejected};

impl Run<'_, '_, '_> {
    /// Looks at every staged row as a run would.
    pub(super) fn rehearse(
        &mut self,
        duck: &Connection,
        request: &MaterializeRequest,
        staged: &StagingTable,
    ) -> Result<MaterializeReport, EngineError> {
        let failure = |error| self.staging.failure(error);
        let name = request.table.as_str();
        let (target, exists) = match table(self.session, self.job, name)? {
            Some(found) => (found, true),
            None if request.create_table => (draft(request, staged)?, false),
            None => {
                return Err(EngineError::NotFound {
                    what: "table of the graph",
                    name: name.to_owned(),
                });
            }
        };
        let plan = self.plan(request, staged, &target)?;
        duck.execute_batch("BEGIN TRANSACTION").map_err(failure)?;
        let source = source_of(request, staged, &plan);
        let (invalid, columns) = invalid(duck, &plan, &source).map_err(failure)?;
        // A value that does not fit must not end what follows.
        let plan = plan.lenient();
        let keys = plan.keys_present();
        let mut condition = format!("({keys}) AND NOT ({invalid})");
        let figures = format!(
            "SELECT count(*), count(*) FILTER (WHERE {invalid}), count(*) FILTER (WHERE {condition}) FROM {source}"
        );
        let (rows, unfit, fit) = duck
            .query_row(&figures, [], |row| {
                Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?))
            })
            .map_err(failure)?;
        let mut rejected = Rejected {
            invalid: unfit,
            null_keys: rows - unfit - fit,
            ..Rejected::default()
        };
        if plan.kind == TableKind::Node && !plan.keys.is_empty() {
            condition = keep_last(duck, &plan, &source, &condition).map_err(failure)?;
            let kept = duck
                .query_row("SELECT count(*) FROM gp_keep", [], |row| number(row, 0))
                .map_err(failure)?;
            rejected.duplicates = fit - kept;
        }
        let before = match exists {
            true => count(self.session, self.job, &target.name, target.kind)?,
            false => 0,
        };
        if before > 0 && fit > 0 {
            rejected.already_present = match plan.kind {
                TableKind::Node if plan.keys.is_empty() => 0,
                TableKind::Node => self.exclude_present(duck, &plan, &source, &mut condition, before)?,
                TableKind::Relationship => {
                    self.exclude_present_relationships(duck, &plan, &source, &mut condition, before)?
                }
            };
        }
        if plan.kind == TableKind::Relationship {
            rejected.dangling = self.find_dangling(duck, &plan, &source, &condition)?;
        }
        let rejected_rows = self.rejected_rows(duck, &plan, &source, &invalid, &rejected)?;
        Ok(MaterializeReport {
            status: MaterializeStatus::Rehearsed,
            table: target.name.clone(),
            kind: target.kind,
            rows_staged: rows,
            rows_ingested: rows - rejected.total(),
            rejected,
            invalid_columns: columns,
            rejected_rows,
            created_table: !exists,
            filled_with_null: plan.filled_with_null,
            ignored_columns: plan.ignored_columns,
            slices: 0,
            execution_ms: 0.0,
        })
    }
}

/// The condition that a value of a row does not fit its column, and the columns where that is so.
fn invalid(duck: &Connection, plan: &Plan, source: &str) -> Result<(String, Vec<InvalidColumn>), duckdb::Error> {
    let mut columns = Vec::new();
    let mut conditions = Vec::new();
    for (target, staged, unfit) in plan.doubtful() {
        let select = format!("SELECT count(*), CAST(any_value({staged}) AS VARCHAR) FROM {source} AND {unfit}");
        let (rows, example) = duck.query_row(&select, [], |row| {
            Ok((number(row, 0)?, row.get::<_, Option<String>>(1)?))
        })?;
        if rows > 0 {
            columns.push(InvalidColumn {
                column: target.name.clone(),
                type_name: target.type_name.clone(),
                rows,
                example: example.unwrap_or_default().chars().take(200).collect(),
            });
            conditions.push(unfit);
        }
    }
    let any = match conditions.is_empty() {
        true => "false".to_owned(),
        false => conditions.join(" OR "),
    };
    Ok((any, columns))
}

fn number(row: &duckdb::Row<'_>, index: usize) -> Result<u64, duckdb::Error> {
    row.get::<_, i64>(index)
        .map(|number| u64::try_from(number).unwrap_or_default())
}
