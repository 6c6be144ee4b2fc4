//! `graphplane infra`.

use crate::duration::parse_duration;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// What to do with what an AWS account has once.
#[derive(Subcommand, Debug)]
pub enum InfraCommand {
    /// Make a stack, or change it to what this version of the program has for it
    Deploy(DeployArguments),
    /// Show what `deploy` would change
    Diff(DiffArguments),
    /// Delete a stack; what holds data is kept
    Destroy(DestroyArguments),
}

/// A stack that an AWS account has once.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfraPart {
    /// A bucket for backups and seeds, and one for archives of the agent.
    Storage,
    /// Three DynamoDB tables.
    Registries,
    /// A VPC without a way to the internet, for those who have none.
    Network,
    /// Alarms on the registries, and events of machines and disks.
    Alarms,
    /// Policies with what an operator calls, to attach to its role; one stack for each control plane.
    Operator,
}

/// Which stack.
#[derive(Args, Debug, Clone)]
pub struct InfraStack {
    /// What it is for
    pub part: InfraPart,
    /// Region; default: that of the environment or of the profile, as the tools of AWS choose it
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Name of the stack; default: graphplane-PART
    #[arg(long, value_name = "NAME", value_parser = parse_stack_name)]
    pub stack_name: Option<String>,
    /// Take over a stack that was not made by this program
    #[arg(long)]
    pub adopt: bool,
    /// Give up waiting after so long; what was begun goes on
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl InfraPart {
    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Registries => "registries",
            Self::Network => "network",
            Self::Alarms => "alarms",
            Self::Operator => "operator",
        }
    }
}

impl InfraStack {
    /// The name of the stack.
    pub fn name(&self) -> String {
        let usual = || format!("graphplane-{}", self.part.word());
        self.stack_name.clone().unwrap_or_else(usual)
    }
}

/// Arguments of `graphplane infra deploy`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Parameters that are not given keep the values that the stack has; those of a new stack have the template's default.
What is going to be changed is shown first. A stack whose first deployment failed is deleted and made anew. Credentials
come from where the tools of AWS find them. The outputs of the stack are printed in the end.

Examples:
  graphplane infra deploy storage --region eu-central-1
  graphplane infra deploy network --parameter VpcCidr=10.80.0.0/16 --yes
  graphplane infra deploy alarms --parameter Email=ops@example.org -o json
  graphplane infra deploy operator --parameter ClusterId=… --parameter ObjectBucket=…")]
pub struct DeployArguments {
    /// Which stack.
    #[command(flatten)]
    pub stack: InfraStack,
    /// A parameter of the template; may be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parse_stack_parameter)]
    pub parameters: Vec<StackParameter>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `graphplane infra diff`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Nothing is changed. CloudFormation works out a change set, which is deleted again.

Examples:
  graphplane infra diff storage
  graphplane infra diff registries --parameter Prefix=robosystems-graph-prod -o json")]
pub struct DiffArguments {
    /// Which stack.
    #[command(flatten)]
    pub stack: InfraStack,
    /// A parameter of the template; may be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parse_stack_parameter)]
    pub parameters: Vec<StackParameter>,
}

/// Arguments of `graphplane infra destroy`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Without --yes it says what would be deleted and what would be kept, and ends with exit code 2.

Example:
  graphplane infra destroy alarms --yes")]
pub struct DestroyArguments {
    /// Which stack.
    #[command(flatten)]
    pub stack: InfraStack,
    /// Do it
    #[arg(long, short)]
    pub yes: bool,
}

/// A parameter of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackParameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

fn parse_stack_parameter(text: &str) -> Result<StackParameter, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(StackParameter {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("expected NAME=VALUE, for example VpcCidr=10.80.0.0/16".to_owned()),
    }
}

fn parse_stack_name(text: &str) -> Result<String, String> {
    let letter = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match letter && rest && text.len() <= 128 {
        true => Ok(text.to_owned()),
        false => Err("expected a letter, then letters, digits and hyphens; at most 128".to_owned()),
    }
}
