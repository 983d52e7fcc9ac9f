//! Decides which rows of a batch are visible: those of the reader's organisation and workspace that
//! retention and erasures allow.
//!
//! Rows are sorted by organisation, so everything that depends on it (its retention, its erasures)
//! is looked up once for each run of equal values, and each row costs one comparison of its time.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result};

use super::read_scope::ReadScope;
use super::shown::Shown;
use crate::plan::{Named, Outlook, Row};
use crate::record::{Kind, Rows};
use crate::table::DataFile;

const ORGANISATION: &str = "organisation_id";
const WORKSPACE: &str = "workspace_slug";
const TIME: &str = "created_at";
const USER: &str = "user_id";
const ID: &str = "id";

/// Visibility of rows and columns within one read scope.
#[derive(Debug)]
pub(super) struct RowSecurity {
    read_scope: ReadScope,
    rows: Rows,
    /// Time at which the file of the rows was written, in ms since 1970-01-01. `i64::MAX` if there
    /// are several files.
    written_ms: i64,
    /// True if any erasure applies within the read scope.
    by_erasure: bool,
    /// True if there are erasures by end user.
    by_user: bool,
    /// True if there are erasures by id.
    by_id: bool,
}

/// The columns that decide on visibility. Unused ones are left out.
struct Deciding<'a> {
    organisations: &'a StringViewArray,
    times: Option<&'a TimestampMicrosecondArray>,
    workspaces: Option<&'a StringViewArray>,
    users: Option<&'a StringViewArray>,
    ids: Option<&'a StringViewArray>,
}

/// Visibility of the rows of a file or a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Every row is visible.
    All,
    /// Each row must be checked.
    Some,
    /// No row is visible.
    None,
}

impl RowSecurity {
    pub(super) fn new(read_scope: ReadScope, rows: Rows) -> Self {
        let erased = read_scope.rules.erased();
        let ours: Vec<&Named> = match &read_scope.organisation {
            Some(ours) => erased.for_organisation(ours).into_iter().collect(),
            None => erased.organisations().collect(),
        };
        let by_erasure = !ours.is_empty();
        let by_user = ours.iter().any(|named| named.by_user());
        let by_id = ours.iter().any(|named| named.by_id(rows == Rows::Feedback));
        Self { by_erasure, by_user, by_id, read_scope, rows, written_ms: i64::MAX }
    }

    /// Returns the rules for the rows of one file.
    pub(super) fn for_file(&self, file: &DataFile) -> Self {
        Self { written_ms: file.modified_ms, read_scope: self.read_scope.clone(), ..*self }
    }

    /// Returns true if the rows of a file need the rules of [`RowSecurity::for_file`].
    pub(super) fn is_apart(&self, file: &DataFile) -> bool {
        self.read_scope.rules.erased().may_be_ahead_in(file.facts())
    }

    pub(super) fn read_scope(&self) -> &ReadScope {
        &self.read_scope
    }

    /// Returns the visible part of a column.
    pub(super) fn shows(&self, column: &str) -> Shown {
        self.read_scope.shows(self.rows, column)
    }

    /// Returns the withheld parts of a column, as clients see them.
    pub(super) fn withheld_names(&self, column: &str) -> BTreeSet<String> {
        self.read_scope.withheld_names(self.rows, column)
    }

    /// Returns true if only rows of some organisations are visible, whatever their age.
    pub(super) fn is_bound(&self) -> bool {
        self.read_scope.organisation.is_some() || self.read_scope.workspace.is_some()
    }

    /// Returns the visibility that is certain for a file.
    pub(super) fn reach(&self, file: &DataFile) -> Visibility {
        let facts = file.facts();
        if self.read_scope.organisation.as_ref().is_some_and(|ours| !facts.may_hold(ours)) {
            return Visibility::None;
        }
        match self.read_scope.rules.outlook(facts, self.read_scope.now_micros) {
            Outlook::Hidden => Visibility::None,
            Outlook::Seen if !self.is_bound() => Visibility::All,
            Outlook::Seen | Outlook::Mixed => Visibility::Some,
        }
    }

    /// Returns the time from which records are visible, in µs since 1970-01-01. `i64::MIN` if
    /// organisations differ.
    pub(super) fn since(&self) -> i64 {
        let ours = self.read_scope.organisation.as_ref();
        ours.map_or(i64::MIN, |ours| {
            self.read_scope.rules.seen_since(ours, self.read_scope.now_micros)
        })
    }

    /// Returns true if the time of a record may decide.
    fn by_time(&self) -> bool {
        self.read_scope.organisation.is_none() || self.since() > i64::MIN || self.by_erasure
    }

    /// Returns the names of the deciding columns, in the order in which [`RowSecurity::mask`] takes
    /// them.
    pub(super) fn needs(&self) -> Vec<&'static str> {
        let further = [
            (self.by_time(), TIME),
            (self.read_scope.workspace.is_some(), WORKSPACE),
            (self.by_user, USER),
            (self.by_id, ID),
        ];
        let further = further.into_iter().filter(|(needed, _)| *needed).map(|(_, name)| name);
        [ORGANISATION].into_iter().chain(further).collect()
    }

    fn deciding<'a>(&self, columns: &'a [ArrayRef]) -> Result<Deciding<'a>> {
        let of = |name| {
            self.needs()
                .iter()
                .position(|needed| *needed == name)
                .and_then(|place| columns.get(place))
        };
        let texts = |name| of(name).map(text).transpose();
        let times = |array: &'a ArrayRef| {
            array.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong_columns)
        };
        Ok(Deciding {
            organisations: texts(ORGANISATION)?.ok_or_else(wrong_columns)?,
            times: of(TIME).map(times).transpose()?,
            workspaces: texts(WORKSPACE)?,
            users: texts(USER)?,
            ids: texts(ID)?,
        })
    }

    /// Returns the mask of visible rows, given the columns of [`RowSecurity::needs`].
    pub(super) fn mask(&self, columns: &[ArrayRef]) -> Result<BooleanArray> {
        if columns.len() != self.needs().len() {
            return Err(wrong_columns());
        }
        let columns = self.deciding(columns)?;
        let organisations = columns.organisations;
        let mut seen = BooleanBufferBuilder::new(organisations.len());
        let mut start = 0;
        while start < organisations.len() {
            let organisation = value(organisations, start);
            let end = run_end(organisations, start);
            match self.read_scope.organisation.as_deref() {
                Some(ours) if organisation != Some(ours) => seen.append_n(end - start, false),
                _ => self.judge_run(organisation.unwrap_or(""), start..end, &columns, &mut seen),
            }
            start = end;
        }
        let mut seen: BooleanBuffer = seen.finish();
        if let (Some(ours), Some(workspaces)) =
            (self.read_scope.workspace.as_deref(), columns.workspaces)
        {
            seen = &seen
                & &BooleanBuffer::collect_bool(workspaces.len(), |row| {
                    value(workspaces, row) == Some(ours)
                });
        }
        Ok(BooleanArray::new(seen, None))
    }

    /// Decides on rows of one organisation.
    fn judge_run(
        &self,
        organisation: &str,
        run: std::ops::Range<usize>,
        columns: &Deciding<'_>,
        seen: &mut BooleanBufferBuilder,
    ) {
        // A record without a time, which gatelog never stores, counts as older than any other.
        let time = |row| {
            columns
                .times
                .filter(|times| times.is_valid(row))
                .map_or(i64::MIN, |times| times.value(row))
        };
        let since = self.read_scope.rules.seen_since(organisation, self.read_scope.now_micros);
        let feedback = self.rows == Rows::Feedback;
        let written_ms = self.written_ms;
        match self.read_scope.rules.erased().for_organisation(organisation) {
            Some(erased) => run.for_each(|row| {
                let id = columns.ids.and_then(|ids| value(ids, row)).unwrap_or("");
                let user = columns.users.and_then(|users| value(users, row));
                let created_at = time(row);
                let row = Row { feedback, organisation, id, user, created_at, written_ms };
                seen.append(created_at >= since && erased.first(row).is_none());
            }),
            None if since == i64::MIN => seen.append_n(run.len(), true),
            None => run.for_each(|row| seen.append(time(row) >= since)),
        }
    }

    /// Returns the visibility of the rows of a batch with the whole schema.
    pub(super) fn reach_in(&self, batch: &RecordBatch) -> Result<Visibility> {
        let column = |name| batch.column_by_name(name).map(Arc::clone).ok_or_else(wrong_columns);
        let deciding = self.needs().into_iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(match self.mask(&deciding)?.true_count() {
            0 => Visibility::None,
            seen if seen == batch.num_rows() => Visibility::All,
            _ => Visibility::Some,
        })
    }
}

/// Returns true if a column is one of the two with bodies.
pub(super) fn is_message(data_type: &DataType) -> bool {
    *data_type == Kind::Message.data_type()
}

fn text(column: &ArrayRef) -> Result<&StringViewArray> {
    column.as_string_view_opt().ok_or_else(wrong_columns)
}

/// Returns the end of a run of rows with the same text. A text that is stored twice may end a run
/// early: views are compared, since a query judges every row in memory of all organisations.
fn run_end(texts: &StringViewArray, start: usize) -> usize {
    if texts.null_count() > 0 {
        // The view of a null may be any.
        return start + 1;
    }
    let views = &texts.views()[start..];
    let ends = views.iter().position(|view| *view != views[0]);
    start + ends.unwrap_or(views.len())
}

fn value(texts: &StringViewArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

fn wrong_columns() -> DataFusionError {
    DataFusionError::Internal(
        "the columns that decide on visibility are missing or of another type".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_the_text_differs_and_a_null_is_alone() {
        let long = "an organisation with a name that is not stored in a view";
        let names = ["zen", "zen", "acme", long, long, "zen"].map(Some);
        let texts = StringViewArray::from_iter(names);
        let mut starts = vec![0];
        while let Some(start) = starts.last().filter(|start| **start < texts.len()) {
            starts.push(run_end(&texts, *start));
        }
        assert!([0, 2, 3, 5, 6].iter().all(|start| starts.contains(start)), "{starts:?}");
        assert!(!starts.contains(&1), "one run of one text");

        let views = StringViewArray::from_iter_values(["zen", "zen", "zen"]);
        let (views, buffers, _) = views.into_parts();
        let nulls = arrow::buffer::NullBuffer::from(vec![true, false, true]);
        let texts = StringViewArray::try_new(views, buffers, Some(nulls)).unwrap();
        assert_eq!((run_end(&texts, 0), run_end(&texts, 1)), (1, 2));
    }
}
