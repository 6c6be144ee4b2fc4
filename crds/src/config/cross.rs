//! Rules that hold between fields, and between parts of the file.

use super::error::Problem;
use super::model::{Config, Environment, EnvironmentConfig, Machine, ReplicaFleet, TierConfig};
use super::tree::Node;
use crate::quantities::GiB;
use crate::tier::{Architecture, TierRole};
use std::collections::HashMap;
use std::fmt::Display;

/// Checks a configuration whose fields are right by themselves.
pub(super) fn check(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut checker = Checker {
        tree,
        problems: Vec::new(),
    };
    for environment in Environment::ALL {
        checker.environment(config.environment(environment), environment.as_str());
    }
    checker.problems
}

struct Checker<'a> {
    tree: &'a Node,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn report(&mut self, path: String, found: impl Display, expected: impl Into<String>) {
        let at = self.tree.place_of(&path);
        let (line, column) = (at.line, at.column);
        self.problems.push(Problem {
            line,
            column,
            path,
            found: found.to_string(),
            expected: expected.into(),
        });
    }

    /// `value` of the field at `path` must be at most `limit`, which `named` explains.
    fn at_most(&mut self, path: String, value: impl Into<u64>, limit: impl Into<u64>, named: &str) {
        let (value, limit) = (value.into(), limit.into());
        if value > limit {
            self.report(path, format_args!("is {value}"), format!("at most {named} ({limit})"));
        }
    }

    fn environment(&mut self, environment: &EnvironmentConfig, name: &str) {
        let mut names = HashMap::new();
        let mut repositories: HashMap<&str, &str> = HashMap::new();
        for (index, tier) in environment.tiers.iter().enumerate() {
            let path = format!("{name}.tiers[{index}]");
            if let Some(first) = names.insert(&tier.name, index) {
                let found = format!("is \"{}\", as in tiers[{first}]", tier.name);
                self.report(
                    format!("{path}.name"),
                    found,
                    "a name that no other tier of the environment has",
                );
            }
            for (at, repository) in tier.shared_repositories.iter().enumerate() {
                if let Some(other) = repositories.insert(repository, &tier.name) {
                    let found = format!("is \"{repository}\", which {other} holds already");
                    self.report(
                        format!("{path}.sharedRepositories[{at}]"),
                        found,
                        "each repository on one tier",
                    );
                }
            }
            self.tier(tier, &path);
        }
        for (index, fleet) in environment.replicas.iter().enumerate() {
            let path = format!("{name}.replicas[{index}]");
            if let Some(earlier) = environment.replicas[..index]
                .iter()
                .position(|other| other.name == fleet.name)
            {
                let found = format!("is \"{}\", as in replicas[{earlier}]", fleet.name);
                self.report(
                    format!("{path}.name"),
                    found,
                    "a name that no other fleet of the environment has",
                );
            }
            self.fleet(fleet, environment, &path);
        }
    }

    fn tier(&mut self, tier: &TierConfig, path: &str) {
        self.machine(&tier.instance, &format!("{path}.instance"));
        let ram = u64::from(tier.instance.ram_gib.0) * 1024;
        let memory = &tier.memory;
        let node = memory.node_mib.0;
        let field = |name: &str| format!("{path}.memory.{name}");
        self.at_most(field("nodeMiB"), node, ram, "instance.ramGiB in MiB");
        self.at_most(
            field("perDatabaseMiB"),
            memory.per_database_mib.0,
            node,
            "memory.nodeMiB",
        );
        if let Some(subgraph) = memory.per_subgraph_mib {
            self.at_most(
                field("perSubgraphMiB"),
                subgraph.0,
                memory.per_database_mib.0,
                "memory.perDatabaseMiB",
            );
        }
        if let Some(boost) = memory.max_boost_mib {
            self.at_most(field("maxBoostMiB"), boost.0, ram, "instance.ramGiB in MiB");
        }
        if let Some(baseline) = memory.baseline_mib {
            self.at_most(field("baselineMiB"), baseline.0, node, "memory.nodeMiB");
            match memory.max_boost_mib {
                Some(boost) => self.at_most(field("baselineMiB"), baseline.0, boost.0, "memory.maxBoostMiB"),
                None => self.report(
                    field("maxBoostMiB"),
                    "is missing",
                    "an integer, since memory.baselineMiB is given",
                ),
            }
        }
        if let Some(staging) = &tier.staging {
            let field = |name: &str| format!("{path}.staging.{name}");
            self.at_most(field("memoryMiB"), staging.memory_mib.0, ram, "instance.ramGiB in MiB");
            if let Some(boost) = staging.max_boost_mib {
                self.at_most(field("maxBoostMiB"), boost.0, ram, "instance.ramGiB in MiB");
                self.at_most(field("memoryMiB"), staging.memory_mib.0, boost.0, "staging.maxBoostMiB");
            }
        }
        self.storage_and_limits(tier, path);
        let scaling = &tier.scaling;
        self.at_most(
            format!("{path}.scaling.minNodes"),
            scaling.min_nodes,
            scaling.max_nodes,
            "scaling.maxNodes",
        );
        for (index, budget) in tier.rollout.iter().flat_map(|rollout| &rollout.budgets).enumerate() {
            if budget.schedule.is_some() != budget.duration.is_some() {
                let found = "has a schedule or a duration alone";
                self.report(format!("{path}.rollout.budgets[{index}]"), found, "both or neither");
            }
        }
        match (tier.role, tier.shared_repositories.is_empty()) {
            (TierRole::Shared, true) => self.report(
                format!("{path}.sharedRepositories"),
                "is missing",
                "the repositories that live on the tier, since its role is shared",
            ),
            (TierRole::Writer, false) => self.report(
                format!("{path}.sharedRepositories"),
                "is given",
                "no repositories, since the tier's role is writer",
            ),
            _ => {}
        }
    }

    fn storage_and_limits(&mut self, tier: &TierConfig, path: &str) {
        let storage = &tier.storage;
        let (largest, named) = match &storage.autogrow {
            Some(autogrow) => (autogrow.max_gib, "storage.autogrow.maxGiB"),
            None => (storage.size_gib, "storage.sizeGiB"),
        };
        self.at_most(format!("{path}.storage.sizeGiB"), storage.size_gib.0, largest.0, named);
        let Some(limits) = &tier.limits else { return };
        let field = |name: &str| format!("{path}.limits.{name}");
        if let Some(GiB(allowed)) = limits.storage_gib {
            self.at_most(field("storageGiB"), allowed, largest.0, named);
        }
        let rows = [
            (
                "chunkSizeRows",
                limits.chunk_size_rows,
                "limits.maxRowsPerCopy",
                limits.max_rows_per_copy,
            ),
            (
                "maxRowsPerCopy",
                limits.max_rows_per_copy,
                "limits.maxTableRows",
                limits.max_table_rows,
            ),
        ];
        for (name, value, named, limit) in rows {
            if let (Some(value), Some(limit)) = (value, limit) {
                self.at_most(field(name), value.max(0) as u64, limit.max(0) as u64, named);
            }
        }
        let counts = [
            ("maxNodes", limits.max_nodes),
            ("maxRelationships", limits.max_relationships),
            ("maxRowsPerCopy", limits.max_rows_per_copy),
            ("maxTableRows", limits.max_table_rows),
            ("chunkSizeRows", limits.chunk_size_rows),
        ];
        for (name, value) in counts {
            if let Some(value) = value
                && value < 1
            {
                self.report(
                    field(name),
                    format_args!("is {value}"),
                    "an integer of at least 1, or nothing for no limit",
                );
            }
        }
    }

    fn fleet(&mut self, fleet: &ReplicaFleet, environment: &EnvironmentConfig, path: &str) {
        self.machine(&fleet.instance, &format!("{path}.instance"));
        match environment.tiers.iter().find(|tier| tier.name == fleet.tier) {
            Some(tier) if tier.role != TierRole::Shared => {
                let found = format!("is \"{}\", whose role is writer", fleet.tier);
                self.report(format!("{path}.tier"), found, "a tier whose role is shared");
            }
            Some(tier) if fleet.enabled && !tier.enabled => {
                let found = format!("is \"{}\", which is not enabled", fleet.tier);
                self.report(
                    format!("{path}.tier"),
                    found,
                    "an enabled tier, since the fleet is enabled",
                );
            }
            Some(_) => {}
            None => {
                let shared = environment.tiers.iter().filter(|tier| tier.role == TierRole::Shared);
                let names: Vec<&str> = shared.map(|tier| tier.name.as_str()).collect();
                let found = format!("is \"{}\", which the environment does not have", fleet.tier);
                self.report(format!("{path}.tier"), found, format!("one of {}", names.join(", ")));
            }
        }
        if let Some(memory) = &fleet.memory {
            let ram = u64::from(fleet.instance.ram_gib.0) * 1024;
            let node = memory.node_mib.0;
            self.at_most(format!("{path}.memory.nodeMiB"), node, ram, "instance.ramGiB in MiB");
            self.at_most(
                format!("{path}.memory.perDatabaseMiB"),
                memory.per_database_mib.0,
                node,
                "memory.nodeMiB",
            );
        }
        let size = &fleet.size;
        self.at_most(format!("{path}.size.min"), size.min, size.desired, "size.desired");
        self.at_most(format!("{path}.size.desired"), size.desired, size.max, "size.max");
        let check = &fleet.health_check;
        self.at_most(
            format!("{path}.healthCheck.timeoutSeconds"),
            check.timeout_seconds,
            check.interval_seconds,
            "healthCheck.intervalSeconds",
        );
    }

    fn machine(&mut self, machine: &Machine, path: &str) {
        if machine.types.is_empty() {
            self.report(format!("{path}.types"), "is empty", "at least one instance type");
        }
        for (index, name) in machine.types.iter().enumerate() {
            if let Some(of_type) = architecture_of(name)
                && of_type != machine.architecture
            {
                let found = format!("is \"{name}\", which is {}", word(of_type));
                self.report(
                    format!("{path}.types[{index}]"),
                    found,
                    format!("an {} type", word(machine.architecture)),
                );
            }
        }
    }
}

fn word(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Arm64 => "arm64",
        Architecture::Amd64 => "amd64",
    }
}

/// The architecture of an AWS instance type: a `g` after the generation's digit stands for Graviton. `None` where the
/// name has another form.
fn architecture_of(instance_type: &str) -> Option<Architecture> {
    let family = instance_type.split('.').next()?;
    let digit = family.find(|c: char| c.is_ascii_digit())?;
    let attributes = family[digit..].trim_start_matches(|c: char| c.is_ascii_digit());
    Some(if attributes.starts_with('g') {
        Architecture::Arm64
    } else {
        Architecture::Amd64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graviton_is_told_by_the_letter_after_the_generation() {
        for (name, expected) in [
            ("m7g.large", Some(Architecture::Arm64)),
            ("r8gd.2xlarge", Some(Architecture::Arm64)),
            ("x2gd.metal", Some(Architecture::Arm64)),
            ("m7i.large", Some(Architecture::Amd64)),
            ("g5.xlarge", Some(Architecture::Amd64)),
            ("mac.metal", None),
        ] {
            assert_eq!(architecture_of(name), expected, "{name}");
        }
    }
}
