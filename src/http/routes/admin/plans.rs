//! `GET /v1/admin/plans`: the plans with their terms. A key of an organisation sees only its own
//! plan, since plans can be made for one organisation.

use serde_json::Value;

use crate::http::answer::{Answer, list as listed};
use crate::http::middleware::auth::Caller;

/// `GET /v1/admin/plans`.
pub(crate) async fn list(Caller { app, access }: Caller) -> Answer<Value> {
    let state = app.engine.catalog().state();
    let mut plans = state.document.shown_plans();
    if let Some(organisation) = &access.organisation {
        let own = state
            .document
            .organisation(organisation)
            .ok()
            .map(|organisation| organisation.plan.as_str());
        plans.retain(|plan| Some(plan.name.as_str()) == own);
    }
    listed(&plans)
}
