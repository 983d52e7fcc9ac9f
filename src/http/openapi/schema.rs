//! The notation of schemas and parameters, and its conversion to JSON Schema 2020-12, which OpenAPI
//! 3.1 embeds unchanged.
//!
//! Each line is a field: name, type and description, separated by two or more spaces. A parameter
//! has an example before its description. `?` after a name marks an optional field, after a type a
//! nullable one. A type is one of the words of [`word`], `=X` for the constant X, `a|b` for an
//! enumeration, `1..9` for an integer from 1 to 9, `[T]` for a list, `{T}` for a map with values of
//! type T, `T*` for one T or a list of them, `list:T` for Portkey's envelope of a complete list, or
//! the name of a schema.

use serde_json::{Map, Value, json};

use crate::analytics::{MAX_GROUPS, PAGE_GROUPS, group_facts};
use crate::catalog::Scope;
use crate::config::MAX_DAYS;
use crate::encode::Format;
use crate::engine::Job;
use crate::ingest::SourceFormat;
use crate::logs::{MAX_CONDITIONS, MAX_PAGE_SIZE, MAX_VALUES, PAGE_SIZE};
use crate::record::json::Reason;
use crate::refusals::{MAX_SHOWN, Source};
use crate::replay::ENDPOINTS;

const CACHE: &str = "HIT|SEMANTIC HIT|MISS|SEMANTIC MISS|REFRESH|DISABLED";
const LABELS: &str = "Cache Disabled|Cache Miss|Cache Refreshed|Cache Hit|Cache Semantic Hit|Retry Not Triggered|\
                      Retry Success|Retry Failed|Fallback Disabled|Fallback Active|Loadbalancer Disabled|\
                      Loadbalancer Active";

/// Returns the schema of a type.
pub(super) fn kind(of: &str, doc: &str) -> Value {
    let schema = bare(of);
    if doc.is_empty() || schema.get("$ref").is_some() {
        schema
    } else {
        with(schema, "description", doc)
    }
}

fn bare(of: &str) -> Value {
    let inside = |open, close| of.strip_prefix(open)?.strip_suffix(close);
    if let Some(of) = of.strip_suffix('?') {
        or_null(bare(of))
    } else if let Some(of) = of.strip_suffix('*') {
        json!({ "anyOf": [bare(of), { "type": "array", "items": bare(of) }] })
    } else if let Some(value) = of.strip_prefix('=') {
        let text = |_| json!({ "type": "string", "const": value });
        value.parse::<bool>().map_or_else(text, |flag| json!({ "const": flag }))
    } else if let Some(of) = inside('[', ']') {
        json!({ "type": "array", "items": bare(of) })
    } else if let Some(of) = inside('{', '}') {
        json!({ "type": "object", "additionalProperties": bare(of) })
    } else if let Some(of) = of.strip_prefix("list:") {
        let data = ("data", kind(&format!("[{of}]"), "the items"));
        object(
            "A complete list.",
            fields("object  =list\ntotal  count  number of items").chain([data]),
        )
    } else if let Some((least, most)) = of.split_once("..") {
        let end = |number: &str| number.parse::<u64>().unwrap_or_default();
        json!({ "type": "integer", "format": "int64", "minimum": end(least), "maximum": end(most) })
    } else if of.contains('|') {
        one_of(of.split('|'))
    } else {
        word(of)
    }
}

fn word(of: &str) -> Value {
    match of {
        "any" => json!({}),
        "text" => json!({ "type": "string" }),
        "flag" => json!({ "type": "boolean" }),
        "whole" => json!({ "type": "integer", "format": "int64" }),
        "short" => json!({ "type": "integer", "format": "int32" }),
        "count" => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        "number" => json!({ "type": "number" }),
        "cents" => json!({ "type": "number", "minimum": 0 }),
        "score" => json!({ "type": "number", "minimum": -10, "maximum": 10 }),
        // Converted as in JavaScript.
        "loose_score" => {
            json!({ "type": ["number", "string", "boolean"], "minimum": -10, "maximum": 10 })
        }
        "loose_text" => json!({ "type": ["string", "number"] }),
        "moment" => json!({ "type": "string", "format": "date-time" }),
        "date" => json!({ "type": "string", "format": "date" }),
        // Form that requests may use.
        "day" => {
            json!({ "type": "string", "anyOf": [{ "format": "date-time" }, { "format": "date" }] })
        }
        // In a query string, an empty value means that the parameter is absent.
        "day_or_nothing" => {
            json!({ "type": "string", "anyOf": [{ "format": "date-time" }, { "format": "date" }, { "maxLength": 0 }] })
        }
        "days" => {
            json!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": MAX_DAYS })
        }
        "days_to_live" => {
            json!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_DAYS })
        }
        "cursor" => json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" }),
        "filter_name" => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9 _-]*[A-Za-z0-9][A-Za-z0-9 _-]*$" })
        }
        "page_size" => with(bare(&format!("1..{MAX_PAGE_SIZE}")), "default", PAGE_SIZE),
        "page_of_groups" => with(bare(&format!("1..{MAX_GROUPS}")), "default", PAGE_GROUPS),
        "metadata_key" => json!({ "type": "string", "minLength": 1 }),
        "sql_params" => {
            json!({ "anyOf": [{ "type": "object" }, { "type": "array" }, { "type": "null" }] })
        }
        "job" => one_of(Job::ALL.map(Job::name)),
        "scope" => one_of(Scope::ALL.map(Scope::name)),
        "shape" => one_of(SourceFormat::ALL.map(SourceFormat::name)),
        "source" => one_of(Source::ALL.map(Source::name)),
        "reason" => one_of(Reason::ALL.map(Reason::name)),
        "refusals_size" => bare(&format!("1..{MAX_SHOWN}")),
        "format" => one_of(Format::each().map(|(_, name, _)| name)),
        "group" => one_of(
            group_facts()
                .unwrap_or_default()
                .iter()
                .map(|group| group.path)
                .filter(|path| !path.contains("KEY")),
        ),
        "endpoint" => one_of(ENDPOINTS),
        // Several values, separated by commas in a query string.
        "words" => words(),
        "provider_models" => several(
            &json!({ "type": "string", "pattern": "^[^,\\s_]+__[^,\\s_]+$" }),
            MAX_CONDITIONS,
        ),
        "http_statuses" => several(&with(bare("100..599"), "format", "int32"), MAX_VALUES),
        "cache_statuses" => several(&bare(CACHE), MAX_VALUES),
        "labels" => several(&bare(LABELS), MAX_CONDITIONS),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

/// Returns the schema of a string enumeration.
fn one_of<'a>(choices: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": choices.into_iter().collect::<Vec<_>>() })
}

/// Returns the schema of strings that filter a list. A single empty one means no filter. The limit
/// on their number counts distinct ones only, which a schema cannot express.
fn words() -> Value {
    let items = json!({ "type": "string", "pattern": "^([^,]*[^,\\s][^,]*)?$" });
    let mut words = json!({ "type": "array", "items": items, "minItems": 1 });
    words["anyOf"] = json!([{ "contains": { "pattern": "\\S" } }, { "maxItems": 1 }]);
    words
}

fn several(items: &Value, most: usize) -> Value {
    json!({ "type": "array", "items": items, "minItems": 1, "maxItems": most })
}

/// Makes a schema nullable.
pub(super) fn or_null(mut schema: Value) -> Value {
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        choices.push(Value::Null);
    }
    match schema.get("type").cloned() {
        _ if schema.get("$ref").is_some() || schema.get("const").is_some() => {
            json!({ "anyOf": [schema, { "type": "null" }] })
        }
        Some(Value::String(kind)) => with(schema, "type", vec![kind, "null".to_owned()]),
        Some(Value::Array(mut kinds)) => {
            kinds.push(Value::Null.to_string().into());
            with(schema, "type", kinds)
        }
        // A schema without a type already accepts null.
        _ => schema,
    }
}

/// Adds a keyword to a schema.
pub(super) fn with(mut schema: Value, keyword: &str, value: impl Into<Value>) -> Value {
    schema[keyword] = value.into();
    schema
}

/// Returns the schema of an object with these fields and no others.
pub(super) fn object<'a>(doc: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        if !name.ends_with('?') {
            required.push(Value::from(name));
        }
        properties.insert(name.trim_end_matches('?').to_owned(), schema);
    }
    json!({
        "type": "object", "description": doc, "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

/// Parses fields in the notation.
pub(super) fn fields(lines: &str) -> impl Iterator<Item = (&str, Value)> {
    lines.lines().map(|line| {
        let (name, line) = cut(line);
        let (of, doc) = cut(line);
        (name, kind(of, doc))
    })
}

/// Parses schemas by name. A schema is a line with its name, `+` if further fields are allowed, and
/// its description; then a line per field, or `..Name` to include the fields of an earlier schema;
/// then an empty line.
pub(super) fn schemas(text: &str) -> Map<String, Value> {
    let mut all = Map::new();
    for block in text.split("\n\n") {
        let (head, lines) = block.trim().split_once('\n').unwrap_or((block.trim(), ""));
        let (name, doc) = cut(head);
        let (own, other) = lines.split_once("\n  ..").unwrap_or((lines, ""));
        let mut schema = object(doc, fields(own));
        let other = all.get(other).unwrap_or(&Value::Null);
        if let (Some(fields), Some(more)) =
            (schema["properties"].as_object_mut(), other["properties"].as_object())
        {
            fields.extend(more.clone());
        }
        if let (Some(names), Some(more)) =
            (schema["required"].as_array_mut(), other["required"].as_array())
        {
            names.extend(more.iter().cloned());
        }
        let name = name
            .strip_suffix('+')
            .inspect(|_| schema["additionalProperties"] = true.into())
            .unwrap_or(name);
        all.insert(name.to_owned(), schema);
    }
    all
}

/// Parses parameters in the notation. They belong to the query string unless the name starts with
/// `header:` or `path:`. `!` after the name marks a required one.
pub(super) fn parameters(lines: &str) -> impl Iterator<Item = Value> {
    lines.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let (name, line) = cut(line);
        let (of, line) = cut(line);
        let (example, doc) = cut(line);
        let (place, name) = name.split_once(':').unwrap_or(("query", name));
        let schema = kind(of, "");
        let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let example = match schema["type"].as_str() {
            Some("array") => example.split(',').map(parsed).collect(),
            Some("string") => example.into(),
            _ => parsed(example),
        };
        let mut parameter = json!({
            "name": name.trim_end_matches('!'), "in": place, "required": name.ends_with('!') || place == "path",
            "description": doc, "example": example,
        });
        if schema["type"] == "array" {
            parameter["style"] = "form".into();
            parameter["explode"] = false.into();
        }
        with(parameter, "schema", schema)
    })
}

/// Returns the first column of a line and the rest.
fn cut(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once("  ").map_or((line, ""), |(column, rest)| (column, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_becomes_json_schema() {
        let read = schemas(
            "Key  A key.\n  id    text   its id\n  of?   a|b?\n\nFresh+  A new one.\n  key  =x\n  ..Key",
        );
        let key = json!({
            "type": "object", "description": "A key.", "additionalProperties": false, "required": ["id"],
            "properties": {
                "id": { "type": "string", "description": "its id" },
                "of": { "type": ["string", "null"], "enum": ["a", "b", null] },
            },
        });
        assert_eq!(read["Key"], key);
        assert_eq!(
            (&read["Fresh"]["additionalProperties"], &read["Fresh"]["required"]),
            (&json!(true), &json!(["key", "id"]))
        );
        assert_eq!(kind("[1..9]?", "")["items"]["maximum"], 9);
        assert_eq!(
            kind("=x?", ""),
            json!({ "anyOf": [{ "type": "string", "const": "x" }, { "type": "null" }] })
        );
        assert_eq!(kind("Key*", "")["anyOf"][1]["items"]["$ref"], "#/components/schemas/Key");
        assert_eq!(kind("{number}", "")["additionalProperties"]["type"], "number");
        let parsed: Vec<Value> =
            parameters("a!  words  x,y  these\nheader:b  count  7  that").collect();
        assert_eq!(
            (&parsed[0]["required"], &parsed[0]["example"], &parsed[0]["explode"]),
            (&json!(true), &json!(["x", "y"]), &json!(false))
        );
        assert_eq!(
            (&parsed[1]["in"], &parsed[1]["example"], &parsed[1]["required"]),
            (&json!("header"), &json!(7), &json!(false))
        );
    }
}
