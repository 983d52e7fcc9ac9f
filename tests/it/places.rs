//! Places that are no store, which must not look like an empty one.

use std::fs;

use super::cli::Home;
use super::copy::{gatelog, ok};
use super::seaweedfs;

/// Every command that reads, and those that change what is there already.
const READING: [&[&str]; 19] = [
    &["sql", "select count(*) from logs"],
    &["report", "status_counts"],
    &["report", "quota"],
    &["export"],
    &["doctor"],
    &["maintain", "status"],
    &["maintain", "expire"],
    &["maintain", "compact", "--dry-run"],
    &["maintain", "vacuum"],
    &["maintain", "checkpoint"],
    &["maintain", "clean-log"],
    &["org", "list"],
    &["org", "set-plan", "acme", "enterprise"],
    &["org", "delete", "acme", "--yes"],
    &["key", "list"],
    &["key", "revoke", "3f2a9c0d11e4"],
    &["delete", "--org", "acme", "--yes"],
    &["wal", "rebind"],
    &["wal", "adopt", "log"],
];

/// The words of a place that never was a store.
const NO_STORE: &str = "is no gatelog store: it contains neither `catalog.json` nor a table";

#[test]
fn a_folder_that_never_was_a_store_is_told_by_every_command_that_reads() {
    let home = Home::new();
    fs::create_dir_all(home.0.path().join("wrong/logs")).unwrap();
    fs::create_dir(home.0.path().join("empty")).unwrap();
    fs::write(home.0.path().join("wrong/logs/part-1.parquet"), "PAR1").unwrap();
    fs::write(home.0.path().join("one.jsonl"), "{\"id\":\"a\"}\n").unwrap();
    // A log, so that only the place is wrong.
    home.ok(&["--data", "right", "--set", "wal=log", "import", "one.jsonl"]);
    for folder in ["wrong", "empty"] {
        let reading = READING.into_iter().map(|tail| [&["--data", folder], tail].concat());
        let copy = vec!["copy", folder, "to"];
        for args in reading.chain([copy]) {
            let (code, stdout, stderr) = gatelog(home.0.path(), &[], &args);
            assert_eq!((code, stdout.as_str()), (3, ""), "{args:?}: {stderr}");
            assert!(
                stderr.contains(NO_STORE) && stderr.contains(&format!("/{folder}`")),
                "{args:?}: {stderr}"
            );
            assert!(stderr.contains("`--data`"), "{args:?}: {stderr}");
        }
        let there = fs::read_dir(home.0.path().join(folder)).unwrap().count();
        assert_eq!(there, usize::from(folder == "wrong"), "a command that reads made something");
    }
    assert!(!home.0.path().join("to").exists());
}

#[test]
fn a_fresh_store_is_empty_and_no_error() {
    let home = Home::new();
    fs::write(home.0.path().join("none.jsonl"), "").unwrap();
    home.ok(&["--data", "fresh", "import", "none.jsonl"]);
    home.ok(&["--data", "named", "org", "create", "acme", "--plan", "enterprise"]);
    for data in ["fresh", "named"] {
        let rows =
            home.ok(&["--data", data, "sql", "--format", "csv", "select count(*) from logs"]);
        assert_eq!(rows.lines().nth(1), Some("0"));
        assert_eq!(home.ok(&["--data", data, "export"]), "");
        for tail in &READING[1..12] {
            home.ok(&[&["--data", data], *tail].concat());
        }
        let copy = format!("copy-of-{data}");
        home.ok(&["copy", data, &copy]);
        assert_eq!(home.ok(&["--data", &copy, "export"]), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_never_was_a_store_is_told_with_its_bucket() {
    let home = tempfile::tempdir().unwrap();
    let config = seaweedfs::shared().config(home.path()).await;
    let mut settings: Vec<(String, String)> = seaweedfs::shared()
        .environment()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    settings.push(("GATELOG_WAL".to_owned(), "log".to_owned()));
    tokio::task::block_in_place(|| {
        let (data, typo) = (config.data.as_str(), format!("{}-typo", config.data));
        fs::write(home.path().join("none.jsonl"), "").unwrap();
        ok(home.path(), &settings, &["--data", data, "import", "none.jsonl"]);
        let count = ["--data", data, "sql", "--format", "csv", "select count(*) from logs"];
        assert_eq!(ok(home.path(), &settings, &count).lines().nth(1), Some("0"));
        let reading = READING.into_iter().map(|tail| [&["--data", &typo], tail].concat());
        let copy = vec!["copy", &typo, "to"];
        for args in reading.chain([copy]) {
            let (code, stdout, stderr) = gatelog(home.path(), &settings, &args);
            assert_eq!((code, stdout.as_str()), (3, ""), "{args:?}: {stderr}");
            let place = format!("`{typo}/ at {}`", seaweedfs::shared().endpoint());
            assert!(stderr.contains(NO_STORE) && stderr.contains(&place), "{args:?}: {stderr}");
        }
        // Above and below of a store there is none.
        let above = data.trim_end_matches("/state").to_owned();
        for wrong in [above, format!("{data}/logs")] {
            let (code, _, stderr) = gatelog(home.path(), &settings, &["--data", &wrong, "export"]);
            assert!(code == 3 && stderr.contains(NO_STORE), "{wrong}: {stderr}");
        }
    });
}
