//! The index's statistics of files, in the forms that DataFusion expects: statistics of a scan, and
//! bounds for pruning.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int32Array, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};

use crate::record::{DATE, RETENTION_DAYS};
use crate::table::DataFile;

/// Returns the rows, bytes and time range of the files. They answer `count(*)`, `min(created_at)`
/// and `max(created_at)` without reading any file.
pub(super) fn statistics(files: &[Arc<DataFile>], schema: &SchemaRef) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    statistics.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    statistics.total_byte_size =
        usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact);
    // Bounds written by another program may be rounded: they prune, but must not be an answer.
    let ours = |file: &DataFile| {
        crate::store::parse_data_path(&file.path).is_some_and(|path| path.uuid.is_some())
    };
    let known = files
        .iter()
        .all(|file| file.min_created_at > i64::MIN && file.max_created_at < i64::MAX && ours(file));
    let times = (
        files.iter().map(|file| file.min_created_at).min(),
        files.iter().map(|file| file.max_created_at).max(),
    );
    if let (true, (Some(min), Some(max)), Ok(place)) = (known, times, schema.index_of("created_at"))
    {
        let exactly = |micros| {
            Precision::Exact(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
        };
        statistics.column_statistics[place] = ColumnStatistics {
            min_value: exactly(min),
            max_value: exactly(max),
            null_count: Precision::Exact(0),
            ..ColumnStatistics::new_unknown()
        };
    }
    statistics
}

/// Bounds of each file, in the form that DataFusion's pruning expects.
pub(super) struct FileStatistics<'a>(pub(super) &'a [Arc<DataFile>]);

impl FileStatistics<'_> {
    fn texts<'a>(&'a self, value: impl Fn(&'a DataFile) -> Option<&'a str>) -> ArrayRef {
        Arc::new(self.0.iter().map(|file| value(file)).collect::<StringArray>())
    }

    fn times(&self, value: impl Fn(&DataFile) -> i64) -> ArrayRef {
        let times = self.0.iter().map(|file| {
            Some(value(file)).filter(|micros| *micros != i64::MIN && *micros != i64::MAX)
        });
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    }

    fn partition(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            RETENTION_DAYS => Some(Arc::new(
                self.0.iter().map(|file| Some(file.retention_days)).collect::<Int32Array>(),
            )),
            DATE => {
                Some(Arc::new(self.0.iter().map(|file| Some(file.date)).collect::<Date32Array>()))
            }
            _ => None,
        }
    }
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            "created_at" => Some(self.times(|file| file.min_created_at)),
            "organisation_id" => Some(self.texts(|file| file.min_organisation.as_deref())),
            "id" => Some(self.texts(|file| file.min_id.as_deref())),
            _ => self.partition(column),
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            "created_at" => Some(self.times(|file| file.max_created_at)),
            "organisation_id" => Some(self.texts(|file| file.max_organisation.as_deref())),
            "id" => Some(self.texts(|file| file.max_id.as_deref())),
            _ => self.partition(column),
        }
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.0.iter().map(|file| Some(file.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
