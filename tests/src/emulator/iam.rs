//! Whether policies of IAM allow a call: as much of the rules as our policies use. What is not known here is not allowed.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics.html>

use serde_json::Value;
use std::collections::BTreeMap;

/// A permission that a call takes: what is done, to one thing, and what is known of both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `ec2:RunInstances`.
    pub action: String,
    /// ARN of the thing; `*` for calls that have none.
    pub resource: String,
    /// Condition keys and their values.
    pub context: BTreeMap<String, String>,
}

/// A statement that allows something.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its name.
    pub sid: String,
    /// What it allows.
    pub actions: Vec<String>,
    resources: Vec<String>,
    /// Operator, key, values.
    conditions: Vec<(String, String, Vec<String>)>,
}

/// A text or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

impl Statement {
    /// Reads a statement.
    ///
    /// # Panics
    /// When it is not one that allows: refusing ones are not known here.
    pub fn read(value: &Value) -> Self {
        assert_eq!(value["Effect"], "Allow", "{value}");
        for unknown in ["NotAction", "NotResource", "Principal"] {
            assert!(value[unknown].is_null(), "{value}");
        }
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let conditions = fields(&value["Condition"]).into_iter().flat_map(|(operator, keys)| {
            let all = fields(&keys).into_iter();
            all.map(move |(key, values)| (operator.clone(), key, texts(&values)))
        });
        Self {
            sid: value["Sid"].as_str().unwrap_or("(without a name)").to_owned(),
            actions: texts(&value["Action"]),
            resources: texts(&value["Resource"]),
            conditions: conditions.collect(),
        }
    }

    /// The action of the statement that allows a request.
    pub fn allows(&self, request: &Request) -> Option<&str> {
        let action = self
            .actions
            .iter()
            .find(|action| like(&action.to_lowercase(), &request.action.to_lowercase()))?;
        let resource = self.resources.iter().any(|resource| like(resource, &request.resource));
        let holds = |(operator, key, values): &(String, String, Vec<String>)| {
            let found = request.context.get(key);
            match (operator.as_str(), found) {
                ("StringEquals" | "ArnEquals", Some(found)) => values.contains(found),
                ("StringLike" | "ArnLike", Some(found)) => values.iter().any(|value| like(value, found)),
                ("StringNotEquals", found) => found.is_none_or(|found| !values.contains(found)),
                ("Null", found) => values.iter().all(|value| (value == "true") == found.is_none()),
                // Every value that is there has to be one of these; here a key has one value.
                ("ForAllValues:StringEquals", found) => found.is_none_or(|found| values.contains(found)),
                _ => false,
            }
        };
        (resource && self.conditions.iter().all(holds)).then_some(action.as_str())
    }
}

/// Whether a text is of a pattern with `*` for any text and `?` for any character.
pub fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what came after the last `*` does not fit.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
impl Request {
    /// A request as tests write it.
    pub(super) fn of(action: &str, resource: &str, context: &[(&str, &str)]) -> Self {
        let context = context
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self {
            action: action.to_owned(),
            resource: resource.to_owned(),
            context: context.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_call_needs_action_resource_and_every_condition() {
        let statement = Statement::read(&json!({
            "Sid": "S", "Effect": "Allow", "Action": ["ec2:Attach*", "ec2:DetachVolume"], "Resource": "arn:*:volume/*",
            "Condition": {"StringEquals": {"aws:ResourceTag/c": "c1"}, "StringLike": {"x": ["a*", "b*"]}},
        }));
        let good = [("aws:ResourceTag/c", "c1"), ("x", "bc")];
        assert_eq!(
            statement.allows(&Request::of("ec2:attachvolume", "arn:aws:volume/1", &good)),
            Some("ec2:Attach*")
        );
        for wrong in [
            Request::of("ec2:DeleteVolume", "arn:aws:volume/1", &good),
            Request::of("ec2:DetachVolume", "arn:aws:instance/1", &good),
            Request::of("ec2:DetachVolume", "arn:aws:volume/1", &good[..1]),
            Request::of(
                "ec2:DetachVolume",
                "arn:aws:volume/1",
                &[("aws:ResourceTag/c", "c2"), ("x", "a")],
            ),
        ] {
            assert_eq!(statement.allows(&wrong), None, "{wrong:?}");
        }
        let unknown = Statement::read(&json!({
            "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"x": "bc"}},
        }));
        assert_eq!(unknown.allows(&Request::of("a:B", "*", &good)), None);
    }

    proptest! {
        /// Compared with the definition: a `*` takes nothing, or one character and is still there.
        #[test]
        fn patterns_fit_as_they_are_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn fits(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => fits(rest, text) || (!text.is_empty() && fits(pattern, &text[1..])),
                    ([c, pattern @ ..], [t, text @ ..]) => (*c == b'?' || c == t) && fits(pattern, text),
                    _ => false,
                }
            }
            prop_assert_eq!(like(&pattern, &text), fits(pattern.as_bytes(), text.as_bytes()));
        }

        /// A condition more never allows what was not allowed.
        #[test]
        fn conditions_only_take_away(action in "[ab*]{1,4}", asked in "[ab]{1,4}", value in "[ab]{1,2}", given in "[ab]{1,2}") {
            let free = Statement::read(&json!({"Effect": "Allow", "Action": action, "Resource": "*"}));
            let bound = Statement::read(&json!({
                "Effect": "Allow", "Action": action, "Resource": "*", "Condition": {"StringEquals": {"k": value}},
            }));
            let request = Request::of(&asked, "*", &[("k", given.as_str())]);
            prop_assert!(bound.allows(&request).is_none() || free.allows(&request).is_some());
            prop_assert_eq!(bound.allows(&request).is_some(), free.allows(&request).is_some() && value == given);
        }
    }
}
