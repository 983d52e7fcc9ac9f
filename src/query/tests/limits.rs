//! Limits of one statement and of one organisation, and the kinds of errors.

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::MemoryPool;

use super::*;

async fn rig(config: &Config) -> Rig {
    let store =
        Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap();
    let table = Table::create_or_open(&store, Rows::Logs).await.unwrap();
    let queries = Queries::new(config, &store, Vec::new(), Handle::current()).unwrap();
    Rig { table, queries, ids: AtomicU64::new(1), memory: Vec::new() }
}

fn small() -> Config {
    Config { query_memory_bytes: 256 << 20, threads: 2, ..Config::default() }
}

fn read_scope_of(organisation: &str) -> ReadScope {
    ReadScope {
        organisation: Some(organisation.to_owned()),
        workspace: None,
        bodies: true,
        denied: Denied::default(),
        rules: Arc::new(rules(&[], Vec::new(), &[])),
        now_micros: NOW,
    }
}

async fn value(rig: &Rig, text: &str) -> String {
    let batches = rig
        .ask(&read_scope_of("acme"), text)
        .await
        .unwrap_or_else(|error| panic!("{text}: {error:?}"));
    arrow::util::display::array_value_to_string(batches[0].column(0), 0).unwrap()
}

async fn refused(rig: &Rig, text: &str) -> Error {
    match rig.ask(&read_scope_of("acme"), text).await {
        Err(error) => error,
        Ok(_) => panic!("{} is answered", &text[..text.len().min(200)]),
    }
}

fn pool(rig: &Rig) -> Arc<dyn MemoryPool> {
    Arc::clone(&rig.queries.base.runtime_env().memory_pool)
}

/// Returns a statement in which each of many subqueries uses the one below it twice.
fn nested(inner: &str, each: &str, levels: usize) -> String {
    (0..levels).fold(format!("select {inner} as a"), |below, _| {
        format!("select {each} as a from ({below}) as t")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn much_that_is_made_of_little_is_refused() {
    let rig = rig(&small()).await;
    let joined = nested("repeat('x', 1000)", "concat(a, a, a, a, a, a, a, a)", 10);
    let piped = nested("repeat('x', 1000)", "a || a || a || a || a || a || a || a", 10);
    let replaced = nested("repeat('x', 100)", "replace(a, 'x', 'xxxxxxxxxx')", 10);
    for text in [
        "select cardinality(range(1, 1000000000))",
        "select sum(cardinality(range(value, value + 1000000))) from generate_series(1, 1000)",
        "select cardinality(generate_series(1, 9223372036854775807))",
        "select cardinality(generate_series(timestamp '1970-01-01', timestamp '2200-01-01', interval '1 second'))",
        "select length(repeat('x', 2000000000))",
        "select length(lpad('x', 2000000000))",
        "select length(rpad('x', 2000000000, 'ab'))",
        "select length(concat(repeat('x', 60000000), repeat('y', 60000000)))",
        "select length(concat_ws(repeat('x', 20000000), 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'))",
        "select length(array_to_string(array_repeat('', 1000000), repeat('x', 1000)))",
        "select cardinality(array_repeat(1, 1000000000))",
        // Simplified to another call, which is bounded too.
        "select count(distinct concat('a', 'b', cast(value as varchar), repeat('x', 100000))) from generate_series(1, 20000)",
        "select cardinality(array_resize([1], 1000000000, 2))",
        "select length(regexp_replace(repeat('a', 100000), 'a', repeat('b', 100000), 'g'))",
        "select length(string_agg(concat(repeat('x', 100000), cast(value as varchar)), '')) from generate_series(1, 20000)",
        "select cardinality(array_agg(concat(repeat('x', 100000), cast(value as varchar)))) from generate_series(1, 20000)",
        &format!("select length(a) from ({joined}) as t"),
        &format!("select length(a) from ({piped}) as t"),
        &format!("select length(a) from ({replaced}) as t"),
        &format!("select count(*) from ({replaced}) as t where a = 'y'"),
    ] {
        let error = refused(&rig, text).await;
        assert!(matches!(error.kind(), ErrorKind::Limit | ErrorKind::Invalid), "{text}: {error:?}");
    }
    assert_eq!(pool(&rig).reserved(), 0, "memory was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounded_functions_answer_as_before() {
    let rig = rig(&small()).await;
    for (text, right) in [
        ("select lpad('x', 3, 'ab')", "abx"),
        ("select rpad('x', 3)", "x  "),
        ("select repeat('ab', 2)", "abab"),
        ("select repeat('ab', -1)", ""),
        ("select replace('aXa', 'X', 'yy')", "ayya"),
        ("select regexp_replace('foobarbaz', 'b(..)', 'X\\1Y', 'g')", "fooXarYXazY"),
        ("select 'a' || 'b' || 1", "ab1"),
        ("select ('a' || null) is null", "true"),
        ("select concat('a', null, 'b')", "ab"),
        ("select concat_ws('-', 'a', 'b')", "a-b"),
        ("select range(1, 4)", "[1, 2, 3]"),
        (
            "select cardinality(generate_series(date '2026-01-01', date '2026-01-31', interval '1 day'))",
            "31",
        ),
        ("select array_to_string([1, 2, null], ',', 'none')", "1,2,none"),
        ("select string_to_array('a,b', ',')", "[a, b]"),
        ("select [1, 2] || [3]", "[1, 2, 3]"),
        ("select array_has_all([1, 2, 3], [3, 1])", "true"),
        ("select levenshtein('kitten', 'sitting')", "3"),
        ("select strpos('abc', 'c')", "3"),
        ("select regexp_like('abc', 'b')", "true"),
        ("select max(length('x' || value)) from generate_series(1, 10000)", "6"),
        // In slices, and in batches that are shorter because of the constant.
        (
            "select sum(length(repeat('x', 20000 + value))) from generate_series(1, 1800)",
            "37620900",
        ),
        (
            "select count(distinct concat(repeat('x', 20000), value)) from generate_series(1, 1000)",
            "1000",
        ),
    ] {
        assert_eq!(value(&rig, text).await, right, "{text}");
    }
    assert_eq!(pool(&rig).reserved(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_grows_with_the_square_is_bounded_for_a_row_and_ends_at_the_deadline() {
    let rig = rig(&Config { query_timeout_seconds: 1, ..small() }).await;
    let error = refused(&rig, "select levenshtein(repeat('ab', 25000), repeat('ba', 25000))").await;
    assert!(
        error.message().contains("`levenshtein` may take 2500000000 steps for one row"),
        "{error}"
    );
    // One batch of it takes minutes; its thread is free soon after the deadline, since each slice
    // checks it.
    let text = "select max(levenshtein(repeat('ab', 2000), concat(repeat('ba', 2000), cast(value as varchar)))) \
                from generate_series(1, 8192)";
    let error = refused(&rig, text).await;
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.message().contains("ran longer than 1 s"), "{error}");
    while rig.queries.running() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_grow_out_of_a_short_statement_are_refused() {
    let rig = rig(&small()).await;
    let twice = (1..30).fold("with t0 as (select 1 as v)".to_owned(), |text, level| {
        let below = level - 1;
        format!("{text}, t{level} as (select x.v from t{below} as x, t{below} as y)")
    });
    let error = refused(&rig, &format!("{twice} select count(*) from t29")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("names more than 2000 tables"), "{error}");
    let sums = nested("value", "a + a + a + a + a + a + a + a", 10)
        .replace("select value as a", "select value as a from generate_series(1, 2)");
    let error = refused(&rig, &format!("select count(*) from ({sums}) as t where a > 5")).await;
    assert!(error.message().contains("more than 1000000 parts"), "{error}");
    // A statement that is nested as deeply but uses each part once passes.
    let once = nested("value", "a + 1", 10)
        .replace("select value as a", "select value as a from generate_series(1, 2)");
    assert_eq!(value(&rig, &format!("select sum(a) from ({once}) as t where a > 5")).await, "23");
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_stops_at_the_deadline() {
    let rig = rig(&small()).await;
    let limits = Limits { timeout: Some(Duration::ZERO), ..rig.queries.limits() };
    let none = || ParamValues::Map(HashMap::new());
    let ended =
        rig.queries.run(rig.query_context(read_scope_of("acme")), "select 1", none(), limits).await;
    assert!(ended.unwrap_err().message().contains("ran longer"));
    // The planner itself stops, and not only its caller.
    let meter = Meter::new(Some(Instant::now()), pool(&rig));
    let means = (meter, Arc::clone(rig.queries.base.runtime_env()));
    let planning = rig.queries.planning(
        rig.query_context(read_scope_of("acme")),
        "select 1 + 1",
        none(),
        limits,
        means,
    );
    let error = planning.start(false).await.err().unwrap();
    assert!(error.message().contains("was cancelled"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organisations_endless_queries_leave_places_and_threads_to_others() {
    const ENDLESS: &str = "select count(*) from generate_series(1, 100000000000)";
    let rig = Arc::new(rig(&Config { query_concurrency: 4, query_share: 2, ..small() }).await);
    let (begun, mut started) = mpsc::channel(64);
    let hostile = (0..2 + 16).map(|_| {
        let rig = Arc::clone(&rig);
        let begun = begun.clone();
        tokio::spawn(async move {
            let answer = rig
                .queries
                .sql(rig.query_context(read_scope_of("acme")), ENDLESS, &Params::new())
                .await
                .unwrap();
            begun.send(()).await.unwrap();
            answer.batches.try_collect::<Vec<_>>().await.map(|_| ())
        })
    });
    let hostile: Vec<_> = hostile.map(AbortOnDropHandle::new).collect();
    for _ in 0..2 {
        started.recv().await.unwrap();
    }
    for _ in 0..10 {
        assert_eq!(
            rig.number(&read_scope_of("zen"), "select count(*) from generate_series(1, 3)").await,
            3
        );
    }
    assert!(started.try_recv().is_err(), "no third query of the one organisation runs");
    assert_eq!(rig.queries.running(), 2);
    // A query beyond the queue is refused with the reason; the other organisation is not affected.
    while rig.queries.places.waiting(&Some("acme".to_owned())) < 16 {
        tokio::task::yield_now().await;
    }
    let error = refused(&rig, "select 1").await;
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error.message().contains("this organisation runs as many queries as its share allows (2)"),
        "{error}"
    );
    assert_eq!(
        rig.number(&read_scope_of("zen"), "select count(*) from generate_series(1, 3)").await,
        3
    );
    drop(hostile);
    while rig.queries.places.waiting(&Some("acme".to_owned())) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rig.number(&read_scope_of("acme"), "select count(*) from generate_series(1, 3)").await,
        3
    );
}

/// Invalid statements of different kinds, over rows in files.
const WRONG: &[&str] = &[
    "selec 1",
    "select 1; select 2",
    "select nope from logs",
    "select nope(id) from logs",
    "select * from nope",
    "select sum(ai_model) from logs",
    "select min(metadata) from logs",
    "select max(metadata) from logs",
    "select 1 / 0",
    "select total_units / (total_units - total_units) from logs",
    "select id from logs where 1 / (total_units - total_units) = 1",
    "select cast(ai_model as int) from logs",
    "select id from logs where cast(ai_model as int) = 1",
    "select id from logs where ai_model ~ '('",
    "select id from logs where ai_model ~ '(((a{100}){100}){100}){100}'",
    "select id from logs where id ~ concat('(', id)",
    "select regexp_replace(id, '(((a{100}){100}){100}){100}', '') from logs",
    "select id from logs where ai_model like 'LONG'",
    "select id from logs where ai_model like 'a!' escape '!'",
    "select date_trunc('nope', created_at) from logs",
    "select (select id from logs) from logs",
    "select id from logs where id in (select id, ai_model from logs)",
    "select arrow_cast(1, 'FixedSizeList(1000000000, Int64)')",
    "select to_timestamp('nope')",
    "select levenshtein(repeat('a', 100000), repeat('b', 100000))",
    "select $1",
    "delete from logs",
    "select a.id from logs a join logs b using (nope)",
    "select row_number() over (order by nope) from logs",
    "select array_element(1, 2)",
    "select exists (select 1 from logs) as v from logs",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_statement_is_the_statements() {
    let rig = rig(&small()).await;
    let records: Vec<Record> = (0..20).map(|id| record("acme", id, NOW - 1000)).collect();
    rig.flush(&records, &rules(&[], Vec::new(), &[])).await;
    let long = format!("%{}%", "a_".repeat(40_000));
    for text in WRONG {
        let text = text.replace("LONG", &long);
        for read_scope in
            [read_scope_of("acme"), ReadScope { organisation: None, ..read_scope_of("acme") }]
        {
            match rig.ask(&read_scope, &text).await {
                // A pattern of any length passes if the engine accepts it.
                Ok(_) => assert!(text.len() > 10_000, "{text} is answered"),
                Err(error) => {
                    let start = &text[..text.len().min(200)];
                    assert_eq!(error.kind(), ErrorKind::Invalid, "{start}: {error:?}");
                    assert!(
                        !error.message().contains("doctor") && !error.message().contains("bug"),
                        "{error}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_fails_while_a_file_is_read_is_the_stores() {
    use arrow::error::ArrowError;
    use datafusion::parquet::errors::ParquetError;
    let text = |text: &str| text.to_owned();
    let boxed = |error: ParquetError| DataFusionError::ParquetError(Box::new(error));
    let stored = |error: object_store::Error| DataFusionError::ObjectStore(Box::new(error));
    let missing = || object_store::Error::NotFound { path: text("a"), source: "gone".into() };
    let silent = || object_store::Error::Generic { store: "S3", source: "no answer".into() };
    let condition =
        || ArrowError::ComputeError(text("Error evaluating filter predicate: DivideByZero"));
    let io = || std::io::Error::other("no space left");
    for (error, kind) in [
        (boxed(ParquetError::General(text("bad magic"))), ErrorKind::Damaged),
        (boxed(ParquetError::EOF(text("too short"))), ErrorKind::Damaged),
        (boxed(ParquetError::External(Box::new(missing()))), ErrorKind::Damaged),
        (boxed(ParquetError::External(Box::new(silent()))), ErrorKind::Storage),
        (boxed(ParquetError::External(Box::new(io()))), ErrorKind::Storage),
        (boxed(ParquetError::External(Box::new(condition()))), ErrorKind::Invalid),
        (boxed(ParquetError::ArrowError(text("invalid utf8"))), ErrorKind::Damaged),
        (stored(missing()), ErrorKind::Damaged),
        (stored(silent()), ErrorKind::Storage),
        (DataFusionError::IoError(io()), ErrorKind::Storage),
        (ArrowError::ParquetError(text("Parquet error: bad page")).into(), ErrorKind::Damaged),
        (ArrowError::ExternalError(Box::new(silent())).into(), ErrorKind::Storage),
        (ArrowError::IpcError(text("spilled rows")).into(), ErrorKind::Storage),
        (ArrowError::DivideByZero.into(), ErrorKind::Invalid),
        (DataFusionError::ResourcesExhausted(text("memory")), ErrorKind::Limit),
        (DataFusionError::Internal(text("no such accumulator")), ErrorKind::Invalid),
        (DataFusionError::NotImplemented(text("this")), ErrorKind::Invalid),
        (DataFusionError::Execution(text("that")), ErrorKind::Invalid),
        (DataFusionError::Configuration(text("that")), ErrorKind::Invalid),
        (DataFusionError::External("other".into()), ErrorKind::Invalid),
    ] {
        let shown = format!("{error:?}");
        let shared = |error| DataFusionError::Shared(Arc::new(error));
        let wrapped = shared(DataFusionError::Context(text("while running"), Box::new(error)));
        assert_eq!(query_failed(wrapped).kind(), kind, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_named_as_they_are_written() {
    let rig = rig(&small()).await;
    for (text, names) in [
        ("select count(*), count(1), COUNT(*) + 1 from logs", "count(*)|count(1)|count(*) + 1"),
        (
            "select sum(total_units) + 1, sum(logs.total_units) from logs",
            "sum(total_units) + 1|sum(logs.total_units)",
        ),
        ("select 1, 'a', null, 1.5, true", "1|'a'|NULL|1.5|true"),
        ("select id, logs.id as x, total_units + 1 from logs", "id|x|total_units + 1"),
        ("select *, 1 from (select 2 as a, 3 as b) as t", "a|b|1"),
        ("select 1 + 1 union all select 5", "1 + 1"),
        ("select distinct total_units + 1 from logs", "total_units + 1"),
        (
            "select length(id), count(*) from logs group by length(id) order by count(*), length(id)",
            "length(id)|count(*)",
        ),
        ("select request['body'] from logs", "request['body']"),
        ("select id from logs where id in (select 'a')", "id"),
        ("select rank() over (order by id) from logs", "rank() OVER (ORDER BY id)"),
        // Parts of columns, with and without the table.
        (
            "select request.body, l.request.headers, l.id from logs as l",
            "request.body|request.headers|id",
        ),
        ("select REQUEST.body, (logs.response.body) from logs", "request.body|response.body"),
        (
            "select metadata.team, metadata.key, logs.metadata.value from logs",
            "metadata.team|metadata.key|metadata.value",
        ),
        // Columns of queries that `*` expands to.
        (
            "select * from (select request.body, count(*), sum(total_units) + 1, metadata.team, lower(id), 1 \
             from logs group by 1, 4, 5) as t",
            "request.body|count(*)|sum(total_units) + 1|metadata.team|lower(id)|1",
        ),
        (
            "with w as (select count(*), request['body'] from logs group by 2) select * from w",
            "count(*)|request['body']",
        ),
        ("with w(n) as (select count(*) from logs) select * from w", "n"),
        ("select * from (select count(*) from logs) as t(n)", "n"),
        (
            "select * from (select max(total_units) from logs union all select 1) as t",
            "max(total_units)",
        ),
        (
            "select * from (select distinct lower(id) from logs order by lower(id) desc) as t",
            "lower(id)",
        ),
        ("select t.\"lower(id)\" from (select lower(id) from logs) as t", "lower(id)"),
        (
            "select id from (select l.id, x.total_units from logs as l join logs as x on l.id = x.id) as t",
            "id",
        ),
        ("select * from (select metadata.a from (select 1 as a) as metadata) as t", "a"),
    ] {
        let answer =
            rig.queries.sql(rig.query_context(read_scope_of("acme")), text, &Params::new()).await;
        let schema = answer.unwrap_or_else(|error| panic!("{text}: {error:?}")).schema;
        let named: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(named.join("|"), names, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_exist_are_answered_with_the_nearest_ones() {
    let rig = rig(&small()).await;
    for (statement, text) in [
        (
            "select totl_units from logs",
            "there is no column `totl_units`; nearest names: `total_units`",
        ),
        (
            "select l.model from logs as l",
            "there is no column `l.model`; nearest names: `mode`, `ai_model`",
        ),
        (
            "select \"gpt-4o\" from logs",
            "there is no column `gpt-4o`; a text is written in single quotes: 'gpt-4o'",
        ),
        ("select lenght(id) from logs", "there is no function `lenght`; nearest names: `length`"),
        ("select * from log", "there is no table `log`; nearest names: `logs`"),
    ] {
        let error = refused(&rig, statement).await;
        assert!(error.message().contains(text), "{error}");
        assert!(error.message().len() < 200, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_writes_is_refused_as_such_whatever_else_is_wrong_with_it() {
    let rig = rig(&small()).await;
    for statement in [
        "insert into logs values (1)",
        "copy logs to 'x'",
        "copy logs to 'x' stored as parquet",
        "begin",
        "call f()",
        "vacuum logs",
        "explain insert into logs values (1)",
        "delete from nowhere",
        "create table x as select 1",
        "set x = 1",
        "prepare p as select 1",
    ] {
        let error = refused(&rig, statement).await;
        assert!(error.message().starts_with("SQL here is read-only"), "{statement}: {error}");
    }
}
