//! `graphplane load`: Parquet files into staging tables, and from there into the graph.

mod plan;
mod progress;
mod report;
mod transfer;

use crate::args::{GlobalOptions, LoadArguments};
use crate::client::{Client, within};
use crate::duration::human;
use crate::failure::Failure;
use crate::output::{bytes, grouped};
use progress::Progress;
use report::{Rejected, TableReport};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Loads the files of a command.
///
/// # Errors
/// A file cannot be loaded, which is said before anything is sent where it can be seen; the server refuses one; or a
/// table cannot be filled. Tables that were filled before stay filled, and loading again leaves out what is there.
pub async fn run(arguments: &LoadArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let sources = plan::sources(arguments)?;
    let reports = within(arguments.timeout, "the load", work(arguments, client, &sources)).await?;
    report::print(&reports, global.output)
}

async fn work(
    arguments: &LoadArguments,
    client: &Client,
    sources: &[plan::Source],
) -> Result<Vec<TableReport>, Failure> {
    let progress = Progress::for_stderr();
    let mut staged = Vec::new();
    let mut seconds: HashMap<String, Duration> = HashMap::new();
    for source in sources {
        let started = Instant::now();
        let bar = progress.upload(&source.file_id, source.bytes);
        bar.stage("sending");
        let file = transfer::stage(client, &arguments.graph, source, &bar).await?;
        let took = started.elapsed();
        *seconds.entry(source.table.to_string()).or_default() += took;
        bar.end(format_args!(
            "staged {}: {} rows, {} in {}",
            source.file_id,
            grouped(file.row_count),
            bytes(source.bytes),
            human(took)
        ));
        staged.push((source.table.clone(), source.file_id.clone(), file.kind, file.row_count));
    }
    let mut reports = Vec::new();
    for table in plan::tables(staged) {
        let name = table.name.to_string();
        let mut report = TableReport {
            kind: table.kind.clone(),
            files: table.file_ids.len(),
            rows_staged: table.rows,
            rows_loaded: None,
            rejected: Rejected::default(),
            ignored: Vec::new(),
            seconds: 0.0,
            table: name.clone(),
        };
        let mut took = seconds.remove(&name).unwrap_or_default();
        if !arguments.stage_only {
            let started = Instant::now();
            let loaded = transfer::load(client, arguments, &table, progress).await?;
            took += started.elapsed();
            let made = if loaded.created_table { " (table created)" } else { "" };
            crate::output::note(format_args!(
                "loaded {name}: {} rows in {}{made}",
                grouped(loaded.rows_ingested),
                human(started.elapsed())
            ));
            report.kind = loaded.kind.unwrap_or(report.kind);
            report.rows_loaded = Some(loaded.rows_ingested);
            report.rejected = loaded.rejected;
            report.ignored = loaded.ignored_columns;
        }
        report.seconds = took.as_secs_f64();
        reports.push(report);
    }
    Ok(reports)
}
