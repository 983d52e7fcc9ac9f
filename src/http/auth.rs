//! Who may call: everything but the health routes asks for the admin key.
//!
//! The key comes as `x-portkey-api-key`, or, where that is absent, as `Authorization: Bearer`. A missing or unknown key is
//! 401 whatever the path, so that nobody without one learns which routes there are. A key is never logged nor echoed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::Failure;

const KEY_HEADER: &str = "x-portkey-api-key";

/// Middleware: lets the request through if it carries the admin key.
pub(crate) async fn admin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match key(request.headers()) {
        Some(key) if app.engine.is_admin(key) => next.run(request).await,
        Some(_) => {
            refusal("the API key is unknown; send the admin key that the first start printed, or `GATELOG_ADMIN_KEY`")
        }
        None => refusal("the API key is missing; send it as `x-portkey-api-key` or as `Authorization: Bearer <key>`"),
    }
}

fn refusal(message: &str) -> Response {
    let mut response = Failure::new(StatusCode::UNAUTHORIZED, message).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatelog\""));
    response
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let given = match headers.get(KEY_HEADER) {
        Some(value) => value.to_str().ok()?.trim(),
        None => bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)?,
    };
    (!given.is_empty()).then_some(given)
}

/// The credentials after the scheme, whose case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, credentials) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn portkeys_header_wins_over_bearer() {
        assert_eq!(key(&headers(&[("x-portkey-api-key", "a"), ("authorization", "Bearer b")])), Some("a"));
        assert_eq!(key(&headers(&[("authorization", "bearer  b ")])), Some("b"));
        assert_eq!(key(&headers(&[("authorization", "Basic b")])), None);
        assert_eq!(key(&headers(&[("x-portkey-api-key", " ")])), None);
        assert_eq!(key(&headers(&[])), None);
    }
}
