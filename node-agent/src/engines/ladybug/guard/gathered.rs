//! Decimals that a statement puts into a list or a map. LadybugDB 0.22.1 ends the process when it casts such a list from
//! text or to it, and does so without a word in the statement: where it compares the list with another one, in the
//! properties of a pattern, in a default value. Types are not known here, so no decimal may get into a list or a map, from
//! wherever it comes: a cast, a column, or a name for one of these. What is cast to something else first is none.

use super::super::super::type_names::parse;
use super::super::tokens::{Token, TokenKind};
use super::decimals::{is_decimal, is_property};

/// Why that is refused, and what to do.
pub(super) const CAST_FIRST: &str = "the engine has no safe lists and maps of DECIMAL; cast the values before they get into one: collect(CAST(n.price AS DOUBLE))";

/// Functions that make lists or maps, and how the names of others begin.
const MAKERS: [&str; 4] = ["COLLECT", "MAP", "PROPERTIES", "HISTOGRAM"];
const MAKERS_BEGIN: [&str; 3] = ["LIST_", "ARRAY_", "MAP_"];
/// What a list of expressions can follow.
const CLAUSES: [&str; 6] = ["WITH", "RETURN", "DISTINCT", "UNWIND", "YIELD", "WHERE"];

/// Names for expressions with decimals: every one of them is looked for in the whole statement.
const NAMES: usize = 100;

/// Names in a graph, in any case, and written as between backticks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decimals {
    /// Columns with decimals in a list or a map, which only agents without a guard have made. A statement that sets or
    /// compares one can end the process, so statements do not name them, but to drop them.
    pub(crate) unsafe_columns: Vec<String>,
    /// Columns with other decimals.
    pub(crate) columns: Vec<String>,
    /// Macros, which may hide anything.
    pub(crate) macros: Vec<String>,
}

impl Decimals {
    fn is_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.eq_ignore_ascii_case(name))
    }

    fn is_macro(&self, name: &str) -> bool {
        self.macros.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The first decimal that gets into a list or a map, or what could hide one.
pub(super) fn gathered<'t, 'a>(tokens: &'t [Token<'a>], known: &Decimals) -> Option<&'t Token<'a>> {
    let mut statement = Statement {
        tokens,
        known,
        regions: Vec::new(),
        named: Vec::new(),
    };
    let concerns = |index: usize| names_by_text(&tokens[index]) || statement.is_decimal(index);
    if !(0..tokens.len()).any(concerns) {
        return None;
    }
    statement.regions = regions(tokens, known);
    if let Some(hidden) = statement.regions.iter().find(|region| region.role == Role::Hidden) {
        return tokens.get(hidden.begin);
    }
    loop {
        let mut makers = statement.regions.iter().filter(|region| region.role == Role::Maker);
        if let Some(found) = makers.find_map(|region| statement.bare(region.begin + 1, region.end)) {
            return Some(&tokens[found]);
        }
        // A name for an expression with a decimal is one, too; and names for these.
        let new = statement.names();
        if new.iter().all(|name| statement.named.contains(name)) {
            return None;
        }
        if new.len() > NAMES {
            return tokens.iter().find(|token| token.is_word("AS"));
        }
        statement.named = new;
    }
}

/// Functions to which a type or a column is said by a text, which can be any expression: `cast(x, 'DOUBLE')`.
fn names_by_text(token: &Token<'_>) -> bool {
    let name = bare_name(token).unwrap_or_default();
    name.eq_ignore_ascii_case("CAST") || name.eq_ignore_ascii_case("PROPERTIES")
}

/// A bare word, or one in backticks as it is written there.
fn bare_name<'a>(token: &Token<'a>) -> Option<&'a str> {
    match token.kind {
        TokenKind::Word => Some(token.text),
        TokenKind::Quoted => token.text.get(1..token.text.len().saturating_sub(1)),
        _ => None,
    }
}

/// What a text says, if it says it without escapes.
fn plain_text<'a>(token: &Token<'a>) -> Option<&'a str> {
    let inside = token.text.get(1..token.text.len().saturating_sub(1))?;
    (token.kind == TokenKind::Text && !inside.contains('\\')).then_some(inside)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// What is in it gets into a list or a map.
    Maker,
    /// `CAST(… AS type)`; true if the type has no decimals.
    Cast(bool),
    /// What a function is asked for cannot be seen.
    Hidden,
    Other,
}

/// What stands in one pair of brackets, by the indices of these.
#[derive(Clone, Copy, Debug)]
struct Region {
    begin: usize,
    end: usize,
    role: Role,
}

struct Statement<'s, 'a> {
    tokens: &'s [Token<'a>],
    known: &'s Decimals,
    regions: Vec<Region>,
    /// Names of expressions with decimals.
    named: Vec<String>,
}

impl Statement<'_, '_> {
    fn is_decimal(&self, index: usize) -> bool {
        let token = &self.tokens[index];
        if let Some(text) = plain_text(token) {
            return parse(text).is_some_and(|ty| ty.has_decimals()) || self.known.is_column(text);
        }
        let Some(name) = bare_name(token) else { return false };
        let before = index.checked_sub(1).map(|before| &self.tokens[before]);
        (is_decimal(token) && !is_property(before))
            || self.known.is_column(name)
            || self.known.is_macro(name)
            || self.named.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// A decimal between two indices that is not cast to something else there.
    fn bare(&self, begin: usize, end: usize) -> Option<usize> {
        (begin..end).find(|index| {
            let is_cast = self.regions.iter().any(|region| {
                region.role == Role::Cast(true) && begin <= region.begin && region.begin < *index && *index < region.end
            });
            !is_cast && self.is_decimal(*index)
        })
    }

    /// The names that are given to expressions with decimals.
    fn names(&self) -> Vec<String> {
        let of_cast = |index: usize| {
            let around = self
                .regions
                .iter()
                .filter(|region| region.begin < index && index < region.end);
            around
                .max_by_key(|region| region.begin)
                .is_some_and(|region| matches!(region.role, Role::Cast(_)))
        };
        let name = |(index, token): (usize, &Token<'_>)| {
            if !token.is_word("AS") || of_cast(index) {
                return None;
            }
            self.bare(self.beginning(index), index)?;
            bare_name(self.tokens.get(index + 1)?).map(str::to_owned)
        };
        self.tokens.iter().enumerate().filter_map(name).collect()
    }

    /// Where the expression begins that ends before an index.
    fn beginning(&self, end: usize) -> usize {
        let mut begin = end;
        while let Some(before) = begin.checked_sub(1) {
            if let Some(region) = self.regions.iter().find(|region| region.end == before) {
                begin = region.begin;
                continue;
            }
            let token = &self.tokens[before];
            let opens = matches!(token.kind, TokenKind::Symbol('(' | '[' | '{' | ','));
            if opens || CLAUSES.iter().any(|clause| token.is_word(clause)) {
                break;
            }
            begin = before;
        }
        begin
    }
}

fn regions(tokens: &[Token<'_>], known: &Decimals) -> Vec<Region> {
    let mut open = Vec::new();
    let mut regions = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => open.push(index),
            TokenKind::Symbol(')' | ']' | '}') => {
                let Some(begin) = open.pop() else { continue };
                regions.push(Region {
                    begin,
                    end: index,
                    role: role(tokens, begin, index, known),
                });
            }
            _ => {}
        }
    }
    // What is not closed is no statement, but must not hide anything.
    regions.extend(open.into_iter().map(|begin| Region {
        begin,
        end: tokens.len(),
        role: role(tokens, begin, tokens.len(), known),
    }));
    regions
}

fn role(tokens: &[Token<'_>], begin: usize, end: usize, known: &Decimals) -> Role {
    let before = begin.checked_sub(1).map(|before| &tokens[before]);
    match tokens[begin].kind {
        // A relationship of a pattern.
        TokenKind::Symbol('[') if before.is_some_and(|token| token.is_symbol('-')) => Role::Other,
        TokenKind::Symbol('[') => Role::Maker,
        TokenKind::Symbol('(') => {
            let Some(name) = before.and_then(bare_name) else {
                return Role::Other;
            };
            let starts_with = |start: &str| {
                name.get(..start.len())
                    .is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
            };
            let is_maker = MAKERS.into_iter().any(|maker| name.eq_ignore_ascii_case(maker));
            let inside = &tokens[begin + 1..end];
            if defines_table(tokens, begin) {
                Role::Other
            } else if name.eq_ignore_ascii_case("PROPERTIES") && last_text(inside).is_none() {
                Role::Hidden
            } else if is_maker || MAKERS_BEGIN.into_iter().any(starts_with) || known.is_macro(name) {
                Role::Maker
            } else if name.eq_ignore_ascii_case("CAST") {
                cast(inside)
            } else {
                Role::Other
            }
        }
        _ => Role::Other,
    }
}

/// Whether the columns of a table are defined between these parentheses: a table may be called `Map`.
fn defines_table(tokens: &[Token<'_>], begin: usize) -> bool {
    let creates = tokens.first().is_some_and(|token| token.is_word("CREATE"));
    let is_table = tokens.get(2).is_some_and(|token| token.is_word("TABLE"));
    creates && is_table && !tokens[..begin].iter().any(|token| token.is_symbol('('))
}

/// `… AS type`, or `…, 'type'`.
fn cast(inside: &[Token<'_>]) -> Role {
    let mut depth = 0_usize;
    for (index, token) in inside.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.is_word("AS") => {
                let ty = &inside[index + 1..];
                return Role::Cast(!ty.is_empty() && !ty.iter().any(is_decimal));
            }
            _ => {}
        }
    }
    match last_text(inside).map(parse) {
        Some(Some(ty)) => Role::Cast(!ty.has_decimals()),
        // A type that has no place in the tree, or is no type.
        Some(None) => Role::Cast(false),
        None => Role::Hidden,
    }
}

/// The last of several arguments, if it is a text that can be read here.
fn last_text<'a>(inside: &[Token<'a>]) -> Option<&'a str> {
    match inside {
        [.., comma, text] if comma.is_symbol(',') => plain_text(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::ladybug::tokens::tokenize;

    fn found(text: &str) -> bool {
        let known = Decimals {
            unsafe_columns: Vec::new(),
            columns: vec!["price".into(), "a``b".into()],
            macros: vec!["m".into()],
        };
        gathered(&tokenize(text).unwrap(), &known).is_some()
    }

    #[test]
    fn no_decimal_gets_into_a_list() {
        // Most of these end the process with lbug 0.22.1.
        for text in [
            "RETURN [CAST('1' AS DECIMAL(6,2))] = ['1.5']",
            "MATCH (n:T) WITH collect(n.price) AS p RETURN p = ['1.5']",
            "MATCH (n:T) WITH COLLECT ( n.`Price` ) AS p RETURN p = ['1.5']",
            "RETURN {a: [CAST('1' AS DECIMAL(6,2))]} = {a: ['1']}",
            "RETURN map(['k'],[CAST('1' AS DECIMAL(6,2))]) = map(['k'],['1'])",
            "MATCH (n:T {tags: [CAST('1' AS DECIMAL(6,2))]}) RETURN n",
            "CREATE (:T {identifier: 9, tags: [cast('1', 'DECIMAL(6,2)')]})",
            "MATCH (n:T) RETURN CAST([n.price] AS STRING[]) = ['1.50']",
            "MATCH p = (a:T)-[*0..1]-(b:T) RETURN properties(nodes(p), 'price') = ['1']",
            "MATCH (n:T) RETURN list_transform([1], x -> n.price) = ['1']",
            "MATCH (n:T) WITH collect({a: n.price}) AS l RETURN l = [{a: '1'}]",
            "MATCH (n:T) WITH n.price AS p WITH p AS q RETURN collect(q)",
            "MATCH (n:T) WITH 1 AS a, {x: n.price + 1} AS s RETURN collect(s.x)",
            "MATCH (n:T) WITH max(n.price) AS p, 1 AS a RETURN [p, a]",
            "MATCH (n:T) RETURN m(n.price) = ['1']",
            "RETURN [m('1')] = ['1']",
            "MATCH (n:T) WITH CAST(n.name AS DECIMAL(6, 2)) AS d RETURN list_creation(d)",
            "CREATE NODE TABLE T(id INT64 PRIMARY KEY, l STRING[] DEFAULT [CAST('1' AS DECIMAL(6,2))])",
            "CREATE MACRO f() AS [CAST('1' AS DECIMAL(6,2))]",
            "RETURN collect(CAST('1' AS DECIMAL(6,2))",
            "MATCH (n:T) WITH n.price AS `q``r` RETURN collect(`q``r`)",
            "MATCH (n:T) RETURN collect(n.`a``b`)",
            // The type, or the column, is not to be seen.
            "RETURN cast(['1'], concat('DECIMAL(6,2)', '[]'))",
            "RETURN `cast`(['1'], 'DECI' + 'MAL(6,2)[]')",
            "RETURN cast(CAST('1' AS STRING), concat('DECI', 'MAL(6,2)[]'))",
            "RETURN cast(['1'], 'DECIMAL(6,2)\\u005b]')",
            "RETURN cast(['1'], $type)",
            "MATCH (n:T) RETURN properties([n], concat('pri', 'ce'))",
        ] {
            assert!(found(text), "{text}");
        }
    }

    #[test]
    fn decimals_elsewhere_and_other_lists_are_free() {
        for text in [
            "MATCH (n:T) WHERE n.identifier IN [1, 2] RETURN n.price",
            "MATCH (n:T) RETURN collect(CAST(n.price AS DOUBLE)) AS prices",
            "MATCH (n:T) RETURN collect(cast(n.price, 'STRING')) = ['1']",
            "MATCH (n:T) WITH CAST(n.price AS STRING) AS p RETURN collect(p)",
            "MATCH (a:T)-[r:R {weight: a.price}]->(b) RETURN a.price, collect(b.name)",
            "MATCH (a)-[*1..3]->(b) RETURN sum(a.price) AS total, count(*) AS n",
            "UNWIND $rows AS row CREATE (:T {price: CAST(row.amount AS DECIMAL(6, 2))})",
            "MATCH (n:T) WITH collect(n.name) AS names, sum(n.price) AS total RETURN names, total",
            "MATCH (n:T) RETURN {a: n.price} AS s, [1] AS list",
            "CREATE NODE TABLE U(id INT64 PRIMARY KEY, d DECIMAL(6, 2), l STRING[])",
            "CREATE NODE TABLE Map(id INT64 PRIMARY KEY, d DECIMAL(6, 2))",
            "CREATE REL TABLE List_of(FROM T TO T, price DECIMAL(6, 2))",
            "RETURN [1, 2] = [3], 'price'",
            "RETURN collect(1",
            "RETURN cast('1', 'INT64'), CAST([1] AS STRING[]), 'a\\'b'",
            "MATCH p = (a)-[*1..2]->(b) RETURN properties(nodes(p), 'name')",
        ] {
            assert!(!found(text), "{text}");
        }
    }
}
