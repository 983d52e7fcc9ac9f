//! The API document, in OpenAPI 3.1.
//!
//! The routes and their scopes come from the route table. Columns, formats, reports, graphs and
//! limits come from the code that implements them. Failures follow from the parameters and the body
//! of an operation ([`operation`]). The remaining parts are written here, one file per resource:
//! its schemas as tables in a notation ([`schema`]), then its operations. One test compares routes
//! and operations in both directions. Others compare responses with their schemas, which name every
//! field. All failures share one envelope, the schema `Failure`.

mod admin;
mod components;
mod exporting;
mod feedback;
mod ingesting;
mod logs;
mod operation;
mod querying;
mod schema;
mod system;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::operation::Operation;
use crate::http::route::Route;

/// A group of operations: tag, description, operations.
type Group = (&'static str, &'static str, Vec<Operation>);

fn groups() -> [Group; 8] {
    [
        (
            "Logs",
            "Logs of LLM calls: Portkey's insert, lists, single logs, replays and share links.",
            logs::operations(),
        ),
        (
            "Ingest",
            "Ingestion in other formats: JSON lines, OpenTelemetry, LiteLLM, gateway hooks and reports.",
            ingesting::operations(),
        ),
        ("Queries", "SQL and named reports.", querying::operations()),
        (
            "Analytics",
            "Portkey's graphs, groups and summary. Money is in US cents, rates are percentages, times are UTC.",
            querying::analytics(),
        ),
        (
            "Exports",
            "Records as JSON lines: export jobs that write a file, and a direct stream.",
            exporting::operations(),
        ),
        ("Feedback", "Ratings of calls by users and guardrails.", feedback::operations()),
        (
            "Admin",
            "Organisations, keys, erasures, plans, archived providers and maintenance.",
            admin::operations(),
        ),
        ("System", "Health, metrics and documentation of the server.", system::operations()),
    ]
}

/// Returns the document for these routes.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags = Vec::new();
    for (tag, about, operations) in groups() {
        tags.push(json!({ "name": tag, "description": about }));
        for operation in operations {
            let declared = routes
                .iter()
                .find(|route| (route.method, route.path) == (operation.method, operation.route));
            let Some(route) = declared else { continue };
            let method = operation.method.to_lowercase();
            let path = operation.path.clone();
            paths.entry(path).or_default().insert(method, operation.finished(tag, route.needs));
        }
    }
    let text = json!(paths).to_string();
    let responses = operation::failures().filter(|(name, _)| text.contains(&format!("/{name}\"")));
    let parameters = logs::filters()
        .map(|filter| (filter["name"].as_str().unwrap_or_default().to_owned(), filter));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gatelog",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The log engine for LLM gateways.",
            "description": "Routes under `/v1/logs`, `/v1/feedback` and `/v1/analytics` are compatible with Portkey's SDKs. \
                            Costs are in US cents, times in UTC and durations in milliseconds unless a field says otherwise.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This server" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": components::all(),
            "parameters": parameters.collect::<Map<String, Value>>(),
            "responses": responses.collect::<Map<String, Value>>(),
            "securitySchemes": {
                "key": {
                    "type": "apiKey", "in": "header", "name": "x-portkey-api-key",
                    "description": "An API key, or the admin key that the first start printed. Takes precedence over `authorization`, except on routes to which a gateway reports.",
                },
                "bearer": { "type": "http", "scheme": "bearer", "description": "The same keys, sent as `Authorization: Bearer`." },
            },
            "headers": {
                "RequestId": {
                    "description": "Id of the request in the server's log. Portkey's SDKs do not repeat a failed request whose response has this header.",
                    "schema": { "type": "string" },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::router::list as routes;

    fn operations() -> impl Iterator<Item = Operation> {
        groups().into_iter().flat_map(|(_, _, operations)| operations)
    }

    #[test]
    fn routes_and_operations_are_the_same() {
        let routes: BTreeSet<_> =
            routes().into_iter().map(|route| (route.method, route.path)).collect();
        let described: BTreeSet<_> =
            operations().map(|operation| (operation.method, operation.route)).collect();
        let missing: Vec<_> = routes.difference(&described).collect();
        assert!(missing.is_empty(), "routes that the document does not have: {missing:?}");
        let gone: Vec<_> = described.difference(&routes).collect();
        assert!(gone.is_empty(), "operations that no route has: {gone:?}");
    }

    #[test]
    fn every_operation_is_unique_and_its_path_is_described() {
        let mut places = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for Operation { method, path, value, .. } in operations() {
            assert!(places.insert((method, path.clone())), "{method} {path} twice");
            assert!(ids.insert(value["operationId"].to_string()), "{} twice", value["operationId"]);
            let parts =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let parameters = value["parameters"].as_array().unwrap();
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<&str> =
                named.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(named, parts.collect(), "{path}");
        }
    }

    #[test]
    fn everything_is_described_and_every_reference_leads_somewhere() {
        let document = document(&routes());
        check(&document, &document, "");
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let at = format!("{method} {path}");
                assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "{at}");
                assert!(
                    operation["responses"]
                        .as_object()
                        .is_some_and(|all| all.keys().any(|status| status.starts_with('2'))),
                    "{at}"
                );
                for parameter in operation["parameters"].as_array().unwrap() {
                    let shared = parameter["$ref"]
                        .as_str()
                        .and_then(|target| document.pointer(&target[1..]));
                    let parameter = shared.unwrap_or(parameter);
                    assert!(
                        parameter["description"].as_str().is_some_and(|text| !text.is_empty()),
                        "{at}: {parameter}"
                    );
                    let example = [
                        &parameter["example"],
                        &parameter["content"]["application/json"]["example"],
                    ];
                    assert!(example.iter().any(|example| !example.is_null()), "{at}: {parameter}");
                }
                let keyed = operation["responses"].get("401").is_some();
                assert_eq!(keyed, operation["security"] != json!([]), "{at}");
            }
        }
    }

    fn check(value: &Value, document: &Value, at: &str) {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(&target[1..]).is_some(), "{at}: {target}");
                }
                fields
                    .iter()
                    .for_each(|(name, value)| check(value, document, &format!("{at}/{name}")));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, document, at)),
            _ => {}
        }
    }
}
