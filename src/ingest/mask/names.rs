//! Names that mark a value as a secret: of headers, of parameters in JSON, and of parameters in a
//! URL.
//!
//! Headers that carry a secret have many names, and few of those carry anything else, so parts of a
//! name are enough there. In parameters the same words have other meanings (`eos_token_id`,
//! `prompt_cache_key`), so whole words are compared there.

use std::sync::LazyLock;

use regex::Regex;

/// Substrings of the names of headers that hold a secret.
const PARTS: [&str; 14] = [
    "access-key",
    "access_key",
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "password",
    "secret",
    "service-account",
    "service_account",
    "signature",
    "token",
];
/// Header names that end with `key` but hold no secret.
const OPEN_KEYS: [&str; 5] =
    ["cache-key", "cache_key", "idempotency-key", "virtual-key", "virtual_key"];
/// Parameters of a URL that hold a secret, in addition to those whose names mark one.
const IN_URLS: [&str; 3] = ["code", "key", "sig"];

/// Words that mark a secret at any position in the name of a parameter.
const WORDS: [&str; 15] = [
    "apikey",
    "apikeys",
    "auth",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "pwd",
    "secret",
    "secrets",
];
/// Pairs of words that mark a secret.
const PAIRS: [[&str; 2]; 14] = [
    ["access", "key"],
    ["access", "keys"],
    ["access", "token"],
    ["account", "key"],
    ["api", "key"],
    ["api", "keys"],
    ["api", "token"],
    ["auth", "token"],
    ["private", "key"],
    ["refresh", "token"],
    ["secret", "key"],
    ["security", "token"],
    ["service", "account"],
    ["session", "token"],
];
/// Words before a final `key` that make the name a plain one.
const PLAIN_KEYS: [&str; 11] = [
    "cache",
    "foreign",
    "group",
    "idempotency",
    "partition",
    "primary",
    "public",
    "routing",
    "row",
    "sort",
    "virtual",
];
/// Words before a final `token` that mean a token of text, or of a page.
const PLAIN_TOKENS: [&str; 27] = [
    "begin",
    "bos",
    "cls",
    "completion",
    "continuation",
    "end",
    "eos",
    "first",
    "image",
    "input",
    "last",
    "mask",
    "max",
    "min",
    "next",
    "output",
    "pad",
    "page",
    "per",
    "prompt",
    "reasoning",
    "sep",
    "special",
    "start",
    "stop",
    "time",
    "unk",
];
/// Words after `token` that describe it.
const ABOUT_TOKENS: [&str; 12] = [
    "count", "endpoint", "expires", "expiry", "id", "ids", "lifetime", "limit", "ttl", "type",
    "uri", "url",
];
/// Words in names of AWS parameters that hold no secret.
const PLAIN_AWS: [&str; 4] = ["endpoint", "name", "profile", "region"];

/// One search for all [`PARTS`], which most names have none of. The parts have no character that is
/// special in a pattern.
static ANY_PART: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&PARTS.join("|")).ok());

/// Returns true if a header of that name, in lower case, holds a secret.
pub(super) fn in_headers(lower: &str) -> bool {
    let key = lower == "key" || lower.ends_with("-key") || lower.ends_with("_key");
    let open = || OPEN_KEYS.iter().any(|name| lower.ends_with(name));
    if key && !open() {
        return true;
    }
    if ANY_PART.as_ref().is_some_and(|any| !any.is_match(lower)) {
        return false;
    }
    // Rate limits and lengths of replies are counted in tokens.
    let counts =
        lower.contains("ratelimit") || lower.contains("tokens") || lower.contains("tokenizer");
    PARTS.iter().any(|part| lower.contains(part) && !(counts && *part == "token"))
}

/// Returns true if a parameter of a URL of that name, in lower case, holds a secret.
pub(super) fn in_urls(lower: &str) -> bool {
    IN_URLS.contains(&lower) || in_headers(lower)
}

/// Returns true if a parameter, or an attribute, of that name holds a secret.
pub(super) fn in_parameters(name: &str) -> bool {
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(last) = words.last() else { return false };
    let before = words.len().checked_sub(2).map_or("", |at| words[at]);
    let pair = |at: usize, pair: &[&str]| {
        // `refresh_token_url`
        PAIRS.iter().any(|known| known == pair)
            && !(pair[1] == "token"
                && words.get(at + 2).is_some_and(|next| ABOUT_TOKENS.contains(next)))
    };
    words.iter().any(|word| WORDS.contains(word))
        || words.windows(2).enumerate().any(|(at, words)| pair(at, words))
        || (*last == "key" && !PLAIN_KEYS.contains(&before))
        || (*last == "token" && !PLAIN_TOKENS.contains(&before))
        || (words[0] == "aws"
            && words.len() > 1
            && !words.iter().any(|word| PLAIN_AWS.contains(word)))
}

/// Splits a name into words in lower case: `x-apiKey_ID` has `x`, `api`, `key` and `id`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let letters: Vec<char> = name.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            words.push(String::new());
            continue;
        }
        let after_small =
            at > 0 && (letters[at - 1].is_lowercase() || letters[at - 1].is_numeric());
        // The last of several capitals begins the next word: `APIKey`.
        let before_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let after_capital = at > 0 && letters[at - 1].is_uppercase();
        if letter.is_uppercase() && (after_small || (after_capital && before_small)) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_words() {
        let of = |name: &str| words(name).join(" ");
        assert_eq!(of("x-apiKey_ID"), "x api key id");
        assert_eq!(of("APIKey"), "api key");
        assert_eq!(of("llm.token_count..total"), "llm token count total");
        assert_eq!(of("Schlüssel"), "schlüssel");
        assert_eq!(of("--"), "");
    }

    #[test]
    fn parameters_that_hold_secrets_are_known_by_their_words() {
        for name in [
            "api_key",
            "apiKey",
            "APIKey",
            "apikey",
            "key",
            "private_key",
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
            "azure_ad_token",
            "token",
            "access_token",
            "accessTokenValue",
            "client_secret",
            "password",
            "vertex_credentials",
            "Authorization",
            "proxy_auth",
            "x-api-key",
            "cookie",
            "Set-Cookie",
            "hf_token",
            "service_account_json",
            "subscription-key",
            "api_keys",
        ] {
            assert!(in_parameters(name), "{name}");
        }
        for name in [
            "",
            "stop_token_ids",
            "eos_token_id",
            "eos_token",
            "max_tokens",
            "token_type",
            "gen_ai.token.type",
            "tokenizer",
            "prompt_cache_key",
            "idempotency_key",
            "tokens",
            "logit_bias",
            "keyword",
            "monkey",
            "authority",
            "author",
            "next_page_token",
            "refresh_token_url",
            "aws_region_name",
            "first_token",
            "skip_special_tokens",
            "secretary",
            "key_count",
            "include_stop_str_in_output",
        ] {
            assert!(!in_parameters(name), "{name}");
        }
    }
}
