//! Data files: every page has its CRC, every byte is covered, and a flipped bit is never read.

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use url::Url;

use super::checked::{CheckedReaderFactory, HARMED, Verified, verify};
use super::*;
use crate::record::{BatchBuilder, Record};

use crate::store::Store;

fn batch(rows: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for row in 0..rows {
        let mut record = Record {
            id: Some(format!("id-{row:05}")),
            organisation_id: Some("acme".into()),
            created_at: chrono::DateTime::from_timestamp(1_795_600_000 + row as i64, 0),
            ai_model: Some(if row % 3 == 0 { "gpt-4o" } else { "claude" }.into()),
            trace_id: Some(format!("trace-{}", row / 2)),
            total_units: (row % 4 > 0).then_some(row as i64),
            cost: Some(row as f64 / 7.0),
            ..Record::default()
        };
        record.request.body = Some(format!("{{\"text\":\"{}\"}}", "lorem ipsum ".repeat(row % 9)));
        builder.append(&record);
    }
    builder.finish()
}

/// Creates a table in memory and a file with one row group for each batch.
async fn written(batches: &[RecordBatch]) -> (Arc<dyn ObjectStore>, Path, DataFile) {
    let objects = Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
    let store = Store::with(Arc::clone(&objects), Url::parse("memory:///state").unwrap()).unwrap();
    let table = Table::create_or_open(&store, Rows::Logs).await.unwrap();
    let partition = Partition { date: 20_782, retention_days: 30 };
    let mut writer = DataFileWriter::start(&table, partition, Uuid::from_u128(1), 1, 0).unwrap();
    for batch in batches {
        writer.write(batch).await.unwrap();
        writer.end_row_group().await.unwrap();
    }
    let file = writer.finish().await.unwrap();
    (objects, table.object_store_path(&file), file)
}

/// Returns the reader that queries use.
fn reader(objects: &Arc<dyn ObjectStore>, path: &Path, bytes: u64) -> Box<dyn AsyncFileReader> {
    use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
    let runtime = datafusion::execution::runtime_env::RuntimeEnv::default();
    let cache = runtime.cache_manager.get_file_metadata_cache();
    let file = datafusion::datasource::listing::PartitionedFile::new(path.to_string(), bytes);
    let metrics = datafusion::physical_plan::metrics::ExecutionPlanMetricsSet::new();
    CheckedReaderFactory::new(Arc::clone(objects), cache)
        .create_reader(0, file, Some(4096), &metrics)
        .unwrap()
}

/// Reads everything of a file that a query may use: rows, statistics, page indexes and bloom
/// filters.
async fn read(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: u64,
) -> parquet::errors::Result<(Arc<ParquetMetaData>, Vec<RecordBatch>, Vec<bool>)> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let reader = reader(objects, path, bytes);
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await?;
    let metadata = Arc::clone(builder.metadata());
    let mut known = Vec::new();
    for group in 0..metadata.num_row_groups() {
        for column in 0..metadata.row_group(group).num_columns() {
            if let Some(filter) = builder.get_row_group_column_bloom_filter(group, column).await? {
                known.extend(["id-00001", "trace-0", "nobody"].map(|id| filter.check(&id)));
            }
        }
    }
    let rows = builder.with_batch_size(10_000).build()?.try_collect().await?;
    Ok((metadata, rows, known))
}

#[tokio::test]
async fn every_page_has_the_crc_of_its_bytes_in_its_header() {
    let batches = [batch(3_000), batch(700)];
    let (objects, path, file) = written(&batches).await;
    let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
    let (metadata, rows, _) = read(&objects, &path, file.bytes).await.unwrap();
    let width = rows[0].num_columns();
    let expected = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let found = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
    assert_eq!(found.columns(), &expected.columns()[..width]);
    assert_eq!((found.num_rows() as u64, bytes.len() as u64), (file.rows, file.bytes));
    let mut pages = 0;
    let mut dictionaries = 0;
    for (group, offsets) in metadata.row_groups().iter().zip(metadata.offset_index().unwrap()) {
        for (column, offsets) in group.columns().iter().zip(offsets) {
            let mut starts: Vec<usize> =
                offsets.page_locations.iter().map(|page| page.offset as usize).collect();
            starts.extend(column.dictionary_page_offset().map(|offset| offset as usize));
            starts.sort_unstable();
            let (from, len) = column.byte_range();
            assert_eq!(starts[0] as u64, from, "the first page of {}", column.column_path());
            let ends =
                starts[1..].iter().copied().chain([(from + len) as usize]).collect::<Vec<_>>();
            for (start, end) in starts.into_iter().zip(ends) {
                let (kind, crc, header) = pages::tests::header(&bytes[start..end]);
                assert_eq!(
                    crc32fast::hash(&bytes[start + header..end]),
                    crc,
                    "{} at {start}",
                    column.column_path()
                );
                pages += 1;
                dictionaries += usize::from(kind == 2);
            }
        }
    }
    assert!(
        dictionaries > 10 && pages > 2 * dictionaries,
        "{pages} pages, {dictionaries} of them dictionaries"
    );
    assert_eq!(verify(&*objects, &path, file.bytes).await.unwrap(), Verified::Whole(3_700));
}

#[tokio::test]
async fn a_flipped_bit_is_reported_and_never_read() {
    let (objects, path, file) = written(&[batch(40), batch(3)]).await;
    let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
    let expected = read(&objects, &path, file.bytes).await.unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap());
    let pages_end = file.bytes - 8 - u64::from(footer);
    let mut refused = 0;
    let mut kinds = std::collections::BTreeSet::new();
    let footer_start = usize::try_from(pages_end).unwrap();
    for at in (0..bytes.len()).filter(|at| at % 3 == 0 || *at >= footer_start) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        objects.put(&path, flipped.into()).await.unwrap();
        let Verified::Harmed(parts) = verify(&*objects, &path, file.bytes).await.unwrap() else {
            panic!("the check does not see a flip at {at}");
        };
        assert!(parts.len() == 1, "{parts:?}");
        let text = parts[0].split(" at offset").next().unwrap().to_owned();
        kinds.insert(text.split('`').next().unwrap().to_owned());
        if at % 5 > 0 {
            continue;
        }
        // Reads bytes before the footer is requested.
        let direct = reader(&objects, &path, file.bytes).get_bytes(4..pages_end).await;
        assert!(
            direct.is_err() || at < 4 || at >= bytes.len() - 4,
            "a flip at {at} is handed out: {text}"
        );
        match read(&objects, &path, file.bytes).await {
            // The magic at the start is not read.
            Ok(found) => assert!(at < 4 && found == expected, "a flip at {at} is not seen: {text}"),
            Err(error) => refused += usize::from(error.to_string().contains(HARMED)),
        }
    }
    assert!(refused > 100, "{refused}");
    for kind in
        ["a page of column ", "the bloom filter of column ", "the page indexes", "its footer"]
    {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn a_file_of_another_program_is_read_without_checksums() {
    let objects = Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
    let path = Path::from("other.parquet");
    let rows = batch(50);
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let size = bytes.len() as u64;
    objects.put(&path, bytes.into()).await.unwrap();
    assert_eq!(verify(&*objects, &path, size).await.unwrap(), Verified::Without);
    let (_, found, _) = read(&objects, &path, size).await.unwrap();
    assert_eq!(found[0].num_rows(), 50);
}

#[test]
fn a_giant_row_is_a_slice_of_its_own() {
    assert_eq!(slices(&[1, 1, 50, 1, 60, 70, 1], 10), [0..2, 2..3, 3..4, 4..5, 5..6, 6..7]);
    assert_eq!(slices(&[5, 5, 5], 10), [0..2, 2..3]);
    assert_eq!(slices(&[0, 0, 11], 10), [0..2, 2..3]);
}
