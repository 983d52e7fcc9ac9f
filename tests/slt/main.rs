//! Every `tests/slt/*.slt` over a real engine, three times: rows in memory, flushed, half and half
//! after a compaction.
//!
//! The answers must be the same each time, so a row that a flush or a compaction loses, doubles or
//! changes shows up here. The rows are `fixture.jsonl` and `fixture_feedback.jsonl`. Beside SQL a
//! file may say `report NAME PARAM=VALUE …`, which runs a named report, or `analytics PATH
//! PARAM=VALUE …`, which runs a graph, group or summary and shows its rows. In an answer columns
//! stand between ` | `, no value is `NULL`, no text is `(empty)`, and floats are rounded to six
//! places.
//!
//! `SLT_COMPLETE=1 cargo test --test slt` writes the answers of the first mode into the files, and
//! an error where the answer is one: read the difference before keeping it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test that cannot go on says so by panicking"
)]

mod harness;
mod text;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use gatelog::analytics::{AnalyticsRequest, Query};
use gatelog::engine::{Answer, Engine, Params};
use gatelog::error::Error;
use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::{AsyncDB, DBOutput, Runner, strict_column_validator};
use tokio::runtime::Runtime;

use harness::{Bed, MODES};
use text::Type;

const SEPARATOR: &str = " | ";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let complete = std::env::var_os("SLT_COMPLETE").is_some();
    let runtime = Arc::new(Runtime::new().expect("a tokio runtime"));
    // The files only read, so all that run in one mode share one engine.
    let beds: Vec<Arc<Bed>> = MODES.iter().map(|mode| Arc::new(Bed::new(*mode))).collect();
    let mut trials = Vec::new();
    for bed in &beds[..if complete { 1 } else { beds.len() }] {
        for path in files() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let (runtime, bed) = (Arc::clone(&runtime), Arc::clone(bed));
            let name = format!("{}::{name}", bed.mode.name());
            trials.push(Trial::test(name, move || runtime.block_on(run(&bed, &path, complete))));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for bed in beds {
        runtime.block_on(bed.close());
    }
    conclusion.exit_code()
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let entries = fs::read_dir(folder).expect("the folder of the tests");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    files
}

async fn run(bed: &Bed, path: &Path, complete: bool) -> Result<(), Failed> {
    let engine = bed.engine().await?;
    let mut runner = Runner::new(|| async { Ok(Database { engine: engine.clone() }) });
    runner.with_column_validator(strict_column_validator);
    runner.with_validator(same);
    if complete {
        let normalized = |value: &String| value.clone();
        runner.update_test_file(path, SEPARATOR, same, normalized, strict_column_validator).await?;
        return Ok(());
    }
    runner.run_file_async(path).await.map_err(|error| error.display(false).to_string().into())
}

/// Whether an answer is the expected one, to the blank: the runner's own comparison takes columns
/// apart at blanks, which labels such as `Cache Hit` have too.
fn same(_: sqllogictest::Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let lines = actual.iter().map(|row| row.join(SEPARATOR));
    lines.eq(expected.iter().cloned())
}

/// An engine as the runner sees it.
struct Database {
    engine: Engine,
}

#[async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = Type;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Type>, Failure> {
        let answer = match sql.split_once(' ') {
            Some(("report", call)) => report(&self.engine, call).await?,
            Some(("analytics", call)) => analytics(&self.engine, call).await?,
            _ => self.engine.sql(sql, &Params::new()).await?,
        };
        let types =
            answer.schema.fields().iter().map(|field| Type::of(field.data_type())).collect();
        let batches: Vec<_> = answer.batches.try_collect().await?;
        Ok(DBOutput::Rows { types, rows: batches.iter().flat_map(text::rows).collect() })
    }

    async fn shutdown(&mut self) {}
}

/// Runs `NAME PARAM=VALUE …`.
async fn report(engine: &Engine, call: &str) -> Result<Answer, Error> {
    let mut words = call.split_whitespace();
    let name = words.next().unwrap_or_default();
    let pairs = words.filter_map(|word| word.split_once('='));
    let params: Params = pairs.map(|(name, value)| (name.to_owned(), value.into())).collect();
    engine.report(name, &params).await
}

/// Runs `graphs/… PARAM=VALUE …`, `groups/…` or `summary/cache`.
async fn analytics(engine: &Engine, call: &str) -> Result<Answer, Error> {
    let mut words = call.split_whitespace();
    let path = words.next().unwrap_or_default();
    let pairs = words.filter_map(|word| word.split_once('='));
    let asked = AnalyticsRequest::parse(
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    )?;
    let query = match path.split_once('/') {
        Some(("graphs", graph)) => Query::graph(graph, asked)?,
        Some(("groups", group)) => Query::group(group, asked)?,
        _ => Query::cache_summary(asked),
    };
    engine.reader().analytics_rows(&query).await
}

/// An error with its kind and all its causes in one line, which is what the files match on.
#[derive(Debug)]
struct Failure(String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("{:?}: {}", error.kind(), error.chain().replace('\n', " ")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
