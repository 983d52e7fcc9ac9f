//! Divides a counted resource, such as bytes or slots, among organisations.
//!
//! An organisation may hold at most a multiple of what it leaves free ([`Share`]). One organisation
//! alone gets most of a pool, several get equal parts, and a newcomer always finds room, however
//! many others ask for all they can get. The operator's keys, which act for many organisations, may
//! hold the whole pool.
//!
//! Every wait has a timeout, so holding room while waiting for more delays a request but never
//! blocks one. Waiting requests of one holder are served in turn.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The party that a part of a pool is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Keys that are bound to no organisation, and data that holds records of several
    /// organisations.
    Operator,
    /// Requests that need no key.
    Public,
    /// An organisation.
    Organisation(Arc<str>),
}

impl Holder {
    /// Returns the holder of a request: the organisation of its key, or the operator.
    pub fn new(organisation: Option<&str>) -> Self {
        organisation.map_or(Self::Operator, |organisation| Self::Organisation(organisation.into()))
    }

    /// Returns the holder of records: their organisation, or the operator if they belong to
    /// several.
    pub fn shared_by<'a>(organisations: impl IntoIterator<Item = &'a str>) -> Self {
        let mut organisations = organisations.into_iter();
        let Some(first) = organisations.next() else { return Self::Operator };
        if organisations.all(|other| other == first) {
            return Self::Organisation(first.into());
        }
        Self::Operator
    }
}

/// Part of a pool that one organisation may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// As much as it leaves free: at most half.
    Half,
    /// Three times as much as it leaves free: at most three quarters.
    ThreeQuarters,
}

impl Share {
    fn times(self) -> u64 {
        match self {
            Self::Half => 1,
            Self::ThreeQuarters => 3,
        }
    }
}

/// Reason why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The organisation already holds its share.
    Share,
    /// The whole pool is in use.
    Pool,
    /// The pool is closed.
    Closed,
}

/// A resource with a fixed number of units. Clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    units: u64,
    share: Share,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    free: u64,
    held: HashMap<Holder, u64>,
    /// Waiting requests of each holder, in turn.
    queues: HashMap<Holder, VecDeque<u64>>,
    next_ticket: u64,
    closed: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("units", &self.0.units)
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

/// Units of a pool that are held until this is dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    pool: Pool,
    holder: Holder,
    held: u64,
    /// Units that other holders hold here since [`MemoryReservation::merge`].
    merged: Vec<(Holder, u64)>,
}

impl Pool {
    /// Creates a pool with this many units, at least one.
    pub fn new(units: u64, share: Share) -> Self {
        let units = units.max(1);
        let state = State {
            free: units,
            held: HashMap::new(),
            queues: HashMap::new(),
            next_ticket: 0,
            closed: false,
        };
        Self(Arc::new(Inner { units, share, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Returns the most units that a holder ever gets.
    pub fn most(&self, holder: &Holder) -> u64 {
        let units = self.0.units;
        let times = self.0.share.times();
        match holder {
            Holder::Operator => units,
            // Divides first, because the product would overflow for a large pool.
            _ => (units - units.div_ceil(times + 1)).max(1),
        }
    }

    /// Returns the number of free units.
    pub fn free(&self) -> u64 {
        self.0.state.lock().free
    }

    /// Creates a room without units.
    pub fn room(&self, holder: &Holder) -> MemoryReservation {
        MemoryReservation {
            pool: self.clone(),
            holder: holder.clone(),
            held: 0,
            merged: Vec::new(),
        }
    }

    /// Takes units, or returns at once why there is no room.
    pub fn try_take(&self, holder: &Holder, units: u64) -> Result<MemoryReservation, Full> {
        let mut room = self.room(holder);
        room.grow(units)?;
        Ok(room)
    }

    /// Takes units like [`Self::try_take`], but fails if other requests of the holder are waiting.
    pub fn try_take_in_turn(&self, holder: &Holder, units: u64) -> Result<MemoryReservation, Full> {
        let must_wait = self.0.state.lock().queues.contains_key(holder);
        if must_wait { Err(Full::Share) } else { self.try_take(holder, units) }
    }

    /// Takes units; waits until they are free. A request for more than the holder ever gets is
    /// lowered to that maximum.
    pub async fn take(
        &self,
        holder: &Holder,
        units: u64,
        wait: Duration,
    ) -> Result<MemoryReservation, Full> {
        let mut room = self.room(holder);
        room.grow_within(units.min(self.most(holder)), wait).await?;
        Ok(room)
    }

    /// Takes up to this many units, as far as they are free, regardless of shares: acknowledged
    /// rows must be held.
    pub fn take_available(&self, holder: &Holder, units: u64) -> MemoryReservation {
        let mut room = self.room(holder);
        let mut state = self.0.state.lock();
        let taken = units.min(state.free);
        state.take(holder, taken);
        room.held = taken;
        drop(state);
        room
    }

    /// Refuses all waiting and later requests.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_waiters();
    }

    fn give_back(&self, holder: &Holder, units: u64) {
        if units == 0 {
            return;
        }
        let mut state = self.0.state.lock();
        state.free += units;
        if let Some(held) = state.held.get_mut(holder) {
            *held = held.saturating_sub(units);
            if *held == 0 {
                state.held.remove(holder);
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl State {
    fn take(&mut self, holder: &Holder, units: u64) {
        self.free -= units;
        if units > 0 {
            *self.held.entry(holder.clone()).or_default() += units;
        }
    }
}

impl MemoryReservation {
    /// Grows the room to at least `to` units, or returns at once why it cannot. A refused room
    /// keeps its size.
    pub fn grow(&mut self, to: u64) -> Result<(), Full> {
        self.grow_in_turn(to, None)
    }

    /// Grows the room to at least `to` units; waits until they are free.
    pub async fn grow_within(&mut self, to: u64, wait: Duration) -> Result<(), Full> {
        if wait.is_zero() {
            return self.grow(to);
        }
        // A request never overtakes one of the same holder that is already waiting.
        let must_queue = self.pool.0.state.lock().queues.contains_key(&self.holder);
        if !must_queue && self.grow(to).is_ok() {
            return Ok(());
        }
        let place = Queued::join(&self.pool, &self.holder);
        let mut over = pin!(tokio::time::sleep(wait));
        loop {
            let pool = self.pool.clone();
            let mut changed = pin!(pool.0.changed.notified());
            // No change is missed from here on.
            changed.as_mut().enable();
            let full = match self.grow_in_turn(to, Some(place.ticket)) {
                Ok(()) => return Ok(()),
                Err(Full::Closed) => return Err(Full::Closed),
                Err(full) => full,
            };
            tokio::select! {
                () = changed => {}
                () = &mut over => return Err(full),
            }
        }
    }

    fn grow_in_turn(&mut self, to: u64, ticket: Option<u64>) -> Result<(), Full> {
        let more = to.saturating_sub(self.held);
        if more == 0 {
            return Ok(());
        }
        let mut state = self.pool.0.state.lock();
        if state.closed {
            return Err(Full::Closed);
        }
        let first = state.queues.get(&self.holder).and_then(|queue| queue.front());
        if ticket.is_some() && first != ticket.as_ref() {
            return Err(Full::Share);
        }
        let Some(left) = state.free.checked_sub(more) else { return Err(Full::Pool) };
        let held = state.held.get(&self.holder).copied().unwrap_or_default();
        let share = left.saturating_mul(self.pool.0.share.times());
        // In a pool of one or two units a share would be less than one unit.
        let is_small = self.pool.0.units < 3 && held == 0;
        if self.holder != Holder::Operator && held + more > share && !is_small {
            return Err(Full::Share);
        }
        state.take(&self.holder, more);
        self.held += more;
        Ok(())
    }

    /// Gives back all units.
    pub fn clear(&mut self) {
        self.pool.give_back(&self.holder, std::mem::take(&mut self.held));
        for (holder, units) in std::mem::take(&mut self.merged) {
            self.pool.give_back(&holder, units);
        }
    }

    /// Returns the most units that the room can ever hold.
    pub fn most(&self) -> u64 {
        self.pool.most(&self.holder)
    }

    /// Returns the party that the units are counted for.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Returns the number of units that the room holds.
    pub fn units(&self) -> u64 {
        self.held + self.merged.iter().map(|(_, units)| units).sum::<u64>()
    }

    /// Moves the units of another room of the pool into this one.
    pub fn merge(&mut self, mut other: Self) {
        let own = (other.holder.clone(), std::mem::take(&mut other.held));
        for (holder, units) in std::mem::take(&mut other.merged).into_iter().chain([own]) {
            if holder == self.holder {
                self.held += units;
            } else if let Some((_, held)) =
                self.merged.iter_mut().find(|(known, _)| *known == holder)
            {
                *held += units;
            } else {
                self.merged.push((holder, units));
            }
        }
    }

    /// Moves units into a room of their own. Returns `None` if this room holds fewer.
    pub fn split(&mut self, units: u64) -> Option<Self> {
        self.held = self.held.checked_sub(units)?;
        let mut part = self.pool.room(&self.holder);
        part.held = units;
        Some(part)
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A place in the queue of a holder. Dropping it leaves the queue.
struct Queued {
    pool: Pool,
    holder: Holder,
    ticket: u64,
}

impl Queued {
    fn join(pool: &Pool, holder: &Holder) -> Self {
        let mut state = pool.0.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queues.entry(holder.clone()).or_default().push_back(ticket);
        Self { pool: pool.clone(), holder: holder.clone(), ticket }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut state = self.pool.0.state.lock();
        if let Some(queue) = state.queues.get_mut(&self.holder) {
            queue.retain(|ticket| *ticket != self.ticket);
            if queue.is_empty() {
                state.queues.remove(&self.holder);
            }
        }
        drop(state);
        // The next request in turn may find room now.
        self.pool.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn of(name: &str) -> Holder {
        Holder::new(Some(name))
    }

    /// Takes units one by one until the pool refuses.
    fn all(pool: &Pool, holder: &Holder) -> MemoryReservation {
        let mut room = pool.room(holder);
        while room.grow(room.units() + 1).is_ok() {}
        room
    }

    #[test]
    fn an_organisation_leaves_room_even_if_many_ask_for_everything() {
        for (share, alone) in [(Share::Half, 500), (Share::ThreeQuarters, 750)] {
            let pool = Pool::new(1_000, share);
            assert_eq!(pool.most(&of("0")), alone);
            let rooms: Vec<MemoryReservation> =
                (0..20).map(|number| all(&pool, &of(&number.to_string()))).collect();
            assert_eq!(rooms[0].units(), alone);
            assert!(rooms.windows(2).all(|pair| pair[0].units() >= pair[1].units()));
            assert_eq!(
                pool.free() + rooms.iter().map(MemoryReservation::units).sum::<u64>(),
                1_000
            );
        }
        let pool = Pool::new(64, Share::Half);
        let held: Vec<MemoryReservation> =
            (0..3).map(|number| all(&pool, &of(&number.to_string()))).collect();
        assert!(pool.try_take(&of("new"), 1).is_ok(), "{held:?}");
        drop(held);
        assert_eq!((pool.free(), all(&pool, &Holder::Operator).units()), (64, 64));
    }

    #[test]
    fn rooms_are_counted_for_their_owners_through_merge_and_split() {
        let pool = Pool::new(100, Share::Half);
        let mut a = pool.try_take(&of("a"), 30).unwrap();
        let b = pool.try_take(&of("b"), 20).unwrap();
        a.merge(b);
        assert_eq!((a.units(), pool.try_take(&of("b"), 20).unwrap_err()), (50, Full::Share));
        let part = a.split(10).unwrap();
        assert!(a.split(99).is_none());
        drop(a);
        assert_eq!((part.units(), pool.free()), (10, 90));
        drop(part);
        assert_eq!(pool.free(), 100);
        assert_eq!(pool.take_available(&of("a"), 1_000).units(), 100);
    }

    #[tokio::test]
    async fn waiting_ends_with_room_in_turn_or_with_a_refusal() {
        let pool = Pool::new(100, Share::Half);
        let first = pool.try_take(&of("a"), 50).unwrap();
        assert_eq!(pool.take(&of("a"), 1, Duration::ZERO).await.unwrap_err(), Full::Share);
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |units: u64| {
            let pool = pool.clone();
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                let room = pool.take(&of("a"), units, LONG).await;
                order.lock().push(units);
                room
            })
        };
        let large = wait(50);
        tokio::task::yield_now().await;
        let small = wait(1);
        tokio::task::yield_now().await;
        assert!(pool.try_take(&of("b"), 20).is_ok(), "another holder passes");
        drop(first);
        drop(large.await.unwrap().unwrap());
        small.await.unwrap().unwrap();
        assert_eq!(*order.lock(), [50, 1], "the small one does not pass the large one for ever");
    }

    #[tokio::test]
    async fn a_cancelled_or_closed_wait_blocks_nobody() {
        let pool = Pool::new(100, Share::Half);
        let held = pool.try_take(&of("a"), 50).unwrap();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take(&of("a"), 50, LONG).await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(held);
        let held = pool.take(&of("a"), 50, LONG).await.unwrap();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take(&of("a"), 50, LONG).await }
        });
        tokio::task::yield_now().await;
        pool.close();
        assert_eq!(waiting.await.unwrap().unwrap_err(), Full::Closed);
        drop(held);
        assert_eq!(pool.try_take(&of("b"), 1).unwrap_err(), Full::Closed);
    }

    #[tokio::test]
    async fn a_request_above_the_share_of_its_owner_gets_the_share() {
        let pool = Pool::new(100, Share::ThreeQuarters);
        assert_eq!(pool.take(&of("a"), 1_000, LONG).await.unwrap().units(), 75);
        assert_eq!(Pool::new(1, Share::Half).take(&of("a"), 5, LONG).await.unwrap().units(), 1);
    }

    #[test]
    fn records_of_several_organisations_are_the_operators() {
        assert_eq!(Holder::shared_by(["a", "a"]), of("a"));
        assert_eq!(Holder::shared_by(["a", "b"]), Holder::Operator);
        assert_eq!(Holder::shared_by([]), Holder::Operator);
    }
}
