//! Limits the number of concurrent queries, fairly between organisations.
//!
//! There are `query_concurrency` places. One organisation holds at most its share of them, so that
//! its long queries never take all. Queries that find no place wait in a queue of their
//! organisation; a free place goes to the organisations in turn. The length of a queue is limited
//! too: a query that finds it full is refused at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Organisation of a query. `None` for the operator.
pub(super) type Owner = Option<String>;

/// Maximum number of waiting queries of one organisation, for each place that it may hold.
const WAITING_PER_PLACE: usize = 8;

/// The places of all queries.
#[derive(Debug)]
pub(super) struct Places {
    /// Maximum number of places of one organisation.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    held: HashMap<Owner, usize>,
    /// Organisations with waiting queries, in the order of their turns.
    waiting: VecDeque<(Owner, VecDeque<oneshot::Sender<Place>>)>,
}

/// A place of a running query. Dropping it passes it to the next query.
#[derive(Debug)]
pub(super) struct Place {
    owner: Owner,
    places: Arc<Places>,
}

impl Places {
    /// Creates `all` places, of which one organisation may hold `share`.
    pub(super) fn new(all: usize, share: usize) -> Arc<Self> {
        let state = State { free: all, held: HashMap::new(), waiting: VecDeque::new() };
        Arc::new(Self { share: share.clamp(1, all.max(1)), state: Mutex::new(state) })
    }

    /// Waits for a place up to the time-out.
    pub(super) async fn take(self: &Arc<Self>, owner: &Owner, timeout: Duration) -> Result<Place> {
        let turn = self.queue(owner)?;
        match tokio::time::timeout(timeout, turn).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Error::internal("a place for a query was lost")),
            Err(_) => Err(self.busy(owner)),
        }
    }

    /// Queues a query. The receiver gets its place, possibly at once.
    fn queue(self: &Arc<Self>, owner: &Owner) -> Result<oneshot::Receiver<Place>> {
        let (sender, turn) = oneshot::channel();
        let gone = {
            let mut state = self.state();
            let most = self.share.saturating_mul(WAITING_PER_PLACE);
            let queue = state.queue_of(owner);
            // A query whose client has left does not count.
            queue.retain(|waiting| !waiting.is_closed());
            if queue.len() >= most {
                return Err(self.over_share(queue.len()));
            }
            queue.push_back(sender);
            self.hand_out(&mut state)
        };
        drop(gone);
        Ok(turn)
    }

    /// Assigns free places to the organisations in turn. Returns the places of clients that have
    /// left, to be dropped without the lock.
    fn hand_out(self: &Arc<Self>, state: &mut State) -> Vec<Place> {
        let mut gone = Vec::new();
        while let Some((owner, waiting)) = state.next(self.share) {
            let place = Place { owner, places: Arc::clone(self) };
            gone.extend(waiting.send(place).err());
        }
        gone
    }

    fn busy(&self, owner: &Owner) -> Error {
        let state = self.state();
        match state.held.get(owner) {
            Some(held) if *held >= self.share => self.over_share(state.waiting_of(owner)),
            _ => Error::busy(
                "the limit of concurrent queries (`query_concurrency`) is reached; send it again later",
            ),
        }
    }

    fn over_share(&self, waiting: usize) -> Error {
        Error::busy(format!(
            "this organisation runs as many queries as its share allows ({}), and {waiting} more wait; send it again \
             when some have ended, or raise `query_share`",
            self.share
        ))
    }

    /// Returns the number of waiting queries of an organisation.
    #[cfg(test)]
    pub(super) fn waiting(&self, owner: &Owner) -> usize {
        self.state().waiting_of(owner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue_of(&mut self, owner: &Owner) -> &mut VecDeque<oneshot::Sender<Place>> {
        let place =
            self.waiting.iter().position(|(other, _)| other == owner).unwrap_or_else(|| {
                self.waiting.push_back((owner.clone(), VecDeque::new()));
                self.waiting.len() - 1
            });
        &mut self.waiting[place].1
    }

    fn waiting_of(&self, owner: &Owner) -> usize {
        self.waiting.iter().find(|(other, _)| other == owner).map_or(0, |(_, queue)| queue.len())
    }

    /// Takes the next query of an organisation that may have a place. Its organisation moves to the
    /// end of the turns.
    fn next(&mut self, share: usize) -> Option<(Owner, oneshot::Sender<Place>)> {
        if self.free == 0 {
            return None;
        }
        let may = |owner: &Owner| self.held.get(owner).is_none_or(|held| *held < share);
        let turn =
            self.waiting.iter().position(|(owner, queue)| !queue.is_empty() && may(owner))?;
        let (owner, mut queue) = self.waiting.remove(turn)?;
        let next = queue.pop_front()?;
        if !queue.is_empty() {
            self.waiting.push_back((owner.clone(), queue));
        }
        self.free -= 1;
        *self.held.entry(owner.clone()).or_default() += 1;
        Some((owner, next))
    }

    fn give_back(&mut self, owner: &Owner) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(owner) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(owner);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = Arc::clone(&self.places);
        let gone = {
            let mut state = places.state();
            state.give_back(&self.owner);
            places.hand_out(&mut state)
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Some(name.to_owned())
    }

    /// Queues a number of queries of one organisation.
    fn queue(places: &Arc<Places>, name: &str, queries: usize) -> Vec<oneshot::Receiver<Place>> {
        (0..queries).map(|_| places.queue(&owner(name)).unwrap()).collect()
    }

    /// Takes the places that queries have got out of the list.
    fn got(turns: &mut Vec<oneshot::Receiver<Place>>) -> Vec<Place> {
        let mut places = Vec::new();
        turns.retain_mut(|turn| match turn.try_recv() {
            Ok(place) => {
                places.push(place);
                false
            }
            Err(_) => true,
        });
        places
    }

    #[test]
    fn one_organisation_never_holds_more_than_its_share() {
        let places = Places::new(8, 4);
        let mut hostile = queue(&places, "acme", 30);
        let held = got(&mut hostile);
        assert_eq!(held.len(), 4);
        let mut innocent = queue(&places, "zen", 4);
        let served = got(&mut innocent);
        assert_eq!(served.len(), 4, "the other's queries have places at once");
        drop(served);
        assert!(got(&mut hostile).is_empty(), "places of others are not taken");
        drop(held);
        assert_eq!(got(&mut hostile).len(), 4);
    }

    #[test]
    fn places_go_to_organisations_in_turn() {
        let places = Places::new(2, 2);
        let mut hostile = queue(&places, "acme", 12);
        let mut held = got(&mut hostile);
        let mut zen = queue(&places, "zen", 2);
        let mut sun = queue(&places, "sun", 1);
        // Each place that becomes free goes to the next organisation, although ten queries of one
        // have been waiting for longer.
        held.pop();
        let first = got(&mut hostile);
        assert_eq!(first.len(), 1, "its turn came first");
        held.pop();
        let second = got(&mut zen);
        assert_eq!(second.len(), 1);
        drop(first);
        let third = got(&mut sun);
        assert_eq!(third.len(), 1);
        drop(second);
        assert_eq!(got(&mut hostile).len(), 1);
    }

    #[tokio::test]
    async fn who_is_over_its_share_is_refused_and_nobody_else() {
        let places = Places::new(2, 1);
        let mut hostile = queue(&places, "acme", 1 + WAITING_PER_PLACE);
        let held = got(&mut hostile);
        let error = places.take(&owner("acme"), Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Busy);
        assert!(
            error.message().contains("this organisation runs as many queries as its share allows"),
            "{error}"
        );
        drop(places.take(&owner("zen"), Duration::ZERO).await.unwrap());
        // Clients that have left are no longer in the queue.
        drop(hostile);
        let error = places.take(&owner("acme"), Duration::ZERO).await.unwrap_err();
        assert!(error.message().contains("its share"), "{error}");
        drop(held);
        drop(places.take(&owner("acme"), Duration::ZERO).await.unwrap());
        assert_eq!(places.state().free, 2);
        assert!(places.state().held.is_empty());
    }

    #[test]
    fn a_place_whose_client_has_left_goes_to_the_next() {
        let places = Places::new(1, 1);
        let mut first = queue(&places, "acme", 1);
        let held = got(&mut first);
        let second = queue(&places, "acme", 1);
        let mut third = queue(&places, "zen", 1);
        drop(second);
        drop(held);
        assert_eq!(got(&mut third).len(), 1);
        assert_eq!(places.state().free, 1);
    }
}
