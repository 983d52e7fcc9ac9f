//! Tokens and cost in every format: a provider's reply, its counts, and the cost by list price.

use serde_json::{Value, json};

use super::*;

fn portkey(provider: &str, model: &str, reply: &Value) -> Record {
    let request = json!({ "provider": provider, "body": { "model": model, "messages": [] } });
    let sent =
        json!({ "id": "u", "request": request, "response": { "status": 200, "body": reply } });
    let (mut records, rejected) = portkey_with(&sent.to_string(), Headers::default());
    assert!(rejected.is_empty(), "{rejected:?}");
    records.remove(0)
}

fn hook(provider: &str, model: &str, reply: &Value) -> Record {
    let sent = json!({
        "request": { "json": { "model": model, "messages": [] }, "headers": {} },
        "response": { "json": reply, "statusCode": 200 },
        "provider": provider, "requestType": "chatComplete",
    });
    read_with(SourceFormat::GatewayHook, sent.to_string().as_bytes(), Headers::default())
        .0
        .remove(0)
}

fn litellm(provider: &str, model: &str, reply: &Value) -> Record {
    let sent = json!({
        "id": "u", "call_type": "acompletion", "status": "success", "model": model, "messages": [],
        "custom_llm_provider": provider, "response": reply, "startTime": 1_795_278_418.5,
    });
    read_with(SourceFormat::LiteLlm, sent.to_string().as_bytes(), Headers::default()).0.remove(0)
}

fn control_plane(provider: &str, model: &str, reply: &Value) -> Record {
    let sent = json!({ "logObject": {
        "_id": "u", "created_at": "2026-11-21T16:26:58.758Z",
        "request": { "url": "https://h/v1", "body": { "model": model },
            "portkeyHeaders": { "x-portkey-provider": provider } },
        "response": { "status": 200, "body": reply },
    } });
    let context = Context::new(now());
    match crate::ingest::control_plane::log(sent.to_string().as_bytes(), &context).unwrap() {
        crate::ingest::control_plane::Logged::Call(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn native_with(provider: &str, model: &str, counts: &Record, reply: &Value) -> Record {
    let sent = json!({
        "ai_org": provider, "ai_model": model, "req_units": counts.req_units, "res_units": counts.res_units,
        "response": { "body": reply },
    });
    native(&sent.to_string()).0.remove(0)
}

/// Checks request, response and cost in cents (`None` for no cost) for every source.
fn check(
    provider: &str,
    model: &str,
    reply: &Value,
    request: i64,
    response: i64,
    cents: Option<f64>,
) {
    let first = portkey(provider, model, reply);
    let others = [
        hook(provider, model, reply),
        litellm(provider, model, reply),
        control_plane(provider, model, reply),
        native_with(provider, model, &first, reply),
    ];
    for record in others.iter().chain([&first]) {
        assert_eq!(
            (record.req_units, record.res_units),
            (Some(request), Some(response)),
            "{record:?}"
        );
        assert_eq!(
            (record.total_units, record.cost),
            (Some(request + response), cents),
            "{record:?}"
        );
        assert_eq!(record.cost_currency.is_some(), cents.is_some(), "{record:?}");
    }
}

#[test]
fn xai_reasoning_is_counted_and_paid() {
    let usage = json!({ "usage": {
        "prompt_tokens": 10_120, "completion_tokens": 1499, "total_tokens": 14_428,
        "prompt_tokens_details": { "cached_tokens": 128 }, "completion_tokens_details": { "reasoning_tokens": 2809 },
    } });
    // 9,992 at 1.25 dollars a million, 128 at 0.2, 4,308 at 2.5.
    check("x-ai", "grok-4.3", &usage, 10_120, 4308, Some(2.32856));
    let mini = json!({ "usage": {
        "prompt_tokens": 13, "completion_tokens": 1, "total_tokens": 400,
        "completion_tokens_details": { "reasoning_tokens": 386 },
    } });
    check("x-ai", "grok-3-mini", &mini, 13, 387, Some(0.01974));
}

#[test]
fn gemini_tools_and_thoughts_are_counted_and_paid() {
    let usage = json!({ "usageMetadata": {
        "promptTokenCount": 151, "candidatesTokenCount": 1089, "totalTokenCount": 20_689,
        "toolUsePromptTokenCount": 18_329, "thoughtsTokenCount": 1120,
    } });
    // 18,480 at 0.3, 2,209 at 2.5.
    check("google", "gemini-2.5-flash", &usage, 18_480, 2209, Some(1.10665));
    let audio = json!({ "usageMetadata": {
        "promptTokenCount": 1000, "candidatesTokenCount": 10, "totalTokenCount": 1010,
        "promptTokensDetails": [{ "modality": "AUDIO", "tokenCount": 900 }, { "modality": "TEXT", "tokenCount": 100 }],
    } });
    // 100 at 0.3, 900 at 1, 10 at 2.5.
    check("google", "gemini-2.5-flash", &audio, 1000, 10, Some(0.0955));
    check("google", "gemini-3.5-flash", &audio, 1000, 10, None);
}

#[test]
fn audio_has_its_own_price_or_no_cost() {
    let usage = json!({ "usage": {
        "prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000,
        "prompt_tokens_details": { "audio_tokens": 900, "text_tokens": 100, "cached_tokens": 0 },
        "completion_tokens_details": { "audio_tokens": 900, "text_tokens": 100, "reasoning_tokens": 0 },
    } });
    // 100 at 2.5 and 900 at 40, 100 at 10 and 900 at 80.
    check("openai", "gpt-4o-audio-preview", &usage, 1000, 1000, Some(10.925));
    check("openai", "gpt-audio", &usage, 1000, 1000, Some(8.765));
    check("openai", "gpt-4o-mini-audio-preview", &usage, 1000, 1000, Some(2.7075));
    check("openai", "gpt-realtime", &usage, 1000, 1000, None);
    check("openai", "gpt-4o", &usage, 1000, 1000, None);
}

#[test]
fn cohere_ollama_titan_and_events_are_counted() {
    let billed = json!({
        "billed_units": { "input_tokens": 17, "output_tokens": 12 }, "tokens": { "input_tokens": 83, "output_tokens": 12 },
    });
    let cost = portkey("cohere", "command-r", &json!({ "usage": billed })).cost;
    assert!(cost.is_some());
    check("cohere", "command-r", &json!({ "usage": billed }), 17, 12, cost);
    check("cohere", "command-r", &json!({ "text": "x", "meta": billed }), 17, 12, cost);
    let ollama =
        json!({ "model": "llama3", "done": true, "prompt_eval_count": 26, "eval_count": 298 });
    check("ollama", "llama3", &ollama, 26, 298, None);
    let titan =
        json!({ "inputTextTokenCount": 5, "results": [{ "tokenCount": 7, "outputText": "x" }] });
    // 5 at 0.2, 7 at 0.6.
    check("bedrock", "amazon.titan-text-express-v1", &titan, 5, 7, Some(0.00052));
    let event = json!({ "type": "response.completed", "response": {
        "id": "resp_1", "model": "gpt-4o-2024-08-06",
        "usage": { "input_tokens": 1234, "output_tokens": 567, "total_tokens": 1801 },
    } });
    check("openai", "gpt-4o", &event, 1234, 567, Some(0.8755));
}

#[test]
fn anthropic_writes_for_an_hour_cost_twice_the_input() {
    let usage = |five: i64, hour: i64| {
        json!({ "usage": {
            "input_tokens": 10, "cache_creation_input_tokens": 344_139, "cache_read_input_tokens": 0,
            "cache_creation": { "ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour },
            "output_tokens": 48,
        } })
    };
    check("anthropic", "claude-opus-4-5", &usage(0, 344_139), 344_149, 48, Some(344.264));
    check("anthropic", "claude-opus-4-5", &usage(344_139, 0), 344_149, 48, Some(215.211875));
}

#[test]
fn service_tiers_have_their_price_or_no_cost() {
    let openai = |tier: Option<&str>| {
        let usage =
            json!({ "prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000 });
        json!({ "usage": usage, "service_tier": tier })
    };
    for (tier, cents) in [
        (None, Some(0.225)),
        (Some("default"), Some(0.225)),
        (Some("flex"), Some(0.1125)),
        (Some("batch"), Some(0.1125)),
        (Some("priority"), None),
    ] {
        check("openai", "gpt-5-mini", &openai(tier), 1000, 1000, cents);
    }
    let anthropic = |tier: &str| json!({ "usage": { "input_tokens": 1000, "output_tokens": 1000, "service_tier": tier } });
    check("anthropic", "claude-sonnet-4-5", &anthropic("standard"), 1000, 1000, Some(1.8));
    check("anthropic", "claude-sonnet-4-5", &anthropic("batch"), 1000, 1000, Some(0.9));
    check("anthropic", "claude-sonnet-4-5", &anthropic("priority"), 1000, 1000, None);
}

#[test]
fn a_reply_that_states_its_cost_is_believed_where_it_is_in_dollars() {
    let reply = json!({ "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.000_123 } });
    check("openrouter", "openai/gpt-4o", &reply, 10, 5, Some(0.0123));
    check("openai", "gpt-4o", &reply, 10, 5, Some(0.0075));
    let searched = json!({ "usage": {
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "search_context_size": "low",
        "cost": { "total_cost": 0.005_02 },
    } });
    check("perplexity-ai", "sonar", &searched, 10, 5, Some(0.502));
}

fn span(attributes: &Value) -> Record {
    let attributes: Vec<Value> = attributes
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let value = if value.is_string() {
                json!({ "stringValue": value })
            } else {
                json!({ "intValue": value })
            };
            json!({ "key": key, "value": value })
        })
        .collect();
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat m",
        "startTimeUnixNano": "1795278418758000000", "endTimeUnixNano": "1795278419758000000",
        "attributes": attributes,
    });
    let sent = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    let (mut records, rejected) =
        read_with(SourceFormat::Otlp, sent.to_string().as_bytes(), Headers::default());
    assert!(rejected.is_empty(), "{rejected:?}");
    records.remove(0)
}

fn span_with(kinds: &Value) -> Record {
    let mut all = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-3-7-sonnet-20250219",
    });
    all.as_object_mut().unwrap().extend(kinds.as_object().unwrap().clone());
    span(&all)
}

#[test]
fn spans_of_every_convention_are_paid_by_kind() {
    // 235 at 3 dollars a million, 40 at 0.3, 25 at 3.75, 10 at 15.
    for (read, write) in [
        ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
        ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"),
        ("gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_creation_input_tokens"),
        ("gen_ai.usage.cache_read_tokens", "gen_ai.usage.cache_write_tokens"),
        ("gen_ai.usage.details.cache_read_tokens", "gen_ai.usage.details.cache_write_tokens"),
        (
            "gen_ai.usage.details.cache_read_input_tokens",
            "gen_ai.usage.details.cache_creation_input_tokens",
        ),
        ("llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_write"),
    ] {
        let record = span_with(&json!({
            "gen_ai.usage.input_tokens": 300, "gen_ai.usage.output_tokens": 10, read: 40, write: 25,
        }));
        assert_eq!(
            (record.req_units, record.res_units, record.total_units),
            (Some(300), Some(10), Some(310))
        );
        assert_eq!(record.cost, Some(0.096_075), "{read} {write}");
    }
    let openinference = span(&json!({
        "openinference.span.kind": "LLM", "llm.provider": "anthropic", "llm.model_name": "claude-3-7-sonnet-20250219",
        "llm.token_count.prompt": 1200, "llm.token_count.completion": 50, "llm.token_count.total": 1250,
        "llm.token_count.prompt_details.cache_read": 900, "llm.token_count.prompt_details.cache_write": 200,
        "llm.token_count.completion_details.reasoning": 30,
    }));
    // 100 at 3, 900 at 0.3, 200 at 3.75, 50 at 15.
    assert_eq!(openinference.cost, Some(0.207));
    let flex = span(&json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 1000, "openai.response.service_tier": "flex",
    }));
    assert_eq!(flex.cost, Some(0.1125));
}

#[test]
fn dollars_of_a_span_become_cents_to_the_last_digit() {
    let record = |dollars: &str| span_with(&json!({ "gen_ai.usage.cost": dollars }));
    // 0.07 times 100 is 7.000000000000001 in floats.
    for (dollars, cents) in [("0.07", Some(7.0)), ("0.0003", Some(0.03)), ("-1", None)] {
        assert_eq!(record(dollars).cost, cents, "{dollars}");
    }
}

#[test]
fn a_known_url_gives_the_provider_if_the_source_does_not() {
    let bare = |url: &str| {
        let usage = json!({ "usage": { "prompt_tokens": 9, "completion_tokens": 9 } });
        let request = json!({ "url": url, "body": { "model": "gpt-4o" } });
        let sent = json!({ "request": request, "response": { "status": 200, "body": usage } });
        portkey_with(&sent.to_string(), Headers::default()).0.remove(0)
    };
    let record = bare("https://api.openai.com/v1/chat/completions");
    assert_eq!((record.ai_org.as_deref(), record.cost), (Some("openai"), Some(0.01125)));
    assert_eq!(
        bare("https://ours.openai.azure.com/openai/x").ai_org.as_deref(),
        Some("azure-openai")
    );
    assert_eq!(bare("http://10.0.0.7/v1").ai_org, None);
    let span = span(&json!({
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "server.address": "api.openai.com",
        "server.port": 443, "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 9,
    }));
    assert_eq!((span.ai_org.as_deref(), span.cost), (Some("openai"), Some(0.01125)));
    let row = json!({ "id": "a", "created_at": "2026-11-21T16:26:58Z", "ai_org": "",
        "request_url": "https://api.x.ai/v1/chat/completions" });
    let batch = json!({ "table": "generations", "data": [row] }).to_string();
    let batch = crate::ingest::control_plane::rows(batch.as_bytes(), &Context::new(now())).unwrap();
    assert_eq!(batch.record_parts[0].1.ai_org.as_deref(), Some("x-ai"));
    let stated = native(r#"{"ai_org":"mine","request_url":"https://api.openai.com/v1","cost":1}"#)
        .0
        .remove(0);
    assert_eq!(stated.ai_org.as_deref(), Some("mine"));
    let unsaid = native(r#"{"request_url":"https://api.groq.com/openai/v1","cost":1}"#).0.remove(0);
    assert_eq!(unsaid.ai_org.as_deref(), Some("groq"));
}
