//! `GET|POST /v1/sql`: runs one read-only statement and returns its rows in any format.
//!
//! The statement is the field `query`, or the body itself if that is not JSON, so that `curl -d
//! 'select 1'` works. Parameters are bound, never interpolated: `param.NAME=…` in the query string,
//! `params` (an object, or an array for `$1`, `$2`, …) in JSON.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::Access;
use crate::engine::Params;
use crate::http::accept;
use crate::http::body::{object, read_small};
use crate::http::error::Failure;
use crate::http::input::{Fields, header};
use crate::http::middleware::auth::Caller;
use crate::http::state::App;
use crate::http::stream_response;

const FIELDS: &str = "query, format, formulas, param.NAME";

/// A request: statement, parameters and format.
#[derive(Debug, Default, PartialEq)]
struct Ask {
    query: Option<String>,
    format: Option<String>,
    /// True if CSV cells that begin a formula are quoted.
    quoted: bool,
    params: Params,
}

/// The JSON form of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    query: Option<String>,
    format: Option<String>,
    #[serde(default)]
    params: Value,
}

/// `GET /v1/sql?query=…`.
pub(crate) async fn get(
    Caller { app, access }: Caller,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    run(&app, &access, version, Ask::from_query(query.as_deref(), &headers)?, &headers).await
}

/// `POST /v1/sql`. Fields of the body take precedence over those of the query string.
pub(crate) async fn post(
    Caller { app, access }: Caller,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let mut ask = Ask::from_query(query.as_deref(), &headers)?;
    let text = read_small(body).await?;
    ask.add_body(header(&headers, &CONTENT_TYPE).unwrap_or_default(), &text)?;
    run(&app, &access, version, ask, &headers).await
}

async fn run(
    app: &App,
    access: &Access,
    version: Version,
    ask: Ask,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    stream_response::needs_chunks(version)?;
    let format = accept::format(ask.format.as_deref(), header(headers, &ACCEPT))?;
    let query = ask.query.filter(|query| !query.trim().is_empty());
    let query = query.ok_or_else(|| {
        Failure::invalid("the request has no SQL statement; send it as `query` or as the body")
    })?;
    stream_response::respond(
        app,
        access,
        app.engine.reader_as(access).sql(&query, &ask.params).await?,
        format,
        ask.quoted,
    )
    .await
}

impl Ask {
    fn from_query(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Failure> {
        let mut fields = Fields::decode(query)?;
        let quoted = accept::quotes_formulas(&mut fields, headers)?;
        let query = fields.take("query");
        let format = fields.take("format");
        let params = fields.take_params("param.");
        fields.finish(FIELDS)?;
        Ok(Self { query, format, quoted, params })
    }

    fn add_body(&mut self, content_type: &str, text: &str) -> Result<(), Failure> {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let ask = match media.as_str() {
            // No SQL begins with a brace, and `curl -d` does not declare JSON.
            _ if text.trim_start().starts_with('{') => Self::from_document(text)?,
            "application/json" => Self::from_document(text)?,
            // `curl -d` declares every body as a form. It is one if it has the field `query`.
            "application/x-www-form-urlencoded" if text.starts_with("query=") => {
                Self::from_query(Some(text), &HeaderMap::new())?
            }
            "" | "text/plain" | "application/sql" | "application/x-www-form-urlencoded" => Self {
                query: (!text.trim().is_empty()).then(|| text.to_owned()),
                ..Self::default()
            },
            other => {
                let message = format!(
                    "content-type `{other}` is not supported; send application/json, application/sql or text/plain"
                );
                return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
            }
        };
        self.query = ask.query.or(self.query.take());
        self.format = ask.format.or(self.format.take());
        self.params.extend(ask.params);
        self.quoted |= ask.quoted;
        Ok(())
    }

    fn from_document(text: &str) -> Result<Self, Failure> {
        let document: Document = object(text, "query, params, format")?;
        let params = match document.params {
            Value::Null => Params::new(),
            Value::Object(named) => named.into_iter().collect(),
            Value::Array(placed) => placed
                .into_iter()
                .zip(1..)
                .map(|(value, place)| (place.to_string(), value))
                .collect(),
            _ => {
                return Err(Failure::invalid(
                    r#"field `params` is neither an object nor an array; send {"m": "gpt-4o"} for $m, or [7] for $1"#,
                ));
            }
        };
        Ok(Self { query: document.query, format: document.format, params, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_statement_is_accepted_in_every_usual_form() {
        for (content_type, body) in [
            ("application/json; charset=utf-8", r#"{"query": "select $1", "params": [7]}"#),
            ("application/json", r#"{"query": "select $1", "params": {"1": 7}}"#),
            ("application/x-www-form-urlencoded", "query=select+%241&param.1=7"),
        ] {
            let mut ask = Ask::from_query(Some("format=csv"), &HeaderMap::new()).unwrap();
            ask.add_body(content_type, body).unwrap();
            let params = Params::from([("1".to_owned(), json!(7))]);
            let query = Some("select $1".to_owned());
            let format = Some("csv".to_owned());
            assert_eq!(ask, Ask { query, format, params, quoted: false });
        }
        for content_type in
            ["", "text/plain", "application/sql", "application/x-www-form-urlencoded"]
        {
            let mut ask = Ask::default();
            ask.add_body(content_type, "select 'a=b&c'").unwrap();
            assert_eq!(ask.query.as_deref(), Some("select 'a=b&c'"));
        }
    }

    #[test]
    fn misspelt_fields_are_refused() {
        assert!(Ask::from_query(Some("sql=select+1"), &HeaderMap::new()).is_err());
        let mut ask = Ask::default();
        assert!(ask.add_body("application/json", r#"{"sql": "select 1"}"#).is_err());
        assert!(ask.add_body("application/json", r#"{"query": "select 1", "params": 3}"#).is_err());
        assert!(ask.add_body("image/png", "").is_err());
    }
}
