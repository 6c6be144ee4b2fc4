//! Field paths, built on the stack while a walk goes down and written out only when there is something to report.

use std::fmt;

/// A path into an object or schema; a linked list from the leaf to the root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// The whole object; prints as nothing.
    Root,
    /// A named field: `.name`.
    Field(&'a str),
    /// An entry of a map: `[key]`.
    Key(&'a str),
    /// An item of a list: `[3]`.
    Index(usize),
}

impl<'a> Path<'a> {
    /// The path of the whole object.
    pub(crate) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// A path that starts with this field.
    pub(crate) fn named(name: &'a str) -> Self {
        Path {
            parent: None,
            step: Step::Field(name),
        }
    }

    /// The path of a field below this one.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        self.below(Step::Field(name))
    }

    /// The path of a map entry below this one.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        self.below(Step::Key(key))
    }

    /// The path of a list item below this one.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        self.below(Step::Index(index))
    }

    fn below(&'a self, step: Step<'a>) -> Self {
        Path {
            parent: Some(self),
            step,
        }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Key(key) => {
                out.push('[');
                out.push_str(key);
                out.push(']');
            }
            Step::Index(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> Self {
        let mut text = String::new();
        path.write(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn paths_print_like_those_of_kubernetes() {
        let spec = Path::ROOT.field("spec");
        let list = spec.field("versions");
        let item = list.index(2);
        let properties = item.field("properties");
        let key = properties.key("a.b");
        let leaf = key.field("type");
        assert_eq!(leaf.to_string(), "spec.versions[2].properties[a.b].type");
        assert_eq!(Path::ROOT.to_string(), "");
        assert_eq!(Path::named("status").field("x").to_string(), "status.x");
    }
}
