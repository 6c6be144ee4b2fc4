//! The same languages read in the simplest way: literals and comments are taken out character by character, and words are
//! looked for in what is left.

/// A text without comments, and with one mark in the place of every literal; `None` if one of them has no end.
fn skeleton(text: &str, literal: impl Fn(&[char], usize) -> Option<Option<usize>>) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut left, mut at) = (String::new(), 0);
    while at < chars.len() {
        match literal(&chars, at) {
            Some(end) => {
                let comment = matches!(chars[at], '/' | '-');
                left.push(if comment { ' ' } else { '\u{1}' });
                at = end?;
            }
            None => {
                left.push(chars[at]);
                at += 1;
            }
        }
    }
    Some(left)
}

fn starts(chars: &[char], at: usize, what: &str) -> bool {
    what.chars()
        .enumerate()
        .all(|(index, c)| chars.get(at + index) == Some(&c))
}

/// The end of the Cypher literal or comment that begins here; `Some(None)` if it has none.
fn cypher_literal(chars: &[char], at: usize) -> Option<Option<usize>> {
    let mut end = at + 1;
    match chars[at] {
        quote @ ('\'' | '"' | '`') => loop {
            match chars.get(end) {
                None => return Some(None),
                Some('\\') if quote != '`' => end += 2,
                Some(c) if *c == quote => return Some(Some(end + 1)),
                Some(_) => end += 1,
            }
        },
        '/' if starts(chars, at, "//") => {
            while chars.get(end).is_some_and(|c| *c != '\n') {
                end += 1;
            }
            Some(Some(end))
        }
        '/' if starts(chars, at, "/*") => {
            end += 1;
            loop {
                // A star takes the next character with it.
                match (chars.get(end), chars.get(end + 1)) {
                    (None, _) => return Some(None),
                    (Some('*'), Some('/')) => return Some(Some(end + 2)),
                    (Some('*'), _) => end += 2,
                    _ => end += 1,
                }
            }
        }
        _ => None,
    }
}

/// A word that reaches outside of the database, where it is neither a name nor part of a literal.
pub(crate) fn forbidden_in_cypher(text: &str) -> Option<String> {
    const FORBIDDEN: [&str; 7] = ["LOAD", "COPY", "EXPORT", "IMPORT", "ATTACH", "INSTALL", "UNINSTALL"];
    let left: Vec<char> = cypher(text)?.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c) || c == '\u{180e}';
    let mut at = 0;
    while at < left.len() {
        if !is_word(left[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < left.len() && is_word(left[at]) {
            at += 1;
        }
        let run: String = left[start..at].iter().collect();
        let word = after_number(&run);
        let before = match word.len() == run.len() {
            true => left[..start].iter().rev().find(|c| !is_space(**c)).copied(),
            false => Some('0'),
        };
        let next = left[at..].iter().find(|c| !is_space(**c)).copied();
        let is_name = matches!(before, Some('.' | ':' | '$')) || next == Some(':');
        if !is_name && FORBIDDEN.iter().any(|known| word.eq_ignore_ascii_case(known)) {
            return Some(run);
        }
    }
    None
}

/// `1LOAD` and `1e5LOAD` are a number and a word.
fn after_number(run: &str) -> &str {
    let rest = run.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == run.len() {
        return run;
    }
    match rest.strip_prefix(['e', 'E']) {
        Some(exponent) if exponent.starts_with(|c: char| c.is_ascii_digit()) => {
            exponent.trim_start_matches(|c: char| c.is_ascii_digit())
        }
        _ => rest,
    }
}

/// The same tokens with other spaces, comments and cases between and in them.
pub(crate) fn respell<'t>(tokens: impl Iterator<Item = (&'t str, bool)>, turn: usize) -> String {
    const BETWEEN: [&str; 5] = [" ", "\n", " /* LOAD */ ", "\t\r\n", " // '\n"];
    let mut text = String::new();
    for (index, (token, is_word)) in tokens.enumerate() {
        match (is_word, (index + turn) % 3) {
            (true, 0) => text += &token.to_ascii_uppercase(),
            (true, 1) => text += &token.to_ascii_lowercase(),
            _ => text += token,
        }
        text += BETWEEN[(index * 7 + turn) % BETWEEN.len()];
    }
    text
}

/// The end of the SQL literal or comment that begins here; `Some(None)` if it has none.
fn sql_literal(chars: &[char], at: usize) -> Option<Option<usize>> {
    let mut end = at + 1;
    match chars[at] {
        quote @ ('\'' | '"') => loop {
            match (chars.get(end), chars.get(end + 1)) {
                (None, _) => return Some(None),
                (Some(c), Some(d)) if *c == quote && *d == quote => end += 2,
                (Some(c), _) if *c == quote => return Some(Some(end + 1)),
                _ => end += 1,
            }
        },
        '-' if starts(chars, at, "--") => {
            while chars.get(end).is_some_and(|c| !matches!(c, '\n' | '\r')) {
                end += 1;
            }
            Some(Some(end))
        }
        '/' if starts(chars, at, "/*") => {
            let mut depth = 1;
            end += 1;
            while depth > 0 {
                if end >= chars.len() {
                    return Some(None);
                } else if starts(chars, end, "/*") {
                    (depth, end) = (depth + 1, end + 2);
                } else if starts(chars, end, "*/") {
                    (depth, end) = (depth - 1, end + 2);
                } else {
                    end += 1;
                }
            }
            Some(Some(end))
        }
        _ => None,
    }
}

/// SQL without literals and comments, with one space for many, and none before a bracket.
pub(crate) fn sql(text: &str) -> Option<String> {
    let left = skeleton(text, sql_literal)?.replace(['\u{200b}', '\u{feff}'], " ");
    let words: Vec<&str> = left.split_whitespace().collect();
    Some(words.join(" ").replace(" (", "("))
}

/// Every letter outside of quotes in the other case.
pub(crate) fn other_case(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut other, mut at) = (String::new(), 0);
    while at < chars.len() {
        match sql_literal(&chars, at) {
            Some(end) => {
                let end = end.unwrap_or(chars.len());
                other.extend(&chars[at..end]);
                at = end;
            }
            None => {
                let c = chars[at];
                other.push(if c.is_ascii_lowercase() {
                    c.to_ascii_uppercase()
                } else {
                    c.to_ascii_lowercase()
                });
                at += 1;
            }
        }
    }
    other
}

/// True if `function`, with its bracket, stands here as a word of its own.
pub(crate) fn calls(text: &str, function: &str) -> bool {
    text.match_indices(function).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii())
    })
}

/// Cypher without literals and comments.
pub(crate) fn cypher(text: &str) -> Option<String> {
    skeleton(text, cypher_literal)
}

/// True if the first word of what is left of a text is one of these.
pub(crate) fn first_word_is(left: &str, words: &[&str]) -> bool {
    let start = left.trim_start_matches(|c: char| !c.is_alphabetic());
    let end = start
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(start.len());
    words.iter().any(|word| start[..end].eq_ignore_ascii_case(word))
}
