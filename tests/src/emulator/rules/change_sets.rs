//! A change set belongs to its stack: its name is unique there, a second one for a stack that was never made is for the
//! same stack, and a stack that exists is not made again. A stack that was made or changed by one has outputs and
//! parameters as any other, and says which one it was (moto 5.2 does neither, and compares later changes with the first
//! parameters). To execute one twice with the same token is to do it once.
//!
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateChangeSet.html>
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html>

use super::Rule;
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use std::collections::{BTreeMap, HashMap};

/// What a change set would do.
struct Held {
    arn: String,
    make: bool,
    /// Template, parameters, tags, capabilities, role: as they came.
    params: BTreeMap<String, String>,
}

/// By stack and name.
#[derive(Default)]
pub(super) struct ChangeSets {
    held: HashMap<(String, String), Held>,
    /// By stack: its last change set that was executed, and the token of that call.
    executed: HashMap<String, (String, String)>,
}

/// Fields of a change set that a stack has as well.
const KEPT: [&str; 7] = [
    "TemplateBody",
    "UsePreviousTemplate",
    "Parameters.",
    "Tags.",
    "Capabilities.",
    "RoleARN",
    "NotificationARNs.",
];

fn status(stack: &str, cloud: &Cloud) -> Option<String> {
    let found = cloud.call("cloudformation", "DescribeStacks", &[("StackName", stack)]);
    found
        .ok()
        .then(|| found.xml().texts("StackStatus").into_iter().next())?
}

/// The stack's name, also where its ARN was given.
fn stack(call: &Call) -> String {
    let given = call.param("StackName");
    let name = given
        .strip_prefix("arn:")
        .map_or(given, |arn| arn.split('/').nth(1).unwrap_or(given));
    name.to_owned()
}

fn executed() -> Answer {
    Answer::new(
        200,
        "text/xml",
        "<ExecuteChangeSetResponse><ExecuteChangeSetResult/><ResponseMetadata><RequestId>proxy</RequestId>\
         </ResponseMetadata></ExecuteChangeSetResponse>",
    )
}

impl ChangeSets {
    fn key(&self, call: &Call) -> Option<(String, String)> {
        let given = call.param("ChangeSetName");
        let by_arn = self
            .held
            .iter()
            .find(|(_, held)| held.arn == given)
            .map(|(key, _)| key.clone());
        by_arn.or_else(|| Some((stack(call), given.to_owned())).filter(|key| self.held.contains_key(key)))
    }

    fn create(&self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        let (name, stack) = (call.param("ChangeSetName").to_owned(), stack(call));
        if self.held.contains_key(&(stack.clone(), name.clone())) {
            let message = format!("ChangeSet {name} cannot be created since it already exists");
            return Some(call.refuse(400, "AlreadyExistsException", &message));
        }
        let make = call.param("ChangeSetType") == "CREATE";
        match (make, status(&stack, cloud).as_deref()) {
            (true, Some("REVIEW_IN_PROGRESS")) => {
                // moto would make a second stack of that name.
                cloud.ask("cloudformation", "DeleteStack", &[("StackName", stack.as_str())]);
                None
            }
            (true, Some(other)) => {
                let message = format!(
                    "Stack [{stack}] already exists and cannot be created again with the changeSet [{name}] ({other})."
                );
                Some(call.refuse(400, "ValidationError", &message))
            }
            (false, None) => Some(call.refuse(400, "ValidationError", &format!("Stack [{stack}] does not exist"))),
            (false, Some("REVIEW_IN_PROGRESS")) => {
                let message = format!("Stack:{stack} is in REVIEW_IN_PROGRESS state and can not be updated.");
                Some(call.refuse(400, "ValidationError", &message))
            }
            _ => None,
        }
    }

    fn execute(&mut self, call: &Call, cloud: &Cloud) -> Answer {
        let token = call.param("ClientRequestToken");
        let Some(key) = self.key(call) else {
            let repeated = self
                .executed
                .get(&stack(call))
                .is_some_and(|(_, by)| !token.is_empty() && by == token);
            let message = format!("ChangeSet [{}] does not exist", call.param("ChangeSetName"));
            return match repeated {
                true => executed(),
                false => call.refuse(404, "ChangeSetNotFound", &message),
            };
        };
        let held = &self.held[&key];
        let name = [("StackName", key.0.as_str())];
        if held.make {
            cloud.ask("cloudformation", "DeleteStack", &name);
        }
        let params: Vec<(&str, &str)> = held
            .params
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let action = if held.make { "CreateStack" } else { "UpdateStack" };
        let made = cloud.call("cloudformation", action, &[&params[..], &name[..]].concat());
        if !made.ok() {
            return made;
        }
        let done = (held.arn.clone(), token.to_owned());
        self.executed.insert(key.0.clone(), done);
        // They go once one of them was executed.
        self.held.retain(|(stack, _), _| *stack != key.0);
        executed()
    }
}

impl Rule for ChangeSets {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        if call.service != "cloudformation" {
            return None;
        }
        match call.action.as_str() {
            "CreateChangeSet" => self.create(call, cloud),
            "ExecuteChangeSet" => Some(self.execute(call, cloud)),
            "DescribeChangeSet" | "DeleteChangeSet" => {
                // moto looks for the name in all stacks.
                let Some(key) = self.key(call) else {
                    let message = format!("ChangeSet [{}] does not exist", call.param("ChangeSetName"));
                    return Some(call.refuse(404, "ChangeSetNotFound", &message));
                };
                let arn = self.held[&key].arn.clone();
                call.params.insert("ChangeSetName".to_owned(), arn);
                if call.action == "DeleteChangeSet" {
                    self.held.remove(&key);
                }
                None
            }
            "DeleteStack" => {
                let gone = stack(call);
                self.held.retain(|(stack, _), _| *stack != gone);
                self.executed.remove(&gone);
                None
            }
            _ => None,
        }
    }

    fn after(&mut self, call: &Call, answer: &mut Answer, _: &Cloud) {
        if call.service != "cloudformation" || !answer.ok() {
            return;
        }
        if call.action == "DescribeStacks" {
            let mut document = answer.xml();
            let stacks = document.child_mut("DescribeStacksResult").child_mut("Stacks");
            for stack in &mut stacks.children {
                if let Some((arn, _)) = self.executed.get(stack.text_of(&["StackName"])) {
                    stack.set("ChangeSetId", arn);
                }
            }
            answer.replace(&document);
        }
        if call.action != "CreateChangeSet" {
            return;
        }
        let kept = |name: &String| KEPT.iter().any(|kept| name.starts_with(kept));
        let held = Held {
            arn: answer.xml().texts("Id").into_iter().next().unwrap_or_default(),
            make: call.param("ChangeSetType") == "CREATE",
            params: call.params.clone().into_iter().filter(|(name, _)| kept(name)).collect(),
        };
        self.held
            .insert((stack(call), call.param("ChangeSetName").to_owned()), held);
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    const TEMPLATE: &str = r#"{"Parameters": {"Size": {"Type": "String"}},
        "Resources": {"Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": {"Ref": "Size"}}}},
        "Outputs": {"Size": {"Value": {"Ref": "Size"}}}}"#;

    #[test]
    fn a_stack_of_a_change_set_is_like_any_other() {
        let aws = Bench::start();
        let ask = |action: &str, stack: &str, params: &[(&str, &str)]| {
            let own = [
                ("StackName", stack),
                ("ChangeSetName", "c"),
                ("ClientRequestToken", "t"),
            ];
            let params = [&own[..], params].concat();
            aws.through.call("cloudformation", action, &params)
        };
        let create = |stack: &str, kind: &str, size: &str| {
            let params = [
                ("ChangeSetType", kind),
                ("TemplateBody", TEMPLATE),
                ("Parameters.member.1.ParameterKey", "Size"),
                ("Parameters.member.1.ParameterValue", size),
            ];
            ask("CreateChangeSet", stack, &params).code().unwrap_or_default()
        };
        let say = |stack: &str, what: &str| {
            let found = aws
                .through
                .call("cloudformation", "DescribeStacks", &[("StackName", stack)]);
            found.xml().texts(what).join(",")
        };
        assert_eq!(create("a", "UPDATE", "1"), "ValidationError");
        assert_eq!(create("a", "CREATE", "1"), "");
        assert_eq!(create("a", "CREATE", "1"), "AlreadyExistsException");
        assert_eq!(create("b", "CREATE", "7"), "");
        assert_eq!(say("a", "StackStatus"), "REVIEW_IN_PROGRESS");
        assert!(ask("DeleteChangeSet", "a", &[]).ok());
        assert_eq!(create("a", "CREATE", "1"), "", "the stack was never made");
        assert!(ask("ExecuteChangeSet", "a", &[]).ok());
        assert_eq!(
            [say("a", "StackStatus"), say("a", "OutputValue")],
            ["CREATE_COMPLETE", "1"]
        );
        assert_eq!(say("b", "StackStatus"), "REVIEW_IN_PROGRESS");
        assert_eq!(create("a", "CREATE", "2"), "ValidationError", "it exists");
        assert_eq!(create("a", "UPDATE", "2"), "");
        assert!(ask("ExecuteChangeSet", "a", &[]).ok());
        assert_eq!(
            [say("a", "StackStatus"), say("a", "OutputValue")],
            ["UPDATE_COMPLETE", "2"]
        );
        // AWS makes a change set that says FAILED; the provider takes both for "nothing to change".
        assert_eq!(create("a", "UPDATE", "2"), "ValidationError", "nothing has changed");
        let gone = aws.through.call("cloudformation", "DeleteStack", &[("StackName", "a")]);
        assert!(gone.ok());
        assert_eq!(
            ask("DescribeChangeSet", "a", &[]).code().as_deref(),
            Some("ChangeSetNotFound")
        );
    }
}
