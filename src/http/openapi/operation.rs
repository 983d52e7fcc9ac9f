//! One operation of the document: a method of a path, what it takes, and every answer that it can give.

use serde_json::{Value, json};

use super::schema::refer;

pub(super) const JSON: &str = "application/json";

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
        Self { method, route, path: route.to_owned(), value }
    }

    pub(super) fn get(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("GET", route, id, summary)
    }

    pub(super) fn post(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("POST", route, id, summary)
    }

    pub(super) fn put(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("PUT", route, id, summary)
    }

    pub(super) fn delete(route: &'static str, id: &str, summary: &str) -> Self {
        Self::new("DELETE", route, id, summary)
    }

    /// Its path, where the route stands for several.
    pub(super) fn at(self, path: String) -> Self {
        Self { path, ..self }
    }

    /// More than fits the summary.
    pub(super) fn says(mut self, description: &str) -> Self {
        self.value["description"] = description.into();
        self
    }

    /// Its parameters.
    pub(super) fn takes(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        if let Value::Array(all) = &mut self.value["parameters"] {
            all.extend(parameters);
        }
        self
    }

    /// Its body, in one or several media types, with an example.
    pub(super) fn body(mut self, required: bool, media: &[&str], schema: &Value, example: &Value) -> Self {
        let content: serde_json::Map<String, Value> =
            media.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema, "example": example }))).collect();
        self.value["requestBody"] = json!({ "required": required, "content": content });
        self.fails(&[400, 408, 413])
    }

    /// The same in a form that is no JSON.
    pub(super) fn or_body(mut self, media: &str, schema: &Value, example: &str) -> Self {
        self.value["requestBody"]["content"][media] = json!({ "schema": schema, "example": example });
        self
    }

    /// An answer without failure.
    pub(super) fn answers(mut self, status: u16, doc: &str, content: &[(&str, Value)]) -> Self {
        let content: serde_json::Map<String, Value> =
            content.iter().map(|(media, schema)| ((*media).to_owned(), json!({ "schema": schema }))).collect();
        self.value["responses"][status.to_string()] = answer(doc, &Value::Object(content));
        self
    }

    /// The same as JSON.
    pub(super) fn answers_json(self, status: u16, doc: &str, schema: Value) -> Self {
        self.answers(status, doc, &[(JSON, schema)])
    }

    /// Headers of the answer with that status.
    pub(super) fn with_headers(mut self, status: u16, headers: &[(&str, Value)]) -> Self {
        for (name, schema) in headers {
            self.value["responses"][status.to_string()]["headers"][*name] =
                json!({ "description": schema["description"], "schema": schema });
        }
        self
    }

    /// Operations that take up what the answer with that status names: each with a parameter, and where its value stands.
    pub(super) fn leads_to(mut self, status: u16, to: &[(&str, &str, &str)]) -> Self {
        for (id, parameter, place) in to {
            self.value["responses"][status.to_string()]["links"][*id] =
                json!({ "operationId": id, "parameters": { *parameter: place } });
        }
        self
    }

    /// Failures, each in the one envelope.
    pub(super) fn fails(self, statuses: &[u16]) -> Self {
        self.fails_in(&[JSON], statuses)
    }

    /// The same in other media types too.
    pub(super) fn fails_in(mut self, media: &[&str], statuses: &[u16]) -> Self {
        for status in statuses {
            let content: serde_json::Map<String, Value> = media
                .iter()
                .map(|media| {
                    let schema = if *media == JSON { refer("Failure") } else { json!({}) };
                    ((*media).to_owned(), json!({ "schema": schema }))
                })
                .collect();
            let mut failure = answer(why(*status), &Value::Object(content));
            if matches!(status, 429 | 503) {
                failure["headers"]["retry-after"] = json!({
                    "description": "after how long to try again, s", "schema": { "type": "integer" },
                });
            }
            if *status == 401 {
                failure["headers"]["www-authenticate"] =
                    json!({ "description": "the scheme that is expected", "schema": { "type": "string" } });
            }
            self.value["responses"][status.to_string()] = failure;
        }
        self
    }
}

fn answer(doc: &str, content: &Value) -> Value {
    let id = json!({ "$ref": "#/components/headers/RequestId" });
    let mut answer = json!({ "description": doc, "headers": { "x-portkey-request-id": id } });
    if content.as_object().is_some_and(|content| !content.is_empty()) {
        answer["content"] = content.clone();
    }
    answer
}

/// What a status means here.
fn why(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong; the message names the field, its value and what was expected.",
        401 => "The API key is missing, unknown, revoked or expired.",
        403 => "The API key does not allow this.",
        404 => "There is no such thing, or not for this key.",
        406 => "None of the types in `accept` is offered.",
        408 => "The body stopped coming.",
        409 => "The state of things does not allow this; the message says what does.",
        413 => "The body is too large.",
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

/// A parameter of the query string that may be missing.
#[expect(clippy::needless_pass_by_value, reason = "it is made where it is handed in")]
pub(super) fn query(name: &str, schema: Value, example: impl Into<Value>) -> Value {
    let description = schema["description"].clone();
    json!({
        "name": name, "in": "query", "required": false, "description": description, "schema": schema,
        "example": example.into(),
    })
}

/// The same, which may not.
pub(super) fn required(mut parameter: Value) -> Value {
    parameter["required"] = true.into();
    parameter
}

/// Several values with commas between.
pub(super) fn commas(name: &str, items: &Value, most: usize, doc: &str, example: Value) -> Value {
    let schema = json!({ "type": "array", "items": items, "minItems": 1, "maxItems": most, "description": doc });
    let mut parameter = query(name, schema, example);
    parameter["style"] = "form".into();
    parameter["explode"] = false.into();
    parameter
}

/// A part of the path.
pub(super) fn part(name: &str, schema: Value, example: impl Into<Value>) -> Value {
    let mut parameter = query(name, schema, example);
    parameter["in"] = "path".into();
    required(parameter)
}

/// A header.
pub(super) fn header(name: &str, schema: Value, example: impl Into<Value>) -> Value {
    let mut parameter = query(name, schema, example);
    parameter["in"] = "header".into();
    parameter
}
