//! The log store of a Portkey gateway, a folder or a bucket with one JSON file a log, into the engine.
//!
//! Every `.json` below the place is read, packed or not, and its content says what it is: so both of Portkey's path formats
//! are understood, and any prefix before them. Files are fetched side by side within a budget of memory. What cannot be
//! read is told at the end with its path and the reason, and stops nothing.
//!
//! The engine knows the ids of a day; a log store is older. So each batch first asks the table which of its records are stored,
//! and leaves those out: an import that was stopped, and one of a store that went on growing, is simply run again.

use std::collections::HashSet;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use arrow::array::AsArray;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::input::decoded;
use super::{APPENDS_AT_ONCE, append_patiently, joined};
use crate::cli::exit::Done;
use crate::cli::export::rate;
use crate::cli::output::{Sink, say};
use crate::cli::progress::{Progress, Unit, bytes, thousands};
use crate::cli::settings::Context;
use crate::config::Config;
use crate::engine::{Engine, Params, Receipt};
use crate::error::{Error, Result};
use crate::ingest;
use crate::ingest::control_plane::{self, Logged};
use crate::record::Record;
use crate::store::Store;

/// Files that are fetched at once.
const FETCHES: usize = 32;
/// Memory for files that are being fetched and parsed.
const FETCHED_KIB: u32 = 256 << 10;
/// A file holds bodies up to so many times: as the client sent them, and as the provider saw them.
const COPIES: u64 = 3;
/// Records and bytes that are appended at once.
const BATCH: (usize, usize) = (1_000, 8 << 20);
/// Ids that one query asks for.
const IDS: usize = 500;
/// Files that were not read and are listed; `--rejects` has all of them.
const LISTED: usize = 200;

/// One file of the store.
struct File {
    path: String,
    bytes: u64,
    holds: Holds,
}

enum Holds {
    Record(Box<Record>),
    /// Texts that a guardrail found.
    Guardrail,
    /// Nothing that can be read, for that reason.
    Unread(String),
}

/// What became of the files so far.
struct Account {
    files: u64,
    bytes: u64,
    done: Receipt,
    guardrails: u64,
    unread: u64,
    listed: Vec<String>,
    rejects: Option<Sink>,
    progress: Progress,
}

pub(super) async fn run(context: Context, places: &[PathBuf], rejects: Option<&Path>) -> Result<Done> {
    let mut stores = Vec::with_capacity(places.len());
    for place in places {
        let data = place.display().to_string();
        let store = Store::open(&Config { data, ..context.config().clone() }, false)?;
        store.check().await?;
        stores.push(store);
    }
    let rejects = rejects.map(|path| Sink::open(Some(path))).transpose()?;
    let instead = "stop that server for the time of the import";
    let engine = context.open_writer(instead, false).await?;
    let progress = Progress::start("import", Unit::Steps, None, context.quiet);
    let (done, listed) = (Receipt::default(), Vec::new());
    let mut account = Account { files: 0, bytes: 0, done, guardrails: 0, unread: 0, listed, rejects, progress };
    let outcome = pump(&engine, &stores, &mut account).await;
    account.progress.finish();
    // What is in is in, however the import ended: it is flushed and told before an error is.
    let closed = engine.close().await;
    account.tell(context.quiet);
    account.rejects.take().map_or(Ok(()), Sink::finish)?;
    let done = outcome?;
    closed?;
    Ok(if done == Done::Fine && account.unread > 0 { Done::Problems } else { done })
}

/// Moves the records of the stores into the engine until all are there or Ctrl-C. However it ends, what was read is appended, and
/// every append is waited for and counted.
async fn pump(engine: &Engine, stores: &[Store], account: &mut Account) -> Result<Done> {
    let (mut appends, mut batch) = (JoinSet::new(), Batch::default());
    let mut ended = fill(engine, stores, account, &mut appends, &mut batch).await;
    appends.spawn(append(engine.clone(), batch.records));
    while let Some(receipt) = appends.join_next().await {
        match joined(receipt) {
            Ok(receipt) => account.add(receipt),
            Err(error) => ended = ended.and(Err(error)),
        }
    }
    ended
}

/// Reads the files and starts an append of each full batch.
async fn fill(
    engine: &Engine,
    stores: &[Store],
    account: &mut Account,
    appends: &mut JoinSet<Result<Receipt>>,
    batch: &mut Batch,
) -> Result<Done> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut files = files(engine, stores);
    loop {
        let file = tokio::select! {
            _ = &mut interrupt => {
                account.progress.say("stopping: what is on its way is still written");
                return Ok(Done::Interrupted);
            }
            file = files.next() => file,
        };
        let Some(file) = file else { return Ok(Done::Fine) };
        batch.extend(account.take(file?)?);
        if batch.is_full() {
            while appends.len() >= APPENDS_AT_ONCE
                && let Some(receipt) = appends.join_next().await
            {
                account.add(joined(receipt)?);
            }
            appends.spawn(append(engine.clone(), std::mem::take(batch).records));
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

/// The files of the stores, read and parsed, in no certain order.
fn files<'a>(engine: &'a Engine, stores: &'a [Store]) -> BoxStream<'a, Result<File>> {
    let room = Arc::new(Semaphore::new(FETCHED_KIB as usize));
    let listed = stream::iter(stores).flat_map(|store| {
        let listing = store.object_store().list(Some(store.prefix()));
        listing.map(move |found| {
            let failed = |cause| Error::storage(format!("cannot list `{}`", store.root())).with_source(cause);
            found.map(|object| (store, object)).map_err(failed)
        })
    });
    let logs = listed.try_filter(|(_, object)| {
        let name = object.location.filename().unwrap_or_default();
        std::future::ready(name.ends_with(".json") || name.ends_with(".json.gz"))
    });
    logs.map(move |found| {
        let room = Arc::clone(&room);
        async move {
            let (store, object) = found?;
            Ok(fetch(engine, store, object, &room).await)
        }
    })
    .buffer_unordered(FETCHES)
    .boxed()
}

async fn fetch(engine: &Engine, store: &Store, object: ObjectMeta, room: &Semaphore) -> File {
    let limit = engine.config().max_record_bytes.saturating_mul(COPIES);
    let path = object.location.to_string();
    let file = |holds| File { path, bytes: object.size, holds };
    if object.size > limit {
        return file(Holds::Unread(format!("it has {} bytes; at most {limit} are taken", object.size)));
    }
    // How much comes out of a packed file is not known before.
    let unpacked = if object.location.as_ref().ends_with(".gz") { limit } else { 0 };
    let kib = u32::try_from((object.size + unpacked) / 1_024 + 1).unwrap_or(FETCHED_KIB);
    let Ok(_permit) = room.acquire_many(kib.min(FETCHED_KIB)).await else {
        return file(Holds::Unread("the import ended".to_owned()));
    };
    let fetched = async { store.object_store().get(&object.location).await?.bytes().await };
    let raw = match fetched.await {
        Ok(raw) => raw,
        Err(cause) => return file(Holds::Unread(cause.to_string())),
    };
    let policy = Arc::clone(engine.policy());
    let context = ingest::Context { policy, ..ingest::Context::new(engine.now()) };
    let parsing = tokio::task::spawn_blocking(move || parse(raw, limit, &context));
    file(parsing.await.unwrap_or_else(|_| Holds::Unread("parsing it broke off".to_owned())))
}

fn parse(raw: Bytes, limit: u64, context: &ingest::Context) -> Holds {
    let mut text = Vec::new();
    match decoded(Cursor::new(raw)).and_then(|plain| plain.take(limit + 1).read_to_end(&mut text)) {
        Ok(read) if read as u64 > limit => return Holds::Unread(format!("it unpacks to more than {limit} bytes")),
        Ok(_) => {}
        Err(cause) => return Holds::Unread(format!("it cannot be unpacked: {cause}")),
    }
    match control_plane::file(&text, context) {
        Ok(Logged::Call(record)) => Holds::Record(record),
        Ok(Logged::Guardrail) => Holds::Guardrail,
        Err(refused) => Holds::Unread(refused.to_string()),
    }
}

/// Appends those of the records that are not stored yet.
async fn append(engine: Engine, mut records: Vec<Record>) -> Result<Receipt> {
    let all = records.len();
    let known = stored(&engine, &records).await?;
    records.retain(|record| !known.contains(&key(record)));
    let duplicate = (all - records.len()) as u64;
    let receipt = append_patiently(&engine, records).await?;
    Ok(Receipt { duplicate: receipt.duplicate + duplicate, ..receipt })
}

fn key(record: &Record) -> (String, String) {
    let organisation = record.organisation_id.as_deref().unwrap_or(ingest::DEFAULT_ORGANISATION);
    (organisation.to_owned(), record.id.clone().unwrap_or_default())
}

/// Organisation and id of those of the records that are stored.
async fn stored(engine: &Engine, records: &[Record]) -> Result<HashSet<(String, String)>> {
    let mut stored = HashSet::new();
    for some in records.chunks(IDS) {
        let times = || some.iter().filter_map(|record| record.created_at);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { continue };
        let at = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let places: Vec<String> = (1..=some.len()).map(|number| format!("${number}")).collect();
        let query = format!(
            "select organisation_id, id from logs where created_at between '{}' and '{}' and id in ({})",
            at(first),
            at(last),
            places.join(", ")
        );
        let ids = some.iter().map(|record| Value::from(record.id.clone()));
        let params: Params = (1..).map(|number: usize| number.to_string()).zip(ids).collect();
        let mut batches = engine.sql(&query, &params).await?.batches;
        while let Some(batch) = batches.try_next().await? {
            let column =
                |at| batch.column(at).as_string_view_opt().ok_or_else(|| Error::internal("an id came back as no text"));
            let (organisations, ids) = (column(0)?, column(1)?);
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            stored.extend(organisations.iter().zip(ids).map(|(organisation, id)| (text(organisation), text(id))));
        }
    }
    Ok(stored)
}

impl Account {
    /// Counts a file, and gives the record in it.
    fn take(&mut self, file: File) -> Result<Option<Record>> {
        self.files += 1;
        self.bytes += file.bytes;
        let (files, bytes, seconds, done) = (self.files, self.bytes, self.progress.seconds(), self.done);
        self.progress.set(files, || {
            format!("files, {}, {} records", rate(bytes, seconds), thousands(done.accepted + done.duplicate))
        });
        match file.holds {
            Holds::Record(record) => return Ok(Some(*record)),
            Holds::Guardrail => self.guardrails += 1,
            Holds::Unread(reason) => {
                self.unread += 1;
                if self.listed.len() < LISTED {
                    self.listed.push(format!("not read: {}: {reason}", file.path));
                }
                if let Some(rejects) = &mut self.rejects {
                    let watch = rejects.watch();
                    writeln!(rejects, "{}\t{reason}", file.path).map_err(|cause| watch.error(cause))?;
                }
            }
        }
        Ok(None)
    }

    fn add(&mut self, receipt: Receipt) {
        self.done.accepted += receipt.accepted;
        self.done.duplicate += receipt.duplicate;
        self.done.over_quota += receipt.over_quota;
    }

    /// What was not read is told in any case.
    fn tell(&self, quiet: bool) {
        self.listed.iter().for_each(|line| say!("{line}"));
        let more = self.unread - self.listed.len() as u64;
        if more > 0 {
            say!("not read: {} more; --rejects FILE writes down all of them", thousands(more));
        }
        if quiet {
            return;
        }
        if self.guardrails > 0 {
            say!(
                "{} files with texts that guardrails found are not kept: those may quote calls that must not be tracked",
                thousands(self.guardrails)
            );
        }
        if self.done.over_quota > 0 {
            say!(
                "{} records were not stored: their organisation's plan stores no more",
                thousands(self.done.over_quota)
            );
        }
        let seconds = self.progress.seconds();
        say!(
            "{} records imported, {} duplicates, {} not read; {} files, {} in {seconds:.1} s, {}",
            thousands(self.done.accepted),
            thousands(self.done.duplicate),
            thousands(self.unread),
            thousands(self.files),
            bytes(self.bytes),
            rate(self.bytes, seconds),
        );
    }
}
