//! Imports the log store of a Portkey gateway: a folder or a bucket with one JSON file per log.
//!
//! Every `.json` and `.json.gz` file below a [`Place`] is read, compressed or not, and its type
//! follows from its content. So both path formats of Portkey are supported, below any prefix. Files
//! are fetched concurrently within a memory budget, and decompressed one after the other, since the
//! decompressed size is not known in advance. Files that cannot be read are listed at the end with
//! path and reason, and do not stop the import.
//!
//! The engine remembers the ids of a day, but a log store is older. So each batch first queries the
//! table for records that are stored already, and leaves them out: an interrupted import, or one of
//! a store that has grown since, can simply be run again. As in the engine, two records with one id
//! and times within a day of each other are the same record.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use arrow::array::AsArray;
use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::appender::{APPENDS_AT_ONCE, Appended, Appender, joined, sender};
use super::input::decoded;
use super::object_listing::{Found, Place};
use crate::cli::exit::Done;
use crate::cli::export::rate;
use crate::cli::output::{Sink, say};
use crate::cli::progress::{Progress, Unit, bytes, thousands};
use crate::cli::settings::Context;
use gatelog::engine::{Engine, Params};
use gatelog::error::{Error, Result};
use gatelog::ingest;
use gatelog::ingest::control_plane::{self, Logged};
use gatelog::ingest::pipeline::is_packed;
use gatelog::record::Record;
use gatelog::record::json::{Reason, Seen};
use gatelog::refusals::{Refused, Source};
use gatelog::time;

const NOT_KEPT: &str =
    "guardrail texts are not stored: they may quote a call that must not be tracked";

/// Number of files that are fetched concurrently.
const FETCHES: usize = 32;
/// Memory for files that are being fetched and parsed, in their stored form.
const FETCHED_KIB: u32 = 256 << 10;
/// Largest number of copies of a body in a file: as the client sent it, and as the provider
/// received it.
const COPIES: u64 = 3;
/// Records and bytes that are appended at once.
const BATCH: (usize, usize) = (1_000, 8 << 20);
/// Number of ids in one query.
const IDS: usize = 500;
/// Largest difference between two times of one id that belong to the same record.
const SAME: TimeDelta = TimeDelta::days(1);
/// Number of unread files that are printed; `--rejects` has all of them.
const LISTED: usize = 200;

/// One file of the store.
struct File {
    name: String,
    bytes: u64,
    holds: Holds,
}

enum Holds {
    Record(Box<Record>),
    /// Guardrail texts, and their owner.
    Guardrail(Seen),
    /// Unreadable content: the reason, and the entry for the list of refusals.
    Unread(String, Box<Refused>),
}

/// Results of the files so far.
struct Account {
    files: u64,
    bytes: u64,
    done: Appended,
    guardrails: u64,
    unread: u64,
    listed: Vec<String>,
    rejects: Option<Sink>,
    progress: Progress,
}

pub(super) async fn run(
    context: Context,
    places: &[PathBuf],
    rejects: Option<&Path>,
) -> Result<Done> {
    let mut stores = Vec::with_capacity(places.len());
    for place in places {
        stores.push(Place::open(place, context.config()).await?);
    }
    let rejects = rejects.map(|path| Sink::open(Some(path))).transpose()?;
    let instead = "stop that server during the import";
    let engine = context.open_writer(instead, false).await?;
    let progress = Progress::start("import", Unit::Steps, None, context.quiet);
    let done = Appended::default();
    let listed = Vec::new();
    let mut account =
        Account { files: 0, bytes: 0, done, guardrails: 0, unread: 0, listed, rejects, progress };
    let outcome = pump(&engine, &stores, &mut account).await;
    account.progress.finish();
    account.done.note_left_out(&engine, &sender(Source::PortkeyBucket));
    // Imported records are flushed and reported before an error is, however the import ended.
    let closed = engine.close().await;
    account.tell(context.quiet);
    account.rejects.take().map_or(Ok(()), Sink::finish)?;
    let done = outcome?;
    closed?;
    Ok(if done == Done::Success && account.unread > 0 { Done::Problems } else { done })
}

/// Moves the records of the stores into the engine until all are imported or Ctrl-C. However it
/// ends, every record that was read is appended, and every append is awaited and counted.
async fn pump(engine: &Engine, stores: &[Place], account: &mut Account) -> Result<Done> {
    let mut appends = JoinSet::new();
    let mut batch = Batch::default();
    let appender = Appender::new(engine).await?;
    let mut ended = fill(&appender, stores, account, &mut appends, &mut batch).await;
    appends.spawn(append(appender, batch.records));
    while let Some(receipt) = appends.join_next().await {
        match joined(receipt) {
            Ok(appended) => account.done.add(appended),
            Err(error) => ended = ended.and(Err(error)),
        }
    }
    ended
}

/// Reads the files and starts an append for each full batch.
async fn fill(
    appender: &Appender,
    stores: &[Place],
    account: &mut Account,
    appends: &mut JoinSet<Result<Appended>>,
    batch: &mut Batch,
) -> Result<Done> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut files = files(&appender.engine, stores);
    loop {
        let file = tokio::select! {
        _ = &mut interrupt => {
            account.progress.say("stopping: records in flight are still written");
            return Ok(Done::Interrupted);
        }
        file = files.next() => file};
        let Some(file) = file else { return Ok(Done::Success) };
        batch.extend(account.take(&appender.engine, file?)?);
        if batch.is_full() {
            while appends.len() >= APPENDS_AT_ONCE
                && let Some(receipt) = appends.join_next().await
            {
                account.done.add(joined(receipt)?);
            }
            appends.spawn(append(appender.clone(), std::mem::take(batch).records));
        }
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    bytes: usize,
}

impl Batch {
    fn extend(&mut self, record: Option<Record>) {
        self.bytes += record.as_ref().map_or(0, Record::text_bytes);
        self.records.extend(record);
    }

    fn is_full(&self) -> bool {
        let (records, bytes) = BATCH;
        self.records.len() >= records || self.bytes >= bytes
    }
}

/// Returns the files of the stores, read and parsed, in no particular order.
fn files<'a>(engine: &'a Engine, stores: &'a [Place]) -> BoxStream<'a, Result<File>> {
    let rooms = Arc::new([Semaphore::new(FETCHED_KIB as usize), Semaphore::new(1)]);
    let fetched = stream::iter(stores).flat_map(Place::files).map(move |found| {
        let rooms = Arc::clone(&rooms);
        async move {
            let found = found?;
            let name = found.name.clone();
            let bytes = found.bytes;
            let holds = fetch(engine, found, &rooms).await.unwrap_or_else(unread);
            Ok(File { name, bytes, holds })
        }
    });
    fetched.buffer_unordered(FETCHES).boxed()
}

/// Reads and parses a file, or returns the reason why that is impossible. `rooms` limit the memory
/// for files in their stored form, and for one decompressed file.
async fn fetch(
    engine: &Engine,
    found: Found,
    [fetched, unpacked]: &[Semaphore; 2],
) -> Result<Holds, String> {
    let at = found.at?;
    let limit = engine.config().max_record_bytes.saturating_mul(COPIES);
    if found.bytes > limit {
        return Err(format!("it has {} bytes; at most {limit} are allowed", found.bytes));
    }
    let ended = |_| "the import ended".to_owned();
    let kib = u32::try_from(found.bytes / 1_024 + 1).unwrap_or(FETCHED_KIB);
    let _fetched = fetched.acquire_many(kib.min(FETCHED_KIB)).await.map_err(ended)?;
    let raw = at.read(limit).await?;
    let _unpacked =
        if is_packed(&raw) { Some(unpacked.acquire().await.map_err(ended)?) } else { None };
    let policy = Arc::clone(engine.policy());
    let context = ingest::Context { policy, ..ingest::Context::new(engine.now()) };
    let parsing = tokio::task::spawn_blocking(move || parse(&raw, limit, &context));
    parsing.await.unwrap_or_else(|_| Err("an internal error ended its parsing".to_owned()))
}

fn parse(raw: &Bytes, limit: u64, context: &ingest::Context) -> Result<Holds, String> {
    let mut text = Cow::Borrowed(&raw[..]);
    if is_packed(raw) {
        let mut unpacked = Vec::new();
        let plain = decoded(Cursor::new(raw.clone()));
        let read = plain.and_then(|plain| plain.take(limit + 1).read_to_end(&mut unpacked));
        read.map_err(|cause| format!("it cannot be unpacked: {cause}"))?;
        text = Cow::Owned(unpacked);
    }
    if text.len() as u64 > limit {
        return Err(format!("it unpacks to more than {limit} bytes"));
    }
    match control_plane::file(&text, context) {
        Ok(Logged::Call(record)) => Ok(Holds::Record(record)),
        Ok(Logged::Guardrail(seen)) => Ok(Holds::Guardrail(seen)),
        Err(error) => {
            let seen = ingest::seen(str::from_utf8(&text).unwrap_or_default(), &error, context);
            let reason = error.to_string();
            Ok(Holds::Unread(reason, Box::new(Refused { seen, ..error.into() })))
        }
    }
}

/// Returns the result for a file that cannot be read at all.
fn unread(why: String) -> Holds {
    let refused = Refused::many(Reason::NotReadable, &*why, 1);
    Holds::Unread(why, Box::new(refused))
}

/// Appends the records that are not stored yet.
async fn append(appender: Appender, mut records: Vec<Record>) -> Result<Appended> {
    let all = records.len();
    let known = stored(&appender.engine, &records).await?;
    records.retain(|record| !known.contains(&key(record)));
    let duplicate = (all - records.len()) as u64;
    let mut appended = appender.append(records).await?;
    appended.receipt.duplicate += duplicate;
    Ok(appended)
}

fn key(record: &Record) -> (String, String) {
    let organisation = record.organisation_id.as_deref().unwrap_or(ingest::DEFAULT_ORGANISATION);
    (organisation.to_owned(), record.id.clone().unwrap_or_default())
}

/// Returns organisation and id of the records that are stored already.
async fn stored(engine: &Engine, records: &[Record]) -> Result<HashSet<(String, String)>> {
    let mut stored = HashSet::new();
    for some in records.chunks(IDS) {
        let times = || some.iter().filter_map(|record| record.created_at);
        let Some(first) = times().min() else { continue };
        let Some(last) = times().max() else { continue };
        let at = time::micros;
        let places: Vec<String> = (1..=some.len()).map(|number| format!("${number}")).collect();
        let query = format!(
            "select organisation_id, id from logs where created_at between '{}' and '{}' and id in ({})",
            at(first - SAME),
            at(last + SAME),
            places.join(", ")
        );
        let ids = some.iter().map(|record| Value::from(record.id.clone()));
        let params: Params = (1..).map(|number: usize| number.to_string()).zip(ids).collect();
        let mut batches = engine.sql(&query, &params).await?.batches;
        while let Some(batch) = batches.try_next().await? {
            let column = |at| {
                batch
                    .column(at)
                    .as_string_view_opt()
                    .ok_or_else(|| Error::internal("an id in the result is not text"))
            };
            let organisations = column(0)?;
            let ids = column(1)?;
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            stored.extend(
                organisations
                    .iter()
                    .zip(ids)
                    .map(|(organisation, id)| (text(organisation), text(id))),
            );
        }
    }
    Ok(stored)
}

impl Account {
    /// Counts a file and returns its record.
    fn take(&mut self, engine: &Engine, file: File) -> Result<Option<Record>> {
        self.files += 1;
        self.bytes += file.bytes;
        let files = self.files;
        let bytes = self.bytes;
        let seconds = self.progress.seconds();
        let done = self.done;
        self.progress.set(files, || {
            format!("files, {}, {} records", rate(bytes, seconds), thousands(done.known()))
        });
        match file.holds {
            Holds::Record(record) => return Ok(Some(*record)),
            Holds::Guardrail(seen) => {
                let refused = Refused { seen, ..Refused::many(Reason::NotKept, NOT_KEPT, 1) };
                engine.refusals().records(&sender(Source::PortkeyBucket), [refused]);
                self.guardrails += 1;
            }
            Holds::Unread(reason, refused) => {
                engine.refusals().records(&sender(Source::PortkeyBucket), [*refused]);
                self.unread += 1;
                if self.listed.len() < LISTED {
                    self.listed.push(format!("not read: {}: {reason}", file.name));
                }
                if let Some(rejects) = &mut self.rejects {
                    let watch = rejects.watch();
                    writeln!(rejects, "{}\t{reason}", file.name)
                        .map_err(|cause| watch.error(cause))?;
                }
            }
        }
        Ok(None)
    }

    /// Prints the results. Unread files are listed even with `--quiet`.
    fn tell(&self, quiet: bool) {
        self.listed.iter().for_each(|line| say!("{line}"));
        let more = self.unread - self.listed.len() as u64;
        if more > 0 {
            say!("not read: {} more; `--rejects FILE` lists all of them", thousands(more));
        }
        if quiet {
            return;
        }
        if self.guardrails > 0 {
            say!("{} files were not imported: {NOT_KEPT}", thousands(self.guardrails));
        }
        self.done.tell_left_out();
        let seconds = self.progress.seconds();
        say!(
            "{} records imported, {} duplicates, {} not read; {} files, {} in {seconds:.1} s, {}",
            thousands(self.done.receipt.accepted),
            thousands(self.done.receipt.duplicate),
            thousands(self.unread),
            thousands(self.files),
            bytes(self.bytes),
            rate(self.bytes, seconds),
        );
    }
}
