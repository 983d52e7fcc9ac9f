//! Ingests the records of a body: reads, splits, parses and appends them, and returns a receipt.
//!
//! Three steps run in parallel: one thread reads and splits the body ([`feed`]), up to two threads
//! parse chunks and build their batches, and one chunk at a time is appended, in order. A body that
//! is not small is split and parsed in the places of its organisation ([`crate::heavy_work`]).
//! Records that a [`Receipt`] counts as accepted are durable, even if the body failed later.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::http::{HeaderMap, StatusCode};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::catalog::Access;
use crate::engine::{self, BuiltAppend};
use crate::error::{Error, Result};
use crate::heavy_work::Place;
use crate::http::body::{discard, next_frame};
use crate::http::error::Failure;
use crate::http::ingest::chunk_reader::{BudgetedChunk, ChunkLimits, feed, feed_plain};
use crate::http::input::text_header;
use crate::http::state::App;
use crate::http::state::retry_detection::{Connection, Ids};
use crate::ingest::pipeline::{may_be_packed, parse_in_order};
use crate::ingest::{self, Chunk, Context, Headers, Owner, Rejection, SourceFormat};
use crate::limits::{self, Holder, MemoryReservation, Pool, Share, day_of};
use crate::parts::RecordPart;
use crate::plan::{Rules, Terms};
use crate::record::Record;
use crate::record::json::{Reason, Seen};
use crate::refusals::{Refused, Sender};

/// Text bytes of a chunk: enough work for parsing on another thread and for one fsync.
const CHUNK_BYTES: usize = 2 << 20;
/// Maximum size of a chunk as a fraction of the memory for acknowledged rows, so that memory for
/// the next chunk becomes free while others are flushed.
const CHUNKS_IN_MEMTABLE: u64 = 8;
/// Maximum size of a chunk as a fraction of the memory for bodies: each stream reads a chunk before
/// it takes room for it.
const CHUNKS_IN_BODIES: u64 = 32;
const MIN_CHUNK_BYTES: u64 = 64 << 10;
/// Number of the id that is the trace id of all records without one.
const TRACE: u64 = 0;
/// Bits of an id number for the ids within one record of a body.
const RECORD_BITS: u32 = 24;
/// Number of rejections that a receipt describes.
const DESCRIBED: usize = 100;

/// Outcome of the records of a body.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Receipt {
    pub(crate) accepted: u64,
    pub(crate) duplicate: u64,
    /// Records that were not stored because of the monthly quota of their organisation's plan.
    pub(crate) over_quota: u64,
    /// Accepted records that are older than the retention of their organisation's plan.
    pub(crate) past_retention: u64,
    /// Explanation and remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// Rejected records. Only [`Receipt::refuse`] changes it, and adds them to the list of
    /// refusals.
    rejected: u64,
    rejections: Vec<Rejection>,
}

/// A receipt, with the failure that ended the body early.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) receipt: Receipt,
    pub(crate) failure: Option<Failure>,
}

/// Source of the records.
pub(crate) enum Source {
    /// A body that is still arriving, compressed or not.
    Stream(BodyDataStream),
    /// A complete, uncompressed body. The caller holds a memory reservation for it.
    Bytes(Vec<u8>),
}

impl Source {
    /// Returns the largest number of bytes that the body may have, compressed or not.
    fn max_bytes(&self) -> usize {
        match self {
            Self::Stream(frames) => {
                let bytes = HttpBody::size_hint(frames).upper().unwrap_or(u64::MAX);
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Reads and appends the records of a request.
pub(crate) struct Intake {
    app: Arc<App>,
    shape: SourceFormat,
    context: Context,
    sender: Sender,
    /// Access of the caller.
    access: Access,
    /// The party whose work and memory the body is.
    holder: Holder,
    /// Ids for records without one. `None` means new ids.
    ids: Option<Ids>,
}

struct Parsed {
    portions: Vec<Portion>,
    rejections: Vec<Rejection>,
    _room: MemoryReservation,
    /// Room for the rows, taken before they were parsed.
    row_room: MemoryReservation,
}

/// Records that are appended at once.
struct Portion {
    /// The rows, or the reason why they cannot be appended.
    built: Result<BuiltAppend>,
    /// Organisations that the message about records that a plan does not keep names.
    named: Named,
}

/// The one organisation of the records with a monthly quota, and that of those with a retention.
struct Named {
    limited: Option<String>,
    expiring: Option<String>,
}

impl Named {
    fn new(records: &[Record], rules: &Rules) -> Self {
        Self {
            limited: the_one(records, |organisation| rules.terms(organisation).stops_at.is_some()),
            expiring: the_one(records, |organisation| rules.retention_days(organisation) != 0),
        }
    }
}

impl Intake {
    pub(crate) fn new(
        app: &Arc<App>,
        access: Access,
        shape: SourceFormat,
        headers: &HeaderMap,
        sender: &Sender,
    ) -> Self {
        let text = |name: &str| text_header(headers, name);
        // All records of a request without a trace share one, as in Portkey. Native records may
        // have none.
        let trace = (shape == SourceFormat::Portkey).then(|| app.engine.new_id());
        let owner = Owner {
            organisation: access.organisation.clone(),
            workspace: access.workspace.clone(),
        };
        let policy = Arc::clone(app.engine.policy());
        let context = Context {
            now: app.engine.now(),
            trace,
            headers: Headers::read(text).cut(),
            owner,
            policy,
        };
        let holder = access.holder();
        let sender = sender.with(shape);
        Self { app: Arc::clone(app), shape, context, sender, access, holder, ids: None }
    }

    /// Parses the records of a small body without appending them. Also returns the reason for the
    /// first refusal, if any.
    pub(crate) fn read(&self, text: &[u8]) -> (Vec<Record>, Option<String>) {
        let engine = &self.app.engine;
        let (records, rejections) =
            ingest::lines(self.shape, text, &self.context, &mut || engine.new_id());
        let first = rejections.first().map(ToString::to_string);
        engine.refusals().records(&self.sender, rejections);
        (records, first)
    }

    /// Recognises a repeated body and reuses the ids of the first attempt.
    pub(crate) fn recognise(mut self, body: &[u8], connection: Option<&Connection>) -> Self {
        let engine = &self.app.engine;
        let context = &mut self.context;
        let fresh = engine.new_id();
        let key = (context.owner.organisation.as_deref(), &*self.access.key_id);
        self.ids =
            self.app.resends.ids(key, &context.headers, body, connection, context.now, &fresh);
        if let Some(ids) = self.ids {
            context.trace = Some(ids.id(TRACE));
        }
        self
    }

    /// Returns the maximum memory that the parsed records of a body need.
    pub(crate) fn made_bytes(&self, text: &[u8]) -> usize {
        ingest::made_bytes(text, &self.context.headers)
    }

    /// Parses a small body, whose records need at most `made_bytes`, and appends it as a whole or
    /// not at all.
    pub(crate) async fn take_small(self, text: Vec<u8>, made_bytes: usize) -> Outcome {
        let mut receipt = Receipt::default();
        let failure = self.append_small(text, made_bytes, &mut receipt).await.err();
        Outcome { receipt, failure }
    }

    async fn append_small(
        self,
        text: Vec<u8>,
        made_bytes: usize,
        receipt: &mut Receipt,
    ) -> Result<(), Failure> {
        let app = Arc::clone(&self.app);
        let holder = self.holder.clone();
        let parse = move || {
            let read = ingest::lines(self.shape, &text, &self.context, &mut self.new_ids(0));
            (read, self)
        };
        let ((records, rejections), intake) = run_by_size(&app, &holder, made_bytes, parse).await?;
        receipt.refuse(&intake.app, &intake.sender, rejections);
        receipt.append(&intake.app, &intake.access, &intake.sender, records).await
    }

    /// Ingests all records of a source, one chunk at a time.
    pub(crate) async fn take(self, source: Source) -> Outcome {
        let mut receipt = Receipt::default();
        let failure = self.run(source, &mut receipt).await.err();
        Outcome { receipt, failure }
    }

    async fn run(self, source: Source, receipt: &mut Receipt) -> Result<(), Failure> {
        let app = Arc::clone(&self.app);
        let holder = self.holder.clone();
        let _stream = match app.places.streams.take(&holder) {
            Ok(place) => place,
            Err(error) => {
                if let Source::Stream(mut frames) = source {
                    discard(&mut frames).await;
                }
                return Err(error.into());
            }
        };
        let config = app.engine.config();
        let (pool, charged) = match source {
            Source::Stream(_) => (app.bodies.clone(), holder.clone()),
            // The caller holds memory for the whole body. Waiting for more could deadlock with that
            // reservation.
            Source::Bytes(_) => (Pool::new(u64::MAX, Share::Half), Holder::Operator),
        };
        let record_bytes = usize::try_from(config.max_record_bytes).unwrap_or(usize::MAX);
        let part = config.memtable_bytes / CHUNKS_IN_MEMTABLE;
        let part = part.min(config.body_memory_bytes / CHUNKS_IN_BODIES).max(MIN_CHUNK_BYTES);
        let part = usize::try_from(part).unwrap_or(CHUNK_BYTES);
        let wait = Duration::from_millis(config.append_wait_ms);
        let header_bytes = self.context.headers.bytes();
        let cut = ChunkLimits {
            pool,
            holder: charged,
            wait,
            record_bytes,
            chunk_bytes: CHUNK_BYTES.min(part),
            header_bytes,
        };
        let (portions, coming) = mpsc::channel(1);
        let bytes = source.max_bytes();
        let feeding = match source {
            Source::Stream(mut frames) => {
                let first = next_frame(&mut frames).await?.unwrap_or_default();
                // The size of a packed body does not limit the work.
                let bytes = if may_be_packed(&first) { usize::MAX } else { bytes };
                let feed = move |place: &Place| feed(first, frames, &cut, &portions, place);
                start_by_size(&app, &holder, bytes, feed)?
            }
            Source::Bytes(body) => {
                start_by_size(&app, &holder, bytes, move |place| match counted(&body) {
                    records if records > ingest::MAX_RECORDS as u64 => Err(too_many(records)),
                    _ => feed_plain(Cursor::new(body), &cut, &portions, place),
                })?
            }
        };
        let appended = self.append_all(coming, receipt).await;
        let fed = feeding
            .await
            .map_err(|cause| Error::internal("the reading task failed").with_source(cause))?;
        appended.and(fed)
    }

    async fn append_all(
        self,
        coming: mpsc::Receiver<BudgetedChunk>,
        receipt: &mut Receipt,
    ) -> Result<(), Failure> {
        let intake = Arc::new(self);
        let parse = |portion: BudgetedChunk| {
            let intake = Arc::clone(&intake);
            async move {
                // The memory of a chunk shows the work: a thousand records may have little text.
                let made_bytes = usize::try_from(portion.1.units()).unwrap_or(usize::MAX);
                let app = Arc::clone(&intake.app);
                let holder = intake.holder.clone();
                let (chunk, room) = portion;
                let records = chunk.records.len();
                let row_room = app.engine.room_before(&holder, chunk.text.len(), records).await?;
                let parse = move || intake.parse(chunk, room, row_room);
                run_by_size(&app, &holder, made_bytes, parse).await
            }
        };
        let mut parsed = parse_in_order(coming, parse);
        while let Some(parsed) = parsed.next().await {
            let mut parsed = parsed?;
            receipt.refuse(&intake.app, &intake.sender, parsed.rejections);
            for Portion { built, named } in parsed.portions {
                let engine = &intake.app.engine;
                let room = &mut parsed.row_room;
                let appended = engine.append_built_as(&intake.access, built?, room).await?;
                receipt.add(&intake.app, &intake.sender, appended, named);
            }
        }
        Ok(())
    }

    /// Returns a generator of ids for the records from number `first` on.
    fn new_ids(&self, first: u64) -> impl FnMut() -> String {
        // An object of numbered records counts as one record of the body.
        let mut next = first << RECORD_BITS;
        move || {
            let Some(ids) = self.ids else { return self.app.engine.new_id() };
            next += 1;
            ids.id(next)
        }
    }

    fn parse(&self, chunk: Chunk, room: MemoryReservation, row_room: MemoryReservation) -> Parsed {
        let mut records = Vec::with_capacity(chunk.records.len());
        let mut new_id = self.new_ids(chunk.records.first().map_or(0, |(number, _)| *number));
        let rejections =
            ingest::read(self.shape, &chunk, &self.context, &mut new_id, &mut |record| {
                records.push(record)
            });
        // The records have texts of their own.
        drop(chunk);
        let engine = &self.app.engine;
        let rules = engine.catalog().rules();
        let portions = limits::cut(records, |record| record.created_at.map(day_of));
        let portions = portions.into_iter().filter(|records| !records.is_empty()).map(|records| {
            let named = Named::new(&records, &rules);
            Portion { built: engine.build_as(&self.access, records), named }
        });
        Parsed { portions: portions.collect(), rejections, _room: room, row_room }
    }
}

/// Size up to which work runs in place, because a switch to another thread takes longer.
const HERE_BYTES: usize = 64 << 10;

/// Starts work that blocks: in the places of its holder if it concerns many bytes, so that small
/// writes of others are acknowledged soon.
pub(crate) fn start_by_size<T: Send + 'static>(
    app: &App,
    holder: &Holder,
    bytes: usize,
    work: impl FnOnce(&Place) -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    if bytes <= HERE_BYTES {
        return Ok(tokio::task::spawn_blocking(move || work(&Place::none())));
    }
    app.engine.heavy().spawn(holder, work)
}

/// Runs work that never waits: at once if it concerns few bytes, else in a place of its holder.
pub(crate) async fn run_by_size<T: Send + 'static>(
    app: &App,
    holder: &Holder,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if bytes <= HERE_BYTES {
        return Ok(work());
    }
    app.engine.heavy().run(holder, work).await
}

/// Counts the records in a body that is read as a whole.
fn counted(bytes: &[u8]) -> u64 {
    let mut splitter = ingest::Splitter::new();
    let chunks =
        bytes.chunks(CHUNK_BYTES).map(|fragment| splitter.push(fragment).records.len() as u64);
    let records: u64 = chunks.sum();
    records + splitter.finish().records.len() as u64
}

/// Returns the failure of a body with too many records: 413.
fn too_many(records: u64) -> Failure {
    let most = ingest::MAX_RECORDS;
    let message = format!(
        "the body has {records} records; at most {most} are taken at once; `/v1/ingest` takes any number"
    );
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

impl Receipt {
    /// Creates an empty receipt with a message.
    pub(crate) fn saying(message: &str) -> Self {
        Self { message: Some(message.to_owned()), ..Self::default() }
    }

    /// Returns the number of rejected records.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    pub(crate) async fn append(
        &mut self,
        app: &App,
        access: &Access,
        sender: &Sender,
        records: Vec<Record>,
    ) -> Result<(), Failure> {
        for part in limits::cut(records, |record| record.created_at.map(day_of)) {
            self.append_part(app, access, sender, part).await?;
        }
        Ok(())
    }

    async fn append_part(
        &mut self,
        app: &App,
        access: &Access,
        sender: &Sender,
        records: Vec<Record>,
    ) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let named = Named::new(&records, &app.engine.catalog().rules());
        let appended =
            app.engine.append_parsed_as(access, records).await.map_err(|refused| refused.error)?;
        self.add(app, sender, appended, named);
        Ok(())
    }

    /// Counts appended records, and describes those that a plan does not keep.
    fn add(&mut self, app: &App, sender: &Sender, appended: engine::Receipt, named: Named) {
        let Named { limited, expiring } = named;
        self.accepted += appended.accepted;
        self.duplicate += appended.duplicate;
        self.over_quota += appended.over_quota;
        self.past_retention += appended.past_retention;
        if appended.over_quota + appended.past_retention == 0 {
            return;
        }
        let rules = app.engine.catalog().rules();
        if appended.over_quota > 0 {
            let text = over_quota(limited.as_deref(), &rules);
            self.tell(
                app,
                sender,
                limited,
                Refused::many(Reason::OverQuota, text, appended.over_quota),
            );
        }
        if appended.past_retention > 0 {
            let text = past_retention(expiring.as_deref(), &rules);
            self.tell(
                app,
                sender,
                expiring,
                Refused::many(Reason::PastRetention, text, appended.past_retention),
            );
        }
    }

    /// Adds records that a plan does not keep to the list of refusals and to the message.
    fn tell(&mut self, app: &App, sender: &Sender, organisation: Option<String>, refused: Refused) {
        let text = &refused.message;
        match &mut self.message {
            None => self.message = Some(text.clone()),
            Some(message) if message.contains(text.as_str()) => {}
            Some(message) => message.push_str(&format!("; {text}")),
        }
        let seen = Seen { organisation, ..Seen::default() };
        app.engine.refusals().request(sender, Refused { seen, ..refused });
    }

    /// Appends parts of records.
    pub(crate) async fn append_parts(
        &mut self,
        app: &App,
        access: &Access,
        record_parts: Vec<(RecordPart, Record)>,
    ) -> Result<(), Failure> {
        let taken = app
            .engine
            .append_parts_as(access, record_parts)
            .await
            .map_err(|refused| refused.error)?;
        self.accepted += taken.accepted;
        self.duplicate += taken.duplicate;
        Ok(())
    }

    /// Counts rejected records, describes the first ones, and adds all to the list of refusals.
    pub(crate) fn refuse(&mut self, app: &App, sender: &Sender, rejections: Vec<Rejection>) {
        if rejections.is_empty() {
            return;
        }
        self.rejected += rejections.len() as u64;
        let described = DESCRIBED.saturating_sub(self.rejections.len());
        self.rejections.extend(rejections.iter().take(described).cloned());
        app.engine.refusals().records(sender, rejections);
    }

    /// Counts records that were refused for the same reason, and adds them to the list of refusals.
    pub(crate) fn refuse_many(&mut self, app: &App, sender: &Sender, refused: Refused) {
        self.rejected += refused.count;
        app.engine.refusals().records(sender, [refused]);
    }
}

/// Returns the organisation of the matching records if they all have the same one.
fn the_one(records: &[Record], holds: impl Fn(&str) -> bool) -> Option<String> {
    let mut found: Option<&str> = None;
    let mut last = None;
    for organisation in records.iter().filter_map(|record| record.organisation_id.as_deref()) {
        // Records of one organisation are adjacent.
        if last.replace(organisation) == Some(organisation) || !holds(organisation) {
            continue;
        }
        if found.replace(organisation).is_some_and(|other| other != organisation) {
            return None;
        }
    }
    found.map(str::to_owned)
}

/// Returns the message for records that were not stored because of a quota.
fn over_quota(organisation: Option<&str>, rules: &Rules) -> String {
    let terms = organisation.map(|organisation| (organisation, rules.terms(organisation)));
    let Some((organisation, Terms { plan: Some(plan), stops_at: Some(limit), .. })) = terms else {
        return "records were not stored because their organisations used up the quotas of their plans this month, or were deleted; \
                report `quota` lists them: wait for the next month, or ask the operator for other plans"
            .to_owned();
    };
    format!(
        "organisation `{organisation}` is on plan `{plan}`, which stores {limit} records a calendar month (UTC); further \
         records are counted, but not stored: wait for the next month, or ask the operator for another plan"
    )
}

/// Returns the message for records that are older than the retention of their organisation's plan.
fn past_retention(organisation: Option<&str>, rules: &Rules) -> String {
    let Some(organisation) = organisation else {
        return "records are older than the retention of their organisations' plans: no response contains them, and maintenance \
                deletes them; report `retention` lists the retention of each: send records sooner, or ask the operator for other plans"
            .to_owned();
    };
    let Terms { plan, retention_days, .. } = rules.terms(organisation);
    let kept_by = match plan {
        Some(plan) => format!("is on plan `{plan}`, which keeps records {retention_days} days"),
        None => format!("has no plan, and its records are kept {retention_days} days"),
    };
    format!(
        "organisation `{organisation}` {kept_by}; no response contains older ones, and maintenance deletes them: send records sooner, \
         or ask the operator for another plan"
    )
}

impl Outcome {
    /// Returns the receipt, or the failure with the fields of the receipt.
    pub(crate) fn result(self) -> Result<Receipt, Failure> {
        let Self { receipt, failure } = self;
        let kept = receipt.accepted + receipt.duplicate;
        match failure {
            None if kept + receipt.over_quota == 0 && receipt.rejected > 0 => {
                let first = receipt.rejections.first().map(ToString::to_string).unwrap_or_default();
                Err(Failure::invalid(format!("every record was refused; {first}"))
                    .with_fields(receipt)
                    .noted())
            }
            None => Ok(receipt),
            Some(failure) => {
                let words = format!(
                    "; {kept} records of this request were stored before that: send the whole request again, records with an `id` \
                     are not stored twice"
                );
                Err(if kept > 0 { failure.and(&words) } else { failure }.with_fields(receipt))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn the_message_of_a_quota_names_the_plan_the_limit_and_the_remedy() {
        let terms = Terms {
            plan: Some("developer".to_owned()),
            stops_at: Some(10_000),
            ..Terms::without_plan(3)
        };
        let terms = HashMap::from([("dev".to_owned(), terms.clone()), ("trial".to_owned(), terms)]);
        let rules =
            Rules::new(Terms::without_plan(0), terms, HashSet::new(), Vec::new(), Vec::new());
        let record = |organisation: &str| Record {
            organisation_id: Some(organisation.to_owned()),
            ..Record::default()
        };
        let records = [record("free"), record("free"), record("dev"), record("dev")];
        let text = over_quota(
            the_one(&records, |of| rules.terms(of).stops_at.is_some()).as_deref(),
            &rules,
        );
        for words in ["organisation `dev`", "plan `developer`", "10000 records", "another plan"] {
            assert!(text.contains(words), "{text}");
        }
        let limited =
            |records: &[Record]| the_one(records, |of| rules.terms(of).stops_at.is_some());
        assert_eq!(limited(&records[..2]), None);
        let both = [record("dev"), record("trial"), record("dev")];
        assert!(over_quota(limited(&both).as_deref(), &rules).contains("report `quota`"));
    }
}
