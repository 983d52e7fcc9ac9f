//! Output formats of rows: a table for people, or the formats that the server sends.
//!
//! Rows are written batch by batch as they arrive; only a table, which is bounded, is held in
//! memory. JSON, CSV and Parquet come from [`gatelog::encode`], so the same query gives the same
//! bytes in both places.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use futures::StreamExt;
use serde_json::Value;

use super::output::{Sink, Watch, say, stdout_is_terminal};
use gatelog::encode::{Format as Bytes, Writer};
use gatelog::engine::Answer;
use gatelog::error::{Error, Result};

/// Largest width of a table cell on a terminal, in characters.
const CELL_CHARS: usize = 60;

/// Output formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For reading: a bounded number of rows; long cells are cut on a terminal
    Table,
    /// A JSON array of objects
    Json,
    /// One JSON object per line
    Jsonl,
    /// CSV with a header line; nulls are empty
    Csv,
    /// A Parquet file; needs `--out` or a pipe
    Parquet,
}

/// Output options of rows, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FormatArgs {
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub(super) format: Format,
    /// File for the rows, `-` for stdout; it gets its name when it is complete
    #[arg(short, long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Maximum number of rows in a table, 0 for all
    #[arg(long, value_name = "ROWS", default_value_t = 1_000)]
    pub(super) max_rows: usize,
}

impl FormatArgs {
    fn to_file(&self) -> bool {
        self.out.as_deref().is_some_and(|path| path != Path::new("-"))
    }

    /// Refuses a format that would garble a terminal.
    pub(super) fn check(&self) -> Result<()> {
        if self.format == Format::Parquet && !self.to_file() && stdout_is_terminal() {
            return Err(Error::invalid(
                "parquet cannot be written to a terminal; name a file with `--out`, or use a pipe",
            ));
        }
        Ok(())
    }

    /// Writes every row of the answer and returns their number.
    pub(super) async fn write(&self, mut answer: Answer) -> Result<u64> {
        let mut form = Form::start(self, &answer.schema)?;
        let sink = Sink::open(self.out.as_deref())?;
        let mut out = Output { watch: sink.watch(), sink };
        let mut rows = 0;
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            match &mut form {
                Form::Bytes(writer, _) => out.write(&writer.write(&batch)?)?,
                Form::Table(table) => table.add(&batch)?,
            }
            if matches!(&form, Form::Table(table) if table.more) {
                break;
            }
        }
        match form {
            Form::Bytes(mut writer, end) => {
                out.write(&writer.finish()?)?;
                out.write(end)?;
            }
            Form::Table(table) => {
                out.write(table.text()?.as_bytes())?;
                if table.more {
                    say!(
                        "only the first {} rows are shown; `--max-rows 0` and the other formats show all",
                        table.rows
                    );
                }
            }
        }
        out.sink.finish()?;
        Ok(rows)
    }
}

/// A sink with the classification of its errors.
struct Output {
    sink: Sink,
    watch: Watch,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|cause| self.watch.error(cause))
    }
}

/// A format in use: the bytes and the end that the server writes, or a table.
enum Form {
    Bytes(Box<Writer>, &'static [u8]),
    Table(Table),
}

impl Form {
    fn start(args: &FormatArgs, schema: &SchemaRef) -> Result<Self> {
        let (format, end): (_, &[u8]) = match args.format {
            Format::Table => {
                let cut = !args.to_file() && stdout_is_terminal();
                return Ok(Self::Table(Table::new(schema, args.max_rows, cut)));
            }
            Format::Json => (Bytes::Json, b"\n"),
            Format::Jsonl => (Bytes::Jsonl, b""),
            Format::Csv => (Bytes::Csv, b""),
            Format::Parquet => (Bytes::Parquet, b""),
        };
        Ok(Self::Bytes(Box::new(Writer::new(format, schema)?), end))
    }
}

/// Cells of a table as text, column by column.
#[derive(Debug)]
struct Table {
    schema: SchemaRef,
    cells: Vec<Vec<String>>,
    rows: usize,
    max_rows: usize,
    cut: bool,
    /// True if there are further rows that are not shown.
    more: bool,
}

impl Table {
    fn new(schema: &SchemaRef, max_rows: usize, cut: bool) -> Self {
        let max_rows = if max_rows == 0 { usize::MAX } else { max_rows };
        let cells = vec![Vec::new(); schema.fields().len()];
        Self { schema: Arc::clone(schema), cells, rows: 0, max_rows, cut, more: false }
    }

    /// Adds rows by way of their JSON form, which supports every type and shows times and nested
    /// values like the JSON output.
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let take = batch.num_rows().min(self.max_rows - self.rows);
        self.more |= take < batch.num_rows();
        self.rows += take;
        let numbered = numbered(&batch.slice(0, take))?;
        let mut writer = Writer::new(Bytes::Jsonl, &numbered.schema())?;
        let mut lines = writer.write(&numbered)?.to_vec();
        lines.extend_from_slice(&writer.finish()?);
        for line in serde_json::Deserializer::from_slice(&lines)
            .into_iter::<serde_json::Map<String, Value>>()
        {
            let mut line = line.map_err(|cause| {
                Error::internal("cannot read a row for the table").with_source(cause)
            })?;
            for (number, column) in self.cells.iter_mut().enumerate() {
                let text = match line.remove(&number.to_string()) {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text,
                    Some(Value::Number(number)) if number.is_f64() => {
                        float(number.as_f64().unwrap_or_default())
                    }
                    Some(value) => value.to_string(),
                };
                column.push(if self.cut { shorten(&text) } else { text });
            }
        }
        Ok(())
    }

    fn text(&self) -> Result<String> {
        let failed = |cause| Error::internal("cannot draw the table").with_source(cause);
        let fields = self.schema.fields();
        let text = fields.iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
        let schema = Arc::new(Schema::new(text.collect::<Vec<_>>()));
        let columns =
            fields.iter().zip(&self.cells).map(|(field, cells)| aligned(field, cells)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            .map_err(failed)?;
        Ok(format!("{}\n", pretty_format_batches_with_schema(schema, &[batch]).map_err(failed)?))
    }
}

/// Returns the batch with its columns named by their index, since column names may repeat and JSON
/// keys may not.
fn numbered(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields().iter().enumerate();
    let fields = fields.map(|(number, field)| field.as_ref().clone().with_name(number.to_string()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options).map_err(|cause| {
        Error::internal("cannot number the columns of the table").with_source(cause)
    })
}

/// Aligns numbers to the right, so that their digits line up.
fn aligned(field: &Field, cells: &[String]) -> ArrayRef {
    if !field.data_type().is_numeric() {
        return Arc::new(StringArray::from_iter_values(cells));
    }
    let widest = cells.iter().map(String::len).max().unwrap_or(0).max(field.name().chars().count());
    Arc::new(StringArray::from_iter_values(cells.iter().map(|cell| format!("{cell:>widest$}"))))
}

/// Formats a float with ten digits. Further ones are rounding errors of sums. The other formats
/// have all digits.
fn float(value: f64) -> String {
    format!("{value:.9e}").parse::<f64>().unwrap_or(value).to_string()
}

/// Shortens a text to one line of at most [`CELL_CHARS`] characters.
fn shorten(text: &str) -> String {
    let one_line = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut line: String = text.chars().take(CELL_CHARS).map(one_line).collect();
    if text.chars().nth(CELL_CHARS).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn a_cell_is_one_line_of_sixty_characters() {
        assert_eq!(shorten("a\nb"), "a b");
        assert_eq!(shorten(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(shorten(&"é".repeat(61)), format!("{}…", "é".repeat(59)));
    }

    #[test]
    fn a_table_shows_numbers_to_the_right_and_columns_of_one_name() {
        let calls: ArrayRef = Arc::new(Int64Array::from(vec![5, 1_200]));
        let cost: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None]));
        let fields =
            vec![Field::new("n", DataType::Int64, true), Field::new("n", DataType::Float64, true)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![calls, cost]).unwrap();
        let mut table = Table::new(&batch.schema(), 0, false);
        table.add(&batch).unwrap();
        let expected = "\
+------+-----+
| n    | n   |
+------+-----+
|    5 | 0.3 |
| 1200 |     |
+------+-----+
";
        assert_eq!(table.text().unwrap(), expected);
        let mut table = Table::new(&batch.schema(), 1, false);
        table.add(&batch).unwrap();
        assert!(table.more && table.text().unwrap().lines().count() == 5);
    }
}
