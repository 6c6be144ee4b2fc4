//! Colours, where there is somebody to see them.

use crate::args::ColorChoice;
use std::io::IsTerminal;

/// What a text means; the palette decides how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// Unfinished, or worth a look.
    Busy,
    /// Wrong.
    Bad,
    /// Less important than the rest.
    Dim,
    /// A name.
    Strong,
}

/// Whether texts are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    on: bool,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Self = Self { on: false };

    /// For standard output: as the user chose, else on a terminal where `NO_COLOR` is not set.
    pub fn for_stdout(choice: ColorChoice) -> Self {
        let automatic = || std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self {
            on: match choice {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => automatic(),
            },
        }
    }

    /// The text in its colour.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Busy => "33",
            Paint::Bad => "31",
            Paint::Dim => "2",
            Paint::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_added_only_where_they_are_on() {
        assert_eq!(Palette::PLAIN.paint(Paint::Bad, "x"), "x");
        assert_eq!(Palette::for_stdout(ColorChoice::Never), Palette::PLAIN);
        assert_eq!(
            Palette::for_stdout(ColorChoice::Always).paint(Paint::Bad, "x"),
            "\u{1b}[31mx\u{1b}[0m"
        );
    }
}
