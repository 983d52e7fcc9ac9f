//! Appends data other than complete records: parts that are joined later, and feedback.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::append::{owned, owner};
use super::handle::Engine;
use super::pending_parts::{Part, Parts, fingerprint_of};
use super::status::{AppendError, Receipt};
use super::writer::{Append, Command};
use crate::catalog::Access;
use crate::dedupe::{KeyHasher, feedback_id};
use crate::error::{Error, Result};
use crate::ingest::DEFAULT_ORGANISATION;
use crate::limits::{DAYS, Holder, day_of};
use crate::parts::RecordPart;
use crate::record::{BatchBuilder, Feedback, FeedbackBuilder, Record, Rows};
use crate::wal::{Kind, Payload};

/// Returns the key of a state of feedback: a state that is sent again is stored once.
pub(super) fn state_key(keys: &KeyHasher, row: &Feedback) -> u128 {
    let organisation = row.organisation_id.as_deref().unwrap_or_default();
    let updated_at = row.updated_at.map_or(0, |at| at.timestamp_micros());
    // Two clients may change it within one microsecond.
    let is_change = row.updated_at > row.created_at;
    let state =
        if is_change { format!("{:?}/{:?}/", row.value, row.weight) } else { String::new() };
    let id = feedback_id(&format!("{state}{}", row.id.as_deref().unwrap_or_default()), updated_at);
    keys.key(organisation, row.workspace_slug.as_deref(), &id)
}

impl Engine {
    /// Makes parts of records durable. The metrics and the content with one `id` of a workspace (or
    /// of none) become one record, in any order, also across a restart. A part alone is visible to
    /// queries as a partial record, and is stored as it is after `join_seconds`. Fragments are
    /// collected for twenty seconds after the first that has the outcome of the call. Later parts
    /// fill in missing fields of the stored record after the next flush, while the id is remembered
    /// (`dedupe_hours`). A part that arrived before is acknowledged and dropped. Each part must
    /// have an `id`. Parts with different workspaces, or one of them without a workspace, belong to
    /// different records.
    pub async fn append_parts_as(
        &self,
        access: &Access,
        record_parts: Vec<(RecordPart, Record)>,
    ) -> Result<Receipt, AppendError> {
        let nameless =
            |(_, record): &(RecordPart, Record)| record.id.as_deref().is_none_or(str::is_empty);
        if record_parts.iter().any(nameless) {
            let error =
                Error::invalid("part of a record without `id`: its other parts cannot be found");
            return Err(AppendError {
                error,
                records: record_parts.into_iter().map(|(_, record)| record).collect(),
            });
        }
        let mut receipt = Receipt::default();
        let mut left = record_parts;
        for part_kind in RecordPart::ALL {
            let (these, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(kind, _)| *kind == part_kind);
            left = others;
            let mut records: Vec<Record> = these.into_iter().map(|(_, record)| record).collect();
            // Each part may create a record of another day.
            while !records.is_empty() {
                let rest = records.split_off(records.len().min(DAYS));
                receipt += self.append_part(access, part_kind, records).await?;
                records = rest;
            }
        }
        Ok(receipt)
    }

    async fn append_part(
        &self,
        access: &Access,
        part_kind: RecordPart,
        mut records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        let inner = &self.inner;
        if let Err(error) = self.check_access(access).and_then(|()| owned(access, &mut records)) {
            return Err(AppendError { error, records });
        }
        let (bytes, permit) = match inner.room_for(&mut records).await {
            Ok(room) => room,
            Err(error) => return Err(AppendError { error, records }),
        };
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        let engine = Arc::clone(inner);
        let build = move || {
            let mut builder = BatchBuilder::new();
            let mut parts = Vec::with_capacity(records.len());
            for mut record in records {
                let is_timed = record.created_at.is_some();
                engine.policy.protect(&mut record);
                engine.complete(&mut record, now, &rules);
                builder.append(&record);
                let key = engine.keys.key_of(&record);
                let print = fingerprint_of(&engine.keys, part_kind, &mut record, is_timed);
                parts.push(Part { key, print, record });
            }
            Ok((parts, Payload::encode_as(Kind::RecordPart(part_kind), &builder.finish())?))
        };
        let done = async {
            let (parts, payload) = inner.build(permit.holder(), bytes, build).await?;
            let (reply, done) = oneshot::channel();
            inner.writes.send(Command::Parts(Box::new(Parts {
                part_kind,
                parts,
                payload,
                permit,
                reply,
            })))?;
            done.await.map_err(|_| Error::closed("the engine is closed"))?
        };
        done.await.map_err(|error| AppendError { error, records: Vec::new() })
    }

    /// Makes feedback durable and visible. Returns the ids. Rows without an organisation or
    /// workspace get the key's; if one names another, nothing is stored
    /// ([`crate::error::ErrorKind::Denied`]). Missing values of `id`, `created_at` and `updated_at`
    /// are filled in.
    pub async fn append_feedback_as(
        &self,
        access: &Access,
        mut feedback: Vec<Feedback>,
    ) -> Result<Vec<String>> {
        if feedback.is_empty() {
            return Ok(Vec::new());
        }
        let inner = &self.inner;
        inner.health.refuse_if_closed()?;
        self.check_access(access)?;
        let owner = owner(access);
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        let mut ids = Vec::with_capacity(feedback.len());
        for row in &mut feedback {
            owner.take_fields(&mut row.organisation_id, &mut row.workspace_slug).map_err(
                |refused| {
                    Error::denied(format!(
                        "field `{}` of feedback: expected {}",
                        refused.field, refused.expected
                    ))
                },
            )?;
            row.keep_limits().map_err(|refused| Error::invalid(format!("feedback: {refused}")))?;
            let organisation =
                row.organisation_id.get_or_insert_with(|| DEFAULT_ORGANISATION.to_owned());
            row.retention_days = rules.retention_days(organisation);
            ids.push(row.id.get_or_insert_with(|| (inner.new_uuid)().to_string()).clone());
            let created_at = inner.dated(row.created_at, now);
            row.created_at = Some(created_at);
            row.updated_at =
                Some(row.updated_at.map_or(created_at, |at| inner.dated(Some(at), now)));
        }
        let bytes: usize = feedback.iter().map(|row| row.held_bytes()).sum();
        let day = |row: &Feedback| day_of(row.created_at.unwrap_or(now));
        let days = feedback.iter().map(day).collect::<HashSet<_>>().len();
        let rows = feedback
            .iter()
            .map(|row| (row.organisation_id.as_deref().unwrap_or_default(), day(row)));
        inner.writes.days.take(rows).await?;
        let organisations = feedback.iter().filter_map(|row| row.organisation_id.as_deref());
        let permit =
            inner.writes.budget.take(&Holder::shared_by(organisations), bytes as u64).await?;
        let keys = inner.keys.clone();
        let policy = Arc::clone(&inner.policy);
        let build = move || {
            let mut builder = FeedbackBuilder::new();
            feedback.iter_mut().for_each(|row| policy.protect_feedback(row));
            let keys = feedback.iter().map(|row| state_key(&keys, row)).collect();
            feedback.iter().for_each(|row| builder.append(row));
            let batch = builder.finish();
            let payload = Payload::encode_as(Kind::Feedback, &batch)?;
            Ok((batch, payload, keys))
        };
        let (batch, payload, keys) = inner.build(permit.holder(), bytes, build).await?;
        let (reply, done) = oneshot::channel();
        let append = Append { rows: Rows::Feedback, batch, payload, keys, days, permit, reply };
        inner.writes.send(Command::Append(Box::new(append)))?;
        done.await.map_err(|_| Error::closed("the engine is closed"))??;
        Ok(ids)
    }
}
