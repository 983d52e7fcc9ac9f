//! `gatelog export`: writes records as JSON lines to stdout or a file, in the order of the engine.
//!
//! A file exists under its name only when it is complete: it grows as `FILE.partial`. An
//! interrupted one is kept, and `--resume` continues behind its last complete line. `gatelog
//! import` reads the lines, so an export is also a backup of records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde_json::Value;

use super::exit::{Done, interruptible};
use super::output::{PartialFile, Sink, file_error, say};
use super::progress::{Progress, Unit, bytes, thousands};
use super::settings::Context;
use gatelog::engine::{ExportCursor, ExportRequest, Reader};
use gatelog::error::{Error, Result};

/// Bytes at the end of a file that are read at once to find its last line.
const BLOCK_BYTES: u64 = 64 << 10;

/// Streams records as JSON lines, one record per line
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog export --from 2026-11-01 --to 2026-12-01 --out november.jsonl
  gatelog export --from 2026-11-20T08:00:00Z --columns created_at,cost,request.body | jq .cost
  gatelog export --out all.jsonl --resume       continues an interrupted export
  gatelog export | zstd > backup.jsonl.zst      `gatelog import backup.jsonl.zst` reads it back

--from is inclusive, --to exclusive, both in UTC; a date means its start. cost is in cents, response_time in ms. \
Lines are ordered by day, then by organisation, created_at and id. \
The file is called FILE.partial until it is complete.")]
pub(super) struct Args {
    /// Start of the time range, inclusive, such as 2026-11-20 or 2026-11-20T08:00:00Z [default: the
    /// oldest record]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End of the time range, exclusive [default: none, up to the newest record]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Columns of each line [default: all]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Continues after the line with this created_at and id
    #[arg(long, value_name = "CREATED_AT,ID")]
    after: Option<ExportCursor>,
    /// Maximum number of lines
    #[arg(long, value_name = "RECORDS")]
    limit: Option<u64>,
    /// File to write, `-` for stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Appends to the file after its last complete line; needs the columns created_at and id
    #[arg(long, conflicts_with = "after")]
    resume: bool,
    /// Output format; only jsonl is supported
    #[arg(long, value_name = "FORM", default_value = "jsonl")]
    format: String,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let form = args.format.to_ascii_lowercase();
    if form != "jsonl" && form != "ndjson" {
        return Err(Error::invalid(format!(
            "export format is `{}`; expected jsonl; `gatelog sql --format csv 'select * from logs'` writes CSV, json or parquet",
            args.format
        )));
    }
    let to_file = args.out != Path::new("-");
    if args.resume && !to_file {
        return Err(Error::invalid("--resume needs a file; name it with `--out`"));
    }
    if args.resume {
        check_resumable(args.columns.as_deref())?;
    }
    let Args { from, to, columns, after, limit, out, resume, .. } = args;
    let started = if resume { Unfinished::find(&out, columns.as_deref())? } else { None };
    let after = started.as_ref().and_then(|started| started.after.clone()).or(after);
    let request = ExportRequest { from, to, columns, after, limit };
    let result = interruptible(write(&context, &request, &out, started)).await;
    let partial = PartialFile::partial_name(&out);
    if result.is_err() && to_file && partial.exists() {
        say!(
            "the lines written so far are kept in `{}`; run the same command with `--resume` to continue",
            partial.display()
        );
    }
    result.map(|()| Done::Success)
}

/// Refuses columns with which the place of the last line cannot be found again.
fn check_resumable(columns: Option<&[String]>) -> Result<()> {
    let Some(columns) = columns else { return Ok(()) };
    match ["created_at", "id"].iter().find(|needed| !columns.iter().any(|name| name == *needed)) {
        None => Ok(()),
        Some(missing) => Err(Error::invalid(format!(
            "--resume needs the columns created_at and id, and --columns lacks `{missing}`; add it, or leave --columns out"
        ))),
    }
}

async fn write(
    context: &Context,
    request: &ExportRequest,
    out: &Path,
    started: Option<Unfinished>,
) -> Result<()> {
    let reader = Reader::open(context.config()).await?;
    let to_file = out != Path::new("-");
    let total = if to_file { Some(reader.export_estimate(request)?) } else { None };
    let mut lines = reader.export(request).await?;
    let mut sink = match started {
        Some(started) => Sink::file(started.go_on(out)?),
        None => Sink::open(Some(out))?,
    };
    let watch = sink.watch();
    let mut progress = Progress::start("export", Unit::Records, total, context.quiet || !to_file);
    let mut records = 0;
    while let Some(chunk) = lines.next().await {
        let chunk = chunk?;
        sink.write_all(&chunk).map_err(|cause| watch.error(cause))?;
        sink.keep_unfinished();
        records += memchr::memchr_iter(b'\n', &chunk).count() as u64;
        let seconds = progress.seconds();
        progress.set(records, || rate(sink.bytes(), seconds));
    }
    let written = sink.bytes();
    let seconds = progress.seconds();
    sink.finish()?;
    progress.finish();
    if !context.quiet {
        say!(
            "{} records, {} in {seconds:.1} s, {}",
            thousands(records),
            bytes(written),
            rate(written, seconds)
        );
    }
    Ok(())
}

/// Formats a rate in bytes per second.
pub(super) fn rate(count: u64, seconds: f64) -> String {
    format!("{}/s", bytes((count as f64 / seconds.max(1e-3)) as u64))
}

/// A file that an earlier export started.
#[derive(Debug)]
struct Unfinished {
    /// Path of the file: `FILE.partial`, or `FILE` itself.
    path: PathBuf,
    file: File,
    /// End of its last complete line.
    end: u64,
    /// Cursor of that line. `None` if there is no complete line.
    after: Option<ExportCursor>,
}

impl Unfinished {
    /// Finds the unfinished or finished file of an export of these columns. Returns `None` if
    /// neither exists.
    fn find(out: &Path, columns: Option<&[String]>) -> Result<Option<Self>> {
        for path in [PartialFile::partial_name(out), out.to_owned()] {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Self::read(path, file, columns).map(Some),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(cause) => return Err(file_error("open", &path, cause)),
            }
        }
        Ok(None)
    }

    fn read(path: PathBuf, mut file: File, columns: Option<&[String]>) -> Result<Self> {
        let (end, line) = last_line(&mut file).map_err(|cause| file_error("read", &path, cause))?;
        if line.is_empty() {
            return Ok(Self { path, file, end, after: None });
        }
        let after = ExportCursor::from_line(&line).map_err(|refused| {
            let path = path.display();
            Error::invalid(format!(
                "cannot continue after the last line of `{path}`: {}",
                refused.message()
            ))
            .with_source(refused)
        })?;
        check_columns(&path, &line, columns)?;
        Ok(Self { path, file, end, after: Some(after) })
    }

    /// Removes the bytes after the last complete line.
    fn go_on(mut self, out: &Path) -> Result<PartialFile> {
        self.file
            .set_len(self.end)
            .and_then(|()| self.file.seek(SeekFrom::End(0)))
            .map_err(|cause| file_error("write", &self.path, cause))?;
        Ok(PartialFile::resume(self.file, out, self.path))
    }
}

/// Refuses to continue a file with other columns than it has. A whole record has an organisation
/// and leaves out what is null.
fn check_columns(path: &Path, line: &[u8], columns: Option<&[String]>) -> Result<()> {
    let line: BTreeMap<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let is_same = match columns {
        Some(columns) => {
            line.keys().collect::<BTreeSet<_>>() == columns.iter().collect::<BTreeSet<_>>()
        }
        None => {
            let is_part = |(name, value): (&String, &Value)| name.contains('.') || value.is_null();
            line.contains_key("organisation_id") && !line.iter().any(is_part)
        }
    };
    if is_same {
        return Ok(());
    }
    let names = line.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    Err(Error::invalid(format!(
        "the last line of `{}` has other columns ({names}) than this export; continue with the same `--columns`, or write \
         to another file",
        path.display()
    )))
}

/// Returns the last line that ends with a line feed, and its end. Reads from the end, since the
/// file may be huge.
fn last_line(file: &mut File) -> std::io::Result<(u64, Vec<u8>)> {
    let Some(feed) = line_feed_before(file, file.metadata()?.len())? else {
        return Ok((0, Vec::new()));
    };
    let start = line_feed_before(file, feed)?.map_or(0, |before| before + 1);
    let mut line = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(feed - start).read_to_end(&mut line)?;
    Ok((feed + 1, line))
}

/// Returns the position of the last line feed before `end`.
fn line_feed_before(file: &mut File, mut end: u64) -> std::io::Result<Option<u64>> {
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, end: usize, line: &str) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        assert_eq!(last_line(&mut file).unwrap(), (end as u64, line.as_bytes().to_vec()));
    }

    #[test]
    fn an_export_is_resumed_only_with_the_columns_of_its_place() {
        let columns =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        check_resumable(None).unwrap();
        check_resumable(Some(&columns(&["cost", "id", "created_at"]))).unwrap();
        for (names, missing) in [(&["id"][..], "`created_at`"), (&["created_at", "cost"], "`id`")] {
            let refused = check_resumable(Some(&columns(names))).unwrap_err();
            assert!(refused.message().contains(missing), "{refused:?}");
        }
    }

    #[test]
    fn an_export_is_continued_with_the_columns_that_it_has() {
        let check = |line: &str, columns: Option<&[&str]>| {
            let columns: Option<Vec<String>> =
                columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            check_columns(Path::new("a.jsonl"), line.as_bytes(), columns.as_deref()).is_ok()
        };
        let whole = r#"{"id":"1","organisation_id":"o","created_at":"2026-11-20"}"#;
        let part = r#"{"created_at":"2026-11-20","id":"1","organisation_id":"o","cost":null}"#;
        let all = ["id", "cost", "created_at", "organisation_id"];
        assert!(check(whole, None) && check(part, Some(&all)));
        assert!(!check(part, None) && !check(part, Some(&all[..3])) && !check(whole, Some(&all)));
        assert!(!check(r#"{"created_at":"2026-11-20","id":"1"}"#, None));
    }

    #[test]
    fn the_last_whole_line_is_found_from_the_end() {
        check("", 0, "");
        check("torn", 0, "");
        check("a\n", 2, "a");
        check("a\nbc\nto", 5, "bc");
        let long = "x".repeat(3 * BLOCK_BYTES as usize);
        check(&format!("a\n{long}\n{long}"), long.len() + 3, &long);
    }
}
