//! Threads for queries, separate for each organisation.
//!
//! A batch of an expensive expression cannot be interrupted from outside, so its thread is blocked
//! until the batch is done. No two organisations share threads, and only queries run on them, so
//! such a batch delays only the queries of its own organisation. Threads move to another
//! organisation once nothing runs on them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::places::{Owner, Place};
use crate::config::Config;
use crate::error::Result;
use crate::threads::{Priority, Threads};

/// The threads of all organisations.
#[derive(Debug)]
pub(super) struct QueryThreads {
    /// Number of threads in a group.
    threads: usize,
    /// Maximum number of idle groups that are kept.
    kept: usize,
    groups: Mutex<Vec<ThreadGroup>>,
}

#[derive(Debug)]
struct ThreadGroup {
    owner: Owner,
    runtime: Arc<Threads>,
}

/// Threads of one organisation, held while a query runs on them.
#[derive(Clone, Debug)]
pub(super) struct ThreadLease(Arc<Threads>);

/// Place and threads of a query with a time limit. The threads stay with the organisation until
/// nothing runs on them.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) threads: ThreadLease,
    pub(super) _place: Place,
}

impl QueryThreads {
    pub(super) fn new(threads: usize, kept: usize) -> Self {
        Self { threads, kept, groups: Mutex::new(Vec::new()) }
    }

    /// Takes the threads of an organisation: its own, or else idle ones, or else new ones.
    pub(super) fn take(&self, owner: &Owner) -> Result<ThreadLease> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let own = groups.iter().position(|group| group.owner == *owner);
        let place = own.or_else(|| groups.iter().position(ThreadGroup::is_idle));
        let runtime = match place {
            Some(place) => {
                let group = &mut groups[place];
                group.owner.clone_from(owner);
                Arc::clone(&group.runtime)
            }
            None => {
                let runtime =
                    Arc::new(Threads::start("gatelog-query", self.threads, Priority::Low)?);
                groups.push(ThreadGroup { owner: owner.clone(), runtime: Arc::clone(&runtime) });
                runtime
            }
        };
        let mut idle = 0;
        groups.retain(|group| {
            idle += usize::from(group.is_idle());
            idle <= self.kept
        });
        Ok(ThreadLease(runtime))
    }
}

impl ThreadGroup {
    /// Returns true if no query holds the threads, and no cancelled query still runs on them.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.runtime) == 1
            && self.runtime.handle().is_ok_and(|handle| handle.metrics().num_alive_tasks() == 0)
    }
}

impl ThreadLease {
    /// Returns the handle for spawning.
    pub(super) fn handle(&self) -> Result<Handle> {
        self.0.handle()
    }
}

/// Returns the number of threads of a configuration.
pub(crate) fn threads(config: &Config) -> usize {
    match usize::try_from(config.threads).unwrap_or(1) {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
        threads => threads,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(name.to_owned())
    }

    fn same(one: &ThreadLease, other: &ThreadLease) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    #[test]
    fn no_two_organisations_share_threads_while_one_of_them_works() {
        let threads = QueryThreads::new(1, 2);
        let acme = threads.take(&owner("acme")).unwrap();
        assert!(same(&acme, &threads.take(&owner("acme")).unwrap()));
        let zen = threads.take(&owner("zen")).unwrap();
        assert!(!same(&acme, &zen));
        drop(zen);
        let again = threads.take(&owner("sun")).unwrap();
        assert!(!same(&acme, &again));
        assert_eq!(
            threads.groups.lock().unwrap().len(),
            2,
            "idle threads are reused by the next organisation"
        );
    }

    #[test]
    fn threads_that_are_stuck_stay_with_their_organisation() {
        let threads = QueryThreads::new(1, 2);
        let acme = threads.take(&owner("acme")).unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel::<()>();
        // A batch that does not yield, of a cancelled query.
        let stuck = acme.handle().unwrap().spawn(async move {
            let _ = began.send(());
            let _ = wait.recv();
        });
        begun.recv().unwrap();
        stuck.abort();
        let held = acme.clone();
        drop(acme);
        let zen = threads.take(&owner("zen")).unwrap();
        assert!(!same(&held, &zen));
        let (done, ended) = mpsc::channel();
        zen.handle().unwrap().spawn(async move { done.send(()) });
        ended.recv().unwrap();
        // `held` is only compared with: without it, the stuck task alone keeps the threads.
        let group = Arc::downgrade(&held.0);
        drop(held);
        let sun = threads.take(&owner("sun")).unwrap();
        assert!(!std::ptr::eq(group.as_ptr(), Arc::as_ptr(&sun.0)));
        drop(go_on);
    }
}
