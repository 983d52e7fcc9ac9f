//! The routes of the server, on one screen, and the layers around them.
//!
//! These layers surround the handlers, outermost first: request id and metrics
//! ([`telemetry::observe`]), a response after a panic, the speed of request bodies ([`pace`]),
//! authentication ([`auth`]), a list of refusals ([`refusals`]), a task of its own for requests
//! that write ([`finish`]), a place among the requests in progress ([`admission`]), and the scope
//! check.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use tower_http::catch_panic::CatchPanicLayer;

use crate::catalog::Scope::{Admin, Analytics, Export, Read, View, Write};
use crate::engine::Engine;
use crate::http::error::Failure;
use crate::http::middleware::auth::{self, needs, operator};
use crate::http::middleware::{admission, finish, pace, refusals, telemetry};
use crate::http::route::Route;
use crate::http::route_table::{Routes, delete, get, patch, post, put};
use crate::http::routes::admin::{erasures, keys, maintain, organisations, plans, providers};
use crate::http::routes::{
    self, analytics, control_plane, docs, export, exports, feedback, health, ingest, insert, logs,
    metrics, openapi, otlp, replay, reports, saved_filters, share_links, sql,
};
use crate::http::state::App;
use crate::nearest::{clip, nearest};

/// Returns the HTTP service of an engine.
pub fn router(engine: Engine) -> Router {
    service(engine).1
}

/// Returns the state of a server and its HTTP service.
pub(crate) fn service(engine: Engine) -> (Arc<App>, Router) {
    let app = App::new(engine, list());
    let router = layered(&app);
    (app, router)
}

/// Returns all routes.
pub(crate) fn list() -> Vec<Route> {
    let (with_key, without_key) = table();
    [with_key, without_key].into_iter().flat_map(|routes| routes.into_parts().1).collect()
}

/// Returns the routes that need a key, then those that need none.
pub(crate) fn table() -> (Routes, Routes) {
    let with_key = Routes::default()
        .route("/v1/logs", needs(Write, post(insert::insert)))
        .route("/v1/logs", needs(View, get(logs::list)))
        .route("/v1/logs/{id}", needs(View, get(logs::show)))
        .route("/v1/logs/filters", needs(View, get(saved_filters::list)))
        .route(
            "/v1/logs/filters/{name}",
            needs(View, put(saved_filters::save).delete(saved_filters::delete)),
        )
        .route("/v1/refusals", needs(View, get(routes::refusals::list)))
        .route("/v1/logs/exports", needs(Export, get(exports::list).post(exports::create)))
        .route("/v1/logs/exports/field-restrictions", needs(Export, get(exports::restrictions)))
        .route("/v1/logs/exports/{id}", needs(Export, get(exports::show).put(exports::update)))
        .route("/v1/logs/exports/{id}/start", needs(Export, post(exports::start)))
        .route("/v1/logs/exports/{id}/cancel", needs(Export, post(exports::cancel)))
        .route("/v1/logs/exports/{id}/download", needs(Export, get(exports::download)))
        .route("/v1/logs/groups/{*group}", needs(Analytics, get(analytics::group)))
        .route("/v1/logs/{id}/replay", needs(Read, get(replay::show)))
        .route("/v1/logs/{id}/replay", needs(Write, post(replay::send)))
        .route("/v1/logs/{id}/share", needs(View, get(share_links::list).post(share_links::create)))
        .route("/v1/shares", needs(View, get(share_links::own)))
        .route("/v1/shares/{id}", needs(View, delete(share_links::revoke)))
        .route("/v1/feedback", needs(Write, post(feedback::create)))
        .route("/v1/feedback", needs(View, get(feedback::list)))
        .route("/v1/feedback/{id}", needs(Write, put(feedback::update).post(feedback::update)))
        .route("/v1/feedback/{id}", needs(View, get(feedback::show)))
        .route("/logs/{id}", needs(View, get(logs::own_url)))
        .route("/v1/traces", needs(Write, post(otlp::traces)))
        .route("/v1/metrics", needs(Write, post(otlp::metrics)))
        .route("/v1/otel/v1/traces", needs(Write, post(otlp::traces)))
        .route("/v1/otel/v1/logs", needs(Write, post(otlp::logs)))
        .route("/v1/otel/v1/metrics", needs(Write, post(otlp::metrics)))
        .route("/v1/logs/otel", needs(Write, post(otlp::either)))
        .route("/v1/logs/otel/v1/traces", needs(Write, post(otlp::traces)))
        .route("/v1/logs/otel/v1/logs", needs(Write, post(otlp::logs)))
        .route("/v1/logs/otel/v1/metrics", needs(Write, post(otlp::metrics)))
        .route("/v1/ingest", needs(Write, post(ingest::ingest)))
        .route("/v1/ingest/litellm", needs(Write, post(ingest::litellm)))
        .route("/v1/ingest/gateway-hook", needs(Write, post(ingest::gateway_hook)))
        .route("/v2/api-keys/self/details", needs(Write, get(control_plane::details)))
        .route("/v1/logs/enterprise/logs", needs(Write, post(control_plane::log)))
        .route("/v1/analytics/enterprise/analytics", needs(Write, post(control_plane::rows)))
        .route("/dp/metrics", needs(Write, post(control_plane::rows)))
        .route("/v1/sql", needs(View, get(sql::get).post(sql::post)))
        .route("/v1/reports", needs(Analytics, get(reports::list)))
        .route("/v1/reports/{name}", needs(Analytics, get(reports::run)))
        .route("/v1/analytics/graphs/{*graph}", needs(Analytics, get(analytics::graph)))
        .route("/v1/analytics/groups/{*group}", needs(Analytics, get(analytics::group)))
        .route("/v1/analytics/summary/cache", needs(Analytics, get(analytics::cache)))
        .route("/v1/export", needs(Export, get(export::get).post(export::post)))
        .route("/v1/admin/organisations", needs(Admin, get(organisations::list)))
        .route("/v1/admin/organisations", operator(post(organisations::create)))
        .route("/v1/admin/organisations/{id}", needs(Admin, get(organisations::show)))
        .route(
            "/v1/admin/organisations/{id}",
            operator(patch(organisations::change).delete(organisations::delete)),
        )
        .route("/v1/admin/keys", needs(Admin, get(keys::list).post(keys::create)))
        .route("/v1/admin/keys/{id}", needs(Admin, delete(keys::revoke)))
        .route("/v1/admin/erasures", needs(Admin, get(erasures::list).post(erasures::create)))
        .route(
            "/v1/admin/archived-providers",
            needs(Admin, get(providers::list).post(providers::archive)),
        )
        .route(
            "/v1/admin/archived-providers/{provider}",
            needs(Admin, delete(providers::take_back)),
        )
        .route("/v1/admin/plans", needs(Admin, get(plans::list)))
        .route("/v1/admin/maintain", operator(get(maintain::show)))
        .route("/v1/admin/maintain/{job}", operator(post(maintain::run)))
        .route("/v1/admin/clock", operator(get(maintain::clock).post(maintain::confirm_clock)))
        .route("/metrics", operator(get(metrics::show)));
    let without_key = Routes::default()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(openapi::show))
        .route("/docs", get(docs::list))
        .route("/docs/{page}", get(docs::show))
        .route("/exports/{token}", get(exports::file::open))
        .route("/shared/{token}", get(share_links::open));
    (with_key, without_key)
}

fn layered(app: &Arc<App>) -> Router {
    let (with_key, without_key) = table();
    let with_key = (with_key.into_parts().0)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(app), admission::admit))
        .layer(from_fn_with_state(Arc::clone(app), finish::finish))
        .layer(from_fn_with_state(Arc::clone(app), refusals::watch))
        .layer(from_fn_with_state(Arc::clone(app), auth::known));
    let without_key = without_key.into_parts().0.method_not_allowed_fallback(wrong_method);
    let without_key = without_key.layer(from_fn_with_state(Arc::clone(app), admission::admit));
    with_key
        .merge(without_key)
        .layer(from_fn(pace::watch))
        .layer(CatchPanicLayer::custom(telemetry::panicked))
        .layer(from_fn_with_state(Arc::clone(app), telemetry::observe))
        .with_state(Arc::clone(app))
}

/// Responds to an unknown path. Suggests the routes whose path up to its first placeholder is
/// similar.
async fn unknown_route(State(app): State<Arc<App>>, uri: Uri) -> Failure {
    let path = uri.path();
    let known = app.routes.iter().filter_map(|route| route.path.split("/{").next());
    let known: BTreeSet<&str> = known.collect();
    let near = nearest(path, known);
    let near =
        if near.is_empty() { String::new() } else { format!("; nearest: {}", near.join(", ")) };
    let message = format!("route `{}` does not exist; see `/openapi.json`{near}", clip(path));
    Failure::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let message = format!(
        "method {method} is not supported by `{}`; header `allow` lists the supported methods",
        uri.path()
    );
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_names_in_the_place_of_a_log_id_are_listed() {
        let routes = table().0.into_parts().1;
        let behind = routes
            .iter()
            .filter_map(|route| route.path.strip_prefix("/v1/logs/")?.split('/').next());
        let words: BTreeSet<&str> = behind.filter(|word| !word.starts_with('{')).collect();
        assert_eq!(words, crate::logs::ROUTE_WORDS.into());
    }
}
