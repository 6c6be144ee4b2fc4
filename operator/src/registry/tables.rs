//! The tables: conditional writes, reads by key, queries of indexes. Never a scan.

use crate::metrics::Metrics;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use graphplane_core::backoff::{Backoff, Limits};
use graphplane_core::registry::projection::read;
use graphplane_core::registry::{Kept, Key, Standing, Table, Write};
use serde_json::Value;
use std::collections::HashMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

/// Keys of one BatchGetItem; the service takes no more.
const BATCH: usize = 100;
/// How often keys that the service left out of an answer are asked for again.
const ROUNDS: u32 = 6;

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("DynamoDB, {call} on {table}: {message}")]
    Call {
        call: &'static str,
        table: String,
        message: String,
    },
    #[error("DynamoDB does not answer for all keys of {0}; it is throttled")]
    Throttled(String),
    #[error("a row of {table} cannot be written: {message}")]
    Row { table: String, message: String },
}

/// The three tables of a prefix.
pub(super) struct Tables {
    client: Client,
    prefix: String,
    metrics: Metrics,
}

type Item = HashMap<String, AttributeValue>;

impl Tables {
    pub(super) fn new(client: Client, prefix: String, metrics: Metrics) -> Self {
        Self {
            client,
            prefix,
            metrics,
        }
    }

    fn counted<T>(&self, call: &'static str, began: Instant, result: &Result<T, TableError>) {
        let outcome = if result.is_ok() { "ok" } else { "error" };
        self.metrics.called("registry", call, outcome, began.elapsed());
    }

    /// Writes if the table permits it; false if it does not.
    pub(super) async fn write(&self, write: &Write) -> Result<bool, TableError> {
        let began = Instant::now();
        let result = match write {
            Write::Insert { .. } | Write::Replace { .. } => self.put(write).await,
            Write::Delete { .. } => self.delete(write).await,
        };
        let call = match write {
            Write::Insert { .. } | Write::Replace { .. } => "put",
            Write::Delete { .. } => "delete",
        };
        let outcome = match &result {
            Ok(true) => "ok",
            Ok(false) => "conflict",
            Err(_) => "error",
        };
        self.metrics.called("registry", call, outcome, began.elapsed());
        result
    }

    async fn put(&self, write: &Write) -> Result<bool, TableError> {
        let (Write::Insert { row, .. } | Write::Replace { row, .. }) = write else {
            return Ok(true);
        };
        let (table, _) = row.key();
        let name = table.name(&self.prefix);
        let unwritable = |message: String| TableError::Row {
            table: table.name(&self.prefix),
            message,
        };
        let attributes = row.attributes().map_err(|error| unwritable(error.to_string()))?;
        let Value::Object(attributes) = attributes else {
            return Err(unwritable("it has no attributes".to_owned()));
        };
        let mut item: Item = attributes.into_iter().map(|(k, v)| (k, attribute(v))).collect();
        item.insert("generation".to_owned(), number(write.generation()));
        let request = self.client.put_item().table_name(name).set_item(Some(item));
        let request = match write {
            Write::Replace { .. } => request
                .condition_expression("#uid = :uid AND #generation < :generation")
                .expression_attribute_names("#uid", "uid")
                .expression_attribute_names("#generation", "generation")
                .expression_attribute_values(":uid", text(write.uid()))
                .expression_attribute_values(":generation", number(write.generation())),
            _ => request
                .condition_expression("attribute_not_exists(#key)")
                .expression_attribute_names("#key", table.key()),
        };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutItemError::is_conditional_check_failed_exception) =>
            {
                // The answer to an attempt before this one may have been lost: then what is there is what was written.
                let there = self.get(&write.key()).await?;
                let ours = |kept: &Kept| kept.generation == write.generation() && kept.owner.uid == write.uid();
                Ok(matches!(&there, Standing::Row(kept) if ours(kept)))
            }
            Err(error) => Err(self.failed("PutItem", table, &error)),
        }
    }

    async fn delete(&self, write: &Write) -> Result<bool, TableError> {
        let (table, key) = write.key();
        let request = self
            .client
            .delete_item()
            .table_name(table.name(&self.prefix))
            .key(table.key(), text(&key))
            .condition_expression("attribute_not_exists(#key) OR (#uid = :uid AND #generation < :generation)")
            .expression_attribute_names("#key", table.key())
            .expression_attribute_names("#uid", "uid")
            .expression_attribute_names("#generation", "generation")
            .expression_attribute_values(":uid", text(write.uid()))
            .expression_attribute_values(":generation", number(write.generation()));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.failed("DeleteItem", table, &error)),
        }
    }

    /// What a table holds at a key.
    pub(super) async fn get(&self, key: &Key) -> Result<Standing, TableError> {
        let (table, id) = key;
        let began = Instant::now();
        let request = self
            .client
            .get_item()
            .table_name(table.name(&self.prefix))
            .key(table.key(), text(id))
            .consistent_read(true);
        let result = request.send().await.map_err(|e| self.failed("GetItem", *table, &e));
        self.counted("get", began, &result);
        Ok(match result?.item {
            Some(item) => read(*table, json(item)),
            None => Standing::Absent,
        })
    }

    /// The rows of projections that a table holds at some of the keys.
    pub(super) async fn get_all(&self, table: Table, keys: &[String]) -> Result<Vec<(Key, Kept)>, TableError> {
        let mut found = Vec::new();
        for some in keys.chunks(BATCH) {
            let began = Instant::now();
            let result = self.get_batch(table, some).await;
            self.counted("get", began, &result);
            found.extend(result?.into_iter().filter_map(|item| keyed(table, item)));
        }
        Ok(found)
    }

    async fn get_batch(&self, table: Table, keys: &[String]) -> Result<Vec<Item>, TableError> {
        let name = table.name(&self.prefix);
        let mut left: Vec<Item> = keys
            .iter()
            .map(|id| Item::from([(table.key().to_owned(), text(id))]))
            .collect();
        let mut backoff = Backoff::new(Limits {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            keys: 1,
        });
        let mut items = Vec::new();
        for _ in 0..ROUNDS {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(left))
                .consistent_read(true)
                .build()
                .map_err(|error| TableError::Call {
                    call: "BatchGetItem",
                    table: name.clone(),
                    message: error.to_string(),
                })?;
            let request = self.client.batch_get_item().request_items(&name, wanted);
            let answer = request
                .send()
                .await
                .map_err(|e| self.failed("BatchGetItem", table, &e))?;
            let found = answer.responses.unwrap_or_default().remove(&name);
            items.extend(found.unwrap_or_default());
            left = match answer.unprocessed_keys.unwrap_or_default().remove(&name) {
                Some(rest) => rest.keys,
                None => return Ok(items),
            };
            if left.is_empty() {
                return Ok(items);
            }
            tokio::time::sleep(backoff.failed(&keys.first())).await;
        }
        Err(TableError::Throttled(name))
    }

    /// The rows of a cluster with a value of an index's key. An index lags behind its table by a moment.
    pub(super) async fn query(
        &self,
        table: Table,
        index: &Index,
        cluster: &str,
    ) -> Result<Vec<(Key, Kept)>, TableError> {
        let began = Instant::now();
        let mut pages = self
            .client
            .query()
            .table_name(table.name(&self.prefix))
            .index_name(index.name)
            .key_condition_expression("#attribute = :value")
            .filter_expression("#cluster = :cluster")
            .expression_attribute_names("#attribute", index.attribute)
            .expression_attribute_names("#cluster", "cluster")
            .expression_attribute_values(":value", text(&index.value))
            .expression_attribute_values(":cluster", text(cluster))
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        let result = loop {
            match pages.next().await {
                Some(Ok(item)) => found.extend(keyed(table, item)),
                Some(Err(error)) => break Err(self.failed("Query", table, &error)),
                None => break Ok(()),
            }
        };
        self.counted("query", began, &result);
        result.map(|()| found)
    }

    fn failed<E, R>(&self, call: &'static str, table: Table, error: &SdkError<E, R>) -> TableError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let message = match error.as_service_error() {
            Some(service) => {
                let code = service.code().unwrap_or("unknown error");
                format!("{code}: {}", service.message().unwrap_or("without a message"))
            }
            None => match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        };
        TableError::Call {
            call,
            table: table.name(&self.prefix),
            message,
        }
    }
}

/// A value of an index's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Index {
    pub(super) name: &'static str,
    pub(super) attribute: &'static str,
    pub(super) value: String,
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn attribute(value: Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(value) => AttributeValue::Bool(value),
        Value::Number(value) => AttributeValue::N(value.to_string()),
        Value::String(value) => AttributeValue::S(value),
        Value::Array(values) => AttributeValue::L(values.into_iter().map(attribute).collect()),
        Value::Object(fields) => AttributeValue::M(fields.into_iter().map(|(k, v)| (k, attribute(v))).collect()),
    }
}

fn json(item: Item) -> Value {
    Value::Object(item.into_iter().map(|(k, v)| (k, value(v))).collect())
}

/// The value of an attribute; null for what no row of ours has.
fn value(attribute: AttributeValue) -> Value {
    match attribute {
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::N(number) => number.parse::<u64>().map_or(Value::Null, Value::from),
        AttributeValue::Bool(value) => Value::Bool(value),
        AttributeValue::L(values) => Value::Array(values.into_iter().map(value).collect()),
        AttributeValue::M(fields) => json(fields),
        _ => Value::Null,
    }
}

fn keyed(table: Table, item: Item) -> Option<(Key, Kept)> {
    let id = item.get(table.key())?.as_s().ok()?.clone();
    match read(table, json(item)) {
        Standing::Row(kept) => Some(((table, id), kept)),
        Standing::Absent | Standing::Foreign => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn attributes_come_back_as_they_went() {
        let row = json!({"text": "a", "number": 7, "large": 1_795_000_000_000_000_u64, "list": ["a", "b"], "map": {"x": true}});
        assert_eq!(value(attribute(row.clone())), row);
    }

    #[test]
    fn a_row_of_somebody_else_is_no_row_of_ours() {
        let theirs = Item::from([
            ("graph_id".to_owned(), text("kg1")),
            ("status".to_owned(), text("active")),
            ("tags".to_owned(), AttributeValue::Ss(vec!["x".to_owned()])),
        ]);
        assert_eq!(keyed(Table::Graphs, theirs), None);
    }
}
