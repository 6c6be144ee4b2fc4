//! What holds for any objects and any managers.

use super::*;
use crate::apply::{
    json_order::equal,
    typed::{Type, field_set},
};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Value> {
    "[a-c]".prop_map(Value::from)
}

/// An object with some of the given fields.
fn fields(all: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let optional: Vec<_> = all
        .into_iter()
        .map(|(name, value)| {
            proptest::option::of(value).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
        })
        .collect();
    optional
        .prop_map(|fields| fields.into_iter().flatten().collect())
        .boxed()
}

fn dictionary(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    proptest::collection::btree_map("[x-z]", value, 0..3)
        .prop_map(|map| map.into_iter().collect())
        .boxed()
}

fn ports() -> BoxedStrategy<Value> {
    let port = fields(vec![
        ("name", text().boxed()),
        ("target", prop_oneof![text(), Just(json!(8080))].boxed()),
    ]);
    proptest::collection::btree_map((80i64..83, proptest::option::of("TCP|UDP")), port, 0..3)
        .prop_map(|ports| {
            let mut seen = std::collections::BTreeSet::new();
            let ports = ports.into_iter().filter_map(|((number, protocol), mut port)| {
                let identity = (number, protocol.clone().unwrap_or_else(|| "TCP".to_owned()));
                port["port"] = json!(number);
                if let Some(protocol) = protocol {
                    port["protocol"] = json!(protocol);
                }
                seen.insert(identity).then_some(port)
            });
            ports.collect()
        })
        .boxed()
}

fn spec() -> BoxedStrategy<Value> {
    let inner = fields(vec![("a", text().boxed()), ("b", text().boxed())]);
    fields(vec![
        ("tier", text().boxed()),
        ("size", (0i64..3).prop_map(Value::from).boxed()),
        ("labels", dictionary(text())),
        ("selector", inner.clone()),
        (
            "zones",
            proptest::sample::subsequence(vec!["r", "s", "t"], 0..=3)
                .prop_shuffle()
                .prop_map(Value::from)
                .boxed(),
        ),
        (
            "args",
            proptest::collection::vec(text(), 0..3).prop_map(Value::from).boxed(),
        ),
        ("nested", fields(vec![("inner", inner)])),
        ("ports", ports()),
        ("free", dictionary(prop_oneof![text(), dictionary(text())])),
    ])
}

/// A map of which nothing is left is null until defaulting, which comes after merging, takes it away.
fn settled(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), settled(value))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(before in spec(), config in spec(), other in spec()) {
        let stored = Stored::applied("other", other).update("u", |object| object["spec"] = before).force("a", config.clone());
        let again = stored.try_apply("a", &with_spec(config), false, LATER).unwrap();
        prop_assert_eq!(&again, stored.object());
    }

    #[test]
    fn what_was_applied_is_what_is_stored(before in spec(), config in spec()) {
        let stored = Stored::applied("b", before).force("a", config.clone());
        // Laying the configuration over the result changes nothing.
        let once_more = Stored { object: stored.object.clone(), schema: schema() }.force("c", config);
        prop_assert_eq!(once_more.spec(), stored.spec());
    }

    #[test]
    fn managers_of_different_fields_never_conflict(left in dictionary(text()), right in dictionary(text()), again in dictionary(text())) {
        let prefixed = |prefix: &str, map: &Value| -> Value {
            map.as_object().unwrap().iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone())).collect()
        };
        let both = |prefix: &str, map: &Value| json!({
            "labels": prefixed(prefix, map),
            "free": {"deep": prefixed(prefix, map)},
            "zones": map.as_object().unwrap().keys().map(|key| format!("{prefix}{key}")).collect::<Vec<_>>(),
        });
        let stored = Stored::nothing()
            .apply("a", both("a-", &left))
            .apply("b", both("b-", &right))
            .apply("a", both("a-", &again));
        let mut expected = prefixed("a-", &again);
        expected.as_object_mut().unwrap().extend(prefixed("b-", &right).as_object().unwrap().clone());
        prop_assert_eq!(settled(&stored.spec()["labels"]), expected.clone());
        prop_assert_eq!(settled(&stored.spec()["free"]["deep"]), expected);
    }

    #[test]
    fn applying_nothing_removes_exactly_what_was_owned_alone(mine in spec(), theirs in spec()) {
        // An empty list mentions no field. Where nothing else is left in a container of which somebody owns nothing but the
        // container, Kubernetes does not see it either, and the container goes or stays with what it took from it.
        let empty_list = mine.as_object().unwrap().values().any(|value| *value == json!([]));
        prop_assume!(theirs != json!({}) || !empty_list);
        let forced = Stored::applied("b", theirs).force("a", mine);
        let (alone, shared) = (forced.fields_of("a").difference(&forced.fields_of("b")), forced.fields_of("b"));
        let values = |stored: &Stored| ["tier", "size", "selector"].map(|name| stored.spec()[name].clone());
        let before = values(&forced);
        let stored = forced.apply_nothing("a");
        prop_assert!(!stored.managers().contains(&"a".to_owned()));
        prop_assert_eq!(stored.fields_of("b"), shared.clone());
        let present = field_set(Type::resource(&stored.schema), stored.object());
        prop_assert!(alone.intersection(&present).is_empty(), "left over: {}", alone.intersection(&present).encode());
        prop_assert!(shared.difference(&present).is_empty(), "gone: {}", shared.difference(&present).encode());
        for (before, after) in before.iter().zip(values(&stored)) {
            prop_assert!(after.is_null() || equal(before, &after));
        }
    }

    #[test]
    fn an_update_owns_all_that_it_changed(before in spec(), after in spec(), again in spec()) {
        let stored = Stored::applied("a", before).update("u", |object| object["spec"] = after.clone());
        // Whoever applies what is stored never conflicts, and nobody owns what is not stored.
        prop_assert!(stored.conflicts("c", after).is_empty());
        let unchanged = Stored { object: stored.object.clone(), schema: schema() }.update("v", |_| {});
        prop_assert_eq!(unchanged.object(), stored.object());
        let stored = stored.update("w", |object| object["spec"] = again.clone());
        prop_assert!(stored.conflicts("c", again).is_empty());
    }
}
