#![allow(clippy::unwrap_used)]
use super::*;

fn entry(manager: &str, operation: &str, time: Option<&str>, fields: Value) -> Value {
    let mut entry = json!({
        "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    if let Some(time) = time {
        entry["time"] = json!(time);
    }
    entry
}

fn object(entries: Vec<Value>) -> Value {
    json!({"metadata": {"name": "a", "managedFields": entries}})
}

fn written(managed: &Managed) -> Value {
    let mut object = json!({"metadata": {}});
    managed.write_to(&mut object);
    object["metadata"]["managedFields"].clone()
}

#[test]
fn entries_survive_reading_and_writing() {
    let mut status = entry(
        "b",
        "Update",
        Some("2026-01-01T00:00:00Z"),
        json!({"f:status": {"f:x": {}}}),
    );
    status["subresource"] = json!("status");
    let entries = vec![entry("a", "Apply", None, json!({"f:spec": {"f:x": {}}})), status];
    let managed = Managed::of(&object(entries.clone())).unwrap();
    assert_eq!(written(&managed), json!(entries));
    assert!(Managed::of(&json!({"metadata": {}})).unwrap().0.is_empty());
}

#[test]
fn entries_are_ordered_by_operation_time_and_name() {
    let fields = || json!({"f:a": {}});
    let in_order = vec![
        entry("z", "Apply", None, fields()),
        entry("b", "Apply", Some("2026-01-01T00:00:00Z"), fields()),
        entry("a", "Apply", Some("2026-01-02T00:00:00Z"), fields()),
        entry("c", "Update", Some("2025-01-01T00:00:00Z"), fields()),
        entry("d", "Update", Some("2025-01-01T00:00:00Z"), fields()),
    ];
    let mut shuffled = in_order.clone();
    shuffled.reverse();
    assert_eq!(written(&Managed::of(&object(shuffled)).unwrap()), json!(in_order));
}

#[test]
fn times_are_written_in_whole_seconds_of_utc() {
    let managed = Managed::of(&object(vec![entry(
        "a",
        "Apply",
        Some("2026-01-01T02:00:00.750+02:00"),
        json!({"f:a": {}}),
    )]))
    .unwrap();
    assert_eq!(written(&managed)[0]["time"], "2026-01-01T00:00:00Z");
}

#[test]
fn broken_entries_say_what_is_wrong() {
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut entry = entry("a", "Apply", Some("2026-01-01T00:00:00Z"), json!({"f:a": {}}));
        change(&mut entry);
        Managed::of(&object(vec![entry])).unwrap_err()
    };
    assert!(broken(&|entry| entry["operation"] = json!("Patch")).contains("`Apply` or `Update`"));
    assert!(broken(&|entry| entry["apiVersion"] = json!("")).contains("apiVersion must not be empty"));
    assert!(
        broken(&|entry| entry["fieldsType"] = Value::Null).contains("missing fieldsType in managed fields entry 0")
    );
    assert!(broken(&|entry| entry["fieldsType"] = json!("FieldsV2")).contains("invalid fieldsType \"FieldsV2\""));
    assert!(broken(&|entry| entry["fieldsV1"] = json!({"x": {}})).contains("fieldsV1 of managed fields entry 0"));
    assert!(broken(&|entry| entry["time"] = json!("yesterday")).contains("time of managed fields entry 0"));
}

#[test]
fn a_request_can_reset_or_replace_entries_but_not_lose_them() {
    let live = object(vec![entry("a", "Apply", None, json!({"f:spec": {}}))]);
    let of_live = Managed::of(&live).unwrap();
    let of_request =
        |entries: Value| Managed::of_request(Some(&live), &json!({"metadata": {"managedFields": entries}}), false);
    assert_eq!(of_request(json!([])), Managed::default());
    assert_eq!(of_request(json!([{}])), Managed::default());
    assert_eq!(of_request(Value::Null), of_live);
    assert_eq!(of_request(json!([{"manager": "x"}])), of_live);
    let own = vec![entry("b", "Update", None, json!({"f:spec": {}}))];
    assert_eq!(of_request(json!(own)), Managed::of(&object(own)).unwrap());
    assert_eq!(
        Managed::of_request(Some(&live), &json!({"metadata": {"managedFields": []}}), true),
        of_live
    );
    assert_eq!(
        Managed::of_request(None, &json!({"metadata": {}}), false),
        Managed::default()
    );
}

fn updaters(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| {
            let field = format!("f:field{n}");
            entry(
                &format!("m{n:02}"),
                "Update",
                Some(&format!("2026-01-01T00:00:{n:02}Z")),
                json!({field: {}}),
            )
        })
        .collect()
}

fn names(managed: &Managed) -> Vec<String> {
    managed.0.keys().map(|id| id.name.clone()).collect()
}

#[test]
fn ten_updaters_are_kept_apart() {
    let mut managed = Managed::of(&object(updaters(10))).unwrap();
    let before = managed.clone();
    managed.cap_updaters();
    assert_eq!(managed, before);
}

#[test]
fn the_oldest_updaters_are_merged() {
    let mut entries = updaters(12);
    entries.push(entry("applier", "Apply", None, json!({"f:x": {}})));
    let mut managed = Managed::of(&object(entries)).unwrap();
    let all = managed.all_fields();
    managed.cap_updaters();
    assert_eq!(managed.all_fields(), all);
    assert_eq!(names(&managed)[..3], ["ancient-changes", "applier", "m03"]);
    assert_eq!(managed.0.len(), 11);
    let ancient = &written(&managed)[1];
    assert_eq!(
        ancient["fieldsV1"],
        json!({"f:field0": {}, "f:field1": {}, "f:field2": {}})
    );
    assert_eq!(ancient["time"], "2026-01-01T00:00:02Z");

    // The next one joins those that were merged before.
    let ancient = ManagerId::updater("ancient-changes", "v1", None);
    managed.0.insert(
        ManagerId::updater("zz", "v1", None),
        Ownership {
            api_version: "v1".to_owned(),
            fields: FieldSet::of_fields(&[&["new"]]),
            time: Some("2026-01-02T00:00:00Z".parse().unwrap()),
        },
    );
    managed.cap_updaters();
    assert!(!names(&managed).contains(&"m03".to_owned()));
    assert!(
        managed.0[&ancient]
            .fields
            .has_path(&[crate::apply::path::PathElement::field("field3")])
    );
}

#[test]
fn versions_are_merged_apart_and_nothing_is_lost_within_one_second() {
    let mut entries = updaters(12);
    for (n, entry) in entries.iter_mut().enumerate() {
        entry["time"] = json!("2026-01-01T00:00:00Z");
        entry["apiVersion"] = json!(if n % 2 == 0 { "v1" } else { "v2" });
    }
    // A bucket that sorts behind a manager of the same second.
    entries.push(entry("aaa", "Update", Some("2026-01-01T00:00:00Z"), json!({"f:a": {}})));
    entries.push(entry(
        "ancient-changes",
        "Update",
        Some("2026-01-01T00:00:00Z"),
        json!({"f:old": {}}),
    ));
    let mut managed = Managed::of(&object(entries)).unwrap();
    let all = managed.all_fields();
    managed.cap_updaters();
    assert_eq!(managed.all_fields(), all);
    assert_eq!(managed.0.len(), 10);
}
