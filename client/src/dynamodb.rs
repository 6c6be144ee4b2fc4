//! The graph registry as a source: one consistent read by key, without the control plane.

use crate::error::SourceError;
use crate::source::{Answer, Place, Source};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Config;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;
use std::error::Error as _;

const NAME: &str = "the graph registry";

/// The registry of graphs in DynamoDB.
pub struct Registry {
    client: Client,
    table: String,
}

type Item = HashMap<String, AttributeValue>;

impl Registry {
    /// The table `<prefix>-graph-registry`. The caller needs `dynamodb:GetItem` on it, and nothing else.
    pub fn new(client: Client, prefix: &str) -> Self {
        Self {
            client,
            table: format!("{prefix}-graph-registry"),
        }
    }
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn read(item: &Item) -> Answer {
    let state = text(item, "status").unwrap_or("in an unknown state");
    let Some(url) = text(item, "endpoint_url") else {
        return Answer::NotReady(state.to_owned());
    };
    let readers = item.get("read_endpoints").and_then(|list| list.as_l().ok());
    let readers = readers.into_iter().flatten().filter_map(|url| url.as_s().ok().cloned());
    Answer::Found(Place {
        url: url.to_owned(),
        epoch: item.get("epoch").and_then(|n| n.as_n().ok()?.parse().ok()),
        node: text(item, "node").map(str::to_owned),
        readers: readers.collect(),
        is_ready: state == "active",
    })
}

#[async_trait]
impl Source for Registry {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn find(&self, graph: &str) -> Result<Answer, SourceError> {
        // The resolver repeats, within its budget; the SDK's own repetitions would come on top.
        let once = Config::builder().retry_config(RetryConfig::disabled());
        let request = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("graph_id", AttributeValue::S(graph.to_owned()))
            .consistent_read(true);
        match request.customize().config_override(once).send().await {
            Ok(answer) => Ok(answer.item.as_ref().map_or(Answer::NotFound, read)),
            Err(error) => {
                let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
                let refuses = [
                    "AccessDeniedException",
                    "ResourceNotFoundException",
                    "UnrecognizedClientException",
                ];
                let message = match code {
                    Some(code) => code.to_owned(),
                    None => match error.source() {
                        Some(cause) => format!("{error}: {cause}"),
                        None => error.to_string(),
                    },
                };
                Err(match code.is_some_and(|code| refuses.contains(&code)) {
                    true => SourceError::Refused { name: NAME, message },
                    false => SourceError::Failed { name: NAME, message },
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(fields: &[(&str, AttributeValue)]) -> Item {
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    #[test]
    fn a_row_says_where_a_graph_is() {
        let served = item(&[
            ("status", s("active")),
            ("endpoint_url", s("http://10.0.0.7:8001")),
            ("epoch", AttributeValue::N("3".into())),
            ("node", s("std-0")),
            (
                "read_endpoints",
                AttributeValue::L(vec![s("http://r1"), s("http://r2")]),
            ),
        ]);
        let place = Place {
            url: "http://10.0.0.7:8001".into(),
            epoch: Some(3),
            node: Some("std-0".into()),
            readers: vec!["http://r1".into(), "http://r2".into()],
            is_ready: true,
        };
        assert_eq!(read(&served), Answer::Found(place));
        assert_eq!(
            read(&item(&[("status", s("creating"))])),
            Answer::NotReady("creating".into())
        );
    }
}
