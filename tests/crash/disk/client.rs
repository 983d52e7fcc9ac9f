//! The requests and acks of clients, in the order of the disk's operations, and what must
//! therefore be there.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use gatelog::Record;
use gatelog::record::Message;

/// The state of an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Active,
    Revoked,
}

/// The parts of a record that come alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Figures,
    Content,
}

/// Something that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    Record(String),
    Part(String, Part),
    Feedback(String, i64),
    Key(String, KeyState),
    /// Organisation and plan.
    Plan(String, String),
    /// Records that go: erased, or past their retention by a change of plan.
    Gone(Vec<String>),
    /// An erasure of those ids is noted.
    Erasure(Vec<String>),
    /// A copy of everything.
    Copy,
}

/// A wish that was sent or acked when the disk had done so many operations.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: usize,
    pub wish: Wish,
    pub is_acked: bool,
}

/// A value that changes: the one acked last, and those that were sent after it.
#[derive(Clone, Debug)]
pub struct Allowed<T> {
    pub acked: Option<T>,
    pub sent: Vec<T>,
}

impl<T> Default for Allowed<T> {
    fn default() -> Self {
        Self { acked: None, sent: Vec::new() }
    }
}

impl<T: PartialEq + Clone + fmt::Debug> Allowed<T> {
    fn note(&mut self, value: T, is_acked: bool) {
        if is_acked {
            *self = Self { acked: Some(value), sent: Vec::new() };
        } else {
            self.sent.push(value);
        }
    }

    fn check(&self, what: &str, found: Option<&T>) -> Result<(), String> {
        let is_sent = found.is_some_and(|found| self.sent.contains(found));
        if found == self.acked.as_ref() || is_sent {
            return Ok(());
        }
        Err(format!("{what} is {found:?}, expected {:?} or any of {:?}", self.acked, self.sent))
    }
}

/// Rows that must be there, and rows that may be there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    records: BTreeMap<String, bool>,
    /// Of each part, whether it was acked; none if it was not sent.
    parts: BTreeMap<String, [Option<bool>; 2]>,
    feedback: BTreeMap<String, Allowed<i64>>,
    keys: BTreeMap<String, Allowed<KeyState>>,
    plans: BTreeMap<String, Allowed<String>>,
    gone: BTreeMap<String, bool>,
    erasures: Vec<Vec<String>>,
    /// True if a copy was acked.
    pub has_copy: bool,
}

/// A row of `logs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: String,
    pub organisation: String,
    pub units: Option<i64>,
    pub cost: Option<f64>,
    pub request: Option<String>,
}

/// Rows that an engine shows.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub rows: Vec<Row>,
    pub feedback: Vec<(String, i64)>,
    pub keys: BTreeMap<String, KeyState>,
    pub plans: BTreeMap<String, String>,
    /// Ids of each erasure.
    pub erasures: Vec<Vec<String>>,
}

impl Expected {
    /// Returns the expectation after so many operations of the disk.
    pub fn at(events: &[Event], step: usize) -> Self {
        let mut expected = Self::default();
        for event in events.iter().filter(|event| event.at <= step) {
            expected.note(&event.wish, event.is_acked);
        }
        expected
    }

    fn note(&mut self, wish: &Wish, is_acked: bool) {
        match wish.clone() {
            Wish::Record(id) => *self.records.entry(id).or_default() |= is_acked,
            Wish::Part(id, part) => {
                let acked = self.parts.entry(id).or_default()[part as usize].get_or_insert(false);
                *acked |= is_acked;
            }
            Wish::Feedback(id, value) => self.feedback.entry(id).or_default().note(value, is_acked),
            Wish::Key(name, state) => self.keys.entry(name).or_default().note(state, is_acked),
            Wish::Plan(organisation, plan) => {
                self.plans.entry(organisation).or_default().note(plan, is_acked)
            }
            Wish::Gone(ids) => {
                ids.into_iter().for_each(|id| *self.gone.entry(id).or_default() |= is_acked)
            }
            Wish::Erasure(ids) if is_acked => self.erasures.push(ids),
            Wish::Erasure(_) => {}
            Wish::Copy => self.has_copy |= is_acked,
        }
    }

    /// Compares with what is there.
    pub fn check(&self, shown: &Shown) -> Result<(), String> {
        let mut rows: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in &shown.rows {
            if rows.insert(&row.id, row).is_some() {
                return Err(format!("record {} is stored more than once", row.id));
            }
        }
        self.check_records(&rows)?;
        self.check_parts(&rows)?;
        let feedback: BTreeMap<&str, &i64> =
            shown.feedback.iter().map(|(id, value)| (id.as_str(), value)).collect();
        if feedback.len() != shown.feedback.len() {
            return Err(format!("feedback is there twice: {:?}", shown.feedback));
        }
        for (id, allowed) in &self.feedback {
            allowed.check(&format!("feedback {id}"), feedback.get(id.as_str()).copied())?;
        }
        for (name, allowed) in &self.keys {
            allowed.check(&format!("key {name}"), shown.keys.get(name))?;
        }
        for (organisation, allowed) in &self.plans {
            allowed.check(&format!("the plan of {organisation}"), shown.plans.get(organisation))?;
        }
        match self.erasures.iter().find(|ids| !shown.erasures.contains(ids)) {
            Some(ids) => Err(format!("an acked erasure is gone: {ids:?}")),
            None => Ok(()),
        }
    }

    fn check_records(&self, rows: &BTreeMap<&str, &Row>) -> Result<(), String> {
        for (id, is_acked) in &self.records {
            match (rows.get(id.as_str()), self.gone.get(id)) {
                (None, None) if *is_acked => {
                    return Err(format!("record {id} was acked and is lost"));
                }
                (None, _) => {}
                (Some(_), Some(true)) => {
                    return Err(format!("record {id} was taken out and is back"));
                }
                (Some(row), _) if **row != row_of(id) => {
                    return Err(format!(
                        "record {id} has other values: {row:?}, expected {:?}",
                        row_of(id)
                    ));
                }
                (Some(_), _) => {}
            }
        }
        let known = |id: &str| self.records.contains_key(id) || self.parts.contains_key(id);
        match rows.keys().find(|id| !known(id)) {
            Some(id) => Err(format!("record {id} was never sent")),
            None => Ok(()),
        }
    }

    fn check_parts(&self, rows: &BTreeMap<&str, &Row>) -> Result<(), String> {
        for (id, parts) in &self.parts {
            let row = rows.get(id.as_str());
            let has = [
                row.is_some_and(|row| row.units.is_some()),
                row.is_some_and(|row| row.request.is_some()),
            ];
            for (part, (acked, has)) in
                [Part::Figures, Part::Content].iter().zip(parts.iter().zip(has))
            {
                match acked {
                    Some(true) if !has => {
                        return Err(format!("{part:?} of {id} was acked and is lost: {row:?}"));
                    }
                    None if has => return Err(format!("{part:?} of {id} was never sent")),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Returns the record with this id.
pub fn record(id: &str) -> Record {
    let row = row_of(id);
    let body = row.request.map(|text| format!("{{\"text\":\"{text}\"}}"));
    Record {
        id: Some(row.id),
        organisation_id: Some(row.organisation),
        created_at: Some(made_at(id)),
        total_units: row.units,
        cost: row.cost,
        request: Message { body, headers: None },
        ..Record::default()
    }
}

/// The same with only one of its parts.
pub fn part_of(id: &str, part: Part) -> Record {
    let whole = record(id);
    match part {
        Part::Figures => Record { request: Message::default(), ..whole },
        Part::Content => Record { total_units: None, cost: None, ..whole },
    }
}

/// The row of a record, by its id: `old-…` are of a past day.
pub fn row_of(id: &str) -> Row {
    let number =
        id.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10_000;
    Row {
        id: id.to_owned(),
        organisation: organisation_of(id).to_owned(),
        units: Some(number.into()),
        cost: Some(f64::from(number) / 8.0),
        // Some bodies go over several pages of the disk.
        request: Some(format!("{number} ").repeat(if number % 5 == 0 { 2_000 } else { 20 })),
    }
}

/// Whose a record is: the last letter of its id says it.
fn organisation_of(id: &str) -> &'static str {
    if id.ends_with('b') { "org-b" } else { "org-a" }
}

fn made_at(id: &str) -> DateTime<Utc> {
    let day = if id.starts_with("old") { "2026-11-05T09:00:00Z" } else { "2026-11-25T09:00:00Z" };
    DateTime::parse_from_rfc3339(day).map(|at| at.to_utc()).unwrap_or_default()
}
