//! How JSON appears to CEL rules: typed by the schema, with field names escaped.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use kube_cel::cel::{
    Context, Program, Value as Cel,
    objects::{Key, Map},
};
use serde_json::{Number, Value};

use crate::schema::node::{Additional, Node, Type};

/// Words that cannot be field names in CEL and therefore appear as `__word__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name under which a rule reaches a field; `None` when it cannot be reached.
pub(super) fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if first.is_ascii_digit() || !name.chars().all(allowed) {
        return None;
    }
    Some(
        name.replace("__", "__underscores__")
            .replace('.', "__dot__")
            .replace('-', "__dash__")
            .replace('/', "__slash__"),
    )
}

/// Converts a value. The object itself and embedded objects show `apiVersion`, `kind` and the names in `metadata` besides
/// their declared fields.
pub(super) fn to_cel(value: &Value, node: &Node, is_resource: bool) -> Cel {
    match value {
        Value::Number(number) => match node.kind {
            Some(Type::Number) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            _ => plain_number(number),
        },
        Value::String(text) => string(text, node),
        Value::Array(items) => Cel::List(Arc::new(
            items
                .iter()
                .map(|item| match &node.items {
                    Some(schema) => to_cel(item, schema, schema.embedded_resource),
                    None => plain(item),
                })
                .collect(),
        )),
        Value::Object(map) => object(map, node, is_resource),
        Value::Null | Value::Bool(_) => plain(value),
    }
}

fn object(map: &serde_json::Map<String, Value>, node: &Node, is_resource: bool) -> Cel {
    let mut out = HashMap::with_capacity(map.len());
    let mut put = |key: String, value: Cel| out.insert(Key::String(Arc::new(key)), value);
    for (name, child) in map {
        if let Some(property) = node.properties.get(name) {
            if is_resource && name == "metadata" {
                continue;
            }
            if let Some(key) = escape(name) {
                put(key, to_cel(child, property, property.embedded_resource));
            }
        } else if let Additional::Schema(values) = &node.additional {
            // The keys of a map are data, not names.
            put(name.clone(), to_cel(child, values, values.embedded_resource));
        } else if node.preserve_unknown && !(is_resource && name == "metadata") {
            put(name.clone(), plain(child));
        }
    }
    if is_resource {
        for name in ["apiVersion", "kind"] {
            let text = map.get(name).and_then(Value::as_str).unwrap_or_default();
            put(name.to_owned(), Cel::String(Arc::new(text.to_owned())));
        }
        let names = ["name", "generateName"]
            .into_iter()
            .filter_map(|name| Some((name, map.get("metadata")?.get(name)?)))
            .map(|(name, value)| (Key::String(Arc::new(name.to_owned())), plain(value)))
            .collect();
        put("metadata".to_owned(), Cel::Map(Map { map: Arc::new(names) }));
    }
    Cel::Map(Map { map: Arc::new(out) })
}

/// Converts a value about which the schema says nothing.
fn plain(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => plain_number(number),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(plain).collect())),
        Value::Object(map) => Cel::Map(Map {
            map: Arc::new(
                map.iter()
                    .map(|(key, value)| (Key::String(Arc::new(key.clone())), plain(value)))
                    .collect(),
            ),
        }),
    }
}

fn plain_number(number: &Number) -> Cel {
    match number.as_i64() {
        Some(integer) => Cel::Int(integer),
        None => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Strings with a time-like format are typed; a text that is not of its format was refused before rules run, so what
/// cannot be parsed stays a string.
fn string(text: &str, node: &Node) -> Cel {
    thread_local! {
        static TIMESTAMP: Parser = const { Parser::new("timestamp(text)") };
        static DURATION: Parser = const { Parser::new("duration(text)") };
        static BYTES: Parser = const { Parser::new("base64.decode(text)") };
    }
    let parser = match node.format_name.as_deref() {
        Some("date-time" | "datetime") => &TIMESTAMP,
        Some("date") => {
            let midnight = format!("{text}T00:00:00Z");
            return TIMESTAMP
                .with(|parser| parser.parse(&midnight))
                .unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())));
        }
        Some("duration") => &DURATION,
        Some("byte") => &BYTES,
        _ => return Cel::String(Arc::new(text.to_owned())),
    };
    parser
        .with(|parser| parser.parse(text))
        .unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())))
}

/// A conversion that CEL itself offers: going through it keeps the date library of the CEL crate out of ours.
struct Parser {
    source: &'static str,
    program: OnceCell<Option<Program>>,
}

impl Parser {
    const fn new(source: &'static str) -> Self {
        Self {
            source,
            program: OnceCell::new(),
        }
    }

    fn parse(&self, text: &str) -> Option<Cel> {
        let program = self
            .program
            .get_or_init(|| Program::compile(self.source).ok())
            .as_ref()?;
        super::FUNCTIONS.with(|functions| {
            let mut scope: Context<'_> = functions.new_inner_scope();
            scope.add_variable_from_value("text", Cel::String(Arc::new(text.to_owned())));
            program.execute(&scope).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_escaped_as_kubernetes_documents() {
        let cases = [
            ("plain", Some("plain")),
            ("my_field", Some("my_field")),
            ("a__b", Some("a__underscores__b")),
            ("a.b", Some("a__dot__b")),
            ("a-b", Some("a__dash__b")),
            ("a/b", Some("a__slash__b")),
            ("namespace", Some("__namespace__")),
            ("int", Some("int")),
            ("$ref", None),
            ("9lives", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(escape(name).as_deref(), expected, "{name}");
        }
    }
}
