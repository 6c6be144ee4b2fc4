#![allow(clippy::unwrap_used)]
use super::super::path::KeyValue;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn set(fields: &Value) -> FieldSet {
    FieldSet::decode(fields).unwrap()
}

#[test]
fn members_with_and_without_children_are_told_apart() {
    let encoded = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"x\"": {}}},
        "f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}},
    });
    let set = set(&encoded);
    assert_eq!(set.encode(), encoded);
    let printed: Vec<String> = set
        .paths()
        .iter()
        .map(|path| path.iter().map(ToString::to_string).collect::<String>())
        .collect();
    assert_eq!(
        printed,
        [
            ".metadata.finalizers",
            ".metadata.labels",
            ".metadata.finalizers[=\"x\"]",
            ".metadata.labels.app",
            ".status.conditions[type=\"Ready\"]",
            ".status.conditions[type=\"Ready\"].status",
            ".status.conditions[type=\"Ready\"].type",
        ]
    );
}

#[test]
fn a_parent_and_its_child_are_different_members() {
    let parent = set(&json!({"f:a": {}}));
    let child = set(&json!({"f:a": {"f:b": {}}}));
    let both = set(&json!({"f:a": {".": {}, "f:b": {}}}));
    assert_eq!(parent.union(&child), both);
    assert_eq!(both.difference(&parent), child);
    assert_eq!(both.difference(&child), parent);
    assert_eq!(child.difference(&parent), child);
    assert!(child.intersection(&parent).is_empty());
    assert!(both.recursive_difference(&parent).is_empty());
    assert_eq!(both.recursive_difference(&child), parent);
}

#[test]
fn unknown_steps_vanish_and_broken_ones_are_errors() {
    assert_eq!(set(&json!({"f:a": {"q:new": {}}})), set(&json!({"f:a": {}})));
    assert!(set(&json!({})).is_empty());
    assert!(set(&Value::Null).is_empty());
    for broken in [
        json!([]),
        json!("f:a"),
        json!({"nonsense": {}}),
        json!({"f:a": 1}),
        json!({"v:{": {}}),
    ] {
        assert!(FieldSet::decode(&broken).is_err(), "{broken} was accepted");
    }
}

#[test]
fn the_whole_object_is_never_a_member() {
    let mut set = FieldSet::default();
    set.insert([]);
    assert!(set.is_empty());
    assert!(!set.has_path(&[]));
}

fn element() -> impl Strategy<Value = PathElement> {
    let scalar = prop_oneof![
        "[a-c<\"]{0,2}".prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ];
    let value = scalar.prop_map(|value| KeyValue::new(&value));
    prop_oneof![
        4 => "[a-c.:/]{1,2}".prop_map(|name| PathElement::field(&name)),
        1 => proptest::collection::btree_map("[a-c]", value.clone(), 1..3)
            .prop_map(|keys| PathElement::key(keys.into_iter().collect())),
        1 => value.prop_map(PathElement::Value),
        1 => (0i64..4).prop_map(PathElement::Index),
    ]
}

pub(crate) fn any_set() -> impl Strategy<Value = FieldSet> {
    let path = proptest::collection::vec(element(), 1..4);
    proptest::collection::vec(path, 0..12).prop_map(|paths| {
        let mut set = FieldSet::default();
        for path in paths {
            set.insert(path);
        }
        set
    })
}

proptest! {
    #[test]
    fn encoding_is_reversible(set in any_set()) {
        prop_assert_eq!(FieldSet::decode(&set.encode()).unwrap(), set);
    }

    #[test]
    fn operations_agree_with_sets_of_paths(left in any_set(), right in any_set()) {
        use std::collections::BTreeSet;
        let paths = |set: &FieldSet| set.paths().into_iter().collect::<BTreeSet<_>>();
        let (l, r) = (paths(&left), paths(&right));
        prop_assert_eq!(paths(&left.union(&right)), l.union(&r).cloned().collect());
        prop_assert_eq!(paths(&left.intersection(&right)), l.intersection(&r).cloned().collect());
        prop_assert_eq!(paths(&left.difference(&right)), l.difference(&r).cloned().collect());
        let covered = |path: &Vec<PathElement>| (1..=path.len()).any(|n| r.contains(&path[..n]));
        prop_assert_eq!(
            paths(&left.recursive_difference(&right)),
            l.iter().filter(|path| !covered(path)).cloned().collect()
        );
        for path in &l {
            prop_assert!(left.has_path(path));
            prop_assert_eq!(right.has_path(path), r.contains(path));
        }
    }
}
