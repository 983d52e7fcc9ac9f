//! The seventeen graphs: their paths in both SDKs, and the mapping of columns to JSON fields.

use super::sql_files::file;
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};

/// A graph.
#[derive(Debug)]
pub(super) struct Graph {
    /// Paths below `/v1/analytics/graphs/`: that of the specification and the Python SDK, then that
    /// of the Node SDK.
    pub(super) paths: &'static [&'static str],
    /// Name and text of the SQL file.
    pub(super) file: (&'static str, &'static str),
    /// Fields of the summary.
    pub(super) summary: &'static [Field],
    /// Kind of the points.
    pub(super) points: Points,
    /// True if the graph reads feedback.
    pub(super) feedback: bool,
}

/// Kind of the points of a graph.
#[derive(Debug)]
pub(super) enum Points {
    /// One point for each bucket of the time frame, including empty ones.
    Buckets(&'static [Field]),
    /// One point for each bucket, with a list: its name, the fields of its items, and the fields
    /// beside it.
    Lists(&'static str, &'static [Field], &'static [Field]),
    /// One point for each row.
    Rows(&'static [Field]),
}

/// A field of a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Name in JSON.
    pub(super) name: &'static str,
    /// Column of the query.
    pub(super) column: &'static str,
    /// Value if there are no rows.
    pub(super) empty: Empty,
}

/// Value of a figure without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// A count or sum: 0.
    Zero,
    /// A mean, percentile or rate, or the name of something: null.
    Null,
    /// A running sum: its previous value.
    Carried,
}

impl Graph {
    /// Returns the distinct columns of the figures.
    pub(super) fn figures(&self) -> Vec<&'static str> {
        let points: Vec<&[Field]> = match &self.points {
            Points::Buckets(fields) | Points::Rows(fields) => vec![fields],
            Points::Lists(_, items, beside) => vec![items, beside],
        };
        let mut columns: Vec<&str> = std::iter::once(self.summary)
            .chain(points)
            .flatten()
            .map(|field| field.column)
            .collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Returns the query. A file without a column `whole` has only figures; the query then computes
    /// them for each bucket and for the whole time frame.
    pub(super) fn sql(&self) -> String {
        let (_, sql) = self.file;
        match sql.split_once("\nselect\n") {
            Some((head, figures)) if !sql.contains("column whole") => format!(
                "{head}\nselect\n    cast(grouping(bucket) as int) as whole,\n    bucket,\n{figures}\
                 group by grouping sets ((bucket), ())\norder by whole, bucket\n"
            ),
            _ => sql.to_owned(),
        }
    }
}

const fn count(name: &'static str) -> Field {
    Field { name, column: name, empty: Empty::Zero }
}

const fn mean(name: &'static str) -> Field {
    Field { name, column: name, empty: Empty::Null }
}

const fn running(name: &'static str) -> Field {
    Field { name, column: name, empty: Empty::Carried }
}

/// Creates a count whose name differs from that of its column.
const fn count_of(name: &'static str, column: &'static str) -> Field {
    Field { name, column, empty: Empty::Zero }
}

const TOTAL: &[Field] = &[count("total")];
const TOTAL_AVG: &[Field] = &[count("total"), mean("avg")];
const PERCENTILES: &[Field] = &[mean("avg"), mean("p50"), mean("p90"), mean("p99")];
const RATE: &[Field] = &[mean("rate")];
const AVG: &[Field] = &[mean("avg")];

const fn over_time(
    paths: &'static [&'static str],
    file: (&'static str, &'static str),
    summary: &'static [Field],
    points: &'static [Field],
) -> Graph {
    Graph { paths, file, summary, points: Points::Buckets(points), feedback: false }
}

const fn about_feedback(
    paths: &'static [&'static str],
    file: (&'static str, &'static str),
    summary: &'static [Field],
    points: Points,
) -> Graph {
    Graph { paths, file, summary, points, feedback: true }
}

/// Every graph.
pub(super) static GRAPHS: [Graph; 17] = [
    over_time(&["requests"], file!("requests"), TOTAL, TOTAL),
    over_time(&["cost"], file!("cost"), TOTAL_AVG, TOTAL_AVG),
    over_time(&["latency"], file!("latency"), PERCENTILES, PERCENTILES),
    over_time(&["tokens"], file!("tokens"), TOTAL_AVG, TOTAL_AVG),
    over_time(&["users"], file!("users"), TOTAL, TOTAL),
    over_time(
        &["users/requests", "users-requests"],
        file!("users_requests"),
        &[count("total"), count("unique"), mean("avg")],
        AVG,
    ),
    over_time(&["errors"], file!("errors"), TOTAL, TOTAL),
    over_time(&["errors/rate", "errors-rate"], file!("errors_rate"), RATE, RATE),
    Graph {
        paths: &["errors/stacks", "errors-stack"],
        file: file!("errors_stacks"),
        summary: &[count_of("total", "count")],
        points: Points::Lists("stats", &[mean("response_status_code"), count("count")], &[]),
        feedback: false,
    },
    Graph {
        paths: &["errors/status-codes", "errors-status-code"],
        file: file!("errors_status_codes"),
        summary: &[count_of("total_errors", "count"), count("unique_error_codes")],
        points: Points::Rows(&[mean("status_code"), count("count")]),
        feedback: false,
    },
    Graph {
        paths: &["requests/rescued", "requests-rescued"],
        file: file!("requests_rescued"),
        summary: &[count_of("retry", "count"), count("fallback")],
        points: Points::Lists(
            "retry",
            &[mean("retry_success_count"), count("count")],
            &[count("fallback")],
        ),
        feedback: false,
    },
    over_time(
        &["cache/hit-rate", "cache-hit-rate"],
        file!("cache_hit_rate"),
        &[count("total"), mean("rate")],
        &[
            count("simple_hits"),
            count("semantic_hits"),
            mean("rate"),
            running("cumulative_simple_cache_savings"),
            running("cumulative_semantic_cache_savings"),
        ],
    ),
    over_time(&["cache/latency", "cache-latency"], file!("cache_latency"), &[], AVG),
    about_feedback(&["feedbacks"], file!("feedbacks"), TOTAL, Points::Buckets(TOTAL)),
    about_feedback(
        &["feedbacks/scores", "feedbacks/score"],
        file!("feedbacks_scores"),
        TOTAL,
        Points::Rows(&[mean("score"), count("total")]),
    ),
    about_feedback(&["feedbacks/weighted"], file!("feedbacks_weighted"), AVG, Points::Buckets(AVG)),
    about_feedback(
        &["feedbacks/ai-models"],
        file!("feedbacks_ai_models"),
        &[],
        Points::Rows(&[mean("ai_model"), count("total"), mean("avg_weighted_feedback")]),
    ),
];

/// Returns the graph at a path.
pub(super) fn find(path: &str) -> Result<&'static Graph> {
    GRAPHS.iter().find(|graph| graph.paths.contains(&path)).ok_or_else(|| {
        let known = GRAPHS.iter().flat_map(|graph| graph.paths).copied();
        let hint = hint(path, known, "graphs", "`/openapi.json`");
        Error::not_found(format!("graph `{}` does not exist; {hint}", clip(path)))
    })
}
