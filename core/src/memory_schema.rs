//! Tables of a subgraph of type `memory`: what an agent remembers as concepts, observations and sessions.

/// The statements, in the order in which they have to run. Columns are those of the platform's existing memory
/// subgraphs, whose times are text.
pub const MEMORY_SCHEMA: &str = "\
CREATE NODE TABLE Concept(identifier STRING PRIMARY KEY, name STRING, description STRING, category STRING, \
confidence DOUBLE, source STRING, created_at STRING, updated_at STRING, access_count INT32, last_accessed STRING);
CREATE NODE TABLE Observation(identifier STRING PRIMARY KEY, content STRING, observation_type STRING, context STRING, \
confidence DOUBLE, created_at STRING, expires_at STRING);
CREATE NODE TABLE Session(identifier STRING PRIMARY KEY, name STRING, purpose STRING, started_at STRING, \
ended_at STRING, status STRING);
CREATE REL TABLE CONCEPT_RELATES_TO(FROM Concept TO Concept, relationship_type STRING, strength DOUBLE, created_at STRING);
CREATE REL TABLE OBSERVATION_ABOUT(FROM Observation TO Concept, relevance DOUBLE, created_at STRING);
CREATE REL TABLE SESSION_PRODUCED(FROM Session TO Observation, created_at STRING);
CREATE REL TABLE SESSION_REFERENCED(FROM Session TO Concept, usage_type STRING, created_at STRING);
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::{created_table, split};

    #[test]
    fn every_statement_creates_a_table_after_those_it_refers_to() {
        let mut known: Vec<String> = Vec::new();
        for statement in split(MEMORY_SCHEMA) {
            if let Some((_, ends)) = statement.split_once("(FROM ") {
                let ends = ends.split(',').next().unwrap_or_default();
                for end in ends.split(" TO ") {
                    assert!(known.iter().any(|k| k == end), "{end} of {statement}");
                }
            }
            known.extend(created_table(statement));
        }
        assert_eq!(known.len(), 7);
    }
}
