//! Error responses: one status for each kind of error, one envelope for all of them.
//!
//! The envelope carries both families of Portkey's errors in one body, so that either SDK finds its
//! message:
//!
//! ```json
//! { "status": "failure", "success": false, "message": …,
//!   "error": { "message": …, "code": … }, "data": { "message": …, "errorCode": … } }
//! ```
//!
//! Messages come from [`Error`], which holds no body, key or header value. The chain of causes goes
//! only to the server's log.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind};
use crate::record::json::Reason;
use crate::refusals::Refused;

/// Seconds after which a refused client should retry. Memory is free again as soon as the next
/// flush ends.
const RETRY_AFTER_SECONDS: u16 = 1;

/// A failed request: its status, its message, and further fields of the body. Boxed to keep results
/// small.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    message: String,
    code: Option<&'static str>,
    extra: Map<String, Value>,
    cause: Option<String>,
    reason: Option<Reason>,
    refusing: Option<Refusing>,
}

/// Carried by a failed response to the middleware, which logs it beside the request id. Never sent.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

/// Carried by a failed response to the middleware that lists refusals
/// ([`crate::http::middleware::refusals::watch`]). Never sent.
#[derive(Clone, Debug)]
pub(crate) enum Refusing {
    /// The refusals are listed already.
    Noted,
    /// The whole request was refused.
    As(Refused),
}

impl Failure {
    /// Creates a failure with a status and a message.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        let extra = Map::new();
        Self(Box::new(Parts {
            status,
            message,
            code: None,
            extra,
            cause: None,
            reason: None,
            refusing: None,
        }))
    }

    /// Creates a failure for an invalid request: 400.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Adds the fields of an object to the envelope, whose own fields take precedence.
    pub(crate) fn with_fields(mut self, fields: impl serde::Serialize) -> Self {
        if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
            self.0.extra.extend(fields);
        }
        self
    }

    /// Sets Portkey's number for the error, in place of that of the status.
    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Appends text to the message.
    pub(crate) fn and(mut self, words: &str) -> Self {
        self.0.message.push_str(words);
        self
    }

    /// Sets the reason under which the failure is listed among refusals, in place of that of its
    /// status.
    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// Sets the entry under which the failure is listed among refusals.
    pub(crate) fn refusing(mut self, refused: impl Into<Refused>) -> Self {
        self.0.refusing = Some(Refusing::As(refused.into()));
        self
    }

    /// Marks the failure as listed among refusals already.
    pub(crate) fn noted(mut self) -> Self {
        self.0.refusing = Some(Refusing::Noted);
        self
    }

    /// Returns how the failure is listed among refusals.
    pub(crate) fn refused(&self) -> Refusing {
        self.0.refusing.clone().unwrap_or_else(|| {
            let reason = self.0.reason.unwrap_or_else(|| reason(self.0.status));
            Refusing::As(Refused::many(reason, &*self.0.message, 1))
        })
    }

    /// Returns the status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the message for the client.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    fn body(&mut self) -> Value {
        let (code, error_code) = codes(self.0.status);
        let code = self.0.code.unwrap_or(code);
        let message = std::mem::take(&mut self.0.message);
        let mut body = std::mem::take(&mut self.0.extra);
        body.insert("status".to_owned(), json!("failure"));
        body.insert("success".to_owned(), json!(false));
        body.insert("error".to_owned(), json!({ "message": message, "code": code }));
        body.insert("data".to_owned(), json!({ "message": message, "errorCode": error_code }));
        body.insert("message".to_owned(), Value::String(message));
        Value::Object(body)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        let mut failure = Self::new(status, error.message());
        failure.0.cause = status.is_server_error().then(|| error.chain());
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        let status = self.0.status;
        let refused = self.refused();
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response.extensions_mut().insert(refused);
        if let Some(cause) = self.0.cause.take() {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

/// Returns the status of a kind of error.
///
/// `Limit` is 422, since the request is well formed but needs too much work. Clients repeat 408,
/// 429 and 5xx automatically, which would only repeat the work. 413 means that a body or record is
/// too large, 401 that the key is missing or unknown (`auth`). `Denied` from the engine means that
/// a known key lacks a permission: 403.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Limit => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Storage | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Damaged | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns Portkey's two codes of a status: the gateway's number, or a word if it has none, and the
/// admin plane's.
fn codes(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::UNAUTHORIZED => ("03", "AB05"),
        StatusCode::FORBIDDEN => ("03", "AB03"),
        StatusCode::NOT_FOUND => ("not_found", "AB02"),
        StatusCode::METHOD_NOT_ALLOWED => ("01", "AB01"),
        StatusCode::CONFLICT => ("conflict", "AB07"),
        StatusCode::TOO_MANY_REQUESTS => ("05", "AB06"),
        StatusCode::UNPROCESSABLE_ENTITY => ("limit", "AB01"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "AB01"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "AB04"),
        status if status.is_server_error() => ("internal", "AB04"),
        _ => ("03", "AB01"),
    }
}

/// The reason of a failure that says no more than its status.
pub(crate) fn reason(status: StatusCode) -> Reason {
    match status {
        StatusCode::FORBIDDEN => Reason::NotAllowed,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::REQUEST_TIMEOUT => Reason::BrokenOff,
        StatusCode::PAYLOAD_TOO_LARGE => Reason::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Reason::Encoding,
        StatusCode::TOO_MANY_REQUESTS => Reason::Busy,
        status if status.is_server_error() => Reason::Unavailable,
        _ => Reason::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_carries_both_families_and_no_cause() {
        let error = Error::storage("cannot write `a.parquet`")
            .with_source(std::io::Error::other("disk full"));
        let mut failure =
            Failure::from(error).with_fields(json!({ "accepted": 3, "message": "not this one" }));
        assert_eq!(
            failure.body(),
            json!({
                "status": "failure", "success": false, "message": "cannot write `a.parquet`", "accepted": 3,
                "error": { "message": "cannot write `a.parquet`", "code": "unavailable" },
                "data": { "message": "cannot write `a.parquet`", "errorCode": "AB04" },
            })
        );
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let response = Failure::from(Error::busy("full")).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(
            Failure::from(Error::invalid("no"))
                .into_response()
                .headers()
                .get(RETRY_AFTER)
                .is_none()
        );
    }
}
