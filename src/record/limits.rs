//! Limits of values: text lengths, ranges of figures and times, and what happens beyond them.
//!
//! Each column states its limit in the table of columns, so none is without one. The limits apply
//! to every way in: [`Record::keep_limits`](super::Record::keep_limits) is called for each row
//! before it is written. Figures are limited so that sums over billions of rows fit 64 bits. An
//! over-long name becomes null; an over-long id refuses its row, because truncated ids could make
//! two rows one.

use chrono::{DateTime, Datelike, Utc};

use super::json::field_error::FieldError;
use super::json::reason::Reason;
use super::message::Message;
use crate::time;

/// Maximum length of an id, in bytes of UTF-8.
pub(crate) const ID_BYTES: usize = 512;
/// Maximum length of a name, in bytes.
pub(crate) const NAME_BYTES: usize = 1 << 10;
/// Maximum length of a URL, in bytes.
pub(crate) const URL_BYTES: usize = 8 << 10;
/// Largest whole number: tokens, or milliseconds.
pub(crate) const MAX_FIGURE: i64 = 1_000_000_000;
/// Largest fractional number: cents, or a rating.
pub(crate) const MAX_FRACTION: f64 = 1e9;
/// Maximum number of metadata pairs.
pub const MAX_TAGS: usize = 256;
/// Maximum length of a metadata key and value, in bytes.
pub(crate) const TAG_BYTES: [usize; 2] = [512, 8 << 10];
/// Allowed years of times: those from 1970 on that readers with nanoseconds can represent.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2261;
/// Requirements of a time, for the message of a refusal.
pub(crate) const TIME: &str = "a time of the years 1970 to 2261 such as 2026-11-21T16:26:58.758Z, or a number since \
                               1970 in s, ms, µs or ns; without one it is the time of arrival";
const NOT_BELOW: &str = "0 or more; leave it out if it is unknown";

/// Limit of a column, and what happens to a value beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A text that identifies rows, traces or owners. A longer one refuses its row.
    Id,
    /// A name. A longer one becomes null.
    Name,
    /// A URL or a config. A longer one becomes null.
    Url,
    /// A whole number from 0. A larger one becomes null; a negative one refuses its row.
    Figure,
    /// Cents, from 0. A larger number becomes null; a negative one refuses its row.
    Money,
    /// A number with few values, limited by its type.
    Code,
    /// A time. One of another year refuses its row.
    Time,
    /// Metadata. Pairs beyond the limit, and longer ones, are left out.
    Tags,
    /// Bodies and headers, limited with the record as a whole.
    Message,
}

impl Limit {
    /// Returns the limit's line in the guide: the allowed values, and what happens beyond them.
    pub fn says(self) -> (String, &'static str) {
        match self {
            Self::Id => (format!("{ID_BYTES} bytes"), "the record is refused"),
            Self::Name => (format!("{NAME_BYTES} bytes"), "null, counted"),
            Self::Url => (format!("{URL_BYTES} bytes"), "null, counted"),
            Self::Figure => {
                (format!("0 to {MAX_FIGURE}"), "above: null, counted; below: the record is refused")
            }
            Self::Money => (
                format!("0 to {MAX_FRACTION}"),
                "above: null, counted; below: the record is refused",
            ),
            Self::Code => ("32 bits, or a flag".to_owned(), "the record is refused, or null"),
            Self::Time => {
                (format!("{} to {}", YEARS.start(), YEARS.end()), "the record is refused")
            }
            Self::Tags => {
                let [key, value] = TAG_BYTES;
                (
                    format!("{MAX_TAGS} pairs, keys of {key} and values of {value} bytes"),
                    "left out, counted",
                )
            }
            Self::Message => {
                ("`max_record_bytes` of a whole record".to_owned(), "the record is refused")
            }
        }
    }

    /// Longest text, in bytes.
    pub(super) fn text_bytes(self) -> usize {
        match self {
            Self::Id => ID_BYTES,
            Self::Name => NAME_BYTES,
            _ => URL_BYTES,
        }
    }
}

/// Returns true if a row can have this time.
pub(crate) fn is_storable(time: DateTime<Utc>) -> bool {
    YEARS.contains(&time.year())
}

/// A value with a limit.
pub(super) trait Limited {
    /// Applies the limit, or refuses the row. Adds the number of values left out to `left_out`.
    fn keep(
        &mut self,
        name: &'static str,
        limit: Limit,
        left_out: &mut u64,
    ) -> Result<(), FieldError>;
}

/// Removes a value that is beyond its limit.
fn leave_out<T>(value: &mut Option<T>, left_out: &mut u64) {
    *value = None;
    *left_out += 1;
}

/// Returns the refusal of a text that is too long.
pub(super) fn too_long(name: &str, bytes: usize, limit: Limit) -> FieldError {
    let expected = format!("at most {} bytes, not {bytes}; send a shorter one", limit.text_bytes());
    FieldError::silent(name, expected).because(Reason::TooLarge)
}

impl Limited for Option<String> {
    fn keep(
        &mut self,
        name: &'static str,
        limit: Limit,
        left_out: &mut u64,
    ) -> Result<(), FieldError> {
        let Some(bytes) =
            self.as_ref().map(String::len).filter(|bytes| *bytes > limit.text_bytes())
        else {
            return Ok(());
        };
        if limit == Limit::Id {
            return Err(too_long(name, bytes, limit));
        }
        leave_out(self, left_out);
        Ok(())
    }
}

impl Limited for Option<i64> {
    fn keep(&mut self, name: &'static str, _: Limit, left_out: &mut u64) -> Result<(), FieldError> {
        match *self {
            Some(figure) if figure < 0 => {
                Err(FieldError::new(name, &figure.to_string(), NOT_BELOW))
            }
            Some(figure) if figure > MAX_FIGURE => {
                leave_out(self, left_out);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Limited for Option<f64> {
    fn keep(
        &mut self,
        name: &'static str,
        limit: Limit,
        left_out: &mut u64,
    ) -> Result<(), FieldError> {
        match *self {
            Some(number) if limit == Limit::Money && number < 0.0 => {
                Err(FieldError::new(name, &number.to_string(), NOT_BELOW))
            }
            Some(number) if number.is_nan() || number.abs() > MAX_FRACTION => {
                leave_out(self, left_out);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Limited for Option<DateTime<Utc>> {
    fn keep(&mut self, name: &'static str, _: Limit, _: &mut u64) -> Result<(), FieldError> {
        match self.filter(|time| !is_storable(*time)) {
            Some(time) => Err(FieldError::new(name, &time::shortest(time), TIME)),
            None => Ok(()),
        }
    }
}

impl Limited for Vec<(String, String)> {
    fn keep(&mut self, _: &'static str, _: Limit, left_out: &mut u64) -> Result<(), FieldError> {
        let before = self.len();
        let [most_key, most_value] = TAG_BYTES;
        self.retain(|(key, value)| key.len() <= most_key && value.len() <= most_value);
        self.truncate(MAX_TAGS);
        *left_out += (before - self.len()) as u64;
        Ok(())
    }
}

/// Implements a limit that the type enforces, or that applies to the record as a whole.
macro_rules! bounded {
    ($($type:ty),*) => {$(
        impl Limited for $type {
            fn keep(&mut self, _: &'static str, _: Limit, _: &mut u64) -> Result<(), FieldError> {
                Ok(())
            }
        }
    )*};
}
bounded!(Option<i32>, Option<bool>, Message);

macro_rules! keep_limits {
    ($row:ident; $($name:ident: $limit:ident;)*) => {
        impl $row {
            /// Applies the limits of all columns. Removes names, figures and metadata beyond their
            /// limits and returns their number, or refuses the row.
            pub fn keep_limits(
                &mut self,
            ) -> Result<u64, $crate::record::json::field_error::FieldError> {
                let mut left_out = 0;
                $(limits::Limited::keep(
                    &mut self.$name, stringify!($name), limits::Limit::$limit, &mut left_out,
                )?;)*
                Ok(left_out)
            }
        }
    };
}
pub(super) use keep_limits;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{COLUMNS, Feedback, Kind, Record, Rows};

    #[test]
    fn the_limit_of_each_column_is_one_of_its_kind() {
        for rows in Rows::ALL {
            for column in rows.columns() {
                let limits: &[Limit] = match column.kind {
                    Kind::Text => &[Limit::Id, Limit::Name, Limit::Url],
                    Kind::Int => &[Limit::Figure],
                    Kind::Float => &[Limit::Money, Limit::Code],
                    Kind::Short | Kind::Bool => &[Limit::Code],
                    Kind::Time => &[Limit::Time],
                    Kind::Tags => &[Limit::Tags],
                    Kind::Message => &[Limit::Message],
                };
                assert!(limits.contains(&column.limit), "{}: {:?}", column.name, column.limit);
            }
        }
    }

    /// Parses the record of a JSON object with one key.
    fn with(name: &str, value: &str) -> Record {
        crate::record::json::parse(&format!("{{\"{name}\":{value}}}")).unwrap()
    }

    #[test]
    fn a_value_at_the_limit_of_its_column_is_kept_and_one_beyond_is_not() {
        for column in COLUMNS {
            let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
            let (at, beyond) = match column.limit {
                Limit::Id | Limit::Name | Limit::Url => {
                    (text(column.limit.text_bytes()), text(column.limit.text_bytes() + 1))
                }
                Limit::Figure => (MAX_FIGURE.to_string(), i64::MAX.to_string()),
                Limit::Money => (MAX_FRACTION.to_string(), "1.7e308".to_owned()),
                Limit::Time => {
                    ("\"2261-12-31T23:59:59Z\"".to_owned(), "\"2262-01-01T00:00:00Z\"".to_owned())
                }
                Limit::Tags => {
                    let of = |pairs: usize| {
                        let pairs: Vec<String> =
                            (0..pairs).map(|pair| format!("\"{pair}\":\"\"")).collect();
                        format!("{{{}}}", pairs.join(","))
                    };
                    (of(MAX_TAGS), of(MAX_TAGS + 1))
                }
                Limit::Code | Limit::Message => continue,
            };
            let kept = with(column.name, &at);
            let mut record = kept.clone();
            assert_eq!(record.keep_limits(), Ok(0), "{}", column.name);
            assert_eq!(record, kept, "{}", column.name);
            let mut record = with(column.name, &beyond);
            match (record.keep_limits(), column.limit) {
                (Err(error), Limit::Id | Limit::Time) => assert_eq!(error.field, column.name),
                (Ok(1), Limit::Name | Limit::Url | Limit::Figure | Limit::Money | Limit::Tags) => {}
                (kept, _) => panic!("{}: {kept:?}", column.name),
            }
            if matches!(column.limit, Limit::Figure | Limit::Money) {
                assert!(with(column.name, "-1").keep_limits().is_err(), "{}", column.name);
            }
        }
        let mut long = Feedback { trace_id: Some("x".repeat(ID_BYTES + 1)), ..Feedback::default() };
        assert_eq!(long.keep_limits().unwrap_err().field, "trace_id");
    }

    #[test]
    fn sums_of_figures_fit_64_bits_over_billions_of_rows() {
        const { assert!(i64::MAX / MAX_FIGURE >= 9_000_000_000) };
    }

    /// Renders the table of the guide, with one line for all columns of the same limit.
    fn table() -> String {
        let mut lines: Vec<(Limit, Vec<&str>)> = Vec::new();
        for column in COLUMNS {
            match lines.iter_mut().find(|(limit, _)| *limit == column.limit) {
                Some((_, names)) => names.push(column.name),
                None => lines.push((column.limit, vec![column.name])),
            }
        }
        let line = |(limit, names): (Limit, Vec<&str>)| {
            let (allowed, beyond) = limit.says();
            let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
            format!("| {} | {allowed} | {beyond} |\n", names.join(", "))
        };
        let lines: String = lines.into_iter().map(line).collect();
        format!("| columns | limit | beyond |\n|---|---|---|\n{lines}")
    }

    #[test]
    fn the_guide_has_the_table_of_limits() {
        let guide = include_str!("../guide/schema.md");
        assert!(guide.contains(&table()), "put this into schema.md:\n{}", table());
    }
}
