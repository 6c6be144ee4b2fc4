//! As much XML as answers of AWS have: elements with text or children, and attributes that nobody looks into.

use std::fmt;

/// An element.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// As it stood there, with a blank before it.
    attributes: String,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Element {
    /// An element with text.
    pub(crate) fn leaf(name: &str, text: impl fmt::Display) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_string(),
            ..Self::default()
        }
    }

    /// An element with children.
    pub(crate) fn node(name: &str, children: Vec<Self>) -> Self {
        Self {
            name: name.to_owned(),
            children,
            ..Self::default()
        }
    }

    /// The element that a document consists of.
    ///
    /// # Errors
    /// The place from which the text is no XML as we know it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim_start();
        if rest.starts_with("<?") {
            rest = rest.split_once("?>").ok_or("an unfinished prolog")?.1.trim_start();
        }
        let (root, rest) = element(rest)?;
        if rest.trim().is_empty() {
            Ok(root)
        } else {
            Err(format!("text after the end: {rest}"))
        }
    }

    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child of that name; made if there is none.
    pub(crate) fn child_mut(&mut self, name: &str) -> &mut Self {
        let at = self.children.iter().position(|child| child.name == name);
        let at = at.unwrap_or_else(|| {
            self.children.push(Self::leaf(name, ""));
            self.children.len() - 1
        });
        &mut self.children[at]
    }

    /// Text of the element at the end of a path of names; empty if there is none.
    pub(crate) fn text_of(&self, path: &[&str]) -> &str {
        match path {
            [] => &self.text,
            [first, rest @ ..] => self.child(first).map_or("", |child| child.text_of(rest)),
        }
    }

    /// Sets the text of a child.
    pub(crate) fn set(&mut self, name: &str, text: impl fmt::Display) {
        *self.child_mut(name) = Self::leaf(name, text);
    }

    /// Every element of that name below this one.
    pub(crate) fn all(&self, name: &str) -> Vec<&Self> {
        let mut found = Vec::new();
        for child in &self.children {
            if child.name == name {
                found.push(child);
            }
            found.extend(child.all(name));
        }
        found
    }

    /// Texts of every element of that name below this one.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.all(name).into_iter().map(|found| found.text.clone()).collect()
    }
}

/// The element at the start of a text, and what comes after it.
fn element(text: &str) -> Result<(Element, &str), String> {
    let wrong = || format!("no element: {}", text.chars().take(80).collect::<String>());
    let (head, mut rest) = text
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .ok_or_else(wrong)?;
    let (head, empty) = head.strip_suffix('/').map_or((head, false), |head| (head, true));
    let end = head.find(char::is_whitespace).unwrap_or(head.len());
    let mut made = Element {
        name: head[..end].to_owned(),
        attributes: head[end..].trim_end().to_owned(),
        ..Element::default()
    };
    if made.name.is_empty() {
        return Err(wrong());
    }
    if empty {
        return Ok((made, rest));
    }
    loop {
        let at = rest.find('<').ok_or_else(wrong)?;
        // Between children there are only blanks, which say nothing.
        let (words, after) = rest.split_at(at);
        made.text.push_str(&unescape(words));
        if let Some(after) = after.strip_prefix("</") {
            let (name, after) = after.split_once('>').ok_or_else(wrong)?;
            if name.trim() != made.name {
                return Err(format!("{} ends as {name}", made.name));
            }
            if !made.children.is_empty() {
                made.text.clear();
            }
            return Ok((made, after));
        }
        let (child, after) = element(after)?;
        made.children.push(child);
        rest = after;
    }
}

fn unescape(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        made.push_str(before);
        let Some((name, after)) = after.split_once(';') else {
            made.push('&');
            rest = after;
            continue;
        };
        let numbered = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let found = match name {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match name.strip_prefix("#x") {
                Some(digits) => numbered(digits, 16),
                None => name.strip_prefix('#').and_then(|digits| numbered(digits, 10)),
            },
        };
        made.extend(found);
        rest = after;
    }
    made.push_str(rest);
    made
}

/// Text as it stands in XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}{}>{}", self.name, self.attributes, escape(&self.text))?;
        for child in &self.children {
            write!(f, "{child}")?;
        }
        write!(f, "</{}>", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_changed_and_written() {
        let text = "<?xml version=\"1.0\"?>\n<A xmlns=\"u\"><b>\n  <item><id>1</id></item><item><id>2 &amp; &#51;</id></item>\n</b><c/></A>";
        let mut read = Element::parse(text).unwrap();
        assert_eq!(read.texts("id"), ["1", "2 & 3"]);
        assert_eq!(read.text_of(&["b", "item", "id"]), "1");
        read.set("c", "x<y");
        read.child_mut("b").children.remove(0);
        assert_eq!(
            read.to_string(),
            "<A xmlns=\"u\"><b><item><id>2 &amp; 3</id></item></b><c>x&lt;y</c></A>"
        );
        for wrong in ["", "text", "<a>", "<a></b>", "<a/>x", "< a/>"] {
            assert!(Element::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn tree() -> impl Strategy<Value = Element> {
        let leaf = ("[a-z]{1,4}", "[ -~]{0,8}").prop_map(|(name, text)| Element::leaf(&name, text));
        leaf.prop_recursive(3, 20, 4, |inner| {
            ("[a-z]{1,4}", prop::collection::vec(inner, 1..4)).prop_map(|(name, below)| Element::node(&name, below))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(tree in tree()) {
            prop_assert_eq!(Element::parse(&tree.to_string()).unwrap(), tree);
        }
    }
}
