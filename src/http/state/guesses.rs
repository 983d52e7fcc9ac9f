//! Delays of responses to wrong keys, by address: each further wrong key of an address waits
//! longer. A valid key is never delayed, whatever else comes from its address.
//!
//! The table and the number of waiting requests are bounded. Beyond that a wrong key gets 429 at
//! once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

/// Wrong keys of an address that are answered at once. A person may mistype a key, or use a revoked
/// one.
const FREE: u32 = 10;
/// First delay. It doubles with each further wrong key.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Time without a wrong key after which the count of an address restarts.
const FORGET: Duration = Duration::from_secs(600);
/// Largest number of addresses in the table. If all of them are recent, the table is emptied,
/// except for those with waiting requests.
const MAX_ADDRESSES: usize = 10_000;
/// Largest number of waiting requests of one address, and of all.
const MAX_WAITING_OF_ONE: u32 = 8;
const MAX_WAITING: u32 = 64;

/// Address of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Addresses that sent wrong keys.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<IpAddr, Wrong>,
    waiting: u32,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Duration,
    waiting: u32,
}

/// A waiting request. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    guesses: &'a Guesses,
    address: IpAddr,
    pub(crate) wait: Duration,
}

impl Guesses {
    /// Counts a wrong key at a moment of the monotonic clock, and returns the delay of its
    /// response. Returns `None` if too many requests wait.
    pub(crate) fn wrong(&self, address: IpAddr, now: Duration) -> Option<Waiting<'_>> {
        let mut table = self.0.lock();
        if !table.addresses.contains_key(&address) && table.addresses.len() >= MAX_ADDRESSES {
            let is_recent =
                |wrong: &Wrong| wrong.waiting > 0 || now.saturating_sub(wrong.last) < FORGET;
            table.addresses.retain(|_, wrong| is_recent(wrong));
            if table.addresses.len() >= MAX_ADDRESSES {
                table.addresses.retain(|_, wrong| wrong.waiting > 0);
            }
        }
        let full = table.waiting >= MAX_WAITING;
        let wrong =
            table.addresses.entry(address).or_insert(Wrong { count: 0, last: now, waiting: 0 });
        if wrong.waiting == 0 && now.saturating_sub(wrong.last) >= FORGET {
            wrong.count = 0;
        }
        (wrong.count, wrong.last) = (wrong.count.saturating_add(1), now);
        let wait = match wrong.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(_) if full || wrong.waiting >= MAX_WAITING_OF_ONE => return None,
            Some(doublings) => {
                FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_WAIT)
            }
        };
        wrong.waiting += 1;
        table.waiting += 1;
        Some(Waiting { guesses: self, address, wait })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.guesses.0.lock();
        table.waiting -= 1;
        if let Some(wrong) = table.addresses.get_mut(&self.address) {
            wrong.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_guesser_waits_longer_each_time_and_others_do_not() {
        let guesses = Guesses::default();
        let wait = |of, at| {
            guesses.wrong(address(of), Duration::from_secs(at)).map(|waiting| waiting.wait)
        };
        for _ in 0..FREE {
            assert_eq!(wait(1, 0), Some(Duration::ZERO));
        }
        let waits: Vec<u128> =
            (0..8).filter_map(|_| wait(1, 0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(wait(2, 0), Some(Duration::ZERO));
        assert_eq!(wait(1, 600), Some(Duration::ZERO), "after a while it begins again");
    }

    #[test]
    fn the_table_and_those_who_wait_are_bounded() {
        let guesses = Guesses::default();
        let now = Duration::ZERO;
        for number in 0..3 * u32::try_from(MAX_ADDRESSES).unwrap() {
            guesses.wrong(address(number), now);
        }
        assert!(guesses.0.lock().addresses.len() <= MAX_ADDRESSES);
        (0..FREE).for_each(|_| drop(guesses.wrong(address(7), now)));
        let waiting: Vec<Waiting<'_>> =
            (0..100).map_while(|_| guesses.wrong(address(7), now)).collect();
        assert_eq!(waiting.len(), MAX_WAITING_OF_ONE as usize);
        drop(waiting);
        assert!(guesses.wrong(address(7), now).is_some());
        assert_eq!(guesses.0.lock().waiting, 0);
    }
}
