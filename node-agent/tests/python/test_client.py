"""The calls of the existing Python client, one test per row of its method table.

The client is httpx with the header X-Graph-API-Key; methods, paths, bodies and forms are those that it sends. The agent, a
bucket for s3:// addresses and a directory of files are made by `tests/agent/python.rs`.
"""

import io
import itertools
import json
import os
import zipfile

import httpx
import pytest
from httpx_sse import connect_sse

DDL = (
    "CREATE NODE TABLE Person(identifier INT64 PRIMARY KEY, name STRING);"
    "CREATE REL TABLE KNOWS(FROM Person TO Person, weight DOUBLE);"
)
CREDENTIALS = {
    "aws_access_key_id": "client",
    "aws_secret_access_key": "secret",
    "endpoint_url": os.environ["BUCKET_URL"],
    "region": "us-east-1",
}
PEOPLE = "s3://lake/people-*.parquet"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def client():
    headers = {"X-Graph-API-Key": os.environ["GRAPH_API_KEY"]}
    with httpx.Client(base_url=os.environ["AGENT_URL"], headers=headers, timeout=120) as client:
        yield client


@pytest.fixture
def graph(client):
    """A database of its own, gone after the test."""
    graph_id = f"kg{next(NUMBERS)}"
    create(client, graph_id)
    yield graph_id
    client.delete(f"/databases/{graph_id}")


def ok(response):
    assert response.is_success, f"{response.status_code}: {response.text}"
    return response.json()


def create(client, graph_id, **fields):
    body = {
        "graph_id": graph_id,
        "schema_type": "custom",
        "repository_name": None,
        "custom_schema_ddl": DDL,
        "is_subgraph": False,
        **fields,
    }
    return ok(client.post("/databases", json=body))


def query(client, graph_id, cypher, parameters=None):
    body = {"cypher": cypher, "database": graph_id}
    if parameters:
        body["parameters"] = parameters
    return ok(client.post(f"/databases/{graph_id}/query", json=body))


def count(client, graph_id, pattern="(p:Person)"):
    return query(client, graph_id, f"MATCH {pattern} RETURN count(*) AS n")["data"][0]["n"]


def stage(client, graph_id, table="Person", pattern=PEOPLE, **fields):
    body = {
        "graph_id": graph_id,
        "table_name": table,
        "s3_pattern": pattern,
        "s3_credentials": CREDENTIALS,
        **fields,
    }
    return ok(client.post(f"/databases/{graph_id}/tables", json=body))


def follow(client, task_id):
    """Events of a task until it ends: their names, and the data of the last one."""
    names = []
    with connect_sse(client, "GET", f"/tasks/{task_id}/monitor") as source:
        source.response.raise_for_status()
        for event in source.iter_sse():
            names.append(event.event)
            data = json.loads(event.data)
            if event.event in ("completed", "failed", "error"):
                break
    assert names[0] == "connected"
    assert set(names[1:-1]) <= {"progress", "heartbeat"}
    return names[-1], data


# health_check, get_info, get_metrics


def test_the_node_says_how_it_is(client):
    assert ok(client.get("/health"))["status"] == "healthy"
    info = ok(client.get("/info"))
    assert info["node_type"] == "writer" and info["read_only"] is False
    assert info["max_databases"] == info["configuration"]["max_databases"]
    metrics = ok(client.get("/metrics", headers={"Accept": "application/json"}))
    assert metrics["system"]["memory"]["total_gb"] > 0


# query, execute_query, execute_single, execute_ddl, node_exists


def test_queries(client, graph):
    query(client, graph, "CREATE (:Person {identifier: $id, name: $name})", {"id": 1, "name": "Ada"})
    answer = query(client, graph, "MATCH (p:Person) RETURN p.identifier AS id, p.name AS name")
    assert answer["data"] == [{"id": 1, "name": "Ada"}]
    assert answer["columns"] == ["id", "name"] and answer["row_count"] == 1
    assert answer["database"] == graph
    query(client, graph, "CREATE NODE TABLE City(name STRING PRIMARY KEY)")
    exists = "MATCH (p:Person {identifier: $id}) RETURN count(p) > 0 AS found"
    assert query(client, graph, exists, {"id": 1})["data"] == [{"found": True}]
    refused = client.post(f"/databases/{graph}/query", json={"cypher": "MATCH", "database": graph})
    assert refused.status_code == 400 and "parsing" in refused.json()["detail"]


def test_streamed_queries(client, graph):
    body = {"cypher": "UNWIND range(1, 25000) AS i RETURN i", "database": graph}
    path = f"/databases/{graph}/query"
    with client.stream("POST", path, params={"streaming": "true"}, json=body) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        chunks = [json.loads(line) for line in response.iter_lines() if line]
    assert [row["i"] for chunk in chunks for row in chunk["data"]] == list(range(1, 25001))
    assert chunks[0]["columns"] == ["i"]
    assert [chunk["is_last_chunk"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["total_rows_sent"] == 25000
    body["cypher"] = "MATCH (n:Absent) RETURN n"
    failed = client.post(path, params={"streaming": "true"}, json=body)
    (chunk,) = (json.loads(line) for line in failed.text.splitlines())
    assert failed.status_code == 200 and chunk["is_last_chunk"] and chunk["error_type"].endswith("Exception")


# list_databases, get_database, database_exists, ensure_database_exists


def test_databases_are_listed(client, graph):
    listed = ok(client.get("/databases"))
    assert graph in [database["graph_id"] for database in listed["databases"]]
    assert listed["total_databases"] == len(listed["databases"])
    assert ok(client.get(f"/databases/{graph}"))["is_healthy"] is True
    assert client.get("/databases/absent").status_code == 404


# create_database, delete_database


def test_databases_are_made_and_deleted(client):
    made = create(client, "made")
    assert made["status"] == "success" and made["schema_applied"] is True
    again = client.post("/databases", json={"graph_id": "made", "schema_type": "entity"})
    assert again.status_code == 409
    create(client, "made_dev", custom_schema_ddl=None, is_subgraph=True)
    for graph_id in ("made_dev", "made"):
        assert ok(client.delete(f"/databases/{graph_id}"))["status"] == "success"
    assert client.get("/databases/made").status_code == 404


# install_schema


def test_schemas_are_installed(client, graph):
    ddl = {"type": "ddl", "ddl": "CREATE NODE TABLE City(name STRING PRIMARY KEY);"}
    installed = ok(client.post(f"/databases/{graph}/schema", json=ddl))
    assert installed["success"] is True and installed["statements_executed"] == 1
    custom = {"type": "custom", "metadata": {"base_schema": "entity", "extensions": []}}
    assert client.post(f"/databases/{graph}/schema", json=custom).status_code == 400


# get_schema, get_database_metrics


def test_schemas_and_figures_are_shown(client, graph):
    schema = ok(client.get(f"/databases/{graph}/schema"))
    assert schema["node_tables"] == ["Person"] and schema["rel_tables"] == ["KNOWS"]
    (person,) = (table for table in schema["tables"] if table["name"] == "Person")
    assert [field["name"] for field in person["properties"]] == ["identifier", "name"]
    metrics = ok(client.get(f"/databases/{graph}/metrics"))
    assert metrics["node_count"] == 0 and metrics["relationship_count"] == 0


# create_table, list_tables, query_table, delete_table, delete_file_data


def test_staging_tables(client, graph):
    first = "s3://lake/people-1.parquet"
    made = stage(client, graph, file_id_map={first: "file-1"})
    assert made["status"] == "success" and made["table_name"] == "Person"
    (table,) = ok(client.get(f"/databases/{graph}/tables"))
    assert table["table_name"] == "Person" and table["row_count"] == 20
    sql = {"graph_id": graph, "sql": "SELECT count(*) AS n FROM Person WHERE identifier >= ?", "parameters": [10]}
    answer = ok(client.post(f"/databases/{graph}/tables/query", json=sql))
    assert answer["columns"] == ["n"] and answer["rows"] == [[10]] and answer["row_count"] == 1
    gone = ok(client.delete(f"/databases/{graph}/tables/Person/files/file-1"))
    assert gone["status"] == "success" and gone["rows_deleted"] == 10
    assert ok(client.delete(f"/databases/{graph}/tables/Person"))["status"] == "success"
    assert ok(client.get(f"/databases/{graph}/tables")) == []


def test_staging_tables_are_streamed(client, graph):
    stage(client, graph)
    path = f"/databases/{graph}/tables/query"
    body = {"graph_id": graph, "sql": "SELECT identifier FROM Person ORDER BY identifier"}
    lines = client.post(path, params={"streaming": "true", "chunk_size": 10}, json=body)
    chunks = [json.loads(line) for line in lines.text.splitlines()]
    assert [row[0] for chunk in chunks for row in chunk["rows"]] == list(range(20))
    assert len(chunks) == 2 and chunks[-1]["is_last_chunk"] is True
    with connect_sse(client, "POST", path, json=body) as source:
        assert source.response.headers["x-stream-format"] == "sse"
        events = [(event.event, json.loads(event.data)) for event in source.iter_sse()]
    names = [name for name, _ in events]
    assert names[0] == "started" and "chunk" in names and names[-1] == "completed"
    assert events[-1][1]["total_rows"] == 20


# materialize_table, fork_from_parent


def test_tables_are_materialized_and_graphs_forked(client, graph):
    stage(client, graph)
    path = f"/databases/{graph}/tables/Person/materialize"
    loaded = ok(client.post(path, json={"ignore_errors": True, "file_ids": None}))
    assert loaded["status"] == "success" and loaded["rows_ingested"] == 20
    again = ok(client.post(path, json={"ignore_errors": True, "file_ids": None}))
    assert again["rows_ingested"] == 0 and count(client, graph) == 20
    child = f"{graph}_dev"
    create(client, child, custom_schema_ddl=None, is_subgraph=True)
    body = {"tables": [], "ignore_errors": True}
    forked = ok(client.post(f"/databases/{child}/tables/{child}/fork-from/{graph}", json=body))
    assert forked["status"] == "success" and forked["parent_graph_id"] == graph
    assert forked["total_rows"] == 20 and count(client, child) == 20
    ok(client.delete(f"/databases/{child}"))


# create_backup, backup_with_sse, download_backup, restore_backup, restore_with_sse


def test_backups_are_made_downloaded_and_restored(client, graph):
    query(client, graph, "CREATE (:Person {identifier: 1, name: 'Ada'})")
    body = {"backup_format": "full_dump", "include_metadata": True, "compression": True, "encryption": False}
    started = ok(client.post(f"/databases/{graph}/backup", json=body))
    assert started["status"] == "initiated"
    assert started["monitor_url"] == f"/tasks/{started['task_id']}/monitor"
    name, event = follow(client, started["task_id"])
    assert name == "completed", event
    query(client, graph, "CREATE (:Person {identifier: 2, name: 'Bob'})")

    zipped = client.post(f"/databases/{graph}/backup-download")
    assert zipped.headers["content-type"] == "application/zip"
    assert zipped.headers["x-backup-format"] == "full_dump"
    assert f"{graph}_backup.zip" in zipped.headers["content-disposition"]
    assert f"{graph}.lbug" in zipfile.ZipFile(io.BytesIO(zipped.content)).namelist()

    form = {
        "s3_bucket": "backups",
        "s3_key": event["result"]["key"],
        "create_system_backup": "true",
        "force_overwrite": "false",
        "encrypted": "true",
        "compressed": "true",
    }
    assert client.post(f"/databases/{graph}/restore", data=form).status_code == 409
    form["force_overwrite"] = "true"
    restore = ok(client.post(f"/databases/{graph}/restore", data=form))
    assert restore["status"] == "initiated" and restore["system_backup_created"] is True
    name, event = follow(client, restore["task_id"])
    assert name == "completed", event
    assert count(client, graph) == 1


# ingest_with_sse


def test_files_are_copied_into_the_graph(client, graph):
    body = {
        "s3_pattern": PEOPLE,
        "table_name": "Person",
        "s3_credentials": CREDENTIALS,
        "ignore_errors": True,
    }
    response = client.post(f"/databases/{graph}/copy", json=body)
    started = ok(response)
    assert started["status"] == "started"
    assert started["sse_url"] == f"/tasks/{started['task_id']}/monitor"
    name, event = follow(client, started["task_id"])
    assert name == "completed" and event["result"]["records_loaded"] == 20
    assert count(client, graph) == 20


# get_task_status, list_tasks


def test_tasks_are_shown(client, graph):
    task_id = ok(client.post(f"/databases/{graph}/backup", json={}))["task_id"]
    follow(client, task_id)
    assert ok(client.get(f"/tasks/{task_id}/status"))["status"] == "completed"
    listed = ok(client.get("/tasks", params={"status": "completed", "task_type": "backup", "limit": 1000}))
    assert task_id in [task["task_id"] for task in listed]
    assert client.get("/tasks/absent/status").status_code == 404


# ingest, cancel_task, get_queue_info, export_database: the old server has none of these


def test_a_file_is_ingested(client, graph):
    body = {
        "file_path": os.path.join(os.environ["IMPORT_DIR"], "people-1.parquet"),
        "table_name": "Person",
        "ignore_errors": True,
    }
    loaded = ok(client.post(f"/databases/{graph}/ingest", json=body))
    assert loaded["status"] == "success" and loaded["records_loaded"] == 10
    assert count(client, graph) == 10


def test_tasks_are_cancelled(client, graph):
    # The bucket takes the request and never answers it.
    body = {
        "s3_pattern": "s3://lake/silent/people.parquet",
        "table_name": "Person",
        "s3_credentials": CREDENTIALS,
    }
    task_id = ok(client.post(f"/databases/{graph}/copy", json=body))["task_id"]
    queue = ok(client.get("/tasks/queue/info"))
    assert task_id in [task["task_id"] for task in queue["tasks"]]
    assert ok(client.delete(f"/tasks/{task_id}"))["status"] == "cancelling"
    name, event = follow(client, task_id)
    assert name == "failed" and event["status"] == "cancelled"
    assert client.delete(f"/tasks/{task_id}").status_code == 409


def test_a_database_is_exported(client, graph):
    exported = client.get(f"/databases/{graph}/backup")
    assert exported.status_code == 200 and exported.headers["content-type"] == "application/zip"
    names = zipfile.ZipFile(io.BytesIO(exported.content)).namelist()
    assert f"{graph}.lbug" in names and "manifest.json" in names
