//! A model of the gateway and its providers for the sample records: the target of a call, its
//! success, retries and latency.

use chrono::{DateTime, Duration, Utc};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::applications::{Model, Route};
use super::bodies::Usage;
use super::plan::Plan;

/// A target in a config.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: &'static Model,
    /// JSON path of the target in the config.
    pub(super) path: String,
    pub(super) mode: &'static str,
}

/// Returns the targets that a call tries, in order.
pub(super) fn targets(route: &Route, paid: bool, rng: &mut SmallRng) -> Vec<Target> {
    let target = |model, place: usize, mode| Target {
        model,
        path: format!("config.targets[{place}]"),
        mode,
    };
    match route {
        Route::Single(model) => vec![Target { model, path: "config".to_owned(), mode: "SINGLE" }],
        Route::Fallback(first, second) => {
            vec![target(first, 0, "FALLBACK"), target(second, 1, "FALLBACK")]
        }
        Route::Loadbalance(weighted) => {
            let places: Vec<usize> = (0..weighted.len()).collect();
            let place =
                places.choose_weighted(rng, |place| weighted[*place].1).copied().unwrap_or(0);
            vec![target(weighted[place].0, place, "LOADBALANCE")]
        }
        Route::Conditional(free, premium) => {
            let (model, place) = if paid { (premium, 1) } else { (free, 0) };
            vec![target(model, place, "CONDITIONAL")]
        }
    }
}

/// Result of sending a call to one target.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: DateTime<Utc>,
    pub(super) status: u16,
    /// Number of the retry that succeeded. 0 if none was needed, -1 if all failed.
    pub(super) retries: i32,
    pub(super) response_ms: i64,
    pub(super) last_token_ms: Option<i64>,
    pub(super) upstream_ms: Option<i64>,
}

impl Sent {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the time at which the answer was complete.
    pub(super) fn end(&self) -> DateTime<Utc> {
        self.at + Duration::milliseconds(self.last_token_ms.unwrap_or(self.response_ms))
    }
}

/// The providers, one of them with a bad hour.
#[derive(Debug)]
pub(super) struct Provider {
    troubled: &'static str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Provider {
    pub(super) fn new(plan: Plan, rng: &mut SmallRng) -> Self {
        let span = Duration::days(i64::from(plan.days));
        // In the second half of the time span, and in the busy part of a day, so that users find it
        // soon.
        let day = plan.end - span * 2 / 5;
        let from = day.date_naive().and_hms_opt(14, 0, 0).map_or(day, |time| time.and_utc());
        let from = from + Duration::minutes(rng.random_range(0..50));
        Self { troubled: "openai", from, to: from + Duration::minutes(rng.random_range(60..110)) }
    }

    /// Sends a call, with up to `retries` retries.
    pub(super) fn call(
        &self,
        rng: &mut SmallRng,
        target: &Target,
        retries: i32,
        at: DateTime<Utc>,
        usage: Usage,
        streamed: bool,
    ) -> Sent {
        let model = target.model;
        let mut waited = 0;
        let mut tries = 0;
        loop {
            let status = self.status(rng, model, at);
            let overhead = rng.random_range(2..9);
            if status == 200 {
                let first = model.first_token_ms * spread(rng, 0.35);
                let last =
                    first + model.token_ms * usage.completion_tokens as f64 * spread(rng, 0.15);
                let first = first as i64 + 1;
                let last = last as i64 + 2;
                let answered = if streamed { first } else { last };
                return Sent {
                    at,
                    status,
                    retries: tries,
                    response_ms: waited + answered + overhead,
                    last_token_ms: streamed.then_some(waited + last + overhead),
                    upstream_ms: Some(answered),
                };
            }
            let upstream =
                if status == 408 { 30_000 } else { (160.0 * spread(rng, 0.6)) as i64 + 20 };
            let retriable = matches!(status, 429 | 500..=504 | 529);
            if tries >= retries || !retriable {
                let exhausted = retriable && retries > 0;
                return Sent {
                    at,
                    status,
                    retries: if exhausted { -1 } else { 0 },
                    response_ms: waited + upstream + overhead,
                    last_token_ms: None,
                    upstream_ms: Some(upstream),
                };
            }
            // The gateway waits 1, 2, 4, ... seconds between tries.
            waited += upstream + (1_000 << tries);
            tries += 1;
        }
    }

    /// Returns a response from the cache.
    pub(super) fn hit(&self, rng: &mut SmallRng, at: DateTime<Utc>, streamed: bool) -> Sent {
        let response_ms = rng.random_range(4..28);
        let last_token_ms = streamed.then(|| response_ms + rng.random_range(1..6));
        Sent { at, status: 200, retries: 0, response_ms, last_token_ms, upstream_ms: None }
    }

    fn status(&self, rng: &mut SmallRng, model: &Model, at: DateTime<Utc>) -> u16 {
        let troubled = model.provider == self.troubled && (self.from..self.to).contains(&at);
        if !rng.random_bool(if troubled { 0.7 } else { 0.022 }) {
            return 200;
        }
        let all: &[u16] = match (troubled, model.provider) {
            (true, _) => &[503, 503, 500, 429],
            (_, "anthropic") => &[529, 529, 429, 429, 500, 400, 408],
            _ => &[429, 429, 429, 500, 503, 400, 401, 408],
        };
        all.choose(rng).copied().unwrap_or(500)
    }
}

/// Returns a factor around 1 that is never negative and has a long upper tail, like latencies.
fn spread(rng: &mut SmallRng, width: f64) -> f64 {
    let bell: f64 = (0..4).map(|_| rng.random::<f64>()).sum::<f64>() - 2.0;
    (bell * 1.73 * width).exp()
}
