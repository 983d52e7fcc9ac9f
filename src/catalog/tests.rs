use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;

use chrono::{DateTime, Duration, TimeDelta, Utc};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use url::Url;

use super::*;
use crate::config::{Config, Plans};
use crate::error::ErrorKind;
use crate::plan::{FileFacts, Outlook, Row};

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn noon() -> DateTime<Utc> {
    at("2026-11-21T12:00:00Z")
}

fn organisation(
    plan: &str,
    retention_days: Option<i32>,
    created_at: DateTime<Utc>,
) -> Organisation {
    Organisation {
        name: None,
        plan: plan.to_owned(),
        retention_days,
        workspaces: BTreeSet::new(),
        created_at,
        moving: Vec::new(),
        deleted_at: None,
    }
}

/// Returns a catalog with `acme` on production, created at noon, in which organisations without a
/// plan keep records for ever.
fn acme() -> Document {
    let mut document = Document::default();
    document.create_organisation("acme", organisation("production", None, noon()), 30).unwrap();
    document
}

fn key(organisation: Option<&str>, scopes: &[Scope]) -> NewKey {
    NewKey {
        organisation: organisation.map(str::to_owned),
        scopes: scopes.iter().copied().collect(),
        ..NewKey::default()
    }
}

fn bucket() -> Store {
    Store::with(Arc::new(InMemory::new()), Url::parse("memory:///x/").unwrap()).unwrap()
}

fn disk(folder: &tempfile::TempDir) -> Store {
    let config = Config { data: folder.path().to_str().unwrap().to_owned(), ..Config::default() };
    Store::open(&config, true).unwrap()
}

async fn open(store: &Store) -> Catalog {
    Catalog::open(store, 0, Utc::now).await.unwrap()
}

fn created(id: &str) -> impl FnMut(&mut Document) -> Result<()> + use<> {
    let id = id.to_owned();
    move |document| {
        document.create_organisation(&id, organisation("developer", None, noon()), 3).map(|_| ())
    }
}

fn message<T: std::fmt::Debug>(refused: Result<T>) -> String {
    refused.unwrap_err().message().to_owned()
}

/// In a bucket only the conditional put protects two nodes from each other: the second change must
/// be repeated on the document that contains the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_reading_and_writing_is_not_lost() {
    let store = bucket();
    let one = open(&store).await;
    let other = open(&store).await;
    one.change(created("zero")).await.unwrap();
    let (go, gone) = mpsc::channel::<()>();
    let (done, finished) = mpsc::channel::<()>();
    let between = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        gone.recv().unwrap();
        runtime.block_on(other.change(created("other"))).unwrap();
        done.send(()).unwrap();
    });
    let mut seen = Vec::new();
    let change = |document: &mut Document| {
        seen.push(document.organisations.len());
        if seen.len() == 1 {
            go.send(()).unwrap();
            finished.recv().unwrap();
        }
        created("one")(document)
    };
    one.change(change).await.unwrap();
    between.join().unwrap();
    assert_eq!(seen, [1, 2]);
    let all: Vec<String> =
        open(&store).await.state().document.organisations.keys().cloned().collect();
    assert_eq!(all, ["one", "other", "zero"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_many_handles_are_all_there_on_disk_and_in_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    for store in [disk(&folder), bucket()] {
        let mut changes = Vec::new();
        for handle in 0..4 {
            let catalog = open(&store).await;
            changes.push(tokio::spawn(async move {
                for number in 0..10 {
                    catalog.change(created(&format!("{handle}-{number}"))).await.unwrap();
                }
            }));
        }
        for change in changes {
            change.await.unwrap();
        }
        assert_eq!(open(&store).await.state().document.organisations.len(), 40);
    }
}

#[tokio::test]
async fn a_handle_sees_changes_of_others_after_a_refresh_and_its_own_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for store in [disk(&folder), bucket()] {
        let one = open(&store).await;
        let other = open(&store).await;
        assert!(!one.is_stored() && !one.refresh().await.unwrap());
        one.change(created("acme")).await.unwrap();
        assert!(one.is_stored() && one.state().document.organisation("acme").is_ok());
        assert!(
            !one.refresh().await.unwrap(),
            "a change of its own is reported as a change by others"
        );
        assert!(other.state().document.organisation("acme").is_err());
        assert!(other.refresh().await.unwrap());
        assert!(
            other.state().document.organisation("acme").is_ok() && !other.refresh().await.unwrap()
        );
    }
}

#[tokio::test]
async fn a_refused_change_and_one_that_changes_nothing_write_nothing() {
    let store = bucket();
    let catalog = open(&store).await;
    let half = |document: &mut Document| {
        created("acme")(document)?;
        created("no such name")(document)
    };
    assert!(message(catalog.change(half).await).contains("no such name"));
    assert!(!catalog.is_stored() && catalog.state().document.organisations.is_empty());
    catalog.change(created("acme")).await.unwrap();
    let before = store.object_store().head(&store.catalog_path()).await.unwrap().e_tag;
    assert!(catalog.change(created("acme")).await.is_err());
    catalog.change(|_| Ok(())).await.unwrap();
    assert_eq!(store.object_store().head(&store.catalog_path()).await.unwrap().e_tag, before);
}

#[tokio::test]
async fn a_document_of_format_1_is_read_and_its_key_opens_everything() {
    let store = bucket();
    let old = format!(
        r#"{{"format": 1, "keys": [{{"id": "k1", "sha256": "{}", "scopes": ["admin"],
            "created_at": "2026-11-01T00:00:00Z"}}]}}"#,
        hash("gl-old")
    );
    store.object_store().put(&store.catalog_path(), PutPayload::from(old)).await.unwrap();
    let catalog = open(&store).await;
    assert!(catalog.state().access("gl-old", noon()).unwrap().is_operator());
    catalog.change(created("acme")).await.unwrap();
    let bytes =
        store.object_store().get(&store.catalog_path()).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains("\"format\": 3") && text.contains("\"acme\""), "{text}");
    assert!(open(&store).await.state().access("gl-old", noon()).unwrap().is_operator());
}

#[tokio::test]
async fn an_unreadable_or_missing_catalog_is_reported_as_damage() {
    let store = bucket();
    for (text, words) in [
        (r#"{"format": 4}"#, "format 4"),
        (r#"{"format": 2, "surprise": 1}"#, "not a gatelog catalog"),
        ("{", "not a gatelog catalog"),
    ] {
        store.object_store().put(&store.catalog_path(), PutPayload::from(text)).await.unwrap();
        let error = Catalog::open(&store, 0, Utc::now).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.message().contains(words), "{error}");
    }
    let store = bucket();
    let catalog = open(&store).await;
    catalog.change(created("acme")).await.unwrap();
    store.object_store().delete(&store.catalog_path()).await.unwrap();
    assert_eq!(catalog.refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(catalog.change(created("b")).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(
        catalog.state().document.organisation("acme").is_ok(),
        "the known state stays in force"
    );
}

#[test]
fn a_key_opens_until_it_is_revoked_or_expires() {
    let mut document = acme();
    let expires_at = Some(noon() + Duration::hours(1));
    document
        .add_key("gl-a", NewKey { expires_at, ..key(Some("acme"), &[Scope::View]) }, noon())
        .unwrap();
    let id = document.add_key("gl-b", key(None, &[Scope::Write]), noon()).unwrap().id.clone();
    let state = State::new(document.clone(), None, 0, noon());
    let access = state.access("gl-a", noon()).unwrap();
    assert_eq!((access.organisation.as_deref(), access.may(Scope::View)), (Some("acme"), true));
    assert!(!access.may(Scope::Read) && !access.may(Scope::Admin) && !access.is_operator());
    assert!(
        state.access("gl-a", noon() + Duration::hours(1) - TimeDelta::microseconds(1)).is_some()
    );
    assert!(state.access("gl-a", noon() + Duration::hours(1)).is_none());
    assert!(state.access("gl-c", noon()).is_none() && state.access("", noon()).is_none());
    assert!(state.access(&hash("gl-a"), noon()).is_none(), "a hash is no key");

    document.revoke_key(&id, &Access::operator("o"), noon()).unwrap();
    let again =
        document.revoke_key(&id, &Access::operator("o"), noon() + Duration::days(1)).unwrap();
    assert_eq!(again.revoked_at, Some(noon()));
    assert!(State::new(document, None, 0, noon()).access("gl-b", noon()).is_none());
}

#[test]
fn a_key_needs_an_existing_organisation_and_workspace() {
    let mut document = acme();
    document.add_workspaces("acme", ["search".to_owned()]).unwrap();
    let workspace = |organisation: Option<&str>, name: &str| NewKey {
        workspace: Some(name.to_owned()),
        ..key(organisation, &[Scope::Write])
    };
    assert!(document.add_key("1", workspace(Some("acme"), "search"), noon()).is_ok());
    for (wanted, words) in [
        (key(Some("acme"), &[]), "`scopes` is empty"),
        (key(Some("nobody"), &[Scope::Write]), "`nobody` does not exist"),
        (workspace(Some("acme"), "ads"), "no workspace `ads`"),
        (workspace(None, "search"), "`organisation` is missing"),
        (NewKey { expires_at: Some(noon()), ..key(None, &[Scope::Write]) }, "which is past"),
        (NewKey { name: Some("a\nb".to_owned()), ..key(None, &[Scope::Write]) }, "`name`"),
    ] {
        assert!(message(document.add_key("2", wanted, noon())).contains(words), "{words}");
    }
    assert_eq!(document.keys.len(), 1);
    assert_ne!(document.keys[0].sha256, "1");
}

#[test]
fn a_key_manages_keys_that_reach_no_further_than_itself() {
    let mut document = acme();
    document.create_organisation("zen", organisation("production", None, noon()), 0).unwrap();
    document.add_workspaces("acme", ["search".to_owned(), "ads".to_owned()]).unwrap();
    let bound = |organisation, workspace: Option<&str>| NewKey {
        workspace: workspace.map(str::to_owned),
        ..key(organisation, &[Scope::Admin])
    };
    let places =
        [(None, None), (Some("zen"), None), (Some("acme"), None), (Some("acme"), Some("search"))];
    for (place, (organisation, workspace)) in places.into_iter().enumerate() {
        document.add_key(&place.to_string(), bound(organisation, workspace), noon()).unwrap();
    }
    document.add_key("4", bound(Some("acme"), Some("ads")), noon()).unwrap();
    let state = State::new(document.clone(), None, 0, noon());
    let managed = |key: &str| {
        let access = state.access(key, noon()).unwrap();
        let shown = document.shown_keys(&access, noon());
        let mut document = document.clone();
        let ids: Vec<String> = document.keys.iter().map(|key| key.id.clone()).collect();
        let revoked: Vec<&String> =
            ids.iter().filter(|id| document.revoke_key(id, &access, noon()).is_ok()).collect();
        assert_eq!(shown.iter().map(|shown| &shown.id).collect::<Vec<_>>(), revoked);
        revoked.iter().map(|id| ids.iter().position(|of| of == *id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(managed("0"), [0, 1, 2, 3, 4]);
    assert_eq!(managed("1"), [1]);
    assert_eq!(managed("2"), [2, 3, 4]);
    assert_eq!(managed("3"), [3]);
    let foreign = message(document.clone().revoke_key(
        &document.keys[0].id.clone(),
        &state.access("2", noon()).unwrap(),
        noon(),
    ));
    let unknown = message(document.revoke_key("nothing", &Access::operator("o"), noon()));
    assert_eq!(foreign.replace(&document.keys[0].id, "nothing"), unknown);
}

#[test]
fn responses_contain_no_hash() {
    let mut document = acme();
    document.add_key("gl-secret", key(Some("acme"), &[Scope::View, Scope::Read]), noon()).unwrap();
    let shown = serde_json::to_value(document.shown_keys(&Access::operator("o"), noon())).unwrap();
    assert!(
        !shown.to_string().contains(&hash("gl-secret")) && shown[0].get("sha256").is_none(),
        "{shown}"
    );
    assert_eq!(shown[0]["scopes"], serde_json::json!(["logs.view", "logs.read"]));
    let fresh = CreatedKey { key: "gl-secret".to_owned(), shown: document.keys[0].shown(noon()) };
    assert!(!format!("{fresh:?}").contains("gl-secret"));
}

#[test]
fn names_can_stand_in_urls_and_log_lines() {
    for name in ["a", "Acme-1_x.y:z@w", "0199f2c4-77aa-7000-8000-000000000000", &"x".repeat(128)] {
        let mut document = Document::default();
        assert!(
            document.create_organisation(name, organisation("developer", None, noon()), 0).is_ok(),
            "{name}"
        );
        assert!(document.add_workspaces(name, [name.to_owned()]).is_ok(), "{name}");
    }
    let mut document = acme();
    for name in ["", ".", "..", "a b", "a/b", "é", "a\n", "a'b", "%20", &"x".repeat(129)] {
        let refused =
            document.create_organisation(name, organisation("developer", None, noon()), 0);
        assert!(message(refused).contains("is not a valid name for organisation"), "{name}");
        assert!(document.add_workspaces("acme", [name.to_owned()]).is_err(), "{name}");
    }
    assert_eq!(document, acme());
}

#[test]
fn an_organisation_is_created_once_on_a_plan_that_exists() {
    let mut document = acme();
    for (id, plan, days, words) in [
        ("acme", "production", None, "exists already"),
        ("zen", "gold", None, "the plans are developer, enterprise, production"),
        ("zen", "production", Some(90), "keeps records 30 days"),
        ("zen", "enterprise", Some(-1), "`retention_days` is -1"),
        ("zen", "enterprise", Some(36_501), "`retention_days` is 36501"),
    ] {
        let refused = document.create_organisation(id, organisation(plan, days, noon()), 0);
        assert!(message(refused).contains(words), "{words}");
    }
    assert_eq!(document, acme());
    assert_eq!(message(document.organisation("zen")), no_organisation("zen").message());
}

#[test]
fn a_change_of_plan_records_the_former_retention_class() {
    let moving = |document: &Document| -> Vec<i32> {
        document.organisations["acme"].moving.iter().map(|moving| moving.from_days).collect()
    };
    let mut document = Document::default();
    document.create_organisation("acme", organisation("production", None, noon()), 0).unwrap();
    assert_eq!(moving(&document), [0], "records that came before the organisation was created");
    document.set_plan("acme", "developer", None, noon()).unwrap();
    assert_eq!(moving(&document), [0, 30]);
    document.set_plan("acme", "enterprise", Some(90), noon()).unwrap();
    assert_eq!(moving(&document), [0, 30, 3]);
    document.set_plan("acme", "production", None, noon()).unwrap();
    assert_eq!(moving(&document), [0, 3, 90], "records already in the plan's class need no move");
    assert!(
        message(document.set_plan("zen", "production", None, noon())).contains("does not exist")
    );

    assert!(moving(&acme()).is_empty());
    let mut same = acme();
    same.set_plan("acme", "enterprise", Some(30), noon()).unwrap();
    assert!(moving(&same).is_empty(), "another plan of the same class moves nothing");
}

/// The class of 30 days holds records of an organisation that now keeps them for 90, so the class
/// may not be dropped as a whole.
#[test]
fn records_that_a_new_plan_keeps_do_not_expire() {
    let mut document = acme();
    let day = |days: i64| (noon() - Duration::days(days)).timestamp_micros();
    let file = |days: i64, modified: DateTime<Utc>| FileFacts {
        retention_days: 30,
        min_created_at: day(days),
        max_created_at: day(days),
        min_organisation: None,
        max_organisation: None,
        modified_ms: modified.timestamp_millis(),
    };
    let row = |days: i64| Row {
        feedback: false,
        organisation: "acme",
        id: "1",
        user: None,
        created_at: day(days),
        written_ms: i64::MAX,
    };
    let now = noon().timestamp_micros();
    let rules = document.rules(0, noon());
    assert_eq!(rules.outlook(file(40, noon()), now), Outlook::Hidden);
    assert!(!rules.sees(row(40), now));
    document.set_plan("acme", "enterprise", Some(90), noon()).unwrap();
    let rules = document.rules(0, noon());
    assert_eq!(rules.outlook(file(40, noon()), now), Outlook::Mixed);
    assert!(rules.sees(row(40), now) && !rules.sees(row(91), now));
    assert!(rules.must_rewrite(file(40, noon())));
    document.set_plan("acme", "developer", None, noon()).unwrap();
    let rules = document.rules(0, noon());
    assert!(!rules.sees(row(4), now) && rules.sees(row(2), now), "a shorter plan holds at once");
}

#[test]
fn the_agreed_retention_lasts_as_long_as_the_plan() {
    let mut document = acme();
    let terms = |document: &Document| {
        let acme = &document.organisations["acme"];
        (acme.plan.clone(), acme.retention_days)
    };
    document.set_terms("acme", Some("enterprise"), Some(90), noon()).unwrap();
    document.set_terms("acme", Some("enterprise"), None, noon()).unwrap();
    assert_eq!(terms(&document), ("enterprise".to_owned(), Some(90)));
    document.set_terms("acme", None, Some(60), noon()).unwrap();
    assert_eq!(terms(&document), ("enterprise".to_owned(), Some(60)));
    document.set_terms("acme", Some("production"), None, noon()).unwrap();
    assert_eq!(terms(&document), ("production".to_owned(), None));
    assert!(
        message(document.set_terms("acme", None, Some(60), noon()))
            .contains("keeps records 30 days")
    );
}

#[test]
fn own_plans_are_those_of_the_configuration_and_those_in_use() {
    let plans = |text: &str| Plans::parse(text).unwrap();
    let mut document = acme();
    assert!(
        document
            .set_plans(&plans("[team]\nretention_days = 90\n[trial]\nretention_days = 1"), noon())
    );
    assert!(
        !document
            .set_plans(&plans("[team]\nretention_days = 90\n[trial]\nretention_days = 1"), noon())
    );
    document.set_plan("acme", "team", None, noon()).unwrap();
    assert!(document.set_plans(&plans("[team]\nretention_days = 60"), noon()));
    let moving: Vec<i32> =
        document.organisations["acme"].moving.iter().map(|moving| moving.from_days).collect();
    assert_eq!(moving, [30, 90], "a plan that changes moves the organisations on it");
    assert!(document.plan("trial").is_err(), "no organisation was on it");
    assert!(!document.set_plans(&Plans::default(), noon()), "an organisation is on it");
    assert_eq!(document.plan("team").unwrap().retention_days, 60);
    assert!(document.set_plans(&plans("[production]\nretention_days = 14"), noon()));
    assert_eq!(
        document.plan("production").unwrap().retention_days,
        14,
        "an own plan wins over a built-in one"
    );
    assert!(document.set_plans(&Plans::default(), noon()));
    assert_eq!(
        document.plan("production").unwrap().retention_days,
        30,
        "and the built-in one returns when it is removed"
    );
}

fn share_of_acme() -> Share {
    Share {
        id: "1".to_owned(),
        organisation: "acme".to_owned(),
        workspace: None,
        log_id: "log".to_owned(),
        bodies: false,
        created_by: "k".to_owned(),
        created_at: noon(),
        expires_at: noon() + Duration::days(7),
        revoked_at: None,
    }
}

#[test]
fn a_deleted_organisation_is_gone_with_its_keys_and_its_id_is_free_when_its_records_are() {
    let mut document = acme();
    document.add_key("gl-a", key(Some("acme"), &[Scope::View]), noon()).unwrap();
    document.add_key("gl-o", key(None, &[Scope::Admin]), noon()).unwrap();
    let set_up = |document: &mut Document| {
        let operator = Access::operator("o");
        document.archive_provider("acme", "openai", true).unwrap();
        document.save_filter("acme", "mine", "cost_min=1", &operator, noon()).unwrap();
        document.shares.push(share_of_acme());
    };
    let empty = |document: &Document| {
        let none = document.saved_filters.is_empty() && document.archived_providers.is_empty();
        none && document.denied_fields.is_empty() && document.shares.is_empty()
    };
    set_up(&mut document);
    document.set_denied_fields("acme", None, &["cost".to_owned()].into()).unwrap();
    document.delete_organisation("acme", "k", "e1", noon()).unwrap();
    assert!(empty(&document), "{document:?}");
    set_up(&mut document);
    let state = State::new(document.clone(), None, 0, noon());
    assert!(state.access("gl-a", noon()).is_none() && state.access("gl-o", noon()).is_some());
    assert!(state.rules.is_gone("acme"));
    let ahead = Row {
        feedback: false,
        organisation: "acme",
        id: "1",
        user: None,
        created_at: i64::MAX - 1,
        written_ms: i64::MAX,
    };
    assert!(state.rules.erases(ahead), "whatever time its records claim");
    assert!(message(document.organisation("acme")).contains("does not exist"));
    assert!(
        message(document.delete_organisation("acme", "k", "e2", noon())).contains("does not exist")
    );
    let again = document.create_organisation("acme", organisation("developer", None, noon()), 0);
    assert!(message(again).contains("is free a day later"));

    let later = noon() + Duration::hours(25);
    assert!(!document.settle(later), "maintenance has not rewritten the files");
    document.erasures[0].clean_before_ms = (noon() + Duration::hours(23)).timestamp_millis();
    assert!(!document.settle(later), "files written since may hold records that another node had");
    document.erasures[0].clean_before_ms = (noon() + Duration::hours(24)).timestamp_millis();
    assert!(!document.settle(noon() + Duration::hours(23)));
    assert!(document.settle(later) && !document.settle(later));
    assert!(empty(&document), "a new organisation of the id inherits nothing: {document:?}");
    document.create_organisation("acme", organisation("developer", None, later), 0).unwrap();
    let rules = document.rules(0, later);
    let fresh = Row { created_at: later.timestamp_micros(), ..ahead };
    assert!(!rules.is_gone("acme") && rules.sees(fresh, later.timestamp_micros()));
    assert_eq!(document.erasures.len(), 1, "the record of an erasure stays");
    assert!(
        State::new(document, None, 0, later).access("gl-a", later).is_none(),
        "an old key of the id opens nothing"
    );
}

#[test]
fn retention_changes_end_a_day_later_once_the_files_are_clean() {
    let mut document = acme();
    document.set_plan("acme", "developer", None, noon()).unwrap();
    let later = noon() + Duration::hours(24);
    assert!(!document.settle(later));
    let clean = |document: &mut Document, at: DateTime<Utc>| {
        let acme = document.organisations.get_mut("acme").unwrap();
        acme.moving[0].clean_before_ms = at.timestamp_millis();
    };
    clean(&mut document, later - Duration::seconds(1));
    assert!(!document.settle(later));
    clean(&mut document, later);
    assert!(document.settle(later) && document.organisations["acme"].moving.is_empty());
}

#[test]
fn an_erasure_names_something_and_holds_until_its_files_are_clean() {
    let mut document = acme();
    for which in [
        ErasureSelector::User(String::new()),
        ErasureSelector::Ids(Vec::new()),
        ErasureSelector::Ids(vec![String::new()]),
    ] {
        assert!(document.erase("e", "acme", which, "k", noon()).is_err());
    }
    document.erase("e1", "acme", ErasureSelector::User("ada".to_owned()), "k", noon()).unwrap();
    document
        .erase("e2", "ghost", ErasureSelector::Ids(vec!["7".to_owned()]), "cli", noon())
        .unwrap();
    let row = |organisation, user, seconds: i64| Row {
        feedback: false,
        organisation,
        id: "7",
        user: Some(user),
        created_at: (noon() + Duration::seconds(seconds)).timestamp_micros(),
        written_ms: i64::MAX,
    };
    let rules = document.rules(0, noon());
    assert!(rules.erases(row("acme", "ada", 0)) && !rules.erases(row("acme", "ada", 1)));
    assert!(!rules.erases(row("acme", "bob", 0)) && !rules.erases(row("zen", "ada", 0)));
    assert!(
        rules.erases(row("ghost", "bob", 60)),
        "an erasure by id applies whatever the time of creation"
    );
    let far = noon() + Duration::days(9);
    assert!(document.rules(0, far).erases(row("acme", "ada", 0)), "until maintenance has run");
    for erasure in &mut document.erasures {
        erasure.clean_before_ms = far.timestamp_millis();
    }
    assert!(document.rules(0, far).erasures().is_empty());
    let shown = document
        .shown_erasures(&Access { organisation: Some("acme".to_owned()), ..Access::operator("o") });
    assert_eq!(
        shown.iter().map(|erasure| (erasure.id.as_str(), erasure.what)).collect::<Vec<_>>(),
        [("e1", "user")]
    );
    assert_eq!(document.shown_erasures(&Access::operator("o")).len(), 2);
}

#[test]
fn a_new_configured_retention_moves_all_without_a_plan() {
    let at = |day: i64| DateTime::from_timestamp(day * 86_400, 0).unwrap();
    let mut document = Document::default();
    assert!(document.set_unknown_days(30, at(1)) && !document.set_unknown_days(30, at(2)));
    let moves = |rules: &Rules| -> Vec<(String, i32)> {
        rules.moving().iter().map(|of| (of.organisation.clone(), of.from_days)).collect()
    };
    let of = |moves: &[(&str, i32)]| -> Vec<(String, i32)> {
        moves.iter().map(|(organisation, days)| ((*organisation).to_owned(), *days)).collect()
    };
    assert_eq!(
        moves(&document.rules(7, at(2))),
        of(&[("", 0)]),
        "without a recorded retention they are kept for ever"
    );
    assert_eq!(
        document.rules(7, at(2)).retention_days("anyone"),
        30,
        "the recorded value has priority over an option"
    );
    assert!(document.set_unknown_days(90, at(3)));
    document.create_organisation("acme", Organisation::new("developer", at(4)), 7).unwrap();
    let rules = document.rules(7, at(4));
    assert_eq!(moves(&rules), of(&[("acme", 0), ("acme", 30), ("acme", 90), ("", 0), ("", 30)]));
    document.cleaned(&rules, &[], at(10).timestamp_millis(), at(10));
    assert!(
        document
            .rules(7, at(10))
            .moving()
            .iter()
            .all(|of| of.clean_before_ms == at(10).timestamp_millis())
    );
    assert!(document.settle(at(10)) && document.rules(7, at(10)).moving().is_empty());
}
