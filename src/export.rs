//! Exports records as JSON lines for a time range and columns. The reader's speed limits the
//! export, so nothing accumulates in memory.
//!
//! Records are ordered by day (UTC), and within a day by organisation, time and id. Files store
//! them in this order, so an export of any size needs no sort of its own and little memory. For a
//! single organisation this is the order of time. The `created_at` and `id` of the last line are
//! enough to resume ([`Request::after`]). An export reads only the requested columns.
//!
//! The next day is opened while the current one is written, and encoding runs in parallel with
//! reading. Both are limited to a few batches. Batches are cut by bytes, so a very large row forms
//! a batch alone. If the files of a day are too many or too large to be open together, they are
//! read one by one and sorted, spilling to disk if necessary.

mod cursor;
mod erased;
mod organisations;
mod selection;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use bytes::Bytes;
use datafusion::common::{ParamValues, ScalarValue};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

pub use cursor::Cursor;
use cursor::Position;
use erased::ErasedSince;
pub(crate) use erased::LatestRules;
pub(crate) use organisations::Organisations;
pub(crate) use selection::Selection;

use crate::error::{Error, Result};
use crate::logs::Condition;
use crate::query::{FileOrdering, Queries, QueryContext, Weight};
use crate::record::json::Encoder;
use crate::record::{DATE, SORT_KEY};
use crate::table::DataFile;
use crate::time;
use crate::view::View;

/// Number of days that are open at the same time.
const DAYS_AHEAD: usize = 2;
/// Number of batches that are encoded at the same time.
const ENCODING: usize = 2;
/// Maximum rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Approximate bytes of JSON for each compressed byte of a file. Only batch sizes depend on it.
const EXPANSION: u64 = 6;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// Selection of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Start of the time range, inclusive: RFC 3339 or a date (UTC). `None` means the first record.
    pub from: Option<String>,
    /// End of the time range, exclusive: RFC 3339 or a date (UTC). `None` means the last record.
    pub to: Option<String>,
    /// Keys of each line, in order. `None` means the whole record in its native form.
    pub columns: Option<Vec<String>>,
    /// The last line received of an earlier export, after which to continue.
    pub after: Option<Cursor>,
    /// Maximum number of lines. `None` means no limit.
    pub limit: Option<u64>,
}

impl Request {
    /// Returns the columns whose values the time range and the cursor compare.
    pub fn reads(&self) -> impl Iterator<Item = &'static str> {
        let after = self.after.is_some();
        let timed = self.from.is_some() || self.to.is_some() || after;
        timed.then_some("created_at").into_iter().chain(after.then_some("id"))
    }
}

/// A validated request.
struct Plan {
    encoder: Arc<Encoder>,
    frame: TimeRange,
    days: Vec<i32>,
    /// Position after which to continue.
    after: Option<Position>,
    /// Average bytes of a stored row.
    row_bytes: u64,
    condition: Condition,
    /// Filter of rows erased during the export. `None` if the reader sees everything as stored.
    erased: Option<ErasedSince>,
    /// Organisations whose records were written.
    organisations: Arc<Organisations>,
}

/// A half-open time range, µs since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TimeRange {
    from: i64,
    to: i64,
}

/// Starts an export. Each chunk ends at the end of a line. Dropping the stream cancels the export.
/// Rows that `latest` reports as erased during the export are left out of the rest.
pub(crate) async fn export(
    queries: Arc<Queries>,
    query_context: impl Into<QueryContext>,
    latest: LatestRules,
    request: &Request,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    selected(
        queries,
        query_context.into(),
        latest,
        request,
        Condition::default(),
        0,
        Arc::default(),
    )
    .await
}

/// Starts an export of the records that match a condition, without the first `skip`. Notes their
/// organisations.
pub(crate) async fn selected(
    queries: Arc<Queries>,
    query_context: QueryContext,
    latest: LatestRules,
    request: &Request,
    condition: Condition,
    skip: u64,
    organisations: Arc<Organisations>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let erased = query_context
        .read_scope
        .as_ref()
        .map(|read_scope| ErasedSince::new(latest, Arc::clone(&read_scope.rules)));
    let heavy = queries.heavy().clone();
    let holder = query_context.holder();
    let plan = Arc::new(Plan {
        erased,
        organisations,
        ..Plan::make(&queries, &query_context, request, condition).await?
    });
    let batches = futures::stream::iter(plan.days.clone())
        .map({
            let plan = Arc::clone(&plan);
            move |day| {
                let queries = Arc::clone(&queries);
                let query_context = query_context.clone();
                let plan = Arc::clone(&plan);
                async move { plan.day(&queries, query_context, day).await }
            }
        })
        .buffered(DAYS_AHEAD)
        .try_flatten();
    let lines = limited(skipped(batches.boxed(), skip), request.limit)
        .map(move |batch| {
            let plan = Arc::clone(&plan);
            let encoder = Arc::clone(&plan.encoder);
            let heavy = heavy.clone();
            let holder = holder.clone();
            async move {
                let batch = match &plan.erased {
                    Some(erased) => erased.keep(batch?)?,
                    None => batch?,
                };
                plan.organisations.note(&batch, ErasedSince::ORGANISATION);
                let encode = move || {
                    let mut lines = Vec::new();
                    encoder.encode(&batch, &mut lines).map(|()| Bytes::from(lines))
                };
                heavy.run(&holder, encode).await?
            }
        })
        .buffered(ENCODING)
        .try_filter(|chunk| futures::future::ready(!chunk.is_empty()));
    Ok(lines.boxed())
}

/// Returns the maximum number of records that the export can have, from the file index and memory
/// alone. For a single organisation whose files others share, this is the limit of the request, or
/// `u64::MAX`.
pub(crate) fn estimate(query_context: &QueryContext, request: &Request) -> Result<u64> {
    let frame = TimeRange::parse(request)?;
    let most = request.limit.unwrap_or(u64::MAX);
    if query_context.is_bound() {
        return Ok(most);
    }
    let files = query_context.files();
    let files = files
        .iter()
        .filter(|file| file.max_created_at >= frame.from && file.min_created_at < frame.to);
    let memory = query_context.view.memory.iter().map(|batch| batch.num_rows() as u64);
    Ok((files.map(|file| file.rows).sum::<u64>() + memory.sum::<u64>()).min(most))
}

/// Returns the start of the requested time range, µs since 1970-01-01. `None` means the first
/// record.
pub(crate) fn first_moment(request: &Request) -> Result<Option<i64>> {
    Ok(request.from.is_some().then_some(TimeRange::parse(request)?.from))
}

impl Plan {
    async fn make(
        queries: &Queries,
        query_context: &QueryContext,
        request: &Request,
        condition: Condition,
    ) -> Result<Self> {
        let encoder = Arc::new(Encoder::new(request.columns.as_deref())?);
        if query_context.withholds_bodies() {
            refuse_bodies(request)?;
        }
        let frame = TimeRange::parse(request)?;
        let after = match &request.after {
            Some(cursor) => Some(cursor.position(queries, query_context).await?),
            None => None,
        };
        let first = frame
            .from
            .max(after.as_ref().map_or(i64::MIN, |after| after.created_at))
            .div_euclid(MICROS_A_DAY);
        let last = frame.to.saturating_sub(1).div_euclid(MICROS_A_DAY);
        let days = days_of(query_context)
            .into_iter()
            .filter(|day| (first..=last).contains(&i64::from(*day)))
            .collect();
        let row_bytes = row_bytes(&query_context.view);
        Ok(Self {
            encoder,
            frame,
            days,
            after,
            row_bytes,
            condition,
            erased: None,
            organisations: Arc::default(),
        })
    }

    /// Returns the columns to select: those of the line, and those that detect an erasure.
    fn select_list(&self) -> String {
        match self.erased {
            Some(_) => format!("{}, {}", select_list(&self.encoder), ErasedSince::select_list()),
            None => select_list(&self.encoder),
        }
    }

    /// Reads the batches of one day, in order.
    async fn day(
        &self,
        queries: &Queries,
        query_context: QueryContext,
        day: i32,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let [organisation, time, id] = SORT_KEY;
        let mut conditions =
            vec![format!("\"{DATE}\" = $day"), format!("{time} >= $from"), format!("{time} < $to")];
        let micros = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
        let mut params = vec![
            ("day", ScalarValue::Date32(Some(day))),
            ("from", micros(self.frame.from)),
            ("to", micros(self.frame.to)),
        ];
        let is_here =
            |after: &&Position| after.created_at.div_euclid(MICROS_A_DAY) == i64::from(day);
        if let Some(after) = self.after.as_ref().filter(is_here) {
            conditions.push(format!(
                "({organisation} > $o or ({organisation} = $o and ({time} > $t or ({time} = $t and {id} > $i))))"
            ));
            params.push(("o", ScalarValue::Utf8View(Some(after.organisation.clone()))));
            params.push(("t", micros(after.created_at)));
            params.push(("i", ScalarValue::Utf8View(Some(after.id.clone()))));
        }
        conditions.extend(self.condition.parts.iter().cloned());
        params.extend(
            self.condition.params.iter().map(|(name, value)| (name.as_str(), value.clone())),
        );
        let text = format!(
            "{}select {} from logs where {} order by {organisation}, {time}, {id}",
            self.condition.with(),
            self.select_list(),
            conditions.join(" and ")
        );
        let params = ParamValues::from(params);
        let reading = self.reading(queries, &query_context, day).await?;
        queries.ordered(query_context, &text, params, reading).await
    }

    /// Returns the rows of a batch of a day and the way to read its files: merged, or sorted on
    /// disk if they cannot all be open together.
    async fn reading(
        &self,
        queries: &Queries,
        query_context: &QueryContext,
        day: i32,
    ) -> Result<(usize, FileOrdering)> {
        let is_read = |file: &&Arc<DataFile>| {
            let TimeRange { from, to } = self.frame;
            file.date == day && file.max_created_at >= from && file.min_created_at < to
        };
        let files: Vec<_> =
            query_context.files().into_iter().filter(is_read).map(Arc::clone).collect();
        let columns: Vec<String> =
            self.encoder.projection().into_iter().chain(SORT_KEY.map(str::to_owned)).collect();
        let weights = queries.weigh(query_context.view.rows, &files, Some(&columns)).await?;
        let heaviest = weights.iter().copied().fold(Weight::default(), Weight::max);
        // Rows in memory are read in batches of the same size.
        let heaviest = heaviest.max(Weight { row: self.row_bytes, ..Weight::default() });
        let room = queries.export_room(query_context);
        let rows = heaviest.batch_rows(BATCH_ROWS, room);
        let held = weights.iter().fold(0_u64, |sum, weight| sum.saturating_add(weight.held(rows)));
        // The next day is opened while this one is written.
        let fits = held <= room / DAYS_AHEAD as u64;
        Ok((rows, if fits { FileOrdering::Always } else { FileOrdering::Never }))
    }
}

impl TimeRange {
    fn parse(request: &Request) -> Result<Self> {
        let bound = |name: &str, text: &Option<String>, open: i64| match text {
            None => Ok(open),
            Some(text) => time::parse_parameter(name, text).map(|at| at.timestamp_micros()),
        };
        let frame = Self {
            from: bound("from", &request.from, i64::MIN)?,
            to: bound("to", &request.to, i64::MAX)?,
        };
        if frame.from >= frame.to {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            return Err(Error::invalid(format!(
                "the time frame is empty: `from` {} is not before `to` {} (`to` itself is not included)",
                text(&request.from),
                text(&request.to)
            )));
        }
        Ok(frame)
    }
}

/// Returns the columns that the encoder needs, as SQL. A part of a message is read alone, under its
/// dotted name.
fn select_list(encoder: &Encoder) -> String {
    let column = |name: &String| match name.split_once('.') {
        Some((message, part)) => format!("{message}['{part}'] as \"{name}\""),
        None => format!("\"{name}\""),
    };
    encoder.projection().iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Refuses columns that hold bodies. An export of whole records omits them instead.
fn refuse_bodies(request: &Request) -> Result<()> {
    let bodies = ["request", "response", "request.body", "response.body"];
    match request.columns.iter().flatten().find(|name| bodies.contains(&name.as_str())) {
        Some(name) => Err(Error::denied(format!(
            "column `{name}` holds bodies, and the key lacks the scope `logs.read`; leave the column out, or name its headers \
             alone"
        ))),
        None => Ok(()),
    }
}

/// Returns the days that may have visible records.
fn days_of(query_context: &QueryContext) -> BTreeSet<i32> {
    let mut days: BTreeSet<i32> = query_context.files().into_iter().map(|file| file.date).collect();
    for batch in &query_context.view.memory {
        if let Some(dates) = batch.column_by_name(DATE) {
            days.extend(dates.as_primitive::<arrow::datatypes::Date32Type>().iter().flatten());
        }
    }
    days
}

/// Returns the approximate bytes of a row in memory.
fn row_bytes(view: &View) -> u64 {
    let memory_rows: u64 = view.memory.iter().map(|batch| batch.num_rows() as u64).sum();
    let memory_bytes: u64 =
        view.memory.iter().map(|batch| batch.get_array_memory_size() as u64).sum();
    let rows = (view.files.rows() + memory_rows).max(1);
    (view.files.bytes() * EXPANSION + memory_bytes) / rows
}

/// Skips rows at the start of a stream of batches.
fn skipped(
    batches: BoxStream<'static, Result<RecordBatch>>,
    skip: u64,
) -> BoxStream<'static, Result<RecordBatch>> {
    if skip == 0 {
        return batches;
    }
    let rest = batches.scan(skip, |left, batch| {
        let rows = batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let passed = rows.min(*left);
        *left -= passed;
        let from = usize::try_from(passed).unwrap_or(usize::MAX);
        futures::future::ready(Some(batch.map(|batch| batch.slice(from, batch.num_rows() - from))))
    });
    rest.boxed()
}

/// Ends a stream of batches after a number of rows.
fn limited(
    batches: BoxStream<'static, Result<RecordBatch>>,
    limit: Option<u64>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let Some(limit) = limit else { return batches };
    let state = (batches, limit);
    futures::stream::try_unfold(state, |(mut batches, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(batch) = batches.try_next().await? else { return Ok(None) };
        let rows = (batch.num_rows() as u64).min(left);
        let batch = batch.slice(0, usize::try_from(rows).unwrap_or(usize::MAX));
        Ok(Some((batch, (batches, left - rows))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: &str, to: &str) -> Request {
        Request { from: Some(from.to_owned()), to: Some(to.to_owned()), ..Request::default() }
    }

    #[test]
    fn a_frame_takes_dates_and_moments_in_any_zone() {
        let frame = TimeRange::parse(&request("2026-11-01", "2026-11-02")).unwrap();
        assert_eq!(frame.to - frame.from, MICROS_A_DAY);
        assert_eq!(
            TimeRange::parse(&request("2026-11-01T02:00:00+02:00", "2026-11-02T00:00:00Z"))
                .unwrap(),
            frame
        );
    }

    #[test]
    fn an_empty_or_unreadable_frame_is_refused_by_name() {
        for (from, to, words) in [
            ("2026-11-02", "2026-11-02", "the time frame is empty"),
            ("2026-11-03", "2026-11-02", "the time frame is empty"),
            ("yesterday", "2026-11-02", "`from` is `yesterday`"),
            ("2026-11-01", "2026-13-02", "`to` is `2026-13-02`"),
        ] {
            let error = TimeRange::parse(&request(from, to)).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}
