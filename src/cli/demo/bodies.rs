//! Payloads of the sample records, as logged by a gateway that uses OpenAI's format for every
//! provider.

use serde::Serialize;

/// One message of a conversation.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    pub(super) role: &'static str,
    pub(super) content: String,
}

impl Message {
    pub(super) fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

#[derive(Serialize)]
struct ChatRequest<'a> {
    model: &'a str,
    messages: &'a [Message],
    temperature: f64,
    max_tokens: u32,
    stream: bool,
}

/// Returns a chat request.
pub(super) fn chat_request(
    model: &str,
    messages: &[Message],
    temperature: f64,
    stream: bool,
) -> String {
    text(&ChatRequest { model, messages, temperature, max_tokens: 800, stream })
}

#[derive(Serialize)]
struct ChatResponse<'a> {
    id: String,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Usage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Reply<'a>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Reply<'a> {
    role: &'static str,
    content: &'a str,
}

/// Tokens of a call.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: i64,
    pub(super) completion_tokens: i64,
    pub(super) total_tokens: i64,
}

impl Usage {
    pub(super) fn new(prompt_tokens: i64, completion_tokens: i64) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// Returns the response to a chat request.
pub(super) fn chat_response(
    call: &str,
    created: i64,
    model: &str,
    content: &str,
    usage: Usage,
) -> String {
    let message = Reply { role: "assistant", content };
    text(&ChatResponse {
        id: format!("chatcmpl-{call}"),
        object: "chat.completion",
        created,
        model,
        choices: [Choice { index: 0, message, finish_reason: "stop" }],
        usage,
    })
}

#[derive(Serialize)]
struct EmbeddingRequest<'a> {
    model: &'a str,
    input: &'a [&'a str],
}

#[derive(Serialize)]
struct EmbeddingResponse<'a> {
    object: &'static str,
    model: &'a str,
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: &'static str,
}

/// Returns an embedding request.
pub(super) fn embedding_request(model: &str, input: &[&str]) -> String {
    text(&EmbeddingRequest { model, input })
}

/// Returns the response to an embedding request. Gateways leave the vectors out of their logs and
/// put this mark in their place.
pub(super) fn embedding_response(model: &str, inputs: usize, usage: Usage) -> String {
    let item = |index| Embedding { object: "embedding", index, embedding: "...REDACTED..." };
    text(&EmbeddingResponse { object: "list", model, data: (0..inputs).map(item).collect(), usage })
}

#[derive(Serialize)]
struct Failure<'a> {
    error: FailureDetail<'a>,
    provider: &'a str,
}

#[derive(Serialize)]
struct FailureDetail<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

/// Returns the response of a provider that fails.
pub(super) fn failure(provider: &str, model: &str, status: u16) -> String {
    let (kind, code, message) = match status {
        400 => (
            "invalid_request_error",
            Some("context_length"),
            format!("the request is longer than {model} takes"),
        ),
        401 => (
            "authentication_error",
            Some("invalid_api_key"),
            "the key is not valid or was revoked".to_owned(),
        ),
        408 => ("timeout", None, "no answer within the time that the config allows".to_owned()),
        429 => (
            "rate_limit_error",
            Some("rate_limit"),
            format!("too many tokens a minute for {model}; slow down"),
        ),
        529 => ("overloaded_error", None, "overloaded, try again in a moment".to_owned()),
        503 => ("server_error", None, "the model is not available at the moment".to_owned()),
        _ => ("server_error", None, "something went wrong while the answer was made".to_owned()),
    };
    let message = format!("{provider} error: {message}");
    text(&Failure { error: FailureDetail { message, kind, param: None, code }, provider })
}

fn text(value: &impl Serialize) -> String {
    // Plain structs of texts and numbers always serialise.
    serde_json::to_string(value).unwrap_or_default()
}
