//! Databases are made whole or not at all, and removed with everything that belongs to them.

use std::time::Duration;

use graphplane_node_agent::engines::{
    BaseSchema, DeleteScope, EngineLimits, Engines, EnginesConfig, ErrorClass, QueryRequest, StageMode, TableKind,
};
use serde_json::json;

use crate::support::{ENDLESS, PATIENCE, graph, id, limits, one, rows, stage, start, until};

fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

#[tokio::test]
async fn base_schemas_have_the_tables_that_clients_expect() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits()).await;
    let schema = BaseSchema::Many(vec![
        BaseSchema::Entity,
        BaseSchema::Custom("CREATE NODE TABLE Extra(id INT64 PRIMARY KEY)".into()),
    ]);
    assert_eq!(engines.create(&id("e"), &schema).await.unwrap().statements, 15);
    engines.create(&id("m"), &BaseSchema::Memory).await.unwrap();
    let entity = engines.database(&id("e")).await.unwrap().schema().await.unwrap();
    let columns = |name: &str| entity.iter().find(|table| table.name == name).unwrap().properties.len();
    let counts: Vec<usize> = ["Entity", "Period", "Unit", "Element", "Label", "Reference", "Taxonomy"]
        .into_iter()
        .map(columns)
        .collect();
    assert_eq!(counts, [25, 13, 6, 19, 4, 3, 6]);
    let node = entity.iter().find(|table| table.name == "Entity").unwrap();
    assert_eq!(node.primary_key().unwrap().name, "identifier");
    let owns = entity.iter().find(|table| table.name == "ENTITY_OWNS_ENTITY").unwrap();
    assert_eq!(owns.kind, TableKind::Relationship);
    assert_eq!(owns.connections, [("Entity".to_owned(), "Entity".to_owned())]);
    assert_eq!(owns.properties[1].type_name, "DOUBLE");
    let memory = engines.database(&id("m")).await.unwrap();
    assert_eq!(memory.schema().await.unwrap().len(), 7);
    rows(&memory, "CREATE (:Concept {identifier: 'c', confidence: 0.5})")
        .await
        .unwrap();
    let counts = memory.counts().await.unwrap();
    assert_eq!((counts.nodes, counts.relationships), (1, 0));
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(
        directory.path(),
        EngineLimits {
            max_databases: 2,
            ..limits()
        },
    )
    .await;
    for (ddl, part) in [
        (
            "CREATE NODE TABLE A(id INT64 PRIMARY KEY); CREATE NODE TABLE A(id INT64 PRIMARY KEY)",
            "statement 2",
        ),
        ("CREATE NODE TABLE A(id NOTHING PRIMARY KEY)", "statement 1"),
        ("CREATE NODE TABLE A(id INT64 PRIMARY KEY); DROP TABLE A", "statement 2"),
        ("CREATE REL TABLE R(FROM A TO A)", "statement 1"),
    ] {
        let error = engines
            .create(&id("g"), &BaseSchema::Custom(ddl.into()))
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        assert!(
            error.to_string().starts_with("custom_schema_ddl: ") && error.to_string().contains(part),
            "{error}"
        );
        assert_eq!(names(&directory.path().join("databases")), Vec::<String>::new());
        assert!(!engines.contains(&id("g")));
        assert_eq!(engines.usage().reserved_bytes, 0);
    }
    engines.create(&id("g"), &BaseSchema::Empty).await.unwrap();
    assert_eq!(
        engines.create(&id("g"), &BaseSchema::Empty).await.unwrap_err().class(),
        ErrorClass::AlreadyExists
    );
    engines.create(&id("h"), &BaseSchema::Empty).await.unwrap();
    let error = engines.create(&id("i"), &BaseSchema::Empty).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Capacity);
    assert_eq!(error.to_string(), "Maximum database capacity reached (2)");
    assert_eq!(engines.list(), [id("g"), id("h")]);
}

#[tokio::test]
async fn of_many_creates_of_one_id_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits()).await;
    let creates: Vec<_> = (0..8)
        .map(|_| {
            let engines = engines.clone();
            tokio::spawn(async move { engines.create(&id("g"), &BaseSchema::Memory).await })
        })
        .collect();
    let mut made = 0;
    for create in creates {
        match create.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.class(), ErrorClass::AlreadyExists),
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn deleting_removes_every_file() {
    let (directory, engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    engines.create(&id("g2"), &BaseSchema::Empty).await.unwrap();
    rows(&g, "CREATE (:N {id: 1})").await.unwrap();
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(&staging, "N", &[("f", "SELECT 1 AS id")], StageMode::ReplaceTable)
        .await
        .unwrap();
    assert!(engines.has_staging(&id("g")));
    drop((g, staging));

    let deleted = engines.delete(&id("g"), DeleteScope::KeepStaging).await.unwrap();
    assert!(deleted.existed && deleted.failed.is_empty());
    assert_eq!(deleted.removed[0], "g.lbug");
    assert_eq!(
        engines.database(&id("g")).await.unwrap_err().class(),
        ErrorClass::NotFound
    );
    assert!(
        names(&directory.path().join("databases"))
            .iter()
            .all(|name| !name.starts_with("g."))
    );
    assert!(names(&directory.path().join("staging")).contains(&"g.duckdb".to_owned()));

    engines.create(&id("g"), &BaseSchema::Empty).await.unwrap();
    let staging = engines.staging(&id("g")).await.unwrap();
    assert_eq!(staging.tables().await.unwrap().len(), 1);
    drop(staging);
    engines.delete(&id("g"), DeleteScope::StagingOnly).await.unwrap();
    assert!(engines.contains(&id("g")));
    assert!(names(&directory.path().join("staging")).is_empty());
    engines.delete(&id("g"), DeleteScope::Everything).await.unwrap();
    assert!(
        names(&directory.path().join("databases"))
            .iter()
            .all(|name| name.starts_with("g2."))
    );
    assert!(!engines.delete(&id("g"), DeleteScope::Everything).await.unwrap().existed);
}

#[tokio::test]
async fn deleting_interrupts_what_runs() {
    let (_directory, engines, g) = graph("").await;
    let query = tokio::spawn(async move {
        let request = QueryRequest {
            timeout: 2 * PATIENCE,
            ..QueryRequest::new(ENDLESS)
        };
        g.query(request).await.map(drop)
    });
    until(|| engines.usage(), |usage| usage.active_queries > 0).await;
    assert!(engines.delete(&id("g"), DeleteScope::Everything).await.unwrap().existed);
    assert_eq!(query.await.unwrap().unwrap_err().class(), ErrorClass::Busy);
    assert_eq!(engines.usage().open_databases, 0);
}

#[tokio::test]
async fn a_restart_finds_the_databases_and_removes_leftovers() {
    let (directory, engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    rows(&g, "CREATE (:N {id: 1})").await.unwrap();
    drop(g);
    engines.shutdown().await;
    assert_eq!(engines.database(&id("g")).await.unwrap_err().class(), ErrorClass::Busy);
    drop(engines);
    let databases = directory.path().join("databases");
    for stray in [
        ".creating-x-1.lbug",
        ".creating-x-1.lbug.wal",
        "gone.lbug.wal",
        "not a database",
    ] {
        std::fs::write(databases.join(stray), "x").unwrap();
    }
    std::fs::create_dir_all(directory.path().join("staging/g.incoming")).unwrap();
    std::fs::write(directory.path().join("staging/g.incoming/x.parquet"), "x").unwrap();
    let engines = start(directory.path(), limits()).await;
    assert_eq!(engines.list(), [id("g")]);
    assert!(
        names(&databases).iter().all(|name| name.starts_with("g.")),
        "{:?}",
        names(&databases)
    );
    assert!(names(&directory.path().join("staging")).is_empty());
    let g = engines.database(&id("g")).await.unwrap();
    assert!(!g.recovered());
    assert_eq!(one(&g, "MATCH (n:N) RETURN count(*)").await, 1);
    let info = engines.info(&id("g")).unwrap();
    assert!(info.open && info.size_bytes > 0 && info.last_used.is_some() && !info.recovered);
}

#[tokio::test]
async fn a_schema_change_is_whole_or_nothing() {
    let (_directory, _engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    let limit = PATIENCE;
    let failure = g
        .apply_ddl(
            "CREATE NODE TABLE M(id INT64 PRIMARY KEY); CREATE REL TABLE R(FROM M TO Nowhere)",
            limit,
        )
        .await
        .unwrap_err();
    assert_eq!(failure.statement, Some(2));
    assert!(failure.to_string().starts_with("statement 2: "), "{failure}");
    assert_eq!(g.schema().await.unwrap().len(), 1);
    let failure = g
        .apply_ddl("CREATE NODE TABLE M(id INT64 PRIMARY KEY); MATCH (n) DELETE n", limit)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.statement, failure.error.class()),
        (Some(2), ErrorClass::Forbidden)
    );
    let outcome = g
        .apply_ddl("CREATE NODE TABLE M(id INT64 PRIMARY KEY); CREATE REL TABLE R(FROM M TO N, w DOUBLE); COMMENT ON TABLE M IS 'it''s; M'".replace("''", " ").as_str(), limit)
        .await
        .unwrap();
    assert_eq!(
        (outcome.statements, outcome.tables),
        (3, vec!["M".to_owned(), "R".to_owned()])
    );
    let schema = g.schema().await.unwrap();
    assert_eq!(
        schema.iter().find(|table| table.name == "M").unwrap().comment,
        "it s; M"
    );
}

#[tokio::test]
async fn a_node_that_only_reads_refuses_everything_else() {
    let (directory, engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    rows(&g, "CREATE (:N {id: 1})").await.unwrap();
    drop(g);
    engines.shutdown().await;
    drop(engines);
    let config = EnginesConfig {
        data_dir: directory.path().to_owned(),
        read_only: true,
        limits: limits(),
    };
    let engines = Engines::start(config).await.unwrap();
    let g = engines.database(&id("g")).await.unwrap();
    assert_eq!(one(&g, "MATCH (n:N) RETURN n.id").await, 1);
    assert_eq!(
        rows(&g, "CREATE (:N {id: 2})").await.unwrap_err().class(),
        ErrorClass::ReadOnly
    );
    assert_eq!(g.checkpoint(PATIENCE).await.unwrap_err().class(), ErrorClass::ReadOnly);
    assert_eq!(
        engines.create(&id("h"), &BaseSchema::Empty).await.unwrap_err().class(),
        ErrorClass::ReadOnly
    );
    assert_eq!(
        engines.staging(&id("g")).await.unwrap_err().class(),
        ErrorClass::ReadOnly
    );
    assert_eq!(
        engines
            .delete(&id("g"), DeleteScope::Everything)
            .await
            .unwrap_err()
            .class(),
        ErrorClass::ReadOnly
    );
}

#[tokio::test]
async fn idle_databases_are_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(
        directory.path(),
        EngineLimits {
            idle_close: Duration::from_millis(1),
            ..limits()
        },
    )
    .await;
    engines.create(&id("g"), &BaseSchema::Memory).await.unwrap();
    let g = engines.database(&id("g")).await.unwrap();
    rows(&g, "CREATE (:Concept {identifier: 'c'})").await.unwrap();
    assert_eq!(json!(engines.usage().open_databases), 1);
    drop(g);
    // The memory comes back when the engine has closed the file, a moment after the database is no longer listed as open.
    until(
        || engines.usage(),
        |usage| (usage.open_databases, usage.reserved_bytes) == (0, 0),
    )
    .await;
    let g = engines.database(&id("g")).await.unwrap();
    assert_eq!(one(&g, "MATCH (n:Concept) RETURN count(*)").await, 1);
}
