//! Reads prompts and completions from attributes and events of every convention, as the bodies of a
//! request and a response.
//!
//! The bodies have OpenAI's format, which reports, exports and replay also find in other records. A
//! message with parts becomes one with `content` and `tool_calls`; values without a place there
//! stay as they arrived. Sources are read in order, newest convention first, and only the first one
//! with content is used, so text that several sources repeat is stored once.

use std::collections::BTreeMap;

use super::any::{Any, Attributes, find};
use super::export::Event;
use super::messages::{push_choices, push_messages, tool_call};
use super::others;
use crate::ingest::usage::get;
use crate::record::json::{list, members, unquote, write_string};

/// Content of a call. Every text is JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Messages of the request.
    messages: Vec<String>,
    /// A prompt, or the input of an embedding, that is not a list of messages.
    input: Option<String>,
    /// The whole body of the request.
    asked: Option<String>,
    /// Choices of the response.
    choices: Vec<String>,
    /// The whole body of the response.
    reply: Option<String>,
}

/// Attributes that [`Content::of_span`] reads, and which therefore are not metadata. The same
/// applies to names that begin with one of [`PREFIXES`].
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
/// Member of a response's body that holds the attributes of a span that have no other place.
pub(super) const ATTRIBUTES: &str = "span_attributes";
/// Prefixes of attributes that have the number of a message in their name.
pub(super) const PREFIXES: [&str; 6] = [
    "gen_ai.prompt.",
    "gen_ai.completion.",
    "llm.prompts.",
    "llm.completions.",
    "llm.input_messages.",
    "llm.output_messages.",
];
/// Names that begin like a numbered message but are none.
pub(super) const NOT_MESSAGES: [&str; 2] = ["gen_ai.prompt.name", "gen_ai.prompt.version"];

impl Content {
    /// Reads the content of a span from its attributes, or from its events if they have none. Also
    /// returns the attributes of [`others`] that it used.
    pub(super) fn of_span(attributes: &Attributes, events: &[Event]) -> (Self, Vec<&'static str>) {
        let mut used = Vec::new();
        let mut said = Self::of_attributes(attributes, &mut used);
        let mut told = Self::default();
        events.iter().for_each(|event| told.add(event));
        said.fill(told);
        (said, used)
    }

    fn of_attributes(attributes: &Attributes, used: &mut Vec<&'static str>) -> Self {
        let mut content = Self::default();
        content.asked_in(attributes, used);
        content.answered_in(attributes, used);
        content
    }

    fn asked_in(&mut self, attributes: &Attributes, used: &mut Vec<&'static str>) {
        if let Some(system) = find(attributes, &["gen_ai.system_instructions"]) {
            let parts = system.json();
            push_messages(&format!("[{{\"role\":\"system\",\"parts\":{parts}}}]"), "user", &mut self.messages);
        }
        if let Some(messages) = find(attributes, &["gen_ai.input.messages"]) {
            self.prompt(messages.json());
        } else if !self.number(attributes, &PREFIXES[..1]) {
            match find(attributes, &["gen_ai.prompt"]).map(Any::json) {
                Some(prompt) => self.prompt(prompt),
                None if self.number(attributes, &["llm.prompts.", "llm.input_messages."]) => {}
                None if others::asked(self, attributes, used) => {}
                None => self.whole(attributes),
            }
        }
    }

    /// Adds a list of messages, or sets any other JSON as the input.
    pub(super) fn prompt(&mut self, prompt: String) {
        match list(&prompt) {
            Some(_) => push_messages(&prompt, "user", &mut self.messages),
            None => self.input = Some(prompt),
        }
    }

    fn answered_in(&mut self, attributes: &Attributes, used: &mut Vec<&'static str>) {
        let content = self;
        if let Some(messages) = find(attributes, &["gen_ai.output.messages"]) {
            let messages = messages.json();
            match list(&messages) {
                Some(_) => push_choices(&messages, &mut content.choices),
                None => content.say(&messages),
            }
            return;
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
                Some(text) => content.say(&text),
                None if others::answered(content, attributes, used) => {}
                None => content.reply = find(attributes, &["output.value"]).map(Any::json),
            }
        }
    }

    /// Adds a choice whose content is one text, or other JSON.
    fn say(&mut self, content: &str) {
        self.choice(&Object::new().text("role", "assistant").raw("content", content).end(), None);
    }

    /// Adds messages with numbered names. Returns true if there were any.
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

    /// Reads `input.value`: the whole request if it is an object, and the input otherwise.
    fn whole(&mut self, attributes: &Attributes) {
        if let Some(input) = find(attributes, &["input.value"]).map(Any::json) {
            self.whole_request(input);
        }
    }

    /// Sets the whole request, or the input if the JSON is not an object.
    pub(super) fn whole_request(&mut self, input: String) {
        match members(&input) {
            Some(_) => self.asked = Some(input),
            None => self.input = Some(input),
        }
    }

    /// Sets the whole response, or its text.
    pub(super) fn whole_response(&mut self, output: String) {
        self.reply = Some(output);
    }

    /// Sets an input that is not a list of messages, such as the texts to embed.
    pub(super) fn take_input(&mut self, input: String) {
        self.input = Some(input);
    }

    /// Adds the content of an event, if it has any.
    pub(super) fn add(&mut self, event: &Event) {
        let of = &event.attributes;
        match event.name.as_str() {
            "gen_ai.client.inference.operation.details" | "gen_ai.content.prompt" | "gen_ai.content.completion" => {
                let mut all = of.clone();
                if let Any::Map(body) = &event.body {
                    all.extend(body.iter().cloned());
                }
                self.fill(Self::of_attributes(&all, &mut Vec::new()));
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

    pub(super) fn choice(&mut self, message: &str, finish_reason: Option<&str>) {
        let index = self.choices.len().to_string();
        let mut choice = Object::new().raw("index", &index).raw("message", message);
        if let Some(reason) = finish_reason {
            choice.add_text("finish_reason", reason);
        }
        self.choices.push(choice.end());
    }

    /// Fills in from another content the request or response that this one lacks.
    fn fill(&mut self, other: Self) {
        if !self.is_asked() {
            self.messages = other.messages;
            self.input = other.input;
            self.asked = other.asked;
        }
        if !self.is_answered() {
            self.choices = other.choices;
            self.reply = other.reply;
        }
    }

    /// Adds the content of a later event of the same span.
    pub(super) fn extend(&mut self, later: Self) {
        self.messages.extend(later.messages);
        self.choices.extend(later.choices);
        self.input = self.input.take().or(later.input);
        self.asked = self.asked.take().or(later.asked);
        self.reply = self.reply.take().or(later.reply);
    }

    /// Returns true if there is content of the request.
    pub(super) fn is_asked(&self) -> bool {
        !self.messages.is_empty() || self.input.is_some() || self.asked.is_some()
    }

    /// Returns true if there is content of the response.
    pub(super) fn is_answered(&self) -> bool {
        !self.choices.is_empty() || self.reply.is_some()
    }

    /// Returns true if there is no content.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_asked() && !self.is_answered()
    }

    /// Returns the body of the request, with the parameters that the span states.
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

    /// Returns the body of the response: the fields that the span states, then the choices, then
    /// the attributes that have no other place.
    pub(super) fn response(&self, stated: Object, attributes: Option<&str>) -> String {
        let mut body = match &self.reply {
            Some(reply) if members(reply).is_some() => Object::of(reply),
            Some(text) => {
                let message = Object::new().text("role", "assistant").raw("content", text).end();
                let choice = Object::new().raw("index", "0").raw("message", &message).end();
                stated.raw("choices", &format!("[{choice}]"))
            }
            None if self.choices.is_empty() => stated,
            None => stated.raw("choices", &format!("[{}]", self.choices.join(","))),
        };
        if let Some(attributes) = attributes {
            body.add_raw(ATTRIBUTES, attributes);
        }
        body.end()
    }
}

/// Returns the content of an event: its body, or its attributes, one of which may hold the content
/// as JSON.
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
        // Only a whole text is opened: a text within a message is content.
        Any::Text(_) => event.body.json(),
        body => {
            let mut out = Vec::new();
            body.write(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}

/// Reads messages whose position is part of the names of their attributes, such as
/// `gen_ai.prompt.0.role`, with their finish reasons.
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

pub(super) fn quoted(text: &str) -> String {
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

    /// Opens a JSON object for more members.
    fn of(object: &str) -> Self {
        let inner = object.trim().strip_suffix('}').map_or("{", str::trim_end);
        Self(inner.to_owned())
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
