//! The policies of the templates against the calls of a run: no call is outside of them, and nothing in them is unused.

use super::cloud::{ACCOUNT, REGION};
use super::iam::{Request, Statement};
use super::moto::python;
use super::proxy::{Entry, MACHINE, OPERATOR};
use super::stack_calls;
use crate::{repository, run};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

/// What comparing policies with calls found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Permissions that calls took and no statement gives.
    pub denied: BTreeSet<String>,
    /// Actions of statements that no call took.
    pub unused: BTreeSet<String>,
}

/// Every statement of the policies in a template, for the values of its parameters.
pub fn statements(template: &str, values: &[(&str, &str)]) -> Vec<Statement> {
    let mut print = Command::new(python().join("python"));
    print.arg(repository().join("tests/python/as_json.py")).arg(template).env("PYTHONDONTWRITEBYTECODE", "1");
    let text = run(&mut print, None, Duration::from_secs(120)).ok();
    let document: Value = serde_json::from_str(&text).expect("it prints JSON");
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (name, parameter) in document["Parameters"].as_object().into_iter().flatten() {
        known.extend(parameter["Default"].as_str().map(|value| (name.clone(), value.to_owned())));
    }
    let pseudo = [("AWS::Partition", "aws"), ("AWS::Region", REGION), ("AWS::AccountId", ACCOUNT)];
    known.extend(pseudo.iter().chain(values).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut found = Vec::new();
    for resource in document["Resources"].as_object().into_iter().flatten().map(|(_, resource)| resource) {
        let properties = &resource["Properties"];
        let own = (resource["Type"] == "AWS::IAM::ManagedPolicy").then_some(&properties["PolicyDocument"]);
        let inline = properties["Policies"].as_array().into_iter().flatten().map(|policy| &policy["PolicyDocument"]);
        for policy in own.into_iter().chain(inline) {
            let statements = policy["Statement"].as_array().into_iter().flatten();
            found.extend(statements.filter_map(|statement| resolve(statement, &known)).map(|s| Statement::read(&s)));
        }
    }
    assert!(!found.is_empty(), "{template} has no policy");
    found
}

/// A part of a template with its functions worked out. A part that hangs on a condition is there when the parameter that
/// our conditions look at (`Has…`, by the name of the parameter) has a value.
fn resolve(value: &Value, known: &BTreeMap<String, String>) -> Option<Value> {
    let text = |name: &str| known.get(name).cloned().unwrap_or_else(|| panic!("the value of {name} is not known"));
    match value {
        Value::Array(all) => Some(all.iter().filter_map(|one| resolve(one, known)).collect()),
        Value::Object(fields) => {
            if let (Some(name), 1) = (value["Ref"].as_str(), fields.len()) {
                return (name != "AWS::NoValue").then(|| Value::String(text(name)));
            }
            if let (Some(pattern), 1) = (value["Sub"].as_str(), fields.len()) {
                let mut made = pattern.to_owned();
                while let Some((before, rest)) = made.split_once("${") {
                    let (name, after) = rest.split_once('}').expect("a reference ends");
                    made = format!("{before}{}{after}", text(name));
                }
                return Some(Value::String(made));
            }
            if let (Some(parts), 1) = (value["If"].as_array(), fields.len()) {
                let condition = parts[0].as_str().unwrap_or_default().trim_start_matches("Has");
                let set = known.iter().any(|(name, value)| name.contains(condition) && !value.is_empty());
                return resolve(&parts[if set { 1 } else { 2 }], known);
            }
            let fields = fields.iter().filter_map(|(key, value)| Some((key.clone(), resolve(value, known)?)));
            Some(Value::Object(fields.collect()))
        }
        other => Some(other.clone()),
    }
}

/// Compares statements with the permissions that were taken.
pub fn judge(statements: &[Statement], taken: &BTreeSet<Request>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut used = BTreeSet::new();
    for request in taken {
        let by: Vec<(&str, &str)> = statements
            .iter()
            .filter_map(|statement| Some((statement.sid.as_str(), statement.allows(request)?)))
            .collect();
        if by.is_empty() {
            verdict.denied.insert(format!("{request:?}"));
        }
        used.extend(by);
    }
    for statement in statements {
        for action in &statement.actions {
            if !used.contains(&(statement.sid.as_str(), action.as_str())) {
                verdict.unused.insert(format!("{}: {action}", statement.sid));
            }
        }
    }
    verdict
}

/// The permissions that the operator's calls took, with those that CloudFormation takes in its name.
pub fn taken_by_operator(log: &[Entry]) -> BTreeSet<Request> {
    let calls = log.iter().filter(|entry| entry.made && entry.call.caller == OPERATOR);
    // What AWS refuses for another reason was allowed as well, but says nothing about what is needed.
    let calls = calls.filter(|entry| entry.answer.ok());
    calls.flat_map(|entry| [permissions(entry), stack_calls::of(entry)].concat()).collect()
}

/// The permissions that calls of machines took.
pub fn taken_by_machines(log: &[Entry]) -> BTreeSet<Request> {
    let calls = log.iter().filter(|entry| entry.made && entry.call.caller == MACHINE);
    calls.flat_map(permissions).collect()
}

fn arn(service: &str, rest: &str) -> String {
    match service {
        "s3" => format!("arn:aws:s3:::{rest}"),
        "iam" => format!("arn:aws:iam::{ACCOUNT}:{rest}"),
        _ => format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"),
    }
}

fn tagged(kind: &str, tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| (format!("aws:{kind}Tag/{key}"), value.clone())).collect()
}

/// The permissions that one call takes.
///
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>
fn permissions(entry: &Entry) -> Vec<Request> {
    let call = &entry.call;
    let action = format!("{}:{}", call.service, call.action);
    let one = |resource: String, context: BTreeMap<String, String>| Request {
        action: action.clone(),
        resource,
        context,
    };
    let free = || vec![one("*".to_owned(), BTreeMap::new())];
    match call.service.as_str() {
        "ec2" if call.changes() => of_ec2(entry, &one),
        "s3" => {
            let (bucket, key, prefix) = (call.param("bucket"), call.param("key"), call.param("prefix"));
            let thing = if key.is_empty() { bucket.to_owned() } else { format!("{bucket}/{key}") };
            let of_list = (call.action == "ListBucket").then(|| ("s3:prefix".to_owned(), prefix.to_owned()));
            vec![one(arn("s3", &thing), of_list.into_iter().collect())]
        }
        "dynamodb" => vec![one(arn("dynamodb", &format!("table/{}", call.param("TableName"))), BTreeMap::new())],
        "ssm" => vec![one(arn("ssm", &format!("parameter{}", call.param("Name"))), BTreeMap::new())],
        "autoscaling" if call.changes() => {
            let group = format!("autoScalingGroup:id:autoScalingGroupName/{}", call.param("AutoScalingGroupName"));
            vec![one(arn("autoscaling", &group), BTreeMap::new())]
        }
        "cloudformation" => match call.param("StackName") {
            "" => free(),
            name if name.starts_with("arn:") => vec![one(name.to_owned(), BTreeMap::new())],
            name => vec![one(arn("cloudformation", &format!("stack/{name}/id")), BTreeMap::new())],
        },
        _ => free(),
    }
}

fn of_ec2(entry: &Entry, one: &dyn Fn(String, BTreeMap<String, String>) -> Request) -> Vec<Request> {
    const KINDS: [(&str, &str); 4] = [
        ("i-", "instance"),
        ("vol-", "volume"),
        ("snap-", "snapshot"),
        ("lt-", "launch-template"),
    ];
    let call = &entry.call;
    let mut all = Vec::new();
    for (id, tags) in &entry.tags {
        let Some((_, kind)) = KINDS.iter().find(|(prefix, _)| id.starts_with(prefix)) else {
            continue;
        };
        all.push(one(arn("ec2", &format!("{kind}/{id}")), tagged("Resource", tags)));
    }
    let makes: &[&str] = match call.action.as_str() {
        "RunInstances" => &["instance", "volume", "network-interface"],
        "CreateVolume" => &["volume"],
        "CreateSnapshot" => &["snapshot"],
        _ => &[],
    };
    for kind in makes {
        let (thing, tags) = (arn("ec2", &format!("{kind}/*")), call.new_tags(kind));
        all.push(one(thing.clone(), tagged("Request", &tags)));
        if !tags.is_empty() {
            let mut context = tagged("Request", &tags);
            context.insert("ec2:CreateAction".to_owned(), call.action.clone());
            all.push(Request {
                action: "ec2:CreateTags".to_owned(),
                resource: thing,
                context,
            });
        }
    }
    if call.action == "RunInstances" {
        for kind in ["image", "security-group"] {
            all.push(one(arn("ec2", &format!("{kind}/*")), BTreeMap::new()));
        }
        all.push(one(arn("ec2", &format!("subnet/{}", call.param("SubnetId"))), BTreeMap::new()));
        // The launch template has a role for the machine.
        let to = ("iam:PassedToService".to_owned(), "ec2.amazonaws.com".to_owned());
        all.push(Request {
            action: "iam:PassRole".to_owned(),
            resource: arn("iam", "role/graphplane/role"),
            context: BTreeMap::from([to]),
        });
    }
    all
}
