//! The three engines that hold the fixture, each in its own way.

use chrono::{DateTime, Utc};
use gatelog::config::{Config, Plans, Schedule};
use gatelog::engine::{Access, Dependencies, Engine, Job, Organisation};
use gatelog::record::{Feedback, Record, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Where the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All in the memtable.
    Memory,
    /// All in files.
    Flushed,
    /// Half in files that a compaction joined, half in the memtable.
    Mixed,
}

pub(crate) const MODES: [Mode; 3] = [Mode::Memory, Mode::Flushed, Mode::Mixed];

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Flushed => "flushed",
            Self::Mixed => "mixed",
        }
    }
}

/// An engine in a folder of its own, opened when it is first asked for.
pub(crate) struct Bed {
    pub(crate) mode: Mode,
    opened: OnceCell<(Engine, TempDir)>,
}

impl Bed {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, opened: OnceCell::new() }
    }

    pub(crate) async fn engine(&self) -> Result<Engine, String> {
        let (engine, _) = self.opened.get_or_try_init(|| open(self.mode)).await?;
        Ok(engine.clone())
    }

    pub(crate) async fn close(&self) {
        if let Some((engine, _)) = self.opened.get() {
            engine.close().await.expect("a clean close");
        }
    }
}

async fn open(mode: Mode) -> Result<(Engine, TempDir), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let config = Config {
        data: folder.path().to_string_lossy().into_owned(),
        // Nothing moves by itself: each mode is what it says for as long as the tests run.
        flush_seconds: 86_400,
        expire_schedule: Schedule::never(),
        compact_schedule: Schedule::never(),
        vacuum_schedule: Schedule::never(),
        plans: Plans::parse(PLANS).map_err(|error| error.chain())?,
        ..Config::default()
    };
    let engine = Engine::open_with(config, Dependencies { now, ..Dependencies::default() })
        .await
        .map_err(|error| error.chain())?;
    agree(&engine).await?;
    fill(&engine, mode).await?;
    Ok((engine, folder))
}

/// A plan with figures as small as the fixture.
const PLANS: &str = "[team]\nretention_days = 30\nincluded = 5\nover = 'bill'\nblock_records = 4\nblock_cents = 250\n";

/// The engine's clock: the day after the newest record.
fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2025-11-03T12:00:00Z").expect("a time").to_utc()
}

/// The organisations of the fixture, and one that sent nothing.
async fn agree(engine: &Engine) -> Result<(), String> {
    for (id, plan, retention_days) in
        [("acme", "team", None), ("globex", "enterprise", Some(90)), ("idle", "developer", None)]
    {
        let new = Organisation {
            name: Some(id.to_uppercase()),
            retention_days,
            ..Organisation::new(plan, now())
        };
        let created = engine
            .catalog()
            .change(|document| document.create_organisation(id, new.clone(), 0).map(|_| ()));
        created.await.map_err(|error| error.chain())?;
    }
    engine.catalog_changed();
    Ok(())
}

async fn fill(engine: &Engine, mode: Mode) -> Result<(), String> {
    let records = fixture();
    let all = records.len() as u64;
    let said = said();
    match mode {
        Mode::Memory => {
            append(engine, records).await?;
            say(engine, said).await?;
        }
        Mode::Flushed => {
            append(engine, records).await?;
            say(engine, said).await?;
            flush(engine).await?;
        }
        Mode::Mixed => {
            // Dealt out like cards, so that every day has rows in both files that are joined, and
            // in memory.
            let ([first, second, rest], [said_first, said_second, said_rest]) =
                (dealt(records), dealt(said));
            append(engine, first).await?;
            say(engine, said_first).await?;
            flush(engine).await?;
            append(engine, second).await?;
            say(engine, said_second).await?;
            flush(engine).await?;
            let outcome =
                engine.maintain(Job::Compact, false).await.map_err(|error| error.chain())?;
            expect("files compacted away", outcome.files_before > outcome.files_after)?;
            append(engine, rest).await?;
            say(engine, said_rest).await?;
        }
    }
    let status = engine.status();
    let in_memory = match mode {
        Mode::Memory => all,
        Mode::Flushed => 0,
        Mode::Mixed => all / 2,
    };
    expect("rows in memory as the mode says", status.memory_rows == in_memory)?;
    expect("the other rows in files", status.file_rows == all - in_memory)
}

/// Two hands for files and one for memory.
fn dealt<T>(rows: Vec<T>) -> [Vec<T>; 3] {
    let mut hands = [const { Vec::new() }; 3];
    for (place, row) in rows.into_iter().enumerate() {
        hands[[0, 2, 1, 2][place % 4]].push(row);
    }
    hands
}

/// The feedback of the fixture: states of it, as they came.
fn said() -> Vec<Feedback> {
    let read = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("feedback of the fixture");
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let time = |name: &str| Some(row[name].as_str()?.parse::<DateTime<Utc>>().expect("a time"));
        let metadata = row["metadata"].as_object().expect("metadata").iter();
        let metadata: Vec<(String, String)> = metadata
            .map(|(key, value)| (key.clone(), value.as_str().expect("a text").to_owned()))
            .collect();
        Feedback {
            id: text("id"),
            organisation_id: text("organisation_id"),
            created_at: time("created_at"),
            updated_at: time("updated_at"),
            trace_id: text("trace_id"),
            log_id: text("log_id"),
            value: row["value"].as_f64(),
            weight: row["weight"].as_f64(),
            user_id: metadata.iter().find(|(key, _)| key == "_user").map(|(_, user)| user.clone()),
            metadata,
            ..Feedback::default()
        }
    };
    include_str!("fixture_feedback.jsonl").lines().map(read).collect()
}

async fn say(engine: &Engine, said: Vec<Feedback>) -> Result<(), String> {
    let sent = said.len();
    let ids = engine
        .append_feedback_as(&Access::operator("test"), said)
        .await
        .map_err(|error| error.chain())?;
    expect("all feedback taken", ids.len() == sent)
}

fn fixture() -> Vec<Record> {
    include_str!("fixture.jsonl")
        .lines()
        .map(|line| json::parse(line).expect("a record of the fixture"))
        .collect()
}

async fn append(engine: &Engine, records: Vec<Record>) -> Result<(), String> {
    let sent = records.len() as u64;
    let receipt = engine.append(records).await.map_err(|refused| refused.error.chain())?;
    expect("every record accepted", receipt.accepted == sent)
}

async fn flush(engine: &Engine) -> Result<(), String> {
    engine.flush().await.map_err(|error| error.chain())
}

fn expect(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("the bed is wrong: expected {what}")) }
}
