//! `graphplane query` and `graphplane sql`: one statement, its rows.

use crate::args::{GlobalOptions, OutputFormat, Parameter, QueryArguments, SqlArguments};
use crate::client::{Client, within};
use crate::duration::human;
use crate::failure::Failure;
use crate::output::{self, row_writer};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};
use std::io::{BufWriter, IsTerminal, Read};
use std::time::Duration;

/// Runs a Cypher statement.
///
/// # Errors
/// The statement is refused or fails, or the server cannot be reached.
pub async fn cypher(arguments: &QueryArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let cypher = statement(&arguments.cypher)?;
    let mut body = json!({"cypher": cypher, "parameters": parameters(&arguments.parameters)?});
    if let Some(timeout) = arguments.timeout {
        // The engine stops the statement then; it must not run on for nobody.
        body["timeout"] = json!(timeout.as_secs_f64());
    }
    let request = client
        .request(Method::POST, &["v1", "graphs", &arguments.graph, "query"])
        .json(&body);
    run(client, request, arguments.timeout, global.output).await
}

/// Runs an SQL statement on the staging tables.
///
/// # Errors
/// As [`cypher`].
pub async fn sql(arguments: &SqlArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let body = json!({"sql": statement(&arguments.sql)?});
    let request = client
        .request(Method::POST, &["v1", "graphs", &arguments.graph, "tables", "query"])
        .json(&body);
    run(client, request, arguments.timeout, global.output).await
}

async fn run(
    client: &Client,
    request: RequestBuilder,
    timeout: Option<Duration>,
    format: OutputFormat,
) -> Result<(), Failure> {
    let work = async {
        let mut rows = client.rows(request).await?;
        let out = BufWriter::new(std::io::stdout().lock());
        let mut writer = row_writer(format, out);
        let mut begun = false;
        while let Some(chunk) = rows.next().await? {
            if !begun {
                writer.begin(rows.columns())?;
                begun = true;
            }
            writer.rows(chunk)?;
        }
        if !begun {
            writer.begin(rows.columns())?;
        }
        writer.end()?;
        Ok(rows.summary().cloned().unwrap_or_default())
    };
    // A little longer than the engine's own limit, whose answer says more.
    let summary = within(
        timeout.map(|limit| limit + Duration::from_secs(2)),
        "the statement",
        work,
    )
    .await?;
    if format == OutputFormat::Table && std::io::stderr().is_terminal() {
        let rows = if summary.rows == 1 {
            "1 row".to_owned()
        } else {
            format!("{} rows", summary.rows)
        };
        match summary.execution_ms {
            Some(ms) => output::note(format_args!(
                "{rows} in {}",
                human(Duration::from_secs_f64(ms.max(0.0) / 1e3))
            )),
            None => output::note(rows),
        }
    }
    if summary.truncated {
        output::note("warning: a limit of the server cut the result; there are more rows");
    }
    Ok(())
}

/// The statement, or what standard input holds where it is `-`.
fn statement(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut statement = String::new();
    std::io::stdin()
        .read_to_string(&mut statement)
        .map_err(|error| Failure::io("reading the statement from standard input", &error))?;
    if statement.trim().is_empty() {
        return Err(Failure::usage("standard input holds no statement"));
    }
    Ok(statement)
}

fn parameters(given: &[Parameter]) -> Result<Map<String, Value>, Failure> {
    let mut map = Map::new();
    for Parameter { name, value } in given {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("the parameter `{name}` is given twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_one_map_and_none_is_lost() {
        let parameter = |name: &str, value: Value| Parameter {
            name: name.into(),
            value,
        };
        let map = parameters(&[parameter("a", json!(1)), parameter("b", json!("x"))]).unwrap();
        assert_eq!(Value::Object(map), json!({"a": 1, "b": "x"}));
        let failure = parameters(&[parameter("a", json!(1)), parameter("a", json!(2))]).unwrap_err();
        assert!(failure.message.contains("`a`"), "{failure}");
    }
}
