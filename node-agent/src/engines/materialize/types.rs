//! Types on both sides of a materialise run: how a column of one engine travels to the other.

use super::super::type_names::{Type, parse};

/// How a column travels from DuckDB to LadybugDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    /// The type into which DuckDB casts it.
    pub(super) sql_type: String,
    /// True if LadybugDB has to cast it to the column's type: what arrives is its text.
    pub(super) cast: bool,
}

/// How to fill a column of LadybugDB type `target`; `None` if no path is known.
pub(super) fn transport(target: &str) -> Option<Transport> {
    let parsed = parse(target)?;
    let mut cast = false;
    let sql_type = to_duckdb(&parsed, &mut cast)?;
    Some(Transport { sql_type, cast })
}

/// The LadybugDB type for a column of DuckDB type `source`; `None` if there is none.
pub(super) fn column_type(source: &str) -> Option<String> {
    to_ladybug(&parse(source)?)
}

/// True if two spellings of DuckDB types mean the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    parse(one).is_some_and(|one| parse(other).is_some_and(|other| one == other))
}

fn to_duckdb(ty: &Type, cast: &mut bool) -> Option<String> {
    Some(match ty {
        Type::Base(name) => match name.as_str() {
            "STRING" | "JSON" => "VARCHAR",
            "BOOL" => "BOOLEAN",
            "INT8" => "TINYINT",
            "INT16" => "SMALLINT",
            "INT32" => "INTEGER",
            "INT64" | "SERIAL" => "BIGINT",
            "UINT8" => "UTINYINT",
            "UINT16" => "USMALLINT",
            "UINT32" => "UINTEGER",
            "UINT64" => "UBIGINT",
            "FLOAT" => "FLOAT",
            "DOUBLE" => "DOUBLE",
            "BLOB" => "BLOB",
            "DATE" => "DATE",
            "TIMESTAMP" => "TIMESTAMP",
            "TIMESTAMP_NS" => "TIMESTAMP_NS",
            "TIMESTAMP_MS" => "TIMESTAMP_MS",
            "TIMESTAMP_SEC" => "TIMESTAMP_S",
            "TIMESTAMP_TZ" => {
                *cast = true;
                "TIMESTAMP WITH TIME ZONE"
            }
            "INT128" | "UUID" | "INTERVAL" => {
                *cast = true;
                "VARCHAR"
            }
            _ => return None,
        }
        .to_owned(),
        Type::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
        Type::List(element) => format!("{}[]", to_duckdb(element, cast)?),
        Type::Array(element, length) => format!("{}[{length}]", to_duckdb(element, cast)?),
        Type::Struct(fields) => {
            let fields: Option<Vec<String>> = fields
                .iter()
                .map(|(name, ty)| Some(format!("\"{}\" {}", name.replace('"', "\"\""), to_duckdb(ty, cast)?)))
                .collect();
            format!("STRUCT({})", fields?.join(", "))
        }
        Type::Map(key, value) => format!("MAP({}, {})", to_duckdb(key, cast)?, to_duckdb(value, cast)?),
    })
}

fn to_ladybug(ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Base(name) => match name.as_str() {
            "BOOLEAN" => "BOOL",
            "TINYINT" => "INT8",
            "SMALLINT" => "INT16",
            "INTEGER" => "INT32",
            "BIGINT" => "INT64",
            "HUGEINT" => "INT128",
            "UTINYINT" => "UINT8",
            "USMALLINT" => "UINT16",
            "UINTEGER" => "UINT32",
            "UBIGINT" => "UINT64",
            "FLOAT" => "FLOAT",
            "DOUBLE" => "DOUBLE",
            "VARCHAR" | "UHUGEINT" | "TIME" | "TIME_NS" | "TIME WITH TIME ZONE" | "BIT" | "JSON" | "ENUM" | "NULL" => {
                "STRING"
            }
            "BLOB" => "BLOB",
            "DATE" => "DATE",
            "TIMESTAMP" => "TIMESTAMP",
            "TIMESTAMP_S" => "TIMESTAMP_SEC",
            "TIMESTAMP_MS" => "TIMESTAMP_MS",
            "TIMESTAMP_NS" => "TIMESTAMP_NS",
            "TIMESTAMP WITH TIME ZONE" => "TIMESTAMP_TZ",
            "INTERVAL" => "INTERVAL",
            "UUID" => "UUID",
            _ => return None,
        }
        .to_owned(),
        ty if ty.collects_decimals() => return None,
        Type::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Type::List(element) => format!("{}[]", to_ladybug(element)?),
        Type::Array(element, length) => format!("{}[{length}]", to_ladybug(element)?),
        Type::Struct(fields) => {
            let fields: Option<Vec<String>> = fields
                .iter()
                .map(|(name, ty)| Some(format!("`{}` {}", name.replace('`', "``"), to_ladybug(ty)?)))
                .collect();
            format!("STRUCT({})", fields?.join(", "))
        }
        Type::Map(key, value) => format!("MAP({}, {})", to_ladybug(key)?, to_ladybug(value)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ladybug_types_have_a_way_to_travel() {
        for (target, sql_type, cast) in [
            ("INT64", "BIGINT", false),
            ("STRING[][]", "VARCHAR[][]", false),
            ("FLOAT[3]", "FLOAT[3]", false),
            ("DECIMAL(10, 2)", "DECIMAL(10,2)", false),
            (
                "STRUCT(a INT64, b STRING[])",
                "STRUCT(\"a\" BIGINT, \"b\" VARCHAR[])",
                false,
            ),
            ("MAP(STRING, DECIMAL(4, 1))", "MAP(VARCHAR, DECIMAL(4,1))", false),
            ("INT128", "VARCHAR", true),
            ("UUID[]", "VARCHAR[]", true),
            ("TIMESTAMP_TZ", "TIMESTAMP WITH TIME ZONE", true),
        ] {
            assert_eq!(
                transport(target).unwrap(),
                Transport {
                    sql_type: sql_type.into(),
                    cast
                },
                "{target}"
            );
        }
        for unknown in ["UNION(a INT64, b STRING)", "UINT128", "", "INT64[", "STRUCT()", "NODE"] {
            assert_eq!(transport(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn duckdb_types_have_a_column_type() {
        for (source, target) in [
            ("BIGINT", "INT64"),
            ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP_TZ"),
            ("DECIMAL(18,3)", "DECIMAL(18, 3)"),
            (
                "STRUCT(a BIGINT, \"b c\" VARCHAR)[]",
                "STRUCT(`a` INT64, `b c` STRING)[]",
            ),
            ("MAP(VARCHAR, INTEGER[])", "MAP(STRING, INT32[])"),
            ("ENUM('a)', 'b')", "STRING"),
            ("FLOAT[384]", "FLOAT[384]"),
        ] {
            assert_eq!(column_type(source).as_deref(), Some(target), "{source}");
        }
        assert_eq!(column_type("UNION(a BIGINT)"), None);
        assert_eq!(column_type("GEOMETRY"), None);
    }

    #[test]
    fn spellings_are_compared_by_meaning() {
        assert!(same("DECIMAL(10,2)", "decimal(10, 2)"));
        assert!(same("STRUCT(a BIGINT)", "STRUCT(\"a\" BIGINT)"));
        assert!(!same("BIGINT", "INTEGER"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Z()\\[\\],'\"` 0-9a-zé]{0,60}") {
            let _ = transport(&text);
            let _ = column_type(&text);
        }
    }
}
