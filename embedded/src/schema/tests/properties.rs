//! Properties that hold for every object and schema.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::schema::Structural;

/// Names that schemas and objects have in common, so that they meet.
const NAMES: [&str; 5] = ["a", "b", "metadata", "spec", "x-y"];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        any::<f64>().prop_map(|n| serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number)),
        "[a-z0-9:.TZ-]{0,6}".prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&NAMES[..]), inner), 0..4).prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// Structural schemas with most keywords, without defaults that their own schema refuses.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "default": "d", "maxLength": 4})),
        Just(json!({"type": "string", "pattern": "^[a-z]*$", "minLength": 1, "nullable": true})),
        Just(json!({"type": "string", "format": "date-time"})),
        Just(json!({"type": "string", "format": "duration"})),
        Just(json!({"type": "string", "enum": ["a", "b"], "default": "a"})),
        Just(json!({"type": "integer", "minimum": -1, "maximum": 2, "format": "int32", "default": 1})),
        Just(json!({"type": "number", "multipleOf": 0.5, "exclusiveMinimum": true, "minimum": 0})),
        Just(json!({"type": "boolean", "default": true})),
        Just(json!({"x-kubernetes-int-or-string": true, "default": "5%"})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "integer", "x-kubernetes-validations": [
            {"rule": "self < 100"}, {"rule": "self >= oldSelf || oldSelf > 3", "message": "m"},
        ]})),
    ];
    // Transition rules are not allowed below plain lists, so lists hold leaves without them.
    let simple = prop_oneof![
        Just(json!({"type": "string", "default": "i"})),
        Just(
            json!({"type": "object", "properties": {"a": {"type": "string", "default": "i"}, "b": {"type": "integer"}}})
        ),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec((prop::sample::select(&NAMES[..]), inner.clone()), 0..4).prop_map(|fields| {
                let properties: Map<String, Value> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
                let required: Vec<String> = properties.keys().take(1).cloned().collect();
                json!({"type": "object", "properties": properties, "required": required})
            }),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values, "maxProperties": 3})),
            simple.clone().prop_map(|items| json!({"type": "array", "items": items, "maxItems": 3})),
            Just(json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}},
            })),
            Just(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})),
            Just(json!({
                "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["a", "b"]},
                "anyOf": [{"properties": {"b": {"minimum": 1}}}, {"minProperties": 2}],
            })),
            Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object", "properties": {}}}})),
        ]
    })
}

fn compile(x: Value) -> Structural {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": x}}}});
    Structural::new(&schema).unwrap_or_else(|causes| panic!("{schema}: {causes:#?}"))
}

proptest! {
    #[test]
    fn pruning_twice_is_pruning_once(schema in any_schema(), x in any_json()) {
        let structural = compile(schema);
        let mut once = json!({"spec": {"x": x}});
        structural.prune(&mut once);
        let mut twice = once.clone();
        prop_assert_eq!(structural.prune(&mut twice), [] as [String; 0]);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn defaulting_twice_is_defaulting_once(schema in any_schema(), x in any_json()) {
        let structural = compile(schema);
        let mut once = json!({"spec": {"x": x}});
        structural.default(&mut once);
        let mut twice = once.clone();
        structural.default(&mut twice);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn what_defaults_add_is_known_to_the_schema(schema in any_schema(), x in any_json()) {
        let structural = compile(schema);
        let mut object = json!({"spec": {"x": x}});
        structural.prune(&mut object);
        structural.default(&mut object);
        prop_assert_eq!(structural.prune(&mut object), [] as [String; 0]);
    }

    #[test]
    fn validating_never_panics(schema in any_schema(), new in any_json(), old in prop::option::of(any_json())) {
        let structural = compile(schema);
        let new = json!({"spec": {"x": new}});
        let old = old.map(|x| json!({"spec": {"x": x}}));
        let _ = structural.validate(&new, old.as_ref());
        let _ = structural.validate(&new["spec"]["x"], None);
    }

    #[test]
    fn an_object_may_always_stay_as_it_is(schema in any_schema(), x in any_json()) {
        let structural = compile(schema);
        let object = json!({"spec": {"x": x}});
        // Only rules that compare two states may object to a state that does not change.
        for cause in structural.validate(&object, Some(&object)) {
            prop_assert!(cause.message.contains("oldSelf") || cause.message.ends_with(": m"), "{}", cause);
        }
    }

    #[test]
    fn compiling_any_json_as_a_schema_never_panics(schema in any_json(), x in any_schema()) {
        let _ = Structural::new(&schema);
        let mut mixed = x;
        if let (Some(target), Some(source)) = (mixed.as_object_mut(), schema.as_object()) {
            target.extend(source.clone());
        }
        let _ = Structural::new(&mixed);
    }
}
