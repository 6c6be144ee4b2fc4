//! `graphplane infra`: what an AWS account has once.

mod request;
mod show;

use crate::args::{DeployArguments, DestroyArguments, DiffArguments, GlobalOptions, InfraStack, StackParameter};
use crate::client::within;
use crate::failure::{Exit, Failure};
use crate::output;
use graphplane_operator::provider::ProviderError;
use graphplane_operator::provider::aws::deploy::{DeployError, Mend};
use graphplane_operator::provider::aws::{self, CloudFormation, templates};
use graphplane_operator::provider::stacks::{ChangeSet, StackRequest, Stacks};
use std::io::{BufRead, IsTerminal, Write};

/// Shows what is going to be changed, asks, and does it.
///
/// # Errors
/// The stack is somebody else's, the change is refused or fails, nobody can be asked, or AWS cannot be reached.
pub async fn deploy(arguments: &DeployArguments, global: &GlobalOptions) -> Result<(), Failure> {
    let name = arguments.stack.name();
    let what = format!("stack {name}: deployment");
    within(Some(arguments.stack.timeout), &what, async {
        let stacks = connect(&arguments.stack).await?;
        let (want, proposed) = propose(&stacks, &arguments.stack, &arguments.parameters, Mend::Yes).await?;
        let outputs = match proposed {
            None => {
                output::note(format_args!("stack {name} is as it should be"));
                let stack = stacks.find(&name).await.map_err(provider)?;
                stack.map(|stack| stack.outputs).unwrap_or_default()
            }
            Some(change_set) => {
                if !arguments.yes {
                    output::note(show::table(&change_set).trim_end());
                    if let Err(failure) = confirm(&format!("change stack {name}?")) {
                        drop_quietly(&stacks, &name, &change_set).await;
                        return Err(failure);
                    }
                }
                let done = stacks
                    .carry_out(&want, &change_set, show::event)
                    .await
                    .map_err(failed)?;
                output::note(format_args!("stack {name} is {}", done.status));
                done.outputs
            }
        };
        show::outputs(&outputs, global.output)
    })
    .await
}

/// Shows what would be changed.
///
/// # Errors
/// The stack is somebody else's, the change is refused, or AWS cannot be reached.
pub async fn diff(arguments: &DiffArguments, global: &GlobalOptions) -> Result<(), Failure> {
    let name = arguments.stack.name();
    let what = format!("stack {name}: comparison");
    within(Some(arguments.stack.timeout), &what, async {
        let stacks = connect(&arguments.stack).await?;
        let (_, proposed) = propose(&stacks, &arguments.stack, &arguments.parameters, Mend::No).await?;
        if let Some(change_set) = &proposed {
            stacks.withdraw(&name, &change_set.name).await.map_err(provider)?;
        }
        show::changes(proposed.as_ref(), global.output)
    })
    .await
}

/// Deletes a stack.
///
/// # Errors
/// `--yes` is missing, there is no such stack, something is in its way, or AWS cannot be reached.
pub async fn destroy(arguments: &DestroyArguments) -> Result<(), Failure> {
    let stack = &arguments.stack;
    let name = stack.name();
    let want = request::of(stack, &[])?;
    let kept = templates::retained(want.template);
    let kept = match kept.is_empty() {
        true => "nothing of it is kept".to_owned(),
        false => {
            let kept: Vec<String> = kept.iter().map(|(name, type_)| format!("{name} ({type_})")).collect();
            format!("kept, for you to empty and delete: {}", kept.join(", "))
        }
    };
    if !arguments.yes {
        return Err(Failure::usage(format!("stack {name} would be deleted; {kept}")).advise("add --yes to do it"));
    }
    let what = format!("stack {name}: deletion");
    within(Some(stack.timeout), &what, async {
        let stacks = connect(stack).await?;
        match stacks.remove(&want, stack.adopt, show::event).await.map_err(failed)? {
            true => output::print(&format!("stack {name} is deleted; {kept}\n")),
            false => Err(Failure::new(Exit::NotFound, format!("there is no stack {name}"))),
        }
    })
    .await
}

async fn connect(stack: &InfraStack) -> Result<CloudFormation, Failure> {
    let config = aws::config(stack.region.as_deref(), None).await;
    match config.region() {
        Some(_) => Ok(CloudFormation::new(&config)),
        None => Err(Failure::usage("no region is chosen").advise("give --region, or set AWS_REGION")),
    }
}

async fn propose(
    stacks: &CloudFormation,
    stack: &InfraStack,
    parameters: &[StackParameter],
    mend: Mend,
) -> Result<(StackRequest, Option<ChangeSet>), Failure> {
    let want = request::of(stack, parameters)?;
    let want = stacks.with_present_parameters(want).await.map_err(provider)?;
    let proposed = stacks.prepare(&want, stack.adopt, mend).await.map_err(failed)?;
    Ok((want, proposed))
}

/// A change set that nobody wants any more; what was answered matters more than that it is gone.
async fn drop_quietly(stacks: &CloudFormation, name: &str, change_set: &ChangeSet) {
    if let Err(error) = stacks.withdraw(name, &change_set.name).await {
        output::note(format_args!("change set {} is left: {error}", change_set.name));
    }
}

fn confirm(question: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("nobody can be asked here").advise("add --yes to go on without a question"));
    }
    let mut err = std::io::stderr();
    let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    asked.map_err(|error| Failure::io("asking", &error))?;
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::io("reading the answer", &error))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::plain("nothing was changed")),
    }
}

fn failed(error: DeployError) -> Failure {
    match error {
        DeployError::Provider(error) => provider(error),
        DeployError::Stack(message) => Failure::plain(message),
    }
}

/// The exit code of what AWS said.
fn provider(error: ProviderError) -> Failure {
    let message = error.to_string();
    let denied = [
        "AccessDenied",
        "ExpiredToken",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClient",
    ];
    if denied.iter().any(|code| message.contains(code)) {
        return Failure::new(Exit::Denied, message);
    }
    if message.contains("credentials") {
        let advice = "give credentials as for the tools of AWS, for example in AWS_PROFILE";
        return Failure::new(Exit::Denied, message).advise(advice);
    }
    match message.contains("dispatch failure") || message.contains("timed out") {
        true => Failure::new(Exit::Unreachable, message),
        false => Failure::plain(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_says_has_an_exit_code() {
        let said = |message: &str| {
            let message = message.to_owned();
            provider(ProviderError::Call {
                call: "CreateChangeSet",
                message,
            })
            .exit
        };
        assert_eq!(said("AccessDenied: User is not authorized"), Exit::Denied);
        assert_eq!(
            said("dispatch failure: io error: connection refused"),
            Exit::Unreachable
        );
        assert_eq!(
            said("dispatch failure: other: no credentials in the chain"),
            Exit::Denied
        );
        assert_eq!(said("LimitExceededException: too many stacks"), Exit::Failure);
    }
}
