//! What machines and disks cost, for the status of Tiers and Graphs.

use crate::context::Context;
use crate::error::Error;
use crate::settings::ProviderChoice;
use crate::views::is_writer_of;
use graphplane_core::prices::{Dollars, PaidDisk, Prices, Region, share};
use graphplane_crds::{Graph, GraphNode, GraphVolume, Tier};
use kube::ResourceExt;

const TABLE: &str = include_str!("../../config/prices.yml");

/// The prices of a provider; `None` where nothing is paid for by the hour, and in a region that the table lacks.
pub(crate) fn prices(provider: &ProviderChoice) -> Result<Option<Region>, Error> {
    let ProviderChoice::Aws(aws) = provider else {
        return Ok(None);
    };
    let mut table: Prices =
        serde_saphyr::from_str(TABLE).map_err(|error| Error::Settings(format!("config/prices.yml: {error}")))?;
    Ok(table.regions.remove(&aws.region))
}

impl Context {
    /// What the nodes and volumes of a Tier cost in 30 days.
    pub(crate) fn cost_of_tier(&self, tier: &Tier) -> Option<String> {
        let name = tier.name_any();
        let nodes = self.hubs.nodes.cache().list();
        let volumes = self.hubs.volumes.cache().list();
        let nodes = nodes.iter().map(|n| &**n).filter(|n| is_writer_of(n, &name));
        let volumes = volumes.iter().map(|v| &**v).filter(|v| v.spec.tier == name);
        self.cost(nodes, volumes).map(|dollars| dollars.to_string())
    }

    /// A Graph's part of its node and its volume.
    pub(crate) fn cost_of_graph(&self, graph: &Graph) -> Option<String> {
        let status = graph.status.as_ref()?;
        let node = self.hubs.nodes.cache().get("", status.node.as_deref()?)?;
        let volume = self.hubs.volumes.cache().get("", status.volume.as_deref()?)?;
        let tier = self.hubs.tiers.cache().get("", &node.spec.tier)?;
        let both = self.cost([&*node].into_iter(), [&*volume].into_iter())?;
        Some(share(both, tier.spec.databases_per_node).to_string())
    }

    /// What exists at the provider is paid for, whether it serves or not.
    fn cost<'a>(
        &self,
        nodes: impl Iterator<Item = &'a GraphNode>,
        volumes: impl Iterator<Item = &'a GraphVolume>,
    ) -> Option<Dollars> {
        let nodes = nodes.filter(|n| n.status.as_ref().is_some_and(|s| s.provider_id.is_some()));
        let volumes = volumes.filter(|v| v.status.as_ref().is_some_and(|s| s.volume_id.is_some()));
        let disks = volumes.map(|v| PaidDisk {
            size: v.status.as_ref().and_then(|s| s.size_gib).unwrap_or(v.spec.size_gib),
            type_: v.spec.type_,
            iops: v.spec.iops,
            throughput_mibps: v.spec.throughput_mibps,
        });
        // A node without a type has no price, which the empty name says.
        let types = nodes.map(|n| n.spec.instance_type.as_deref().unwrap_or_default());
        self.prices.as_ref()?.all(types, disks)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_knows_every_type_of_the_tiers() {
        let table: Prices = serde_saphyr::from_str(TABLE).unwrap();
        assert!(!table.source.is_empty() && table.date.len() == 10);
        let tiers = include_str!("../../config/graph.yml");
        let types = tiers
            .split("types: [")
            .skip(1)
            .filter_map(|rest| rest.split(']').next());
        let types: Vec<&str> = types.flat_map(|list| list.split(", ")).collect();
        assert!(types.len() > 5, "{types:?}");
        for (name, region) in &table.regions {
            for type_ in &types {
                assert!(region.machine(type_).is_some(), "{type_} has no price in {name}");
            }
        }
    }
}
