//! Tokens out of a provider's reply, in each provider's words.

use std::borrow::Cow;

use crate::record::json::{Read, members};

/// The members of a JSON object.
pub(super) type Members<'a> = [(Cow<'a, str>, &'a str)];

/// Tokens of a call; `None` where the reply does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) request: Option<i64>,
    pub(super) response: Option<i64>,
    pub(super) total: Option<i64>,
}

impl Usage {
    /// Reads the usage of a reply's top level: OpenAI and whoever follows it, Anthropic, Bedrock, Google.
    pub(super) fn of(reply: &Members<'_>) -> Self {
        let inner = |name| get(reply, &[name]).and_then(members).unwrap_or_default();
        let usage = inner("usage");
        if !usage.is_empty() {
            let cached = count(&usage, &["cache_creation_input_tokens"]).into_iter();
            let cached: i64 = cached.chain(count(&usage, &["cache_read_input_tokens"])).fold(0, i64::saturating_add);
            let openai = count(&usage, &["prompt_tokens"]);
            // Anthropic leaves cached tokens out of `input_tokens`; the others count them in.
            let input = count(&usage, &["input_tokens", "inputTokens"]).map(|input| input.saturating_add(cached));
            return Self {
                request: openai.or(input),
                response: count(&usage, &["completion_tokens", "output_tokens", "outputTokens"]),
                total: count(&usage, &["total_tokens", "totalTokens"]),
            };
        }
        let usage = inner("usageMetadata");
        let answer = count(&usage, &["candidatesTokenCount"]);
        let thoughts = count(&usage, &["thoughtsTokenCount"]);
        Self {
            request: count(&usage, &["promptTokenCount"]),
            response: match (answer, thoughts) {
                (Some(answer), Some(thoughts)) => answer.checked_add(thoughts),
                (answer, thoughts) => answer.or(thoughts),
            },
            total: count(&usage, &["totalTokenCount"]),
        }
    }
}

/// The raw value of the first of the names that is there and not null.
pub(super) fn get<'a>(members: &Members<'a>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| members.iter().rfind(|(key, raw)| key == name && *raw != "null").map(|(_, raw)| *raw))
}

/// A whole number, rounded from a fraction, also out of a text such as `"0123"`; none of anything else.
pub(super) fn count(members: &Members<'_>, names: &[&str]) -> Option<i64> {
    let raw = get(members, names)?;
    let mut whole: Option<i64> = None;
    if whole.read("", raw).is_ok() {
        return whole;
    }
    let mut number: Option<f64> = None;
    number.read("", raw).ok()?;
    number.map(f64::round).filter(|number| number.abs() < 9e15).map(|number| number as i64)
}
