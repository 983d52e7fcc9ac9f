//! The connections of a server: their number is limited, and a new one replaces an idle one.
//!
//! A new connection always gets a place: at the limit, the oldest connection without a request in
//! progress is dropped, of the address that has most of those. So connections that never finish
//! their headers, from one address or from many, occupy a fixed number of places, and a new client,
//! such as a probe of `/healthz`, is served. Connections with a request in progress stay; there are
//! fewer places for requests than for connections ([`crate::http::middleware::admission`]).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// No complete header has arrived yet.
    Fresh,
    /// The connection is idle between two requests.
    Idle,
    /// A request on the connection is in progress.
    Busy,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    state: State,
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    /// Connections by a number that increases with the start time of their state.
    open: BTreeMap<u64, Entry>,
    next: u64,
}

/// All connections of a server. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    most: usize,
    table: Arc<Mutex<Table>>,
}

/// The place of a connection. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Mutex<Table>>,
    number: Mutex<u64>,
    /// Cancelled when the connection must close.
    pub(crate) gone: CancellationToken,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Place>);

impl Connections {
    /// Creates places for so many connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, table: Arc::default() }
    }

    /// Takes a place for a new connection. Returns `None` if all other connections have a request
    /// in progress.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Arc<Place>> {
        let mut table = self.table.lock();
        if table.open.len() >= self.most {
            let victim = table.victim()?;
            if let Some(entry) = table.open.remove(&victim) {
                entry.gone.cancel();
            }
        }
        let gone = CancellationToken::new();
        let number = table.insert(Entry { address, state: State::Fresh, gone: gone.clone() });
        Some(Arc::new(Place { table: Arc::clone(&self.table), number: Mutex::new(number), gone }))
    }
}

impl Table {
    fn insert(&mut self, entry: Entry) -> u64 {
        self.next += 1;
        self.open.insert(self.next, entry);
        self.next
    }

    /// Returns the connection to drop first.
    fn victim(&self) -> Option<u64> {
        let spare = || self.open.iter().filter(|(_, entry)| entry.state != State::Busy);
        let mut of_address = HashMap::<IpAddr, usize>::new();
        for (_, entry) in spare() {
            *of_address.entry(entry.address).or_default() += 1;
        }
        let most = of_address.values().copied().max()?;
        let crowded = spare().filter(|(_, entry)| of_address.get(&entry.address) == Some(&most));
        crowded.min_by_key(|(number, entry)| (entry.state, **number)).map(|(number, _)| *number)
    }
}

impl Place {
    fn change(&self, state: State) {
        let mut table = self.table.lock();
        let mut number = self.number.lock();
        // A connection that must close has no entry any more.
        if let Some(entry) = table.open.remove(&number) {
            *number = table.insert(Entry { state, ..entry });
        }
    }

    /// Returns true if no request has arrived on the connection yet.
    pub(crate) fn is_fresh(&self) -> bool {
        let table = self.table.lock();
        let number = self.number.lock();
        table.open.get(&number).is_some_and(|entry| entry.state == State::Fresh)
    }

    /// Marks the connection as busy with a request.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.change(State::Busy);
        Answering(Arc::clone(self))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.change(State::Idle);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.number.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn a_new_connection_takes_the_place_of_the_oldest_spare_one_of_the_crowded_address() {
        let connections = Connections::new(4);
        let admit = |last| connections.admit(address(last)).unwrap();
        let other = admit(2);
        let crowd: Vec<_> = (0..3).map(|_| admit(1)).collect();
        let busy = crowd[0].answering();
        let new = admit(3);
        let gone = |place: &Place| place.gone.is_cancelled();
        assert!(gone(&crowd[1]) && !gone(&crowd[0]) && !gone(&crowd[2]) && !gone(&other));
        drop(busy);
        assert!(!crowd[0].is_fresh() && new.is_fresh());
        let _newer = admit(3);
        assert!(
            gone(&crowd[2]) && !gone(&crowd[0]),
            "one that never sent a request goes before an idle one"
        );
    }

    #[test]
    fn any_number_of_half_headers_leaves_room_and_answers_go_on() {
        let connections = Connections::new(8);
        let answered: Vec<_> =
            (0..7).map(|last| connections.admit(address(last)).unwrap()).collect();
        let answering: Vec<_> = answered.iter().map(Place::answering).collect();
        let halves: Vec<_> = (0..100).filter_map(|_| connections.admit(address(9))).collect();
        assert_eq!(halves.len(), 100);
        let last = connections.admit(address(7)).unwrap();
        assert!(halves.iter().all(|half| half.gone.is_cancelled()));
        assert!(answered.iter().all(|place| !place.gone.is_cancelled()));
        let _busy = last.answering();
        assert!(connections.admit(address(8)).is_none(), "all are busy");
        drop(answering);
        assert!(connections.admit(address(8)).is_some());
    }
}
