//! The log of `graphplane up`: JSON lines in the data directory, short lines on stderr.

use crate::args::LogFormat;
use crate::failure::Failure;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// Beyond this size the log of earlier runs is set aside at the next start, as `graphplane.log.1`.
const KEEP_BYTES: u64 = 64 << 20;

/// What goes to the file when `GRAPHPLANE_LOG` does not say: our own crates in full, libraries from warnings on.
const FILE_FILTER: &str =
    "warn,graphplane=info,graphplane_cli=info,graphplane_api=info,graphplane_operator=info,graphplane_embedded=info";

/// What goes to stderr when `GRAPHPLANE_LOG` does not say: what somebody at the terminal should act on.
const STDERR_FILTER: &str = "warn,graphplane_cli=info,graphplane_operator=info";

/// Starts logging of this process; `GRAPHPLANE_LOG` overrides the filter of both logs, in the form of `RUST_LOG`.
///
/// # Errors
/// The log file cannot be opened, `GRAPHPLANE_LOG` is not a filter, or logging was started before.
pub(super) fn start(path: &Path, format: LogFormat) -> Result<(), Failure> {
    let chosen = std::env::var("GRAPHPLANE_LOG").ok().filter(|text| !text.is_empty());
    let filter = |default: &str| {
        let text = chosen.as_deref().unwrap_or(default);
        EnvFilter::builder()
            .with_default_directive(LevelFilter::WARN.into())
            .parse(text)
            .map_err(|error| {
                Failure::usage(format!("GRAPHPLANE_LOG={text} is not a log filter: {error}"))
                    .advise("write it like `info` or `warn,graphplane_operator=debug`")
            })
    };
    let file = open(path, KEEP_BYTES)?;
    let to_file: Box<dyn Layer<Registry> + Send + Sync> = Box::new(
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(Mutex::new(file))
            .with_filter(filter(FILE_FILTER)?),
    );
    let to_stderr: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            Box::new(layer.with_filter(filter(STDERR_FILTER)?))
        }
        LogFormat::Text => {
            use std::io::IsTerminal;
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = fmt::layer()
                .compact()
                .with_target(false)
                .with_ansi(ansi)
                .with_writer(std::io::stderr);
            Box::new(layer.with_filter(filter(STDERR_FILTER)?))
        }
    };
    tracing_subscriber::registry()
        .with(vec![to_stderr, to_file])
        .try_init()
        .map_err(|error| Failure::plain(format!("starting the log: {error}")))
}

/// Opens the log for appending; one larger than `keep` bytes is set aside first.
fn open(path: &Path, keep: u64) -> Result<File, Failure> {
    let fail = |error| Failure::io(format_args!("opening the log {}", path.display()), &error);
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > keep) {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        std::fs::rename(path, older).map_err(fail)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(fail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn a_large_log_is_set_aside_once() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("graphplane.log");
        open(&path, 4).unwrap().write_all(b"first").unwrap();
        open(&path, 4).unwrap().write_all(b"2nd").unwrap();
        open(&path, 4).unwrap().write_all(b"!").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2nd!");
        assert_eq!(
            std::fs::read_to_string(root.path().join("graphplane.log.1")).unwrap(),
            "first"
        );
    }

    #[test]
    fn the_default_filters_are_valid() {
        for text in [FILE_FILTER, STDERR_FILTER] {
            EnvFilter::builder().parse(text).unwrap();
        }
    }
}
