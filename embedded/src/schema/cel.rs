//! CEL rules (`x-kubernetes-validations`): compiled with the schema, evaluated after the schema's own checks.
//!
//! The language and the Kubernetes functions come from the `kube-cel` crate. What is done here is what the API server
//! adds to it: which part of the old object a rule may see, how values appear to rules, and how failures are worded.

mod rule;
mod scope;
mod types;
mod value;

use std::sync::Arc;

use kube_cel::{
    KubeCelExt,
    cel::{self, Context, ExecutionError, objects::OptionalValue},
};
use serde_json::Value;

pub(super) use rule::Rule;

use super::{
    node::{Additional, Node},
    path::Path,
};
use crate::status::{Cause, CauseReason};

/// Longest text that a `messageExpression` may produce, in bytes; longer ones are ignored as in kube-apiserver.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

thread_local! {
    /// The functions of Kubernetes CEL. Registering them takes longer than most rules run, so each thread does it once.
    static FUNCTIONS: Context<'static> = types::register(Context::default().with_all());
}

/// Runs every rule of the schema that has a value to look at; `old` is the stored object of an update.
pub(super) fn validate(root: &Node, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if root.rules_within {
        FUNCTIONS.with(|functions| {
            let mut walk = Walk {
                functions,
                causes: &mut causes,
            };
            walk.visit(root, new, old, true, false, &Path::ROOT);
        });
    }
    causes
}

struct Walk<'w> {
    functions: &'w Context<'static>,
    causes: &'w mut Vec<Cause>,
}

impl Walk<'_> {
    /// `parent_unchanged`: the nearest enclosing value that can be compared with its old state equals it.
    fn visit(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        is_resource: bool,
        parent_unchanged: bool,
        path: &Path<'_>,
    ) {
        // A rule never sees null: whoever allows null asks for it one level up.
        if !node.rules_within || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let unchanged = parent_unchanged || old == Some(value);
        if !node.rules.is_empty() {
            self.run(node, value, old, is_resource, unchanged, path);
        }
        match value {
            Value::Object(map) => {
                for (name, child) in map {
                    let before = old.and_then(|old| old.get(name));
                    if let Some(property) = node.properties.get(name) {
                        self.visit(property, child, before, false, unchanged, &path.field(name));
                    } else if let Additional::Schema(values) = &node.additional {
                        self.visit(values, child, before, false, unchanged, &path.key(name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &node.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = node.correlated_item(item, old);
                    self.visit(schema, item, before, false, unchanged, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn run(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        is_resource: bool,
        unchanged: bool,
        path: &Path<'_>,
    ) {
        // What did not change cannot newly break a rule that looks at one state only.
        let applies = |rule: &&Rule| {
            if rule.uses_old {
                old.is_some() || rule.optional_old
            } else {
                !unchanged
            }
        };
        let mut rules = node.rules.iter().filter(applies).peekable();
        if rules.peek().is_none() {
            return;
        }
        let convert = |value: &Value| value::to_cel(value, node, is_resource);
        let mut scope = self.functions.new_inner_scope();
        scope.add_variable_from_value("self", convert(value));
        let before = old.filter(|_| node.rules.iter().any(|rule| rule.uses_old)).map(convert);
        for rule in rules {
            let mut scope = scope.new_inner_scope();
            if rule.uses_old {
                let bound = match (&before, rule.optional_old) {
                    (Some(before), false) => before.clone(),
                    (Some(before), true) => cel::Value::Opaque(Arc::new(OptionalValue::of(before.clone()))),
                    (None, _) => cel::Value::Opaque(Arc::new(OptionalValue::none())),
                };
                scope.add_variable_from_value("oldSelf", bound);
            }
            if let Some(cause) = outcome(rule, &scope, node, path) {
                self.causes.push(cause);
            }
        }
    }
}

/// The complaint of one rule, or `None` if it holds.
fn outcome(rule: &Rule, scope: &Context<'_>, node: &Node, path: &Path<'_>) -> Option<Cause> {
    // Messages show the type in place of the value, which may be large or secret.
    let shown = Value::from(node.kind.map_or("", |kind| kind.as_str()));
    match rule.program.execute(scope) {
        Ok(cel::Value::Bool(true)) => None,
        Ok(cel::Value::Bool(false)) => {
            let detail = message(rule, scope);
            let mut field = path.to_string();
            if let Some(below) = &rule.field_path {
                if !field.is_empty() && !below.starts_with('[') {
                    field.push('.');
                }
                field.push_str(below);
            }
            Some(match rule.reason {
                CauseReason::Required => Cause::required(field, &detail),
                CauseReason::Forbidden => Cause::forbidden(field, &detail),
                CauseReason::Duplicate => Cause::duplicate(field, &shown),
                _ => Cause::invalid(field, &shown, &detail),
            })
        }
        Ok(other) => {
            let detail = format!("rule returned {} instead of bool: {}", other.type_of(), rule.name());
            Some(Cause::invalid(path, &shown, &detail))
        }
        Err(error) => Some(Cause::invalid(path, &shown, &failure(&error, rule))),
    }
}

fn failure(error: &ExecutionError, rule: &Rule) -> String {
    let rule = rule.name();
    match error {
        ExecutionError::NoSuchOverload => format!(
            "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: \
             {rule}"
        ),
        ExecutionError::NoSuchKey(key) => format!("no such key: {key} evaluating rule: {rule}"),
        ExecutionError::IndexOutOfBounds(index) => format!("index out of bounds: {index:?} evaluating rule: {rule}"),
        ExecutionError::DivisionByZero(_) => format!("division by zero evaluating rule: {rule}"),
        other => format!("{other} evaluating rule: {rule}"),
    }
}

/// The text of `messageExpression` if it yields a usable one, else `message`, else the rule itself.
fn message(rule: &Rule, scope: &Context<'_>) -> String {
    if let Some(program) = &rule.message_program
        && let Ok(cel::Value::String(text)) = program.execute(scope)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match &rule.message {
        Some(message) => message.clone(),
        None => format!("failed rule: {}", rule.source),
    }
}
