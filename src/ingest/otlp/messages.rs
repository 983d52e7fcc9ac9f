//! Converts messages with parts, and messages that are JSON in texts, to OpenAI's messages.

use std::borrow::Cow;

use super::any::held_json;
use super::object::{Object, quoted};
use crate::ingest::usage::get;
use crate::record::json::{list, members, unquote};

/// Adds the messages of an array. A message that is not an object becomes one of the given role.
pub(super) fn push_messages(array: &str, role: &str, messages: &mut Vec<String>) {
    for message in list(array).unwrap_or_default() {
        message_of_parts(&as_message(message, role), messages);
    }
}

/// Returns a message as an object. A text that holds JSON is opened; any other text becomes the
/// content of a message of the role.
fn as_message<'a>(raw: &'a str, role: &str) -> Cow<'a, str> {
    if !raw.starts_with('"') {
        return Cow::Borrowed(raw);
    }
    let message = held(raw).filter(|held| held.starts_with('{'));
    Cow::Owned(
        message.unwrap_or_else(|| Object::new().text("role", role).raw("content", raw).end()),
    )
}

/// Adds the messages of an array as choices.
pub(super) fn push_choices(array: &str, choices: &mut Vec<String>) {
    for message in list(array).unwrap_or_default() {
        let message = &*as_message(message, "assistant");
        let mut flat = Vec::new();
        message_of_parts(message, &mut flat);
        let reason = members(message).and_then(|members| get(&members, &["finish_reason"]));
        for message in flat {
            let index = choices.len().to_string();
            let mut choice = Object::new().raw("index", &index).raw("message", &message);
            if let Some(reason) = reason {
                choice.add_raw("finish_reason", reason);
            }
            choices.push(choice.end());
        }
    }
}

/// Returns the JSON that a JSON string holds.
fn held(raw: &str) -> Option<String> {
    raw.starts_with('"').then(|| held_json(&unquote(raw))).flatten()
}

/// Converts a message with parts to one with `content` and `tool_calls`, and to one message for
/// each tool result in it.
fn message_of_parts(raw: &str, messages: &mut Vec<String>) {
    let message = members(raw).unwrap_or_default();
    let role = get(&message, &["role"]).unwrap_or("\"user\"");
    let parts = get(&message, &["parts"]);
    let opened = parts.and_then(held);
    match parts.map(|parts| (parts, list(opened.as_deref().unwrap_or(parts)))) {
        Some((_, Some(parts))) => Parts::from_parts(&parts).push(role, messages),
        Some((text, None)) if text.starts_with('"') => {
            messages.push(Object::new().raw("role", role).raw("content", text).end());
        }
        _ => messages.push(raw.to_owned()),
    }
}

/// Parts of a message, sorted by their place in OpenAI's format.
#[derive(Default)]
struct Parts {
    contents: Vec<String>,
    /// Number of contents that are texts.
    texts: usize,
    calls: Vec<String>,
    /// Messages of their own.
    results: Vec<String>,
    reasoning: Option<String>,
}

impl Parts {
    fn from_parts(parts: &[&str]) -> Self {
        let mut sorted = Self::default();
        for part in parts {
            let opened = held(part);
            sorted.add(opened.as_deref().unwrap_or(part));
        }
        sorted
    }

    fn add(&mut self, part: &str) {
        let of = members(part).unwrap_or_default();
        let kind = get(&of, &["type"]).map(unquote).unwrap_or_default();
        let is_text = part.starts_with('"');
        let text = get(&of, &["content"]).filter(|raw| raw.starts_with('"'));
        match (&*kind, text.or(is_text.then_some(part))) {
            (kind, Some(text)) if kind == "text" || is_text => {
                self.texts += 1;
                self.contents.push(text.to_owned());
            }
            ("reasoning", Some(text)) => self.reasoning = Some(text.to_owned()),
            ("tool_call", _) => {
                let arguments = get(&of, &["arguments"]).unwrap_or("{}");
                let arguments = if arguments.starts_with('"') {
                    arguments.to_owned()
                } else {
                    quoted(arguments)
                };
                let [id, name] = ["id", "name"].map(|name| get(&of, &[name]).unwrap_or("\"\""));
                self.calls.push(tool_call(id, name, &arguments));
            }
            ("tool_call_response", _) => {
                let mut result = Object::new().text("role", "tool");
                if let Some(id) = get(&of, &["id"]) {
                    result.add_raw("tool_call_id", id);
                }
                result.add_raw("content", get(&of, &["response", "result"]).unwrap_or("null"));
                self.results.push(result.end());
            }
            _ => self.contents.push(part.to_owned()),
        }
    }

    fn push(self, role: &str, messages: &mut Vec<String>) {
        let is_results =
            !self.results.is_empty() && self.contents.is_empty() && self.calls.is_empty();
        messages.extend(self.results);
        if is_results {
            return;
        }
        let mut out = Object::new().raw("role", role);
        out.add_raw("content", &content_of(self.contents, self.texts));
        if let Some(reasoning) = self.reasoning {
            out.add_raw("reasoning_content", &reasoning);
        }
        if !self.calls.is_empty() {
            out.add_raw("tool_calls", &format!("[{}]", self.calls.join(",")));
        }
        messages.push(out.end());
    }
}

/// Returns a single text as it is, and several contents, or one that is not a text, as a list.
fn content_of(mut contents: Vec<String>, texts: usize) -> String {
    match contents.len() {
        0 => "null".to_owned(),
        1 if texts == 1 => contents.remove(0),
        _ => {
            format!(
                "[{}]",
                contents.iter().map(|raw| content_part(raw)).collect::<Vec<_>>().join(",")
            )
        }
    }
}

fn content_part(raw: &str) -> String {
    if raw.starts_with('"') {
        return Object::new().text("type", "text").raw("text", raw).end();
    }
    raw.to_owned()
}

/// Builds a tool call in OpenAI's format. Every argument is JSON.
pub(super) fn tool_call(id: &str, name: &str, arguments: &str) -> String {
    let function = Object::new().raw("name", name).raw("arguments", arguments).end();
    Object::new().raw("id", id).text("type", "function").raw("function", &function).end()
}
