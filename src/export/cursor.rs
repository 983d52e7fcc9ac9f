//! The cursor of an export: the record after which the export continues.

use std::fmt;
use std::str::FromStr;

use arrow::array::{AsArray, RecordBatch};
use chrono::{DateTime, Utc};
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::query::{Queries, QueryContext};
use crate::time;

/// The last line that a client received of an earlier export. [`Cursor::from_line`] creates it.
///
/// Its text is a JSON array of the line's `created_at`, `id` and, if the line has one,
/// `organisation_id`. Also read is the form `created_at`, comma, `id` that people type, and a third
/// part where two organisations have a record with this time and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    text: String,
    /// Time of the record, µs since 1970-01-01.
    created_at: i64,
    /// Possible meanings of the rest as id and organisation, the most probable first.
    meanings: Vec<(String, Option<String>)>,
}

/// The columns of a line that a cursor needs.
#[derive(Deserialize)]
struct Line {
    created_at: Option<String>,
    id: Option<String>,
    organisation_id: Option<String>,
}

impl Cursor {
    /// Returns the cursor after a line of an export. Returns
    /// [`crate::error::ErrorKind::Invalid`] if the line has no `created_at` and `id`.
    pub fn from_line(line: &[u8]) -> Result<Self> {
        let line = serde_json::from_slice(line).map_err(|cause| {
            Error::invalid("the line is not an exported record").with_source(cause)
        })?;
        match line {
            // The native form leaves out only nulls, so a line with a time and an id but no
            // organisation was exported without that column.
            Line { created_at: Some(at), id: Some(id), organisation_id: Some(organisation) } => {
                json!([at, id, organisation]).to_string().parse()
            }
            Line { created_at: Some(at), id: Some(id), organisation_id: None } => {
                json!([at, id]).to_string().parse()
            }
            _ => Err(Error::invalid(
                "the line has no `created_at` and `id`; an export without them cannot be resumed",
            )),
        }
    }

    /// Returns the position of the cursor's record. Looks it up, since the cursor may not name the
    /// organisation.
    pub(super) async fn position(
        &self,
        queries: &Queries,
        query_context: &QueryContext,
    ) -> Result<Position> {
        let created_at = self.created_at;
        let mut organisations = Vec::new();
        for (id, organisation) in &self.meanings {
            organisations = organisations_with(queries, query_context, created_at, id).await?;
            match organisation {
                Some(organisation) if organisations.contains(organisation) => {
                    return Ok(Position::new(organisation.clone(), created_at, id));
                }
                // The comma is part of the id.
                Some(_) => organisations.clear(),
                None if organisations.len() == 1 => {
                    return Ok(Position::new(organisations.remove(0), created_at, id));
                }
                None if organisations.is_empty() => {}
                None => break,
            }
        }
        Err(self.not_one(organisations.len()))
    }

    /// Returns the error of a cursor that names none or several records.
    fn not_one(&self, organisations: usize) -> Error {
        let time = DateTime::<Utc>::from_timestamp_micros(self.created_at).unwrap_or_default();
        let time = time::shortest(time);
        let id = self.meanings.first().map_or("", |(id, _)| id.as_str());
        if organisations == 0 {
            return Error::not_found(format!(
                "no record was created at {time} with id `{id}`; `after` must name one"
            ));
        }
        Error::invalid(format!(
            "{organisations} organisations have a record of {time} with id `{id}`; name the one meant as a third part of `after`: \
             {time},{id},ORGANISATION (an export with the column `organisation_id` is resumed by itself)"
        ))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = parts(text)
            .and_then(|(time, meanings)| Some((time::parse(&time)?.timestamp_micros(), meanings)));
        let (created_at, meanings) = parsed.ok_or_else(|| {
            Error::invalid(format!(
                "`after` is `{text}`; expected the `created_at` and the `id` of the last line received, with a comma between"
            ))
        })?;
        Ok(Self { text: text.to_owned(), created_at, meanings })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type Meanings = Vec<(String, Option<String>)>;

/// Returns the time of a cursor's text and the possible meanings of the rest.
fn parts(text: &str) -> Option<(String, Meanings)> {
    if let Ok(parts) = serde_json::from_str::<Vec<String>>(text) {
        return match parts.as_slice() {
            [time, id] => Some((time.clone(), vec![(id.clone(), None)])),
            [time, id, organisation] => {
                Some((time.clone(), vec![(id.clone(), Some(organisation.clone()))]))
            }
            _ => None,
        };
    }
    let (time, rest) = split_time(text)?;
    // The id is first read unchanged, then without the blanks that a user may have typed after the
    // comma.
    let mut meanings = Vec::new();
    let trimmed = Some(rest.trim()).filter(|trimmed| *trimmed != rest);
    for rest in [Some(rest), trimmed].into_iter().flatten() {
        meanings.push((rest.to_owned(), None));
        if let Some((id, organisation)) = rest.rsplit_once(',') {
            meanings.push((id.to_owned(), Some(organisation.to_owned())));
        }
    }
    Some((time.to_owned(), meanings))
}

/// Splits a text at the comma after the time at its beginning. The time may contain a comma.
fn split_time(text: &str) -> Option<(&str, &str)> {
    let commas = text.match_indices(',').map(|(place, _)| place).take(2).collect::<Vec<_>>();
    let split = |place: &usize| (&text[..*place], &text[place + 1..]);
    let readable = |parts: &(&str, &str)| time::parse(parts.0).is_some();
    commas.iter().rev().map(split).find(readable).or_else(|| commas.first().map(split))
}

/// Returns the organisations that have a record with this time and id.
async fn organisations_with(
    queries: &Queries,
    query_context: &QueryContext,
    created_at: i64,
    id: &str,
) -> Result<Vec<String>> {
    let params = ParamValues::from(vec![
        ("t", ScalarValue::TimestampMicrosecond(Some(created_at), Some("UTC".into()))),
        ("i", ScalarValue::Utf8View(Some(id.to_owned()))),
    ]);
    let text = "select organisation_id from logs where created_at = $t and id = $i";
    let answer = queries.run(query_context.clone(), text, params, queries.limits()).await?;
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    let names = batches.iter().flat_map(|batch| batch.column(0).as_string_view().iter().flatten());
    Ok(names.map(str::to_owned).collect())
}

/// Position of a record in the order of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) organisation: String,
    /// Time of the record, µs since 1970-01-01.
    pub(super) created_at: i64,
    pub(super) id: String,
}

impl Position {
    fn new(organisation: String, created_at: i64, id: &str) -> Self {
        Self { organisation, created_at, id: id.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_a_cursor_that_is_read_again() {
        let line = br#"{"id":"7","cost":1,"created_at":"2026-11-20T00:00:00.000Z"}"#;
        let cursor = Cursor::from_line(line).unwrap();
        assert_eq!(cursor.to_string(), r#"["2026-11-20T00:00:00.000Z","7"]"#);
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        let blanks =
            br#"{"id":" a, b ","created_at":"2026-11-20T00:00:00.000Z","organisation_id":"o"}"#;
        let blanks = Cursor::from_line(blanks).unwrap();
        assert_eq!(blanks.to_string(), r#"["2026-11-20T00:00:00.000Z"," a, b ","o"]"#);
        assert_eq!(blanks.meanings, [(" a, b ".to_owned(), Some("o".to_owned()))]);
    }

    #[test]
    fn a_line_without_time_and_id_gives_none() {
        let refused = Cursor::from_line(br#"{"cost":1}"#).unwrap_err();
        assert!(refused.message().contains("cannot be resumed"), "{refused:?}");
        assert!(Cursor::from_line(b"created_at,id").is_err());
        for text in ["", "2026-11-20", "yesterday-ish,7", "[\"2026-11-20\"]"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
