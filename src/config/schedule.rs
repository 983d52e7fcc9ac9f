//! Schedules of jobs: at a fixed interval, at the times of a cron expression, or never. Pure: the
//! time is an argument.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::error::Error;

/// A schedule: `30s`, `5m` or `1h 30m` (time since the last end), a cron expression of five fields
/// in UTC such as `15 3 * * *`, or `never`.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    text: String,
    when: When,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    Never,
    Every(Duration),
    Cron(Box<Cron>),
}

impl Schedule {
    /// Returns a schedule with an interval of this many seconds.
    pub fn every_seconds(seconds: u64) -> Self {
        let every = Duration::from_secs(seconds);
        Self { text: humantime::format_duration(every).to_string(), when: When::Every(every) }
    }

    /// Returns the schedule of a job that never runs by itself.
    pub fn never() -> Self {
        Self { text: "never".to_owned(), when: When::Never }
    }

    /// Returns the first time after `last` (the last end, or the start of the program) at which the
    /// job is due. `None` means never.
    pub fn next(&self, last: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.when {
            When::Never => None,
            When::Every(every) => last.checked_add_signed(chrono::Duration::from_std(*every).ok()?),
            When::Cron(cron) => cron.find_next_occurrence(&last, false).ok(),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let wrong = || {
            Error::invalid(format!(
                "`{text}` is not a schedule; expected an interval such as `5m`, a cron expression such as `15 3 * * *` (UTC), or `never`"
            ))
        };
        let when = match (text, humantime::parse_duration(text)) {
            ("never", _) => When::Never,
            (_, Ok(every)) if every >= Duration::from_secs(1) => When::Every(every),
            (_, Ok(_)) => return Err(wrong()),
            (_, Err(_)) => When::Cron(Box::new(Cron::from_str(text).map_err(|_| wrong())?)),
        };
        Ok(Self { text: text.to_owned(), when })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, last: &str) -> Option<String> {
        let last = DateTime::parse_from_rfc3339(last).unwrap().to_utc();
        schedule.parse::<Schedule>().unwrap().next(last).map(|at| at.to_rfc3339())
    }

    #[test]
    fn intervals_count_from_the_last_end_and_cron_names_moments_in_utc() {
        assert_eq!(next("1h 30m", "2026-11-21T10:00:00Z").unwrap(), "2026-11-21T11:30:00+00:00");
        assert_eq!(
            next("15 3 * * *", "2026-11-21T03:15:00Z").unwrap(),
            "2026-11-22T03:15:00+00:00"
        );
        assert_eq!(next("never", "2026-11-21T03:15:00Z"), None);
    }

    #[test]
    fn a_text_that_is_not_a_schedule_is_refused_with_examples() {
        for text in ["", "soon", "0s", "61 * * * *", "10ms"] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.message().contains("is not a schedule; expected an interval"), "{error}");
        }
    }
}
