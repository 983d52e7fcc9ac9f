//! Appends complete records: fills in what the engine decides, reserves memory, and sends them to
//! the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::oneshot;

use super::handle::{Engine, Inner};
use super::prepared::{Prepared, days_of, holder_of};
use super::status::{AppendError, Receipt};
use super::writer::{Append, Command};
use crate::catalog::Access;
use crate::error::{Error, Result};
use crate::ingest::{self, DEFAULT_ORGANISATION, Owner};
use crate::limits::{self, Holder, MemoryReservation, day_of};
use crate::plan::{MAX_AHEAD_MICROS, Rules};
use crate::record::json::{check_json, embeddable};
use crate::record::{BatchBuilder, Defaults, ROW_OVERHEAD, Record, Rows, normalize};

/// Batches below this size are built on the caller's thread, larger ones on threads with a lower
/// priority.
const SMALL_BYTES: usize = 64 << 10;

impl Engine {
    /// Makes the records durable and visible. Waits for free memory up to `append_wait_ms`.
    ///
    /// Missing values of `id`, `organisation_id` and `created_at` are filled in. A record whose id
    /// its organisation sent within `dedupe_hours` is acknowledged and dropped. A body that is not
    /// JSON becomes a JSON string. Content that must not be stored is removed, and a missing cost
    /// is computed ([`ingest::Policy`]).
    pub async fn append(&self, mut records: Vec<Record>) -> Result<Receipt, AppendError> {
        for record in &mut records {
            self.inner.policy.price_by_response(record);
            for message in [&mut record.request, &mut record.response] {
                for text in [&mut message.body, &mut message.headers].into_iter().flatten() {
                    if !check_json(text) {
                        *text = embeddable(text).into_owned();
                    }
                }
            }
            self.inner.policy.protect(record);
        }
        self.append_parsed(records).await
    }

    /// [`Engine::append`] for a key: records without an organisation or workspace get the key's. If
    /// one names another, nothing is stored ([`crate::error::ErrorKind::Denied`]).
    pub async fn append_as(
        &self,
        access: &Access,
        mut records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if let Err(error) = self.check_access(access).and_then(|()| owned(access, &mut records)) {
            return Err(AppendError { error, records });
        }
        self.append(records).await
    }

    /// [`Engine::append_parsed`] for a key, which must still have the rights that it had when the
    /// request arrived.
    pub(crate) async fn append_parsed_as(
        &self,
        access: &Access,
        records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if let Err(error) = self.check_access(access) {
            return Err(AppendError { error, records });
        }
        self.append_of(Some(access), records).await
    }

    /// Appends records as [`Engine::append`] does, but does not check bodies and other JSON fields.
    /// They must be valid JSON, as in the records that [`ingest`] returns. Otherwise exports of
    /// these records are not valid JSON.
    pub async fn append_parsed(&self, records: Vec<Record>) -> Result<Receipt, AppendError> {
        self.append_of(None, records).await
    }

    async fn append_of(
        &self,
        access: Option<&Access>,
        mut records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if records.is_empty() {
            return Ok(Receipt::default());
        }
        let inner = &self.inner;
        let (bytes, permit) = match inner.room_for(&mut records).await {
            Ok(room) => room,
            Err(error) => return Err(AppendError { error, records }),
        };
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        for record in &mut records {
            inner.complete(record, now, &rules);
        }
        let keys = inner.keys.clone();
        let build = move || {
            let mut builder = BatchBuilder::new();
            records.into_iter().for_each(|record| builder.append(&record));
            Prepared::new(builder.finish(), &keys)
        };
        let done = async {
            let prepared = inner.build(permit.holder(), bytes, build).await?;
            inner.note_unconfirmed(access, &prepared.keys);
            inner.submit(prepared, permit).await
        };
        done.await.map_err(|error| AppendError { error, records: Vec::new() })
    }

    /// Makes the rows of an Arrow batch durable and visible. Its columns are any of the record's,
    /// by name, with types that can be cast. Missing columns are null or filled in as for
    /// [`Engine::append`]. A body that is not JSON becomes a JSON string. Content that must not be
    /// stored is removed; costs are stored unchanged.
    pub async fn append_batch(&self, batch: RecordBatch) -> Result<Receipt> {
        let inner = Arc::clone(&self.inner);
        inner.health.refuse_if_closed()?;
        if batch.num_rows() == 0 {
            return Ok(Receipt::default());
        }
        // Missing columns are filled in, so each row counts as one that has every column.
        let bytes = batch.get_array_memory_size() + batch.num_rows() * ROW_OVERHEAD;
        let mut permit = inner.writes.budget.take(&holder_of(&batch), bytes as u64).await?;
        let of = Arc::clone(&inner);
        let build = move || {
            let rules = of.catalog.rules();
            let now_micros = (of.now)().timestamp_micros();
            let mut defaults = Defaults {
                now_micros,
                latest_micros: now_micros.saturating_add(MAX_AHEAD_MICROS),
                redated: 0,
                new_id: &mut || (of.new_uuid)().to_string(),
                retention_days: &|organisation| rules.retention_days(organisation),
            };
            let batch = normalize(&batch, &mut defaults)?;
            of.note_redated(defaults.redated);
            let batch = ingest::arrow::protect(&of.policy, batch)?;
            let starts = limits::cut_at(days_of(&batch).map(Some));
            let ends = starts.iter().copied().chain([batch.num_rows()]);
            let parts = [0].into_iter().chain(starts.iter().copied()).zip(ends);
            parts
                .map(|(start, end)| Prepared::new(batch.slice(start, end - start), &of.keys))
                .collect::<Result<Vec<_>>>()
        };
        let parts = inner.build(permit.holder(), bytes, build).await?;
        let mut receipt = Receipt::default();
        let mut left = parts.len() as u64;
        for prepared in parts {
            inner.writes.days.take(prepared.days()).await?;
            let room = permit
                .split(permit.units() / left)
                .ok_or_else(|| Error::internal("a memory reservation is missing"))?;
            left -= 1;
            receipt += inner.submit(prepared, room).await?;
        }
        Ok(receipt)
    }
}

impl Inner {
    /// Applies the limits of values to records. Returns an error for all if one id is too long.
    pub(super) fn limit(&self, records: &mut [Record]) -> Result<()> {
        let limited = records.iter_mut().try_for_each(|record| self.policy.limit(record));
        limited.map_err(|refused| Error::invalid(refused.to_string()))
    }

    /// Fills in fields that the record lacks and the engine decides.
    pub(super) fn complete(&self, record: &mut Record, now: DateTime<Utc>, rules: &Rules) {
        ingest::identify(record, || (self.new_uuid)().to_string());
        let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
        record.retention_days = rules.retention_days(organisation);
        if let Some(stated) = record.created_at {
            self.clock.hear(organisation, stated);
        }
        record.created_at = Some(self.dated(record.created_at, now));
    }

    /// Returns the time of a record. The time of arrival replaces a missing one, and one that is
    /// more than a day ahead. Refusing the record would lose it because of a wrong clock; with its
    /// own time it would outlast every retention.
    pub(super) fn dated(&self, stated: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
        let latest = now + TimeDelta::microseconds(MAX_AHEAD_MICROS);
        match stated {
            Some(stated) if stated > latest => {
                self.note_redated(1);
                now
            }
            Some(stated) => stated,
            None => now,
        }
    }

    /// Counts records with a time far ahead. Logs a warning for the first of them and for each
    /// thousandth.
    fn note_redated(&self, records: u64) {
        const WARN_EVERY: u64 = 1_000;
        if records == 0 {
            return;
        }
        let before = self.counters.redated.fetch_add(records, Ordering::Relaxed);
        if before == 0 || before / WARN_EVERY != (before + records) / WARN_EVERY {
            tracing::warn!(
                records = before + records,
                "records have a `created_at` that is more than a day ahead; they got the time of their arrival: correct the clocks of \
                 their senders"
            );
        }
    }

    /// Applies the limits of values to records, and reserves memory for them. Returns their size in
    /// bytes. Waits up to `append_wait_ms`.
    pub(super) async fn room_for(
        &self,
        records: &mut [Record],
    ) -> Result<(usize, MemoryReservation)> {
        self.limit(records)?;
        self.health.refuse_if_closed()?;
        let now = (self.now)();
        let rows = records
            .iter()
            .map(|record| (organisation_of(record), record.created_at.unwrap_or(now)));
        self.writes.days.take(rows.map(|(organisation, at)| (organisation, day_of(at)))).await?;
        let bytes: usize = records.iter().map(|record| record.held_bytes()).sum();
        let holder = Holder::shared_by(records.iter().map(organisation_of));
        Ok((bytes, self.writes.budget.take(&holder, bytes as u64).await?))
    }

    /// Builds a small batch at once, and a larger one in a place of its holder.
    pub(super) async fn build<T: Send + 'static>(
        &self,
        holder: &Holder,
        bytes: usize,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if bytes < SMALL_BYTES {
            return work();
        }
        self.queries.heavy().run(holder, work).await?
    }

    /// Sends a batch to the writer and waits until it is durable.
    pub(super) async fn submit(
        &self,
        prepared: Prepared,
        permit: MemoryReservation,
    ) -> Result<Receipt> {
        let (reply, done) = oneshot::channel();
        let days = prepared.day_count();
        let Prepared { batch, payload, keys, .. } = prepared;
        let append = Append { rows: Rows::Logs, batch, payload, keys, days, permit, reply };
        self.writes.send(Command::Append(Box::new(append)))?;
        done.await.map_err(|_| Error::closed("the engine is closed"))?
    }
}

/// Returns the owner of the records that a key sends.
pub(super) fn owner(access: &Access) -> Owner {
    Owner { organisation: access.organisation.clone(), workspace: access.workspace.clone() }
}

/// Assigns records to the key's owner. Returns an error if one names another owner.
pub(super) fn owned(access: &Access, records: &mut [Record]) -> Result<()> {
    let owner = owner(access);
    records.iter_mut().try_for_each(|record| owner.take(record)).map_err(|refused| {
        Error::denied(format!(
            "field `{}` of a record: expected {}",
            refused.field, refused.expected
        ))
    })
}

/// Returns the organisation of a record, or the one that it will get.
fn organisation_of(record: &Record) -> &str {
    record
        .organisation_id
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_ORGANISATION)
}
