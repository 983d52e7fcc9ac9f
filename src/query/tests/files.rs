//! Faults of DataFusion about the statistics of files and the names of columns.

use super::*;

#[tokio::test]
async fn casts_of_negations_skip_no_files() {
    let rig = Rig::new().await;
    // True, false and null; 10 of each.
    let records: Vec<Record> = (0..30)
        .map(|id| Record {
            stream_mode: [Some(true), Some(false), None][id as usize % 3],
            ..record("acme", id, NOW - 1)
        })
        .collect();
    rig.flush(&records, &Rules::without_plans(0)).await;
    let read_scope = operator(Rules::without_plans(0));
    for (condition, rows) in [
        ("cast(not stream_mode as bigint) = 1", 10),
        ("cast(stream_mode = false as bigint) <> 1", 10),
        ("cast(not stream_mode as bigint) not in (1, -1)", 10),
        ("cast(not stream_mode as bigint) not in (1, null::bigint)", 0),
        ("try_cast(not stream_mode as int) is distinct from 0", 20),
        ("-cast(not stream_mode as double) < -0.5", 10),
        ("cast(cast(not stream_mode as int) as bigint) = 0", 10),
        ("cast(not stream_mode as bigint) <> 0 and not stream_mode", 10),
    ] {
        assert_eq!(
            rig.number(&read_scope, &format!("select count(*) from logs where {condition}")).await,
            rows,
            "{condition}"
        );
    }
    let sum = "select sum(v) from (select cast(not stream_mode as bigint) as v from logs) as t where v = 1";
    assert_eq!(rig.number(&read_scope, sum).await, 10);
}

/// See [`negated`].
#[cfg(debug_assertions)]
#[test]
fn datafusion_still_panics_over_the_bounds_of_a_cast_of_a_negation() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Boolean, true)]));
    let negated = Arc::new(NotExpr::new(col("a", &schema).unwrap()));
    let cast = Arc::new(CastExpr::new(negated, DataType::Int64, None));
    let equal = Arc::new(BinaryExpr::new(cast, Operator::Eq, lit(1_i64)));
    let bounds = || PruningPredicateBuilder::new().with_file_schema(schema).try_build(equal);
    let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(bounds));
    assert!(!matches!(built, Ok(Ok(_))), "DataFusion is right, so `negated` may go");
}

/// A join waits for its smaller side and then has the scans of the other leave out what it lacks.
/// The filter is of `l.trace_id`, and no row of `f` has that `trace_id`. See [`filter_names`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_of_a_key_stays_off_columns_of_its_name_beyond_a_semi_join() {
    let rig = Rig::new().await;
    let traced = |id: u64, user: &str, trace: &str| Record {
        user_id: Some(user.to_owned()),
        trace_id: Some(trace.to_owned()),
        ..record("acme", id, NOW - 1)
    };
    let records = [traced(1, "u", "a"), traced(2, "a", "b"), traced(3, "b", "c")];
    rig.flush(&records, &Rules::without_plans(0)).await;
    let statement = "select count(*) from (select l.id, l.trace_id from logs l where exists (\
        select 1 from logs f where f.user_id = l.trace_id and f.trace_id <> l.trace_id)) s \
        join (values ('a')) t(v) on s.trace_id = t.v";
    assert_eq!(rig.number(&operator(Rules::without_plans(0)), statement).await, 1);
    let logs = StoredTable::new(
        rig.query_context(operator(Rules::without_plans(0))).view,
        None,
        rig.queries.paths[0].clone(),
        FileOrdering::WhenCheap,
    );
    // The rules that are wrapped, as they are without it.
    let base = rig.queries.base.clone();
    let theirs = SessionStateBuilder::new_from_existing(base)
        .with_physical_optimizer_rules(PhysicalOptimizer::new().rules)
        .build();
    let theirs = session::session(&theirs, vec![logs], None, None);
    let batches = theirs.sql(statement).await.unwrap().collect().await.unwrap();
    let count = batches[0].column(0).as_primitive::<Int64Type>().value(0);
    assert_eq!(count, 0, "DataFusion is right, so `filter_names` need not look at semi joins");
}

/// Creates files of costs, some with only nulls. The minimum is 0.5.
async fn files_of_nulls() -> Rig {
    let rig = Rig::new().await;
    let nulls = vec![None; 30];
    let some =
        |from: u32, to: u32| (from..to).map(|cost| Some(f64::from(cost))).collect::<Vec<_>>();
    let files = [
        some(50, 110),
        nulls.clone(),
        some(200, 250),
        some(1, 4),
        nulls.clone(),
        some(500, 530),
        vec![Some(0.5), Some(900.0)],
        nulls,
    ];
    for (file, costs) in files.iter().enumerate() {
        let records: Vec<Record> = costs
            .iter()
            .zip(0..)
            .map(|(cost, row)| Record {
                cost: *cost,
                ..record("acme", file as u64 * 100 + row, NOW - 1)
            })
            .collect();
        rig.flush(&records, &Rules::without_plans(0)).await;
    }
    rig
}

async fn bounds(session: &datafusion::prelude::SessionContext) -> (f64, f64) {
    use arrow::datatypes::Float64Type;
    let batches = session
        .sql("select min(cost), max(cost) from logs")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let bound = |place: usize| batches[0].column(place).as_primitive::<Float64Type>().value(0);
    (bound(0), bound(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minimum_beside_a_maximum_is_right_over_files_of_nulls() {
    let rig = files_of_nulls().await;
    let logs = || {
        let query_context = rig.query_context(operator(Rules::without_plans(0)));
        StoredTable::new(
            query_context.view,
            None,
            rig.queries.paths[0].clone(),
            FileOrdering::WhenCheap,
        )
    };
    let ours = session::session(&rig.queries.base, vec![logs()], None, None);
    for _ in 0..100 {
        assert_eq!(bounds(&ours).await, (0.5, 900.0));
    }
    // The same session with the disabled filter enabled.
    let theirs = session::session(&rig.queries.base, vec![logs()], None, None);
    theirs
        .state_ref()
        .write()
        .config_mut()
        .options_mut()
        .optimizer
        .enable_aggregate_dynamic_filter_pushdown = true;
    let mut wrong = false;
    for _ in 0..2_000 {
        wrong = bounds(&theirs).await != (0.5, 900.0);
        if wrong {
            break;
        }
    }
    assert!(wrong, "DataFusion is right; `enable_aggregate_dynamic_filter_pushdown` may stay on");
}
