//! Feedback on logs: the current version, its owner, and its effect on each log.

use chrono::{DateTime, TimeDelta, Utc};

use super::super::feedback::{feedback_of_log, get as one, list as page, means, places, shown};
use super::*;
use crate::catalog::ErasureSelector;

fn at(minutes: i64) -> DateTime<Utc> {
    "2025-11-02T12:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
}

/// Creates feedback of `organisation` on `about`: a trace, `trace/log`, or `/log` without a trace.
fn entry(
    id: &str,
    organisation: &str,
    about: &str,
    value: f64,
    weight: f64,
    minutes: i64,
) -> Feedback {
    let (trace, log) =
        about.split_once('/').map_or((about, None), |(trace, log)| (trace, Some(log.to_owned())));
    Feedback {
        id: Some(id.to_owned()),
        organisation_id: Some(organisation.to_owned()),
        created_at: Some(at(minutes)),
        updated_at: Some(at(minutes)),
        trace_id: Some(trace.to_owned()).filter(|trace| !trace.is_empty()),
        log_id: log,
        value: Some(value),
        weight: Some(weight),
        source: Some("API".to_owned()),
        metadata: vec![("k".to_owned(), "it's".to_owned())],
        ..Feedback::default()
    }
}

fn changed(feedback: &Feedback, value: f64, seconds: i64) -> Feedback {
    let later = feedback.created_at.map(|at| at + TimeDelta::seconds(seconds));
    Feedback { value: Some(value), updated_at: later, ..feedback.clone() }
}

/// Creates feedback on a trace of acme, on two of its logs, and on a log of zen without a trace.
fn rig() -> Rig {
    let first = entry("f1", "acme", "t-1", 9.0, 1.0, 1);
    let of_trace: Vec<Record> =
        Rig::new().records.into_iter().filter(|record| on(record, "acme", "t-1")).collect();
    let own = |number: usize| format!("t-1/{}", of_trace[number].id.as_deref().unwrap());
    Rig::with(vec![
        changed(&first, 3.0, 30),
        changed(&first, 5.0, 60),
        first,
        entry("f2", "acme", "t-1", -5.0, 0.5, 2),
        entry("f3", "zen", "t-2", 10.0, 1.0, 3),
        entry("f4", "acme", "t-faq", 10.0, 0.0, 4),
        entry("f5", "acme", &own(0), -1.0, 1.0, 5),
        entry("f6", "acme", &own(1), 10.0, 0.0, 6),
        entry("f7", "zen", "/tied", 7.0, 0.7, 7),
        entry("f1", "zen", "t-1", -10.0, 1.0, 8),
    ])
}

fn on(record: &Record, organisation: &str, trace: &str) -> bool {
    is(&record.organisation_id, organisation) && is(&record.trace_id, trace)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_state_holds_and_pages_go_on_where_the_last_ended() {
    let rig = rig();
    let of = async |id: &str, organisation| {
        one(&rig.queries, rig.query_context.clone(), id, organisation).await
    };
    let found = of("f1", Some("acme")).await.unwrap();
    assert_eq!(found, changed(&entry("f1", "acme", "t-1", 9.0, 1.0, 1), 5.0, 60));
    assert_eq!(of("f1", None).await.unwrap().organisation_id.as_deref(), Some("zen"), "the newest");
    for (id, organisation) in [("nothing", None), ("f2", Some("zen"))] {
        let error = of(id, organisation).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (crate::error::ErrorKind::NotFound, "no feedback has that id")
        );
    }

    let mut ask = FeedbackAsk { page_size: 3, ..FeedbackAsk::default() };
    let mut seen = Vec::new();
    loop {
        let (found, next) = page(&rig.queries, rig.query_context.clone(), &ask).await.unwrap();
        seen.extend(found.into_iter().map(|one| (one.id.unwrap(), one.organisation_id.unwrap())));
        let Some(next) = next else { break };
        ask.after = Some(next.to_string().parse().unwrap());
    }
    let expected = [
        ("f1", "zen"),
        ("f7", "zen"),
        ("f6", "acme"),
        ("f5", "acme"),
        ("f4", "acme"),
        ("f3", "zen"),
        ("f2", "acme"),
        ("f1", "acme"),
    ];
    assert_eq!(seen, expected.map(|(id, organisation)| (id.to_owned(), organisation.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_feedback_are_narrowed() {
    let rig = rig();
    for (fields, expected) in [
        (&[("trace_id", "t-2, t-faq")][..], &["f4", "f3"][..]),
        (&[("log_id", "tied")][..], &["f7"][..]),
        (
            &[("from", "2025-11-02T12:05:00Z"), ("to", "2025-11-02T12:07:00Z")][..],
            &["f6", "f5"][..],
        ),
        (&[("from", "2025-11-03")][..], &[][..]),
        (&[("trace_id", "t-2"), ("log_id", "tied")][..], &[][..]),
    ] {
        let ask = FeedbackAsk::read(|name| {
            fields.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        });
        let ask = FeedbackAsk { page_size: 50, ..ask.unwrap() };
        let (found, next) = page(&rig.queries, rig.query_context.clone(), &ask).await.unwrap();
        let found: Vec<String> = found.into_iter().map(|one| one.id.unwrap()).collect();
        assert_eq!(
            (found, next),
            (expected.iter().map(|id| (*id).to_owned()).collect(), None),
            "{fields:?}"
        );
    }
    assert!(FeedbackAsk::read(|name| (name == "from").then(|| "soon".to_owned())).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_log_has_the_mean_of_its_trace_and_of_its_own() {
    let rig = rig();
    let of_trace: Vec<Record> =
        rig.records.iter().filter(|record| on(record, "acme", "t-1")).cloned().collect();
    assert!(of_trace.len() > 1, "the fixture has a trace of several logs");
    let listed = rig.page(&Ask { page_size: MAX_PAGE_SIZE, ..Ask::default() }).await;
    let found = means(&rig.queries, rig.query_context.clone(), &rig.records).await.unwrap();
    for (record, mean) in rig.records.iter().zip(found) {
        let id = &record.id;
        let expected = match record.organisation_id.as_deref() {
            // (5 * 1 - 5 * 0.5 - 1 * 1) / 2.5, and for the other logs without the last term.
            Some("acme") if is(id, of_trace[0].id.as_deref().unwrap()) => Some(0.6),
            Some("acme") if is(&record.trace_id, "t-1") => Some(1.666666667),
            // A single value is returned exactly.
            Some("zen") if is(id, "tied") => Some(7.0),
            _ => None,
        };
        assert_eq!(mean, expected, "{id:?}");
        let same = |item: &&Value| {
            item["id"].as_str() == id.as_deref()
                && item["organisation_id"].as_str() == record.organisation_id.as_deref()
        };
        assert_eq!(
            listed.records.iter().find(same).unwrap()["weighted_feedback"].as_f64(),
            expected,
            "{id:?}"
        );
    }
    assert_eq!(means(&rig.queries, rig.query_context.clone(), &[]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_found_by_their_weighted_feedback() {
    let rig = rig();
    let of_trace: Vec<Record> =
        rig.records.iter().filter(|record| on(record, "acme", "t-1")).cloned().collect();
    let own = of_trace[0].id.clone().unwrap();
    let others = |record: &Record| on(record, "acme", "t-1") && !is(&record.id, &own);
    // A trace of that name in another organisation is separate, and zero weights have no mean.
    rig.finds(&[("weighted_feedback_min", "1.6"), ("weighted_feedback_max", "1.7")], others).await;
    rig.finds(&[("weighted_feedback_min", "0.6"), ("weighted_feedback_max", "0.6")], |record| {
        is(&record.id, &own)
    })
    .await;
    let tied = |record: &Record| is(&record.id, "tied") && is(&record.organisation_id, "zen");
    rig.finds(&[("weighted_feedback_min", "7")], tied).await;
    let any = |record: &Record| on(record, "acme", "t-1") || tied(record);
    rig.finds(&[("weighted_feedback_min", "-10")], any).await;
    rig.finds(&[("weighted_feedback_max", "10")], any).await;
    let failed = |record: &Record| any(record) && record.response_status_code == Some(404);
    rig.finds(&[("weighted_feedback_max", "10"), ("status_code", "404")], failed).await;
    let none =
        Ask { filter: filter(&[("weighted_feedback_min", "7.1")]).unwrap(), ..Ask::default() };
    assert!(rig.page(&none).await.records.is_empty());
}

/// Joined in the other order, all logs would be held in memory, with their bodies if an export
/// includes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_feedback_streams_the_logs_by() {
    let rig = rig();
    let condition = filter(&[("weighted_feedback_min", "1")]).unwrap().condition();
    let text = format!("explain {}select * from logs {}", condition.with(), condition.clause());
    let plan = run(&rig.queries, rig.query_context.clone(), &text, condition.params).await.unwrap();
    let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
    // The view of feedback may join its own versions in any order.
    let holds_logs = |line: &str| {
        line.contains("LeftSemi") || (line.contains("LeftAnti") && !line.contains("later_id"))
    };
    assert!(!plan.lines().any(holds_logs) && plan.contains("RightSemi"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_shows_feedback_on_its_trace_and_on_itself() {
    let rig = rig();
    let of_trace: Vec<Record> =
        rig.records.iter().filter(|record| on(record, "acme", "t-1")).cloned().collect();
    for (number, ids, weighted) in
        [(0, &["f5", "f2", "f1"][..], 0.6), (1, &["f6", "f2", "f1"][..], 1.666666667)]
    {
        let found = feedback_of_log(&rig.queries, rig.query_context.clone(), &of_trace[number])
            .await
            .unwrap();
        let found_ids: Vec<_> =
            found.feedback.iter().map(|one| one.id.as_deref().unwrap()).collect();
        assert_eq!((found_ids, found.weighted), (ids.to_vec(), Some(weighted)));
        let object: Value =
            serde_json::from_str(&object(&of_trace[number], None, &found, &[]).unwrap()).unwrap();
        assert_eq!(
            (object["feedback"].as_array().unwrap().len(), &object["weighted_feedback"]),
            (3, &json!(weighted))
        );
        assert_eq!(object["feedback"][2], shown(&found.feedback[2]));
    }
    let tied = rig
        .records
        .iter()
        .find(|record| is(&record.id, "tied") && is(&record.organisation_id, "zen"))
        .unwrap();
    let found = feedback_of_log(&rig.queries, rig.query_context.clone(), tied).await.unwrap();
    assert_eq!((found.feedback.len(), found.weighted), (1, Some(7.0)));
    assert_eq!(
        shown(&found.feedback[0]),
        json!({
            "id": "f7", "object": "feedback", "organisation_id": "zen", "workspace_slug": null, "trace_id": null,
            "log_id": "tied", "value": 7, "weight": 0.7, "user_id": null, "source": "API", "metadata": { "k": "it's" },
            "created_at": "2025-11-02T12:07:00.000Z", "updated_at": "2025-11-02T12:07:00.000Z",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_big_feedback_ends_before_its_bytes_are_too_many() {
    let big = |number: usize| Feedback {
        metadata: vec![("k".to_owned(), "x".repeat(200 << 10))],
        ..entry(&format!("f{number:02}"), "acme", "t-1", 1.0, 1.0, number as i64)
    };
    let rig = Rig::with((0..50).map(big).collect());
    let mut ask = FeedbackAsk { page_size: 40, ..FeedbackAsk::default() };
    let mut sizes = Vec::new();
    loop {
        let (found, next) = page(&rig.queries, rig.query_context.clone(), &ask).await.unwrap();
        sizes.push(found.len());
        let Some(next) = next else { break };
        ask.after = Some(next);
    }
    assert_eq!(sizes, [20, 20, 10], "each but the last has nearly 4 MiB");
    let record = rig.records.iter().find(|record| on(record, "acme", "t-1")).unwrap();
    let found = feedback_of_log(&rig.queries, rig.query_context.clone(), record).await.unwrap();
    assert_eq!((found.feedback.len(), found.weighted), (20, Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_goes_with_the_records_that_it_is_about() {
    let rig = Rig::with(vec![
        // Feedback on a trace with records of two users and of none, on a missing trace, and on
        // records of one user.
        entry("of-trace", "acme", "t-faq", 1.0, 1.0, 1),
        entry("of-nothing", "acme", "elsewhere", 1.0, 1.0, 2),
        entry("on-r01", "acme", "t-faq/r01", 1.0, 1.0, 3),
        entry("on-r02", "acme", "t-faq/r02", 1.0, 1.0, 4),
        entry("on-r04", "acme", "/r04", 1.0, 1.0, 5),
        entry("of-zen", "zen", "t-faq/r01", 1.0, 1.0, 6),
        entry("named", "acme", "elsewhere", 1.0, 1.0, 7),
        Feedback {
            user_id: Some("ana".to_owned()),
            ..changed(&entry("named", "acme", "elsewhere", 1.0, 1.0, 7), 2.0, 9)
        },
    ]);
    let find = async |which: &ErasureSelector| {
        let mut found =
            erasing(&rig.queries, rig.query_context.clone(), "acme", which).await.unwrap();
        found.tied.sort();
        (found.records, found.feedback, found.tied.join(" "))
    };
    let user = |user: &str| ErasureSelector::User(user.to_owned());
    assert_eq!(find(&user("ana")).await, (2, 3, "named on-r01 on-r04".to_owned()));
    assert_eq!(find(&user("ben")).await, (2, 1, "on-r02".to_owned()));
    assert_eq!(find(&user("nobody")).await, (0, 0, String::new()));
    let ids = |ids: &[&str]| ErasureSelector::Ids(ids.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(find(&ids(&["r04", "on-r02", "of-zen"])).await, (1, 2, "on-r02 on-r04".to_owned()));
    let of_trace: Vec<&str> = rig
        .records
        .iter()
        .filter(|record| on(record, "acme", "t-faq"))
        .filter_map(|record| record.id.as_deref())
        .collect();
    assert_eq!(of_trace, ["r01", "r02"]);
    let (records, _, tied) = find(&ids(&of_trace)).await;
    assert_eq!((records, tied.as_str()), (of_trace.len() as u64, "of-trace on-r01 on-r02"));
    assert_eq!(find(&ids(&of_trace[1..])).await.2, "on-r02");
    let all =
        rig.records.iter().filter(|record| is(&record.organisation_id, "acme")).count() as u64;
    assert_eq!(find(&ErasureSelector::All).await, (all, 6, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_placed_by_their_ids() {
    let rig = rig();
    let ids: Vec<String> = (0..1_500)
        .map(|number| format!("no-{number}"))
        .chain(["tied".to_owned(), "r01".to_owned()])
        .collect();
    let found = places(&rig.queries, rig.query_context.clone(), &ids).await.unwrap();
    assert_eq!(found.len(), 2);
    let tied: Vec<_> =
        found["tied"].iter().map(|place| place.organisation.as_deref().unwrap()).collect();
    assert_eq!(tied, ["acme", "zen"], "the last is the one that the other answers give");
    let first = rig.records.iter().find(|record| is(&record.id, "r01")).unwrap();
    let place = LogRef {
        id: "r01".to_owned(),
        organisation: first.organisation_id.clone(),
        workspace: first.workspace_slug.clone(),
        trace: first.trace_id.clone(),
    };
    assert_eq!(found["r01"], [place]);
}

/// Three statements, each with another join, contain the rule for the logs that a feedback applies
/// to. The rule must be the same in all.
#[test]
fn statements_agree_on_the_logs_of_a_feedback() {
    let about = |text: &str, feedback: &str, logs: &str| {
        let (_, rest) = text.split_once(&format!("on {feedback}.organisation_id")).unwrap();
        let (rule, _) =
            rest.split_once("\n        end").or_else(|| rest.split_once("\n    end")).unwrap();
        let rule = rule
            .replace(&format!("{feedback}."), "feedback.")
            .replace(&format!("{logs}."), "logs.");
        rule.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let lists = about(include_str!("../../../sql/logs/rated.sql"), "entries", "logs");
    let graphs = about(include_str!("../../../sql/analytics/rated.sql"), "ratings", "calls");
    let report = about(include_str!("../../../sql/feedback_by_model.sql"), "feedback", "logs");
    assert_eq!((&lists, &lists), (&graphs, &report));
    assert!(lists.contains(&format!("'{}'", crate::replay::SPAN)), "{lists}");
    assert!(
        include_str!("../../../sql/logs/tied.sql").contains(&format!("'{}'", crate::replay::SPAN))
    );
}
