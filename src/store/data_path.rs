//! Paths of data files: the partition and the name of a file.

use chrono::{DateTime, Days, NaiveDate};
use uuid::Uuid;

/// Prefixes of the names of data files: before and after their day is sealed.
const PART: &str = "part-";
const SEALED: &str = "sealed-";

/// Parsed path of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPath {
    /// Days to keep its records. 0 means for ever.
    pub retention_days: i32,
    /// UTC day of its records, in days since 1970-01-01.
    pub date: i32,
    /// Unique id of the file. `None` if another program wrote the file.
    pub uuid: Option<Uuid>,
    /// True if the file is sealed: merged for the last time after its day was over.
    pub sealed: bool,
}

/// Returns the path of a data file, relative to its table. `date` is in days since 1970-01-01;
/// `sealed` as in [`DataPath`].
pub fn data_path(retention_days: i32, date: i32, uuid: Uuid, sealed: bool) -> String {
    let mark = if sealed { SEALED } else { PART };
    format!("retention_days={retention_days}/date={}/{mark}{uuid}.parquet", date_text(date))
}

/// Parses the path of a data file relative to its table: its partition and, if present, its unique
/// id.
pub fn parse_data_path(path: &str) -> Option<DataPath> {
    let (retention_days, rest) = path.strip_prefix("retention_days=")?.split_once('/')?;
    let (date, name) = rest.strip_prefix("date=")?.split_once('/')?;
    let id = |mark| name.strip_prefix(mark)?.strip_suffix(".parquet")?.parse::<Uuid>().ok();
    let sealed = id(SEALED);
    Some(DataPath {
        retention_days: retention_days.parse().ok()?,
        date: parse_date(date)?,
        uuid: sealed.or_else(|| id(PART)),
        sealed: sealed.is_some(),
    })
}

/// Formats a day, in days since 1970-01-01, as `2026-11-21`.
pub fn date_text(date: i32) -> String {
    let epoch = DateTime::UNIX_EPOCH.date_naive();
    let days = Days::new(u64::from(date.unsigned_abs()));
    let day = if date < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) };
    // Out of range only beyond the years -262143 to 262142.
    day.unwrap_or(epoch).format("%Y-%m-%d").to_string()
}

/// Parses a day that [`date_text`] formatted.
pub fn parse_date(text: &str) -> Option<i32> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(day.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_paths_are_read_as_they_are_made() {
        let uuid = Uuid::from_u128(7);
        let path = data_path(30, 20_778, uuid, false);
        assert_eq!(
            path,
            "retention_days=30/date=2026-11-21/part-00000000-0000-0000-0000-000000000007.parquet"
        );
        let read = DataPath { retention_days: 30, date: 20_778, uuid: Some(uuid), sealed: false };
        assert_eq!(parse_data_path(&path), Some(read));
        let path = data_path(30, 20_778, uuid, true);
        assert!(path.ends_with("/sealed-00000000-0000-0000-0000-000000000007.parquet"), "{path}");
        assert_eq!(parse_data_path(&path), Some(DataPath { sealed: true, ..read }));
        let foreign =
            parse_data_path("retention_days=0/date=1969-12-31/part-00000-x.c000.snappy.parquet")
                .unwrap();
        assert_eq!(foreign, DataPath { retention_days: 0, date: -1, uuid: None, sealed: false });
        let foreign =
            parse_data_path("retention_days=0/date=1969-12-31/sealed-by-hand.parquet").unwrap();
        assert_eq!((foreign.uuid, foreign.sealed), (None, false));
        assert_eq!(parse_data_path("date=2026-11-21/part.parquet"), None);
    }
}
