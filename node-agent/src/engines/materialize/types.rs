//! Types on both sides of a materialise run. Both engines write nested types almost alike, so one small tree serves
//! for reading either and writing the other.

/// A type of either engine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Base(String),
    Decimal(String, String),
    List(Box<Type>),
    Array(Box<Type>, String),
    Struct(Vec<(String, Type)>),
    Map(Box<Type>, Box<Type>),
}

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

fn parse(text: &str) -> Option<Type> {
    let mut reader = Reader { text, at: 0 };
    let ty = reader.ty()?;
    reader.spaces();
    (reader.at == text.len()).then_some(ty)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn until(&mut self, stop: &[char]) -> String {
        let length = self.rest().find(stop).unwrap_or(self.rest().len());
        let found = self.rest()[..length].trim().to_owned();
        self.at += length;
        found
    }

    fn ty(&mut self) -> Option<Type> {
        let name = self.until(&['(', ')', '[', ',']).to_ascii_uppercase();
        let mut ty = if self.eat('(') {
            let parsed = match name.as_str() {
                "DECIMAL" | "NUMERIC" => {
                    let precision = self.until(&[',', ')']);
                    let scale = if self.eat(',') { self.until(&[')']) } else { "0".into() };
                    Type::Decimal(precision, scale)
                }
                "STRUCT" => Type::Struct(self.fields()?),
                "MAP" => {
                    let key = self.ty()?;
                    let value = if self.eat(',') { self.ty()? } else { return None };
                    Type::Map(Box::new(key), Box::new(value))
                }
                "ENUM" => {
                    self.skip_texts();
                    Type::Base(name)
                }
                _ => return None,
            };
            if !self.eat(')') {
                return None;
            }
            parsed
        } else if name.is_empty() {
            return None;
        } else {
            Type::Base(name)
        };
        while self.eat('[') {
            let length = self.until(&[']']);
            if !self.eat(']') {
                return None;
            }
            ty = if length.is_empty() {
                Type::List(Box::new(ty))
            } else {
                Type::Array(Box::new(ty), length)
            };
        }
        Some(ty)
    }

    fn fields(&mut self) -> Option<Vec<(String, Type)>> {
        let mut fields = Vec::new();
        loop {
            self.spaces();
            let name = match self.rest().chars().next()? {
                quote @ ('"' | '`') => {
                    self.at += 1;
                    let name = self.until(&[quote]);
                    self.eat(quote);
                    name
                }
                _ => self.until(&[' ']),
            };
            fields.push((name, self.ty()?));
            if !self.eat(',') {
                return Some(fields);
            }
        }
    }

    /// The values of an enumeration: quoted, so they may contain parentheses.
    fn skip_texts(&mut self) {
        let mut quoted = false;
        let length = self.rest().find(|c| {
            quoted ^= c == '\'';
            c == ')' && !quoted
        });
        self.at += length.unwrap_or(self.rest().len());
    }
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
