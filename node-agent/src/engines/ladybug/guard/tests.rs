#![allow(clippy::unwrap_used)]
use super::super::super::error::ErrorClass;
use super::*;
use proptest::prelude::*;

/// Statements that reach outside the database, as they would be tried.
pub(crate) const HOSTILE: &[&str] = &[
    "LOAD FROM '/etc/passwd' (file_format='csv') RETURN *",
    "load from \"/etc/passwd\" return *",
    "  /* x */ LoAd\n\tFROM '/etc/passwd' RETURN *",
    "MATCH (n) LOAD FROM '/etc/passwd' RETURN *",
    "MATCH (n)LOAD FROM '/etc/passwd' RETURN *",
    "WITH 1 AS x SKIP 1LOAD FROM '/etc/passwd' RETURN *",
    "WITH 1 AS x SKIP 1e5LOAD FROM '/etc/passwd' RETURN *",
    "/* **/ ' */ LOAD FROM \"/etc/passwd\" RETURN * //'",
    "RETURN 1 UNION LOAD FROM '/etc/passwd' RETURN *",
    "CREATE NODE TABLE t AS LOAD FROM '/etc/passwd' RETURN *",
    "CREATE NODE TABLE t(id INT64 PRIMARY KEY) WITH (storage='arrow://arrow_0')",
    "CREATE REL TABLE t(FROM a TO b) with(storage 'x.parquet')",
    "COPY (MATCH (n) RETURN n.*) TO '/tmp/x.csv'",
    "COPY t FROM '/etc/passwd'",
    "EXPLAIN COPY t FROM '/etc/passwd'",
    "PROFILE LOAD FROM '/etc/passwd' RETURN *",
    "EXPORT DATABASE '/tmp/x'",
    "IMPORT DATABASE '/tmp/x'",
    "ATTACH '/data/other.lbug' AS o (dbtype lbug)",
    "DETACH o",
    "USE o",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs",
    "LOAD EXTENSION '/tmp/x.so'",
    "LOAD httpfs",
    "UNINSTALL httpfs",
    "UPDATE httpfs",
    "CALL timeout=0",
    "CALL `timeout` = 0",
    "CALL threads=64",
    "CALL current_setting('home_directory') RETURN *",
    "CALL show_attached_databases() RETURN *",
    "CALL READ_PARQUET('/x') RETURN *",
    "CALL `read_csv_serial`('/etc/passwd') RETURN *",
    "MATCH (n) CALL READ_NPY('/x') RETURN *",
    "CALL project_graph('g', ['a'], ['b'])",
    "CALL clear_warnings()",
    "BEGIN TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "COMMIT_SKIP_CHECKPOINT",
    "CREATE GRAPH g",
    "DROP GRAPH g",
    "CREATE USER u WITH PASSWORD 'x'",
    "CREATE ROLE r",
    "CREATE DATABASE other",
    "DROP DATABASE other",
    "alter user u SET PASSWORD 'x'",
    "GRANT ALL ON GRAPH g TO r",
    "REVOKE ALL ON GRAPH g FROM r",
    "CALL dbms.security.listUsers()",
    "CALL apoc.load.json('file:///etc/passwd')",
    "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line",
    "RETURN 1; LOAD FROM '/etc/passwd' RETURN *",
    "RETURN 1; RETURN 2",
    "MATCH (n) DETACH n",
    "DROP TABLE stg__gp_0a1b2c3d",
];

#[test]
fn hostile_statements_are_refused_and_named() {
    for text in HOSTILE {
        let error = classify(text).expect_err(text);
        assert_eq!(error.class(), ErrorClass::Forbidden, "{text}: {error}");
    }
    match classify("MATCH (n)\n  LOAD FROM 'x' RETURN *") {
        Err(EngineError::Forbidden {
            token, line, column, ..
        }) => assert_eq!((token.as_str(), line, column), ("LOAD", 2, 3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ordinary_statements_are_classified() {
    for (text, kind) in [
        ("MATCH (n:Person {id: $id}) RETURN n.name", StatementKind::Read),
        ("match (n) return n;", StatementKind::Read),
        (
            "MATCH (n) WHERE n.name = 'LOAD FROM; COPY' RETURN n // USE x",
            StatementKind::Read,
        ),
        ("/* INSTALL x */ RETURN 'it\\'s; ATTACH'", StatementKind::Read),
        (
            "MATCH (n:Import)-[r:Load]->(m) RETURN n.copy, n. export, {load: 1, set: 2}",
            StatementKind::Read,
        ),
        ("RETURN $load AS `copy`", StatementKind::Read),
        ("MATCH (n) RETURN n.set, n.created, n.delete", StatementKind::Read),
        ("CALL show_tables() RETURN *", StatementKind::Read),
        ("CALL TABLE_INFO('x') RETURN name", StatementKind::Read),
        ("CALL db.labels()", StatementKind::Read),
        ("UNWIND [1,2] AS x RETURN x", StatementKind::Read),
        ("OPTIONAL MATCH (n) RETURN n", StatementKind::Read),
        ("EXPLAIN MATCH (n) RETURN n", StatementKind::Read),
        ("EXPLAIN LOGICAL MATCH (n) RETURN n", StatementKind::Read),
        ("CREATE (:Person {id: 1})", StatementKind::Write),
        ("create(:Person {id: 1})", StatementKind::Write),
        (
            "CREATE p = (:Person {id: 1})-[:K]->(:Person {id: 2}) RETURN p",
            StatementKind::Write,
        ),
        ("MATCH (n) SET n.x = 1", StatementKind::Write),
        ("MATCH (n) DETACH DELETE n", StatementKind::Write),
        ("MATCH (n)detach\ndelete n", StatementKind::Write),
        ("MERGE (n:P {id: 1}) ON CREATE SET n.x = 2", StatementKind::Write),
        ("UNWIND $rows AS r CREATE (:P {id: r.id})", StatementKind::Write),
        ("CREATE NODE TABLE t(id INT64 PRIMARY KEY)", StatementKind::Ddl),
        (
            "CREATE NODE TABLE t AS MATCH (n) WITH n RETURN n.id",
            StatementKind::Ddl,
        ),
        ("CREATE REL TABLE GROUP r(FROM a TO b)", StatementKind::Ddl),
        ("DROP TABLE IF EXISTS t", StatementKind::Ddl),
        ("ALTER TABLE t ADD x INT64", StatementKind::Ddl),
        ("COMMENT ON TABLE t IS 'LOAD'", StatementKind::Ddl),
        ("CHECKPOINT;", StatementKind::Checkpoint),
    ] {
        assert_eq!(
            classify(text).unwrap_or_else(|error| panic!("{text}: {error}")),
            kind,
            "{text}"
        );
    }
}

#[test]
fn texts_that_are_no_statement_are_syntax_errors() {
    for text in [
        "",
        "  ;; ",
        "MTACH (n) RETURN n",
        "(n)",
        "RETURN 'open",
        "/* open",
        "EXPLAIN",
        "RETURN '\\q'",
    ] {
        assert_eq!(classify(text).expect_err(text).class(), ErrorClass::Syntax, "{text:?}");
    }
}

#[test]
fn schema_scripts_are_split_outside_strings_and_checked() {
    let script = "CREATE NODE TABLE `My Table`(id INT64 PRIMARY KEY);\n-- not a comment"
        .replace("-- not a comment", "")
        + "CREATE REL TABLE GROUP IF NOT EXISTS r(FROM a TO b, s STRING DEFAULT 'a;b');;\nCOMMENT ON TABLE r IS 'x;y'";
    let statements = schema_script(&script).unwrap();
    let made: Vec<_> = statements
        .iter()
        .map(|statement| statement.creates.as_deref())
        .collect();
    assert_eq!(made, [Some("My Table"), Some("r"), None]);
    assert!(statements[1].text.ends_with("'a;b')"));

    for (bad, number) in [
        ("DROP TABLE x", 1),
        (
            "CREATE NODE TABLE a(id INT64 PRIMARY KEY); ALTER TABLE a ADD b INT64",
            2,
        ),
        ("CREATE NODE TABLE a AS MATCH (n) RETURN n.id", 1),
        ("CREATE (:P)", 1),
        ("MATCH (n) DELETE n", 1),
        ("CREATE NODE TABLE a(id INT64 PRIMARY KEY) WITH (storage='x')", 1),
        ("CREATE NODE TABLE stg__gp_x(id INT64 PRIMARY KEY)", 1),
        ("CREATE MACRO f(x) AS x", 1),
        (" ; ", 1),
    ] {
        assert_eq!(schema_script(bad).expect_err(bad).0, number, "{bad}");
    }
}

#[test]
fn columns_that_are_not_safe_can_only_be_dropped() {
    let known = Decimals {
        unsafe_columns: vec!["d".into(), "Prices".into()],
        columns: vec!["price".into()],
        ..Decimals::default()
    };
    for text in [
        "CREATE (:T {id: 1, d: ['1.2']})",
        "MATCH (n:T) SET n.prices = n.x",
        "MATCH (n:T) WHERE n.`D` = ['1'] RETURN n",
        "MATCH (n:T) RETURN n.d",
        "ALTER TABLE T RENAME d TO e",
        "MATCH (n:T) RETURN collect(n.price)",
    ] {
        let error = check_decimals(text, &known).expect_err(text);
        assert_eq!(error.class(), ErrorClass::Forbidden, "{text}");
    }
    for text in [
        "MATCH (n:T) RETURN n",
        "CREATE (:T {id: 1, name: 'd'})",
        "ALTER TABLE T DROP d",
        "DROP TABLE d",
    ] {
        check_decimals(text, &known).expect(text);
    }
}

/// Each is read once from its beginning to its end: with a check that looks back at every character, or with patterns that
/// try everything, so many characters would take hours.
#[test]
fn long_texts_are_read_once() {
    for part in [
        "a ", "'a' ", "/* */ ", "/*", "'\\'", "`a`", "a.", "1e", "-", "->", "a-", "$a", ":", "a:b ", "((", "))", "[",
        "é", "x->",
    ] {
        let text = part.repeat(200_000 / part.len());
        let _ = classify(&text);
        let _ = classify(&format!("RETURN {text}"));
        let _ = schema_script(&text);
    }
    for part in [
        "range(1, n), ",
        "list_transform([1], x->x), ",
        "split_part(s, $p, 1), ",
        "id(n), ",
    ] {
        let text = format!("RETURN {}1", part.repeat(5_000));
        assert_eq!(classify(&text).unwrap(), StatementKind::Read, "{part}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_guard_panic(text in "\\PC{0,300}") {
        let _ = classify(&text);
        let _ = schema_script(&text);
    }

    #[test]
    fn bytes_of_cypher_do_not_panic_either(
        parts in proptest::collection::vec(
            proptest::sample::select(vec!["MATCH", "(n)", "'", "\"", "`", "/*", "*/", "**/", "//", "\n", "\r", "LOAD", ";", ":", ".", "\\", "é", "CALL", "=", "1", "e"]),
            0..40,
        )
    ) {
        let text: String = parts.concat();
        let _ = classify(&text);
        let _ = schema_script(&text);
    }

    #[test]
    fn case_and_space_do_not_hide_a_forbidden_word(
        index in 0..FORBIDDEN_ANYWHERE.len(),
        upper in proptest::collection::vec(any::<bool>(), 9),
        space in "[ \\t\\n\\r]{1,5}|/\\* x \\*/|// x\\n",
    ) {
        let word: String = FORBIDDEN_ANYWHERE[index].0.chars().zip(upper.iter().cycle())
            .map(|(c, upper)| if *upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect();
        let leading = format!("{space}{word}{space}FROM 'x'");
        let inside = format!("MATCH (n){space}{word}{space}FROM 'x' RETURN *");
        for text in [leading, inside] {
            prop_assert_eq!(classify(&text).unwrap_err().class(), ErrorClass::Forbidden);
        }
    }

    #[test]
    fn words_inside_strings_names_and_comments_are_free(index in 0..HOSTILE.len()) {
        let inner = HOSTILE[index].replace(['\'', '"', '`', '*', '/', '\\', '\n'], " ");
        for text in [
            format!("RETURN '{inner}'"),
            format!("RETURN \"{inner}\""),
            format!("/* {inner} */ RETURN 1"),
            format!("RETURN 1 // {inner}"),
        ] {
            prop_assert_eq!(classify(&text).unwrap(), StatementKind::Read, "{}", text);
        }
    }
}

#[test]
fn partitions_are_refused_and_columns_of_that_name_are_not() {
    let text = "CREATE NODE TABLE P(id INT64 PRIMARY KEY) partition  BY HASH(id) PARTITIONS 3";
    assert_eq!(classify(text).expect_err(text).class(), ErrorClass::Forbidden);
    schema_script(text).expect_err(text);
    classify("CREATE NODE TABLE P(partition INT64 PRIMARY KEY, by INT64)").unwrap();
}
