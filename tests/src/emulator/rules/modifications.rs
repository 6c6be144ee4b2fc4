//! A volume is modified four times in 24 hours at most, one modification after the other, and each is `modifying`, then
//! `optimizing`, then `completed`. Only the newest is described.
//!
//! <https://docs.aws.amazon.com/ebs/latest/userguide/modify-volume-requirements.html>
//! <https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html>

use super::{Knobs, Rule};
use crate::emulator::call::{Answer, Call};
use crate::emulator::cloud::Cloud;
use crate::emulator::xml::Element;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(24 * 3600);
const LIMIT: usize = 4;
const STATES: [&str; 4] = ["modifying", "optimizing", "completed", "failed"];

#[derive(Default)]
struct Modified {
    times: Vec<Instant>,
    /// How many reads still show each state.
    modifying: u32,
    optimizing: u32,
}

pub(super) struct Modifications {
    knobs: Arc<Mutex<Knobs>>,
    volumes: HashMap<String, Modified>,
    asked: Option<Vec<String>>,
}

impl Modifications {
    pub(super) fn new(knobs: &Arc<Mutex<Knobs>>) -> Self {
        Self {
            knobs: knobs.clone(),
            volumes: HashMap::new(),
            asked: None,
        }
    }
}

fn show(modification: &mut Element, state: &str, progress: u8) {
    modification.set("modificationState", state);
    modification.set("progress", progress);
    if state != "completed" {
        modification.children.retain(|child| child.name != "endTime");
    }
}

impl Rule for Modifications {
    fn before(&mut self, call: &mut Call, _: &Cloud) -> Option<Answer> {
        if call.is_ec2("DescribeVolumesModifications") {
            self.asked = call.widen("modification-state", &STATES);
        }
        if !call.is_ec2("ModifyVolume") {
            return None;
        }
        let id = call.param("VolumeId");
        let volume = self.volumes.entry(id.to_owned()).or_default();
        volume.times.retain(|time| time.elapsed() < WINDOW);
        if volume.modifying + volume.optimizing > 0 {
            let message = format!("Cannot modify volume {id}: its last modification is not completed");
            return Some(call.refuse(400, "IncorrectModificationState", &message));
        }
        let spent = volume.times.len() >= LIMIT;
        let message = format!("You've reached the maximum modification rate per volume limit for {id}.");
        spent.then(|| call.refuse(400, "VolumeModificationRateExceeded", &message))
    }

    fn after(&mut self, call: &Call, answer: &mut Answer, _: &Cloud) {
        if !answer.ok() {
            return;
        }
        if call.is_ec2("ModifyVolume") {
            let reads = self.knobs.lock().on_the_way;
            let volume = self.volumes.entry(call.param("VolumeId").to_owned()).or_default();
            volume.times.push(Instant::now());
            (volume.modifying, volume.optimizing) = (reads, reads);
            let mut document = answer.xml();
            show(document.child_mut("volumeModification"), "modifying", 0);
            answer.replace(&document);
        }
        if call.is_ec2("DescribeVolumesModifications") {
            let mut document = answer.xml();
            let set = document.child_mut("volumeModificationSet");
            let newest: HashMap<String, Element> = std::mem::take(&mut set.children)
                .into_iter()
                .map(|item| (item.text_of(&["volumeId"]).to_owned(), item))
                .collect();
            for (id, mut item) in newest {
                let volume = self.volumes.entry(id).or_default();
                let state = match (volume.modifying, volume.optimizing) {
                    (0, 0) => "completed",
                    (0, _) => {
                        volume.optimizing -= 1;
                        "optimizing"
                    }
                    _ => {
                        volume.modifying -= 1;
                        "modifying"
                    }
                };
                show(&mut item, state, if state == "completed" { 100 } else { 50 });
                if self
                    .asked
                    .as_ref()
                    .is_none_or(|asked| asked.iter().any(|wanted| wanted == state))
                {
                    set.children.push(item);
                }
            }
            answer.replace(&document);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::emulator::rules::bench::Bench;

    #[test]
    fn a_volume_is_modified_four_times_one_after_the_other() {
        let aws = Bench::start();
        let volume = aws.volume("v1");
        let modify = |size: usize| aws.code("ModifyVolume", &[("VolumeId", &volume), ("Size", &size.to_string())]);
        let state = || {
            let found = aws.ok("DescribeVolumesModifications", &[("VolumeId.1", &volume)]);
            found.texts("modificationState").join(",")
        };
        for size in 1..=4 {
            assert_eq!(modify(10 + size), "");
            assert_eq!(modify(20), "IncorrectModificationState");
            assert_eq!([state(), state(), state()], ["modifying", "optimizing", "completed"]);
        }
        assert_eq!(modify(20), "VolumeModificationRateExceeded");
    }
}
