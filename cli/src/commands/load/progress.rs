//! How far a load is: bars on a terminal, lines elsewhere.

use crate::output::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

/// Shows how far a load is, on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    bars: bool,
}

impl Progress {
    /// Bars if standard error is a terminal.
    pub(super) fn for_stderr() -> Self {
        Self {
            bars: std::io::stderr().is_terminal(),
        }
    }

    /// A bar for an upload of so many bytes.
    pub(super) fn upload(self, name: &str, bytes: u64) -> Bar {
        self.bar(
            name,
            bytes,
            "{msg:24!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {prefix}",
        )
    }

    /// A bar for so many rows.
    pub(super) fn rows(self, name: &str, rows: u64) -> Bar {
        self.bar(
            name,
            rows,
            "{msg:24!} [{bar:30}] {human_pos}/{human_len} rows {per_sec} {prefix}",
        )
    }

    fn bar(self, name: &str, length: u64, template: &str) -> Bar {
        if !self.bars {
            return Bar(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(bar)
    }
}

/// One bar; it disappears when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// So much is done of so much.
    pub(super) fn set(&self, done: u64, of: u64) {
        self.0.set_length(of.max(done));
        self.0.set_position(done);
    }

    /// What happens now.
    pub(super) fn stage(&self, what: &'static str) {
        self.0.set_prefix(what);
    }

    /// A handle for another task.
    pub(super) fn handle(&self) -> ProgressBar {
        self.0.clone()
    }

    /// Removes the bar and leaves a line in its place.
    pub(super) fn end(self, line: impl Display) {
        self.0.finish_and_clear();
        note(line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bars_count_and_their_templates_are_valid() {
        let progress = Progress { bars: true };
        let bar = progress.rows("Airport", 10);
        bar.set(4, 12);
        bar.handle().inc(1);
        assert_eq!((bar.0.position(), bar.0.length()), (5, Some(12)));
        for template in [
            "{msg:24!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {prefix}",
            "{human_pos}/{human_len} {per_sec}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
