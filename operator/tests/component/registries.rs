//! The registries in DynamoDB, played by an emulator of AWS, and a client that reads nothing else.

use crate::gate::Gate;
use crate::world::{Operator, World, graph_object};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use graphplane_client::{Endpoint, Error, Freshness, Registry, Resolver, Rest, Source};
use graphplane_core::registry::Table;
use graphplane_crds::{Graph, GraphNode, GraphVolume};
use graphplane_operator::{Registries, Settings};
use graphplane_tests::{Moto, repository};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const GRAPH: &str = "kg0123456789abcdef";
const PREFIX: &str = "graphplane";

type Item = HashMap<String, AttributeValue>;

/// A world with a graph's tier, and registries that an environment's stack has made.
struct Scene {
    world: World,
    config: SdkConfig,
    dynamodb: Client,
    _moto: Moto,
}

impl Scene {
    async fn new() -> Self {
        let moto = Moto::start();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("eu-central-1"))
            .endpoint_url(moto.url())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .load()
            .await;
        let template = std::fs::read_to_string(repository().join("cloudformation/registries.yaml")).unwrap();
        aws_sdk_cloudformation::Client::new(&config)
            .create_stack()
            .stack_name("graphplane-registries")
            .template_body(template)
            .send()
            .await
            .unwrap();
        let world = World::with_tier(json!({})).await;
        let dynamodb = Client::new(&config);
        world
            .eventually("the tables exist", async || {
                dynamodb.list_tables().send().await.unwrap().table_names().len() == Table::ALL.len()
            })
            .await;
        Self {
            world,
            config,
            dynamodb,
            _moto: moto,
        }
    }

    fn operator(&self) -> Operator {
        let settings = Settings {
            registries: Some(Registries::new(&self.config, PREFIX)),
            ..self.world.settings()
        };
        self.world.operator_with(Gate::default(), settings)
    }

    async fn create_graph(&self) {
        let graph = graph_object("karate", json!({"graphId": GRAPH}));
        self.world.create::<Graph>(graph).await;
        self.world.until_ready::<Graph>("karate").await;
    }

    async fn rows(&self, table: Table) -> Vec<Item> {
        let all = self
            .dynamodb
            .scan()
            .table_name(table.name(PREFIX))
            .consistent_read(true);
        all.send().await.unwrap().items.unwrap_or_default()
    }

    async fn row(&self, table: Table, key: &str) -> Option<Item> {
        let rows = self.rows(table).await;
        rows.into_iter().find(|row| text(row, table.key()) == key)
    }

    /// Waits until a row is good, and returns it.
    async fn until(&self, table: Table, key: &str, what: &str, good: impl Fn(&Item) -> bool) -> Item {
        let found = Mutex::new(None);
        let look = async || {
            let row = self.row(table, key).await.filter(|row| good(row));
            let is_there = row.is_some();
            *found.lock() = row;
            is_there
        };
        self.world.eventually(what, look).await;
        found.into_inner().unwrap()
    }

    async fn until_empty(&self) {
        for table in Table::ALL {
            let what = format!("no row is left in {}", table.name(PREFIX));
            self.world
                .eventually(&what, async || self.rows(table).await.is_empty())
                .await;
        }
    }

    async fn until_nothing_is_left(&self) {
        self.world.until_none::<Graph>().await;
        self.world.until_none::<GraphNode>().await;
        self.world.until_none::<GraphVolume>().await;
    }

    /// Overwrites attributes of a row past every condition.
    async fn meddle(&self, table: Table, mut row: Item, with: &[(&str, AttributeValue)]) {
        row.extend(with.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let put = self.dynamodb.put_item().table_name(table.name(PREFIX));
        put.set_item(Some(row)).send().await.unwrap();
    }

    /// A client of a data plane whose control plane does not answer.
    fn resolver(&self) -> Resolver {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let rest = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let sources: Vec<Arc<dyn Source>> = vec![
            Arc::new(Rest::new(&rest, "key", None).unwrap()),
            Arc::new(Registry::new(self.dynamodb.clone(), PREFIX)),
        ];
        let settings = graphplane_client::Settings {
            timeout: Duration::from_secs(60),
            freshness: Freshness {
                ttl: Duration::from_secs(3600),
                negative_ttl: Duration::ZERO,
                interval: Duration::ZERO,
                ..Freshness::default()
            },
            ..graphplane_client::Settings::default()
        };
        Resolver::new(sources, settings).unwrap()
    }
}

/// A text or a number of a row; empty where there is none.
fn text(row: &Item, name: &str) -> String {
    match row.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.clone(),
        _ => String::new(),
    }
}

fn says(name: &'static str, value: &str) -> impl Fn(&Item) -> bool + use<> {
    let value = value.to_owned();
    move |row| text(row, name) == value
}

fn s(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

async fn endpoint_of(world: &World) -> String {
    let graph = world.get::<Graph>("karate").await;
    graph.status.unwrap().endpoint.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_follow_a_graph_and_a_client_follows_the_rows() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let operator = scene.operator();
    let resolver = scene.resolver();
    assert_eq!(resolver.resolve(GRAPH).await, Err(Error::NotFound(GRAPH.into())));
    scene.create_graph().await;
    let url = endpoint_of(world).await;

    let graph = scene.until(
        Table::Graphs,
        GRAPH,
        "the graph's row is active",
        says("status", "active"),
    );
    let graph = graph.await;
    let expected = [
        ("endpoint_url", url.as_str()),
        ("epoch", "1"),
        ("instance_id", "std-0"),
        ("node", "std-0"),
        ("private_ip", "127.0.0.1"),
        ("entity_id", "default"),
        ("graph_type", "generic"),
        ("cluster", "test"),
        ("object", "default/karate"),
        ("cluster_tier", "std"),
    ];
    for (name, value) in expected {
        assert_eq!(text(&graph, name), value, "{name} of {graph:?}");
    }
    let full = scene.until(
        Table::Instances,
        "std-0",
        "the machine has a database",
        says("database_count", "1"),
    );
    let machine = full.await;
    assert_eq!(
        (text(&machine, "max_databases"), text(&machine, "node_type")),
        ("10".into(), "writer".into())
    );
    scene
        .until(
            Table::Instances,
            "std-0",
            "the machine is healthy",
            says("status", "healthy"),
        )
        .await;
    let disk = world
        .get::<GraphVolume>("std-0")
        .await
        .status
        .unwrap()
        .volume_id
        .unwrap();
    scene
        .until(
            Table::Volumes,
            &disk,
            "the disk is attached",
            says("instance_id", "std-0"),
        )
        .await;
    scene
        .until(
            Table::Volumes,
            &disk,
            "the disk has the database",
            says("database_id", GRAPH),
        )
        .await;

    let Endpoint { url: found, epoch, .. } = resolver.resolve(GRAPH).await.unwrap();
    assert_eq!((found, epoch), (url.clone(), Some(1)));
    let workspace = resolver.resolve(&format!("{GRAPH}_dev")).await.unwrap();
    assert_eq!((workspace.url, workspace.is_ready), (url, true));

    world.machines.kill("std-0");
    let moved = scene.until(
        Table::Graphs,
        GRAPH,
        "the graph is served under the next epoch",
        |row| text(row, "epoch") == "2" && text(row, "status") == "active",
    );
    let moved = moved.await;
    assert_eq!(
        resolver.resolve(GRAPH).await.unwrap().epoch,
        Some(1),
        "nobody has told it"
    );
    resolver.invalidate(GRAPH);
    let endpoint = resolver.resolve(GRAPH).await.unwrap();
    assert_eq!((endpoint.url, endpoint.epoch), (text(&moved, "endpoint_url"), Some(2)));

    world.delete::<Graph>("karate").await;
    scene.until_nothing_is_left().await;
    scene.until_empty().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_writes_only_what_differs_and_removes_what_is_gone() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let first = scene.operator();
    scene.create_graph().await;
    let before = scene.until(
        Table::Graphs,
        GRAPH,
        "the graph's row is active",
        says("status", "active"),
    );
    let before = before.await;
    scene
        .until(
            Table::Instances,
            "std-0",
            "the machine has a database",
            says("database_count", "1"),
        )
        .await;
    first.stop().await;

    // Somebody changed one row by hand, and past the guard.
    let machine = scene.row(Table::Instances, "std-0").await.unwrap();
    let (wrong, later) = (s("http://wrong"), AttributeValue::N("9000000000000000".into()));
    scene
        .meddle(
            Table::Instances,
            machine,
            &[("endpoint_url", wrong), ("generation", later)],
        )
        .await;
    let second = scene.operator();
    let url = endpoint_of(world).await;
    let repaired = scene.until(
        Table::Instances,
        "std-0",
        "the machine's row is right",
        says("endpoint_url", &url),
    );
    let generation: u64 = text(&repaired.await, "generation").parse().unwrap();
    assert!(generation > 9_000_000_000_000_000);
    let after = scene.row(Table::Graphs, GRAPH).await.unwrap();
    assert_eq!(after, before, "what was right is not written again");
    second.stop().await;

    // What goes while nobody looks after the rows is found by the next who does.
    let blind = world.operator();
    world.delete::<Graph>("karate").await;
    scene.until_nothing_is_left().await;
    blind.stop().await;
    assert!(scene.row(Table::Graphs, GRAPH).await.is_some());
    let third = scene.operator();
    scene.until_empty().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_somebody_else_is_left_alone_and_told_of() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let theirs = Item::from([
        ("graph_id".to_owned(), s(GRAPH)),
        ("entity_id".to_owned(), s("user-1")),
        ("status".to_owned(), s("active")),
        ("instance_id".to_owned(), s("i-0123456789abcdef0")),
    ]);
    scene.meddle(Table::Graphs, theirs.clone(), &[]).await;
    let operator = scene.operator();
    scene.create_graph().await;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    world
        .eventually("the conflict is told of", async || {
            let events = events.list(&ListParams::default()).await.unwrap().items;
            events.iter().any(|e| e.reason.as_deref() == Some("RegistryConflict"))
        })
        .await;
    scene
        .until(
            Table::Instances,
            "std-0",
            "other rows are written",
            says("status", "healthy"),
        )
        .await;
    world.delete::<Graph>("karate").await;
    scene.until_nothing_is_left().await;
    for table in [Table::Instances, Table::Volumes] {
        world
            .eventually("its own rows are gone", async || scene.rows(table).await.is_empty())
            .await;
    }
    assert_eq!(scene.rows(Table::Graphs).await, [theirs]);
    operator.stop().await;
}
