//! `metadata`: merged as Kubernetes merges it whatever the schema of the kind says, and kubectl's annotation.

use super::*;

fn with_metadata(metadata: Value) -> Value {
    let mut object = with_spec(json!({"tier": "gold"}));
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    object
}

#[test]
fn finalizers_are_a_set_and_owners_are_keyed_by_uid() {
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "K", "name": "o", "uid": uid});
    let first = with_metadata(json!({"finalizers": ["a.io/a"], "ownerReferences": [owner("1")]}));
    let second = with_metadata(json!({"finalizers": ["b.io/b"], "ownerReferences": [owner("2")]}));
    let mut stored = Stored::nothing();
    stored.object = Some(stored.try_apply("a", &first, false, NOW).unwrap());
    stored.object = Some(stored.try_apply("b", &second, false, NOW).unwrap());
    let metadata = &stored.object()["metadata"];
    assert_eq!(metadata["finalizers"], json!(["a.io/a", "b.io/b"]));
    assert_eq!(metadata["ownerReferences"], json!([owner("1"), owner("2")]));
    assert_eq!(
        entries(stored.object())[0]["fieldsV1"]["f:metadata"],
        json!({"f:finalizers": {"v:\"a.io/a\"": {}}, "f:ownerReferences": {"k:{\"uid\":\"1\"}": {}}})
    );
    let object = stored
        .try_apply("a", &with_spec(json!({"tier": "gold"})), false, NOW)
        .unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["b.io/b"]));
    assert_eq!(object["metadata"]["ownerReferences"], json!([owner("2")]));
}

#[test]
fn nothing_of_metadata_is_owned_that_the_server_maintains() {
    let stored = Stored::nothing().update("u", |object| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for (name, value) in json!({
            "uid": "u", "resourceVersion": "7", "generation": 3, "creationTimestamp": NOW, "generateName": "n-",
        })
        .as_object()
        .unwrap()
        {
            metadata.insert(name.clone(), value.clone());
        }
    });
    assert_eq!(
        entries(stored.object())[0]["fieldsV1"],
        json!({"f:metadata": {"f:generateName": {}}})
    );
}

#[test]
fn unknown_metadata_is_refused_even_when_the_schema_declares_it() {
    let mut stored = Stored::nothing();
    stored.schema["properties"]["metadata"] = json!({"type": "object", "properties": {"mine": {"type": "string"}}});
    let error = stored
        .try_apply("a", &with_metadata(json!({"mine": "x"})), false, NOW)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(".metadata.mine: field not declared in schema"),
        "{error}"
    );
}

#[test]
fn an_object_of_a_kind_without_schema_is_merged_field_by_field() {
    let mut stored = Stored::nothing();
    stored.schema = Value::Null;
    let stored = stored
        .apply("a", json!({"x": {"y": 1}, "list": [1]}))
        .apply("b", json!({"x": {"z": 2}}));
    assert_eq!(stored.spec(), &json!({"x": {"y": 1, "z": 2}, "list": [1]}));
    assert_eq!(stored.owned("b"), json!({".": {}, "f:x": {".": {}, "f:z": {}}}));
}

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object as client-side `kubectl apply` leaves it.
fn client_side_applied(spec: Value) -> Stored {
    let applied = with_spec(spec.clone());
    Stored::nothing().update("kubectl-client-side-apply", |object| {
        object["metadata"]["annotations"] = json!({ANNOTATION: format!("{applied}\n")});
        object["spec"] = spec;
    })
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client_side() {
    let stored = client_side_applied(json!({"tier": "gold", "size": 1}));
    let config = with_spec(json!({"tier": "iron", "size": 1}));
    assert!(matches!(
        stored.try_apply("other", &config, false, NOW),
        Err(ApplyError::Conflict(_))
    ));
    let object = stored.try_apply("kubectl", &config, false, NOW).unwrap();
    assert_eq!(object["spec"], json!({"tier": "iron", "size": 1}));
    let annotation = object["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
    assert!(annotation.ends_with("}\n"));
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), config);
}

#[test]
fn kubectl_does_not_take_over_what_somebody_else_changed_since() {
    let stored = client_side_applied(json!({"tier": "gold", "size": 1}))
        .update("other", |object| object["spec"]["size"] = json!(2));
    let config = with_spec(json!({"tier": "iron", "size": 3}));
    let Err(ApplyError::Conflict(conflicts)) = stored.try_apply("kubectl", &config, false, NOW) else {
        panic!("no conflict");
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        (conflicts[0].manager.as_str(), conflicts[0].field.as_str()),
        ("other", ".spec.size")
    );
}
