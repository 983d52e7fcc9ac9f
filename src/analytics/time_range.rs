//! The time frame of a request and the buckets that it is cut into.
//!
//! Portkey does not document the width of its buckets, so the width depends only on the span: the
//! finest one that gives a chart at most a few hundred points. Buckets follow the clock in UTC, and
//! weeks begin on Monday. The first and last bucket may reach beyond the frame, but only calls
//! within it are counted.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, TimeDelta, Utc};

/// Width of a time bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// A time frame, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeRange {
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
}

impl TimeRange {
    /// Returns the width of the buckets.
    pub(super) fn width(&self) -> Width {
        let span = self.to - self.from;
        let widths = [
            (TimeDelta::hours(3), Width::Minute),
            (TimeDelta::days(7), Width::Hour),
            (TimeDelta::days(400), Width::Day),
            (TimeDelta::days(5 * 366), Width::Week),
            (TimeDelta::days(50 * 366), Width::Month),
        ];
        widths.into_iter().find(|(most, _)| span <= *most).map_or(Width::Year, |(_, width)| width)
    }

    /// Returns the start of each bucket.
    pub(super) fn buckets(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let width = self.width();
        let to = self.to;
        let first = Some(width.start(self.from)).filter(|start| *start <= to);
        std::iter::successors(first, move |start| width.next(*start).filter(|next| *next <= to))
    }
}

impl Width {
    /// Returns the name of the width in responses and for `date_trunc`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Returns the start of the bucket that contains a time.
    fn start(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let day = at.date_naive();
        let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        let first_of = |month| NaiveDate::from_ymd_opt(day.year(), month, 1).unwrap_or(day);
        let seconds = |step: i64| {
            let second = at.timestamp().div_euclid(step) * step;
            DateTime::from_timestamp(second, 0).unwrap_or(at)
        };
        match self {
            Self::Minute => seconds(60),
            Self::Hour => seconds(3600),
            Self::Day => midnight(day),
            Self::Week => {
                midnight(day.week(chrono::Weekday::Mon).checked_first_day().unwrap_or(day))
            }
            Self::Month => midnight(first_of(day.month())),
            Self::Year => midnight(first_of(1)),
        }
    }

    /// Returns the start of the bucket after the one with this start.
    fn next(self, start: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Minute => start.checked_add_signed(TimeDelta::minutes(1)),
            Self::Hour => start.checked_add_signed(TimeDelta::hours(1)),
            Self::Day => start.checked_add_signed(TimeDelta::days(1)),
            Self::Week => start.checked_add_signed(TimeDelta::days(7)),
            Self::Month => start.checked_add_months(Months::new(1)),
            Self::Year => start.checked_add_months(Months::new(12)),
        }
    }
}

/// Formats a time for responses.
pub(super) fn text(at: DateTime<Utc>) -> String {
    crate::time::millis(at)
}
