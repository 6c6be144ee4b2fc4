//! Schemas that a database can be made with.

use super::error::EngineError;
use super::ladybug::DdlFailure;

const ENTITY: &str = include_str!("schemas/entity.cypher");
const MEMORY: &str = include_str!("schemas/memory.cypher");

/// What a new database contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseSchema {
    /// No tables.
    Empty,
    /// Entities, periods, units, elements and how they are labelled and classified.
    Entity,
    /// Concepts, observations and sessions: the memory of an assistant.
    Memory,
    /// What these statements define (`CREATE NODE TABLE …; CREATE REL TABLE …`).
    Custom(String),
    /// Several, one after the other.
    Many(Vec<BaseSchema>),
}

/// One schema script, and what to call it in an error.
pub(crate) struct Script {
    pub(crate) ddl: String,
    field: &'static str,
}

impl Script {
    pub(crate) fn explain(&self, failure: DdlFailure) -> EngineError {
        match failure {
            DdlFailure {
                statement: Some(number),
                error,
            } if error.class() != super::error::ErrorClass::Internal => {
                EngineError::invalid(self.field, format!("statement {number}: {error}"))
            }
            DdlFailure { error, .. } => error,
        }
    }
}

impl BaseSchema {
    pub(crate) fn scripts(&self) -> Vec<Script> {
        let script = |ddl: &str, field| {
            vec![Script {
                ddl: ddl.to_owned(),
                field,
            }]
        };
        match self {
            Self::Empty => Vec::new(),
            Self::Entity => script(ENTITY, "schema_type"),
            Self::Memory => script(MEMORY, "schema_type"),
            Self::Custom(ddl) => script(ddl, "custom_schema_ddl"),
            Self::Many(parts) => parts.iter().flat_map(Self::scripts).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ladybug::schema_script;
    use super::*;

    #[test]
    fn the_schemas_that_ship_define_what_they_say() {
        let entity: Vec<_> = schema_script(ENTITY)
            .unwrap()
            .into_iter()
            .filter_map(|statement| statement.creates)
            .collect();
        assert_eq!(
            entity,
            [
                "Entity",
                "Period",
                "Unit",
                "Element",
                "Label",
                "Reference",
                "Taxonomy",
                "ENTITY_EVOLVED_FROM",
                "ENTITY_OWNS_ENTITY",
                "ELEMENT_HAS_LABEL",
                "ELEMENT_HAS_REFERENCE",
                "ELEMENT_IN_TAXONOMY",
                "TAXONOMY_HAS_LABEL",
                "TAXONOMY_HAS_REFERENCE",
            ]
        );
        let memory: Vec<_> = schema_script(MEMORY)
            .unwrap()
            .into_iter()
            .filter_map(|statement| statement.creates)
            .collect();
        assert_eq!(
            memory,
            [
                "Concept",
                "Observation",
                "Session",
                "CONCEPT_RELATES_TO",
                "OBSERVATION_ABOUT",
                "SESSION_PRODUCED",
                "SESSION_REFERENCED",
            ]
        );
    }
}
