//! The reference in `docs/cli.md` is what `--help` says.
#![allow(clippy::unwrap_used)]

use clap::{Command, CommandFactory};
use graphplane_cli::args::Arguments;
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- The rest of this page is written by `--help`. -->\n";

/// The help of every command, in the order in which `graphplane --help` lists them.
fn reference() -> String {
    let mut root = Arguments::command().term_width(100);
    root.build();
    let mut text = String::new();
    describe(&root, 0, &mut text);
    text
}

fn describe(command: &Command, depth: usize, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    // Options that every command takes are listed once, at the top.
    let mut shown = command.clone();
    if depth > 0 {
        shown = shown.mut_args(|argument| {
            if argument.is_global_set() {
                argument.hide(true)
            } else {
                argument
            }
        });
    }
    let help = shown.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(text, "\n## `{name}`\n\n```text\n{}\n```", lines.join("\n").trim()).unwrap();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        describe(sub, depth + 1, text);
    }
}

#[test]
fn the_page_shows_what_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, found) = page
        .split_once(BEGIN)
        .expect("docs/cli.md has lost the line before which it is written by hand");
    let expected = reference();
    if found != expected {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli.md");
        std::fs::write(&new, format!("{head}{BEGIN}{expected}")).unwrap();
        let line = found
            .lines()
            .zip(expected.lines())
            .take_while(|(found, expected)| found == expected)
            .count();
        panic!(
            "docs/cli.md differs from --help at `{}`; look at the difference and run: cp {} docs/cli.md",
            expected.lines().nth(line).unwrap_or_default(),
            new.display()
        );
    }
}

#[test]
fn the_help_tells_the_exit_codes_that_are_used() {
    use graphplane_cli::failure::Exit;
    let help = Arguments::command().render_long_help().to_string();
    let codes = help
        .split("Exit codes:")
        .nth(1)
        .unwrap()
        .split("Examples:")
        .next()
        .unwrap();
    for (exit, words) in [
        (Exit::Failure, "failed"),
        (Exit::Usage, "wrong usage"),
        (Exit::NotFound, "not found"),
        (Exit::Timeout, "timed out"),
        (Exit::Unreachable, "server not reachable"),
        (Exit::Denied, "key refused"),
        (Exit::Conflict, "exists already"),
        (Exit::Interrupted, "interrupted"),
    ] {
        assert!(codes.contains(&format!("{} {words}", exit as i32)), "{exit:?}");
    }
}
