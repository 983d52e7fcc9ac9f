//! Query strings as named fields, each known and given once; ids in paths; headers as text.
//!
//! A misspelt field must not be ignored: `colums=id` would export every column. A handler takes the
//! fields that it knows, and any field that is left over is an error that lists the known ones.

use std::collections::BTreeMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::Value;

use crate::engine::Params;
use crate::http::error::Failure;
use crate::nearest::{clip, hint};

/// Id at the end of a path.
pub(crate) type Id = Result<Path<String>, PathRejection>;

/// Returns the id at the end of a path.
pub(crate) fn id(path: Id) -> Result<String, Failure> {
    path.map(|Path(id)| id).map_err(|_| {
        Failure::invalid("the last part of the path is not UTF-8; percent-encode it as UTF-8 (%XX)")
    })
}

/// Returns a header as text: UTF-8, or Latin-1 if it is not valid UTF-8. HTTP does not define the
/// encoding, and clients send both.
pub(crate) fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    let bytes = headers.get(name)?.as_bytes();
    Some(match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    })
}

/// An empty query string. A route that changes something and takes all of its fields in the body
/// refuses others: a `dry_run` that it ignored would be a change.
pub(crate) struct NoFields;

impl<S: Sync> FromRequestParts<S> for NoFields {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match Fields::decode(parts.uri.query())?.0.into_keys().next() {
            None => Ok(Self),
            Some(name) => Err(Failure::invalid(format!(
                "field `{}` is unknown; this route takes no fields in its URL",
                clip(&name)
            ))),
        }
    }
}

/// The fields of a query string, or of a form.
#[derive(Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Decodes `a=1&b=2`. A bare `?`, or an empty value without a name, is ignored.
    pub(crate) fn decode(text: Option<&str>) -> Result<Self, Failure> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if name.is_empty() && value.is_empty() {
                continue;
            }
            if fields.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Failure::invalid(format!(
                    "field `{name}` is given twice; give it once"
                )));
            }
        }
        Ok(Self(fields))
    }

    /// Removes and returns a field.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Returns a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Removes and returns a field that is a whole number.
    pub(crate) fn take_number(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failure::invalid(format!(
                "field `{name}` is `{text}`; expected a whole number"
            ))),
        }
    }

    /// Removes and returns every field whose name starts with the prefix, as query parameters.
    pub(crate) fn take_params(&mut self, prefix: &str) -> Params {
        let names: Vec<String> =
            self.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names
            .iter()
            .filter_map(|name| {
                Some((name[prefix.len()..].to_owned(), param(&self.0.remove(name)?)))
            })
            .collect()
    }

    /// Returns the remaining fields by name.
    pub(crate) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Returns the remaining fields as text parameters.
    pub(crate) fn into_texts(self) -> Params {
        self.0.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
    }

    /// Returns an error if any field is left.
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

/// Parses a query parameter. A JSON number, `true`, `false`, `null` or a quoted string has its JSON
/// meaning; anything else is text. So `10` is a number and `"10"` is text.
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
        for (bytes, text) in
            [(&b"a"[..], "a"), ("ä€".as_bytes(), "ä€"), (b"caf\xe9", "café"), (b"", "")]
        {
            let headers = HeaderMap::from_iter([(
                "x-a".parse().unwrap(),
                HeaderValue::from_bytes(bytes).unwrap(),
            )]);
            assert_eq!(text_header(&headers, "x-a").as_deref(), Some(text));
            assert_eq!(text_header(&headers, "x-b"), None);
        }
    }

    #[test]
    fn fields_are_taken_once_and_leftovers_refused() {
        let mut fields = Fields::decode(Some(
            "limit=5&query=select+%27a%26b%27&param.n=10&param.s=%2210%22&param.z=007",
        ))
        .unwrap();
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
