//! Types that the engine must not see: lists, arrays and maps of decimals. LadybugDB 0.22.1 ends the process when it
//! casts text to one, and with it every database of the node.

use super::super::super::type_names::parse;
use super::super::tokens::{Token, TokenKind};

/// Why such a type is refused, and what to do.
pub(in crate::engines::ladybug) const NO_COLLECTED_DECIMALS: &str =
    "the engine has no safe lists and maps of DECIMAL; use DOUBLE or STRING in them, or cast the elements one by one";

/// The first decimal in a list, an array or a map: as a type (`DECIMAL(4, 2)[]`, `MAP(STRING, DECIMAL(4, 2))`), as the
/// name of a type in quotes, which `cast` takes too, or as a type with a name of its own, which would hide it.
pub(super) fn collected<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t Token<'a>> {
    let names_a_type = matches!(tokens, [create, ty, ..] if create.is_word("CREATE") && ty.is_word("TYPE"));
    let mut open: Vec<Frame<'t, 'a>> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| tokens.get(before));
        let is_list = tokens.get(index + 1).is_some_and(|next| next.is_symbol('['));
        match token.kind {
            TokenKind::Symbol('(') => open.push(Frame::new(before)),
            TokenKind::Symbol(')') => {
                let Some(closed) = open.pop() else { continue };
                let Some(decimal) = closed.decimal else { continue };
                if closed.is_map || is_list {
                    return Some(decimal);
                }
                if let Some(outer) = open.last_mut().filter(|outer| outer.is_type) {
                    outer.decimal = Some(decimal);
                }
            }
            TokenKind::Word | TokenKind::Quoted if is_decimal(token) && !is_property(before) => {
                if is_list || names_a_type {
                    return Some(token);
                }
                // The precision comes as a frame of its own, and its end tells whether the type is a list.
                if let Some(outer) = open.last_mut().filter(|outer| outer.is_type) {
                    outer.decimal = Some(token);
                }
            }
            TokenKind::Text => {
                let name = token
                    .text
                    .get(1..token.text.len().saturating_sub(1))
                    .unwrap_or_default();
                if parse(name).is_some_and(|ty| ty.collects_decimals()) {
                    return Some(token);
                }
            }
            _ => {}
        }
    }
    None
}

/// What stands in one pair of parentheses.
struct Frame<'t, 'a> {
    /// `STRUCT(`, `UNION(` or `MAP(`.
    is_type: bool,
    is_map: bool,
    decimal: Option<&'t Token<'a>>,
}

impl<'t, 'a> Frame<'t, 'a> {
    fn new(word: Option<&'t Token<'a>>) -> Self {
        let is = |name: &str| word.is_some_and(|word| word.is_word(name));
        let is_map = is("MAP");
        Self {
            is_type: is_map || is("STRUCT") || is("UNION"),
            is_map,
            // `DECIMAL(4, 2)` is in parentheses itself.
            decimal: word.filter(|word| is_decimal(word)),
        }
    }
}

/// `n.decimal[0]` and `$decimal[0]` are names.
pub(super) fn is_property(before: Option<&Token<'_>>) -> bool {
    before.is_some_and(|before| before.is_symbol('.') || before.is_symbol('$'))
}

pub(super) fn is_decimal(token: &Token<'_>) -> bool {
    let name = token.text.trim_matches('`');
    matches!(token.kind, TokenKind::Word | TokenKind::Quoted)
        && ["DECIMAL", "NUMERIC"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::ladybug::tokens::tokenize;

    #[test]
    fn decimals_in_collections_are_found_and_others_are_not() {
        for text in [
            "RETURN CAST(['1.2'] AS DECIMAL(6,2)[])",
            "RETURN CAST(['1.2'] AS decimal ( 6 , 2 ) [1])",
            "RETURN CAST(x AS DECIMAL[])",
            "RETURN CAST(x AS `NUMERIC`(6, 2)[])",
            "RETURN CAST([{a:'1'}] AS STRUCT(a DECIMAL(6,2))[])",
            "RETURN CAST({a:['1']} AS STRUCT(b INT64, a DECIMAL(6,2)[]))",
            "RETURN CAST(map(['k'],['1']) AS MAP(STRING, DECIMAL(6,2)))",
            "RETURN CAST(m AS MAP(STRING, STRUCT(a DECIMAL(6,2))))",
            "RETURN cast(['1.5'], 'DECIMAL(6,2)[]')",
            "RETURN cast(['1.5'], \"MAP(STRING, DECIMAL(6,2))\")",
            "CREATE NODE TABLE T(id INT64 PRIMARY KEY, d DECIMAL(6,2)[])",
            "CREATE TYPE price AS DECIMAL(6,2)",
        ] {
            assert!(collected(&tokenize(text).unwrap()).is_some(), "{text}");
        }
        for text in [
            "RETURN CAST('1.2' AS DECIMAL(6,2))",
            "RETURN [CAST('1.5' AS DECIMAL(6,2)), CAST('2' AS DECIMAL(6,2))]",
            "RETURN map(['k'], [CAST('1' AS DECIMAL(6,2))])",
            "RETURN CAST({a:'1'} AS STRUCT(a DECIMAL(6,2), b INT64[]))",
            "CREATE NODE TABLE T(id INT64 PRIMARY KEY, d DECIMAL(6,2), l INT64[])",
            "RETURN 'DECIMAL', 'a DECIMAL(6,2)[] of sorts'",
            "MATCH (n {decimal: 1}) RETURN n.decimal[1], $decimal[2]",
        ] {
            assert_eq!(collected(&tokenize(text).unwrap()), None, "{text}");
        }
    }
}
