//! The arithmetic of each provider: the tokens that its counts include, and those that they leave
//! out.

use super::members::{Members, cents, count, get, inner, string};
use super::tokens::{Billed, Parts, Tier, Usage};
use crate::record::json::{list, members};

/// Reads usage in the formats of OpenAI and compatible providers, of Anthropic, and of Bedrock.
pub(super) fn plain(usage: &Members<'_>) -> Usage {
    let beside = |names: &[&str]| count(usage, names).unwrap_or(0);
    let asked =
        inner(usage, &["prompt_tokens_details", "input_tokens_details", "input_token_details"]);
    let answered = inner(
        usage,
        &["completion_tokens_details", "output_tokens_details", "output_token_details"],
    );
    let within = |details: &Members<'_>, names: &[&str]| count(details, names).unwrap_or(0);

    // Anthropic and Bedrock leave these out of the input. Gateways that translate may include them.
    let read_beside =
        beside(&["cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"]);
    let names =
        ["cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"];
    let lives = inner(usage, &["cache_creation"]);
    let by_life = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]
        .map(|name| within(&lives, &[name]));
    let write_beside = beside(&names).max(by_life[0].saturating_add(by_life[1]));
    let hour = hour_writes(usage, &asked).max(by_life[1]);
    let read = read_beside.max(within(&asked, &["cached_tokens"])).max(beside(&[
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "cachedInputTokens",
    ]));
    let write = write_beside
        .max(within(&asked, &["cache_creation_tokens", "cache_write_tokens"]))
        .max(hour);
    let reasoning = within(&answered, &["reasoning_tokens"])
        .max(beside(&["reasoning_tokens", "reasoningTokens"]));
    let audio = within(&asked, &["audio_tokens"]);
    let cached_audio = count(&inner(&asked, &["cached_tokens_details"]), &["audio_tokens"]);
    let parts = Parts {
        cache_write: write.saturating_sub(hour),
        cache_write_1h: hour,
        reasoning,
        audio_output: within(&answered, &["audio_tokens"]),
        image_output: within(&answered, &["image_tokens"]),
        ..cached_parts(read, audio, cached_audio)
    };

    let cached = read_beside.saturating_add(write_beside);
    let input = count(usage, &["input_tokens", "inputTokens", "inputTokenCount"]);
    let openai = count(usage, &["prompt_tokens", "promptTokens"]);
    let mut found = Usage {
        request: openai.or(input.map(|input| input.saturating_add(cached))),
        response: count(
            usage,
            &[
                "completion_tokens",
                "output_tokens",
                "outputTokens",
                "completionTokens",
                "outputTokenCount",
            ],
        ),
        total: count(usage, &["total_tokens", "totalTokens", "totalTokenCount"]),
        billed: Billed {
            parts,
            tier: Tier::Standard,
            is_partial: is_ambiguous(read, audio, cached_audio) || has_fees(usage),
            stated_cents: stated_cents(usage),
        },
    };
    found.settle(if openai.is_some() { cached } else { 0 }, reasoning);
    found
}

/// Returns the tokens written to the cache for an hour, as LiteLLM and Bedrock state them.
fn hour_writes(usage: &Members<'_>, asked: &Members<'_>) -> i64 {
    let lives = inner(asked, &["cache_creation_token_details"]);
    let details = get(usage, &["cacheDetails"]).and_then(list).unwrap_or_default();
    let details = details.into_iter().filter_map(members);
    let hours = details.filter(|of| string(of, &["ttl"]).as_deref() == Some("1h"));
    let hours = hours.filter_map(|of| count(&of, &["inputTokens"])).fold(0, i64::saturating_add);
    hours.max(count(&lives, &["ephemeral_1h_input_tokens"]).unwrap_or(0))
}

/// Reads usage of Gemini. The prompt excludes what tools put into it, and the candidates exclude
/// the thoughts.
pub(super) fn google(usage: &Members<'_>) -> Usage {
    let counted = |names: &[&str]| count(usage, names);
    let prompt = counted(&["promptTokenCount", "prompt_token_count"]);
    let tools = counted(&["toolUsePromptTokenCount", "tool_use_prompt_token_count"]).unwrap_or(0);
    let answer = counted(&["candidatesTokenCount", "responseTokenCount", "candidates_token_count"]);
    let thoughts = counted(&["thoughtsTokenCount", "thoughts_token_count"]);
    let total = counted(&["totalTokenCount", "total_token_count"]);
    let cached = counted(&["cachedContentTokenCount", "cached_content_token_count"]).unwrap_or(0);
    let heard = |names: &[&str]| modality(usage, names, "AUDIO");
    let tool_audio = heard(&["toolUsePromptTokensDetails", "tool_use_prompt_tokens_details"]);
    let audio = heard(&["promptTokensDetails", "prompt_tokens_details"]).saturating_add(tool_audio);
    let cache_details = ["cacheTokensDetails", "cache_tokens_details"];
    let cached_audio = get(usage, &cache_details).map(|_| heard(&cache_details));
    let answers = ["candidatesTokensDetails", "responseTokensDetails", "candidates_tokens_details"];
    let parts = Parts {
        tool_use: tools.saturating_sub(tool_audio).max(0),
        reasoning: thoughts.unwrap_or(0),
        audio_output: modality(usage, &answers, "AUDIO"),
        image_output: modality(usage, &answers, "IMAGE"),
        ..cached_parts(cached, audio, cached_audio)
    };
    let mut found = Usage {
        request: prompt.map(|prompt| prompt.saturating_add(tools)),
        response: match (answer, thoughts) {
            (Some(answer), Some(thoughts)) => answer.checked_add(thoughts),
            (answer, thoughts) => answer.or(thoughts),
        },
        total,
        billed: Billed {
            parts,
            is_partial: is_ambiguous(cached, audio, cached_audio),
            ..Billed::default()
        },
    };
    // If the total excludes the thoughts or the tokens of tools, this version includes them in the
    // other counts already.
    let sum =
        |request: Option<i64>, response: Option<i64>| Some(request?.saturating_add(response?));
    let fits = |request, response| sum(request, response).is_none_or(|sum| Some(sum) == total);
    if !fits(found.request, found.response) {
        let held = [(found.request, answer), (prompt, found.response), (prompt, answer)];
        if let Some(both) = held.into_iter().find(|(request, response)| fits(*request, *response)) {
            (found.request, found.response) = both;
        }
    }
    found.settle(0, 0);
    found
}

/// Counts the tokens of one modality in a list such as `promptTokensDetails`.
fn modality(usage: &Members<'_>, names: &[&str], modality: &str) -> i64 {
    let details = get(usage, names).and_then(list).unwrap_or_default();
    let own = details.into_iter().filter_map(members);
    let own = own
        .filter(|of| string(of, &["modality"]).is_some_and(|of| of.eq_ignore_ascii_case(modality)));
    own.filter_map(|of| count(&of, &["tokenCount", "token_count"])).fold(0, i64::saturating_add)
}

/// Reads usage of Cohere: the billed tokens, which are fewer than those that the model was given.
pub(super) fn cohere(usage: &Members<'_>) -> Usage {
    let billed = inner(usage, &["billed_units"]);
    let mut found = Usage {
        request: count(&billed, &["input_tokens"]),
        response: count(&billed, &["output_tokens"]),
        ..Usage::default()
    };
    let others = ["search_units", "classifications", "images"];
    found.billed.is_partial = others.iter().any(|name| count(&billed, &[name]).unwrap_or(0) > 0);
    found.settle(0, 0);
    found
}

/// Names of counts that are members of the reply itself: those of Ollama, of models in Bedrock, and
/// of llama.cpp.
pub(super) const BARE: [&str; 8] = [
    "prompt_eval_count",
    "eval_count",
    "inputTextTokenCount",
    "totalOutputTextTokenCount",
    "prompt_token_count",
    "generation_token_count",
    "tokens_evaluated",
    "tokens_predicted",
];

/// Reads usage of the models that state their counts as members of the reply.
pub(super) fn bare(reply: &Members<'_>) -> Usage {
    let results = get(reply, &["results"]).and_then(list).unwrap_or_default();
    let results = results
        .into_iter()
        .filter_map(members)
        .filter_map(|result| count(&result, &["tokenCount"]));
    let mut found = Usage {
        request: count(reply, &[BARE[0], BARE[2], BARE[4], BARE[6]]),
        response: count(reply, &[BARE[1], BARE[3], BARE[5], BARE[7]])
            .or(results.reduce(i64::saturating_add)),
        ..Usage::default()
    };
    found.settle(0, 0);
    found
}

/// Returns cached and audio tokens as kinds that do not overlap. Both counts include the cached
/// audio.
pub(super) fn cached_parts(cached: i64, audio: i64, cached_audio: Option<i64>) -> Parts {
    let both = cached_audio.unwrap_or(0).min(cached).min(audio);
    Parts {
        cache_read: cached.saturating_sub(both),
        audio_input: audio.saturating_sub(both),
        audio_cache_read: both,
        ..Parts::default()
    }
}

/// Returns true if it is not known how much of the audio was cached.
pub(super) fn is_ambiguous(cached: i64, audio: i64, cached_audio: Option<i64>) -> bool {
    cached > 0 && audio > 0 && cached_audio.is_none()
}

/// Returns true if a call has charges beyond its tokens: searches, sources that were read, or
/// surcharges for speed or region.
fn has_fees(usage: &Members<'_>) -> bool {
    let tools = inner(usage, &["server_tool_use"]);
    let searched = count(&tools, &["web_search_requests"]).unwrap_or(0) > 0
        || count(usage, &["num_sources_used"]).unwrap_or(0) > 0
        || get(usage, &["search_context_size"]).is_some();
    let fast = string(usage, &["speed"]).is_some_and(|speed| speed != "standard");
    searched || fast || string(usage, &["inference_geo"]).as_deref() == Some("us")
}

/// Returns the cost that OpenRouter (`cost`) and Perplexity (`cost.total_cost`) state, converted
/// from dollars.
fn stated_cents(usage: &Members<'_>) -> Option<f64> {
    let raw = get(usage, &["cost"])?;
    // For a call with the customer's own provider key OpenRouter bills only a fee.
    if get(usage, &["is_byok"]) == Some("true") {
        return None;
    }
    match members(raw) {
        Some(cost) => cents(get(&cost, &["total_cost"])?),
        None => cents(raw),
    }
}
