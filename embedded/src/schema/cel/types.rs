//! `type(x)` and the names of types, which the CEL crate lacks and rules about int-or-string fields need.

use std::sync::Arc;

use kube_cel::cel::{Context, ExecutionError, Value, extractors::Arguments};

/// The types that rules can name, as they are written in CEL.
const NAMES: [&str; 9] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
];

/// Adds the function and one variable for each name.
pub(super) fn register(mut context: Context<'static>) -> Context<'static> {
    context.add_function("type", of);
    for name in NAMES {
        context.add_variable_from_value(name, value(name));
    }
    context
}

fn of(Arguments(arguments): Arguments) -> Result<Value, ExecutionError> {
    let name = match arguments.as_slice() {
        [Value::Int(_)] => "int",
        [Value::UInt(_)] => "uint",
        [Value::Float(_)] => "double",
        [Value::Bool(_)] => "bool",
        [Value::String(_)] => "string",
        [Value::Bytes(_)] => "bytes",
        [Value::List(_)] => "list",
        [Value::Map(_)] => "map",
        [Value::Null] => "null_type",
        [_] => "other",
        arguments => {
            return Err(ExecutionError::InvalidArgumentCount {
                expected: 1,
                actual: arguments.len(),
            });
        }
    };
    Ok(value(name))
}

/// A type as a value; a prefix that no field name or text of a rule has keeps it from equalling a plain string.
fn value(name: &str) -> Value {
    Value::String(Arc::new(format!("\u{0}type:{name}")))
}
