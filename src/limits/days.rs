//! Days of the records that are in no table file yet, by organisation: a flush writes at least one
//! file for each.
//!
//! A body of a few hundred kilobytes can name ten thousand days. An organisation whose rows in
//! memory span [`DAYS`] days waits for a flush before it adds more days. A request with more days
//! is cut into parts of at most [`DAYS`] days ([`cut`], [`cut_at`]). The writer bounds the days of
//! a flush, in whatever way rows arrive, by ending the memtable.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Maximum days of the rows of one organisation in memory. A memtable ends at this number of days
/// of all organisations, since a flush writes one file or more for each: about three seconds of
/// work.
pub const DAYS: usize = 1_000;

/// Returns the day of a time as partitions number it, since 1970-01-01.
pub(crate) fn day_of(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(86_400)
}

/// The days of rows in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct Days {
    organisations: Arc<Mutex<HashMap<String, BTreeSet<i64>>>>,
    flushed: Arc<Notify>,
    wait: Duration,
    flush_wanted: Arc<Notify>,
}

impl Days {
    /// Creates an empty set. A writer with too many days waits up to `wait`, and asks for a flush
    /// through `flush_wanted`.
    pub fn new(wait: Duration, flush_wanted: Arc<Notify>) -> Self {
        Self { organisations: Arc::default(), flushed: Arc::default(), wait, flush_wanted }
    }

    /// Counts the days of new rows. Each row is an organisation and a day.
    pub async fn take<'a>(&self, rows: impl IntoIterator<Item = (&'a str, i64)>) -> Result<()> {
        let mut wanted = HashMap::<&str, BTreeSet<i64>>::new();
        let mut last = None;
        for (organisation, day) in rows {
            // Most rows have the same day and organisation as the row before.
            if last.replace((organisation, day)) != Some((organisation, day)) {
                wanted.entry(organisation).or_default().insert(day);
            }
        }
        match tokio::time::timeout(self.wait, self.take_all(&wanted)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::busy(format!(
                "rows of {DAYS} days of this organisation wait to be written to files; send records of fewer days at a time, \
                 or send these again in a moment"
            ))),
        }
    }

    async fn take_all(&self, wanted: &HashMap<&str, BTreeSet<i64>>) {
        loop {
            let mut flushed = std::pin::pin!(self.flushed.notified());
            flushed.as_mut().enable();
            if self.try_take(wanted) {
                return;
            }
            self.flush_wanted.notify_one();
            flushed.await;
        }
    }

    fn try_take(&self, wanted: &HashMap<&str, BTreeSet<i64>>) -> bool {
        let mut organisations = self.organisations.lock();
        let fits =
            wanted.iter().all(|(organisation, days)| match organisations.get(*organisation) {
                Some(known) => {
                    known.len() + days.difference(known).count() <= DAYS || days.is_subset(known)
                }
                // Rows that a program appends at once, without `cut`, must still fit.
                None => true,
            });
        if fits {
            for (organisation, days) in wanted {
                match organisations.get_mut(*organisation) {
                    Some(known) => known.extend(days),
                    None => drop(organisations.insert((*organisation).to_owned(), days.clone())),
                }
            }
        }
        fits
    }

    /// Forgets all days, because a flush that writes them has started.
    pub fn clear(&self) {
        self.organisations.lock().clear();
        self.flushed.notify_waiters();
    }
}

/// Finds where to cut rows into parts of at most [`DAYS`] days: the first row of each part but the
/// first.
pub fn cut_at(days_of_rows: impl IntoIterator<Item = Option<i64>>) -> Vec<usize> {
    let mut days = BTreeSet::new();
    let mut starts = Vec::new();
    for (place, day) in days_of_rows.into_iter().enumerate() {
        let Some(day) = day else { continue };
        if days.insert(day) && days.len() > DAYS {
            days = BTreeSet::from([day]);
            starts.push(place);
        }
    }
    starts
}

/// Cuts the rows of a request into parts of at most [`DAYS`] days, in order.
pub fn cut<T>(mut rows: Vec<T>, day: impl Fn(&T) -> Option<i64>) -> Vec<Vec<T>> {
    let starts = cut_at(rows.iter().map(day));
    let mut parts: Vec<Vec<T>> =
        starts.into_iter().rev().map(|start| rows.split_off(start)).collect();
    parts.push(rows);
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_cut_by_days_and_keeps_its_order() {
        let days = DAYS as i64;
        let rows: Vec<i64> = (0..2 * days + 1).flat_map(|day| [day, day]).collect();
        let parts = cut(rows.clone(), |day| Some(*day));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2 * DAYS, 2 * DAYS, 2]);
        assert_eq!(parts.concat(), rows);
        assert_eq!(cut(vec![1, 1, 2], |_| None), [[1, 1, 2]]);
        assert_eq!(cut(Vec::<i64>::new(), |day| Some(*day)), [Vec::<i64>::new()]);
    }

    #[tokio::test]
    async fn an_organisation_of_many_days_waits_for_a_flush_and_others_do_not() {
        let flush_wanted = Arc::new(Notify::new());
        let days = Days::new(Duration::from_secs(60), Arc::clone(&flush_wanted));
        let of = |name: &'static str, from: i64, number: usize| {
            (from..).take(number).map(move |day| (name, day))
        };
        days.take(of("acme", 0, DAYS)).await.unwrap();
        days.take(of("acme", 0, DAYS)).await.unwrap();
        let waiting = tokio::spawn({
            let days = days.clone();
            async move { days.take(of("acme", 1, DAYS)).await }
        });
        flush_wanted.notified().await;
        days.take(of("zen", 0, 1)).await.unwrap();
        days.clear();
        waiting.await.unwrap().unwrap();
        let refused = Days { wait: Duration::ZERO, ..days.clone() };
        let error = refused.take(of("acme", 100_000, 1)).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Busy);
        assert!(
            refused.take(of("zen", 0, DAYS + 5)).await.is_ok(),
            "none of its rows are in memory"
        );
    }
}
