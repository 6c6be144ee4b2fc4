//! What crosses the gateway, and who may send it.

use super::access::Language;
use super::body::{self, Outgoing};
use super::forward;
use super::replicas;
use super::target::{self, Target};
use super::tasks;
use crate::auth::{Caller, Role, forbidden};
use crate::problem::finish::RequestId;
use crate::problem::{Problem, clip};
use crate::state::App;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use graphplane_crds::ids::TableName;
use http::Method;
use std::collections::HashMap;
use std::time::Duration;

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Query,
    ReadSchema,
    WriteSchema,
    Metrics,
    ListTables,
    CreateTable,
    QueryTables,
    ExecuteTables,
    DropTable,
    PutFile,
    DeleteFile,
    InsertFiles,
    Materialize,
    Rejected,
    Copy,
    Ingest,
    Rebuild,
    Storage,
    Embed,
    ShowVectors,
    BuildVectors,
    AppendVectors,
    ReindexVectors,
    SearchVectors,
    DropVectors,
    AddMemories,
    SearchMemories,
    ListMemories,
    ReadMemory,
    ChangeMemory,
    DeleteMemory,
    ListTasks,
    TaskStatus,
    TaskMonitor,
    CancelTask,
}

/// What a caller needs for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Any role.
    Read,
    /// Any role for a statement that only reads; editor for others.
    Statement(Language),
    /// Editor.
    Write,
}

impl Op {
    /// The method, here and at the agent.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::ReadSchema
            | Self::Metrics
            | Self::ListTables
            | Self::Rejected
            | Self::Storage
            | Self::ShowVectors
            | Self::ReadMemory
            | Self::ListTasks
            | Self::TaskStatus
            | Self::TaskMonitor => Method::GET,
            Self::DropTable | Self::DeleteFile | Self::DropVectors | Self::DeleteMemory | Self::CancelTask => {
                Method::DELETE
            }
            Self::PutFile => Method::PUT,
            Self::ChangeMemory => Method::PATCH,
            Self::Query
            | Self::WriteSchema
            | Self::CreateTable
            | Self::QueryTables
            | Self::ExecuteTables
            | Self::InsertFiles
            | Self::Materialize
            | Self::Copy
            | Self::Ingest
            | Self::Rebuild
            | Self::Embed
            | Self::BuildVectors
            | Self::AppendVectors
            | Self::ReindexVectors
            | Self::SearchVectors
            | Self::AddMemories
            | Self::SearchMemories
            | Self::ListMemories => Method::POST,
        }
    }

    pub(super) fn need(self) -> Need {
        match self {
            Self::Query => Need::Statement(Language::Cypher),
            Self::QueryTables => Need::Statement(Language::Sql),
            Self::Embed | Self::SearchVectors | Self::SearchMemories | Self::ListMemories => Need::Read,
            _ if self.method() == Method::GET => Need::Read,
            _ => Need::Write,
        }
    }

    /// Whether a replica can answer it: its copy of the graph and of its vectors is of a while ago, and has no staging. What
    /// somebody has just told the semantic memory should be found at once, so that is for the writer.
    fn may_lag(self) -> bool {
        matches!(self, Self::Query | Self::ReadSchema | Self::SearchVectors)
    }

    /// The agent's path. Parameters were checked before, so that none of them can change the path's form.
    fn path(self, database: &str, parameters: &Parameters) -> String {
        let Parameters { table, file, row, task } = parameters;
        match self {
            Self::Query => format!("/databases/{database}/query"),
            Self::ReadSchema | Self::WriteSchema => format!("/databases/{database}/schema"),
            Self::Metrics => format!("/databases/{database}/metrics"),
            Self::ListTables | Self::CreateTable => format!("/databases/{database}/tables"),
            Self::QueryTables => format!("/databases/{database}/tables/query"),
            Self::ExecuteTables => format!("/databases/{database}/tables/execute"),
            Self::DropTable => format!("/databases/{database}/tables/{table}"),
            Self::PutFile | Self::DeleteFile => format!("/databases/{database}/tables/{table}/files/{file}"),
            Self::InsertFiles => format!("/databases/{database}/tables/{table}/insert"),
            Self::Materialize => format!("/databases/{database}/tables/{table}/materialize"),
            Self::Rejected => format!("/databases/{database}/tables/{table}/rejected"),
            Self::Copy => format!("/databases/{database}/copy"),
            Self::Ingest => format!("/databases/{database}/ingest"),
            Self::Rebuild => format!("/databases/{database}/rebuild"),
            Self::Storage => format!("/databases/{database}/storage"),
            Self::Embed => "/embeddings".to_owned(),
            Self::ShowVectors | Self::DropVectors => format!("/databases/{database}/tables/{table}/vector"),
            Self::BuildVectors => format!("/databases/{database}/tables/{table}/vector/build"),
            Self::AppendVectors => format!("/databases/{database}/tables/{table}/vector/append"),
            Self::ReindexVectors => format!("/databases/{database}/tables/{table}/vector/reindex"),
            Self::SearchVectors => format!("/databases/{database}/tables/{table}/vector/search"),
            Self::AddMemories => format!("/databases/{database}/semantic-memory/rows"),
            Self::SearchMemories => format!("/databases/{database}/semantic-memory/search"),
            Self::ListMemories => format!("/databases/{database}/semantic-memory/list"),
            Self::ReadMemory | Self::ChangeMemory | Self::DeleteMemory => {
                format!("/databases/{database}/semantic-memory/rows/{row}")
            }
            Self::ListTasks => "/tasks".to_owned(),
            Self::TaskStatus => format!("/tasks/{task}/status"),
            Self::TaskMonitor => format!("/tasks/{task}/monitor"),
            Self::CancelTask => format!("/tasks/{task}"),
        }
    }

    /// How long the head of the answer may take once the request is sent. The node's own limit comes first, so that the
    /// client gets the node's answer rather than ours.
    fn patience(self, target: &Target, default: Duration) -> Duration {
        let grace = Duration::from_secs(10);
        match self {
            Self::Query | Self::QueryTables => (target.query_timeout + grace).max(default),
            Self::CreateTable
            | Self::ExecuteTables
            | Self::PutFile
            | Self::InsertFiles
            | Self::Materialize
            | Self::Copy
            | Self::Ingest
            | Self::Rebuild
            | Self::BuildVectors
            | Self::AppendVectors
            | Self::ReindexVectors
            | Self::AddMemories
            | Self::WriteSchema => (target.load_timeout + grace).max(default),
            _ => default,
        }
    }
}

/// Parameters of a path below the graph; those that the path does not have are empty.
#[derive(Clone, Debug, Default)]
struct Parameters {
    table: String,
    file: String,
    row: String,
    task: String,
}

impl Parameters {
    fn check(map: &HashMap<String, String>) -> Result<Self, Problem> {
        let get = |name: &str| map.get(name).cloned().unwrap_or_default();
        let parameters = Self {
            table: get("table"),
            file: get("file"),
            row: get("row"),
            task: get("task"),
        };
        if !parameters.table.is_empty() {
            parameters
                .table
                .parse::<TableName>()
                .map_err(|error| Problem::parameter("table", error.expected, &parameters.table))?;
        }
        let ids = [
            ("file", &parameters.file),
            ("row", &parameters.row),
            ("task", &parameters.task),
        ];
        for (name, value) in ids {
            let good = value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !good || value.starts_with('.') || value.len() > 200 {
                return Err(Problem::parameter(
                    name,
                    "expected letters, digits, `-`, `_` and `.`, at most 200",
                    value,
                ));
            }
        }
        Ok(parameters)
    }
}

/// Passes one call on to the node agent of a graph.
pub(crate) async fn call(
    op: Op,
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(path): Path<HashMap<String, String>>,
    request: Request,
) -> Result<Response, Problem> {
    if op.need() == Need::Write && caller.role < Role::Editor {
        app.metrics.refused_key("role");
        return Err(forbidden(caller.role, Role::Editor));
    }
    let parameters = Parameters::check(&path)?;
    let graph = path.get("graph").map(String::as_str).unwrap_or_default();
    let target = target::resolve(&app, &caller.namespace, graph).await?;
    if !parameters.task.is_empty() && !tasks::belongs(&parameters.task, &target.graph_id) {
        // A node's tasks are those of all its tenants.
        return Err(Problem::not_found(format!(
            "task `{}` of graph `{}`",
            clip(&parameters.task),
            clip(graph)
        )));
    }
    let (parts, incoming) = request.into_parts();
    let Outgoing { payload, repeatable } = body::prepare(
        op,
        &caller,
        &target,
        &parts.headers,
        incoming,
        app.settings.gateway.inspected_body_limit,
    )
    .await?;
    let query = parts.uri.query();
    let path = op.path(&target.database, &parameters);
    let exchange = forward::Exchange {
        app: &app,
        namespace: &caller.namespace,
        graph,
        method: op.method(),
        path: if op == Op::ListTasks {
            tasks::everything(query)
        } else {
            with_query(path, query)
        },
        headers: &parts.headers,
        request_id: &request_id,
        read_only: caller.role < Role::Editor,
        repeatable,
        patience: op.patience(&target, app.settings.gateway.answer_timeout),
    };
    let fleet = match repeatable && op.may_lag() && target.database == target.graph_id.as_str() {
        true => replicas::of(&app, &caller.namespace, &target, &parts.headers)?,
        false => Vec::new(),
    };
    if let Some(again) = payload.again()
        && let Some(answer) = exchange.ask(&fleet, again).await?
    {
        return Ok(answer);
    }
    let graph_id = target.graph_id.clone();
    let response = exchange.run(target, payload).await?;
    if op == Op::ListTasks {
        tasks::only_of(response, &graph_id, tasks::limit(query)?).await
    } else {
        Ok(response)
    }
}

/// The agent's path with the client's query string, but for what is meant for us.
fn with_query(path: String, query: Option<&str>) -> String {
    let Some(query) = query else { return path };
    let ours = |part: &&str| part.split('=').next() != Some("namespace");
    let kept: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).filter(ours).collect();
    if kept.is_empty() {
        path
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn parameters(table: &str, file: &str, task: &str) -> Result<Parameters, Problem> {
        let map = [("table", table), ("file", file), ("task", task)];
        Parameters::check(&map.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn our_own_parameters_stay_here() {
        let with = |query| with_query("/x".into(), query);
        assert_eq!(with(None), "/x");
        assert_eq!(with(Some("namespace=a")), "/x");
        assert_eq!(
            with(Some("streaming=true&namespace=a&chunk_size=10")),
            "/x?streaming=true&chunk_size=10"
        );
    }

    #[test]
    fn reading_needs_no_role_and_writing_does() {
        assert_eq!(Op::Metrics.need(), Need::Read);
        assert_eq!(Op::Query.need(), Need::Statement(Language::Cypher));
        for op in [Op::Embed, Op::SearchVectors, Op::SearchMemories, Op::ListMemories] {
            assert_eq!(op.need(), Need::Read, "{op:?}");
        }
        for op in [
            Op::WriteSchema,
            Op::CreateTable,
            Op::ExecuteTables,
            Op::DropTable,
            Op::PutFile,
            Op::DeleteFile,
            Op::InsertFiles,
            Op::Materialize,
            Op::Copy,
            Op::Ingest,
            Op::Rebuild,
            Op::BuildVectors,
            Op::AppendVectors,
            Op::ReindexVectors,
            Op::DropVectors,
            Op::AddMemories,
            Op::ChangeMemory,
            Op::DeleteMemory,
            Op::CancelTask,
        ] {
            assert_eq!(op.need(), Need::Write, "{op:?}");
        }
    }

    proptest! {
        /// No parameter can leave its place in the path.
        #[test]
        fn a_path_keeps_its_form(table in "\\PC{0,12}", file in "\\PC{0,12}", task in "\\PC{0,12}") {
            if let Ok(parameters) = parameters(&table, &file, &task) {
                let path = Op::PutFile.path("kg0123456789abcdef", &parameters);
                prop_assert_eq!(path.matches('/').count(), 6);
                prop_assert!(!path.contains("..") || file.contains(".."));
                prop_assert!(!path.contains(['?', '#', '%', ' ', '\\']));
                prop_assert!(!path.ends_with("/..") && !path.contains("/../"));
            }
        }
    }
}
