//! `gatelog import --source portkey-bucket`: a Portkey gateway's log store, as a folder and as a
//! bucket.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use super::seaweedfs;

const ORGANISATION: &str = "org-1";

/// The log object of one call.
fn log(number: usize) -> Value {
    let id = format!("call-{number:04}");
    let created_at =
        format!("2026-11-{:02} {:02}:30:00.{:03}", 1 + number % 20, number % 24, number % 1_000);
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
    let mut files: Vec<_> =
        (0..calls).map(|number| (path(number), log(number).to_string().into_bytes())).collect();
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
fn gatelog(
    folder: &Path,
    settings: &[(&'static str, String)],
    args: &[&str],
) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_"))
    {
        command.env_remove(name);
    }
    let output =
        command.envs(settings.iter().map(|(name, value)| (*name, value))).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn import(folder: &Path, settings: &[(&'static str, String)], code: i32, place: &str) -> String {
    let (found, _, stderr) =
        gatelog(folder, settings, &["import", "--source", "portkey-bucket", place]);
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
    let said = gatelog(
        home,
        &[],
        &["import", "--source", "portkey-bucket", "store", "--rejects", "unread"],
    );
    assert_eq!(said.0, 1, "{}", said.2);
    assert!(
        said.2.contains("40 records imported, 0 duplicates, 3 not read; 45 files"),
        "{}",
        said.2
    );
    assert!(said.2.contains("2 files were not imported: guardrail texts"), "{}", said.2);
    for (path, reason) in
        [("cut.json", "`json`"), ("no-id.json", "`id`"), ("torn.json.gz", "unpacked")]
    {
        let line =
            said.2.lines().find(|line| line.starts_with("not read: ") && line.contains(path));
        assert!(line.is_some_and(|line| line.contains(reason)), "{path}: {}", said.2);
    }
    let unread = fs::read_to_string(home.join("unread")).unwrap();
    assert_eq!(unread.lines().filter(|line| line.contains('\t')).count(), 3, "{unread}");

    let (code, exported, stderr) = gatelog(home, &[], &["export", "--out", "-"]);
    assert_eq!((code, exported.lines().count()), (0, 40), "{stderr}");
    let mut all = exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = all.find(|log| log["id"] == "call-0001").unwrap();
    assert_eq!((&first["id"], &first["cost"]), (&json!("call-0001"), &json!(0.01125)));
    assert_eq!(
        (&first["mode"], &first["last_used_option"]),
        (&json!("FALLBACK"), &json!("config.targets[1]"))
    );
    assert_eq!((&first["user_id"], &first["workspace_slug"]), (&json!("ann"), &json!("ws-1")));
    assert_eq!(first["created_at"], "2026-11-02T01:30:00.001Z");
    assert_eq!(first["request"]["body"]["messages"][0]["content"], "question 1");
    assert_eq!(
        first["request"]["headers"],
        json!({ "authorization": "sk********def", "x-portkey-config": "pc-1" })
    );
    let untracked =
        rows(home, "select count(*) as n from logs where do_not_track and request.body is null");
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
    let grown = [
        (path(1_500), log(1_500).to_string()),
        ("30/org-2/call-0003.json".to_owned(), foreign.to_string()),
    ];
    write(&home.join("store"), grown.map(|(path, content)| (path, content.into_bytes())));
    let said = import(home, &forgetful, 0, "store");
    assert!(said.contains("2 records imported, 1,500 duplicates"), "{said}");
    assert_eq!(
        rows(home, "select count(*) as n, count(distinct id) as ids from logs"),
        [json!({ "n": 1_502, "ids": 1_501 })]
    );
}

/// A log store in which everything is wrong that can be, and one good log whose name is not UTF-8.
fn nasty(home: &Path, store: &Path) {
    let raw = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let put = |path: &Path, text: &str| fs::write(path, text).unwrap();
    write(store, files(3));
    put(&store.join(raw(b"good-\xff.json")), &log(10).to_string());
    put(&store.join(raw(b"bad-\xff.json")), "no");
    fs::create_dir(store.join("two\nlines")).unwrap();
    put(&store.join("two\nlines/\u{7}.json"), "no");
    put(&home.join("outside.json"), &log(11).to_string());
    symlink(home, store.join("out")).unwrap();
    symlink(home.join("outside.json"), store.join("out.json")).unwrap();
    symlink(".", store.join("30/round")).unwrap();
    symlink("itself", store.join("itself")).unwrap();
    symlink("../outside.txt", store.join("dangles")).unwrap();
    put(&store.join("notes.txt"), "");
    symlink("notes.txt", store.join("also-notes.txt")).unwrap();
    assert!(Command::new("mkfifo").arg(store.join("pipe.json")).status().unwrap().success());
    // Deeper than any path can name: nobody can read that folder, whoever runs this.
    let deep = |at: &Path| at.join(vec!["d".repeat(200); 11].join("/"));
    fs::create_dir_all(deep(store)).unwrap();
    fs::create_dir_all(deep(&home.join("more"))).unwrap();
    fs::rename(home.join("more"), deep(store).join("more")).unwrap();
    for (number, at) in
        ["0001-01-01 00:00:00", "9999-12-31 23:59:59", "2026-13-45"].into_iter().enumerate()
    {
        let mut odd = log(20 + number);
        for place in ["/created_at", "/metrics/created_at"] {
            *odd.pointer_mut(place).unwrap() = json!(at);
        }
        put(&store.join(format!("odd-{number}.json")), &odd.to_string());
    }
}

#[test]
fn whatever_lies_in_a_folder_is_told_and_stops_nothing() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let store = home.join("store");
    nasty(home, &store);
    let given = store.to_str().unwrap();
    let (code, _, said) =
        gatelog(home, &[], &["import", "--source", "portkey-bucket", given, "--rejects", "unread"]);
    assert_eq!(code, 1, "{said}");
    let unread = fs::read_to_string(home.join("unread")).unwrap();
    for (name, reason) in [
        ("bad-\\xFF.json", "json"),
        ("two\\nlines/\\u{7}.json", "json"),
        ("out", "symbolic link"),
        ("out.json", "symbolic link"),
        ("30/round", "symbolic link"),
        ("itself", "symbolic link"),
        ("dangles", "symbolic link"),
        ("pipe.json", "not a regular file"),
        ("odd-0.json", "`\"0001-01-01 00:00:00\"`"),
        ("odd-1.json", "1970 to 2261"),
        ("odd-2.json", "`\"2026-13-45\"`"),
    ] {
        let path = format!("{given}/{name}");
        let line = unread.lines().find_map(|line| line.strip_prefix(&path)?.strip_prefix('\t'));
        assert!(line.is_some_and(|line| line.contains(reason)), "{name}: {unread}");
        assert!(said.contains(&format!("not read: {path}: ")), "{name}: {said}");
    }
    assert_eq!(
        unread.lines().filter(|line| line.contains("this folder cannot be read")).count(),
        1,
        "{unread}"
    );
    assert!(
        unread.lines().all(|line| line.starts_with(given)) && unread.lines().count() == 12,
        "{unread}"
    );
    assert!(said.contains("4 records imported, 0 duplicates, 12 not read"), "{said}");
    assert_eq!(
        rows(home, "select id from logs where id like '%10'"),
        [json!({ "id": "call-0010" })]
    );
}

#[test]
fn a_packed_file_is_bounded_by_what_comes_out_of_it_whatever_its_name() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let bomb = gzip(&" ".repeat(64 << 10));
    let names = ["a.json", "b.json.gz", "c.json"];
    write(&home.join("store"), names.map(|name| (name.to_owned(), bomb.clone())));
    write(&home.join("store"), files(3));
    let small = [("GATELOG_MAX_RECORD_BYTES", "16384".to_owned())];
    let said = import(home, &small, 1, "store");
    assert!(said.contains("3 records imported, 0 duplicates, 3 not read"), "{said}");
    assert_eq!(said.matches("more than 49152 bytes").count(), 3, "{said}");
}

#[test]
fn what_was_erased_stays_out_of_every_import_and_a_moved_time_makes_no_second_record() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    write(&home.join("store"), files(6));
    let forgetful = [("GATELOG_DEDUPE_HOURS", "0".to_owned())];
    assert!(import(home, &forgetful, 0, "store").contains("6 records imported"));
    let (_, exported, _) = gatelog(home, &[], &["export", "--out", "-"]);
    fs::write(home.join("all.jsonl"), exported).unwrap();
    let erase =
        ["delete", "--org", ORGANISATION, "--id", "call-0001", "--id", "call-0002", "--yes"];
    assert_eq!(gatelog(home, &[], &erase).0, 0);
    // Another gateway wrote its file with another clock.
    let mut moved = log(3);
    for place in ["/created_at", "/metrics/created_at"] {
        *moved.pointer_mut(place).unwrap() = json!("2026-11-05 02:00:00.000");
    }
    write(&home.join("store"), [(path(3), moved.to_string().into_bytes())]);
    let said = import(home, &forgetful, 0, "store");
    assert!(said.contains("2 records were not stored: they were erased on request"), "{said}");
    assert!(said.contains("0 records imported, 4 duplicates"), "{said}");
    let (code, _, said) = gatelog(home, &[], &["import", "all.jsonl"]);
    assert!(
        code == 0 && said.contains("2 records were not stored: they were erased on request"),
        "{said}"
    );
    assert!(said.contains("0 records imported, 4 duplicates, 0 rejected"), "{said}");
    assert_eq!(rows(home, "select count(*) as n from logs"), [json!({ "n": 4 })]);
}

#[test]
fn the_sources_are_named_where_one_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let sources = ["native", "portkey", "litellm", "gateway-hook", "otlp", "portkey-bucket"];
    let (_, help, _) = gatelog(home, &[], &["import", "--help"]);
    let (code, _, unknown) = gatelog(home, &[], &["import", "--source", "langfuse", "x"]);
    assert_eq!(code, 2);
    fs::write(home.join("litellm.jsonl"), r#"{"call_type":"acompletion","model":"m"}"#).unwrap();
    let (code, _, other) = gatelog(home, &[], &["import", "litellm.jsonl"]);
    assert_eq!(code, 1);
    for source in sources {
        assert!(
            source == "native" || help.contains(&format!("--source {source} ")),
            "{source}: {help}"
        );
        assert!(unknown.contains(source) && other.contains(source), "{source}: {unknown} {other}");
    }
    fs::write(home.join("x.parquet"), b"PAR1....").unwrap();
    let (code, _, parquet) = gatelog(home, &[], &["import", "x.parquet"]);
    assert!(code == 2 && parquet.contains("it is Parquet; import reads JSON"), "{parquet}");
    let (code, _, file) =
        gatelog(home, &[], &["import", "--source", "portkey-bucket", "x.parquet"]);
    assert!(code == 2 && file.contains("not a folder"), "{file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_imported() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let weed = seaweedfs::shared();
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
        assert!(said.contains(&format!("not read: s3://{name}/a/b/30/org-1/cut.json: ")), "{said}");
        let said = import(home, &settings, 1, &format!("s3://{name}/a"));
        assert!(said.contains("0 records imported, 60 duplicates"), "{said}");
        assert_eq!(rows(home, "select count(*) as n from logs"), [json!({ "n": 60 })]);
    });
}

async fn put(bucket: &dyn ObjectStore, path: &str, content: Vec<u8>) {
    bucket.put(&object_store::path::Path::from(path), PutPayload::from(content)).await.unwrap();
}
