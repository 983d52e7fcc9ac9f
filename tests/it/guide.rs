//! The README and the guide: their commands run, and what they name exists.
//!
//! A fence says in its first word what it holds. `console` is run: lines behind `$ ` are commands,
//! the lines below a command are its output, in which `…` stands for any text. `console server`
//! runs beside a server with the records of the demo. `sh no-run: REASON` is not run. Statements of
//! `sql` are answered, and `toml` is a configuration.

mod blocks;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatelog::Config;
use regex::Regex;

use blocks::{Block, blocks, pages};

/// Blocks of commands that no test runs, in all pages together.
const MAX_NOT_RUN: usize = 25;
/// The address in the pages; a test takes a free one.
const ADDRESS: &str = "127.0.0.1:8080";
const KEY: &str = "key-of-the-guide-0123456789";
/// Separates the output of one command from that of the next.
const END: char = '\u{1e}';

#[test]
fn every_block_says_what_it_is_and_few_commands_are_not_run() {
    let mut not_run = Vec::new();
    for block in blocks() {
        match block.kind() {
            "console" => assert!(
                matches!(block.info.as_str(), "console" | "console server"),
                "{}",
                block.at()
            ),
            "sh" => {
                let reason = block.info.strip_prefix("sh no-run: ").unwrap_or_default();
                assert!(
                    reason.len() > 5,
                    "{}: say why after `sh no-run:`, or make it `console`",
                    block.at()
                );
                not_run.push(format!("{} {reason}", block.at()));
            }
            "sql" | "toml" | "json" | "jsonl" | "yaml" | "python" | "js" | "rust" | "text" => {}
            other => panic!("{}: a block of `{other}`", block.at()),
        }
    }
    println!("blocks that are not run:\n{}", not_run.join("\n"));
    assert!(not_run.len() <= MAX_NOT_RUN, "{} blocks are not run", not_run.len());
}

#[test]
fn commands_settings_and_configurations_of_the_pages_exist() {
    let mut wrong = Vec::new();
    for block in blocks() {
        match block.kind() {
            "console" => {
                let commands = block.commands();
                wrong.extend(
                    commands
                        .iter()
                        .filter_map(|(line, _)| Some(format!("{}: {}", block.at(), misuse(line)?))),
                );
            }
            "sh" => {
                let lines = block.text.replace("\\\n", " ");
                wrong.extend(
                    lines
                        .lines()
                        .filter_map(|line| Some(format!("{}: {}", block.at(), misuse(line)?))),
                );
            }
            "toml" => {
                let file = Some(("gatelog.toml".to_owned(), block.text.clone()));
                let layers = gatelog::config::Layers { file, ..gatelog::config::Layers::default() };
                wrong
                    .extend(layers.resolve().err().map(|error| format!("{}: {error}", block.at())));
            }
            _ => {}
        }
    }
    let variables = Regex::new(r"GATELOG_[A-Z0-9_]*[A-Z0-9]").unwrap();
    let ports = Regex::new(r"127\.0\.0\.1:(\d+)").unwrap();
    for (page, text) in pages() {
        for name in variables.find_iter(text) {
            let setting = name.as_str()["GATELOG_".len()..].to_lowercase();
            // The log's own level, what tests and benches read, a reader's own variable, and what
            // Kubernetes sets.
            let is_other =
                matches!(setting.as_str(), "log" | "config" | "key" | "port" | "service_host")
                    || setting.starts_with("test");
            if !is_other && Config::default().get(&setting).is_none() {
                wrong.push(format!("{page}: `{}` is no setting", name.as_str()));
            }
        }
        for port in ports.captures_iter(text) {
            // The gateway's, another server's, and an S3 server's.
            if !matches!(&port[1], "8080" | "8787" | "8081" | "9000") {
                wrong.push(format!("{page}: port {}", &port[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn metrics_of_the_pages_are_in_the_code() {
    let code = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let metrics = Regex::new(r"`gatelog_([a-z_]+)").unwrap();
    for (page, text) in pages() {
        for name in metrics.captures_iter(text) {
            let bare = name[1].trim_end_matches("_total");
            assert!(code.contains(&format!("\"{bare}\"")), "{page}: metric `gatelog_{}`", &name[1]);
        }
    }
}

fn source(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &source(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// Returns the unknown setting that a command line sets. The tests of `src/cli` parse the whole
/// line.
fn misuse(line: &str) -> Option<String> {
    let line = line.replace("\\\n", " ");
    for part in line.split(['|', ';', '>', '&', '(']) {
        let Some(at) = part.find("gatelog ").filter(|at| is_command(&part[..*at])) else {
            continue;
        };
        let words = shlex::split(part[at..].split('#').next().unwrap_or_default())?;
        let mut settings =
            words.iter().zip(words.iter().skip(1)).filter(|(flag, _)| *flag == "--set");
        let unknown = settings.find_map(|(_, set)| {
            let (name, value) = set.split_once('=')?;
            Config::default().set(name, value).err()
        });
        if let Some(error) = unknown {
            return Some(format!("`{line}`: {error}"));
        }
    }
    None
}

/// Returns whether only variables stand before the name of a command.
fn is_command(before: &str) -> bool {
    before.split_whitespace().all(|word| word.contains('=') || word == "$")
}

/// The folder that a page's commands run in, with `gatelog` on the path.
struct Place {
    folder: tempfile::TempDir,
    address: String,
    children: Vec<Child>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".bin")).unwrap();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_gatelog"));
        std::os::unix::fs::symlink(binary, folder.path().join(".bin/gatelog")).unwrap();
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { folder, address, children: Vec::new() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).process_group(0);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_"))
        {
            command.env_remove(name);
        }
        let path =
            format!("{}/.bin:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", path)
            .env("GATELOG_LISTEN", &self.address)
            .env("HOME", self.folder.path());
        command
    }

    /// Starts a server over the records of the demo.
    fn serve(&mut self) {
        let data = ["--data", "gatelog-data", "-q"];
        let mut fill = self.command("gatelog");
        fill.args(data).args(["demo", "--no-serve", "--records", "500"]);
        if !self.folder.path().join("gatelog-data").exists() {
            assert!(fill.status().unwrap().success());
        }
        let mut serve = self.command("gatelog");
        serve.args(data).arg("serve").env("GATELOG_ADMIN_KEY", KEY);
        self.children.push(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        self.wait();
    }

    /// Waits until a server answers.
    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < end, "no server on {}", self.address);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs commands in one shell, and returns the output of each.
    fn run(&self, commands: &[(String, String)]) -> Result<Vec<String>, String> {
        let mut script = String::from("set -eu -o pipefail\nexec 2>&1\n");
        let wait = format!(
            "for i in $(seq 600); do (: > /dev/tcp/{}) 2>/dev/null && break; sleep 0.2; done",
            { self.address.replace(':', "/") }
        );
        for (command, _) in commands {
            let command = command.replace(ADDRESS, &self.address);
            let in_background = command.trim_end().ends_with('&');
            let redirect =
                if in_background { command.replace('&', "> server.log 2>&1 &") } else { command };
            let _ = writeln!(
                script,
                "{redirect}\n{}printf '{END}'",
                if in_background { format!("{wait}\n") } else { String::new() }
            );
        }
        let _ = writeln!(script, "kill $(jobs -p) 2>/dev/null || true");
        let mut shell = self.command("bash");
        shell.args(["-c", &script]).env("GATELOG_KEY", KEY);
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace(&self.address, ADDRESS);
        let outputs: Vec<String> = text.split(END).map(str::to_owned).collect();
        if output.status.success() && outputs.len() == commands.len() + 1 {
            Ok(outputs)
        } else {
            Err(format!(
                "`{}` failed: {}",
                commands.get(outputs.len() - 1).map_or("the end", |(command, _)| command.as_str()),
                outputs.last().map_or("", String::as_str)
            ))
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns whether an output is the expected one, in which `…` stands for any text, and alone in a
/// line for any lines.
fn agrees(expected: &str, output: &str) -> bool {
    let mut pattern = String::from("^");
    for line in expected.trim().lines() {
        match line.trim_end() {
            "…" => pattern.push_str("(?:\n.*)*"),
            line => pattern += &format!("\n{}", regex::escape(line).replace('…', ".*")),
        }
    }
    let output: String =
        output.trim().lines().map(|line| format!("\n{}", line.trim_end())).collect();
    Regex::new(&format!("{pattern}$")).unwrap().is_match(&output)
}

#[test]
fn expected_output_is_compared() {
    for (expected, output, same) in [
        ("a\nb", "a \nb\n", true),
        ("a…c", "abc", true),
        ("a…c", "ab\nc", false),
        ("a\n…\nd", "a\nb\nc\nd", true),
        ("a\n…", "a", true),
        ("…", "a\nb", true),
        ("a", "b", false),
    ] {
        assert_eq!(agrees(expected, output), same, "{expected} {output}");
    }
}

#[test]
fn commands_of_the_pages_run() {
    let mut by_page: BTreeMap<&str, Vec<Block>> = BTreeMap::new();
    for block in blocks() {
        if matches!(block.kind(), "console" | "sql") {
            by_page.entry(block.page).or_default().push(block);
        }
    }
    let mut wrong = Vec::new();
    for (page, blocks) in by_page {
        let begun = Instant::now();
        wrong.extend(faults_of(&blocks));
        println!("{page}: {} blocks in {:?}", blocks.len(), begun.elapsed());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs the blocks of one page, and returns what went otherwise than the page says.
fn faults_of(blocks: &[Block]) -> Vec<String> {
    let mut place = Place::new();
    let first_served =
        blocks.iter().position(|block| block.info != "console").unwrap_or(blocks.len());
    let (alone, served) = blocks.split_at(first_served);
    let mut wrong = compared(&place, alone);
    if !served.is_empty() {
        place.serve();
        wrong.extend(compared(&place, served));
    }
    wrong
}

fn compared(place: &Place, blocks: &[Block]) -> Vec<String> {
    let mut places = Vec::new();
    let mut commands = Vec::new();
    for block in blocks {
        let of_block = if block.kind() == "sql" { statements(block) } else { block.commands() };
        places.extend(of_block.iter().map(|_| block.at()));
        commands.extend(of_block);
    }
    if commands.is_empty() {
        return Vec::new();
    }
    match place.run(&commands) {
        Err(error) => vec![format!("{}: {error}", blocks[0].page)],
        Ok(outputs) => commands
            .iter()
            .zip(&outputs)
            .zip(places)
            .filter(|(((_, expected), output), _)| {
                !expected.trim().is_empty() && !agrees(expected, output)
            })
            .map(|(((command, expected), output), at)| {
                format!("{at}: `{command}`\nexpected:{expected}\ngot:\n{output}")
            })
            .collect(),
    }
}

/// Statements of a block of SQL as commands.
fn statements(block: &Block) -> Vec<(String, String)> {
    let statements =
        block.text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
    let quoted = statements.map(|statement| shlex::try_quote(statement).unwrap().into_owned());
    quoted.map(|statement| (format!("gatelog sql {statement}"), String::new())).collect()
}
