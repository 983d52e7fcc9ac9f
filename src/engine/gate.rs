//! Checks permissions and their freshness: what a key may still do, and whether the catalog that
//! says so is recent enough.
//!
//! A node that cannot read the catalog does not know of revoked keys and erased records. After
//! `max_staleness_seconds` it refuses reads, exports and admin requests. It still accepts records
//! from keys that it knows, and flushes them when it has read the catalog again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;

use crate::catalog::{Access, Catalog, Denied, State};
use crate::error::{Error, Result};
use crate::plan::{Erasure, Rules};

/// The right of a key to read on is checked this often while its statement has no rows yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Rights and rules in force when a response began.
#[derive(Clone, Debug)]
pub(super) struct Began {
    access: Access,
    denied: Denied,
    /// Erasure rules at the start. `None` if the caller handles erasures itself.
    rules: Option<Arc<Mutex<Arc<Rules>>>>,
}

fn denied(state: &State, access: &Access) -> Denied {
    state.document.denied(access.organisation.as_deref(), access.workspace.as_deref())
}

/// Checks the rights of keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) catalog: Catalog,
    pub(super) now: fn() -> DateTime<Utc>,
    /// Maximum age of the catalog. `None` if it is read once, for a command.
    pub(super) max_age: Option<Duration>,
}

impl Gate {
    /// Returns an error if the catalog could not be read for too long.
    pub(super) async fn refuse_if_stale(&self) -> Result<()> {
        match self.max_age {
            Some(most) if !self.catalog.is_fresh(most).await => Err(Error::storage(format!(
                "not ready: this node could not read `catalog.json` for {} s, more than `max_staleness_seconds`, so it does not \
                 know which keys and records are still valid; ask another node, or check the store",
                self.catalog.age().as_secs()
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses a key that was revoked or has expired since its request came.
    pub(super) fn check(&self, access: &Access) -> Result<()> {
        self.catalog.state().check_access(access, (self.now)())
    }

    /// Returns the rights and rules for a response that begins now.
    pub(super) fn begin(&self, access: &Access) -> Began {
        let state = self.catalog.state();
        let rules = Some(Arc::new(Mutex::new(Arc::clone(&state.rules))));
        Began { access: access.clone(), denied: denied(&state, access), rules }
    }

    /// Returns an error if the reader may not get the rest of a response any more, or not in full.
    pub(super) fn check_still(&self, began: &Began) -> Result<()> {
        self.check(&began.access)?;
        let state = self.catalog.state();
        let denied = denied(&state, &began.access);
        let more: Vec<&str> = denied.beyond(&began.denied).collect();
        if !more.is_empty() {
            return Err(Error::denied(format!(
                "`{}` may no longer be read by this organisation or workspace since the request came; ask again",
                more.join("`, `")
            )));
        }
        if began.is_erased_since(&state.rules) {
            return Err(Error::conflict(
                "records were erased while the request was answered, and the answer may hold some of them; ask again",
            ));
        }
        Ok(())
    }

    /// Wraps a stream so that it ends with an error when the key loses the right to read. The check
    /// runs for each item, and at intervals while no item arrives.
    pub(super) fn watch<T: Send + 'static>(
        &self,
        began: Began,
        items: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let watched = Watched { gate: self.clone(), began, items: Some(items) };
        let stream = futures::stream::unfold(watched, |mut watched| async move {
            let next = watched.next().await?;
            Some((next, watched))
        });
        // A reader may poll once more after the end.
        stream.fuse().boxed()
    }
}

impl Began {
    /// Returns the same for a response that removes erased records by other means.
    pub(super) fn without_erasures(self) -> Self {
        Self { rules: None, ..self }
    }

    /// Returns true if a record that the reader sees was erased.
    fn is_erased_since(&self, latest: &Arc<Rules>) -> bool {
        let Some(began) = &self.rules else { return false };
        let mut began = began.lock();
        if Arc::ptr_eq(&began, latest) {
            return false;
        }
        let erased = latest.erased_since(&began);
        let is_seen = |erasure: &Erasure| {
            self.access.organisation.as_ref().is_none_or(|ours| *ours == erasure.organisation)
        };
        let is_erased = erased.list().iter().any(is_seen);
        if !is_erased {
            // Other changes of the catalog are not compared again.
            *began = Arc::clone(latest);
        }
        is_erased
    }
}

/// A response stream with its checks.
struct Watched<T> {
    gate: Gate,
    began: Began,
    /// `None` once the stream has ended.
    items: Option<BoxStream<'static, Result<T>>>,
}

impl<T> Watched<T> {
    async fn next(&mut self) -> Option<Result<T>> {
        let next = self.checked_next().await;
        if !matches!(next, Some(Ok(_))) {
            // Cancels the work that feeds the stream.
            self.items = None;
        }
        next
    }

    async fn checked_next(&mut self) -> Option<Result<T>> {
        let items = self.items.as_mut()?;
        let next = loop {
            match tokio::time::timeout(LOOK_EVERY, items.next()).await {
                Ok(next) => break next?,
                Err(_) => match check(&self.gate, &self.began).await {
                    Ok(()) => {}
                    Err(error) => return Some(Err(error)),
                },
            }
        };
        match check(&self.gate, &self.began).await {
            Ok(()) => Some(next),
            Err(error) => Some(Err(error)),
        }
    }
}

async fn check(gate: &Gate, began: &Began) -> Result<()> {
    gate.refuse_if_stale().await?;
    gate.check_still(began)
}

/// Records that were accepted while the catalog could not be read, by the key that sent them.
/// Before a flush, the keys are checked. Kept in memory only.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(Mutex<Vec<Taken>>);

#[derive(Debug)]
struct Taken {
    key_id: String,
    at: DateTime<Utc>,
    records: Vec<u128>,
}

impl Unconfirmed {
    /// Returns the number of noted appends, and the records among them whose keys had been revoked
    /// by then.
    pub(super) fn judge(&self, state: &State) -> (usize, HashSet<u128>) {
        let taken = self.0.lock();
        let refused = taken.iter().filter(|taken| state.was_revoked(&taken.key_id, taken.at));
        (taken.len(), refused.flat_map(|taken| taken.records.iter().copied()).collect())
    }

    pub(super) fn note(&self, key_id: &str, at: DateTime<Utc>, records: &[u128]) {
        self.0.lock().push(Taken { key_id: key_id.to_owned(), at, records: records.to_vec() });
    }

    /// Drops the first appends, whose records are in files or were left out.
    pub(super) fn forget(&self, count: usize) {
        self.0.lock().drain(..count);
    }
}
