//! What is wrong with settings of AWS, as far as can be seen without asking AWS: the rules are those of the templates.

use super::AwsSettings;
use std::net::Ipv4Addr;
use url::Url;

/// The first thing that is wrong: the field, what it should be, and what it is.
pub(super) fn check(settings: &AwsSettings) -> Result<(), String> {
    let AwsSettings { region, subnets, .. } = settings;
    expect("region", region, is_region(region), "a region such as eu-central-1")?;
    expect("vpcId", &settings.vpc_id, settings.vpc_id.starts_with("vpc-"), "vpc-…")?;
    network("vpcCidr", &settings.vpc_cidr)?;
    if subnets.is_empty() {
        return Err("subnets: expected a subnet for at least one zone".into());
    }
    if let Some(zone) = subnets.keys().find(|zone| !zone.starts_with(region.as_str())) {
        return Err(format!("subnets: zone {zone} is not in region {region}"));
    }
    network("controlPlane.cidr", &settings.control_plane.cidr)?;
    if let Some(url) = &settings.control_plane.url {
        control_plane(url, settings.control_plane.port)?;
    }
    let digest = &settings.agent_sha256;
    let hex = digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    expect("agentSha256", digest, hex, "64 hexadecimal digits")?;
    for (field, bucket) in [
        ("artifactBucket", &settings.artifact_bucket),
        ("objectBucket", &settings.object_bucket),
    ] {
        expect(field, bucket, is_bucket(bucket), "the name of a bucket")?;
    }
    let prefix = &settings.object_prefix;
    let segments = "empty, or segments that each end with /";
    expect("objectPrefix", prefix, prefix.is_empty() || is_prefix(prefix), segments)?;
    arn("kmsKeyArn", settings.kms_key_arn.as_deref(), "kms")?;
    for source in &settings.source_arns {
        arn("sourceArns", Some(source), "s3")?;
    }
    arn("permissionsBoundary", settings.permissions_boundary.as_deref(), "iam")?;
    arn("alarmTopicArn", settings.alarm_topic_arn.as_deref(), "sns")?;
    if let Some(prefix) = &settings.registry_prefix {
        let words = "lower-case letters, digits and hyphens, at most 63";
        expect("registryPrefix", prefix, is_table_prefix(prefix), words)?;
    }
    let path = &settings.key_parameter_prefix;
    let good = path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_word));
    expect("keyParameterPrefix", path, good, "a path such as /graphplane/replicas")?;
    if let Some(account) = &settings.account_id {
        let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        expect("accountId", account, digits, "12 digits")?;
    }
    Ok(())
}

fn expect(field: &str, value: &str, good: bool, expected: &str) -> Result<(), String> {
    match good {
        true => Ok(()),
        false => Err(format!("{field}: expected {expected}, not {value:?}")),
    }
}

/// `us-gov-west-1`: words, and a number.
fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else {
        return false;
    };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    words.contains('-') && words.split('-').all(is_word) && is_number
}

/// An IPv4 network by its first address: security groups refuse another one.
fn network(field: &str, text: &str) -> Result<(), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, bits)| Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?)));
    let good = parsed.is_some_and(|(address, bits)| {
        let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
        (8..=32).contains(&bits) && address.to_bits() & hosts == 0
    });
    expect(field, text, good, "an IPv4 network such as 10.80.0.0/16")
}

/// Machines may connect to that port alone.
fn control_plane(url: &str, port: u16) -> Result<(), String> {
    let parsed = Url::parse(url).ok().filter(|parsed| {
        let reachable = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
        reachable && parsed.query().is_none() && parsed.fragment().is_none()
    });
    let Some(parsed) = parsed else {
        return expect("controlPlane.url", url, false, "an http or https URL");
    };
    match parsed.port_or_known_default() {
        Some(of_url) if of_url != port => Err(format!(
            "controlPlane.port: {port} is not the port of controlPlane.url, {of_url}: machines could not reach it"
        )),
        _ => Ok(()),
    }
}

fn is_bucket(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let inside = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    (3..=63).contains(&name.len()) && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inside)
}

fn is_prefix(text: &str) -> bool {
    let segment = |segment: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'=' | b'-');
        !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(good)
    };
    text.strip_suffix('/').is_some_and(|text| text.split('/').all(segment))
}

fn is_table_prefix(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(good)
}

fn is_word(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(good)
}

/// `arn:<partition>:<service>:<region>:<account>:<resource>`.
fn arn(field: &str, text: Option<&str>, service: &str) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let good = matches!(parts.as_slice(), ["arn", _, of, _, _, resource] if *of == service && !resource.is_empty());
    expect(field, text, good, &format!("the ARN of something of {service}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "
region: eu-central-1
vpcId: vpc-1
vpcCidr: 10.80.0.0/16
subnets: {eu-central-1a: subnet-a}
controlPlane: {url: 'https://graphplane.internal', cidr: 10.81.0.0/20}
agentSha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
artifactBucket: artifacts
objectBucket: objects
objectPrefix: prod/a=1/
kmsKeyArn: arn:aws:kms:eu-central-1:123456789012:key/1
sourceArns: ['arn:aws:s3:::lake', 'arn:aws:s3:::lake/*']
permissionsBoundary: arn:aws:iam::123456789012:policy/boundary
alarmTopicArn: arn:aws:sns:eu-central-1:123456789012:alarms
registryPrefix: robosystems-graph-prod
keyParameterPrefix: /graphplane/replicas
accountId: '123456789012'
";

    #[test]
    fn what_is_right_is_taken() {
        AwsSettings::parse(GOOD).unwrap();
        let other = GOOD.replace("internal'", "internal:8443', port: 8443");
        AwsSettings::parse(&other).unwrap();
        for region in ["us-gov-west-1", "ap-southeast-2", "eusc-de-east-1"] {
            assert!(is_region(region), "{region}");
        }
        for all in ["10.0.0.0/8", "10.1.2.3/32"] {
            network("vpcCidr", all).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field_and_value() {
        let wrong = [
            ("region: eu-central-1", "region: Frankfurt", "region: expected"),
            ("region: eu-central-1", "region: eu-central", "\"eu-central\""),
            ("vpcId: vpc-1", "vpcId: main", "vpcId: expected vpc-…, not \"main\""),
            ("10.80.0.0/16", "10.80.0.0", "vpcCidr"),
            ("10.80.0.0/16", "10.80.0.1/16", "\"10.80.0.1/16\""),
            ("10.80.0.0/16", "10.80.0.0/33", "vpcCidr"),
            ("10.80.0.0/16", "fd00::/8", "vpcCidr"),
            ("10.81.0.0/20", "10.81.0.0/8", "controlPlane.cidr"),
            ("subnets: {eu-central-1a: subnet-a}", "subnets: {}", "subnets"),
            ("eu-central-1a:", "us-east-1a:", "us-east-1a"),
            ("https://graphplane.internal", "graphplane.internal", "controlPlane.url"),
            (
                "https://graphplane.internal",
                "ftp://graphplane.internal",
                "controlPlane.url",
            ),
            (
                "https://graphplane.internal",
                "http://graphplane.internal:8000",
                "controlPlane.port: 443",
            ),
            ("agentSha256: 0123", "agentSha256: xyz", "agentSha256"),
            (
                "artifactBucket: artifacts",
                "artifactBucket: s3://artifacts",
                "artifactBucket",
            ),
            ("objectBucket: objects", "objectBucket: Objects", "\"Objects\""),
            ("objectPrefix: prod/a=1/", "objectPrefix: prod", "objectPrefix"),
            ("objectPrefix: prod/a=1/", "objectPrefix: ../", "objectPrefix"),
            ("arn:aws:kms:", "arn:aws:s3:", "kmsKeyArn"),
            ("'arn:aws:s3:::lake'", "lake", "sourceArns"),
            ("arn:aws:iam:", "iam:", "permissionsBoundary"),
            (
                "arn:aws:sns:eu-central-1:123456789012:alarms",
                "alarms",
                "alarmTopicArn",
            ),
            ("robosystems-graph-prod", "Robo", "registryPrefix"),
            ("/graphplane/replicas", "graphplane", "keyParameterPrefix"),
            (
                "accountId: '123456789012'",
                "accountId: '12345'",
                "accountId: expected 12 digits",
            ),
        ];
        for (right, wrong, named) in wrong {
            assert!(GOOD.contains(right), "{right}");
            let error = AwsSettings::parse(&GOOD.replacen(right, wrong, 1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }
}
