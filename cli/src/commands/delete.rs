//! `graphplane delete graph`.

use super::waiting;
use crate::args::{DeleteGraphArguments, GlobalOptions};
use crate::client::{Client, Operation};
use crate::failure::Failure;
use reqwest::Method;

/// Deletes a graph; its deletion policy says what becomes of the data.
///
/// # Errors
/// There is no such graph, it is protected, or with `--wait` the deletion does not end.
pub async fn graph(arguments: &DeleteGraphArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let request = client.request(Method::DELETE, &["v1", "graphs", &arguments.name]);
    let operation: Operation = client.json(request).await?;
    let name = operation.resource.name.clone();
    let asked = format!("graph {name}: deletion");
    waiting::finish(
        client,
        operation,
        &arguments.wait,
        global,
        &asked,
        &format!("graph {name} is deleted"),
    )
    .await
}
