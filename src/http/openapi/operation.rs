//! One operation of the document: a method of a path, what it takes, and every answer that it can give.
//!
//! Failures follow from what it takes and from what its route asks of a key, and only further ones are named: see
//! [`Operation::finished`].

use serde_json::{Map, Value, json};

use super::super::auth::Needs;
use super::schema::{kind, parameters};

pub(super) const JSON: &str = "application/json";
pub(super) const LINES: &str = "application/x-ndjson";
pub(super) const PROTOBUF: &str = "application/x-protobuf";

/// What stands for the parts of paths, by their names.
const PARTS: &str = "
    path:id       text          0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00   its id
    path:name     filter_name   failures                               its name
    path:job      job           compact                                the job
    path:provider  text          openai-main                            its slug
    path:token    text          0198a6c1.1795282018.5b41               what the link was told with
    path:group    group         model                                  what calls are grouped by
    path:key      metadata_key  team                                   key of the metadata
    path:page     text          clients                                name of a page";

/// An operation whose answer says which columns are withheld from the key.
pub(super) fn told_withheld(operation: Operation) -> Operation {
    let doc = "columns that the key may not read, with commas between: they are null or left out; missing where there are none";
    operation.with_header(200, "x-gatelog-withheld", doc)
}

/// An operation.
pub(super) struct Operation {
    /// Upper case.
    pub(super) method: &'static str,
    /// The path in the table of routes.
    pub(super) route: &'static str,
    /// The path in the document: that of the route, or one of those that its `{*name}` stands for.
    pub(super) path: String,
    /// The operation object.
    pub(super) value: Value,
}

impl Operation {
    /// `id` names it for generated clients.
    pub(super) fn new(method: &'static str, route: &'static str, id: &str, summary: &str) -> Self {
        let value = json!({ "operationId": id, "summary": summary, "parameters": [], "responses": {} });
        Self { method, route, path: String::new(), value }.at(route.to_owned())
    }

    pub(super) fn get(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("GET", route, id, summary)
    }

    pub(super) fn post(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("POST", route, id, summary)
    }

    /// Its path, where the route stands for several.
    pub(super) fn at(mut self, path: String) -> Self {
        let named = |part: &Value| part["name"].as_str().is_some_and(|name| path.contains(&format!("{{{name}}}")));
        let mut parts: Vec<Value> = parameters(PARTS).filter(named).collect();
        if path.starts_with("/v1/admin/organisations/") {
            parts.iter_mut().for_each(|part| part["example"] = "acme".into());
        }
        self.value["parameters"] = parts.into();
        Self { path, ..self }
    }

    /// More than fits the summary.
    pub(super) fn says(mut self, description: &str) -> Self {
        self.value["description"] = description.into();
        self
    }

    /// Parameters in the notation.
    pub(super) fn takes(self, lines: &str) -> Self {
        self.takes_all(parameters(lines))
    }

    pub(super) fn takes_all(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        if let Value::Array(all) = &mut self.value["parameters"] {
            all.extend(parameters);
        }
        self
    }

    /// Its body as JSON, with an example.
    pub(super) fn body(mut self, of: &str, example: &Value) -> Self {
        self.value["requestBody"] =
            json!({ "required": true, "content": { JSON: { "schema": kind(of, ""), "example": example } } });
        self
    }

    /// The same, where no body is as good as an empty one.
    pub(super) fn perhaps_body(self, of: &str, example: &Value) -> Self {
        let mut operation = self.body(of, example);
        operation.value["requestBody"]["required"] = false.into();
        operation
    }

    /// The same in a form that is no JSON.
    pub(super) fn or_body(mut self, media: &str, of: &str, example: &str) -> Self {
        self.value["requestBody"]["content"][media] = json!({ "schema": kind(of, ""), "example": example });
        self
    }

    /// An answer without failure.
    pub(super) fn answers(mut self, status: u16, content: &[(&str, Value)]) -> Self {
        self.value["responses"][status.to_string()] = answer(status, content);
        self
    }

    /// The same as JSON.
    pub(super) fn gives(self, status: u16, of: &str) -> Self {
        self.answers(status, &[(JSON, kind(of, ""))])
    }

    /// A header of the answer with that status, a text.
    pub(super) fn with_header(mut self, status: u16, name: &str, doc: &str) -> Self {
        self.value["responses"][status.to_string()]["headers"][name] = header("string", doc);
        self
    }

    /// Failures that do not follow from what it takes, each in the one envelope.
    pub(super) fn fails(mut self, statuses: &[u16]) -> Self {
        let protobuf = if self.value["requestBody"]["content"][PROTOBUF].is_object() { "Protobuf" } else { "" };
        for status in statuses {
            let reference = format!("#/components/responses/Failure{status}{protobuf}");
            self.value["responses"][status.to_string()] = json!({ "$ref": reference });
        }
        self
    }

    /// The operation object with its tag, what its route asks of a key, and the failures that follow.
    pub(super) fn finished(self, tag: &str, needs: Option<Needs>) -> Value {
        let has = |place: &str| {
            self.value["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == place))
        };
        let (asks, body) = (has("query"), self.value["requestBody"].is_object());
        let takes = asks || body || has("path");
        let follow: [(bool, &[u16]); 5] = [
            (asks, &[414]),
            (body, &[408, 413]),
            (has("path"), &[404]),
            (takes, &[400, 422, 429, 500, 503]),
            (needs.is_some(), &[401, 403, 500, 503]),
        ];
        let failures: Vec<u16> =
            follow.into_iter().filter(|(does, _)| *does).flat_map(|(_, all)| all.to_vec()).collect();
        let mut value = self.fails(&failures).value;
        value["tags"] = json!([tag]);
        value["security"] = json!([]);
        let (role, words) = match needs {
            None => return value,
            Some(Needs::Scope(scope)) => (scope.name(), format!("Needs scope `{scope}`.")),
            Some(Needs::Operator) => {
                ("admin", "Needs scope `admin` in a key that is bound to no organisation.".to_owned())
            }
        };
        value["security"] = json!([{ "key": [role] }, { "bearer": [role] }]);
        let told = value["description"].as_str().map(|text| format!("{text}\n\n{words}"));
        value["description"] = told.unwrap_or(words).into();
        value
    }
}

/// Every failure as a part that operations refer to; with `Protobuf` as the failure of what takes protobuf.
pub(super) fn failures() -> impl Iterator<Item = (String, Value)> {
    FAILURES.into_iter().flat_map(|status| {
        let json = (JSON, kind("Failure", ""));
        // What serves HTTP refuses a long URL by itself, without a word.
        let plain = if status == 414 { answer(status, &[]) } else { answer(status, std::slice::from_ref(&json)) };
        let packed = answer(status, &[json, (PROTOBUF, kind("any", ""))]);
        [(format!("Failure{status}"), plain), (format!("Failure{status}Protobuf"), packed)]
    })
}

fn answer(status: u16, content: &[(&str, Value)]) -> Value {
    let id = json!({ "$ref": "#/components/headers/RequestId" });
    let mut answer = json!({ "description": meaning(status), "headers": { "x-portkey-request-id": id } });
    match status {
        401 => answer["headers"]["www-authenticate"] = header("string", "the scheme that is expected"),
        429 | 503 => answer["headers"]["retry-after"] = header("integer", "after how long to try again, s"),
        _ => {}
    }
    if !content.is_empty() {
        let content = content.iter().map(|(media, schema)| ((*media).to_owned(), json!({ "schema": schema })));
        answer["content"] = Value::Object(content.collect::<Map<String, Value>>());
    }
    answer
}

fn header(of: &str, doc: &str) -> Value {
    json!({ "description": doc, "schema": { "type": of } })
}

const FAILURES: [u16; 17] = [400, 401, 403, 404, 406, 408, 409, 413, 414, 415, 422, 429, 500, 502, 503, 504, 505];

/// What a status means here.
fn meaning(status: u16) -> &'static str {
    match status {
        200 => "What was asked for.",
        201 => "It was made.",
        202 => "It is so from now on; the files follow.",
        206 => "A part of it.",
        304 => "What there is already is the file.",
        400 => "The request is wrong; the message names the field, its value and what was expected.",
        401 => "The API key is missing, unknown, revoked or expired.",
        403 => "The API key does not allow this.",
        404 => "There is no such thing, or not for this key.",
        406 => "None of the types in `accept` is offered.",
        408 => "The body stopped coming.",
        409 => "The state of things does not allow this; the message says what does.",
        413 => "The body is too large.",
        414 => "The URL has more than 64 KiB.",
        415 => "The body is packed in a way that is not taken.",
        416 => "The range begins behind the end.",
        422 => "The request was understood, and is more work than its limits allow.",
        429 => "There is no room at the moment; send the same again.",
        502 => "The gateway could not be reached, or broke off.",
        503 => "The store cannot be reached, or the server is closing.",
        504 => "The gateway did not answer in time.",
        505 => "HTTP/1.0 cannot show that a streamed answer broke off; ask with HTTP/1.1.",
        _ => "A defect of gatelog; its log says more under the request's id.",
    }
}
