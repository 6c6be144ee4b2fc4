//! Nothing is at once what it will be: for the first reads after a change, a machine is `pending` or `shutting-down`, a
//! volume `creating`, an attachment `attaching` or `detaching`, a snapshot `pending`; and what was just made may not be
//! seen at all. What is on the way cannot be used yet.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-describing-volumes.html>
//! <https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>

use super::{Knobs, Rule};
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use crate::emulator::xml::Element;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

const INSTANCE_STATES: [(&str, u8); 6] = [
    ("pending", 0),
    ("running", 16),
    ("shutting-down", 32),
    ("terminated", 48),
    ("stopping", 64),
    ("stopped", 80),
];
const VOLUME_STATES: [&str; 4] = ["creating", "available", "in-use", "deleting"];
const SNAPSHOT_STATES: [&str; 3] = ["pending", "completed", "error"];

/// What a read shows in place of what moto has.
#[derive(Clone)]
enum Shown {
    Nothing,
    State(&'static str),
    /// A volume on its way to a machine, or from it.
    Attachment {
        state: &'static str,
        instance: String,
        device: String,
    },
}

pub(super) struct Phases {
    knobs: Arc<Mutex<Knobs>>,
    /// By identity: what is still to be shown, and how often.
    steps: HashMap<String, VecDeque<(Shown, u32)>>,
    /// The states that the present call asks for.
    asked: Option<Vec<String>>,
    /// Volumes of the machines that the present call ends, with machine and device.
    attached: Vec<(String, String, String)>,
}

impl Phases {
    pub(super) fn new(knobs: &Arc<Mutex<Knobs>>) -> Self {
        Self {
            knobs: knobs.clone(),
            steps: HashMap::new(),
            asked: None,
            attached: Vec::new(),
        }
    }

    fn plan(&mut self, id: &str, steps: impl IntoIterator<Item = (Shown, u32)>) {
        let steps = steps.into_iter().filter(|(_, reads)| *reads > 0).collect();
        self.steps.insert(id.to_owned(), steps);
    }

    fn now(&self, id: &str) -> Option<&Shown> {
        self.steps.get(id)?.front().map(|(shown, _)| shown)
    }

    /// What this read shows; the next one may show what comes after.
    fn read(&mut self, id: &str) -> Option<Shown> {
        let steps = self.steps.get_mut(id)?;
        let (shown, left) = steps.front_mut()?;
        let shown = shown.clone();
        let waits_for = match &shown {
            Shown::State("shutting-down") => id,
            Shown::Attachment {
                state: "detaching",
                instance,
                ..
            } => instance.as_str(),
            _ => "",
        };
        if !self.knobs.lock().busy.contains(waits_for) {
            *left -= 1;
        }
        if *left == 0 {
            steps.pop_front();
        }
        Some(shown)
    }

    fn wanted(&self, state: &str) -> bool {
        self.asked
            .as_ref()
            .is_none_or(|asked| asked.iter().any(|wanted| wanted == state))
    }

    /// Refuses a read that names something which is not seen yet.
    fn unseen(&mut self, call: &Call, field: &str, code: &str) -> Option<Answer> {
        let ids: Vec<String> = call.list(field).into_iter().map(str::to_owned).collect();
        let hidden: Vec<&String> = ids
            .iter()
            .filter(|id| matches!(self.now(id), Some(Shown::Nothing)))
            .collect();
        let message = format!("{hidden:?} does not exist");
        if hidden.is_empty() {
            return None;
        }
        for id in hidden {
            self.read(id);
        }
        Some(call.refuse(400, code, &message))
    }

    fn attach(&self, call: &Call) -> Option<Answer> {
        let (volume, instance) = (call.param("VolumeId"), call.param("InstanceId"));
        let no = |code, what: &str| Some(call.refuse(400, code, what));
        match self.now(volume) {
            Some(Shown::Nothing) => return no("InvalidVolume.NotFound", &format!("{volume} does not exist")),
            Some(Shown::State(state)) => {
                return no(
                    "IncorrectState",
                    &format!("Volume '{volume}' is '{state}', not 'available'."),
                );
            }
            Some(Shown::Attachment { instance, .. }) => {
                return no(
                    "VolumeInUse",
                    &format!("{volume} is already attached to an instance ({instance})"),
                );
            }
            None => {}
        }
        match self.now(instance) {
            Some(Shown::Nothing) => no("InvalidInstanceID.NotFound", &format!("{instance} does not exist")),
            Some(Shown::State(state)) => no(
                "IncorrectState",
                &format!("Instance '{instance}' is '{state}', not 'running'."),
            ),
            _ => None,
        }
    }

    fn show_instances(&mut self, document: &mut Element) {
        for reservation in &mut document.child_mut("reservationSet").children {
            reservation.child_mut("instancesSet").children.retain_mut(|instance| {
                match self.read(instance.text_of(&["instanceId"])) {
                    Some(Shown::Nothing) => return false,
                    Some(Shown::State(state)) => {
                        let code = INSTANCE_STATES
                            .iter()
                            .find(|(name, _)| *name == state)
                            .map_or(0, |(_, code)| *code);
                        instance.child_mut("instanceState").set("code", code);
                        instance.child_mut("instanceState").set("name", state);
                    }
                    _ => {}
                }
                for disk in &mut instance.child_mut("blockDeviceMapping").children {
                    let disk = disk.child_mut("ebs");
                    if let Some(Shown::Attachment { state, .. }) = self.now(disk.text_of(&["volumeId"])) {
                        disk.set("status", state);
                    }
                }
                self.wanted(instance.text_of(&["instanceState", "name"]))
            });
        }
        let empty = |reservation: &Element| {
            reservation
                .child("instancesSet")
                .is_none_or(|set| set.children.is_empty())
        };
        document.child_mut("reservationSet").children.retain(|one| !empty(one));
    }

    fn show_volumes(&mut self, document: &mut Element) {
        document.child_mut("volumeSet").children.retain_mut(|volume| {
            let id = volume.text_of(&["volumeId"]).to_owned();
            match self.read(&id) {
                Some(Shown::Nothing) => return false,
                Some(Shown::State(state)) => volume.set("status", state),
                Some(Shown::Attachment {
                    state,
                    instance,
                    device,
                }) => {
                    volume.set("status", "in-use");
                    let item = vec![
                        Element::leaf("volumeId", &id),
                        Element::leaf("instanceId", instance),
                        Element::leaf("device", device),
                        Element::leaf("status", state),
                    ];
                    volume.child_mut("attachmentSet").children = vec![Element::node("item", item)];
                }
                None => {}
            }
            self.wanted(volume.text_of(&["status"]))
        });
    }

    fn show_snapshots(&mut self, document: &mut Element) {
        document.child_mut("snapshotSet").children.retain_mut(|snapshot| {
            match self.read(snapshot.text_of(&["snapshotId"])) {
                Some(Shown::Nothing) => return false,
                Some(Shown::State(state)) => {
                    snapshot.set("status", state);
                    snapshot.set("progress", "50%");
                }
                _ => {}
            }
            self.wanted(snapshot.text_of(&["status"]))
        });
    }
}

/// The attachments of machines, but of disks that go with them.
fn attachments(call: &Call, cloud: &Cloud) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for instance in call.list("InstanceId") {
        let of = [
            ("Filter.1.Name", "attachment.instance-id"),
            ("Filter.1.Value.1", instance),
        ];
        for item in cloud.ask("ec2", "DescribeVolumes", &of).all("attachmentSet") {
            let text = |name| item.text_of(&["item", name]).to_owned();
            found.push((text("volumeId"), instance.to_owned(), text("device")));
        }
    }
    found
}

impl Rule for Phases {
    fn before(&mut self, call: &mut Call, cloud: &Cloud) -> Option<Answer> {
        if call.service != "ec2" {
            return None;
        }
        self.asked = None;
        match call.action.as_str() {
            "DescribeInstances" => {
                self.asked = call.widen("instance-state-name", &INSTANCE_STATES.map(|(name, _)| name));
                self.unseen(call, "InstanceId", "InvalidInstanceID.NotFound")
            }
            "TerminateInstances" => {
                self.attached = attachments(call, cloud);
                self.unseen(call, "InstanceId", "InvalidInstanceID.NotFound")
            }
            "DescribeVolumes" => {
                self.asked = call.widen("status", &VOLUME_STATES);
                self.unseen(call, "VolumeId", "InvalidVolume.NotFound")
            }
            "DescribeSnapshots" => {
                self.asked = call.widen("status", &SNAPSHOT_STATES);
                self.unseen(call, "SnapshotId", "InvalidSnapshot.NotFound")
            }
            "AttachVolume" => self.attach(call),
            "DeleteVolume" => match self.now(call.param("VolumeId")) {
                Some(Shown::Attachment { instance, .. }) => {
                    let message = format!("Volume {} is currently attached to {instance}", call.param("VolumeId"));
                    Some(call.refuse(400, "VolumeInUse", &message))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn after(&mut self, call: &Call, answer: &mut Answer, _: &Cloud) {
        if call.service != "ec2" || !answer.ok() {
            return;
        }
        let (unseen, on_the_way) = {
            let knobs = self.knobs.lock();
            (knobs.unseen, knobs.on_the_way)
        };
        let made = |state| [(Shown::Nothing, unseen), (Shown::State(state), on_the_way)];
        let mut document = answer.xml();
        match call.action.as_str() {
            "RunInstances" => {
                for id in document.texts("instanceId") {
                    self.plan(&id, made("pending"));
                }
            }
            "TerminateInstances" => {
                for item in document.all("item") {
                    if item.text_of(&["previousState", "name"]) != "terminated" {
                        let id = item.text_of(&["instanceId"]);
                        self.plan(id, [(Shown::State("shutting-down"), on_the_way)]);
                    }
                }
                for (volume, instance, device) in std::mem::take(&mut self.attached) {
                    let state = "detaching";
                    let shown = Shown::Attachment {
                        state,
                        instance,
                        device,
                    };
                    // Disks are let go once the machine has ended.
                    self.plan(&volume, [(shown, on_the_way * 2)]);
                }
            }
            "CreateVolume" => {
                document.set("status", "creating");
                let id = document.text_of(&["volumeId"]).to_owned();
                self.plan(&id, made("creating"));
                answer.replace(&document);
            }
            "CreateSnapshot" => {
                document.set("status", "pending");
                let id = document.text_of(&["snapshotId"]).to_owned();
                self.plan(&id, made("pending"));
                answer.replace(&document);
            }
            "AttachVolume" | "DetachVolume" => {
                let state = if call.action == "AttachVolume" {
                    "attaching"
                } else {
                    "detaching"
                };
                let shown = Shown::Attachment {
                    state,
                    instance: document.text_of(&["instanceId"]).to_owned(),
                    device: document.text_of(&["device"]).to_owned(),
                };
                self.plan(document.text_of(&["volumeId"]), [(shown, on_the_way)]);
            }
            "DescribeInstances" => {
                self.show_instances(&mut document);
                answer.replace(&document);
            }
            "DescribeVolumes" => {
                self.show_volumes(&mut document);
                answer.replace(&document);
            }
            "DescribeSnapshots" => {
                self.show_snapshots(&mut document);
                answer.replace(&document);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    fn state(aws: &Bench, id: &str) -> String {
        let found = aws.ok("DescribeInstances", &[("InstanceId.1", id)]);
        let sets = found.all("instancesSet");
        sets.first()
            .map_or("", |set| set.text_of(&["item", "instanceState", "name"]))
            .to_owned()
    }

    fn volume(aws: &Bench, id: &str) -> [String; 2] {
        let found = aws.ok("DescribeVolumes", &[("VolumeId.1", id)]);
        let volume = |path: &[&str]| found.text_of(&[&["volumeSet", "item"], path].concat()).to_owned();
        [volume(&["status"]), volume(&["attachmentSet", "item", "status"])]
    }

    #[test]
    fn machines_and_volumes_are_on_the_way_for_a_read() {
        let aws = Bench::start();
        let (machine, disk) = (aws.run("1", "m7g.large"), aws.volume("v1"));
        let attach = [
            ("VolumeId", disk.as_str()),
            ("InstanceId", machine.as_str()),
            ("Device", "/dev/sdf"),
        ];
        assert_eq!(aws.code("AttachVolume", &attach), "IncorrectState");
        assert_eq!(volume(&aws, &disk), ["creating", ""]);
        assert_eq!(volume(&aws, &disk), ["available", ""]);
        assert_eq!(aws.code("AttachVolume", &attach), "IncorrectState");
        assert_eq!([state(&aws, &machine), state(&aws, &machine)], ["pending", "running"]);
        assert_eq!(aws.code("AttachVolume", &attach), "");
        assert_eq!(
            [volume(&aws, &disk), volume(&aws, &disk)],
            [["in-use", "attaching"], ["in-use", "attached"]]
        );

        // Until its process has ended, it is going, and has its disk.
        aws.proxy.set(|knobs| knobs.busy.extend([machine.clone()]));
        aws.ok("TerminateInstances", &[("InstanceId.1", &machine)]);
        for _ in 0..3 {
            assert_eq!(state(&aws, &machine), "shutting-down");
            assert_eq!(volume(&aws, &disk), ["in-use", "detaching"]);
        }
        assert_eq!(aws.code("DeleteVolume", &[("VolumeId", &disk)]), "VolumeInUse");
        aws.proxy.set(|knobs| knobs.busy.clear());
        let running = [
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "shutting-down"),
        ];
        assert_eq!(
            aws.ok("DescribeInstances", &running).texts("instanceId"),
            [machine.as_str()]
        );
        assert_eq!(state(&aws, &machine), "terminated");
        let states = [(); 3].map(|()| volume(&aws, &disk)[0].clone());
        assert_eq!(states, ["in-use", "in-use", "available"]);
    }

    #[test]
    fn what_was_just_made_is_not_seen_at_first() {
        let aws = Bench::start();
        aws.proxy.set(|knobs| (knobs.unseen, knobs.on_the_way) = (2, 0));
        let machine = aws.run("1", "m7g.large");
        let all = || aws.ok("DescribeInstances", &[]).texts("instanceId").len();
        assert_eq!(all(), 0);
        assert_eq!(
            aws.code("DescribeInstances", &[("InstanceId.1", &machine)]),
            "InvalidInstanceID.NotFound"
        );
        assert_eq!(all(), 1);
        let disk = aws.volume("v1");
        let one = [("VolumeId.1", disk.as_str())];
        assert_eq!(aws.code("DescribeVolumes", &one), "InvalidVolume.NotFound");
        assert_eq!(aws.code("DescribeVolumes", &one), "InvalidVolume.NotFound");
        assert_eq!(volume(&aws, &disk)[0], "available");
    }

    #[test]
    fn a_snapshot_is_pending_first() {
        let aws = Bench::start();
        let disk = aws.volume("v1");
        let made = aws.ok("CreateSnapshot", &[("VolumeId", &disk)]);
        assert_eq!(made.text_of(&["status"]), "pending");
        let id = made.text_of(&["snapshotId"]);
        let state = || {
            aws.ok("DescribeSnapshots", &[("SnapshotId.1", id)])
                .texts("status")
                .join(",")
        };
        assert_eq!([state(), state()], ["pending", "completed"]);
    }
}
