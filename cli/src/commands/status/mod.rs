//! `graphplane status`: tiers, nodes, volumes, graphs and subgraphs as a tree.

mod conditions;
mod draw;
mod snapshot;

use crate::args::{GlobalOptions, OutputFormat, StatusArguments};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Palette};
use snapshot::Snapshot;

/// Shows what there is and how it is.
///
/// # Errors
/// The server cannot be reached, or there is no such graph.
pub async fn run(arguments: &StatusArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let snapshot = Snapshot::take(client, arguments.graph.as_deref()).await?;
    match global.output {
        OutputFormat::Table => {
            let palette = Palette::for_stdout(global.color);
            let title = client.server().api.as_str().trim_end_matches('/').to_owned();
            output::print(&draw::tree(&snapshot, &title, arguments.all, palette).draw())
        }
        OutputFormat::Json => {
            let text = serde_json::to_string_pretty(&snapshot).map_err(|error| Failure::plain(error.to_string()))?;
            output::print(&format!("{text}\n"))
        }
        OutputFormat::Csv | OutputFormat::Ndjson => {
            Err(Failure::usage("`status` prints a tree: its forms are table and json"))
        }
    }
}
