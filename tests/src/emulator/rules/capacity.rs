//! A zone that has no machine of a type refuses to start one.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html> (server error codes)

use super::{Knobs, Rule};
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use parking_lot::Mutex;
use std::sync::Arc;

pub(super) struct Capacity {
    knobs: Arc<Mutex<Knobs>>,
}

impl Capacity {
    pub(super) fn new(knobs: &Arc<Mutex<Knobs>>) -> Self {
        Self { knobs: knobs.clone() }
    }
}

fn zone(call: &Call, cloud: &Cloud) -> String {
    let subnet = match call.param("SubnetId") {
        "" => call.param("NetworkInterface.1.SubnetId"),
        subnet => subnet,
    };
    match subnet {
        "" => call.param("Placement.AvailabilityZone").to_owned(),
        subnet => {
            let found = cloud.call("ec2", "DescribeSubnets", &[("SubnetId.1", subnet)]).xml();
            found.texts("availabilityZone").into_iter().next().unwrap_or_default()
        }
    }
}

impl Rule for Capacity {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        if !call.is_ec2("RunInstances") || self.knobs.lock().short.is_empty() {
            return None;
        }
        let (zone, of_type) = (zone(call, cloud), call.param("InstanceType").to_owned());
        let message = format!(
            "We currently do not have sufficient {of_type} capacity in the Availability Zone you requested ({zone})."
        );
        let short = self.knobs.lock().short.contains(&(zone, of_type));
        short.then(|| call.refuse(500, "InsufficientInstanceCapacity", &message))
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    #[test]
    fn a_zone_without_machines_of_a_type_starts_others() {
        let aws = Bench::start();
        let short = ("eu-central-1a".to_owned(), "m7g.large".to_owned());
        aws.proxy.set(|knobs| knobs.short.extend([short]));
        let code = aws.code("RunInstances", &aws.machine("m7g.large"));
        assert_eq!(code, "InsufficientInstanceCapacity");
        aws.run("t1", "r7g.large");
        aws.proxy.set(|knobs| knobs.short.clear());
        aws.run("t2", "m7g.large");
    }
}
