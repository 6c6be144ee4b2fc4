//! `graphplane tiers`: the tiers of `config/graph.yml`.

use crate::args::{CheckArguments, RenderArguments};
use crate::failure::{Exit, Failure};
use crate::output;
use graphplane_crds::Tier;
use graphplane_crds::config::{Config, Environment, manifests, tiers_of};
use kube::ResourceExt;
use std::path::{Path, PathBuf};

/// Prints the manifests of an environment, or writes them to a directory.
///
/// # Errors
/// The configuration is wrong (exit code `Usage`, with everything that is), or a file cannot be written.
pub fn render(arguments: &RenderArguments) -> Result<(), Failure> {
    let environment: Environment = arguments.environment.parse().map_err(Failure::usage)?;
    let (config, source) = match &arguments.config {
        Some(file) => (read(file)?, file.display().to_string()),
        None => (
            Config::built_in().map_err(|error| Failure::plain(error.to_string()))?,
            "config/graph.yml".to_owned(),
        ),
    };
    let tiers = tiers_of(&config, environment, arguments.all);
    match &arguments.output_dir {
        None => output::print(&text_of(&tiers, &source, environment)?),
        Some(dir) => {
            let written = write_each(&tiers, &source, environment, dir)?;
            written
                .iter()
                .try_for_each(|path| output::print(&format!("{}\n", path.display())))
        }
    }
}

/// Says everything that is wrong with a file.
///
/// # Errors
/// Something is wrong with it.
pub fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let config = read(&arguments.config)?;
    let count: usize = Environment::ALL
        .iter()
        .map(|environment| config.environment(*environment).tiers.len())
        .sum();
    output::note(format_args!(
        "{} is right: {count} tiers in {} environments",
        arguments.config.display(),
        Environment::ALL.len()
    ));
    Ok(())
}

fn read(file: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound {
            Exit::NotFound
        } else {
            Exit::Failure
        };
        Failure {
            exit,
            ..Failure::io(format_args!("reading {}", file.display()), &error)
        }
    })?;
    Config::parse(&file.display().to_string(), &text).map_err(|error| Failure::usage(error.to_string()))
}

fn text_of(tiers: &[Tier], source: &str, environment: Environment) -> Result<String, Failure> {
    manifests(tiers, source, environment).map_err(|error| Failure::plain(format!("rendering the tiers: {error}")))
}

fn write_each(tiers: &[Tier], source: &str, environment: Environment, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::io(format_args!("making {}", dir.display()), &error))?;
    let mut written = Vec::new();
    for tier in tiers {
        let path = dir.join(format!("{}.yaml", tier.name_any()));
        let text = text_of(std::slice::from_ref(tier), source, environment)?;
        std::fs::write(&path, text).map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arguments(environment: &str, config: Option<&Path>) -> RenderArguments {
        let config = config.map(Path::to_owned);
        RenderArguments {
            config,
            environment: environment.to_owned(),
            output_dir: None,
            all: false,
        }
    }

    #[test]
    fn one_file_per_tier() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        let tiers = tiers_of(&Config::built_in().unwrap(), Environment::Production, false);
        let written = write_each(&tiers, "graph.yml", Environment::Production, &out).unwrap();
        assert_eq!(written.len(), 2);
        let mut names: Vec<String> = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ladybug-shared.yaml", "ladybug-standard.yaml"]);
        let text = std::fs::read_to_string(out.join("ladybug-standard.yaml")).unwrap();
        assert!(
            text.starts_with("# Generated from graph.yml, environment production;"),
            "{text}"
        );
        let tier: Tier = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(tier.name_any(), "ladybug-standard");
    }

    #[test]
    fn a_wrong_configuration_is_told_with_its_place() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("graph.yml");
        std::fs::write(
            &file,
            "production:\n  tiers: 5\nstaging: {tiers: []}\ndevelopment: {tiers: []}\n",
        )
        .unwrap();
        let failure = check(&CheckArguments { config: file.clone() }).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let expected = format!("{}:2:10: production.tiers is 5; expected a list", file.display());
        assert!(failure.message.starts_with(&expected), "{failure}");
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let missing = Path::new("/nowhere/graph.yml");
        assert_eq!(
            render(&arguments("production", Some(missing))).unwrap_err().exit,
            Exit::NotFound
        );
        let failure = render(&arguments("prod", None)).unwrap_err();
        assert!(
            failure.message.contains("production, staging, development"),
            "{failure}"
        );
    }
}
