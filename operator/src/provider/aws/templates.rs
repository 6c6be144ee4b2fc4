//! The templates of `cloudformation/`, as this program was built with them.

/// A bucket for backups and seeds, and one for archives of the agent.
pub const STORAGE: &str = include_str!("../../../../cloudformation/storage.yaml");
/// Three tables.
pub const REGISTRIES: &str = include_str!("../../../../cloudformation/registries.yaml");
/// A VPC.
pub const NETWORK: &str = include_str!("../../../../cloudformation/network.yaml");
/// Alarms on what is there once.
pub const ALARMS: &str = include_str!("../../../../cloudformation/alarms.yaml");
/// What the machines of one Tier have in common.
pub const TIER: &str = include_str!("../../../../cloudformation/tier.yaml");
/// A read fleet.
pub const REPLICA_FLEET: &str = include_str!("../../../../cloudformation/replica-fleet.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_fits_into_a_call() {
        for template in [STORAGE, REGISTRIES, NETWORK, ALARMS, TIER, REPLICA_FLEET] {
            // A larger one would have to be put into a bucket first.
            assert!(
                template.len() <= 51_200,
                "{} bytes: {}",
                template.len(),
                &template[..60]
            );
        }
    }
}
