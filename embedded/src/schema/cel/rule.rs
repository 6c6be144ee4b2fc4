//! One rule: its texts, its programs, and the checks that a definition must pass before it is accepted.

use kube_cel::cel::Program;
use serde_json::Value;

use super::scope;
use crate::{
    schema::{
        node::{Additional, Node},
        path::Path,
    },
    status::{Cause, CauseReason},
};

/// A compiled rule.
#[derive(Debug)]
pub(in crate::schema) struct Rule {
    /// The expression, trimmed.
    pub(super) source: String,
    pub(super) program: Program,
    pub(super) message: Option<String>,
    pub(super) message_program: Option<Program>,
    pub(super) reason: CauseReason,
    /// Path below the rule's own field to which failures are reported.
    pub(super) field_path: Option<String>,
    /// Whether this is a transition rule.
    pub(super) uses_old: bool,
    /// Whether `oldSelf` is an optional value, so that the rule also runs when there is no old state.
    pub(super) optional_old: bool,
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations`. `node` is the schema it belongs to; `within` is the path of the
    /// enclosing list whose items cannot be followed between states, if there is one.
    pub(in crate::schema) fn compile(
        entry: &Value,
        node: &Node,
        is_resource: bool,
        within: Option<&str>,
        path: &Path<'_>,
        causes: &mut Vec<Cause>,
    ) -> Option<Self> {
        let before = causes.len();
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::trim);
        let given = |key: &str| text(key).filter(|text| !text.is_empty());

        let Some(source) = given("rule") else {
            causes.push(Cause::required(&path.field("rule"), "rule is not specified"));
            return None;
        };
        check_texts(entry, source, path, causes);
        let reason = match given("reason") {
            None => CauseReason::Invalid,
            Some(word) => parse_reason(word).unwrap_or_else(|| {
                let supported = REASONS.map(CauseReason::as_str);
                causes.push(Cause::not_supported(
                    &path.field("reason"),
                    &Value::from(word),
                    &supported,
                ));
                CauseReason::Invalid
            }),
        };
        let field_path = given("fieldPath").and_then(|text| {
            normalize(text, node)
                .map_err(|problem| {
                    let here = path.field("fieldPath");
                    causes.push(Cause::invalid(
                        &here,
                        &Value::from(text),
                        &format!("must be a valid path: {problem}"),
                    ));
                })
                .ok()
        });
        let optional_old = entry.get("optionalOldSelf").and_then(Value::as_bool);
        let program = compile(source, entry, &path.field("rule"), causes);
        let message_program =
            given("messageExpression").and_then(|text| compile(text, entry, &path.field("messageExpression"), causes));
        let program = program?;

        let uses_old = program.references().has_variable("oldSelf");
        let types = scope::Types {
            node,
            is_resource,
            optional_old: optional_old == Some(true),
        };
        for (keyword, program) in [
            ("rule", Some(&program)),
            ("messageExpression", message_program.as_ref()),
        ] {
            for problem in program.into_iter().flat_map(|program| scope::problems(program, &types)) {
                let detail = format!("compilation failed: {problem}");
                causes.push(Cause::invalid(&path.field(keyword), entry, &detail));
            }
        }
        match (uses_old, within, optional_old) {
            (true, Some(list), _) => {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                causes.push(Cause::invalid(&path.field("rule"), &Value::from(source), &detail));
            }
            (false, _, Some(set)) => {
                let detail = "may not be set if oldSelf is not used in rule";
                causes.push(Cause::invalid(
                    &path.field("optionalOldSelf"),
                    &Value::from(set),
                    detail,
                ));
            }
            _ => {}
        }
        (causes.len() == before).then(|| Self {
            source: source.to_owned(),
            message: given("message").map(str::to_owned),
            program,
            message_program,
            reason,
            field_path,
            uses_old,
            optional_old: optional_old == Some(true),
        })
    }

    /// How messages refer to the rule.
    pub(super) fn name(&self) -> &str {
        self.message.as_deref().unwrap_or(&self.source)
    }
}

const REASONS: [CauseReason; 4] = [
    CauseReason::Duplicate,
    CauseReason::Forbidden,
    CauseReason::Invalid,
    CauseReason::Required,
];

fn parse_reason(word: &str) -> Option<CauseReason> {
    REASONS.into_iter().find(|reason| reason.as_str() == word)
}

fn compile(source: &str, entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Program> {
    Program::compile(source)
        .map_err(|error| {
            let detail = format!("compilation failed: {error}");
            causes.push(Cause::invalid(path, entry, &detail));
        })
        .ok()
}

/// Rules about the texts of an entry; line breaks would break the one-line form of messages.
fn check_texts(entry: &Value, source: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let raw = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let breaks = |text: &str| text.trim().contains(['\n', '\r']);
    let message = raw("message");
    let here = path.field("message");
    if !message.is_empty() && message.trim().is_empty() {
        causes.push(Cause::invalid(
            &here,
            &Value::from(message),
            "must be non-empty if specified",
        ));
    } else if breaks(message) {
        causes.push(Cause::invalid(
            &here,
            &Value::from(message),
            "must not contain line breaks",
        ));
    } else if breaks(source) && message.is_empty() {
        causes.push(Cause::required(
            &here,
            "message must be specified if rule contains line breaks",
        ));
    }
    let expression = raw("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        causes.push(Cause::required(&path.field("messageExpression"), detail));
    }
    let field_path = raw("fieldPath");
    let here = path.field("fieldPath");
    if !field_path.is_empty() && field_path.trim().is_empty() {
        causes.push(Cause::invalid(
            &here,
            &Value::from(field_path),
            "must be non-empty if specified",
        ));
    } else if breaks(field_path) {
        causes.push(Cause::invalid(
            &here,
            &Value::from(field_path),
            "must not contain line breaks",
        ));
    }
}

/// Reads `.a.b['c.d']`, checks it against the schema, and writes it as messages show it.
fn normalize(text: &str, node: &Node) -> Result<String, String> {
    let mut out = String::new();
    let mut node = node;
    let mut rest = text;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let Some((quoted, tail)) = split_quoted(after) else {
                return Err("unexpected end of JSON path".to_owned());
            };
            name = quoted;
            rest = tail;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            name = after[..end].to_owned();
            rest = &after[end..];
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        }
        if let Some(property) = node.properties.get(&name) {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
            node = property;
        } else if let (true, Additional::Schema(values)) = (node.properties.is_empty(), &node.additional) {
            out.push('[');
            out.push_str(&name);
            out.push(']');
            node = values;
        } else {
            return Err("does not refer to a valid field".to_owned());
        }
    }
    Ok(out)
}

/// Splits `c.d'].e` into `c.d` and `.e`, resolving escapes.
fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return text[at + 1..].strip_prefix(']').map(|rest| (out, rest)),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0C',
                'v' => '\x0B',
                other @ ('\'' | '\\') => other,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}
