//! Which stack a command line asks for.

use crate::args::{InfraPart, InfraStack, StackParameter};
use crate::failure::Failure;
use graphplane_operator::provider::aws::templates;
use graphplane_operator::provider::stacks::StackRequest;

/// Whose such a stack is: no cluster's, but the account's.
const OWNER: &str = "account";

/// The stack that is asked for.
///
/// # Errors
/// A parameter that the template does not have, or one given twice.
pub(super) fn of(stack: &InfraStack, parameters: &[StackParameter]) -> Result<StackRequest, Failure> {
    let template = match stack.part {
        InfraPart::Storage => templates::STORAGE,
        InfraPart::Registries => templates::REGISTRIES,
        InfraPart::Network => templates::NETWORK,
        InfraPart::Alarms => templates::ALARMS,
        InfraPart::Operator => templates::OPERATOR,
    };
    let part = stack.part.word();
    let known: Vec<&str> = templates::parameters(template).collect();
    let mut request = StackRequest {
        name: stack.name(),
        template,
        parameters: Default::default(),
        tags: [("cluster", OWNER), ("kind", "Infra"), ("name", part)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    for StackParameter { name, value } in parameters {
        if !known.contains(&name.as_str()) {
            let message = format!("{part} has no parameter {name}; it has {}", known.join(", "));
            return Err(Failure::usage(message));
        }
        if request.parameters.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("parameter {name} is given twice")));
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::failure::Exit;
    use std::time::Duration;

    fn stack() -> InfraStack {
        InfraStack {
            part: InfraPart::Storage,
            region: None,
            stack_name: None,
            adopt: false,
            timeout: Duration::from_secs(1),
        }
    }

    fn parameter(name: &str) -> StackParameter {
        StackParameter {
            name: name.into(),
            value: "x".into(),
        }
    }

    #[test]
    fn a_stack_has_its_part_for_a_name_and_only_parameters_of_its_template() {
        let request = of(&stack(), &[parameter("Prefix")]).unwrap();
        assert_eq!(request.name, "graphplane-storage");
        assert_eq!(request.parameters["Prefix"], "x");
        assert_eq!(request.tags["name"], "storage");
        let named = InfraStack {
            stack_name: Some("ours".into()),
            ..stack()
        };
        assert_eq!(of(&named, &[]).unwrap().name, "ours");
        let wrong = of(&stack(), &[parameter("VpcCidr")]).unwrap_err();
        assert!(
            wrong.exit == Exit::Usage && wrong.message.contains("NoncurrentDays"),
            "{wrong}"
        );
        let twice = of(&stack(), &[parameter("Prefix"), parameter("Prefix")]).unwrap_err();
        assert!(twice.message.contains("twice"), "{twice}");
        let operator = InfraStack {
            part: InfraPart::Operator,
            ..stack()
        };
        let request = of(&operator, &[parameter("ClusterId"), parameter("ObjectBucket")]).unwrap();
        assert_eq!(request.name, "graphplane-operator");
        assert!(request.template.contains("MachinesPolicyArn"));
    }
}
