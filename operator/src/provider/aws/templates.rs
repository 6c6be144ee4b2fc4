//! The templates of `cloudformation/`, as this program was built with them.

/// A bucket for backups and seeds, and one for archives of the agent.
pub const STORAGE: &str = include_str!("../../../../cloudformation/storage.yaml");
/// Three tables.
pub const REGISTRIES: &str = include_str!("../../../../cloudformation/registries.yaml");
/// A VPC.
pub const NETWORK: &str = include_str!("../../../../cloudformation/network.yaml");
/// Alarms on what is there once.
pub const ALARMS: &str = include_str!("../../../../cloudformation/alarms.yaml");
/// What the operator may do.
pub const OPERATOR: &str = include_str!("../../../../cloudformation/operator.yaml");
/// What the machines of one Tier have in common.
pub const TIER: &str = include_str!("../../../../cloudformation/tier.yaml");
/// A read fleet.
pub const REPLICA_FLEET: &str = include_str!("../../../../cloudformation/replica-fleet.yaml");

/// What `DeletionPolicy: Retain` keeps when a stack of a template is deleted: names and types.
pub fn retained(template: &str) -> Vec<(&str, &str)> {
    let (mut name, mut type_, mut kept) = ("", "", vec![]);
    for line in section(template, "Resources") {
        if let Some(key) = key(line) {
            (name, type_) = (key, "");
        } else if let Some(value) = line.strip_prefix("    Type: ") {
            type_ = value;
        } else if line == "    DeletionPolicy: Retain" {
            kept.push((name, type_));
        }
    }
    kept
}

/// The names of a template's parameters.
pub fn parameters(template: &str) -> impl Iterator<Item = &str> {
    section(template, "Parameters").filter_map(key)
}

/// The defaults of a template's parameters, by their names.
pub fn defaults(template: &str) -> Vec<(&str, &str)> {
    let (mut name, mut found) = ("", vec![]);
    for line in section(template, "Parameters") {
        if let Some(key) = key(line) {
            name = key;
        } else if let Some(value) = line.strip_prefix("    Default: ") {
            found.push((name, value.trim_matches('"')));
        }
    }
    found
}

/// The lines of a section. The templates are ours, and cfn-lint and these tests keep their form.
fn section<'a>(template: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = template.lines();
    let lines = lines
        .skip_while(move |line| line.strip_suffix(':') != Some(name))
        .skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#']))
}

/// The key of a line that is indented by two spaces.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("  ")?.split_once(':')?;
    (!key.starts_with([' ', '#'])).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_fits_into_a_call() {
        for template in [STORAGE, REGISTRIES, NETWORK, ALARMS, OPERATOR, TIER, REPLICA_FLEET] {
            // A larger one would have to be put into a bucket first.
            assert!(
                template.len() <= 51_200,
                "{} bytes: {}",
                template.len(),
                &template[..60]
            );
        }
    }

    #[test]
    fn what_stays_is_found_in_the_template() {
        let kept = retained(STORAGE);
        assert!(kept.contains(&("Objects", "AWS::S3::Bucket")), "{kept:?}");
        let tables = retained(REGISTRIES);
        assert!(
            tables.len() == 3 && tables.iter().all(|(_, type_)| *type_ == "AWS::DynamoDB::Table"),
            "{tables:?}"
        );
        assert!(retained(NETWORK).is_empty() && retained(TIER).is_empty());
        for template in [STORAGE, REGISTRIES, NETWORK, ALARMS, OPERATOR, TIER, REPLICA_FLEET] {
            assert_eq!(
                retained(template).len(),
                template.matches("\n    DeletionPolicy: Retain").count()
            );
        }
    }

    #[test]
    fn parameters_are_found_in_the_template() {
        let names: Vec<&str> = parameters(TIER).collect();
        assert_eq!(names.len(), 15, "{names:?}");
        assert!(names.contains(&"VpcId") && names.contains(&"PermissionsBoundary"));
    }

    #[test]
    fn what_an_account_has_once_has_a_default_for_everything_that_can_have_one() {
        for template in [STORAGE, REGISTRIES, NETWORK, ALARMS] {
            let named: Vec<&str> = defaults(template).iter().map(|(name, _)| *name).collect();
            assert_eq!(named, parameters(template).collect::<Vec<_>>());
        }
        let has = |name: &&str| defaults(OPERATOR).iter().any(|(named, _)| named == name);
        let named_by_the_user: Vec<&str> = parameters(OPERATOR).filter(|name| !has(name)).collect();
        assert_eq!(named_by_the_user, ["ClusterId", "ObjectBucket"]);
        assert!(
            defaults(STORAGE).contains(&("KmsKeyArn", "")) && defaults(STORAGE).contains(&("NoncurrentDays", "30"))
        );
    }
}
