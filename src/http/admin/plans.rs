//! `GET /v1/admin/plans`: every plan with its terms.

use std::sync::Arc;

use axum::extract::State;
use serde_json::Value;

use super::super::App;
use super::{Answer, list as listed};

/// `GET /v1/admin/plans`.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Answer<Value> {
    listed(&app.engine.catalog().state().document.shown_plans())
}
