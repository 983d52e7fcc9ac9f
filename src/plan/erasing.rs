//! Erasures as rules: the rows and files that they name.
//!
//! A row is looked up once for each way to name it (the whole organisation, its end user, its id),
//! independent of the number of erasures. An erasure by user, or of everything, names the records
//! that were created up to a time by the client's clock, and those that had arrived by then by the
//! server's clock. So a record that is dated ahead is erased too if its file is older than the
//! erasure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::facts::{FileFacts, Row};
use crate::record::attempt::call_of;

/// Records to be erased on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Id of the erasure.
    pub id: String,
    /// The organisation that the records belong to.
    pub organisation: String,
    /// Selection of records. Feedback that is itself of the user, or has one of the ids, is
    /// selected too.
    pub what: Erased,
    /// Ids of the feedback that is erased with the records, in all its versions.
    pub feedback: HashSet<String>,
    /// Files written up to this time, in ms since 1970-01-01, hold only records that had arrived
    /// when the erasure was requested.
    pub arrived_ms: i64,
    /// Files written before this time, in ms since 1970-01-01, hold none of the records any more.
    pub clean_before_ms: i64,
}

/// The records of an organisation that an erasure selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erased {
    /// All records that were created up to a time, or had arrived by then.
    All {
        /// The time, in µs since 1970-01-01.
        until: i64,
    },
    /// Records of an end user that were created up to a time, or had arrived by then.
    User {
        /// The user, as `user_id` names it.
        user: String,
        /// The time, in µs since 1970-01-01.
        until: i64,
    },
    /// Records with these ids, and the attempts of calls with these ids.
    Ids(HashSet<String>),
}

/// Erasures in the order of their requests, with indexes for lookups of rows and files.
#[derive(Clone, Debug, Default)]
pub struct Erasures {
    list: Vec<Erasure>,
    by_organisation: BTreeMap<String, Named>,
}

impl PartialEq for Erasures {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

/// The erasures of one organisation.
#[derive(Clone, Debug, Default)]
pub struct Named {
    all: Moments,
    users: HashMap<String, Moments>,
    ids: HashMap<String, usize>,
    feedback: HashMap<String, usize>,
    files: Files,
}

/// Times of erasures of the same records, with their positions in the list. Each time erases more
/// than those before it.
#[derive(Clone, Debug, Default)]
struct Moments(Vec<Moment>);

#[derive(Clone, Copy, Debug)]
struct Moment {
    until: i64,
    arrived_ms: i64,
    place: usize,
}

impl Moments {
    fn add(&mut self, until: i64, arrived_ms: i64, place: usize) {
        let last = self.0.last().map_or((i64::MIN, i64::MIN), |last| (last.until, last.arrived_ms));
        let next = Moment { until: until.max(last.0), arrived_ms: arrived_ms.max(last.1), place };
        if (next.until, next.arrived_ms) != last {
            self.0.push(next);
        }
    }

    /// Returns the position of the first erasure that names a row.
    fn first(&self, row: Row<'_>) -> Option<usize> {
        let first = self
            .0
            .partition_point(|at| row.created_at > at.until && row.written_ms > at.arrived_ms);
        self.0.get(first).map(|at| at.place)
    }
}

/// Reaches of erasures over files, ordered by `clean_before_ms`.
#[derive(Clone, Debug, Default)]
struct Files(Vec<Reach>);

/// Reach of an erasure and of those before it.
#[derive(Clone, Copy, Debug)]
struct Reach {
    clean_before_ms: i64,
    until: i64,
    arrived_ms: i64,
    /// Longest time by which the arrival limit is later than the limit of creation.
    slack_ms: i64,
}

impl Files {
    fn new(mut reaches: Vec<Reach>) -> Self {
        reaches.sort_unstable_by_key(|reach| reach.clean_before_ms);
        let mut most =
            Reach { clean_before_ms: i64::MIN, until: i64::MIN, arrived_ms: i64::MIN, slack_ms: 0 };
        for reach in &mut reaches {
            most.until = most.until.max(reach.until);
            most.arrived_ms = most.arrived_ms.max(reach.arrived_ms);
            most.slack_ms = most.slack_ms.max(reach.slack_ms);
            *reach = Reach { clean_before_ms: reach.clean_before_ms, ..most };
        }
        Self(reaches)
    }

    /// Returns the reach of the erasures that have not been carried out in a file.
    fn open(&self, file: FileFacts<'_>) -> Option<&Reach> {
        let open = self.0.partition_point(|reach| reach.clean_before_ms <= file.modified_ms);
        self.0.get(open.checked_sub(1)?)
    }
}

impl Erasure {
    fn reach(&self) -> Reach {
        let clean_before_ms = self.clean_before_ms;
        match &self.what {
            Erased::All { until } | Erased::User { until, .. } => Reach {
                clean_before_ms,
                // Feedback is erased whenever it was created.
                until: if self.feedback.is_empty() { *until } else { i64::MAX },
                arrived_ms: self.arrived_ms,
                slack_ms: self.arrived_ms.saturating_sub(until.div_euclid(1000)).max(0),
            },
            Erased::Ids(_) => {
                Reach { clean_before_ms, until: i64::MAX, arrived_ms: i64::MIN, slack_ms: 0 }
            }
        }
    }
}

impl Erasures {
    /// Indexes erasures, which are in the order of their requests.
    pub fn new(list: Vec<Erasure>) -> Self {
        let mut by_organisation: BTreeMap<String, Named> = BTreeMap::new();
        let mut reaches: BTreeMap<&str, Vec<Reach>> = BTreeMap::new();
        for (place, erasure) in list.iter().enumerate() {
            let named = by_organisation.entry(erasure.organisation.clone()).or_default();
            let arrived_ms = erasure.arrived_ms;
            match &erasure.what {
                Erased::All { until } => named.all.add(*until, arrived_ms, place),
                Erased::User { user, until } => {
                    named.users.entry(user.clone()).or_default().add(*until, arrived_ms, place);
                }
                Erased::Ids(ids) => ids.iter().for_each(|id| {
                    named.ids.entry(id.clone()).or_insert(place);
                }),
            }
            for id in &erasure.feedback {
                named.feedback.entry(id.clone()).or_insert(place);
            }
            reaches.entry(&erasure.organisation).or_default().push(erasure.reach());
        }
        for (organisation, reaches) in reaches {
            if let Some(named) = by_organisation.get_mut(organisation) {
                named.files = Files::new(reaches);
            }
        }
        Self { list, by_organisation }
    }

    /// Returns all erasures.
    pub fn list(&self) -> &[Erasure] {
        &self.list
    }

    /// Returns the erasures of an organisation. `None` if there are none.
    pub fn for_organisation(&self, organisation: &str) -> Option<&Named> {
        self.by_organisation.get(organisation)
    }

    /// Returns the erasures of each organisation that has any.
    pub fn organisations(&self) -> impl Iterator<Item = &Named> {
        self.by_organisation.values()
    }

    /// Returns the position of the first erasure that names a row.
    pub fn first(&self, row: Row<'_>) -> Option<usize> {
        self.for_organisation(row.organisation).and_then(|named| named.first(row))
    }

    /// Returns true if a file may hold rows that an erasure names.
    pub fn may_be_in(&self, file: FileFacts<'_>) -> bool {
        self.open(file)
            .any(|reach| file.min_created_at <= reach.until || file.modified_ms <= reach.arrived_ms)
    }

    /// Returns true if a file may hold rows that are erased only because of their arrival: rows
    /// that are dated ahead.
    pub fn may_be_ahead_in(&self, file: FileFacts<'_>) -> bool {
        let is_ahead = |reach: &Reach| {
            let written = file.modified_ms.saturating_sub(reach.slack_ms).saturating_mul(1000);
            file.modified_ms <= reach.arrived_ms && file.max_created_at > written
        };
        self.open(file).any(is_ahead)
    }

    fn open<'a>(&'a self, file: FileFacts<'a>) -> impl Iterator<Item = &'a Reach> {
        let bound = |text: Option<&'a str>| text.map_or(Bound::Unbounded, Bound::Included);
        let from = bound(file.min_organisation);
        let to = bound(file.max_organisation);
        let empty = matches!((from, to), (Bound::Included(from), Bound::Included(to)) if from > to);
        let range = (!empty).then(|| self.by_organisation.range::<str, _>((from, to)));
        range.into_iter().flatten().filter_map(move |(_, named)| named.files.open(file))
    }
}

impl Named {
    /// Returns the position of the first erasure that names a row of the organisation.
    pub fn first(&self, row: Row<'_>) -> Option<usize> {
        let by_user =
            row.user.and_then(|user| self.users.get(user)).and_then(|moments| moments.first(row));
        let by_feedback = row.feedback.then(|| self.feedback.get(row.id).copied()).flatten();
        let by_call =
            call_of(row.id).filter(|_| !row.feedback).and_then(|call| self.ids.get(call).copied());
        let all =
            [self.all.first(row), by_user, self.ids.get(row.id).copied(), by_call, by_feedback];
        all.into_iter().flatten().min()
    }

    /// Returns true if there is an erasure by end user.
    pub fn by_user(&self) -> bool {
        !self.users.is_empty()
    }

    /// Returns true if there is an erasure by id, of records or of feedback.
    pub fn by_id(&self, feedback: bool) -> bool {
        !self.ids.is_empty() || (feedback && !self.feedback.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;
    const NOW_MS: i64 = NOW / 1000;

    fn erasure(number: usize, what: Erased) -> Erasure {
        Erasure {
            id: format!("e-{number}"),
            organisation: "acme".to_owned(),
            what,
            feedback: HashSet::new(),
            arrived_ms: NOW_MS,
            clean_before_ms: 0,
        }
    }

    fn user_erasure(number: usize, user: &str, until: i64) -> Erasure {
        erasure(number, Erased::User { user: user.to_owned(), until })
    }

    fn row<'a>(user: &'a str, id: &'a str, created_at: i64, written_ms: i64) -> Row<'a> {
        Row { feedback: false, organisation: "acme", id, user: Some(user), created_at, written_ms }
    }

    fn file(min: i64, max: i64, modified_ms: i64) -> FileFacts<'static> {
        FileFacts {
            retention_days: 0,
            min_created_at: min,
            max_created_at: max,
            min_organisation: Some("a"),
            max_organisation: Some("b"),
            modified_ms,
        }
    }

    #[test]
    fn a_record_that_is_dated_ahead_goes_if_it_had_arrived() {
        let erasures = Erasures::new(vec![user_erasure(0, "ada", NOW)]);
        let century = NOW + 100 * 365 * 86_400_000_000;
        for created_at in [NOW, NOW + 1, century] {
            assert_eq!(
                erasures.first(row("ada", "1", created_at, NOW_MS)),
                Some(0),
                "{created_at}"
            );
        }
        assert_eq!(erasures.first(row("ada", "1", NOW + 1, NOW_MS + 1)), None, "it came later");
        assert_eq!(
            erasures.first(row("ada", "1", NOW + 1, i64::MAX)),
            None,
            "nobody knows when it came"
        );
        assert_eq!(erasures.first(row("ada", "1", NOW, i64::MAX)), Some(0));
        assert_eq!(erasures.first(row("bob", "1", NOW, 0)), None);
        assert!(
            erasures.may_be_in(file(century, century, NOW_MS))
                && !erasures.may_be_in(file(century, century, NOW_MS + 1))
        );
        assert!(erasures.may_be_ahead_in(file(0, century, NOW_MS)));
        assert!(
            !erasures.may_be_ahead_in(file(0, NOW - 1, NOW_MS))
                && !erasures.may_be_ahead_in(file(0, century, NOW_MS + 1))
        );
    }

    /// Compares each lookup with its definition: the first erasure in the list that names the row
    /// or may be in the file.
    #[test]
    fn lookups_answer_as_going_through_all_of_them_does() {
        let mut seed = 7_u64;
        let mut random = |most: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % most
        };
        for _ in 0..50 {
            let mut list = Vec::new();
            for number in 0..random(12) {
                let moment = i64::try_from(random(6)).unwrap();
                let user = format!("u{}", random(3));
                let id = format!("{}", random(4));
                let what = match random(3) {
                    0 => Erased::All { until: moment * 1000 },
                    1 => Erased::User { user, until: moment * 1000 },
                    _ => Erased::Ids(HashSet::from([id.clone()])),
                };
                let feedback = if random(4) == 0 { HashSet::from([id]) } else { HashSet::new() };
                let clean_before_ms = i64::try_from(random(6)).unwrap();
                let number = usize::try_from(number).unwrap();
                list.push(Erasure {
                    arrived_ms: moment,
                    feedback,
                    clean_before_ms,
                    ..erasure(number, what)
                });
            }
            let names = |erasure: &Erasure, row: Row<'_>| {
                let by_time =
                    |until| row.created_at <= until || row.written_ms <= erasure.arrived_ms;
                let is_named = match &erasure.what {
                    Erased::All { until } => by_time(*until),
                    Erased::User { user, until } => row.user == Some(user) && by_time(*until),
                    Erased::Ids(ids) => ids.contains(row.id),
                };
                is_named || (row.feedback && erasure.feedback.contains(row.id))
            };
            let may_be_in = |erasure: &Erasure, file: FileFacts<'_>| {
                let by_time = match &erasure.what {
                    Erased::All { until } | Erased::User { until, .. }
                        if erasure.feedback.is_empty() =>
                    {
                        file.min_created_at <= *until || file.modified_ms <= erasure.arrived_ms
                    }
                    _ => true,
                };
                file.modified_ms >= erasure.clean_before_ms && by_time
            };
            let erasures = Erasures::new(list.clone());
            for _ in 0..100 {
                let user = format!("u{}", random(4));
                let id = format!("{}", random(5));
                let created_at = i64::try_from(random(7000)).unwrap();
                let written_ms = i64::try_from(random(8)).unwrap();
                let row =
                    Row { feedback: random(2) == 0, ..row(&user, &id, created_at, written_ms) };
                let plain = list.iter().position(|erasure| names(erasure, row));
                assert_eq!(erasures.first(row), plain, "{row:?} {list:?}");
                let file = file(created_at, created_at, written_ms);
                let plain = list.iter().any(|erasure| may_be_in(erasure, file));
                assert_eq!(erasures.may_be_in(file), plain, "{file:?} {list:?}");
            }
        }
    }

    /// With four times the erasures, looking up a row or a file takes at most five times as long. A
    /// version that went through all erasures took far longer.
    #[test]
    fn a_row_costs_the_same_however_many_erasures_there_are() {
        let cost = |count: usize| {
            let list =
                (0..count).map(|number| user_erasure(number, &format!("gone-{number}"), NOW));
            let erasures = Erasures::new(list.collect());
            let mut times: Vec<_> = (0..9)
                .map(|_| {
                    let start = Instant::now();
                    let named = (0..5_000)
                        .filter(|at| erasures.first(row("ada", "1", NOW - at, i64::MAX)).is_some());
                    let found = (0..5_000)
                        .filter(|at| erasures.may_be_in(file(NOW + 1 + at, NOW + at, NOW_MS + 1)));
                    assert_eq!((named.count(), found.count()), (0, 0));
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        let few = cost(1_000);
        let many = cost(4_000);
        assert!(many <= few * 5, "{few:?} for 1,000 erasures, {many:?} for 4,000");
    }
}
