//! `graphplane infra`, as a process, against an emulator of AWS.
#![allow(clippy::unwrap_used)]

use graphplane_tests::{Moto, Output, binary, run};
use serde_json::Value;
use std::{process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_secs(120);

fn infra(moto: &Moto, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("graphplane"));
    command
        .arg("infra")
        .args(arguments)
        .args(["--region", "eu-central-1"])
        .env("AWS_ENDPOINT_URL", moto.url())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env_remove("AWS_PROFILE");
    run(&mut command, None, PATIENCE)
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(text).unwrap().as_array().unwrap().clone()
}

#[test]
fn what_an_account_has_once_is_compared_deployed_and_destroyed() {
    let moto = Moto::start();
    let first = rows(&infra(&moto, &["diff", "registries", "-o", "json"]).ok());
    assert!(
        first
            .iter()
            .all(|row| row["action"] == "Add" && row["type"] == "AWS::DynamoDB::Table"),
        "{first:?}"
    );
    assert_eq!(first.len(), 3);
    // A comparison made nothing.
    assert_eq!(infra(&moto, &["destroy", "registries", "--yes"]).code, Some(3));

    // Nobody can be asked.
    let unasked = infra(&moto, &["deploy", "registries"]);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(
        unasked.stderr.contains("AWS::DynamoDB::Table") && unasked.stderr.contains("--yes"),
        "{unasked:?}"
    );

    let made = infra(&moto, &["deploy", "registries", "--yes", "--parameter", "Prefix=first"]);
    assert!(made.stderr.contains("CREATE_COMPLETE"), "{made:?}");
    made.ok();
    // What is not named stays as it is, so there is nothing to do.
    let same = infra(&moto, &["diff", "registries"]).ok();
    assert_eq!(same.trim(), "nothing would be changed");
    let wrong = infra(&moto, &["deploy", "registries", "--yes", "--parameter", "Prefx=x"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("Prefix"), "{wrong:?}");

    let unsure = infra(&moto, &["destroy", "registries"]);
    assert!(
        unsure.code == Some(2) && unsure.stderr.contains("AWS::DynamoDB::Table"),
        "{unsure:?}"
    );
    let gone = infra(&moto, &["destroy", "registries", "--yes"]).ok();
    assert!(gone.contains("is deleted") && gone.contains("kept"), "{gone}");
    assert_eq!(infra(&moto, &["destroy", "registries", "--yes"]).code, Some(3));
}
