//! Stores, their copies and their logs: no log is ever flushed into a store that is not its own,
//! and every way to back up, restore and move data keeps each acked record.

mod bucket;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatelog::Config;
use serde_json::Value;

use super::copy::{gatelog, ok};
use super::seaweedfs;

/// A folder to run in, and the settings of every command.
struct Home {
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    bucket: String,
}

impl Home {
    /// Without a bucket.
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), settings: Vec::new(), bucket: String::new() }
    }

    /// With a fresh bucket.
    async fn with_bucket() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Config { data, s3_endpoint, s3_region, s3_access_key_id, s3_secret_access_key, .. } =
            seaweedfs::shared().config(folder.path()).await;
        let settings = [
            ("GATELOG_S3_ENDPOINT", s3_endpoint),
            ("GATELOG_S3_REGION", s3_region),
            ("GATELOG_S3_ACCESS_KEY_ID", s3_access_key_id),
            ("GATELOG_S3_SECRET_ACCESS_KEY", s3_secret_access_key.0),
            ("GATELOG_LEASE_SECONDS", "5".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
        Self { folder, settings, bucket: data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        ok(self.folder.path(), &self.settings, args)
    }

    /// Runs what must fail with this code, and gives its stderr.
    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let (found, stdout, stderr) = gatelog(self.folder.path(), &self.settings, args);
        assert_eq!(found, code, "{args:?}: {stdout}{stderr}");
        stderr
    }

    /// Imports one record, which is in the table afterwards.
    #[track_caller]
    fn import(&self, data: &str, wal: &str, id: &str) {
        fs::write(self.path("one.jsonl"), format!("{{\"id\":\"{id}\"}}\n")).unwrap();
        self.ok(&["--data", data, "--set", &format!("wal={wal}"), "import", "one.jsonl"]);
    }

    /// The ids of a store's records, those in its log among them.
    #[track_caller]
    fn ids(&self, data: &str, wal: &str) -> Vec<String> {
        let wal = format!("wal={wal}");
        let rows = self.ok(&[
            "--data",
            data,
            "--set",
            &wal,
            "sql",
            "--format",
            "csv",
            "select id from logs order by id",
        ]);
        rows.lines().skip(1).map(str::to_owned).collect()
    }

    /// The commands that write must all be refused, and those that read too; the words are in what
    /// they say.
    #[track_caller]
    fn refused(&self, data: &str, wal: &str, words: &[&str]) {
        let wal = format!("wal={wal}");
        fs::write(self.path("refused.jsonl"), "{\"id\":\"refused\"}\n").unwrap();
        let tail: [&[&str]; 6] = [
            &["import", "refused.jsonl"],
            &["maintain", "compact"],
            &["serve", "--listen", "127.0.0.1:0"],
            &["sql", "select count(*) from logs"],
            &["export"],
            &["wal", "adopt", &wal["wal=".len()..]],
        ];
        for tail in tail {
            let said = self.fails(2, &[&["--data", data, "--set", &wal][..], tail].concat());
            for word in words {
                assert!(said.contains(word), "{tail:?} does not say {word}: {said}");
            }
        }
        let said = self.ok_or_problems(&["--data", data, "--set", &wal, "doctor"]);
        assert!(said.contains("error ") && words.iter().all(|word| said.contains(word)), "{said}");
    }

    #[track_caller]
    fn ok_or_problems(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = gatelog(self.folder.path(), &self.settings, args);
        assert!(code < 2, "{args:?}: {stderr}");
        stdout
    }

    /// A server that flushes nothing by itself.
    fn serve(&self, data: &str, wal: &str) -> Server {
        let address_file = self.path("address");
        let _ = fs::remove_file(&address_file);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
        command.args([
            "--data",
            data,
            "--set",
            &format!("wal={wal}"),
            "--set",
            "flush_seconds=3600",
        ]);
        command.args([
            "--set",
            "admin_key=k",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--address-file",
            "address",
        ]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        let mut server = Server { child: command.spawn().unwrap(), address: String::new() };
        let end = Instant::now() + Duration::from_secs(60);
        while !address_file.exists() {
            if server.child.try_wait().unwrap().is_some() {
                let mut said = String::new();
                server.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("the server ended: {said}");
            }
            assert!(Instant::now() < end, "the server does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.address = fs::read_to_string(address_file).unwrap().trim().to_owned();
        server
    }

    /// Has a server ack records that stay in its log, and kills it.
    fn leave_in_log(&self, data: &str, wal: &str, ids: &[&str]) {
        let server = self.serve(data, wal);
        ids.iter().for_each(|id| server.send(id));
        server.kill();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn cp(&self, from: &str, to: &str) {
        let copied =
            Command::new("cp").args(["-r", from, to]).current_dir(self.folder.path()).status();
        assert!(copied.unwrap().success());
    }

    fn catalog(&self, data: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(data).join("catalog.json")).unwrap()).unwrap()
    }

    fn id_of(&self, data: &str) -> String {
        self.catalog(data)["store"]["id"].as_str().unwrap().to_owned()
    }

    /// Takes back what this version writes and the one before it did not.
    fn make_old(&self, data: &str, wal: &str) {
        let path = self.path(data).join("catalog.json");
        let mut catalog = self.catalog(data);
        catalog.as_object_mut().unwrap().remove("store").unwrap();
        fs::write(path, catalog.to_string()).unwrap();
        self.make_old_log(wal);
    }

    fn make_old_log(&self, wal: &str) {
        fs::remove_file(self.path(wal).join("store.json")).unwrap();
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Sends one record; it is acked when this returns.
    fn send(&self, id: &str) {
        let answer = self.post("/v1/ingest", &format!("{{\"id\":\"{id}\"}}"));
        assert!(answer.contains("\"accepted\":1"), "{answer}");
    }

    /// Gives feedback of that id.
    fn feedback(&self, id: &str, value: i32) {
        self.post(
            "/v1/feedback",
            &format!("{{\"id\":\"{id}\",\"trace_id\":\"t\",\"value\":{value}}}"),
        );
    }

    fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nx-portkey-api-key: k\r\nConnection: close"
        );
        let kind = "Content-Type: application/json";
        write!(stream, "{head}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn in_log(folder: &Path) -> bool {
    fs::read_dir(folder)
        .unwrap()
        .any(|entry| entry.unwrap().path().extension().is_some_and(|end| end == "wal"))
}

#[test]
fn a_folder_is_moved_with_its_log_inside_and_confirmed_with_one_outside() {
    let home = Home::new();
    for (name, wal) in [("inside", ""), ("outside", "log")] {
        home.import(name, wal, "a");
        home.leave_in_log(name, wal, &["b"]);
        let moved = format!("moved-{name}");
        home.rename(name, &moved);
        if wal.is_empty() {
            assert_eq!(home.ids(&moved, wal), ["a", "b"]);
            home.import(&moved, wal, "c");
            assert_eq!(home.ids(&moved, wal), ["a", "b", "c"]);
            continue;
        }
        let places = [home.path(name).canonicalize(), home.path(&moved).canonicalize()];
        assert!(places[0].is_err());
        let now = places[1].as_ref().unwrap().display().to_string();
        let before = now.replace("moved-", "");
        // The remedy works as it is printed.
        let remedy = format!("gatelog wal rebind --data {moved} --set wal={wal}");
        let words = [format!("at `{before}`"), format!("this is `{now}`"), format!("`{remedy}`")];
        home.refused(&moved, wal, &words.each_ref().map(String::as_str));
        let rebind: Vec<&str> = remedy.split(' ').skip(1).chain(["--format", "json"]).collect();
        let said: Value = serde_json::from_str(&home.ok(&rebind)).unwrap();
        assert_eq!(
            (said["before"].as_str(), said["place"].as_str()),
            (Some(before.as_str()), Some(now.as_str()))
        );
        let again: Value = serde_json::from_str(&home.ok(&rebind)).unwrap();
        assert!(again["before"].is_null(), "{again}");
        assert_eq!(home.ids(&moved, wal), ["a", "b"]);
        home.import(&moved, wal, "c");
        assert_eq!(home.ids(&moved, wal), ["a", "b", "c"]);
    }
    // A link to the folder is the same place.
    std::os::unix::fs::symlink(home.path("moved-outside"), home.path("link")).unwrap();
    home.import("link", "log", "d");
    assert_eq!(home.ids("moved-outside", "log"), ["a", "b", "c", "d"]);
    let said = home.fails(3, &["--data", "link", "--set", "wal=nowhere", "wal", "rebind"]);
    assert!(said.contains("no write-ahead log in `"), "{said}");
}

#[test]
fn a_plain_copy_of_a_folder_has_its_own_log_and_not_that_of_the_original() {
    let home = Home::new();
    home.import("data", "", "a");
    home.leave_in_log("data", "", &["b"]);
    home.cp("data", "twin");
    // Each goes on for itself.
    home.import("twin", "", "t");
    home.import("data", "", "c");
    assert_eq!(home.ids("twin", ""), ["a", "b", "t"]);
    assert_eq!(home.ids("data", ""), ["a", "b", "c"]);
    // With the log outside the copy has none, and may not use that of the original.
    home.import("far", "log", "a");
    home.leave_in_log("far", "log", &["b"]);
    home.cp("far", "far-twin");
    home.refused(
        "far-twin",
        "log",
        &["if this is a copy, name another folder with the setting `wal`"],
    );
    home.import("far-twin", "", "t");
    assert_eq!(home.ids("far-twin", ""), ["a", "t"]);
    home.import("far", "log", "c");
    assert_eq!(home.ids("far", "log"), ["a", "b", "c"]);
    // Copied back over the original, the original has its log again.
    fs::remove_dir_all(home.path("data")).unwrap();
    home.cp("twin", "data");
    assert_eq!(home.ids("data", ""), ["a", "b", "t"]);
}

#[test]
fn a_copy_restored_over_the_original_leaves_it_its_log() {
    let home = Home::new();
    for (data, wal) in [("data", ""), ("far", "log")] {
        home.import(data, wal, "a");
        let (id, backup) = (home.id_of(data), format!("backup-of-{data}"));
        home.ok(&["copy", data, &backup, "--set", &format!("wal={wal}")]);
        let copied = home.catalog(&backup);
        assert_ne!(home.id_of(&backup), id);
        assert_eq!(copied["store"]["copy_of"], serde_json::json!([id]));
        home.leave_in_log(data, wal, &["b"]);
        // Half of the original is lost: its records and its catalog.
        if wal.is_empty() {
            fs::remove_dir_all(home.path(data).join("logs")).unwrap();
            fs::remove_dir_all(home.path(data).join("feedback")).unwrap();
            fs::remove_file(home.path(data).join("catalog.json")).unwrap();
        } else {
            fs::remove_dir_all(home.path(data)).unwrap();
        }
        home.ok(&["copy", &backup, data, "--set", &format!("wal={wal}")]);
        assert_eq!(home.id_of(data), id, "{data}: it is the original again");
        assert_eq!(home.ids(data, wal), ["a", "b"], "{data}: with what was acked since");
        home.import(data, wal, "c");
        assert_eq!(home.ids(data, wal), ["a", "b", "c"]);
        assert_eq!(home.ids(&backup, ""), ["a"]);
        // A store that is neither is not written over.
        home.import("stranger", "", "s");
        let said = home.fails(2, &["copy", &backup, "stranger"]);
        assert!(said.contains("give an empty folder or prefix"), "{said}");
        assert_eq!(home.ids("stranger", ""), ["s"]);
    }
}

#[test]
fn a_backup_of_before_there_were_uuids_is_restored_over_the_original() {
    let home = Home::new();
    for (data, wal) in [("data", ""), ("far", "log")] {
        home.import(data, wal, "a");
        let backup = format!("backup-of-{data}");
        home.ok(&["copy", data, &backup, "--set", &format!("wal={wal}")]);
        let mut catalog = home.catalog(&backup);
        catalog.as_object_mut().unwrap().remove("store").unwrap();
        fs::write(home.path(&backup).join("catalog.json"), catalog.to_string()).unwrap();
        let id = home.id_of(data);
        home.leave_in_log(data, wal, &["b"]);
        // The original lost a file.
        fs::remove_dir_all(home.path(data).join("logs/retention_days=0")).unwrap();
        home.ok(&["copy", &backup, data, "--set", &format!("wal={wal}")]);
        assert_eq!(home.id_of(data), id);
        assert_eq!(home.ids(data, wal), ["a", "b"]);
    }
    // Its own log outside, though of before, is flushed into what is copied.
    home.import("old", "old-log", "a");
    home.leave_in_log("old", "old-log", &["b"]);
    home.make_old("old", "old-log");
    home.ok(&["copy", "old", "to", "--set", "wal=old-log"]);
    assert_eq!(home.ids("to", ""), ["a", "b"]);
}

#[test]
fn after_a_restore_of_an_older_backup_the_rest_of_the_log_is_adopted() {
    let home = Home::new();
    for (data, wal, log) in [("data", "", "data/wal"), ("far", "log", "log")] {
        home.import(data, wal, "a");
        let (setting, backup) = (format!("wal={wal}"), format!("backup-of-{data}"));
        home.ok(&["copy", data, &backup, "--set", &setting]);
        home.import(data, wal, "in the lost table");
        home.leave_in_log(data, wal, &["b"]);
        let said = home.fails(2, &["copy", &backup, data, "--set", &setting]);
        assert!(said.contains("give an empty folder or prefix"), "the original is newer: {said}");
        for lost in ["logs", "feedback"] {
            fs::remove_dir_all(home.path(data).join(lost)).unwrap();
        }
        home.ok(&["copy", &backup, data, "--set", &setting]);
        let said = home.fails(5, &["--data", data, "--set", &setting, "import", "one.jsonl"]);
        assert!(said.contains("a segment is missing"), "{said}");
        home.fails(5, &["--data", data, "wal", "adopt", log]);
        let said =
            home.ok(&["--data", data, "wal", "adopt", log, "--after-loss", "--format", "json"]);
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["rows"], 1);
        assert_eq!(home.ids(data, wal), ["a", "b"]);
        home.import(data, wal, "c");
        assert_eq!(home.ids(data, wal), ["a", "b", "c"]);
    }
}

#[test]
fn two_restores_of_one_backup_are_two_stores() {
    let home = Home::new();
    home.import("data", "", "a");
    home.ok(&["copy", "data", "backup"]);
    home.ok(&["copy", "backup", "one"]);
    home.ok(&["copy", "backup", "two"]);
    let ids = ["data", "backup", "one", "two"].map(|data| home.id_of(data));
    assert!((0..4).all(|at| ids[at + 1..].iter().all(|other| *other != ids[at])), "{ids:?}");
    home.import("one", "log", "b");
    home.leave_in_log("one", "log", &["c"]);
    home.refused("two", "log", &["is of other data", &ids[2], &ids[3]]);
    home.import("two", "", "d");
    assert_eq!(home.ids("one", "log"), ["a", "b", "c"]);
    assert_eq!(home.ids("two", ""), ["a", "d"]);
}

#[test]
fn a_copy_that_was_broken_off_is_no_store_until_it_is_whole() {
    let home = Home::new();
    home.import("data", "", "a");
    home.ok(&["copy", "data", "backup"]);
    let id = home.id_of("backup");
    // As if broken off after the first object.
    let mut catalog = home.catalog("backup");
    catalog["store"]["unfinished"] = true.into();
    fs::write(home.path("backup/catalog.json"), catalog.to_string()).unwrap();
    fs::remove_dir_all(home.path("backup/logs")).unwrap();
    let reads: [&[&str]; 7] = [
        &["sql", "select 1"],
        &["export"],
        &["maintain", "status"],
        &["import", "one.jsonl"],
        &["org", "list"],
        &["org", "create", "acme", "--plan", "enterprise"],
        &["copy", "backup", "other"],
    ];
    for read in reads {
        let said = home.fails(3, &[&["--data", "backup"], read].concat());
        assert!(
            said.contains("was interrupted") && said.contains("run the same `gatelog copy FROM "),
            "{read:?}: {said}"
        );
    }
    home.ok(&["copy", "data", "backup"]);
    assert_eq!(home.ids("backup", ""), ["a"]);
    assert_eq!(home.id_of("backup"), id);
}

#[test]
fn folders_of_before_there_were_uuids_open_as_they_did() {
    let home = Home::new();
    for (data, wal, log) in [("in", "", "in/wal"), ("out", "log", "log")] {
        home.import(data, wal, "a");
        home.leave_in_log(data, wal, &["b"]);
        home.make_old(data, log);
        assert_eq!(home.ids(data, wal), ["a", "b"], "read before anything is written");
        assert!(home.catalog(data)["store"].is_null(), "{data}");
        home.import(data, wal, "c");
        assert!(!in_log(&home.path(log)));
        assert_eq!(home.ids(data, wal), ["a", "b", "c"]);
        home.refused_for_another(wal);
        let id = home.id_of(data);
        // An old catalog that is put back is named by the log.
        let mut catalog = home.catalog(data);
        catalog.as_object_mut().unwrap().remove("store");
        fs::write(home.path(data).join("catalog.json"), catalog.to_string()).unwrap();
        home.import(data, wal, "d");
        assert_eq!(home.id_of(data), id);
        // Without any catalog, as a folder without organisations was.
        home.make_old(data, log);
        fs::remove_file(home.path(data).join("catalog.json")).unwrap();
        fs::remove_file(home.path(log).join("catalog")).unwrap();
        assert_eq!(home.ids(data, wal), ["a", "b", "c", "d"]);
        home.import(data, wal, "e");
        assert_eq!(home.ids(data, wal), ["a", "b", "c", "d", "e"]);
        home.id_of(data);
    }
}

impl Home {
    /// The log of one store is refused for a fresh one.
    #[track_caller]
    fn refused_for_another(&self, wal: &str) {
        if !wal.is_empty() {
            let said = self.fails(
                2,
                &["--data", "fresh", "--set", &format!("wal={wal}"), "import", "one.jsonl"],
            );
            assert!(said.contains("is of other data"), "{said}");
            assert!(
                !self.path("fresh/catalog.json").exists() && !self.path("fresh/logs").exists(),
                "nothing was made"
            );
        }
    }
}
