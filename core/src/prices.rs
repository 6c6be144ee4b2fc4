//! What machines and disks cost in 30 days, by a table of list prices that is part of the program.
//!
//! It is an estimate: on-demand prices without discounts, taxes, traffic and what snapshots share. What the table does not
//! know has no price, and neither has a sum with it: half a sum would look like a whole one.

use graphplane_crds::quantities::GiB;
use graphplane_crds::tier::VolumeType;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Hours of 30 days.
const HOURS: f64 = 720.0;

/// List prices in US dollars.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prices {
    /// Where they are from.
    pub source: String,
    /// Of which day they are.
    pub date: String,
    /// By region.
    pub regions: BTreeMap<String, Region>,
}

/// List prices of a region.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Region {
    /// One hour of a machine, by instance type.
    pub instance_hour: BTreeMap<String, f64>,
    /// Disks of type gp3.
    pub gp3: Disk,
    /// One GiB of a snapshot for a month.
    pub snapshot_gib_month: f64,
}

/// List prices of a disk.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disk {
    /// One GiB for a month.
    pub gib_month: f64,
    /// I/O operations per second that are part of it.
    pub free_iops: u32,
    /// One more for a month.
    pub iops_month: f64,
    /// MiB per second that are part of it.
    pub free_throughput: u32,
    /// One more for a month.
    pub throughput_month: f64,
}

/// Dollars of 30 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Dollars(pub f64);

impl std::ops::Add for Dollars {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::iter::Sum for Dollars {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

impl std::fmt::Display for Dollars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2}", self.0)
    }
}

/// A disk that is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidDisk {
    /// Its size.
    pub size: GiB,
    /// Its type.
    pub type_: VolumeType,
    /// Its I/O operations per second.
    pub iops: u32,
    /// Its throughput, in MiB per second.
    pub throughput_mibps: u32,
}

impl Region {
    /// A machine that runs all the time.
    pub fn machine(&self, instance_type: &str) -> Option<Dollars> {
        self.instance_hour.get(instance_type).map(|hour| Dollars(hour * HOURS))
    }

    /// A disk, whether it is attached or not.
    pub fn disk(&self, disk: &PaidDisk) -> Option<Dollars> {
        if disk.type_ != VolumeType::Gp3 {
            return None;
        }
        let price = &self.gp3;
        let size = f64::from(disk.size.0) * price.gib_month;
        let iops = f64::from(disk.iops.saturating_sub(price.free_iops)) * price.iops_month;
        let throughput =
            f64::from(disk.throughput_mibps.saturating_sub(price.free_throughput)) * price.throughput_month;
        Some(Dollars(size + iops + throughput))
    }

    /// Machines and disks together; `None` when the price of one is not known.
    pub fn all<'a>(
        &self,
        machines: impl IntoIterator<Item = &'a str>,
        disks: impl IntoIterator<Item = PaidDisk>,
    ) -> Option<Dollars> {
        let machines: Option<Dollars> = machines.into_iter().map(|type_| self.machine(type_)).sum();
        let disks: Option<Dollars> = disks.into_iter().map(|disk| self.disk(&disk)).sum();
        Some(machines? + disks?)
    }
}

/// A graph's part of what its node and disk cost: by the databases that may be on the node, since an empty place is
/// nobody's in particular.
pub fn share(of: Dollars, databases: u32) -> Dollars {
    Dollars(of.0 / f64::from(databases.max(1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn region() -> Region {
        Region {
            instance_hour: [("m7g.large".to_owned(), 0.1)].into(),
            gp3: Disk {
                gib_month: 0.08,
                free_iops: 3000,
                iops_month: 0.005,
                free_throughput: 125,
                throughput_month: 0.04,
            },
            snapshot_gib_month: 0.05,
        }
    }

    fn disk(size: u32, iops: u32, throughput_mibps: u32) -> PaidDisk {
        PaidDisk {
            size: GiB(size),
            type_: VolumeType::Gp3,
            iops,
            throughput_mibps,
        }
    }

    #[test]
    fn what_is_beyond_the_free_part_is_paid_for() {
        let price = |disk: PaidDisk| region().disk(&disk).unwrap().to_string();
        assert_eq!(price(disk(50, 3000, 125)), "4.00");
        assert_eq!(price(disk(50, 4000, 225)), "13.00");
        assert_eq!(price(disk(50, 100, 1)), "4.00", "less is not cheaper");
    }

    #[test]
    fn a_sum_with_an_unknown_part_is_unknown() {
        assert_eq!(
            region().all(["m7g.large"], [disk(50, 3000, 125)]).unwrap().to_string(),
            "76.00"
        );
        assert_eq!(region().all(["m7g.large", "x1.large"], []), None);
        let io2 = PaidDisk {
            type_: VolumeType::Io2,
            ..disk(50, 3000, 125)
        };
        assert_eq!(region().all([], [io2]), None);
        assert_eq!(region().all([], []), Some(Dollars(0.0)));
    }

    proptest! {
        #[test]
        fn more_is_never_cheaper(a in (1u32..65536, 100u32..64000, 1u32..2000), b in (0u32..1000, 0u32..1000, 0u32..1000)) {
            let less = region().disk(&disk(a.0, a.1, a.2)).unwrap();
            let more = region().disk(&disk(a.0 + b.0, a.1 + b.1, a.2 + b.2)).unwrap();
            prop_assert!(less <= more);
        }

        #[test]
        fn shares_make_the_whole(dollars in 0.0f64..10_000.0, databases in 1u32..100) {
            let part = share(Dollars(dollars), databases);
            prop_assert!((part.0 * f64::from(databases) - dollars).abs() < 1e-6);
        }
    }
}
