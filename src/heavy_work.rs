//! Work that takes long and is no query, on threads of the lowest priority, a few threads for each
//! organisation.
//!
//! An organisation that sends or requests much has work for dozens of threads at once. It gets as
//! many as a query has, so the little work of another organisation does not wait behind dozens of
//! threads. Work that waits for something else (a client, memory, a flush) gives its place back
//! meanwhile, so waiting for a place never blocks what another place waits for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::limits::Holder;
use crate::threads::{Priority, Threads};

/// The places of all organisations. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct HeavyWork {
    threads: Arc<Threads>,
    /// Number of places of each holder.
    places: usize,
    holders: Arc<Mutex<HashMap<Holder, Weak<Semaphore>>>>,
}

/// A place of work that runs. Dropping it lets the next work of the organisation start.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None` for work that needs no place.
    places: Option<Arc<Semaphore>>,
    taken: Mutex<Option<OwnedSemaphorePermit>>,
}

impl HeavyWork {
    /// Starts the threads, with so many places for each organisation.
    pub(crate) fn start(places: usize) -> Result<Self> {
        let threads = Threads::start("gatelog-heavy", 1, Priority::Lowest)?;
        Ok(Self { threads: Arc::new(threads), places: places.max(1), holders: Arc::default() })
    }

    /// Runs work that never waits, once its holder has a place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        holder: &Holder,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        // The place is held until the work ends, even if nobody waits for it any more.
        let taken = self.places_of(holder).acquire_owned().await;
        let worked = self.threads.handle()?.spawn_blocking(move || {
            let _taken = taken;
            work()
        });
        worked.await.map_err(|cause| {
            Error::internal("a thread for work that takes long failed").with_source(cause)
        })
    }

    /// Starts work that waits in between, for which it gives back its place ([`Place::pause`]).
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        holder: &Holder,
        work: impl FnOnce(&Place) -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let place = Place { places: Some(self.places_of(holder)), taken: Mutex::default() };
        Ok(self.threads.handle()?.spawn_blocking(move || {
            place.take();
            work(&place)
        }))
    }

    fn places_of(&self, holder: &Holder) -> Arc<Semaphore> {
        let mut holders = self.holders.lock();
        if let Some(places) = holders.get(holder).and_then(Weak::upgrade) {
            return places;
        }
        holders.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.places));
        holders.insert(holder.clone(), Arc::downgrade(&places));
        places
    }
}

impl Place {
    /// Returns the place of work that is too little to need one.
    pub(crate) fn none() -> Self {
        Self { places: None, taken: Mutex::default() }
    }

    /// Gives the place back while `wait` blocks, and then takes one again. Blocks, so it belongs on
    /// a thread for blocking work.
    pub(crate) fn pause<T>(&self, wait: impl FnOnce() -> T) -> T {
        *self.taken.lock() = None;
        let waited = wait();
        self.take();
        waited
    }

    fn take(&self) {
        let Some(places) = &self.places else { return };
        // The semaphore is never closed.
        *self.taken.lock() = Handle::current().block_on(Arc::clone(places).acquire_owned()).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn holder(name: &str) -> Holder {
        Holder::new(Some(name))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_organisation_works_in_its_places_and_another_one_has_its_own() {
        let heavy = HeavyWork::start(2).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let working: Vec<_> = (0..8)
            .map(|_| {
                let heavy = heavy.clone();
                let running = Arc::clone(&running);
                let most = Arc::clone(&most);
                let released = Arc::clone(&released);
                tokio::spawn(async move {
                    let work = move || {
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        released.lock().recv().unwrap();
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    heavy.run(&holder("acme"), work).await.unwrap();
                })
            })
            .collect();
        assert_eq!(heavy.run(&holder("zen"), || 7).await.unwrap(), 7);
        (0..8).for_each(|_| release.send(()).unwrap());
        for work in working {
            work.await.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
        drop(heavy.places_of(&holder("new")));
        assert_eq!(heavy.holders.lock().len(), 1, "idle organisations are forgotten");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_work_lets_other_work_of_its_organisation_pass() {
        let heavy = HeavyWork::start(1).unwrap();
        let (release, released) = mpsc::channel::<()>();
        let wait = move |place: &Place| place.pause(|| released.recv());
        let waiting = heavy.spawn(&holder("acme"), wait).unwrap();
        // Ends only because the work above gives back the only place.
        heavy.run(&holder("acme"), move || release.send(()).unwrap()).await.unwrap();
        waiting.await.unwrap().unwrap();
    }
}
