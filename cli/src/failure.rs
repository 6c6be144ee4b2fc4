//! What the command line says and returns when something went wrong.

use std::fmt;

/// The exit codes, as `graphplane --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failure = 1,
    /// The command line, or a file named on it, is wrong.
    Usage = 2,
    /// What the command names does not exist.
    NotFound = 3,
    /// It took longer than `--timeout` allows.
    Timeout = 4,
    /// The server cannot be reached.
    Unreachable = 5,
    /// The server refuses the key.
    Denied = 6,
    /// It exists already, or somebody else changed it meanwhile.
    Conflict = 7,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
    /// Whoever read the output has gone, as `head` does; 128 + SIGPIPE, as shells show it.
    ClosedOutput = 141,
}

/// An error for people: what happened, to what, and in a second line what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Failure {
    /// An error with a code and no advice.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            advice: None,
        }
    }

    /// An error without a code of its own.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// The command line, or a file named on it, is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The output cannot be written. Nothing is said when its reader has gone, since there is nobody to read it and
    /// nothing is wrong.
    pub fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::new(Exit::ClosedOutput, ""),
            _ => Self::io("writing the output", error),
        }
    }

    /// An error of the operating system while `doing` something, such as `reading /etc/x`.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::plain(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_a_second_line() {
        let failure = Failure::new(Exit::NotFound, "there is no graph `x`").advise("see `graphplane status`");
        assert_eq!(failure.to_string(), "there is no graph `x`\n  see `graphplane status`");
        assert_eq!(failure.exit as i32, 3);
    }
}
