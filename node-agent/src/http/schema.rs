//! `/databases/{id}/schema`: the tables of a graph, and DDL in one transaction.

use super::{
    SCHEMA_LIMIT, body,
    error::ApiError,
    openapi::Operation,
    validation::{ANY, Fields, Text},
};
use crate::{
    engines::{DatabaseId, TableInfo, TableKind},
    state::AppState,
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "get /databases/{id}/schema",
            "schema_get",
            "Tables of a graph with their columns",
        )
        .asks_engine()
        .gives::<GraphSchema>("The tables."),
        Operation::new("post /databases/{id}/schema", "schema_apply", "Makes tables")
            .notes("`CREATE NODE TABLE`, `CREATE REL TABLE` and comments, in one transaction.")
            .changes()
            .reads(script)
            .asks_engine()
            .gives::<SchemaApplied>("They are made."),
    ]
}

/// The tables of a graph.
#[derive(Serialize, JsonSchema)]
struct GraphSchema {
    database: String,
    tables: Vec<GraphTable>,
    node_tables: Vec<String>,
    rel_tables: Vec<String>,
}

/// A table of a graph.
#[derive(Serialize, JsonSchema)]
struct GraphTable {
    id: u64,
    name: String,
    /// `NODE` or `REL`.
    #[serde(rename = "type")]
    kind: &'static str,
    comment: String,
    properties: Vec<Property>,
    /// What a relationship table connects.
    connections: Vec<Connection>,
}

#[derive(Serialize, JsonSchema)]
struct Property {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    primary_key: bool,
}

#[derive(Serialize, JsonSchema)]
struct Connection {
    from: String,
    to: String,
}

/// A schema that was applied.
#[derive(Serialize, JsonSchema)]
struct SchemaApplied {
    /// Always true.
    success: bool,
    message: String,
    statements_executed: usize,
    /// Tables that were made.
    tables: Vec<String>,
}

fn script(fields: &mut Fields) -> (String, Option<String>) {
    let kinds = Text {
        one_of: Some(&["custom", "ddl"]),
        ..ANY
    };
    let kind = fields.required_text("type", kinds);
    let ddl = fields.text("ddl", ANY).filter(|ddl| !ddl.trim().is_empty());
    fields.object("metadata");
    (kind, ddl)
}

/// Every table with its columns.
pub(super) async fn get(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let database = state.engines.database(&id).await?;
    let tables = database.schema().await?;
    let names = |kind: TableKind| {
        let tables = tables.iter().filter(|table| table.kind == kind);
        tables.map(|table| table.name.clone()).collect()
    };
    body::value(&GraphSchema {
        database: id.to_string(),
        node_tables: names(TableKind::Node),
        rel_tables: names(TableKind::Relationship),
        tables: tables.into_iter().map(table_body).collect(),
    })
}

fn table_body(table: TableInfo) -> GraphTable {
    let properties = table.properties.into_iter().map(|property| Property {
        name: property.name,
        kind: property.type_name,
        primary_key: property.primary_key,
    });
    let connections = table.connections.into_iter().map(|(from, to)| Connection { from, to });
    GraphTable {
        id: table.id,
        name: table.name,
        kind: match table.kind {
            TableKind::Node => "NODE",
            TableKind::Relationship => "REL",
        },
        comment: table.comment,
        properties: properties.collect(),
        connections: connections.collect(),
    }
}

/// Applies DDL: all statements, or none and a 400 that names the one at fault.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse(&body::read(body, SCHEMA_LIMIT).await?)?;
    let (kind, ddl) = script(&mut fields);
    fields.finish()?;
    let Some(ddl) = ddl else {
        return Err(ApiError::bad_request(format!(
            "ddl is required for schema type '{kind}'"
        )));
    };
    let _place = state.admission.enter(id.as_str()).await?;
    let database = state.engines.database(&id).await?;
    let timeout = state.settings().query_timeout();
    let outcome = tokio::select! {
        biased;
        outcome = database.apply_ddl(&ddl, timeout) => outcome,
        () = permit.ends.cancelled() => return Err(crate::registration::lease::Refusal::Fenced.into()),
    };
    let outcome = outcome.map_err(|failure| {
        let place = failure
            .statement
            .map_or_else(String::new, |number| format!(" in statement {number}"));
        let mut error = ApiError::from(failure.error);
        // The contract answers 200 with success=false; here the fields stay and the status tells the truth.
        let message = format!("Schema not changed, error{place}: {}", error.message());
        let mut detail = json!({
            "error": message, "success": false, "message": message,
            "statements_executed": 0, "statement": failure.statement,
        });
        if let Some(pause) = error.retry_after {
            detail["retry_after"] = json!(pause.as_secs().max(1));
        }
        error.detail = detail;
        error
    })?;
    tracing::info!(
        operation = "schema", graph = %id, statements = outcome.statements,
        duration_ms = super::databases::elapsed_ms(started), "schema changed"
    );
    body::value(&SchemaApplied {
        success: true,
        message: format!("Executed {} DDL statements", outcome.statements),
        statements_executed: outcome.statements,
        tables: outcome.tables,
    })
}
