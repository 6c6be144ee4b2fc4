//! What AWS is going to do to machines: scheduled reboots, stops, retirements.

use super::machines::timestamp;
use super::{Aws, failed};
use crate::provider::ProviderError;
use aws_sdk_ec2::types::InstanceStatusEvent;
use graphplane_core::node_plan::Notice;
use std::collections::HashMap;

impl Aws {
    /// Notices by instance id. The call takes no tags, so it answers for every running machine of the account and region,
    /// a thousand at a time.
    pub(super) async fn notices(&self) -> Result<HashMap<String, Notice>, ProviderError> {
        let statuses = self
            .inner
            .ec2
            .describe_instance_status()
            .into_paginator()
            .page_size(1000);
        let statuses = statuses
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("DescribeInstanceStatus"))?;
        let noticed = statuses
            .iter()
            .filter_map(|status| Some((status.instance_id()?.to_owned(), first(status.events())?)));
        Ok(noticed.collect())
    }
}

/// The first thing that is going to happen. One that has happened, or will not, is listed for another week with a word
/// before its description.
fn first(events: &[InstanceStatusEvent]) -> Option<Notice> {
    let over = |e: &InstanceStatusEvent| {
        let description = e.description().unwrap_or_default();
        description.starts_with("[Completed]") || description.starts_with("[Canceled]")
    };
    let coming = events.iter().filter(|e| !over(e)).filter_map(|e| {
        Some(Notice {
            code: e.code()?.as_str().to_owned(),
            not_before: timestamp(e.not_before()?)?,
        })
    });
    coming.min_by_key(|n| n.not_before)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;
    use aws_sdk_ec2::types::EventCode;

    #[test]
    fn the_first_event_that_is_still_to_come_is_the_notice() {
        let event = |code: EventCode, second: i64, description: &str| {
            InstanceStatusEvent::builder()
                .code(code)
                .not_before(DateTime::from_secs(second))
                .description(description)
                .build()
        };
        let events = [
            event(EventCode::SystemReboot, 100, "[Completed] Scheduled reboot"),
            event(EventCode::SystemReboot, 150, "[Canceled] Scheduled reboot"),
            event(
                EventCode::InstanceRetirement,
                300,
                "The instance is running on degraded hardware",
            ),
            event(EventCode::SystemMaintenance, 200, "Network maintenance"),
        ];
        let notice = first(&events).unwrap();
        assert_eq!(
            (notice.code.as_str(), notice.not_before.as_second()),
            ("system-maintenance", 200)
        );
        assert_eq!(first(&events[..2]), None);
    }
}
