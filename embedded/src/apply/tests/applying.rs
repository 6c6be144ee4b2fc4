//! Appliers among themselves: merging, removing, conflicts, shared and transferred ownership.

use super::*;

#[test]
fn the_first_apply_creates_the_object_and_owns_what_it_sent() {
    let stored = Stored::applied("a", json!({"tier": "gold", "zones": ["x", "y"], "labels": {"k": "v"}}));
    assert_eq!(
        stored.object(),
        &json!({
            "apiVersion": "example.com/v1",
            "kind": "Thing",
            "metadata": {"name": "n", "namespace": "d", "managedFields": [{
                "manager": "a",
                "operation": "Apply",
                "apiVersion": "example.com/v1",
                "time": NOW,
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {
                    "f:labels": {"f:k": {}},
                    "f:tier": {},
                    "f:zones": {"v:\"x\"": {}, "v:\"y\"": {}},
                }},
            }]},
            "spec": {"tier": "gold", "zones": ["x", "y"], "labels": {"k": "v"}},
        })
    );
}

#[test]
fn the_same_apply_again_changes_nothing_not_even_the_time() {
    let config =
        with_spec(json!({"tier": "gold", "ports": [{"port": 80, "name": "http"}], "free": {"a": [1, {"b": 2}]}}));
    let stored = Stored::applied("a", config["spec"].clone());
    assert_eq!(stored.try_apply("a", &config, false, LATER).unwrap(), *stored.object());
}

#[test]
fn a_changed_apply_has_a_new_time() {
    let stored = Stored::applied("a", json!({"tier": "gold"}));
    let object = stored
        .try_apply("a", &with_spec(json!({"tier": "iron"})), false, LATER)
        .unwrap();
    assert_eq!(entries(&object)[0]["time"], LATER);
}

#[test]
fn what_is_no_longer_applied_goes_away() {
    let stored = Stored::applied(
        "a",
        json!({"tier": "gold", "size": 1, "zones": ["x", "y"], "labels": {"k": "v", "l": "w"}, "ports": [{"port": 80}, {"port": 81}]}),
    )
    .apply("a", json!({"tier": "gold", "zones": ["y"], "labels": {"l": "w"}, "ports": [{"port": 81}]}));
    assert_eq!(
        stored.spec(),
        &json!({"tier": "gold", "zones": ["y"], "labels": {"l": "w"}, "ports": [{"port": 81}]})
    );
}

#[test]
fn containers_go_when_their_last_field_goes() {
    let stored = Stored::applied(
        "a",
        json!({"tier": "gold", "nested": {"inner": {"a": "1"}}, "labels": {"k": "v"}}),
    )
    .apply("a", json!({"tier": "gold"}));
    assert_eq!(stored.spec(), &json!({"tier": "gold"}));
}

#[test]
fn a_field_with_another_value_is_a_conflict_and_with_the_same_value_is_shared() {
    let stored = Stored::applied("a", json!({"tier": "gold", "size": 1}));
    assert_eq!(
        stored.conflicts("b", json!({"tier": "iron"})),
        [("a".to_owned(), ".spec.tier".to_owned())]
    );
    let stored = stored.apply("b", json!({"tier": "gold"}));
    assert_eq!(stored.owned("a"), json!({"f:tier": {}, "f:size": {}}));
    assert_eq!(stored.owned("b"), json!({"f:tier": {}}));
}

#[test]
fn one_owner_may_leave_a_shared_field_and_it_stays_for_the_other() {
    let stored = Stored::applied("a", json!({"tier": "gold", "zones": ["x", "y"]}))
        .apply("b", json!({"tier": "gold", "zones": ["y", "z"]}))
        .apply("a", json!({"size": 1}));
    assert_eq!(stored.spec(), &json!({"tier": "gold", "size": 1, "zones": ["y", "z"]}));
    assert_eq!(
        stored.conflicts("a", json!({"tier": "iron"})),
        [("b".to_owned(), ".spec.tier".to_owned())]
    );
}

#[test]
fn force_transfers_ownership() {
    let stored = Stored::applied("a", json!({"tier": "gold", "size": 1})).force("b", json!({"tier": "iron"}));
    assert_eq!(stored.spec(), &json!({"tier": "iron", "size": 1}));
    assert_eq!(stored.owned("a"), json!({"f:size": {}}));
    assert_eq!(stored.owned("b"), json!({"f:tier": {}}));
    // The first owner drops the field without effect, since it is no longer its own.
    assert_eq!(
        stored.apply("a", json!({"size": 1})).spec(),
        &json!({"tier": "iron", "size": 1})
    );
}

#[test]
fn a_manager_that_loses_everything_is_dropped() {
    let stored = Stored::applied("a", json!({"tier": "gold"})).force("b", json!({"tier": "iron"}));
    assert_eq!(stored.managers(), ["b"]);
}

#[test]
fn conflicts_read_as_in_kubernetes() {
    let stored = Stored::applied(
        "a",
        json!({"tier": "gold", "ports": [{"port": 80, "name": "http"}], "selector": {"a": "1"}}),
    )
    .update("kubectl-edit", |object| object["spec"]["size"] = json!(1));
    let error = stored
        .try_apply(
            "b",
            &with_spec(
                json!({"tier": "iron", "size": 2, "ports": [{"port": 80, "name": "web"}], "selector": {"b": "1"}}),
            ),
            false,
            NOW,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 4 conflicts: conflicts with \"a\":\n\
         - .spec.selector\n\
         - .spec.tier\n\
         - .spec.ports[port=80,protocol=\"TCP\"].name\n\
         conflicts with \"kubectl-edit\" using example.com/v1:\n\
         - .spec.size"
    );
    let one = stored
        .try_apply("b", &with_spec(json!({"size": 2})), false, NOW)
        .unwrap_err();
    assert_eq!(
        one.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using example.com/v1: .spec.size"
    );
    let ApplyError::Conflict(conflicts) = one else {
        panic!("not a conflict")
    };
    assert_eq!(conflicts[0].operation, "Update");
    assert_eq!(conflicts[0].subresource, None);
    assert_eq!(
        conflicts[0].message(),
        "conflict with \"kubectl-edit\" using example.com/v1"
    );
}

#[test]
fn atomic_containers_have_one_owner_and_one_value() {
    let stored = Stored::applied("a", json!({"selector": {"a": "1", "b": "2"}, "args": ["x"]}));
    assert_eq!(stored.owned("a"), json!({"f:selector": {}, "f:args": {}}));
    assert_eq!(
        stored.conflicts("b", json!({"selector": {"a": "2"}, "args": ["y"]})),
        [
            ("a".to_owned(), ".spec.args".to_owned()),
            ("a".to_owned(), ".spec.selector".to_owned())
        ]
    );
    let stored = stored.apply("a", json!({"selector": {"b": "3"}, "args": ["y", "x"]}));
    assert_eq!(stored.spec(), &json!({"selector": {"b": "3"}, "args": ["y", "x"]}));
}

#[test]
fn two_appliers_share_a_keyed_list() {
    let stored = Stored::applied("a", json!({"ports": [{"port": 80, "name": "http"}]})).apply(
        "b",
        json!({"ports": [{"port": 81, "name": "alt"}, {"port": 80, "protocol": "UDP"}, {"port": 80, "target": "web"}]}),
    );
    assert_eq!(
        stored.spec()["ports"],
        json!([
            {"port": 81, "name": "alt"},
            {"port": 80, "protocol": "UDP"},
            {"port": 80, "name": "http", "target": "web"},
        ])
    );
    let stored = stored.apply("b", json!({"ports": [{"port": 80, "target": "web"}]}));
    assert_eq!(
        stored.spec()["ports"],
        json!([{"port": 80, "name": "http", "target": "web"}])
    );
    let stored = stored.apply("b", json!({}));
    assert_eq!(stored.spec()["ports"], json!([{"port": 80, "name": "http"}]));
}

#[test]
fn an_absent_key_counts_as_its_default() {
    let stored = Stored::applied("a", json!({"ports": [{"port": 80}]}));
    assert_eq!(
        stored.owned("a"),
        json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}})
    );
    let stored = stored.apply("b", json!({"ports": [{"port": 80, "protocol": "TCP", "name": "http"}]}));
    assert_eq!(
        stored.spec()["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "http"}])
    );
}

#[test]
fn lists_take_the_order_of_the_configuration() {
    let zones = |stored: &Stored| stored.spec()["zones"].clone();
    let stored = Stored::applied("a", json!({"zones": ["a", "b", "c"]})).apply("a", json!({"zones": ["c", "b", "a"]}));
    assert_eq!(zones(&stored), json!(["c", "b", "a"]));
    let stored = stored.apply("b", json!({"zones": ["x", "b", "y"]}));
    assert_eq!(zones(&stored), json!(["c", "x", "b", "a", "y"]));
}

#[test]
fn empty_maps_and_lists_differ_from_absent_ones() {
    let stored = Stored::applied("a", json!({"labels": {}, "zones": [], "args": []}));
    assert_eq!(stored.spec(), &json!({"labels": {}, "zones": [], "args": []}));
    assert_eq!(stored.owned("a"), json!({"f:labels": {}, "f:args": {}}));
}

#[test]
fn undeclared_content_is_owned_field_by_field() {
    let stored = Stored::applied("a", json!({"free": {"x": {"y": 1}, "list": [1, {"z": 2}]}}));
    assert_eq!(
        stored.owned("a"),
        json!({"f:free": {"f:list": {}, "f:x": {".": {}, "f:y": {}}}})
    );
    let stored = stored.apply("b", json!({"free": {"x": {"w": 1}}}));
    assert_eq!(
        stored.spec()["free"],
        json!({"x": {"y": 1, "w": 1}, "list": [1, {"z": 2}]})
    );
    assert_eq!(stored.apply("a", json!({})).spec(), &json!({"free": {"x": {"w": 1}}}));
}

#[test]
fn what_does_not_fit_the_schema_is_named() {
    let stored = Stored::nothing();
    let message = |spec: Value| match stored.try_apply("a", &with_spec(spec), false, NOW) {
        Err(ApplyError::Invalid(message)) => {
            let (head, tail) = message.split_once("): ").unwrap();
            assert_eq!(
                head,
                "failed to create typed patch object (d/n; example.com/v1, Kind=Thing"
            );
            tail.to_owned()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        message(json!({"tire": "x"})),
        ".spec.tire: field not declared in schema"
    );
    assert_eq!(
        message(json!({"size": "x"})),
        ".spec.size: expected numeric (int or float), got string"
    );
    assert_eq!(
        message(json!({"tier": 42})),
        ".spec.tier: expected string, got &value.valueUnstructured{Value:42}"
    );
    assert_eq!(
        message(json!({"labels": ["x", 1]})),
        ".spec.labels: expected map, got &{[x 1]}"
    );
    assert_eq!(
        message(json!({"zones": {"x": 1}})),
        ".spec.zones: expected list, got &{map[x:1]}"
    );
    assert_eq!(
        message(json!({"zones": ["x", "x"]})),
        ".spec.zones: duplicate entries for key [=\"x\"]"
    );
    assert_eq!(
        message(json!({"tire": "x", "size": true})),
        "errors:\n  .spec.size: expected numeric (int or float), got bool\n  .spec.tire: field not declared in schema"
    );
}

#[test]
fn an_item_without_any_key_has_no_identity() {
    let mut stored = Stored::nothing();
    stored.schema["properties"]["spec"]["properties"]["ports"]["items"]["properties"]["protocol"] =
        json!({"type": "string"});
    let config = with_spec(json!({"ports": [{"name": "x"}]}));
    let error = stored.try_apply("a", &config, false, NOW).unwrap_err().to_string();
    assert!(
        error.ends_with(
            ".spec.ports: element 0: associative list with keys has an element that omits all key fields \
             [\"port\" \"protocol\"] (and doesn't have default values for any key fields)"
        ),
        "{error}"
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let stored = Stored::applied("a", json!({"tier": "gold"}));
    let refused = |config: &Value| match stored.try_apply("a", config, false, NOW) {
        Err(ApplyError::BadRequest(message)) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(stored.object()), "metadata.managedFields must be nil");
    let mut other_kind = with_spec(json!({}));
    other_kind["kind"] = json!("Thong");
    assert_eq!(refused(&other_kind), "invalid object type: example.com/v1, Kind=Thong");
    assert!(refused(&json!([])).contains("must be an object"));
}
