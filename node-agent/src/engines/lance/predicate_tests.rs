#![allow(clippy::unwrap_used)]
use super::*;
use arrow::datatypes::{Field, TimeUnit};
use std::sync::Arc;

fn schema() -> Schema {
    let texts = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("size", DataType::Int64, true),
        Field::new("weight", DataType::Float64, true),
        Field::new("good", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("tags", texts, true),
        Field::new(
            "vector",
            DataType::new_fixed_size_list(DataType::Float32, 2, true),
            false,
        ),
    ])
}

fn sql(text: &str) -> Result<String, String> {
    Predicate::parse("filter", text, &schema())
        .map(|predicate| predicate.sql().to_owned())
        .map_err(|error| error.to_string())
}

#[test]
fn what_is_permitted_is_written_anew() {
    for (text, expected) in [
        ("name = 'a'", "`name` = 'a'"),
        (
            "name == 'it''s' and weight<>-1.5e3",
            "`name` = 'it''s' AND `weight` <> -1.5e3",
        ),
        (
            "not (size in (1, 2,3) OR \"good\")",
            "NOT ((`size` IN (1, 2, 3) OR `good`))",
        ),
        ("good = TRUE AND good", "`good` = true AND `good`"),
        ("size not between 1 and 2", "`size` NOT BETWEEN 1 AND 2"),
        (
            "name not like 'a%' or name is not null",
            "`name` NOT LIKE 'a%' OR `name` IS NOT NULL",
        ),
        ("day >= '2020-01-01'", "`day` >= CAST('2020-01-01' AS DATE)"),
        (
            "at < '2020-01-01 10:00:00'",
            "`at` < CAST('2020-01-01T10:00:00' AS TIMESTAMP)",
        ),
        ("array_has(tags, 'x')", "array_has(`tags`, 'x')"),
        ("vector IS NULL", "`vector` IS NULL"),
    ] {
        assert_eq!(sql(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn everything_else_is_refused() {
    let deep = format!("{}size = 1{}", "(".repeat(40), ")".repeat(40));
    let wide = format!("size IN ({})", vec!["1"; 600].join(","));
    let long = format!("name = '{}'", "x".repeat(MAX_LENGTH));
    for text in [
        "",
        "1 = 1",
        "true",
        "name",
        "name = name",
        "name = 'a' --",
        "name = 'a'; DELETE FROM t",
        "name = 'a",
        "upper(name) = 'A'",
        "sleep(10) = 1",
        "size = (SELECT 1)",
        "size + 1 = 2",
        "size = 1 + 1",
        "size = 'a'",
        "size = 1.5",
        "size = 99999999999999999999",
        "day = 'not a day'",
        "at = '10:00'",
        "size = inf",
        "size = 0x10",
        "name = 1",
        "name = $1",
        "name::int = 1",
        "CAST(name AS int) = 1",
        "nobody = 1",
        "_rowid = 1",
        "vector = 1",
        "array_has(name, 'x')",
        "size = 1 OR",
        "size IN ()",
        "size = 1 size = 2",
        "name = \u{0}",
        "name\u{200b} = 'a'",
        "`na``me` = 'a'",
        deep.as_str(),
        wide.as_str(),
        long.as_str(),
    ] {
        assert!(sql(text).is_err(), "{text}");
    }
    assert_eq!(
        sql("size = 1 AND drop_table(x)").unwrap_err(),
        "filter: there is no column \"drop_table\"; there are name, size, weight, good, day, at, tags, vector"
    );
}

#[test]
fn values_cannot_end_their_quotes() {
    let text = "name = 'a'' OR ''1''=''1' AND size = 1";
    assert_eq!(sql(text).unwrap(), "`name` = 'a'' OR ''1''=''1' AND `size` = 1");
    assert_eq!(
        Predicate::equals("id", "x' OR 'a'='a").sql(),
        "`id` = 'x'' OR ''a''=''a'"
    );
}
