//! Functions of LadybugDB 0.22.1 that end the process, and with it every database of the node, for some arguments. Where
//! the arguments can be seen in the statement, only these are refused.

use super::super::super::type_names::parse;
use super::super::tokens::{Token, TokenKind};
use super::is_name;
use std::borrow::Cow;

/// What has to hold for the parameters of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// Names of parameters that are patterns: see [`is_safe_pattern`].
    pub(crate) patterns: Vec<String>,
    /// NULL needs a type.
    pub(crate) typed_nulls: bool,
}

/// A statement may use this text as the pattern of a function that takes strings apart. `\C` matches one byte of several,
/// an empty separator splits after every byte, and a string that is not UTF-8 ends the process when it is part of an
/// error.
pub(crate) fn is_safe_pattern(text: &str) -> bool {
    !text.is_empty() && !text.contains("\\C")
}

const BROKEN_REDUCE: &str =
    "the engine does not check the type of what it reduces to; use list_sum, list_product or UNWIND";
const LAMBDA: &str = "x -> … is the second argument of list_transform or list_filter and stands nowhere else";
const MACRO: &str = "a macro that uses itself would end the node; write its expression where it is used";
const PATTERN: &str =
    "what takes a string apart needs its pattern as plain text or as a parameter, not empty and without \\C or \\x";

const UNTYPED_NULL: &str =
    "the engine needs the type of NULL beside some of the functions here; write CAST(NULL AS STRING)";

const JSON: &str = "the engine takes values of type JSON for lists and maps; keep JSON as STRING";
const COMPARISON: &str = "decimals cannot be compared by this function; write =, <>, <, <=, > or >=";

/// What the operators are called.
const COMPARISONS: [&str; 6] = [
    "EQUALS",
    "NOT_EQUALS",
    "LESS_THAN",
    "LESS_THAN_EQUALS",
    "GREATER_THAN",
    "GREATER_THAN_EQUALS",
];

/// Functions that follow the type of an argument, which NULL does not have.
const NEED_TYPES: [&str; 21] = [
    "ARRAY_CROSS_PRODUCT",
    "COST",
    "ELEMENT_AT",
    "END_NODE",
    "ID",
    "LIST_ANY_VALUE",
    "LIST_PRODUCT",
    "LIST_REVERSE_SORT",
    "LIST_SUM",
    "MAP",
    "MAP_EXTRACT",
    "MAP_KEYS",
    "MAP_VALUES",
    "NODES",
    "PROPERTIES",
    "RELATIONSHIPS",
    "RELS",
    "ROWID",
    "START_NODE",
    "STRUCT_EXTRACT",
    "UNION_EXTRACT",
];

/// Functions that return parts of a string, with a pattern as their second argument.
const TAKE_APART: [&str; 5] = [
    "REGEXP_EXTRACT",
    "REGEXP_EXTRACT_ALL",
    "REGEXP_REPLACE",
    "REGEXP_SPLIT_TO_ARRAY",
    "SPLIT_PART",
];

/// The first token that may end the process, and why it is refused. What depends on parameters goes to `conditions`.
pub(super) fn found<'t, 'a>(
    tokens: &'t [Token<'a>],
    conditions: &mut Conditions,
) -> Option<(&'t Token<'a>, &'static str)> {
    if let [create, object, ..] = tokens
        && create.is_word("CREATE")
        && object.is_word("MACRO")
    {
        return Some((object, MACRO));
    }
    let called = |index: usize| tokens.get(index + 1).is_some_and(|next| next.is_symbol('('));
    conditions.typed_nulls |= (0..tokens.len()).any(|index| called(index) && is_named(&tokens[index], &NEED_TYPES));
    if conditions.typed_nulls
        && let Some(null) = untyped_null(tokens)
    {
        return Some((null, UNTYPED_NULL));
    }
    if let Some(json) = json_type(tokens) {
        return Some((json, JSON));
    }
    for (index, token) in tokens.iter().enumerate() {
        if is_named(token, &COMPARISONS) && called(index) {
            return Some((token, COMPARISON));
        }
        if token.is_symbol('-')
            && tokens.get(index + 1).is_some_and(|next| next.is_symbol('>'))
            && index
                .checked_sub(1)
                .is_some_and(|before| ends_variable(&tokens[before]))
            && !is_second_argument(&tokens[..index - 1])
        {
            return Some((token, LAMBDA));
        }
        if is_named(token, &["LIST_REDUCE"]) && called(index) {
            return Some((token, BROKEN_REDUCE));
        }
        if is_named(token, &TAKE_APART)
            && let Some(arguments) = call(tokens, index)
        {
            match arguments.get(1).copied() {
                Some([text]) if text.kind == TokenKind::Text && is_plain(text.text) => {}
                Some([dollar, name]) if dollar.is_symbol('$') => {
                    conditions.patterns.push(name.identifier().unwrap_or_default());
                }
                _ => return Some((token, PATTERN)),
            }
        }
    }
    None
}

/// Where JSON is the name of a type: in a cast, and in the definition of a table or type. Elsewhere it is a name like others.
fn json_type<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t Token<'a>> {
    const NAMES: [&str; 8] = ["FROM", "TO", "TABLE", "ADD", "DROP", "RENAME", "EXISTS", "COLUMN"];
    const AFTER: [&str; 4] = ["DEFAULT", "PRIMARY", "NOT", "NULL"];
    let is_identifier = |token: &Token<'_>| matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
    let defines = matches!(tokens, [first, second, ..]
        if first.is_word("ALTER") || first.is_word("CREATE") && !second.is_symbol('(') && second.kind == TokenKind::Word);
    // For each open bracket: is it that of a cast, and does a type stand in it?
    let mut open: Vec<(bool, bool)> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &tokens[before]);
        let next = tokens.get(index + 1);
        let (cast, in_type) = open.last().copied().unwrap_or_default();
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => {
                open.push((before.is_some_and(|before| is_named(before, &["CAST"])), in_type));
            }
            TokenKind::Symbol(')' | ']' | '}') => {
                open.pop();
            }
            TokenKind::Word if cast && token.is_word("AS") => {
                if let Some(bracket) = open.last_mut() {
                    bracket.1 = true;
                }
            }
            TokenKind::Text if cast && before.is_some_and(|before| before.is_symbol(',')) => {
                let name = token.text.get(1..token.text.len() - 1).unwrap_or_default();
                if parse(name).is_some_and(|ty| ty.has_json()) {
                    return Some(token);
                }
            }
            _ if is_named(token, &["JSON"]) => {
                let names_something = next
                    .is_some_and(|next| is_identifier(next) && AFTER.iter().all(|word| !next.is_word(word)))
                    || next.is_some_and(|next| next.is_symbol(':'));
                let defined = defines
                    && before.is_some_and(|before| match before.kind {
                        TokenKind::Word => NAMES.iter().all(|word| !before.is_word(word)),
                        TokenKind::Quoted => true,
                        _ => before.is_symbol(',') && next.is_some_and(|next| !next.is_symbol(',')),
                    });
                if (in_type || defined) && !names_something {
                    return Some(token);
                }
            }
            _ => {}
        }
    }
    None
}

/// A NULL whose type a function may have to follow: any but those in `IS NULL`, `IS NOT NULL`, `CAST(NULL AS …)`, and
/// `RETURN NULL AS …`, where it is the whole of what is returned.
fn untyped_null<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t Token<'a>> {
    let at = |index: Option<usize>| index.and_then(|index| tokens.get(index));
    let word = |index: Option<usize>, words: &[&str]| {
        at(index).is_some_and(|token| words.iter().any(|word| token.is_word(word)))
    };
    let comma = |index: Option<usize>| at(index).is_some_and(|token| token.is_symbol(','));
    let (mut depth, mut returns) = (0usize, false);
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => depth = depth.saturating_sub(1),
            TokenKind::Word if depth == 0 && !is_name(tokens, index) => {
                returns = token.is_word("RETURN") || returns && !token.is_word("UNION");
            }
            _ => {}
        }
        if !token.is_word("NULL") || is_name(tokens, index) {
            continue;
        }
        let (before, next) = (index.checked_sub(1), Some(index + 1));
        let second = index.checked_sub(2);
        let compared = word(before, &["IS"]) || word(before, &["NOT"]) && word(second, &["IS"]);
        let cast = word(second, &["CAST"]) && word(next, &["AS"]);
        let returned = returns
            && depth == 0
            && (word(before, &["RETURN", "DISTINCT"]) || comma(before))
            && (at(next).is_none() || comma(next) || word(next, &["AS", "UNION", "LIMIT", "SKIP"]))
            && !tokens[index..].iter().any(|token| token.is_word("ORDER"));
        if !(compared || cast || returned) {
            return Some(token);
        }
    }
    None
}

/// The statement with numbers of 32 bits in every `range` whose ends are not plain numbers of that size. The engine counts
/// the items of a list in 32 bits and writes as many as it was asked for, so a range of 2^32 items overwrites its memory;
/// with ends of 32 bits there is none, and a larger end is an error.
pub(super) fn with_safe_ranges<'a>(text: &'a str, tokens: &[Token<'_>]) -> Cow<'a, str> {
    let mut before: Vec<(usize, &str)> = Vec::new();
    let mut after: Vec<(usize, &str)> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if !is_named(token, &["RANGE"]) {
            continue;
        }
        let Some(arguments) = call(tokens, index) else { continue };
        if arguments.iter().take(2).all(|end| is_small_number(end)) {
            continue;
        }
        let Some(close) = closing(tokens, index + 1) else {
            continue;
        };
        before.push((token.start, "CAST("));
        after.push((close.start + 1, " AS INT64[])"));
        for argument in arguments {
            let (Some(first), Some(last)) = (argument.first(), argument.last()) else {
                continue;
            };
            before.push((first.start, "CAST("));
            after.push((last.start + last.text.len(), " AS INT32)"));
        }
    }
    if before.is_empty() {
        return Cow::Borrowed(text);
    }
    // Of two that end at the same place the later was opened inside of the earlier and is closed first.
    after.reverse();
    let mut edits = before;
    edits.extend(after);
    edits.sort_by_key(|(at, _)| *at);
    let (mut safe, mut copied) = (String::with_capacity(text.len() + 16 * edits.len()), 0);
    for (at, edit) in edits {
        safe.push_str(&text[copied..at]);
        safe.push_str(edit);
        copied = at;
    }
    safe.push_str(&text[copied..]);
    Cow::Owned(safe)
}

/// True if a `range` in it would have to be changed to be safe.
pub(super) fn has_unsafe_range(text: &str, tokens: &[Token<'_>]) -> bool {
    matches!(with_safe_ranges(text, tokens), Cow::Owned(_))
}

fn is_named(token: &Token<'_>, names: &[&str]) -> bool {
    let name = token.text.trim_matches('`');
    matches!(token.kind, TokenKind::Word | TokenKind::Quoted)
        && names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The arguments of the function whose name is at `index`; `None` if none is called there.
fn call<'t, 'a>(tokens: &'t [Token<'a>], index: usize) -> Option<Vec<&'t [Token<'a>]>> {
    let name = &tokens[index];
    if !matches!(name.kind, TokenKind::Word | TokenKind::Quoted) || !tokens.get(index + 1)?.is_symbol('(') {
        return None;
    }
    let (mut depth, mut start, mut arguments) = (0usize, index + 2, Vec::new());
    for (at, token) in tokens.iter().enumerate().skip(index + 2) {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') if depth == 0 => {
                arguments.push(&tokens[start..at]);
                return Some(arguments);
            }
            TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
            TokenKind::Symbol(',') if depth == 0 => {
                arguments.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    // It is not closed, which the engine will say.
    arguments.push(&tokens[start.min(tokens.len())..]);
    Some(arguments)
}

fn closing<'t, 'a>(tokens: &'t [Token<'a>], open: usize) -> Option<&'t Token<'a>> {
    let mut depth = 0usize;
    tokens[open..].iter().find(|token| {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn is_small_number(argument: &[Token<'_>]) -> bool {
    let digits = match argument {
        [number] => number,
        [minus, number] if minus.is_symbol('-') => number,
        _ => return false,
    };
    digits.kind == TokenKind::Number && digits.text.parse::<i32>().is_ok()
}

/// Text of which one can see what it says.
fn is_plain(quoted: &str) -> bool {
    let escapes = ["\\x", "\\X", "\\u", "\\U"];
    quoted.len() > 2 && is_safe_pattern(quoted) && !escapes.iter().any(|escape| quoted.contains(escape))
}

/// Before `->`: a variable makes a lambda of it, a bracket or a `-` an end of a relationship.
fn ends_variable(token: &Token<'_>) -> bool {
    matches!(token.kind, TokenKind::Word | TokenKind::Quoted) || token.is_symbol(')')
}

/// True if what comes after these tokens is the second argument of a function that takes a lambda there.
fn is_second_argument(tokens: &[Token<'_>]) -> bool {
    let Some((comma, first)) = tokens.split_last() else {
        return false;
    };
    if !comma.is_symbol(',') {
        return false;
    }
    let mut depth = 0usize;
    for (index, token) in first.iter().enumerate().rev() {
        match token.kind {
            TokenKind::Symbol(')' | ']' | '}') => depth += 1,
            TokenKind::Symbol('(') if depth == 0 => {
                let function = index.checked_sub(1).map(|before| &first[before]);
                return function.is_some_and(|name| is_named(name, &["LIST_TRANSFORM", "LIST_FILTER"]));
            }
            TokenKind::Symbol('[' | '{' | ',') if depth == 0 => return false,
            TokenKind::Symbol('(' | '[' | '{') => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::tokens::tokenize;
    use super::*;

    fn conditions(text: &str) -> Result<Conditions, &'static str> {
        let mut conditions = Conditions::default();
        let tokens = tokenize(text).unwrap();
        match found(&tokens, &mut conditions) {
            None => Ok(conditions),
            Some((_, why)) => Err(why),
        }
    }

    #[test]
    fn what_ends_the_process_is_refused() {
        for (text, why) in [
            ("RETURN list_reduce([1, 2], (x, y) -> [x])", BROKEN_REDUCE),
            ("RETURN `LIST_REDUCE` ([1, 2], $f)", BROKEN_REDUCE),
            ("RETURN upper(x -> x)", LAMBDA),
            ("RETURN x->x", LAMBDA),
            ("RETURN [x -> 1]", LAMBDA),
            ("RETURN list_transform(x -> x, [1])", LAMBDA),
            ("RETURN list_transform([1], x -> (y -> y))", LAMBDA),
            ("RETURN list_transform([1], [1], x -> x)", LAMBDA),
            ("RETURN list_contains([1], x -> x)", LAMBDA),
            ("RETURN list_transform([1, x -> x], 1)", LAMBDA),
            ("CREATE MACRO f(x) AS f(x)", MACRO),
            ("RETURN regexp_extract('é', '\\\\C')", PATTERN),
            ("RETURN regexp_extract('é', '\\x5cC')", PATTERN),
            ("RETURN regexp_extract('é', '\\\\' + 'C')", PATTERN),
            ("RETURN Regexp_Replace(s, n.pattern, 'x')", PATTERN),
            ("RETURN split_part('é', '', 1)", PATTERN),
            ("RETURN `split_part`('é', s, 1)", PATTERN),
            ("RETURN split_part('é'", PATTERN),
            ("RETURN CAST('1' AS JSON)", JSON),
            ("RETURN CAST('[1]' AS `json`[])", JSON),
            ("RETURN CAST(x AS STRUCT(a INT64, b JSON))", JSON),
            ("RETURN CAST(x AS MAP(STRING, JSON))", JSON),
            ("RETURN cast(x, 'STRUCT(a json)')", JSON),
            ("CREATE NODE TABLE T(id INT64 PRIMARY KEY, d JSON, e INT64)", JSON),
            ("ALTER TABLE T ADD d JSON", JSON),
            ("RETURN equals(n.a, n.b)", COMPARISON),
            ("RETURN nodes(NULL)", UNTYPED_NULL),
            ("WITH null AS x RETURN `List_Sum`(x)", UNTYPED_NULL),
            ("RETURN id(CASE WHEN true THEN NULL END)", UNTYPED_NULL),
            ("RETURN NULL AS x ORDER BY nodes(x)", UNTYPED_NULL),
            ("RETURN 1 AS n, [NULL] AS l, id(n)", UNTYPED_NULL),
        ] {
            assert_eq!(conditions(text).expect_err(text), why, "{text}");
        }
    }

    #[test]
    fn what_is_safe_is_not() {
        for text in [
            "MATCH (n:Json {json: 'JSON'}) WHERE n.format IN ['a', 'JSON'] RETURN n.json AS json, CAST(n.x AS STRING)",
            "WITH 1 AS json RETURN json, coalesce(json, 'JSON'), [json], CAST(json AS STRUCT(json INT64))",
            "CREATE (n:T {json: 1, x: 'JSON'}) RETURN n.json AS json",
            "CREATE NODE TABLE JSON(json STRING PRIMARY KEY)",
            "CREATE REL TABLE R(FROM json TO json)",
            "RETURN list_transform([1, 2], x -> x + 1)",
            "RETURN list_filter(range(1, 3), x -> size(list_transform([x, 1], y -> y)) > 1)",
            "MATCH (a)-->(b)-[:E]->(c)<-[e]-(d) RETURN a, b.range, {list_reduce: 1}",
            "RETURN split_part('a,b', ',', 1), regexp_extract(n.name, '\\\\d+') AS range",
            "MATCH (n) WHERE n.name =~ n.pattern RETURN n",
        ] {
            assert_eq!(conditions(text), Ok(Conditions::default()), "{text}");
        }
        let named = conditions("RETURN regexp_replace(s, $from, $to), split_part(s, $by, 1)").unwrap();
        assert_eq!(named.patterns, ["from", "by"]);
        for text in [
            "MATCH (n) WHERE n.x IS NULL AND n.y IS NOT NULL AND n.null RETURN id(n), CAST(NULL AS STRING)",
            "RETURN list_sum($x)",
            "MATCH (n) RETURN id(n), NULL AS x, NULL UNION MATCH (n) RETURN NULL AS id, id(n) AS x, NULL LIMIT 1",
        ] {
            assert!(conditions(text).unwrap().typed_nulls, "{text}");
        }
        assert!(is_safe_pattern("\\d") && !is_safe_pattern("a\\Cb") && !is_safe_pattern(""));
    }

    #[test]
    fn the_ends_of_a_range_have_32_bits() {
        let safe = |text: &str| with_safe_ranges(text, &tokenize(text).unwrap()).into_owned();
        for text in [
            "UNWIND range(1, 2147483647) AS x RETURN x",
            "RETURN range(-5, -1, -n.step), n.range, range",
        ] {
            assert_eq!(safe(text), text);
        }
        for (text, expected) in [
            (
                "RETURN range(1, 4294967296)",
                "RETURN CAST(range(CAST(1 AS INT32), CAST(4294967296 AS INT32)) AS INT64[])",
            ),
            (
                "RETURN `Range` (0, size($l) - 1, 2) // end",
                "RETURN CAST(`Range` (CAST(0 AS INT32), CAST(size($l) - 1 AS INT32), CAST(2 AS INT32)) AS INT64[]) // end",
            ),
            (
                "RETURN range(range(1, $n)[1], 1e3)",
                "RETURN CAST(range(CAST(CAST(range(CAST(1 AS INT32), CAST($n AS INT32)) AS INT64[])[1] AS INT32), CAST(1e3 AS INT32)) AS INT64[])",
            ),
            (
                "RETURN range(1, range(1, $n))",
                "RETURN CAST(range(CAST(1 AS INT32), CAST(CAST(range(CAST(1 AS INT32), CAST($n AS INT32)) AS INT64[]) AS INT32)) AS INT64[])",
            ),
        ] {
            assert_eq!(safe(text), expected);
        }
    }
}
