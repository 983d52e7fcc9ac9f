//! Reads tokens from the attributes of a span: OpenTelemetry's names for generative AI, official
//! and deprecated, and those of OpenLLMetry, OpenInference, pydantic-ai, Sentry and the AI SDK.
//!
//! In all of these conventions the input includes cached tokens and the output includes reasoning.
//! Instrumentations that leave them out are recognised by the total, or by a part that is larger
//! than its whole.

use super::shapes::{cached_parts, is_ambiguous};
use super::tokens::{Billed, Parts, Tier, Usage};

/// Names of the request's tokens.
pub(crate) const REQUEST: [&str; 4] = [
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
];
/// Names of the response's tokens.
pub(crate) const RESPONSE: [&str; 4] = [
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
];
/// Names of the tokens of both.
pub(crate) const TOTAL: [&str; 3] =
    ["gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"];

const CACHE_READ: [&str; 13] = [
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.cache_read_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cache_read_input_tokens",
    "gen_ai.usage.details.cached_tokens",
    "gen_ai.usage.input_tokens.cached",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.prompt_tokens_details.cached_tokens",
    "llm.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
    "llm.token_count.prompt_details.cache_input",
    "ai.usage.cachedInputTokens",
];
const CACHE_WRITE: [&str; 9] = [
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "gen_ai.usage.details.cache_creation_input_tokens",
    "gen_ai.usage.input_tokens.cache_write",
    "llm.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
];
const CACHE_WRITE_1H: [&str; 2] = [
    "gen_ai.usage.cache_creation.ephemeral_1h_input_tokens",
    "gen_ai.usage.details.ephemeral_1h_input_tokens",
];
const REASONING: [&str; 9] = [
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.details.thoughts_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "gen_ai.usage.completion_tokens_details.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
    "ai.usage.reasoningTokens",
];
const AUDIO_INPUT: [&str; 3] = [
    "gen_ai.usage.input_audio_tokens",
    "gen_ai.usage.details.input_audio_tokens",
    "llm.token_count.prompt_details.audio",
];
const AUDIO_CACHE_READ: [&str; 2] =
    ["gen_ai.usage.cache_audio_read_tokens", "gen_ai.usage.details.cache_audio_read_tokens"];
const AUDIO_OUTPUT: [&str; 3] = [
    "gen_ai.usage.output_audio_tokens",
    "gen_ai.usage.details.output_audio_tokens",
    "llm.token_count.completion_details.audio",
];
/// Names of the tier in which a call was served, then of the one that was asked for.
const TIER: [&str; 6] = [
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "gen_ai.response.service_tier",
    "openai.request.service_tier",
    "gen_ai.openai.request.service_tier",
    "gen_ai.request.service_tier",
];

/// Reads the usage from attributes. `count` returns the number under a name, and `text` its text.
pub(crate) fn read(
    count: impl Fn(&str) -> Option<i64>,
    text: impl Fn(&str) -> Option<String>,
) -> Usage {
    let first = |names: &[&str]| names.iter().find_map(|name| count(name));
    let of = |names: &[&str]| first(names).unwrap_or(0);
    let cached = of(&CACHE_READ);
    let audio = of(&AUDIO_INPUT);
    let cached_audio = first(&AUDIO_CACHE_READ);
    let hour = of(&CACHE_WRITE_1H);
    let write = of(&CACHE_WRITE).max(hour);
    let parts = Parts {
        cache_write: write.saturating_sub(hour),
        cache_write_1h: hour,
        reasoning: of(&REASONING),
        audio_output: of(&AUDIO_OUTPUT),
        ..cached_parts(cached, audio, cached_audio)
    };
    let tier =
        TIER.iter().find_map(|name| text(name)).map(|name| Tier::parse(&name)).unwrap_or_default();
    let mut usage = Usage {
        request: first(&REQUEST),
        response: first(&RESPONSE),
        total: first(&TOTAL),
        billed: Billed {
            parts,
            tier,
            is_partial: is_ambiguous(cached, audio, cached_audio),
            stated_cents: None,
        },
    };
    usage.settle(cached.saturating_add(write), parts.reasoning);
    usage
}
