//! The conditions that callers may set on rows: comparisons of columns with values, joined by AND, OR and NOT.
//!
//! A condition is read into a tree of what is permitted and written again from that tree, so nothing of the caller's text
//! reaches the engine but the names of columns that exist and quoted values. There are no functions (but `array_has`), no
//! casts, no arithmetic and no subqueries.

use arrow::datatypes::{DataType, Schema};

use super::super::error::EngineError;

/// Most bytes of a condition.
const MAX_LENGTH: usize = 4096;
/// Most comparisons in a condition; the values of a list count one each.
const MAX_PARTS: usize = 512;
/// How deep parentheses and NOT may go.
const MAX_DEPTH: usize = 32;

/// A condition in the engine's own language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Predicate(String);

impl Predicate {
    /// Reads `text` as a condition over the columns of `schema`; `field` is what errors call it.
    ///
    /// # Errors
    /// `Invalid` with what is wrong, and where.
    pub(crate) fn parse(field: &str, text: &str, schema: &Schema) -> Result<Self, EngineError> {
        if text.len() > MAX_LENGTH {
            let message = format!("has {} bytes; at most {MAX_LENGTH} are allowed", text.len());
            return Err(EngineError::invalid(field, message));
        }
        let read = || {
            let mut parser = Parser {
                tokens: tokens(text)?,
                next: 0,
                schema,
                parts: 0,
                out: String::new(),
            };
            parser.any_of(0)?;
            match parser.peek() {
                None => Ok(Self(parser.out)),
                Some(_) => Err(parser.unexpected("AND, OR or the end")),
            }
        };
        read().map_err(|message: String| EngineError::invalid(field, message))
    }

    /// That `column`, which must be a name from our own code, is this text.
    pub(crate) fn equals(column: &str, text: &str) -> Self {
        Self(format!("{} = {}", identifier(column), quoted(text)))
    }

    /// That `column`, which must be a name from our own code, is one of these texts.
    pub(crate) fn one_of(column: &str, texts: &[String]) -> Self {
        let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        Self(format!("{} IN ({})", identifier(column), texts.join(", ")))
    }

    pub(crate) fn sql(&self) -> &str {
        &self.0
    }
}

fn identifier(name: &str) -> String {
    format!("`{name}`")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A bare word: a keyword or a column.
    Word(String),
    /// A column in `"` or in backticks.
    Quoted(String),
    Text(String),
    Number(String),
    Operator(&'static str),
}

const OPERATORS: [&str; 11] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// The words of a condition with the position of each, in characters from 1.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let position = text[..text.len() - rest.len()].chars().count() + 1;
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) {
            found.push((Token::Operator(operator), position));
            operator.len()
        } else if matches!(first, '\'' | '"' | '`') {
            let (inner, length) = between(rest, first).ok_or(format!("{first} at {position} is not closed"))?;
            let token = if first == '\'' {
                Token::Text(inner)
            } else {
                Token::Quoted(inner)
            };
            found.push((token, position));
            length
        } else if first.is_ascii_alphabetic() || first == '_' {
            let word = span(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            found.push((Token::Word(word.to_owned()), position));
            word.len()
        } else if first.is_ascii_digit() || matches!(first, '-' | '.') {
            let number = span(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
            // What is not a plain number ends here: `inf`, hexadecimal, sums.
            let plain = number.bytes().all(|b| b.is_ascii_digit() || b"-+.eE".contains(&b));
            if !plain || !number.parse::<f64>().is_ok_and(f64::is_finite) {
                return Err(format!("{number:?} at {position} is not a number"));
            }
            found.push((Token::Number(number.to_owned()), position));
            number.len()
        } else {
            return Err(format!("{first:?} at {position} is not allowed in a condition"));
        };
        rest = &rest[length..];
    }
    Ok(found)
}

fn span(text: &str, inside: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !inside(c)).unwrap_or(text.len());
    &text[..end]
}

/// What is between the quote at the beginning and its end, with doubled quotes made single, and the length of it all.
fn between(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            inner.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + quote.len_utf8()));
        }
    }
    None
}

/// What a column can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
    Boolean,
    Date,
    Timestamp,
    Texts,
    /// Only with NULL.
    Other,
}

impl Kind {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Boolean => Self::Boolean,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Decimal128(..) => Self::Number,
            DataType::List(item) | DataType::LargeList(item) if Self::of(item.data_type()) == Self::Text => Self::Texts,
            other if other.is_integer() => Self::Whole,
            other if other.is_numeric() => Self::Number,
            _ => Self::Other,
        }
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, usize)>,
    next: usize,
    schema: &'a Schema,
    parts: usize,
    out: String,
}

type Parsed = Result<(), String>;

impl Parser<'_> {
    fn any_of(&mut self, depth: usize) -> Parsed {
        self.all_of(depth)?;
        while self.take_word("OR") {
            self.out.push_str(" OR ");
            self.all_of(depth)?;
        }
        Ok(())
    }

    fn all_of(&mut self, depth: usize) -> Parsed {
        self.one(depth)?;
        while self.take_word("AND") {
            self.out.push_str(" AND ");
            self.one(depth)?;
        }
        Ok(())
    }

    fn one(&mut self, depth: usize) -> Parsed {
        if depth > MAX_DEPTH {
            return Err(format!("goes deeper than {MAX_DEPTH} levels"));
        }
        if self.take_word("NOT") {
            self.out.push_str("NOT (");
            self.one(depth + 1)?;
            self.out.push(')');
            return Ok(());
        }
        if self.take("(") {
            self.out.push('(');
            self.any_of(depth + 1)?;
            self.expect(")")?;
            self.out.push(')');
            return Ok(());
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed {
        if self.take_word("array_has") {
            return self.array_has();
        }
        let (name, kind) = self.column()?;
        self.out.push_str(&identifier(&name));
        if self.take_word("IS") {
            let not = self.take_word("NOT");
            self.expect_word("NULL")?;
            self.out.push_str(if not { " IS NOT NULL" } else { " IS NULL" });
            return self.count();
        }
        let not = self.take_word("NOT");
        if not {
            self.out.push_str(" NOT");
        }
        if self.take_word("IN") {
            self.out.push_str(" IN (");
            self.expect("(")?;
            self.value(&name, kind)?;
            while self.take(",") {
                self.out.push_str(", ");
                self.value(&name, kind)?;
            }
            self.expect(")")?;
            self.out.push(')');
            return Ok(());
        }
        if self.take_word("BETWEEN") {
            self.out.push_str(" BETWEEN ");
            self.value(&name, kind)?;
            self.expect_word("AND")?;
            self.out.push_str(" AND ");
            return self.value(&name, kind);
        }
        if self.take_word("LIKE") {
            if kind != Kind::Text {
                return Err(format!("column {name} is no text, so it is not LIKE anything"));
            }
            self.out.push_str(" LIKE ");
            return self.value(&name, kind);
        }
        if not {
            return Err(self.unexpected("IN, BETWEEN or LIKE"));
        }
        let found = match self.peek() {
            Some(Token::Operator(operator)) => Some(*operator),
            _ => None,
        };
        let operator = match found {
            Some("==" | "=") => "=",
            Some("!=" | "<>") => "<>",
            Some(order @ ("<" | "<=" | ">" | ">=")) => order,
            // A column of truth values is a condition by itself.
            _ if kind == Kind::Boolean => return self.count(),
            _ => return Err(self.unexpected("a comparison")),
        };
        self.next += 1;
        self.out.push_str(&format!(" {operator} "));
        self.value(&name, kind)
    }

    fn array_has(&mut self) -> Parsed {
        self.expect("(")?;
        let (name, kind) = self.column()?;
        if kind != Kind::Texts {
            return Err(format!(
                "column {name} is no list of texts, so array_has cannot look into it"
            ));
        }
        self.expect(",")?;
        self.out.push_str(&format!("array_has({}, ", identifier(&name)));
        self.value(&name, Kind::Text)?;
        self.expect(")")?;
        self.out.push(')');
        Ok(())
    }

    /// A column by its exact name.
    fn column(&mut self) -> Result<(String, Kind), String> {
        let name = match self.peek() {
            Some(Token::Word(name) | Token::Quoted(name)) => name.clone(),
            _ => return Err(self.unexpected("the name of a column")),
        };
        let Ok(field) = self.schema.field_with_name(&name) else {
            let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(format!("there is no column {name:?}; there are {}", names.join(", ")));
        };
        self.next += 1;
        Ok((name, Kind::of(field.data_type())))
    }

    fn value(&mut self, column: &str, kind: Kind) -> Parsed {
        let written = match (self.peek(), kind) {
            (Some(Token::Text(text)), Kind::Text) => quoted(text),
            (Some(Token::Text(text)), Kind::Date) => match text.parse::<jiff::civil::Date>() {
                Ok(date) => format!("CAST('{date}' AS DATE)"),
                Err(_) => return Err(self.unexpected("a date like '2020-12-31'")),
            },
            (Some(Token::Text(text)), Kind::Timestamp) => match text.parse::<jiff::civil::DateTime>() {
                Ok(time) => format!("CAST('{time}' AS TIMESTAMP)"),
                Err(_) => return Err(self.unexpected("a time like '2020-12-31 10:00:00'")),
            },
            (Some(Token::Number(number)), Kind::Number) => number.clone(),
            (Some(Token::Number(number)), Kind::Whole) if number.parse::<i64>().is_ok() => number.clone(),
            (Some(Token::Word(word)), Kind::Boolean) if word.eq_ignore_ascii_case("true") => "true".to_owned(),
            (Some(Token::Word(word)), Kind::Boolean) if word.eq_ignore_ascii_case("false") => "false".to_owned(),
            (_, Kind::Text | Kind::Texts) => return Err(self.unexpected("a text in single quotes")),
            (_, Kind::Date | Kind::Timestamp) => return Err(self.unexpected("a date in single quotes")),
            (_, Kind::Number) => return Err(self.unexpected("a number")),
            (_, Kind::Whole) => return Err(self.unexpected("a whole number")),
            (_, Kind::Boolean) => return Err(self.unexpected("true or false")),
            (_, Kind::Other) => {
                return Err(format!("column {column} can only be compared with NULL"));
            }
        };
        self.next += 1;
        self.out.push_str(&written);
        self.count()
    }

    fn count(&mut self) -> Parsed {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(format!("has more than {MAX_PARTS} values"));
        }
        Ok(())
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn take(&mut self, operator: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Operator(found)) if *found == operator);
        self.next += usize::from(is);
        is
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, operator: &str) -> Parsed {
        if self.take(operator) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("{operator:?}")))
        }
    }

    fn expect_word(&mut self, keyword: &str) -> Parsed {
        if self.take_word(keyword) {
            Ok(())
        } else {
            Err(self.unexpected(keyword))
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.tokens.get(self.next) {
            None => format!("ends where {expected} is expected"),
            Some((token, position)) => {
                let found = match token {
                    Token::Word(text) | Token::Quoted(text) | Token::Text(text) | Token::Number(text) => text.as_str(),
                    Token::Operator(operator) => operator,
                };
                let found: String = found.chars().take(40).collect();
                format!("has {found:?} at {position}, where {expected} is expected")
            }
        }
    }
}

#[cfg(test)]
#[path = "predicate_tests.rs"]
mod tests;
