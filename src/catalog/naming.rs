//! Whether what somebody wrote down names an end user: the filters of export jobs, saved filters, and words about them. Pure.
//!
//! An erasure takes such texts along. So it is better to find one too many than to keep one: every filter that holds texts is
//! looked at, in every form that a filter may come in.

use serde_json::Value;

/// Filters that hold numbers and moments, beside those that end with `_min` or `_max`: they name nobody.
const MEASURES: [&str; 4] = ["status_code", "page_size", "current_page", "created_at"];

/// Whether a filter names an end user. One without a value is none, and may have any name.
pub(super) fn filter_names(name: &str, value: &Value, user: &str) -> bool {
    let measure = name.ends_with("_min") || name.ends_with("_max") || MEASURES.contains(&name);
    (is_nothing(value) && name == user) || (!measure && names(value, user))
}

/// Whether a filter with that value asks for nothing.
pub(super) fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// Whether a value of a filter is that text, or has it in a list, in a pair `PROVIDER__MODEL`, or in JSON.
fn names(value: &Value, text: &str) -> bool {
    let is = |part: &str| part == text || part.trim() == text;
    match value {
        Value::String(value) => {
            let of_pair = |part: &str| part.split_once("__").is_some_and(|(org, model)| is(org) || is(model));
            is(value)
                || value.split(',').any(|part| is(part) || of_pair(part.trim()))
                || serde_json::from_str(value).is_ok_and(|inner| names(&inner, text))
        }
        Value::Number(value) => value.to_string() == text,
        Value::Array(items) => items.iter().any(|item| names(item, text)),
        Value::Object(fields) => fields.iter().any(|(key, value)| key == text || names(value, text)),
        Value::Null | Value::Bool(_) => false,
    }
}

/// Whether a text has another in it that is no part of a longer word, in whatever case.
pub(super) fn holds_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let ends = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
    text.match_indices(&word)
        .any(|(at, _)| ends(text[..at].chars().next_back()) && ends(text[at + word.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_user_is_found_in_every_form_of_a_filter() {
        for (name, value) in [
            ("user_id", json!("ada")),
            ("user_id", json!("bob, ada")),
            ("user_id", json!(["bob", "ada"])),
            ("user_id", json!("[\"ada\"]")),
            ("metadata", json!({ "_user": "ada" })),
            ("metadata", json!({ "ada": "x" })),
            ("metadata", json!("{\"_user\": \"ada\"}")),
            ("ai_org_model", json!("x__y, ada__gpt")),
            ("ai_org_model", json!("openai__ada")),
            ("ada", Value::Null),
            ("ada", json!("")),
        ] {
            assert!(filter_names(name, &value, "ada"), "{name}: {value}");
        }
        for (name, value) in [
            ("user_id", json!("adam")),
            ("user_id", json!("Ada")),
            ("ai_org_model", json!("adam__gpt")),
            ("cost_min", json!("ada")),
            ("status_code", json!("ada")),
            ("user_id", Value::Null),
        ] {
            assert!(!filter_names(name, &value, "ada"), "{name}: {value}");
        }
        assert!(filter_names("user_id", &json!("x__a__b"), "a__b"), "a model may have `__` in it");
        assert!(filter_names("user_id", &json!("a,b"), "a,b") && filter_names("user_id", &json!(200), "200"));
        assert!(!filter_names("user_id", &json!("bob"), "user_id"), "a filter is not a user");
    }

    #[test]
    fn a_word_is_found_in_whatever_case() {
        for text in ["what Ada said", "ADA", "for ada, again", "(ada)"] {
            assert!(holds_word(text, "ada") && holds_word(text, "ADA"), "{text}");
        }
        assert!(!holds_word("adam and canada", "ada"));
    }
}
