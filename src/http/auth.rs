//! Who may call what: the key says who asks, the route says what the key must allow.
//!
//! The key comes as `x-portkey-api-key`, or, where that is absent, as `Authorization: Bearer`. A missing or unknown key is
//! 401 whatever the path, so that nobody without one learns which routes there are; one that was revoked or has expired is as
//! good as unknown. A key that does not allow what the route needs is 403. A key is never logged nor echoed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::App;
use super::error::Failure;
use crate::catalog::{Access, Scope};

const KEY_HEADER: &str = "x-portkey-api-key";
const MISSING: &str = "the API key is missing; send it as `x-portkey-api-key` or as `Authorization: Bearer <key>`";
const UNKNOWN: &str = "the API key opens nothing: it is unknown, revoked or expired; ask an admin for another, or send the \
                       admin key that the first start printed, or `GATELOG_ADMIN_KEY`";

/// What a route asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Scope(Scope),
    Operator,
}

/// Middleware: finds out who asks, and tells the handlers by an [`Access`] in the request.
pub(crate) async fn known(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let access = match key(request.headers()) {
        Some(key) => app.engine.access(key),
        None => return refusal(MISSING),
    };
    let Some(access) = access else { return refusal(UNKNOWN) };
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// The same methods, for keys with that scope.
pub(crate) fn needs(scope: Scope, methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    guarded(Needs::Scope(scope), methods)
}

/// The same methods, for keys with scope `admin` that are bound to no organisation.
pub(crate) fn operator(methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    guarded(Needs::Operator, methods)
}

fn guarded(needs: Needs, methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    methods.route_layer(from_fn(move |request: Request, next: Next| async move {
        match request.extensions().get::<Access>().map(|access| check(needs, access)) {
            Some(Ok(())) => next.run(request).await,
            Some(Err(failure)) => failure.into_response(),
            // A route that is not behind `known` would be open to everybody.
            None => refusal(MISSING),
        }
    }))
}

fn check(needs: Needs, access: &Access) -> Result<(), Failure> {
    let lacking = match needs {
        Needs::Scope(scope) if access.may(scope) => return Ok(()),
        Needs::Operator if access.is_operator() => return Ok(()),
        Needs::Scope(scope) => format!("this needs scope `{scope}`, which the API key does not have"),
        Needs::Operator => "this needs scope `admin` in an API key that is bound to no organisation".to_owned(),
    };
    Err(Failure::new(StatusCode::FORBIDDEN, lacking))
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

    #[test]
    fn an_admin_of_an_organisation_is_no_operator() {
        let operator = Access::operator("o");
        let admin = Access { organisation: Some("acme".to_owned()), ..operator.clone() };
        let viewer = Access { scopes: [Scope::View].into(), ..admin.clone() };
        for (needs, may) in [
            (Needs::Operator, [true, false, false]),
            (Needs::Scope(Scope::Admin), [true, true, false]),
            (Needs::Scope(Scope::Export), [true, true, false]),
            (Needs::Scope(Scope::View), [true, true, true]),
        ] {
            let found = [&operator, &admin, &viewer].map(|access| check(needs, access).is_ok());
            assert_eq!(found, may, "{needs:?}");
        }
        let lacking = format!("{:?}", check(Needs::Scope(Scope::Export), &viewer).unwrap_err());
        assert!(lacking.contains("403") && lacking.contains("`logs.export`"), "{lacking}");
    }
}
