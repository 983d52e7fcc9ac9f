//! Tests of the list's bounds, of changes of the catalog, of visibility, of the log and of the
//! file.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::book::Book;
use super::list::TEXT_CHARS;
use super::log_lines::LogLines;
use super::*;
use crate::catalog::{Access, Catalog, Document, ErasureSelector, Scope};
use crate::config::Config;
use crate::ingest::{Policy, SourceFormat};
use crate::record::json::{Reason, Seen};
use crate::store::Store;

/// A time before any file of a test is written.
const START: i64 = 1_700_000_000;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(START + seconds, 0).unwrap()
}

fn fixed() -> DateTime<Utc> {
    at(0)
}

fn refusals() -> Refusals {
    Refusals::new(fixed, Policy::open(&Config::default()).unwrap())
}

fn sender(organisation: Option<&str>) -> Sender {
    Sender {
        organisation: organisation.map(str::to_owned),
        workspace: None,
        source: Source::Portkey,
        route: "POST /v1/logs".into(),
    }
}

fn refused(excerpt: &str) -> Refused {
    let seen = Seen { excerpt: Some(excerpt.to_owned()), ..Seen::default() };
    Refused {
        field: "request".to_owned(),
        seen,
        ..Refused::many(Reason::Missing, "expected an object", 1)
    }
}

fn noted(organisation: &str, seconds: i64, excerpt: &str) -> Refusal {
    let refusals = refusals();
    refusals.records(&sender(Some(organisation)), [refused(excerpt)]);
    Refusal { at: at(seconds), ..refusals.entries().remove(0) }
}

#[test]
fn a_flood_of_one_organisation_leaves_the_entries_of_others() {
    let mut book = Book::with_limit(20_000);
    for number in 0..5 {
        book.add(noted("quiet", number, "q"));
    }
    for number in 0..500 {
        book.add(noted("loud", number, &"x".repeat(500)));
        assert!(book.size().1 <= 20_000);
    }
    let of = |name: &str| book.entries().filter(|entry| entry.organisation == name).count();
    assert_eq!(of("quiet"), 5);
    assert!((10..40).contains(&of("loud")), "{}", of("loud"));
    let last =
        book.entries().filter(|entry| entry.organisation == "loud").map(|entry| entry.at).max();
    assert_eq!(last, Some(at(499)), "the newest stay");
    // The number of organisations is bounded too.
    for number in 0..1_000 {
        book.add(noted(&format!("org-{number}"), 0, ""));
        assert!(book.size().1 <= 20_000);
    }
}

#[test]
fn one_organisation_has_at_most_so_many_entries_and_bytes() {
    let mut book = Book::default();
    for number in 0..1_100 {
        book.add(Refusal {
            route: "r".into(),
            message: String::new(),
            ..noted("acme", number, "")
        });
    }
    assert!(book.size().0 <= 1_000);
    let mut big = Book::default();
    for number in 0..1_100 {
        big.add(noted("acme", number, &"é".repeat(200)));
    }
    let (entries, bytes) = big.size();
    assert!(entries < 1_000 && bytes <= (256 << 10) + 1_000, "{entries} entries, {bytes} bytes");
}

#[test]
fn many_refusals_of_one_request_share_entries() {
    let refusals = refusals();
    refusals.records(&sender(None), (0..1_000).map(|_| refused("secret")));
    let figures = refusals.figures();
    assert_eq!((figures.entries, figures.records), (21, 1_000));
    assert_eq!(figures.counts, BTreeMap::from([((Source::Portkey, Reason::Missing), 1_000)]));
    let shared = refusals.entries().into_iter().find(|entry| entry.count > 1).unwrap();
    assert_eq!((shared.count, shared.excerpt, shared.field.as_str()), (980, None, "request"));
    refusals.request(&sender(None), Refused::many(Reason::OverQuota, "too many", 7));
    assert_eq!(refusals.figures().records, 1_000, "a quota says nothing of the record itself");
    refusals.records(&sender(None), [Refused::many(Reason::NotKept, "none", 0)]);
    assert!(!refusals.figures().counts.contains_key(&(Source::Portkey, Reason::NotKept)));
}

#[test]
fn texts_are_short_and_hold_no_control_characters_and_nothing_redacted() {
    let redact = crate::config::Redact::parse("[mail]\npattern = '\\w+@\\w+'").unwrap();
    let policy = Policy::open(&Config { redact, ..Config::default() }).unwrap();
    let refusals = Refusals::new(fixed, policy);
    let message = "ä".repeat(1_000);
    let refused = Refused {
        field: "ann@example\u{1b}[2J".to_owned(),
        ..Refused::many(Reason::Invalid, message, 1)
    };
    refusals.records(&sender(None), [refused]);
    let entry = refusals.entries().remove(0);
    assert_eq!(
        (entry.field.as_str(), entry.message.chars().count()),
        ("[redacted] [2J", TEXT_CHARS + 1)
    );
}

async fn catalog(folder: &tempfile::TempDir) -> (Store, Catalog) {
    let config = Config { data: folder.path().display().to_string(), ..Config::default() };
    let store = Store::open(&config, true).unwrap();
    let catalog = Catalog::open(&store, 0, fixed).await.unwrap();
    (store, catalog)
}

#[tokio::test]
async fn an_erasure_takes_entries_or_excerpts() {
    let folder = tempfile::tempdir().unwrap();
    let (_, catalog) = catalog(&folder).await;
    let all = || {
        let refusals = refusals();
        let mut inner = refusals.inner.lock();
        for organisation in ["acme", "zen"] {
            [-10, 10]
                .into_iter()
                .for_each(|second| inner.book.add(noted(organisation, second, "words")));
        }
        drop(inner);
        refusals
    };
    let left = |refusals: &Refusals| {
        let mut left: Vec<_> = refusals
            .entries()
            .into_iter()
            .map(|entry| {
                (entry.organisation, (entry.at - at(0)).num_seconds(), entry.excerpt.is_some())
            })
            .collect();
        left.sort();
        left
    };
    let entry = |name: &str, second, excerpt| (name.to_owned(), second, excerpt);
    let zen = [entry("zen", -10, true), entry("zen", 10, true)];

    let user = |document: &mut Document| {
        document.erase("1", "acme", ErasureSelector::User("ann".to_owned()), "t", at(0)).map(|_| ())
    };
    catalog.change(user).await.unwrap();
    let refusals = all();
    refusals.forget(&catalog.state());
    assert_eq!(left(&refusals)[..2], [entry("acme", -10, false), entry("acme", 10, true)]);
    assert_eq!(left(&refusals)[2..], zen);

    catalog
        .change(|document| {
            document.erase("2", "acme", ErasureSelector::All, "t", at(0)).map(|_| ())
        })
        .await
        .unwrap();
    let refusals = all();
    refusals.forget(&catalog.state());
    assert_eq!(left(&refusals)[..1], [entry("acme", 10, true)]);
    assert_eq!(left(&refusals)[1..], zen);
}

#[tokio::test]
async fn an_answer_shows_what_a_key_reaches_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let (_, catalog) = catalog(&folder).await;
    let state = catalog.state();
    let old = noted("acme", -8 * 86_400, "old");
    let search = Refusal { workspace: Some("search".to_owned()), ..noted("acme", -2, "mine") };
    let entries = vec![noted("acme", -3, "none's"), search, noted("zen", -1, "zen's"), old];
    let shown = |ask: &Ask, access: &Access| -> Vec<(String, Option<String>)> {
        let shown = shown(entries.clone(), ask, access, &state, at(0));
        shown.into_iter().map(|entry| (entry.organisation_id, entry.excerpt)).collect()
    };
    let access = |organisation: Option<&str>, workspace: Option<&str>, scopes: &[Scope]| Access {
        key_id: "k".to_owned(),
        organisation: organisation.map(str::to_owned),
        workspace: workspace.map(str::to_owned),
        scopes: scopes.iter().copied().collect(),
    };
    let entry = |name: &str, excerpt: Option<&str>| (name.to_owned(), excerpt.map(str::to_owned));
    let everything = Ask::default();
    let operator = shown(&everything, &Access::operator("o"));
    assert_eq!(
        operator,
        [entry("zen", Some("zen's")), entry("acme", Some("mine")), entry("acme", Some("none's"))]
    );
    let viewer = access(Some("acme"), None, &[Scope::View]);
    assert_eq!(shown(&everything, &viewer), [entry("acme", None), entry("acme", None)]);
    let reader = access(Some("acme"), Some("search"), &[Scope::View, Scope::Read]);
    assert_eq!(shown(&everything, &reader), [entry("acme", Some("mine"))]);
    let other = access(Some("acme"), Some("other"), &[Scope::Admin]);
    assert_eq!(shown(&everything, &other), []);
    let asked = Ask { organisation: Some("zen".to_owned()), ..Ask::default() };
    assert_eq!(shown(&asked, &viewer), []);
    assert_eq!(shown(&asked, &Access::operator("o")).len(), 1);
    for (source, reason, found) in
        [(Source::Portkey, Reason::Missing, 3), (Source::Native, Reason::Missing, 0)]
    {
        let asked = Ask { source: Some(source), reason: Some(reason), ..Ask::default() };
        assert_eq!(shown(&asked, &Access::operator("o")).len(), found);
    }
    let deny = |document: &mut Document| {
        let fields = ["request.body".to_owned()].into();
        let organisation = crate::catalog::Organisation::new("enterprise", at(0));
        document.create_organisation("acme", organisation, 0)?;
        document.set_denied_fields("acme", None, &fields).map(|_| ())
    };
    catalog.change(deny).await.unwrap();
    let reads = access(Some("acme"), None, &[Scope::View, Scope::Read]);
    let shown = super::shown(entries.clone(), &everything, &reads, &catalog.state(), at(0));
    assert!(shown.len() == 2 && shown.iter().all(|entry| entry.excerpt.is_none()));
}

#[tokio::test]
async fn the_file_brings_the_list_over_a_restart_and_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let (store, catalog) = catalog(&folder).await;
    let node = uuid::Uuid::from_u128(1);
    let other = uuid::Uuid::from_u128(2);
    let refusals = refusals();
    refusals.write(&store, node).await.unwrap();
    assert_eq!(read_all(&store, None).await.unwrap(), [], "an empty list is not written");
    refusals.records(&sender(Some("acme")), [refused("é\"\u{7}")]);
    refusals.write(&store, node).await.unwrap();
    assert_eq!(read_all(&store, None).await.unwrap(), refusals.entries());
    assert_eq!(read_all(&store, Some(node)).await.unwrap(), []);

    let again = super::tests::refusals();
    again.load(&store, node, &catalog.state()).await;
    assert_eq!(again.entries(), refusals.entries());
    assert_eq!(again.figures().counts, BTreeMap::new(), "metrics count since the start");
    // An erasure from the time in which the node was down is applied at once.
    catalog
        .change(|document| {
            document.erase("1", "acme", ErasureSelector::All, "t", at(1)).map(|_| ())
        })
        .await
        .unwrap();
    let again = super::tests::refusals();
    again.load(&store, node, &catalog.state()).await;
    again.write(&store, node).await.unwrap();
    assert_eq!(read_all(&store, None).await.unwrap(), []);

    // Files that cannot be read, and entries of a later version, cause no error.
    let text = serde_json::json!({ "refusals": [{ "source": "telepathy" }, noted("zen", 0, "a")], "format": 9 });
    std::fs::write(folder.path().join(format!("refusals/{other}.json")), text.to_string()).unwrap();
    assert_eq!(read_all(&store, None).await.unwrap(), [noted("zen", 0, "a")]);
    std::fs::write(folder.path().join(format!("refusals/{other}.json")), "{").unwrap();
    again.load(&store, other, &catalog.state()).await;
    assert_eq!(again.entries(), []);
    // The clock of this list is far behind the files, so they are not old.
    again.clean(&store, node).await.unwrap();
    assert!(folder.path().join(format!("refusals/{other}.json")).exists());
    let later = Refusals::new(
        || Utc::now() + TimeDelta::days(2),
        Policy::open(&Config::default()).unwrap(),
    );
    later.clean(&store, node).await.unwrap();
    assert!(!folder.path().join(format!("refusals/{other}.json")).exists());
    assert!(folder.path().join(format!("refusals/{node}.json")).exists(), "a node keeps its own");
}

#[test]
fn the_log_has_a_line_for_a_kind_every_ten_seconds() {
    let mut log_lines = LogLines::default();
    let mut lines = Vec::new();
    for second in [0, 1, 5, 9, 10, 12] {
        log_lines.count(Source::Portkey, Reason::Missing, 1_000);
        lines.extend(log_lines.due(at(second)).into_iter().map(|line| (second, line)));
    }
    log_lines.count(Source::Native, Reason::Busy, 1);
    for second in [13, 30, 31, 60] {
        lines.extend(log_lines.due(at(second)).into_iter().map(|line| (second, line)));
    }
    let missing =
        |refused| log_lines::Line { source: Source::Portkey, reason: Reason::Missing, refused };
    let busy = log_lines::Line { source: Source::Native, reason: Reason::Busy, refused: 1 };
    // The line of second 10 counts seconds 1 to 10, the one of second 30 counts second 12.
    assert_eq!(
        lines,
        [(0, missing(1_000)), (10, missing(4_000)), (13, busy), (30, missing(1_000))]
    );
    log_lines.count(Source::Native, Reason::Busy, 2);
    assert_eq!(
        log_lines.due(at(-100)),
        [log_lines::Line { refused: 2, ..busy }],
        "a clock that is set back silences nothing"
    );
}

#[test]
fn names_are_read_back() {
    for source in Source::ALL {
        assert_eq!(source.name().parse::<Source>().unwrap(), source);
        assert_eq!(serde_json::to_value(source).unwrap(), source.name());
    }
    for shape in SourceFormat::ALL {
        assert_eq!(Source::from(shape).name(), shape.name());
    }
    assert!("mail".parse::<Source>().unwrap_err().message().contains("portkey-bucket"));
}
