//! Writes other than apply, and how they and appliers take fields from each other.

use super::*;

#[test]
fn creating_owns_everything_but_identity() {
    let stored = Stored::nothing().update("kubectl-create", |object| {
        object["metadata"]["labels"] = json!({"k": "v"});
        object["metadata"]["uid"] = json!("u");
        object["spec"] = json!({"tier": "gold", "zones": ["x"]});
        object["status"] = json!({"phase": "New"});
    });
    assert_eq!(
        entries(stored.object()),
        [json!({
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "example.com/v1",
            "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:k": {}}},
                "f:spec": {".": {}, "f:tier": {}, "f:zones": {".": {}, "v:\"x\"": {}}},
            },
        })]
    );
}

#[test]
fn an_update_owns_what_it_changed_and_takes_it_from_appliers() {
    let stored = Stored::applied("a", json!({"tier": "gold", "size": 1}))
        .update("u", |object| object["spec"]["tier"] = json!("iron"));
    assert_eq!(stored.owned("a"), json!({"f:size": {}}));
    assert_eq!(stored.owned("u"), json!({"f:tier": {}}));
    assert_eq!(
        stored.conflicts("a", json!({"tier": "gold", "size": 1})),
        [("u".to_owned(), ".spec.tier".to_owned())]
    );
    assert!(stored.conflicts("a", json!({"tier": "iron", "size": 1})).is_empty());
}

#[test]
fn an_update_that_changes_nothing_changes_no_entry() {
    let stored = Stored::applied("a", json!({"tier": "gold"}));
    let mut new = stored.object().clone();
    update_managed_fields(stored.object.as_ref(), &mut new, "u", &stored.schema, None, LATER);
    assert_eq!(new, *stored.object());
    // A client that drops the entries does not lose them.
    let mut without = stored.object().clone();
    without["metadata"].as_object_mut().unwrap().remove("managedFields");
    update_managed_fields(stored.object.as_ref(), &mut without, "u", &stored.schema, None, LATER);
    assert_eq!(without, *stored.object());
}

#[test]
fn what_an_update_removes_nobody_owns() {
    let stored = Stored::applied("a", json!({"tier": "gold", "size": 1, "zones": ["x", "y"]})).update("u", |object| {
        object["spec"].as_object_mut().unwrap().remove("tier");
        object["spec"]["zones"] = json!(["y"]);
    });
    assert_eq!(stored.owned("a"), json!({"f:size": {}, "f:zones": {"v:\"y\"": {}}}));
    assert_eq!(stored.managers(), ["a"]);
}

#[test]
fn an_applier_does_not_remove_what_an_updater_added() {
    let stored = Stored::applied("a", json!({"tier": "gold", "labels": {"k": "v"}}))
        .update("u", |object| object["spec"]["labels"]["l"] = json!("w"))
        .apply("a", json!({"tier": "gold"}));
    assert_eq!(stored.spec(), &json!({"tier": "gold", "labels": {"l": "w"}}));
}

#[test]
fn fields_set_before_tracking_belong_to_before_first_apply() {
    let untracked = with_spec(json!({"tier": "gold", "size": 1}));
    let stored = Stored {
        object: Some(untracked),
        schema: schema(),
    };
    let expected = [("before-first-apply".to_owned(), ".spec.tier".to_owned())];
    assert_eq!(stored.conflicts("a", json!({"tier": "iron"})), expected);
    let stored = stored.apply("a", json!({"tier": "gold", "zones": ["x"]}));
    assert_eq!(stored.managers(), ["a", "before-first-apply"]);
    assert_eq!(
        stored.owned("before-first-apply"),
        json!({".": {}, "f:size": {}, "f:tier": {}})
    );
}

#[test]
fn untracked_objects_stay_untracked_by_updates() {
    let untracked = Stored {
        object: Some(with_spec(json!({"tier": "gold"}))),
        schema: schema(),
    };
    let stored = untracked.update("u", |object| object["spec"]["size"] = json!(1));
    assert!(entries(stored.object()).is_empty());
}

#[test]
fn entries_can_be_reset() {
    for reset in [json!([]), json!([{}])] {
        let stored = Stored::applied("a", json!({"tier": "gold"}))
            .update("u", |object| object["metadata"]["managedFields"] = reset.clone());
        assert_eq!(stored.object(), &with_spec(json!({"tier": "gold"})));
    }
}

#[test]
fn eleven_updaters_leave_ten_entries() {
    let stored = (0..11).fold(Stored::nothing(), |stored, n| {
        stored.update(&format!("u{n:02}"), |object| {
            object["metadata"]["labels"][format!("l{n}")] = json!("v")
        })
    });
    assert_eq!(stored.managers().len(), 10);
    assert_eq!(stored.managers()[0], "ancient-changes");
}

#[test]
fn the_status_endpoint_owns_status_and_nothing_else() {
    let stored = Stored::applied("a", json!({"tier": "gold"})).apply_status(
        "controller",
        json!({"phase": "Ready", "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    let entry = &entries(stored.object())[1];
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {
            "f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}},
            "f:phase": {},
        }})
    );

    let mut new = stored.object().clone();
    new["status"]["phase"] = json!("Failed");
    new["spec"]["tier"] = json!("iron");
    new["metadata"]["labels"] = json!({"k": "v"});
    update_managed_fields(
        stored.object.as_ref(),
        &mut new,
        "u",
        &stored.schema,
        Some("status"),
        NOW,
    );
    let entry = entries(&new).into_iter().find(|entry| entry["manager"] == "u").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
    assert_eq!(
        entries(&new)[0]["fieldsV1"],
        json!({"f:spec": {"f:tier": {}}}),
        "the spec is not written here"
    );
}

#[test]
fn the_main_endpoint_neither_owns_status_nor_conflicts_over_it() {
    let stored = Stored::applied("a", json!({"tier": "gold"})).apply_status("controller", json!({"phase": "Ready"}));
    let mut config = with_spec(json!({"tier": "gold", "size": 1}));
    config["status"] = json!({"phase": "Mine"});
    let object = stored.try_apply("b", &config, false, NOW).unwrap();
    let entry = entries(&object)
        .into_iter()
        .find(|entry| entry["manager"] == "b")
        .unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:size": {}, "f:tier": {}}}));

    // Without a declared status there is nothing that resets it.
    let mut plain = Stored::nothing();
    plain.schema["properties"].as_object_mut().unwrap().remove("status");
    plain.schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let object = plain.try_apply("b", &config, false, NOW).unwrap();
    assert!(entries(&object)[0]["fieldsV1"].get("f:status").is_some());
}

#[test]
fn the_same_name_is_another_manager_through_another_subresource_or_operation() {
    let stored = Stored::applied("m", json!({"tier": "gold"}))
        .apply_status("m", json!({"phase": "Ready"}))
        .update("m", |object| object["spec"]["size"] = json!(1));
    let kinds: Vec<_> = entries(stored.object())
        .iter()
        .map(|entry| (entry["operation"].clone(), entry["subresource"].clone()))
        .collect();
    assert_eq!(
        kinds,
        [
            (json!("Apply"), Value::Null),
            (json!("Apply"), json!("status")),
            (json!("Update"), Value::Null)
        ]
    );
}

#[test]
fn when_a_list_becomes_atomic_its_owners_own_all_of_it() {
    let mut stored = Stored::applied("a", json!({"zones": ["x"], "tier": "gold"}));
    stored.schema["properties"]["spec"]["properties"]["zones"]["x-kubernetes-list-type"] = json!("atomic");
    let stored = stored.update("u", |object| object["spec"]["size"] = json!(1));
    assert_eq!(stored.owned("a"), json!({"f:tier": {}, "f:zones": {}}));
    assert_eq!(
        stored.conflicts("b", json!({"zones": ["y"]})),
        [("a".to_owned(), ".spec.zones".to_owned())]
    );
}

#[test]
fn objects_stored_under_an_older_schema_can_still_be_changed() {
    let mut stored = Stored::applied("a", json!({"tier": "gold", "size": 1, "zones": ["x"]}));
    let properties = stored.schema["properties"]["spec"]["properties"]
        .as_object_mut()
        .unwrap();
    properties.remove("size");
    properties["zones"] = json!({"type": "string"});
    let stored = stored.apply("a", json!({"tier": "iron"}));
    assert_eq!(stored.spec(), &json!({"tier": "iron"}));
}
