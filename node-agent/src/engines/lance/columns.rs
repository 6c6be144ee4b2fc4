//! Which columns a table of vectors can have.

use arrow::datatypes::{DataType, Field, Schema};

use super::super::error::EngineError;
use super::table::VECTOR;

const MAX_COLUMNS: usize = 100;
const MAX_NAME: usize = 128;
/// Names that the engine or our answers use for themselves.
const RESERVED: [&str; 6] = ["_rowid", "_rowaddr", "_rowoffset", "_distance", "_score", "distance"];

/// The field of the vectors in a table.
pub(crate) fn vector_field(dimension: usize) -> Field {
    let length = i32::try_from(dimension).unwrap_or(i32::MAX);
    Field::new(
        VECTOR,
        DataType::new_fixed_size_list(DataType::Float32, length, true),
        false,
    )
}

/// The place of the column `vector`, which must be a list of numbers.
pub(super) fn vector_place(schema: &Schema) -> Result<usize, EngineError> {
    let Ok(place) = schema.index_of(VECTOR) else {
        let message = "gives no column \"vector\"; name a list of numbers so (… AS vector)";
        return Err(EngineError::invalid("query", message));
    };
    let data_type = schema.field(place).data_type();
    let (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) = data_type else {
        let message = format!("gives {data_type} as \"vector\", where a list of numbers is expected");
        return Err(EngineError::invalid("query", message));
    };
    if item.data_type().is_numeric() {
        Ok(place)
    } else {
        let message = format!("gives a list of {} as \"vector\"; cast it to FLOAT[]", item.data_type());
        Err(EngineError::invalid("query", message))
    }
}

/// The columns of a new table.
pub(super) fn columns(given: &Schema, dimension: usize) -> Result<(Schema, Vec<usize>), EngineError> {
    if given.fields().len() > MAX_COLUMNS {
        let message = format!(
            "gives {} columns; at most {MAX_COLUMNS} are possible",
            given.fields().len()
        );
        return Err(EngineError::invalid("query", message));
    }
    let mut fields: Vec<Field> = Vec::new();
    for field in given.fields() {
        let name = field.name();
        if fields.iter().any(|other| other.name().eq_ignore_ascii_case(name)) {
            return Err(EngineError::invalid("query", format!("gives two columns {name:?}")));
        }
        fields.push(if name == VECTOR {
            vector_field(dimension)
        } else {
            check_column(name, field.data_type()).map_err(|message| EngineError::invalid("query", message))?;
            Field::new(name, field.data_type().clone(), true)
        });
    }
    let places = (0..fields.len()).collect();
    Ok((Schema::new(fields), places))
}

/// Whether a table can have this column.
pub(crate) fn check_column(name: &str, data_type: &DataType) -> Result<(), String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !plain || !begins || name.len() > MAX_NAME {
        return Err(format!(
            "gives a column {:?}; give it a name of letters, digits and _ (… AS name)",
            name.chars().take(MAX_NAME).collect::<String>()
        ));
    }
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) || name.eq_ignore_ascii_case(VECTOR) {
        return Err(format!(
            "gives a column {name:?}, a name that is taken; give it another (… AS name)"
        ));
    }
    if storable(data_type) {
        Ok(())
    } else {
        Err(format!(
            "gives column {name} as {data_type}, which cannot be kept beside vectors; cast it to VARCHAR"
        ))
    }
}

fn storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Date32 | DataType::Timestamp(..) => true,
        DataType::Decimal128(..) => true,
        DataType::List(item) => {
            matches!(item.data_type(), DataType::Utf8 | DataType::Boolean) || is_number(item.data_type())
        }
        other => is_number(other),
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// The columns of a table that is there, and where the rows have them.
pub(super) fn fit(table: &Schema, given: &Schema, dimension: usize) -> Result<(Schema, Vec<usize>), EngineError> {
    let mut places = Vec::new();
    for field in table.fields() {
        let Ok(place) = given.index_of(field.name()) else {
            let message = format!("gives no column {:?}, which the table has", field.name());
            return Err(EngineError::invalid("query", message));
        };
        places.push(place);
    }
    if let Some(other) = given
        .fields()
        .iter()
        .find(|field| table.index_of(field.name()).is_err())
    {
        let message = format!(
            "gives a column {:?}, which the table does not have; build it anew",
            other.name()
        );
        return Err(EngineError::invalid("query", message));
    }
    if table
        .field_with_name(VECTOR)
        .is_ok_and(|field| field.data_type() != vector_field(dimension).data_type())
    {
        let message = format!("gives vectors of {dimension} values, and those of the table have another length");
        return Err(EngineError::invalid("query", message));
    }
    Ok((table.clone(), places))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::record_batch::RecordBatch;

    fn from_duckdb(sql: &str) -> RecordBatch {
        let connection = duckdb::Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_arrow([]).unwrap().next().unwrap()
    }

    #[test]
    fn columns_of_every_kind_are_kept_or_named() {
        let good = from_duckdb(
            "SELECT [1, 2]::FLOAT[2] AS vector, 1 AS a, 'x' AS b, true AS c, DATE '2020-01-01' AS d, \
             TIMESTAMP '2020-01-01' AS e, 1.5::DECIMAL(9, 2) AS f, ['x'] AS g, [1] AS h, 1.5::DOUBLE AS i",
        );
        assert_eq!(columns(&good.schema(), 2).unwrap().0.fields().len(), 10);
        for (sql, named) in [
            ("SELECT 1 AS a", "no column \"vector\""),
            ("SELECT 'x' AS vector", "list of numbers"),
            ("SELECT ['x'] AS vector", "cast it to FLOAT[]"),
        ] {
            let message = vector_place(&from_duckdb(sql).schema()).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
        for (column, named) in [
            ("1 AS \"a b\"", "\"a b\""),
            ("1 AS \"a`b\"", "name of letters"),
            ("1 AS distance", "taken"),
            ("1 AS _rowid", "taken"),
            ("{'a': 1} AS s", "cast it to VARCHAR"),
            ("MAP {'a': 1} AS m", "cast it to VARCHAR"),
            ("NULL::BLOB AS x", "cast it to VARCHAR"),
        ] {
            let batch = from_duckdb(&format!("SELECT [1.0] AS vector, {column}"));
            let message = columns(&batch.schema(), 1).unwrap_err().to_string();
            assert!(message.contains(named), "{column}: {message}");
        }
    }

    #[test]
    fn rows_of_another_table_must_fit() {
        let table = columns(&from_duckdb("SELECT [1.0, 2.0] AS vector, 1 AS a").schema(), 2)
            .unwrap()
            .0;
        let place = |sql: &str, dimension| fit(&table, &from_duckdb(sql).schema(), dimension).map(|(_, places)| places);
        assert_eq!(place("SELECT 1 AS a, [1.0, 2.0] AS vector", 2).unwrap(), [1, 0]);
        for (sql, dimension) in [
            ("SELECT [1.0, 2.0] AS vector", 2),
            ("SELECT [1.0, 2.0] AS vector, 1 AS a, 2 AS b", 2),
            ("SELECT [1.0] AS vector, 1 AS a", 1),
        ] {
            assert!(place(sql, dimension).is_err(), "{sql}");
        }
    }
}
