//! Tests of the values that are masked, and of those that keep their bytes.

use proptest::prelude::*;

use super::*;

#[test]
fn secrets_are_masked_and_the_rest_is_kept() {
    let raw = r#"{"Authorization":"Bearer sk-1234567890abc","x-api-key":"short","Cookie":["a=b"],"X-Auth-Token":null,
        "my-client-secret":"0123456789ab","x-ratelimit-remaining-tokens":"100","content-length": 66,
        "x-portkey-sensitive-headers":"X-Own, y","x-own":"abcdefghijklmnop","x-portkey-config":"pc-1"}"#;
    let masked = r#"{"Authorization":"sk********abc","x-api-key":"********","Cookie":"********","X-Auth-Token":"********","my-client-secret":"01********9ab","x-ratelimit-remaining-tokens":"100","content-length":66,"x-portkey-sensitive-headers":"X-Own, y","x-own":"ab********nop","x-portkey-config":"pc-1"}"#;
    assert_eq!(headers(raw).as_deref(), Some(masked));
    assert_eq!(headers(masked).as_deref(), Some(masked), "masking twice changes nothing");
    assert_eq!(headers("{}").as_deref(), Some("{}"));
    assert_eq!(headers("[]"), None);
}

#[test]
fn the_keys_of_an_inline_config_are_masked() {
    let inner = r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"openai","api_key":"sk-1234567890abc","aws_region":7}]}"#;
    let raw = serde_json::json!({ "x-portkey-config": inner }).to_string();
    let masked = headers(&raw).unwrap_or_default();
    assert!(
        masked.contains("sk********abc")
            && masked.contains("fallback")
            && !masked.contains("1234567890"),
        "{masked}"
    );
    assert_eq!(
        headers(r#"{"x-portkey-config":"{\"api_key\":\"sk-1"}"#).as_deref(),
        Some(r#"{"x-portkey-config":"********"}"#)
    );
}

#[test]
fn every_way_to_hand_over_a_key_is_known() {
    let key = "0123456789abcdefgh";
    for name in [
        "authorization",
        "Proxy-Authorization",
        "x-portkey-api-key",
        "api-key",
        "x-goog-api-key",
        "x-api-key",
        "set-cookie",
        "x-portkey-aws-access-key-id",
        "x-portkey-aws-secret-access-key",
        "x-portkey-aws-session-token",
        "x-amz-security-token",
        "x-portkey-vertex-service-account-json",
        "x-portkey-azure-ad-token",
        "x-portkey-azure-entra-client-secret",
        "Modal-Key",
        "modal-secret",
        "ocp-apim-subscription-key",
        "x-functions-key",
        "x-amzn-authorization",
    ] {
        let masked = headers(&serde_json::json!({ name: key }).to_string()).unwrap();
        assert_eq!(masked, format!(r#"{{"{name}":"01********fgh"}}"#));
    }
    for name in [
        "x-portkey-virtual-key",
        "idempotency-key",
        "x-portkey-trace-id",
        "x-ratelimit-limit-tokens",
        "max_tokens",
    ] {
        let raw = serde_json::json!({ name: key }).to_string();
        assert_eq!(headers(&raw), Some(raw));
    }
    let scheme =
        headers(r#"{"x-forwarded-auth":"bearer 0123456789abcdefgh","x-note":"basic"}"#).unwrap();
    assert_eq!(scheme, r#"{"x-forwarded-auth":"01********fgh","x-note":"basic"}"#);
    assert_eq!(
        headers(r#"{"api-key":"0123456789********abcdefgh"}"#).unwrap(),
        r#"{"api-key":"01********fgh"}"#
    );
}

/// The payload of the npm gateway's hooks: keys of the providers and of gatelog, in JSON within
/// JSON within JSON.
#[test]
fn keys_within_a_config_are_masked_however_deep() {
    let key = "0123456789abcdefgh";
    let config = serde_json::json!({
        "targets": [{ "api_key": key, "aws_secret_access_key": key, "aws_region": "eu-west-1", "custom_host": "http://127.0.0.1:1" }],
        "vertex_service_account_json": { "private_key": key },
        "override_params": { "max_tokens": 7, "stop_tokens": "a" },
        "request_headers": { "Authorization": format!("Bearer {key}") },
        "after_request_hooks": [{ "checks": [{ "id": "default.log", "parameters": {
            "headers": serde_json::json!({ "x-portkey-api-key": key, "x-team": "a" }).to_string() } }] }],
    });
    for value in [serde_json::json!(config.to_string()), config] {
        let raw = serde_json::json!({ "x-portkey-config": value }).to_string();
        let masked = headers(&raw).unwrap();
        assert!(!masked.contains("3456789"), "{masked}");
        for kept in ["127.0.0.1", "max_tokens", "x-team", "stop_tokens"] {
            assert!(masked.contains(kept), "{masked}");
        }
        assert_eq!(
            headers(&masked).as_deref(),
            Some(masked.as_str()),
            "masking twice changes nothing"
        );
    }
}

#[test]
fn headers_of_our_own_form_keep_their_bytes_unless_a_secret_is_in_them() {
    for (raw, expected) in [
        (
            r#"{ "a" : "b", "x-portkey-config": "pc-1" }"#,
            r#"{ "a" : "b", "x-portkey-config": "pc-1" }"#,
        ),
        (r#"{ "a" : "b", "api-key" : "********" }"#, r#"{ "a" : "b", "api-key" : "********" }"#),
        (
            r#"{ "a" : "b", "api-key" : "0123456789abcdefgh" }"#,
            r#"{"a":"b","api-key":"01********fgh"}"#,
        ),
        (r#"[["api-key","0123456789abcdefgh"]]"#, r#""********""#),
        (r#""api-key: 0123456789abcdefgh""#, r#""********""#),
        ("null", "null"),
        ("{}", "{}"),
    ] {
        let mut text = raw.to_owned();
        any_headers(&mut text);
        assert_eq!(text, expected);
    }
}

#[test]
fn urls_lose_their_keys() {
    for (raw, expected) in [
        ("https://host/v1/chat", "https://host/v1/chat"),
        (
            "https://host/v1beta/m:generate?alt=sse&key=0123456789abcdefgh",
            "https://host/v1beta/m:generate?alt=sse&key=01********fgh",
        ),
        (
            "https://host/a?code=short&api-version=2024-10-21",
            "https://host/a?code=********&api-version=2024-10-21",
        ),
        ("https://ann:0123456789@host/a@b?max_tokens=7", "https://********@host/a@b?max_tokens=7"),
        ("https://host/a?x@y", "https://host/a?x@y"),
        (
            "https://host#access_token=0123456789abcdefgh&a=b",
            "https://host#access_token=01********fgh&a=b",
        ),
        (
            "https://host?key=0123456789abcdefgh#token=short",
            "https://host?key=01********fgh#token=********",
        ),
        ("ann:0123456789@host/v1", "********@host/v1"),
        ("ann@host", "ann@host"),
        ("/v1?key=0123456789abcdefgh", "/v1?key=01********fgh"),
        ("not a url", "not a url"),
        ("", ""),
    ] {
        let mut text = raw.to_owned();
        url(&mut text);
        assert_eq!(text, expected);
        url(&mut text);
        assert_eq!(text, expected, "masking twice changes nothing");
    }
}

#[test]
fn parameters_keep_their_bytes_unless_a_key_is_in_them() {
    let plain = r#"{ "max_tokens": 7, "user": "a" }"#;
    assert!(matches!(parameters(plain), Cow::Borrowed(text) if text == plain));
    let masked = parameters(
        r#"{"extra_headers":{"Authorization":"Bearer 0123456789abcdefgh", "x":"basic abc"},"seed":12345678901234567890123,
           "api_key":"sk-1","t":1.0}"#,
    );
    let expected = r#"{"extra_headers":{"Authorization":"01********fgh", "x":"********"},"seed":12345678901234567890123,
           "api_key":"********","t":1.0}"#;
    assert_eq!(masked, expected);
    assert_eq!(parameters(expected), expected, "masking twice changes nothing");
}

/// Schemas, token ids, numbers and sentences are not secrets, whatever their names.
#[test]
fn values_that_resemble_secrets_keep_their_bytes() {
    let schema = r#"{"type": "object", "properties": {"key": {"type": "string"}, "token": {"type": "string"}, "password": {"type": "string", "minLength": 12}, "cookie": {"type": "object"}, "api_key": {"type": "string"}, "secret_santa": {}}, "required": ["key"]}"#;
    for raw in [
        format!(r#"{{"tools": [{{"type": "function", "function": {{"name": "kv_get", "parameters": {schema}}}}}]}}"#),
        format!(r#"{{"tools": [{{"name": "f", "input_schema": {schema}}}]}}"#),
        format!(r#"{{"tools": [{{"functionDeclarations": [{{"name": "f", "parametersJsonSchema": {schema}}}]}}]}}"#),
        format!(r#"{{"toolConfig": {{"tools": [{{"toolSpec": {{"inputSchema": {{"json": {schema}}}}}}}]}}}}"#),
        format!(r#"{{"functions": [{{"name": "f", "parameters": {schema}}}], "function_call": {{"name": "token"}}}}"#),
        format!(r#"{{"response_format": {{"type": "json_schema", "json_schema": {{"schema": {schema}}}}}}}"#),
        format!(r#"{{"text": {{"format": {{"type": "json_schema", "schema": {schema}}}}}}}"#),
        format!(r#"{{"generationConfig": {{"responseSchema": {schema}}}, "extra_body": {{"guided_json": {schema}}}}}"#),
        r#"{"stop_token_ids": [1, 2], "eos_token_id": 50256, "eos_token": "</s>", "skip_special_tokens": true}"#.to_owned(),
        r#"{"tools": [{"function": {"name": "f", "description": "Bearer bonds are sold"}}]}"#.to_owned(),
        r#"{"note": "Bearer bonds", "other": "Basic instructions", "third": "bearer certificates", "x": "Basic"}"#.to_owned(),
        r#"{"tool_choice": {"type": "function", "function": {"name": "token"}}, "prompt_cache_key": "k-0123456789ab"}"#.to_owned(),
        r#"{"seed": 12345678901234567890123, "temperature": 1.0, "x": 1e2, "é": "\u00e9", "k":null}"#.to_owned(),
        r#"{"messages": [{"role": "user", "content": "Bearer sk-0123456789", "api_key": "mine"}], "system": "password"}"#.to_owned(),
    ] {
        assert!(matches!(parameters(&raw), Cow::Borrowed(_)), "{raw}\n{}", parameters(&raw));
        let config = format!(r#"{{"override_params": {raw}}}"#);
        let header = serde_json::json!({ "x-portkey-config": config }).to_string();
        assert_eq!(headers(&header), Some(header));
    }
}

#[test]
fn keys_beside_schemas_are_masked() {
    let key = "planted-0123456789";
    for raw in [
        format!(
            r#"{{"tools":[{{"type":"mcp","server_url":"https://h/?key={key}","headers":{{"Authorization":"Bearer {key}"}},"authorization":"{key}"}}]}}"#
        ),
        format!(r#"{{"tools":"[{{\"headers\":{{\"x-api-key\":\"{key}\"}}}}]"}}"#),
        format!(
            r#"{{"fallbacks":[{{"model":"x","api_key":"{key}"}}],"base_url":"https://u:{key}@h/v1?key={key}"}}"#
        ),
        format!(
            r#"{{"azure_ad_token":"{key}","extra_body":{{"headers":{{"authorization":"{key}"}}}}}}"#
        ),
        format!(
            r#"{{"vertex_credentials":"{{\"private_key\":\"{key}\"}}","default_headers":[["x-api-key","{key}"]]}}"#
        ),
        format!(
            r#"{{"extra_headers":{{"x-config":"{{\"api_key\":\"{key}\"}}","x-any":"Bearer {key}"}},"note":"Bearer {key}"}}"#
        ),
        format!(
            r#"{{"password":["{key}"],"secret":{{"a":"{key}"}},"token":{{"b":"{key}"}},"auth":"basic {key}"}}"#
        ),
    ] {
        let masked = parameters(&raw).into_owned();
        assert!(!masked.contains("0123456"), "{masked}");
        serde_json::from_str::<serde_json::Value>(&masked).unwrap();
        assert_eq!(parameters(&masked), masked, "masking twice changes nothing");
    }
}

#[test]
fn attributes_are_masked_by_their_names_and_values() {
    let key = "planted-0123456789";
    for (name, text) in [
        ("url.query", format!("a=b&key={key}")),
        ("http.target", format!("/v1?key={key}#access_token={key}")),
        ("api_key", key.to_owned()),
        ("llm.accessToken", key.to_owned()),
        ("llm.headers", format!(r#"{{"Authorization":"Bearer {key}","x-functions-key":"{key}"}}"#)),
        ("any", format!(r#"{{"api_key":"{key}"}}"#)),
        ("any", format!("https://u:{key}@h/p")),
        ("any", format!("Bearer {key}")),
    ] {
        let masked = attribute(name, &text).into_owned();
        assert!(!masked.contains("0123456"), "{name}: {masked}");
        assert_eq!(attribute(name, &masked), masked, "masking twice changes nothing");
    }
    for (name, text) in [
        ("gen_ai.token.type", "input"),
        ("a", "ann@example.org: see https://h/?key=abc for more"),
        ("a", "[not json"),
        ("a", "Bearer of bad news"),
        ("url.path", "/a/b"),
    ] {
        assert!(matches!(attribute(name, text), Cow::Borrowed(_)), "{name}");
    }
}

#[test]
fn a_config_that_stands_in_full_where_its_name_is_expected_is_masked() {
    for (raw, expected) in [
        ("pc-1", "pc-1"),
        (r#"{"api_key":"0123456789abcdef"}"#, r#"{"api_key":"01********def"}"#),
        (r#"{"api_key":"0123456789abc"#, STARS),
        (
            r#"{"custom_host":"https://u:pw@h/v1?api-key=0123456789abcdef"}"#,
            r#"{"custom_host":"https://********@h/v1?api-key=01********def"}"#,
        ),
    ] {
        let mut text = raw.to_owned();
        config(&mut text);
        assert_eq!(text, expected);
        config(&mut text);
        assert_eq!(text, expected, "masking twice changes nothing");
    }
}

#[test]
fn json_of_any_depth_is_gone_through() {
    let deep = format!(
        r#"{}{{"api_key":"0123456789abcdef"}}{}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert!(parameters(&deep).contains("01********def"));
    let mut nested = r#"{"api_key":"0123456789abcdef"}"#.to_owned();
    for _ in 0..10 {
        nested = serde_json::json!({ "a": nested }).to_string();
    }
    assert!(!parameters(&nested).contains("0123456"));
}

proptest! {
    #[test]
    fn any_text_is_taken_and_masked_once(text in "[\\[\\]{}\",:a-ck_\\\\ 0-9é?&#=/@-]{0,60}") {
        for name in ["a", "url.query", "key", "headers"] {
            let masked = attribute(name, &text).into_owned();
            prop_assert_eq!(attribute(name, &masked), masked.clone());
        }
        let mut place = text.clone();
        url(&mut place);
        let once = place.clone();
        url(&mut place);
        prop_assert_eq!(place, once);
    }
}
