//! Time: the monotonic clock, and a watch over the wall clock.
//!
//! Records expire by the wall clock, which may leap because of an empty battery, a wrong time
//! server or a mistake of an operator. A leap is a step of more than a day relative to the
//! monotonic clock. After a leap nothing is deleted by age until the time is confirmed. The time is
//! confirmed when the clock steps back, when for a while the records of most sending organisations
//! have the new time, or by an operator. Each organisation has one vote, so that no organisation
//! can confirm a wrong time for others.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Smallest step that is a leap.
const LEAP: TimeDelta = TimeDelta::days(1);
/// Time for which records are observed before they confirm a time.
const LISTEN: Duration = Duration::from_secs(600);
/// Most organisations whose votes are counted.
const MAX_VOICES: usize = 10_000;

/// Returns the time of the monotonic clock since this process first asked for it.
pub(crate) fn elapsed() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// A leap of the wall clock that is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leap {
    /// Time that the wall clock would show without the leap.
    pub expected: DateTime<Utc>,
    /// Time that the wall clock showed instead.
    pub found: DateTime<Utc>,
}

/// Watches a wall clock.
#[derive(Debug)]
pub(crate) struct Watch {
    now: fn() -> DateTime<Utc>,
    elapsed: fn() -> Duration,
    in_doubt: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Both clocks at the last look.
    last: (DateTime<Utc>, Duration),
    doubt: Option<Doubt>,
}

#[derive(Debug)]
struct Doubt {
    leap: Leap,
    since: Duration,
    /// Votes of organisations: true if their records have the new time.
    voices: HashMap<String, bool>,
}

impl Doubt {
    fn new(leap: Leap, since: Duration) -> Self {
        Self { leap, since, voices: HashMap::new() }
    }

    fn is_settled(&self, now: DateTime<Utc>, elapsed: Duration) -> bool {
        let passed = elapsed.saturating_sub(self.since);
        let expected = self.leap.expected + TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        let agree = self.voices.values().filter(|agrees| **agrees).count();
        is_near(now, expected) || (passed >= LISTEN && agree * 2 > self.voices.len())
    }
}

fn is_near(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    (one - other).abs() <= LEAP
}

impl Watch {
    /// Starts to watch. The current time of the wall clock is taken to be right.
    pub(crate) fn new(now: fn() -> DateTime<Utc>, elapsed: fn() -> Duration) -> Self {
        let state = Mutex::new(State { last: (now(), elapsed()), doubt: None });
        Self { now, elapsed, in_doubt: AtomicBool::new(false), state }
    }

    /// Restores a leap that was in doubt before a restart, unless the clock has been corrected
    /// since.
    pub(crate) fn resume(&self, leap: Leap) {
        let now = (self.now)();
        if (now - leap.found).abs() < (now - leap.expected).abs() {
            self.doubt(leap);
        }
    }

    /// Compares the wall clock with a time from elsewhere, such as that of a bucket.
    pub(crate) fn compare(&self, expected: DateTime<Utc>) {
        let found = (self.now)();
        if !is_near(found, expected) {
            self.doubt(Leap { expected, found });
        }
    }

    fn doubt(&self, leap: Leap) {
        tracing::error!(
            expected = %leap.expected,
            found = %leap.found,
            "the clock of this machine leapt; nothing expires and no file is deleted until the time is confirmed: correct the \
             clock, or confirm it with `POST /v1/admin/clock`"
        );
        self.state.lock().doubt = Some(Doubt::new(leap, (self.elapsed)()));
        self.in_doubt.store(true, Ordering::Release);
    }

    /// Compares the clocks. Returns the leap that is in doubt.
    pub(crate) fn look(&self) -> Option<Leap> {
        let now = (self.now)();
        let elapsed = (self.elapsed)();
        let mut state = self.state.lock();
        let passed =
            TimeDelta::from_std(elapsed.saturating_sub(state.last.1)).unwrap_or(TimeDelta::MAX);
        let expected = state.last.0.checked_add_signed(passed).unwrap_or(now);
        state.last = (now, elapsed);
        if state.doubt.as_ref().is_some_and(|doubt| doubt.is_settled(now, elapsed)) {
            state.doubt = None;
            self.in_doubt.store(false, Ordering::Release);
            tracing::warn!("the time is confirmed; records expire again");
        } else if state.doubt.is_none() && !is_near(now, expected) {
            drop(state);
            self.doubt(Leap { expected, found: now });
            state = self.state.lock();
        }
        state.doubt.as_ref().map(|doubt| doubt.leap.clone())
    }

    /// Counts the time of a record as a vote of its organisation. Cheap while nothing is in doubt.
    pub(crate) fn hear(&self, organisation: &str, created_at: DateTime<Utc>) {
        if !self.in_doubt.load(Ordering::Acquire) {
            return;
        }
        let agrees = is_near(created_at, (self.now)());
        if let Some(doubt) = &mut self.state.lock().doubt {
            let is_known = doubt.voices.contains_key(organisation);
            if is_known || doubt.voices.len() < MAX_VOICES {
                doubt.voices.insert(organisation.to_owned(), agrees);
            }
        }
    }

    /// Accepts the time of the wall clock; returns the leap that was in doubt.
    pub(crate) fn confirm(&self) -> Option<Leap> {
        let mut state = self.state.lock();
        state.last = ((self.now)(), (self.elapsed)());
        self.in_doubt.store(false, Ordering::Release);
        state.doubt.take().map(|doubt| doubt.leap)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    /// Defines the clocks of one test, in seconds.
    macro_rules! clocks {
        ($wall:ident, $passed:ident) => {
            static $wall: AtomicI64 = AtomicI64::new(0);
            static $passed: AtomicI64 = AtomicI64::new(0);
        };
    }

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn seconds(of: &AtomicI64) -> Duration {
        Duration::from_secs(of.load(Ordering::SeqCst).unsigned_abs())
    }

    #[test]
    fn elapsed_time_is_no_leap_and_a_step_is_one_until_the_clock_is_corrected() {
        clocks!(WALL, PASSED);
        let watch = Watch::new(|| at(WALL.load(Ordering::SeqCst)), || seconds(&PASSED));
        for days in [0, 1, 40, 400] {
            WALL.store(days * DAY, Ordering::SeqCst);
            PASSED.store(days * DAY, Ordering::SeqCst);
            assert_eq!(watch.look(), None, "an idle server");
        }
        WALL.store(401 * DAY - 1, Ordering::SeqCst);
        assert_eq!(watch.look(), None, "less than a day");
        for step in [3650, -30] {
            WALL.store((400 + step) * DAY, Ordering::SeqCst);
            let leap = watch.look().expect("a leap");
            assert_eq!(leap.found, at((400 + step) * DAY));
            assert!(watch.look().is_some(), "it stays in doubt");
            WALL.store(400 * DAY, Ordering::SeqCst);
            assert_eq!(watch.look(), None, "corrected");
        }
    }

    #[test]
    fn most_organisations_confirm_a_time_and_one_alone_does_not_for_others() {
        clocks!(WALL, PASSED);
        let watch = Watch::new(|| at(WALL.load(Ordering::SeqCst)), || seconds(&PASSED));
        watch.hear("acme", at(0));
        WALL.store(30 * DAY, Ordering::SeqCst);
        assert!(watch.look().is_some());
        for _ in 0..100 {
            watch.hear("acme", at(30 * DAY));
        }
        assert!(watch.look().is_some(), "not at once");
        WALL.store(30 * DAY + 600, Ordering::SeqCst);
        PASSED.store(600, Ordering::SeqCst);
        watch.hear("zen", at(600));
        assert!(watch.look().is_some(), "two organisations have two times");
        watch.hear("third", at(30 * DAY + 600));
        assert_eq!(watch.look(), None);
        WALL.store(90 * DAY, Ordering::SeqCst);
        assert!(watch.look().is_some());
        assert!(watch.confirm().is_some(), "an operator confirms");
        assert_eq!(watch.look(), None);
    }

    #[test]
    fn a_doubt_survives_a_restart_unless_the_clock_was_corrected() {
        clocks!(WALL, PASSED);
        let watch = || Watch::new(|| at(WALL.load(Ordering::SeqCst)), || seconds(&PASSED));
        let leap = Leap { expected: at(0), found: at(3650 * DAY) };
        WALL.store(3651 * DAY, Ordering::SeqCst);
        let wrong = watch();
        wrong.resume(leap.clone());
        assert_eq!(wrong.look(), Some(leap.clone()));
        WALL.store(40 * DAY, Ordering::SeqCst);
        let right = watch();
        right.resume(leap);
        assert_eq!(right.look(), None, "a pause");
        right.compare(at(40 * DAY + 60));
        assert_eq!(right.look(), None);
        right.compare(at(10 * DAY));
        assert!(right.look().is_some(), "the bucket has another time");
    }
}
