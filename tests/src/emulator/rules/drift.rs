//! A stack that is compared with what there is says whether it differs, and when it was compared.
//!
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DetectStackDrift.html>
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_StackDriftInformation.html>

use super::{Knobs, Rule};
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use crate::emulator::xml::Element;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// By the name of a stack: what the last comparison found.
pub(super) struct Drifts {
    knobs: Arc<Mutex<Knobs>>,
    compared: HashMap<String, &'static str>,
}

impl Drifts {
    pub(super) fn new(knobs: &Arc<Mutex<Knobs>>) -> Self {
        Self {
            knobs: knobs.clone(),
            compared: HashMap::new(),
        }
    }
}

impl Rule for Drifts {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        if call.service != "cloudformation" || call.action != "DetectStackDrift" {
            return None;
        }
        let found = cloud.call(
            "cloudformation",
            "DescribeStacks",
            &[("StackName", call.param("StackName"))],
        );
        let name = found.texts("StackName").into_iter().next();
        let Some(name) = name.filter(|_| found.ok()) else {
            return Some(found);
        };
        let drifted = self.knobs.lock().drifted.contains(&name);
        self.compared.insert(name, if drifted { "DRIFTED" } else { "IN_SYNC" });
        let id = Element::leaf("StackDriftDetectionId", "00000000-0000-4000-8000-000000000000");
        let result = Element::node("DetectStackDriftResult", vec![id]);
        Some(Answer::of(&Element::node("DetectStackDriftResponse", vec![result])))
    }

    fn after(&mut self, call: &Call, answer: &mut Answer, _: &Cloud) {
        if call.service != "cloudformation" || call.action != "DescribeStacks" || !answer.ok() {
            return;
        }
        let mut document = answer.xml();
        let stacks = document.child_mut("DescribeStacksResult").child_mut("Stacks");
        for stack in &mut stacks.children {
            let found = self.compared.get(stack.text_of(&["StackName"]));
            let mut drift = vec![Element::leaf("StackDriftStatus", found.unwrap_or(&"NOT_CHECKED"))];
            drift.extend(found.map(|_| Element::leaf("LastCheckTimestamp", "2026-11-22T00:00:00Z")));
            *stack.child_mut("DriftInformation") = Element::node("DriftInformation", drift);
        }
        answer.replace(&document);
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    #[test]
    fn a_stack_says_what_the_last_comparison_found() {
        let aws = Bench::start();
        let ask = |action: &str| aws.through.call("cloudformation", action, &[("StackName", "s")]);
        let state = || ask("DescribeStacks").texts("StackDriftStatus").join(",");
        assert_eq!(ask("DetectStackDrift").code().as_deref(), Some("ValidationError"));
        let template = r#"{"Resources": {"T": {"Type": "AWS::SNS::Topic"}}}"#;
        let made = aws.through.call(
            "cloudformation",
            "CreateStack",
            &[("StackName", "s"), ("TemplateBody", template)],
        );
        assert!(made.ok(), "{}", made.text());
        assert_eq!(state(), "NOT_CHECKED");
        assert!(ask("DetectStackDrift").ok());
        assert_eq!(state(), "IN_SYNC");
        aws.proxy.set(|knobs| knobs.drifted.extend(["s".to_owned()]));
        assert!(ask("DetectStackDrift").ok());
        assert_eq!(state(), "DRIFTED");
    }
}
