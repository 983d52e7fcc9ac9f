//! Recognises logs that Portkey's SDKs send again. An SDK repeats a log once if the response got
//! lost, and the log carries no id.
//!
//! A request counts as repeated if all of this holds: an SDK sent it (it sends its version); it has
//! the same key, the same relevant headers and the same bytes; it arrives within
//! [`WINDOW_SECONDS`]; and it arrives on another connection after that of the first was gone. A
//! client that got its response keeps its connection, so two equal logs of one client count as two.
//! So do those of clients without a retry of their own (curl, load tests, Portkey's `Logger`), and
//! the third of three. The repeated request gets the ids of the first one, and the engine keeps one
//! record per id, whether or not the first was stored.
//!
//! Limits: behind a proxy that keeps its own connections open, a repeated log is stored twice; and
//! two equal logs of two processes, one of which ended within the window, count as one. A client
//! that sends an `id` avoids both.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::ingest::Headers;

/// Time within which a request can be a repeated one. The SDKs repeat at once, and give up a
/// connection that hangs within seconds.
const WINDOW_SECONDS: i64 = 10;
/// Largest number of remembered requests.
const MAX: usize = 10_000;

/// A connection of a client. All its requests carry a clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<()>);

/// Recent requests of SDKs.
#[derive(Debug, Default)]
pub(crate) struct Resends {
    hashers: (RandomState, RandomState),
    known: Mutex<Known>,
}

/// Requests by organisation, so that an organisation with many requests only displaces its own.
#[derive(Debug, Default)]
struct Known {
    of: HashMap<Option<String>, HashMap<u128, First>>,
    len: usize,
}

impl Known {
    fn remove(&mut self, organisation: Option<&str>, name: u128) -> Option<First> {
        let first = self.of.get_mut(&organisation.map(str::to_owned))?.remove(&name)?;
        self.len -= 1;
        Some(first)
    }

    fn insert(&mut self, organisation: Option<&str>, name: u128, first: First, now: DateTime<Utc>) {
        if self.len >= MAX {
            self.make_room(now);
        }
        let before =
            self.of.entry(organisation.map(str::to_owned)).or_default().insert(name, first);
        self.len += usize::from(before.is_none());
    }

    /// Removes requests older than the window, or else all requests of the organisation that has
    /// most.
    fn make_room(&mut self, now: DateTime<Utc>) {
        for requests in self.of.values_mut() {
            requests.retain(|_, first| now - first.at <= TimeDelta::seconds(WINDOW_SECONDS));
        }
        self.of.retain(|_, requests| !requests.is_empty());
        self.len = self.of.values().map(HashMap::len).sum();
        let most = self
            .of
            .iter()
            .max_by_key(|(_, requests)| requests.len())
            .map(|(organisation, _)| organisation.clone());
        if self.len >= MAX
            && let Some(forgotten) = most.and_then(|organisation| self.of.remove(&organisation))
        {
            self.len -= forgotten.len();
        }
    }
}

#[derive(Debug)]
struct First {
    ids: Ids,
    at: DateTime<Utc>,
    connection: Weak<()>,
}

/// The ids of a request's records, derived from one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids(u128);

impl Ids {
    /// Returns the time of their creation, to the millisecond.
    pub(crate) fn made_at(self) -> Option<DateTime<Utc>> {
        let (seconds, nanos) = Uuid::from_u128(self.0).get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }

    /// Returns the id with that number in the request.
    pub(crate) fn id(self, number: u64) -> String {
        // The last bits of a UUIDv7 are random, the bits before them are the time.
        const LAST: u128 = (1 << 62) - 1;
        let last = (self.0 & LAST).wrapping_add(u128::from(number)) & LAST;
        Uuid::from_u128(self.0 & !LAST | last).to_string()
    }
}

impl Resends {
    /// Returns the ids for a request: new ones, or those of the first request if this one is
    /// repeated. Returns `None` if no SDK sent it.
    pub(crate) fn ids(
        &self,
        (organisation, key): (Option<&str>, &str),
        headers: &Headers,
        body: &[u8],
        connection: Option<&Connection>,
        now: DateTime<Utc>,
        fresh: &str,
    ) -> Option<Ids> {
        headers.sdk_version.as_deref()?;
        let connection = connection?;
        let fresh = Ids(Uuid::try_parse(fresh).ok()?.as_u128());
        let request = (key, headers, body);
        let high = self.hashers.0.hash_one(request);
        let low = self.hashers.1.hash_one(request);
        let name = u128::from(high) << 64 | u128::from(low);
        let mut known = self.known.lock();
        let fits = |first: &First| {
            let age = now - first.at;
            age >= TimeDelta::zero()
                && age <= TimeDelta::seconds(WINDOW_SECONDS)
                && first.connection.strong_count() == 0
        };
        if let Some(first) = known.remove(organisation, name).filter(fits) {
            return Some(first.ids);
        }
        let first = First { ids: fresh, at: now, connection: Arc::downgrade(&connection.0) };
        known.insert(organisation, name, first, now);
        Some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: [&str; 3] = [
        "019a0000-0000-7000-8000-000000000001",
        "019a0000-0000-7000-8000-000000000002",
        "019a0000-0000-7000-bfff-ffffffffffff",
    ];

    fn headers(version: Option<&str>) -> Headers {
        Headers { sdk_version: version.map(str::to_owned), ..Headers::default() }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_278_418 + seconds, 0).unwrap()
    }

    #[test]
    fn a_log_sent_again_after_its_connection_broke_gets_the_first_ones_ids_once() {
        let resends = Resends::default();
        let sdk = headers(Some("portkey-2.3.4"));
        let ask = |body: &str, connection: &Connection, seconds: i64, fresh: &str| {
            resends
                .ids((None, "key"), &sdk, body.as_bytes(), Some(connection), at(seconds), fresh)
                .unwrap()
        };
        let first = Connection::default();
        let second = Connection::default();
        let ids = ask("a", &first, 0, FRESH[0]);
        drop(first);
        assert_eq!(ask("a", &second, 2, FRESH[1]), ids);
        assert_ne!(ask("a", &second, 3, FRESH[1]), ids, "the third is another log");
    }

    #[test]
    fn logs_that_are_equal_for_another_reason_stay_apart() {
        let resends = Resends::default();
        let sdk = headers(Some("portkey-2.3.4"));
        let ask =
            |key: &str, headers: &Headers, body: &[u8], connection: Connection, seconds: i64| {
                resends.ids(
                    (None, key),
                    headers,
                    body,
                    Some(&connection),
                    at(seconds),
                    FRESH[(seconds % 2) as usize],
                )
            };
        let live = Connection::default();
        assert!(
            ask("k", &sdk, b"live", live.clone(), 0) != ask("k", &sdk, b"live", live.clone(), 1),
            "one connection"
        );
        let other = Connection::default();
        ask("k", &sdk, b"both", live.clone(), 0);
        assert_ne!(
            ask("k", &sdk, b"both", other, 1).unwrap().id(0),
            FRESH[0],
            "the first one's connection lives"
        );
        let gone = Connection::default;
        let traced = Headers { trace_id: Some("t".to_owned()), ..sdk.clone() };
        for (key, headers, body, seconds) in [
            ("other", &sdk, "x", 1),
            ("k", &traced, "x", 1),
            ("k", &sdk, "y", 1),
            ("k", &sdk, "x", 11),
        ] {
            ask("k", &sdk, b"x", gone(), 0);
            assert_eq!(
                ask(key, headers, body.as_bytes(), gone(), seconds).unwrap().id(0),
                FRESH[1]
            );
        }
        assert_eq!(ask("k", &headers(None), b"z", gone(), 0), None);
        assert_eq!(resends.ids((None, "k"), &sdk, b"z", None, at(0), FRESH[0]), None);
    }

    #[test]
    fn ids_are_version_7_and_apart() {
        let ids = Ids(Uuid::parse_str(FRESH[2]).unwrap().as_u128());
        let made: std::collections::HashSet<String> =
            (0..1_000).map(|number| ids.id(number)).collect();
        assert_eq!(made.len(), 1_000);
        for id in made {
            let id = Uuid::parse_str(&id).unwrap();
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let resends = Resends::default();
        let sdk = headers(Some("portkey-2.3.4"));
        let ask = |organisation: &str, number: usize, fresh: &str| {
            let bytes = number.to_le_bytes();
            let connection = Connection::default();
            resends
                .ids((Some(organisation), "k"), &sdk, &bytes, Some(&connection), at(0), fresh)
                .unwrap()
        };
        let first = ask("zen", 0, FRESH[1]);
        for number in 0..3 * MAX {
            ask("acme", number, FRESH[0]);
        }
        assert!(resends.known.lock().len <= MAX);
        assert_eq!(ask("zen", 0, FRESH[0]), first, "another organisation's are not forgotten");
    }
}
