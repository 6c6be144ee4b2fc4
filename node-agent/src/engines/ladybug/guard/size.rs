//! How much one statement may ask of the engine's parser and planner. Neither counts what it does or can be stopped: a
//! statement that nests too deeply overflows the stack, which ends the process, and the time for a CASE in a CASE, or for
//! one relationship more in a pattern, is a multiple of the time without it.

use super::super::tokens::{Token, TokenKind};
use super::is_name;

/// Brackets within brackets.
const BRACKETS: usize = 40;
/// CASE within CASE: each doubles the time of the parser.
const CASES: usize = 10;
/// Operators in a row: each is a level of the expression's tree.
const OPERATORS: usize = 500;
/// Relationships that are planned together: the patterns of all MATCH up to the next WITH or RETURN.
const TOGETHER: usize = 10;
/// Relationships in the patterns of the whole statement.
const RELATIONSHIPS: usize = 40;

/// The first token that is too much, and why.
pub(super) fn too_much<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(&'t Token<'a>, String)> {
    let mut size = Size::default();
    tokens.iter().enumerate().find_map(|(index, token)| {
        let why = size.add(tokens, index)?;
        Some((token, why))
    })
}

#[derive(Default)]
struct Size {
    /// What was counted before each bracket that is open.
    outer: Vec<Row>,
    row: Row,
    cases: usize,
    patterns: Patterns,
}

/// Operators in a row: how many, and how many at most since the last bracket.
#[derive(Clone, Copy, Default)]
struct Row {
    operators: usize,
    longest: usize,
}

impl Row {
    fn add(&mut self, operators: usize) {
        self.operators += operators;
        self.longest = self.longest.max(self.operators);
    }

    fn ends(&mut self) {
        self.operators = 0;
    }
}

impl Size {
    fn add(&mut self, tokens: &[Token<'_>], index: usize) -> Option<String> {
        let token = &tokens[index];
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => {
                self.row.add(1);
                self.outer.push(std::mem::take(&mut self.row));
                if self.outer.len() > BRACKETS {
                    return Some(format!("at most {BRACKETS} brackets can be open at the same time"));
                }
            }
            // What is in brackets is one more operand: its levels come on top of those of the row that goes on.
            TokenKind::Symbol(')' | ']' | '}') => {
                let inner = self.row.longest;
                self.row = self.outer.pop().unwrap_or_default();
                self.row.add(inner);
            }
            TokenKind::Symbol(',' | ';') => self.row.ends(),
            TokenKind::Symbol(_) => self.row.add(1),
            TokenKind::Word if !is_name(tokens, index) => self.word(tokens, index),
            _ => {}
        }
        if self.row.longest > OPERATORS {
            return Some(format!("an expression has at most {OPERATORS} operators in a row"));
        }
        if self.cases > CASES {
            return Some(format!(
                "CASE can be nested {CASES} times; compute the inner ones before, in a WITH"
            ));
        }
        self.patterns.add(tokens, index, self.outer.is_empty())
    }

    fn word(&mut self, tokens: &[Token<'_>], index: usize) {
        const SEPARATE: [&str; 16] = [
            "AND", "OR", "XOR", "WHEN", "THEN", "ELSE", "WHERE", "WITH", "RETURN", "MATCH", "UNWIND", "CREATE",
            "MERGE", "SET", "UNION", "IN",
        ];
        let token = &tokens[index];
        if token.is_word("CASE") {
            self.cases += 1;
        } else if token.is_word("END") && ends_expression(tokens, index) {
            self.cases = self.cases.saturating_sub(1);
        } else if SEPARATE.iter().any(|word| token.is_word(word)) {
            self.row.ends();
        }
    }
}

/// END ends a CASE only where an expression can end; anywhere else it is a variable of that name.
fn ends_expression(tokens: &[Token<'_>], index: usize) -> bool {
    const OPEN: [&str; 8] = ["CASE", "WHEN", "THEN", "ELSE", "AND", "OR", "XOR", "NOT"];
    match index.checked_sub(1).map(|before| &tokens[before]) {
        None => false,
        Some(before) => match before.kind {
            TokenKind::Symbol(symbol) => matches!(symbol, ')' | ']' | '}'),
            TokenKind::Word => OPEN.iter().all(|word| !before.is_word(word)),
            _ => true,
        },
    }
}

/// Relationships in the patterns of MATCH; those of CREATE and MERGE need no plan.
#[derive(Default)]
struct Patterns {
    reading: bool,
    optional: bool,
    /// In MATCH, which are planned as one up to the next WITH; and in the present OPTIONAL MATCH.
    together: [usize; 2],
    all: usize,
}

impl Patterns {
    fn add(&mut self, tokens: &[Token<'_>], index: usize, outermost: bool) -> Option<String> {
        let token = &tokens[index];
        let before = index.checked_sub(1).map(|before| &tokens[before]);
        let after = |word: &str| before.is_some_and(|before| before.is_word(word));
        if token.kind == TokenKind::Word && !is_name(tokens, index) {
            if token.is_word("MATCH") {
                self.reading = true;
                if outermost {
                    self.optional = after("OPTIONAL");
                    if self.optional {
                        self.together[1] = 0;
                    }
                }
            } else if outermost && ["CREATE", "MERGE"].iter().any(|word| token.is_word(word)) {
                self.reading = false;
            } else if outermost
                && (["RETURN", "UNION"].iter().any(|word| token.is_word(word))
                    || token.is_word("WITH") && !after("STARTS") && !after("ENDS"))
            {
                self.reading = false;
                self.together = [0; 2];
            }
            return None;
        }
        let next = tokens.get(index + 1);
        let begins = token.is_symbol('-') && next.is_some_and(|next| next.is_symbol('[') || next.is_symbol('-'));
        if !self.reading || !begins {
            return None;
        }
        self.all += 1;
        let together = &mut self.together[usize::from(self.optional)];
        *together += 1;
        if *together > TOGETHER {
            return Some(format!(
                "at most {TOGETHER} relationships can be matched together; match some of them, and the others after a WITH"
            ));
        }
        (self.all > RELATIONSHIPS)
            .then(|| format!("at most {RELATIONSHIPS} relationships can be matched in a statement"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::tokens::tokenize;
    use super::*;

    fn refused(text: &str) -> bool {
        too_much(&tokenize(text).unwrap()).is_some()
    }

    fn nested(open: &str, levels: usize, inner: &str, close: &str) -> String {
        format!("RETURN {}{inner}{}", open.repeat(levels), close.repeat(levels))
    }

    fn star(rays: usize) -> String {
        let rays: Vec<_> = (0..rays).map(|ray| format!("(a)-[:E]->(b{ray})")).collect();
        rays.join(", ")
    }

    #[test]
    fn what_nests_is_counted() {
        for (open, inner, close, most) in [
            ("(", "1", ")", 40),
            ("[", "1", "]", 40),
            ("{a: ", "1", "}", 40),
            ("abs(", "1", ")", 40),
            ("CASE WHEN true THEN ", "1", " END", 10),
            ("CASE WHEN end THEN ", "1", " END", 10),
        ] {
            assert!(!refused(&nested(open, most, inner, close)), "{open}");
            assert!(refused(&nested(open, most + 1, inner, close)), "{open}");
        }
        assert!(!refused(&format!(
            "RETURN {}",
            vec!["CASE WHEN a THEN b END"; 100].join(", ")
        )));
    }

    #[test]
    fn operators_in_a_row_are_counted() {
        for operator in ["+1", "^1", "[1]", ".a", "[]", "||'a'"] {
            assert!(!refused(&format!("RETURN x{}", operator.repeat(100))), "{operator}");
            assert!(refused(&format!("RETURN x{}", operator.repeat(600))), "{operator}");
        }
        // Also where they are spread over brackets.
        let spread = format!("{}1{}", "(".repeat(20), "+1+1+1)".repeat(20));
        assert!(!refused(&format!("RETURN {spread}")));
        let spread = format!("{}1{}", "(".repeat(20), format!("{})", "+1".repeat(30)).repeat(20));
        assert!(refused(&format!("RETURN {spread}")));
        let terms = vec!["n.id = 1"; 900];
        assert!(!refused(&format!("MATCH (n) WHERE {} RETURN n", terms.join(" OR "))));
        assert!(!refused(&format!("RETURN [{}]", vec!["-1"; 4000].join(","))));
    }

    #[test]
    fn relationships_that_are_planned_together_are_counted() {
        assert!(!refused(&format!("MATCH {} RETURN a", star(10))));
        for text in [
            format!("MATCH {} RETURN a", star(11)),
            format!("MATCH {} MATCH {} RETURN a", star(6), star(6)),
            format!("MATCH {} WHERE a.x STARTS WITH 'x' MATCH {} RETURN a", star(6), star(6)),
            format!(
                "MATCH {} WHERE EXISTS {{ MATCH (x) RETURN x }} MATCH {} RETURN a",
                star(6),
                star(6)
            ),
            format!("MATCH (a) OPTIONAL MATCH {} RETURN a", star(11)),
            format!("MATCH (a){} RETURN a", "--(b)".repeat(11)),
            format!("MATCH (a){} RETURN a", "<--(b)".repeat(11)),
            format!("MATCH {} RETURN a", star(8)) + &format!(" UNION MATCH {} RETURN a", star(8)).repeat(5),
        ] {
            assert!(refused(&text), "{text}");
        }
        for text in [
            format!("MATCH {} WITH a MATCH {} RETURN a", star(10), star(10)),
            format!(
                "MATCH {} OPTIONAL MATCH {} OPTIONAL MATCH {} RETURN a",
                star(6),
                star(6),
                star(6)
            ),
            format!("CREATE {}", star(200)),
            format!("MATCH (a) CREATE {}", star(200)),
        ] {
            assert!(!refused(&text), "{text}");
        }
    }
}
