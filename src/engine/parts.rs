//! Appends of what is not a whole record: halves that join later, and feedback.

use tokio::sync::oneshot;

use super::joining::{Halves, Part};
use super::writer::{Append, Command};
use super::{Access, AppendError, Engine, Receipt, day_of, here_or_aside, owned, owner};
use crate::dedupe::Keys;
use crate::error::{Error, Result};
use crate::halves::Half;
use crate::ingest::DEFAULT_ORGANISATION;
use crate::limits::Holder;
use crate::record::{BatchBuilder, Feedback, FeedbackBuilder, Record, Rows};
use crate::wal::{Kind, Payload};

/// What a state of feedback is known by: the same one sent again is kept once.
fn state_key(keys: &Keys, row: &Feedback) -> u128 {
    let organisation = row.organisation_id.as_deref().unwrap_or_default();
    let updated_at = row.updated_at.map_or(0, |at| at.timestamp_micros());
    // No id of a record begins like this by chance, and the two share one memory.
    keys.key(organisation, &format!("feedback/{updated_at}/{}", row.id.as_deref().unwrap_or_default()))
}

impl Engine {
    /// Makes halves of records durable. The two halves of one `id` of an organisation become one record, whichever comes first,
    /// also across a restart; a half alone is seen in answers as the record it is so far, and is stored alone after `join_seconds`.
    /// Pieces gather for twenty seconds from the first that says how the call went. What comes later than that, while the id is
    /// remembered (`dedupe_hours`), fills in what the stored record lacks, after the next flush. What came already is acked and
    /// dropped. Each must name its `id`. A part whose record another workspace began is not taken.
    pub async fn append_halves_as(&self, access: &Access, halves: Vec<(Half, Record)>) -> Result<Receipt, AppendError> {
        let nameless = |(_, record): &(Half, Record)| record.id.as_deref().is_none_or(str::is_empty);
        if halves.iter().any(nameless) {
            let error = Error::invalid("half of a record without `id`: without it the other half cannot be found");
            return Err(AppendError { error, records: halves.into_iter().map(|(_, record)| record).collect() });
        }
        let mut receipt = Receipt::default();
        let mut left = halves;
        for half in Half::ALL {
            let (these, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(of, _)| *of == half);
            left = others;
            let records: Vec<Record> = these.into_iter().map(|(_, record)| record).collect();
            if !records.is_empty() {
                let one = self.append_half(access, half, records).await?;
                receipt.accepted += one.accepted;
                receipt.duplicate += one.duplicate;
                receipt.foreign += one.foreign;
            }
        }
        Ok(receipt)
    }

    async fn append_half(&self, access: &Access, half: Half, mut records: Vec<Record>) -> Result<Receipt, AppendError> {
        let inner = &self.inner;
        if let Err(error) = self.check_access(access).and_then(|()| owned(access, &mut records)) {
            return Err(AppendError { error, records });
        }
        let (bytes, permit) = match inner.room_for(&records).await {
            Ok(room) => room,
            Err(error) => return Err(AppendError { error, records }),
        };
        let (now, rules) = ((inner.now)(), inner.catalog.rules());
        let (keys, mut prints) = (inner.keys.clone(), Vec::with_capacity(records.len()));
        for record in &mut records {
            inner.policy.protect(record);
            // Before the time of arrival is filled in, which is another when it comes again.
            let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
            prints.push(keys.key_of_all(organisation, &(half, &*record)));
            inner.complete(record, now, &rules);
        }
        let build = move || {
            let mut builder = BatchBuilder::new();
            records.iter().for_each(|record| builder.append(record));
            let payload = Payload::of(Kind::Half(half), &builder.finish())?;
            let parts = records.into_iter().zip(prints).map(|(record, print)| {
                let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
                Part { key: keys.key(organisation, record.id.as_deref().unwrap_or_default()), print, record }
            });
            Ok((parts.collect(), payload))
        };
        let done = async {
            let (parts, payload) = here_or_aside(bytes, build).await?;
            let (reply, done) = oneshot::channel();
            inner.send(Command::Halves(Box::new(Halves { half, parts, payload, permit, reply })))?;
            done.await.map_err(|_| Error::closed("the engine is closed"))?
        };
        done.await.map_err(|error| AppendError { error, records: Vec::new() })
    }

    /// Makes feedback durable and visible; answers the ids. Rows that name no organisation or workspace get the key's; if one
    /// names another, nothing is taken ([`crate::error::ErrorKind::Denied`]). `id`, `created_at` and `updated_at` are filled in where
    /// they are missing.
    pub async fn append_feedback_as(&self, access: &Access, mut feedback: Vec<Feedback>) -> Result<Vec<String>> {
        if feedback.is_empty() {
            return Ok(Vec::new());
        }
        let inner = &self.inner;
        inner.refuse_if_closed()?;
        self.check_access(access)?;
        let (owner, now, rules) = (owner(access), (inner.now)(), inner.catalog.rules());
        let mut ids = Vec::with_capacity(feedback.len());
        for row in &mut feedback {
            owner.take_fields(&mut row.organisation_id, &mut row.workspace_slug).map_err(|refused| {
                Error::denied(format!("field `{}` of feedback: expected {}", refused.field, refused.expected))
            })?;
            let organisation = row.organisation_id.get_or_insert_with(|| DEFAULT_ORGANISATION.to_owned());
            row.retention_days = rules.retention_days(organisation);
            ids.push(row.id.get_or_insert_with(|| (inner.new_uuid)().to_string()).clone());
            inner.policy.protect_feedback(row);
            let created_at = inner.dated(row.created_at, now);
            row.created_at = Some(created_at);
            row.updated_at = Some(row.updated_at.map_or(created_at, |at| inner.dated(Some(at), now)));
        }
        let bytes: usize = feedback.iter().map(|row| row.held_bytes()).sum();
        let days = feedback.iter().map(|row| (row.organisation_id.as_deref(), row.created_at.unwrap_or(now)));
        inner.days.take(days.map(|(organisation, at)| (organisation.unwrap_or_default(), day_of(at)))).await?;
        let organisations = feedback.iter().filter_map(|row| row.organisation_id.as_deref());
        let permit = inner.budget.take(&Holder::of_all(organisations), bytes as u64).await?;
        let keys = inner.keys.clone();
        let build = move || {
            let mut builder = FeedbackBuilder::new();
            let keys = feedback.iter().map(|row| state_key(&keys, row)).collect();
            feedback.iter().for_each(|row| builder.append(row));
            let batch = builder.finish();
            let payload = Payload::of(Kind::Feedback, &batch)?;
            Ok((batch, payload, keys))
        };
        let (batch, payload, keys) = here_or_aside(bytes, build).await?;
        let (reply, done) = oneshot::channel();
        let append = Append { rows: Rows::Feedback, batch, payload, keys, permit, reply };
        inner.send(Command::Append(Box::new(append)))?;
        done.await.map_err(|_| Error::closed("the engine is closed"))??;
        Ok(ids)
    }
}
