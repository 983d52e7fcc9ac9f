//! Prompts and completions, out of attributes and events of every convention, as the bodies of a request and a
//! response.
//!
//! The bodies have OpenAI's shape, the one that reports, exports and replay of other records meet: a message of parts
//! becomes one with `content` and `tool_calls`; what has no place there stays as it came. Sources are asked in order,
//! newest convention first, and the first that holds anything is taken, so that text which a source repeats is not kept
//! twice.

use std::collections::BTreeMap;

use super::any::{Any, Attributes, find};
use super::export::Event;
use crate::ingest::usage::get;
use crate::record::json::{list, members, unquote, write_string};

/// What was said in a call. Every text is JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Messages of the request.
    messages: Vec<String>,
    /// A prompt, or the input of an embedding, that is no list of messages.
    input: Option<String>,
    /// The whole body of the request.
    asked: Option<String>,
    /// Choices of the response.
    choices: Vec<String>,
    /// The whole body of the response.
    reply: Option<String>,
}

/// Attributes that [`Content::of_span`] reads, and so are no metadata; so is what begins with one of [`PREFIXES`].
pub(super) const NAMES: [&str; 9] = [
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.completion",
    "input.value",
    "output.value",
    "input.mime_type",
    "output.mime_type",
];
/// Messages whose number is a part of the attribute's name.
pub(super) const PREFIXES: [&str; 6] = [
    "gen_ai.prompt.",
    "gen_ai.completion.",
    "llm.prompts.",
    "llm.completions.",
    "llm.input_messages.",
    "llm.output_messages.",
];
/// Names that begin like a numbered message and are none.
pub(super) const NOT_MESSAGES: [&str; 2] = ["gen_ai.prompt.name", "gen_ai.prompt.version"];

impl Content {
    /// What a span says, in its attributes or else in its events.
    pub(super) fn of_span(attributes: &Attributes, events: &[Event]) -> Self {
        let mut said = Self::of_attributes(attributes);
        let mut told = Self::default();
        events.iter().for_each(|event| told.add(event));
        said.fill(told);
        said
    }

    fn of_attributes(attributes: &Attributes) -> Self {
        let mut content = Self::default();
        if let Some(system) = find(attributes, &["gen_ai.system_instructions"]) {
            let parts = system.json();
            push_messages(&format!("[{{\"role\":\"system\",\"parts\":{parts}}}]"), &mut content.messages);
        }
        if let Some(messages) = find(attributes, &["gen_ai.input.messages"]) {
            push_messages(&messages.json(), &mut content.messages);
        } else if !content.number(attributes, &PREFIXES[..1]) {
            match find(attributes, &["gen_ai.prompt"]).map(Any::json) {
                Some(prompt) if list(&prompt).is_some() => push_messages(&prompt, &mut content.messages),
                Some(prompt) => content.input = Some(prompt),
                None if content.number(attributes, &["llm.prompts.", "llm.input_messages."]) => {}
                None => content.whole(attributes),
            }
        }
        if let Some(messages) = find(attributes, &["gen_ai.output.messages"]) {
            push_choices(&messages.json(), &mut content.choices);
            return content;
        }
        for prefix in ["gen_ai.completion.", "llm.completions.", "llm.output_messages."] {
            if content.choices.is_empty() {
                for (message, finish) in numbered(attributes, prefix) {
                    content.choice(&message, finish.as_deref());
                }
            }
        }
        if content.choices.is_empty() {
            match find(attributes, &["gen_ai.completion"]).map(Any::json) {
                Some(completion) if list(&completion).is_some() => push_choices(&completion, &mut content.choices),
                Some(text) => {
                    content.choice(&Object::new().text("role", "assistant").raw("content", &text).end(), None)
                }
                None => content.reply = find(attributes, &["output.value"]).map(Any::json),
            }
        }
        content
    }

    /// Takes messages with numbered names; says whether there were any.
    fn number(&mut self, attributes: &Attributes, prefixes: &[&str]) -> bool {
        let mut found = false;
        for prefix in prefixes {
            for (message, _) in numbered(attributes, prefix) {
                self.messages.push(message);
                found = true;
            }
        }
        found
    }

    /// `input.value` is the whole request where it is an object, else what was asked.
    fn whole(&mut self, attributes: &Attributes) {
        match find(attributes, &["input.value"]).map(Any::json) {
            Some(input) if members(&input).is_some() => self.asked = Some(input),
            input => self.input = input,
        }
    }

    /// Adds what an event says, if it is one that says something.
    pub(super) fn add(&mut self, event: &Event) {
        let of = &event.attributes;
        match event.name.as_str() {
            "gen_ai.client.inference.operation.details" | "gen_ai.content.prompt" | "gen_ai.content.completion" => {
                let mut all = of.clone();
                if let Any::Map(body) = &event.body {
                    all.extend(body.iter().cloned());
                }
                self.fill(Self::of_attributes(&all));
            }
            "gen_ai.choice" => {
                let body = payload(event);
                let Some(choice) = members(&body) else { return };
                if get(&choice, &["message"]).is_some() {
                    self.choices.push(body);
                } else {
                    self.choice(&body, get(&choice, &["finish_reason"]).map(unquote).as_deref());
                }
            }
            name => {
                let role = name.strip_prefix("gen_ai.").and_then(|name| name.strip_suffix(".message"));
                let Some(role) = role.filter(|role| ["system", "user", "assistant", "tool"].contains(role)) else {
                    return;
                };
                let body = payload(event);
                let Some(said) = members(&body) else { return };
                let mut message = Object::new();
                if get(&said, &["role"]).is_none() {
                    message.add_text("role", role);
                }
                for (key, raw) in said {
                    message.add_raw(if role == "tool" && key == "id" { "tool_call_id" } else { &key }, raw);
                }
                self.messages.push(message.end());
            }
        }
    }

    fn choice(&mut self, message: &str, finish_reason: Option<&str>) {
        let index = self.choices.len().to_string();
        let mut choice = Object::new().raw("index", &index).raw("message", message);
        if let Some(reason) = finish_reason {
            choice.add_text("finish_reason", reason);
        }
        self.choices.push(choice.end());
    }

    /// Takes from another what this one does not say.
    fn fill(&mut self, other: Self) {
        if !self.is_asked() {
            (self.messages, self.input, self.asked) = (other.messages, other.input, other.asked);
        }
        if !self.is_answered() {
            (self.choices, self.reply) = (other.choices, other.reply);
        }
    }

    /// Adds what a later event of the same span says.
    pub(super) fn extend(&mut self, later: Self) {
        self.messages.extend(later.messages);
        self.choices.extend(later.choices);
        self.input = self.input.take().or(later.input);
        self.asked = self.asked.take().or(later.asked);
        self.reply = self.reply.take().or(later.reply);
    }

    /// Whether it says what was asked.
    pub(super) fn is_asked(&self) -> bool {
        !self.messages.is_empty() || self.input.is_some() || self.asked.is_some()
    }

    /// Whether it says what was answered.
    pub(super) fn is_answered(&self) -> bool {
        !self.choices.is_empty() || self.reply.is_some()
    }

    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_asked() && !self.is_answered()
    }

    /// The body of the request, with the parameters that the span states.
    pub(super) fn request(&self, is_chat: bool, parameters: Object) -> String {
        if let Some(asked) = &self.asked {
            return asked.clone();
        }
        let mut body = parameters;
        if !self.messages.is_empty() {
            body.add_raw("messages", &format!("[{}]", self.messages.join(",")));
        } else if let Some(input) = &self.input {
            if is_chat && input.starts_with('"') {
                let message = Object::new().text("role", "user").raw("content", input).end();
                body.add_raw("messages", &format!("[{message}]"));
            } else {
                body.add_raw("input", input);
            }
        }
        body.end()
    }

    /// The body of the response: the choices after what the span states of it.
    pub(super) fn response(&self, stated: Object) -> String {
        match &self.reply {
            Some(reply) if members(reply).is_some() => reply.clone(),
            Some(text) => {
                let message = Object::new().text("role", "assistant").raw("content", text).end();
                let choice = Object::new().raw("index", "0").raw("message", &message).end();
                stated.raw("choices", &format!("[{choice}]")).end()
            }
            None if self.choices.is_empty() => stated.end(),
            None => stated.raw("choices", &format!("[{}]", self.choices.join(","))).end(),
        }
    }
}

/// What an event says: its body, or its attributes, one of which may hold it as JSON.
fn payload(event: &Event) -> String {
    if let Some(content) = find(&event.attributes, &["gen_ai.event.content"]) {
        return content.json();
    }
    match &event.body {
        Any::Null => {
            let mut said = Object::new();
            for (key, value) in &event.attributes {
                if !["gen_ai.system", "gen_ai.provider.name", "event.name"].contains(&key.as_str()) {
                    said.add_raw(key, &value.json());
                }
            }
            said.end()
        }
        // Only a whole text is opened: one within a message is what was said.
        Any::Text(_) => event.body.json(),
        body => {
            let mut out = Vec::new();
            body.write(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

/// Messages whose place is in the name of their attributes, such as `gen_ai.prompt.0.role`, with the reason for their
/// end.
fn numbered(attributes: &Attributes, prefix: &str) -> Vec<(String, Option<String>)> {
    let mut fields: BTreeMap<u32, Vec<(&str, &Any)>> = BTreeMap::new();
    for (key, value) in attributes {
        let named = key.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
        if let Some((number, field)) = named
            && let Ok(number) = number.parse()
        {
            fields.entry(number).or_default().push((field.strip_prefix("message.").unwrap_or(field), value));
        }
    }
    fields.values().map(|fields| one_numbered(fields)).collect()
}

fn one_numbered(fields: &[(&str, &Any)]) -> (String, Option<String>) {
    let mut message = Object::new();
    let mut calls: BTreeMap<u32, [Option<&Any>; 3]> = BTreeMap::new();
    let mut finish = None;
    for (field, value) in fields {
        let call = field.strip_prefix("tool_calls.").and_then(|rest| rest.split_once('.'));
        match (*field, call) {
            ("finish_reason", _) => finish = value.text(),
            ("content", _) if matches!(value, Any::Text(text) if list(text.trim()).is_none()) => {
                message.add_text("content", &value.text().unwrap_or_default());
            }
            (_, Some((number, part))) => {
                let part = part.strip_prefix("tool_call.").unwrap_or(part);
                let part = ["id", "name", "arguments"]
                    .iter()
                    .position(|known| part == *known || part.strip_prefix("function.") == Some(known));
                if let (Ok(number), Some(part)) = (number.parse(), part) {
                    calls.entry(number).or_default()[part] = Some(*value);
                }
            }
            (field, None) => message.add_raw(field, &value.json()),
        }
    }
    let calls = calls.values().map(|call| {
        let [id, name, arguments] = call.map(|part| part.and_then(Any::text).unwrap_or_default());
        tool_call(&quoted(&id), &quoted(&name), &quoted(&arguments))
    });
    let calls: Vec<String> = calls.collect();
    if !calls.is_empty() {
        message.add_raw("tool_calls", &format!("[{}]", calls.join(",")));
    }
    (message.end(), finish)
}

fn push_messages(array: &str, messages: &mut Vec<String>) {
    for message in list(array).unwrap_or_default() {
        message_of_parts(message, messages);
    }
}

fn push_choices(array: &str, choices: &mut Vec<String>) {
    for message in list(array).unwrap_or_default() {
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

/// A message of parts as one of `content` and `tool_calls`, and one message for each result of a tool in it.
fn message_of_parts(raw: &str, messages: &mut Vec<String>) {
    let message = members(raw).unwrap_or_default();
    let Some(parts) = get(&message, &["parts"]).and_then(list) else {
        messages.push(raw.to_owned());
        return;
    };
    let role = get(&message, &["role"]).unwrap_or("\"user\"");
    let (mut contents, mut calls) = (Vec::new(), Vec::new());
    let (mut texts, mut results) = (0, 0);
    let mut reasoning = None;
    for part in parts {
        let of = members(part).unwrap_or_default();
        let kind = get(&of, &["type"]).map(unquote).unwrap_or_default();
        let content = get(&of, &["content"]).filter(|raw| raw.starts_with('"'));
        match (&*kind, content) {
            ("text", Some(text)) => {
                texts += 1;
                contents.push(text.to_owned());
            }
            ("reasoning", Some(text)) => reasoning = Some(text),
            ("tool_call", _) => {
                let arguments = get(&of, &["arguments"]).unwrap_or("{}");
                let arguments = if arguments.starts_with('"') { arguments.to_owned() } else { quoted(arguments) };
                let [id, name] = ["id", "name"].map(|name| get(&of, &[name]).unwrap_or("\"\""));
                calls.push(tool_call(id, name, &arguments));
            }
            ("tool_call_response", _) => {
                results += 1;
                let mut result = Object::new().text("role", "tool");
                if let Some(id) = get(&of, &["id"]) {
                    result.add_raw("tool_call_id", id);
                }
                result.add_raw("content", get(&of, &["response", "result"]).unwrap_or("null"));
                messages.push(result.end());
            }
            _ => contents.push(part.to_owned()),
        }
    }
    if results > 0 && contents.is_empty() && calls.is_empty() {
        return;
    }
    let mut out = Object::new().raw("role", role);
    out.add_raw("content", &content_of(contents, texts));
    if let Some(reasoning) = reasoning {
        out.add_raw("reasoning_content", reasoning);
    }
    if !calls.is_empty() {
        out.add_raw("tool_calls", &format!("[{}]", calls.join(",")));
    }
    messages.push(out.end());
}

/// One text is the content itself; several, or others beside it, are a list.
fn content_of(mut contents: Vec<String>, texts: usize) -> String {
    match contents.len() {
        0 => "null".to_owned(),
        1 if texts == 1 => contents.remove(0),
        _ => {
            let part = |raw: &String| match raw.starts_with('"') {
                true => Object::new().text("type", "text").raw("text", raw).end(),
                false => raw.clone(),
            };
            format!("[{}]", contents.iter().map(part).collect::<Vec<_>>().join(","))
        }
    }
}

fn tool_call(id: &str, name: &str, arguments: &str) -> String {
    let function = Object::new().raw("name", name).raw("arguments", arguments).end();
    Object::new().raw("id", id).text("type", "function").raw("function", &function).end()
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// A JSON object that is being written.
#[derive(Clone, Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    pub(super) fn add_raw(&mut self, key: &str, raw: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(raw);
    }

    pub(super) fn add_text(&mut self, key: &str, text: &str) {
        self.add_raw(key, &quoted(text));
    }

    pub(super) fn raw(mut self, key: &str, raw: &str) -> Self {
        self.add_raw(key, raw);
        self
    }

    pub(super) fn text(mut self, key: &str, text: &str) -> Self {
        self.add_text(key, text);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
