//! A volume that is attached is not attached again, nor to a machine of another zone, nor under a name that is in use.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html> (`VolumeInUse`, `InvalidVolume.ZoneMismatch`)

use super::Rule;
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;

pub(super) struct Attachments;

impl Rule for Attachments {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        if !call.is_ec2("AttachVolume") {
            return None;
        }
        let (id, machine) = (call.param("VolumeId"), call.param("InstanceId"));
        let volume = cloud.call("ec2", "DescribeVolumes", &[("VolumeId.1", id)]).xml();
        let instance = cloud
            .call("ec2", "DescribeInstances", &[("InstanceId.1", machine)])
            .xml();
        // What does not exist moto refuses by itself.
        let volume = *volume.all("volumeSet").first()?.all("item").first()?;
        let instance = *instance.all("instancesSet").first()?.all("item").first()?;
        if let Some(at) = volume
            .text_of(&["attachmentSet", "item", "instanceId"])
            .strip_prefix("i-")
        {
            let message = format!("{id} is already attached to an instance (i-{at})");
            return Some(call.refuse(400, "VolumeInUse", &message));
        }
        let state = instance.text_of(&["instanceState", "name"]);
        if !matches!(state, "running" | "stopped") {
            let message = format!("Instance '{machine}' is not 'running' or 'stopped' but '{state}'.");
            return Some(call.refuse(400, "IncorrectState", &message));
        }
        let zones = [
            volume.text_of(&["availabilityZone"]),
            instance.text_of(&["placement", "availabilityZone"]),
        ];
        if zones[0] != zones[1] {
            let message = format!("The volume '{id}' is not in the same availability zone as instance '{machine}'");
            return Some(call.refuse(400, "InvalidVolume.ZoneMismatch", &message));
        }
        if instance
            .texts("deviceName")
            .iter()
            .any(|name| name == call.param("Device"))
        {
            let message = format!(
                "Invalid value '{}' for unixDevice. It is already in use",
                call.param("Device")
            );
            return Some(call.refuse(400, "InvalidParameterValue", &message));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    #[test]
    fn a_volume_has_one_machine_of_its_zone() {
        let aws = Bench::start();
        aws.proxy.set(|knobs| knobs.on_the_way = 0);
        let (one, two) = (aws.run("1", "m7g.large"), aws.run("2", "m7g.large"));
        let (volume, second) = (aws.volume("v1"), aws.volume("v2"));
        let attach = |volume: &str, instance: &str, device: &str| {
            let params = [("VolumeId", volume), ("InstanceId", instance), ("Device", device)];
            aws.code("AttachVolume", &params)
        };
        assert_eq!(attach(&volume, &one, "/dev/sdf"), "");
        assert_eq!(attach(&volume, &two, "/dev/sdf"), "VolumeInUse");
        assert_eq!(attach(&second, &one, "/dev/sdf"), "InvalidParameterValue");
        let far = aws.ok("CreateVolume", &[("AvailabilityZone", "eu-central-1b"), ("Size", "10")]);
        assert_eq!(
            attach(far.text_of(&["volumeId"]), &two, "/dev/sdf"),
            "InvalidVolume.ZoneMismatch"
        );
        aws.ok("TerminateInstances", &[("InstanceId.1", &two)]);
        assert_eq!(attach(&second, &two, "/dev/sdf"), "IncorrectState");
        assert_eq!(attach("vol-00000000", &one, "/dev/sdg"), "InvalidVolume.NotFound");
    }
}
