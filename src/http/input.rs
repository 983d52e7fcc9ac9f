//! Query strings to named fields: each name once, each name known; and headers to texts.
//!
//! A misspelt field must not be passed over: `colums=id` would export every column. So what is left over after a handler took
//! what it knows is an error that lists what could have been meant.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::Value;

use super::error::Failure;
use crate::engine::Params;
use crate::nearest::{clip, hint};

/// The text of a header: UTF-8, or Latin-1 where it is not that. HTTP says neither, and clients
/// send both.
pub(crate) fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    let bytes = headers.get(name)?.as_bytes();
    Some(match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    })
}

/// The fields of a query string, or of a form.
#[derive(Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Decodes `a=1&b=2`; a bare `?` or an empty value for no name is nothing.
    pub(crate) fn decode(text: Option<&str>) -> Result<Self, Failure> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if name.is_empty() && value.is_empty() {
                continue;
            }
            if fields.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Failure::invalid(format!("field `{name}` is given twice; give it once")));
            }
        }
        Ok(Self(fields))
    }

    /// Takes a field out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Looks at a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Takes a whole number out.
    pub(crate) fn take_number(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failure::invalid(format!("field `{name}` is `{text}`; expected a whole number"))),
        }
    }

    /// Takes every field that begins with the prefix out, as parameters of a query.
    pub(crate) fn take_params(&mut self, prefix: &str) -> Params {
        let names: Vec<String> = self.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.iter().filter_map(|name| Some((name[prefix.len()..].to_owned(), param(&self.0.remove(name)?)))).collect()
    }

    /// Everything left over, by name.
    pub(crate) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Everything left over, as parameters that are texts.
    pub(crate) fn into_texts(self) -> Params {
        self.0.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
    }

    /// Refuses what is left over.
    pub(crate) fn finish(self, known: &str) -> Result<(), Failure> {
        match self.0.into_keys().next() {
            Some(name) => {
                let hint = hint(&name, known.split(", "), "fields", "`/openapi.json`");
                Err(Failure::invalid(format!("field `{}` is unknown; {hint}", clip(&name))))
            }
            None => Ok(()),
        }
    }
}

/// A parameter from text: a JSON number, `true`, `false`, `null` or a quoted text means what it means in JSON, anything else is
/// the text itself. So `10` is a number and `"10"` a text.
fn param(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(scalar) => scalar,
    }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_are_utf_8_or_latin_1() {
        for (bytes, text) in [(&b"a"[..], "a"), ("ä€".as_bytes(), "ä€"), (b"caf\xe9", "café"), (b"", "")] {
            let headers = HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_bytes(bytes).unwrap())]);
            assert_eq!(text_header(&headers, "x-a").as_deref(), Some(text));
            assert_eq!(text_header(&headers, "x-b"), None);
        }
    }

    #[test]
    fn fields_are_taken_once_and_leftovers_refused() {
        let mut fields =
            Fields::decode(Some("limit=5&query=select+%27a%26b%27&param.n=10&param.s=%2210%22&param.z=007")).unwrap();
        assert_eq!(fields.take("query").as_deref(), Some("select 'a&b'"));
        assert_eq!(fields.take_number("limit").unwrap(), Some(5));
        let params = fields.take_params("param.");
        assert_eq!(params["n"], json!(10));
        assert_eq!(params["s"], json!("10"));
        assert_eq!(params["z"], json!("007"));
        assert!(fields.finish("none").is_ok());
        assert!(Fields::decode(Some("")).unwrap().finish("none").is_ok());
        assert!(Fields::decode(Some("a=1")).unwrap().finish("b").is_err());
        assert!(Fields::decode(Some("a=1&a=2")).is_err());
        assert!(Fields::decode(Some("limit=x")).unwrap().take_number("limit").is_err());
    }
}
