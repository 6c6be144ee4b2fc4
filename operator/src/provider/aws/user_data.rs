//! User data of a writer's machine: its settings, then `cloudformation/user-data.sh`.

use super::AwsSettings;
use crate::provider::{InstanceRequest, ProviderError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graphplane_core::sources::SourceRules;
use serde::Serialize;

const SCRIPT: &str = include_str!("../../../../cloudformation/user-data.sh");

/// What EC2 takes, before it is encoded.
const MOST: usize = 16 << 10;

/// The agent's configuration without `instanceId`, which the machine adds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentConfig<'a> {
    node: &'a str,
    cluster_id: &'a str,
    control_plane: &'a str,
    bootstrap_token: &'a str,
    object_store: String,
    /// The machine proves by its metadata service which one it is.
    identity: &'a str,
    #[serde(flatten)]
    sources: &'a SourceRules,
}

/// The user data of a machine that keeps its data on a disk, named by its identity at EC2, as EC2 takes it.
///
/// # Errors
/// When a setting cannot be said in it, or it is too long.
pub(super) fn encoded(settings: &AwsSettings, want: &InstanceRequest, disk: &str) -> Result<String, ProviderError> {
    text(settings, want, disk)
        .map(|text| STANDARD.encode(text))
        .map_err(|why| ProviderError::Call {
            call: "RunInstances",
            message: format!("user data of node {}: {why}", want.node),
        })
}

fn text(settings: &AwsSettings, want: &InstanceRequest, disk: &str) -> Result<String, String> {
    let control_plane = settings.control_plane.url.as_deref();
    let config = AgentConfig {
        node: &want.node,
        cluster_id: &want.cluster_id,
        control_plane: control_plane.ok_or("the settings of AWS have no controlPlane.url")?,
        bootstrap_token: &want.bootstrap_token,
        object_store: settings.object_store_url(),
        identity: "aws",
        sources: &settings.sources,
    };
    // A quote can be in a string only, where this is how it is written otherwise.
    let config = serde_json::to_string(&config).map_err(|error| error.to_string())?;
    let config = config.replace('\'', "\\u0027");
    let digest = &settings.agent_sha256;
    let lines = [
        (
            "archive",
            format!("s3://{}/agents/{digest}.tar.gz", settings.artifact_bucket),
        ),
        ("sha256", digest.clone()),
        ("region", settings.region.clone()),
        ("volume", disk.rsplit('/').next().unwrap_or(disk).to_owned()),
        ("config", config),
    ];
    if let Some((name, _)) = lines.iter().find(|(_, v)| v.contains(['\'', '\n', '\0'])) {
        return Err(format!("{name} has a quote or a line break in it"));
    }
    let (first, script) = SCRIPT.split_once('\n').ok_or("user-data.sh has one line only")?;
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}='{value}'\n"))
        .collect();
    let text = format!("{first}\n{lines}{script}");
    match text.len() <= MOST {
        true => Ok(text),
        false => Err(format!(
            "it has {} bytes, EC2 takes {MOST}: name fewer sources",
            text.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::Purpose;
    use graphplane_crds::quantities::Epoch;
    use std::collections::BTreeMap;
    use std::process::Command;

    fn settings() -> AwsSettings {
        let digest = "0123456789abcdef".repeat(4);
        AwsSettings::parse(&format!(
            "{{region: eu-central-1, vpcId: vpc-1, vpcCidr: 10.0.0.0/16, subnets: {{eu-central-1a: subnet-a}}, \
             controlPlane: {{url: 'https://graphplane.example', cidr: 10.0.0.0/16}}, agentSha256: '{digest}', \
             artifactBucket: artifacts, objectBucket: objects, objectPrefix: a/}}"
        ))
        .unwrap()
    }

    fn want(bootstrap_token: &str) -> InstanceRequest {
        InstanceRequest {
            node: "std-0".into(),
            purpose: Purpose::Write { volume: "std-0".into() },
            client_token: "t1".into(),
            bootstrap_token: bootstrap_token.into(),
            cluster_id: "c1".into(),
            zone: "eu-central-1a".into(),
            instance_type: None,
            stack_outputs: BTreeMap::new(),
            epoch: Epoch(1),
            tags: BTreeMap::new(),
        }
    }

    /// What bash has in a variable after the settings.
    fn variable(text: &str, name: &str) -> String {
        let settings = text
            .lines()
            .take_while(|line| !line.starts_with("set -"))
            .collect::<Vec<_>>();
        let script = format!("{}\nprintf %s \"${name}\"", settings.join("\n"));
        let output = Command::new("bash").args(["-euc", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn bash_reads_what_was_written_whatever_is_in_it() {
        let hostile = "'; touch /tmp/x; $(reboot) `reboot` \\ \" \u{e9}\n#";
        let text = text(&settings(), &want(hostile), "vol-1").unwrap();
        let checked = Command::new("bash").args(["-nc", &text]).status().unwrap();
        assert!(checked.success());
        assert!(text.starts_with("#!/bin/bash\narchive='"));
        let config: serde_json::Value = serde_json::from_str(&variable(&text, "config")).unwrap();
        assert_eq!(
            config,
            serde_json::json!({
                "node": "std-0", "clusterId": "c1", "controlPlane": "https://graphplane.example",
                "bootstrapToken": hostile, "objectStore": "s3://objects/a",
                "identity": "aws",
            })
        );
        assert_eq!(variable(&text, "volume"), "vol-1");
        assert_eq!(
            variable(&text, "archive"),
            format!("s3://artifacts/agents/{}.tar.gz", settings().agent_sha256)
        );
        assert_eq!(variable(&text, "region"), "eu-central-1");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let quoted = AwsSettings {
            region: "eu'".into(),
            ..settings()
        };
        assert!(text(&quoted, &want("t"), "vol-1").unwrap_err().contains("region"));
        let mut nowhere = settings();
        nowhere.control_plane.url = None;
        assert!(
            text(&nowhere, &want("t"), "vol-1")
                .unwrap_err()
                .contains("controlPlane.url")
        );
        let long = "x".repeat(MOST);
        assert!(text(&settings(), &want(&long), "vol-1").unwrap_err().contains("bytes"));
        let error = encoded(&settings(), &want(&long), "vol-1").unwrap_err().to_string();
        assert!(error.contains("std-0") && !error.contains(&long), "{error}");
    }

    #[test]
    fn it_leaves_room_for_sources() {
        assert!(text(&settings(), &want(&"x".repeat(100)), "vol-1").unwrap().len() < MOST / 2);
    }
}
