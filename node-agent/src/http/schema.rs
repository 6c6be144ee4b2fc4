//! `/databases/{id}/schema`: the tables of a graph, and DDL in one transaction.

use super::{
    SCHEMA_LIMIT, body,
    error::ApiError,
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
use serde_json::{Value, json};
use std::time::Instant;

/// Every table with its columns.
pub(super) async fn get(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let database = state.engines.database(&id).await?;
    let tables = database.schema().await?;
    let names = |kind: TableKind| -> Vec<&str> {
        tables
            .iter()
            .filter(|table| table.kind == kind)
            .map(|table| table.name.as_str())
            .collect()
    };
    body::value(&json!({
        "database": id.as_str(),
        "tables": tables.iter().map(table_body).collect::<Vec<_>>(),
        "node_tables": names(TableKind::Node),
        "rel_tables": names(TableKind::Relationship),
    }))
}

fn table_body(table: &TableInfo) -> Value {
    let properties: Vec<Value> = table
        .properties
        .iter()
        .map(|property| json!({"name": property.name, "type": property.type_name, "primary_key": property.primary_key}))
        .collect();
    let connections: Vec<Value> = table
        .connections
        .iter()
        .map(|(from, to)| json!({"from": from, "to": to}))
        .collect();
    json!({
        "id": table.id,
        "name": table.name,
        "type": match table.kind { TableKind::Node => "NODE", TableKind::Relationship => "REL" },
        "comment": table.comment,
        "properties": properties,
        "connections": connections,
    })
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
    let kind = fields.required_text(
        "type",
        Text {
            one_of: Some(&["custom", "ddl"]),
            ..ANY
        },
    );
    let ddl = fields.text("ddl", ANY).filter(|ddl| !ddl.trim().is_empty());
    fields.object("metadata");
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
    body::value(&json!({
        "success": true,
        "message": format!("Executed {} DDL statements", outcome.statements),
        "statements_executed": outcome.statements,
        "tables": outcome.tables,
    }))
}
