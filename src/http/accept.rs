//! Selects the output format of a request: `format` or the header `accept`, and `formulas`.
//!
//! A format named by `format` takes precedence over `accept`. With `formulas=quote`, CSV cells that
//! a spreadsheet would run as a formula are quoted. Browsers get quoted cells by default, programs
//! get the texts unchanged.

use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};

use crate::encode::Format;
use crate::http::error::Failure;
use crate::http::input::{Fields, header};

/// Header that every browser sends to trusted servers: those with `https` and those on its own
/// machine.
const FETCH_MODE: &str = "sec-fetch-mode";

/// Reads the field `formulas`. Returns true if cells that begin a formula are quoted.
pub(crate) fn quotes_formulas(fields: &mut Fields, headers: &HeaderMap) -> Result<bool, Failure> {
    match fields.take("formulas").as_deref() {
        None => Ok(is_browser(headers)),
        Some("quote") => Ok(true),
        Some("keep") => Ok(false),
        Some(other) => {
            Err(Failure::invalid(format!("field `formulas` is `{other}`; expected quote or keep")))
        }
    }
}

fn is_browser(headers: &HeaderMap) -> bool {
    let agent = header(headers, &USER_AGENT).unwrap_or_default();
    headers.contains_key(FETCH_MODE) || agent.starts_with("Mozilla/")
}

/// Returns the format of a request: by name, else by `Accept`, else JSON lines.
pub(crate) fn format(name: Option<&str>, accept: Option<&str>) -> Result<Format, Failure> {
    match (name, accept) {
        (Some(name), _) => Ok(Format::named(name)?),
        (None, None) => Ok(Format::Jsonl),
        (None, Some(accept)) => Format::accepted(accept).ok_or_else(|| {
            let message =
                "no media type in `accept` is supported; name the format of the answer with `format`, one of ";
            Failure::new(StatusCode::NOT_ACCEPTABLE, format!("{message}{}", Format::names()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_name_wins() {
        assert_eq!(format(Some("CSV"), Some("application/json")).unwrap(), Format::Csv);
    }

    #[test]
    fn browsers_get_them_quoted_without_asking() {
        let asked = |query: &str, name: &'static str, value: &'static str| {
            let headers =
                HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            quotes_formulas(&mut Fields::decode(Some(query)).unwrap(), &headers)
        };
        let mozilla = "Mozilla/5.0 (X11; Linux x86_64)";
        assert!(
            asked("", "user-agent", mozilla).unwrap()
                && asked("", "sec-fetch-mode", "navigate").unwrap()
        );
        assert!(!asked("", "user-agent", "curl/8").unwrap());
        assert!(!asked("formulas=keep", "user-agent", mozilla).unwrap());
        assert!(asked("formulas=quote", "user-agent", "curl/8").unwrap());
        assert!(asked("formulas=yes", "user-agent", "curl/8").is_err());
    }
}
