//! The document of the API against the server: every operation is called by the document's own
//! examples and with things that are there, and whatever comes back must be what the document says
//! of it.

use std::collections::BTreeSet;

use super::*;

/// Operations that have no answer but failures here, and why.
const NO_SUCCESS: [&str; 1] = [
    // It needs a gateway; the tests of replays have one.
    "sendReplay",
];

struct Told {
    server: Server,
    document: Value,
    /// Operations that were answered without failure.
    answered: BTreeSet<String>,
}

/// An operation with its place in the document.
#[derive(Clone)]
struct Place {
    method: Method,
    path: String,
    operation: Value,
}

impl Place {
    fn id(&self) -> &str {
        self.operation["operationId"].as_str().unwrap()
    }

    fn parameters(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(move |parameter| parameter["in"] == kind)
    }

    /// The path with these values, or with the examples.
    fn filled(&self, given: &[&str]) -> String {
        let mut given = given.iter();
        let mut path = self.path.clone();
        for parameter in self.parameters("path") {
            let example = parameter["example"].as_str().unwrap();
            let value = given.next().copied().unwrap_or(example);
            path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), value);
        }
        path
    }

    /// The query string of the examples: of what is required, or of everything.
    fn query(&self, all: bool) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for parameter in
            self.parameters("query").filter(|parameter| all || parameter["required"] == true)
        {
            let (name, mut example) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
            if example.is_null() {
                example = &parameter["content"]["application/json"]["example"];
            }
            match example {
                Value::String(text) => query.append_pair(name, text),
                Value::Array(items) => {
                    let items = items
                        .iter()
                        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                    query.append_pair(name, &items.collect::<Vec<_>>().join(","))
                }
                Value::Object(fields) if parameter["explode"] == true => query.extend_pairs(
                    fields.iter().map(|(name, value)| (name, value.as_str().unwrap())),
                ),
                other => query.append_pair(name, &other.to_string()),
            };
        }
        query.finish()
    }

    /// The body of the examples, with its media type.
    fn body(&self) -> Option<(String, String)> {
        let (media, content) =
            self.operation["requestBody"]["content"].as_object()?.iter().next()?;
        let example = &content["example"];
        Some((media.clone(), example.as_str().map_or_else(|| example.to_string(), str::to_owned)))
    }
}

impl Told {
    async fn new() -> Self {
        let server = Server::start_with(|config| config.share_links = true).await;
        let answer = server.bare(Method::GET, "/openapi.json").send().await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        Self { server, document, answered: BTreeSet::new() }
    }

    fn places(&self) -> Vec<Place> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let places = paths.flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(|(method, operation)| {
                let mut operation = operation.clone();
                let parameters = operation["parameters"].as_array_mut().unwrap().iter_mut();
                parameters.for_each(|parameter| *parameter = self.found(parameter));
                let responses = operation["responses"].as_object_mut().unwrap().values_mut();
                responses.for_each(|response| *response = self.found(response));
                Place {
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    operation,
                }
            })
        });
        places.collect()
    }

    fn place(&self, id: &str) -> Place {
        self.places()
            .into_iter()
            .find(|place| place.id() == id)
            .unwrap_or_else(|| panic!("no operation {id}"))
    }

    /// Calls an operation; checks that status, content type and body are those of the document.
    /// Gives status and body.
    async fn call(
        &mut self,
        place: &Place,
        path: &str,
        body: Option<(String, String)>,
    ) -> (u16, Value) {
        let at = format!("{} {path}", place.method);
        let keyed = place.operation["security"] != json!([]);
        let mut request = self.server.bare(place.method.clone(), path);
        if keyed {
            request = request.header("x-portkey-api-key", KEY);
        }
        if let Some((media, text)) = body {
            request = request.header("content-type", media).body(text);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let media =
            response.headers().get("content-type").map(|media| media.to_str().unwrap().to_owned());
        let text = String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned();
        assert!(!status.is_server_error(), "{at}: {status} {text}");
        let told = &place.operation["responses"][status.as_str()];
        assert!(told.is_object(), "{at}: the document does not have {status}: {text}");
        let media = media.unwrap_or_default();
        let plain = media.split(';').next().unwrap();
        let content = told["content"].as_object().unwrap();
        let schema = content.iter().find(|(known, _)| known.split(';').next() == Some(plain));
        let (_, content) = schema
            .unwrap_or_else(|| panic!("{at}: the document does not have {media} for {status}"));
        let mut value = Value::String(text.clone());
        if plain == "application/json" {
            value = serde_json::from_str(&text).unwrap();
        }
        if let Err(why) = self.check(&content["schema"], &value) {
            panic!("{at}: {status} is not what the document says: {why}\n{text}");
        }
        if status.is_success() {
            self.answered.insert(place.id().to_owned());
        }
        (status.as_u16(), value)
    }

    /// Calls an operation by its examples, but for these parts of the path.
    async fn by_example(&mut self, id: &str, parts: &[&str]) -> (u16, Value) {
        let place = self.place(id);
        let path = format!("{}?{}", place.filled(parts), place.query(false));
        let body = place.body();
        self.call(&place, path.trim_end_matches('?'), body).await
    }

    async fn with_body(&mut self, id: &str, parts: &[&str], body: Value) -> (u16, Value) {
        let place = self.place(id);
        self.call(
            &place,
            &place.filled(parts),
            Some(("application/json".to_owned(), body.to_string())),
        )
        .await
    }

    /// What a reference leads to, or the value itself.
    fn found(&self, value: &Value) -> Value {
        match value["$ref"].as_str() {
            Some(target) => {
                self.document.pointer(target.strip_prefix('#').unwrap()).unwrap().clone()
            }
            None => value.clone(),
        }
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = &self.found(schema);
        if let Some(choices) = schema["anyOf"].as_array() {
            let found: Vec<_> = choices.iter().map(|choice| self.check(choice, value)).collect();
            if found.iter().all(Result::is_err) {
                return Err(format!("{found:?}"));
            }
        }
        if let Some(constant) = schema.get("const") {
            return if constant == value {
                Ok(())
            } else {
                Err(format!("{value} is not {constant}"))
            };
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return Ok(()),
        };
        let is = |kind: &&str| match *kind {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => other == "null" && value.is_null(),
        };
        if !kinds.iter().any(is) {
            return Err(format!("{value} is none of {kinds:?}"));
        }
        if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.contains(value))
        {
            return Err(format!("{value} is none of {choices:?}"));
        }
        if let (Some("date-time"), Some(text)) = (schema["format"].as_str(), value.as_str()) {
            chrono::DateTime::parse_from_rfc3339(text)
                .map_err(|cause| format!("{text}: {cause}"))?;
        }
        for item in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], item).map_err(|why| format!("item: {why}"))?;
        }
        let Some(fields) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                return Err(format!("`{name}` is missing"));
            }
        }
        for (name, field) in fields {
            let told = match schema["properties"].get(name) {
                Some(told) => told,
                None if schema["additionalProperties"] == false => {
                    return Err(format!("`{name}` is not told"));
                }
                None => &schema["additionalProperties"],
            };
            self.check(told, field).map_err(|why| format!("`{name}`: {why}"))?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_document_says() {
    let mut told = Told::new().await;
    assert_eq!(told.by_example("createOrganisation", &[]).await.0, 201);
    let key = told.by_example("createKey", &[]).await.1["id"].as_str().unwrap().to_owned();
    let record = json!({
        "id": "one", "organisation_id": "acme", "trace_id": "t-1", "workspace_slug": "search", "user_id": "ana", "config": "c",
        "prompt_slug": "p", "metadata": { "team": "x", "_user": "ana" }, "ai_org": "openai", "ai_model": "gpt-4o", "cost": 0.5,
        "total_units": 3, "cache_status": "HIT", "mode": "FALLBACK", "retry_success_count": 1, "response_status_code": 200,
        "request_url": "https://api.openai.com/v1/chat/completions", "request": { "body": { "model": "gpt-4o" } },
        "response": { "body": { "a": 1 } },
    });
    let failed = json!({ "organisation_id": "acme", "ai_model": "gpt-4o", "response_status_code": 429, "trace_id": "t-2" });
    assert_eq!(told.with_body("ingest", &[], json!([record, failed])).await.1["accepted"], 2);
    for (trace, value) in [("t-1", 5), ("t-2", -10)] {
        let body = json!({ "trace_id": trace, "value": value, "organisation_id": "acme" });
        told.with_body("giveFeedback", &[], body).await;
    }
    let given = told.with_body("giveFeedback", &[], json!({ "log_id": "one", "value": 1 })).await.1;
    let feedback = given["feedback_ids"][0].as_str().unwrap();
    for operation in ["getFeedback", "changeFeedback", "changeFeedbackPost"] {
        assert_eq!(told.by_example(operation, &[feedback]).await.0, 200, "{operation}");
    }
    for operation in ["getLog", "openLog", "getReplay", "shareLog", "listShares"] {
        let (status, answer) = told.by_example(operation, &["one"]).await;
        assert!(status < 300, "{operation}: {answer}");
        if operation == "shareLog" {
            let token = answer["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            assert_eq!(told.by_example("openShared", &[&token]).await.0, 200);
            assert_eq!(
                told.by_example("revokeShare", &[answer["id"].as_str().unwrap()]).await.0,
                200
            );
        }
    }
    let filter = told.place("saveFilter");
    told.call(&filter, "/v1/logs/filters/failures?organisation_id=acme", filter.body()).await;
    told.by_example("listSavedFilters", &[]).await;
    let filter = told.place("deleteSavedFilter");
    told.call(&filter, "/v1/logs/filters/failures?organisation_id=acme", None).await;
    let export =
        told.with_body("createExport", &[], json!({})).await.1["id"].as_str().unwrap().to_owned();
    for operation in ["getExport", "changeExport", "startExport", "cancelExport", "startExport"] {
        told.by_example(operation, &[&export]).await;
    }
    let link = loop {
        let (status, link) = told.by_example("downloadExport", &[&export]).await;
        if status == 200 {
            break link["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        }
        told.by_example("startExport", &[&export]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    told.by_example("exportFile", &[&link]).await;
    assert_eq!(told.by_example("revokeKey", &[&key]).await.0, 200);
    assert_eq!(told.by_example("listLogs", &[]).await.1["data"].as_array().unwrap().len(), 2);

    let last = ["deleteOrganisation", "takeBackProvider"];
    let places = told.places();
    for place in places.iter().filter(|place| !last.contains(&place.id())) {
        let query = format!("?{}", place.query(false));
        told.call(place, &format!("{}{query}", place.filled(&[])), place.body()).await;
        told.call(place, &format!("{}?{}", place.filled(&[]), place.query(true)), place.body())
            .await;
    }
    let place = told.place("takeBackProvider");
    told.call(&place, "/v1/admin/archived-providers/openai-main?organisation=acme", None).await;
    assert_eq!(told.by_example("deleteOrganisation", &[]).await.0, 202);

    let failed: Vec<&str> =
        places.iter().map(Place::id).filter(|id| !told.answered.contains(*id)).collect();
    assert_eq!(failed, NO_SUCCESS, "operations that failed each time");
    told.server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_each_route_asks_of_a_key() {
    let mut told = Told::new().await;
    let places = told.places();
    assert!(places.len() > 80, "{} operations", places.len());
    for place in &places {
        let keyed = place.operation["security"].as_array().unwrap();
        let path = place.filled(&[]);
        let bare = told.server.bare(place.method.clone(), &path).send().await.unwrap();
        assert_eq!(
            bare.status() == StatusCode::UNAUTHORIZED,
            !keyed.is_empty(),
            "{} {path}",
            place.method
        );
        if !keyed.is_empty() {
            assert_eq!(bare.headers()["www-authenticate"], "Bearer realm=\"gatelog\"");
            let schemes: BTreeSet<&str> = keyed
                .iter()
                .flat_map(|one| one.as_object().unwrap().keys().map(String::as_str))
                .collect();
            assert_eq!(schemes, ["bearer", "key"].into());
        }
    }
    assert_eq!(told.by_example("openapi", &[]).await.0, 200);
    told.server.end().await;
}
