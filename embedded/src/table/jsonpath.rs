//! The part of Kubernetes' JSONPath that printer columns use: fields, indices, `[*]` and filters.

use std::{fmt, iter::Peekable, str::Chars};

use serde_json::Value;

/// A parsed path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative counts from the end.
    Index(i64),
    All,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Without a comparison the filter asks whether the left side exists.
    test: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// A path that starts at the item, `@.a.b`.
    Item(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path.
    ///
    /// # Errors
    /// What is wrong and where, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            chars: text.chars().peekable(),
        };
        parser.chars.next_if_eq(&'$');
        let steps = parser.steps(|next| next.is_none())?;
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// A path of plain fields.
    pub(crate) fn fields(names: &[&str]) -> Self {
        Self {
            text: names.iter().map(|name| format!(".{name}")).collect(),
            steps: names.iter().map(|name| Step::Field((*name).to_owned())).collect(),
        }
    }

    /// The first value that the path leads to.
    #[must_use]
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        first(&self.steps, value)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn first<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => first(rest, value.get(name)?),
        Step::Index(index) => {
            let items = value.as_array()?;
            let at = usize::try_from(*index).ok().or_else(|| {
                let back = usize::try_from(index.unsigned_abs()).ok()?;
                items.len().checked_sub(back)
            })?;
            first(rest, items.get(at)?)
        }
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| first(rest, item)),
            Value::Object(map) => map.values().find_map(|item| first(rest, item)),
            _ => None,
        },
        Step::Filter(filter) => value
            .as_array()?
            .iter()
            .filter(|item| filter.accepts(item))
            .find_map(|item| first(rest, item)),
    }
}

impl Filter {
    fn accepts(&self, item: &Value) -> bool {
        let Some(left) = self.left.value(item) else {
            return false;
        };
        let Some((comparison, right)) = &self.test else {
            return true;
        };
        let Some(right) = right.value(item) else {
            return false;
        };
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => Some(crate::schema::number::compare(left, right)),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) if left == right => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(|order| order.is_eq()),
            Comparison::NotEqual => !order.is_some_and(|order| order.is_eq()),
            Comparison::Less => order.is_some_and(|order| order.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
            Comparison::Greater => order.is_some_and(|order| order.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}

impl Operand {
    fn value<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Item(steps) => first(steps, item),
            Self::Literal(value) => Some(value),
        }
    }
}

struct Parser<'t> {
    chars: Peekable<Chars<'t>>,
}

impl Parser<'_> {
    /// Reads steps until `done` says so of the next character.
    fn steps(&mut self, done: fn(Option<char>) -> bool) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        while !done(self.chars.peek().copied()) {
            match self.chars.next() {
                Some('.') => match self.chars.peek() {
                    Some('.') => return Err("recursive descent (..) is not supported".to_owned()),
                    // A lone dot is the object itself.
                    None | Some('[') => {}
                    Some('*') => {
                        self.chars.next();
                        steps.push(Step::All);
                    }
                    Some(_) => {
                        let name = self.name()?;
                        steps.push(Step::Field(name));
                    }
                },
                Some('[') => steps.push(self.bracket()?),
                Some(other) => return Err(format!("expected . or [ but got {other}")),
                None => return Err("unexpected end".to_owned()),
            }
        }
        Ok(steps)
    }

    /// A field name after a dot; a backslash takes the next character as it is, as in `\.`.
    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| !matches!(c, '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | '{' | '}') && !c.is_whitespace())
        {
            match c {
                '\\' => name.extend(self.chars.next()),
                c => name.push(c),
            }
        }
        if name.is_empty() {
            return Err("a field name is missing".to_owned());
        }
        Ok(name)
    }

    fn bracket(&mut self) -> Result<Step, String> {
        let step = match self.chars.peek() {
            Some('?') => {
                self.chars.next();
                self.expect('(')?;
                let filter = self.filter()?;
                self.expect(')')?;
                Step::Filter(filter)
            }
            Some('*') => {
                self.chars.next();
                Step::All
            }
            Some(quote @ ('\'' | '"')) => {
                let quote = *quote;
                Step::Field(self.quoted(quote)?)
            }
            _ => {
                let mut digits = String::new();
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_digit() || *c == '-') {
                    digits.push(c);
                }
                if self.chars.peek() == Some(&':') || self.chars.peek() == Some(&',') {
                    return Err("slices and unions are not supported".to_owned());
                }
                Step::Index(
                    digits
                        .parse()
                        .map_err(|_| "an index is missing between [ and ]".to_owned())?,
                )
            }
        };
        self.expect(']')?;
        Ok(step)
    }

    fn filter(&mut self) -> Result<Filter, String> {
        let left = self.operand()?;
        self.skip_spaces();
        let first = self.chars.next_if(|c| matches!(c, '=' | '!' | '<' | '>'));
        let Some(first) = first else {
            return Ok(Filter { left, test: None });
        };
        let equals = self.chars.next_if_eq(&'=').is_some();
        let comparison = match (first, equals) {
            ('=', true) => Comparison::Equal,
            ('!', true) => Comparison::NotEqual,
            ('<', false) => Comparison::Less,
            ('<', true) => Comparison::LessOrEqual,
            ('>', false) => Comparison::Greater,
            ('>', true) => Comparison::GreaterOrEqual,
            _ => return Err("a filter compares with ==, !=, <, <=, > or >=".to_owned()),
        };
        self.skip_spaces();
        let right = self.operand()?;
        self.skip_spaces();
        Ok(Filter {
            left,
            test: Some((comparison, right)),
        })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip_spaces();
        match self.chars.peek() {
            Some('@') => {
                self.chars.next();
                let end = |next: Option<char>| {
                    next.is_none_or(|c| matches!(c, ')' | '=' | '!' | '<' | '>') || c.is_whitespace())
                };
                Ok(Operand::Item(self.steps(end)?))
            }
            Some(quote @ ('\'' | '"')) => {
                let quote = *quote;
                Ok(Operand::Literal(Value::from(self.quoted(quote)?)))
            }
            _ => {
                let mut word = String::new();
                while let Some(c) = self
                    .chars
                    .next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))
                {
                    word.push(c);
                }
                match serde_json::from_str::<Value>(&word) {
                    Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
                    _ => Err("a filter compares paths (@.field), quoted strings, numbers and booleans".to_owned()),
                }
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.expect(quote)?;
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('\\') => text.extend(self.chars.next()),
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(format!("a closing {quote} is missing")),
            }
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.chars.next() {
            Some(c) if c == wanted => Ok(()),
            Some(other) => Err(format!("expected {wanted} but got {other}")),
            None => Err(format!("expected {wanted} but the path ends")),
        }
    }

    fn skip_spaces(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::JsonPath;

    #[test]
    fn paths_find_values() {
        let object = json!({
            "spec": {"a.b": 1, "list": [10, 20, 30], "map": {"x": {"n": 1}}},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "observed": 2},
                {"type": "Stalled", "status": "False", "observed": 7},
                {"status": "Unknown"},
            ]},
        });
        let cases = [
            (".spec.list[0]", json!(10)),
            ("$.spec.list[1]", json!(20)),
            (".spec.list[-1]", json!(30)),
            (".spec.list[*]", json!(10)),
            (".spec['a.b']", json!(1)),
            (".spec.a\\.b", json!(1)),
            (".spec.map.*.n", json!(1)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type == 'Stalled')].status", json!("False")),
            (".status.conditions[?(@.type!=\"Ready\")].status", json!("False")),
            (".status.conditions[?(@.observed>2)].type", json!("Stalled")),
            (".status.conditions[?(@.observed<=2)].type", json!("Ready")),
            (".status.conditions[?(@['type']==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type)].status", json!("True")),
        ];
        for (path, expected) in cases {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), Some(&expected), "{path}");
        }
        for path in [
            ".spec.none",
            ".spec.list[3]",
            ".spec.list[-4]",
            ".status.conditions[?(@.type==\"None\")].status",
            ".spec[0]",
            ".spec.list.x",
            ".status.conditions[?(@.observed>\"a\")].type",
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), None, "{path}");
        }
        assert_eq!(JsonPath::parse(".").unwrap().first(&object), Some(&object));
    }

    #[test]
    fn wrong_paths_are_refused() {
        for path in [
            "spec",
            "..spec",
            ".a..b",
            ".a[",
            ".a[x]",
            ".a[1:2]",
            ".a[1,2]",
            ".a[?(@.b=1)]",
            ".a[?(@.b==c)]",
            ".a['x]",
            ".a[?(@.b",
            ".a b",
            ".a]",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_and_finding_never_panic(path in "[.a\\[\\]?()@=!'\"0-9*\\\\ -]{0,20}") {
            if let Ok(path) = JsonPath::parse(&path) {
                let _ = path.first(&json!({"a": [{"a": 1}, [2], {"a": {"a": Value::Null}}]}));
            }
        }
    }
}
