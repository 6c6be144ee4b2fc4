//! A call with the client token of an earlier one makes nothing: it is answered as the earlier one was, or refused when its
//! parameters differ.
//!
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>

use super::Rule;
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use std::collections::{BTreeMap, HashMap};

const CALLS: [&str; 2] = ["RunInstances", "CreateVolume"];

/// By action and token: the parameters, and the answer.
#[derive(Default)]
pub(super) struct ClientTokens {
    seen: HashMap<(String, String), (BTreeMap<String, String>, Answer)>,
}

fn key(call: &Call) -> Option<(String, String)> {
    let token = call.param("ClientToken");
    let knows = call.service == "ec2" && CALLS.contains(&call.action.as_str()) && !token.is_empty();
    knows.then(|| (call.action.clone(), token.to_owned()))
}

impl Rule for ClientTokens {
    fn before(&mut self, call: &mut Call, _: &Cloud) -> Option<Answer> {
        let (params, answer) = self.seen.get(&key(call)?)?;
        if *params == call.params {
            return Some(answer.clone());
        }
        let differ: Vec<&String> = params
            .keys()
            .chain(call.params.keys())
            .filter(|name| params.get(*name) != call.params.get(*name))
            .collect();
        let message = format!(
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s): {differ:?}"
        );
        Some(call.refuse(400, "IdempotentParameterMismatch", &message))
    }

    fn after(&mut self, call: &Call, answer: &mut Answer, _: &Cloud) {
        if let Some(key) = key(call).filter(|_| answer.ok()) {
            self.seen.insert(key, (call.params.clone(), answer.clone()));
        }
    }
}
