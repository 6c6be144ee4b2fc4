//! From the model to manifests. The same model always gives the same bytes.

use super::model::{Config, Environment, TierConfig};
use crate::Tier;
use crate::quantities::Limit;
use crate::tier::{Instance, Memory, Scaling, TierSpec};
use kube::ResourceExt;

/// The Tier of one entry of the configuration.
pub fn tier_of(tier: &TierConfig) -> Tier {
    let spec = TierSpec {
        description: Some(tier.description.clone()),
        display_name: Some(tier.display_name.clone()),
        role: tier.role,
        instance: Instance {
            types: tier.instance.types.clone(),
            architecture: tier.instance.architecture,
            zones: Vec::new(),
        },
        memory: Memory {
            node_mib: tier.memory.node_mib,
            per_database_mib: tier.memory.per_database_mib,
            per_subgraph_mib: tier.memory.per_subgraph_mib,
            max_boost_mib: tier.memory.max_boost_mib,
            staging_mib: tier.staging.as_ref().map(|staging| staging.memory_mib),
            staging_threads: tier.staging.as_ref().map(|staging| staging.threads),
        },
        databases_per_node: tier.databases_per_node,
        max_subgraphs: match tier.max_subgraphs {
            Limit(limit) if limit < 0 => None,
            Limit(limit) => Some(limit.unsigned_abs()),
        },
        engine: tier.engine.clone(),
        copy: tier.copy.clone(),
        backup: tier.backup.clone(),
        limits: tier.limits.clone(),
        storage: tier.storage.clone(),
        scaling: Scaling {
            min_nodes: tier.scaling.min_nodes,
            max_nodes: tier.scaling.max_nodes,
            consolidate_after_seconds: tier
                .scaling
                .consolidate_after_seconds
                .unwrap_or(Scaling::default().consolidate_after_seconds),
        },
        rollout: tier.rollout.clone().unwrap_or_default(),
        api_rate_multiplier: tier.api_rate_multiplier,
        shared_repositories: tier.shared_repositories.clone(),
    };
    Tier::new(&tier.name, spec)
}

/// The Tiers of an environment, in the order of the file; those that are not enabled only with `all`.
pub fn tiers_of(config: &Config, environment: Environment, all: bool) -> Vec<Tier> {
    config
        .environment(environment)
        .tiers
        .iter()
        .filter(|tier| all || tier.enabled)
        .map(tier_of)
        .collect()
}

/// One Tier as a YAML document.
///
/// # Errors
/// Never for a Tier of [`tier_of`]: it holds nothing that YAML cannot say.
pub fn manifest(tier: &Tier) -> Result<String, serde_saphyr::SerializeError> {
    // One line per value, so that a changed figure is one changed line.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(tier, options)
}

/// Several Tiers as one file of YAML documents, each headed by a comment with its name and where it comes from.
///
/// # Errors
/// As [`manifest`].
pub fn manifests(
    tiers: &[Tier],
    source: &str,
    environment: Environment,
) -> Result<String, serde_saphyr::SerializeError> {
    let mut text = format!("# Generated from {source}, environment {environment}; change it there.\n");
    for tier in tiers {
        text.push_str("---\n");
        text.push_str(&format!(
            "# {}\n",
            tier.spec.display_name.as_deref().unwrap_or(&tier.name_any())
        ));
        text.push_str(&manifest(tier)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}
