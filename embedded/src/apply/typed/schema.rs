//! What a schema says about merging, read straight from the OpenAPI document without compiling it first.

use super::metadata::{OBJECT_META, STRING};
use crate::apply::path::{KeyValue, PathElement};
use serde_json::Value;
use std::collections::BTreeMap;

/// The type of a place in an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Type<'a> {
    /// Declared by a node of an OpenAPI v3 schema.
    Declared(Declared<'a>),
    /// Not declared: maps are merged field by field, lists are one value.
    Deduced,
    /// Not declared and below a list that is one value: everything is one value.
    Opaque,
}

/// A node of an OpenAPI v3 schema and what its surroundings add to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared<'a> {
    schema: &'a Value,
    /// This node or one above it has `x-kubernetes-preserve-unknown-fields`.
    preserve: bool,
    /// The node is an object with `apiVersion`, `kind` and `metadata` of its own.
    resource: bool,
}

/// The forms that a value of a type may have; a declared type mostly has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms<'a> {
    map: Option<MapType<'a>>,
    scalar: Option<Scalar>,
    list: Option<ListType<'a>>,
}

/// One form.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    Map(MapType<'a>),
    Scalar(Scalar),
    List(ListType<'a>),
}

/// The kinds of scalars that a schema tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    String,
    Boolean,
    Any,
}

/// A map: a struct with declared fields, a dictionary, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapType<'a> {
    declared: Option<Declared<'a>>,
    element: Option<Elements<'a>>,
    /// The map is one value with one owner.
    pub(crate) atomic: bool,
}

#[derive(Debug, Clone, Copy)]
enum Elements<'a> {
    Of(Declared<'a>),
    Deduced,
    Opaque,
}

/// A list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListType<'a> {
    items: Option<Declared<'a>>,
    relation: Relation<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Relation<'a> {
    /// The list is one value with one owner.
    Atomic,
    /// Items are scalars and their own identity.
    Set,
    /// Items are maps, identified by these fields.
    Keyed(&'a [Value]),
}

impl<'a> Type<'a> {
    /// The type of a whole object of a resource with this `openAPIV3Schema`; null when it has none.
    pub(crate) fn resource(schema: &'a Value) -> Self {
        if schema.is_object() {
            Self::Declared(Declared {
                schema,
                preserve: false,
                resource: true,
            })
        } else {
            Self::Deduced
        }
    }

    fn of(schema: &'a Value, preserve: bool) -> Self {
        let reference = schema["$ref"]
            .as_str()
            .or_else(|| match schema["allOf"].as_array().map(Vec::as_slice) {
                Some([only]) => only["$ref"].as_str(),
                _ => None,
            });
        match reference {
            Some(name) if name.ends_with(".ObjectMeta") => Self::object_meta(),
            Some(_) if schema["x-kubernetes-map-type"] == "atomic" => Self::Opaque,
            Some(_) => Self::Deduced,
            None => Self::Declared(Declared {
                schema,
                preserve,
                resource: false,
            }),
        }
    }

    fn object_meta() -> Self {
        Self::Declared(Declared {
            schema: &OBJECT_META,
            preserve: false,
            resource: false,
        })
    }

    /// The forms of this type.
    pub(crate) fn forms(self) -> Forms<'a> {
        match self {
            Self::Declared(declared) => declared.forms(),
            Self::Deduced => Forms::undeclared(Elements::Deduced, false),
            Self::Opaque => Forms::undeclared(Elements::Opaque, true),
        }
    }

    /// The form in which a value is visited; the value decides where the type leaves a choice.
    pub(crate) fn form(self, value: &Value) -> Form<'a> {
        self.forms().narrowed(Some(value)).first()
    }

    /// The forms in which two values are visited together: one, or two when they are of different forms.
    pub(crate) fn forms_of_pair(self, left: Option<&Value>, right: Option<&Value>) -> (Option<Form<'a>>, Form<'a>) {
        let (of_left, of_right) = (self.forms().narrowed(left), self.forms().narrowed(right));
        match (left, right) {
            (_, None) => (None, of_left.first()),
            (None, _) => (None, of_right.first()),
            _ if of_left.which() == of_right.which() => (None, of_right.first()),
            _ => (Some(of_left.first()), of_right.first()),
        }
    }
}

impl<'a> Forms<'a> {
    fn undeclared(elements: Elements<'a>, atomic: bool) -> Self {
        Self {
            map: Some(MapType {
                declared: None,
                element: Some(elements),
                atomic,
            }),
            scalar: Some(Scalar::Any),
            list: Some(ListType {
                items: None,
                relation: Relation::Atomic,
            }),
        }
    }

    /// Only the form that fits the value; all of them where none or anything fits.
    fn narrowed(self, value: Option<&Value>) -> Self {
        let none = Self {
            map: None,
            scalar: None,
            list: None,
        };
        let fitting = match value {
            Some(Value::Object(_)) => Self { map: self.map, ..none },
            Some(Value::Array(_)) => Self {
                list: self.list,
                ..none
            },
            Some(Value::Null) | None => self,
            Some(_) => Self {
                scalar: self.scalar,
                ..none
            },
        };
        if fitting.which() == (false, false, false) {
            self
        } else {
            fitting
        }
    }

    /// The form of a map, if the type has it.
    pub(crate) fn map(self) -> Option<MapType<'a>> {
        self.map
    }

    /// The form of a list, if the type has it.
    pub(crate) fn list(self) -> Option<ListType<'a>> {
        self.list
    }

    fn which(&self) -> (bool, bool, bool) {
        (self.map.is_some(), self.scalar.is_some(), self.list.is_some())
    }

    pub(crate) fn first(self) -> Form<'a> {
        match (self.map, self.scalar, self.list) {
            (Some(map), ..) => Form::Map(map),
            (_, Some(scalar), _) => Form::Scalar(scalar),
            (.., Some(list)) => Form::List(list),
            (None, None, None) => Form::Scalar(Scalar::Any),
        }
    }
}

impl<'a> Declared<'a> {
    fn preserves(self) -> bool {
        self.preserve || self.schema["x-kubernetes-preserve-unknown-fields"] == true
    }

    fn is_resource(self) -> bool {
        self.resource || self.schema["x-kubernetes-embedded-resource"] == true
    }

    fn forms(self) -> Forms<'a> {
        let none = Forms {
            map: None,
            scalar: None,
            list: None,
        };
        let scalar = |scalar| Forms {
            scalar: Some(scalar),
            ..none
        };
        match self.schema["type"].as_str() {
            Some("object") => Forms {
                map: Some(self.map()),
                ..none
            },
            Some("array") => Forms {
                list: Some(self.list()),
                ..none
            },
            Some("integer" | "number") => scalar(Scalar::Numeric),
            Some("string") => scalar(Scalar::String),
            Some("boolean") => scalar(Scalar::Boolean),
            _ if self.is_resource() => Forms {
                map: Some(self.map()),
                ..none
            },
            // No type: anything goes, as for `x-kubernetes-int-or-string`.
            _ => Forms {
                map: Some(self.map()),
                scalar: Some(Scalar::Any),
                list: Some(self.list()),
            },
        }
    }

    fn map(self) -> MapType<'a> {
        let declares_fields =
            self.is_resource() || self.schema["properties"].as_object().is_some_and(|p| !p.is_empty());
        let element = match &self.schema["additionalProperties"] {
            element @ Value::Object(_) => Some(match Type::of(element, self.preserves()) {
                Type::Declared(declared) => Elements::Of(declared),
                Type::Deduced => Elements::Deduced,
                Type::Opaque => Elements::Opaque,
            }),
            Value::Bool(true) => Some(Elements::Deduced),
            Value::Bool(false) => None,
            _ if self.preserves() || !declares_fields => Some(Elements::Deduced),
            _ => None,
        };
        let atomic = self.schema["x-kubernetes-map-type"] == "atomic";
        MapType {
            declared: Some(self),
            element,
            atomic,
        }
    }

    fn list(self) -> ListType<'a> {
        let keys = |name: &str| self.schema[name].as_array().map_or(&[][..], Vec::as_slice);
        let relation = match self.schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Relation::Set,
            Some("map") => Relation::Keyed(keys("x-kubernetes-list-map-keys")),
            Some(_) => Relation::Atomic,
            // Types that are older than list types say the same in the terms of strategic merge patches.
            None => match self.schema["x-kubernetes-patch-strategy"].as_str() {
                Some("merge" | "merge,retainKeys") => match &self.schema["x-kubernetes-patch-merge-key"] {
                    Value::String(_) => {
                        Relation::Keyed(std::slice::from_ref(&self.schema["x-kubernetes-patch-merge-key"]))
                    }
                    _ => Relation::Set,
                },
                _ => Relation::Atomic,
            },
        };
        let items = match &self.schema["items"] {
            items @ Value::Object(_) => Some(Declared {
                schema: items,
                preserve: self.preserves(),
                resource: false,
            }),
            _ => None,
        };
        ListType { items, relation }
    }

    fn property(self, name: &str) -> Option<Type<'a>> {
        if self.is_resource() {
            match name {
                "metadata" => return Some(Type::object_meta()),
                "apiVersion" | "kind" => return Some(Type::of(&STRING, false)),
                _ => {}
            }
        }
        self.schema["properties"]
            .get(name)
            .map(|schema| Type::of(schema, self.preserves()))
    }
}

impl<'a> MapType<'a> {
    /// The type of a field that the schema declares by name.
    pub(crate) fn declared(self, name: &str) -> Option<Type<'a>> {
        self.declared.and_then(|declared| declared.property(name))
    }

    /// The type of any field, or nothing when the schema has no place for it.
    pub(crate) fn field(self, name: &str) -> Option<Type<'a>> {
        self.declared(name).or_else(|| self.element())
    }

    /// The type of a field; a field that the schema has no place for is taken as undeclared.
    pub(crate) fn field_or_deduced(self, name: &str) -> Type<'a> {
        self.field(name).unwrap_or(Type::Deduced)
    }

    fn element(self) -> Option<Type<'a>> {
        self.element.map(|element| match element {
            Elements::Of(declared) => Type::Declared(declared),
            Elements::Deduced => Type::Deduced,
            Elements::Opaque => Type::Opaque,
        })
    }

    /// The map declares nothing at all, neither its fields nor the type of what it holds.
    pub(crate) fn is_undeclared(self) -> bool {
        let fields = self.declared.is_some_and(|declared| {
            declared.is_resource() || declared.schema["properties"].as_object().is_some_and(|p| !p.is_empty())
        });
        !fields && matches!(self.element, Some(Elements::Deduced))
    }

    fn default_of(self, name: &str) -> Option<&'a Value> {
        self.declared
            .and_then(|declared| declared.schema["properties"].get(name))
            .and_then(|field| field.get("default"))
    }
}

impl<'a> ListType<'a> {
    /// The list is one value with one owner.
    pub(crate) fn is_atomic(self) -> bool {
        matches!(self.relation, Relation::Atomic)
    }

    /// The type of the items.
    pub(crate) fn items(self) -> Type<'a> {
        self.items
            .map_or(Type::Opaque, |items| Type::of(items.schema, items.preserve))
    }

    /// The step that identifies an item.
    ///
    /// # Errors
    /// What keeps the item from having an identity; lists that are one value have no identities either.
    pub(crate) fn element(self, item: &Value) -> Result<PathElement, String> {
        match self.relation {
            Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            Relation::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::Value(KeyValue::new(scalar))),
            },
            Relation::Keyed(names) => self.keyed_element(names, item),
        }
    }

    fn keyed_element(self, names: &[Value], item: &Value) -> Result<PathElement, String> {
        let item = match item {
            Value::Object(item) => item,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        let default = |name: &str| self.items().forms().map.and_then(|map| map.default_of(name));
        let keys: Vec<_> = names
            .iter()
            .filter_map(|name| {
                // A key without value and default is simply not part of the identity.
                let value = item.get(*name).or_else(|| default(name))?;
                Some(((*name).to_owned(), KeyValue::new(value)))
            })
            .collect();
        if keys.is_empty() {
            let names = names
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>()
                .join(" ");
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{names}] (and doesn't have \
                 default values for any key fields)"
            ));
        }
        Ok(PathElement::key(keys))
    }

    /// The items with their identities, in order; nothing when an item has none.
    pub(crate) fn identified(self, items: &[Value]) -> Option<Vec<(PathElement, &Value)>> {
        items
            .iter()
            .map(|item| self.element(item).ok().map(|element| (element, item)))
            .collect()
    }

    /// The items by identity; several items may share one.
    pub(crate) fn grouped(self, items: &[Value]) -> Option<BTreeMap<PathElement, Vec<&Value>>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (element, item) in self.identified(items)? {
            groups.entry(element).or_default().push(item);
        }
        Some(groups)
    }
}
