//! `gatelog copy`: folder to bucket and back, broken off and gone on with, and copies of a folder
//! as backups.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::seaweedfs;

/// Runs the binary; gives the exit code, stdout and stderr.
pub(crate) fn gatelog(
    folder: &Path,
    settings: &[(String, String)],
    args: &[&str],
) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
    command.args(args).current_dir(folder);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_"))
    {
        command.env_remove(name);
    }
    let output = command.envs(settings.iter().map(|(name, value)| (name, value))).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn ok(folder: &Path, settings: &[(String, String)], args: &[&str]) -> String {
    let (code, stdout, stderr) = gatelog(folder, settings, args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

/// A folder with two days of records, an organisation, and a key; some records are in the log only.
fn filled(folder: &Path) {
    let lines = |first: usize, count: usize| -> String {
        (first..first + count)
            .map(|n| {
                format!(
                    "{{\"id\":\"{n:05}\",\"organisation_id\":\"o{}\",\"created_at\":\"2026-11-0{}T00:00:00Z\"}}\n",
                    n % 3,
                    1 + n % 2
                )
            })
            .collect()
    };
    fs::write(folder.join("a.jsonl"), lines(0, 400)).unwrap();
    ok(folder, &[], &["org", "create", "o1", "--plan", "enterprise"]);
    ok(folder, &[], &["key", "create", "--org", "o1", "--scope", "logs.view"]);
    ok(folder, &[], &["import", "a.jsonl"]);
}

fn export(folder: &Path, data: &str, settings: &[(String, String)]) -> String {
    ok(folder, settings, &["--data", data, "export", "--out", "-"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_to_a_bucket_and_comes_back_the_same() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    filled(home);
    let weed = seaweedfs::shared();
    let config = weed.config(home).await;
    let settings: Vec<(String, String)> = [
        ("GATELOG_S3_ENDPOINT", config.s3_endpoint),
        ("GATELOG_S3_REGION", config.s3_region),
        ("GATELOG_S3_ACCESS_KEY_ID", config.s3_access_key_id),
        ("GATELOG_S3_SECRET_ACCESS_KEY", config.s3_secret_access_key.0),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let bucket = config.data;
    tokio::task::block_in_place(|| {
        let said = ok(home, &settings, &["copy", "gatelog-data", &bucket, "--format", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert!(said["objects"].as_u64().unwrap() > 4 && said["unchanged"] == 0, "{said}");
        // The same command again finds everything there.
        let again = ok(home, &settings, &["copy", "gatelog-data", &bucket, "--format", "json"]);
        let again: serde_json::Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again["unchanged"], said["objects"], "{again}");
        assert_eq!(again["objects"], 0, "{again}");
        ok(home, &settings, &["copy", &bucket, "back"]);
        let before = export(home, "gatelog-data", &[]);
        assert_eq!(before.lines().count(), 400);
        assert_eq!(export(home, &bucket, &settings), before);
        assert_eq!(export(home, "back", &[]), before);
        let organisations =
            |data: &str| ok(home, &settings, &["--data", data, "org", "list", "--format", "json"]);
        assert_eq!(organisations("back"), organisations("gatelog-data"));
        // The counts came along: ids are known, and so is what was used.
        let used = "select sum(records) from usage";
        let used =
            |data: &str| ok(home, &settings, &["--data", data, "sql", "--format", "csv", used]);
        assert_eq!(used("back").lines().nth(1), Some("400"));
        let (_, _, said) = gatelog(home, &settings, &["--data", "back", "import", "a.jsonl"]);
        assert!(said.contains("0 records imported, 400 duplicates"), "{said}");
    });
}

#[test]
fn a_copy_that_was_broken_off_is_gone_on_with_and_foreign_data_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    filled(home);
    ok(home, &[], &["copy", "gatelog-data", "to"]);
    let expected = export(home, "to", &[]);
    // As if broken off: the newest entry of the log and a data file never came, and another one is
    // not what it was.
    let log = home.join("to/logs/_delta_log");
    let mut entries: Vec<_> =
        fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    fs::remove_file(entries.last().unwrap()).unwrap();
    fs::remove_dir_all(home.join("to/logs/retention_days=0")).unwrap();
    ok(home, &[], &["copy", "gatelog-data", "to"]);
    assert_eq!(export(home, "to", &[]), expected);

    let changed = fs::read_dir(&log).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&changed).unwrap();
    fs::write(&changed, [&bytes[..bytes.len() - 2], b"x\n"].concat()).unwrap();
    let (code, _, said) = gatelog(home, &[], &["copy", "gatelog-data", "to"]);
    assert!(
        code != 0 && said.contains("at the target differs; give an empty folder or prefix"),
        "{said}"
    );
    fs::create_dir(home.join("other")).unwrap();
    fs::write(home.join("b.jsonl"), "{\"id\":\"b\"}\n").unwrap();
    ok(home, &[], &["--data", "other", "import", "b.jsonl"]);
    ok(home, &[], &["--data", "other", "import", "a.jsonl"]);
    ok(home, &[], &["--data", "other", "import", "b.jsonl", "a.jsonl"]);
    let (code, _, said) = gatelog(home, &[], &["copy", "gatelog-data", "other"]);
    assert!(code != 0 && said.contains("give an empty folder or prefix"), "{said}");
    let (code, _, said) = gatelog(home, &[], &["copy", "gatelog-data", "gatelog-data"]);
    assert!(code != 0 && said.contains("give another place to copy to"), "{said}");
}

#[test]
fn a_copy_of_the_folder_of_a_stopped_server_is_a_backup() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    filled(home);
    assert!(
        Command::new("cp")
            .args(["-r", "gatelog-data", "backup"])
            .current_dir(home)
            .status()
            .unwrap()
            .success()
    );
    let before = export(home, "gatelog-data", &[]);
    fs::remove_dir_all(home.join("gatelog-data")).unwrap();
    fs::rename(home.join("backup"), home.join("gatelog-data")).unwrap();
    assert_eq!(export(home, "gatelog-data", &[]), before);
    let (code, _, said) = gatelog(home, &[], &["doctor"]);
    assert_eq!(code, 0, "{said}");
    ok(home, &[], &["import", "a.jsonl"]);
    assert_eq!(export(home, "gatelog-data", &[]), before, "ids are known in the restored folder");
}

#[test]
fn a_copy_names_the_data_files_that_were_damaged_before() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    filled(home);
    ok(home, &[], &["copy", "gatelog-data", "sound"]);
    let path = super::damage::files(&home.join("gatelog-data/logs"), "parquet").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let offset =
        super::damage::metadata_of(&bytes).row_group(0).column(0).bloom_filter_offset().unwrap();
    bytes[usize::try_from(offset).unwrap() + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let part = "the bloom filter of column `id` in row group 0";
    let (code, said, _) = gatelog(home, &[], &["doctor"]);
    assert!(code == 1 && said.contains(part), "{said}");
    // All of it is copied, and what is damaged is told.
    for expected in [0, 1] {
        let (code, said, words) =
            gatelog(home, &[], &["copy", "gatelog-data", "harmed", "--format", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let damaged = said["damaged"].as_array().unwrap();
        assert_eq!((code, damaged.len(), said["unchanged"] != 0), (1, 1, expected == 1), "{said}");
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(damaged[0].as_str().unwrap().contains(part) && words.contains(name), "{words}");
    }
    assert_eq!(
        export(home, "harmed", &[]),
        export(home, "sound", &[]),
        "no row is in a bloom filter"
    );
}
