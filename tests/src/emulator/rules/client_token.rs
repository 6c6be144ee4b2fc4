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

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    #[test]
    fn a_token_makes_one_thing() {
        let aws = Bench::start();
        let first = aws.run("t1", "m7g.large");
        assert_eq!(aws.run("t1", "m7g.large"), first);
        assert_ne!(aws.run("t2", "m7g.large"), first);
        let other = [&aws.machine("r7g.large")[..], &[("ClientToken", "t1")]].concat();
        assert_eq!(aws.code("RunInstances", &other), "IdempotentParameterMismatch");
        let volume = aws.volume("v1");
        assert_eq!(aws.volume("v1"), volume);
        assert_ne!(aws.volume("v2"), volume);
        let larger = [
            ("AvailabilityZone", "eu-central-1a"),
            ("Size", "20"),
            ("ClientToken", "v1"),
        ];
        assert_eq!(aws.code("CreateVolume", &larger), "IdempotentParameterMismatch");
    }
}
