#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn json_patch_applies_all_operations_or_none() {
    let doc = json!({"spec": {"a": 1, "list": ["x", "z"]}});
    let patch = json!([
        {"op": "test", "path": "/spec/a", "value": 1},
        {"op": "add", "path": "/spec/list/1", "value": "y"},
        {"op": "add", "path": "/spec/list/-", "value": "end"},
        {"op": "replace", "path": "/spec/a", "value": 2},
        {"op": "copy", "from": "/spec/a", "path": "/spec/b"},
        {"op": "move", "from": "/spec/b", "path": "/spec/c"},
        {"op": "remove", "path": "/spec/list/0"},
    ]);
    assert_eq!(
        json_patch(&doc, &patch).unwrap(),
        json!({"spec": {"a": 2, "c": 2, "list": ["y", "z", "end"]}})
    );
}

#[test]
fn json_patch_test_of_null_passes_where_the_field_is_absent() {
    // The first write of kube-rs' finalizer helper.
    let patch = json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]},
    ]);
    let doc = json!({"metadata": {"name": "x"}});
    assert_eq!(
        json_patch(&doc, &patch).unwrap(),
        json!({"metadata": {"name": "x", "finalizers": ["a/b"]}})
    );
    let taken = json!({"metadata": {"finalizers": ["c/d"]}});
    assert!(matches!(json_patch(&taken, &patch), Err(PatchError::Rejected(_))));
    assert!(matches!(json_patch(&json!({}), &patch), Err(PatchError::Rejected(_))));
}

#[test]
fn json_patch_says_which_operation_failed() {
    let doc = json!({"spec": {"a": 1}});
    let rejected = |patch: Value| match json_patch(&doc, &patch).unwrap_err() {
        PatchError::Rejected(message) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        rejected(json!([{"op": "test", "path": "/spec/a", "value": 1}, {"op": "test", "path": "/spec/a", "value": 2}])),
        "JSON patch operation 1 (test) at \"/spec/a\": expected 2, found 1"
    );
    assert_eq!(
        rejected(json!([{"op": "test", "path": "/spec/b", "value": 2}])),
        "JSON patch operation 0 (test) at \"/spec/b\": expected 2, found nothing"
    );
    assert!(rejected(json!([{"op": "remove", "path": "/spec/b"}])).contains("(remove) at \"/spec/b\""));
    assert!(rejected(json!([{"op": "replace", "path": "/spec/b", "value": 1}])).contains("(replace)"));
    assert!(rejected(json!([{"op": "add", "path": "/status/b", "value": 1}])).contains("(add)"));
    for malformed in [
        json!({}),
        json!([{"op": "bend", "path": "/a"}]),
        json!([{"op": "add", "path": "/a"}]),
        json!(["x"]),
    ] {
        assert!(
            matches!(json_patch(&doc, &malformed), Err(PatchError::Malformed(_))),
            "{malformed}"
        );
    }
    let many = vec![json!({"op": "test", "path": "/spec/a", "value": 1}); 10_001];
    assert!(matches!(json_patch(&doc, &json!(many)), Err(PatchError::TooLarge(_))));
}

#[test]
fn json_patch_paths_are_unescaped() {
    let doc = json!({"metadata": {"annotations": {"a/b": "1", "m~n": "2"}}});
    let patch = json!([
        {"op": "test", "path": "/metadata/annotations/a~1b", "value": "1"},
        {"op": "remove", "path": "/metadata/annotations/m~0n"},
    ]);
    assert_eq!(
        json_patch(&doc, &patch).unwrap(),
        json!({"metadata": {"annotations": {"a/b": "1"}}})
    );
}

#[test]
fn merge_patch_follows_the_examples_of_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (doc, patch, expected) in cases {
        assert_eq!(
            merge_patch(&doc, &patch).unwrap(),
            expected,
            "{doc} patched with {patch}"
        );
    }
    // The other examples replace the document; an object of the API cannot become something else.
    for whole in [json!(["c"]), json!(null), json!("bar")] {
        assert!(matches!(
            merge_patch(&json!({"a": "foo"}), &whole),
            Err(PatchError::Malformed(_))
        ));
    }
}

#[test]
fn strategic_merge_of_maps_and_scalars() {
    let doc = json!({"kind": "ConfigMap", "data": {"a": "1", "b": "2"}, "metadata": {"labels": {"x": "y"}}});
    let patch =
        json!({"data": {"a": null, "c": "3"}, "metadata": {"labels": null, "annotations": {"n": "1", "m": null}}});
    assert_eq!(
        strategic_merge_patch(&doc, &patch, "ConfigMap").unwrap(),
        json!({"kind": "ConfigMap", "data": {"b": "2", "c": "3"}, "metadata": {"annotations": {"n": "1"}}})
    );
}

#[test]
fn strategic_directives_for_maps() {
    let doc = json!({"data": {"a": "1", "b": "2"}});
    let patched = |data: Value| strategic_merge_patch(&doc, &json!({"data": data}), "Secret");
    assert_eq!(
        patched(json!({"$patch": "replace", "c": "3"})).unwrap(),
        json!({"data": {"c": "3"}})
    );
    assert_eq!(patched(json!({"$patch": "delete"})).unwrap(), json!({"data": {}}));
    assert_eq!(
        patched(json!({"$patch": "merge", "c": "3"})).unwrap(),
        json!({"data": {"a": "1", "b": "2", "c": "3"}})
    );
    assert!(matches!(
        patched(json!({"$patch": "bend"})),
        Err(PatchError::Rejected(_))
    ));
    assert_eq!(
        patched(json!({"$retainKeys": ["b", "c"], "c": "3"})).unwrap(),
        json!({"data": {"b": "2", "c": "3"}})
    );
    assert!(matches!(
        patched(json!({"$retainKeys": ["b"], "c": "3"})),
        Err(PatchError::Malformed(_))
    ));
    assert!(matches!(
        patched(json!({"$retainKeys": "b"})),
        Err(PatchError::Malformed(_))
    ));
    let absent = json!({"metadata": {"labels": {"$patch": "delete"}, "annotations": {"a": {"$patch": "replace"}}}});
    assert_eq!(
        strategic_merge_patch(&doc, &absent, "Secret").unwrap(),
        json!({"data": {"a": "1", "b": "2"}, "metadata": {"annotations": {}}})
    );
}

#[test]
fn strategic_sets_are_added_to_and_deleted_from() {
    let doc = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patched = |patch: Value| strategic_merge_patch(&doc, &json!({"metadata": patch}), "Namespace").unwrap();
    let finalizers = |patch: Value| patched(patch)["metadata"]["finalizers"].clone();
    assert_eq!(
        finalizers(json!({"finalizers": ["d", "a"]})),
        json!(["d", "a", "b", "c"])
    );
    assert_eq!(
        finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["b", "z"]})),
        json!(["a", "c"])
    );
    assert_eq!(
        finalizers(json!({
            "finalizers": ["d"],
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["c", "d", "b"],
        })),
        json!(["c", "d", "b"])
    );
    let unordered = json!({"metadata": {"finalizers": ["d"], "$setElementOrder/finalizers": ["a"]}});
    assert!(matches!(
        strategic_merge_patch(&doc, &unordered, "Namespace"),
        Err(PatchError::Malformed(_))
    ));
}

fn references(uids: &[&str]) -> Value {
    uids.iter()
        .map(|uid| json!({"uid": uid, "name": format!("name-{uid}")}))
        .collect()
}

#[test]
fn strategic_keyed_lists_are_merged_by_key() {
    let doc = json!({"metadata": {"ownerReferences": references(&["1", "2"])}});
    let patched = |list: Value| {
        let patch = json!({"metadata": {"ownerReferences": list}});
        strategic_merge_patch(&doc, &patch, "Lease").map(|doc| doc["metadata"]["ownerReferences"].clone())
    };
    assert_eq!(
        patched(json!([{"uid": "2", "controller": true}, {"uid": "3"}])).unwrap(),
        json!([{"uid": "1", "name": "name-1"}, {"uid": "2", "name": "name-2", "controller": true}, {"uid": "3"}])
    );
    assert_eq!(
        patched(json!([{"uid": "1", "$patch": "delete"}])).unwrap(),
        references(&["2"])
    );
    assert_eq!(
        patched(json!([{"$patch": "replace"}, {"uid": "9"}])).unwrap(),
        json!([{"uid": "9"}])
    );
    assert!(matches!(
        patched(json!([{"name": "no key"}])),
        Err(PatchError::Rejected(_))
    ));
    assert!(matches!(
        patched(json!([{"uid": "1", "$patch": "merge"}])),
        Err(PatchError::Rejected(_))
    ));
    assert!(matches!(patched(json!(["1"])), Err(PatchError::Rejected(_))));
}

#[test]
fn strategic_order_of_keyed_lists() {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let doc = json!({"status": {"conditions": [condition("A", "1"), condition("B", "1"), condition("C", "1")]}});
    let patch = json!({"status": {
        "conditions": [condition("C", "2"), condition("A", "2")],
        "$setElementOrder/conditions": [{"type": "C"}, {"type": "A"}],
    }});
    assert_eq!(
        strategic_merge_patch(&doc, &patch, "Namespace").unwrap()["status"]["conditions"],
        json!([condition("B", "1"), condition("C", "2"), condition("A", "2")])
    );
}

#[test]
fn strategic_lists_without_rule_are_replaced_and_other_kinds_refused() {
    let doc = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"conditions": [{"type": "A"}]}});
    let patch = json!({"spec": {"finalizers": []}, "status": {"conditions": [{"type": "B"}]}});
    assert_eq!(
        strategic_merge_patch(&doc, &patch, "CustomResourceDefinition").unwrap(),
        patch
    );
    assert!(matches!(
        strategic_merge_patch(&doc, &patch, "Graph"),
        Err(PatchError::Unsupported(_))
    ));
    assert!(matches!(
        strategic_merge_patch(&doc, &json!([]), "Secret"),
        Err(PatchError::Malformed(_))
    ));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0i64..4).prop_map(Value::from),
        "[a-c]".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", any_json(), 0..4).prop_map(|map| map.into_iter().collect())
}

/// RFC 7386, section 2, as its pseudo-code says it.
fn rfc_merge(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut out = match target {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        match out.remove(name) {
            _ if value.is_null() => {}
            old => {
                out.insert(name.clone(), rfc_merge(old.unwrap_or(Value::Null), value));
            }
        }
    }
    Value::Object(out)
}

proptest! {
    #[test]
    fn merge_patch_is_the_algorithm_of_the_rfc(doc in any_object(), patch in any_object()) {
        let merged = merge_patch(&doc, &patch).unwrap();
        prop_assert_eq!(&merged, &rfc_merge(doc, &patch));
        prop_assert_eq!(&merge_patch(&merged, &patch).unwrap(), &merged, "a second time changes nothing");
    }

    #[test]
    fn a_strategic_patch_without_lists_is_a_merge_patch(doc in any_object(), patch in any_object()) {
        fn has_lists(value: &Value) -> bool {
            match value {
                Value::Array(_) => true,
                Value::Object(map) => map.values().any(has_lists),
                _ => false,
            }
        }
        prop_assume!(!has_lists(&patch));
        prop_assert_eq!(strategic_merge_patch(&doc, &patch, "Secret").unwrap(), merge_patch(&doc, &patch).unwrap());
    }

    #[test]
    fn json_patch_diff_leads_from_one_document_to_the_other(from in any_object(), to in any_object()) {
        let patch = serde_json::to_value(::json_patch::diff(&from, &to)).unwrap();
        prop_assert_eq!(json_patch(&from, &patch).unwrap(), to);
    }
}
