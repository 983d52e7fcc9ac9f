//! Tokens out of a provider's reply, in each provider's words.

use std::borrow::Cow;

use super::price::Parts;
use crate::record::json::{Read, members};

/// The members of a JSON object.
pub(super) type Members<'a> = [(Cow<'a, str>, &'a str)];

/// Tokens of a call; `None` where the reply does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) request: Option<i64>,
    pub(super) response: Option<i64>,
    pub(super) total: Option<i64>,
    /// Those that have prices of their own.
    pub(super) parts: Parts,
}

impl Usage {
    /// Reads the usage of a reply's top level: OpenAI and whoever follows it, Anthropic, Bedrock, Google.
    pub(super) fn of(reply: &Members<'_>) -> Self {
        let inner = |name| get(reply, &[name]).and_then(members).unwrap_or_default();
        let usage = inner("usage");
        if !usage.is_empty() { Self::plain(&usage) } else { Self::google(&inner("usageMetadata")) }
    }

    /// Reads the members of a `usage` object.
    pub(super) fn plain(usage: &Members<'_>) -> Self {
        let beside = |names: &[&str]| count(usage, names).unwrap_or(0);
        let within = |objects: &[&str], names: &[&str]| {
            let details = get(usage, objects).and_then(members).unwrap_or_default();
            count(&details, names).unwrap_or(0)
        };
        let read = beside(&["cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"]);
        let write = beside(&["cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"]);
        let request_details = ["prompt_tokens_details", "input_tokens_details"];
        let response_details = ["completion_tokens_details", "output_tokens_details"];
        let parts = Parts {
            cache_read: read
                .max(within(&request_details, &["cached_tokens"]))
                .max(beside(&["prompt_cache_hit_tokens"])),
            cache_write: write.max(within(&request_details, &["cache_creation_tokens", "cache_write_tokens"])),
            reasoning: within(&response_details, &["reasoning_tokens"]),
        };
        let cached = read.saturating_add(write);
        let openai = count(usage, &["prompt_tokens"]);
        let response = count(usage, &["completion_tokens", "output_tokens", "outputTokens"]);
        let total = count(usage, &["total_tokens", "totalTokens"]);
        // Anthropic and Bedrock leave cached tokens out of `input_tokens`; OpenAI counts them in. Gateways that translate one into the
        // other do either, which the total tells.
        let left_out = |request: i64| {
            cached > 0 && total == Some(request.saturating_add(response.unwrap_or(0)).saturating_add(cached))
        };
        let openai = openai.map(|request| if left_out(request) { request.saturating_add(cached) } else { request });
        let input = count(usage, &["input_tokens", "inputTokens"]).map(|input| input.saturating_add(cached));
        Self { request: openai.or(input), response, total, parts }
    }

    fn google(usage: &Members<'_>) -> Self {
        let answer = count(usage, &["candidatesTokenCount"]);
        let thoughts = count(usage, &["thoughtsTokenCount"]);
        Self {
            request: count(usage, &["promptTokenCount"]),
            response: match (answer, thoughts) {
                (Some(answer), Some(thoughts)) => answer.checked_add(thoughts),
                (answer, thoughts) => answer.or(thoughts),
            },
            total: count(usage, &["totalTokenCount"]),
            parts: Parts {
                cache_read: count(usage, &["cachedContentTokenCount"]).unwrap_or(0),
                cache_write: 0,
                reasoning: thoughts.unwrap_or(0),
            },
        }
    }
}

/// The raw value of the first of the names that is there and not null. Of a doubled key the last
/// one counts, also if it is null.
pub(super) fn get<'a>(members: &Members<'a>, names: &[&str]) -> Option<&'a str> {
    let last = |name: &&str| members.iter().rfind(|(key, _)| key == name).map(|(_, raw)| *raw);
    names.iter().find_map(|name| last(name).filter(|raw| *raw != "null"))
}

/// A whole number that is not below 0, rounded from a fraction, also out of a text such as `"0123"`; none of anything else.
pub(super) fn count(members: &Members<'_>, names: &[&str]) -> Option<i64> {
    let raw = get(members, names)?;
    let mut whole: Option<i64> = None;
    if whole.read("", raw).is_ok() {
        return whole.filter(|whole| *whole >= 0);
    }
    let mut number: Option<f64> = None;
    number.read("", raw).ok()?;
    number.map(f64::round).filter(|number| (0.0..9e15).contains(number)).map(|number| number as i64)
}
