//! What would end the process, or have all of its memory or time: every statement here does so when LadybugDB or DuckDB is
//! asked directly, or once did. The agent refuses it, or stops it, and serves the other databases meanwhile.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::{Value, json};

/// Two tenants; what the first does must not be felt by the second.
async fn two_tenants(args: &[&str]) -> Agent {
    let agent = Agent::with(args).await;
    for id in ["kg1", "kg2"] {
        agent.database(id, PEOPLE).await;
        agent
            .put(&format!("/databases/{id}/tables/Person/files/f"), people(3))
            .await
            .ok();
    }
    agent
}

/// Both databases answer: the process lives, which nobody would start again.
async fn unharmed(agent: &Agent, after: &str) {
    for id in ["kg1", "kg2"] {
        assert_eq!(agent.number(id, "RETURN 1").await, 1, "after {after}");
    }
}

fn nested(open: &str, levels: usize, inner: &str, close: &str) -> String {
    format!("RETURN {}{inner}{}", open.repeat(levels), close.repeat(levels))
}

fn star(rays: usize) -> String {
    let rays: Vec<_> = (0..rays)
        .map(|ray| format!("(a:Person)-[:KNOWS]->(b{ray}:Person)"))
        .collect();
    format!("MATCH {} RETURN count(*)", rays.join(", "))
}

#[tokio::test]
async fn cypher_that_would_end_the_process_is_refused() {
    let agent = two_tenants(&[]).await;
    let mut statements = vec![
        nested("(", 4900, "1", ")"),
        nested("[", 4900, "1", "]"),
        nested("{a:", 2400, "1", "}"),
        nested("abs(", 1900, "1", ")"),
        nested("-(", 3000, "1", ")"),
        nested("CASE WHEN true THEN ", 60, "1", " END"),
        format!(
            "MATCH (n:Person) WHERE {}true{} RETURN n",
            "EXISTS { MATCH (n) WHERE ".repeat(300),
            "}".repeat(300)
        ),
        format!("RETURN 1{}", "+1".repeat(4900)),
        format!("RETURN 1{}", "^1".repeat(4900)),
        format!("RETURN [1]{}", "[1]".repeat(3200)),
        format!("RETURN {{a:1}}{}", ".a".repeat(4900)),
        format!("RETURN CAST(NULL AS INT64{})", "[]".repeat(4900)),
        format!(
            "CREATE NODE TABLE Deep(id INT64 PRIMARY KEY, a INT64{})",
            "[]".repeat(4900)
        ),
        star(20),
        "RETURN size(range(1, 4294967296))".into(),
        "RETURN size(range(-9223372036854775808, 9223372036854775807))".into(),
        "WITH 4294967297 AS n RETURN size(range(1, n))".into(),
        "RETURN list_reduce([1, 2], (x, y) -> [x])".into(),
        "RETURN upper(x -> x)".into(),
        "RETURN list_contains(CAST('[1]' AS JSON), 1)".into(),
        "RETURN list_append(cast('[1]', 'JSON'), 1)".into(),
        "CREATE NODE TABLE Documents(id INT64 PRIMARY KEY, content JSON)".into(),
        "RETURN less_than(CAST('1.25' AS DECIMAL(5, 2)), 1)".into(),
        "CREATE MACRO again(x) AS again(x)".into(),
        "RETURN again(1)".into(),
        r#"RETURN "\uD800""#.into(),
        r#"RETURN "\uD83D\uDE00""#.into(),
        r#"RETURN error(regexp_extract("é", "\\C"))"#.into(),
        r#"RETURN CAST(split_part("é", "", 1) AS INT64)"#.into(),
    ];
    for function in [
        "nodes",
        "rels",
        "id",
        "rowid",
        "cost",
        "start_node",
        "list_sum",
        "list_product",
        "map_keys",
    ] {
        statements.push(format!("RETURN {function}(NULL)"));
        statements.push(format!("WITH NULL AS x RETURN {function}(x)"));
    }
    for text in statements {
        let shown = text.chars().take(60).collect::<String>();
        let answer = agent.cypher("kg1", &text).await;
        assert!(
            answer.status.is_client_error(),
            "{shown}: {} {}",
            answer.status,
            answer.text
        );
        unharmed(&agent, &shown).await;
    }
    for (text, parameters) in [
        ("RETURN nodes($x)", json!({"x": null})),
        ("RETURN map([1], $x)", json!({"x": null})),
        ("RETURN list_sum($x)", json!({"x": null})),
        ("RETURN size(range(1, $x))", json!({"x": 4_294_967_296_u64})),
        ("RETURN CAST(regexp_extract('é', $x) AS INT64)", json!({"x": "\\C"})),
    ] {
        let body = json!({"cypher": text, "parameters": parameters});
        let answer = agent.post("/databases/kg1/query", body).await;
        assert!(
            answer.status.is_client_error(),
            "{text}: {} {}",
            answer.status,
            answer.text
        );
        unharmed(&agent, text).await;
    }
}

#[tokio::test]
async fn long_and_strange_statements_do_no_harm() {
    let agent = two_tenants(&[]).await;
    let any = vec!["1"; 4500].join(",");
    for text in [
        format!("MATCH (p:Person) WHERE p.identifier IN [{any}] RETURN p"),
        format!("RETURN [{any}]"),
        format!("RETURN {}", "9".repeat(9900)),
        format!("RETURN 1 AS {}", "a".repeat(9900)),
        format!("RETURN {}true", "NOT ".repeat(2400)),
        vec!["RETURN 1"; 500].join(" UNION ALL "),
        "MATCH (p:Person) ".repeat(300) + "RETURN count(*)",
        "WITH 1 AS x ".repeat(800) + "RETURN x",
        "MATCH (a:Person)-[:KNOWS*1..4294967297]->(b:Person) RETURN count(*)".into(),
        "MATCH (p:Person) RETURN p SKIP 9223372036854775806 LIMIT 9223372036854775807".into(),
        "RETURN regexp_matches(repeat('a', 100000), '(a+)+$b'), 'x' =~ repeat('(', 5000)".into(),
        "RETURN 1 \u{0} LOAD FROM '/etc/passwd' RETURN *".into(),
        "\u{ff2c}\u{ff2f}\u{ff21}\u{ff24} FROM '/etc/passwd' RETURN *".into(),
        "LO\u{200b}AD FROM '/etc/passwd' RETURN *".into(),
        "RETURN 1 UNION LOAD\u{a0}FROM '/etc/passwd' RETURN *".into(),
        "RETURN '\u{202e}' AS \u{202e}x".into(),
    ] {
        let shown = text.chars().take(60).collect::<String>();
        let answer = agent.cypher("kg1", &text).await;
        assert!(
            !answer.status.is_server_error(),
            "{shown}: {} {}",
            answer.status,
            answer.text
        );
        assert!(!answer.text.contains("root:"), "{shown}");
        unharmed(&agent, &shown).await;
    }
    for text in [
        format!("SELECT {}1{}", "(".repeat(40_000), ")".repeat(40_000)),
        format!("SELECT {}1{}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("SELECT 1{}", "+1".repeat(40_000)),
        format!("SELECT {}true", "NOT ".repeat(20_000)),
        format!("SELECT NULL::INT{}", "[]".repeat(20_000)),
        format!(
            "SELECT * FROM {}(SELECT 1){}",
            "(SELECT * FROM ".repeat(3000),
            " t)".repeat(3000)
        ),
        "SELECT regexp_matches(repeat('a', 100000), '(a+)+$b')".into(),
        "SELECT json_structure(repeat('[', 100000) || repeat(']', 100000))".into(),
        "SELECT json_contains(repeat('[', 100000) || repeat(']', 100000), '1')".into(),
        "SELECT json_merge_patch('{\"a\": 1}', repeat('{\"a\":', 100000) || '1' || repeat('}', 100000))".into(),
        "SELECT (repeat('[', 100000) || repeat(']', 100000))::JSON::VARIANT".into(),
        "SELECT (repeat('[', 100000) || repeat(']', 100000))::JSON -> '$[0]'".into(),
        "SELECT 1 \u{0}; DROP TABLE Person".into(),
    ] {
        let shown = text.chars().take(60).collect::<String>();
        let answer = agent.post("/databases/kg1/tables/query", json!({"sql": text})).await;
        assert!(
            !answer.status.is_server_error(),
            "{shown}: {} {}",
            answer.status,
            answer.text
        );
        unharmed(&agent, &shown).await;
    }
}

/// Asks for something that never fits while the other tenant asks for something small.
async fn greedy(agent: &Agent, path: &str, body: Value) {
    let bomb = async { agent.post(path, body.clone()).await };
    let other = async {
        for _ in 0..5 {
            assert_eq!(
                agent.number("kg2", "UNWIND [1, 2] AS x RETURN count(x)").await,
                2,
                "during {body}"
            );
        }
    };
    let (answer, ()) = tokio::join!(bomb, other);
    let stopped = matches!(answer.status.as_u16(), 400 | 408 | 507);
    assert!(stopped, "{body}: {} {}", answer.status, answer.text);
    unharmed(agent, &body.to_string()).await;
}

#[tokio::test]
async fn one_tenant_cannot_have_all_of_the_memory() {
    let agent = two_tenants(&[
        "--process-memory-mib",
        "1200",
        "--memory-mib",
        "512",
        "--memory-per-database-mib",
        "128",
        "--query-timeout-seconds",
        "15",
    ])
    .await;
    agent
        .cypher("kg1", "UNWIND range(1000, 1059) AS x CREATE (:Person {identifier: x})")
        .await
        .ok();
    let all = "MATCH (a:Person) WHERE a.identifier >= 1000 WITH a MATCH (b:Person) WHERE b.identifier >= 1000 CREATE (a)-[:KNOWS]->(b)";
    agent.cypher("kg1", all).await.ok();
    for text in [
        "MATCH p = (:Person)-[:KNOWS*1..20]->(:Person) RETURN count(p)",
        "MATCH p = (:Person)-[:KNOWS*1..20]->(:Person) RETURN p ORDER BY length(p) DESC",
        "MATCH (a:Person), (b:Person), (c:Person), (d:Person), (e:Person), (f:Person) RETURN DISTINCT a.identifier, b.name, c.name, d.name, e.identifier, f.identifier",
        "UNWIND range(1, 2048) AS y RETURN sum(size(range(y, 1000000)))",
        "WITH range(1, 1000000) AS l UNWIND range(1, 2048) AS y RETURN sum(size(list_append(l, y)))",
        "RETURN size(range(1, 2000000000))",
        "RETURN CAST(NULL AS INT64[2147483647])",
        "RETURN size(repeat('x', 3000000000))",
        "UNWIND range(1, 3000) AS x UNWIND range(1, 3000) AS y UNWIND range(1, 3000) AS z RETURN size(collect([x, y, z]))",
        "UNWIND range(1, 3000) AS x UNWIND range(1, 3000) AS y UNWIND range(1, 3000) AS z RETURN x, y, z ORDER BY z, y, x",
    ] {
        greedy(&agent, "/databases/kg1/query", json!({"cypher": text})).await;
    }
    for text in [
        "SELECT sum(len(range(i, 1000000))) FROM range(2048) t(i)",
        "SELECT len(range(1, 2000000000))",
        "SELECT len(list_resize([1], 2000000000))",
        "SELECT max(len(l || [i])) FROM (SELECT list(r) AS l FROM range(3000000) t(r)), range(2048) s(i)",
        "SELECT sum(len(repeat('x', 10000000 + i))) FROM range(2048) t(i)",
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
        "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(len(s)) FROM t",
        "SELECT count(*) FROM range(10000000000) a, range(1000) b",
    ] {
        greedy(&agent, "/databases/kg1/tables/query", json!({"sql": text})).await;
    }
    // A column that can never be read does not keep anything else from being used.
    agent
        .cypher(
            "kg1",
            "CREATE NODE TABLE Wide(id INT64 PRIMARY KEY, a INT64[2147483647])",
        )
        .await;
    agent.cypher("kg1", "CREATE (:Wide {id: 1})").await;
    greedy(
        &agent,
        "/databases/kg1/query",
        json!({"cypher": "MATCH (w:Wide) RETURN w"}),
    )
    .await;
    assert!(agent.get("/databases/kg1/schema").await.status.is_success());
}

#[tokio::test]
async fn requests_that_are_no_requests_do_no_harm() {
    let agent = two_tenants(&[]).await;
    let deep = format!(
        r#"{{"cypher": "RETURN 1", "parameters": {{"x": {}1{}}}}}"#,
        "[".repeat(40_000),
        "]".repeat(40_000)
    );
    for body in [
        deep.as_str(),
        r#"{"cypher": {"cypher": "RETURN 1"}}"#,
        r#"{"cypher": "RETURN 1", "cypher": 7}"#,
        r#"{"cypher": "\ud800"}"#,
        r#"{"cypher": "RETURN $x", "parameters": {"x": 1e999}}"#,
        "\u{feff}{}",
        "null",
        "\0",
    ] {
        let request = agent
            .request(Method::POST, "/databases/kg1/query")
            .body(body.to_owned());
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert!(
            answer.status.is_client_error(),
            "{}: {}",
            &body[..body.len().min(60)],
            answer.text
        );
    }
    let long = "x".repeat(200_000);
    for (name, value) in [("X-Graph-API-Key", long.as_str()), ("X-Other", long.as_str())] {
        // The server may answer and close, or close at once.
        if let Ok(response) = agent.bare(Method::GET, "/databases").header(name, value).send().await {
            assert!(response.status().is_client_error(), "{name}");
        }
    }
    let mut many = agent.bare(Method::GET, "/databases");
    for number in 0..500 {
        many = many.header(format!("X-H{number}"), "x");
    }
    if let Ok(response) = many.send().await {
        assert!(response.status().is_client_error());
    }
    for path in [
        "/databases/..%2F..%2Fetc/query",
        "/databases/kg1%2F..%2Fkg2/query",
        "/databases/%2e%2e/query",
        "/databases/kg1%00/query",
        "/databases/kg1.lbug/query",
        "/databases/.kg1/query",
        "/databases/kg1%0A/query",
        "/databases/ｋg1/query",
    ] {
        let answer = agent.post(path, json!({"cypher": "RETURN 1"})).await;
        assert!(
            answer.status.is_client_error(),
            "{path}: {} {}",
            answer.status,
            answer.text
        );
    }
    for path in [
        "/databases/kg1/tables/..%2Fx/files/f",
        "/databases/kg1/tables/Person%22/files/f",
        "/databases/kg1/tables/Person/files/%00",
        "/databases/kg1/tables/stg__gp_x/files/f",
        "/databases/..%2Fkg2/tables/Person/files/f",
    ] {
        let answer = agent.put(path, people(1)).await;
        assert!(
            answer.status.is_client_error(),
            "{path}: {} {}",
            answer.status,
            answer.text
        );
    }
    let whole = people(1000);
    for body in [
        b"PAR1".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        [&whole[..100], &whole[200..]].concat(),
    ] {
        let answer = agent.put("/databases/kg1/tables/Person/files/g", body).await;
        assert!(!answer.status.is_success(), "{}", answer.text);
    }
    unharmed(&agent, "all of them").await;
}

#[tokio::test]
async fn files_and_objects_stay_where_they_are() {
    let root = tempfile::tempdir().unwrap();
    let import = root.path().join("import");
    std::fs::create_dir_all(&import).unwrap();
    std::fs::create_dir_all(root.path().join("objects")).unwrap();
    std::fs::write(root.path().join("secret.parquet"), people(1)).unwrap();
    std::os::unix::fs::symlink(root.path().join("secret.parquet"), import.join("link.parquet")).unwrap();
    std::os::unix::fs::symlink(root.path(), import.join("out")).unwrap();
    let agent = Agent::with_store(root.path(), &["--import-dir", import.to_str().unwrap()]).await;
    for id in ["kg1", "kg2"] {
        agent.database(id, PEOPLE).await;
    }
    let at = |path: &str| format!("file://{}/{path}", import.display());
    for source in [
        format!("file://{}/secret.parquet", root.path().display()),
        at("link.parquet"),
        at("out/secret.parquet"),
        at("../secret.parquet"),
        at("out/*.parquet"),
        "file:///etc/passwd".into(),
        "/etc/passwd".into(),
        "http://127.0.0.1/x.parquet".into(),
        "s3://../x.parquet".into(),
        "s3://bucket/../../x.parquet".into(),
    ] {
        let body = json!({"graph_id": "kg1", "table_name": "Person", "s3_pattern": source});
        let answer = agent.post("/databases/kg1/tables", body).await;
        assert!(
            !answer.status.is_success() && answer.status.as_u16() != 500,
            "{source}: {} {}",
            answer.status,
            answer.text
        );
    }
    for key in [
        "../escape",
        "/etc/escape",
        "a/../../escape",
        "a//b",
        "a/./b",
        "",
        "a\0b",
        "a/..",
    ] {
        let body = json!({"destination": {"key": key}});
        let answer = agent.post("/databases/kg1/backup", body).await;
        assert!(
            answer.status.is_client_error(),
            "{key:?}: {} {}",
            answer.status,
            answer.text
        );
        let answer = agent
            .post(
                "/databases/kg2/restore",
                json!({"s3_key": key, "force_overwrite": true}),
            )
            .await;
        assert!(
            answer.status.is_client_error(),
            "{key:?}: {} {}",
            answer.status,
            answer.text
        );
    }
    let part = "--b\r\nContent-Disposition: form-data; name=\"s3_key\"";
    for body in [
        format!("{part}\r\n\r\n../../etc/passwd\r\n--b--\r\n"),
        format!("{part}; filename=\"x\"\r\n\r\nx\r\n--b--\r\n"),
        format!("{part}\r\n\r\nx"),
        format!("{part}\r\n\r\nx\r\n").repeat(500) + "--b--\r\n",
    ] {
        let request = agent.request(Method::POST, "/databases/kg2/restore").body(body);
        let request = request.header("Content-Type", "multipart/form-data; boundary=b");
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert!(answer.status.is_client_error(), "{} {}", answer.status, answer.text);
    }
    assert!(!root.path().join("escape").exists());
    unharmed(&agent, "all of them").await;
}
