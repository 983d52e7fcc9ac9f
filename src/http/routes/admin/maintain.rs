//! `/v1/admin/maintain`: the maintenance jobs with their last results, and a run on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::engine::maintenance::Run;
use crate::engine::{Job, Outcome};
use crate::http::answer::{Answer, answer};
use crate::http::error::Failure;
use crate::http::input::{Fields, Id, NoFields, id};
use crate::http::middleware::auth::Caller;
use crate::http::state::App;
use crate::nearest::{clip, hint};

/// State of maintenance.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// Log id of the node that holds the maintenance lease. `None` if a single node has not run any
    /// job yet.
    holder: Option<String>,
    /// Expiry of the lease.
    until: Option<DateTime<Utc>>,
    jobs: BTreeMap<&'static str, JobView>,
}

#[derive(Debug, Serialize)]
struct JobView {
    schedule: String,
    #[serde(flatten)]
    run: Run,
}

/// `GET /v1/admin/maintain`.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Answer<Shown> {
    let state = app.engine.maintenance_state();
    let config = app.engine.config();
    let job = |job: Job| {
        let mut run = state.jobs.get(job.name()).cloned().unwrap_or_default();
        run.next_at = state.due(job, config, app.engine.now());
        (job.name(), JobView { schedule: job.schedule(config).to_string(), run })
    };
    let jobs = Job::ALL.into_iter().map(job).collect();
    answer(StatusCode::OK, Shown { holder: state.holder, until: state.until, jobs })
}

/// State of the server's clock.
#[derive(Debug, Serialize)]
pub(crate) struct ClockView {
    object: &'static str,
    now: DateTime<Utc>,
    /// True if the clock leapt and nobody has confirmed the time. Until then nothing expires.
    in_doubt: bool,
    /// Expected time at the moment of the leap.
    expected: Option<DateTime<Utc>>,
    /// Time that the clock showed instead.
    found: Option<DateTime<Utc>>,
}

fn shown_clock(app: &App) -> ClockView {
    let leap = app.engine.clock_in_doubt();
    let expected = leap.as_ref().map(|leap| leap.expected);
    let found = leap.as_ref().map(|leap| leap.found);
    ClockView { object: "clock", now: app.engine.now(), in_doubt: leap.is_some(), expected, found }
}

/// `GET /v1/admin/clock`.
pub(crate) async fn clock(State(app): State<Arc<App>>) -> Answer<ClockView> {
    answer(StatusCode::OK, shown_clock(&app))
}

/// `POST /v1/admin/clock`: confirms the time of the server's clock.
pub(crate) async fn confirm_clock(
    Caller { app, access }: Caller,
    _: NoFields,
) -> Result<Answer<ClockView>, Failure> {
    app.engine.check_access(&access)?;
    app.engine.confirm_clock().await;
    Ok(answer(StatusCode::OK, shown_clock(&app)))
}

/// `POST /v1/admin/maintain/{job}?dry_run=true`.
pub(crate) async fn run(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Answer<Outcome>, Failure> {
    let name = id(path)?;
    let job =
        Job::ALL.into_iter().find(|job| job.name() == name.replace('-', "_")).ok_or_else(|| {
            let hint = hint(&name, Job::ALL.map(Job::name), "jobs", "");
            Failure::new(
                StatusCode::NOT_FOUND,
                format!("job `{}` does not exist; {hint}", clip(&name)),
            )
        })?;
    let mut fields = Fields::decode(query.as_deref())?;
    let dry_run = fields.take("dry_run");
    fields.finish("dry_run")?;
    let dry_run = match dry_run.as_deref() {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(other) => {
            return Err(Failure::invalid(format!(
                "field `dry_run` is `{other}`; expected true or false"
            )));
        }
    };
    app.engine.check_access(&access)?;
    Ok(answer(StatusCode::OK, app.engine.maintain(job, dry_run).await?))
}
