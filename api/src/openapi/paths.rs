//! Every path of the API, as the documentation shows it.

mod data;

use super::{SchemaOf, schema_of};
use crate::auth::Role;
use crate::auth::manage::{ApiKeyCreate, ApiKeyCreated, ApiKeyView};
use crate::backups::{BackupCreate, BackupView};
use crate::graphs::{GraphCreate, GraphPatch, GraphView};
use crate::nodes::wire::{LeaseRequest, LeaseResponse, RegisterRequest, RegisterResponse};
use crate::nodes::{NodePatch, NodeView};
use crate::operations::Operation;
use crate::pagination::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use crate::subgraphs::{SubgraphCreate, SubgraphPatch, SubgraphView};
use crate::tiers::TierView;
use crate::volumes::VolumeView;
use graphplane_crds::tier::TierSpec;
use schemars::JsonSchema;
use serde_json::{Value, json};

/// Who may call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Open,
    Node,
    Role(Role),
    Statement,
}

/// What is sent.
pub(super) enum Body {
    Json(SchemaOf),
    /// A body of the node agent's contract, described here as far as its fields go.
    Agent(fn() -> Value),
    Parquet,
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Option<(&'static str, Option<SchemaOf>)>,
}

/// Parameters beside those of the path.
#[derive(Clone, Copy)]
pub(super) enum Parameter {
    Namespace,
    DryRun,
    Limit,
    Continue,
    Tier,
    IdempotencyKey,
    IfMatch,
    Streaming,
    Read,
    ChunkSize,
    TaskStatus,
    TaskType,
    TaskLimit,
    Prefer,
    Task,
}

impl Parameter {
    pub(super) fn describe(self) -> Value {
        let text = json!({"type": "string"});
        let (name, place, schema, description) = match self {
            Self::Namespace => (
                "namespace",
                "query",
                text,
                "Another tenant; for admins. Also as the header `X-Graphplane-Namespace`.",
            ),
            Self::DryRun => (
                "dryRun",
                "query",
                json!({"type": "string", "enum": ["All"]}),
                "Checks everything and writes nothing.",
            ),
            Self::Limit => {
                let schema = json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT});
                ("limit", "query", schema, "Objects of a page.")
            }
            Self::Continue => ("continue", "query", text, "What the page before gave as `continue`."),
            Self::Tier => ("tier", "query", text, "Only graphs of this tier."),
            Self::IdempotencyKey => {
                let schema = json!({"type": "string", "minLength": 1, "maxLength": 255});
                (
                    "Idempotency-Key",
                    "header",
                    schema,
                    "A repeated request with the same key gives the answer of the first one.",
                )
            }
            Self::IfMatch => (
                "If-Match",
                "header",
                text,
                "`ETag` of the object: the change is made only if it is still that.",
            ),
            Self::Read => {
                let schema = json!({"type": "string", "enum": ["replica", "writer"]});
                (
                    "X-Graphplane-Read",
                    "header",
                    schema,
                    "Who answers what only reads: a replica, if one can, or the writer; absent: as the graph's replicas say.",
                )
            }
            Self::Streaming => {
                let schema = json!({"type": "boolean", "default": false});
                (
                    "streaming",
                    "query",
                    schema,
                    "Answer in chunks, one JSON document per line; also by `Accept: application/x-ndjson`.",
                )
            }
            Self::ChunkSize => {
                let schema = json!({"type": "integer", "minimum": 10, "maximum": 10000, "default": 1000});
                ("chunk_size", "query", schema, "Rows of a chunk.")
            }
            Self::TaskStatus => ("status", "query", text, "Only tasks of this status."),
            Self::TaskType => ("task_type", "query", text, "Only tasks of this type."),
            Self::TaskLimit => {
                let schema = json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100});
                ("limit", "query", schema, "So many of the newest.")
            }
            Self::Prefer => (
                "Prefer",
                "header",
                text,
                "`respond-async`: answer at once with a task to follow.",
            ),
            Self::Task => ("task", "query", text, "Id of the task."),
        };
        let required = matches!(self, Self::Task);
        json!({"name": name, "in": place, "required": required, "schema": schema, "description": description})
    }
}

/// One method of one path.
pub(super) struct Path {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) notes: &'static str,
    pub(super) access: Access,
    pub(super) parameters: Vec<Parameter>,
    pub(super) request: Option<Body>,
    pub(super) responses: Vec<Answer>,
}

impl Path {
    fn new(tag: &'static str, access: Access, line: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (method, path) = line.split_once(' ').unwrap_or(("get", line));
        Self {
            method,
            path: path.to_owned(),
            id,
            tag,
            summary,
            notes: "",
            access,
            parameters: Vec::new(),
            request: None,
            responses: Vec::new(),
        }
    }

    fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    fn with(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some(Body::Json(schema_of::<T>));
        self
    }

    fn takes_agent(mut self, schema: fn() -> Value) -> Self {
        self.request = Some(Body::Agent(schema));
        self
    }

    fn answer(
        mut self,
        status: u16,
        description: &'static str,
        content: Option<(&'static str, Option<SchemaOf>)>,
    ) -> Self {
        self.responses.push(Answer {
            status,
            description,
            content,
        });
        self
    }

    fn gives<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answer(200, description, Some(("application/json", Some(schema_of::<T>))))
    }

    fn lists<T: JsonSchema>(self) -> Self {
        self.with(&[Parameter::Limit, Parameter::Continue])
            .gives::<Page<T>>("One page.")
    }

    fn created<T: JsonSchema>(self) -> Self {
        self.answer(201, "It exists now.", Some(("application/json", Some(schema_of::<T>))))
    }

    /// A change that is followed as an operation; a dry run shows the object instead.
    fn accepts<T: JsonSchema>(self) -> Self {
        self.with(&[Parameter::DryRun])
            .answer(
                202,
                "The change is written; follow the operation.",
                Some(("application/json", Some(schema_of::<Operation>))),
            )
            .answer(
                200,
                "With `dryRun=All`: the object as it would be.",
                Some(("application/json", Some(schema_of::<T>))),
            )
    }

    fn passes_on(self, description: &'static str) -> Self {
        self.answer(200, description, Some(("application/json", None)))
    }

    fn done(self, description: &'static str) -> Self {
        self.answer(204, description, None)
    }
}

const READ: Access = Access::Role(Role::Viewer);
const WRITE: Access = Access::Role(Role::Editor);
const ADMIN: Access = Access::Role(Role::Admin);

/// All paths, in the order of the documentation.
pub(super) fn paths() -> Vec<Path> {
    [
        graphs(),
        subgraphs(),
        backups(),
        operations(),
        data::paths(),
        tiers(),
        machines(),
        keys(),
        agents(),
        server(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn graphs() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("graphs", access, line, id, summary);
    vec![
        path(READ, "get /v1/graphs", "listGraphs", "Lists graphs")
            .with(&[Parameter::Tier])
            .lists::<GraphView>(),
        path(WRITE, "post /v1/graphs", "createGraph", "Creates a graph")
            .with(&[Parameter::IdempotencyKey])
            .takes::<GraphCreate>()
            .accepts::<GraphView>(),
        path(READ, "get /v1/graphs/{graph}", "getGraph", "Shows a graph").gives::<GraphView>("The graph."),
        path(WRITE, "patch /v1/graphs/{graph}", "updateGraph", "Changes a graph")
            .notes("The body is a JSON merge patch (RFC 7396).")
            .with(&[Parameter::IfMatch])
            .takes::<GraphPatch>()
            .accepts::<GraphView>(),
        path(WRITE, "delete /v1/graphs/{graph}", "deleteGraph", "Deletes a graph")
            .notes("Its data is kept as its deletion policy says.")
            .accepts::<GraphView>(),
    ]
}

fn subgraphs() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("subgraphs", access, line, id, summary);
    vec![
        path(
            READ,
            "get /v1/graphs/{graph}/subgraphs",
            "listSubgraphs",
            "Lists subgraphs",
        )
        .lists::<SubgraphView>(),
        path(
            WRITE,
            "post /v1/graphs/{graph}/subgraphs",
            "createSubgraph",
            "Creates a subgraph",
        )
        .with(&[Parameter::IdempotencyKey])
        .takes::<SubgraphCreate>()
        .accepts::<SubgraphView>(),
        path(
            READ,
            "get /v1/graphs/{graph}/subgraphs/{name}",
            "getSubgraph",
            "Shows a subgraph",
        )
        .gives::<SubgraphView>("The subgraph."),
        path(
            WRITE,
            "patch /v1/graphs/{graph}/subgraphs/{name}",
            "updateSubgraph",
            "Changes a subgraph",
        )
        .notes("The body is a JSON merge patch (RFC 7396).")
        .with(&[Parameter::IfMatch])
        .takes::<SubgraphPatch>()
        .accepts::<SubgraphView>(),
        path(
            WRITE,
            "delete /v1/graphs/{graph}/subgraphs/{name}",
            "deleteSubgraph",
            "Deletes a subgraph",
        )
        .accepts::<SubgraphView>(),
    ]
}

fn backups() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("backups", access, line, id, summary);
    vec![
        path(READ, "get /v1/graphs/{graph}/backups", "listBackups", "Lists backups").lists::<BackupView>(),
        path(
            WRITE,
            "post /v1/graphs/{graph}/backups",
            "createBackup",
            "Starts a backup",
        )
        .with(&[Parameter::IdempotencyKey])
        .takes::<BackupCreate>()
        .accepts::<BackupView>(),
        path(
            READ,
            "get /v1/graphs/{graph}/backups/{name}",
            "getBackup",
            "Shows a backup",
        )
        .gives::<BackupView>("The backup."),
    ]
}

fn operations() -> Vec<Path> {
    let path = |line, id, summary| Path::new("operations", READ, line, id, summary);
    vec![
        path("get /v1/operations/{id}", "getOperation", "Shows an operation")
            .gives::<Operation>("The operation as it is now."),
        path(
            "get /v1/operations/{id}/events",
            "followOperation",
            "Follows an operation",
        )
        .notes(
            "Server-sent events, each with the operation as JSON: `connected`, `progress` whenever it changes, and \
                 `completed` or `failed` as the last one.",
        )
        .answer(200, "A stream of events.", Some(("text/event-stream", None))),
    ]
}

fn tiers() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("tiers", access, line, id, summary);
    vec![
        path(READ, "get /v1/tiers", "listTiers", "Lists tiers").lists::<TierView>(),
        path(READ, "get /v1/tiers/{name}", "getTier", "Shows a tier").gives::<TierView>("The tier."),
        path(
            ADMIN,
            "put /v1/tiers/{name}",
            "applyTier",
            "Creates a tier or changes it",
        )
        .notes("Fields that another tool owns are not taken over: that is a conflict, which names the tool.")
        .with(&[Parameter::DryRun])
        .takes::<TierSpec>()
        .gives::<TierView>("The tier."),
        path(
            ADMIN,
            "delete /v1/tiers/{name}",
            "deleteTier",
            "Deletes a tier that no graph uses",
        )
        .with(&[Parameter::DryRun])
        .done("It is being deleted."),
    ]
}

fn machines() -> Vec<Path> {
    let path = |line, id, summary| Path::new("machines", ADMIN, line, id, summary);
    vec![
        path("get /v1/nodes", "listNodes", "Lists nodes").lists::<NodeView>(),
        path("get /v1/nodes/{name}", "getNode", "Shows a node").gives::<NodeView>("The node."),
        path(
            "patch /v1/nodes/{name}",
            "updateNode",
            "Drains a node, or stops draining it",
        )
        .with(&[Parameter::DryRun])
        .takes::<NodePatch>()
        .gives::<NodeView>("The node."),
        path("get /v1/volumes", "listVolumes", "Lists volumes").lists::<VolumeView>(),
        path("get /v1/volumes/{name}", "getVolume", "Shows a volume").gives::<VolumeView>("The volume."),
    ]
}

fn keys() -> Vec<Path> {
    let path = |line, id, summary| Path::new("keys", ADMIN, line, id, summary);
    vec![
        path("get /v1/api-keys", "listApiKeys", "Lists API keys").lists::<ApiKeyView>(),
        path("post /v1/api-keys", "createApiKey", "Makes an API key")
            .notes("The key is shown this once. Its namespace is made if it does not exist.")
            .with(&[Parameter::DryRun])
            .takes::<ApiKeyCreate>()
            .created::<ApiKeyCreated>(),
        path("delete /v1/api-keys/{id}", "deleteApiKey", "Deletes an API key")
            .with(&[Parameter::DryRun])
            .done("It is not valid any more."),
    ]
}

fn agents() -> Vec<Path> {
    let path = |line, id, summary| Path::new("agents", Access::Node, line, id, summary);
    vec![
        path("post /v1/nodes/register", "registerNode", "Registers a node agent")
            .notes(
                "The bootstrap token is good once; the credential of the answer is good from then on. 403: the token is good, \
                 and the machine does not prove to be that of the node; the token was not spent.",
            )
            .takes::<RegisterRequest>()
            .gives::<RegisterResponse>("The agent may write for the time of the lease."),
        path(
            "post /v1/nodes/{name}/lease",
            "renewLease",
            "Renews a node agent's lease",
        )
        .notes(
            "A credential in the answer takes the place of the present one when it is used. 404: the node was removed. 409: \
             another epoch holds; the agent refuses writes and registers again.",
        )
        .takes::<LeaseRequest>()
        .gives::<LeaseResponse>("The lease is renewed."),
    ]
}

fn server() -> Vec<Path> {
    let path = |line, id, summary| Path::new("server", Access::Open, line, id, summary);
    vec![
        path("get /healthz", "isLive", "Whether the server answers").answer(
            200,
            "It does.",
            Some(("text/plain", None)),
        ),
        path(
            "get /readyz",
            "isReady",
            "Whether the server knows the state of the cluster",
        )
        .passes_on("It does."),
        path("get /metrics", "getMetrics", "Metrics for Prometheus").answer(
            200,
            "Metrics.",
            Some(("application/openmetrics-text", None)),
        ),
        path("get /openapi.json", "getDocument", "This document").passes_on("The document."),
        path("get /docs", "getDocs", "This document, to browse").answer(200, "A page.", Some(("text/html", None))),
    ]
}
