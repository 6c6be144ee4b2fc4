//! Paths below a graph that go to its node. Their bodies are the node agent's contract, described as far as the fields go
//! that a client of this API needs.

use super::{Access, Body, Parameter, Path, READ, WRITE};
use serde_json::{Value, json};

const STATEMENT: &str = "Reading statements are repeated when the node cannot be reached.";

/// All of them.
pub(super) fn paths() -> Vec<Path> {
    [queries(), staging(), loads(), vectors(), tasks()]
        .into_iter()
        .flatten()
        .collect()
}

fn queries() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("data", access, line, id, summary);
    vec![
        path(
            Access::Statement,
            "post /v1/graphs/{graph}/query",
            "query",
            "Runs a Cypher statement",
        )
        .notes(STATEMENT)
        .with(&[Parameter::Streaming, Parameter::Read])
        .takes_agent(|| {
            json!({
                "type": "object", "required": ["cypher"],
                "properties": {
                    "cypher": {"type": "string", "description": "The statement."},
                    "parameters": {"type": "object", "description": "Values of `$name` in the statement."},
                    "timeout": {"type": "number", "description": "Seconds; can only shorten the tier's limit."},
                },
            })
        })
        .passes_on("Rows: `data`, `columns`, `row_count`, `execution_time_ms`."),
        path(READ, "get /v1/graphs/{graph}/schema", "getSchema", "Shows the tables")
            .with(&[Parameter::Read])
            .passes_on("Node and relationship tables."),
        path(WRITE, "post /v1/graphs/{graph}/schema", "applySchema", "Adds tables")
            .notes("Prefer `schema.ddl` of the graph, which is kept with it.")
            .takes_agent(|| {
                json!({"type": "object", "required": ["type", "ddl"], "properties": {
                    "type": {"type": "string", "enum": ["ddl", "custom"]}, "ddl": {"type": "string"},
                }})
            })
            .passes_on("What was executed."),
        path(
            READ,
            "get /v1/graphs/{graph}/metrics",
            "getGraphMetrics",
            "Shows sizes and counts",
        )
        .passes_on("Sizes and counts."),
        path(
            READ,
            "get /v1/graphs/{graph}/storage",
            "getStorage",
            "Shows what takes how much of the volume",
        )
        .passes_on("`total_bytes`, and `items` with `type`, `id` and `bytes`."),
    ]
}

fn staging() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("data", access, line, id, summary);
    vec![
        path(
            READ,
            "get /v1/graphs/{graph}/tables",
            "listTables",
            "Lists staging tables",
        )
        .passes_on("Staging tables."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables",
            "createTable",
            "Makes a staging table of files in the object store",
        )
        .with(&[Parameter::Prefer])
        .takes_agent(|| sources(true, true))
        .passes_on("The table."),
        path(
            Access::Statement,
            "post /v1/graphs/{graph}/tables/query",
            "queryTables",
            "Runs SQL on staging tables",
        )
        .notes(STATEMENT)
        .with(&[Parameter::Streaming, Parameter::ChunkSize])
        .takes_agent(|| {
            json!({"type": "object", "required": ["sql"], "properties": {
                "sql": {"type": "string", "description": "One SELECT or WITH statement."},
                "parameters": {"type": "array", "items": {}},
            }})
        })
        .passes_on("Rows: `columns`, `rows`, `row_count`, `execution_time_ms`."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/execute",
            "executeTables",
            "Changes staging tables with SQL",
        )
        .takes_agent(|| {
            json!({"type": "object", "required": ["sql"], "properties": {
                "sql": {"type": "string", "description": "One CREATE TABLE or VIEW AS, INSERT, UPDATE, DELETE, ALTER or DROP."},
                "parameters": {"type": "array", "items": {}},
            }})
        })
        .passes_on("How many rows it changed: `rows_affected`."),
        path(
            WRITE,
            "delete /v1/graphs/{graph}/tables/{table}",
            "dropTable",
            "Drops a staging table",
        )
        .passes_on("Done."),
        {
            let mut upload = path(
                WRITE,
                "put /v1/graphs/{graph}/tables/{table}/files/{file}",
                "putFile",
                "Loads a Parquet file into a staging table",
            );
            upload.request = Some(Body::Parquet);
            upload
                .notes("The body streams through. The table is made if it does not exist; rows of the same file are replaced.")
                .passes_on("What was loaded: `row_count`, `columns`, `kind`.")
        },
        path(
            WRITE,
            "delete /v1/graphs/{graph}/tables/{table}/files/{file}",
            "deleteFile",
            "Removes the rows of a file from a staging table",
        )
        .passes_on("How many rows were removed."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/{table}/insert",
            "insertFiles",
            "Adds files in the object store to a staging table",
        )
        .notes("Rows of a file that the table has already are replaced.")
        .with(&[Parameter::Prefer])
        .takes_agent(|| sources(false, true))
        .passes_on("The table."),
    ]
}

fn loads() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("data", access, line, id, summary);
    vec![
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/{table}/materialize",
            "materialize",
            "Moves a staging table into the graph",
        )
        .with(&[Parameter::Prefer])
        .takes_agent(|| {
            json!({"type": "object", "properties": {
                "file_ids": {"type": "array", "items": {"type": "string"}, "description": "Only rows of these files."},
                "create_table": {"type": "boolean", "description": "Make the table of the graph if it does not exist."},
                "from_table": {"type": "string", "description": "Node table where a new relationship table begins."},
                "to_table": {"type": "string", "description": "Node table where a new relationship table ends."},
                "incremental": {"type": "boolean", "description": "Accepted; what is in the graph already is always left out."},
                "dry_run": {"type": "boolean", "description": "Change nothing and say what would become of the rows: `rows_acceptable`, `would_fail`, `invalid_columns`, `rejected`."},
            }})
        })
        .answer(
            202,
            "With `Prefer: respond-async`: a task to follow.",
            Some(("application/json", None)),
        )
        .passes_on("How many rows were moved."),
        path(
            READ,
            "get /v1/graphs/{graph}/tables/{table}/rejected",
            "getRejectedRows",
            "Gives the rows that a load left out",
        )
        .with(&[Parameter::Task])
        .answer(
            200,
            "A line of JSON per row: `reason`, `row`.",
            Some(("application/x-ndjson", None)),
        ),
        path(
            WRITE,
            "post /v1/graphs/{graph}/copy",
            "copyFiles",
            "Loads files in the object store straight into a table of the graph",
        )
        .takes_agent(|| sources(true, false))
        .answer(202, "A task to follow.", Some(("application/json", None))),
        path(
            WRITE,
            "post /v1/graphs/{graph}/ingest",
            "ingestFiles",
            "Loads files into several tables of the graph at once",
        )
        .takes_agent(|| {
            json!({"type": "object", "required": ["mode", "pipeline_run_id", "bucket", "files"], "properties": {
                "mode": {"type": "string", "enum": ["async"]},
                "pipeline_run_id": {"type": "string", "description": "Name of the run, chosen by the client."},
                "bucket": {"type": "string", "description": "Without `s3_credentials` one that the operator opened; others are 403."},
                "files": {"type": "array", "minItems": 1, "items": {"type": "string"},
                          "description": "Keys. A file's table is the folder below `nodes/` or `relationships/`, or its name."},
                "table_name": {"type": "string", "description": "One table for all files."},
                "s3_credentials": {"type": "object"},
            }})
        })
        .answer(202, "A task to follow.", Some(("application/json", None))),
        path(
            WRITE,
            "post /v1/graphs/{graph}/rebuild",
            "rebuildGraph",
            "Makes the graph anew from its staging tables",
        )
        .notes("The graph answers queries meanwhile, and is exchanged for the new one at the end.")
        .with(&[Parameter::Prefer])
        .takes_agent(|| json!({"type": "object"}))
        .answer(
            202,
            "With `Prefer: respond-async`: a task to follow.",
            Some(("application/json", None)),
        )
        .passes_on("What was loaded, by table."),
    ]
}

fn vectors() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("data", access, line, id, summary);
    vec![
        path(
            READ,
            "post /v1/graphs/{graph}/embeddings",
            "embedTexts",
            "Turns texts into vectors, with the model of the graph's node",
        )
        .notes("501 if the node has no model.")
        .takes_agent(|| {
            json!({"type": "object", "required": ["texts"], "properties": {
                "texts": {"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "string", "maxLength": 32768}},
            }})
        })
        .passes_on("`model`, `dimension`, and `embeddings` with a vector per text."),
        path(
            READ,
            "get /v1/graphs/{graph}/tables/{table}/vector",
            "getVectors",
            "Shows what is known of the vectors of a table",
        )
        .passes_on("The vectors, or null."),
        path(
            WRITE,
            "delete /v1/graphs/{graph}/tables/{table}/vector",
            "dropVectors",
            "Removes the vectors of a table",
        )
        .passes_on("Done."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/{table}/vector/build",
            "buildVectors",
            "Makes the vectors of a table from a query",
        )
        .with(&[Parameter::Prefer])
        .takes_agent(vector_rows)
        .passes_on("`row_count`, `dimension`, `num_partitions`, `rows_rejected`."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/{table}/vector/append",
            "appendVectors",
            "Adds the rows of a query to the vectors of a table",
        )
        .with(&[Parameter::Prefer])
        .takes_agent(vector_rows)
        .passes_on("`row_count`, `rows_added`, `rows_rejected`."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/tables/{table}/vector/reindex",
            "reindexVectors",
            "Puts all vectors of a table into its index",
        )
        .with(&[Parameter::Prefer])
        .takes_agent(|| {
            json!({"type": "object", "properties": {
                "retrain": {"type": "boolean", "description": "Also when the index fits its rows still."},
            }})
        })
        .passes_on("The vectors."),
        path(
            READ,
            "post /v1/graphs/{graph}/tables/{table}/vector/search",
            "searchVectors",
            "Finds the rows nearest to a vector",
        )
        .takes_agent(|| {
            json!({"type": "object", "required": ["embedding"], "properties": {
                "embedding": {"type": "array", "items": {"type": "number"}},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
                "select": {"type": "array", "items": {"type": "string"}, "description": "Columns of a hit."},
                "filter": {"type": "string", "description": "A condition on the columns."},
                "nprobes": {"type": "integer", "minimum": 1, "description": "Partitions that are looked into."},
                "refine": {"type": "integer", "minimum": 1, "description": "Candidates per hit that are compared exactly."},
                "exact": {"type": "boolean", "description": "Compare every row."},
            }})
        })
        .passes_on("`results`, each with its `distance`, and `total`."),
        path(
            WRITE,
            "post /v1/graphs/{graph}/semantic-memory/rows",
            "addMemories",
            "Adds rows to the semantic memory",
        )
        .takes_agent(|| {
            json!({"type": "object", "required": ["records"], "properties": {
                "records": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            }})
        })
        .passes_on("The rows' ids."),
        path(
            READ,
            "post /v1/graphs/{graph}/semantic-memory/search",
            "searchMemories",
            "Finds the nearest rows of the semantic memory",
        )
        .takes_agent(|| {
            json!({"type": "object", "properties": {
                "embedding": {"type": "array", "items": {"type": "number"}},
                "text": {"type": "string", "description": "In place of `embedding`, if the node has a model."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                "where": {"type": "string", "description": "A condition on the columns."},
                "select_columns": {"type": "array", "items": {"type": "string"}},
            }})
        })
        .passes_on("The rows, each with its distance."),
        path(
            READ,
            "post /v1/graphs/{graph}/semantic-memory/list",
            "listMemories",
            "Lists rows of the semantic memory",
        )
        .takes_agent(|| {
            json!({"type": "object", "properties": {
                "where": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
                "offset": {"type": "integer", "minimum": 0},
            }})
        })
        .passes_on("The rows."),
        path(
            READ,
            "get /v1/graphs/{graph}/semantic-memory/rows/{row}",
            "getMemory",
            "Shows a row of the semantic memory",
        )
        .passes_on("The row."),
        path(
            WRITE,
            "patch /v1/graphs/{graph}/semantic-memory/rows/{row}",
            "changeMemory",
            "Changes a row of the semantic memory",
        )
        .takes_agent(|| json!({"type": "object"}))
        .passes_on("The row."),
        path(
            WRITE,
            "delete /v1/graphs/{graph}/semantic-memory/rows/{row}",
            "deleteMemory",
            "Deletes a row of the semantic memory",
        )
        .passes_on("Done."),
    ]
}

fn tasks() -> Vec<Path> {
    let path = |access, line, id, summary| Path::new("data", access, line, id, summary);
    vec![
        path(
            READ,
            "get /v1/graphs/{graph}/tasks",
            "listTasks",
            "Lists the graph's tasks",
        )
        .with(&[Parameter::TaskStatus, Parameter::TaskType, Parameter::TaskLimit])
        .passes_on("Tasks, the newest first."),
        path(READ, "get /v1/graphs/{graph}/tasks/{task}", "getTask", "Shows a task").passes_on("The task."),
        path(
            WRITE,
            "delete /v1/graphs/{graph}/tasks/{task}",
            "cancelTask",
            "Cancels a task",
        )
        .passes_on("It was asked to stop."),
        path(
            READ,
            "get /v1/graphs/{graph}/tasks/{task}/status",
            "getTaskStatus",
            "Shows a task, as the node's own path has it",
        )
        .passes_on("The task."),
        path(
            READ,
            "get /v1/graphs/{graph}/tasks/{task}/monitor",
            "followTask",
            "Follows a task",
        )
        .answer(200, "A stream of events.", Some(("text/event-stream", None))),
    ]
}

/// Files in the object store.
fn sources(names_table: bool, names_files: bool) -> Value {
    let mut required = vec!["s3_pattern"];
    let mut properties = json!({
        "s3_pattern": {
            "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "One address or a list, with `*`, `**`, `?` and `[a-z]`. Without `s3_credentials` only places that the operator opened; others are 403.",
        },
        "s3_credentials": {"type": "object", "description": "Credentials for these files only: `aws_access_key_id`, `aws_secret_access_key`, and perhaps `aws_session_token`, `region`, `endpoint_url` (a public one)."},
    });
    if names_table {
        required.insert(0, "table_name");
        properties["table_name"] = json!({"type": "string"});
    }
    if names_files {
        properties["file_id_map"] = json!({
            "type": "object", "additionalProperties": {"type": "string"}, "description": "File ids by address.",
        });
    }
    json!({"type": "object", "required": required, "properties": properties})
}

/// Where vectors come from.
fn vector_rows() -> Value {
    json!({"type": "object", "required": ["query"], "properties": {
        "query": {"type": "string", "maxLength": 10000,
                  "description": "Returns `vector` and what a hit should have."},
        "source": {"type": "string", "enum": ["staging", "graph"], "default": "staging",
                   "description": "SQL on the staging tables, or Cypher."},
        "skip_invalid": {"type": "boolean", "description": "Leave out rows without a usable vector."},
    }})
}
