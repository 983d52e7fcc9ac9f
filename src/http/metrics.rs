//! `GET /metrics`: what Prometheus scrapes: requests, the engine's gauges, the process's memory.
//!
//! Labels have few values: route templates, never paths; classes of status, never statuses; no
//! tenant and no key. The registry belongs to one server, so that two in one process (as in tests)
//! do not count each other's requests.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::App;
use super::error::Failure;
use crate::engine::maintenance::Run;
use crate::engine::{Engine, Status};
use crate::store::CacheStats;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: a fast insert is under 5 ms, a report under 250 ms, an export may take
/// minutes.
const BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0];

type Labels = Vec<(&'static str, String)>;

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
    running: Gauge,
}

impl Metrics {
    /// A registry with the server's counters and the engine's gauges.
    pub(crate) fn new(engine: Engine) -> Self {
        let mut registry = Registry::with_prefix("gatelog");
        let requests = Family::default();
        let seconds =
            Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let running = Gauge::default();
        registry.register(
            "http_requests",
            "Requests by route and class of status",
            requests.clone(),
        );
        registry.register(
            "http_request_seconds",
            "Time to the last byte of the answer, by route",
            seconds.clone(),
        );
        registry.register(
            "http_requests_running",
            "Requests not yet answered to the last byte",
            running.clone(),
        );
        registry.register_collector(Box::new(EngineGauges(engine)));
        let requests: Family<Labels, Counter> = requests;
        let seconds: Family<Labels, Histogram> = seconds;
        Self { registry, requests, seconds, running }
    }

    /// Counts a request from now until the returned guard is dropped.
    pub(crate) fn start(self: &Arc<Self>, route: String) -> Running {
        self.running.inc();
        Running { metrics: Arc::clone(self), route, class: "gone", started: Instant::now() }
    }
}

/// A request on its way. Dropping it counts the request, also where the client went away before
/// there was a status.
#[derive(Debug)]
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    route: String,
    class: &'static str,
    started: Instant,
}

impl Running {
    /// Notes the status of the answer.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.class = match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
    }

    /// Milliseconds since the request came.
    pub(crate) fn elapsed_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let route = ("route", std::mem::take(&mut self.route));
        self.metrics.running.dec();
        self.metrics
            .seconds
            .get_or_create(&vec![route.clone()])
            .observe(self.started.elapsed().as_secs_f64());
        self.metrics.requests.get_or_create(&vec![route, ("status", self.class.to_owned())]).inc();
    }
}

/// `GET /metrics`.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let mut text = String::new();
    match encode(&mut text, &app.metrics.registry) {
        Ok(()) => Ok(([(CONTENT_TYPE, TEXT)], text).into_response()),
        Err(fmt::Error) => {
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics"))
        }
    }
}

/// Reads the engine's status at each scrape.
struct EngineGauges(Engine);

impl fmt::Debug for EngineGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineGauges")
    }
}

impl Collector for EngineGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, cache) = (self.0.status(), self.0.store().cache_stats().unwrap_or_default());
        for (name, help, value) in gauges(&status, &cache) {
            let gauge = ConstGauge::new(value.cast_signed());
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                EncodeMetric::metric_type(&gauge),
            )?)?;
        }
        let policy = self.0.policy();
        let of_policy = [
            (
                "records_without_price",
                "Records without a cost because no price of the model is known",
                policy.without_price(),
            ),
            (
                "values_left_out",
                "Names, figures and metadata left out because they were too long or too large",
                policy.left_out(),
            ),
        ];
        for (name, help, value) in counters(&status, &cache).into_iter().chain(of_policy) {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                EncodeMetric::metric_type(&counter),
            )?)?;
        }
        encode_refusals(&self.0, &mut encoder)?;
        encode_jobs(&self.0, &mut encoder)
    }
}

/// What was refused, by what the client used and why.
fn encode_refusals(engine: &Engine, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let figures = engine.refusals().figures();
    let records = ConstCounter::new(figures.records);
    let help = "Records that were refused for what they are";
    records.encode(encoder.encode_descriptor(
        "records_rejected",
        help,
        None,
        EncodeMetric::metric_type(&records),
    )?)?;
    let refusals = Family::<Labels, Counter>::default();
    for ((source, reason), count) in figures.counts {
        let labels = vec![("source", source.to_string()), ("reason", reason.to_string())];
        refusals.get_or_create(&labels).inc_by(count);
    }
    let help = "Records, feedback and requests that were refused, by source and reason";
    refusals.encode(encoder.encode_descriptor(
        "refusals",
        help,
        None,
        EncodeMetric::metric_type(&refusals),
    )?)?;
    for (name, help, value) in [
        ("refusals_listed", "Entries of the list of refusals", figures.entries),
        ("refusals_listed_bytes", "Memory of the list of refusals", figures.bytes),
    ] {
        let gauge = ConstGauge::new(value.cast_signed());
        gauge.encode(encoder.encode_descriptor(
            name,
            help,
            None,
            EncodeMetric::metric_type(&gauge),
        )?)?;
    }
    Ok(())
}

/// The upkeep jobs, each under its name.
fn encode_jobs(engine: &Engine, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let upkeep = engine.maintenance_state();
    let seconds = |at: Option<DateTime<Utc>>| at.map_or(0, |at| at.timestamp());
    let of = |value: &dyn Fn(&Run) -> i64| {
        let gauges = Family::<Labels, Gauge>::default();
        for (job, run) in &upkeep.jobs {
            gauges.get_or_create(&vec![("job", job.clone())]).set(value(run));
        }
        gauges
    };
    let families = [
        (
            "upkeep_last_end_seconds",
            "When a job ended last, seconds since 1970-01-01",
            of(&|run| seconds(run.ended_at)),
        ),
        (
            "upkeep_next_seconds",
            "When a job is due, seconds since 1970-01-01; 0 = never",
            of(&|run| seconds(run.next_at)),
        ),
        ("upkeep_failures", "Failures of a job in a row", of(&|run| i64::from(run.failures))),
    ];
    for (name, help, gauges) in families {
        gauges.encode(encoder.encode_descriptor(
            name,
            help,
            None,
            EncodeMetric::metric_type(&gauges),
        )?)?;
    }
    Ok(())
}

type Line = (&'static str, &'static str, u64);

fn gauges(status: &Status, cache: &CacheStats) -> [Line; 17] {
    [
        ("writable", "1 if records are taken", u64::from(status.writable)),
        (
            "clock_in_doubt",
            "1 if the clock leapt and nothing expires until the time is confirmed",
            u64::from(status.clock_in_doubt),
        ),
        (
            "catalog_age_seconds",
            "Time since the catalog was seen to be the newest",
            status.catalog_age_seconds,
        ),
        ("table_version", "Version of the Delta table", status.table_version),
        ("table_files", "Files of the table", status.files),
        ("table_rows", "Rows in the table's files", status.file_rows),
        ("table_bytes", "Bytes of the table's files", status.file_bytes),
        ("table_partitions", "Partitions of the table", status.partitions),
        ("memtable_rows", "Acked rows not yet in a file", status.memory_rows),
        ("memtable_bytes", "Memory of the rows not yet in a file", status.memory_bytes),
        ("memtable_budget_bytes", "Memory at which writers wait", status.memtable_budget_bytes),
        ("wal_bytes", "Bytes of the write-ahead log", status.wal_bytes),
        ("wal_segments", "Segments of the write-ahead log", status.wal_segments),
        (
            "commits_since_checkpoint",
            "Commits since the last checkpoint",
            status.commits_since_checkpoint,
        ),
        ("queries_running", "Queries running now", status.queries_running),
        ("disk_cache_bytes", "Disk space of parts of files read from a bucket", cache.bytes),
        (
            "process_resident_bytes",
            "Memory that the process holds; 0 where unknown",
            resident_bytes().unwrap_or(0),
        ),
    ]
}

fn counters(status: &Status, cache: &CacheStats) -> [Line; 10] {
    [
        ("records_accepted", "Records taken since the start", status.accepted_total),
        ("records_duplicate", "Records dropped because their id was known", status.duplicate_total),
        (
            "records_over_quota",
            "Records not stored because of their plan's quota",
            status.over_quota_total,
        ),
        (
            "records_past_retention",
            "Records taken that are older than their plan keeps records",
            status.past_retention_total,
        ),
        ("records_refused", "Records refused because there was no room", status.refused_total),
        (
            "records_redated",
            "Records dated more than a day ahead, which got the time of arrival",
            status.redated_total,
        ),
        ("flushes", "Flushes since the start", status.flushes_total),
        ("compactions", "Compactions since the start", status.compactions_total),
        ("disk_cache_hits", "Reads of a bucket that the disk cache answered", cache.hits),
        ("disk_cache_misses", "Reads of a bucket that it could not answer", cache.misses),
    ]
}

/// Resident memory as Linux tells it. `status` says kilobytes, where `statm` would need the size of
/// a page.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
