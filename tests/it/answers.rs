//! Statements that are answered as PostgreSQL answers them, over rows in memory and in files.

use arrow::array::AsArray;
use futures::TryStreamExt;
use gatelog::record::{Message, json};
use gatelog::{Engine, ErrorKind, Params, Record};

use crate::engine::{config, number, record};

fn body(text: &str) -> Message {
    Message { body: Some(text.to_owned()), headers: None }
}

/// Six records of two booleans, with bodies, models and numbers that statements get wrong easily.
fn records() -> Vec<Record> {
    let rows = [
        ("0", Some(true), 1.0, r#"{"model":"gpt-4o","x":1753200000000000000}"#, "100%"),
        ("1", Some(true), 9.0, r#"{"model":"other","x":9223372036854775807}"#, "a_b"),
        ("2", Some(false), 1.0, r#"{"model":null,"x":-9223372036854775808}"#, r"a\b"),
        ("3", Some(false), 9.0, r#"{"x":18446744073709551615}"#, "axb"),
        (
            "4",
            None,
            1.0,
            r#"{"x":123456789012345678901234567890,"l":[{"z":18446744073709551615}]}"#,
            "a!b",
        ),
        ("5", None, 9.0, r#"{"x":9007199254740993}"#, "été"),
    ];
    let tags = |id: &str| match id {
        "3" => vec![("team".to_owned(), "red".to_owned()), ("key".to_owned(), "k".to_owned())],
        _ => Vec::new(),
    };
    let made = rows.map(|(id, stream_mode, cost, text, model)| Record {
        stream_mode,
        metadata: tags(id),
        cost: Some(cost),
        request: body(text),
        ai_model: Some(model.to_owned()),
        ..record(id)
    });
    made.to_vec()
}

const NUMBERS: &[(&str, i64)] = &[
    // Operators of JSON bind tighter than comparisons, IS and LIKE.
    ("select count(*) from logs where request['body'] ->> 'model' = 'gpt-4o'", 1),
    ("select count(*) from logs where request['body'] ->> 'model' <> 'gpt-4o'", 1),
    ("select count(*) from logs where request['body'] ->> 'model' is null", 4),
    ("select count(*) from logs where request['body'] ->> 'model' like 'gpt%' or cost < 0", 1),
    ("select count(*) from logs where request['body'] ->> 'model' in ('gpt-4o', 'other')", 2),
    ("select count(*) from logs where request['body'] ->> 'model' between 'a' and 'h'", 1),
    ("select count(*) from logs where not request['body'] ->> 'model' = 'gpt-4o'", 1),
    ("select count(*) from logs where request['body'] ->> 'model' || '!' = 'other!'", 1),
    (
        "select count(*) from logs where request['body'] -> 'l' -> 0 ->> 'z' = '18446744073709551615'",
        1,
    ),
    ("select count(*) from logs where request['body'] ->> 'model' ~ '^gpt' and cost = 1", 1),
    // IS DISTINCT FROM binds tighter than AND, OR and NOT.
    ("select count(*) from logs where stream_mode is distinct from true and cost > 5", 2),
    ("select count(*) from logs where stream_mode is not distinct from true and cost > 5", 1),
    ("select count(*) from logs where stream_mode is distinct from true or cost > 5", 5),
    ("select count(*) from logs where cost > 5 is not distinct from stream_mode and cost < 5", 1),
    ("select count(*) from logs where not stream_mode is distinct from true", 2),
    // The escape character of LIKE.
    (r"select count(*) from logs where ai_model like '100\%'", 1),
    (r"select count(*) from logs where ai_model like 'a\\b'", 1),
    (r"select count(*) from logs where ai_model like 'a\_b'", 1),
    ("select count(*) from logs where ai_model like 'a!_b' escape '!'", 1),
    ("select count(*) from logs where ai_model like 'a!!b' escape '!'", 1),
    ("select count(*) from logs where ai_model ilike 'A!_B' escape '!'", 1),
    ("select count(*) from logs where ai_model not like 'a_b' escape '!'", 2),
    (r"select count(*) from logs where ai_model like 'a\b' escape ''", 1),
    (r"select count(*) from logs where ai_model like 'a\b' escape '!'", 1),
    ("select count(*) from logs where ai_model like 'étéé' escape 'é'", 0),
    ("select count(*) from logs where ai_model like 'a!' || '_b' escape '!'", 1),
    (r"select count(*) from logs where ai_model like ai_model escape ''", 6),
    ("select count(*) from logs where (ai_model like 'a' escape null) is null", 6),
    // Integers past 18 digits in JSON.
    ("select count(json_get_int(request['body'], 'x')) from logs", 4),
    ("select count(request['body'] -> 'x') from logs", 4),
    ("select count(request['body'] ->> 'x') from logs", 6),
    ("select max(json_get_int(request['body'], 'x')) from logs", i64::MAX),
    ("select min((request['body'] -> 'x')::bigint) from logs", i64::MIN),
    (
        "select json_get_int(request['body'], 'x') from logs where id = '0'",
        1_753_200_000_000_000_000,
    ),
    (
        "select count(*) from logs where request['body'] ->> 'x' = '123456789012345678901234567890'",
        1,
    ),
    ("select count(*) from logs where json_get_float(request['body'], 'x') > 1e18", 4),
    // A sort above a limit with an offset.
    (
        "select count(*) from (select * from (select id, cost from logs limit 4 offset 1) as l order by cost)",
        4,
    ),
    (
        "select count(*) from (select * from (select id, cost from logs order by id limit 3 offset 2) as l order by id, cost)",
        3,
    ),
    ("select count(*) from (select cost from logs order by id offset 3) as l where cost = 9.0", 2),
    // Three values of IN (SELECT …).
    ("select count(*) from logs where 7 not in (select total_units from logs)", 0),
    (
        "select count(*) from logs where (cost in (select cost from logs where cost < 5)) is false",
        3,
    ),
    (
        "select count(*) from logs where cost > 99 or cost not in (select case when cost < 5 then cost end from logs)",
        0,
    ),
    // Lists of keys and values, as exports have them; another name behind the dot is a key.
    ("select count(*) from logs where array_has(metadata.key, 'team')", 1),
    ("select count(*) from logs as l where array_has(l.metadata.value, 'red')", 1),
    ("select count(*) from logs where metadata.team = 'red' and metadata['key'] = 'k'", 1),
    // Ranks are signed.
    (
        "select min(r) from (select row_number() over (order by id) - rank() over (order by cost) as r from logs) as l",
        -2,
    ),
];

const REFUSALS: &[(&str, &str)] = &[
    ("select 1 from logs where ai_model like 'a!' escape '!'", "ends with its escape character"),
    ("select 1 from logs where ai_model like 'a' escape 'ab'", "expected one character in quotes"),
    ("select cost from logs except all select cost from logs", "EXCEPT ALL is not supported"),
    ("select 1; select 2", "expected one statement"),
    ("", "the statement is empty"),
];

/// Whole numbers do not wrap around.
const OVERFLOWS: &[(&str, &str)] = &[
    (
        "select 9223372036854775807 + length(id) from logs",
        "9223372036854775807 + 1 does not fit 64 bits",
    ),
    ("select max(json_get_int(request['body'], 'x') * 2) from logs", "does not fit 64 bits"),
    ("select id from logs where -json_get_int(request['body'], 'x') > 7", "does not fit 64 bits"),
    ("select abs(-9223372036854775807 - length(id)) from logs", "verflow"),
];

#[tokio::test]
async fn statements_are_answered_as_postgresql_does() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    for file in records().chunks(2) {
        engine.append(file.to_vec()).await.unwrap();
    }
    for flushed in [false, true] {
        if flushed {
            engine.flush().await.unwrap();
        }
        for (statement, right) in NUMBERS {
            assert_eq!(
                number(&engine.reader(), statement).await,
                *right,
                "{statement}, flushed: {flushed}"
            );
        }
    }
    for (statement, part) in REFUSALS {
        let error = engine.sql(statement, &Params::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{statement}: {error}");
        assert!(error.to_string().contains(part), "{statement}: {error}");
    }
    for (statement, part) in OVERFLOWS {
        let rows = async {
            engine.sql(statement, &Params::new()).await?.batches.try_collect::<Vec<_>>().await
        };
        let error = rows.await.expect_err(statement);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{statement}: {error}");
        assert!(error.to_string().contains(part), "{statement}: {error}");
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn least_and_greatest_are_right_over_files_of_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let costs: [&[Option<f64>]; 5] = [
        &[Some(50.0), Some(60.0)],
        &[None, None, None],
        &[Some(200.0)],
        &[Some(0.5), Some(900.0)],
        &[None],
    ];
    for (file, costs) in costs.iter().enumerate() {
        let line = |(row, cost): (usize, &Option<f64>)| {
            let cost = cost.map_or("null".to_owned(), |cost| cost.to_string());
            json::parse(&format!(
                r#"{{"id":"{file}-{row}","created_at":"2026-11-01T10:00:00Z","cost":{cost}}}"#
            ))
            .unwrap()
        };
        engine.append(costs.iter().enumerate().map(line).collect()).await.unwrap();
        engine.flush().await.unwrap();
    }
    let query = "select count(*) from (select min(cost) as least, max(cost) as most from logs) as l \
                 where least = 0.5 and most = 900.0";
    for _ in 0..60 {
        assert_eq!(number(&engine.reader(), query).await, 1);
    }
    engine.close().await.unwrap();
}

/// The rows after an OFFSET come in the order of the statement, however many batches they are.
#[tokio::test(flavor = "multi_thread")]
async fn rows_after_an_offset_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000));
    let records = (0..30_000).map(|number| Record {
        request: if number < 6_000 { body(&text) } else { Message::default() },
        ..record(&format!("{:05}", number * 7_919 % 30_000))
    });
    engine.append(records.collect()).await.unwrap();
    engine.flush().await.unwrap();
    for statement in [
        "select id from logs order by id offset 5",
        "select id, request.body as b from logs order by id limit 9000 offset 300",
        "select id from (select id, length(request.body) from logs order by id offset 300) s",
    ] {
        for _ in 0..4 {
            let answer = engine.sql(statement, &Params::new()).await.unwrap();
            let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
            let ids: Vec<String> = batches
                .iter()
                .flat_map(|batch| batch.column(0).as_string_view().iter().flatten())
                .map(str::to_owned)
                .collect();
            assert!(ids.len() > 5_000 && ids.is_sorted(), "{statement}");
        }
    }
    engine.close().await.unwrap();
}
