//! Gives the queries of an organisation threads of their own.
//!
//! A batch of an expensive expression cannot be interrupted from outside, so its thread is gone
//! until the batch is done. No two organisations share threads, and nothing but queries runs on
//! them, so such a batch holds up the queries of its own organisation alone. Threads go to another
//! organisation when nothing runs on them any more.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use super::places::Owner;
use crate::error::{Error, Result};

/// Stack of a thread that plans. Planning walks a statement's tree by recursion, about 1 KiB of
/// stack for the smallest step; the text of a statement is bounded so that this is enough for any.
/// Only the part that is used takes memory.
pub const STACK_BYTES: usize = 256 << 20;

/// The threads of all organisations.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Threads of one lane.
    threads: usize,
    /// Lanes without a query that are kept.
    kept: usize,
    lanes: Mutex<Vec<Lane>>,
}

#[derive(Debug)]
struct Lane {
    owner: Owner,
    runtime: Arc<Threads>,
}

/// Threads of one organisation, held while a query runs on them.
#[derive(Clone, Debug)]
pub(super) struct Ticket(Arc<Threads>);

/// A runtime that may be dropped in another one.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Lanes {
    pub(super) fn new(threads: usize, kept: usize) -> Self {
        Self { threads, kept, lanes: Mutex::new(Vec::new()) }
    }

    /// Takes the threads of an organisation: those that it has, else those of nobody, else new
    /// ones.
    pub(super) fn take(&self, owner: &Owner) -> Result<Ticket> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = lanes.iter().position(|lane| lane.owner == *owner);
        let place = own.or_else(|| lanes.iter().position(Lane::is_idle));
        let runtime = match place {
            Some(place) => {
                let lane = &mut lanes[place];
                lane.owner.clone_from(owner);
                Arc::clone(&lane.runtime)
            }
            None => {
                let runtime = Arc::new(Threads::start(self.threads)?);
                lanes.push(Lane { owner: owner.clone(), runtime: Arc::clone(&runtime) });
                runtime
            }
        };
        let mut idle = 0;
        lanes.retain(|lane| {
            idle += usize::from(lane.is_idle());
            idle <= self.kept
        });
        Ok(Ticket(runtime))
    }
}

impl Lane {
    /// Returns whether no query holds the threads, and none that was called off still runs on them.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.runtime) == 1
            && self.runtime.handle().is_ok_and(|handle| handle.metrics().num_alive_tasks() == 0)
    }
}

impl Ticket {
    /// Where to spawn.
    pub(super) fn handle(&self) -> Result<Handle> {
        self.0.handle()
    }
}

impl Threads {
    fn start(threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("gatelog-query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|cause| {
                Error::internal("cannot start threads for queries").with_source(cause)
            })?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Result<Handle> {
        self.0
            .as_ref()
            .map(|runtime| runtime.handle().clone())
            .ok_or_else(|| Error::closed("the threads have ended"))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Dropping a runtime inside another one panics; this way it ends by itself.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(name.to_owned())
    }

    fn same(one: &Ticket, other: &Ticket) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    #[test]
    fn no_two_organisations_share_threads_while_one_of_them_works() {
        let lanes = Lanes::new(1, 2);
        let acme = lanes.take(&owner("acme")).unwrap();
        assert!(same(&acme, &lanes.take(&owner("acme")).unwrap()));
        let zen = lanes.take(&owner("zen")).unwrap();
        assert!(!same(&acme, &zen));
        drop(zen);
        let again = lanes.take(&owner("sun")).unwrap();
        assert!(!same(&acme, &again));
        assert_eq!(
            lanes.lanes.lock().unwrap().len(),
            2,
            "threads without work go to who asks next"
        );
    }

    #[test]
    fn threads_that_are_stuck_stay_with_their_organisation() {
        let lanes = Lanes::new(1, 2);
        let acme = lanes.take(&owner("acme")).unwrap();
        let ((go_on, wait), (began, begun)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        // A batch that does not yield, of a query that was called off.
        let stuck = acme.handle().unwrap().spawn(async move {
            let _ = began.send(());
            let _ = wait.recv();
        });
        begun.recv().unwrap();
        stuck.abort();
        let held = acme.clone();
        drop(acme);
        let zen = lanes.take(&owner("zen")).unwrap();
        assert!(!same(&held, &zen));
        let (done, ended) = mpsc::channel();
        zen.handle().unwrap().spawn(async move { done.send(()) });
        ended.recv().unwrap();
        // `held` is only for the comparison: without it, the stuck task alone keeps the threads.
        let lane = Arc::downgrade(&held.0);
        drop(held);
        let sun = lanes.take(&owner("sun")).unwrap();
        assert!(!std::ptr::eq(lane.as_ptr(), Arc::as_ptr(&sun.0)));
        drop(go_on);
    }
}
