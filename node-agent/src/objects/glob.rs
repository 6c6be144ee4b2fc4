//! Patterns over object keys and file names: `*` within a path segment, `**` across segments, `?`, `[a-z]`.

/// A pattern, split into what can be listed by prefix and what has to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    literal: usize,
}

impl Pattern {
    /// A pattern from its text. Every text is a pattern; one without wildcards matches itself alone.
    pub fn new(text: &str) -> Self {
        let literal = text.find(['*', '?', '[']).unwrap_or(text.len());
        Self {
            text: text.to_owned(),
            literal,
        }
    }

    /// Whether it names exactly one object.
    pub fn is_literal(&self) -> bool {
        self.literal == self.text.len()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The directory part before the first wildcard, without a trailing slash: what has to be listed.
    pub fn prefix(&self) -> &str {
        match self.text[..self.literal].rfind('/') {
            Some(slash) => &self.text[..slash],
            None => "",
        }
    }

    /// Whether a key matches.
    pub fn matches(&self, key: &str) -> bool {
        matches(self.text.as_bytes(), key.as_bytes())
    }
}

/// Matches with one saved position per kind of star, so that the time is at most the product of the lengths, whatever
/// the pattern: patterns come from callers.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    // Position after it, where in the text it stopped, and whether it takes whole segments only (`**/`).
    let mut double: Option<(usize, usize, bool)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            if pattern.get(p + 1) == Some(&b'*') {
                // `**/` also matches nothing, so that `a/**/b` finds `a/b`.
                let segments = pattern.get(p + 2) == Some(&b'/');
                p += if segments { 3 } else { 2 };
                double = Some((p, t, segments));
                star = None;
            } else {
                p += 1;
                star = Some((p, t));
            }
            continue;
        }
        if t < text.len()
            && let Some(next) = one(pattern, p, text[t])
        {
            p = next;
            t += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        // Let the nearest star take one character more; a single star never takes a slash.
        if let Some((after, at)) = star
            && at < text.len()
            && text[at] != b'/'
        {
            star = Some((after, at + 1));
            (p, t) = (after, at + 1);
        } else if let Some((after, at, segments)) = double
            && at < text.len()
        {
            let next = match segments {
                false => at + 1,
                true => match text[at..].iter().position(|c| *c == b'/') {
                    Some(slash) => at + slash + 1,
                    None => return false,
                },
            };
            double = Some((after, next, segments));
            star = None;
            (p, t) = (after, next);
        } else {
            return false;
        }
    }
}

/// Matches one character that is not a star; gives the position after it in the pattern.
fn one(pattern: &[u8], p: usize, c: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => (c != b'/').then_some(p + 1),
        b'[' => match class(&pattern[p + 1..], c) {
            Some((matched, length)) => matched.then_some(p + 1 + length),
            // A bracket that is never closed is an ordinary character.
            None => (c == b'[').then_some(p + 1),
        },
        literal => (*literal == c).then_some(p + 1),
    }
}

fn class(rest: &[u8], c: u8) -> Option<(bool, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A closing bracket that stands first is a member.
    let end = rest.iter().skip(start + 1).position(|b| *b == b']')? + start + 1;
    let members = &rest[start..end];
    let mut found = false;
    let mut i = 0;
    while i < members.len() {
        if i + 2 < members.len() && members[i + 1] == b'-' {
            found |= (members[i]..=members[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= members[i] == c;
            i += 1;
        }
    }
    Some((found != negated && c != b'/', end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_and_classes() {
        for (pattern, yes, no) in [
            (
                "a/*.parquet",
                &["a/x.parquet", "a/.parquet"][..],
                &["a/b/x.parquet", "a/x.csv", "b/x.parquet"][..],
            ),
            (
                "a/**/*.parquet",
                &["a/x.parquet", "a/b/c/x.parquet"],
                &["b/x.parquet", "a/x.csv"],
            ),
            ("a/**/x.p", &["a/x.p", "a/b/c/x.p"], &["a/bx.p", "a/b/cx.p"]),
            ("a/**", &["a/x", "a/b/c"], &["b/x"]),
            ("part-?.p", &["part-1.p"], &["part-12.p", "part-/.p"]),
            ("part-[0-3x].p", &["part-2.p", "part-x.p"], &["part-7.p"]),
            ("part-[!0-3].p", &["part-9.p"], &["part-2.p"]),
            ("odd[.p", &["odd[.p"], &["oddx.p"]),
            ("plain", &["plain"], &["plain2", "plai"]),
            ("*a*b*c", &["xaxbxc", "abc"], &["xaxcxb"]),
        ] {
            for text in yes {
                assert!(Pattern::new(pattern).matches(text), "{pattern} should match {text}");
            }
            for text in no {
                assert!(
                    !Pattern::new(pattern).matches(text),
                    "{pattern} should not match {text}"
                );
            }
        }
    }

    #[test]
    fn a_pattern_knows_what_to_list() {
        assert_eq!(Pattern::new("a/b/x-*.parquet").prefix(), "a/b");
        assert_eq!(Pattern::new("*.parquet").prefix(), "");
        assert!(Pattern::new("a/b/c.parquet").is_literal());
        assert!(!Pattern::new("a/[b]").is_literal());
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = Pattern::new(&"*a".repeat(200));
        assert!(!pattern.matches(&"a".repeat(5_000).replace("aaaaa", "aaaab").repeat(2)));
    }

    proptest! {
        #[test]
        fn a_literal_matches_itself_and_a_star_its_own_segment(key in "[a-z0-9./=-]{0,30}") {
            prop_assert!(Pattern::new(&key).matches(&key));
            prop_assert!(Pattern::new("**").matches(&key));
            prop_assert_eq!(Pattern::new("*").matches(&key), !key.contains('/'));
        }
    }
}
