//! The words that the document's schemas are written in: JSON Schema 2020-12, which OpenAPI 3.1 takes as it is.

use serde_json::{Map, Value, json};

/// Text.
pub(super) fn text(doc: &str) -> Value {
    json!({ "type": "string", "description": doc })
}

/// Text that is one of these.
pub(super) fn one_of(choices: impl IntoIterator<Item = impl Into<Value>>, doc: &str) -> Value {
    let choices: Vec<Value> = choices.into_iter().map(Into::into).collect();
    json!({ "type": "string", "enum": choices, "description": doc })
}

/// Always the same text.
pub(super) fn constant(value: &str) -> Value {
    json!({ "type": "string", "const": value })
}

/// RFC 3339.
pub(super) fn moment(doc: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": doc })
}

/// A day or RFC 3339, as requests may say it.
pub(super) fn day_or_moment(doc: &str) -> Value {
    json!({ "type": "string", "anyOf": [{ "format": "date-time" }, { "format": "date" }], "description": doc })
}

/// The same in a query string where no text is as good as nothing.
pub(super) fn day_moment_or_nothing(doc: &str) -> Value {
    let forms = [json!({ "format": "date-time" }), json!({ "format": "date" }), json!({ "maxLength": 0 })];
    with(day_or_moment(doc), "anyOf", forms.to_vec())
}

/// A whole number.
pub(super) fn whole(doc: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "description": doc })
}

/// A whole number, 0 or more.
pub(super) fn count(doc: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "description": doc })
}

/// A whole number between two others, both included.
pub(super) fn between(least: u64, most: u64, doc: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most, "description": doc })
}

/// A number.
pub(super) fn number(doc: &str) -> Value {
    json!({ "type": "number", "description": doc })
}

/// Text, which may come as a number too.
pub(super) fn text_or_number(doc: &str) -> Value {
    json!({ "type": ["string", "number"], "description": doc })
}

/// True or false.
pub(super) fn flag(doc: &str) -> Value {
    json!({ "type": "boolean", "description": doc })
}

/// Any JSON.
pub(super) fn any(doc: &str) -> Value {
    json!({ "description": doc })
}

/// A list.
#[expect(clippy::needless_pass_by_value, reason = "it is made where it is handed in")]
pub(super) fn list(items: Value, doc: &str) -> Value {
    json!({ "type": "array", "items": items, "description": doc })
}

/// An object whose names are free.
#[expect(clippy::needless_pass_by_value, reason = "it is made where it is handed in")]
pub(super) fn map(values: Value, doc: &str) -> Value {
    json!({ "type": "object", "additionalProperties": values, "description": doc })
}

/// The schema of that name.
pub(super) fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The same, or null.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        choices.push(Value::Null);
    }
    match schema.get("type").cloned() {
        Some(Value::String(kind)) => with(schema, "type", vec![kind, "null".to_owned()]),
        Some(Value::Array(mut kinds)) => {
            kinds.push("null".into());
            with(schema, "type", kinds)
        }
        // What has no type of its own takes null already, but for a reference.
        _ if schema.get("$ref").is_some() => json!({ "anyOf": [schema, { "type": "null" }] }),
        _ => schema,
    }
}

/// The same with a further keyword.
pub(super) fn with(mut schema: Value, keyword: &str, value: impl Into<Value>) -> Value {
    schema[keyword] = value.into();
    schema
}

/// An object of just these fields. A name that ends in `?` may be missing.
pub(super) fn object<'a>(doc: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, schema) in fields {
        if !name.ends_with('?') {
            required.push(Value::from(name));
        }
        properties.insert(name.trim_end_matches('?').to_owned(), schema);
    }
    let mut schema =
        json!({ "type": "object", "description": doc, "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = Value::Array(required);
    }
    schema
}

/// The same object, which may have further fields.
pub(super) fn open(schema: Value) -> Value {
    with(schema, "additionalProperties", true)
}

/// The same object, with those of another one too.
pub(super) fn beside(mut schema: Value, other: &Value) -> Value {
    for keyword in ["properties", "required"] {
        match (&mut schema[keyword], &other[keyword]) {
            (Value::Object(fields), Value::Object(more)) => fields.extend(more.clone()),
            (Value::Array(names), Value::Array(more)) => names.extend(more.iter().cloned()),
            (place @ Value::Null, more) if !more.is_null() => *place = more.clone(),
            _ => {}
        }
    }
    if schema["required"].is_null() {
        schema.as_object_mut().map(|schema| schema.remove("required"));
    }
    schema
}

/// Portkey's form of a list, all of it.
pub(super) fn listing(items: Value, doc: &str) -> Value {
    object(doc, [("object", constant("list")), ("total", count("how many there are")), ("data", list(items, "them"))])
}
