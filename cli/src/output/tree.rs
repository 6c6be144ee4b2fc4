//! Trees, as `tree` draws them.

/// A line and what hangs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The line.
    pub label: String,
    /// What hangs below it, in order.
    pub children: Vec<Tree>,
}

impl Tree {
    /// A line with nothing below it.
    pub fn leaf(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            children: Vec::new(),
        }
    }

    /// A line with these below it.
    pub fn node(label: impl Into<String>, children: Vec<Self>) -> Self {
        Self {
            label: label.into(),
            children,
        }
    }

    /// The drawing, with a newline at its end.
    pub fn draw(&self) -> String {
        let mut lines = vec![self.label.clone()];
        self.draw_children("", &mut lines);
        lines.push(String::new());
        lines.join("\n")
    }

    fn draw_children(&self, indent: &str, lines: &mut Vec<String>) {
        for (index, child) in self.children.iter().enumerate() {
            let last = index + 1 == self.children.len();
            lines.push(format!("{indent}{}{}", if last { "└─ " } else { "├─ " }, child.label));
            child.draw_children(&format!("{indent}{}", if last { "   " } else { "│  " }), lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_end_where_their_last_child_is() {
        let tree = Tree::node(
            "root",
            vec![
                Tree::node("a", vec![Tree::leaf("a1"), Tree::node("a2", vec![Tree::leaf("a21")])]),
                Tree::node("b", vec![Tree::leaf("b1")]),
            ],
        );
        let expected = "\
root
├─ a
│  ├─ a1
│  └─ a2
│     └─ a21
└─ b
   └─ b1
";
        assert_eq!(tree.draw(), expected);
    }
}
