//! What must hold of every run, read from its whole log: nobody made a machine or a volume twice, and no two machines
//! wrote the same volume.

use super::host::{Event, What};
use super::proxy::{Entry, OPERATOR};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is wrong with a run; nothing if it is right.
pub fn violations(log: &[Entry], events: &[Event]) -> Vec<String> {
    let made: Vec<&Entry> = log
        .iter()
        .filter(|entry| entry.call.caller == OPERATOR && entry.made && entry.answer.ok())
        .collect();
    let mut found = doubles(&made);
    found.extend(spot_writers(&made));
    found.extend(shared_volumes(events));
    found.extend(attached_while_written(&made, events));
    found
}

/// Machines by name and epoch, volumes by owner: each is made once, with a token.
fn doubles(made: &[&Entry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut things: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in made {
        let (kind, id) = match entry.call.action.as_str() {
            "RunInstances" => ("instance", "instanceId"),
            "CreateVolume" => ("volume", "volumeId"),
            _ => continue,
        };
        if entry.call.param("ClientToken").is_empty() {
            found.push(format!(
                "{} at {:?} without a client token",
                entry.call.action, entry.at
            ));
        }
        let tags = entry.call.new_tags(kind);
        let tag = |name: &str| tags.get(&format!("graphplane.dev/{name}")).cloned().unwrap_or_default();
        if tag("cluster").is_empty() || tag("name").is_empty() || tag("uid").is_empty() {
            found.push(format!(
                "{} at {:?} has not our tags: {tags:?}",
                entry.call.action, entry.at
            ));
        }
        let owner = format!("{kind} {} {} epoch {:?}", tag("name"), tag("uid"), tag("epoch"));
        things.entry(owner).or_default().extend(entry.answer.xml().texts(id));
    }
    for (owner, ids) in things.into_iter().filter(|(_, ids)| ids.len() > 1) {
        found.push(format!("{owner} was made {} times: {ids:?}", ids.len()));
    }
    found
}

/// The operator starts writers alone; fleets start replicas.
fn spot_writers(made: &[&Entry]) -> Vec<String> {
    let spot = |entry: &&&Entry| {
        entry
            .call
            .params
            .keys()
            .any(|name| name.starts_with("InstanceMarketOptions"))
    };
    let wrong = made
        .iter()
        .filter(|entry| entry.call.action == "RunInstances")
        .filter(spot);
    wrong
        .map(|entry| format!("a writer was started at {:?} as a spot instance", entry.at))
        .collect()
}

/// A process that had a volume, from its start to its end, and the epochs that it wrote under.
struct Tenure<'a> {
    instance: &'a str,
    from: Duration,
    until: Option<Duration>,
    epochs: BTreeSet<u64>,
}

fn tenures(events: &[Event]) -> BTreeMap<&str, Vec<Tenure<'_>>> {
    let mut volumes: BTreeMap<&str, Vec<Tenure<'_>>> = BTreeMap::new();
    for event in events {
        let Some(volume) = &event.volume else { continue };
        let of_volume = volumes.entry(volume).or_default();
        let open = of_volume
            .iter_mut()
            .rfind(|tenure| tenure.instance == event.instance && tenure.until.is_none());
        match (&event.what, open) {
            (What::Started, _) => of_volume.push(Tenure {
                instance: &event.instance,
                from: event.at,
                until: None,
                epochs: BTreeSet::new(),
            }),
            (What::Epoch(epoch), Some(tenure)) => tenure.epochs.extend([*epoch]),
            (What::Ended, Some(tenure)) => tenure.until = Some(event.at),
            (_, None) => {}
        }
    }
    volumes
}

/// Nobody starts on a volume before the one before has ended, and another machine has a higher epoch.
fn shared_volumes(events: &[Event]) -> Vec<String> {
    let mut found = Vec::new();
    for (volume, tenures) in tenures(events) {
        for pair in tenures.windows(2) {
            let [first, second] = pair else { continue };
            if first.until.is_none_or(|until| until > second.from) {
                found.push(format!(
                    "{volume}: {} started while {} wrote",
                    second.instance, first.instance
                ));
            }
        }
        for (at, later) in tenures.iter().enumerate() {
            let others = tenures[..at]
                .iter()
                .filter(|earlier| earlier.instance != later.instance);
            let highest = others.filter_map(|earlier| earlier.epochs.last()).max();
            // Before it registers, a machine finds the epoch of the one before on the volume.
            let own = later.epochs.iter().filter(|epoch| Some(*epoch) != highest).min();
            if let (Some(highest), Some(own)) = (highest, own)
                && own < highest
            {
                found.push(format!(
                    "{volume}: {} wrote under epoch {own} after {highest}",
                    later.instance
                ));
            }
        }
    }
    found
}

/// A volume goes to another machine only when nothing writes it any more.
fn attached_while_written(made: &[&Entry], events: &[Event]) -> Vec<String> {
    let mut found = Vec::new();
    let volumes = tenures(events);
    for entry in made.iter().filter(|entry| entry.call.action == "AttachVolume") {
        let (volume, to) = (entry.call.param("VolumeId"), entry.call.param("InstanceId"));
        let writes = |tenure: &&Tenure<'_>| {
            tenure.instance != to && tenure.from < entry.at && tenure.until.is_none_or(|until| until > entry.at)
        };
        let of_volume = volumes.get(volume).map_or(&[][..], Vec::as_slice);
        for tenure in of_volume.iter().filter(writes) {
            found.push(format!("{volume} was attached to {to} while {} wrote", tenure.instance));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::call::{Answer, Call};
    use axum::http::{HeaderMap, Method, Uri};

    fn entry(at: u64, form: &str, answer: &str) -> Entry {
        let mut headers = HeaderMap::new();
        let signed = format!("AWS4-HMAC-SHA256 Credential={OPERATOR}/20261122/eu-central-1/ec2/aws4_request");
        headers.insert("authorization", signed.parse().unwrap());
        Entry {
            at: Duration::from_secs(at),
            call: Call::read(Method::POST, Uri::from_static("/"), headers, form.to_owned().into()),
            tags: BTreeMap::new(),
            answer: Answer::new(200, "text/xml", answer.to_owned()),
            fault: None,
            made: true,
        }
    }

    fn run(token: &str, epoch: u32, id: &str, more: &str) -> Entry {
        let tags: String = [
            ("cluster", "c"),
            ("name", "n"),
            ("uid", "u"),
            ("epoch", &epoch.to_string()),
        ]
        .iter()
        .enumerate()
        .map(|(at, (name, value))| {
            let tag = format!("TagSpecification.1.Tag.{}", at + 1);
            format!("&{tag}.Key=graphplane.dev/{name}&{tag}.Value={value}")
        })
        .collect();
        let form =
            format!("Action=RunInstances&ClientToken={token}&TagSpecification.1.ResourceType=instance{tags}{more}");
        entry(1, &form, &format!("<r><instanceId>{id}</instanceId></r>"))
    }

    fn event(at: u64, instance: &str, what: What) -> Event {
        Event {
            at: Duration::from_secs(at),
            instance: instance.to_owned(),
            volume: Some("vol-1".to_owned()),
            what,
        }
    }

    #[test]
    fn a_machine_is_made_once_under_each_epoch() {
        let once = [run("a", 1, "i-1", ""), run("a", 1, "i-1", ""), run("b", 2, "i-2", "")];
        assert!(violations(&once, &[]).is_empty());
        let twice = [run("a", 1, "i-1", ""), run("b", 1, "i-2", "")];
        assert_eq!(violations(&twice, &[]).len(), 1);
        assert!(violations(&[run("", 1, "i-1", "")], &[])[0].contains("without a client token"));
        let spot = run("a", 1, "i-1", "&InstanceMarketOptions.MarketType=spot");
        assert!(violations(&[spot], &[])[0].contains("spot"));
    }

    #[test]
    fn a_volume_has_one_writer_and_rising_epochs() {
        use What::{Ended, Epoch, Started};
        let one_by_one = [
            event(1, "i-1", Started),
            event(2, "i-1", Epoch(1)),
            event(3, "i-1", Ended),
            event(4, "i-2", Started),
            event(4, "i-2", Epoch(1)),
            event(5, "i-2", Epoch(2)),
        ];
        assert!(violations(&[], &one_by_one).is_empty());
        let overlapping = [
            event(1, "i-1", Started),
            event(2, "i-2", Started),
            event(3, "i-1", Ended),
        ];
        assert_eq!(violations(&[], &overlapping).len(), 1);
        let mut sinking = one_by_one.to_vec();
        sinking[1].what = Epoch(3);
        assert!(violations(&[], &sinking)[0].contains("epoch"));
        let attached = entry(2, "Action=AttachVolume&VolumeId=vol-1&InstanceId=i-2", "<r/>");
        assert!(violations(&[attached], &one_by_one)[0].contains("was attached"));
    }
}
