//! Where the machines are: a VPC of addresses that this computer answers on.

use super::cloud::Cloud;
use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{SystemTime, UNIX_EPOCH},
};

/// The zones that machines may be in.
pub const ZONES: [&str; 2] = ["eu-central-1a", "eu-central-1b"];

/// A VPC whose addresses are of the loopback network, so that a machine's agent listens where moto says that the machine
/// is. Tests that run at the same time have different ones.
pub struct Network {
    /// The VPC.
    pub vpc: String,
    /// Its addresses.
    pub cidr: String,
    /// Subnet of each zone.
    pub subnets: BTreeMap<&'static str, String>,
    /// Bound as long as the addresses are in use.
    _claim: TcpListener,
}

impl Network {
    /// The subnets as the settings of AWS write them: `zone: subnet`, separated by commas.
    pub fn subnets_text(&self) -> String {
        let subnets = self.subnets.iter().map(|(zone, id)| format!("{zone}: {id}"));
        subnets.collect::<Vec<_>>().join(", ")
    }

    /// Makes a network that nobody uses.
    pub fn make(cloud: &Cloud) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let first = since.subsec_micros();
        let claim = |at: u32| {
            let second = 16 + (first + at) % 224;
            let listener = TcpListener::bind(format!("127.{second}.255.254:8001")).ok()?;
            Some((second, listener))
        };
        let (second, claim) = (0..224).find_map(claim).expect("one of 224 networks is free");
        let cidr = format!("127.{second}.0.0/16");
        let text = |found: super::xml::Element, name: &str| found.texts(name).into_iter().next().unwrap_or_default();
        let vpc = text(cloud.ask("ec2", "CreateVpc", &[("CidrBlock", cidr.as_str())]), "vpcId");
        let subnet = |(at, zone): (usize, &'static str)| {
            let block = format!("127.{second}.{}.0/20", at * 16);
            let params = [
                ("VpcId", vpc.as_str()),
                ("CidrBlock", block.as_str()),
                ("AvailabilityZone", zone),
            ];
            (zone, text(cloud.ask("ec2", "CreateSubnet", &params), "subnetId"))
        };
        let subnets = ZONES.into_iter().enumerate().map(subnet).collect();
        Self {
            vpc,
            cidr,
            subnets,
            _claim: claim,
        }
    }
}
