//! The names of types. Both engines write nested ones almost alike, so one small tree serves for reading either and
//! writing the other.

use std::fmt;

/// A type of either engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Base(String),
    Decimal(String, String),
    List(Box<Type>),
    Array(Box<Type>, String),
    Struct(Vec<(String, Type)>),
    Map(Box<Type>, Box<Type>),
}

/// As LadybugDB reads it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base(name) => f.write_str(name),
            Self::Decimal(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            Self::List(element) => write!(f, "{element}[]"),
            Self::Array(element, length) => write!(f, "{element}[{length}]"),
            Self::Struct(fields) => {
                f.write_str("STRUCT(")?;
                for (index, (name, ty)) in fields.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}`{}` {ty}", name.replace('`', "``"))?;
                }
                f.write_str(")")
            }
            Self::Map(key, value) => write!(f, "MAP({key}, {value})"),
        }
    }
}

impl Type {
    /// True if a list, an array or a map of the type holds decimals. LadybugDB 0.22.1 ends the process when it casts text
    /// to such a type (`CastToDecimal` for nested vectors takes the list for its elements), also where a statement only
    /// sets a property, so there are neither columns nor values of these types.
    pub(crate) fn collects_decimals(&self) -> bool {
        match self {
            Self::Base(_) | Self::Decimal(..) => false,
            Self::List(element) | Self::Array(element, _) => element.has_decimals(),
            Self::Map(key, value) => key.has_decimals() || value.has_decimals(),
            Self::Struct(fields) => fields.iter().any(|(_, ty)| ty.collects_decimals()),
        }
    }

    /// True if it is JSON, or has JSON in it.
    pub(crate) fn has_json(&self) -> bool {
        match self {
            Self::Base(name) => name == "JSON",
            Self::Decimal(..) => false,
            Self::List(element) | Self::Array(element, _) => element.has_json(),
            Self::Map(key, value) => key.has_json() || value.has_json(),
            Self::Struct(fields) => fields.iter().any(|(_, ty)| ty.has_json()),
        }
    }

    /// True if there is a decimal anywhere in the type.
    pub(crate) fn has_decimals(&self) -> bool {
        match self {
            Self::Base(name) => matches!(name.as_str(), "DECIMAL" | "NUMERIC"),
            Self::Decimal(..) => true,
            Self::List(element) | Self::Array(element, _) => element.has_decimals(),
            Self::Map(key, value) => key.has_decimals() || value.has_decimals(),
            Self::Struct(fields) => fields.iter().any(|(_, ty)| ty.has_decimals()),
        }
    }
}

/// Reads the name of a type; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<Type> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let ty = reader.ty()?;
    reader.spaces();
    (reader.at == text.len()).then_some(ty)
}

/// Types within types that are read. Names come from callers too, and every level takes some of the stack.
const MAX_DEPTH: usize = 32;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn until(&mut self, stop: &[char]) -> String {
        let length = self.rest().find(stop).unwrap_or(self.rest().len());
        let found = self.rest()[..length].trim().to_owned();
        self.at += length;
        found
    }

    fn ty(&mut self) -> Option<Type> {
        self.depth += 1;
        let ty = (self.depth <= MAX_DEPTH).then(|| self.one()).flatten();
        self.depth -= 1;
        ty
    }

    fn one(&mut self) -> Option<Type> {
        let name = self.until(&['(', ')', '[', ',']).to_ascii_uppercase();
        let mut ty = if self.eat('(') {
            let parsed = match name.as_str() {
                "DECIMAL" | "NUMERIC" => {
                    let precision = self.until(&[',', ')']);
                    let scale = if self.eat(',') { self.until(&[')']) } else { "0".into() };
                    Type::Decimal(precision, scale)
                }
                "STRUCT" => Type::Struct(self.fields()?),
                "MAP" => {
                    let key = self.ty()?;
                    let value = if self.eat(',') { self.ty()? } else { return None };
                    Type::Map(Box::new(key), Box::new(value))
                }
                "ENUM" => {
                    self.skip_texts();
                    Type::Base(name)
                }
                _ => return None,
            };
            if !self.eat(')') {
                return None;
            }
            parsed
        } else if name.is_empty() {
            return None;
        } else {
            Type::Base(name)
        };
        let mut lists = 0;
        while self.eat('[') {
            let length = self.until(&[']']);
            if !self.eat(']') {
                return None;
            }
            lists += 1;
            if self.depth + lists > MAX_DEPTH {
                return None;
            }
            ty = if length.is_empty() {
                Type::List(Box::new(ty))
            } else {
                Type::Array(Box::new(ty), length)
            };
        }
        Some(ty)
    }

    fn fields(&mut self) -> Option<Vec<(String, Type)>> {
        let mut fields = Vec::new();
        loop {
            self.spaces();
            let name = match self.rest().chars().next()? {
                quote @ ('"' | '`') => {
                    self.at += 1;
                    let name = self.until(&[quote]);
                    self.eat(quote);
                    name
                }
                _ => self.until(&[' ']),
            };
            fields.push((name, self.ty()?));
            if !self.eat(',') {
                return Some(fields);
            }
        }
    }

    /// The values of an enumeration: quoted, so they may contain parentheses.
    fn skip_texts(&mut self) {
        let mut quoted = false;
        let length = self.rest().find(|c| {
            quoted ^= c == '\'';
            c == ')' && !quoted
        });
        self.at += length.unwrap_or(self.rest().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nest_too_deeply_are_none() {
        let nested = |levels: usize| format!("{}INT64{}", "STRUCT(a ".repeat(levels), ")".repeat(levels));
        assert!(parse(&nested(20)).is_some());
        assert_eq!(parse(&nested(20_000)), None);
        assert_eq!(parse(&"MAP(".repeat(50_000)), None);
        assert_eq!(parse(&format!("INT64{}", "[]".repeat(50_000))), None);
    }
}
