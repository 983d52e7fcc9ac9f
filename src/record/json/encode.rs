//! Encodes Arrow batches as JSON lines: whole records in their native form, or chosen columns in a
//! chosen order.
//!
//! Columns are looked up and cast once per batch; a row is then a walk over typed cells that append
//! bytes. Bodies and headers are appended unchanged, since stored ones are valid JSON on one line
//! (see [`embeddable`](super::embeddable)).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array,
    MapArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use serde::Serialize;

use super::decode::Part;
use super::text::write_string;
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};
use crate::record::columns::{COLUMNS, column};
use crate::record::schema::{DATE, Kind, RETENTION_DAYS};
use crate::time;

/// Encoder of batches as JSON lines.
#[derive(Debug)]
pub struct Encoder {
    items: Vec<Item>,
    /// True if null fields are left out, as in the native form.
    sparse: bool,
}

/// One key of the line.
#[derive(Debug)]
struct Item {
    /// `,"name":`
    key: Vec<u8>,
    /// Name of the column.
    name: String,
    source: Source,
}

/// Source of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Scalar(Kind),
    Day,
    /// One JSON text of the message column of that name.
    Leaf(&'static str, Part),
    /// Both texts of the message, as an object.
    Message(&'static str),
    Tags(TagForm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagForm {
    Object,
    Keys,
    Values,
}

/// Accepted names that are not columns of the table.
const FURTHER: [&str; 8] = [
    "request.body",
    "request.headers",
    "response.body",
    "response.headers",
    "metadata.key",
    "metadata.value",
    RETENTION_DAYS,
    DATE,
];

/// Number of rows after which room for the rest of a batch is reserved: growing step by step copies
/// the text each time.
const SAMPLE_ROWS: usize = 32;
/// Maximum bytes that are reserved, since the sampled rows may be the largest.
const MAX_RESERVED_BYTES: usize = 8 << 20;

/// Names that Portkey's guide uses for columns, with the corresponding columns.
const ALIASES: [(&str, &str); 4] = [
    ("ai_provider", "ai_org"),
    ("request_tokens", "req_units"),
    ("response_tokens", "res_units"),
    ("status_code", "response_status_code"),
];

/// Returns the column that a name stands for.
pub fn column_of(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, column)| column)
}

impl Encoder {
    /// Creates an encoder of the named columns, which are always present, under these names and in
    /// this order. Without names, it writes the native form: every column in the order of the
    /// table, without nulls.
    pub fn new(columns: Option<&[String]>) -> Result<Self> {
        let Some(columns) = columns else {
            let items =
                COLUMNS.iter().map(|column| Item::new(column.name)).collect::<Result<_>>()?;
            return Ok(Self { items, sparse: true });
        };
        if columns.is_empty() {
            return Err(Error::invalid("no column is named; name at least one, such as `id`"));
        }
        let mut named = HashSet::new();
        if let Some(twice) = columns.iter().find(|name| !named.insert(name.as_str())) {
            let twice = clip(twice);
            return Err(Error::invalid(format!(
                "column `{twice}` is named twice; name it at most once"
            )));
        }
        let items = columns.iter().map(|name| Item::new(name)).collect::<Result<_>>()?;
        Ok(Self { items, sparse: false })
    }

    /// Returns the columns, without duplicates, that a batch must have for
    /// [`encode`](Self::encode).
    ///
    /// A name such as `request.body` means only that member of the struct column, under this name,
    /// so that the other member is never read. A batch may have the whole struct instead.
    pub fn projection(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for item in &self.items {
            let needed = match item.source {
                Source::Message(name) => vec![format!("{name}.body"), format!("{name}.headers")],
                Source::Tags(_) => vec!["metadata".to_owned()],
                _ => vec![item.name.clone()],
            };
            for name in needed {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Appends one JSON object and a line break for each row.
    pub fn encode(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns =
            self.items.iter().map(|item| item.columns(batch)).collect::<Result<Vec<_>>>()?;
        let cells: Vec<(&[u8], Cell<'_>)> = self
            .items
            .iter()
            .zip(&columns)
            .map(|(item, columns)| (&item.key[..], item.cell(columns)))
            .collect();
        let before = out.len();
        for row in 0..batch.num_rows() {
            let start = out.len();
            if row == SAMPLE_ROWS {
                let rest = (start - before) / SAMPLE_ROWS * (batch.num_rows() - row);
                out.reserve((rest + rest / 8).min(MAX_RESERVED_BYTES));
            }
            for (key, cell) in &cells {
                let null = cell.is_null(row);
                if null && self.sparse {
                    continue;
                }
                out.extend_from_slice(key);
                if null {
                    out.extend_from_slice(b"null");
                } else {
                    cell.write(row, out);
                }
            }
            // Every key wrote a comma, and the first comma is at the start of the object.
            match out.get_mut(start) {
                Some(comma) => *comma = b'{',
                None => out.push(b'{'),
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    let known = COLUMNS.iter().map(|column| column.name).chain(FURTHER);
    let hint = hint(name, known, "columns", "`gatelog guide schema`");
    Error::invalid(format!("column `{}` is unknown; {hint}", clip(name)))
}

impl Item {
    fn new(name: &str) -> Result<Self> {
        let column = column_of(name);
        let source = Source::named(column).ok_or_else(|| unknown(name))?;
        Ok(Self { key: format!(",\"{name}\":").into_bytes(), name: column.to_owned(), source })
    }

    /// Returns the arrays that the value is built from, in the types that [`cell`](Self::cell)
    /// expects.
    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        match self.source {
            Source::Scalar(kind) => Ok(vec![find(batch, &self.name, &kind.data_type())?]),
            Source::Day => Ok(vec![find(batch, &self.name, &DataType::Date32)?]),
            Source::Leaf(message, part) => Ok(vec![leaf(batch, message, part)?]),
            Source::Message(name) => {
                Ok(vec![leaf(batch, name, Part::Body)?, leaf(batch, name, Part::Headers)?])
            }
            Source::Tags(_) => Ok(vec![find(batch, "metadata", &Kind::Tags.data_type())?]),
        }
    }

    fn cell<'a>(&self, columns: &'a [ArrayRef]) -> Cell<'a> {
        let first = &columns[0];
        match self.source {
            Source::Scalar(Kind::Int) => Cell::Int(first.as_primitive::<Int64Type>()),
            Source::Scalar(Kind::Short) => Cell::Short(first.as_primitive::<Int32Type>()),
            Source::Scalar(Kind::Float) => Cell::Float(first.as_primitive::<Float64Type>()),
            Source::Scalar(Kind::Bool) => Cell::Bool(first.as_boolean()),
            Source::Scalar(Kind::Time) => {
                Cell::Time(first.as_primitive::<TimestampMicrosecondType>())
            }
            Source::Scalar(Kind::Text | Kind::Tags | Kind::Message) => {
                Cell::Text(first.as_string_view())
            }
            Source::Day => Cell::Day(first.as_primitive::<Date32Type>()),
            Source::Leaf(..) => Cell::Raw(first.as_string_view()),
            Source::Message(_) => {
                Cell::Message(first.as_string_view(), columns[1].as_string_view())
            }
            Source::Tags(form) => {
                let map: &MapArray = first.as_map();
                Cell::Tags(
                    form,
                    map,
                    map.keys().as_string::<i32>(),
                    map.values().as_string::<i32>(),
                )
            }
        }
    }
}

impl Source {
    fn named(name: &str) -> Option<Self> {
        match name {
            "metadata.key" => return Some(Self::Tags(TagForm::Keys)),
            "metadata.value" => return Some(Self::Tags(TagForm::Values)),
            RETENTION_DAYS => return Some(Self::Scalar(Kind::Short)),
            DATE => return Some(Self::Day),
            _ => {}
        }
        if let Some(column) = column(name) {
            return Some(match column.kind {
                Kind::Message => Self::Message(column.name),
                Kind::Tags => Self::Tags(TagForm::Object),
                kind => Self::Scalar(kind),
            });
        }
        let (message, part) = name.split_once('.')?;
        let message = column(message).filter(|column| column.kind == Kind::Message)?;
        Some(Self::Leaf(message.name, Part::named(part)?))
    }
}

/// Returns the column with this name, cast to this type.
fn find(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef> {
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| Error::internal(format!("the batch to encode has no column `{name}`")))?;
    conform(column, name, to)
}

fn conform(column: &ArrayRef, name: &str, to: &DataType) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    cast(column, to).map_err(|cause| {
        let message = format!(
            "column `{name}` to encode has type {}, which cannot become {to}",
            column.data_type()
        );
        Error::internal(message).with_source(cause)
    })
}

/// Returns one JSON text of a message, from a column of its own or from the struct.
fn leaf(batch: &RecordBatch, message: &str, part: Part) -> Result<ArrayRef> {
    let name = format!("{message}.{}", part.name());
    if batch.column_by_name(&name).is_some() {
        return find(batch, &name, &DataType::Utf8View);
    }
    let whole = batch.column_by_name(message).and_then(|column| column.as_struct_opt());
    let column: Option<(&StructArray, &ArrayRef)> =
        whole.and_then(|whole| Some((whole, whole.column_by_name(part.name())?)));
    let Some((whole, column)) = column else {
        return Err(Error::internal(format!(
            "the batch to encode has neither column `{name}` nor struct `{message}`"
        )));
    };
    let column = conform(column, &name, &DataType::Utf8View)?;
    match whole.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
        None => Ok(column),
        Some(nulls) => nullif(&column, &BooleanArray::new(!nulls.inner(), None)).map_err(|cause| {
            Error::internal(format!("cannot take `{name}` out of `{message}`")).with_source(cause)
        }),
    }
}

/// Values of one key in one batch.
enum Cell<'a> {
    Text(&'a StringViewArray),
    Int(&'a Int64Array),
    Short(&'a Int32Array),
    Float(&'a Float64Array),
    Bool(&'a BooleanArray),
    Time(&'a TimestampMicrosecondArray),
    Day(&'a Date32Array),
    Raw(&'a StringViewArray),
    Message(&'a StringViewArray, &'a StringViewArray),
    Tags(TagForm, &'a MapArray, &'a StringArray, &'a StringArray),
}

impl Cell<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Text(array) | Self::Raw(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Short(array) => array.is_null(row),
            // JSON has no infinity and no NaN.
            Self::Float(array) => array.is_null(row) || !array.value(row).is_finite(),
            Self::Bool(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Day(array) => array.is_null(row),
            Self::Message(body, headers) => body.is_null(row) && headers.is_null(row),
            Self::Tags(_, map, _, values) => {
                map.is_null(row) || entries(map, row).all(|at| values.is_null(at))
            }
        }
    }

    /// Appends the value, which is not null.
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Text(array) => write_string(out, array.value(row)),
            Self::Int(array) => write_number(out, array.value(row)),
            Self::Short(array) => write_number(out, array.value(row)),
            Self::Float(array) => write_number(out, array.value(row)),
            Self::Bool(array) => {
                out.extend_from_slice(if array.value(row) { b"true" } else { b"false" })
            }
            Self::Time(array) => time::write(out, array.value(row)),
            Self::Day(array) => time::write_day(out, array.value(row)),
            Self::Raw(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Self::Message(body, headers) => write_message(out, row, body, headers),
            Self::Tags(form, map, keys, values) => {
                let present = entries(map, row).filter(|at| !values.is_null(*at));
                write_tags(out, *form, present.map(|at| (keys.value(at), values.value(at))));
            }
        }
    }
}

fn entries(map: &MapArray, row: usize) -> impl Iterator<Item = usize> {
    let offsets = map.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

fn write_number(out: &mut Vec<u8>, number: impl Serialize) {
    #[expect(clippy::expect_used, reason = "neither a number nor a vector of bytes can fail")]
    serde_json::to_writer(out, &number).expect("a number");
}

fn write_message(out: &mut Vec<u8>, row: usize, body: &StringViewArray, headers: &StringViewArray) {
    let mut lead: &[u8] = b"{";
    for (array, key) in [(body, &b"\"body\":"[..]), (headers, b"\"headers\":")] {
        if array.is_valid(row) {
            out.extend_from_slice(lead);
            out.extend_from_slice(key);
            out.extend_from_slice(array.value(row).as_bytes());
            lead = b",";
        }
    }
    out.push(b'}');
}

fn write_tags<'a>(
    out: &mut Vec<u8>,
    form: TagForm,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let (mut lead, close) = if form == TagForm::Object { (b'{', b'}') } else { (b'[', b']') };
    for (key, value) in pairs {
        out.push(lead);
        lead = b',';
        match form {
            TagForm::Object => {
                write_string(out, key);
                out.push(b':');
                write_string(out, value);
            }
            TagForm::Keys => write_string(out, key),
            TagForm::Values => write_string(out, value),
        }
    }
    out.push(close);
}
