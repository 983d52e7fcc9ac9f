//! Reads prompts and completions from attributes and events of every convention, as the bodies of a
//! request and a response.
//!
//! The bodies have OpenAI's format, which reports, exports and replay also find in other records. A
//! message with parts becomes one with `content` and `tool_calls`; values without a place there
//! stay as they arrived. Sources are read in order, newest convention first, and only the first one
//! with content is used, so text that several sources repeat is stored once.

use super::messages::push_messages;
use super::object::Object;
use crate::record::json::{list, members};

/// Content of a call. Every text is JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Messages of the request.
    pub(super) messages: Vec<String>,
    /// A prompt, or the input of an embedding, that is not a list of messages.
    pub(super) input: Option<String>,
    /// The whole body of the request.
    pub(super) asked: Option<String>,
    /// Choices of the response.
    pub(super) choices: Vec<String>,
    /// The whole body of the response.
    pub(super) reply: Option<String>,
}

/// Attributes that [`Content::from_span`] reads, and which therefore are not metadata. The same
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
/// Names that begin like a numbered message but are not one.
pub(super) const NOT_MESSAGES: [&str; 2] = ["gen_ai.prompt.name", "gen_ai.prompt.version"];

impl Content {
    /// Sets a list of messages, or else an input.
    pub(super) fn prompt(&mut self, prompt: String) {
        match list(&prompt) {
            Some(_) => push_messages(&prompt, "user", &mut self.messages),
            None => self.input = Some(prompt),
        }
    }

    /// Adds a choice of one text, or of other JSON.
    pub(super) fn say(&mut self, content: &str) {
        self.choice(&Object::new().text("role", "assistant").raw("content", content).end(), None);
    }

    /// Sets the whole request, or its input if it is not an object.
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

    pub(super) fn choice(&mut self, message: &str, finish_reason: Option<&str>) {
        let index = self.choices.len().to_string();
        let mut choice = Object::new().raw("index", &index).raw("message", message);
        if let Some(reason) = finish_reason {
            choice.add_text("finish_reason", reason);
        }
        self.choices.push(choice.end());
    }

    /// Copies from another the content that this one lacks.
    pub(super) fn fill(&mut self, other: Self) {
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
            Some(reply) if members(reply).is_some() => Object::parse(reply),
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
