//! Compares visible rows with the rules applied to one record at a time, and checks that plans are
//! fast and leak nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicU64;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions::core::get_field;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::expressions::{BinaryExpr, CastExpr, NotExpr, col, lit};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use url::Url;
use uuid::Uuid;

use super::security_barrier::SecurityBarrierExec;
use super::*;
use crate::catalog::Denied;
use crate::datafile::OpenRecords;
use crate::flush;
use crate::plan::{Erased, Erasure, Moving, Row, Rules, Terms};
use crate::record::{BatchBuilder, Message, Record, Rows};
use crate::table::{Commit, Table};
use crate::view::View;

mod files;
mod limits;

const DAY: i64 = 86_400_000_000;
const NOW: i64 = 20_778 * DAY + DAY / 2;

struct Rig {
    table: Table,
    queries: Queries,
    ids: AtomicU64,
    memory: Vec<RecordBatch>,
}

impl Rig {
    async fn new() -> Self {
        let store =
            Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap();
        let table = Table::create_or_open(&store, Rows::Logs).await.unwrap();
        let here = Handle::current();
        let queries = Queries::new(&Config::default(), &store, Vec::new(), here).unwrap();
        Self { table, queries, ids: AtomicU64::new(1), memory: Vec::new() }
    }

    /// Writes records to files, in the retention classes of the rules.
    async fn flush(&self, records: &[Record], rules: &Rules) {
        if records.is_empty() {
            return;
        }
        let id = || Uuid::from_u128(u128::from(self.ids.fetch_add(1, Ordering::Relaxed)));
        let rules = Arc::new(rules.clone());
        let add = flush::write_files(
            &self.table,
            &[batch(records)],
            rules,
            &OpenRecords::Nothing,
            NOW / 1000,
            id,
        )
        .await
        .unwrap();
        let commit =
            Commit { add, remove: Vec::new(), app: None, data_change: true, operation: "WRITE" };
        self.table.commit(commit).await.unwrap();
    }

    fn remember(&mut self, records: &[Record]) {
        if !records.is_empty() {
            self.memory.push(batch(records));
        }
    }

    fn query_context(&self, read_scope: ReadScope) -> QueryContext {
        let view =
            View { rows: Rows::Logs, files: self.table.index(), memory: self.memory.clone() };
        QueryContext { view, feedback: None, read_scope: Some(read_scope), side: None, seat: None }
    }

    async fn ask(&self, read_scope: &ReadScope, text: &str) -> Result<Vec<RecordBatch>> {
        self.queries
            .sql(self.query_context(read_scope.clone()), text, &Params::new())
            .await?
            .batches
            .try_collect()
            .await
    }

    async fn texts(&self, read_scope: &ReadScope, text: &str) -> Vec<String> {
        let batches = self.ask(read_scope, text).await.unwrap();
        let texts =
            batches.iter().flat_map(|batch| batch.column(0).as_string_view().iter().flatten());
        texts.map(str::to_owned).collect()
    }

    async fn number(&self, read_scope: &ReadScope, text: &str) -> i64 {
        let batches = self.ask(read_scope, text).await.unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// Returns the plan of a statement as it is executed.
    async fn plan(&self, read_scope: &ReadScope, text: &str) -> Arc<dyn ExecutionPlan> {
        let query_context = self.query_context(read_scope.clone());
        let logs = StoredTable::new(
            query_context.view,
            query_context.read_scope,
            self.queries.paths[0].clone(),
            FileOrdering::WhenCheap,
        );
        let session = session::session(&self.queries.base, vec![logs], None, None);
        session.sql(text).await.unwrap().create_physical_plan().await.unwrap()
    }
}

fn batch(records: &[Record]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    records.iter().for_each(|record| builder.append(record));
    builder.finish()
}

fn record(organisation: &str, id: u64, created_at: i64) -> Record {
    let created = DateTime::<Utc>::from_timestamp_micros(created_at);
    let message = |side: &str| Message {
        body: Some(format!("\"{side} of {organisation} {id}\"")),
        headers: Some(format!("{{\"x-id\":\"{organisation} {id}\"}}")),
    };
    Record {
        id: Some(format!("{id:04}")),
        organisation_id: Some(organisation.to_owned()),
        workspace_slug: Some(if id.is_multiple_of(2) {
            "even".to_owned()
        } else {
            "odd".to_owned()
        }),
        user_id: Some(format!("user-{}", id % 3)),
        created_at: created,
        ai_model: Some(organisation.to_owned()),
        total_units: Some(i64::try_from(id).unwrap()),
        request: message("request"),
        response: message("response"),
        ..Record::default()
    }
}

fn rules(days: &[(&str, i32)], erasures: Vec<Erasure>, moving: &[(&str, i32)]) -> Rules {
    let terms = days.iter().map(|(name, days)| ((*name).to_owned(), Terms::without_plan(*days)));
    let moving = moving.iter().map(|(name, from_days)| Moving {
        organisation: (*name).to_owned(),
        from_days: *from_days,
        clean_before_ms: 0,
    });
    Rules::new(
        Terms::without_plan(0),
        terms.collect::<HashMap<_, _>>(),
        HashSet::new(),
        erasures,
        moving.collect(),
    )
}

fn erasure(organisation: &str, what: Erased) -> Erasure {
    Erasure {
        id: "e".to_owned(),
        organisation: organisation.to_owned(),
        what,
        feedback: HashSet::new(),
        arrived_ms: i64::MIN,
        clean_before_ms: 0,
    }
}

fn operator(rules: Rules) -> ReadScope {
    let rules = Arc::new(rules);
    let denied = Denied::default();
    ReadScope { organisation: None, workspace: None, bodies: true, denied, rules, now_micros: NOW }
}

fn tenant(organisation: &str, rules: Rules) -> ReadScope {
    ReadScope { organisation: Some(organisation.to_owned()), ..operator(rules) }
}

fn names(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut names = Vec::new();
    plan.apply(|node| {
        names.push(node.name().to_owned());
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    names
}

/// Returns the plans below the barriers of a plan as text.
fn below(plan: &Arc<dyn ExecutionPlan>) -> String {
    let mut found = String::new();
    plan.apply(|node| {
        if let Some(barrier) = node.downcast_ref::<SecurityBarrierExec>() {
            found.push_str(&displayable(barrier.input().as_ref()).indent(true).to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    assert!(!found.is_empty(), "no barrier in {}", displayable(plan.as_ref()).indent(true));
    found
}

/// Creates two organisations in one file.
async fn shared() -> Rig {
    let rig = Rig::new().await;
    let records: Vec<Record> = (0..40)
        .map(|id| {
            record(
                if id % 4 == 0 { "acme" } else { "globex" },
                id,
                NOW - i64::try_from(id).unwrap(),
            )
        })
        .collect();
    rig.flush(&records, &Rules::without_plans(0)).await;
    rig
}

#[tokio::test]
async fn an_operator_who_sees_every_row_is_answered_from_statistics() {
    let rig = shared().await;
    let read_scope = operator(rules(&[("acme", 0)], Vec::new(), &[]));
    let plan =
        rig.plan(&read_scope, "select count(*), min(created_at), max(created_at) from logs").await;
    assert!(
        !names(&plan).iter().any(|name| name == "DataSourceExec" || name == "BarrierExec"),
        "{:?}",
        names(&plan)
    );
    assert_eq!(rig.number(&read_scope, "select count(*) from logs").await, 40);
    let plan = rig.plan(&read_scope, "select id from logs where request['body'] like '%x%'").await;
    assert!(!names(&plan).iter().any(|name| name == "BarrierExec"), "{:?}", names(&plan));
}

#[tokio::test]
async fn statistics_never_count_rows_that_are_not_seen() {
    let rig = shared().await;
    let all = "select count(*) from logs";
    assert_eq!(rig.number(&tenant("acme", Rules::without_plans(0)), all).await, 10);
    assert_eq!(rig.number(&tenant("initech", Rules::without_plans(0)), all).await, 0);
    let erased = Erased::Ids(HashSet::from(["0000".to_owned(), "0004".to_owned()]));
    let erasing = rules(&[], vec![erasure("acme", erased)], &[]);
    assert_eq!(rig.number(&operator(erasing.clone()), all).await, 38);
    let newest = "select cast(max(created_at) as bigint) from logs";
    assert_eq!(rig.number(&tenant("acme", erasing), newest).await, NOW - 8);
    let plan =
        rig.plan(&tenant("acme", Rules::without_plans(0)), "select count(*) from logs").await;
    assert!(names(&plan).iter().any(|name| name == "BarrierExec"), "{:?}", names(&plan));
}

#[tokio::test]
async fn whose_rows_are_wanted_is_said_to_the_files() {
    let rig = shared().await;
    let read_scope = ReadScope {
        workspace: Some("even".to_owned()),
        ..tenant("acme", rules(&[("acme", 30)], Vec::new(), &[("acme", 0)]))
    };
    let below = below(&rig.plan(&read_scope, "select sum(total_units) from logs").await);
    for part in [
        "organisation_id@1 = acme",
        "workspace_slug@2 = even",
        "created_at@3 >= ",
        "organisation_id_min",
    ] {
        assert!(below.contains(part), "{part} is not in {below}");
    }
}

#[tokio::test]
async fn harmless_filters_reach_the_files_and_no_others_do() {
    let rig = shared().await;
    let read_scope = tenant("acme", Rules::without_plans(0));
    for (filter, part) in [
        ("created_at >= '2026-11-01T00:00:00Z'", "created_at@3 >= "),
        ("created_at > now() - interval '3650 days'", "created_at@3"),
        ("ai_model in ('acme', 'b')", "ai_model@6"),
        ("total_units > 2 or trace_id is null", "trace_id@31 IS NULL"),
        ("request['body'] like '%needle%'", "LIKE %needle%"),
        ("metadata['_user'] = 'ada'", "ada"),
    ] {
        let below = below(
            &rig.plan(&read_scope, &format!("select id, created_at from logs where {filter}"))
                .await,
        );
        assert!(below.contains(part), "{filter}: {part} is not in {below}");
    }
    for filter in [
        "cast(request['body'] as int) = 4711",
        "4711 / (total_units - 4) > 0",
        "upper(ai_model) = 'NEEDLE'",
        "ai_model ~ 'NEEDLE[a-z]+'",
        "json_get_int(request['body'], 'NEEDLE') > 4711",
        "case when organisation_id = 'globex' then cast(id as int) else 4711 end > 4711",
        "-total_units < 4711",
        "total_units + 4711 > 4711",
        "ai_model like organisation_id || 'NEEDLE'",
    ] {
        let below =
            below(&rig.plan(&read_scope, &format!("select id from logs where {filter}")).await);
        assert!(!below.contains("4711") && !below.contains("NEEDLE"), "{filter}: {below}");
    }
}

#[tokio::test]
async fn columns_that_can_fail_are_made_of_rows_that_are_seen() {
    let rig = shared().await;
    let read_scope = tenant("acme", Rules::without_plans(0));
    for column in [
        "cast(request['body'] as int)",
        "4711 / (total_units - 1)",
        "json_get(request['body'], 4711)",
    ] {
        let text = format!(
            "select {column} as n, created_at from logs where created_at < '2030-01-01' order by 1 limit 3"
        );
        let below = below(&rig.plan(&read_scope, &text).await);
        assert!(
            !below.contains("4711") && !below.contains("Int32") && !below.contains("limit=3"),
            "{column}: {below}"
        );
    }
    // Members of a message are read individually.
    let below = below(&rig.plan(&read_scope, "select request['headers'] from logs").await);
    assert!(
        below.contains("get_field(request@41, headers)") && !below.contains(", request@41"),
        "{below}"
    );
}

#[tokio::test]
async fn the_newest_rows_prune_by_what_was_found_so_far() {
    let rig = shared().await;
    let read_scope = tenant("acme", Rules::without_plans(0));
    let newest =
        below(&rig.plan(&read_scope, "select id from logs order by created_at desc limit 2").await);
    assert!(newest.contains("DynamicFilter"), "{newest}");
    let echoing = "select id from logs order by cast(request['body'] as int) desc limit 2";
    let echoing = below(&rig.plan(&read_scope, echoing).await);
    assert!(!echoing.contains("DynamicFilter"), "{echoing}");
    let found =
        rig.texts(&read_scope, "select id from logs order by created_at desc limit 2").await;
    assert_eq!(found, ["0000", "0004"]);
    assert_eq!(rig.texts(&read_scope, "select id from logs limit 3").await.len(), 3);
}

#[tokio::test]
async fn the_order_of_files_is_kept_through_the_barrier() {
    let rig = shared().await;
    let read_scope = tenant("acme", Rules::without_plans(0));
    let plan =
        rig.plan(&read_scope, "select id from logs order by organisation_id, created_at, id").await;
    assert!(
        !names(&plan).iter().any(|name| name == "SortExec"),
        "{}",
        displayable(plan.as_ref()).indent(true)
    );
    let plan = rig.plan(&read_scope, "select id from logs order by created_at, id").await;
    assert!(
        !names(&plan).iter().any(|name| name == "SortExec"),
        "{}",
        displayable(plan.as_ref()).indent(true)
    );
}

#[tokio::test]
async fn bodies_that_are_not_for_the_reader_are_not_read() {
    let mut rig = shared().await;
    rig.remember(&[record("acme", 90, NOW), record("globex", 91, NOW)]);
    for read_scope in [operator(Rules::without_plans(0)), tenant("acme", Rules::without_plans(0))] {
        let read_scope = ReadScope { bodies: false, ..read_scope };
        for text in [
            "select count(*) from logs where request['body'] is not null or response['body'] is not null",
            "select count(*) from logs where request['body'] like '%request of%'",
            "select count(*) from logs where request = (select request from logs where request['body'] is not null limit 1)",
        ] {
            let refused = rig.ask(&read_scope, text).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Denied, "{text}: {refused}");
            assert!(refused.message().contains("`request.body`"), "{refused}");
            assert!(refused.message().contains("`logs.read`"), "{refused}");
        }
        let headers = "select count(*) from logs where request['headers'] like '%acme%' and response['headers'] is not null";
        assert_eq!(rig.number(&read_scope, headers).await, 11);
        for text in [
            "select * from logs",
            "select request from logs",
            "select response['body'], request['headers'] from logs",
        ] {
            let read = below(&rig.plan(&read_scope, text).await);
            assert!(!read.contains("body"), "{read}");
            assert!(!read.contains(", request@41") && !read.contains("[request@41"), "{read}");
            let batches = rig.ask(&read_scope, text).await.unwrap();
            assert!(!batches.is_empty());
            assert!(
                !batches.iter().any(|batch| format!("{batch:?}").contains("request of")),
                "{text}"
            );
            assert!(
                !batches.iter().any(|batch| format!("{batch:?}").contains("response of")),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn a_plan_that_is_explained_to_an_organisation_names_no_files() {
    let rig = shared().await;
    let read_scope = tenant("acme", Rules::without_plans(0));
    for form in
        ["explain", "explain format tree", "explain format indent", "explain format graphviz"]
    {
        let batches = rig
            .ask(&read_scope, &format!("{form} select count(*) from logs where total_units > 1"))
            .await
            .unwrap();
        let text = format!("{batches:?}");
        assert!(
            !text.contains("parquet")
                && !text.contains("retention_days=")
                && !text.contains("globex"),
            "{text}"
        );
    }
    for form in ["explain analyze", "explain verbose", "explain analyze verbose"] {
        let error =
            rig.ask(&read_scope, &format!("{form} select count(*) from logs")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{form}");
        rig.ask(&operator(Rules::without_plans(0)), &format!("{form} select count(*) from logs"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_filter_that_fails_on_the_bounds_of_a_file_leaves_it_and_names_nothing() {
    let rig = shared().await;
    for read_scope in [tenant("acme", Rules::without_plans(0)), operator(Rules::without_plans(0))] {
        let batches = rig
            .ask(&read_scope, "select id from logs where cast(id as int) / 1 >= 0")
            .await
            .unwrap();
        assert!(!batches.is_empty());
    }
    let read_scope = tenant("acme", Rules::without_plans(0));
    let error =
        rig.ask(&read_scope, "select 1 from logs where cast(organisation_id as int) = 1").await;
    let message = error.unwrap_err().to_string();
    assert!(message.contains("acme") && !message.contains("globex"), "{message}");
}

#[tokio::test]
async fn recursion_goes_through_the_barrier_again_and_again() {
    let rig = shared().await;
    let text = "with recursive chain(n) as (select cast(0 as bigint) union all \
                select total_units from logs join chain on total_units = n + 4 where total_units < 30) select count(*) from chain";
    assert_eq!(rig.number(&tenant("acme", Rules::without_plans(0)), text).await, 8);
    assert_eq!(rig.number(&tenant("globex", Rules::without_plans(0)), text).await, 1);
}

#[derive(Clone, Debug)]
struct Case {
    records: Vec<(usize, u64, i64, bool)>,
    before: [i32; 3],
    now: [i32; 3],
    erasures: Vec<(usize, u8, i64)>,
    organisation: Option<usize>,
    workspace: bool,
}

const ORGANISATIONS: [&str; 3] = ["acme", "globex", "initech-with-a-longer-name"];

fn cases() -> impl Strategy<Value = Case> {
    let class = || prop::sample::select(vec![0, 1, 3, 30]);
    let record = (0..3_usize, 0..60_u64, 0..40 * 24_i64, any::<bool>());
    let erasures = prop::collection::vec((0..3_usize, 0..3_u8, 0..40 * 24_i64), 0..3);
    let before = [class(), class(), class()];
    let now = [class(), class(), class()];
    (
        prop::collection::vec(record, 0..60),
        before,
        now,
        erasures,
        prop::option::of(0..3_usize),
        any::<bool>(),
    )
        .prop_map(|(records, before, now, erasures, organisation, workspace)| Case {
            records,
            before,
            now,
            erasures,
            organisation,
            workspace,
        })
}

impl Case {
    fn rules(&self) -> Rules {
        let days: Vec<_> = ORGANISATIONS.into_iter().zip(self.now).collect();
        let moved = ORGANISATIONS.into_iter().zip(self.before).zip(self.now);
        let moving: Vec<_> =
            moved.filter(|((_, before), now)| before != now).map(|(moved, _)| moved).collect();
        let erasures = self.erasures.iter().map(|(of, kind, hours)| {
            let until = NOW - hours * DAY / 24;
            let what = match kind {
                0 => Erased::All { until },
                1 => Erased::User { user: "user-1".to_owned(), until },
                _ => Erased::Ids((0..30).map(|id| format!("{:04}", id * 2)).collect()),
            };
            erasure(ORGANISATIONS[*of], what)
        });
        rules(&days, erasures.collect(), &moving)
    }

    fn records(&self, in_memory: bool) -> Vec<Record> {
        let these = self.records.iter().filter(|(.., memory)| *memory == in_memory);
        // Half past the hour, and once exactly at the limit of retention.
        let time = |id: u64, hours: i64| {
            NOW - hours * DAY / 24 - if id.is_multiple_of(5) { 0 } else { DAY / 48 }
        };
        these.map(|(of, id, hours, _)| record(ORGANISATIONS[*of], *id, time(*id, *hours))).collect()
    }

    async fn check(&self) {
        let mut rig = Rig::new().await;
        let days: Vec<_> = ORGANISATIONS.into_iter().zip(self.before).collect();
        rig.flush(&self.records(false), &rules(&days, Vec::new(), &[])).await;
        rig.remember(&self.records(true));
        let rules = self.rules();
        let read_scope = ReadScope {
            organisation: self.organisation.map(|of| ORGANISATIONS[of].to_owned()),
            workspace: (self.workspace && self.organisation.is_some()).then(|| "odd".to_owned()),
            ..operator(rules.clone())
        };
        let all = [self.records(false), self.records(true)].concat();
        let seen: Vec<&Record> = all
            .iter()
            .filter(|record| {
                let organisation = record.organisation_id.as_deref().unwrap();
                let created_at = record.created_at.unwrap().timestamp_micros();
                let row = Row {
                    feedback: false,
                    organisation,
                    id: record.id.as_deref().unwrap(),
                    user: record.user_id.as_deref(),
                    created_at,
                    written_ms: i64::MAX,
                };
                rules.sees(row, NOW)
                    && read_scope.organisation.as_deref().is_none_or(|ours| ours == organisation)
                    && read_scope
                        .workspace
                        .as_deref()
                        .is_none_or(|ours| record.workspace_slug.as_deref() == Some(ours))
            })
            .collect();
        let time = |record: &&Record| record.created_at.unwrap().timestamp_micros();
        let mut ids: Vec<String> = seen.iter().map(|record| record.id.clone().unwrap()).collect();
        ids.sort();
        assert_eq!(rig.texts(&read_scope, "select id from logs order by id").await, ids);
        assert_eq!(
            rig.number(&read_scope, "select count(*) from logs").await,
            i64::try_from(seen.len()).unwrap()
        );
        assert_eq!(
            rig.number(&read_scope, "select count(distinct organisation_id) from logs").await,
            {
                let organisations: BTreeSet<_> =
                    seen.iter().map(|record| &record.organisation_id).collect();
                i64::try_from(organisations.len()).unwrap()
            }
        );
        let newest = rig
            .ask(&read_scope, "select created_at from logs order by created_at desc limit 5")
            .await
            .unwrap();
        let newest: Vec<i64> = newest
            .iter()
            .flat_map(|batch| {
                batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec()
            })
            .collect();
        let mut times: Vec<i64> = seen.iter().map(time).collect();
        times.sort_by_key(|time| std::cmp::Reverse(*time));
        assert_eq!(newest, times[..times.len().min(5)]);
        let bounds = rig
            .ask(&read_scope, "select min(created_at), max(created_at) from logs")
            .await
            .unwrap();
        let bound = |column: usize| {
            bounds[0].column(column).as_primitive::<TimestampMicrosecondType>().iter().next()
        };
        assert_eq!(bound(0), Some(times.last().copied()));
        assert_eq!(bound(1), Some(times.first().copied()));
        let odd = "select count(*) from logs where total_units % 2 = 1 and request['body'] like '%request%'";
        let odds = seen.iter().filter(|record| record.total_units.unwrap() % 2 == 1).count();
        assert_eq!(rig.number(&read_scope, odd).await, i64::try_from(odds).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_seen_is_what_the_rules_see(case in cases()) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(case.check());
    }
}

#[tokio::test]
async fn a_projection_that_can_fail_does_not_change_places_with_the_barrier() {
    let rig = shared().await;
    let plan = rig
        .plan(&tenant("acme", Rules::without_plans(0)), "select request, total_units from logs")
        .await;
    let sealed = plan.downcast_ref::<SecurityBarrierExec>().unwrap();
    assert!(plan.children().is_empty());
    let open: Arc<dyn ExecutionPlan> = Arc::new(sealed.unsealed());
    let column = |name: &str| col(name, &open.schema()).unwrap();
    let headers = || {
        let args = vec![column("request"), lit("headers")];
        ScalarFunctionExpr::try_new(get_field(), args, &open.schema(), Arc::default()).unwrap()
    };
    let projection = |expr: Arc<dyn PhysicalExpr>| {
        ProjectionExec::try_new(vec![ProjectionExpr::new(expr, "made")], Arc::clone(&open)).unwrap()
    };
    let swapped =
        open.try_swapping_with_projection(&projection(Arc::new(headers()))).unwrap().unwrap();
    assert!(
        swapped.is::<SecurityBarrierExec>()
            && swapped.schema() == projection(Arc::new(headers())).schema()
    );
    let to_number = CastExpr::new(Arc::new(headers()), DataType::Int32, None);
    let sum = BinaryExpr::new(column("total_units"), Operator::Plus, column("total_units"));
    for failing in [Arc::new(to_number) as Arc<dyn PhysicalExpr>, Arc::new(sum)] {
        assert!(open.try_swapping_with_projection(&projection(failing)).unwrap().is_none());
    }
}

#[tokio::test]
async fn an_organisation_reads_its_own_pages() {
    let rig = Rig::new().await;
    let mut records = Vec::new();
    for organisation in ["aaa", "acme", "zulu"] {
        records.extend((0..6_000_u64).map(|id| {
            // The text is incompressible, so that pruning matters.
            let noise: String = (0..40)
                .map(|part| {
                    format!("{:016x}", (id * 64 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15))
                })
                .collect();
            let request = Message { body: Some(format!("\"{noise}\"")), headers: None };
            Record { request, ..record(organisation, id, NOW - i64::try_from(id).unwrap() * 1000) }
        }));
    }
    rig.flush(&records, &Rules::without_plans(0)).await;
    let text = "select max(request['body']), sum(total_units) from logs";
    let mut read = Vec::new();
    for read_scope in [operator(Rules::without_plans(0)), tenant("acme", Rules::without_plans(0))] {
        let plan = rig.plan(&read_scope, text).await;
        collect(Arc::clone(&plan), rig.queries.base.task_ctx()).await.unwrap();
        let mut bytes = 0;
        let mut add = |plan: &Arc<dyn ExecutionPlan>| {
            plan.apply(|node| {
                let metrics = node.metrics().unwrap_or_default();
                bytes +=
                    metrics.sum_by_name("bytes_scanned").map_or(0, |scanned| scanned.as_usize());
                Ok(TreeNodeRecursion::Continue)
            })
        };
        add(&plan).unwrap();
        plan.apply(|node| {
            node.downcast_ref::<SecurityBarrierExec>()
                .map_or(Ok(TreeNodeRecursion::Continue), |barrier| add(barrier.input()))
        })
        .unwrap();
        read.push(bytes);
    }
    assert!(read[1] > 0 && read[1] * 2 < read[0], "{read:?}");
}
