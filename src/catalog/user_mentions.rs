//! Detects mentions of an end user in export jobs, saved filters and descriptions. Pure.
//!
//! An erasure deletes such texts as well. A false match is better than a missed one, so every
//! filter with text values is checked, in every form that a filter may have.

use serde_json::Value;

/// Filters with numbers or times, beside those that end with `_min` or `_max`. They cannot name a
/// user.
const MEASURES: [&str; 4] = ["status_code", "page_size", "current_page", "created_at"];

/// Returns true if a filter names an end user. A filter without a value is unused and may have any
/// text as its name, so its name is checked too.
pub(super) fn filter_names(name: &str, value: &Value, user: &str) -> bool {
    let measure = name.ends_with("_min") || name.ends_with("_max") || MEASURES.contains(&name);
    (is_nothing(value) && name == user) || (!measure && names(value, user))
}

/// Returns true if a filter with this value is unset.
pub(super) fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// Returns true if a filter value is `text`, or contains it in a list, in a pair `PROVIDER__MODEL`
/// or in JSON.
fn names(value: &Value, text: &str) -> bool {
    let is = |part: &str| part == text || part.trim() == text;
    match value {
        Value::String(value) => {
            let of_pair =
                |part: &str| part.split_once("__").is_some_and(|(org, model)| is(org) || is(model));
            is(value)
                || value.split(',').any(|part| is(part) || of_pair(part.trim()))
                || serde_json::from_str(value).is_ok_and(|inner| names(&inner, text))
        }
        Value::Number(value) => value.to_string() == text,
        Value::Array(items) => items.iter().any(|item| names(item, text)),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key == text || names(value, text))
        }
        Value::Null | Value::Bool(_) => false,
    }
}

/// Returns true if `text` contains `word` as a whole word, in any case.
pub(super) fn holds_word(text: &str, word: &str) -> bool {
    let text = text.to_lowercase();
    let word = word.to_lowercase();
    let ends = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
    text.match_indices(&word).any(|(at, _)| {
        ends(text[..at].chars().next_back()) && ends(text[at + word.len()..].chars().next())
    })
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
        assert!(
            filter_names("user_id", &json!("a,b"), "a,b")
                && filter_names("user_id", &json!(200), "200")
        );
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
