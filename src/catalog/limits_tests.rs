//! Tests of the limits on the entries of one organisation in the catalog, and of archived erasures.

use chrono::{DateTime, Duration, Utc};

use super::limits::{MAX_ERASURES, MAX_IDS, MAX_KEYS, MAX_TEXT_BYTES, MAX_WORKSPACES};
use super::{Access, Catalog, Document, ErasureSelector, NewKey, Organisation, Scope, encode};
use crate::config::Config;
use crate::error::{ErrorKind, Result};
use crate::plan::Row;
use crate::store::Store;

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn acme() -> Document {
    let mut document = Document::default();
    document.create_organisation("acme", Organisation::new("enterprise", noon()), 0).unwrap();
    document
}

fn key(organisation: Option<&str>) -> NewKey {
    let organisation = organisation.map(str::to_owned);
    NewKey { scopes: [Scope::View].into(), organisation, ..NewKey::default() }
}

#[track_caller]
fn check<T: std::fmt::Debug>(refused: Result<T>, words: &str) {
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.message().contains(words), "{error}");
}

/// An organisation fills each list of the document to its limit; the document stays small, and
/// other organisations still get in.
#[test]
fn no_organisation_makes_the_document_large() {
    let mut document = acme();
    document.create_organisation("zen", Organisation::new("enterprise", noon()), 0).unwrap();
    for number in 0..MAX_KEYS {
        document.add_key(&format!("k{number}"), key(Some("acme")), noon()).unwrap();
    }
    check(document.add_key("more", key(Some("acme")), noon()).map(|_| ()), "active keys");
    document
        .add_workspaces("acme", (0..MAX_WORKSPACES).map(|number| format!("w{number}")))
        .unwrap();
    check(document.add_workspaces("acme", ["more".to_owned()]), "workspaces");
    document.add_workspaces("acme", ["w1".to_owned()]).unwrap();
    let ids = |count: usize| {
        ErasureSelector::Ids((0..count).map(|number| format!("{number:0>36}")).collect())
    };
    check(
        document.erase("e", "acme", ids(MAX_IDS + 1), "k", noon()).map(|_| ()),
        "at most 10000 at once",
    );
    let long = ErasureSelector::User("x".repeat(513));
    assert_eq!(
        document.erase("e", "acme", long, "k", noon()).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let mut taken = 0;
    while document.erase(&format!("i{taken}"), "acme", ids(MAX_IDS), "k", noon()).is_ok() {
        taken += 1;
    }
    check(
        document.erase("e", "acme", ids(MAX_IDS), "k", noon()).map(|_| ()),
        "bytes of the catalog",
    );
    assert!((1..10).contains(&taken), "{taken}");
    let by = Access::operator("o");
    let filter = "x=".to_owned() + &"y".repeat(8_000);
    let saved = (0..500).find_map(|number| {
        document.save_filter("acme", &format!("f{number}"), &filter, &by, noon()).err()
    });
    assert!(saved.unwrap().message().contains("saved filters"));
    document.erase("all", "acme", ErasureSelector::All, "k", noon()).unwrap();
    assert!(encode(&document).unwrap().len() < MAX_TEXT_BYTES * 2);
    // Other organisations are not affected.
    document.add_key("zen", key(Some("zen")), noon()).unwrap();
    document.erase("z", "zen", ids(100), "k", noon()).unwrap();
    document.save_filter("zen", "f", &filter, &by, noon()).unwrap();
    document.add_key("operator", key(None), noon()).unwrap();
}

#[test]
fn erasures_that_are_under_way_are_bounded_in_number() {
    let mut document = acme();
    for number in 0..MAX_ERASURES {
        document
            .erase(
                &format!("{number}"),
                "acme",
                ErasureSelector::User(format!("u{number}")),
                "k",
                noon(),
            )
            .unwrap();
    }
    check(
        document.erase("e", "acme", ErasureSelector::User("u".to_owned()), "k", noon()).map(|_| ()),
        "under way",
    );
    document.erase("e", "acme", ErasureSelector::All, "k", noon()).unwrap();
    document.erase("e", "zen", ErasureSelector::User("u".to_owned()), "k", noon()).unwrap();
}

#[test]
fn keys_that_open_nothing_are_forgotten_the_oldest_first() {
    let mut document = acme();
    for number in 0..MAX_KEYS + 5 {
        let id =
            document.add_key(&format!("k{number}"), key(Some("acme")), noon()).unwrap().id.clone();
        document.revoke_key(&id, &Access::operator("o"), noon()).unwrap();
    }
    document.add_key("alive", key(Some("acme")), noon()).unwrap();
    assert_eq!(document.keys.len(), MAX_KEYS + 1);
    let first = super::hash("k0")[..12].to_owned();
    let access = Access { key_id: first, ..Access::operator("o") };
    assert!(document.check_access(&access, noon()).is_err(), "one that is forgotten opens nothing");
}

fn now() -> DateTime<Utc> {
    noon() + Duration::days(3)
}

/// A completed erasure of many records takes one line in the document, and is still among the
/// erasures of all time.
#[tokio::test]
async fn a_completed_erasure_is_archived_and_stays_effective() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config { data: folder.path().join("data").display().to_string(), ..Config::default() };
    let store = Store::open(&config, true).unwrap();
    let catalog = Catalog::open(&store, 0, now).await.unwrap();
    let ids: Vec<String> = (0..5_000).map(|number| format!("id-{number}")).collect();
    let erase = |document: &mut Document| {
        document.create_organisation("acme", Organisation::new("enterprise", noon()), 0)?;
        document.erase("long", "acme", ErasureSelector::Ids(ids.clone()), "k", noon())?.feedback =
            vec!["said".to_owned()];
        document.erase("open", "acme", ErasureSelector::Ids(ids[..10].to_vec()), "k", now())?;
        for erasure in &mut document.erasures {
            erasure.clean_before_ms = now().timestamp_millis();
        }
        Ok(())
    };
    catalog.change(erase).await.unwrap();
    let before = encode(&catalog.state().document).unwrap().len();
    catalog.archive_erasures().await.unwrap();
    let state = catalog.state();
    assert!(encode(&state.document).unwrap().len() * 20 < before);
    assert_eq!(state.document.erasures[1].ids.len(), 10, "that is not done yet");
    let shown = state.document.erasures[0].shown();
    assert_eq!((shown.what, shown.ids.len(), shown.feedback), ("ids", 0, 1));
    let row = |id| Row {
        feedback: false,
        organisation: "acme",
        id,
        user: None,
        created_at: 0,
        written_ms: i64::MAX,
    };
    assert!(
        !state.document.rules(0, now()).erases(row("other")),
        "it must not come to mean all records"
    );
    // The same holds for a later process, and for a second run.
    let again = Catalog::open(&store, 0, now).await.unwrap();
    again.archive_erasures().await.unwrap();
    assert_eq!(again.state().document, state.document);
    let ever = again.ever_erased().await.unwrap();
    assert!(ever.erases(row("id-4999")) && !ever.erases(row("other")));
    assert!(ever.erases(Row { feedback: true, ..row("said") }));
}
