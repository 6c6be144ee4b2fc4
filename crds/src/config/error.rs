//! What is wrong with a configuration file.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1; 0 where it is not known.
    pub line: u64,
    /// Column, from 1; 0 where it is not known.
    pub column: u64,
    /// Path of the field, such as `production.tiers[2].memory.nodeMiB`; empty for the file as a whole.
    pub path: String,
    /// What is there, in words: `is 4096`, `is missing`.
    pub found: String,
    /// What was expected, in words: `an integer from 1 to 65536`.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        write!(f, "{path} {}; expected {}", self.found, self.expected)
    }
}

/// A configuration file that cannot be used; it holds every problem that was found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    /// One line per problem, in the form `file:line:column: path …` that editors and CI turn into links.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match problem.line {
                0 => write!(f, "{}: {problem}", self.file)?,
                line => write!(f, "{}:{line}:{}: {problem}", self.file, problem.column)?,
            }
        }
        Ok(())
    }
}
