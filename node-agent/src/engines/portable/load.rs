//! Making the tables of a new database, before and after their rows come.

use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::ladybug::schema::{cypher_string, run_script, tables};
use super::super::ladybug::{Database, TableInfo, schema_script};
use super::super::names::cypher_identifier;
use super::catalog::Definitions;
use super::plan::{Plan, plans};
use super::{Portable, PortableTable, STATEMENT_TIMEOUT, Sequence, run};

/// A database whose tables are there and have no rows yet.
pub(super) struct Loading<'p> {
    portable: &'p Portable,
    plans: Vec<Plan>,
}

impl<'p> Loading<'p> {
    /// Makes the tables. What they are is what the engine then says, and must be what the list of files says.
    pub(super) async fn begin(
        database: &Database,
        portable: &'p Portable,
        cancel: &CancellationToken,
    ) -> Result<Self, EngineError> {
        let there = plans(&make(database, &portable.ddl, &portable.sequences, cancel).await?)?;
        Ok(Self {
            plans: in_order(there, &portable.tables)?,
            portable,
        })
    }

    /// The files, in the order in which they are to be loaded.
    pub(super) fn plans(&self) -> impl Iterator<Item = (&'p PortableTable, &Plan)> {
        self.portable.tables.iter().zip(&self.plans)
    }

    /// Lets SERIAL columns go on where they were, and writes everything into the data file.
    pub(super) async fn finish(self, database: &Database, cancel: &CancellationToken) -> Result<(), EngineError> {
        go_on_numbering(database, &self.portable.sequences, cancel).await?;
        database.checkpoint(STATEMENT_TIMEOUT).await
    }
}

impl Definitions {
    /// Makes the tables of an empty database, whose SERIAL columns go on where they were.
    pub(crate) async fn make(&self, database: &Database, cancel: &CancellationToken) -> Result<(), EngineError> {
        make(database, &self.ddl, &self.sequences, cancel).await?;
        go_on_numbering(database, &self.sequences, cancel).await
    }
}

/// Makes sequences and tables, and gives the tables as the engine then says that they are.
async fn make(
    database: &Database,
    ddl: &str,
    sequences: &[Sequence],
    cancel: &CancellationToken,
) -> Result<Vec<TableInfo>, EngineError> {
    let sequences = sequences.iter().filter(|sequence| !sequence.serial);
    let made = sequences.flat_map(statements).collect();
    run(database, made, cancel).await?;
    let wrong = |(statement, error)| EngineError::invalid("schema", format!("statement {statement}: {error}"));
    let script: Vec<String> = match ddl.trim().is_empty() {
        true => Vec::new(),
        false => schema_script(ddl)
            .map_err(wrong)?
            .iter()
            .map(|statement| statement.text.to_owned())
            .collect(),
    };
    let making = database.on_writer_until(STATEMENT_TIMEOUT, cancel, move |session, job| {
        if !script.is_empty() {
            run_script(session, job, &script).map_err(|failure| EngineError::invalid("schema", failure.to_string()))?;
        }
        tables(session, job)
    });
    making.await
}

/// Lets SERIAL columns go on where they were.
async fn go_on_numbering(
    database: &Database,
    sequences: &[Sequence],
    cancel: &CancellationToken,
) -> Result<(), EngineError> {
    let used = |sequence: &&Sequence| sequence.serial && sequence.current.is_some();
    let serials = sequences.iter().filter(used).flat_map(|sequence| {
        let own = format!("DROP SEQUENCE {}", cypher_identifier(&sequence.name));
        [own].into_iter().chain(statements(sequence))
    });
    run(database, serials.collect(), cancel).await
}

/// The plans of a new database in the order of the files: every table has its files, and every file its table.
fn in_order(mut there: Vec<Plan>, files: &[PortableTable]) -> Result<Vec<Plan>, EngineError> {
    let wrong = |message: String| Err(EngineError::invalid("tables", message));
    let mut plans: Vec<Plan> = Vec::new();
    for file in files {
        let Some(at) = there
            .iter()
            .position(|plan| plan.table == file.table && plan.ends == file.ends)
        else {
            return wrong(format!("{} is not in the schema, or is listed twice", file.title()));
        };
        if file.ends.is_none() && plans.last().is_some_and(|before| before.ends.is_some()) {
            return wrong(format!("{} comes after relationships", file.title()));
        }
        plans.push(there.remove(at));
    }
    match there.first() {
        None => Ok(plans),
        Some(plan) => wrong(format!("the rows of {} are missing", plan.table)),
    }
}

/// What makes a sequence go on where it was. The engine has no other way than to begin at the number that was given last,
/// and to take that.
fn statements(sequence: &Sequence) -> Vec<String> {
    let Sequence {
        start,
        increment,
        min,
        max,
        ..
    } = sequence;
    let start = sequence.current.unwrap_or(*start);
    let cycle = if sequence.cycle { "CYCLE" } else { "NO CYCLE" };
    let name = cypher_identifier(&sequence.name);
    let make =
        format!("CREATE SEQUENCE {name} START {start} INCREMENT {increment} MINVALUE {min} MAXVALUE {max} {cycle}");
    let take = sequence
        .current
        .map(|_| format!("RETURN nextval({})", cypher_string(&sequence.name)));
    [make].into_iter().chain(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_on_where_it_was() {
        let sequence = |current| Sequence {
            name: "s".into(),
            start: 5,
            increment: -3,
            min: -100,
            max: 10,
            cycle: false,
            current,
            serial: false,
        };
        assert_eq!(
            statements(&sequence(None)),
            ["CREATE SEQUENCE `s` START 5 INCREMENT -3 MINVALUE -100 MAXVALUE 10 NO CYCLE"]
        );
        assert_eq!(
            statements(&sequence(Some(2))),
            [
                "CREATE SEQUENCE `s` START 2 INCREMENT -3 MINVALUE -100 MAXVALUE 10 NO CYCLE",
                "RETURN nextval('s')"
            ]
        );
    }
}
