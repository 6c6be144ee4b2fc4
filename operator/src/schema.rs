//! Applying schema statements so that a repetition does no harm.
//!
//! A batch is applied as one transaction by the agent: all of it, or none. When an answer was lost, the batch is refused
//! the second time because its tables exist; then the tables are asked for, and only the statements are applied whose
//! table is not there.

use crate::agent::{Agent, AgentError};
use crate::error::Error;
use graphplane_core::statements::created_table;
use std::collections::HashSet;

/// The engine's refusal, in words.
pub(crate) type Refusal = String;

/// Applies statements `from..to`.
pub(crate) async fn apply(
    agent: &Agent,
    database: &str,
    statements: &[&str],
    from: usize,
    to: usize,
) -> Result<Result<(), Refusal>, Error> {
    let wanted = statements.get(from..to).unwrap_or_default();
    match agent.apply_schema(database, &joined(wanted)).await {
        Ok(()) => Ok(Ok(())),
        Err(AgentError::Refused(why)) => {
            let tables = tables(agent, database).await?;
            let exists = |s: &&str| created_table(s).is_some_and(|t| tables.contains(&t));
            if wanted.iter().any(exists) {
                without(agent, database, wanted, &tables).await
            } else {
                Ok(Err(why))
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Applies those of `statements` that a database which was found does not have.
pub(crate) async fn complete(agent: &Agent, database: &str, statements: &[&str]) -> Result<Result<(), Refusal>, Error> {
    let tables = tables(agent, database).await?;
    without(agent, database, statements, &tables).await
}

async fn tables(agent: &Agent, database: &str) -> Result<HashSet<String>, Error> {
    Ok(agent.tables(database).await?.into_iter().map(|t| t.name).collect())
}

/// Applies the statements whose table is not among `tables`, one by one where the batch is refused: a statement that
/// makes no table may have taken effect already, which only its own refusal tells.
async fn without(
    agent: &Agent,
    database: &str,
    statements: &[&str],
    tables: &HashSet<String>,
) -> Result<Result<(), Refusal>, Error> {
    let lacks = |s: &&&str| created_table(s).is_none_or(|t| !tables.contains(&t));
    let left: Vec<&str> = statements.iter().filter(lacks).copied().collect();
    if left.is_empty() {
        return Ok(Ok(()));
    }
    match agent.apply_schema(database, &joined(&left)).await {
        Ok(()) => return Ok(Ok(())),
        Err(AgentError::Refused(_)) => {}
        Err(error) => return Err(error.into()),
    }
    for statement in left {
        match agent.apply_schema(database, statement).await {
            Ok(()) => {}
            Err(AgentError::Refused(why)) if why.to_lowercase().contains("exist") => {}
            Err(AgentError::Refused(why)) => return Ok(Err(why)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Ok(()))
}

fn joined(statements: &[&str]) -> String {
    // A statement may end in a line comment, so each separator stands on a line of its own.
    statements.iter().map(|s| format!("{s}\n;\n")).collect()
}
