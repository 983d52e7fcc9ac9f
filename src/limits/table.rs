//! The table of limits: every resource that requests share.
//!
//! The guide contains the table, and `tests/it/limits.rs` checks each line: one organisation asks
//! for all it can get, and another one still succeeds. A new shared resource gets a line here; both
//! tests fail until they know it.

use std::fmt::Write;

use super::{CONNECTIONS, DAYS, DOWNLOADS, EXPORTS, REPLAYS, REQUESTS, STREAMS};

/// One shared resource.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Name of the resource.
    pub resource: &'static str,
    /// Size of the resource.
    pub limit: String,
    /// Part of it that one organisation gets.
    pub share: &'static str,
    /// The setting that changes the limit. Empty if there is none.
    pub setting: &'static str,
    /// Behaviour when the resource is used up.
    pub full: &'static str,
}

const HALF: &str = "as much as it leaves free: half";
const MAX: &str = "three times what it leaves free: three quarters";

/// Returns every line of the table.
pub fn limits() -> Vec<Limit> {
    [request_limits(), row_limits(), query_limits(), entry_limits()].concat()
}

fn line(
    resource: &'static str,
    limit: impl Into<String>,
    share: &'static str,
    setting: &'static str,
    full: &'static str,
) -> Limit {
    Limit { resource, limit: limit.into(), share, setting, full }
}

fn request_limits() -> Vec<Limit> {
    vec![
        line(
            "connections",
            CONNECTIONS.to_string(),
            "the address with the most idle connections loses its oldest idle one",
            "",
            "a new one is served",
        ),
        line(
            "requests at once",
            REQUESTS.to_string(),
            HALF,
            "",
            "429; `/healthz`, `/readyz`, `/metrics` need no place",
        ),
        line(
            "memory for bodies",
            "a share of `memory`",
            MAX,
            "body_memory_bytes",
            "429; 413 for a body that is larger than the share; `/v1/ingest` waits `append_wait_ms` first",
        ),
        line("streamed bodies at once", STREAMS.to_string(), HALF, "", "429"),
        line(
            "exports at once",
            format!("by `export_memory_bytes`, {EXPORTS} at most"),
            HALF,
            "export_memory_bytes",
            "429",
        ),
        line("downloads of export files at once", DOWNLOADS.to_string(), HALF, "", "429"),
        line("replays at once", REPLAYS.to_string(), HALF, "", "429"),
        line("export jobs that are written", "2", "one", "", "the next waits its turn"),
        line(
            "files of export jobs",
            "16 GiB, packed",
            HALF,
            "export_bytes",
            "the job fails with a message",
        ),
    ]
}

fn row_limits() -> Vec<Limit> {
    vec![
        line(
            "rows in memory",
            "a share of `memory`, 192 MiB at most",
            MAX,
            "memtable_bytes",
            "waits `append_wait_ms` for a flush, then 429",
        ),
        line(
            "days of rows in memory",
            format!("{DAYS} of an organisation"),
            "all of these",
            "",
            "waits `append_wait_ms` for a flush, then 429",
        ),
        line(
            "remembered ids",
            "a share of `memory`, 8,000,000 at most",
            "an equal part: the organisation that has most forgets its oldest",
            "dedupe_ids",
            "ids are forgotten before `dedupe_hours`",
        ),
        line(
            "requests of SDKs that are known again",
            "10,000",
            "an equal part: the organisation that has most forgets its own",
            "",
            "requests are forgotten before 10 s",
        ),
        line(
            "parts that wait for the rest of a record",
            "half of the memory for rows",
            "three quarters; the organisation that has most stores its oldest alone",
            "memtable_bytes",
            "records are stored before `join_seconds`, and completed later",
        ),
        line("late parts of stored records", "of the same half", HALF, "memtable_bytes", "429"),
    ]
}

fn query_limits() -> Vec<Limit> {
    vec![
        line(
            "queries at once",
            "by `query_memory_bytes`, 8 at most",
            "half of them, `query_share`",
            "query_concurrency",
            "waits its turn among organisations; 429 after `query_timeout_seconds`",
        ),
        line(
            "queries that wait",
            "8 a place",
            "8 for each place of its share",
            "query_share",
            "429",
        ),
        line(
            "threads of queries",
            "as many as processors, for each organisation",
            "its own",
            "threads",
            "its own queries wait",
        ),
        line(
            "threads that parse large bodies and encode answers",
            "as many as processors, for each organisation",
            "its own",
            "threads",
            "its own work waits",
        ),
        line(
            "memory of queries",
            "a share of `memory`",
            HALF,
            "query_memory_bytes",
            "spills to disk, else 422",
        ),
        line(
            "memory of exports",
            "a share of `memory`",
            "as much as it leaves free: half; all of it for one row if it is alone",
            "export_memory_bytes",
            "sorts on disk, else 422",
        ),
        line(
            "spilled bytes",
            "10 GiB; a twentieth of the disk stays free",
            HALF,
            "spill_bytes",
            "422",
        ),
        line(
            "open files of spilled rows",
            "half of the open files that the process may have",
            HALF,
            "",
            "422",
        ),
    ]
}

fn entry_limits() -> Vec<Limit> {
    vec![
        line(
            "entries of the catalog",
            "of an organisation 1,000 keys, 1,000 workspaces, 2,000 erasures under way, 2 MiB of text",
            "all of these",
            "",
            "422",
        ),
        line(
            "wrong keys of an address",
            "10 at once, then each waits 0.1 to 5 s, 8 wait; loopback is not slowed",
            "of all addresses 64 wait",
            "",
            "429",
        ),
    ]
}

/// Returns the table as the guide shows it.
pub fn markdown() -> String {
    let mut text =
        "| resource | limit | share of one organisation | setting | when it is full |\n|---|---|---|---|---|\n"
            .to_owned();
    for Limit { resource, limit, share, setting, full } in limits() {
        let setting = if setting.is_empty() { String::new() } else { format!("`{setting}`") };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "| {resource} | {limit} | {share} | {setting} | {full} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Found};

    #[test]
    fn the_readme_shows_the_table() {
        let guide = include_str!("../guide/operations.md");
        assert!(guide.contains(&markdown()), "put this into operations.md:\n{}", markdown());
    }

    #[test]
    fn settings_of_the_table_exist_with_the_defaults_that_it_shows() {
        for Limit { resource, setting, .. } in limits() {
            assert!(
                setting.is_empty() || Config::default().get(setting).is_some(),
                "{resource}: `{setting}`"
            );
        }
        // The shares of a large machine are the maxima of the table.
        let config =
            Config { memory: 64 << 30, ..Config::default() }.settled(&Found::here()).unwrap();
        assert_eq!(
            (config.memtable_bytes, config.dedupe_ids, config.query_concurrency),
            (192 << 20, 8_000_000, 8)
        );
        assert!((REQUESTS as usize) < CONNECTIONS, "a new connection finds one without a request");
    }
}
