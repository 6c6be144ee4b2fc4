//! Files of a request on their way into staging: which ones, what they are called, and how they get there.

use super::{
    error::ApiError,
    tables::UNLIMITED,
    validation::{ANY, Fields, IDENTIFIER, Text},
};
use crate::{
    disk::FLOOR,
    engines::{DatabaseId, FileFormat, FileId, StageMode, StageOptions, StageReport, StagedFile, Staging, TableName},
    objects::{Admitted, Bounds, Credentials, Reach},
    state::{AppState, WritePermit},
    tasks::TaskContext,
};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::{collections::HashMap, time::Duration};

/// Files that are to be staged, and may be read.
pub(super) struct Sources {
    /// Where they are.
    pub files: Admitted,
    /// What the files are called.
    pub file_ids: FileIds,
    /// What else the request wishes.
    pub wishes: Wishes,
}

/// Files that a request names.
pub(super) struct Named {
    /// Addresses, with wildcards.
    pub patterns: Vec<String>,
    /// What the files are called.
    pub file_ids: FileIds,
    /// The request's own credentials.
    pub credentials: Option<Credentials>,
    /// What else the request wishes.
    pub wishes: Wishes,
}

impl Named {
    /// Refuses what a request for this graph may not read, before anything is begun.
    pub(super) async fn admit(self, state: &AppState, id: &DatabaseId) -> Result<Sources, ApiError> {
        let reach = reach(state, id, self.credentials.as_ref()).await?;
        Ok(Sources {
            files: reach.admit(PATTERNS, &self.patterns)?,
            file_ids: self.file_ids,
            wishes: self.wishes,
        })
    }
}

/// What a request for this graph may read.
pub(super) async fn reach(
    state: &AppState,
    id: &DatabaseId,
    credentials: Option<&Credentials>,
) -> Result<Reach, ApiError> {
    let store = state.backup_store.read().clone();
    Ok(state.sources.reach(id, credentials, store.as_ref()).await?)
}

/// The field that names files.
pub(super) const PATTERNS: &str = "s3_pattern";

/// What a request may wish for the way of its rows into staging.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// Columns whose values are not taken.
    null_columns: Vec<String>,
    /// Can only shorten the tier's time limit.
    timeout: Option<Duration>,
    /// What all files are written in; otherwise the ending of each says it.
    format: Option<FileFormat>,
}

impl Wishes {
    fn take(fields: &mut Fields) -> Self {
        // Accepted for clients of the contract: rows with the same key are left out, and counted, when they are
        // materialised. In staging they stay, so that a file can be replaced or taken out.
        fields.flag("deduplicate", true);
        Self {
            null_columns: fields.texts("null_columns").unwrap_or_default(),
            timeout: fields.whole("timeout_seconds", 60..=14_400).map(Duration::from_secs),
            format: format(fields),
        }
    }

    /// No wishes but for the format.
    pub(super) fn only_format(fields: &mut Fields) -> Self {
        Self {
            format: format(fields),
            ..Self::default()
        }
    }

    /// The time limit under the tier's.
    fn within(&self, tier: Option<Duration>) -> Option<Duration> {
        match (self.timeout, tier) {
            (Some(own), Some(tier)) => Some(own.min(tier)),
            (own, tier) => own.or(tier),
        }
    }
}

fn format(fields: &mut Fields) -> Option<FileFormat> {
    let words = Text {
        one_of: Some(FileFormat::WORDS),
        ..ANY
    };
    fields.text("format", words).and_then(|word| FileFormat::parse(&word))
}

/// How files get their ids.
pub(super) enum FileIds {
    /// By their address; those that are not in the map go by the address itself.
    Named(HashMap<String, FileId>),
    /// A new id for each, so that its rows can be told from all others.
    Fresh,
}

impl FileIds {
    fn of(&self, uri: &str) -> Result<FileId, ApiError> {
        match self {
            Self::Named(known) => known.get(uri).cloned().map_or_else(|| default_file_id(uri), Ok),
            Self::Fresh => Ok(FileId::passing()),
        }
    }
}

/// What a request to load files into a table says.
pub(super) struct Wanted {
    /// The graph, if the body names it, too.
    pub graph_id: Option<String>,
    /// The table.
    pub table: TableName,
    /// What goes into it.
    pub sources: Named,
}

/// The same as the body has it.
pub(super) struct Asked {
    graph_id: Option<String>,
    table: Option<String>,
    patterns: Vec<String>,
    file_ids: Map<String, Value>,
    credentials: Option<Map<String, Value>>,
    wishes: Wishes,
}

impl Asked {
    /// Reads the fields; `names_table` if it is the body that has to name the table.
    pub(super) fn read(fields: &mut Fields, names_table: bool) -> Self {
        // Accepted for clients of the contract: rows that break the schema are always left out and always counted.
        fields.flag("ignore_errors", true);
        let graph_id = fields.text("graph_id", IDENTIFIER);
        let rule = Text {
            max: Some(128),
            ..IDENTIFIER
        };
        let table = if names_table {
            Some(fields.required_text("table_name", rule))
        } else {
            fields.text("table_name", rule)
        };
        Self {
            graph_id,
            table,
            patterns: patterns(fields),
            file_ids: file_ids(fields),
            credentials: credentials(fields),
            wishes: Wishes::take(fields),
        }
    }
}

fn patterns(fields: &mut Fields) -> Vec<String> {
    fields.shape(PATTERNS, || {
        let text = json!({"type": "string"});
        json!({"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]})
    });
    match fields.take(PATTERNS) {
        Some(Value::String(one)) => return vec![one],
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_string) => {
            return list
                .iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect();
        }
        Some(other) => {
            let message = "Input should be an address or a list of addresses";
            fields.wrong("string_type", PATTERNS, message, &other);
        }
        None => fields.missing(PATTERNS),
    }
    Vec::new()
}

fn file_ids(fields: &mut Fields) -> Map<String, Value> {
    fields.shape(
        "file_id_map",
        || json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
    );
    let map = fields.object("file_id_map").unwrap_or_default();
    if map.values().any(|value| !value.is_string()) {
        let message = "Every file id should be a valid string";
        fields.wrong("string_type", "file_id_map", message, &Value::Null);
    }
    map
}

/// The credentials of a request, as its body has them.
pub(super) fn credentials(fields: &mut Fields) -> Option<Map<String, Value>> {
    fields.shape("s3_credentials", || {
        let text = json!({"type": ["string", "null"]});
        json!({
            "type": ["object", "null"],
            "properties": {
                "aws_access_key_id": text, "aws_secret_access_key": text, "aws_session_token": text,
                "endpoint_url": text, "region": text,
            },
            "additionalProperties": false,
        })
    });
    fields.object("s3_credentials")
}

impl Wanted {
    /// Asks for the fields of a body that names its table.
    pub(super) fn read(fields: &mut Fields) {
        Asked::read(fields, true);
    }

    /// Reads a body; `table` is the one of the path, if there is one.
    pub(super) fn parse(body: &[u8], table: Option<TableName>) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let asked = Asked::read(&mut fields, table.is_none());
        fields.finish()?;
        Self::checked(asked, table)
    }

    fn checked(asked: Asked, table: Option<TableName>) -> Result<Self, ApiError> {
        let named = asked.table.map(|name| TableName::parse(&name)).transpose()?;
        let table = match (table, named) {
            (Some(path), Some(named)) if path.as_str() != named.as_str() => {
                return Err(ApiError::bad_request("table_name: differs from the table in the path"));
            }
            (Some(table), _) | (None, Some(table)) => table,
            (None, None) => return Err(ApiError::bad_request("table_name: is missing")),
        };
        let mut file_ids = HashMap::new();
        for (uri, value) in asked.file_ids {
            file_ids.insert(uri, FileId::parse(value.as_str().unwrap_or_default())?);
        }
        Ok(Self {
            graph_id: asked.graph_id,
            table,
            sources: Named {
                patterns: asked.patterns,
                file_ids: FileIds::Named(file_ids),
                credentials: parse_credentials(asked.credentials)?,
                wishes: asked.wishes,
            },
        })
    }
}

/// The credentials of a request.
pub(super) fn parse_credentials(object: Option<Map<String, Value>>) -> Result<Option<Credentials>, ApiError> {
    object
        .map(|object| serde_json::from_value::<Credentials>(Value::Object(object)))
        .transpose()
        // The text of serde's error names fields, never values of strings that have the right type.
        .map_err(|_| {
            ApiError::bad_request(
                "s3_credentials: expected aws_access_key_id, aws_secret_access_key, and optionally \
                 aws_session_token, endpoint_url, region",
            )
        })
}

/// Fetches files and stages them, within the tier's limits.
pub(super) async fn stage_sources(
    state: &AppState,
    id: &DatabaseId,
    table: &TableName,
    sources: &Sources,
    mode: StageMode,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<StageReport, ApiError> {
    let settings = state.settings();
    let bounds = Bounds {
        files: settings.copy.file_limit(),
        bytes: settings.copy.max_file_bytes(),
    };
    let work = async {
        let files = sources.files.resolve(bounds).await?;
        let staging = state.engines.staging(id).await?;
        let total: u64 = files.iter().map(|file| file.size).sum();
        let mut fetched = 0;
        let (mut incoming, mut staged) = (Vec::new(), Vec::new());
        for file in &files {
            let target = staging.incoming()?;
            fetched += file.fetch(target.path(), bounds.bytes, FLOOR).await?;
            // Fetching is half of the work as far as progress goes.
            context.progress(fetched / 2, total);
            staged.push(StagedFile {
                path: target.path().to_owned(),
                file_id: sources.file_ids.of(&file.uri)?,
                format: sources.wishes.format.unwrap_or_else(|| FileFormat::of_name(&file.uri)),
            });
            incoming.push(target);
        }
        let options = StageOptions {
            timeout: sources.wishes.within(settings.copy.timeout()).unwrap_or(UNLIMITED),
            cancel: context.cancelled().child_token(),
            null_columns: sources.wishes.null_columns.clone(),
            max_bytes: bounds.bytes,
            ..StageOptions::default()
        };
        stage(&staging, table, staged, mode, options, permit).await
    };
    let limited = async {
        match sources.wishes.within(settings.copy.timeout()) {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let message = format!(
                    "Loading took longer than {} s (copy.timeoutSeconds, timeout_seconds)",
                    limit.as_secs()
                );
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
            }),
        }
    };
    let staged = tokio::select! {
        result = limited => result,
        () = context.cancelled().cancelled() => Err(ApiError::bad_request("cancelled")),
        () = permit.ends.cancelled() => Err(crate::registration::lease::Refusal::Fenced.into()),
    };
    if let Ok(report) = &staged {
        state.metrics.staged_rows.inc_by(report.rows);
    }
    staged
}

/// Hands files to DuckDB, for as long as the lease lasts.
pub(super) async fn stage(
    staging: &Staging,
    table: &TableName,
    files: Vec<StagedFile>,
    mode: StageMode,
    options: StageOptions,
    permit: &WritePermit,
) -> Result<StageReport, ApiError> {
    let cancel = options.cancel.clone();
    tokio::select! {
        biased;
        report = staging.stage(table, files, mode, options) => Ok(report?),
        () = permit.ends.cancelled() => {
            cancel.cancel();
            Err(crate::registration::lease::Refusal::Fenced.into())
        }
    }
}

/// A file without an id of the caller's goes by its address.
fn default_file_id(uri: &str) -> Result<FileId, ApiError> {
    if uri.len() <= 200 {
        return Ok(FileId::parse(uri)?);
    }
    use sha2::Digest;
    Ok(FileId::parse(&hex::encode(sha2::Sha256::digest(uri)))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_names_table_and_sources() {
        let one = Wanted::parse(
            br#"{"graph_id":"kg1","table_name":"Entity","s3_pattern":"s3://b/x/*.parquet"}"#,
            None,
        )
        .unwrap();
        assert_eq!((one.table.as_str(), one.sources.patterns.len()), ("Entity", 1));
        let many = Wanted::parse(
            br#"{"table_name":"E","s3_pattern":["s3://b/1","s3://b/2"],"file_id_map":{"s3://b/1":"f1"},
                "s3_credentials":{"aws_access_key_id":"a","aws_secret_access_key":"s"}}"#,
            None,
        )
        .unwrap();
        assert_eq!(
            (
                many.sources.patterns.len(),
                many.sources.file_ids.of("s3://b/1").unwrap().as_str()
            ),
            (2, "f1")
        );
        assert!(many.sources.credentials.is_some());
        let wishes = Wanted::parse(
            br#"{"table_name":"E","s3_pattern":"s3://b/1","deduplicate":true,"null_columns":["embedding"],"timeout_seconds":60}"#,
            None,
        )
        .unwrap()
        .sources
        .wishes;
        assert_eq!(wishes.null_columns, ["embedding"]);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(wishes.format, None);
        let told = br#"{"table_name":"E","s3_pattern":"s3://b/1","format":"csv"}"#;
        assert_eq!(
            Wanted::parse(told, None).unwrap().sources.wishes.format,
            Some(FileFormat::Csv)
        );
        for (tier, limit) in [
            (None, minute),
            (Some(300), minute),
            (Some(5), Some(Duration::from_secs(5))),
        ] {
            assert_eq!(wishes.within(tier.map(Duration::from_secs)), limit);
        }
        let path = TableName::parse("E").unwrap();
        let inserted = Wanted::parse(br#"{"s3_pattern":"s3://b/1"}"#, Some(path.clone())).unwrap();
        assert_eq!(inserted.table, path);
        let other = br#"{"table_name":"F","s3_pattern":"s3://b/1"}"#;
        assert_eq!(Wanted::parse(other, Some(path)).err().unwrap().status.as_u16(), 400);
        for (body, status) in [
            (r#"{"table_name":"E"}"#, 422),
            (r#"{"table_name":"E","s3_pattern":[]}"#, 422),
            (r#"{"table_name":"E","s3_pattern":[1]}"#, 422),
            (r#"{"table_name":"E x","s3_pattern":"s3://b/1"}"#, 422),
            (r#"{"table_name":"E","s3_pattern":"s3://b/1","surplus":1}"#, 422),
            (
                r#"{"table_name":"E","s3_pattern":"s3://b/1","timeout_seconds":59}"#,
                422,
            ),
            (r#"{"table_name":"E","s3_pattern":"s3://b/1","null_columns":"x"}"#, 422),
            (r#"{"table_name":"E","s3_pattern":"s3://b/1","format":"avro"}"#, 422),
            (
                r#"{"table_name":"E","s3_pattern":"s3://b/1","s3_credentials":{"password":"x"}}"#,
                400,
            ),
        ] {
            assert_eq!(
                Wanted::parse(body.as_bytes(), None).err().unwrap().status.as_u16(),
                status,
                "{body}"
            );
        }
    }

    #[test]
    fn every_address_has_a_file_id() {
        assert_eq!(default_file_id("s3://b/1").unwrap().as_str(), "s3://b/1");
        assert_eq!(
            default_file_id(&format!("s3://b/{}", "x".repeat(900)))
                .unwrap()
                .as_str()
                .len(),
            64
        );
    }
}
