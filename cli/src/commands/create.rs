//! `graphplane create graph`.

use super::waiting;
use crate::args::{CreateGraphArguments, GlobalOptions};
use crate::client::{Client, Operation};
use crate::failure::{Exit, Failure};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// Creates a graph.
///
/// # Errors
/// The schema file cannot be read, the API refuses the graph, or with `--wait` the graph does not become ready.
pub async fn graph(arguments: &CreateGraphArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let ddl = arguments.schema_file.as_deref().map(read_schema).transpose()?;
    let request = client
        .request(Method::POST, &["v1", "graphs"])
        .json(&body(arguments, ddl));
    let operation: Operation = client.json(request).await?;
    let name = operation.resource.name.clone();
    let asked = format!("graph {name}: creation");
    waiting::finish(
        client,
        operation,
        &arguments.wait,
        global,
        &asked,
        &format!("graph {name} is ready"),
    )
    .await
}

/// The request: what is not given is left to the API's defaults.
fn body(arguments: &CreateGraphArguments, ddl: Option<String>) -> Value {
    let mut body = json!({"name": arguments.name, "tier": arguments.tier});
    if let Some(ddl) = ddl {
        body["schema"] = json!({"type": "custom", "ddl": ddl});
    }
    if let Some(size) = arguments.size_gib {
        body["storage"] = json!({"sizeGiB": size});
    }
    if let Some(name) = &arguments.display_name {
        body["displayName"] = json!(name);
    }
    if let Some(policy) = arguments.deletion_policy {
        body["deletionPolicy"] = json!(policy.as_manifest());
    }
    body
}

fn read_schema(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        _ => std::fs::read_to_string(path).map(|content| text = content),
    };
    read.map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound {
            Exit::NotFound
        } else {
            Exit::Failure
        };
        Failure {
            exit,
            ..Failure::io(format_args!("reading the schema from {}", path.display()), &error)
        }
    })?;
    if text.trim().is_empty() {
        return Err(Failure::usage(format!("the schema file {} is empty", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::{DeletionPolicyName, WaitOptions};
    use std::time::Duration;

    fn arguments() -> CreateGraphArguments {
        CreateGraphArguments {
            name: "airports".into(),
            tier: "laptop".into(),
            schema_file: None,
            size_gib: None,
            display_name: None,
            deletion_policy: None,
            wait: WaitOptions {
                wait: false,
                timeout: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn only_what_was_given_is_sent() {
        assert_eq!(body(&arguments(), None), json!({"name": "airports", "tier": "laptop"}));
        let full = CreateGraphArguments {
            size_gib: Some(5),
            display_name: Some("US airports".into()),
            deletion_policy: Some(DeletionPolicyName::Retain),
            ..arguments()
        };
        let expected = json!({
            "name": "airports", "tier": "laptop", "schema": {"type": "custom", "ddl": "CREATE …"},
            "storage": {"sizeGiB": 5}, "displayName": "US airports", "deletionPolicy": "Retain",
        });
        assert_eq!(body(&full, Some("CREATE …".into())), expected);
    }

    #[test]
    fn a_missing_or_empty_schema_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("schema.cypher");
        assert_eq!(read_schema(&file).unwrap_err().exit, Exit::NotFound);
        std::fs::write(&file, " \n").unwrap();
        let failure = read_schema(&file).unwrap_err();
        assert!(
            failure.exit == Exit::Usage && failure.message.contains("schema.cypher"),
            "{failure}"
        );
    }
}
