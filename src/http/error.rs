//! What a client is told when its request fails: one status for each kind of error, one envelope for all of them.
//!
//! The envelope carries both families of Portkey's errors in one body, so that either SDK finds its text:
//! `{"status":"failure","success":false,"message":…,"error":{"message":…,"code":…},"data":{"message":…,"errorCode":…}}`.
//! Messages come from [`Error`], which holds no body, key or header value; the chain of causes goes to our own log only.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind};
use crate::record::json::Reason;
use crate::refusals::Refused;

/// Seconds after which a refused client should come again: room appears as soon as the next flush ends.
const RETRY_AFTER_SECONDS: u16 = 1;

/// A request that failed: its status, its message, and what else the body says. Boxed to keep results small.
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

/// Rides on a failed response to the middleware, which logs it beside the request's id. Never sent.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

/// Rides on a failed response to the middleware that notes refusals ([`super::refusals::watch`]). Never sent.
#[derive(Clone, Debug)]
pub(crate) enum Refusing {
    /// What was refused is noted already.
    Noted,
    /// The request as a whole was refused.
    As(Refused),
}

impl Failure {
    /// A failure with a status of its own.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let (message, extra) = (message.into(), Map::new());
        Self(Box::new(Parts { status, message, code: None, extra, cause: None, reason: None, refusing: None }))
    }

    /// The request is wrong: 400.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Every field of an object beside those of the envelope, whose own fields win.
    pub(crate) fn with_fields(mut self, fields: impl serde::Serialize) -> Self {
        if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
            self.0.extra.extend(fields);
        }
        self
    }

    /// The same failure with a number of Portkey's for what is wrong, in the place of that of the status.
    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    /// The same failure with words after its message.
    pub(crate) fn and(mut self, words: &str) -> Self {
        self.0.message.push_str(words);
        self
    }

    /// The same failure, counted among refusals for that reason instead of that of its status.
    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    /// The same failure, told among refusals in these words.
    pub(crate) fn refusing(mut self, refused: impl Into<Refused>) -> Self {
        self.0.refusing = Some(Refusing::As(refused.into()));
        self
    }

    /// The same failure, whose refusals were noted where they came up.
    pub(crate) fn noted(mut self) -> Self {
        self.0.refusing = Some(Refusing::Noted);
        self
    }

    /// What is noted of it.
    pub(crate) fn refused(&self) -> Refusing {
        self.0.refusing.clone().unwrap_or_else(|| {
            let reason = self.0.reason.unwrap_or_else(|| reason(self.0.status));
            Refusing::As(Refused::many(reason, &*self.0.message, 1))
        })
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What the client is told.
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
        let (status, refused) = (self.0.status, self.refused());
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

/// The status of a kind of error.
///
/// `Limit` is 422, for the request was understood and is too much work as it stands: clients send 408, 429 and 5xx again by
/// themselves, which would only repeat the work. 413 is for a body or record over its size, 401 for a missing or unknown
/// key (`auth`); `Denied` from within is a known key that may not do this, 403.
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

/// Portkey's two codes for a status: the gateway's number, where it has one and else a word, and the admin plane's.
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
pub(super) fn reason(status: StatusCode) -> Reason {
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
        let error = Error::storage("cannot write `a.parquet`").with_source(std::io::Error::other("disk full"));
        let mut failure = Failure::from(error).with_fields(json!({ "accepted": 3, "message": "not this one" }));
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
        assert!(Failure::from(Error::invalid("no")).into_response().headers().get(RETRY_AFTER).is_none());
    }
}
