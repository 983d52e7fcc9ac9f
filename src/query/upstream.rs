//! Faults of DataFusion and its parser, and their workarounds.
//!
//! Each case has the right answer with the workaround and a wrong one from DataFusion alone. A case
//! that fails because DataFusion alone is right names a workaround that can be removed.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use url::Url;

use super::*;

struct Case {
    /// Workaround that can be removed once DataFusion is right.
    workaround: &'static str,
    statement: &'static str,
    /// Expected rows, with `|` between columns and `;` between rows. `None` for a refusal.
    right: Option<&'static str>,
}

const fn case(workaround: &'static str, statement: &'static str, right: &'static str) -> Case {
    Case { workaround, statement, right: Some(right) }
}

const CASES: &[Case] = &[
    case(
        "GroupingSets",
        "select count(*) from (select v, a from t, range(0, 20000) r(v) where a = 0 group by rollup(v, a))",
        "40001",
    ),
    case(
        "PostgresPrecedence::prec_value",
        "select count(*) from t where j['body'] ->> 'x' = 'a'",
        "2",
    ),
    case(
        "PostgresPrecedence::prec_value",
        "select count(*) from t where j['body'] ->> 'x' is not null",
        "3",
    ),
    case(
        "PostgresPrecedence::prec_value",
        "select count(*) from t where j['body'] ->> 'x' like 'a%'",
        "2",
    ),
    case(
        "PostgresPrecedence::prec_value",
        "select count(*) from t where not j['body'] ->> 'x' in ('b', 'c')",
        "2",
    ),
    case("PostgresPrecedence::get_next_precedence", "select 'a' || 1 + 2", "a3"),
    case(
        "PostgresPrecedence::get_next_precedence",
        "select true = c ~ 'a' from t where a = 0",
        "true",
    ),
    case(
        "PostgresPrecedence::parse_infix",
        "select count(*) from t where a > 4 is distinct from b > 2 and b = 1",
        "0",
    ),
    case(
        "PostgresPrecedence::parse_infix",
        "select count(*) from t where a is not distinct from b or a = 7",
        "3",
    ),
    case("like::rewrite_escape", "select c from t where c like 'a!%' escape '!'", "a%"),
    case("like::rewrite_escape", r"select c from t where c like '_\_' escape ''", r"a\b"),
    case(
        "like::rewrite_escape",
        "select count(*) from t where c like j['headers'] || '!%' escape '!'",
        "1",
    ),
    case("fence", "select k from (select k from t limit 4 offset 3) as u order by k", "5;5;5;5"),
    case("fence", "select sum(b) from (select b from t order by a offset 6) as u", "9"),
    case(
        "filter_names",
        "select count(*) from (values (1, 'a'), (2, 'b')) l(n, id) right join (values (1, 'a'), (2, 'c')) f(n, id) on l.id = f.id where trim(l.id) <> 'a'",
        "0",
    ),
    case("membership", "select count(*) from t where 7 not in (select b from t)", "0"),
    case("membership", "select count(*) from t where (a in (select b from t)) is null", "5"),
    case("membership", "select count(*) from t where a > 100 or a not in (select b from t)", "0"),
    case(
        "enable_leaf_expression_pushdown",
        "select count(*) from (select s.j['body'] ->> 'x' from t s join t u on s.a = u.b group by s.j['body'] ->> 'x') as v",
        "3",
    ),
    case(
        "statement::signed_rank",
        "select -rank() over (order by a) from t order by a limit 1",
        "-1",
    ),
    case(
        "statement::signed_rank",
        "select rank() over (order by a) - row_number() over (order by a desc) from t where a in (1, 2) order by a limit 1",
        "-1",
    ),
    case(
        "skip_physical_aggregate_schema_check",
        "select distinct a in (0, 1, 2, 2) is not true as x from t order by x",
        "false;true",
    ),
    case("sanity", "select a from t where a < 4 order by length(c) > 1, a", "0;1;2;3"),
    case(
        "sanity",
        "select rank() over (order by length(c) > 1) as r from t where a < 4 order by r",
        "1;2;2;2",
    ),
    case("totals", "select count(*) from t having 1 = (select max(b) from t)", ""),
    case(
        "totals",
        "select 1 from (select max(b) as c from t) as s where c is null and null::boolean",
        "",
    ),
    case(
        "totals",
        "select a, count(*) from t where a < 2 group by rollup (a) having 1 = (select max(b) from t)",
        "",
    ),
    case(
        "known",
        "select count(*) filter (where n > 5) from (select count(distinct a) as n from t where false) as s",
        "0",
    ),
    case("casts", "select a::text, a from t where a = 1", "1|1"),
    case(
        "casts",
        "select sum(a::double), sum(t.a), sum(a::double) over () from t group by a order by 2 limit 1",
        "0.0|0|45.0",
    ),
    case("casts", "select max(a::text), max(a::double), max(a) from t", "9|9.0|9"),
    case("casts", "select avg(null::bigint), avg(null::double) from t", "|"),
    case(
        "casts",
        "select a::text as x, t.a as y from t where a < 2 group by a::text, t.a order by t.a::text desc",
        "1|1;0|0",
    ),
    case(
        "casts",
        "select x.a, x.b from (select a::text, b, sum(b::double) as v, sum(b) from t group by 1, 2) x where v = 5",
        "8|5",
    ),
    case(
        "PostgresPrecedence::parse_prefix",
        "select count(*) from t where not exists (select 1 from t) is null",
        "10",
    ),
    case(
        "correlated",
        "select a from t order by (select count(*) from t u where u.b = t.a) desc, a limit 2",
        "3;1",
    ),
    case(
        "correlated",
        "select a as x, a - (select count(*) from t u where u.b = t.a) as y from t order by a - (select count(*) from t u where u.b = t.a) desc limit 2",
        "9|9;8|8",
    ),
    case(
        "correlated",
        "select a + 1 as b, a from t order by (select count(*) from t u where u.b = t.b) desc, a limit 2",
        "5|4;6|5",
    ),
    case(
        "correlated",
        "select distinct b, b + (select count(*) from t u where u.b = t.b) as n from t order by b + (select count(*) from t u where u.b = t.b) desc, b limit 3",
        "|;5|6;3|5",
    ),
    case(
        "correlated",
        "select (select count(*) from t u where u.b = t.a) as n, count(*) from t group by 1 order by 1",
        "0|5;1|4;2|1",
    ),
    case(
        "correlated",
        "select count(*), a > (select count(*) from t u where u.b = t.a) as x from t group by rollup (a > (select count(*) from t u where u.b = t.a)) order by 1",
        "2|false;8|true;10|",
    ),
    case(
        "correlated",
        "select sum((select count(*) from t u where u.b = t.a)), count(*) filter (where a > (select count(*) from t u where u.b = t.a)) from t",
        "6|8",
    ),
    case(
        "correlated",
        "select a from (select a, row_number() over (partition by k order by (select count(*) from t u where u.b = t.a) desc, a) as r from t) as s where r = 1",
        "3",
    ),
    case(
        "correlated",
        "select distinct on (k) a from t order by k, (select count(*) from t u where u.b = t.a) desc, a",
        "3",
    ),
    case(
        "correlated",
        "select count(*) from t join t v on t.a = v.a and v.a > (select count(*) from t u where u.b = t.a)",
        "8",
    ),
    case(
        "correlated",
        "select count(v.a), count(*) from t left join t v on t.a = v.a and v.a > (select count(*) from t u where u.b = v.a)",
        "8|10",
    ),
    case(
        "sort_filters",
        "select a, b = 3 as e, 3 as k from p order by b = 3, b desc nulls first, a limit 3",
        "8|false|3;7|false|3;2|false|3",
    ),
    case("in_lists", "select count(*) from t where b not in (null) or b not in (1, 2)", "4"),
    case("in_lists", "select count(*) from t where b not in (2, null) or b not in (2, 3)", "3"),
    case("in_lists", "select count(*) from t where b in (1, 2) and b not in (2, null)", "0"),
    case("in_lists", "select b in (1, 2) and b in (3, 4) as x from t where a = 0", ""),
    case(
        "in_lists",
        "select (b in (1, 2) and b not in (1, 2)) is null as x from t where a = 0",
        "true",
    ),
    case(
        "in_lists",
        "select (b not in (1) or b not in (2)) is null as x from t where a = 0",
        "true",
    ),
    case(
        "in_lists",
        "select ((b = 1 or b = 2) and (b = 3 or b = 4)) is null as x from t where a = 0",
        "true",
    ),
    case("in_lists", "select count(*) from t where not (b in (1, 2) and b in (3, 4))", "6"),
    case("in_lists", "select count(*) from t where not (b in (1, 2)) or not (b = 3 or b = 4)", "6"),
    case(
        "in_lists",
        "select count(*) from t where k = 5 and b not in (1, 2) or k = 5 and b not in (3, 4)",
        "6",
    ),
    case("in_lists", "select count(*) from t where a in (k, 1) and a in (a, 2)", "2"),
    case(
        "in_lists",
        "select count(*) from t where not exists (select 1 from t u where not (t.b in (1, 2) and t.b in (3, 4)))",
        "4",
    ),
    case(
        "in_lists",
        "select count(*) filter (where b not in (2, null) or b not in (2, 3)) from t",
        "3",
    ),
    case("literal_sides", "select count(*) from t where 5 = a and 5 between a and a", "1"),
    case(
        "empty_concat",
        "select count(*) from t where concat(null::varchar, case when true then null::varchar when a > 1 then 'x' end) = ''",
        "10",
    ),
    case(
        "empty_concat",
        "select count(*) from t where concat_ws(',', null::varchar, case when true then null::varchar when a > 1 then 'x' end) = ''",
        "10",
    ),
    case(
        "sort_constants",
        "select 1 as n from t where a < 2 order by json_get_int('{\"l\":[3,4]}', 'l', 1) + a",
        "1;1",
    ),
    case(
        "sort_constants",
        "select 'day' as d from t where a < 2 order by date_trunc('day', to_timestamp(a))",
        "day;day",
    ),
    Case {
        workaround: "statement::refuse_counted_sets",
        statement: "select a from t union all select a from t except all select a from t",
        right: None,
    },
];

/// Creates ten rows, the last first, in two parts.
fn parts() -> [RecordBatch; 2] {
    let rows = |from: i64, to: i64| {
        let places: Vec<i64> = (from..to).rev().collect();
        let a: ArrayRef = Arc::new(Int64Array::from(places.clone()));
        let b: ArrayRef = Arc::new(
            places.iter().map(|a| (*a % 3 != 0).then_some(*a / 2 + 1)).collect::<Int64Array>(),
        );
        let texts = |texts: &[&str]| -> ArrayRef {
            let text = |place: &i64| {
                usize::try_from(*place).ok().and_then(|place| texts.get(place).copied())
            };
            Arc::new(places.iter().map(text).collect::<StringArray>())
        };
        let c = texts(&["a", "a%", r"a\b", "ab", "b_"]);
        let bodies =
            texts(&[r#"{"x":"a"}"#, r#"{"x":"b"}"#, r#"{"x":"a"}"#, r#"{"x":null}"#, "{}"]);
        let headers = texts(&["x", "a", "y", "z"]);
        let member = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
        let j: ArrayRef = Arc::new(StructArray::from(vec![
            (member("body"), bodies),
            (member("headers"), headers),
        ]));
        let k: ArrayRef = Arc::new(Int64Array::from(vec![5; places.len()]));
        let columns = [("a", a), ("b", b), ("c", c), ("j", j), ("k", k)];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .unwrap()
    };
    [rows(0, 5), rows(5, 10)]
}

/// Registers the rows as table `t`, and as a file `p`, from which one row is read at a time.
async fn register(session: &SessionContext) {
    let parts = parts();
    let schema = parts[0].schema();
    let mut file = Vec::new();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1)).build();
    let mut writer =
        ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).unwrap();
    for part in parts.iter().rev() {
        writer.write(part).unwrap();
    }
    writer.close().unwrap();
    let files = InMemory::new();
    files.put(&"p.parquet".into(), file.into()).await.unwrap();
    session.register_object_store(&Url::parse("memory://files").unwrap(), Arc::new(files));
    let path = "memory://files/p.parquet";
    session.register_parquet("p", path, ParquetReadOptions::default()).await.unwrap();
    let table = MemTable::try_new(schema, parts.map(|part| vec![part]).into()).unwrap();
    session.register_table("t", Arc::new(table)).unwrap();
}

/// Returns the rows of a session's answer, in the format of the cases.
async fn rows(
    session: &SessionContext,
    plan: datafusion::logical_expr::LogicalPlan,
) -> Option<String> {
    let batches = session.execute_logical_plan(plan).await.ok()?.collect().await.ok()?;
    let rows = batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(|row| {
            let cells =
                batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            cells.collect::<Vec<_>>().join("|")
        })
    });
    Some(rows.collect::<Vec<_>>().join(";"))
}

#[tokio::test]
async fn what_datafusion_gets_wrong_is_right_here_and_still_wrong_there() {
    let store =
        Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap();
    let config = Config { threads: 2, ..Config::default() };
    let base = session::base_session(&config, &store, &Handle::current()).unwrap();
    let ours = session::session(&base, Vec::new(), None, None);
    register(&ours).await;
    let mut settings = SessionConfig::new();
    settings.options_mut().execution.parquet.pushdown_filters = true;
    let mut theirs = SessionContext::new_with_config(settings);
    datafusion_functions_json::register_all(&mut theirs).unwrap();
    register(&theirs).await;
    let mut changed = Vec::new();
    for Case { workaround, statement, right } in CASES {
        let plan = match session::parse(&ours.state(), statement) {
            Ok((parsed, _)) => ours.state().statement_to_plan(parsed).await.ok(),
            Err(_) => None,
        };
        let here = match plan.and_then(|plan| session::runnable(plan).ok()) {
            Some(plan) => rows(&ours, plan).await,
            None => None,
        };
        let there = match theirs.state().create_logical_plan(statement).await {
            Ok(plan) => rows(&theirs, plan).await,
            Err(_) => None,
        };
        if here.as_deref() != *right {
            changed.push(format!("{statement} is {here:?}, not {right:?}"));
        }
        if there.as_deref() == *right {
            changed
                .push(format!("DataFusion alone is right, so `{workaround}` may go: {statement}"));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}
