//! Metrics for Prometheus: requests, gauges of the engine, memory of the process.
//!
//! Labels have few values: route templates instead of paths, classes instead of statuses, no
//! tenants and no keys. Each server has its own registry, so that two servers in one process (as in
//! tests) do not count each other's requests.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::maintenance::Run;
use crate::engine::{Engine, Status};
use crate::store::CacheStats;

/// Upper bounds in seconds. A fast insert takes less than 5 ms, a report less than 250 ms, an
/// export minutes.
const BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0];

type Labels = Vec<(&'static str, String)>;

/// Counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
    running: Gauge,
}

impl Metrics {
    /// Creates a registry with the counters of the server and the gauges of the engine.
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
            "Time to the last byte of the response, by route",
            seconds.clone(),
        );
        registry.register(
            "http_requests_running",
            "Requests whose response is not complete",
            running.clone(),
        );
        registry.register_collector(Box::new(EngineGauges(engine)));
        let requests: Family<Labels, Counter> = requests;
        let seconds: Family<Labels, Histogram> = seconds;
        Self { registry, requests, seconds, running }
    }

    /// Returns the metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts a request from now until the returned guard is dropped.
    pub(crate) fn start(self: &Arc<Self>, route: String) -> Running {
        self.running.inc();
        Running { metrics: Arc::clone(self), route, class: "gone", started: Instant::now() }
    }
}

/// A request in progress. Dropping it counts the request, even if the client disconnected before
/// the response had a status.
#[derive(Debug)]
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    route: String,
    class: &'static str,
    started: Instant,
}

impl Running {
    /// Sets the status of the response.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.class = match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
    }

    /// Returns the milliseconds since the request arrived.
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

/// Reads the engine's status at each scrape.
struct EngineGauges(Engine);

impl fmt::Debug for EngineGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineGauges")
    }
}

impl Collector for EngineGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status();
        let cache = self.0.store().cache_stats().unwrap_or_default();
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
                "Records without a cost because the price of the model is unknown",
                policy.without_price(),
            ),
            (
                "values_left_out",
                "Names, numbers and metadata that were left out because they exceed a limit",
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

/// Encodes the numbers of refusals by source and reason.
fn encode_refusals(engine: &Engine, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let figures = engine.refusals().figures();
    let records = ConstCounter::new(figures.records);
    let help = "Records that were refused because they are invalid";
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

/// Encodes the state of the maintenance jobs, with the name of the job as a label.
fn encode_jobs(engine: &Engine, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let state = engine.maintenance_state();
    let seconds = |at: Option<DateTime<Utc>>| at.map_or(0, |at| at.timestamp());
    let of = |value: &dyn Fn(&Run) -> i64| {
        let gauges = Family::<Labels, Gauge>::default();
        for (job, run) in &state.jobs {
            gauges.get_or_create(&vec![("job", job.clone())]).set(value(run));
        }
        gauges
    };
    let families = [
        (
            "maintenance_last_end_seconds",
            "End of the last run of a job, seconds since 1970-01-01",
            of(&|run| seconds(run.ended_at)),
        ),
        (
            "maintenance_next_seconds",
            "Time of the next run of a job, seconds since 1970-01-01; 0 if it is not scheduled",
            of(&|run| seconds(run.next_at)),
        ),
        (
            "maintenance_failures",
            "Consecutive failures of a job",
            of(&|run| i64::from(run.failures)),
        ),
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
        ("writable", "1 if the engine accepts records", u64::from(status.writable)),
        (
            "clock_in_doubt",
            "1 if the clock leapt and nothing expires until the time is confirmed",
            u64::from(status.clock_in_doubt),
        ),
        (
            "catalog_age_seconds",
            "Time since the catalog was last confirmed to be current",
            status.catalog_age_seconds,
        ),
        ("table_version", "Version of the Delta table", status.table_version),
        ("table_files", "Files of the table", status.files),
        ("table_rows", "Rows in the table's files", status.file_rows),
        ("table_bytes", "Bytes of the table's files", status.file_bytes),
        ("table_partitions", "Partitions of the table", status.partitions),
        ("memtable_rows", "Acknowledged rows that are not in a file yet", status.memory_rows),
        ("memtable_bytes", "Memory of the rows that are not in a file yet", status.memory_bytes),
        ("memtable_budget_bytes", "Memory at which writers wait", status.memtable_budget_bytes),
        ("wal_bytes", "Bytes of the write-ahead log", status.wal_bytes),
        ("wal_segments", "Segments of the write-ahead log", status.wal_segments),
        (
            "commits_since_checkpoint",
            "Commits since the last checkpoint",
            status.commits_since_checkpoint,
        ),
        ("queries_running", "Queries running now", status.queries_running),
        ("disk_cache_bytes", "Disk space of cached parts of a bucket's files", cache.bytes),
        (
            "process_resident_bytes",
            "Resident memory of the process; 0 if unknown",
            resident_bytes().unwrap_or(0),
        ),
    ]
}

fn counters(status: &Status, cache: &CacheStats) -> [Line; 10] {
    [
        ("records_accepted", "Records accepted since the start", status.accepted_total),
        (
            "records_duplicate",
            "Records dropped because their id is stored already",
            status.duplicate_total,
        ),
        (
            "records_over_quota",
            "Records not stored because of their plan's quota",
            status.over_quota_total,
        ),
        (
            "records_past_retention",
            "Accepted records that are older than the retention of their plan",
            status.past_retention_total,
        ),
        (
            "records_refused",
            "Records refused because the log could not be written",
            status.refused_total,
        ),
        (
            "records_redated",
            "Records dated more than a day ahead, whose time was replaced by that of their arrival",
            status.redated_total,
        ),
        ("flushes", "Flushes since the start", status.flushes_total),
        ("compactions", "Compactions since the start", status.compactions_total),
        ("disk_cache_hits", "Reads of a bucket that the disk cache answered", cache.hits),
        (
            "disk_cache_misses",
            "Reads of a bucket that the disk cache could not answer",
            cache.misses,
        ),
    ]
}

/// Returns the resident memory on Linux. `status` gives it in kilobytes; `statm` would require the
/// page size.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
