//! Reads the content of spans of the AI SDK, of embeddings in OpenInference, of Langfuse and of
//! MLflow, if the spans hold it under no other convention.
//!
//! The attributes that were used are added to `used`. All others go into the response's body as
//! they arrived.

use std::collections::BTreeMap;

use super::any::{Any, Attributes, find};
use super::content::Content;
use super::messages::tool_call;
use super::object::{Object, quoted};
use crate::ingest::usage::get;
use crate::record::json::{list, members, unquote};

/// Prefix and suffix of the attributes with texts to embed. The number of the text is between them.
const EMBEDDED: (&str, &str) = ("embedding.embeddings.", ".embedding.text");
/// Attributes that hold the whole request, or its input.
const REQUESTS: [&str; 3] = ["langfuse.observation.input", "mlflow.spanInputs", "ai.prompt"];
/// Attributes that hold the whole response, or its text.
const RESPONSES: [&str; 2] = ["langfuse.observation.output", "mlflow.spanOutputs"];
const VALUES: [&str; 2] = ["ai.values", "ai.value"];

/// Reads the content of the request. Returns true if there was any.
pub(super) fn asked(
    content: &mut Content,
    attributes: &Attributes,
    used: &mut Vec<&'static str>,
) -> bool {
    if let Some(texts) = embedded(attributes) {
        used.push(EMBEDDED.0);
        content.take_input(texts);
        return true;
    }
    if let Some((name, messages)) = first(attributes, &["ai.prompt.messages"]) {
        used.push(name);
        content.prompt(messages.json());
        return true;
    }
    if let Some((name, values)) = first(attributes, &VALUES) {
        used.push(name);
        content.take_input(serialised(values));
        return true;
    }
    // OpenInference's own name takes precedence over these.
    let whole =
        first(attributes, &REQUESTS).filter(|_| find(attributes, &["input.value"]).is_none());
    whole.is_some_and(|(name, request)| {
        used.push(name);
        content.whole_request(request.json());
        true
    })
}

/// Reads the content of the response. Returns true if there was any.
pub(super) fn answered(
    content: &mut Content,
    attributes: &Attributes,
    used: &mut Vec<&'static str>,
) -> bool {
    const ANSWERS: [&str; 2] = ["ai.response.text", "ai.response.object"];
    const CALLS: &str = "ai.response.toolCalls";
    const REASONING: &str = "ai.response.reasoning";
    let answer = first(attributes, &ANSWERS);
    let calls = first(attributes, &[CALLS]);
    if answer.is_some() || calls.is_some() {
        let mut message = Object::new().text("role", "assistant");
        message.add_raw(
            "content",
            &answer
                .and_then(|(_, text)| text.text())
                .map_or("null".to_owned(), |text| quoted(&text)),
        );
        used.extend(answer.map(|(name, _)| name));
        if let Some((name, reasoning)) = first(attributes, &[REASONING]) {
            used.push(name);
            message.add_raw("reasoning_content", &quoted(&reasoning.text().unwrap_or_default()));
        }
        if let Some(calls) = calls.and_then(|(_, calls)| tool_calls(&calls.json())) {
            used.push(CALLS);
            message.add_raw("tool_calls", &calls);
        }
        let reason = find(attributes, &["ai.response.finishReason"]).and_then(Any::text);
        content.choice(&message.end(), reason.as_deref());
        return true;
    }
    let whole =
        first(attributes, &RESPONSES).filter(|_| find(attributes, &["output.value"]).is_none());
    whole.is_some_and(|(name, response)| {
        used.push(name);
        content.whole_response(response.json());
        true
    })
}

/// Returns true if an attribute was used.
pub(super) fn is_used(key: &str, used: &[&'static str]) -> bool {
    used.contains(&key) || (used.contains(&EMBEDDED.0) && number_of_text(key).is_some())
}

fn first<'a>(
    attributes: &'a Attributes,
    names: &[&'static str],
) -> Option<(&'static str, &'a Any)> {
    names.iter().find_map(|name| Some((*name, find(attributes, &[name])?)))
}

/// Returns the texts to embed: a single one as it is, several as a list.
fn embedded(attributes: &Attributes) -> Option<String> {
    let texts = attributes
        .iter()
        .filter_map(|(key, value)| Some((number_of_text(key)?, quoted(&value.text()?))));
    let mut texts: Vec<String> = texts.collect::<BTreeMap<u32, String>>().into_values().collect();
    match texts.len() {
        0 => None,
        1 => texts.pop(),
        _ => Some(format!("[{}]", texts.join(","))),
    }
}

fn number_of_text(key: &str) -> Option<u32> {
    key.strip_prefix(EMBEDDED.0)?.strip_suffix(EMBEDDED.1)?.parse().ok()
}

/// Returns a value that the AI SDK encoded as a JSON text, or a list of such texts.
fn serialised(value: &Any) -> String {
    let opened = |text: &str| match serde_json::from_str::<String>(text) {
        Ok(inner) => quoted(&inner),
        Err(_) => quoted(text),
    };
    match value {
        Any::Text(text) => opened(text),
        Any::List(values) => {
            let values: Vec<String> =
                values.iter().filter_map(Any::text).map(|text| opened(&text)).collect();
            format!("[{}]", values.join(","))
        }
        other => other.json(),
    }
}

/// Converts the AI SDK's tool calls to OpenAI's format.
fn tool_calls(array: &str) -> Option<String> {
    let calls = list(array)?.into_iter().map(openai_call).collect::<Option<Vec<_>>>()?;
    Some(format!("[{}]", calls.join(",")))
}

fn openai_call(raw: &str) -> Option<String> {
    let of = members(raw)?;
    let [id, name] = ["toolCallId", "toolName"].map(|name| get(&of, &[name]).unwrap_or("\"\""));
    let arguments = get(&of, &["input", "args"]).unwrap_or("{}");
    let arguments = if arguments.starts_with('"') {
        unquote(arguments).into_owned()
    } else {
        arguments.to_owned()
    };
    Some(tool_call(id, name, &quoted(&arguments)))
}
