//! The calls that CloudFormation makes in the name of whoever changes a stack, by the types of resources in it: what their
//! handlers need to make, read, change and delete them.
//!
//! <https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html> (`handlers.permissions`)

use super::cloud::ACCOUNT;
use super::iam::Request;
use super::proxy::Entry;
use std::collections::BTreeMap;

/// Type of resource, service, actions.
const HANDLERS: [(&str, &str, &[&str]); 10] = [
    (
        "AWS::EC2::SecurityGroup",
        "ec2",
        &[
            "CreateSecurityGroup",
            "DeleteSecurityGroup",
            "DescribeSecurityGroups",
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupEgress",
            "RevokeSecurityGroupIngress",
            "RevokeSecurityGroupEgress",
            "CreateTags",
            "DeleteTags",
            "DescribeTags",
        ],
    ),
    (
        "AWS::EC2::LaunchTemplate",
        "ec2",
        &[
            "CreateLaunchTemplate",
            "CreateLaunchTemplateVersion",
            "DeleteLaunchTemplate",
            "DescribeLaunchTemplates",
            "DescribeLaunchTemplateVersions",
            "CreateTags",
            "DeleteTags",
        ],
    ),
    (
        "AWS::IAM::Role",
        "iam",
        &[
            "CreateRole",
            "DeleteRole",
            "GetRole",
            "PutRolePolicy",
            "GetRolePolicy",
            "ListRolePolicies",
            "ListAttachedRolePolicies",
            "DeleteRolePolicy",
            "TagRole",
            "UntagRole",
            "UpdateAssumeRolePolicy",
        ],
    ),
    (
        "AWS::IAM::InstanceProfile",
        "iam",
        &[
            "CreateInstanceProfile",
            "DeleteInstanceProfile",
            "GetInstanceProfile",
            "AddRoleToInstanceProfile",
            "RemoveRoleFromInstanceProfile",
            "PassRole",
        ],
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling",
        &[
            "CreateAutoScalingGroup",
            "UpdateAutoScalingGroup",
            "DeleteAutoScalingGroup",
            "CreateOrUpdateTags",
            "DescribeAutoScalingGroups",
            "DescribeScalingActivities",
        ],
    ),
    (
        "AWS::AutoScaling::ScalingPolicy",
        "autoscaling",
        &["PutScalingPolicy", "DeletePolicy", "DescribePolicies"],
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing",
        &[
            "CreateLoadBalancer",
            "DeleteLoadBalancer",
            "DescribeLoadBalancers",
            "DescribeLoadBalancerAttributes",
            "ModifyLoadBalancerAttributes",
            "AddTags",
            "RemoveTags",
            "DescribeTags",
        ],
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "elasticloadbalancing",
        &[
            "CreateTargetGroup",
            "DeleteTargetGroup",
            "DescribeTargetGroups",
            "DescribeTargetGroupAttributes",
            "DescribeTargetHealth",
            "ModifyTargetGroupAttributes",
            "AddTags",
            "RemoveTags",
            "DescribeTags",
        ],
    ),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        "elasticloadbalancing",
        &["CreateListener", "DeleteListener", "DescribeListeners", "AddTags"],
    ),
    (
        "AWS::CloudWatch::Alarm",
        "cloudwatch",
        &["PutMetricAlarm", "DeleteAlarms", "DescribeAlarms", "TagResource"],
    ),
];

/// What an action is about. Names are made by CloudFormation, so that `*` stands for all but roles and profiles, which
/// have a path of ours.
fn thing(service: &str, action: &str) -> String {
    match (service, action.contains("Profile")) {
        ("iam", true) => format!("arn:aws:iam::{ACCOUNT}:instance-profile/graphplane/profile"),
        ("iam", false) => format!("arn:aws:iam::{ACCOUNT}:role/graphplane/role"),
        _ => "*".to_owned(),
    }
}

/// The permissions that CloudFormation takes for a change set, which holds the template.
pub(crate) fn of(entry: &Entry) -> Vec<Request> {
    if entry.call.service != "cloudformation" || entry.call.action != "CreateChangeSet" {
        return Vec::new();
    }
    let template = entry.call.param("TemplateBody");
    let via = BTreeMap::from([(
        "aws:CalledViaFirst".to_owned(),
        "cloudformation.amazonaws.com".to_owned(),
    )]);
    let request = |service: &str, action: &str| Request {
        action: format!("{service}:{action}"),
        resource: thing(service, action),
        context: via.clone(),
    };
    let mut all = Vec::new();
    for (of_type, service, actions) in HANDLERS {
        if template.contains(&format!("Type: {of_type}\n")) {
            all.extend(actions.iter().map(|action| request(service, action)));
        }
    }
    if template.contains("AWS::SSM::Parameter::Value") {
        all.push(request("ssm", "GetParameters"));
    }
    all
}
