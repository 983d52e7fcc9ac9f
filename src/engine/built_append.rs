//! Appends in two steps: a caller that reads a body builds the batches on the threads that parse
//! it, and appends them one after the other.
//!
//! Room for the rows is taken before they are parsed, by an estimate, so that no rows are built
//! while the memory for them is in use. It is corrected when they are appended.

use super::handle::Engine;
use super::prepared::Prepared;
use super::status::Receipt;
use crate::catalog::Access;
use crate::error::Result;
use crate::limits::{Holder, MemoryReservation};
use crate::memtable::MemoryBudget;
use crate::record::{BatchBuilder, ROW_OVERHEAD, Record};

/// Rows that only have to be written to the log.
#[derive(Debug)]
pub(crate) struct BuiltAppend {
    prepared: Prepared,
    /// Memory of the records.
    bytes: usize,
}

impl Engine {
    /// Takes room for records before they are parsed from a text. Waits for free memory up to
    /// `append_wait_ms`.
    pub(crate) async fn room_before(
        &self,
        holder: &Holder,
        text_bytes: usize,
        records: usize,
    ) -> Result<MemoryReservation> {
        self.inner.health.refuse_if_closed()?;
        let bytes = text_bytes.saturating_add(records.saturating_mul(ROW_OVERHEAD));
        self.inner.writes.budget.take(holder, bytes as u64).await
    }

    /// Builds the rows of records whose bodies `ingest` has checked to be JSON. Blocks for as long
    /// as encoding takes.
    pub(crate) fn build_as(
        &self,
        access: &Access,
        mut records: Vec<Record>,
    ) -> Result<BuiltAppend> {
        self.check_access(access)?;
        let inner = &self.inner;
        inner.limit(&mut records)?;
        let bytes = records.iter().map(Record::held_bytes).sum();
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        let mut builder = BatchBuilder::new();
        for mut record in records {
            inner.complete(&mut record, now, &rules);
            builder.append(&record);
        }
        Ok(BuiltAppend { prepared: Prepared::new(builder.finish(), &inner.keys)?, bytes })
    }

    /// Makes built rows durable and visible, for a key that must still have the rights that it had
    /// when the request arrived. Uses the room `early` that was taken before ([`Self::room_before`])
    /// as far as it reaches.
    pub(crate) async fn append_built_as(
        &self,
        access: &Access,
        built: BuiltAppend,
        early: &mut MemoryReservation,
    ) -> Result<Receipt> {
        self.check_access(access)?;
        let inner = &self.inner;
        inner.health.refuse_if_closed()?;
        let BuiltAppend { prepared, bytes } = built;
        inner.writes.days.take(prepared.days()).await?;
        let permit =
            exact_room(&inner.writes.budget, early, &prepared.holder, bytes as u64).await?;
        inner.note_unconfirmed(Some(access), &prepared.keys);
        inner.submit(prepared, permit).await
    }
}

/// Takes room for built rows out of the room that was taken early. If that is too small, or counts
/// for another holder, it is given back first: a wait that holds room might be for other waits that
/// do the same.
async fn exact_room(
    budget: &MemoryBudget,
    early: &mut MemoryReservation,
    holder: &Holder,
    bytes: u64,
) -> Result<MemoryReservation> {
    if early.holder() == holder
        && let Some(exact) = early.split(bytes.min(early.most()).max(1))
    {
        return Ok(exact);
    }
    early.clear();
    budget.take(holder, bytes).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn room_that_was_taken_early_is_corrected() {
        let budget = MemoryBudget::new(1_000, Duration::ZERO, Arc::new(Notify::new()));
        let acme = Holder::new(Some("acme"));
        let held = |budget: &MemoryBudget| 1_000 - budget.take_available(1_000).unwrap().units();

        let mut early = budget.take(&acme, 500).await.unwrap();
        let rows = exact_room(&budget, &mut early, &acme, 100).await.unwrap();
        assert_eq!((rows.units(), early.units()), (100, 400), "the rest is for the next rows");
        let more = exact_room(&budget, &mut early, &acme, 600).await.unwrap();
        assert_eq!((more.units(), early.units(), held(&budget)), (600, 0, 700), "too little");
        drop((rows, more));

        let mut early = budget.take(&acme, 5_000).await.unwrap();
        let rows = exact_room(&budget, &mut early, &acme, 5_000).await.unwrap();
        assert_eq!((rows.units(), early.units()), (750, 0), "more than there ever is");
        drop(rows);

        let mut early = budget.take(&Holder::Operator, 900).await.unwrap();
        let rows = exact_room(&budget, &mut early, &acme, 200).await.unwrap();
        assert_eq!((rows.holder(), held(&budget)), (&acme, 200), "counted for their organisation");
        drop(rows);
        assert_eq!(held(&budget), 0);
    }
}
