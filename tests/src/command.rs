//! Running a program to its end, with a bound on time and a readable failure.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit status; `None` if it was stopped because it took too long.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{}\nstdout: {}\nstderr: {}",
            self.command,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Standard error and output of a program that must have failed.
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(
            matches!(self.code, Some(code) if code != 0),
            "{} succeeded: {}",
            self.command,
            self.stdout
        );
        format!("{}{}", self.stderr, self.stdout)
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks because the program was stopped still gives what was read so far.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs `command` for at most `limit`; a program that takes longer is killed.
pub fn run(command: &mut Command, stdin: Option<&str>, limit: Duration) -> Output {
    let line = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        use std::io::Write;
        pipe.write_all(text.as_bytes())
            .expect("a program reads its standard input");
    }
    let stdout = drain(child.stdout.take().expect("stdout is a pipe"));
    let stderr = drain(child.stderr.take().expect("stderr is a pipe"));
    let deadline = Instant::now() + limit;
    let code = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status.code(),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Output {
        command: line,
        code,
        stdout: stdout.join().expect("reader does not panic"),
        stderr: stderr.join().expect("reader does not panic"),
    }
}
