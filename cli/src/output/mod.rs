//! What commands print.

mod cell;
mod color;
mod number;
mod rows;
mod table;
mod tree;

pub use cell::printable;
pub use color::{Paint, Palette};
pub use number::{bytes, grouped};
pub use rows::{RowWriter, Summary, row_writer};
pub use table::{Align, plain_table};
pub use tree::Tree;

use crate::failure::Failure;
use std::io::Write;

/// Writes a text to standard output.
///
/// # Errors
/// Standard output is closed or full.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// Writes a line to standard error, for people; a closed standard error is no reason to stop.
pub fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
