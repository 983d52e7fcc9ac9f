//! Counts the records that each organisation had stored in each month, for quotas and bills.
//!
//! The writer counts each row that it keeps, so a check costs one map lookup and is exact under
//! concurrent writes. Feedback is not counted. Rows leave table `logs` when they expire, so the
//! counts are kept beside the table. With every flush the node writes the counts of its log, under
//! the log's id, *before* that table's commit. The next open of the log takes the counts of the
//! sequence that the table names and adds the replayed rows, so the counts are exact after crashes
//! too. Counts of other nodes are as of their last flush.
//!
//! A row counts for the month (UTC) of its `created_at`, but no later than tomorrow's. Rows that
//! were not stored because of a quota are counted separately. They are in no log, so their counts
//! are written every few seconds, for readers beside this process. A crash loses the counts of the
//! last seconds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};
use parking_lot::{RwLock, RwLockWriteGuard};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::plan::Month;
use crate::store::Store;

const MICROS_A_DAY: i64 = 86_400_000_000;
/// Number of months for which counts are kept.
const KEPT_MONTHS: i32 = 24;

/// Counts of one organisation in one month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Records that were stored.
    pub records: u64,
    /// Records that were not stored because of the quota.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_stored: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One line of [`Usage::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The organisation.
    pub organisation: String,
    /// The month.
    pub month: Month,
    /// Records that were stored, including those that have expired.
    pub records: u64,
    /// Records that were not stored because of the quota.
    pub not_stored: u64,
}

/// Counts by organisation and month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(HashMap<String, Vec<(Month, Count)>>);

impl Counts {
    /// Returns the counts of an organisation in a month.
    pub fn get(&self, organisation: &str, month: Month) -> Count {
        let months = self.0.get(organisation).into_iter().flatten();
        months.rev().find(|(known, _)| *known == month).map(|(_, count)| *count).unwrap_or_default()
    }

    fn entry(&mut self, organisation: &str, month: Month) -> &mut Count {
        if !self.0.contains_key(organisation) {
            self.0.insert(organisation.to_owned(), Vec::new());
        }
        // The months of an organisation are few, and the newest is the last.
        #[expect(clippy::expect_used, reason = "the organisation is inserted just above")]
        let months = self.0.get_mut(organisation).expect("an inserted organisation");
        let place = months.iter().rposition(|(known, _)| *known == month).unwrap_or_else(|| {
            let place = months.partition_point(|(known, _)| *known < month);
            months.insert(place, (month, Count::default()));
            place
        });
        &mut months[place].1
    }

    fn add(&mut self, other: &Self) {
        for (organisation, months) in &other.0 {
            for (month, count) in months {
                let sum = self.entry(organisation, *month);
                sum.records += count.records;
                sum.not_stored += count.not_stored;
            }
        }
    }

    /// Counts every row of a batch that has the columns `organisation_id` and `created_at`.
    pub fn count(&mut self, batch: &RecordBatch, now_micros: i64) {
        let mut months = Months::default();
        for_each_row(batch, |organisation, micros| {
            self.entry(organisation, months.month_of(counted_at(micros, now_micros))).records += 1;
        });
    }

    /// Returns these counts with the unstored records of `latest`, which belong to no sequence of
    /// the log.
    pub fn with_not_stored_of(&self, latest: &Self) -> Self {
        let mut counts = self.clone();
        for (organisation, months) in &latest.0 {
            for (month, count) in months.iter().filter(|(_, count)| count.not_stored > 0) {
                counts.entry(organisation, *month).not_stored = count.not_stored;
            }
        }
        counts
    }

    fn forget_before(&mut self, first: Month) {
        self.0.retain(|_, months| {
            months.retain(|(month, _)| *month >= first);
            !months.is_empty()
        });
    }
}

/// Returns the time for which a record counts: its own, but no later than tomorrow, so that a date
/// in a later month gains nothing.
pub(crate) fn counted_at(created_at: i64, now_micros: i64) -> i64 {
    created_at.min(now_micros.saturating_add(MICROS_A_DAY))
}

/// Calls `row` with organisation and time of each row.
fn for_each_row(batch: &RecordBatch, mut row: impl FnMut(&str, i64)) {
    let (Some(organisations), Some(times)) =
        (batch.column_by_name("organisation_id"), batch.column_by_name("created_at"))
    else {
        return;
    };
    let organisations = organisations.as_string_view();
    let times = times.as_primitive::<TimestampMicrosecondType>();
    for at in 0..organisations.len() {
        row(organisations.value(at), times.value(at));
    }
}

/// Finds the month of a time, quickly if it is the same month as before.
#[derive(Debug, Default)]
struct Months(Option<(i64, i64, Month)>);

impl Months {
    fn month_of(&mut self, micros: i64) -> Month {
        match self.0 {
            Some((first, end, month)) if (first..end).contains(&micros) => month,
            _ => {
                let month = Month::of_micros(micros);
                let start = |month: Month| {
                    Some(
                        month
                            .first_day()?
                            .and_time(chrono::NaiveTime::MIN)
                            .and_utc()
                            .timestamp_micros(),
                    )
                };
                self.0 = start(month)
                    .zip(start(month.before(-1)))
                    .map(|(first, end)| (first, end, month));
                month
            }
        }
    }
}

/// Counts of this node's log, and of other nodes as far as they are known. Only the writer has one.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    months: Months,
    usage: Usage,
}

/// Access to a meter while the writer processes a group of rows.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    months: &'a mut Months,
    known: RwLockWriteGuard<'a, Known>,
}

impl Meter {
    /// Creates a meter that continues from these counts of its own log.
    pub(crate) fn new(own: Counts, others: Counts) -> Self {
        let usage = Usage(Arc::new(RwLock::new(Known { own, others })));
        Self { months: Months::default(), usage }
    }

    /// Returns the counts for readers.
    pub(crate) fn usage(&self) -> Usage {
        self.usage.clone()
    }

    /// Starts to count. Readers wait until the tally is dropped.
    pub(crate) fn tally(&mut self) -> Tally<'_> {
        Tally { months: &mut self.months, known: self.usage.0.write() }
    }

    /// Returns the current counts of this node's log.
    pub(crate) fn own(&self) -> Counts {
        self.usage.own()
    }
}

impl Tally<'_> {
    /// Returns the records of the organisation in the month of that time, on all nodes.
    pub(crate) fn records(&mut self, organisation: &str, micros: i64) -> u64 {
        let month = self.months.month_of(micros);
        self.known.own.get(organisation, month).records
            + self.known.others.get(organisation, month).records
    }

    /// Counts a record that is stored.
    pub(crate) fn store(&mut self, organisation: &str, micros: i64) {
        let month = self.months.month_of(micros);
        self.known.own.entry(organisation, month).records += 1;
    }

    /// Counts a record that is not stored.
    pub(crate) fn refuse(&mut self, organisation: &str, micros: i64) {
        let month = self.months.month_of(micros);
        self.known.own.entry(organisation, month).not_stored += 1;
    }

    /// Removes the count of a record that will be sent again.
    pub(crate) fn take_back(&mut self, organisation: &str, micros: i64, was_stored: bool) {
        let month = self.months.month_of(micros);
        let count = self.known.own.entry(organisation, month);
        let counted = if was_stored { &mut count.records } else { &mut count.not_stored };
        *counted = counted.saturating_sub(1);
    }
}

#[derive(Debug, Default)]
struct Known {
    own: Counts,
    others: Counts,
}

/// The counts, for reading. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<RwLock<Known>>);

impl Usage {
    /// Creates counts of all logs that do not change.
    pub fn fixed(counts: Counts) -> Self {
        Self(Arc::new(RwLock::new(Known { own: counts, others: Counts::default() })))
    }

    /// Lists the counts of all nodes, for one organisation or for all, ordered by organisation and
    /// month.
    pub fn list(&self, organisation: Option<&str>) -> Vec<Used> {
        let known = self.0.read();
        let mut sum: BTreeMap<(&str, Month), Count> = BTreeMap::new();
        for counts in [&known.own, &known.others] {
            for (name, months) in counts
                .0
                .iter()
                .filter(|(name, _)| organisation.is_none_or(|wanted| wanted == name.as_str()))
            {
                for (month, count) in months {
                    let entry = sum.entry((name, *month)).or_default();
                    entry.records += count.records;
                    entry.not_stored += count.not_stored;
                }
            }
        }
        let used = sum.into_iter().map(|((organisation, month), count)| Used {
            organisation: organisation.to_owned(),
            month,
            records: count.records,
            not_stored: count.not_stored,
        });
        used.collect()
    }

    /// Returns the counts of this node's log.
    pub fn own(&self) -> Counts {
        self.0.read().own.clone()
    }

    /// Replaces the counts of other nodes.
    pub fn set_others(&self, others: Counts) {
        self.0.write().others = others;
    }
}

/// Counts of a node's log at a flush.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Last counted sequence of the log.
    pub sequence: u64,
    /// The counts.
    pub counts: Arc<Counts>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    snapshots: Vec<Stored>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sequence: u64,
    /// By month, then by organisation.
    counts: BTreeMap<String, BTreeMap<String, Count>>,
}

/// Writes the counts of the log, together with those of the last commit. The table decides which of
/// the two is valid.
pub(crate) async fn write(
    store: &Store,
    wal_id: Uuid,
    before: &Snapshot,
    next: &Snapshot,
    now: Month,
) -> Result<()> {
    let first = now.before(KEPT_MONTHS);
    let file = File { snapshots: vec![stored(before, first), stored(next, first)] };
    let bytes = serde_json::to_vec(&file)
        .map_err(|cause| Error::internal("cannot encode counts").with_source(cause))?;
    let path = store.usage_path(wal_id);
    let put = store.object_store().put(&path, PutPayload::from(bytes)).await;
    put.map(|_| ())
        .map_err(|cause| Error::storage(format!("cannot write `{path}`")).with_source(cause))
}

fn stored(snapshot: &Snapshot, first: Month) -> Stored {
    let mut counts: BTreeMap<String, BTreeMap<String, Count>> = BTreeMap::new();
    for (organisation, months) in &snapshot.counts.0 {
        for (month, count) in months.iter().filter(|(month, _)| *month >= first) {
            counts.entry(month.text()).or_default().insert(organisation.clone(), *count);
        }
    }
    Stored { sequence: snapshot.sequence, counts }
}

fn read_stored(stored: Stored) -> Option<Snapshot> {
    let mut counts = Counts::default();
    for (month, organisations) in stored.counts {
        let month = Month::parse(&month)?;
        for (organisation, count) in organisations {
            *counts.entry(&organisation, month) = count;
        }
    }
    Some(Snapshot { sequence: stored.sequence, counts: Arc::new(counts) })
}

/// Reads the counts of each log, as its last two flushes wrote them, without months that are long
/// past.
pub(crate) async fn read(store: &Store, now: Month) -> Result<HashMap<Uuid, Vec<Snapshot>>> {
    let folder = store.usage_folder();
    let failed = |cause| Error::storage(format!("cannot list `{folder}`")).with_source(cause);
    let objects: Vec<_> =
        store.object_store().list(Some(&folder)).try_collect().await.map_err(failed)?;
    let mut logs = HashMap::new();
    for object in objects {
        let path = object.location;
        let Some(wal_id) = path
            .filename()
            .and_then(|name| name.strip_suffix(".json"))
            .and_then(|id| id.parse().ok())
        else {
            continue;
        };
        let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
        let bytes = store
            .object_store()
            .get(&path)
            .await
            .map_err(unreadable)?
            .bytes()
            .await
            .map_err(unreadable)?;
        let damaged =
            || Error::damaged(format!("`{path}` does not hold counts; restore it from a copy"));
        let file: File =
            serde_json::from_slice(&bytes).map_err(|cause| damaged().with_source(cause))?;
        let snapshots = file
            .snapshots
            .into_iter()
            .map(read_stored)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(damaged)?;
        let forget = |snapshot: Snapshot| {
            let mut counts = Arc::unwrap_or_clone(snapshot.counts);
            counts.forget_before(now.before(KEPT_MONTHS));
            Snapshot { sequence: snapshot.sequence, counts: Arc::new(counts) }
        };
        logs.insert(wal_id, snapshots.into_iter().map(forget).collect());
    }
    Ok(logs)
}

/// Returns the counts of a log at the sequence `covered` of the table, or before it; `None` if
/// there is no such snapshot.
pub(crate) fn as_of(snapshots: &[Snapshot], covered: u64) -> Option<&Snapshot> {
    snapshots
        .iter()
        .filter(|snapshot| snapshot.sequence <= covered)
        .max_by_key(|snapshot| snapshot.sequence)
}

/// Adds the newest counts of all these logs, which are the best available ones for logs of other
/// nodes.
pub(crate) fn newest(logs: &HashMap<Uuid, Vec<Snapshot>>) -> Counts {
    let last = logs
        .values()
        .filter_map(|snapshots| snapshots.iter().max_by_key(|snapshot| snapshot.sequence));
    sum(last.map(|snapshot| &*snapshot.counts))
}

/// Adds counts.
pub(crate) fn sum<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> Counts {
    let mut sum = Counts::default();
    counts.into_iter().for_each(|counts| sum.add(counts));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    fn micros(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn month() -> Month {
        Month::parse("2026-11").unwrap()
    }

    #[test]
    fn rows_count_for_the_month_of_their_creation() {
        let mut meter = Meter::new(Counts::default(), Counts::default());
        for at in ["2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00Z", "2026-11-30T23:59:59Z"] {
            meter.tally().store("a", micros(at));
        }
        meter.tally().refuse("a", micros("2026-11-02T00:00:00Z"));
        assert_eq!(meter.tally().records("a", micros("2026-11-15T00:00:00Z")), 2);
        assert_eq!(meter.tally().records("b", micros("2026-11-15T00:00:00Z")), 0);
        let list = meter.usage().list(None);
        assert_eq!(list.len(), 2);
        assert_eq!((list[1].records, list[1].not_stored), (2, 1));
    }

    #[test]
    fn other_nodes_count_too() {
        let mut other = Meter::new(Counts::default(), Counts::default());
        other.tally().store("a", micros("2026-11-01T00:00:00Z"));
        let mut meter = Meter::new(Counts::default(), Counts::default());
        meter.usage().set_others(other.own());
        meter.tally().store("a", micros("2026-11-01T00:00:00Z"));
        assert_eq!(meter.tally().records("a", micros("2026-11-01T00:00:00Z")), 2);
        assert_eq!(meter.usage().list(Some("a"))[0].records, 2);
        assert!(meter.usage().list(Some("b")).is_empty());
    }

    #[test]
    fn counts_of_unstored_records_are_taken_over_without_those_of_stored_ones() {
        let mut meter = Meter::new(Counts::default(), Counts::default());
        meter.tally().store("a", micros("2026-11-01T00:00:00Z"));
        let flushed = meter.own();
        meter.tally().store("a", micros("2026-11-01T00:00:00Z"));
        meter.tally().refuse("a", micros("2026-11-01T00:00:00Z"));
        meter.tally().refuse("b", micros("2026-11-01T00:00:00Z"));
        let written = flushed.with_not_stored_of(&meter.own());
        assert_eq!(written.get("a", month()), Count { records: 1, not_stored: 1 });
        assert_eq!(written.get("b", month()), Count { records: 0, not_stored: 1 });
        assert_eq!(flushed.with_not_stored_of(&flushed), flushed);
    }

    #[tokio::test]
    async fn the_table_decides_which_snapshot_is_valid() {
        let store = Store::with(
            Arc::new(object_store::memory::InMemory::new()),
            Url::parse("memory:///x/").unwrap(),
        )
        .unwrap();
        let id = Uuid::from_u128(7);
        let mut meter = Meter::new(Counts::default(), Counts::default());
        meter.tally().store("a", micros("2026-11-01T00:00:00Z"));
        let before = Snapshot { sequence: 3, counts: Arc::new(meter.own()) };
        meter.tally().store("a", micros("2024-01-01T00:00:00Z"));
        meter.tally().store("a", micros("2026-11-02T00:00:00Z"));
        let next = Snapshot { sequence: 9, counts: Arc::new(meter.own()) };
        write(&store, id, &before, &next, month()).await.unwrap();
        let found = &read(&store, month()).await.unwrap()[&id];
        assert_eq!(as_of(found, 8), Some(&before));
        assert_eq!(as_of(found, 9).unwrap().counts.get("a", month()).records, 2);
        assert_eq!(
            as_of(found, 9).unwrap().counts.get("a", Month::parse("2024-01").unwrap()).records,
            0
        );
        assert_eq!(as_of(found, 2), None);
    }
}
