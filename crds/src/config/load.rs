//! From the text of a configuration to the model.

use super::cross;
use super::error::{ConfigError, Problem};
use super::form;
use super::model::Config;
use super::tree::Node;

/// The configuration that this crate was built with.
const BUILT_IN: &str = include_str!("../../../config/graph.yml");

impl Config {
    /// The configuration of the repository, `config/graph.yml`.
    ///
    /// # Errors
    /// Never in a build that passed its tests.
    pub fn built_in() -> Result<Self, ConfigError> {
        Self::parse("config/graph.yml", BUILT_IN)
    }

    /// Reads a configuration; `file` is how errors name it.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each problem with its line, column, path, value and what was expected.
    /// Rules across fields are looked at once every field by itself is right.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let fail = |mut problems: Vec<Problem>| {
            problems.sort();
            Err(ConfigError {
                file: file.to_owned(),
                problems,
            })
        };
        // YAML 1.1's `yes` and `off` are texts here: a figure file has no use for four spellings of a boolean.
        let options = serde_saphyr::options! { strict_booleans: true };
        let tree: Node = match serde_saphyr::from_str_with_options(text, options) {
            Ok(tree) => tree,
            Err(error) => return fail(vec![syntax_problem(&error)]),
        };
        let problems = form::check(&tree);
        if !problems.is_empty() {
            return fail(problems);
        }
        let config: Self = match serde_json::from_value(tree.to_json()) {
            Ok(config) => config,
            Err(error) => {
                let (found, expected) = (
                    format!("cannot be read: {error}"),
                    "the form of config/graph.yml".to_owned(),
                );
                return fail(vec![Problem {
                    line: 0,
                    column: 0,
                    path: String::new(),
                    found,
                    expected,
                }]);
            }
        };
        let problems = cross::check(&config, &tree);
        if problems.is_empty() {
            Ok(config)
        } else {
            fail(problems)
        }
    }
}

fn syntax_problem(error: &serde_saphyr::Error) -> Problem {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    Problem {
        line,
        column,
        path: String::new(),
        found: format!(
            "is not valid YAML: {}",
            first_line(&error.without_snippet().to_string())
        ),
        expected: "a YAML map".to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
