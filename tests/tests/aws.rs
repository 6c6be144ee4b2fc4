//! What runs on AWS, held to an independent emulator of it: the CloudFormation templates, and what a machine does when it
//! starts. The tests are programs in Python (`tests/python`), since the emulator and the linter are.

use graphplane_tests::{repository, run};
use std::{process::Command, time::Duration};

// The first run makes the environment.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn templates_and_machines_are_what_they_should_be() {
    let folder = repository().join("tests/python");
    let mut venv = Command::new(repository().join("scripts/venv.sh"));
    venv.arg(folder.join("requirements.txt"));
    let venv = run(&mut venv, None, PATIENCE).ok();
    let mut pytest = Command::new(format!("{}/bin/python", venv.trim()));
    pytest
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(&folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut pytest, None, PATIENCE).ok();
}
