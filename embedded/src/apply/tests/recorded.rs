//! Answers of Kubernetes' own field manager (k8s.io/apimachinery 0.35, structured-merge-diff 6.3) to random sequences
//! of applies and updates by several managers, with and without force, for the object and its status, while the schema
//! changes between two forms. Each step is one request with the stored object, and the object, the conflicts or the error
//! that Kubernetes answered with. The steps kept here are a sample of some 30,000, chosen to have every kind of outcome.

use super::*;
use crate::apply::json_order::equal;
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
struct Recording {
    schemas: Vec<Value>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Step {
    schema: usize,
    op: String,
    live: Option<Value>,
    object: Value,
    manager: String,
    #[serde(default)]
    force: bool,
    subresource: Option<String>,
    now: String,
    result: Option<Value>,
    #[serde(default)]
    conflicts: Vec<Cause>,
    message: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug, Clone)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

impl Step {
    fn answer(&self, schema: &Value) -> Result<Value, ApplyError> {
        let subresource = self.subresource.as_deref();
        if self.op == "apply" {
            return apply(
                self.live.as_ref(),
                &self.object,
                &self.manager,
                self.force,
                schema,
                subresource,
                &self.now,
            );
        }
        let mut new = self.object.clone();
        update_managed_fields(
            self.live.as_ref(),
            &mut new,
            &self.manager,
            schema,
            subresource,
            &self.now,
        );
        Ok(new)
    }

    /// What differs from the recorded answer, if anything does.
    fn difference(&self, schema: &Value) -> Option<String> {
        match self.answer(schema) {
            Ok(object) => {
                let expected = self.result.clone().unwrap_or_default();
                (!equal(&object, &expected)).then(|| format!("expected {expected}\n but got {object}"))
            }
            Err(ApplyError::Conflict(conflicts)) => {
                let causes: BTreeSet<_> = conflicts
                    .iter()
                    .map(|conflict| Cause {
                        reason: "FieldManagerConflict".to_owned(),
                        message: conflict.message(),
                        field: conflict.field.clone(),
                    })
                    .collect();
                let expected: BTreeSet<_> = self.conflicts.iter().cloned().collect();
                let message = ApplyError::Conflict(conflicts).to_string();
                let same = causes == expected && Some(&message) == self.message.as_ref();
                (!same).then(|| {
                    format!(
                        "expected {:?} {expected:?}\n but got {message:?} {causes:?}",
                        self.message
                    )
                })
            }
            Err(other) => {
                // Kubernetes stops at the first undeclared field of a map, and visits fields in any order.
                let (message, expected) = (other.to_string(), self.error.clone().unwrap_or_default());
                let lines: BTreeSet<_> = message.lines().map(str::trim).collect();
                let same = message == expected
                    || expected
                        .lines()
                        .filter(|line| line.starts_with("  "))
                        .all(|line| lines.contains(line.trim()))
                        && expected.lines().count() > 1
                    || expected
                        .split_once("): ")
                        .is_some_and(|(_, only)| lines.contains(only) && message.contains("errors:"));
                (!same).then(|| format!("expected {expected:?}\n but got {message:?}"))
            }
        }
    }
}

#[test]
fn every_recorded_answer_is_given() {
    let recording: Recording = serde_json::from_str(include_str!("recorded.json")).unwrap();
    assert!(
        recording.steps.len() > 200,
        "the recording is cut short: {} steps",
        recording.steps.len()
    );
    let differences: Vec<_> = recording
        .steps
        .iter()
        .enumerate()
        .filter_map(|(n, step)| {
            let difference = step.difference(&recording.schemas[step.schema])?;
            Some(format!(
                "step {n}: {} by {} to schema {} (force {}, subresource {:?})\nlive {}\nobject {}\n{difference}",
                step.op,
                step.manager,
                step.schema,
                step.force,
                step.subresource,
                step.live.clone().unwrap_or_default(),
                step.object
            ))
        })
        .collect();
    let shown: Vec<_> = differences.iter().take(3).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "{} of {} answers differ:\n{}",
        differences.len(),
        recording.steps.len(),
        shown.join("\n\n")
    );
}
