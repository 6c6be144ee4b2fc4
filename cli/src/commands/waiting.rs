//! The end of commands that change something: what was asked for, and with `--wait` how it went.

use crate::args::{GlobalOptions, OutputFormat, WaitOptions};
use crate::client::{Client, Operation, within};
use crate::failure::Failure;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Waits for an accepted operation if that was asked for, and prints it in the end.
///
/// `asked` says what was asked for, such as `graph airports: creation`; `done` what is so when it is done.
pub(super) async fn finish(
    client: &Client,
    operation: Operation,
    options: &WaitOptions,
    global: &GlobalOptions,
    asked: &str,
    done: &str,
) -> Result<(), Failure> {
    if options.wait {
        let spinner = spinner();
        spinner.set_message(operation.message.clone());
        let followed = client.follow(operation, |now| match spinner.is_hidden() {
            true => output::note(format_args!(
                "{}: {}",
                now.resource.name,
                output::printable(&now.message)
            )),
            false => spinner.set_message(output::printable(&now.message)),
        });
        let ended = within(Some(options.timeout), asked, followed).await;
        spinner.finish_and_clear();
        return print(&ended?, global, done);
    }
    print(&operation, global, &format!("{asked} accepted"))
}

fn print(operation: &Operation, global: &GlobalOptions, line: &str) -> Result<(), Failure> {
    match global.output {
        OutputFormat::Table | OutputFormat::Csv => output::print(&format!("{line}\n")),
        OutputFormat::Json | OutputFormat::Ndjson => {
            let text = serde_json::to_string(operation).map_err(|error| Failure::plain(error.to_string()))?;
            output::print(&format!("{text}\n"))
        }
    }
}

/// Something that turns while there is nothing to measure; hidden where nobody looks.
fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
