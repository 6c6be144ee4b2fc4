//! Ids of operations: all that is needed to look at an operation again, so that none is stored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::{Resource, ResourceExt};
use std::fmt;
use std::str::FromStr;

/// What an operation does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Update,
    Delete,
}

/// Kinds that operations are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Graph,
    Subgraph,
    Backup,
}

impl Target {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Graph => "Graph",
            Self::Subgraph => "Subgraph",
            Self::Backup => "Backup",
        }
    }
}

impl Verb {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// An operation: one verb on one object, at one generation of its spec.
///
/// The text form is opaque to clients. Whoever makes one up learns nothing: the object is looked up in the caller's own
/// tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationId {
    pub(crate) verb: Verb,
    pub(crate) target: Target,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: i64,
}

impl OperationId {
    /// The operation that brought an object to its present generation, or that deletes it.
    pub(crate) fn of<K: Resource>(verb: Verb, target: Target, object: &K) -> Self {
        Self {
            verb,
            target,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation.unwrap_or(1),
        }
    }

    /// Verb and kind in one word, such as `createGraph`.
    pub(crate) fn action(&self) -> String {
        format!("{}{}", self.verb.word(), self.target.kind())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            target,
            namespace,
            name,
            uid,
            generation,
        } = self;
        let text = format!(
            "1\n{}\n{}\n{namespace}\n{name}\n{uid}\n{generation}",
            verb.word(),
            target.kind()
        );
        write!(f, "op_{}", URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for OperationId {
    type Err = ();

    fn from_str(id: &str) -> Result<Self, ()> {
        let bytes = URL_SAFE_NO_PAD
            .decode(id.strip_prefix("op_").ok_or(())?)
            .map_err(|_| ())?;
        let text = String::from_utf8(bytes).map_err(|_| ())?;
        let parts: Vec<&str> = text.split('\n').collect();
        let ["1", verb, target, namespace, name, uid, generation] = parts[..] else {
            return Err(());
        };
        let verb = [Verb::Create, Verb::Update, Verb::Delete]
            .into_iter()
            .find(|v| v.word() == verb)
            .ok_or(())?;
        let targets = [Target::Graph, Target::Subgraph, Target::Backup];
        let target = targets.into_iter().find(|t| t.kind() == target).ok_or(())?;
        if !crate::names::is_namespace(namespace) || !crate::names::is_object_name(name) {
            return Err(());
        }
        let generation = generation.parse().map_err(|_| ())?;
        Ok(Self {
            verb,
            target,
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            generation,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_round_trip(
            verb in prop::sample::select(vec![Verb::Create, Verb::Update, Verb::Delete]),
            target in prop::sample::select(vec![Target::Graph, Target::Subgraph, Target::Backup]),
            namespace in "[a-z][a-z0-9]{0,10}", name in "[a-z][a-z0-9.-]{0,20}[a-z0-9]", uid in "[a-f0-9-]{36}", generation in 0i64..1000,
        ) {
            let id = OperationId { verb, target, namespace, name, uid, generation };
            let text = id.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            prop_assert_eq!(text.parse(), Ok(id));
        }

        #[test]
        fn other_texts_are_refused(text in "\\PC{0,60}") {
            prop_assert!(text.parse::<OperationId>().is_err());
        }
    }
}
