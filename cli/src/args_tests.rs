#![allow(clippy::unwrap_used)]
use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once(&"graphplane").chain(line))
}

fn refused(line: &[&str]) -> clap::Error {
    parse(line).unwrap_err()
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn ports_of_up_have_defaults_and_zero_is_allowed() {
    let Command::Up(up) = parse(&["up", "--data-dir", "d"]).unwrap().command else {
        panic!("not up")
    };
    assert_eq!(
        (up.kube_port, up.api_port, up.agent_binary, up.log_format),
        (6443, 8000, None, LogFormat::Text)
    );
    let Command::Up(up) = parse(&["up", "--kube-port", "0", "--api-port", "0"]).unwrap().command else {
        panic!("not up")
    };
    assert_eq!((up.kube_port, up.api_port), (0, 0));
    assert_eq!(
        refused(&["up", "--api-port", "65536"]).kind(),
        ErrorKind::ValueValidation
    );
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in [
        ["-o", "csv", "query", "g", "RETURN 1"],
        ["query", "g", "RETURN 1", "-o", "csv"],
    ] {
        assert_eq!(parse(&line).unwrap().global.output, OutputFormat::Csv);
    }
    assert_eq!(refused(&["status", "-o", "xml"]).kind(), ErrorKind::InvalidValue);
    let both = refused(&["status", "--api", "http://localhost", "--data-dir", "d"]);
    assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
}

#[test]
fn a_parameter_keeps_the_type_of_its_json() {
    let Command::Query(query) = parse(&[
        "query",
        "g",
        "RETURN $a",
        "--param",
        "a=1",
        "--param",
        "b=text",
        "-p",
        "c=[1,2]",
        "-p",
        "d=\"1\"",
        "-p",
        "$e=x=y",
    ])
    .unwrap()
    .command
    else {
        panic!("not query")
    };
    let read: Vec<_> = query
        .parameters
        .iter()
        .map(|p| (p.name.as_str(), p.value.to_string()))
        .collect();
    assert_eq!(
        read,
        [
            ("a", "1".into()),
            ("b", "\"text\"".into()),
            ("c", "[1,2]".into()),
            ("d", "\"1\"".into()),
            ("e", "\"x=y\"".into())
        ] as [(&str, String); 5]
    );
    assert!(
        refused(&["query", "g", "RETURN 1", "--param", "novalue"])
            .to_string()
            .contains("NAME=VALUE")
    );
}

#[test]
fn a_relationship_names_both_ends_and_needs_create_tables() {
    let line = [
        "load",
        "g",
        "f.parquet",
        "--create-tables",
        "--relationship",
        "Route=Airport:City",
    ];
    let Command::Load(load) = parse(&line).unwrap().command else {
        panic!("not load")
    };
    let expected = Relationship {
        table: "Route".into(),
        from: "Airport".into(),
        to: "City".into(),
    };
    assert_eq!(load.relationships, [expected]);
    assert_eq!(
        refused(&["load", "g", "f.parquet", "--relationship", "R=A:B"]).kind(),
        ErrorKind::MissingRequiredArgument
    );
    for wrong in ["Route", "Route=Airport", "=A:B", "R=:B", "R=A:"] {
        let error = refused(&["load", "g", "f", "--create-tables", "--relationship", wrong]);
        assert!(error.to_string().contains("TABLE=FROM:TO"), "{wrong}: {error}");
    }
}

#[test]
fn load_needs_a_file_and_create_needs_a_name() {
    let both = ["load", "g", "f.parquet", "--dry-run", "--stage-only"];
    assert_eq!(refused(&both).kind(), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&["load", "g"]).kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused(&["create", "graph"]).kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(
        refused(&["create", "graph", "g", "--size-gib", "0"]).kind(),
        ErrorKind::ValueValidation
    );
}

#[test]
fn a_timeout_of_waiting_needs_wait() {
    assert_eq!(
        refused(&["delete", "graph", "g", "--timeout", "5s"]).kind(),
        ErrorKind::MissingRequiredArgument
    );
    let line = ["delete", "graph", "g", "--wait", "--timeout", "5s"];
    let Command::Delete {
        what: DeleteCommand::Graph(delete),
    } = parse(&line).unwrap().command
    else {
        panic!("not delete")
    };
    assert_eq!((delete.wait.wait, delete.wait.timeout), (true, Duration::from_secs(5)));
    assert!(
        parse(&["delete", "graph", "g"]).is_ok(),
        "the default of --timeout alone asks for nothing"
    );
}

#[test]
fn no_option_takes_the_key_itself() {
    let mut command = Arguments::command();
    command.build();
    let with_key: Vec<_> = command
        .get_arguments()
        .filter(|a| a.get_long() == Some("api-key"))
        .collect();
    assert!(with_key.is_empty());
}

#[test]
fn every_command_explains_itself_and_those_that_need_it_have_an_example() {
    fn check(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            assert!(
                sub.get_about()
                    .is_some_and(|about| !about.to_string().starts_with("Arguments of")),
                "{path}"
            );
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            check(sub, &path);
        }
    }
    let mut command = Arguments::command();
    command.build();
    check(&command, "graphplane");
    for name in ["up", "load", "query", "sql", "status", "backup", "completion"] {
        let help = command
            .find_subcommand(name)
            .unwrap()
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains(&format!("graphplane {name}")), "{name} has no example");
    }
}

#[test]
fn places_of_sources_are_checked_before_anything_starts() {
    let up = |option, value| Arguments::try_parse_from(["graphplane", "up", option, value]);
    assert!(up("--source", "s3://lake/{graph}").is_ok() && up("--source-endpoint", "http://127.0.0.1:9000").is_ok());
    for (option, value) in [
        ("--source", "lake"),
        ("--source", "s3://lake/*"),
        ("--source-endpoint", "minio:9000"),
    ] {
        let error = up(option, value).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn infra_names_a_part_and_its_parameters() {
    let line = [
        "infra",
        "deploy",
        "network",
        "--parameter",
        "VpcCidr=10.80.0.0/16",
        "-y",
    ];
    let Command::Infra {
        what: InfraCommand::Deploy(deploy),
    } = parse(&line).unwrap().command
    else {
        panic!("not deploy")
    };
    assert_eq!(
        (deploy.stack.part, deploy.stack.name().as_str()),
        (InfraPart::Network, "graphplane-network")
    );
    assert_eq!((deploy.parameters[0].name.as_str(), deploy.yes), ("VpcCidr", true));
    for part in ["storage", "registries", "network", "alarms", "operator"] {
        assert!(parse(&["infra", "diff", part]).is_ok(), "{part}");
    }
    assert_eq!(refused(&["infra", "deploy", "castle"]).kind(), ErrorKind::InvalidValue);
    assert_eq!(refused(&["infra", "diff"]).kind(), ErrorKind::MissingRequiredArgument);
    let unnamed = refused(&["infra", "diff", "storage", "--parameter", "Prefix"]);
    assert!(unnamed.to_string().contains("NAME=VALUE"), "{unnamed}");
    for name in ["1st", "a_b", ""] {
        let error = refused(&["infra", "destroy", "storage", "--stack-name", name]);
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{name}");
    }
}
