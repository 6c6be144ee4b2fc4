//! `graphplane backup`.

use super::waiting;
use crate::args::{BackupArguments, GlobalOptions};
use crate::client::{Client, Operation};
use crate::failure::Failure;
use serde_json::{Map, json};

/// Backs up a graph to the object store.
///
/// # Errors
/// There is no such graph, or with `--wait` the backup fails.
pub async fn run(arguments: &BackupArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let mut body = Map::new();
    if let Some(name) = &arguments.name {
        body.insert("name".to_owned(), json!(name));
    }
    if let Some(days) = arguments.retention_days {
        body.insert("retentionDays".to_owned(), json!(days));
    }
    let operation: Operation = client
        .post(&["v1", "graphs", &arguments.graph, "backups"], &body)
        .await?;
    let name = operation.resource.name.clone();
    let asked = format!("backup {name}");
    let done = format!("backup {name} of graph {} is complete", arguments.graph);
    waiting::finish(client, operation, &arguments.wait, global, &asked, &done).await
}
