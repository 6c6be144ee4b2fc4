//! Prints the OpenAPI document of the agent; `make generate` keeps it in `node-agent/openapi.json`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(graphplane_node_agent::http::openapi::text().as_bytes())
}
