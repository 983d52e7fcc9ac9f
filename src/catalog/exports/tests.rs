//! The rules of export jobs.

use chrono::TimeDelta;
use serde_json::json;

use super::*;
use crate::catalog::{ErasureSelector, Organisation};
use crate::config::Plans;
use crate::error::ErrorKind;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn key(organisation: Option<&str>, workspace: Option<&str>, scopes: &[Scope]) -> Access {
    Access {
        key_id: "key".to_owned(),
        organisation: organisation.map(str::to_owned),
        workspace: workspace.map(str::to_owned),
        scopes: scopes.iter().copied().collect(),
    }
}

fn acme() -> Access {
    key(Some("acme"), None, &[Scope::Export, Scope::Read])
}

fn job(id: &str) -> ExportJob {
    ExportJob {
        id: id.to_owned(),
        organisation: Some("acme".to_owned()),
        workspace: None,
        bodies: true,
        filters: Map::new(),
        columns: Some(vec!["id".to_owned(), "request".to_owned()]),
        description: None,
        status: ExportStatus::Draft,
        total: 3,
        run: 0,
        error: None,
        created_by: "key".to_owned(),
        created_at: now(),
        updated_at: now(),
        started_at: None,
        ended_at: None,
        file: None,
        file_gone: None,
        narrowed: BTreeSet::new(),
    }
}

fn file(name: &str) -> ExportFile {
    ExportFile {
        name: name.to_owned(),
        bytes: 10,
        stored_bytes: None,
        records: 2,
        columns: vec!["id".to_owned(), "request".to_owned()],
        organisations: None,
        written_at: now(),
    }
}

/// Returns a catalog with a job of `acme` that has succeeded with a file `a`.
fn with_file() -> Document {
    let mut document = Document::default();
    document.create_organisation("acme", Organisation::new("enterprise", now()), 0).unwrap();
    document.add_export(job("1")).unwrap();
    document.start_export("1", &acme(), now()).unwrap();
    assert_eq!(
        document.end_export("1", 1, &ExportEnd::Written(file("a"), Some(2)), now()),
        Ended::Taken
    );
    document.ensure_secret([7; 32]);
    document
}

fn status(document: &Document) -> ExportStatus {
    document.export("1", &acme()).unwrap().status
}

#[test]
fn every_state_allows_what_the_table_says_and_nothing_else() {
    use ExportStatus::{Draft, Failed, InProgress, Stopped, Success};
    for (from, started, cancelled, changed, downloaded) in [
        (Draft, true, false, true, false),
        (InProgress, false, true, false, false),
        (Success, true, false, true, true),
        (Failed, true, false, true, false),
        (Stopped, true, false, true, false),
    ] {
        let mut document = with_file();
        document.export_jobs[0].status = from;
        let check = |result: Result<ExportStatus>, fine: bool, to: ExportStatus| match result {
            Ok(status) => assert!(fine && status == to, "{from:?} became {status:?}"),
            Err(error) => {
                assert!(!fine && error.kind() == ErrorKind::Conflict, "{from:?}: {error}");
                assert!(
                    error.message().contains(&format!("export `1` is `{}`", from.name())),
                    "{error}"
                );
            }
        };
        check(
            document.clone().start_export("1", &acme(), now()).map(|job| job.status),
            started,
            InProgress,
        );
        check(
            document.clone().cancel_export("1", &acme(), now()).map(|job| job.status),
            cancelled,
            Stopped,
        );
        let change = ExportChange::default();
        check(
            document.clone().update_export("1", &acme(), &change, 9, now()).map(|job| job.status),
            changed,
            Draft,
        );
        check(document.export_file("1", &acme(), now(), 7).map(|_| Success), downloaded, Success);
        let text = serde_json::to_value(from).unwrap();
        assert_eq!(text, from.name(), "one name in responses and in the catalog");
    }
}

#[test]
fn a_new_start_and_a_change_leave_the_old_file_to_be_deleted() {
    for act in [
        (|document: &mut Document| document.start_export("1", &acme(), now()).map(|_| ()))
            as fn(&mut Document) -> _,
        |document| {
            document.update_export("1", &acme(), &ExportChange::default(), 9, now()).map(|_| ())
        },
    ] {
        let mut document = with_file();
        let token = document.export_token(&file("a"), now() + TimeDelta::hours(1)).unwrap();
        assert!(document.open_export(&token, now(), 7).is_some());
        act(&mut document).unwrap();
        assert!(document.open_export(&token, now(), 7).is_none());
        let left = document.export_leftovers.clone();
        assert_eq!(left, ["a".to_owned()].into());
        assert!(
            document.known_export_files().contains("a"),
            "it is deleted by name, not as an orphan"
        );
        document.forget_exports(&left);
        assert!(document.export_leftovers.is_empty() && document.known_export_files().is_empty());
    }
}

#[test]
fn a_superseded_run_ends_without_effect() {
    let mut document = with_file();
    document.start_export("1", &acme(), now()).unwrap();
    let written = ExportEnd::Written(file("b"), None);
    let failed = ExportEnd::Failed("why".to_owned());
    assert_eq!(document.end_export("1", 1, &written, now()), Ended::Overtaken, "an earlier run");
    document.cancel_export("1", &acme(), now()).unwrap();
    assert_eq!(document.end_export("1", 2, &written, now()), Ended::Overtaken, "it was stopped");
    assert_eq!(document.end_export("1", 2, &failed, now()), Ended::Overtaken);
    assert_eq!(document.end_export("2", 1, &written, now()), Ended::Overtaken, "no such run");
    assert_eq!(status(&document), ExportStatus::Stopped);
    document.start_export("1", &acme(), now()).unwrap();
    assert!(document.wants_export("1", 3) && !document.wants_export("1", 2));
    assert_eq!(document.end_export("1", 3, &failed, now()), Ended::Taken);
    let failed = document.shown_export(document.export("1", &acme()).unwrap(), None, 7);
    assert_eq!((failed.status, failed.error.as_deref()), (ExportStatus::Failed, Some("why")));
    // The end is reported twice, because the first response was lost: the job has the file, so it
    // must not be withdrawn.
    document.start_export("1", &acme(), now()).unwrap();
    for _ in 0..2 {
        assert_eq!(document.end_export("1", 4, &written, now()), Ended::Taken);
    }
}

#[test]
fn files_with_erased_records_are_withdrawn() {
    let mut document = with_file();
    document.erase("e", "zen", ErasureSelector::All, "k", now()).unwrap();
    assert!(document.export_file("1", &acme(), now(), 7).is_ok(), "another organisation's");
    document.erase("f", "acme", ErasureSelector::User("ada".to_owned()), "k", now()).unwrap();
    let gone = document.export_file("1", &acme(), now(), 7).unwrap_err();
    assert!(
        gone.kind() == ErrorKind::NotFound && gone.message().contains("records were erased"),
        "{gone}"
    );
    assert_eq!(
        gone_because(&document),
        "records were erased after it was written; start the export again"
    );
    // A run that began before an erasure does not count; one that began after it does.
    document.start_export("1", &acme(), now()).unwrap();
    document.erase("g", "acme", ErasureSelector::Ids(vec!["r".to_owned()]), "k", now()).unwrap();
    let written = ExportEnd::Written(file("b"), None);
    assert_eq!(document.end_export("1", 2, &written, now()), Ended::Overtaken);
    assert!(status(&document) == ExportStatus::InProgress && document.wants_export("1", 3));
    assert_eq!(document.end_export("1", 3, &written, now()), Ended::Taken);
    // The operator's exports hold records of all organisations.
    document.export_jobs[0].organisation = None;
    document.erase("h", "zen", ErasureSelector::All, "k", now()).unwrap();
    assert!(document.export_leftovers.contains("b") && document.export_jobs.len() == 1);
}

#[test]
fn an_erasure_of_everything_deletes_the_jobs() {
    let mut document = with_file();
    document.add_export(ExportJob { organisation: Some("zen".to_owned()), ..job("zen") }).unwrap();
    document.add_export(ExportJob { organisation: None, ..job("operator") }).unwrap();
    document.start_export("operator", &Access::operator("o"), now()).unwrap();
    document.erase("e", "acme", ErasureSelector::All, "k", now()).unwrap();
    let left: Vec<&str> = document.export_jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(left, ["zen", "operator"]);
    assert!(document.export_leftovers.contains("a"));
    assert!(document.wants_export("operator", 2), "the operator's running job starts over");
}

#[test]
fn filters_without_a_value_are_not_kept() {
    let filters = json!({ "ada": null, "bob": "", "user_id": "eve" }).as_object().unwrap().clone();
    let kept = json!({ "user_id": "eve" }).as_object().unwrap().clone();
    let mut document = Document::default();
    document.add_export(ExportJob { filters: filters.clone(), ..job("1") }).unwrap();
    assert_eq!(document.export_jobs[0].filters, kept);
    let change = ExportChange { filters: Some(filters.clone()), ..ExportChange::default() };
    document.update_export("1", &acme(), &change, 0, now()).unwrap();
    assert_eq!(document.export_jobs[0].filters, kept);
    // Jobs of former versions have such filters.
    document.export_jobs[0].filters = filters;
    document.erase("e", "acme", ErasureSelector::User("ada".to_owned()), "k", now()).unwrap();
    assert!(document.export_jobs.is_empty());
}

/// Returns the reason why the job's file is gone. The job itself has succeeded.
fn gone_because(document: &Document) -> String {
    let shown = document.shown_export(&document.export_jobs[0], None, 7);
    assert_eq!(
        (shown.status, shown.bytes_written, shown.file_expires_at),
        (ExportStatus::Success, None, None)
    );
    let why = shown.file_gone.unwrap();
    let refused = document.export_file("1", &acme(), now(), 7).unwrap_err();
    assert_eq!(refused.message(), format!("the file of export `1` was deleted: {why}"));
    assert!(document.export_leftovers.contains("a"));
    why
}

#[test]
fn an_erased_user_is_named_by_no_job() {
    let with_filters = |filters: Value, description: &str| ExportJob {
        filters: filters.as_object().unwrap().clone(),
        description: Some(description.to_owned()),
        file: Some(file("b")),
        ..job("2")
    };
    for (filters, stays) in [
        (json!({ "user_id": "ada" }), false),
        (json!({ "user_id": "bob, ada" }), false),
        (json!({ "user_id": ["bob", "ada"] }), false),
        (json!({ "metadata": { "_user": "ada" } }), false),
        (json!({ "metadata": "{\"_user\": \"ada\"}" }), false),
        (json!({ "trace_id": "ada" }), false),
        (json!({ "user_id": "adam", "cost_min": 1 }), true),
    ] {
        for organisation in [Some("acme"), Some("zen"), None] {
            let mut document = with_file();
            let organisation = organisation.map(str::to_owned);
            let ours = organisation.as_deref() != Some("zen");
            document
                .add_export(ExportJob {
                    organisation,
                    ..with_filters(filters.clone(), "what Ada said")
                })
                .unwrap();
            document
                .erase("e", "acme", ErasureSelector::User("ada".to_owned()), "k", now())
                .unwrap();
            let left = document.export_jobs.iter().find(|job| job.id == "2");
            assert_eq!(
                left.is_some(),
                stays || !ours,
                "without its filter it would be another export: {filters}"
            );
            let names = left.is_some_and(|job| job.description.is_some());
            assert_eq!(
                (names, document.export_leftovers.contains("b")),
                (!ours, ours),
                "{filters}"
            );
        }
    }
    let mut document = with_file();
    let filters = json!({ "user_id": 200, "status_code": "200", "page_size": 200 });
    document.add_export(with_filters(filters, "x")).unwrap();
    document.erase("e", "acme", ErasureSelector::User("200".to_owned()), "k", now()).unwrap();
    assert_eq!(document.export_jobs.len(), 1, "ids may be numbers");
    document
        .add_export(with_filters(json!({ "status_code": "404", "page_size": 404 }), "x"))
        .unwrap();
    document.erase("f", "acme", ErasureSelector::User("404".to_owned()), "k", now()).unwrap();
    assert_eq!(document.export_jobs.len(), 2, "but not all numbers are ids");
}

#[test]
fn files_beyond_the_reach_of_a_new_plan_are_withdrawn() {
    let kept = "records are kept shorter since it was written";
    let reach = "the plan lets exports reach less far back since it was written";
    let plans = |text: &str| Plans::parse(text).unwrap();
    let changed = |change: &dyn Fn(&mut Document)| {
        let mut before = with_file();
        before.set_plans(
            &plans("[own]\nretention_days = 30\nexport_days = 30\n[near]\nexport_days = 3"),
            now(),
        );
        before.set_unknown_days(0, now());
        before.create_organisation("zen", Organisation::new("own", now()), 0).unwrap();
        let mut document = before.clone();
        change(&mut document);
        document.withdraw_narrowed(&before);
        document
    };
    let acme_to = |plan: &'static str, days| {
        changed(&move |document: &mut Document| {
            document.set_plan("acme", plan, days, now()).unwrap()
        })
    };
    for (document, why) in [
        (acme_to("enterprise", Some(90)), kept),
        (acme_to("developer", None), kept),
        (acme_to("near", None), reach),
    ] {
        assert_eq!(gone_because(&document), format!("{why}; start the export again"));
    }
    let wider = |document: &mut Document| {
        document.set_plan("zen", "enterprise", None, now()).unwrap();
        document.create_organisation("late", Organisation::new("developer", now()), 0).unwrap();
    };
    assert!(
        changed(&wider).export_leftovers.is_empty(),
        "other organisations, and longer retention, have no effect"
    );
    // The operator's file has records of all organisations, independent of the reach of their
    // exports; a change of a plan affects all organisations on it.
    let operators = |document: &mut Document| document.export_jobs[0].organisation = None;
    for (text, days, goes) in [
        ("[own]\nretention_days = 3\nexport_days = 30", 0, true),
        ("[own]\nretention_days = 30\nexport_days = 3", 0, false),
        ("[own]\nretention_days = 60\nexport_days = 30", 0, false),
        ("[own]\nretention_days = 30\nexport_days = 30", 90, true),
    ] {
        let change = |document: &mut Document| {
            operators(document);
            document.set_plans(&plans(text), now());
            document.set_unknown_days(days, now());
        };
        assert_eq!(changed(&change).export_leftovers.contains("a"), goes, "{text} {days}");
    }
    let mut document = with_file();
    document.start_export("1", &acme(), now()).unwrap();
    let before = document.clone();
    document.set_plan("acme", "production", None, now()).unwrap();
    document.withdraw_narrowed(&before);
    assert!(
        !document.wants_export("1", 2) && status(&document) == ExportStatus::InProgress,
        "it starts over"
    );
}

#[test]
fn a_change_that_narrows_nothing_in_a_file_leaves_it() {
    let held =
        |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    let operators = |organisations: Option<BTreeSet<String>>| {
        let mut document = with_file();
        document.set_plans(&Plans::parse("[own]\nretention_days = 30").unwrap(), now());
        document.set_unknown_days(0, now());
        document.create_organisation("zen", Organisation::new("own", now()), 0).unwrap();
        document.export_jobs[0].organisation = None;
        document.export_jobs[0].file.as_mut().unwrap().organisations = organisations;
        document
    };
    let create = |document: &mut Document| {
        document.create_organisation("late", Organisation::new("developer", now()), 0).unwrap();
    };
    let shorten =
        |document: &mut Document| document.set_plan("zen", "developer", None, now()).unwrap();
    let shorten_unknown = |document: &mut Document| {
        document.set_unknown_days(5, now());
    };
    let erase = |document: &mut Document| {
        document.erase("e", "zen", ErasureSelector::User("ada".to_owned()), "k", now()).unwrap();
    };
    // Cases: a change, organisations in whose file nothing is withdrawn, and others.
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Document), [&'a [&'a str]; 2]);
    let cases: [Case<'_>; 4] = [
        ("an organisation is created", &create, [&["acme", "zen"], &["acme", "late"]]),
        ("one keeps records shorter", &shorten, [&["acme", "late"], &["zen"]]),
        (
            "records of none are kept shorter",
            &shorten_unknown,
            [&["acme", "zen"], &["acme", "never-created"]],
        ),
        ("a user is erased", &erase, [&["acme"], &["acme", "zen"]]),
    ];
    for (what, change, [stays, goes]) in cases {
        for (organisations, is_gone) in [(held(stays), false), (held(goes), true), (None, true)] {
            let before = operators(organisations.clone());
            let mut document = before.clone();
            change(&mut document);
            document.withdraw_narrowed(&before);
            assert_eq!(
                document.export_leftovers.contains("a"),
                is_gone,
                "{what}: {organisations:?}"
            );
        }
    }
}

#[test]
fn a_run_goes_on_when_organisations_are_created_unless_it_wrote_records_of_theirs() {
    let operator = key(None, None, &[Scope::Export, Scope::Read]);
    let with = |names: &[&str]| {
        let organisations = Some(names.iter().map(|name| (*name).to_owned()).collect());
        ExportEnd::Written(ExportFile { organisations, ..file("b") }, None)
    };
    let started = || {
        let mut before = with_file();
        before.set_unknown_days(0, now());
        before.export_jobs[0].organisation = None;
        before.start_export("1", &operator, now()).unwrap();
        let mut document = before.clone();
        document.create_organisation("late", Organisation::new("developer", now()), 0).unwrap();
        document.withdraw_narrowed(&before);
        assert!(document.wants_export("1", 2), "it goes on");
        document
    };
    let mut document = started();
    assert_eq!(document.end_export("1", 2, &with(&["acme"]), now()), Ended::Taken);
    for end in [with(&["acme", "late"]), ExportEnd::Written(file("b"), None)] {
        let mut document = started();
        assert_eq!(document.end_export("1", 2, &end, now()), Ended::Overtaken);
        assert!(
            document.wants_export("1", 3) && document.export_jobs[0].file.is_none(),
            "it starts over"
        );
        assert_eq!(
            document.end_export("1", 3, &end, now()),
            Ended::Taken,
            "that run began after the change"
        );
    }
}

#[test]
fn a_file_goes_after_its_days_and_with_its_organisation() {
    let mut document = with_file();
    let later = now() + TimeDelta::days(7);
    let expired = |at| {
        let mut document = document.clone();
        document.expire_exports(at, 7);
        document
    };
    assert_eq!(expired(later - TimeDelta::seconds(1)), document);
    assert_eq!(gone_because(&expired(later)), "a file is kept 7 days; start the export again");
    assert!(
        document.export_file("1", &acme(), later, 7).unwrap_err().message().contains("kept 7 days")
    );
    assert!(
        document.export_file("1", &acme(), later + TimeDelta::days(999), 0).is_ok(),
        "0 = for ever"
    );
    let shown = document.shown_export(document.export("1", &acme()).unwrap(), None, 7);
    assert_eq!(shown.file_expires_at.as_deref(), Some("2027-01-22T08:00:00.000Z"));
    let token = document.export_token(&file("a"), later).unwrap();
    document.delete_organisation("acme", "k", "e", now()).unwrap();
    assert!(document.open_export(&token, now(), 7).is_none());
    assert!(document.export("1", &acme()).is_err() && document.export_jobs.is_empty());
    assert!(document.export_leftovers.contains("a"));
}

#[test]
fn keys_see_the_jobs_of_what_they_are_bound_to() {
    let mut document = Document::default();
    let bound = |id: &str, organisation: Option<&str>, workspace: Option<&str>| ExportJob {
        organisation: organisation.map(str::to_owned),
        workspace: workspace.map(str::to_owned),
        ..job(id)
    };
    for job in [
        bound("all", None, None),
        bound("acme", Some("acme"), None),
        bound("search", Some("acme"), Some("search")),
        bound("zen", Some("zen"), Some("search")),
    ] {
        document.add_export(job).unwrap();
    }
    let seen = |access: &Access, workspace: Option<&str>| -> Vec<String> {
        document.exports(access, workspace).iter().map(|job| job.id.clone()).collect()
    };
    assert_eq!(seen(&Access::operator("o"), None), ["zen", "search", "acme", "all"]);
    assert_eq!(seen(&acme(), None), ["search", "acme"]);
    assert_eq!(seen(&acme(), Some("search")), ["search"]);
    let search = key(Some("acme"), Some("search"), &[Scope::Export]);
    assert_eq!(seen(&search, None), ["search"]);
    assert!(seen(&search, Some("ads")).is_empty());
    for foreign in ["all", "acme", "zen", "none"] {
        let refused = document.clone().start_export(foreign, &search, now()).unwrap_err();
        assert_eq!(refused.message(), format!("export `{foreign}` does not exist"));
    }
    let workspace = |document: &Document, key: &Access, named: &str| {
        document.export_workspace(key, Some(named.to_owned()))
    };
    assert_eq!(document.export_workspace(&search, None).unwrap().as_deref(), Some("search"));
    assert_eq!(workspace(&document, &acme(), "ads").unwrap().as_deref(), Some("ads"));
    assert_eq!(workspace(&document, &search, "ads").unwrap_err().kind(), ErrorKind::Denied);
    let mut known = with_file();
    assert!(workspace(&known, &acme(), "asd").is_ok(), "the catalog has no workspaces");
    known.add_workspaces("acme", ["ads".to_owned(), "search".to_owned()]).unwrap();
    let refused = workspace(&known, &acme(), "asd").unwrap_err();
    assert_eq!(
        refused.message(),
        "`workspace_id` is `asd`; the workspaces of the organisation are ads, search"
    );
    assert!(
        workspace(&known, &acme(), "ads").is_ok()
            && workspace(&known, &Access::operator("o"), "asd").is_ok()
    );
    let change = ExportChange { workspace: Some("ads".to_owned()), ..ExportChange::default() };
    assert!(document.update_export("search", &search, &change, 0, now()).is_err());
    assert_eq!(document.export_jobs[2].access().workspace.as_deref(), Some("search"));
}

#[test]
fn bodies_and_denied_fields_need_permission() {
    let mut document = with_file();
    let blind = key(Some("acme"), None, &[Scope::Export]);
    let refused = document.export_file("1", &blind, now(), 7).unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Denied && refused.message().contains("`logs.read`"),
        "{refused}"
    );
    // The rights of the last changer apply.
    document.update_export("1", &blind, &ExportChange::default(), 0, now()).unwrap();
    assert!(!document.export_jobs[0].bodies && !document.export_jobs[0].access().may(Scope::Read));

    let mut document = with_file();
    let token = document.export_token(&file("a"), now() + TimeDelta::hours(1)).unwrap();
    let set = |document: &mut Document, workspace: Option<&str>, names: &[&str]| {
        document
            .set_denied_fields(
                "acme",
                workspace,
                &names.iter().map(|name| (*name).to_owned()).collect(),
            )
            .unwrap();
    };
    document.add_workspaces("acme", ["search".to_owned()]).unwrap();
    set(&mut document, Some("search"), &["cost"]);
    assert!(document.open_export(&token, now(), 7).is_some(), "a job of another workspace");
    set(&mut document, None, &["request.body"]);
    assert_eq!(
        gone_because(&document),
        "fields were denied since it was written; start the export again"
    );
    assert!(document.open_export(&token, now(), 7).is_none());
    document.start_export("1", &acme(), now()).unwrap();
    set(&mut document, None, &["request.body", "cost"]);
    assert!(document.wants_export("1", 3), "a running job starts over");
    set(&mut document, None, &["request.body"]);
    assert!(document.wants_export("1", 3), "no further field is denied");
    document.cancel_export("1", &acme(), now()).unwrap();
    document.export_jobs[0].columns = None;
    document.start_export("1", &acme(), now()).unwrap();
    let shown = document.shown_export(&document.export_jobs[0], Some((1, 2)), 7);
    assert!(shown.requested_data.contains(&"response".to_owned()));
    assert!(!shown.requested_data.contains(&"request".to_owned()));
    assert_eq!((shown.records_written, shown.bytes_written), (Some(1), Some(2)));
}

#[test]
fn a_token_opens_its_own_file_until_its_time() {
    let document = with_file();
    let ends = now() + TimeDelta::seconds(LINK_SECONDS);
    let token = document.export_token(&file("a"), ends).unwrap();
    let (job, opened) = document.open_export(&token, now(), 7).unwrap();
    assert_eq!((job.id.as_str(), opened.name.as_str()), ("1", "a"));
    assert!(document.open_export(&token, ends - TimeDelta::seconds(1), 7).is_some());
    assert!(document.open_export(&token, ends, 7).is_none());
    let (rest, mac) = token.rsplit_once('.').unwrap();
    let (name, until) = rest.split_once('.').unwrap();
    let longer = until.parse::<i64>().unwrap() + 1;
    for forged in [
        "",
        "a",
        "a..",
        &format!("b.{until}.{mac}"),
        &format!("{name}.{longer}.{mac}"),
        &format!("{rest}."),
    ] {
        assert!(document.open_export(forged, now(), 7).is_none(), "{forged}");
    }
    let mut other = with_file();
    other.share_secret = None;
    assert!(other.open_export(&token, now(), 7).is_none());
    other.ensure_secret([8; 32]);
    assert!(other.open_export(&token, now(), 7).is_none(), "secrets differ between catalogs");
}

#[test]
fn jobs_are_bounded_in_number_and_size() {
    let mut document = Document::default();
    let at = |number: usize| now() + TimeDelta::seconds(number as i64);
    for number in 0..MAX_JOBS {
        document
            .add_export(ExportJob { updated_at: at(number), ..job(&number.to_string()) })
            .unwrap();
    }
    document.export_jobs[1].file = Some(file("a"));
    document.start_export("0", &acme(), now()).unwrap();
    document.add_export(ExportJob { organisation: Some("zen".to_owned()), ..job("zen") }).unwrap();
    document.add_export(ExportJob { updated_at: at(MAX_JOBS), ..job("new") }).unwrap();
    assert!(document.export("0", &acme()).is_ok(), "one in progress is not forgotten");
    assert!(document.export("1", &acme()).is_err() && document.export_leftovers.contains("a"));
    let before = document.clone();
    document.add_export(ExportJob { description: Some("again".to_owned()), ..job("new") }).unwrap();
    assert_eq!(document, before, "a request that came twice makes one job");
    for job in &mut document.export_jobs {
        job.status = ExportStatus::InProgress;
    }
    assert_eq!(document.add_export(job("one more")).unwrap_err().kind(), ErrorKind::Limit);
    let wordy = ExportJob { description: Some("x".repeat(MAX_DESCRIPTION + 1)), ..job("x") };
    assert_eq!(Document::default().add_export(wordy).unwrap_err().kind(), ErrorKind::Limit);
    // As JSON `{"trace_id":"…"}`, which has 15 bytes beside the value.
    let filtered = |bytes: usize| ExportJob {
        filters: Map::from_iter([("trace_id".to_owned(), Value::from("x".repeat(bytes - 15)))]),
        ..job("x")
    };
    Document::default().add_export(filtered(MAX_FILTERS)).unwrap();
    let refused = Document::default().add_export(filtered(MAX_FILTERS + 1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.message().contains("at most 4096"), "{}", refused.message());
}

#[test]
fn a_workspace_that_makes_many_jobs_loses_its_own_and_no_file_of_another() {
    let numbered = |workspace: &str, number: usize| ExportJob {
        workspace: Some(workspace.to_owned()),
        updated_at: now() + TimeDelta::seconds(number as i64),
        ..job(&format!("{workspace}{number}"))
    };
    let has = |document: &Document, id: &str| document.export(id, &acme()).is_ok();
    let done = |name: &str, job| ExportJob {
        status: ExportStatus::Success,
        file: Some(file(name)),
        ..job
    };
    let mut document = Document::default();
    document.add_export(done("old", numbered("quiet", 0))).unwrap();
    for number in 1..=MAX_JOBS * 2 {
        document.add_export(numbered("busy", number)).unwrap();
    }
    assert!(has(&document, "quiet0") && !has(&document, "busy1") && has(&document, "busy200"));
    assert_eq!(document.export_jobs.len(), MAX_JOBS + 1);
    // A full organisation makes room in the workspace first, then among jobs without a file.
    for number in 0..MAX_OF_ORGANISATION - MAX_JOBS - 1 {
        document
            .add_export(done(
                &format!("f{number}"),
                numbered(&format!("w{}-", number / 50), number),
            ))
            .unwrap();
    }
    document.add_export(numbered("quiet", 900)).unwrap();
    assert!(!has(&document, "quiet0") && document.export_leftovers.contains("old"));
    document.add_export(numbered("late", 901)).unwrap();
    assert!(!has(&document, "busy101") && has(&document, "w0-0"));
    assert_eq!(document.export_jobs.len(), MAX_OF_ORGANISATION);
    for job in &mut document.export_jobs {
        job.file.get_or_insert_with(|| file("kept"));
    }
    let refused = document.add_export(numbered("later", 902)).unwrap_err();
    assert_eq!(
        (refused.kind(), document.export_leftovers.len()),
        (ErrorKind::Limit, 1),
        "{}",
        refused.message()
    );
}

#[test]
fn jobs_wait_in_the_order_of_their_starts_and_survive_in_the_document() {
    let mut document = Document::default();
    for (id, seconds) in [("a", 2), ("b", 1), ("c", 3)] {
        document.add_export(job(id)).unwrap();
        document.start_export(id, &acme(), now() + TimeDelta::seconds(seconds)).unwrap();
    }
    let order: Vec<_> = document.started_exports().iter().map(|job| job.id.as_str()).collect();
    assert_eq!(order, ["b", "a", "c"]);
    let text = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
    let empty = serde_json::to_string(&Document::default()).unwrap();
    assert!(
        !empty.contains("export") && !empty.contains("denied"),
        "a catalog without jobs has no new fields: {empty}"
    );
}
