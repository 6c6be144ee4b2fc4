//! `config/graph.yml`: its figures, its rendering, and what a wrong file is told.
#![allow(clippy::unwrap_used)]

use graphplane_crds::Tier;
use graphplane_crds::config::{Config, ConfigError, Environment, TierConfig, manifest, manifests, tier_of, tiers_of};
use graphplane_crds::quantities::{GiB, Limit, MiB};
use kube::ResourceExt;

const TEXT: &str = include_str!("../../config/graph.yml");

fn config() -> Config {
    Config::built_in().unwrap_or_else(|error| panic!("{error}"))
}

fn tier(environment: Environment, name: &str) -> TierConfig {
    config()
        .environment(environment)
        .tiers
        .iter()
        .find(|tier| tier.name == name)
        .cloned()
        .unwrap()
}

/// A change of the file's text, which must be there to change.
fn with(from: &str, to: &str) -> Result<Config, ConfigError> {
    assert!(TEXT.contains(from), "{from}");
    Config::parse("graph.yml", &TEXT.replacen(from, to, 1))
}

/// The problems, without the line and column, of a file in which one text is replaced by another.
fn problems(from: &str, to: &str) -> Vec<String> {
    with(from, to)
        .unwrap_err()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn each_environment_has_its_tiers_in_order() {
    let config = config();
    let names = |environment, all| -> Vec<String> {
        tiers_of(&config, environment, all)
            .iter()
            .map(ResourceExt::name_any)
            .collect()
    };
    let every = ["ladybug-standard", "ladybug-large", "ladybug-xlarge", "ladybug-shared"];
    assert_eq!(names(Environment::Production, true), every);
    assert_eq!(names(Environment::Staging, true), every);
    assert_eq!(
        names(Environment::Production, false),
        ["ladybug-standard", "ladybug-shared"]
    );
    assert_eq!(names(Environment::Development, false), ["ladybug-standard"]);
}

/// Figures of one tier: instance, node MiB, database MiB, databases, subgraphs, rate.
type Machine = (&'static str, u32, u32, u32, i32, Option<f64>);
/// Query timeout, statement length, chunk, connections, batch.
type Engine = (u32, u32, u32, u32, u32);
/// Copy: GiB, timeout, concurrent, files, a day. Backup: GiB, days, a day.
type Limits = (i32, u32, i32, i32, i32, i32, u32, i32);
/// Volume: GiB, IOPS, throughput.
type Volume = (u32, u32, u32);

#[rustfmt::skip]
const FIGURES: [(Environment, &str, Machine, Engine, Limits, Volume); 9] = [
    (Environment::Production, "standard", ("m7g.large", 6144, 2048, 1, 3, Some(1.0)), (30, 10_000, 1000, 10, 1000), (1, 900, 1, 100, 25, 10, 7, 2), (20, 3000, 125)),
    (Environment::Production, "large", ("r7g.large", 14336, 1300, 1, 10, Some(2.5)), (60, 25_000, 1500, 25, 2500), (5, 1800, 3, 1000, 50, 50, 30, 10), (50, 3000, 125)),
    (Environment::Production, "xlarge", ("r7g.xlarge", 30720, 1180, 1, 25, Some(5.0)), (120, 50_000, 2000, 50, 5000), (10, 3600, 5, 10_000, -1, 100, 90, -1), (50, 3000, 125)),
    (Environment::Production, "shared", ("r7g.2xlarge", 10240, 10240, 1, 10, None), (300, 100_000, 2500, 100, 10_000), (10, 3600, 3, 10_000, -1, 100, 90, 5), (200, 12_000, 500)),
    (Environment::Staging, "standard", ("m7g.medium", 3072, 1024, 1, 3, Some(1.0)), (30, 10_000, 750, 10, 750), (1, 300, 1, 100, 10, 10, 7, 2), (20, 3000, 125)),
    (Environment::Staging, "large", ("r7g.medium", 7168, 650, 1, 10, Some(2.5)), (60, 25_000, 1000, 15, 1500), (2, 600, 2, 200, 25, 50, 14, 5), (50, 3000, 125)),
    (Environment::Staging, "xlarge", ("r7g.large", 14336, 550, 1, 25, Some(5.0)), (120, 50_000, 1500, 30, 3000), (5, 1800, 3, 1000, 100, 100, 30, 10), (50, 3000, 125)),
    (Environment::Staging, "shared", ("r7g.medium", 7168, 7168, 1, 10, None), (300, 100_000, 2000, 50, 5000), (5, 1800, 5, 500, 100, 100, 30, 10), (200, 12_000, 500)),
    (Environment::Development, "standard", ("m7g.large", 7168, 716, 10, 3, Some(1.0)), (30, 10_000, 1000, 10, 1000), (1, 300, 1, 100, 10, 10, 7, 2), (50, 3000, 125)),
];

#[test]
fn the_figures_are_the_agreed_ones() {
    for (environment, name, machine, engine, limits, volume) in FIGURES {
        let t = tier(environment, &format!("ladybug-{name}"));
        let memory = (t.memory.node_mib.0, t.memory.per_database_mib.0);
        let of = (
            t.instance.types[0].as_str(),
            memory,
            t.databases_per_node,
            t.max_subgraphs.0,
            t.api_rate_multiplier,
        );
        let (kind, node, database, databases, subgraphs, rate) = machine;
        assert_eq!(
            of,
            (kind, (node, database), databases, subgraphs, rate),
            "{environment} {name}"
        );
        let e = &t.engine;
        let of = (
            e.query_timeout_seconds,
            e.max_query_length,
            e.chunk_rows,
            e.connections_per_database,
        );
        assert_eq!(
            (of.0, of.1, of.2, of.3, e.ingestion_batch_rows.unwrap()),
            engine,
            "{environment} {name}"
        );
        let (c, b) = (&t.copy, &t.backup);
        let copy = (
            c.max_file_size_gib.0,
            c.timeout_seconds,
            c.concurrent.0,
            c.max_files.0,
            c.per_day.0,
        );
        let of = (
            copy.0,
            copy.1,
            copy.2,
            copy.3,
            copy.4,
            b.max_size_gib.0,
            b.retention_days,
            b.per_day.0,
        );
        assert_eq!(of, limits, "{environment} {name}");
        let s = &t.storage;
        assert_eq!(
            (s.size_gib.0, s.iops, s.throughput_mibps),
            volume,
            "{environment} {name}"
        );
    }
}

#[test]
fn the_figures_that_only_some_tiers_have() {
    let standard = tier(Environment::Production, "ladybug-standard");
    assert_eq!(
        (standard.memory.baseline_mib, standard.memory.max_boost_mib),
        (Some(MiB(2048)), Some(MiB(6144)))
    );
    let large = tier(Environment::Production, "ladybug-large");
    assert_eq!(
        (large.memory.baseline_mib, large.memory.max_boost_mib),
        (Some(MiB(4096)), Some(MiB(12288)))
    );
    let xlarge = tier(Environment::Production, "ladybug-xlarge");
    assert_eq!(
        (xlarge.memory.baseline_mib, xlarge.memory.max_boost_mib),
        (Some(MiB(8192)), Some(MiB(28672)))
    );
    let staging = xlarge.staging.unwrap();
    assert_eq!((staging.memory_mib, staging.threads), (MiB(8192), 4));
    let limits = xlarge.limits.unwrap();
    assert_eq!(
        (limits.max_nodes, limits.max_relationships),
        (Some(200_000_000), Some(500_000_000))
    );
    assert_eq!(
        (limits.max_rows_per_copy, limits.max_table_rows),
        (Some(50_000_000), Some(100_000_000))
    );
    assert_eq!(
        (limits.chunk_size_rows, limits.storage_gib),
        (Some(5_000_000), Some(GiB(100)))
    );
    assert_eq!(limits.warn_at_percent, Some(80));
    let shared = tier(Environment::Production, "ladybug-shared");
    assert_eq!(shared.shared_repositories, ["sec", "industry", "economic"]);
    assert_eq!(shared.memory.max_boost_mib, Some(MiB(51200)));
    assert_eq!(shared.staging.unwrap().max_boost_mib, Some(MiB(56320)));
    assert_eq!(
        tier(Environment::Staging, "ladybug-shared").shared_repositories,
        ["sec"]
    );
}

#[test]
fn the_read_fleets_have_their_figures_and_do_not_run_at_first() {
    let config = config();
    let [production] = &config.production.replicas[..] else {
        panic!("one fleet")
    };
    let [staging] = &config.staging.replicas[..] else {
        panic!("one fleet")
    };
    let size = |fleet: &graphplane_crds::config::ReplicaFleet| (fleet.size.min, fleet.size.max, fleet.size.desired);
    assert_eq!((size(production), size(staging)), ((2, 10, 2), (1, 3, 1)));
    assert!(!production.enabled && !staging.enabled);
    let memory = production.memory.as_ref().unwrap();
    assert_eq!(
        (memory.node_mib, memory.per_database_mib, production.max_subgraphs),
        (MiB(5120), MiB(4096), Limit(0))
    );
    let scaling = &production.scaling;
    assert_eq!(
        (
            scaling.target_cpu_percent,
            scaling.scale_in_cooldown_seconds,
            scaling.scale_out_cooldown_seconds
        ),
        (70, 300, 60)
    );
    let check = &production.health_check;
    assert_eq!(
        (check.path.as_str(), check.interval_seconds, check.timeout_seconds),
        ("/health", 30, 10)
    );
    assert_eq!((check.healthy_threshold, check.unhealthy_threshold), (2, 3));
    assert!(config.development.replicas.is_empty());
}

#[test]
fn a_manifest_parses_back_into_the_tier_that_was_rendered() {
    let config = config();
    for environment in Environment::ALL {
        for entry in &config.environment(environment).tiers {
            let tier = tier_of(entry);
            let text = manifest(&tier).unwrap();
            assert_eq!(serde_saphyr::from_str::<Tier>(&text).unwrap(), tier, "{text}");
        }
    }
}

#[test]
fn rendering_is_stable_and_one_document_per_tier() {
    let tiers = tiers_of(&config(), Environment::Production, true);
    let text = manifests(&tiers, "graph.yml", Environment::Production).unwrap();
    assert_eq!(text, manifests(&tiers, "graph.yml", Environment::Production).unwrap());
    assert_eq!(text.lines().filter(|line| *line == "---").count(), tiers.len());
    assert_eq!(serde_saphyr::from_multiple::<Tier>(&text).unwrap(), tiers);
}

#[test]
fn unlimited_subgraphs_are_left_out_of_the_manifest() {
    let mut entry = tier(Environment::Production, "ladybug-shared");
    entry.max_subgraphs = Limit::UNLIMITED;
    assert_eq!(tier_of(&entry).spec.max_subgraphs, None);
    entry.max_subgraphs = Limit(0);
    assert_eq!(
        tier_of(&entry).spec.max_subgraphs,
        Some(0),
        "none allowed is not the same as no limit"
    );
}

#[test]
fn a_wrong_figure_is_told_with_path_value_and_range() {
    assert_eq!(
        problems("databasesPerNode: 1\n", "databasesPerNode: 0\n"),
        ["production.tiers[0].databasesPerNode is 0; expected an integer from 1 to 10000"]
    );
    assert_eq!(
        problems("nodeMiB: 6144", "nodeMiB: 6 GiB"),
        ["production.tiers[0].memory.nodeMiB is \"6 GiB\"; expected an integer from 256 to 25165824"]
    );
    assert_eq!(
        problems("role: shared", "role: replica"),
        ["production.tiers[3].role is \"replica\"; expected one of writer, shared"]
    );
    assert_eq!(
        problems("enabled: true", "enabled: yes"),
        ["production.tiers[0].enabled is \"yes\"; expected true or false"]
    );
    assert_eq!(
        problems("types: [m7g.large]", "types: [large]"),
        [
            r#"production.tiers[0].instance.types[0] is "large"; expected a text of at most 32 characters that matches ^[a-z0-9-]+\.[a-z0-9-]+$"#
        ]
    );
}

#[test]
fn the_line_and_column_point_at_the_value() {
    let error = with("perDatabaseMiB: 1300", "perDatabaseMiB: many").unwrap_err();
    let problem = &error.problems[0];
    let line = TEXT.lines().nth(problem.line as usize - 1).unwrap();
    assert_eq!(line.find("1300"), Some(problem.column as usize - 1), "{error}");
    let start = format!(
        "graph.yml:{}:{}: production.tiers[1].memory.perDatabaseMiB",
        problem.line, problem.column
    );
    assert!(error.to_string().starts_with(&start), "{error}");
}

#[test]
fn an_unknown_field_names_the_one_that_was_probably_meant() {
    assert_eq!(
        problems("maxSubgraphs: 3", "maxSubgraph: 3"),
        [
            "production.tiers[0].maxSubgraphs is missing; expected an integer of at least -1",
            "production.tiers[0].maxSubgraph is not a known field; expected `maxSubgraphs`",
        ]
    );
    let unknown = problems("      enabled: true", "      enabled: true\n      colour: red");
    assert!(
        unknown[0].starts_with("production.tiers[0].colour is not a known field; expected one of "),
        "{unknown:?}"
    );
}

#[test]
fn a_figure_that_is_left_out_is_not_filled_in_silently() {
    assert_eq!(
        problems(", perDay: 25}", "}"),
        ["production.tiers[0].copy.perDay is missing; expected an integer of at least -1"]
    );
    assert_eq!(
        problems("development:\n  tiers:", "development:\n  tier:"),
        ["development.tier is not a known field; expected `tiers`",]
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = TEXT
        .replace("connectionsPerDatabase: 10", "connectionsPerDatabase: 0")
        .replace("vcpus: 1", "vcpus: one");
    let error = Config::parse("graph.yml", &text).unwrap_err();
    assert_eq!(error.problems.len(), 8, "{error}");
    assert_eq!(error.to_string().lines().count(), 8);
    let lines: Vec<u64> = error.problems.iter().map(|problem| problem.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn rules_between_fields() {
    for (from, to, expected) in [
        (
            "perDatabaseMiB: 2048",
            "perDatabaseMiB: 7000",
            "production.tiers[0].memory.perDatabaseMiB is 7000; expected at most memory.nodeMiB (6144)",
        ),
        (
            "nodeMiB: 6144",
            "nodeMiB: 9000",
            "production.tiers[0].memory.nodeMiB is 9000; expected at most instance.ramGiB in MiB (8192)",
        ),
        (
            "baselineMiB: 4096, maxBoostMiB: 12288",
            "baselineMiB: 4096, maxBoostMiB: 4000",
            "production.tiers[1].memory.baselineMiB is 4096; expected at most memory.maxBoostMiB (4000)",
        ),
        (
            "minNodes: 1, maxNodes: 10",
            "minNodes: 11, maxNodes: 10",
            "production.tiers[0].scaling.minNodes is 11; expected at most scaling.maxNodes (10)",
        ),
        (
            "storageGiB: 20",
            "storageGiB: 2000",
            "production.tiers[0].limits.storageGiB is 2000; expected at most storage.autogrow.maxGiB (1024)",
        ),
        (
            "maxRowsPerCopy: 2000000",
            "maxRowsPerCopy: 6000000",
            "production.tiers[0].limits.maxRowsPerCopy is 6000000; expected at most limits.maxTableRows (5000000)",
        ),
        (
            "maxNodes: 5000000",
            "maxNodes: 0",
            "production.tiers[0].limits.maxNodes is 0; expected an integer of at least 1, or nothing for no limit",
        ),
        (
            "types: [m7g.large]",
            "types: [m7g.large, m7i.large]",
            "production.tiers[0].instance.types[1] is \"m7i.large\", which is amd64; expected an arm64 type",
        ),
        (
            "name: ladybug-large",
            "name: ladybug-standard",
            "production.tiers[1].name is \"ladybug-standard\", as in tiers[0]; expected a name that no other tier of the environment has",
        ),
        (
            "[sec, industry, economic]",
            "[]",
            "production.tiers[3].sharedRepositories is missing; expected the repositories that live on the tier, since its role is shared",
        ),
        (
            "role: writer",
            "role: writer\n      sharedRepositories: [esg]",
            "production.tiers[0].sharedRepositories is given; expected no repositories, since the tier's role is writer",
        ),
        (
            "[sec, industry, economic]",
            "[sec, sec]",
            "production.tiers[3].sharedRepositories[1] is \"sec\", which ladybug-shared holds already; expected each repository on one tier",
        ),
        (
            "tier: ladybug-shared",
            "tier: ladybug-public",
            "production.replicas[0].tier is \"ladybug-public\", which the environment does not have; expected one of ladybug-shared",
        ),
        (
            "tier: ladybug-shared",
            "tier: ladybug-large",
            "production.replicas[0].tier is \"ladybug-large\", whose role is writer; expected a tier whose role is shared",
        ),
        (
            "size: {min: 2, max: 10, desired: 2}",
            "size: {min: 2, max: 10, desired: 11}",
            "production.replicas[0].size.desired is 11; expected at most size.max (10)",
        ),
        (
            "intervalSeconds: 30, timeoutSeconds: 10",
            "intervalSeconds: 5, timeoutSeconds: 10",
            "production.replicas[0].healthCheck.timeoutSeconds is 10; expected at most healthCheck.intervalSeconds (5)",
        ),
        (
            "schedule: \"0 2 * * *\", duration: 4h",
            "duration: 4h",
            "production.tiers[0].rollout.budgets[0] has a schedule or a duration alone; expected both or neither",
        ),
    ] {
        assert_eq!(problems(from, to), [expected]);
    }
}

#[test]
fn what_is_not_yaml_is_told_with_its_line() {
    let error = with("production:\n", "production: [\n").unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert!(
        error.problems[0].line > 0 && error.to_string().contains("is not valid YAML"),
        "{error}"
    );
    let twice = with("      enabled: true\n", "      enabled: true\n      enabled: true\n").unwrap_err();
    assert!(twice.to_string().contains("enabled"), "{twice}");
    let empty = Config::parse("graph.yml", "").unwrap_err();
    assert!(empty.to_string().starts_with("graph.yml:"), "{empty}");
    let list = Config::parse("graph.yml", "- a\n").unwrap_err();
    let expected = "graph.yml:1:1: the file is a list of 1; expected a map with development, production, staging";
    assert_eq!(list.to_string(), expected);
}

#[test]
fn an_environment_is_named_exactly() {
    assert_eq!("staging".parse(), Ok(Environment::Staging));
    let error = "prod".parse::<Environment>().unwrap_err();
    assert_eq!(
        error,
        "there is no environment `prod`; expected one of production, staging, development"
    );
}
