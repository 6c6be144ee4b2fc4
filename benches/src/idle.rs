//! Memory at rest.

use crate::{Result, agent::Agent, machine::resident_mib, plane::Plane};
use std::{path::Path, time::Duration};

/// Prints resident memory of the control plane and of an agent with one empty database.
pub(crate) async fn run(bin: &Path) -> Result<()> {
    let plane = Plane::start(bin).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "| operator + api + embedded server, idle | {:.0} MiB |",
        resident_mib(plane.pid())?
    );
    drop(plane);
    let agent = Agent::start(bin).await?;
    let create = serde_json::json!({
        "graph_id": "kg0000000000000001", "schema_type": "custom",
        "custom_schema_ddl": "CREATE NODE TABLE N(id INT64 PRIMARY KEY);",
    });
    agent.post("/databases", &create).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "| agent with one empty database, idle | {:.0} MiB |",
        resident_mib(agent.pid())?
    );
    Ok(())
}
