//! `GET /openapi.json`: the document of this API, OpenAPI 3.1, which asks for no key.
//!
//! Which routes there are and what each asks of a key comes from the table of routes; columns, formats, reports, graphs and
//! limits come from the code that they are made of; failures follow from what an operation takes ([`operation`]). What else
//! there is to say of a route stands here, one file a resource: its schemas as tables in a notation ([`schema`]), then its
//! operations. A test compares routes and operations both ways, and others the answers with their schemas, which name
//! every field. Failures have one envelope, the schema `Failure`.

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
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use self::operation::Operation;
use super::App;
use super::table::Route;

/// The document as it is sent; it depends on nothing but the program.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document(&routes()).to_string()));

/// `GET /openapi.json`.
pub(crate) async fn show(State(_): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT.clone()).into_response()
}

fn routes() -> Vec<Route> {
    let (with_key, without_key) = super::table();
    [with_key, without_key].into_iter().flat_map(|routes| routes.into_parts().1).collect()
}

/// A group of operations: its tag, what they are about, and they themselves.
type Group = (&'static str, &'static str, Vec<Operation>);

fn groups() -> [Group; 8] {
    [
        (
            "Logs",
            "Records of calls: Portkey's insert, lists, single logs, replays and share links.",
            logs::operations(),
        ),
        (
            "Ingest",
            "Records in other forms: JSON lines, OpenTelemetry, LiteLLM, the gateways.",
            ingesting::operations(),
        ),
        ("Queries", "SQL and named reports.", querying::operations()),
        (
            "Analytics",
            "Portkey's graphs, groups and summary. Money is US cents, rates are of 100, times are UTC.",
            querying::analytics(),
        ),
        ("Exports", "Records as JSON lines: jobs that write a file, and the direct stream.", exporting::operations()),
        ("Feedback", "What people say of calls.", feedback::operations()),
        ("Admin", "Organisations, keys, erasures, plans, archived providers and upkeep.", admin::operations()),
        ("System", "The server itself.", system::operations()),
    ]
}

fn document(routes: &[Route]) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags = Vec::new();
    for (tag, about, operations) in groups() {
        tags.push(json!({ "name": tag, "description": about }));
        for operation in operations {
            let declared =
                routes.iter().find(|route| (route.method, route.path) == (operation.method, operation.route));
            let Some(route) = declared else { continue };
            let (method, path) = (operation.method.to_lowercase(), operation.path.clone());
            paths.entry(path).or_default().insert(method, operation.finished(tag, route.needs));
        }
    }
    let told = json!(paths).to_string();
    let responses = operation::failures().filter(|(name, _)| told.contains(&format!("/{name}\"")));
    let parameters = logs::filters().map(|filter| (filter["name"].as_str().unwrap_or_default().to_owned(), filter));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gatelog",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The log engine for LLM gateways.",
            "description": "Routes under `/v1/logs`, `/v1/feedback` and `/v1/analytics` are Portkey's, for its SDKs as they \
                            are. Costs are US cents, times UTC, durations ms unless a field says otherwise.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "this server" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": components::all(),
            "parameters": parameters.collect::<Map<String, Value>>(),
            "responses": responses.collect::<Map<String, Value>>(),
            "securitySchemes": {
                "key": {
                    "type": "apiKey", "in": "header", "name": "x-portkey-api-key",
                    "description": "An API key, or the admin key that the first start printed. It wins over `authorization`, but on routes that a gateway reports to.",
                },
                "bearer": { "type": "http", "scheme": "bearer", "description": "The same keys as `Authorization: Bearer`." },
            },
            "headers": {
                "RequestId": {
                    "description": "names the request in the server's log; with it Portkey's SDKs do not send it again",
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

    fn operations() -> impl Iterator<Item = Operation> {
        groups().into_iter().flat_map(|(_, _, operations)| operations)
    }

    #[test]
    fn routes_and_operations_are_the_same() {
        let routes: BTreeSet<_> = routes().into_iter().map(|route| (route.method, route.path)).collect();
        let told: BTreeSet<_> = operations().map(|operation| (operation.method, operation.route)).collect();
        let untold: Vec<_> = routes.difference(&told).collect();
        assert!(untold.is_empty(), "routes that the document does not have: {untold:?}");
        let gone: Vec<_> = told.difference(&routes).collect();
        assert!(gone.is_empty(), "operations that no route has: {gone:?}");
    }

    #[test]
    fn every_operation_is_there_once_and_its_path_is_told() {
        let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for Operation { method, path, value, .. } in operations() {
            assert!(places.insert((method, path.clone())), "{method} {path} twice");
            assert!(ids.insert(value["operationId"].to_string()), "{} twice", value["operationId"]);
            let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let parameters = value["parameters"].as_array().unwrap();
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<&str> = named.map(|parameter| parameter["name"].as_str().unwrap()).collect();
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
                    let shared = parameter["$ref"].as_str().and_then(|target| document.pointer(&target[1..]));
                    let parameter = shared.unwrap_or(parameter);
                    assert!(
                        parameter["description"].as_str().is_some_and(|text| !text.is_empty()),
                        "{at}: {parameter}"
                    );
                    let example = [&parameter["example"], &parameter["content"]["application/json"]["example"]];
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
                fields.iter().for_each(|(name, value)| check(value, document, &format!("{at}/{name}")));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, document, at)),
            _ => {}
        }
    }
}
