//! How values of a type are written to Parquet, so that the same values come back.
//!
//! The engine (lbug 0.22.1) writes most types as they are. It does not write INT128 and DECIMAL, cuts TIMESTAMP_NS to
//! microseconds, refuses an INTERVAL with microseconds, and does not read the text of its own negative intervals. DuckDB,
//! which compares the files, does not know how it marks a SERIAL.

use super::super::type_names::{Type, parse};

/// How a column travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// As it is.
    Same,
    /// As a number, which the column takes as it is.
    Number,
    /// Its months, days and microseconds as numbers.
    Interval,
    /// Cast to this type, and back.
    Cast(String),
}

impl Carrier {
    /// The way of a type; `None` if there is none.
    pub(super) fn of(type_name: &str) -> Option<Self> {
        let Some(ty) = parse(type_name) else {
            return is_plain_union(type_name).then_some(Self::Same);
        };
        // The engine ends the process when it casts text to such a type.
        if ty.collects_decimals() {
            return None;
        }
        match &ty {
            Type::Base(name) if name == "SERIAL" => Some(Self::Number),
            Type::Base(name) if name == "INTERVAL" => Some(Self::Interval),
            ty => {
                let carried = carried(ty)?;
                Some(match carried == *ty {
                    true => Self::Same,
                    false => Self::Cast(carried.to_string()),
                })
            }
        }
    }

    /// The expression that is written for `value`.
    pub(super) fn pack(&self, value: &str) -> String {
        match self {
            Self::Same => value.to_owned(),
            Self::Number => format!("CAST({value} AS INT64)"),
            Self::Interval => format!(
                "{{months: date_part('year', {value}) * 12 + date_part('month', {value}), days: date_part('day', {value}), \
                 micros: date_part('hour', {value}) * 3600000000 + date_part('minute', {value}) * 60000000 \
                 + date_part('microsecond', {value})}}"
            ),
            Self::Cast(carried) => format!("CAST({value} AS {carried})"),
        }
    }

    /// The expression that makes a value of the type of what was written.
    pub(super) fn unpack(&self, written: &str, type_name: &str) -> String {
        match self {
            Self::Same | Self::Number => written.to_owned(),
            Self::Interval => {
                format!("to_months({written}.months) + to_days({written}.days) + to_microseconds({written}.micros)")
            }
            Self::Cast(_) => format!("CAST({written} AS {type_name})"),
        }
    }

    /// The condition that a value does not come back as it was.
    pub(super) fn loses(&self, value: &str, type_name: &str) -> Option<String> {
        let Self::Cast(_) = self else { return None };
        Some(format!("{value} <> {}", self.unpack(&self.pack(value), type_name)))
    }
}

fn carried(ty: &Type) -> Option<Type> {
    let base = |name: &str| Type::Base(name.to_owned());
    Some(match ty {
        Type::Base(name) => match name.as_str() {
            "BOOL" | "INT8" | "INT16" | "INT32" | "INT64" | "UINT8" | "UINT16" | "UINT32" | "UINT64" | "FLOAT"
            | "DOUBLE" | "STRING" | "BLOB" | "UUID" | "DATE" | "TIMESTAMP" | "TIMESTAMP_TZ" => ty.clone(),
            "TIMESTAMP_NS" | "TIMESTAMP_MS" | "TIMESTAMP_SEC" => base("TIMESTAMP"),
            "INT128" | "INTERVAL" => base("STRING"),
            _ => return None,
        },
        Type::Decimal(..) => base("STRING"),
        Type::List(element) => Type::List(Box::new(carried(element)?)),
        Type::Array(element, length) => Type::Array(Box::new(carried(element)?), length.clone()),
        Type::Struct(fields) => {
            let fields = fields.iter().map(|(name, ty)| Some((name.clone(), carried(ty)?)));
            Type::Struct(fields.collect::<Option<_>>()?)
        }
        Type::Map(key, value) => Type::Map(Box::new(carried(key)?), Box::new(carried(value)?)),
    })
}

/// Whether a type with a union in it is written as it is. A field may have the name of a type, which is then refused, too.
fn is_plain_union(type_name: &str) -> bool {
    let changed = ["INT128", "DECIMAL", "INTERVAL", "TIMESTAMP_NS", "JSON", "NODE", "REL"];
    let mut words = type_name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    type_name.contains("UNION(") && words.all(|word| !changed.iter().any(|other| word.eq_ignore_ascii_case(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_way_or_is_refused() {
        let cast = |ty: &str| Some(Carrier::Cast(ty.to_owned()));
        for (ty, way) in [
            ("INT64", Some(Carrier::Same)),
            ("STRING[][]", Some(Carrier::Same)),
            ("FLOAT[384]", Some(Carrier::Same)),
            ("STRUCT(a INT64, b STRING[])", Some(Carrier::Same)),
            ("MAP(DATE, STRUCT(a INT64))", Some(Carrier::Same)),
            ("UNION(a INT64, b STRING)", Some(Carrier::Same)),
            ("SERIAL", Some(Carrier::Number)),
            ("INTERVAL", Some(Carrier::Interval)),
            ("DECIMAL(38, 10)", cast("STRING")),
            ("INT128[2]", cast("STRING[2]")),
            ("TIMESTAMP_NS", cast("TIMESTAMP")),
            ("MAP(STRING, INTERVAL)", cast("MAP(STRING, STRING)")),
            (
                "STRUCT(i INTERVAL, d DECIMAL(5, 2), u UUID)",
                cast("STRUCT(`i` STRING, `d` STRING, `u` UUID)"),
            ),
            ("DECIMAL(5, 2)[]", None),
            ("UNION(a DECIMAL(5, 2))", None),
            ("JSON", None),
            ("", None),
        ] {
            assert_eq!(Carrier::of(ty), way, "{ty}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let way = Carrier::Cast("STRING".into());
        assert_eq!(way.pack("n.`a`"), "CAST(n.`a` AS STRING)");
        assert_eq!(way.unpack("`a`", "INT128"), "CAST(`a` AS INT128)");
        assert_eq!(
            way.loses("n.`a`", "INT128").as_deref(),
            Some("n.`a` <> CAST(CAST(n.`a` AS STRING) AS INT128)")
        );
        assert_eq!(Carrier::Same.loses("n.a", "INT64"), None);
        assert_eq!(Carrier::Number.unpack("`a`", "SERIAL"), "`a`");
    }
}
