//! The same for the table of feedback, and for what follows from it for logs.

use chrono::{Duration, TimeDelta};
use gatelog::analytics::{AnalyticsRequest, Query};
use gatelog::engine::ErasureSelector;
use gatelog::logs::{Ask, FeedbackAsk, Filter};
use gatelog::record::Feedback;
use gatelog::{ErrorKind, ExportRequest, Job, Params};
use serde_json::Value;

use super::{MODES, Mode, Pair, SECRET, access, compare, exported, now, ours, said};
use gatelog::engine::{Access, Scope};

/// A value that no one but others gave.
const SECRET_VALUE: f64 = -9.8765;

/// Feedback that acme sees: on each of its traces, and on every fifth of its logs alone.
fn given(number: i64) -> Feedback {
    let at = now() - Duration::minutes(number * 37);
    Feedback {
        id: Some(format!("said-{number:03}")),
        organisation_id: Some("acme".to_owned()),
        workspace_slug: Some("one".to_owned()),
        created_at: Some(at),
        updated_at: Some(at),
        trace_id: Some(format!("{}", number / 2)),
        log_id: (number % 5 == 0).then(|| format!("ours-{number:03}")),
        value: Some((number % 11) as f64),
        weight: Some(0.5),
        user_id: Some(format!("{}", number % 3)),
        source: Some("API".to_owned()),
        metadata: vec![("_user".to_owned(), format!("{}", number % 3))],
        ..Feedback::default()
    }
}

/// Thirty states of twenty.
pub(super) fn seen() -> Vec<Feedback> {
    let later = |feedback: Feedback| Feedback {
        updated_at: feedback.updated_at.map(|at| at + TimeDelta::seconds(1)),
        value: Some(7.0),
        ..feedback
    };
    (0..20).map(given).chain((0..10).map(|number| later(given(number)))).collect()
}

/// Feedback that acme may not see, on traces and logs that have the names of its own.
fn planted(organisation: &str, number: i64) -> Feedback {
    let text = || Some(format!("{SECRET}-{organisation}-{number} (("));
    Feedback {
        id: Some(format!("{SECRET}-{organisation}-{number}")),
        organisation_id: Some(organisation.to_owned()),
        workspace_slug: Some("two".to_owned()),
        created_at: Some(now() - Duration::seconds(number)),
        trace_id: if number % 2 == 0 { Some(format!("{number}")) } else { text() },
        log_id: (number % 3 == 0).then(|| format!("ours-{number:03}")),
        value: Some(SECRET_VALUE),
        weight: Some(0.987_65),
        user_id: text(),
        source: text(),
        metadata: vec![(SECRET.to_owned(), SECRET.to_owned())],
        ..Feedback::default()
    }
}

/// What acme sees among what others gave, what expired, what was erased by id and, for a workspace,
/// what others of acme gave.
pub(super) fn of_everybody(workspace: bool) -> Vec<Feedback> {
    let mut hidden: Vec<Feedback> = (0..8).map(|number| planted("acme", number)).collect();
    for (number, feedback) in hidden.iter_mut().enumerate() {
        feedback.workspace_slug = Some("one".to_owned());
        match number % 2 {
            0 => feedback.created_at = Some(now() - Duration::days(30) - Duration::microseconds(1)),
            _ => feedback.id = Some(format!("erased-{SECRET}-{number}")),
        }
    }
    if workspace {
        hidden.extend((0..8).map(|number| planted("acme", 100 + number)));
    }
    for number in 0..12 {
        hidden.extend(
            ["aaa", "zulu", "nobody-knows"].map(|organisation| planted(organisation, number)),
        );
    }
    let mut dealt = seen();
    for (place, feedback) in hidden.into_iter().enumerate() {
        dealt.insert((place * 7) % dealt.len(), feedback);
    }
    dealt
}

const STATEMENTS: &[&str] = &[
    "select * from feedback order by id",
    "select * from feedback_history order by id, updated_at",
    "select count(*), min(value), max(value), sum(weight), count(distinct user_id) from feedback_history",
    "select count(*), min(created_at), max(updated_at), min(organisation_id), max(organisation_id) from feedback",
    "select count(*) from feedback where organisation_id <> 'acme' or workspace_slug <> 'one'",
    "select count(*) from feedback where trace_id = '0' or log_id = 'ours-003'",
    "select trace_id, log_id, count(*), avg(value) from feedback group by 1, 2 order by 1, 2",
    "select value, row_number() over (order by created_at desc) from feedback order by 2 limit 3",
    "select l.id, f.value from logs l join feedback f on l.trace_id = f.trace_id order by 1, 2",
    "select count(*) from logs l join feedback_history f on l.organisation_id <> f.organisation_id",
    "select id from feedback union all select id from logs order by 1",
    "select count(*) from feedback where cast(trace_id as int) >= 0",
    "select count(*) from feedback_history where cast(user_id as bigint) < 10",
    "select count(*) from feedback_history where 1 / (value - 5) = 0",
    "select cast(value as smallint) from feedback_history order by 1",
    "select key, count(*) from (select unnest(map_keys(metadata)) as key from feedback) group by key",
    "select retention_days, date, count(*) from feedback_history group by 1, 2 order by 1, 2",
    "describe feedback",
    "select nope from feedback",
    "explain select * from feedback where value > 3",
    "explain select count(*) from feedback_history",
    "explain analyze select count(*) from feedback_history",
    "insert into feedback_history select * from feedback_history",
];

#[tokio::test(flavor = "multi_thread")]
async fn feedback_of_others_is_nowhere() {
    for workspace in [None, Some("one")] {
        for mode in MODES {
            compare(mode, workspace, STATEMENTS).await;
        }
    }
}

/// A question in the words of the API.
async fn asked(reader: &gatelog::Reader, path: &str) -> Value {
    let frame =
        [("time_of_generation_min", "2026-10-01"), ("time_of_generation_max", "2026-12-01")];
    let asked = AnalyticsRequest::parse(
        frame.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    )
    .unwrap();
    let query = match path.strip_prefix("groups/") {
        Some(group) => Query::group(group, asked),
        None => Query::graph(path, asked),
    };
    reader.analytics(&query.unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_said_moves_no_mean_of_ours() {
    for (mode, workspace) in
        MODES.map(|mode| (mode, None)).into_iter().chain([(Mode::Mixed, Some("one"))])
    {
        let pair = Pair::open(mode, workspace.is_some()).await;
        let access =
            access(workspace, &[Scope::View, Scope::Read, Scope::Export, Scope::Analytics]);
        let (crowded, alone) = (pair.crowded.reader_as(&access), pair.alone.reader_as(&access));
        for path in [
            "feedbacks",
            "feedbacks/scores",
            "feedbacks/weighted",
            "feedbacks/ai-models",
            "groups/metadata/_user",
        ] {
            let among = asked(&crowded, path).await;
            assert_eq!(among, asked(&alone, path).await, "{mode:?} {workspace:?} {path}");
            assert!(!among.to_string().contains("9.87"), "{among}");
        }
        assert_eq!(asked(&crowded, "feedbacks").await["summary"]["total"], 20);
        for bound in ["-10", "7"] {
            let filter =
                Filter::read(|name| (name == "weighted_feedback_min").then(|| bound.to_owned()))
                    .unwrap();
            let ask = Ask { filter, page_size: 100, total: true, after: None };
            let page = crowded.logs(&ask).await.unwrap();
            assert_eq!(page, alone.logs(&ask).await.unwrap(), "{mode:?} {workspace:?} {bound}");
            assert!(!page.records.is_empty());
        }
        let list = FeedbackAsk { page_size: 100, ..FeedbackAsk::default() };
        let (found, next) = crowded.list_feedback(&list).await.unwrap();
        assert_eq!((found.len(), next), (20, None));
        assert_eq!(found, alone.list_feedback(&list).await.unwrap().0);
        for number in [0, 3] {
            let record = ours(number);
            assert_eq!(
                crowded.feedback_on(&record).await.unwrap(),
                alone.feedback_on(&record).await.unwrap()
            );
        }
        for id in
            [format!("{SECRET}-zulu-1"), format!("erased-{SECRET}-1"), format!("{SECRET}-acme-100")]
        {
            let (there, not_there) =
                (crowded.feedback(&id, None).await, alone.feedback(&id, None).await);
            let (there, not_there) = (there.unwrap_err(), not_there.unwrap_err());
            assert_eq!(
                (there.kind(), there.message()),
                (ErrorKind::NotFound, not_there.message()),
                "{id}"
            );
        }
        let places = [format!("{SECRET}-zulu-1"), "ours-001".to_owned()];
        assert_eq!(crowded.places(&places).await.unwrap().len(), 1);
        let whole = exported(&crowded, &ExportRequest::default()).await.unwrap();
        assert_eq!(whole, exported(&alone, &ExportRequest::default()).await.unwrap());
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_feedback_of_its_own_organisation_and_workspace_only() {
    let pair = Pair::open(Mode::Memory, false).await;
    let own = access(Some("one"), &[Scope::Write, Scope::View]);
    let bare = Feedback {
        trace_id: Some("new".to_owned()),
        value: Some(1.0),
        weight: Some(1.0),
        ..Feedback::default()
    };
    for foreign in [
        Feedback { organisation_id: Some("zulu".to_owned()), ..bare.clone() },
        Feedback { workspace_slug: Some("two".to_owned()), ..bare.clone() },
    ] {
        let error =
            pair.alone.append_feedback_as(&own, vec![bare.clone(), foreign]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
    let ask =
        FeedbackAsk { traces: vec!["new".to_owned()], page_size: 10, ..FeedbackAsk::default() };
    assert_eq!(
        pair.alone.reader().list_feedback(&ask).await.unwrap().0,
        [],
        "of a refused batch nothing is taken"
    );
    let ids = pair.alone.append_feedback_as(&own, vec![bare]).await.unwrap();
    let found = pair.alone.reader_as(&own).list_feedback(&ask).await.unwrap().0;
    let place =
        |feedback: &Feedback| (feedback.organisation_id.clone(), feedback.workspace_slug.clone());
    assert_eq!(
        (found.len(), place(&found[0])),
        (1, (Some("acme".to_owned()), Some("one".to_owned())))
    );
    assert_eq!((found[0].id.as_ref(), found[0].created_at), (ids.first(), Some(now())));
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_reach_the_feedback_and_upkeep_takes_it_out() {
    for mode in MODES {
        let pair = Pair::open(mode, false).await;
        let engine = &pair.crowded;
        let (none, acme) = (Params::new(), Access { ..access(None, &[Scope::View]) });
        let count = async |of: &str, statement: &str| {
            let reader = if of == "acme" { engine.reader_as(&acme) } else { engine.reader() };
            let said =
                said(&reader, &format!("select count(*) as n from {statement}"), &none).await;
            said.lines().nth(3).unwrap().trim_matches(['|', ' ']).parse::<u64>().unwrap()
        };
        let of_user = "feedback where user_id = '1'";
        assert_eq!((count("acme", "feedback").await, count("acme", of_user).await), (20, 7));
        engine.erase("acme", ErasureSelector::User("1".to_owned()), "test").await.unwrap();
        assert_eq!(
            (count("acme", "feedback").await, count("acme", of_user).await),
            (13, 0),
            "{mode:?}"
        );
        let of_zulu = "feedback_history where organisation_id = 'zulu'";
        assert_eq!(count("operator", of_zulu).await, 12);
        engine.erase("zulu", ErasureSelector::All, "test").await.unwrap();
        assert_eq!(count("operator", of_zulu).await, 0);

        engine.flush().await.unwrap();
        for job in [Job::Expire, Job::Compact] {
            engine.maintain(job, false).await.unwrap();
        }
        assert_eq!(count("acme", "feedback").await, 13, "{mode:?}: upkeep changed an answer");
        // 30 of acme less 10 of the user, and 12 each of two others; what expired or was erased is
        // in no file.
        let status = engine.status();
        let states = count("acme", "feedback_history").await;
        assert_eq!(status.feedback_rows, states + 24, "{mode:?}");
        pair.close().await;
    }
}
