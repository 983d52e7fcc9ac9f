//! Usage of every provider, with the arithmetic that the provider publishes.

use super::*;

const NONE: Parts = Parts {
    cache_read: 0,
    cache_write: 0,
    cache_write_1h: 0,
    audio_input: 0,
    audio_cache_read: 0,
    tool_use: 0,
    reasoning: 0,
    audio_output: 0,
    image_output: 0,
};

fn usage_of(reply: &str) -> Usage {
    Usage::from_reply(&[], Some(reply))
}

/// Checks request, response and kinds. The total is the sum of the first two, and no kind is larger
/// than its whole.
fn check(reply: &str, request: i64, response: i64, parts: Parts) {
    let usage = usage_of(reply);
    assert_eq!((usage.request, usage.response), (Some(request), Some(response)), "{reply}");
    assert_eq!(usage.total, Some(request + response), "{reply}");
    assert_eq!(usage.billed.parts, parts, "{reply}");
    assert!(parts.request_units() <= request && parts.response_units() <= response, "{reply}");
    assert!(!usage.billed.is_partial, "{reply}");
}

#[test]
fn openai_counts_cached_and_reasoning_in() {
    check(
        r#"{"usage":{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,
            "prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":100,"audio_tokens":0}}}"#,
        2006,
        300,
        Parts { cache_read: 1920, reasoning: 100, ..NONE },
    );
    let responses = r#"{"id":"resp_1","usage":{"input_tokens":1234,"input_tokens_details":{"cached_tokens":1000},
        "output_tokens":567,"output_tokens_details":{"reasoning_tokens":500},"total_tokens":1801}}"#;
    check(responses, 1234, 567, Parts { cache_read: 1000, reasoning: 500, ..NONE });
    let event = format!(r#"{{"type":"response.completed","response":{responses}}}"#);
    check(&event, 1234, 567, Parts { cache_read: 1000, reasoning: 500, ..NONE });
}

#[test]
fn xai_leaves_reasoning_out_of_the_completion() {
    let usage = |prompt: i64, completion: i64, total: &str, reasoning: i64| {
        format!(
            r#"{{"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},{total}
            "completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}}}"#
        )
    };
    let thought = |reasoning| Parts { reasoning, ..NONE };
    check(&usage(10_120, 1499, r#""total_tokens":14428,"#, 2809), 10_120, 4308, thought(2809));
    check(&usage(13, 1, r#""total_tokens":400,"#, 386), 13, 387, thought(386));
    check(&usage(500, 500, r#""total_tokens":1000,"#, 200), 500, 500, thought(200));
    check(&usage(13, 1, "", 386), 13, 387, thought(386));
    check(&usage(13, 400, "", 386), 13, 400, thought(386));
}

#[test]
fn anthropic_leaves_cached_tokens_out_of_the_input() {
    let lives =
        r#""cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":30},"#;
    let usage = |lives: &str| {
        format!(
            r#"{{"usage":{{"input_tokens":10,"cache_creation_input_tokens":50,"cache_read_input_tokens":100,
            {lives}"output_tokens":48,"service_tier":"standard"}}}}"#
        )
    };
    let written = Parts { cache_read: 100, cache_write: 50, ..NONE };
    check(&usage(""), 160, 48, written);
    check(&usage(lives), 160, 48, Parts { cache_write: 20, cache_write_1h: 30, ..written });
    // A stream states the input in its first event and the output in its last.
    let stream = r#"[{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":100,
        "output_tokens":1}}},{"type":"content_block_delta","delta":{"text":"x"}},
        {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":48}}]"#;
    check(stream, 110, 48, Parts { cache_read: 100, ..NONE });
    let lines = r#""event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":5}}\n\n""#;
    check(lines, 7, 5, NONE);
}

#[test]
fn a_null_in_a_later_event_of_a_stream_erases_nothing() {
    // Chunks as Python SDKs dump them: with every known field, null if the event does not state it.
    let events = |events: &[&str]| {
        let lines: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        [format!("[{}]", events.join(",")), serde_json::to_string(&lines).unwrap()]
    };
    let cached = Parts { cache_read: 100, ..NONE };
    let streams: [(&[&str], i64, i64, Parts); 8] = [
        (
            &[
                r#"{"type":"message_start","message":{"usage":{"input_tokens":2095,"cache_read_input_tokens":100,
                "cache_creation":{"ephemeral_1h_input_tokens":7},"output_tokens":1}}}"#,
                r#"{"type":"message_delta","usage":{"input_tokens":null,"cache_read_input_tokens":null,
                "cache_creation":null,"output_tokens":503}}"#,
            ],
            2202,
            503,
            Parts { cache_write_1h: 7, ..cached },
        ),
        (
            &[
                r#"{"choices":[],"usage":{"prompt_tokens":150,"completion_tokens":1,
                "prompt_tokens_details":{"cached_tokens":100}}}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":5,
                "prompt_tokens_details":{"cached_tokens":null,"audio_tokens":null}}}"#,
                r#"{"choices":[],"usage":null}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":null}}"#,
            ],
            150,
            5,
            cached,
        ),
        (
            &[
                r#"{"type":"response.in_progress","response":{"usage":{"input_tokens":150,"output_tokens":null,
                "input_tokens_details":{"cached_tokens":100}}}}"#,
                r#"{"type":"response.completed","response":{"usage":{"input_tokens":null,"output_tokens":5,
                "input_tokens_details":null}}}"#,
            ],
            150,
            5,
            cached,
        ),
        (
            &[
                r#"{"usageMetadata":{"promptTokenCount":150,"cachedContentTokenCount":100,
                "candidatesTokenCount":null}}"#,
                r#"{"usage_metadata":null,"usageMetadata":{"promptTokenCount":null,
                "cachedContentTokenCount":null,"candidatesTokenCount":5,"totalTokenCount":155}}"#,
            ],
            150,
            5,
            cached,
        ),
        (
            &[
                r#"{"metadata":{},"usage":{"inputTokens":50,"cacheReadInputTokens":100,"outputTokens":null}}"#,
                r#"{"usage":{"inputTokens":null,"cacheReadInputTokens":null,"outputTokens":5}}"#,
            ],
            150,
            5,
            cached,
        ),
        (
            &[
                r#"{"outputText":"x","amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":5}}"#,
                r#"{"amazon-bedrock-invocationMetrics":{"inputTokenCount":null,"outputTokenCount":null}}"#,
            ],
            9,
            5,
            NONE,
        ),
        (
            &[
                r#"{"type":"message-end","delta":{"usage":{"billed_units":{"input_tokens":9,"output_tokens":5}}}}"#,
                r#"{"type":"end","delta":{"usage":{"billed_units":{"input_tokens":null,"output_tokens":null}}}}"#,
            ],
            9,
            5,
            NONE,
        ),
        (
            &[
                r#"{"done":false,"prompt_eval_count":9,"eval_count":null}"#,
                r#"{"done":true,"prompt_eval_count":null,"eval_count":5}"#,
            ],
            9,
            5,
            NONE,
        ),
    ];
    for (stream, request, response, parts) in streams {
        let stream: Vec<String> = stream.iter().map(|event| event.replace("\n", "")).collect();
        let stream: Vec<&str> = stream.iter().map(String::as_str).collect();
        for reply in events(&stream) {
            check(&reply, request, response, parts);
        }
    }
    // Of a duplicate key in one object the last value counts, even if it is null.
    let doubled =
        usage_of(r#"{"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens":null}}"#);
    assert_eq!((doubled.request, doubled.response), (None, Some(5)));
}

#[test]
fn gateways_that_translate_anthropic_do_either() {
    let usage = |prompt: i64, total: i64| {
        format!(
            r#"{{"usage":{{"prompt_tokens":{prompt},"completion_tokens":5,"total_tokens":{total},
            "cache_read_input_tokens":100,"prompt_tokens_details":{{"cached_tokens":100,
            "cache_creation_tokens":30,"cache_creation_token_details":{{"ephemeral_5m_input_tokens":0,
            "ephemeral_1h_input_tokens":30}}}}}}}}"#
        )
    };
    let parts = Parts { cache_read: 100, cache_write_1h: 30, ..NONE };
    check(&usage(140, 145), 140, 5, parts);
    check(&usage(40, 145), 140, 5, parts);
}

#[test]
fn bedrock_has_names_of_its_own() {
    check(
        r#"{"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":145,"cacheReadInputTokens":100,
            "cacheWriteInputTokens":30,"cacheDetails":[{"ttl":"1h","inputTokens":20},{"ttl":"5m","inputTokens":10}]}}"#,
        140,
        5,
        Parts { cache_read: 100, cache_write: 10, cache_write_1h: 20, ..NONE },
    );
    check(r#"{"inputTextTokenCount":5,"results":[{"tokenCount":7,"outputText":"x"}]}"#, 5, 7, NONE);
    check(r#"{"inputTextTokenCount":5,"results":[{"tokenCount":7},{"tokenCount":2}]}"#, 5, 9, NONE);
    check(
        r#"[{"outputText":"x"},{"inputTextTokenCount":5,"totalOutputTextTokenCount":7}]"#,
        5,
        7,
        NONE,
    );
    check(r#"{"generation":"x","prompt_token_count":5,"generation_token_count":7}"#, 5, 7, NONE);
    check(
        r#"{"outputText":"x","amazon-bedrock-invocationMetrics":{"inputTokenCount":5,"outputTokenCount":7}}"#,
        5,
        7,
        NONE,
    );
    let embedding = usage_of(r#"{"embedding":[0.1],"inputTextTokenCount":5}"#);
    assert_eq!((embedding.request, embedding.response, embedding.total), (Some(5), None, None));
}

#[test]
fn gemini_counts_tools_and_thoughts_apart() {
    check(
        r#"{"usageMetadata":{"promptTokenCount":151,"candidatesTokenCount":1089,"totalTokenCount":20689,
            "toolUsePromptTokenCount":18329,"thoughtsTokenCount":1120}}"#,
        18_480,
        2209,
        Parts { tool_use: 18_329, reasoning: 1120, ..NONE },
    );
    check(
        r#"{"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":20,"totalTokenCount":150,
            "thoughtsTokenCount":30,"cachedContentTokenCount":60}}"#,
        100,
        50,
        Parts { cache_read: 60, reasoning: 30, ..NONE },
    );
    // A version that counts the thoughts among the candidates.
    check(
        r#"{"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":50,"totalTokenCount":150,
            "thoughtsTokenCount":30}}"#,
        100,
        50,
        Parts { reasoning: 30, ..NONE },
    );
    check(
        r#"[{"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8}},
            {"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":5,"totalTokenCount":13}}]"#,
        8,
        5,
        NONE,
    );
    check(
        r#"{"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":30,"totalTokenCount":1030,
            "cachedContentTokenCount":500,"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":400},
            {"modality":"TEXT","tokenCount":100}],"promptTokensDetails":[{"modality":"AUDIO","tokenCount":900},
            {"modality":"TEXT","tokenCount":100}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":20}]}}"#,
        1000,
        30,
        Parts {
            cache_read: 100,
            audio_input: 500,
            audio_cache_read: 400,
            image_output: 20,
            ..NONE
        },
    );
    let prompt_only =
        usage_of(r#"{"usageMetadata":{"promptTokenCount":100,"totalTokenCount":100}}"#);
    assert_eq!(
        (prompt_only.request, prompt_only.response, prompt_only.total),
        (Some(100), None, Some(100))
    );
}

#[test]
fn cohere_bills_less_than_it_reads() {
    let billed = r#"{"billed_units":{"input_tokens":17,"output_tokens":12},"tokens":{"input_tokens":83,"output_tokens":12}}"#;
    check(
        &format!(r#"{{"id":"x","message":{{"role":"assistant"}},"usage":{billed}}}"#),
        17,
        12,
        NONE,
    );
    check(&format!(r#"{{"text":"x","meta":{billed}}}"#), 17, 12, NONE);
    check(&format!(r#"[{{"type":"message-end","delta":{{"usage":{billed}}}}}]"#), 17, 12, NONE);
    check(
        &format!(r#"{{"event_type":"stream-end","response":{{"meta":{billed}}}}}"#),
        17,
        12,
        NONE,
    );
    let embedding =
        usage_of(r#"{"embeddings":[[0.1]],"meta":{"billed_units":{"input_tokens":4}}}"#);
    assert_eq!((embedding.request, embedding.response), (Some(4), None));
    assert!(
        usage_of(r#"{"results":[],"meta":{"billed_units":{"search_units":1}}}"#).billed.is_partial
    );
}

#[test]
fn other_providers_have_their_own_names() {
    check(
        r#"{"model":"llama3","message":{},"done":true,"prompt_eval_count":26,"eval_count":298}"#,
        26,
        298,
        NONE,
    );
    check(
        r#""{\"response\":\"x\",\"done\":false}\n{\"done\":true,\"prompt_eval_count\":26,\"eval_count\":298}\n""#,
        26,
        298,
        NONE,
    );
    check(r#"{"content":"x","tokens_evaluated":9,"tokens_predicted":4}"#, 9, 4, NONE);
    check(
        r#"{"result":{"response":"x","usage":{"prompt_tokens":9,"completion_tokens":4}},"success":true}"#,
        9,
        4,
        NONE,
    );
    check(
        r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}}"#,
        9,
        4,
        NONE,
    );
    let deepseek = r#"{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_cache_hit_tokens":8}}"#;
    check(deepseek, 9, 4, Parts { cache_read: 8, ..NONE });
    let moonshot = r#"{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"cached_tokens":8}}"#;
    check(moonshot, 9, 4, Parts { cache_read: 8, ..NONE });
    let jina = usage_of(r#"{"data":[{"embedding":[0.1]}],"usage":{"total_tokens":8}}"#);
    assert_eq!((jina.request, jina.response, jina.total), (Some(8), None, Some(8)));
    for nothing in [
        "",
        "null",
        "{}",
        "[]",
        r#""text""#,
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        "{\"usage\":3}",
    ] {
        assert_eq!(usage_of(nothing), Usage::default(), "{nothing}");
    }
}

#[test]
fn audio_has_kinds_of_its_own() {
    check(
        r#"{"usage":{"prompt_tokens":1000,"completion_tokens":1000,"total_tokens":2000,
            "prompt_tokens_details":{"audio_tokens":900,"text_tokens":100,"cached_tokens":0},
            "completion_tokens_details":{"audio_tokens":900,"text_tokens":100,"reasoning_tokens":0}}}"#,
        1000,
        1000,
        Parts { audio_input: 900, audio_output: 900, ..NONE },
    );
    let realtime = r#"{"type":"response.done","response":{"usage":{"total_tokens":253,"input_tokens":132,
        "output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,"cached_tokens":74,
        "cached_tokens_details":{"text_tokens":64,"audio_tokens":10}},"output_token_details":{"text_tokens":30,
        "audio_tokens":91}}}}"#;
    let parts =
        Parts { cache_read: 64, audio_input: 3, audio_cache_read: 10, audio_output: 91, ..NONE };
    check(realtime, 132, 121, parts);
    // Each answer of a session has a usage of its own.
    let twice = format!(r#"[{{"type":"session.created"}},{realtime},{realtime}]"#);
    check(&twice, 264, 242, parts.plus(parts));
    let unclear = r#"{"usage":{"prompt_tokens":10,"completion_tokens":1,
        "prompt_tokens_details":{"audio_tokens":5,"cached_tokens":5}}}"#;
    assert!(usage_of(unclear).billed.is_partial, "the cached part of the audio is unknown");
}

#[test]
fn a_total_that_no_kind_explains_has_no_cost() {
    let usage =
        usage_of(r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":40}}"#);
    assert_eq!((usage.request, usage.response, usage.total), (Some(10), Some(5), Some(40)));
    assert!(usage.billed.is_partial);
    // A total below the sum is ignored.
    check(r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":12}}"#, 10, 5, NONE);
    check(r#"{"usage":{"completion_tokens":5,"total_tokens":12}}"#, 7, 5, NONE);
    let most = i64::MAX;
    let huge = usage_of(&format!(
        r#"{{"usage":{{"input_tokens":{most},"cache_read_input_tokens":{most},"output_tokens":1}}}}"#
    ));
    assert_eq!((huge.request, huge.total), (Some(most), None), "counts never wrap");
}

#[test]
fn charges_beside_tokens_are_detected() {
    for more in [
        r#""server_tool_use":{"web_search_requests":2}"#,
        r#""num_sources_used":3"#,
        r#""search_context_size":"low""#,
        r#""speed":"fast""#,
        r#""inference_geo":"us""#,
    ] {
        assert!(
            usage_of(&format!(r#"{{"usage":{{"input_tokens":1,"output_tokens":1,{more}}}}}"#))
                .billed
                .is_partial,
            "{more}"
        );
    }
    for nothing in [
        r#""server_tool_use":{"web_search_requests":0}"#,
        r#""num_sources_used":0"#,
        r#""speed":"standard""#,
    ] {
        check(
            &format!(r#"{{"usage":{{"input_tokens":1,"output_tokens":1,{nothing}}}}}"#),
            1,
            1,
            NONE,
        );
    }
    let stated = |cost: &str| {
        usage_of(&format!(r#"{{"usage":{{"prompt_tokens":1,{cost}}}}}"#)).billed.stated_cents
    };
    assert_eq!(stated(r#""cost":0.0003"#), Some(0.03));
    assert_eq!(stated(r#""cost":{"input_tokens_cost":0.1,"total_cost":0.0061}"#), Some(0.61));
    assert_eq!(stated(r#""cost":0.0003,"is_byok":true"#), None);
    assert_eq!(stated(r#""cost":-1"#), None);
}

#[test]
fn the_service_tier_is_the_one_that_served() {
    let tier = |asked: &str, reply: &str| {
        Usage::from_reply(&members(asked).unwrap(), Some(reply)).billed.tier
    };
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1}"#;
    for (name, expected) in [
        ("default", Tier::Standard),
        ("auto", Tier::Standard),
        ("on_demand", Tier::Standard),
        ("flex", Tier::Flex),
        ("batch", Tier::Batch),
        ("priority", Tier::Other),
        ("scale", Tier::Other),
    ] {
        assert_eq!(
            tier("{}", &format!(r#"{{{usage},"service_tier":"{name}"}}"#)),
            expected,
            "{name}"
        );
        assert_eq!(
            tier(&format!(r#"{{"service_tier":"{name}"}}"#), &format!("{{{usage}}}")),
            expected,
            "{name}"
        );
    }
    let anthropic = r#"{"usage":{"input_tokens":1,"output_tokens":1,"service_tier":"batch"}}"#;
    assert_eq!(tier("{}", anthropic), Tier::Batch);
    let served = format!(r#"{{{usage},"service_tier":"default"}}"#);
    assert_eq!(tier(r#"{"service_tier":"priority"}"#, &served), Tier::Standard);
    let event =
        format!(r#"{{"type":"response.completed","response":{{{usage},"service_tier":"flex"}}}}"#);
    assert_eq!(tier("{}", &event), Tier::Flex);
    let bedrock =
        r#"{"usage":{"inputTokens":1,"outputTokens":1},"serviceTier":{"type":"priority"}}"#;
    assert_eq!(tier("{}", bedrock), Tier::Other);
    let google =
        r#"{"usageMetadata":{"promptTokenCount":1,"trafficType":"PROVISIONED_THROUGHPUT"}}"#;
    assert_eq!(tier("{}", google), Tier::Other);
}

#[test]
fn a_source_that_counts_by_itself_wins_where_it_speaks_of_another_total() {
    let stated = usage_of(
        r#"{"usage":{"prompt_tokens":13,"completion_tokens":1,"total_tokens":400,
        "completion_tokens_details":{"reasoning_tokens":386}}}"#,
    );
    let same = stated.with_counts(Some(13), Some(1), Some(400));
    assert_eq!((same.request, same.response, same.total), (Some(13), Some(387), Some(400)));
    let other = stated.with_counts(Some(20), Some(500), Some(520));
    assert_eq!((other.request, other.response, other.total), (Some(20), Some(500), Some(520)));
    let none = Usage::default().with_counts(Some(9), Some(9), Some(18));
    assert_eq!((none.request, none.response, none.total), (Some(9), Some(9), Some(18)));
}

#[test]
fn spans_say_the_same_in_many_names() {
    let read = |pairs: &[(&str, i64)]| {
        let count =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        attributes::read(count, |_| None)
    };
    let parts = Parts { cache_read: 900, cache_write: 200, reasoning: 30, ..NONE };
    for names in [
        [
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.reasoning.output_tokens",
        ],
        [
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.reasoning_tokens",
        ],
        [
            "gen_ai.usage.cache_read_tokens",
            "gen_ai.usage.cache_write_tokens",
            "gen_ai.usage.details.reasoning_tokens",
        ],
        [
            "gen_ai.usage.details.cache_read_tokens",
            "gen_ai.usage.details.cache_write_tokens",
            "ai.usage.reasoningTokens",
        ],
        [
            "llm.token_count.prompt_details.cache_read",
            "llm.token_count.prompt_details.cache_write",
            "llm.token_count.completion_details.reasoning",
        ],
    ] {
        let stated = [("gen_ai.usage.input_tokens", 1200), ("gen_ai.usage.output_tokens", 50)];
        let kinds = [(names[0], 900), (names[1], 200), (names[2], 30)];
        let usage = read(&[stated.as_slice(), kinds.as_slice()].concat());
        assert_eq!(
            (usage.request, usage.response, usage.total),
            (Some(1200), Some(50), Some(1250)),
            "{names:?}"
        );
        assert_eq!(usage.billed.parts, parts, "{names:?}");
    }
    // An instrumentation that leaves out the cached tokens.
    let left_out = read(&[
        ("llm.token_count.prompt", 100),
        ("llm.token_count.completion", 50),
        ("llm.token_count.total", 1250),
        ("llm.token_count.prompt_details.cache_read", 900),
        ("llm.token_count.prompt_details.cache_write", 200),
    ]);
    assert_eq!((left_out.request, left_out.response), (Some(1200), Some(50)));
    let audio = read(&[
        ("gen_ai.usage.input_tokens", 10),
        ("gen_ai.usage.output_tokens", 10),
        ("gen_ai.usage.details.input_audio_tokens", 8),
        ("gen_ai.usage.details.cache_audio_read_tokens", 3),
        ("gen_ai.usage.details.cache_read_tokens", 3),
        ("gen_ai.usage.details.output_audio_tokens", 7),
        ("gen_ai.usage.cache_creation.ephemeral_1h_input_tokens", 2),
    ]);
    let heard =
        Parts { audio_input: 5, audio_cache_read: 3, audio_output: 7, cache_write_1h: 2, ..NONE };
    assert_eq!(audio.billed.parts, heard);
}
