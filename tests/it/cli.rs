//! The built binary, run as a person or a script runs it: exit codes, what goes to stdout and what
//! to stderr, whole files.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// A folder of its own to run in.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The binary in this folder, without any setting of the machine that runs the tests.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_"))
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args))
    }

    /// Runs what must succeed, and gives its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.text()
    }

    /// Runs what must fail with this code, and gives its stderr.
    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        crate::said::once(&ran.stderr);
        ran.stderr
    }

    fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// One number that a query answers with.
    #[track_caller]
    fn number(&self, query: &str) -> i64 {
        let rows = self.ok(&["sql", "--format", "csv", query]);
        rows.lines().nth(1).unwrap_or_else(|| panic!("{query} gave {rows}")).parse().unwrap()
    }

    /// A server over `gatelog-data`, on a free port.
    pub(crate) fn serve(&self) -> Server {
        self.serve_on("127.0.0.1:0", "k")
            .unwrap_or_else(|ran| panic!("the server does not come up: {ran:?}"))
    }

    /// A server that listens on an address with an admin key, or what it said when it did not
    /// start.
    fn serve_on(&self, listen: &str, key: &str) -> Result<Server, Ran> {
        let _ = fs::remove_file(self.path("address"));
        let mut command = self.command(&["serve", "--listen", listen, "--address-file", "address"]);
        let child = command.env("GATELOG_ADMIN_KEY", key).stderr(Stdio::piped()).spawn().unwrap();
        let mut server = Server { child, address: String::new() };
        let end = Instant::now() + Duration::from_secs(120);
        while !self.path("address").exists() {
            if let Some(status) = server.child.try_wait().unwrap() {
                let mut stderr = String::new();
                server.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                return Err(Ran { code: status.code(), stdout: Vec::new(), stderr });
            }
            assert!(Instant::now() < end, "the server neither comes up nor ends");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.address = self.read("address").trim().to_owned();
        Ok(server)
    }
}

impl Ran {
    fn of(mut command: Command) -> Self {
        Self::from(command.output().unwrap())
    }

    fn from(output: std::process::Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    fn text(self) -> String {
        String::from_utf8(self.stdout).unwrap()
    }
}

/// A running server; ended when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `count` records with ids `PREFIX-0`, …, a minute apart.
fn records(prefix: &str, count: usize) -> String {
    let record = |number: usize| {
        let record = json!({
            "id": format!("{prefix}-{number}"),
            "created_at": format!("2026-11-{:02}T{:02}:{:02}:00Z", 10 + number / 1_440, number / 60 % 24, number % 60),
            "organisation_id": "acme",
            "ai_model": if number.is_multiple_of(2) { "small" } else { "large" },
            "cost": number as f64 / 8.0,
            "is_success": 1,
            "metadata": {"_user": "ann", "n": number.to_string()},
            "request": {"body": {"model": "small", "messages": [{"role": "user", "content": "say \"hi\"\nto 'é'"}]}},
            "response": {"body": {"choices": []}},
        });
        format!("{record}\n")
    };
    (0..count).map(record).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn help_teaches_every_command() {
    let home = Home::new();
    let help = home.ok(&["help"]);
    assert!(help.contains("Exit codes:"), "{help}");
    let verbs = "demo serve import sql report export refusals copy org key delete maintain wal doctor config";
    for verb in verbs.split(' ') {
        assert!(help.contains(verb), "`gatelog help` does not say {verb}");
        let help = home.ok(&[verb, "--help"]);
        assert!(help.contains("Examples:") && help.contains("--data"), "{verb}: {help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{verb}: a line is too long");
    }
    assert!(home.ok(&["--version"]).starts_with("gatelog "));
}

#[test]
fn every_exit_code_means_what_help_says() {
    let home = Home::new();
    let usage: [&[&str]; 10] = [
        &["serv"],
        &["sql", "--format", "xml", "select 1"],
        &["config", "--set", "flush_secs=1"],
        &["config", "--set", "flush_seconds"],
        &["config", "--set", "flush_seconds=soon"],
        &["config", "--set", "memory=1MiB"],
        &["export", "--format", "csv"],
        &["export", "--resume"],
        &["report", "latency", "--param", "colour=red"],
        &["report", "latency", "--from", "yesterday"],
    ];
    for args in usage {
        let stderr = home.fails(2, args);
        assert_eq!(stderr.matches("error: ").count(), 1, "{args:?}: {stderr}");
    }
    let absent: [&[&str]; 9] = [
        &["sql", "select 1"],
        &["report", "latency"],
        &["report", "no_such_report"],
        &["export"],
        &["doctor"],
        &["maintain", "status"],
        &["maintain", "vacuum"],
        &["import", "absent.jsonl"],
        &["config", "--config", "absent.toml"],
    ];
    for args in absent {
        let stderr = home.fails(3, args);
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    }
    assert!(!home.path("gatelog-data").exists(), "a command that reads has made the folder");
    // What is wrong, and what to type instead.
    for (code, args, words) in [
        (3, &["sql", "select 1"][..], "gatelog-data`; name the one that has the data (`--data`)"),
        (
            2,
            &["config", "--set", "flush_secs=1"],
            "--set: setting `flush_secs` is unknown; did you mean `flush_seconds`?",
        ),
        (2, &["serve", "--listen", "here"], "`here`; expected ADDRESS:PORT such as 127.0.0.1:8080"),
    ] {
        let stderr = home.fails(code, args);
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }

    home.write("a.jsonl", records("a", 3));
    home.ok(&["import", "a.jsonl"]);
    let stderr = home.fails(2, &["sql", "select no_such_column from logs"]);
    assert!(stderr.starts_with("error: ") && stderr.contains("no_such_column"), "{stderr}");
    home.fails(2, &["sql", "delete from logs"]);
    home.fails(2, &["sql", " ; "]);
    home.fails(2, &["export", "--columns", "no_such_column"]);
}

#[test]
fn import_takes_plain_and_packed_files_and_stdin() {
    let home = Home::new();
    home.write("plain.jsonl", records("plain", 50));
    home.write("packed.gz.txt", [gzip(&records("gz", 30)), gzip(&records("gz2", 30))].concat());
    home.write("packed", zstd::encode_all(records("zst", 70).as_bytes(), 3).unwrap());
    let array: Vec<Value> =
        records("array", 20).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    home.write("array.json", serde_json::to_string_pretty(&array).unwrap());
    let ran = home.run(&["import", "plain.jsonl", "packed.gz.txt", "packed", "array.json"]);
    assert_eq!((ran.code, ran.stdout.len()), (Some(0), 0), "{ran:?}");
    assert!(ran.stderr.contains("200 records imported, 0 duplicates, 0 rejected"), "{ran:?}");

    let ran = home.run_with_stdin(&["import", "-"], gzip(&records("stdin", 40)).as_slice());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(home.number("select count(*) from logs"), 240);
    assert_eq!(home.number("select count(distinct id) from logs"), 240);

    let ran = home.run(&["import", "plain.jsonl"]);
    assert!(ran.stderr.contains("0 records imported, 50 duplicates"), "{ran:?}");
    assert_eq!(home.number("select count(*) from logs"), 240);
    assert_eq!(home.run(&["-q", "import", "plain.jsonl"]).stderr, "");
}

#[test]
fn import_tells_what_it_rejects_and_keeps_it_for_mending() {
    let home = Home::new();
    let good = records("good", 30);
    let bad = (0..25).map(|number| format!("{{\"id\":\"bad-{number}\",\"req_units\":\"many\"}}\n"));
    home.write(
        "mixed.jsonl",
        good.clone() + &bad.collect::<String>() + "not json\n" + &records("more", 5),
    );
    let ran = home.run(&["import", "mixed.jsonl", "--rejects", "rejects.jsonl"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("35 records imported, 0 duplicates, 26 rejected"), "{ran:?}");
    assert!(
        ran.stderr.contains(
            "mixed.jsonl: line 31 (record 30): field `req_units` is `\"many\"`; expected "
        ),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.matches("rejected: ").count(), 20, "{ran:?}");
    let rejects = home.read("rejects.jsonl");
    assert_eq!(rejects.lines().count(), 26);
    assert_eq!(rejects.lines().last(), Some("not json"));

    home.write("mended.jsonl", rejects.replace("\"many\"", "7").replace("not json\n", ""));
    home.ok(&["import", "mended.jsonl", "--rejects", "rejects.jsonl"]);
    assert_eq!(home.number("select count(*) from logs"), 60);
    assert_eq!(home.read("rejects.jsonl"), "");

    let mut torn = gzip(&records("torn", 5_000));
    torn.truncate(torn.len() / 2);
    home.write("torn.gz", torn);
    let stderr = home.fails(2, &["import", "torn.gz"]);
    assert!(stderr.contains("cannot read `torn.gz` to its end"), "{stderr}");
    let kept = home.number("select count(*) from logs where starts_with(id, 'torn')");
    assert!(kept > 0 && kept < 5_000, "{kept} of the readable records are kept");
}

#[test]
fn import_reads_portkeys_shape() {
    let home = Home::new();
    let call = |user: &str| {
        let url = "https://api.openai.com/v1/chat/completions";
        let request = json!({"url": url, "body": {"model": "gpt-5.4"}, "provider": "openai"});
        json!({"request": request, "response": {"status": 200, "body": {}}, "metadata": {"_user": user}})
    };
    home.write("portkey.jsonl", format!("{}\n[{},{}]\n", call("ann"), call("bo"), call("cy")));
    home.ok(&["import", "--source", "portkey", "portkey.jsonl"]);
    assert_eq!(
        home.number("select count(*) from logs where ai_model = 'gpt-5.4' and is_success = 1"),
        3
    );
    // A line is a request, whose records share a trace; another line is another one.
    assert_eq!(home.number("select count(distinct trace_id) from logs"), 2);
    home.fails(2, &["import", "--source", "syslog", "portkey.jsonl"]);
}

#[test]
fn sql_answers_in_every_format() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 5));
    home.ok(&["import", "a.jsonl"]);
    let query = "select id, cost, metadata, created_at from logs order by id limit 2";

    let table = home.ok(&["sql", query]);
    assert!(table.starts_with("+-----+") && table.contains("| a-1 | 0.125 | "), "{table}");
    let rows: Vec<Value> =
        serde_json::from_str(&home.ok(&["sql", "--format", "json", query])).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["metadata"], json!({"_user": "ann", "n": "1"}));
    let lines = home.ok(&["sql", "--format", "jsonl", query]);
    assert_eq!(
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>(),
        rows
    );
    let csv = home.ok(&["sql", "--format", "csv", query]);
    assert!(csv.starts_with("id,cost,metadata,created_at\na-0,0.0,"), "{csv}");

    home.ok(&["sql", "--format", "parquet", "--out", "a.parquet", query]);
    let parquet =
        ParquetRecordBatchReaderBuilder::try_new(fs::File::open(home.path("a.parquet")).unwrap())
            .unwrap();
    assert_eq!(parquet.metadata().file_metadata().num_rows(), 2);
    let piped = home.run(&["sql", "--format", "parquet", query]);
    assert!(piped.stdout.starts_with(b"PAR1") && piped.stdout.ends_with(b"PAR1"));

    let empty = "select id from logs where id = 'absent'";
    assert_eq!(home.ok(&["sql", "--format", "json", empty]), "[]\n");
    assert_eq!(home.ok(&["sql", "--format", "jsonl", empty]), "");
    assert_eq!(home.ok(&["sql", "--format", "csv", empty]), "id\n");
    assert_eq!(home.ok(&["sql", empty]).lines().count(), 4);
}

#[test]
fn sql_takes_files_stdin_parameters_and_several_statements() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 40));
    home.ok(&["import", "a.jsonl"]);
    home.write("two.sql", "-- a comment; with a semicolon\nselect ';' as a; select 2 as b");
    assert_eq!(home.ok(&["sql", "--format", "csv", "-f", "two.sql"]), "a\n;\nb\n2\n");
    let ran =
        home.run_with_stdin(&["sql", "--format", "csv"], b"select count(*) as n from logs;\n");
    assert_eq!(ran.text(), "n\n40\n");
    home.fails(2, &["sql", "-f", "two.sql", "--out", "two.csv", "--format", "csv"]);
    assert!(!home.path("two.csv").exists());

    let query = "select count(*) as n from logs where ai_model = $model and cost < $most";
    let args = ["sql", "--format", "csv", "--param", "model=small", "--param", "most=2.0", query];
    assert_eq!(home.ok(&args), "n\n8\n");
    let stderr = home.fails(2, &["sql", query]);
    assert!(stderr.contains("model") || stderr.contains("most"), "{stderr}");

    let ran = home.run(&["sql", "--max-rows", "3", "select id from logs"]);
    assert_eq!(ran.stdout.iter().filter(|byte| **byte == b'\n').count(), 4 + 3, "{ran:?}");
    assert!(ran.stderr.contains("the first 3 rows"), "{ran:?}");
    assert!(home.ok(&["sql", "show tables"]).contains("logs"));
    assert!(home.ok(&["sql", "describe logs"]).contains("retry_success_count"));
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 4_000));
    home.ok(&["import", "a.jsonl"]);
    for args in [
        &["export"][..],
        &["sql", "--format", "csv", "select * from logs"],
        &["sql", "--max-rows", "0", "select * from logs"],
    ] {
        let mut child =
            home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        // The reader is dropped, and with it the pipe, as `head -1` would.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.len() > 10);
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let home = Home::new();
    home.write(
        "gatelog.toml",
        "flush_seconds = 5\nquery_concurrency = 3\nadmin_key = 'do-not-show'\n",
    );
    let mut command =
        home.command(&["config", "--data", "elsewhere", "--set", "query_concurrency=9"]);
    command.env("GATELOG_QUERY_CONCURRENCY", "4").env("GATELOG_ZSTD_LEVEL", "7");
    let printed = Ran::of(command).text();
    for words in [
        "from: file\nflush_seconds = 5\n",
        "from: flag\nquery_concurrency = 9\n",
        "from: environment\nzstd_level = 7\n",
        "from: flag\ndata = \"elsewhere\"\n",
        "from: default\n# listen = \"127.0.0.1:8080\"\n",
    ] {
        assert!(printed.contains(words), "{words} is not in {printed}");
    }
    assert!(!printed.contains("do-not-show"));
    home.write("saved.toml", &printed);
    let again = home.ok(&["config", "--config", "saved.toml", "--format", "table"]);
    assert!(
        again.lines().any(|line| line.starts_with("zstd_level") && line.contains("  7  ")),
        "{again}"
    );

    home.write("gatelog.toml", "flush_secs = 5\n");
    let stderr = home.fails(2, &["config"]);
    assert!(
        stderr.contains("`flush_secs` is unknown") && stderr.contains("gatelog.toml"),
        "{stderr}"
    );
    let mut command = home.command(&["config", "--config", "saved.toml"]);
    command.env("GATELOG_FLUSH_SECS", "5");
    let ran = Ran::of(command);
    // An unknown variable is one warning, a service's are none, a near miss of what matters most is
    // an error.
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(0), 1), "{ran:?}");
    assert!(
        ran.stderr.contains("`GATELOG_FLUSH_SECS` (nearest: `GATELOG_FLUSH_SECONDS`) ignored"),
        "{ran:?}"
    );
    let mut command = home.command(&["config", "--config", "saved.toml"]);
    command.env("GATELOG_PORT", "tcp://10.96.0.7:8790").env("GATELOG_SERVICE_HOST", "10.96.0.7");
    let ran = Ran::of(command);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let mut command = home.command(&["config", "--config", "saved.toml"]);
    command.env("GATELOG_DATA_DIR", "/data");
    let ran = Ran::of(command);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{ran:?}");
    assert!(ran.stderr.contains("did you mean `GATELOG_DATA`?"), "{ran:?}");
}

#[test]
fn an_export_can_be_imported_and_exported_again() {
    let home = Home::new();
    home.ok(&[
        "demo",
        "--records",
        "3000",
        "--end",
        "2026-11-20T00:00:00Z",
        "--no-serve",
        "--data",
        "one",
    ]);
    home.ok(&["export", "--data", "one", "--out", "one.jsonl"]);
    home.ok(&["import", "--data", "two", "one.jsonl"]);
    home.ok(&["export", "--data", "two", "--out", "two.jsonl"]);
    let one = home.read("one.jsonl");
    assert_eq!(one.lines().count(), 3_000);
    assert!(one == home.read("two.jsonl"), "the second export differs");
    assert!(!home.path("one.jsonl.partial").exists());
    assert_eq!(home.ok(&["export", "--data", "two"]), one);
    // Many organisations a day: the place to go on from is found all the same.
    home.write("half.jsonl.partial", &one.as_bytes()[..one.len() / 2]);
    home.ok(&["export", "--data", "two", "--out", "half.jsonl", "--resume"]);
    assert!(home.read("half.jsonl") == one, "the resumed export differs");

    let lines = home.ok(&[
        "export",
        "--data",
        "two",
        "--columns",
        "cost,ai_model,request.body",
        "--limit",
        "5",
    ]);
    assert_eq!(lines.lines().count(), 5);
    assert!(lines.lines().all(|line| line.starts_with("{\"cost\":")), "{lines}");
    let day = home.ok(&[
        "export",
        "--data",
        "two",
        "--from",
        "2026-11-18",
        "--to",
        "2026-11-19",
        "--columns",
        "created_at",
    ]);
    assert!(
        day.lines().count() > 100 && day.lines().all(|line| line.contains("\"2026-11-18T")),
        "{day}"
    );
}

#[test]
fn an_export_goes_on_behind_any_id_and_takes_moments_in_any_spelling() {
    let home = Home::new();
    let ids = [" x ", "x", "a, b ", "\tq\n", "x,acme", ","];
    let record = |id: &&str| json!({ "id": id, "created_at": "2026-11-21T16:26:58.758Z", "organisation_id": "acme" });
    let records: String = ids.iter().map(|id| format!("{}\n", record(id))).collect();
    home.write("a.jsonl", records);
    home.ok(&["import", "a.jsonl"]);
    for columns in ["id,created_at,organisation_id", "id,created_at"] {
        let export = ["export", "--columns", columns, "--out"];
        home.ok(&[&export[..], &["whole.jsonl"]].concat());
        let whole = home.read("whole.jsonl");
        assert_eq!(whole.lines().count(), ids.len());
        for (end, _) in whole.match_indices('\n') {
            home.write("part.jsonl.partial", &whole[..=end]);
            home.ok(&[&export[..], &["part.jsonl", "--resume"]].concat());
            assert_eq!(home.read("part.jsonl"), whole, "behind {:?}", whole[..end].lines().last());
        }
    }
    for (from, rows) in [
        ("2026-11-21T17:26:58.758+0100", 6),
        ("2026-11-21 17:26:58,758 +01", 6),
        ("1.795278418758e9", 6),
        ("1795278418759", 0),
    ] {
        let lines = home.ok(&["export", "--from", from, "--columns", "id"]);
        assert_eq!(lines.lines().count(), rows, "{from}");
    }
    let stderr = home.fails(2, &["export", "--from", "2026-11-21T17:26:58+1"]);
    assert!(stderr.contains("`from` is `2026-11-21T17:26:58+1`"), "{stderr}");
    home.ok(&[
        "demo",
        "--records",
        "10",
        "--end",
        "2026-11-20 01:00 +01",
        "--no-serve",
        "--data",
        "one",
    ]);
    home.fails(2, &["demo", "--records", "10", "--end", "2026", "--no-serve", "--data", "two"]);
}

#[test]
fn a_stopped_export_goes_on_behind_its_last_whole_line() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 300));
    home.ok(&["import", "a.jsonl"]);
    home.ok(&["export", "--out", "whole.jsonl"]);
    let whole = home.read("whole.jsonl");
    let middle = whole.len() / 2;

    // Stopped half-way: the unfinished file ends in the middle of a line.
    home.write("a.out.partial", &whole[..middle]);
    home.ok(&["export", "--out", "a.out", "--resume"]);
    assert!(home.read("a.out") == whole && !home.path("a.out.partial").exists());
    // A finished file is gone on with in its place; here nothing is new.
    home.ok(&["export", "--out", "a.out", "--resume"]);
    assert!(home.read("a.out") == whole);
    home.write("a.out", &whole[..middle]);
    home.ok(&["export", "--out", "a.out", "--resume"]);
    assert!(home.read("a.out") == whole);
    // Nothing there: as without the flag.
    home.ok(&["export", "--out", "b.out", "--resume"]);
    assert!(home.read("b.out") == whole);

    home.write("c.out", "{\"cost\":1}\n");
    let stderr = home.fails(2, &["export", "--out", "c.out", "--resume"]);
    assert!(stderr.contains("cannot be resumed"), "{stderr}");
    let stderr = home.fails(2, &["export", "--columns", "cost", "--out", "c.out", "--resume"]);
    assert!(stderr.contains("--columns lacks `created_at`"), "{stderr}");
    assert_eq!(home.read("c.out"), "{\"cost\":1}\n");
    home.fails(2, &["export", "--columns", "nothing", "--out", "d.out"]);
    assert!(!home.path("d.out").exists() && !home.path("d.out.partial").exists());
}

#[test]
fn doctor_finds_a_damaged_file() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 50));
    home.ok(&["import", "a.jsonl"]);
    // What a merge or an erasure left for vacuum is as it should be.
    home.write("gatelog-data/logs/left.parquet", "left");
    let findings = home.ok(&["doctor"]);
    assert!(findings.lines().all(|line| line.starts_with("ok")), "{findings}");
    assert!(
        findings.contains("1 files, 4 bytes, belong to no current version; vacuum deletes them"),
        "{findings}"
    );
    fs::remove_file(home.path("gatelog-data/logs/left.parquet")).unwrap();
    let findings: Vec<Value> =
        serde_json::from_str(&home.ok(&["doctor", "--format", "json"])).unwrap();
    assert!(findings.iter().all(|finding| finding["severity"] == "ok"), "{findings:?}");

    let file = find(&home.path("gatelog-data/logs"), "parquet").expect("a table file");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let ran = home.run(&["doctor"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.text().lines().any(|line| line.starts_with("error")));
}

fn find(folder: &Path, extension: &str) -> Option<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            find(&path, extension)
        } else {
            (path.extension() == Some(OsStr::new(extension))).then_some(path)
        }
    })
}

#[test]
fn the_demo_has_something_to_show() {
    let home = Home::new();
    let ran = home.run(&["demo", "--records", "3000", "--no-serve"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("export GATELOG_KEY=")
            && ran.stderr.contains("gatelog report status_counts"),
        "{ran:?}"
    );
    let ran = home.run(&["demo", "--no-serve"]);
    assert!(ran.stderr.contains("already has 3,000 records"), "{ran:?}");
    assert_eq!(ran.code, Some(0));

    let list = home.ok(&["report"]);
    let names: Vec<&str> =
        list.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert!(names.len() >= 5, "{list}");
    for name in names {
        let rows = home.ok(&["report", name, "--data", "gatelog-demo", "--format", "jsonl"]);
        assert!(!rows.is_empty(), "report {name} has no rows");
    }
    let one = home.ok(&[
        "report",
        "spend_by_model",
        "--data",
        "gatelog-demo",
        "--format",
        "csv",
        "--to",
        "2020-01-01",
    ]);
    assert_eq!(one.lines().count(), 1, "{one}");

    let twice: Vec<String> = (0..2)
        .map(|_| {
            home.ok(&["demo", "--records", "50", "--end", "2026-11-20T00:00:00Z", "--jsonl", "-"])
        })
        .collect();
    assert_eq!(twice[0], twice[1]);
    assert_eq!(twice[0].lines().count(), 50);
}

#[test]
fn maintenance_runs_by_hand() {
    let home = Home::new();
    for part in ["a", "b", "c"] {
        home.write("part.jsonl", records(part, 30));
        home.ok(&["import", "part.jsonl"]);
    }
    let status = |home: &Home| {
        serde_json::from_str::<Value>(&home.ok(&["maintain", "status", "--format", "json"]))
            .unwrap()
    };
    let before = status(&home);
    let planned: Value =
        serde_json::from_str(&home.ok(&["maintain", "compact", "--dry-run", "--format", "json"]))
            .unwrap();
    assert_eq!((&planned["job"], &planned["dry_run"]), (&json!("compact"), &json!(true)));
    assert_eq!(status(&home)["files"], before["files"]);
    for job in ["compact", "vacuum", "checkpoint"] {
        home.ok(&["maintain", job]);
    }
    assert!(status(&home)["files"].as_u64() <= before["files"].as_u64());
    assert!(home.ok(&["maintain", "status"]).contains("rows              90\n"));
    assert_eq!(home.number("select count(*) from logs"), 90);
}

#[cfg(unix)]
#[test]
fn beside_a_server_reading_works_and_writing_says_what_to_do() {
    let home = Home::new();
    home.write("a.jsonl", records("a", 20));
    home.ok(&["import", "a.jsonl"]);
    let mut server = home.serve();
    let stderr = home.fails(4, &["import", "a.jsonl"]);
    assert!(
        stderr.contains("/v1/ingest") && stderr.contains(&server.child.id().to_string()),
        "{stderr}"
    );
    let stderr = home.fails(4, &["maintain", "compact"]);
    assert!(stderr.contains("compact_schedule"), "{stderr}");
    home.fails(4, &["serve", "--listen", &server.address]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://{}/v1/ingest", server.address);
    let sent = reqwest::Client::new()
        .post(url)
        .header("x-portkey-api-key", "k")
        .body(records("b", 5))
        .send();
    assert!(runtime.block_on(sent).unwrap().status().is_success());
    assert_eq!(home.number("select count(*) from logs"), 25);
    assert!(home.ok(&["maintain", "status"]).contains("rows              25\n"));
    home.ok(&["doctor"]);
    assert_eq!(home.ok(&["export"]).lines().count(), 25);

    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert_eq!(home.number("select count(*) from logs"), 25);
}

#[test]
fn a_short_admin_key_is_refused_where_others_reach_the_server() {
    let home = Home::new();
    // Characters count, not bytes.
    for key in ["k", "fifteen-letters", "äöüäöüäöüäöüäöü"] {
        let refused =
            home.serve_on("0.0.0.0:0", key).map(|server| server.address.clone()).unwrap_err();
        assert_eq!(refused.code, Some(2), "{key}: {refused:?}");
        assert!(
            refused.stderr.contains("`admin_key`") && refused.stderr.contains("at least 16"),
            "{refused:?}"
        );
        assert!(!refused.stderr.contains(key) || key == "k", "the key is not told: {refused:?}");
        assert!(!home.path("gatelog-data").exists(), "nothing was opened");
    }
    drop(home.serve_on("0.0.0.0:0", "sixteen-letters!").unwrap());
    drop(home.serve_on("127.0.0.1:0", "k").unwrap());
}

#[test]
fn a_key_that_a_command_makes_works_at_once_on_a_running_server() {
    let home = Home::new();
    // So that the server hardly learns of a change by itself.
    home.write("gatelog.toml", "refresh_seconds = 60\n");
    let server = home.serve();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::new();
    let asked = |key: &str| {
        let url = format!("http://{}/v1/sql?query=select+1", server.address);
        let answer = client.get(url).header("x-portkey-api-key", key).send();
        runtime.block_on(answer).unwrap().status().as_u16()
    };
    home.ok(&["org", "create", "acme", "--plan", "enterprise"]);
    for round in 0..3 {
        let made = home.ok(&["key", "create", "-q", "--org", "acme", "--scope", "logs.view"]);
        let key = made.trim();
        assert!(!key.is_empty());
        assert_eq!(asked(key), 200, "round {round}");
        assert_eq!(asked("no-such-key"), 401);
    }
}
