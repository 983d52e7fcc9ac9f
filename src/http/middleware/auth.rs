//! Authentication and authorisation: the key identifies the caller, the route names the scope that
//! it needs.
//!
//! The key is the header `x-portkey-api-key`, or else `Authorization`, with or without the scheme
//! `Bearer`, since gateways omit the scheme. On the routes to which a gateway reports
//! ([`REPORTS`]), a gateway may forward its caller's key: there its own key, `Authorization`, takes
//! precedence. A missing or unknown key gets 401 for every path, so that clients without a key do
//! not learn which routes exist. A revoked or expired key counts as unknown. A key that lacks the
//! scope of the route gets 403. Keys are never logged or echoed.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use crate::catalog::{Access, Scope};
use crate::clock::elapsed;
use crate::error::Error;
use crate::http::error::Failure;
use crate::http::route::Needs;
use crate::http::route_table::Methods;
use crate::http::state::App;
use crate::http::state::guesses::Peer;

const KEY_HEADER: &str = "x-portkey-api-key";
const MISSING: &str =
    "the API key is missing; send it as `x-portkey-api-key` or as `Authorization: Bearer <key>`";
const UNKNOWN: &str = "the API key is unknown, revoked or expired; ask an admin for a new key, or send the admin key: the one \
                       that the first start printed, or that of `GATELOG_ADMIN_KEY`";

const GUESSING: &str = "too many requests with wrong API keys come from this address; wait a moment, then send a valid key";

/// Routes to which a gateway reports under its own key.
pub(crate) const REPORTS: [&str; 3] =
    ["/v1/logs/enterprise/logs", "/v1/analytics/enterprise/analytics", "/dp/metrics"];

/// The caller of a request and the server that it calls.
pub(crate) struct Caller {
    pub(crate) app: Arc<App>,
    pub(crate) access: Access,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let keyless =
            || Error::internal("a route without authentication has a handler that needs a key");
        let access = parts.extensions.get::<Access>().cloned().ok_or_else(keyless)?;
        Ok(Self { app: Arc::clone(app), access })
    }
}

/// Middleware: identifies the caller and passes its [`Access`] to the handlers in the request.
pub(crate) async fn known(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = match key(request.headers(), REPORTS.contains(&request.uri().path())) {
        Some(key) => app.engine.fresh_access(key).await,
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

/// Restricts methods to keys with that scope.
pub(crate) fn needs(scope: Scope, methods: Methods) -> Methods {
    guarded(Needs::Scope(scope), methods)
}

/// Restricts methods to keys with scope `admin` that are not bound to an organisation.
pub(crate) fn operator(methods: Methods) -> Methods {
    guarded(Needs::Operator, methods)
}

fn guarded(needs: Needs, methods: Methods) -> Methods {
    let guard = from_fn(move |request: Request, next: Next| async move {
        let fresh = match (needs, request.extensions().get::<Arc<App>>()) {
            // A write only needs a known key. Its records wait in the log until the catalog can be
            // read.
            (Needs::Scope(Scope::Write), _) | (_, None) => Ok(()),
            (_, Some(app)) => app.engine.refuse_if_stale().await.map_err(Failure::from),
        };
        match request.extensions().get::<Access>().map(|access| check(needs, access).and(fresh)) {
            Some(Ok(())) => next.run(request).await,
            Some(Err(failure)) => failure.into_response(),
            // Without this, a route that is not behind `known` would be open to everyone.
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
            format!("the API key lacks scope `{scope}`; ask an admin for a key that has it")
        }
        Needs::Operator => {
            "this needs an API key with scope `admin` that is not bound to an organisation; ask the operator".to_owned()
        }
    };
    Err(Failure::new(StatusCode::FORBIDDEN, lacking))
}

/// Responds to a wrong key, with a delay if the address sends many. Loopback addresses are not
/// delayed: a local user can try keys in other ways, and a local proxy has many clients.
async fn unknown(app: &App, peer: Option<Peer>) -> Response {
    let Some(Peer(address)) = peer.filter(|Peer(address)| !address.is_loopback()) else {
        return refusal(UNKNOWN);
    };
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
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatelog\""));
    response
}

/// Returns the key of a request. If `reports` is true, a gateway's own key takes precedence over
/// its caller's.
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

/// Returns the credentials after the scheme, whose case does not matter, or without a scheme.
fn bearer(value: &str) -> Option<&str> {
    match value.trim().split_once(' ') {
        None => Some(value.trim()),
        Some((scheme, credentials)) => {
            scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
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
            assert_eq!(
                key(&headers(&[("x-portkey-api-key", "a"), ("authorization", own)]), true),
                Some("b")
            );
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
