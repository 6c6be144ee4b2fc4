//! CEL rules: when they run, what they see, and how their failures read.

use serde_json::{Value, json};

use super::{compiled, with_x};
use crate::{schema::Structural, status::CauseReason};

fn rules(x: Value, rules: Value) -> Value {
    let mut x = x;
    x["x-kubernetes-validations"] = rules;
    with_x(x)
}

fn run(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let of = |x: Value| json!({"spec": {"x": x}});
    compiled(schema)
        .validate(&of(new), old.map(of).as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn failures_read_like_those_of_kubernetes() {
    let object = json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}}});
    let cases = [
        (
            json!({"rule": "self.min <= self.max"}),
            "spec.x: Invalid value: \"object\": failed rule: self.min <= self.max",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "min must not exceed max"}),
            "spec.x: Invalid value: \"object\": min must not exceed max",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'min %d exceeds max %d'.format([self.min, self.max])", "message": "static"}),
            "spec.x: Invalid value: \"object\": min 5 exceeds max 3",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "self.name", "message": "static"}),
            "spec.x: Invalid value: \"object\": static",
        ),
        (
            json!({"rule": "self.min <= self.max", "fieldPath": ".min", "reason": "FieldValueForbidden", "message": "m"}),
            "spec.x.min: Forbidden: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "reason": "FieldValueRequired", "message": "m"}),
            "spec.x: Required value: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "reason": "FieldValueDuplicate"}),
            "spec.x: Duplicate value: \"object\"",
        ),
        (
            json!({"rule": "self.name == 'x'"}),
            "spec.x: Invalid value: \"object\": no such key: name evaluating rule: self.name == 'x'",
        ),
    ];
    for (rule, expected) in cases {
        let found = run(&rules(object.clone(), json!([rule])), json!({"min": 5, "max": 3}), None);
        assert_eq!(found, [expected]);
    }
    let good = run(
        &rules(object, json!([{"rule": "self.min <= self.max"}])),
        json!({"min": 1, "max": 3}),
        None,
    );
    assert_eq!(good, [] as [String; 0]);
    let scalar = rules(
        json!({"type": "string"}),
        json!([{"rule": "self.startsWith('a')", "message": "m"}]),
    );
    assert_eq!(run(&scalar, json!("b"), None), ["spec.x: Invalid value: \"string\": m"]);
}

#[test]
fn transition_rules_need_an_old_value() {
    let immutable = rules(
        json!({"type": "string"}),
        json!([{"rule": "self == oldSelf", "message": "immutable"}]),
    );
    assert_eq!(run(&immutable, json!("a"), None), [] as [String; 0]);
    assert_eq!(run(&immutable, json!("a"), Some(json!("a"))), [] as [String; 0]);
    assert_eq!(
        run(&immutable, json!("b"), Some(json!("a"))),
        ["spec.x: Invalid value: \"string\": immutable"]
    );
    assert_eq!(run(&immutable, json!("b"), Some(json!(null))), [] as [String; 0]);

    let optional = rules(
        json!({"type": "integer"}),
        json!([{"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": true, "message": "may only grow"}]),
    );
    assert_eq!(run(&optional, json!(3), None), [] as [String; 0]);
    assert_eq!(run(&optional, json!(4), Some(json!(3))), [] as [String; 0]);
    assert_eq!(
        run(&optional, json!(2), Some(json!(3))),
        ["spec.x: Invalid value: \"integer\": may only grow"]
    );
    let created = rules(
        json!({"type": "integer"}),
        json!([{"rule": "oldSelf.orValue(10) <= self", "optionalOldSelf": true, "message": "m"}]),
    );
    assert_eq!(run(&created, json!(9), None), ["spec.x: Invalid value: \"integer\": m"]);
}

#[test]
fn items_are_followed_by_their_keys() {
    let items = json!({
        "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "shrinks"}],
    });
    let schema = with_x(json!({
        "type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
    }));
    let old = json!([{"k": "a", "v": 1}, {"k": "b", "v": 5}]);
    assert_eq!(
        run(
            &schema,
            json!([{"k": "b", "v": 6}, {"k": "c", "v": 0}]),
            Some(old.clone())
        ),
        [] as [String; 0]
    );
    assert_eq!(
        run(&schema, json!([{"k": "b", "v": 4}]), Some(old)),
        ["spec.x[0]: Invalid value: \"object\": shrinks"]
    );
    let maps = with_x(json!({
        "type": "object",
        "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "shrinks"}]},
    }));
    assert_eq!(
        run(&maps, json!({"a": 1, "b": 1}), Some(json!({"a": 2}))),
        ["spec.x[a]: Invalid value: \"integer\": shrinks"]
    );
}

#[test]
fn unchanged_values_are_not_judged_by_new_rules() {
    let schema = rules(
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}),
        json!([{"rule": "self.a < 5", "message": "m"}]),
    );
    assert_eq!(run(&schema, json!({"a": 9}), Some(json!({"a": 9}))), [] as [String; 0]);
    assert_eq!(
        run(&schema, json!({"a": 9, "b": 1}), Some(json!({"a": 9}))),
        ["spec.x: Invalid value: \"object\": m"]
    );
}

#[test]
fn rules_do_not_run_on_values_of_the_wrong_shape() {
    let schema = rules(
        json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}),
        json!([{"rule": "self.a < 5"}]),
    );
    assert_eq!(
        run(&schema, json!({}), None),
        [
            "spec.x.a: Required value",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the \
             existing errors to complete validation"
        ]
    );
    let nullable = rules(
        json!({"type": "string", "nullable": true}),
        json!([{"rule": "self == 'a'"}]),
    );
    assert_eq!(run(&nullable, json!(null), None), [] as [String; 0]);
}

#[test]
fn values_appear_as_their_schema_says() {
    let properties = json!({
        "date": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "bytes": {"type": "string", "format": "byte"},
        "ratio": {"type": "number"},
        "ios": {"x-kubernetes-int-or-string": true},
        "my-name": {"type": "string"},
        "my_name": {"type": "string"},
        "namespace": {"type": "string"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    });
    let object = json!({
        "date": "2026-07-24T10:00:00Z", "span": "90m", "bytes": "aGFsbG8=", "ratio": 1, "ios": "5%", "my-name": "dash",
        "my_name": "under", "namespace": "ns", "map": {"a.b/c": "v"}, "open": {"x": {"y": 2}}, "list": [{"n": 1}, {"n": 2}],
    });
    for rule in [
        "self.date > timestamp('2026-01-01T00:00:00Z')",
        "self.span == duration('1h30m')",
        "size(self.bytes) == 5",
        "self.ratio == 1.0 && self.ratio < 1.5",
        "type(self.ios) == string ? self.ios == '5%' : self.ios == 5",
        "type(self.ratio) == double && type(self.list) == list && type(self.map) != string",
        "self.my__dash__name == 'dash'",
        "self.my_name == 'under'",
        "self.__namespace__ == 'ns'",
        "self.map['a.b/c'] == 'v' && 'a.b/c' in self.map",
        "self.open.x.y == 2",
        "self.list.all(item, item.n > 0) && self.list.exists(item, item.n == 2)",
        "self.list.map(item, item.n).sum() == 3",
        "quantity('1Gi').isGreaterThan(quantity('500Mi'))",
        "self.my_name.matches('^[a-z]+$') && self.my_name.find('[a-z]') == 'u'",
        "!format.dns1123Label().validate(self.my_name).hasValue()",
        "isURL('https://example.com') && url('https://example.com').getHost() == 'example.com'",
        "math.greatest(1, 2) == 2",
    ] {
        let schema = rules(
            json!({"type": "object", "properties": properties}),
            json!([{ "rule": rule }]),
        );
        assert_eq!(run(&schema, object.clone(), None), [] as [String; 0], "{rule}");
    }
}

#[test]
fn root_rules_see_the_names_of_the_object() {
    let schema = compiled(&json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "x-kubernetes-validations": [
            {"rule": "self.metadata.name.size() <= 5", "message": "name too long"},
            {"rule": "self.kind == 'Thing' && self.apiVersion == 'example.com/v1'", "message": "wrong kind"},
            {"rule": "!has(self.metadata.labels)", "message": "labels are hidden"},
        ],
    }));
    let object = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name, "labels": {}}, "spec": {}});
    assert_eq!(schema.validate(&object("short"), None), []);
    let found = schema.validate(&object("longer"), None);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "<nil>: Invalid value: \"object\": name too long");
    assert_eq!(found[0].reason, Some(CauseReason::Invalid));
}

#[test]
fn wrong_rules_are_refused_with_the_definition() {
    let x = "properties[spec].properties[x].x-kubernetes-validations[0]";
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}, "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}}}});
    let cases = [
        (json!({}), ".rule: Required value: rule is not specified"),
        (json!({"rule": " "}), ".rule: Required value: rule is not specified"),
        (
            json!({"rule": "self.a >"}),
            ".rule: Invalid value: {\"rule\":\"self.a >\"}: compilation failed: ",
        ),
        (
            json!({"rule": "self.b > 1"}),
            ".rule: Invalid value: {\"rule\":\"self.b > 1\"}: compilation failed: undefined field 'b'",
        ),
        (
            json!({"rule": "self.map.all(k, self.map[k].c == '')"}),
            ".rule: Invalid value: {\"rule\":\"self.map.all(k, self.map[k].c == '')\"}: compilation failed: undefined field 'c'",
        ),
        (
            json!({"rule": "object.a > 1"}),
            ".rule: Invalid value: {\"rule\":\"object.a > 1\"}: compilation failed: undeclared reference to 'object'",
        ),
        (
            json!({"rule": "cel.bind(v, self.a, v > 1)"}),
            ".rule: Invalid value: {\"rule\":\"cel.bind(v, self.a, v > 1)\"}: compilation failed: 'cel.bind' is not supported by this server",
        ),
        (
            json!({"rule": "true", "messageExpression": "self."}),
            ".messageExpression: Invalid value: {\"messageExpression\":\"self.\",\"rule\":\"true\"}: compilation failed: ",
        ),
        (
            json!({"rule": "true", "message": "a\nb"}),
            ".message: Invalid value: \"a\\nb\": must not contain line breaks",
        ),
        (
            json!({"rule": "true ||\nfalse"}),
            ".message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            ".reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({"rule": "true", "fieldPath": ".c"}),
            ".fieldPath: Invalid value: \".c\": must be a valid path: does not refer to a valid field",
        ),
        (
            json!({"rule": "true", "fieldPath": "a"}),
            ".fieldPath: Invalid value: \"a\": must be a valid path: expected [ or . but got: a",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            ".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
    ];
    for (rule, expected) in cases {
        let causes = Structural::new(&rules(object.clone(), json!([rule]))).unwrap_err();
        let found: Vec<String> = causes.iter().map(ToString::to_string).collect();
        let expected = format!("{x}{expected}");
        assert!(
            found.iter().any(|problem| problem.starts_with(&expected)),
            "expected {expected}\nfound {found:#?}"
        );
    }
    for (good, path) in [
        (".a", "spec.x.a"),
        (".map['k.l'].b", "spec.x.map[k.l].b"),
        ("['a']", "spec.x.a"),
    ] {
        let schema = rules(
            object.clone(),
            json!([{"rule": "false", "fieldPath": good, "message": "m"}]),
        );
        assert_eq!(
            run(&schema, json!({}), None),
            [format!("{path}: Invalid value: \"object\": m")]
        );
    }
}

#[test]
fn transition_rules_are_refused_where_items_cannot_be_followed() {
    let items = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]});
    for list_type in ["atomic", "set"] {
        let schema = with_x(json!({"type": "array", "items": items, "x-kubernetes-list-type": list_type}));
        let causes = Structural::new(&schema).unwrap_err();
        assert_eq!(
            causes[0].to_string(),
            "properties[spec].properties[x].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf \
             cannot be used on the uncorrelatable portion of the schema within properties[spec].properties[x]"
        );
    }
}
