//! Value checks: each keyword with what it accepts and the exact words with which it refuses.

use serde_json::{Value, json};

use super::{about_x, compiled, with_x};
use crate::{schema::Structural, status::CauseReason};

struct Case {
    schema: Value,
    good: Vec<Value>,
    bad: Vec<(Value, &'static str)>,
}

fn case(schema: Value, good: Vec<Value>, bad: Vec<(Value, &'static str)>) -> Case {
    Case { schema, good, bad }
}

fn run(cases: Vec<Case>) {
    for Case { schema, good, bad } in cases {
        let compiled = compiled(&with_x(schema.clone()));
        for value in good {
            assert_eq!(
                about_x(&compiled, &value),
                [] as [String; 0],
                "{schema} must accept {value}"
            );
        }
        for (value, expected) in bad {
            assert_eq!(about_x(&compiled, &value), [expected], "{schema} must refuse {value}");
        }
    }
}

#[test]
fn types() {
    run(vec![
        case(
            json!({"type": "string"}),
            vec![json!(""), json!("x")],
            vec![
                (
                    json!(1),
                    "spec.x: Invalid value: \"integer\": spec.x in body must be of type string: \"integer\"",
                ),
                (
                    json!(1.5),
                    "spec.x: Invalid value: \"number\": spec.x in body must be of type string: \"number\"",
                ),
                (
                    json!(true),
                    "spec.x: Invalid value: \"boolean\": spec.x in body must be of type string: \"boolean\"",
                ),
                (
                    json!([]),
                    "spec.x: Invalid value: \"array\": spec.x in body must be of type string: \"array\"",
                ),
                (
                    json!({}),
                    "spec.x: Invalid value: \"object\": spec.x in body must be of type string: \"object\"",
                ),
                (
                    json!(null),
                    "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\"",
                ),
            ],
        ),
        case(
            json!({"type": "integer"}),
            vec![json!(0), json!(-3), json!(2.0), json!(i64::MAX)],
            vec![
                (
                    json!("x"),
                    "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
                ),
                (
                    json!(2.5),
                    "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
                ),
            ],
        ),
        case(
            json!({"type": "number"}),
            vec![json!(0), json!(2.5)],
            vec![(
                json!("1"),
                "spec.x: Invalid value: \"string\": spec.x in body must be of type number: \"string\"",
            )],
        ),
        case(
            json!({"type": "boolean"}),
            vec![json!(true), json!(false)],
            vec![(
                json!("true"),
                "spec.x: Invalid value: \"string\": spec.x in body must be of type boolean: \"string\"",
            )],
        ),
        case(
            json!({"type": "array", "items": {"type": "string"}}),
            vec![json!([]), json!(["a"])],
            vec![
                (
                    json!({}),
                    "spec.x: Invalid value: \"object\": spec.x in body must be of type array: \"object\"",
                ),
                (
                    json!(["a", 1]),
                    "spec.x[1]: Invalid value: \"integer\": spec.x[1] in body must be of type string: \"integer\"",
                ),
            ],
        ),
        case(
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            vec![json!({}), json!({"a": 1})],
            vec![
                (
                    json!([]),
                    "spec.x: Invalid value: \"array\": spec.x in body must be of type object: \"array\"",
                ),
                (
                    json!({"a": "b"}),
                    "spec.x.a: Invalid value: \"string\": spec.x.a in body must be of type integer: \"string\"",
                ),
            ],
        ),
        case(
            json!({"type": "string", "nullable": true}),
            vec![json!(null), json!("x")],
            vec![(
                json!(1),
                "spec.x: Invalid value: \"integer\": spec.x in body must be of type string: \"integer\"",
            )],
        ),
        case(
            json!({"x-kubernetes-int-or-string": true}),
            vec![json!(1), json!("5%")],
            vec![
                (
                    json!(true),
                    "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
                ),
                (
                    json!(null),
                    "spec.x: Invalid value: \"null\": spec.x in body must be of type integer,string: \"null\"",
                ),
            ],
        ),
        case(
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%$"}),
            vec![json!(1), json!("5%")],
            vec![(
                json!("x"),
                "spec.x: Invalid value: \"x\": spec.x in body should match '^[0-9]+%$'",
            )],
        ),
        case(
            json!({"x-kubernetes-preserve-unknown-fields": true}),
            vec![json!(null), json!(1), json!({"a": []})],
            vec![],
        ),
    ]);
}

#[test]
fn enumerations() {
    run(vec![
        case(
            json!({"type": "string", "enum": ["a", "b"]}),
            vec![json!("a"), json!("b")],
            vec![(
                json!("c"),
                "spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            )],
        ),
        case(
            json!({"type": "integer", "enum": [1, 2]}),
            vec![json!(1), json!(2.0)],
            vec![(json!(3), "spec.x: Unsupported value: 3: supported values: \"1\", \"2\"")],
        ),
        case(
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            vec![json!("a")],
            vec![(json!(null), "spec.x: Unsupported value: null: supported values: \"a\"")],
        ),
    ]);
}

#[test]
fn strings() {
    run(vec![
        case(
            json!({"type": "string", "minLength": 2, "maxLength": 3}),
            vec![json!("ab"), json!("äöü")],
            vec![
                (
                    json!("a"),
                    "spec.x: Invalid value: \"a\": spec.x in body should be at least 2 chars long",
                ),
                (json!("abcd"), "spec.x: Too long: may not be more than 3 bytes"),
            ],
        ),
        case(
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            vec![json!("abc")],
            vec![(
                json!("A\"b"),
                "spec.x: Invalid value: \"A\\\"b\": spec.x in body should match '^[a-z]+$'",
            )],
        ),
        case(
            json!({"type": "string", "format": "date-time"}),
            vec![json!("2026-07-24T10:00:00Z")],
            vec![
                (
                    json!("today"),
                    "spec.x: Invalid value: \"today\": spec.x in body must be of type date-time: \"today\"",
                ),
                (
                    json!(1),
                    "spec.x: Invalid value: \"int64\": spec.x in body must be of type date-time: \"int64\"",
                ),
                (
                    json!([]),
                    "spec.x: Invalid value: \"array\": spec.x in body must be of type string: \"array\"",
                ),
            ],
        ),
        case(
            json!({"type": "string", "format": "byte"}),
            vec![json!("aGk=")],
            vec![(
                json!("%"),
                "spec.x: Invalid value: \"%\": spec.x in body must be of type byte: \"%\"",
            )],
        ),
        case(
            json!({"type": "string", "format": "color"}),
            vec![json!("anything")],
            vec![],
        ),
    ]);
}

#[test]
fn numbers() {
    run(vec![
        case(
            json!({"type": "integer", "minimum": 1, "maximum": 3}),
            vec![json!(1), json!(3)],
            vec![
                (
                    json!(0),
                    "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
                ),
                (
                    json!(4),
                    "spec.x: Invalid value: 4: spec.x in body should be less than or equal to 3",
                ),
            ],
        ),
        case(
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": 1.5, "exclusiveMaximum": true}),
            vec![json!(0.1), json!(1)],
            vec![
                (
                    json!(0),
                    "spec.x: Invalid value: 0: spec.x in body should be greater than 0",
                ),
                (
                    json!(1.5),
                    "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
                ),
            ],
        ),
        case(
            json!({"type": "integer", "multipleOf": 5}),
            vec![json!(0), json!(-10)],
            vec![(
                json!(7),
                "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
            )],
        ),
        case(
            json!({"type": "number", "multipleOf": 0.1}),
            vec![json!(0.3), json!(0.7), json!(2)],
            vec![(
                json!(0.25),
                "spec.x: Invalid value: 0.25: spec.x in body should be a multiple of 0.1",
            )],
        ),
        case(
            json!({"type": "integer", "format": "int32"}),
            vec![json!(i32::MAX), json!(i32::MIN)],
            vec![
                (
                    json!(2_147_483_648_i64),
                    "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
                ),
                (
                    json!(true),
                    "spec.x: Invalid value: \"\": spec.x in body must be of type int32: \"\"",
                ),
                (
                    json!("1"),
                    "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\"",
                ),
            ],
        ),
        case(
            json!({"type": "integer", "format": "int64"}),
            vec![json!(i64::MAX)],
            vec![(
                json!(u64::MAX),
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int64 in spec.x",
            )],
        ),
        case(
            json!({"type": "number", "format": "float"}),
            vec![json!(1e38)],
            vec![(
                json!(1e39),
                "<nil>: Invalid value: \"\": Checked value must be of type number with format float in spec.x",
            )],
        ),
    ]);
}

#[test]
fn lists_and_maps() {
    run(vec![
        case(
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}),
            vec![json!([1]), json!([1, 1])],
            vec![
                (
                    json!([]),
                    "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
                ),
                (json!([1, 2, 3]), "spec.x: Too many: 3: must have at most 2 items"),
            ],
        ),
        case(
            json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1, "maxProperties": 1}),
            vec![json!({"a": ""})],
            vec![
                (
                    json!({}),
                    "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
                ),
                (
                    json!({"a": "", "b": ""}),
                    "spec.x: Too many: 2: must have at most 1 item",
                ),
            ],
        ),
        case(
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            vec![json!({"a": "x"})],
            vec![(json!({}), "spec.x.a: Required value")],
        ),
        case(
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            vec![json!(["a", "b"])],
            vec![(json!(["a", "b", "a", "a"]), "spec.x[2]: Duplicate value: \"a\"")],
        ),
        case(
            json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}, "n": {"type": "integer"}}},
            }),
            vec![json!([{"type": "a"}, {"type": "b", "n": 1}])],
            vec![(
                json!([{"type": "a", "n": 1}, {"type": "a", "n": 2}]),
                "spec.x[1]: Duplicate value: {\"type\":\"a\"}",
            )],
        ),
        case(
            json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["host", "port"],
                "items": {
                    "type": "object", "required": ["host"],
                    "properties": {"host": {"type": "string"}, "port": {"type": "integer", "default": 80}},
                },
            }),
            vec![json!([{"host": "a", "port": 1}, {"host": "a", "port": 2}])],
            vec![(
                json!([{"host": "a", "port": 1}, {"host": "b", "port": 1}, {"port": 1, "host": "a"}]),
                "spec.x[2]: Duplicate value: {\"host\":\"a\",\"port\":1}",
            )],
        ),
    ]);
}

#[test]
fn unique_items_are_checked_though_definitions_may_not_ask_for_them() {
    let node = super::super::node::Node {
        unique_items: true,
        ..Default::default()
    };
    let found = super::super::validate::validate(&node, &json!([1, 2, 1]), None);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].message,
        "Invalid value: \"\":  in body shouldn't contain duplicates"
    );
}

fn refusals(schema: Value, x: Value) -> Vec<String> {
    about_x(&compiled(&with_x(schema)), &x)
}

#[test]
fn alternatives() {
    let one_of = json!({
        "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    });
    assert_eq!(refusals(one_of.clone(), json!({"a": ""})), [] as [String; 0]);
    assert_eq!(
        refusals(one_of.clone(), json!({})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
            "spec.x.a: Required value",
        ]
    );
    assert_eq!(
        refusals(one_of, json!({"a": "", "b": ""})),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );

    let any_of = json!({"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 9}]});
    assert_eq!(refusals(any_of.clone(), json!(0)), [] as [String; 0]);
    assert_eq!(refusals(any_of.clone(), json!(10)), [] as [String; 0]);
    assert_eq!(
        refusals(any_of, json!(5)),
        [
            "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)",
            "spec.x: Invalid value: 5: spec.x in body should be less than or equal to 1",
        ]
    );

    let all_of = json!({"type": "integer", "allOf": [{"maximum": 10}, {"minimum": 3}]});
    assert_eq!(refusals(all_of.clone(), json!(5)), [] as [String; 0]);
    assert_eq!(
        refusals(all_of, json!(1)),
        [
            "spec.x: Invalid value: 1: spec.x in body should be greater than or equal to 3",
            "<nil>: Invalid value: \"\": \"spec.x\" must validate all the schemas (allOf)",
        ]
    );

    let not = json!({"type": "string", "not": {"enum": ["a"]}});
    assert_eq!(refusals(not.clone(), json!("b")), [] as [String; 0]);
    assert_eq!(
        refusals(not, json!("a")),
        ["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"]
    );
}

#[test]
fn reasons_go_with_the_messages() {
    let schema = compiled(&json!({
        "type": "object", "required": ["r"],
        "properties": {
            "e": {"type": "string", "enum": ["a"]}, "t": {"type": "string"}, "p": {"type": "string", "pattern": "^a"},
            "l": {"type": "string", "maxLength": 1}, "m": {"type": "array", "maxItems": 0, "items": {"type": "string"}},
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}, "r": {"type": "string"},
            "f": {"type": "string", "format": "uuid"},
        },
    }));
    let object = json!({"e": "b", "t": 1, "p": "b", "l": "ab", "m": ["x"], "s": ["a", "a"], "f": "x"});
    let found: Vec<(String, CauseReason)> = schema
        .validate(&object, None)
        .into_iter()
        .map(|cause| (cause.field, cause.reason.unwrap()))
        .collect();
    for (field, reason) in [
        ("e", CauseReason::NotSupported),
        ("t", CauseReason::TypeInvalid),
        ("p", CauseReason::Invalid),
        ("l", CauseReason::TooLong),
        ("m", CauseReason::TooMany),
        ("s[1]", CauseReason::Duplicate),
        ("r", CauseReason::Required),
        ("f", CauseReason::TypeInvalid),
    ] {
        assert!(
            found.contains(&(field.to_owned(), reason)),
            "{field}: {reason} in {found:?}"
        );
    }
}

#[test]
fn what_did_not_change_is_not_checked_again() {
    let schema: Structural = compiled(&json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "n": {"type": "integer", "maximum": 3},
                "list": {"type": "array", "items": {"type": "string", "maxLength": 1}},
                "keyed": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 3}}},
                },
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            }},
        },
    }));
    let old =
        json!({"spec": {"name": "OLD", "n": 9, "list": ["long"], "keyed": [{"k": "a", "v": 9}], "set": ["a", "a"]}});
    let mut new = old.clone();
    assert_eq!(schema.validate(&new, Some(&old)), []);
    assert_eq!(schema.validate(&new, None).len(), 5);
    new["spec"]["n"] = json!(2);
    new["spec"]["keyed"] = json!([{"k": "b", "v": 1}, {"k": "a", "v": 9}]);
    assert_eq!(schema.validate(&new, Some(&old)), []);
    new["spec"]["n"] = json!(8);
    new["spec"]["keyed"] = json!([{"k": "a", "v": 8}]);
    new["spec"]["list"] = json!(["long", "x"]);
    let found: Vec<String> = schema
        .validate(&new, Some(&old))
        .into_iter()
        .map(|cause| cause.field)
        .collect();
    assert_eq!(found, ["spec.keyed[0].v", "spec.list[0]", "spec.n"]);
}
