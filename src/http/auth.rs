//! Who may call what: the key says who asks, the route says what the key must allow.
//!
//! The key comes as `x-portkey-api-key`, or, where that is absent, as `Authorization`, with or without the scheme `Bearer`, for
//! gateways send theirs bare. To the routes that a gateway reports to ([`REPORTS`]) it may send its caller's key
//! along: there its own, `Authorization`, comes first. A missing or unknown key is 401 whatever the path, so that nobody without
//! one learns which routes there are; one that was revoked or has expired is as good as unknown. A key that does not allow what
//! the route needs is 403. A key is never logged nor echoed.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::Failure;
use super::guesses::Peer;
use super::table::Methods;
pub(crate) use super::table::Needs;
use crate::catalog::{Access, Scope};
use crate::clock::elapsed;
use crate::error::Error;

const KEY_HEADER: &str = "x-portkey-api-key";
const MISSING: &str = "the API key is missing; send it as `x-portkey-api-key` or as `Authorization: Bearer <key>`";
const UNKNOWN: &str = "the API key opens nothing: it is unknown, revoked or expired; ask an admin for another, or send the \
                       admin key that the first start printed, or `GATELOG_ADMIN_KEY`";

const GUESSING: &str = "too many wrong API keys come from this address; wait a moment, and send the right one";

/// The routes that a gateway reports to under its own key.
pub(crate) const REPORTS: [&str; 3] = ["/v1/logs/enterprise/logs", "/v1/analytics/enterprise/analytics", "/dp/metrics"];

/// Who asks, and of whom.
pub(crate) struct Caller {
    pub(crate) app: Arc<App>,
    pub(crate) access: Access,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let keyless = || Error::internal("a route that asks for no key has a handler that needs one");
        let access = parts.extensions.get::<Access>().cloned().ok_or_else(keyless)?;
        Ok(Self { app: Arc::clone(app), access })
    }
}

/// Middleware: finds out who asks, and tells the handlers by an [`Access`] in the request.
pub(crate) async fn known(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let access = match key(request.headers(), REPORTS.contains(&request.uri().path())) {
        Some(key) => app.engine.access_anew(key).await,
        None => return refusal(MISSING),
    };
    let Some(access) = access else {
        let peer = request.extensions().get::<Peer>().copied();
        return unknown(&app, peer).await;
    };
    request.extensions_mut().insert(access);
    request.extensions_mut().insert(Arc::clone(&app));
    next.run(request).await
}

/// The same methods, for keys with that scope.
pub(crate) fn needs(scope: Scope, methods: Methods) -> Methods {
    guarded(Needs::Scope(scope), methods)
}

/// The same methods, for keys with scope `admin` that are bound to no organisation.
pub(crate) fn operator(methods: Methods) -> Methods {
    guarded(Needs::Operator, methods)
}

fn guarded(needs: Needs, methods: Methods) -> Methods {
    let guard = from_fn(move |request: Request, next: Next| async move {
        let fresh = match (needs, request.extensions().get::<Arc<App>>()) {
            // A writer needs only itself to be known; what it writes waits in the log until the catalog can be read.
            (Needs::Scope(Scope::Write), _) | (_, None) => Ok(()),
            (_, Some(app)) => app.engine.refuse_if_stale().await.map_err(Failure::from),
        };
        match request.extensions().get::<Access>().map(|access| check(needs, access).and(fresh)) {
            Some(Ok(())) => next.run(request).await,
            Some(Err(failure)) => failure.into_response(),
            // A route that is not behind `known` would be open to everybody.
            None => refusal(MISSING),
        }
    });
    methods.guarded(needs, |methods| methods.route_layer(guard))
}

fn check(needs: Needs, access: &Access) -> Result<(), Failure> {
    let lacking = match needs {
        Needs::Scope(scope) if access.may(scope) => return Ok(()),
        Needs::Operator if access.is_operator() => return Ok(()),
        Needs::Scope(scope) => {
            format!("this needs scope `{scope}`, which the API key does not have; ask an admin for a key that has it")
        }
        Needs::Operator => {
            "this needs scope `admin` in an API key that is bound to no organisation: the operator's".to_owned()
        }
    };
    Err(Failure::new(StatusCode::FORBIDDEN, lacking))
}

/// Answers a wrong key, later for an address that sends many. The machine itself is not slowed: who is on it can try keys
/// in other ways, and a proxy there stands for all its clients.
async fn unknown(app: &App, peer: Option<Peer>) -> Response {
    let Some(Peer(address)) = peer.filter(|Peer(address)| !address.is_loopback()) else { return refusal(UNKNOWN) };
    match app.guesses.wrong(address, elapsed()) {
        Some(waiting) => {
            tokio::time::sleep(waiting.wait).await;
            drop(waiting);
        }
        None => return Failure::new(StatusCode::TOO_MANY_REQUESTS, GUESSING).into_response(),
    }
    refusal(UNKNOWN)
}

fn refusal(message: &str) -> Response {
    let mut response = Failure::new(StatusCode::UNAUTHORIZED, message).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatelog\""));
    response
}

/// The key that a request brings; `reports` says that a gateway's own comes before its caller's.
fn key(headers: &HeaderMap, reports: bool) -> Option<&str> {
    let authorization = || bearer(headers.get(AUTHORIZATION)?.to_str().ok()?);
    let given = match headers.get(KEY_HEADER) {
        Some(value) => match authorization() {
            Some(own) if reports && !own.is_empty() => own,
            _ => value.to_str().ok()?.trim(),
        },
        None => authorization()?,
    };
    (!given.is_empty()).then_some(given)
}

/// The credentials after the scheme, whose case does not matter, or without any.
fn bearer(value: &str) -> Option<&str> {
    match value.trim().split_once(' ') {
        None => Some(value.trim()),
        Some((scheme, credentials)) => scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn portkeys_header_wins_over_bearer() {
        let both = headers(&[("x-portkey-api-key", "a"), ("authorization", "Bearer b")]);
        assert_eq!(key(&both, false), Some("a"));
        for reports in [false, true] {
            for (pairs, expected) in [
                (&[("authorization", "bearer  b ")][..], Some("b")),
                (&[("authorization", " b ")], Some("b")),
                (&[("authorization", "Basic b")], None),
                (&[("authorization", " ")], None),
                (&[("x-portkey-api-key", "a")], Some("a")),
                (&[("x-portkey-api-key", "a"), ("authorization", "Basic b")], Some("a")),
                (&[("x-portkey-api-key", " ")], None),
                (&[], None),
            ] {
                assert_eq!(key(&headers(pairs), reports), expected, "{pairs:?}");
            }
        }
    }

    #[test]
    fn a_gateways_own_key_wins_where_it_reports() {
        for own in ["b", "Bearer b"] {
            assert_eq!(key(&headers(&[("x-portkey-api-key", "a"), ("authorization", own)]), true), Some("b"));
        }
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
