//! Feedback of the demo's users: on some of the successful calls, mostly positive, given some time
//! after the answer.

use chrono::TimeDelta;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Builder;

use gatelog::record::{Feedback, HIGHEST_VALUE, LOWEST_VALUE, Record};

/// One in this many calls gets feedback.
const ONE_OF: u32 = 12;

/// Generates feedback. The same seed and records give the same feedback.
#[derive(Debug)]
pub(super) struct Opinions(SmallRng);

impl Opinions {
    pub(super) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Returns the feedback on a call, if it gets any.
    pub(super) fn feedback_on(&mut self, record: &Record) -> Option<Feedback> {
        let random = &mut self.0;
        if !random.random_ratio(1, ONE_OF) || record.is_success != Some(1) {
            return None;
        }
        let value = if random.random_ratio(4, 5) {
            f64::from(random.random_range(1..=10)).min(HIGHEST_VALUE)
        } else {
            f64::from(random.random_range(-10..=-1)).max(LOWEST_VALUE)
        };
        let given_at = record.created_at? + TimeDelta::seconds(random.random_range(5..900));
        let on_one_call = record.trace_id.is_none() || random.random_ratio(1, 4);
        Some(Feedback {
            id: Some(Builder::from_random_bytes(random.random()).into_uuid().to_string()),
            organisation_id: record.organisation_id.clone(),
            workspace_slug: record.workspace_slug.clone(),
            created_at: Some(given_at),
            updated_at: Some(given_at),
            trace_id: record.trace_id.clone(),
            log_id: record.id.clone().filter(|_| on_one_call),
            value: Some(value),
            weight: Some(if random.random_ratio(3, 4) { 1.0 } else { 0.5 }),
            user_id: record.user_id.clone(),
            source: Some("demo".to_owned()),
            ..Feedback::default()
        })
    }
}
