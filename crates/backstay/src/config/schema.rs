//! JSON Schema (draft-07, which editors know) of the configuration, made from the same table that reads it.

use serde_json::{Map, Value, json};

use super::fields::{Field, HIDDEN, Kind, NAME_MAX, Need, ROOT, Shape};

/// The schema document.
pub fn schema() -> Value {
    let mut document = table(ROOT, &[]);
    if let Some(object) = document.as_object_mut() {
        object.insert(
            "$schema".into(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        object.insert("title".into(), json!("Backstay configuration"));
    }
    document
}

fn table(fields: &[Field], tag: &[(&str, Value)]) -> Value {
    let mut properties: Map<String, Value> = tag
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let mut required: Vec<&str> = tag.iter().map(|(key, _)| *key).collect();
    for field in fields.iter().filter(|field| !HIDDEN.contains(&field.key)) {
        properties.insert(field.key.to_owned(), property(field));
        if field.need == Need::Required {
            required.push(field.key);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(field: &Field) -> Value {
    let mut value = shape(field.shape);
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), json!(field.doc));
        if let Need::Default(text) = field.need {
            // Defaults are written as TOML, which is JSON for texts, numbers and booleans.
            let default = serde_json::from_str(text).unwrap_or(Value::Null);
            object.insert("default".into(), default);
        }
    }
    value
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Name => json!({
            "type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": NAME_MAX,
        }),
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Path => json!({ "type": "string", "pattern": "^/" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Count(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Shape::Bytes(..) => json!({
            "type": "string", "pattern": "^[0-9]+ *(B|[KMGT](iB)?|kB|[KMGT]B)$",
            "examples": ["64MiB"],
        }),
        Shape::Time(..) => json!({
            "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$", "examples": ["60s"],
        }),
        Shape::Address => json!({
            "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }],
        }),
        Shape::Addresses => json!({
            "type": "array", "minItems": 1, "items": self::shape(Shape::Address),
        }),
        Shape::Command => json!({
            "type": "array", "minItems": 1, "items": { "type": "string" },
            "examples": [["/usr/bin/app", "-v"]],
        }),
        Shape::Choice(words) => json!({ "type": "string", "enum": words }),
        Shape::PathPerNode => json!({
            "anyOf": [
                self::shape(Shape::Path),
                { "type": "object", "additionalProperties": self::shape(Shape::Path) },
            ],
        }),
        Shape::Table(fields) => table(fields, &[]),
        Shape::Tables(fields) => {
            json!({ "type": "array", "minItems": 1, "items": table(fields, &[]) })
        }
        Shape::Kinds(kinds) => {
            let any: Vec<Value> = kinds.iter().map(kind).collect();
            json!({ "type": "array", "minItems": 1, "items": { "oneOf": any } })
        }
    }
}

fn kind(kind: &Kind) -> Value {
    let mut value = table(kind.fields, &[("kind", json!({ "const": kind.kind }))]);
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), json!(kind.doc));
    }
    value
}
