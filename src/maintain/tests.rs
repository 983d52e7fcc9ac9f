//! Maintenance of real tables: in memory, on disk, and over a store that refuses to read Parquet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use url::Url;
use uuid::Uuid;

use super::expire::Expiry;
use super::rewrite::Rewrite;
use super::tools::{MAX_FILES, MAX_OPEN_BYTES, QUIET_MS};
use super::*;
use crate::config::Config;
use crate::datafile::OpenRecords;
use crate::dedupe::KeyHasher;
use crate::flush;
use crate::plan::{Erased, Erasure, Moving, Row, Rules, Terms};
use crate::query::Queries;
use crate::record::{BatchBuilder, Message, Record, Rows, SORT_KEY};
use crate::store::Store;
use crate::table::{Commit, DataFile, Table};

const DAY: i32 = 20_778;
const MS_A_DAY: i64 = 86_400_000;
const POLICY: Policy =
    Policy { target_bytes: 512 << 20, zstd_level: 3, sealed_zstd_level: 6, quiet_ms: QUIET_MS };

/// A table and the dependencies of its maintenance.
struct Rig {
    table: Table,
    queries: Queries,
    ids: AtomicU64,
}

impl Rig {
    async fn over(object_store: Arc<dyn ObjectStore>) -> Self {
        Self::on(&Store::with(object_store, Url::parse("memory:///state").unwrap()).unwrap()).await
    }

    async fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new())).await
    }

    async fn on(store: &Store) -> Self {
        let table = Table::create_or_open(store, Rows::Logs).await.unwrap();
        let here = tokio::runtime::Handle::current();
        let queries = Queries::new(&Config::default(), store, Vec::new(), here).unwrap();
        Self { table, queries, ids: AtomicU64::new(1) }
    }

    fn tools(&self, policy: Policy) -> Tools<'_> {
        Tools { table: &self.table, queries: &self.queries, policy }
    }

    fn new_id(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.ids.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes records to the table, one file per partition, and returns the files.
    async fn flush(
        &self,
        records: Vec<Record>,
        rules: &Rules,
        now: DateTime<Utc>,
    ) -> Vec<DataFile> {
        self.flush_open(records, &OpenRecords::Nothing, rules, now).await
    }

    /// The same for records of which some are open.
    async fn flush_open(
        &self,
        records: Vec<Record>,
        open: &OpenRecords,
        rules: &Rules,
        now: DateTime<Utc>,
    ) -> Vec<DataFile> {
        let mut batch = BatchBuilder::new();
        records.into_iter().for_each(|record| batch.append(&record));
        let now_ms = now.timestamp_millis();
        let files = flush::write_files(
            &self.table,
            &[batch.finish()],
            Arc::new(rules.clone()),
            open,
            now_ms,
            || self.new_id(),
        )
        .await;
        let files = files.unwrap();
        let commit = Commit {
            add: files.clone(),
            remove: Vec::new(),
            app: None,
            data_change: true,
            operation: "WRITE",
        };
        self.table.commit(commit).await.unwrap();
        files
    }

    /// Runs the planned merges and returns the bytes written.
    async fn compact(&self, now: DateTime<Utc>, rules: &Rules, policy: Policy) -> u64 {
        let mut written = 0;
        for merge in plan(now, &self.table.index(), rules, policy) {
            let joined =
                write_merged(self.tools(policy), &merge, now, || self.new_id()).await.unwrap();
            written += joined.iter().map(|file| file.bytes).sum::<u64>() + bytes_of_runs(&merge);
            commit_merged(&self.table, &merge, joined).await.unwrap();
        }
        written
    }

    async fn rewrite(&self, file: &DataFile, rules: &Rules, now: DateTime<Utc>) -> Rewrite {
        rewrite(self.tools(POLICY), file, rules, now, || self.new_id()).await.unwrap()
    }

    async fn query(&self, files: impl IntoIterator<Item = DataFile>, text: &str) -> RecordBatch {
        let batches: Vec<_> =
            self.tools(POLICY).read(files, text, 512).await.unwrap().try_collect().await.unwrap();
        concat_batches(&batches[0].schema(), &batches).unwrap()
    }

    /// Returns all rows of some files, in the order of the sort key.
    async fn rows_of(&self, files: impl IntoIterator<Item = DataFile>) -> RecordBatch {
        self.query(files, &format!("select * from logs order by {}", SORT_KEY.join(", "))).await
    }

    /// Computes the [`Sums`] of the whole table.
    async fn sums(&self) -> Sums {
        let text = "select count(*), count(distinct id), sum(total_units), sum(octet_length(request.body)), \
            sum(octet_length(response.body)) from logs";
        let sums = self.query(self.files(), text).await;
        let [rows, ids, units, asked, answered] =
            [0, 1, 2, 3, 4].map(|column| sums.column(column).as_primitive::<Int64Type>().value(0));
        assert_eq!(rows, ids, "each row once");
        Sums { rows, units, asked, answered }
    }

    fn files(&self) -> Vec<DataFile> {
        self.table.index().iter().map(|file| DataFile::clone(file)).collect()
    }

    async fn rows(&self) -> RecordBatch {
        self.rows_of(self.files()).await
    }

    /// Returns the ids of all records, and whether each is open.
    async fn states(&self) -> BTreeMap<String, bool> {
        let mut states = BTreeMap::new();
        let files = self.files();
        let marks = self.queries.open_rows(&files).await.unwrap();
        for (file, marks) in files.iter().zip(marks) {
            let mut batches = with_marks(&self.queries, file, marks, &["id"]).await.unwrap();
            while let Some((batch, bits)) = batches.try_next().await.unwrap() {
                let ids = batch.column(0).as_string_view().iter().flatten().map(str::to_owned);
                states.extend(ids.zip(&bits));
            }
        }
        states
    }
}

/// Writes seventy files, more than one merge reads. The record of each number is open if `is_open`
/// says so.
async fn flushed_with_states(rig: &Rig, is_open: impl Fn(u64) -> bool) -> BTreeMap<String, bool> {
    let hasher = KeyHasher::random();
    let mut expected = BTreeMap::new();
    for file in 0..70 {
        let numbers = file * 5..file * 5 + 5;
        // Of one moment, so that every file has rows between those of the others.
        let of = |number: u64| record("acme", number, at(DAY, number.cast_signed() % 5));
        let keys = |open: bool| {
            let numbers = numbers.clone().filter(|number| is_open(*number) == open);
            numbers.map(|number| hasher.key_of(&of(number))).collect()
        };
        let open = match file % 2 {
            0 => OpenRecords::from_open(&hasher, keys(true)),
            _ => OpenRecords::from_closed(&hasher, keys(false)),
        };
        rig.flush_open(numbers.clone().map(of).collect(), &open, &forever(), at(DAY, 9)).await;
        expected.extend(numbers.map(|number| (format!("{number:08}"), is_open(number))));
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn records_stay_open_or_closed_through_merges_and_rewrites() {
    for (name, is_open) in [
        ("few", (|number| number % 7 == 0) as fn(u64) -> bool),
        ("most", |number| number % 7 != 0),
        ("all of some files", |number| number / 5 % 3 == 0),
        ("none", |_| false),
        ("all", |_| true),
    ] {
        let rig = Rig::in_memory().await;
        let mut expected = flushed_with_states(&rig, is_open).await;
        assert_eq!(rig.states().await, expected, "{name}");
        rig.compact(at(DAY, 10), &forever(), POLICY).await;
        assert!(rig.files().len() < 10);
        assert_eq!(rig.states().await, expected, "{name}, merged");
        rig.compact(at(DAY + 1, QUIET_MS), &forever(), POLICY).await;
        let files: Vec<_> = rig.files().into_iter().map(Arc::new).collect();
        assert!(files.len() == 1 && files[0].is_sealed());
        assert_eq!(rig.states().await, expected, "{name}, sealed");
        let user = Erased::User { user: "user-1".to_owned(), until: i64::MAX };
        let rules = rules(&[], 0, vec![erasure("acme", user)], &[]);
        let rewritten = rig.rewrite(&files[0], &rules, at(DAY + 1, QUIET_MS)).await;
        commit_rewritten(&rig.table, &files, vec![rewritten]).await.unwrap();
        expected.retain(|id, _| id.parse::<u64>().unwrap() % 3 != 1);
        assert_eq!(rig.states().await, expected, "{name}, rewritten");
        let kept = open::open_records_up_to(rig.tools(POLICY), &rig.files(), 0).await.unwrap();
        match name {
            "none" => assert!(matches!(kept, OpenRecords::Nothing)),
            _ => assert!(matches!(kept, OpenRecords::All), "too many to list count as open"),
        }
    }
}

/// Figures that change if a row is lost or altered.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    rows: i64,
    units: i64,
    asked: i64,
    answered: i64,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        let length = |message: &Message| message.body.as_ref().map_or(0, |body| body.len() as i64);
        self.rows += 1;
        self.units += record.total_units.unwrap_or(0);
        self.asked += length(&record.request);
        self.answered += length(&record.response);
    }
}

fn at(day: i32, ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(i64::from(day) * MS_A_DAY + ms).unwrap()
}

fn record(organisation: &str, id: u64, created_at: DateTime<Utc>) -> Record {
    Record {
        id: Some(format!("{id:08}")),
        organisation_id: Some(organisation.to_owned()),
        created_at: Some(created_at),
        user_id: Some(format!("user-{}", id % 3)),
        ..Record::default()
    }
}

fn forever() -> Rules {
    Rules::without_plans(0)
}

/// Rules by organisation, with `unknown` days for all others.
fn rules(
    days: &[(&str, i32)],
    unknown: i32,
    erasures: Vec<Erasure>,
    moving: &[(&str, i32)],
) -> Rules {
    let terms = days.iter().map(|(name, days)| ((*name).to_owned(), Terms::without_plan(*days)));
    let moving = moving.iter().map(|(name, from_days)| Moving {
        organisation: (*name).to_owned(),
        from_days: *from_days,
        clean_before_ms: 0,
    });
    Rules::new(
        Terms::without_plan(unknown),
        terms.collect::<HashMap<_, _>>(),
        HashSet::new(),
        erasures,
        moving.collect(),
    )
}

fn erasure(organisation: &str, what: Erased) -> Erasure {
    let [id, organisation] = [organisation.to_owned(), organisation.to_owned()];
    Erasure {
        id,
        organisation,
        what,
        feedback: HashSet::new(),
        arrived_ms: i64::MIN,
        clean_before_ms: 0,
    }
}

/// Estimates the bytes of the runs that a merge wrote and deleted.
fn bytes_of_runs(merge: &Merge) -> u64 {
    let mut sizes: Vec<_> = merge.files.iter().map(|file| file.bytes).collect();
    let mut written = 0;
    loop {
        sizes.sort_unstable();
        let held: Vec<_> = sizes.iter().copied().map(merge::Size::estimated).collect();
        let Some(count) = merge::first_run(&held, MAX_OPEN_BYTES) else { return written };
        let run = sizes.drain(..count).sum();
        written += run;
        sizes.push(run);
    }
}

/// Returns the sort key of every row: organisation, time, id.
fn keys(rows: &RecordBatch) -> Vec<(String, i64, String)> {
    let text = |name: &str| rows.column_by_name(name).unwrap().as_string_view().clone();
    let organisations = text("organisation_id");
    let ids = text("id");
    let times = rows
        .column_by_name("created_at")
        .unwrap()
        .as_primitive::<TimestampMicrosecondType>()
        .clone();
    let key =
        |row| (organisations.value(row).to_owned(), times.value(row), ids.value(row).to_owned());
    (0..rows.num_rows()).map(key).collect()
}

/// Checks that the index entry of a file matches its rows, and that the rows are in order.
async fn check_file(rig: &Rig, file: &DataFile) {
    // Reads the file directly, since a query may read its row groups in any order.
    let object = rig.table.object_store().get(&rig.table.object_store_path(file)).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(object.bytes().await.unwrap()).unwrap();
    let columns = ProjectionMask::columns(reader.parquet_schema(), SORT_KEY);
    let batches = reader.with_projection(columns).build().unwrap();
    let keys: Vec<_> = batches.flat_map(|batch| keys(&batch.unwrap())).collect();
    assert!(keys.is_sorted(), "{}", file.path);
    assert_eq!(keys.len() as u64, file.rows);
    assert_eq!(keys.first().map(|key| key.0.clone()), file.min_organisation);
    assert_eq!(keys.last().map(|key| key.0.clone()), file.max_organisation);
    let times = || keys.iter().map(|key| key.1);
    assert_eq!(
        (times().min(), times().max()),
        (Some(file.min_created_at), Some(file.max_created_at))
    );
    let ids = || keys.iter().map(|key| key.2.clone());
    assert_eq!((ids().min(), ids().max()), (file.min_id.clone(), file.max_id.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_thirty_days_expire_in_one_commit_and_no_file_is_read() {
    let store = Arc::new(Unreadable::default());
    let rig = Rig::over(Arc::clone(&store) as _).await;
    let rules = Rules::without_plans(20);
    for day in DAY - 29..=DAY {
        let records = (0..20).map(|row| record("acme", row, at(day, row as i64))).collect();
        rig.flush(records, &rules, at(day, MS_A_DAY)).await;
        rig.flush(vec![record("zoo", 99, at(day, 99))], &rules, at(day, MS_A_DAY)).await;
    }
    store.refuses.store(true, Ordering::Relaxed);
    let before = rig.table.index();
    let expiry = plan_expiry(at(DAY, 50), &before, &rules);
    assert_eq!(
        (expiry.drop.len(), expiry.rewrite.len()),
        (19, 0),
        "the last row of one is still in answers"
    );
    let expiry = plan_expiry(at(DAY + 1, 0), &before, &rules);
    assert_eq!((expiry.drop.len(), expiry.rewrite.len()), (20, 0));
    let after = commit_dropped(&rig.table, &expiry.drop).await.unwrap();
    assert_eq!(
        (after.version, after.len(), after.partitions().count()),
        (before.version + 1, 40, 20)
    );
    assert_eq!(after.rows(), 20 * 21);
    assert_eq!(plan_expiry(at(DAY + 1, 0), &after, &rules), Expiry::default());
    let gone = commit_dropped(&rig.table, &expiry.drop[..1]).await.unwrap();
    assert_eq!(gone.version, after.version, "removing files again makes no commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_organisation_that_was_upgraded_outlive_their_class() {
    let rig = Rig::in_memory().await;
    let old = rules(&[("up", 3)], 3, vec![], &[]);
    let rows = vec![
        record("dev", 1, at(DAY, 0)),
        record("up", 2, at(DAY, 1)),
        record("zoo", 3, at(DAY, 2)),
    ];
    let files = rig.flush(rows, &old, at(DAY, 10)).await;
    rig.flush(vec![record("dev", 4, at(DAY, 3))], &old, at(DAY, 11)).await;
    let now = at(DAY + 10, 0);
    let new = rules(&[("up", 30)], 3, vec![], &[("up", 3)]);
    let expiry = plan_expiry(now, &rig.table.index(), &new);
    assert_eq!(
        expiry.drop.iter().map(|file| file.rows).collect::<Vec<_>>(),
        [1],
        "`up` cannot be in that one"
    );
    assert_eq!(expiry.rewrite.iter().map(|file| &file.path).collect::<Vec<_>>(), [&files[0].path]);
    let rewrite = rig.rewrite(&expiry.rewrite[0], &new, now).await;
    assert_eq!((rewrite.moved, rewrite.expired, rewrite.add.len()), (1, 2, 1));
    let index = commit_rewritten(&rig.table, &expiry.rewrite, vec![rewrite]).await.unwrap();
    let moved = index.partition(DAY, 30).unwrap();
    assert_eq!((moved.len(), index.len()), (1, 2));
    assert_eq!(keys(&rig.rows_of([DataFile::clone(&moved[0])]).await)[0].0, "up");
    check_file(&rig, &moved[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_removes_erased_rows_and_counts_them_by_request() {
    let rig = Rig::in_memory().await;
    let row = |organisation, id: u64| record(organisation, id, at(DAY, id as i64));
    let rows = vec![
        row("acme", 0),
        row("acme", 1),
        row("acme", 3),
        row("bell", 0),
        row("bell", 6),
        row("zoo", 9),
    ];
    let file = rig.flush(rows, &forever(), at(DAY, 100)).await.remove(0);
    let until = at(DAY, 2).timestamp_micros();
    let erasures = vec![
        erasure("nobody", Erased::All { until: i64::MAX }),
        erasure("acme", Erased::User { user: "user-0".to_owned(), until }),
        erasure("bell", Erased::Ids(HashSet::from(["00000006".to_owned(), "00000009".to_owned()]))),
        erasure("zoo", Erased::All { until }),
    ];
    let rules = rules(&[], 0, erasures, &[]);
    let rewrite = rig.rewrite(&file, &rules, at(DAY, 100)).await;
    assert_eq!((&*rewrite.erased, rewrite.moved, rewrite.expired), (&[(1, 1), (2, 1)][..], 0, 0));
    assert_eq!(rewrite.gone(), 2);
    let before = rig.rows().await;
    let index = commit_rewritten(&rig.table, &[Arc::new(file)], vec![rewrite]).await.unwrap();
    let ids: Vec<_> = keys(&rig.rows().await).into_iter().map(|key| (key.0, key.2)).collect();
    let left =
        [("acme", "00000001"), ("acme", "00000003"), ("bell", "00000000"), ("zoo", "00000009")];
    assert_eq!(ids, left.map(|(organisation, id)| (organisation.to_owned(), id.to_owned())));
    assert_eq!((before.num_rows(), index.rows()), (6, 4));
    let again = index.iter().next().unwrap();
    assert!(rig.rewrite(again, &rules, at(DAY, 100)).await.untouched);
    let again = [Arc::clone(again)];
    let same = vec![Rewrite { untouched: true, ..Rewrite::default() }];
    assert_eq!(commit_rewritten(&rig.table, &again, same).await.unwrap().version, index.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_remaining_rows_is_removed() {
    let rig = Rig::in_memory().await;
    let file =
        rig.flush(vec![record("acme", 1, at(DAY, 0))], &forever(), at(DAY, 1)).await.remove(0);
    let rules = rules(&[], 0, vec![erasure("acme", Erased::All { until: i64::MAX })], &[]);
    let rewrite = rig.rewrite(&file, &rules, at(DAY, 2)).await;
    assert_eq!((rewrite.add.len(), rewrite.gone()), (0, 1));
    assert!(
        commit_rewritten(&rig.table, &[Arc::new(file)], vec![rewrite]).await.unwrap().is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_contradicts_the_table_is_left_unchanged() {
    let rig = Rig::in_memory().await;
    let rows = vec![record("acme", 1, at(DAY, 0)), record("acme", 2, at(DAY, 0))];
    let file = DataFile { rows: 3, ..rig.flush(rows, &forever(), at(DAY, 1)).await.remove(0) };
    let erase = rules(
        &[],
        0,
        vec![erasure("acme", Erased::Ids(HashSet::from(["00000001".to_owned()])))],
        &[],
    );
    let error =
        rewrite(rig.tools(POLICY), &file, &erase, at(DAY, 2), || rig.new_id()).await.unwrap_err();
    assert!(error.message().contains("holds 2 rows, but the table says 3"), "{error}");
    let merge = Merge { date: DAY, retention_days: 0, files: vec![Arc::new(file)], seal: true };
    let error =
        write_merged(rig.tools(POLICY), &merge, at(DAY, 2), || rig.new_id()).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Damaged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For any plans and erasures, the remaining rows are those that the rules make visible, each
    /// in its class.
    #[test]
    fn a_rewrite_keeps_exactly_the_rows_that_the_rules_keep(
        rows in prop::collection::vec((0..4_usize, 0..12_i64), 1..40),
        days in prop::array::uniform4(prop::sample::select(vec![0, 3, 5, 30])),
        class in prop::sample::select(vec![0, 3, 30]),
        erased in prop::collection::vec((0..4_usize, 0..3_u64, 0..12_i64), 0..3),
        sealed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let names = ["a", "b", "c", "d"];
            let rig = Rig::in_memory().await;
            let rows = rows.iter().zip(0..).map(|((name, hour), id)| record(names[*name], id, at(DAY, hour * 3_600_000)));
            let by_class = Rules::without_plans(class);
            let mut file = rig.flush(rows.collect(), &by_class, at(DAY, 0)).await.remove(0);
            if sealed {
                let files = vec![Arc::new(file)];
                let merge = Merge { date: DAY, retention_days: class, files, seal: true };
                file = write_merged(rig.tools(POLICY), &merge, at(DAY, 1), || rig.new_id()).await.unwrap().remove(0);
                commit_merged(&rig.table, &merge, vec![file.clone()]).await.unwrap();
            }
            let erasures = erased.iter().map(|(name, user, hour)| {
                let until = at(DAY, hour * 3_600_000).timestamp_micros();
                erasure(names[*name], Erased::User { user: format!("user-{user}"), until })
            });
            let terms: Vec<_> = names.into_iter().zip(days).collect();
            let rules = rules(&terms, 0, erasures.collect(), &names.map(|name| (name, class)));
            let now = at(DAY + 3, 6 * 3_600_000);
            let mut expected = BTreeMap::new();
            let before = rig.rows().await;
            let users = before.column_by_name("user_id").unwrap().as_string_view().clone();
            for (key, user) in keys(&before).into_iter().zip(users.iter()) {
                let organisation = key.0.as_str();
                let id = key.2.as_str();
                let created_at = key.1;
                let written_ms = i64::MAX;
                let row = Row { feedback: false, organisation, id, user, created_at, written_ms };
                if rules.sees(row, now.timestamp_micros()) {
                    expected.entry(rules.retention_days(&key.0)).or_insert_with(Vec::new).push(key);
                }
            }
            let rewrite = rig.rewrite(&file, &rules, now).await;
            let kept: usize = expected.values().map(Vec::len).sum();
            assert_eq!(rewrite.gone(), if rewrite.untouched { 0 } else { file.rows - kept as u64 });
            assert_eq!(rewrite.untouched, expected.get(&class).is_some_and(|rows| rows.len() as u64 == file.rows));
            let replaced = [Arc::new(file)];
            let index = commit_rewritten(&rig.table, &replaced, vec![rewrite]).await.unwrap();
            let mut found = BTreeMap::new();
            for file in index.iter() {
                check_file(&rig, file).await;
                assert_eq!(file.is_sealed(), sealed);
                let rows = rig.rows_of([DataFile::clone(file)]).await;
                found.insert(file.retention_days, keys(&rows));
            }
            assert_eq!(found, expected);
        });
    }
}

/// Returns records of a part of a day, with bodies like those of a chat.
fn traffic(seed: u64, rows: u64, from: DateTime<Utc>, span_ms: i64) -> Vec<Record> {
    const WORDS: &str = "the model answers a question about apples trains invoices weather and the user asks again with more \
        detail so that every step of the reasoning is shown before the final result which is checked twice";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let text = |length: u64, next: &mut dyn FnMut() -> u64| {
        let picked: Vec<_> =
            (0..length).map(|_| words[(next() % words.len() as u64) as usize]).collect();
        picked.join(" ")
    };
    (0..rows)
        .map(|row| {
            let ask = 20 + next() % 120;
            let answer = 10 + next() % 80;
            let question = text(ask, &mut next);
            let reply = text(answer, &mut next);
            let body = format!(
                r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{question}"}}]}}"#
            );
            let response = format!(
                r#"{{"choices":[{{"message":{{"role":"assistant","content":"{reply}"}}}}]}}"#
            );
            let created_at =
                from + chrono::TimeDelta::milliseconds((next() % span_ms as u64) as i64);
            Record {
                workspace_slug: Some(format!("team-{}", next() % 9)),
                ai_model: Some("gpt-4o-mini".to_owned()),
                total_units: Some((ask + answer) as i64),
                cost: Some(ask as f64 * 0.000_15 + answer as f64 * 0.000_6),
                trace_id: Some(format!("{:016x}{:016x}", next(), next())),
                request: Message { body: Some(body), headers: None },
                response: Message { body: Some(response), headers: None },
                ..record(&format!("org-{:03}", next() % 40), seed * 100_000 + row, created_at)
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_day_is_sorted_whole_into_files_with_ranges_of_their_own() {
    let rig = Rig::in_memory().await;
    for part in 0..4 {
        rig.flush(traffic(part, 1_500, at(DAY, 0), MS_A_DAY), &forever(), at(DAY, part as i64))
            .await;
    }
    let before = rig.rows().await;
    let index = rig.table.index();
    let policy = Policy { target_bytes: index.bytes() / 3, ..POLICY };
    rig.compact(at(DAY + 1, QUIET_MS), &forever(), policy).await;
    let index = rig.table.index();
    let mut files: Vec<_> = index.iter().collect();
    // Open pages count before compression, so the files of such a small day are smaller than they
    // need to be.
    assert!(files.len() >= 3, "{} files", files.len());
    for file in &files {
        check_file(&rig, file).await;
        assert!(
            file.is_sealed() && file.bytes < policy.target_bytes * 5 / 4,
            "{} of {}",
            file.bytes,
            policy.target_bytes
        );
    }
    files.sort_by(|a, b| {
        (&a.min_organisation, a.min_created_at).cmp(&(&b.min_organisation, b.min_created_at))
    });
    let mut last = None;
    for file in &files {
        let keys = keys(&rig.rows_of([DataFile::clone(file)]).await);
        assert!(last.as_ref() < keys.first(), "ranges do not meet");
        last = keys.last().cloned();
    }
    assert_eq!(rig.rows().await, before);
    assert_eq!(plan(at(DAY + 2, 0), &index, &forever(), policy), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_key_stay_in_one_file() {
    let rig = Rig::in_memory().await;
    let rows = (0..3_000).map(|row| Record {
        id: Some(format!("{}", row / 2_999)),
        ..traffic(row, 1, at(DAY, 0), 1).remove(0)
    });
    let rows = rows.map(|row| Record { organisation_id: Some("acme".to_owned()), ..row });
    rig.flush(rows.collect(), &forever(), at(DAY, 0)).await;
    rig.compact(at(DAY + 1, QUIET_MS), &forever(), Policy { target_bytes: 1, ..POLICY }).await;
    assert_eq!(rig.table.index().iter().map(|file| file.rows).collect::<Vec<_>>(), [3_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_inputs_than_fit_are_joined_in_passes_and_leave_nothing_behind() {
    let store = Arc::new(InMemory::new());
    let rig = Rig::over(Arc::clone(&store) as _).await;
    for part in 0..MAX_FILES as u64 + 6 {
        rig.flush(traffic(part, 3, at(DAY, 0), MS_A_DAY), &forever(), at(DAY, 0)).await;
    }
    let before = rig.rows().await;
    rig.compact(at(DAY + 1, QUIET_MS), &forever(), POLICY).await;
    assert_eq!(rig.table.index().len(), 1);
    assert_eq!(rig.rows().await, before);
    let orphans = rig.table.orphans(i64::MAX).await.unwrap();
    assert_eq!(orphans.len(), MAX_FILES + 6, "the replaced files, and no run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_flushes_ends_as_one_sorted_file() {
    const FLUSHES: u64 = 120;
    const ROWS: u64 = 4;
    let rig = Rig::in_memory().await;
    let rules = forever();
    let span_ms = MS_A_DAY / FLUSHES as i64;
    let mut flushed = 0;
    let mut joined = 0;
    let mut most_files = 0;
    let mut sums = Sums::default();
    for number in 0..FLUSHES {
        let from = at(DAY, number as i64 * span_ms);
        let now = at(DAY, (number as i64 + 1) * span_ms);
        let records = traffic(number, ROWS, from, span_ms);
        records.iter().for_each(|record| sums.add(record));
        let files = rig.flush(records, &rules, now).await;
        flushed += files.iter().map(|file| file.bytes).sum::<u64>();
        if number % 2 == 1 {
            joined += rig.compact(now, &rules, POLICY).await;
        }
        most_files = most_files.max(rig.table.index().len());
        if number % 50 == 49 {
            rig.table.checkpoint().await.unwrap();
        }
    }
    let before = rig.rows().await;
    let sealed = rig.compact(at(DAY + 1, QUIET_MS), &rules, POLICY).await;
    let index = rig.table.index();
    assert_eq!((index.rows(), index.len()), (FLUSHES * ROWS, 1));
    let file = index.iter().next().unwrap();
    assert!(file.is_sealed());
    check_file(&rig, file).await;
    assert_eq!(rig.sums().await, sums);
    assert_eq!(rig.rows().await, before);
    assert!(joined + sealed < 5 * flushed, "amplification");
    assert!(most_files < 60, "{most_files} files");
}

/// A store in memory that, on request, refuses to read data files in Parquet.
#[derive(Debug, Default)]
struct Unreadable {
    inner: InMemory,
    refuses: AtomicBool,
}

impl Unreadable {
    fn check(&self, at: &Path) -> object_store::Result<()> {
        let data = at.as_ref().ends_with(".parquet") && !at.as_ref().contains("_delta_log");
        if data && self.refuses.load(Ordering::Relaxed) {
            return Err(object_store::Error::Generic {
                store: "Unreadable",
                source: at.to_string().into(),
            });
        }
        Ok(())
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unreadable({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Unreadable {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.check(at)?;
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.check(at)?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check(at)?;
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(
        &self,
        at: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.check(at)?;
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
