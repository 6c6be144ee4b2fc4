//! Sets of fields: which parts of an object a manager owns, as a tree whose `fieldsV1` form Kubernetes stores.

use super::path::PathElement;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A place in the tree: whether it is in the set itself, and what below it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The path that ends here belongs to the set.
    pub(crate) member: bool,
    /// What belongs to the set below here.
    pub(crate) children: FieldSet,
}

impl Node {
    /// A member without anything below it.
    pub(crate) fn leaf() -> Self {
        Self {
            member: true,
            children: FieldSet::default(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

/// A set of paths. Owning a map does not mean owning what is in it, and the other way round.
///
/// The tree never holds empty places, so two sets with the same paths are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    nodes: BTreeMap<PathElement, Node>,
}

impl FieldSet {
    /// A set of paths, each a list of field names.
    pub(crate) fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path.iter().map(|name| PathElement::field(name)));
        }
        set
    }

    /// Adds one path. The empty path, the whole object, is never owned and is ignored.
    pub(crate) fn insert(&mut self, path: impl IntoIterator<Item = PathElement>) {
        let mut path = path.into_iter().peekable();
        let mut set = self;
        while let Some(element) = path.next() {
            let node = set.nodes.entry(element).or_default();
            if path.peek().is_none() {
                node.member = true;
                return;
            }
            set = &mut node.children;
        }
    }

    /// Puts a subtree at one step, joined with what is there; empty subtrees leave no trace.
    pub(crate) fn graft(&mut self, element: PathElement, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.nodes.get_mut(&element) {
            None => {
                self.nodes.insert(element, node);
            }
            Some(present) => {
                present.member |= node.member;
                present.children = present.children.union(&node.children);
            }
        }
    }

    /// Whether the set has no path at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether this path of one step is in the set.
    pub(crate) fn has(&self, element: &PathElement) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// Whether a path is in the set.
    pub(crate) fn has_path(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has_path(rest)),
        }
    }

    /// What of the set lies below a step, if anything does.
    pub(crate) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.nodes
            .get(element)
            .map(|node| &node.children)
            .filter(|children| !children.is_empty())
    }

    /// The first level of the tree.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&PathElement, &Node)> {
        self.nodes.iter()
    }

    /// What is in one set or the other.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (element, node) in &other.nodes {
            out.graft(element.clone(), node.clone());
        }
        out
    }

    /// What is in both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| {
            let theirs = theirs?;
            Some(Node {
                member: mine.member && theirs.member,
                children: mine.children.intersection(&theirs.children),
            })
        })
    }

    /// What is in this set and not in the other. A path stays when only its parent is in the other set.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| match theirs {
            None => Some(mine.clone()),
            Some(theirs) => Some(Node {
                member: mine.member && !theirs.member,
                children: mine.children.difference(&theirs.children),
            }),
        })
    }

    /// What is in this set and neither itself nor below a path of the other set.
    pub(crate) fn recursive_difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| match theirs {
            None => Some(mine.clone()),
            Some(theirs) if theirs.member => None,
            Some(theirs) => Some(Node {
                member: mine.member,
                children: mine.children.recursive_difference(&theirs.children),
            }),
        })
    }

    fn combine(&self, other: &Self, rule: impl Fn(&Node, Option<&Node>) -> Option<Node>) -> Self {
        let nodes = self
            .nodes
            .iter()
            .filter_map(|(element, mine)| {
                let node = rule(mine, other.nodes.get(element))?;
                (!node.is_empty()).then(|| (element.clone(), node))
            })
            .collect();
        Self { nodes }
    }

    /// Every path of the set, parents before children.
    pub(crate) fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut out = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut out);
        out
    }

    fn collect_paths(&self, prefix: &mut Vec<PathElement>, out: &mut Vec<Vec<PathElement>>) {
        // All members of a level come before anything below them: the order in which Kubernetes lists conflicts.
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            out.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.children.collect_paths(prefix, out);
            prefix.pop();
        }
    }

    /// The set as `fieldsV1`.
    pub(crate) fn encode(&self) -> Value {
        Value::Object(self.encode_map())
    }

    fn encode_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (element, node) in &self.nodes {
            let mut below = Map::new();
            if node.member && !node.children.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            below.extend(node.children.encode_map());
            map.insert(element.encode(), Value::Object(below));
        }
        map
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// A message that names the part that is not `fieldsV1`.
    pub(crate) fn decode(fields: &Value) -> Result<Self, String> {
        match fields {
            Value::Null => Ok(Self::default()),
            fields => decode_node(fields).map(|node| node.children),
        }
    }
}

fn decode_node(fields: &Value) -> Result<Node, String> {
    let Value::Object(map) = fields else {
        return Err(format!("expected an object in fieldsV1, got {fields}"));
    };
    let mut node = Node::default();
    for (key, below) in map {
        if key == "." {
            node.member = true;
        } else if let Some(element) = PathElement::decode(key)? {
            node.children.graft(element, decode_node(below)?);
        }
    }
    // `f:name: {}` is how a member without anything below it is written.
    node.member |= node.children.is_empty();
    Ok(node)
}

#[cfg(test)]
#[path = "field_set_tests.rs"]
mod tests;
