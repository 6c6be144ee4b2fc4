//! Parameters of declared types: what goes in as JSON comes out as the same JSON.

use graphplane_node_agent::engines::{Database, EngineError, ErrorClass, ParameterTypes, Parameters, QueryRequest};
use serde_json::{Value, json};

use crate::support::{graph, rows};

async fn typed(database: &Database, text: &str, ty: &str, value: Value) -> Result<Vec<Value>, EngineError> {
    let types = ParameterTypes::from([("v".to_owned(), ty.to_owned())]);
    let parameters = Parameters::with_types(json!({ "v": value }).as_object().unwrap(), &types)?;
    let request = QueryRequest {
        parameters,
        ..QueryRequest::new(text)
    };
    let (_, json, _) = database.query(request).await?.collect().await?;
    Ok(serde_json::from_slice(&[b"[", &json[..], b"]"].concat()).unwrap())
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_were_sent() {
    let (_directory, _engines, g) = graph("").await;
    for (number, (ty, value)) in [
        ("BOOL", json!(true)),
        ("INT8", json!(-128)),
        ("INT16", json!(-32768)),
        ("INT32", json!(-2147483648)),
        ("INT64", json!(-5)),
        ("UINT8", json!(255)),
        ("UINT16", json!(65535)),
        ("UINT32", json!(4294967295_u32)),
        ("UINT64", json!(5)),
        ("INT128", json!("-99999999999999999999")),
        ("FLOAT", json!(0.5)),
        ("DOUBLE", json!(-0.1)),
        ("STRING", json!("é'\"\\")),
        ("BLOB", json!("AP8nXA==")),
        ("UUID", json!("69a32ad7-657e-42fb-aa55-4cadb818ba0a")),
        ("DATE", json!("1969-12-31")),
        ("TIMESTAMP", json!("2020-02-29T01:02:03.000004")),
        ("TIMESTAMP_NS", json!("2020-02-29T01:02:03.000000004")),
        ("TIMESTAMP_MS", json!("2020-02-29T01:02:03.004000")),
        ("TIMESTAMP_SEC", json!("2020-02-29T01:02:03")),
        ("TIMESTAMP_TZ", json!("2020-02-29T01:02:03+00:00")),
        ("INTERVAL", json!("P1DT2H0M3S")),
        ("DECIMAL(4, 2)", json!("-0.05")),
        ("DECIMAL(18, 3)", json!("-123456789012345.678")),
        ("DECIMAL(28, 10)", json!("123456789012345678.0000000001")),
        ("INT64[]", json!([1, null, 3])),
        ("INT64[]", json!([])),
        ("DATE[]", json!(["2020-02-29", null])),
        ("STRING[][]", json!([["a"], [], null])),
        ("BLOB[]", json!(["AP8="])),
        ("UINT8[3]", json!([1, 2, 3])),
        ("STRUCT(a INT16, b DATE[])", json!({"a": 1, "b": ["2020-02-29"]})),
        (
            "STRUCT(a INT16, b STRING)[]",
            json!([{"a": 1, "b": null}, {"a": null, "b": "x"}]),
        ),
        ("MAP(STRING, INT32)", json!({"k": 1, "l": null})),
        ("MAP(INT64, STRING[])", json!({"7": ["x"]})),
        ("MAP(STRING, INT32)", json!({})),
        ("STRUCT(a DECIMAL(6, 2), b INT64)", json!({"a": "-1.50", "b": 1})),
    ]
    .into_iter()
    .enumerate()
    {
        rows(
            &g,
            &format!("CREATE NODE TABLE T{number}(id INT64 PRIMARY KEY, v {ty})"),
        )
        .await
        .unwrap();
        for (id, sent) in [(1, &value), (2, &Value::Null)] {
            let text = format!("CREATE (:T{number} {{id: {id}, v: $v}})");
            typed(&g, &text, ty, sent.clone())
                .await
                .unwrap_or_else(|error| panic!("{ty} {sent}: {error}"));
        }
        let found = rows(&g, &format!("MATCH (t:T{number}) RETURN t.v AS v ORDER BY t.id"))
            .await
            .unwrap();
        assert_eq!(found, [json!({"v": value}), json!({"v": null})], "{ty}");
        let plain = typed(&g, "RETURN $v AS v", ty, value.clone()).await.unwrap();
        assert_eq!(plain, [json!({"v": value})], "RETURN, {ty}");
    }
}

#[tokio::test]
async fn declared_types_are_used_in_comparisons_and_rows() {
    let (_directory, _engines, g) = graph("CREATE NODE TABLE Day(day DATE PRIMARY KEY, price DECIMAL(10, 2))").await;
    let days = json!([{"day": "2020-01-01", "price": "1.10"}, {"day": "2020-01-02", "price": "-2.05"}]);
    typed(
        &g,
        "UNWIND $v AS row CREATE (:Day {day: row.day, price: CAST(row.price AS DECIMAL(10, 2))})",
        "STRUCT(day DATE, price STRING)[]",
        days,
    )
    .await
    .unwrap();
    for (text, ty, value, expected) in [
        (
            "MATCH (d:Day {day: $v}) RETURN d.price AS r",
            "DATE",
            json!("2020-01-02"),
            json!("-2.05"),
        ),
        (
            "MATCH (d:Day) WHERE d.price < $v RETURN d.day AS r",
            "DECIMAL(10,2)",
            json!(0),
            json!("2020-01-02"),
        ),
        (
            "MATCH (d:Day) WHERE d.day IN $v RETURN d.price AS r",
            "DATE[]",
            json!(["2020-01-01"]),
            json!("1.10"),
        ),
        (
            "RETURN date('2020-01-31') + $v AS r",
            "INTERVAL",
            json!("1 month"),
            json!("2020-02-29"),
        ),
    ] {
        let found = typed(&g, text, ty, value).await;
        let found = found.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found, [json!({"r": expected})], "{text}");
    }
    let refused = typed(&g, "RETURN $v", "DECIMAL(4, 2)", json!("a")).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Invalid, "{refused}");
    let unsent = ParameterTypes::from([("x".to_owned(), "DATE".to_owned())]);
    let error = Parameters::with_types(json!({}).as_object().unwrap(), &unsent).unwrap_err();
    assert!(error.to_string().starts_with("parameter_types.x"), "{error}");
}
