//! Queries: forms, limits, time, cancellation, concurrency.

use std::time::Duration;

use graphplane_node_agent::engines::{Access, ErrorClass, QueryRequest};
use serde_json::json;

use crate::support::{ENDLESS, PATIENCE, graph, one, rows, rows_with, until};

const PEOPLE: &str = "CREATE NODE TABLE Person(id INT64 PRIMARY KEY, name STRING, tags STRING[]); \
                      CREATE REL TABLE Knows(FROM Person TO Person, since INT64)";

#[tokio::test]
async fn values_have_their_contract_forms() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    rows(
        &g,
        "CREATE (:Person {id: 1, name: 'a'})-[:Knows {since: 3}]->(:Person {id: 2})",
    )
    .await
    .unwrap();
    let found = rows(&g, "MATCH (a)-[r]->(b) RETURN a, r, b.name").await.unwrap();
    assert_eq!(
        found[0]["a"],
        json!({"_ID": {"offset": 0, "table": 0}, "_LABEL": "Person", "id": 1, "name": "a", "tags": null})
    );
    assert_eq!(found[0]["r"]["_LABEL"], "Knows");
    assert_eq!(found[0]["r"]["since"], 3);
    assert_eq!(found[0]["r"]["_SRC"], json!({"offset": 0, "table": 0}));
    assert_eq!(found[0]["b.name"], json!(null));
    let path = rows(&g, "MATCH p = (:Person)-[:Knows*1..2]->(:Person) RETURN p")
        .await
        .unwrap();
    assert_eq!(path[0]["p"]["_NODES"].as_array().unwrap().len(), 2);
    assert_eq!(path[0]["p"]["_RELS"].as_array().unwrap().len(), 1);
    for (expression, expected) in [
        ("CAST(2 AS INT128)", json!("2")),
        ("CAST(1.5 AS DECIMAL(4, 2))", json!("1.50")),
        ("date('2020-02-29')", json!("2020-02-29")),
        ("timestamp('2020-02-29 01:02:03')", json!("2020-02-29T01:02:03")),
        ("interval('1 day 2 hours')", json!("P1DT2H0M0S")),
        ("BLOB('\\\\xAB')", json!("qw==")),
        ("{a: 1, b: [true, null]}", json!({"a": 1, "b": [true, null]})),
        ("map(['k'], [1])", json!({"k": 1})),
        ("CAST('nan' AS DOUBLE)", json!(null)),
    ] {
        assert_eq!(one(&g, &format!("RETURN {expression}")).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn parameters_of_every_kind_arrive() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    let people = json!([{"id": 1, "name": "a"}, {"id": 2, "name": null}, {"id": 3}]);
    rows_with(
        &g,
        "UNWIND $people AS p CREATE (:Person {id: p.id, name: p.name})",
        json!({"people": people}),
    )
    .await
    .unwrap();
    for (text, parameters, expected) in [
        (
            "MATCH (p:Person {id: $id}) RETURN p.name AS r",
            json!({"id": 1}),
            json!("a"),
        ),
        (
            "MATCH (p:Person) WHERE p.id IN $ids RETURN count(*) AS r",
            json!({"ids": [1, 3]}),
            json!(2),
        ),
        (
            "MATCH (p:Person) WHERE p.id IN $ids RETURN count(*) AS r",
            json!({"ids": []}),
            json!(0),
        ),
        (
            "MATCH (p:Person) WHERE p.name IN $names RETURN count(*) AS r",
            json!({"names": []}),
            json!(0),
        ),
        ("RETURN size($list) AS r", json!({"list": []}), json!(0)),
        ("RETURN $list AS r", json!({"list": []}), json!([])),
        ("RETURN $x AS r", json!({"x": null}), json!(null)),
        ("RETURN $x AS r", json!({"x": true}), json!(true)),
        ("RETURN $x + 0.5 AS r", json!({"x": 1.5}), json!(2.0)),
        ("RETURN $x.a.b AS r", json!({"x": {"a": {"b": [1, 2]}}}), json!([1, 2])),
        (
            "MATCH (p:Person) RETURN p.id AS r ORDER BY r LIMIT $n",
            json!({"n": 1}),
            json!(1),
        ),
    ] {
        let found = rows_with(&g, text, parameters)
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found[0]["r"], expected, "{text}");
    }
    // The same text with another type of parameter must not reuse the first plan wrongly.
    for (value, expected) in [
        (json!(1), json!(1)),
        (json!("x"), json!("x")),
        (json!(2), json!(2)),
        (json!(null), json!(null)),
    ] {
        assert_eq!(
            rows_with(&g, "RETURN $v AS v", json!({"v": value})).await.unwrap()[0]["v"],
            expected
        );
    }
    let error = rows(&g, "MATCH (p:Person {id: $id}) RETURN p").await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(error.to_string().starts_with("parameters.id"), "{error}");
}

#[tokio::test]
async fn long_results_come_in_chunks_and_a_cut_is_told() {
    let (_directory, _engines, g) = graph("").await;
    let request = QueryRequest {
        chunk_rows: 1000,
        ..QueryRequest::new("UNWIND range(1, 3000) AS x RETURN x")
    };
    let mut stream = g.query(request.clone()).await.unwrap();
    assert_eq!(stream.columns().as_ref(), ["x".to_owned()]);
    let mut sizes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        sizes.push((chunk.rows, stream.is_finished()));
    }
    assert_eq!(sizes, [(1000, false), (1000, false), (1000, true)]);
    let summary = stream.summary().unwrap();
    assert_eq!((summary.rows, summary.truncated), (3000, false));

    let cut = QueryRequest {
        max_rows: Some(1500),
        ..request.clone()
    };
    let (_, json, summary) = g.query(cut).await.unwrap().collect().await.unwrap();
    assert_eq!((summary.rows, summary.truncated), (1500, true));
    let parsed: Vec<serde_json::Value> = serde_json::from_slice(&[b"[", &json[..], b"]"].concat()).unwrap();
    assert_eq!(parsed.len(), 1500);

    let cut = QueryRequest {
        max_bytes: Some(100),
        ..request
    };
    let (_, _, summary) = g.query(cut).await.unwrap().collect().await.unwrap();
    assert!(summary.truncated && summary.rows < 1000);

    let (columns, json, summary) = g
        .query(QueryRequest::new("UNWIND [] AS x RETURN x AS nothing"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(
        (columns.as_ref(), json.len(), summary.rows),
        (&["nothing".to_owned()][..], 0, 0)
    );
}

#[tokio::test]
async fn engine_errors_have_a_class() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    rows(&g, "CREATE (:Person {id: 1})").await.unwrap();
    for (text, class) in [
        ("MATCH (n:Nobody) RETURN n", ErrorClass::Syntax),
        ("MATCH (n:Person RETURN n", ErrorClass::Syntax),
        ("RETURN nothing(1)", ErrorClass::Syntax),
        ("CREATE (:Person {id: 1})", ErrorClass::Constraint),
        ("CREATE NODE TABLE Person(id INT64 PRIMARY KEY)", ErrorClass::Syntax),
        ("RETURN 1 / 0", ErrorClass::Invalid),
        ("RETURN CAST('x' AS INT64)", ErrorClass::Invalid),
        ("LOAD FROM '/etc/passwd' RETURN *", ErrorClass::Forbidden),
    ] {
        let error = rows(&g, text).await.expect_err(text);
        assert_eq!(error.class(), class, "{text}: {error}");
    }
    let error = rows_with(&g, "CREATE (:Person {id: $id})", json!({"id": null}))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Constraint, "{error}");
    assert_eq!(one(&g, "MATCH (n:Person) RETURN count(*)").await, 1);
}

#[tokio::test]
async fn a_value_that_has_no_form_is_an_error_and_nothing_more() {
    let (_directory, _engines, g) = graph("").await;
    // The binding panics on a date beyond the year 9999.
    for _ in 0..4 {
        let error = rows(&g, "RETURN date('20000-01-01') AS d").await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        assert!(error.to_string().contains("STRING"), "{error}");
    }
    assert_eq!(
        one(&g, "RETURN CAST(date('20000-01-01') AS STRING)").await,
        "20000-01-01"
    );
}

#[tokio::test]
async fn reading_access_refuses_changes_of_every_kind() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    for text in [
        "CREATE (:Person {id: 1})",
        "MATCH (n) DETACH DELETE n",
        "DROP TABLE Knows",
        "MATCH (n:Person) SET n.name = 'x'",
    ] {
        let request = QueryRequest {
            access: Access::ReadOnly,
            ..QueryRequest::new(text)
        };
        assert_eq!(
            g.query(request).await.unwrap_err().class(),
            ErrorClass::ReadOnly,
            "{text}"
        );
    }
    assert_eq!(one(&g, "MATCH (n) RETURN count(*)").await, 0);
}

#[tokio::test]
async fn a_change_that_looks_like_a_query_finds_the_writer() {
    let (_directory, _engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    rows(&g, "CREATE SEQUENCE numbers").await.unwrap();
    let first = one(&g, "RETURN nextval('numbers')").await.as_i64().unwrap();
    let second = one(&g, "RETURN nextval('numbers')").await.as_i64().unwrap();
    assert_eq!(second, first + 1);
    let request = QueryRequest {
        access: Access::ReadOnly,
        ..QueryRequest::new("RETURN nextval('numbers')")
    };
    assert_eq!(g.query(request).await.unwrap_err().class(), ErrorClass::ReadOnly);
}

#[tokio::test]
async fn prepared_statements_follow_a_changed_schema() {
    let (_directory, _engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY, a STRING)").await;
    rows(&g, "CREATE (:N {id: 1, a: 'x'})").await.unwrap();
    let text = "MATCH (n:N) RETURN n";
    for _ in 0..4 {
        assert_eq!(rows(&g, text).await.unwrap()[0]["n"]["a"], "x");
    }
    rows(&g, "ALTER TABLE N ADD b INT64 DEFAULT 7").await.unwrap();
    for _ in 0..4 {
        assert_eq!(rows(&g, text).await.unwrap()[0]["n"]["b"], 7);
    }
    rows(&g, "DROP TABLE N").await.unwrap();
    rows(&g, "CREATE NODE TABLE N(id STRING PRIMARY KEY)").await.unwrap();
    for _ in 0..4 {
        assert!(rows(&g, text).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn fifty_writers_at_once_all_succeed() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    let writers: Vec<_> = (0..50)
        .map(|n| {
            let g = g.clone();
            tokio::spawn(async move {
                rows_with(&g, "CREATE (:Person {id: $n})", json!({"n": n}))
                    .await
                    .map(drop)
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(one(&g, "MATCH (n:Person) RETURN count(*)").await, 50);
}

#[tokio::test]
async fn time_limits_hold_and_free_the_thread() {
    let (_directory, _engines, g) = graph("").await;
    let limit = Duration::from_millis(300);
    // More of them than there are threads.
    let slow: Vec<_> = (0..12)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move {
                g.query(QueryRequest {
                    timeout: limit,
                    ..QueryRequest::new(ENDLESS)
                })
                .await
                .map(drop)
            })
        })
        .collect();
    for query in slow {
        let class = query.await.unwrap().unwrap_err().class();
        // Those that never got a thread say so.
        assert!(matches!(class, ErrorClass::Timeout | ErrorClass::Busy), "{class:?}");
    }
    assert_eq!(one(&g, "RETURN 1").await, 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_the_thread() {
    let (_directory, engines, g) = graph("").await;
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move {
                g.query(QueryRequest {
                    timeout: 2 * PATIENCE,
                    ..QueryRequest::new(ENDLESS)
                })
                .await
                .map(drop)
            })
        })
        .collect();
    until(|| engines.usage(), |usage| usage.active_queries == 2).await;
    slow.into_iter().for_each(|query| query.abort());
    // Both threads are free again long before the limit.
    assert_eq!(one(&g, "RETURN 1").await, 1);
    until(|| engines.usage(), |usage| usage.active_queries == 0).await;
}

#[tokio::test]
async fn long_queries_do_not_keep_short_ones_waiting() {
    let (_directory, engines, g) = graph("").await;
    let long: Vec<_> = (0..6)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move {
                g.query(QueryRequest {
                    timeout: 2 * PATIENCE,
                    ..QueryRequest::new(ENDLESS)
                })
                .await
                .map(drop)
            })
        })
        .collect();
    until(|| engines.usage(), |usage| usage.active_queries == 6).await;
    // There are two readers to begin with, and the engine has two cores at most here: this needs a seventh reader, and
    // threads of the engine that the six have left.
    assert_eq!(one(&g, "RETURN 1").await, 1);
    assert_eq!(engines.usage().active_queries, 6);
    long.into_iter().for_each(|query| query.abort());
    until(|| engines.usage(), |usage| usage.active_queries == 0).await;
    assert_eq!(one(&g, "RETURN 1").await, 1);
}

#[tokio::test]
async fn a_result_that_nobody_reads_occupies_no_thread() {
    let (_directory, engines, g) = graph("").await;
    let request = QueryRequest {
        chunk_rows: 10,
        ..QueryRequest::new("UNWIND range(1, 100000) AS x RETURN x")
    };
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(g.query(request.clone()).await.unwrap());
    }
    assert_eq!(one(&g, "RETURN 1").await, 1);
    assert_eq!(engines.usage().active_queries, 6);
    drop(streams);
    until(|| engines.usage(), |usage| usage.active_queries == 0).await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let limits = graphplane_node_agent::engines::EngineLimits {
        queue_length: 3,
        reader_threads: 1,
        max_reader_threads: 1,
        ..crate::support::limits()
    };
    let engines = crate::support::start(directory.path(), limits).await;
    engines
        .create(
            &crate::support::id("g"),
            &graphplane_node_agent::engines::BaseSchema::Empty,
        )
        .await
        .unwrap();
    let g = engines.database(&crate::support::id("g")).await.unwrap();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move {
                g.query(QueryRequest {
                    timeout: 2 * PATIENCE,
                    ..QueryRequest::new(ENDLESS)
                })
                .await
                .map(drop)
            })
        })
        .collect();
    // One runs and three wait, and none of them ends by itself: all others are answered.
    let ended = || slow.iter().filter(|query| query.is_finished()).count();
    until(ended, |ended| *ended >= 16).await;
    for query in slow {
        if query.is_finished() {
            assert_eq!(query.await.unwrap().unwrap_err().class(), ErrorClass::Busy);
        } else {
            query.abort();
        }
    }
    until(|| engines.usage(), |usage| usage.active_queries == 0).await;
    assert_eq!(one(&g, "RETURN 1").await, 1);
}

#[tokio::test]
async fn readers_see_one_state_while_a_writer_writes() {
    let (_directory, _engines, g) = graph(PEOPLE).await;
    let writer = {
        let g = g.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                let pair = json!({"a": n * 2, "b": n * 2 + 1});
                rows_with(&g, "CREATE (:Person {id: $a})-[:Knows]->(:Person {id: $b})", pair)
                    .await
                    .unwrap();
            }
        })
    };
    while !writer.is_finished() {
        assert_eq!(one(&g, "MATCH (n:Person) RETURN count(*) % 2").await, 0);
    }
    writer.await.unwrap();
}
