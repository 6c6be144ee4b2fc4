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
    print
        .arg(repository().join("tests/python/as_json.py"))
        .arg(template)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let text = run(&mut print, None, Duration::from_secs(120)).ok();
    let document: Value = serde_json::from_str(&text).expect("it prints JSON");
    let template = Template::read(&document, values);
    let mut found = Vec::new();
    for resource in document["Resources"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, resource)| resource)
    {
        let condition = resource["Condition"].as_str();
        if condition.is_some_and(|condition| !template.holds(condition)) {
            continue;
        }
        let properties = &resource["Properties"];
        let own = (resource["Type"] == "AWS::IAM::ManagedPolicy").then_some(&properties["PolicyDocument"]);
        let inline = properties["Policies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|policy| &policy["PolicyDocument"]);
        for policy in own.into_iter().chain(inline) {
            let statements = policy["Statement"].as_array().into_iter().flatten();
            found.extend(
                statements
                    .filter_map(|statement| template.resolve(statement))
                    .map(|s| Statement::read(&s)),
            );
        }
    }
    found
}

/// A template whose functions are worked out: as many as our policies use.
struct Template<'a> {
    known: BTreeMap<String, String>,
    conditions: &'a Value,
}

impl<'a> Template<'a> {
    fn read(document: &'a Value, values: &[(&str, &str)]) -> Self {
        let mut known = BTreeMap::new();
        for (name, parameter) in document["Parameters"].as_object().into_iter().flatten() {
            known.extend(
                parameter["Default"]
                    .as_str()
                    .map(|value| (name.clone(), value.to_owned())),
            );
        }
        let pseudo = [
            ("AWS::Partition", "aws"),
            ("AWS::Region", REGION),
            ("AWS::AccountId", ACCOUNT),
        ];
        known.extend(
            pseudo
                .iter()
                .chain(values)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let conditions = &document["Conditions"];
        Self { known, conditions }
    }

    fn value(&self, name: &str) -> &str {
        let found = self.known.get(name).map(String::as_str);
        found.unwrap_or_else(|| panic!("the value of {name} is not known"))
    }

    fn holds(&self, condition: &str) -> bool {
        self.resolve(&self.conditions[condition]) == Some(Value::Bool(true))
    }

    /// Nothing where a function says that there is none.
    fn resolve(&self, value: &Value) -> Option<Value> {
        let of_all = |all: &[Value]| -> Vec<Value> { all.iter().filter_map(|one| self.resolve(one)).collect() };
        let Some(fields) = value.as_object() else {
            return Some(match value {
                Value::Array(all) => Value::Array(of_all(all)),
                other => other.clone(),
            });
        };
        let only = fields.iter().next().filter(|_| fields.len() == 1);
        match only.map(|(name, argument)| (name.as_str(), argument)) {
            Some(("Ref", Value::String(name))) => {
                (name != "AWS::NoValue").then(|| Value::String(self.value(name).to_owned()))
            }
            Some(("Sub", Value::String(pattern))) => {
                let mut made = pattern.clone();
                while let Some((before, rest)) = made.split_once("${") {
                    let (name, after) = rest.split_once('}').expect("a reference ends");
                    made = format!("{before}{}{after}", self.value(name));
                }
                Some(Value::String(made))
            }
            Some(("If", Value::Array(parts))) => {
                let holds = self.holds(parts[0].as_str().unwrap_or_default());
                self.resolve(&parts[if holds { 1 } else { 2 }])
            }
            Some(("Not", Value::Array(parts))) => Some(Value::Bool(of_all(parts) == [Value::Bool(false)])),
            Some(("Equals", Value::Array(parts))) => {
                let parts = of_all(parts);
                Some(Value::Bool(parts.first() == parts.get(1)))
            }
            // Of a list of values that stand in one text already.
            Some(("Join", Value::Array(parts))) => self.resolve(&parts[1]),
            _ => {
                let resolved = fields
                    .iter()
                    .filter_map(|(key, value)| Some((key.clone(), self.resolve(value)?)));
                Some(Value::Object(resolved.collect()))
            }
        }
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
    calls
        .flat_map(|entry| [permissions(entry), stack_calls::of(entry)].concat())
        .collect()
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
    tags.iter()
        .map(|(key, value)| (format!("aws:{kind}Tag/{key}"), value.clone()))
        .collect()
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
            let thing = if key.is_empty() {
                bucket.to_owned()
            } else {
                format!("{bucket}/{key}")
            };
            let of_list = (call.action == "ListBucket").then(|| ("s3:prefix".to_owned(), prefix.to_owned()));
            vec![one(arn("s3", &thing), of_list.into_iter().collect())]
        }
        "dynamodb" => {
            let of_batch: BTreeMap<String, Value> =
                serde_json::from_str(call.param("RequestItems")).unwrap_or_default();
            let things: Vec<String> = match (call.param("TableName"), call.param("IndexName")) {
                ("", _) => of_batch.into_keys().map(|table| format!("table/{table}")).collect(),
                (table, "") => vec![format!("table/{table}")],
                (table, index) => vec![format!("table/{table}/index/{index}")],
            };
            let of = |thing: String| one(arn("dynamodb", &thing), BTreeMap::new());
            things.into_iter().map(of).collect()
        }
        "ssm" => {
            let put = one(arn("ssm", &format!("parameter{}", call.param("Name"))), BTreeMap::new());
            // <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html>
            let tags = (call.action == "PutParameter" && !call.param("Tags").is_empty()).then(|| Request {
                action: "ssm:AddTagsToResource".to_owned(),
                ..put.clone()
            });
            [put].into_iter().chain(tags).collect()
        }
        "autoscaling" if call.changes() => {
            let group = format!(
                "autoScalingGroup:id:autoScalingGroupName/{}",
                call.param("AutoScalingGroupName")
            );
            vec![one(arn("autoscaling", &group), BTreeMap::new())]
        }
        // Without a name, all stacks are asked for.
        "cloudformation" if call.param("StackName").is_empty() => free(),
        "cloudformation" => {
            let stack = match call.param("StackName") {
                name if name.starts_with("arn:") => name.to_owned(),
                name => arn("cloudformation", &format!("stack/{name}/id")),
            };
            let of_stack = one(stack, BTreeMap::new());
            // It looks at one resource after the other.
            let of_resources = (call.action == "DetectStackDrift").then(|| Request {
                action: "cloudformation:DetectStackResourceDrift".to_owned(),
                ..of_stack.clone()
            });
            [of_stack].into_iter().chain(of_resources).collect()
        }
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
        // Tags that the launch template gives are asked for as well; it bears those that it gives to everything.
        let of_template = entry
            .tags
            .iter()
            .filter(|(id, _)| id.starts_with("lt-") && *kind != "network-interface");
        let mut tags: BTreeMap<String, String> = of_template.flat_map(|(_, tags)| tags.clone()).collect();
        tags.extend(call.new_tags(kind));
        let thing = arn("ec2", &format!("{kind}/*"));
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
        all.push(one(
            arn("ec2", &format!("subnet/{}", call.param("SubnetId"))),
            BTreeMap::new(),
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_policy_is_read_and_judged() {
        let values = [
            ("ClusterId", "c1"),
            ("ObjectBucket", "objects"),
            ("RegistryPrefix", "gp"),
        ];
        let found = statements("operator", &values);
        let sids: Vec<&str> = found.iter().map(|statement| statement.sid.as_str()).collect();
        assert!(sids.contains(&"Registries") && !sids.contains(&"ObjectKey"), "{sids:?}");
        let own = [("aws:ResourceTag/graphplane.dev/cluster", "c1")];
        let volume = arn("ec2", "volume/vol-1");
        let taken = BTreeSet::from([
            Request::of("ec2:DeleteVolume", &volume, &own),
            Request::of("dynamodb:PutItem", &arn("dynamodb", "table/gp-graph-registry"), &[]),
            Request::of(
                "dynamodb:BatchGetItem",
                &arn("dynamodb", "table/gp-graph-registry"),
                &[],
            ),
            Request::of(
                "dynamodb:Query",
                &arn("dynamodb", "table/gp-graph-registry/index/instance-index"),
                &[],
            ),
            Request::of(
                "ssm:AddTagsToResource",
                &arn("ssm", "parameter/graphplane/replicas/c1/d/r"),
                &[],
            ),
        ]);
        let verdict = judge(&found, &taken);
        assert_eq!(verdict.denied, BTreeSet::new());
        assert!(verdict.unused.contains("ChangeOwn: ec2:AttachVolume"));
        assert!(!verdict.unused.contains("ChangeOwn: ec2:DeleteVolume"));
        let foreign = [("aws:ResourceTag/graphplane.dev/cluster", "c2")];
        let taken = BTreeSet::from([Request::of("ec2:DeleteVolume", &volume, &foreign)]);
        assert_eq!(judge(&found, &taken).denied.len(), 1);
    }

    #[test]
    fn with_a_boundary_the_operator_makes_no_role_without_it() {
        let (boundary, other) = (
            "arn:aws:iam::123456789012:policy/b",
            "arn:aws:iam::123456789012:policy/c",
        );
        let via = ("aws:CalledViaFirst", "cloudformation.amazonaws.com");
        let denied = |values: &[(&str, &str)], context: &[(&str, &str)]| {
            let role = arn("iam", "role/graphplane/x");
            let taken = ["iam:CreateRole", "iam:PutRolePolicy"].map(|action| Request::of(action, &role, context));
            judge(&statements("operator", values), &taken.into()).denied.len()
        };
        let free = [("ClusterId", "c1"), ("ObjectBucket", "objects")];
        let bound = [free[0], free[1], ("PermissionsBoundary", boundary)];
        assert_eq!((denied(&free, &[via]), denied(&free, &[])), (0, 2));
        assert_eq!(denied(&bound, &[via, ("iam:PermissionsBoundary", boundary)]), 0);
        for wrong in [&[via][..], &[via, ("iam:PermissionsBoundary", other)]] {
            assert_eq!(denied(&bound, wrong), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_machines_policy_is_that_of_its_tier() {
        let values = [
            ("ObjectBucket", "objects"),
            ("ArtifactBucket", "artifacts"),
            ("SourceArns", "arn:aws:s3:::data"),
        ];
        let found = statements("tier", &values);
        let sids: Vec<&str> = found.iter().map(|statement| statement.sid.as_str()).collect();
        assert_eq!(sids, ["FetchAgent", "Objects", "ListObjects", "ReadSources"]);
        let seed = Request::of("s3:GetObject", "arn:aws:s3:::objects/seeds/g/1", &[]);
        assert_eq!(found[1].allows(&seed), Some("s3:GetObject"));
        let other = Request::of("s3:GetObject", "arn:aws:s3:::objects/other", &[]);
        assert_eq!(found[1].allows(&other), None);
    }
}
