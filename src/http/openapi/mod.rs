//! `GET /openapi.json`: the document of this API, OpenAPI 3.1, which asks for no key.
//!
//! Which routes there are and what each asks of a key comes from the table of routes; columns, filters, formats, reports,
//! graphs and limits come from the code that they are made of; what else there is to say of a route stands here, one file
//! a resource. A test compares routes and operations both ways, and others the answers with their schemas, which name
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

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use self::operation::Operation;
use super::App;
use super::auth::Needs;
use super::table::Route;

/// What groups of operations are about.
const TAGS: [(&str, &str); 8] = [
    ("Logs", "Records of calls: sending them in Portkey's form, lists of them, single ones, replays and share links."),
    ("Ingest", "Records in other forms: lines of JSON, OpenTelemetry, LiteLLM, the gateways' hooks and reports."),
    ("Queries", "SQL and named reports."),
    ("Analytics", "Portkey's graphs, groups and summary. Money is US cents, rates are of 100, times are UTC."),
    ("Exports", "Records as JSON lines: jobs that write a file, and the direct stream."),
    ("Feedback", "What people say of calls."),
    ("Admin", "Organisations, keys, erasures, plans, archived providers and upkeep."),
    ("System", "The server itself."),
];

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

/// All operations with their tags.
fn operations() -> Vec<(&'static str, Operation)> {
    let all = [
        ("Logs", logs::operations()),
        ("Ingest", ingesting::operations()),
        ("Queries", querying::operations()),
        ("Analytics", querying::analytics()),
        ("Exports", exporting::operations()),
        ("Feedback", feedback::operations()),
        ("Admin", admin::operations()),
        ("System", system::operations()),
    ];
    all.into_iter().flat_map(|(tag, operations)| operations.into_iter().map(move |found| (tag, found))).collect()
}

fn document(routes: &[Route]) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (tag, operation) in operations() {
        let declared = routes.iter().find(|route| (route.method, route.path) == (operation.method, operation.route));
        let Some(route) = declared else { continue };
        let (method, path) = (operation.method.to_lowercase(), operation.path.clone());
        paths.entry(path).or_default().insert(method, finished(operation, tag, route.needs));
    }
    let parameters = share(&mut paths, "parameters", |operation| match &mut operation["parameters"] {
        Value::Array(all) => all.iter_mut().filter_map(|one| Some((one["name"].as_str()?.to_owned(), one))).collect(),
        _ => Vec::new(),
    });
    let responses = share(&mut paths, "responses", |operation| match &mut operation["responses"] {
        Value::Object(all) => all.iter_mut().map(|(status, one)| (format!("Answer{status}"), one)).collect(),
        _ => Vec::new(),
    });
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect();
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
            "schemas": components::schemas(),
            "parameters": parameters,
            "responses": responses,
            "securitySchemes": {
                "key": {
                    "type": "apiKey", "in": "header", "name": "x-portkey-api-key",
                    "description": "An API key, or the admin key that the first start printed. It wins over `authorization`.",
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

/// Moves what stands in several operations, to the letter, to one place. `parts` gives such parts of an operation, each
/// with a name for it.
fn share(
    paths: &mut BTreeMap<String, Map<String, Value>>,
    component: &str,
    parts: impl Fn(&mut Value) -> Vec<(String, &mut Value)>,
) -> Map<String, Value> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for operation in paths.values_mut().flat_map(Map::values_mut) {
        for (_, part) in parts(operation) {
            *places.entry(part.to_string()).or_default() += 1;
        }
    }
    let mut shared: Map<String, Value> = Map::new();
    for operation in paths.values_mut().flat_map(Map::values_mut) {
        for (name, part) in parts(operation) {
            if places.get(&part.to_string()).is_none_or(|count| *count < 2) {
                continue;
            }
            let names = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}_{number}")));
            let mut free = names.filter(|name| shared.get(name).is_none_or(|other| other == part));
            let name = free.next().unwrap_or(name);
            let reference = json!({ "$ref": format!("#/components/{component}/{name}") });
            shared.insert(name, std::mem::replace(part, reference));
        }
    }
    shared
}

/// An operation with its tag, and with what its route asks of a key.
fn finished(operation: Operation, tag: &str, needs: Option<Needs>) -> Value {
    let asks = operation.value["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "query"));
    let operation = if asks { operation.answers(414, "The URL has more than 64 KiB.", &[]) } else { operation };
    let (role, words) = match needs {
        None => {
            let mut value = operation.value;
            value["tags"] = json!([tag]);
            value["security"] = json!([]);
            return value;
        }
        Some(Needs::Scope(scope)) => (scope.name(), format!("Needs scope `{scope}`.")),
        Some(Needs::Operator) => ("admin", "Needs scope `admin` in a key that is bound to no organisation.".to_owned()),
    };
    let mut value = operation.fails(&[401, 403, 500, 503]).value;
    value["tags"] = json!([tag]);
    value["security"] = json!([{ "key": [role] }, { "bearer": [role] }]);
    let told = value["description"].as_str().map(|text| format!("{text}\n\n{words}"));
    value["description"] = told.unwrap_or(words).into();
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn routes_and_operations_are_the_same() {
        let routes: BTreeSet<_> = routes().into_iter().map(|route| (route.method, route.path)).collect();
        let told: BTreeSet<_> = operations().iter().map(|(_, operation)| (operation.method, operation.route)).collect();
        let untold: Vec<_> = routes.difference(&told).collect();
        assert!(untold.is_empty(), "routes that the document does not have: {untold:?}");
        let gone: Vec<_> = told.difference(&routes).collect();
        assert!(gone.is_empty(), "operations that no route has: {gone:?}");
    }

    #[test]
    fn every_operation_stands_where_its_route_leads() {
        let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (tag, operation) in operations() {
            let Operation { method, route, path, value } = operation;
            assert!(places.insert((method, path.clone())), "{method} {path} twice");
            assert!(ids.insert(value["operationId"].to_string()), "{} twice", value["operationId"]);
            assert!(TAGS.iter().any(|(known, _)| *known == tag), "{tag}");
            assert!(leads_to(route, &path), "{route} does not lead to {path}");
            let parts: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = value["parameters"].as_array().unwrap();
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(
                named.map(|parameter| parameter["name"].as_str().unwrap()).collect::<BTreeSet<_>>(),
                parts,
                "{path}"
            );
        }
    }

    /// Whether axum takes that path by that route; a placeholder of the path stands for any text.
    fn leads_to(route: &str, path: &str) -> bool {
        let mut parts = path.split('/');
        for part in route.split('/') {
            let Some(given) = parts.next() else { return false };
            match part.strip_prefix('{') {
                Some(rest) if rest.starts_with('*') => return true,
                Some(_) => {}
                None if part == given => {}
                None => return false,
            }
        }
        parts.next().is_none()
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
