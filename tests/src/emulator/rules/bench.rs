//! moto behind the proxy, for the rules' own tests.

use crate::emulator::{cloud::Cloud, moto::Moto, network::Network, proxy::Proxy, xml::Element};
use tokio::runtime::Runtime;

pub(super) struct Bench {
    /// Calls that go through the proxy.
    pub(super) through: Cloud,
    pub(super) proxy: Proxy,
    pub(super) image: String,
    network: Network,
    _moto: Moto,
    _runtime: Runtime,
}

impl Bench {
    pub(super) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let moto = Moto::start();
        let cloud = Cloud::new(moto.url(), runtime.handle());
        let proxy = Proxy::start(&cloud, runtime.handle());
        let images = cloud.ask("ec2", "DescribeImages", &[("Owner.1", "amazon")]);
        Self {
            through: Cloud::new(proxy.url(), runtime.handle()),
            image: images.texts("imageId").swap_remove(0),
            network: Network::make(&cloud),
            proxy,
            _moto: moto,
            _runtime: runtime,
        }
    }

    /// The subnet of the first zone.
    pub(super) fn subnet(&self) -> &str {
        &self.network.subnets["eu-central-1a"]
    }

    /// A call of EC2 that succeeds.
    #[track_caller]
    pub(super) fn ok(&self, action: &str, params: &[(&str, &str)]) -> Element {
        self.through.ask("ec2", action, params)
    }

    /// The code that a call of EC2 is refused with; empty if it is not.
    pub(super) fn code(&self, action: &str, params: &[(&str, &str)]) -> String {
        self.through.call("ec2", action, params).code().unwrap_or_default()
    }

    /// Parameters of a machine.
    pub(super) fn machine<'a>(&'a self, of_type: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("ImageId", &self.image),
            ("InstanceType", of_type),
            ("SubnetId", self.subnet()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
        ]
    }

    /// Starts a machine; its identity.
    pub(super) fn run(&self, token: &str, of_type: &str) -> String {
        let params = [&self.machine(of_type)[..], &[("ClientToken", token)]].concat();
        self.ok("RunInstances", &params).texts("instanceId").swap_remove(0)
    }

    /// Makes a volume; its identity.
    pub(super) fn volume(&self, token: &str) -> String {
        let params = [
            ("AvailabilityZone", "eu-central-1a"),
            ("Size", "10"),
            ("ClientToken", token),
        ];
        self.ok("CreateVolume", &params).text_of(&["volumeId"]).to_owned()
    }
}
