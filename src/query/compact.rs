//! Gives batches text of their own before a step that keeps them.
//!
//! Texts share buffers: a batch of a few rows refers to whole pages of a file, and what a filter,
//! a join or a sort gives refers to the buffers of all batches that it took rows from. A step that
//! keeps batches counts, and keeps, all of these buffers for every batch. In statements that read
//! bodies, this step copies the text of such a batch, so that what is kept and counted is what the
//! rows need. Below a window, which counts nothing, the texts count themselves, until they are
//! dropped.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions, StructArray,
};
use arrow::datatypes::{ByteViewType, DataType};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use super::memory;
use super::without_expressions::{one_input, without_expressions};

/// Bytes of buffers beyond twice the text of a column that are not worth a copy.
const MAX_SLACK: usize = 4 << 10;
/// Steps that keep batches of their inputs.
const KEEPERS: [&str; 11] = [
    "BoundedWindowAggExec",
    "CrossJoinExec",
    "HashJoinExec",
    "NestedLoopJoinExec",
    "PiecewiseMergeJoinExec",
    "RepartitionExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "UnnestExec",
    "WindowAggExec",
];

/// Steps that keep batches, or what they were made of, and do not count them.
const UNCOUNTED: [&str; 2] = ["BoundedWindowAggExec", "WindowAggExec"];

/// Puts the step below every step of a plan that keeps batches with text.
pub(super) fn insert(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if !KEEPERS.contains(&node.name()) || !node.children().iter().any(|child| has_text(child)) {
            return Ok(Transformed::no(node));
        }
        let counts = UNCOUNTED.contains(&node.name());
        let mut children: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        for child in node.children() {
            let input = Arc::clone(child);
            let has_text = has_text(&input);
            children.push(if has_text { Arc::new(CompactExec { input, counts }) } else { input });
        }
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(children, options)?))
    })
    .data()
}

fn has_text(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.schema().fields().iter().any(|field| is_text(field.data_type()))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(|field| is_text(field.data_type())),
        _ => false,
    }
}

/// Cuts a batch into parts of at most so many rows: a step that cuts it later counts all of its
/// buffers for each part.
fn parts(batch: &RecordBatch, most: usize) -> impl Iterator<Item = RecordBatch> + use<> {
    let batch = batch.clone();
    let most = most.max(1);
    let starts = (0..batch.num_rows()).step_by(most);
    starts.map(move |start| batch.slice(start, most.min(batch.num_rows() - start)))
}

/// Returns the same rows in buffers that are at most about twice as big as their text.
fn compacted(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(compacted_column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn compacted_column(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View if is_loose(column.as_string_view()) => {
            Arc::new(column.as_string_view().gc())
        }
        DataType::BinaryView if is_loose(column.as_binary_view()) => {
            Arc::new(column.as_binary_view().gc())
        }
        DataType::Struct(fields) => {
            let structs = column.as_struct();
            let children = structs.columns().iter().map(compacted_column).collect();
            Arc::new(StructArray::new(fields.clone(), children, structs.nulls().cloned()))
        }
        _ => Arc::clone(column),
    }
}

/// Returns the same rows in buffers whose bytes count against a pool until they are dropped.
fn counted(batch: &RecordBatch, pool: &Arc<dyn MemoryPool>) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| counted_column(column, pool));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn counted_column(column: &ArrayRef, pool: &Arc<dyn MemoryPool>) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Utf8View => Arc::new(counted_text(column.as_string_view(), pool)?),
        DataType::BinaryView => Arc::new(counted_text(column.as_binary_view(), pool)?),
        DataType::Struct(fields) => {
            let structs = column.as_struct();
            let children = structs.columns().iter().map(|child| counted_column(child, pool));
            let children = children.collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::new(fields.clone(), children, structs.nulls().cloned()))
        }
        _ => Arc::clone(column),
    })
}

fn counted_text<T: ByteViewType>(
    texts: &GenericByteViewArray<T>,
    pool: &Arc<dyn MemoryPool>,
) -> Result<GenericByteViewArray<T>> {
    let (views, buffers, nulls) = texts.clone().into_parts();
    let buffers = memory::counted(pool, &buffers)?;
    Ok(GenericByteViewArray::try_new(views, buffers, nulls)?)
}

/// Returns whether the buffers of a column are much larger than its text.
fn is_loose<T: ByteViewType>(texts: &GenericByteViewArray<T>) -> bool {
    let held: usize = texts.data_buffers().iter().map(|buffer| buffer.capacity()).sum();
    held > MAX_SLACK && held > texts.total_buffer_bytes_used().saturating_mul(2) + MAX_SLACK
}

/// The step.
#[derive(Debug)]
struct CompactExec {
    input: Arc<dyn ExecutionPlan>,
    /// True if the kept batches count here, since the step above does not count them.
    counts: bool,
}

impl CompactExec {
    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input, counts: self.counts }
    }
}

impl DisplayAs for CompactExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompactExec")
    }
}

impl ExecutionPlan for CompactExec {
    fn name(&self) -> &'static str {
        "CompactExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    one_input!();

    without_expressions!();

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let pool = self.counts.then(|| Arc::clone(context.memory_pool()));
        let rows = context.session_config().batch_size();
        let input = self.input.execute(partition, context)?;
        let own = move |batch: RecordBatch| {
            let batch = compacted(&batch)?;
            match &pool {
                Some(pool) => counted(&batch, pool),
                None => Ok(batch),
            }
        };
        let batches = input.map_ok(move |batch| {
            futures::stream::iter(parts(&batch, rows).map(Ok::<_, DataFusionError>))
        });
        let batches = batches.try_flatten().map(move |batch| own(batch?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::compute::BatchCoalescer;
    use arrow::datatypes::{Field, Fields, Schema};
    use datafusion::common::utils::memory::get_record_batch_memory_size;

    use super::*;

    /// Rows with a text each, alone and in a struct.
    fn rows(count: usize, bytes: usize) -> RecordBatch {
        let texts = (0..count).map(|row| Some(format!("{row:0>bytes$}")));
        let texts: ArrayRef = Arc::new(texts.collect::<StringViewArray>());
        let fields = Fields::from(vec![Field::new("body", DataType::Utf8View, true)]);
        let message = StructArray::new(fields.clone(), vec![Arc::clone(&texts)], None);
        let numbers = Int64Array::from_iter_values((0..).take(count));
        let schema = Schema::new(vec![
            Field::new("number", DataType::Int64, true),
            Field::new("text", DataType::Utf8View, true),
            Field::new("message", DataType::Struct(fields), true),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), texts, Arc::new(message)];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn slices_and_coalesced_rows_count_as_their_text_alone() {
        let whole = rows(1_000, 1_000);
        let slice = whole.slice(500, 10);
        assert!(get_record_batch_memory_size(&slice) > 1_000_000);
        let own = compacted(&slice).unwrap();
        assert_eq!(own, slice);
        assert!(get_record_batch_memory_size(&own) < 40_000);

        let mut coalescer = BatchCoalescer::new(whole.schema(), 2);
        for row in 0..200 {
            coalescer.push_batch(whole.slice(row * 5, 1)).unwrap();
        }
        while let Some(pair) = coalescer.next_completed_batch() {
            let own = compacted(&pair).unwrap();
            assert_eq!(own, pair);
            assert!(get_record_batch_memory_size(&own) < 20_000);
        }
    }

    #[test]
    fn batches_are_cut_to_the_rows_of_a_batch() {
        let whole = rows(10, 100);
        let rows = |most| parts(&whole, most).map(|part| part.num_rows()).collect::<Vec<_>>();
        assert_eq!(rows(4), [4, 4, 2]);
        assert_eq!(rows(0), [1; 10]);
        assert_eq!(rows(10), [10]);
        assert_eq!(parts(&whole.slice(0, 0), 4).count(), 0);
    }

    #[test]
    fn text_that_has_buffers_of_its_own_is_not_copied() {
        let whole = rows(1_000, 1_000);
        let own = compacted(&whole).unwrap();
        for (own, whole) in own.columns().iter().zip(whole.columns()) {
            assert!(own.to_data().ptr_eq(&whole.to_data()));
        }
    }
}
