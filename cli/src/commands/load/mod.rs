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
/// table cannot be filled. Tables that were filled before stay filled, and loading again leaves out what is there. Of a
/// dry run also that a load would fail.
pub async fn run(arguments: &LoadArguments, global: &GlobalOptions, client: &Client) -> Result<(), Failure> {
    let sources = plan::sources(arguments)?;
    let reports = within(arguments.timeout, "the load", async {
        let outcome = work(arguments, client, &sources).await;
        if arguments.dry_run {
            let removed = unstage(arguments, client, &sources).await;
            return outcome.and_then(|reports| removed.map(|()| reports));
        }
        outcome
    });
    let reports = reports.await?;
    report::print(&reports, global.output)?;
    report::check(&reports)
}

/// Leaves the staging tables as they were before a dry run.
async fn unstage(arguments: &LoadArguments, client: &Client, sources: &[plan::Source]) -> Result<(), Failure> {
    for source in sources {
        transfer::unstage(client, &arguments.graph, source).await?;
    }
    Ok(())
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
            rows_acceptable: None,
            rejected: Rejected::default(),
            invalid_columns: Vec::new(),
            ignored: Vec::new(),
            seconds: 0.0,
            table: name.clone(),
        };
        let mut took = seconds.remove(&name).unwrap_or_default();
        if !arguments.stage_only {
            let started = Instant::now();
            let loaded = transfer::load(client, arguments, &table, progress).await?;
            took += started.elapsed();
            let (done, rows) = match loaded.rows_acceptable {
                Some(rows) => ("checked", rows),
                None => ("loaded", loaded.rows_ingested),
            };
            let made = if loaded.created_table { " (table created)" } else { "" };
            crate::output::note(format_args!(
                "{done} {name}: {} rows in {}{made}",
                grouped(rows),
                human(started.elapsed())
            ));
            report.kind = loaded.kind.unwrap_or(report.kind);
            report.rows_loaded = loaded.rows_acceptable.is_none().then_some(loaded.rows_ingested);
            report.rows_acceptable = loaded.rows_acceptable;
            report.invalid_columns = loaded.invalid_columns;
            report.rejected = loaded.rejected;
            report.ignored = loaded.ignored_columns;
        }
        report.seconds = took.as_secs_f64();
        reports.push(report);
    }
    Ok(reports)
}
