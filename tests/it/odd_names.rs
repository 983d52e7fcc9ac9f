//! Folders and prefixes with odd names are written and read, and nothing is written beside them.

use std::fs;

use super::cli::Home;
use super::copy::ok;
use super::seaweedfs;

/// Names as a person gives them, and such as a wrong decoder takes for another folder.
const ODD: [&str; 14] = [
    "a b",
    "a%20b",
    "100%",
    "%2F",
    "50%25",
    "é",
    "x#1",
    "x#",
    "q?x",
    "back\\slash",
    "üñ 日本",
    "a[1]{2}",
    "~t",
    "a&b=c",
];

#[test]
fn folders_with_odd_names_are_written_and_read() {
    let home = Home::new();
    for (number, name) in ODD.iter().enumerate() {
        let data = format!("below/{name}/data");
        let lines: String =
            (0..=number).map(|line| format!("{{\"id\":\"{number}-{line}\"}}\n")).collect();
        fs::write(home.0.path().join("some.jsonl"), lines).unwrap();
        let (first, rest) = (data.as_str(), ["maintain", "compact"]);
        home.ok(&["--data", first, "import", "some.jsonl"]);
        fs::write(home.0.path().join("more.jsonl"), format!("{{\"id\":\"{number}-more\"}}\n"))
            .unwrap();
        home.ok(&["--data", first, "import", "more.jsonl"]);
        home.ok(&[&["--data", first], &rest[..]].concat());
        home.ok(&["--data", first, "maintain", "checkpoint"]);
        home.ok(&["--data", first, "maintain", "vacuum", "--dry-run"]);
    }
    for (number, name) in ODD.iter().enumerate() {
        let data = format!("below/{name}/data");
        let copy = format!("copies/{name}");
        home.ok(&["copy", &data, &copy]);
        for data in [&data, &copy] {
            let rows = home.ok(&[
                "--data",
                data,
                "sql",
                "--format",
                "csv",
                "select count(distinct id) from logs",
            ]);
            assert_eq!(rows.lines().nth(1), Some((number + 2).to_string().as_str()), "{data}");
            assert_eq!(home.ok(&["--data", data, "export"]).lines().count(), number + 2, "{data}");
            home.ok(&["--data", data, "doctor"]);
        }
        let url = url::Url::from_file_path(home.0.path().join(&data)).unwrap();
        let rows = home.ok(&[
            "--data",
            url.as_str(),
            "sql",
            "--format",
            "csv",
            "select count(*) from logs",
        ]);
        assert_eq!(rows.lines().nth(1), Some((number + 2).to_string().as_str()), "{url}");
    }
    // Nothing was written beside them, into a folder of the decoded name.
    for folder in ["below", "copies"] {
        let mut names: Vec<_> = fs::read_dir(home.0.path().join(folder))
            .unwrap()
            .map(|found| found.unwrap().file_name())
            .collect();
        names.sort();
        let mut expected: Vec<_> = ODD.iter().map(std::ffi::OsString::from).collect();
        expected.sort();
        assert_eq!(names, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_with_odd_names_are_written_and_read() {
    let home = tempfile::tempdir().unwrap();
    let bucket = seaweedfs::shared().bucket().await;
    let settings: Vec<(String, String)> = seaweedfs::shared()
        .environment()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    tokio::task::block_in_place(|| {
        for (number, prefix) in ["a%20b", "a%2520b", "%C3%A9", "x%231"].iter().enumerate() {
            let (data, wal) = (format!("s3://{bucket}/{prefix}/data"), format!("wal=log-{number}"));
            let lines: String =
                (0..=number).map(|line| format!("{{\"id\":\"{number}-{line}\"}}\n")).collect();
            fs::write(home.path().join("some.jsonl"), lines).unwrap();
            ok(home.path(), &settings, &["--data", &data, "--set", &wal, "import", "some.jsonl"]);
            ok(home.path(), &settings, &["--data", &data, "--set", &wal, "maintain", "checkpoint"]);
        }
        for (number, prefix) in ["a%20b", "a%2520b", "%C3%A9", "x%231"].iter().enumerate() {
            let (data, wal) = (format!("s3://{bucket}/{prefix}/data"), format!("wal=log-{number}"));
            let args = ["--data", &data, "--set", &wal, "export"];
            assert_eq!(ok(home.path(), &settings, &args).lines().count(), number + 1, "{data}");
            ok(home.path(), &settings, &["--data", &data, "--set", &wal, "doctor"]);
        }
    });
}
