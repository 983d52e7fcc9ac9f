//! Reads the content of a call from the attributes of every convention, newest first, or else from
//! its events.

use std::collections::BTreeMap;

use super::any::{Any, Attributes, find};
use super::content::{Content, PREFIXES};
use super::export::Event;
use super::messages::{push_choices, push_messages, tool_call};
use super::object::{Object, quoted};
use super::others;
use crate::ingest::usage::get;
use crate::record::json::{list, members, unquote};

impl Content {
    /// Reads the content of a span from its attributes, or else from its events. Also returns the
    /// attributes of [`others`] that were used.
    pub(super) fn from_span(
        attributes: &Attributes,
        events: &[Event],
    ) -> (Self, Vec<&'static str>) {
        let mut used = Vec::new();
        let mut content = Self::from_attributes(attributes, &mut used);
        let mut of_events = Self::default();
        events.iter().for_each(|event| of_events.add(event));
        content.fill(of_events);
        (content, used)
    }

    /// Adds the content of an event, if the event holds content.
    pub(super) fn add(&mut self, event: &Event) {
        let of = &event.attributes;
        match event.name.as_str() {
            "gen_ai.client.inference.operation.details"
            | "gen_ai.content.prompt"
            | "gen_ai.content.completion" => {
                let mut all = of.clone();
                if let Any::Map(body) = &event.body {
                    all.extend(body.iter().cloned());
                }
                self.fill(Self::from_attributes(&all, &mut Vec::new()));
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
                let role =
                    name.strip_prefix("gen_ai.").and_then(|name| name.strip_suffix(".message"));
                let Some(role) =
                    role.filter(|role| ["system", "user", "assistant", "tool"].contains(role))
                else {
                    return;
                };
                let body = payload(event);
                let Some(fields) = members(&body) else { return };
                let mut message = Object::new();
                if get(&fields, &["role"]).is_none() {
                    message.add_text("role", role);
                }
                for (key, raw) in fields {
                    message.add_raw(
                        if role == "tool" && key == "id" { "tool_call_id" } else { &key },
                        raw,
                    );
                }
                self.messages.push(message.end());
            }
        }
    }

    fn from_attributes(attributes: &Attributes, used: &mut Vec<&'static str>) -> Self {
        let mut content = Self::default();
        content.asked_in(attributes, used);
        content.answered_in(attributes, used);
        content
    }

    fn asked_in(&mut self, attributes: &Attributes, used: &mut Vec<&'static str>) {
        if let Some(system) = find(attributes, &["gen_ai.system_instructions"]) {
            let parts = system.json();
            push_messages(
                &format!("[{{\"role\":\"system\",\"parts\":{parts}}}]"),
                "user",
                &mut self.messages,
            );
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
                Some(completion) if list(&completion).is_some() => {
                    push_choices(&completion, &mut content.choices)
                }
                Some(text) => content.say(&text),
                None if others::answered(content, attributes, used) => {}
                None => content.reply = find(attributes, &["output.value"]).map(Any::json),
            }
        }
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

    /// Reads `input.value`: the whole request if it is an object, otherwise its input.
    fn whole(&mut self, attributes: &Attributes) {
        if let Some(input) = find(attributes, &["input.value"]).map(Any::json) {
            self.whole_request(input);
        }
    }
}

/// Returns the messages whose index is in the name of their attributes, such as
/// `gen_ai.prompt.0.role`, with their finish reason.
fn numbered(attributes: &Attributes, prefix: &str) -> Vec<(String, Option<String>)> {
    let mut fields: BTreeMap<u32, Vec<(&str, &Any)>> = BTreeMap::new();
    for (key, value) in attributes {
        let named = key.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
        if let Some((number, field)) = named
            && let Ok(number) = number.parse()
        {
            fields
                .entry(number)
                .or_default()
                .push((field.strip_prefix("message.").unwrap_or(field), value));
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
                let part = ["id", "name", "arguments"].iter().position(|known| {
                    part == *known || part.strip_prefix("function.") == Some(known)
                });
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

/// Returns the content of an event: its body, or its attributes, one of which may hold the content
/// as JSON.
fn payload(event: &Event) -> String {
    if let Some(content) = find(&event.attributes, &["gen_ai.event.content"]) {
        return content.json();
    }
    match &event.body {
        Any::Null => {
            let mut object = Object::new();
            for (key, value) in &event.attributes {
                if !["gen_ai.system", "gen_ai.provider.name", "event.name"].contains(&key.as_str())
                {
                    object.add_raw(key, &value.json());
                }
            }
            object.end()
        }
        // Only a text that is a whole value is parsed. JSON within a message is content.
        Any::Text(_) => event.body.json(),
        body => {
            let mut out = Vec::new();
            body.write(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
    }
}
