//! Static checks of a CEL expression against the schema: names that do not exist are found when the definition is applied,
//! not when the first object fails.
//!
//! This is not a type checker. It follows field selections from `self` as far as the schema describes them and stays
//! silent where it does not know.

use kube_cel::cel::{
    Program,
    common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, operators},
};

use super::value::escape;
use crate::schema::node::{Additional, Node, Type};

/// What an expression is written against.
pub(super) struct Types<'n> {
    /// Schema of `self`.
    pub(super) node: &'n Node,
    /// Whether `self` is a whole object, with `apiVersion`, `kind` and `metadata`.
    pub(super) is_resource: bool,
    /// Whether `oldSelf` is an optional value rather than one of the schema.
    pub(super) optional_old: bool,
}

/// What is wrong with the names in an expression.
pub(super) fn problems(program: &Program, types: &Types<'_>) -> Vec<String> {
    let mut checker = Checker {
        types,
        bound: Vec::new(),
        problems: Vec::new(),
    };
    checker.infer(program.expression());
    checker.problems.sort();
    checker.problems.dedup();
    checker.problems
}

/// What is known about a value.
#[derive(Clone, Copy)]
enum Known<'n> {
    Nothing,
    Schema { node: &'n Node, is_resource: bool },
}

impl<'n> Known<'n> {
    fn of(node: Option<&'n Node>) -> Self {
        node.map_or(Self::Nothing, |node| Self::Schema {
            node,
            is_resource: node.embedded_resource,
        })
    }

    fn items(self) -> Self {
        match self {
            Self::Schema { node, .. } if node.kind == Some(Type::Array) => Self::of(node.items.as_deref()),
            _ => Self::Nothing,
        }
    }

    fn map_values(self) -> Self {
        match self {
            Self::Schema { node, .. } => Self::of(node.map_values()),
            Self::Nothing => Self::Nothing,
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Self::Schema { node, .. } if node.kind == Some(Type::Array))
    }
}

/// Prefixes of functions such as `math.abs`, and the names of types.
const NAMESPACES: [&str; 25] = [
    "math",
    "sets",
    "lists",
    "strings",
    "optional",
    "format",
    "base64",
    "jsonpatch",
    "ip",
    "cidr",
    "quantity",
    "url",
    "semver",
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google",
    "regex",
];

/// Functions of kube-apiserver that the CEL crate does not have: better refused here than failing on every object.
const UNSUPPORTED: [&str; 5] = [
    "sortBy",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "authorizer",
];

struct Checker<'c> {
    types: &'c Types<'c>,
    /// Variables of the enclosing comprehensions, innermost last.
    bound: Vec<(&'c str, Known<'c>)>,
    problems: Vec<String>,
}

impl<'c> Checker<'c> {
    fn infer(&mut self, expression: &'c IdedExpr) -> Known<'c> {
        match &expression.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let operand = self.infer(&select.operand);
                self.select(operand, &select.field)
            }
            Expr::Call(call) => {
                if UNSUPPORTED.contains(&call.func_name.as_str()) {
                    self.problems
                        .push(format!("'{}' is not supported by this server", call.func_name));
                }
                if let Some(target) = &call.target {
                    match &target.expr {
                        Expr::Ident(name) if name == "cel" && call.func_name == "bind" => {
                            self.problems
                                .push("'cel.bind' is not supported by this server".to_owned());
                            return Known::Nothing;
                        }
                        Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => {}
                        _ => {
                            self.infer(target);
                        }
                    }
                }
                let arguments: Vec<Known<'c>> = call.args.iter().map(|argument| self.infer(argument)).collect();
                match (call.func_name.as_str(), arguments.first()) {
                    (operators::INDEX, Some(container)) if container.is_list() => container.items(),
                    (operators::INDEX, Some(container)) => container.map_values(),
                    _ => Known::Nothing,
                }
            }
            Expr::Comprehension(comprehension) => {
                self.comprehension(comprehension);
                Known::Nothing
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.infer(element);
                }
                Known::Nothing
            }
            Expr::Map(map) => {
                self.entries(&map.entries);
                Known::Nothing
            }
            Expr::Struct(made) => {
                self.entries(&made.entries);
                Known::Nothing
            }
            Expr::Literal(_) | Expr::Unspecified => Known::Nothing,
        }
    }

    fn entries(&mut self, entries: &'c [IdedEntryExpr]) {
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => {
                    self.infer(&field.value);
                }
                EntryExpr::MapEntry(pair) => {
                    self.infer(&pair.key);
                    self.infer(&pair.value);
                }
            }
        }
    }

    fn name(&mut self, name: &'c str) -> Known<'c> {
        if let Some((_, known)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return *known;
        }
        let own = Known::Schema {
            node: self.types.node,
            is_resource: self.types.is_resource,
        };
        match name {
            "self" => own,
            "oldSelf" if self.types.optional_old => Known::Nothing,
            "oldSelf" => own,
            _ => {
                if !name.starts_with('@') && !NAMESPACES.contains(&name) {
                    self.problems.push(format!("undeclared reference to '{name}'"));
                }
                Known::Nothing
            }
        }
    }

    fn select(&mut self, operand: Known<'c>, field: &str) -> Known<'c> {
        let Known::Schema { node, is_resource } = operand else {
            return Known::Nothing;
        };
        if is_resource && matches!(field, "apiVersion" | "kind" | "metadata") {
            return Known::Nothing;
        }
        let property = node
            .properties
            .iter()
            .find(|(name, _)| escape(name).as_deref() == Some(field));
        match (property, &node.additional) {
            (Some((_, property)), _) => Known::of(Some(property)),
            (None, Additional::Schema(values)) => Known::of(Some(values)),
            (None, Additional::Unspecified | Additional::None)
                if node.kind == Some(Type::Object) && !node.preserve_unknown =>
            {
                self.problems.push(format!("undefined field '{field}'"));
                Known::Nothing
            }
            _ => Known::Nothing,
        }
    }

    fn comprehension(&mut self, comprehension: &'c ComprehensionExpr) {
        let range = self.infer(&comprehension.iter_range);
        self.infer(&comprehension.accu_init);
        let depth = self.bound.len();
        let (first, second) = match (range.is_list(), &comprehension.iter_var2) {
            (true, None) => (range.items(), Known::Nothing),
            (true, Some(_)) => (Known::Nothing, range.items()),
            (false, _) => (Known::Nothing, range.map_values()),
        };
        self.bound.push((&comprehension.iter_var, first));
        if let Some(name) = &comprehension.iter_var2 {
            self.bound.push((name, second));
        }
        self.bound.push((&comprehension.accu_var, Known::Nothing));
        self.infer(&comprehension.loop_cond);
        self.infer(&comprehension.loop_step);
        self.infer(&comprehension.result);
        self.bound.truncate(depth);
    }
}
