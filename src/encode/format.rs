//! Formats of rows, by name and by media type.
//!
//! Every format carries the same table: JSON lines (the default), one JSON array, CSV, an Arrow IPC
//! stream, Parquet.

use crate::error::{Error, Result};

/// A response format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// Comma-separated values with a header line; nested values are JSON text.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Every format: its name, the media type of its response, and other media types that select it.
const FORMATS: [(Format, &str, &str, &[&str]); 5] = [
    (
        Format::Jsonl,
        "jsonl",
        "application/x-ndjson",
        &["application/jsonl", "application/x-jsonlines", "application/ndjson"],
    ),
    (Format::Json, "json", "application/json", &[]),
    (Format::Csv, "csv", "text/csv; charset=utf-8", &["text/csv"]),
    (Format::Arrow, "arrow", "application/vnd.apache.arrow.stream", &[]),
    (
        Format::Parquet,
        "parquet",
        "application/vnd.apache.parquet",
        &["application/x-parquet", "application/parquet"],
    ),
];

impl Format {
    /// Returns the names of the formats.
    pub fn names() -> String {
        FORMATS.map(|(_, name, ..)| name).join(", ")
    }

    /// Returns every format with its name and the media type of its response.
    pub fn each() -> [(Self, &'static str, &'static str); FORMATS.len()] {
        FORMATS.map(|(format, name, media, _)| (format, name, media))
    }

    /// Returns the format with that name.
    pub fn named(name: &str) -> Result<Self> {
        let found = FORMATS.iter().find(|(_, known, ..)| known.eq_ignore_ascii_case(name.trim()));
        found.map(|(format, ..)| *format).ok_or_else(|| {
            Error::invalid(format!("field `format` is `{name}`; expected one of {}", Self::names()))
        })
    }

    /// Returns the media type of a response in this format.
    pub fn media_type(self) -> &'static str {
        FORMATS
            .iter()
            .find(|(format, ..)| *format == self)
            .map_or("application/octet-stream", |(_, _, media, _)| media)
    }

    /// Returns the preferred format of an `Accept` header. The first one wins among equals.
    pub(crate) fn accepted(accept: &str) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        for range in accept.split(',') {
            let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality =
                parameters.split(';').find_map(|part| part.trim().strip_prefix("q=")?.parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            let Some(format) = Self::from_media_type(media.trim()) else { continue };
            if quality > 0.0 && best.is_none_or(|(_, most)| quality > most) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }

    fn from_media_type(media: &str) -> Option<Self> {
        if ["", "*/*", "application/*"].contains(&media) {
            return Some(Self::Jsonl);
        }
        let offers =
            |own: &str, others: &[&str]| own.eq_ignore_ascii_case(media) || others.contains(&media);
        FORMATS.iter().find(|(_, _, own, others)| offers(own, others)).map(|(format, ..)| *format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_accepted_type_wins() {
        for (accept, format) in [
            ("text/csv", Some(Format::Csv)),
            ("text/html, application/json;q=0.5, text/csv;q=0.9", Some(Format::Csv)),
            ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
            ("*/*", Some(Format::Jsonl)),
            ("application/x-parquet; q=1, */*; q=0.1", Some(Format::Parquet)),
            ("text/csv;q=0", None),
            ("text/html", None),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_others() {
        let error = Format::named("xml").unwrap_err();
        assert_eq!(
            error.message(),
            "field `format` is `xml`; expected one of jsonl, json, csv, arrow, parquet"
        );
    }
}
