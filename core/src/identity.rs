//! Which machine an agent runs on, and whether it proves that.
//!
//! A machine on AWS gets an instance identity document from its metadata service, which AWS has signed. The control plane
//! knows which instance it started for a node. A registration is taken in only when both are about the same machine. The
//! signature is checked by the REST API; here is what the document has to say.

use graphplane_crds::GraphNode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::net::IpAddr;

/// Documents are of 500 bytes.
pub const LARGEST_DOCUMENT: usize = 8 << 10;

/// Zone of the provider whose machines are processes on the control plane's own computer.
pub const LOCAL_ZONE: &str = "local";

/// How far clocks may be apart, in seconds.
const SKEW: i64 = 300;

/// What is known of the machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine<'a> {
    /// A process on this computer, or a machine of a provider that gives no proofs: its token alone says who it is.
    Unproven,
    /// It is being started, and which one it is has not been noted yet.
    NotYetKnown,
    /// An instance on AWS.
    Aws(AwsMachine<'a>),
}

/// An instance on AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwsMachine<'a> {
    /// As in `status.providerID`.
    pub provider_id: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// Its id.
    pub instance: &'a str,
}

impl<'a> Machine<'a> {
    /// The machine of a node, as its status names it.
    pub fn of(node: &'a GraphNode) -> Self {
        let provider_id = node.status.as_ref().and_then(|status| status.provider_id.as_deref());
        match provider_id {
            None if node.spec.zone == LOCAL_ZONE => Self::Unproven,
            None => Self::NotYetKnown,
            Some(id) => match id.strip_prefix("aws://") {
                None => Self::Unproven,
                // What cannot be read is never taken for a machine that needs no proof.
                Some(rest) => AwsMachine::parse(id, rest).map_or(Self::NotYetKnown, Self::Aws),
            },
        }
    }
}

impl<'a> AwsMachine<'a> {
    fn parse(provider_id: &'a str, rest: &'a str) -> Option<Self> {
        let (zone, instance) = rest.strip_prefix('/')?.split_once('/')?;
        (is_plain(zone) && is_instance(instance)).then_some(Self {
            provider_id,
            zone,
            instance,
        })
    }
}

/// What an instance identity document says, as far as it matters. AWS adds fields now and then; others are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The account that runs the instance.
    pub account_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Its id.
    pub instance_id: String,
    /// When it was started last.
    pub pending_time: Timestamp,
    /// Its first private address.
    pub private_ip: IpAddr,
    /// Its region.
    pub region: String,
}

/// Why a machine is not believed to be that of the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Nothing was sent.
    #[error("no instance identity document came with it")]
    Absent,
    /// It cannot be read.
    #[error("the instance identity document cannot be read: {0}")]
    Document(&'static str),
    /// Not signed by AWS, or changed since.
    #[error("the signature of the instance identity document is not good")]
    Signature,
    /// It is another machine's.
    #[error("it comes from instance {found}, the node's machine is {expected}")]
    Instance {
        /// The machine that it comes from.
        found: String,
        /// The machine of the node.
        expected: String,
    },
    /// It is of another place.
    #[error("it comes from zone {found}, the node's machine is in {expected}")]
    Zone {
        /// The zone that it comes from.
        found: String,
        /// The zone of the node's machine.
        expected: String,
    },
    /// It is of another account.
    #[error("it comes from account {found}, machines are of account {expected}")]
    Account {
        /// The account that it comes from.
        found: String,
        /// The account of the machines.
        expected: String,
    },
    /// It is about a time when there was no such machine.
    #[error("its machine was started at {0}, which is before the node was made or in the future")]
    Time(Timestamp),
    /// The agent wants to be called somewhere else.
    #[error("the agent's address is not that of its machine, {0}")]
    Address(IpAddr),
}

impl Doubt {
    /// A word of a bounded set, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Document(_) => "document",
            Self::Signature => "signature",
            Self::Instance { .. } => "instance",
            Self::Zone { .. } => "zone",
            Self::Account { .. } => "account",
            Self::Time(_) => "time",
            Self::Address(_) => "address",
        }
    }
}

/// What a document has to say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The machine of the node.
    pub machine: AwsMachine<'a>,
    /// The account of all machines, if there is only one.
    pub account: Option<&'a str>,
    /// Host of the address under which the agent wants to be called.
    pub host: &'a str,
    /// When the node was made: its machine was started after that.
    pub made: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

impl Document {
    /// Reads a document. It may come from anybody; what was read has only harmless words of bounded length.
    ///
    /// # Errors
    /// When it is not a document of an instance.
    pub fn parse(text: &str) -> Result<Self, Doubt> {
        if text.len() > LARGEST_DOCUMENT {
            return Err(Doubt::Document("it is too long"));
        }
        let document: Self = serde_json::from_str(text).map_err(|_| Doubt::Document("it does not have the form"))?;
        let good = is_instance(&document.instance_id)
            && is_plain(&document.availability_zone)
            && is_plain(&document.region)
            && document.account_id.len() == 12
            && document.account_id.bytes().all(|b| b.is_ascii_digit());
        good.then_some(document)
            .ok_or(Doubt::Document("a field has no such value"))
    }

    /// Whether it is about the machine that is expected.
    ///
    /// # Errors
    /// What is different.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), Doubt> {
        let machine = expected.machine;
        if self.instance_id != machine.instance {
            return Err(Doubt::Instance {
                found: self.instance_id.clone(),
                expected: machine.instance.to_owned(),
            });
        }
        if self.availability_zone != machine.zone || !machine.zone.starts_with(&self.region) {
            return Err(Doubt::Zone {
                found: format!("{} of {}", self.availability_zone, self.region),
                expected: machine.zone.to_owned(),
            });
        }
        if let Some(account) = expected.account.filter(|account| *account != self.account_id) {
            return Err(Doubt::Account {
                found: self.account_id.clone(),
                expected: account.to_owned(),
            });
        }
        let earlier = |a: Timestamp, b: Timestamp| a.duration_since(b) < SignedDuration::from_secs(-SKEW);
        if earlier(expected.now, self.pending_time)
            || expected.made.is_some_and(|made| earlier(self.pending_time, made))
        {
            return Err(Doubt::Time(self.pending_time));
        }
        let host = expected.host.trim_start_matches('[').trim_end_matches(']');
        if host.parse::<IpAddr>() != Ok(self.private_ip) {
            return Err(Doubt::Address(self.private_ip));
        }
        Ok(())
    }
}

fn is_instance(text: &str) -> bool {
    text.strip_prefix("i-")
        .is_some_and(|id| (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_plain(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn node(zone: &str, provider_id: Value) -> GraphNode {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": "n1"},
            "spec": {"tier": "t", "zone": zone, "volume": "v1"}, "status": {"providerID": provider_id, "conditions": []},
        }))
        .unwrap()
    }

    fn sent() -> Value {
        json!({
            "accountId": "123456789012", "architecture": "arm64", "availabilityZone": "eu-central-1a", "billingProducts": null,
            "imageId": "ami-0123456789abcdef0", "instanceId": "i-0123456789abcdef0", "instanceType": "m7g.large",
            "kernelId": null, "pendingTime": "2026-11-22T00:10:00Z", "privateIp": "10.80.3.7", "ramdiskId": null,
            "region": "eu-central-1", "version": "2017-09-30",
        })
    }

    fn document(change: impl FnOnce(&mut Value)) -> Document {
        let mut value = sent();
        change(&mut value);
        Document::parse(&value.to_string()).unwrap()
    }

    fn expected() -> Expected<'static> {
        Expected {
            machine: AwsMachine {
                provider_id: "aws:///eu-central-1a/i-0123456789abcdef0",
                zone: "eu-central-1a",
                instance: "i-0123456789abcdef0",
            },
            account: Some("123456789012"),
            host: "10.80.3.7",
            made: Some("2026-11-22T00:09:00Z".parse().unwrap()),
            now: "2026-11-22T00:11:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn only_machines_of_aws_have_to_prove_themselves() {
        assert_eq!(Machine::of(&node("local", Value::Null)), Machine::Unproven);
        assert_eq!(Machine::of(&node("local", json!("local:///n1"))), Machine::Unproven);
        assert_eq!(Machine::of(&node("eu-central-1a", Value::Null)), Machine::NotYetKnown);
        let known = node("eu-central-1a", json!("aws:///eu-central-1a/i-0123456789abcdef0"));
        assert_eq!(Machine::of(&known), Machine::Aws(expected().machine));
        // Whatever the zone of such a node may be.
        let moved = node("local", json!("aws:///eu-central-1a/i-0123456789abcdef0"));
        assert_eq!(Machine::of(&moved), Machine::Aws(expected().machine));
    }

    #[test]
    fn an_id_that_cannot_be_read_opens_nothing() {
        for id in [
            "aws://",
            "aws:///",
            "aws:///i-1",
            "aws:///z/",
            "aws:///z/x",
            "aws://a/z/i-1",
            "aws:///z/i-1/2",
        ] {
            assert_eq!(Machine::of(&node("z", json!(id))), Machine::NotYetKnown, "{id}");
        }
    }

    #[test]
    fn the_document_of_the_nodes_machine_is_believed() {
        assert_eq!(document(|_| ()).check(&expected()), Ok(()));
        let v6 = document(|d| d["privateIp"] = json!("2001:db8::7"));
        assert_eq!(
            v6.check(&Expected {
                host: "[2001:db8::7]",
                ..expected()
            }),
            Ok(())
        );
        let any_account = Expected {
            account: None,
            ..expected()
        };
        assert_eq!(
            document(|d| d["accountId"] = json!("210987654321")).check(&any_account),
            Ok(())
        );
    }

    #[test]
    fn every_difference_is_told() {
        let told = |field: &str, value: Value| document(|d| d[field] = value).check(&expected()).unwrap_err().label();
        assert_eq!(told("instanceId", json!("i-0123456789abcdef1")), "instance");
        assert_eq!(told("availabilityZone", json!("eu-central-1b")), "zone");
        assert_eq!(told("region", json!("us-east-1")), "zone");
        assert_eq!(told("accountId", json!("210987654321")), "account");
        assert_eq!(told("privateIp", json!("10.80.3.8")), "address");
        assert_eq!(told("pendingTime", json!("2026-11-22T00:03:59Z")), "time");
        assert_eq!(told("pendingTime", json!("2026-11-22T00:16:01Z")), "time");
        // Clocks may differ a little.
        assert_eq!(
            document(|d| d["pendingTime"] = json!("2026-11-22T00:04:00Z")).check(&expected()),
            Ok(())
        );
        let elsewhere = Expected {
            host: "evil.example",
            ..expected()
        };
        assert_eq!(document(|_| ()).check(&elsewhere).unwrap_err().label(), "address");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (field, value) in [
            ("instanceId", json!("i-")),
            ("instanceId", json!("i-0\n")),
            ("instanceId", Value::Null),
            ("accountId", json!("12345678901")),
            ("accountId", json!("12345678901x")),
            ("availabilityZone", json!("a b")),
            ("region", json!("")),
            ("privateIp", json!("10.80.3")),
            ("pendingTime", json!("yesterday")),
        ] {
            let mut wrong = sent();
            wrong[field] = value;
            assert!(Document::parse(&wrong.to_string()).is_err(), "{field}");
        }
        let mut long = sent();
        long["billingProducts"] = json!("x".repeat(LARGEST_DOCUMENT));
        assert_eq!(
            Document::parse(&long.to_string()),
            Err(Doubt::Document("it is too long"))
        );
        // One field twice: readers would not agree on which one counts.
        let twice = sent().to_string().replacen('{', r#"{"instanceId":"i-1","#, 1);
        assert!(Document::parse(&twice).is_err());
    }

    proptest! {
        /// No other instance, zone, account or address is ever believed.
        #[test]
        fn only_one_machine_is_believed(
            instance in "i-[0-9a-f]{17}", zone in "eu-central-1[a-c]", account in "[0-9]{12}", last in 0u8..=255,
        ) {
            let told = document(|d| {
                d["instanceId"] = json!(instance);
                d["availabilityZone"] = json!(zone);
                d["accountId"] = json!(account);
                d["privateIp"] = json!(format!("10.80.3.{last}"));
            });
            let same = told == document(|_| ());
            prop_assert_eq!(told.check(&expected()).is_ok(), same);
        }

        #[test]
        fn any_text_can_be_read_or_refused(text in "\\PC{0,200}") {
            let _ = Document::parse(&text);
        }
    }
}
