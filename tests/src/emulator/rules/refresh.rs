//! An instance refresh replaces the machines of a group that are not of its launch template's version; here one with each
//! read. What runs is replaced within `MinHealthyPercentage`; a second refresh at the same time is refused.
//!
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html>
//! <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_StartInstanceRefresh.html>

use super::Rule;
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use crate::emulator::xml::Element;
use std::collections::HashMap;

#[derive(Default)]
struct Refresh {
    id: String,
    /// Machines that are still to be replaced, and how many there were.
    left: Vec<String>,
    all: usize,
    cancelled: bool,
}

impl Refresh {
    fn status(&self) -> &'static str {
        match (self.cancelled, self.left.is_empty()) {
            (true, _) => "Cancelled",
            (_, true) => "Successful",
            (_, false) => "InProgress",
        }
    }
}

/// The refreshes of each group, the newest last.
#[derive(Default)]
pub(super) struct Refreshes {
    groups: HashMap<String, Vec<Refresh>>,
    made: usize,
}

fn answer(action: &str, result: Vec<Element>) -> Answer {
    let id = Element::node("ResponseMetadata", vec![Element::leaf("RequestId", "proxy")]);
    Answer::of(&Element::node(
        &format!("{action}Response"),
        vec![Element::node(&format!("{action}Result"), result), id],
    ))
}

/// Identities of a group's machines; nothing if there is no such group.
fn machines(group: &str, cloud: &Cloud) -> Option<Vec<String>> {
    let params = [("AutoScalingGroupNames.member.1", group)];
    let found = cloud.ask("autoscaling", "DescribeAutoScalingGroups", &params);
    let groups = found.all("AutoScalingGroups");
    groups.first()?.child("member").map(|group| group.texts("InstanceId"))
}

impl Refreshes {
    fn start(&mut self, call: &Call, cloud: &Cloud) -> Answer {
        let group = call.param("AutoScalingGroupName");
        let Some(left) = machines(group, cloud) else {
            return call.refuse(
                400,
                "ValidationError",
                &format!("AutoScalingGroup name not found - {group}"),
            );
        };
        let of_group = self.groups.entry(group.to_owned()).or_default();
        if of_group.last().is_some_and(|last| last.status() == "InProgress") {
            let message =
                "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.";
            return call.refuse(400, "InstanceRefreshInProgress", message);
        }
        self.made += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", self.made);
        of_group.push(Refresh {
            id: id.clone(),
            all: left.len(),
            left,
            cancelled: false,
        });
        answer(&call.action, vec![Element::leaf("InstanceRefreshId", id)])
    }

    fn describe(&mut self, call: &Call, cloud: &Cloud) -> Answer {
        let group = call.param("AutoScalingGroupName");
        let wanted = call.list("InstanceRefreshIds.member");
        let of_group = self.groups.entry(group.to_owned()).or_default();
        let mut shown = Vec::new();
        for refresh in of_group.iter().rev() {
            if !wanted.is_empty() && !wanted.contains(&refresh.id.as_str()) {
                continue;
            }
            let done = refresh.all - refresh.left.len();
            shown.push(Element::node(
                "member",
                vec![
                    Element::leaf("InstanceRefreshId", &refresh.id),
                    Element::leaf("AutoScalingGroupName", group),
                    Element::leaf("Status", refresh.status()),
                    Element::leaf(
                        "PercentageComplete",
                        (done * 100).checked_div(refresh.all).unwrap_or(100),
                    ),
                    Element::leaf("InstancesToUpdate", refresh.left.len()),
                    Element::leaf("StartTime", "2026-11-22T00:00:00Z"),
                ],
            ));
        }
        // What a later read shows.
        if let Some(last) = of_group.last_mut().filter(|last| last.status() == "InProgress") {
            let id = last.left.remove(0);
            let gone = [("InstanceId", id.as_str()), ("ShouldDecrementDesiredCapacity", "false")];
            cloud.call("autoscaling", "TerminateInstanceInAutoScalingGroup", &gone);
        }
        answer(&call.action, vec![Element::node("InstanceRefreshes", shown)])
    }

    fn cancel(&mut self, call: &Call) -> Answer {
        let of_group = self.groups.get_mut(call.param("AutoScalingGroupName"));
        let running = of_group
            .and_then(|all| all.last_mut())
            .filter(|last| last.status() == "InProgress");
        let Some(last) = running else {
            let message = "No in progress or pending Instance Refresh found.";
            return call.refuse(400, "ActiveInstanceRefreshNotFound", message);
        };
        last.cancelled = true;
        answer(&call.action, vec![Element::leaf("InstanceRefreshId", &last.id)])
    }
}

impl Rule for Refreshes {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        match (call.service.as_str(), call.action.as_str()) {
            ("autoscaling", "StartInstanceRefresh") => Some(self.start(call, cloud)),
            ("autoscaling", "DescribeInstanceRefreshes") => Some(self.describe(call, cloud)),
            ("autoscaling", "CancelInstanceRefresh") => Some(self.cancel(call)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;
    use std::collections::BTreeSet;

    #[test]
    fn a_refresh_replaces_every_machine_once() {
        let aws = Bench::start();
        let ask = |action: &str, params: &[(&str, &str)]| {
            let params = [&[("AutoScalingGroupName", "g")][..], params].concat();
            aws.through.call("autoscaling", action, &params)
        };
        let refused = ask("StartInstanceRefresh", &[]);
        assert_eq!(refused.code().as_deref(), Some("ValidationError"));
        let image = aws.image.as_str();
        let template = [
            ("LaunchTemplateName", "t"),
            ("LaunchTemplateData.ImageId", image),
            ("LaunchTemplateData.InstanceType", "m7g.large"),
        ];
        aws.ok("CreateLaunchTemplate", &template);
        let group = [
            ("LaunchTemplate.LaunchTemplateName", "t"),
            ("LaunchTemplate.Version", "$Latest"),
            ("MinSize", "2"),
            ("MaxSize", "2"),
            ("VPCZoneIdentifier", aws.subnet()),
        ];
        let made = ask("CreateAutoScalingGroup", &group);
        assert!(made.ok(), "{}", made.text());
        let members = || -> BTreeSet<String> {
            let found = aws.through.call("autoscaling", "DescribeAutoScalingGroups", &[]);
            found.xml().texts("InstanceId").into_iter().collect()
        };
        let before = members();
        assert_eq!(before.len(), 2);
        assert!(ask("StartInstanceRefresh", &[]).ok());
        let second = ask("StartInstanceRefresh", &[]);
        assert_eq!(second.code().as_deref(), Some("InstanceRefreshInProgress"));
        let state = || ask("DescribeInstanceRefreshes", &[]).xml().texts("Status").join(",");
        assert_eq!([state(), state(), state()], ["InProgress", "InProgress", "Successful"]);
        assert!(members().len() == 2 && members().is_disjoint(&before));
        let nothing = ask("CancelInstanceRefresh", &[]);
        assert_eq!(nothing.code().as_deref(), Some("ActiveInstanceRefreshNotFound"));
    }
}
