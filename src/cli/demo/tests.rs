//! Tests of the sample records: they are varied enough to be useful, and the same each time.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Timelike};

use super::*;
use gatelog::record::Record;

fn plan(records: u64, seed: u64) -> Plan {
    Plan { records, days: 3, seed, end: "2026-11-20T00:00:00Z".parse().unwrap() }
}

fn lines(plan: Plan) -> String {
    let mut batch = BatchBuilder::new();
    Generator::new(plan).for_each(|record| batch.append(&record));
    let mut lines = Vec::new();
    Encoder::new(None).unwrap().encode(&batch.finish(), &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

#[test]
fn the_same_plan_gives_the_same_records_and_another_seed_others() {
    assert_eq!(lines(plan(500, 7)), lines(plan(500, 7)));
    assert_ne!(lines(plan(500, 7)), lines(plan(500, 8)));
}

#[test]
fn the_sample_file_equals_the_output_of_the_generator() {
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample.jsonl")).unwrap();
    let plan = Plan { days: 1, ..plan(60, 637) };
    assert!(
        committed == lines(plan),
        "data/sample.jsonl is old; data/README.md says how it is made"
    );
}

#[test]
fn the_records_lie_in_order_within_the_days_and_follow_the_hours() {
    let records: Vec<Record> = Generator::new(plan(4_000, 1)).collect();
    assert_eq!(records.len(), 4_000);
    let times: Vec<_> = records.iter().map(|record| record.created_at.unwrap()).collect();
    let end = plan(0, 1).end;
    assert!(times.is_sorted());
    assert!(times[0] >= end - TimeDelta::days(3) && times[3_999] < end);
    let between =
        |from: u32, to: u32| times.iter().filter(|at| (from..to).contains(&at.hour())).count();
    assert!(between(9, 17) > 5 * between(0, 6));
    let ids: BTreeSet<_> = records.iter().map(|record| record.id.clone()).collect();
    assert_eq!(ids.len(), 4_000);
}

#[test]
fn every_case_that_a_report_distinguishes_occurs() {
    let records: Vec<Record> = Generator::new(plan(20_000, 7)).collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        for name in [
            &record.cache_status,
            &record.mode,
            &record.ai_org,
            &record.span_name,
            &record.organisation_id,
        ] {
            *counts.entry(name.clone().unwrap()).or_default() += 1;
        }
        *counts.entry(format!("retries {}", record.retry_success_count.unwrap())).or_default() += 1;
        *counts.entry(format!("untracked {}", record.do_not_track.unwrap())).or_default() += 1;
        *counts.entry(format!("streamed {}", record.stream_mode.unwrap())).or_default() += 1;
    }
    for name in [
        "DISABLED",
        "MISS",
        "SEMANTIC MISS",
        "HIT",
        "SEMANTIC HIT",
        "REFRESH",
        "SINGLE",
        "FALLBACK",
        "LOADBALANCE",
        "CONDITIONAL",
        "retries 0",
        "retries 1",
        "retries 2",
        "retries 3",
        "retries -1",
        "untracked true",
        "streamed true",
        "retrieve",
        "answer",
        "openai",
        "azure-openai",
        "anthropic",
        "vertex-ai",
        "mistral-ai",
        "groq",
        "maple-clinic",
    ] {
        assert!(
            counts.get(name).is_some_and(|count| *count >= 10),
            "too few records with {name}: {counts:?}"
        );
    }
    let failed = records.iter().filter(|record| record.is_success == Some(0)).count();
    assert!((200..2_000).contains(&failed), "{failed} failures");
}

#[test]
fn the_figures_of_a_record_agree_with_each_other() {
    let mut attempts: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in Generator::new(plan(5_000, 7)) {
        let units = (record.req_units.unwrap(), record.res_units.unwrap());
        assert_eq!(record.total_units, Some(units.0 + units.1));
        assert_eq!(record.is_success == Some(1), record.response_status_code == Some(200));
        assert_eq!(record.is_success == Some(0), record.cost == Some(0.0));
        assert_eq!(record.user_id.as_deref(), Some(record.metadata[0].1.as_str()));
        assert_eq!(record.do_not_track == Some(true), record.request.body.is_none());
        assert_eq!(record.request.body.is_none(), record.response.headers.is_none());
        assert!(
            record.time_to_last_token >= record.response_time
                || record.time_to_last_token.is_none()
        );
        assert_eq!(
            record.stream_mode == Some(true) && record.is_success == Some(1),
            record.time_to_last_token.is_some()
        );
        if record.cache_status.as_deref().unwrap().ends_with("HIT") {
            assert!(record.response_time < Some(30) && record.upstream_response_time.is_none());
        }
        attempts.entry(record.internal_trace_id.clone().unwrap()).or_default().push(record);
    }
    let pairs: Vec<&Vec<Record>> = attempts.values().filter(|rows| rows.len() > 1).collect();
    assert!(pairs.len() > 20);
    for pair in pairs {
        let [failed, next] = &pair[..] else { panic!("more than two attempts") };
        assert_eq!(
            (failed.is_success, failed.last_used_option.as_deref()),
            (Some(0), Some("config.targets[0]"))
        );
        assert_eq!(next.last_used_option.as_deref(), Some("config.targets[1]"));
        assert_eq!(failed.trace_id, next.trace_id);
    }
}

#[test]
fn a_conversation_sends_its_history_again() {
    let mut longest = 0;
    let mut by_trace: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in Generator::new(plan(2_000, 7)).filter(|record| record.is_success == Some(1)) {
        if let (Some(trace), Some(body)) = (record.trace_id, record.request.body)
            && body.contains("\"messages\"")
        {
            by_trace.entry(trace).or_default().push(body);
        }
    }
    for bodies in by_trace.values() {
        longest = longest.max(bodies.len());
        for turn in bodies.windows(2) {
            let messages = |body: &str| {
                let from = body.find("\"messages\":[").unwrap();
                let to = body.find("],\"temperature\"").unwrap();
                body[from..to].to_owned()
            };
            let before = messages(&turn[0]);
            let now = messages(&turn[1]);
            assert!(now.starts_with(&before) && now.len() > before.len(), "{before}\n{now}");
        }
    }
    assert!(longest >= 5, "the longest conversation has {longest} turns");
}

#[test]
fn no_slot_of_a_pattern_is_left_unfilled() {
    for slot in [
        "{task",
        "{account",
        "{merchant",
        "{day",
        "{doctor",
        "{visit",
        "{place",
        "{boat",
        "{item",
        "{job",
    ] {
        assert!(!lines(plan(3_000, 3)).contains(slot), "{slot}");
    }
    for slot in [
        "{language",
        "{store",
        "{change",
        "{title",
        "{genre",
        "{tongue",
        "{draft",
        "{feeder",
        "{site",
        "{code",
    ] {
        assert!(!lines(plan(3_000, 3)).contains(slot), "{slot}");
    }
}
