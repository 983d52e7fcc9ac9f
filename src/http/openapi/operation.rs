//! One operation of the API document: a method of a path, its parameters and body, and every
//! response.
//!
//! Most failures follow from the parameters, the body and the scope of the route. An operation
//! names only the others: see [`Operation::finished`].

use serde_json::{Map, Value, json};

use crate::http::openapi::schema::{kind, parameters};
use crate::http::route::Needs;

pub(super) const JSON: &str = "application/json";
pub(super) const LINES: &str = "application/x-ndjson";
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// Path parameters, by name.
const PARTS: &str = "
    path:id       text          0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00   id
    path:name     filter_name   failures                               name
    path:job      job           compact                                job to run
    path:provider  text          openai-main                            slug of the provider
    path:token    text          0198a6c1.1795282018.5b41               token from the link
    path:group    group         model                                  grouping key
    path:key      metadata_key  team                                   metadata key
    path:page     text          clients                                name of the page";

/// Adds the header that lists the columns withheld from the key.
pub(super) fn with_withheld_header(operation: Operation) -> Operation {
    let doc = "Columns that the key may not read, separated by commas. Their values are null or left out. Absent if the key may read all.";
    operation.with_header(200, "x-gatelog-withheld", doc)
}

/// An operation of the API document.
pub(super) struct Operation {
    /// HTTP method in upper case.
    pub(super) method: &'static str,
    /// Path in the route table.
    pub(super) route: &'static str,
    /// Path in the document. Differs from `route` if its `{*name}` stands for several paths.
    pub(super) path: String,
    /// The operation object.
    pub(super) value: Value,
}

impl Operation {
    /// Creates an operation. `id` is its name in generated clients.
    pub(super) fn new(method: &'static str, route: &'static str, id: &str, summary: &str) -> Self {
        let value =
            json!({ "operationId": id, "summary": summary, "parameters": [], "responses": {} });
        Self { method, route, path: String::new(), value }.at(route.to_owned())
    }

    pub(super) fn get(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("GET", route, id, summary)
    }

    pub(super) fn post(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("POST", route, id, summary)
    }

    /// Sets the path, for a route that stands for several paths.
    pub(super) fn at(mut self, path: String) -> Self {
        let named = |part: &Value| {
            part["name"].as_str().is_some_and(|name| path.contains(&format!("{{{name}}}")))
        };
        let mut parts: Vec<Value> = parameters(PARTS).filter(named).collect();
        if path.starts_with("/v1/admin/organisations/") {
            parts.iter_mut().for_each(|part| part["example"] = "acme".into());
        }
        self.value["parameters"] = parts.into();
        Self { path, ..self }
    }

    /// Sets the description.
    pub(super) fn says(mut self, description: &str) -> Self {
        self.value["description"] = description.into();
        self
    }

    /// Adds parameters, written in the notation of [`crate::http::openapi::schema`].
    pub(super) fn takes(self, lines: &str) -> Self {
        self.takes_all(parameters(lines))
    }

    pub(super) fn takes_all(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        if let Value::Array(all) = &mut self.value["parameters"] {
            all.extend(parameters);
        }
        self
    }

    /// Sets a required JSON body, with an example.
    pub(super) fn body(mut self, of: &str, example: &Value) -> Self {
        self.value["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": kind(of, ""), "example": example } } });
        self
    }

    /// Sets a JSON body that may be left out, with an example.
    pub(super) fn perhaps_body(self, of: &str, example: &Value) -> Self {
        let mut operation = self.body(of, example);
        operation.value["requestBody"]["required"] = false.into();
        operation
    }

    /// Adds another media type for the body.
    pub(super) fn or_body(mut self, media: &str, of: &str, example: &str) -> Self {
        self.value["requestBody"]["content"][media] =
            json!({ "schema": kind(of, ""), "example": example });
        self
    }

    /// Adds a successful response.
    pub(super) fn answers(mut self, status: u16, content: &[(&str, Value)]) -> Self {
        self.value["responses"][status.to_string()] = answer(status, content);
        self
    }

    /// Adds a successful response in JSON.
    pub(super) fn gives(self, status: u16, of: &str) -> Self {
        self.answers(status, &[(JSON, kind(of, ""))])
    }

    /// Adds a text header to the response with that status.
    pub(super) fn with_header(mut self, status: u16, name: &str, doc: &str) -> Self {
        self.value["responses"][status.to_string()]["headers"][name] = header("string", doc);
        self
    }

    /// Adds failures that do not follow from parameters, body and scope. Each has the common
    /// envelope.
    pub(super) fn fails(mut self, statuses: &[u16]) -> Self {
        let protobuf = if self.value["requestBody"]["content"][PROTOBUF].is_object() {
            "Protobuf"
        } else {
            ""
        };
        for status in statuses {
            let reference = format!("#/components/responses/Failure{status}{protobuf}");
            self.value["responses"][status.to_string()] = json!({ "$ref": reference });
        }
        self
    }

    /// Returns the operation object with its tag, its required scope and the failures that follow.
    pub(super) fn finished(self, tag: &str, needs: Option<Needs>) -> Value {
        let has = |place: &str| {
            self.value["parameters"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["in"] == place))
        };
        let asks = has("query");
        let body = self.value["requestBody"].is_object();
        let takes = asks || body || has("path");
        let follow: [(bool, &[u16]); 5] = [
            (asks, &[414]),
            (body, &[408, 413]),
            (has("path"), &[404]),
            (takes, &[400, 422, 429, 500, 503]),
            (needs.is_some(), &[401, 403, 500, 503]),
        ];
        let failures: Vec<u16> = follow
            .into_iter()
            .filter(|(does, _)| *does)
            .flat_map(|(_, all)| all.to_vec())
            .collect();
        let mut value = self.fails(&failures).value;
        value["tags"] = json!([tag]);
        value["security"] = json!([]);
        let (role, words) = match needs {
            None => return value,
            Some(Needs::Scope(scope)) => (scope.name(), format!("Requires scope `{scope}`.")),
            Some(Needs::Operator) => (
                "admin",
                "Requires scope `admin` in a key that is not bound to an organisation.".to_owned(),
            ),
        };
        value["security"] = json!([{ "key": [role] }, { "bearer": [role] }]);
        let described = value["description"].as_str().map(|text| format!("{text}\n\n{words}"));
        value["description"] = described.unwrap_or(words).into();
        value
    }
}

/// Returns every failure as a component that operations refer to. The name ends in `Protobuf` for
/// operations that take protobuf.
pub(super) fn failures() -> impl Iterator<Item = (String, Value)> {
    FAILURES.into_iter().flat_map(|status| {
        let json = (JSON, kind("Failure", ""));
        // hyper refuses a long URL by itself and sends no body.
        let plain = if status == 414 {
            answer(status, &[])
        } else {
            answer(status, std::slice::from_ref(&json))
        };
        let packed = answer(status, &[json, (PROTOBUF, kind("any", ""))]);
        [(format!("Failure{status}"), plain), (format!("Failure{status}Protobuf"), packed)]
    })
}

fn answer(status: u16, content: &[(&str, Value)]) -> Value {
    let id = json!({ "$ref": "#/components/headers/RequestId" });
    let mut answer =
        json!({ "description": meaning(status), "headers": { "x-portkey-request-id": id } });
    match status {
        401 => {
            answer["headers"]["www-authenticate"] =
                header("string", "Expected authentication scheme.")
        }
        429 | 503 => {
            answer["headers"]["retry-after"] =
                header("integer", "Seconds to wait before the next attempt.")
        }
        _ => {}
    }
    if !content.is_empty() {
        let content = content
            .iter()
            .map(|(media, schema)| ((*media).to_owned(), json!({ "schema": schema })));
        answer["content"] = Value::Object(content.collect::<Map<String, Value>>());
    }
    answer
}

fn header(of: &str, doc: &str) -> Value {
    json!({ "description": doc, "schema": { "type": of } })
}

const FAILURES: [u16; 17] =
    [400, 401, 403, 404, 406, 408, 409, 413, 414, 415, 422, 429, 500, 502, 503, 504, 505];

/// Returns the description of a status.
fn meaning(status: u16) -> &'static str {
    match status {
        200 => "Success.",
        201 => "Created.",
        202 => {
            "Accepted. New requests see the change at once; stored files are rewritten in the background."
        }
        206 => "Partial content: the requested range of bytes.",
        304 => "Not modified. The copy that the client has is current.",
        400 => "Invalid request. The message names the field, its value and the expected form.",
        401 => "The API key is missing, unknown, revoked or expired.",
        403 => "The API key does not permit this operation.",
        404 => "Not found, or not visible to this key.",
        406 => "No media type in `accept` is supported.",
        408 => "The client sent the body too slowly.",
        409 => {
            "Conflict with the resource's current state. The message names the state that is required."
        }
        413 => "The request body is too large.",
        414 => "The URL is longer than 64 KiB.",
        415 => "The content type or the content encoding of the body is not supported.",
        416 => "The requested range starts beyond the end of the file.",
        422 => "The request is well formed, but exceeds a limit on its work.",
        429 => {
            "The server has no capacity for the request at the moment. Send it again after `retry-after` seconds."
        }
        502 => "The gateway could not be reached, or closed the connection early.",
        503 => "The store cannot be reached, or the server is shutting down.",
        504 => "The gateway did not answer in time.",
        505 => "HTTP/1.0 cannot signal that a streamed response was cut short. Use HTTP/1.1.",
        _ => "Internal error. The server's log has the details under the request id.",
    }
}
