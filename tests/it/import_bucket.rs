//! `gatelog import --source portkey-bucket`: a Portkey gateway's log store, as a folder and as a bucket.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use super::weed;

const ORGANISATION: &str = "org-1";

/// The log object of one call.
fn log(number: usize) -> Value {
    let id = format!("call-{number:04}");
    let created_at = format!("2026-11-{:02} {:02}:30:00.{:03}", 1 + number % 20, number % 24, number % 1_000);
    json!({
        "_id": id, "organisation_id": ORGANISATION, "created_at": created_at,
        "request": {
            "url": "https://api.openai.com/v1/chat/completions", "method": "POST",
            "headers": { "authorization": "Bearer sk-0123456789abcdef" },
            "body": { "model": "gpt-4o", "messages": [{ "role": "user", "content": format!("question {number}") }] },
            "portkeyHeaders": { "x-portkey-config": "pc-1" },
        },
        "response": {
            "status": 200, "body": { "choices": [] }, "responseTime": 61, "lastUsedOptionJsonPath": "config.targets[1]",
        },
        "metrics": {
            "id": id, "organisation_id": ORGANISATION, "workspace_slug": "ws-1", "created_at": created_at, "is_success": true,
            "ai_org": "openai", "ai_model": "gpt-4o", "req_units": 9, "res_units": 9, "total_units": 18,
            "cost": 0.01125, "cost_currency": "USD", "response_status_code": 200, "response_time": 61,
            "retry_success_count": "0", "mode": "fallback", "cache_status": "MISS", "extra_key": "is_raw_logging_enabled",
            "extra_value": if number.is_multiple_of(10) { "false" } else { "true" },
            "metadata.key": ["_user"], "metadata.value": ["ann"],
        },
    })
}

/// Where Portkey writes that log: its first path format, or its second one.
fn path(number: usize) -> String {
    if number.is_multiple_of(2) {
        return format!("30/{ORGANISATION}/call-{number:04}.json");
    }
    let (day, hour) = (1 + number % 20, number % 24);
    format!("30/{ORGANISATION}/ws-1/2026/11/{day:02}/{hour:02}/call-{number:04}.json")
}

/// What else lies in such a store: what guardrails found, what is no log, and what cannot be read.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let found = json!({ "_id": "h", "hook_id": "pg", "organisation_id": ORGANISATION, "checks": [{ "data": "x" }] });
    vec![
        ("30/org-1/hooks/h.json", found.to_string().into_bytes()),
        ("30/org-1/ws-1/2026/11/01/01/hooks/h.json", found.to_string().into_bytes()),
        ("readme.txt", b"not a log".to_vec()),
        ("30/org-1/cut.json", log(1).to_string().into_bytes()[..200].to_vec()),
        ("30/org-1/no-id.json", br#"{"request":{},"created_at":"2026-11-01"}"#.to_vec()),
        ("30/org-1/torn.json.gz", gzip(&log(1).to_string())[..40].to_vec()),
    ]
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The files of a store of so many calls; the last of them is packed.
fn files(calls: usize) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = (0..calls).map(|number| (path(number), log(number).to_string().into_bytes())).collect();
    if let Some((_, content)) = files.last_mut() {
        *content = gzip(&log(calls - 1).to_string());
    }
    files
}

fn write(folder: &Path, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Runs the binary; gives the exit code, stdout and stderr.
fn gatelog(folder: &Path, settings: &[(&'static str, String)], args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_")) {
        command.env_remove(name);
    }
    let output = command.envs(settings.iter().map(|(name, value)| (*name, value))).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn import(folder: &Path, settings: &[(&'static str, String)], code: i32, place: &str) -> String {
    let (found, _, stderr) = gatelog(folder, settings, &["import", "--source", "portkey-bucket", place]);
    assert_eq!(found, code, "{stderr}");
    stderr
}

fn rows(folder: &Path, query: &str) -> Vec<Value> {
    let (code, stdout, stderr) = gatelog(folder, &[], &["sql", "--format", "jsonl", query]);
    assert_eq!(code, 0, "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_of_both_path_formats_is_imported_and_what_cannot_be_read_is_told() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let store = home.join("store/sub path");
    write(&store, files(40));
    write(&store, others().into_iter().map(|(path, content)| (path.to_owned(), content)));
    let said = gatelog(home, &[], &["import", "--source", "portkey-bucket", "store", "--rejects", "unread"]);
    assert_eq!(said.0, 1, "{}", said.2);
    assert!(said.2.contains("40 records imported, 0 duplicates, 3 not read; 45 files"), "{}", said.2);
    assert!(said.2.contains("2 files with texts that guardrails found"), "{}", said.2);
    for (path, reason) in [("cut.json", "`json`"), ("no-id.json", "`id`"), ("torn.json.gz", "unpacked")] {
        let line = said.2.lines().find(|line| line.starts_with("not read: ") && line.contains(path));
        assert!(line.is_some_and(|line| line.contains(reason)), "{path}: {}", said.2);
    }
    let unread = fs::read_to_string(home.join("unread")).unwrap();
    assert_eq!(unread.lines().filter(|line| line.contains('\t')).count(), 3, "{unread}");

    let (code, exported, stderr) = gatelog(home, &[], &["export", "--out", "-"]);
    assert_eq!((code, exported.lines().count()), (0, 40), "{stderr}");
    let mut all = exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = all.find(|log| log["id"] == "call-0001").unwrap();
    assert_eq!((&first["id"], &first["cost"]), (&json!("call-0001"), &json!(0.01125)));
    assert_eq!((&first["mode"], &first["last_used_option"]), (&json!("FALLBACK"), &json!("config.targets[1]")));
    assert_eq!((&first["user_id"], &first["workspace_slug"]), (&json!("ann"), &json!("ws-1")));
    assert_eq!(first["created_at"], "2026-11-02T01:30:00.001Z");
    assert_eq!(first["request"]["body"]["messages"][0]["content"], "question 1");
    assert_eq!(first["request"]["headers"], json!({ "authorization": "sk********def", "x-portkey-config": "pc-1" }));
    let untracked = rows(home, "select count(*) as n from logs where do_not_track and request.body is null");
    assert_eq!(untracked, [json!({ "n": 4 })]);
    assert!(gatelog(home, &[], &["import", "--source", "portkey-bucket", "absent"]).0 == 3);
}

#[test]
fn an_import_that_is_run_again_imports_nothing_twice_however_old_the_first_is() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write(&home.join("store"), files(1_500));
    // A window of 0 hours: no id is remembered, as if a day had passed.
    let forgetful = [("GATELOG_DEDUPE_HOURS", "0".to_owned())];
    assert!(import(home, &forgetful, 0, "store").contains("1,500 records imported, 0 duplicates"));
    let said = import(home, &forgetful, 0, "store");
    assert!(said.contains("0 records imported, 1,500 duplicates"), "{said}");
    // The store goes on growing; another organisation has logs of the same ids.
    let mut foreign = log(3);
    for place in ["/organisation_id", "/metrics/organisation_id"] {
        *foreign.pointer_mut(place).unwrap() = json!("org-2");
    }
    let grown = [(path(1_500), log(1_500).to_string()), ("30/org-2/call-0003.json".to_owned(), foreign.to_string())];
    write(&home.join("store"), grown.map(|(path, content)| (path, content.into_bytes())));
    let said = import(home, &forgetful, 0, "store");
    assert!(said.contains("2 records imported, 1,500 duplicates"), "{said}");
    assert_eq!(
        rows(home, "select count(*) as n, count(distinct id) as ids from logs"),
        [json!({ "n": 1_502, "ids": 1_501 })]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_imported() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let weed = weed::shared();
    let name = weed.bucket().await;
    let config = weed.config_for(&name, home);
    let bucket = AmazonS3Builder::new()
        .with_bucket_name(&name)
        .with_endpoint(weed.endpoint())
        .with_allow_http(true)
        .with_access_key_id(config.s3_access_key_id)
        .with_secret_access_key(config.s3_secret_access_key.0)
        .build()
        .unwrap();
    let others = others().into_iter().map(|(path, content)| (path.to_owned(), content));
    for (path, content) in files(60).into_iter().chain(others) {
        put(&bucket, &format!("a/b/{path}"), content).await;
    }
    put(&bucket, "elsewhere/30/o/x.json", b"{}".to_vec()).await;
    let settings = weed.environment();
    tokio::task::block_in_place(|| {
        let said = import(home, &settings, 1, &format!("s3://{name}/a/b"));
        assert!(said.contains("60 records imported, 0 duplicates, 3 not read; 65 files"), "{said}");
        assert!(said.contains("not read: a/b/30/org-1/cut.json: "), "{said}");
        let said = import(home, &settings, 1, &format!("s3://{name}/a"));
        assert!(said.contains("0 records imported, 60 duplicates"), "{said}");
        assert_eq!(rows(home, "select count(*) as n from logs"), [json!({ "n": 60 })]);
    });
}

async fn put(bucket: &dyn ObjectStore, path: &str, content: Vec<u8>) {
    bucket.put(&object_store::path::Path::from(path), PutPayload::from(content)).await.unwrap();
}
