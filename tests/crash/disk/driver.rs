//! An engine on a simulated disk, and clients that note what they sent and what was acked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::TryStreamExt;
use gatelog::config::Schedule;
use gatelog::engine::{
    Access, Dependencies, Document, ErasureSelector, NewKey, Organisation, Outcome, RecordPart,
    Scope, Severity, doctor_of,
};
use gatelog::record::Feedback;
use gatelog::store::Store;
use gatelog::{Config, Engine, Error, Job, Params, Result};
use uuid::Uuid;

use super::client::{Event, KeyState, Part, Row, Shown, Wish, part_of, record};
use super::reads::Reads;
use super::sim::{self, SimDisk};

/// The data folder.
pub const DATA: &str = "/data";
/// Where copies go.
pub const COPY: &str = "/copy";

static NEXT_UUID: AtomicU64 = AtomicU64::new(1);

fn new_uuid() -> Uuid {
    Uuid::from_u128(u128::from(NEXT_UUID.fetch_add(1, Ordering::Relaxed)))
}

/// Settings under which nothing happens by itself.
pub fn config(join_seconds: u64) -> Config {
    Config {
        data: DATA.to_owned(),
        threads: 1,
        flush_seconds: 1_000_000,
        refresh_seconds: 60,
        append_wait_ms: 100,
        join_seconds,
        compact_schedule: Schedule::never(),
        expire_schedule: Schedule::never(),
        vacuum_schedule: Schedule::never(),
        checkpoint_schedule: Schedule::never(),
        clean_log_schedule: Schedule::never(),
        vacuum_grace_seconds: 0,
        clean_log_seconds: 0,
        ..Config::default()
    }
}

pub fn store(disk: &SimDisk, folder: &str) -> Result<Store> {
    Store::on_disk(Arc::new(disk.clone()), Arc::new(Reads(disk.clone())), Path::new(folder))
}

/// Opens an engine on a folder of a disk.
pub async fn open(disk: &SimDisk, folder: &str, join_seconds: u64) -> Result<Engine> {
    let store = Some(store(disk, folder)?);
    Engine::open_with(
        config(join_seconds),
        Dependencies { now: sim::now, new_uuid, store, ..Dependencies::default() },
    )
    .await
}

/// Returns the faults that `gatelog doctor` finds in a folder.
pub async fn complaints(disk: &SimDisk, folder: &str, join_seconds: u64) -> Result<Vec<String>> {
    let findings = doctor_of(&store(disk, folder)?, &config(join_seconds), &|_, _, _| ()).await?;
    // A write that was interrupted before its ack is what a power cut leaves.
    let is_bad = |finding: &gatelog::engine::Finding| {
        finding.severity != Severity::Ok && !finding.what.contains("are no whole frame")
    };
    Ok(findings.into_iter().filter(is_bad).map(|finding| finding.what).collect())
}

async fn batches(engine: &Engine, text: &str) -> Result<Vec<RecordBatch>> {
    engine.sql(text, &Params::new()).await?.batches.try_collect().await
}

const ROWS: &str = "select id, organisation_id, total_units, cost, request['body'] from logs";
const FEEDBACK: &str = "select id, cast(value as bigint) from feedback";

/// Returns records, feedback and catalog as an engine shows them.
pub async fn shown(engine: &Engine) -> Result<Shown> {
    let mut shown = Shown::default();
    for batch in batches(engine, ROWS).await? {
        let text = |column: usize| batch.column(column).as_string_view();
        let units = batch.column(2).as_primitive::<Int64Type>();
        let costs = batch.column(3).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let request = text(4).iter().nth(row).flatten().map(|body| {
                let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                body["text"].as_str().unwrap_or_default().to_owned()
            });
            shown.rows.push(Row {
                id: text(0).value(row).to_owned(),
                organisation: text(1).value(row).to_owned(),
                units: units.iter().nth(row).flatten(),
                cost: costs.iter().nth(row).flatten(),
                request,
            });
        }
    }
    for batch in batches(engine, FEEDBACK).await? {
        let values = batch.column(1).as_primitive::<Int64Type>().values();
        let ids = batch.column(0).as_string_view().iter().flatten();
        shown.feedback.extend(ids.map(str::to_owned).zip(values.iter().copied()));
    }
    add_catalog(&engine.catalog().state().document, &mut shown);
    Ok(shown)
}

fn add_catalog(document: &Document, shown: &mut Shown) {
    for key in &document.keys {
        let state = if key.revoked_at.is_some() { KeyState::Revoked } else { KeyState::Active };
        shown.keys.insert(key.name.clone().unwrap_or_default(), state);
    }
    for (id, organisation) in &document.organisations {
        shown.plans.insert(id.clone(), organisation.plan.clone());
    }
    shown.erasures = document.erasures.iter().map(|erasure| erasure.ids.clone()).collect();
}

/// A process with an engine, and its clients. Whatever fails is not acked, and the clients go on.
pub struct Driver {
    pub disk: SimDisk,
    pub engine: Option<Engine>,
    pub events: Vec<Event>,
    pub join_seconds: u64,
    /// Number of operations that the disk had done when each process started.
    pub starts: Vec<usize>,
    /// The operation that failed.
    pub errors: Vec<String>,
    /// A wrong answer of an engine.
    pub wrong: Vec<String>,
}

impl Driver {
    pub fn on(disk: SimDisk, join_seconds: u64) -> Self {
        let (starts, errors, wrong) = (Vec::new(), Vec::new(), Vec::new());
        Self { disk, engine: None, events: Vec::new(), join_seconds, starts, errors, wrong }
    }

    pub async fn open(&mut self) -> bool {
        self.engine = None;
        self.starts.push(self.disk.len());
        let opened = open(&self.disk, DATA, self.join_seconds).await;
        match self.noted(opened) {
            Some(engine) => self.engine = Some(engine),
            None => return false,
        }
        true
    }

    /// Ends the process without any order.
    pub fn end(&mut self) {
        self.engine = None;
    }

    pub async fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            let closed = engine.close().await;
            self.noted(closed);
        }
    }

    fn noted<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push(chain(&error))).ok()
    }

    fn note(&mut self, wishes: &[Wish], is_acked: bool) {
        let at = self.disk.len();
        self.events.extend(wishes.iter().map(|wish| Event { at, wish: wish.clone(), is_acked }));
    }

    fn engine(&self) -> Result<Engine> {
        self.engine.clone().ok_or_else(|| Error::closed("the engine did not open"))
    }

    /// Sends something, and notes the ack.
    async fn send<T>(
        &mut self,
        wishes: Vec<Wish>,
        sending: impl AsyncFnOnce(Engine) -> Result<T>,
    ) -> Option<T> {
        let engine = self.noted(self.engine())?;
        self.note(&wishes, false);
        let sent = sending(engine).await;
        let answer = self.noted(sent)?;
        self.note(&wishes, true);
        Some(answer)
    }

    pub async fn records(&mut self, ids: &[&str]) -> bool {
        let wishes: Vec<Wish> = ids.iter().map(|id| Wish::Record((*id).to_owned())).collect();
        let known =
            ids.iter().filter(|id| self.is_acked(&Wish::Record((**id).to_owned()))).count() as u64;
        let records = ids.iter().map(|id| record(id)).collect();
        let receipt = self
            .send(wishes, async |engine| engine.append(records).await.map_err(|e| e.error))
            .await;
        if let Some(receipt) = receipt.filter(|receipt| receipt.duplicate < known) {
            self.wrong.push(format!(
                "records that were acked came again and were taken anew: {ids:?}, {receipt:?}"
            ));
        }
        receipt.is_some()
    }

    pub async fn part(&mut self, id: &str, part: Part) -> bool {
        let part_kind =
            if part == Part::Figures { RecordPart::Figures } else { RecordPart::Content };
        let (record_parts, access) =
            (vec![(part_kind, part_of(id, part))], Access::operator("test"));
        let sending = async |engine: Engine| {
            engine.append_parts_as(&access, record_parts).await.map_err(|e| e.error)
        };
        self.send(vec![Wish::Part(id.to_owned(), part)], sending).await.is_some()
    }

    pub async fn feedback(&mut self, id: &str, value: i32) -> bool {
        let access = Access::operator("test");
        let given = Feedback {
            id: Some(id.to_owned()),
            value: Some(value.into()),
            created_at: record("r-1a").created_at,
            updated_at: Some(sim::now()),
            ..Feedback::default()
        };
        let sending = async |engine: Engine| engine.append_feedback_as(&access, vec![given]).await;
        self.send(vec![Wish::Feedback(id.to_owned(), value.into())], sending).await.is_some()
    }

    pub async fn key(&mut self, name: &str, state: KeyState) -> bool {
        let change = |document: &mut Document| {
            let found = document.keys.iter().find(|key| key.name.as_deref() == Some(name));
            match (found.map(|key| (key.id.clone(), key.revoked_at)), state) {
                (None, KeyState::Active) => {
                    let scopes = [Scope::Write].into();
                    let key = NewKey { name: Some(name.to_owned()), scopes, ..NewKey::default() };
                    document.add_key(&format!("text of {name}"), key, sim::now()).map(|_| ())
                }
                (Some((id, None)), KeyState::Revoked) => {
                    document.revoke_key(&id, &Access::operator("test"), sim::now()).map(|_| ())
                }
                (None, KeyState::Revoked) => {
                    Err(Error::not_found(format!("there is no key {name}")))
                }
                // It is so already.
                _ => Ok(()),
            }
        };
        let sending = async |engine: Engine| engine.catalog().change(change).await;
        self.send(vec![Wish::Key(name.to_owned(), state)], sending).await.is_some()
    }

    /// Puts an organisation on a plan; makes it if need be. `gone` are records that its retention
    /// then hides.
    pub async fn plan(&mut self, organisation: &str, plan: &str, gone: &[&str]) -> bool {
        let change = |document: &mut Document| match document.organisation(organisation) {
            Ok(_) => document.set_plan(organisation, plan, None, sim::now()),
            Err(_) => {
                let made = Organisation::new(plan, sim::now());
                document.create_organisation(organisation, made, 0).map(|_| ())
            }
        };
        let mut wishes = vec![Wish::Plan(organisation.to_owned(), plan.to_owned())];
        wishes.push(Wish::Gone(gone.iter().map(|id| (*id).to_owned()).collect()));
        self.send(wishes, async |engine| engine.catalog().change(change).await).await.is_some()
    }

    pub async fn erase(&mut self, organisation: &str, ids: &[&str]) -> bool {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let which = ErasureSelector::Ids(ids.clone());
        let sending = async |engine: Engine| engine.erase(organisation, which, "test").await;
        self.send(vec![Wish::Gone(ids.clone()), Wish::Erasure(ids)], sending).await.is_some()
    }

    pub async fn flush(&mut self) -> bool {
        let Some(engine) = self.noted(self.engine()) else { return false };
        let flushed = engine.flush().await;
        // The writer trims the log after the flush; it takes the second one up only when that is
        // done.
        let trimmed = match flushed {
            Ok(()) => engine.flush().await,
            failed => failed,
        };
        self.noted(trimmed).is_some()
    }

    pub async fn maintain(&mut self, job: Job) -> Option<Outcome> {
        let engine = self.noted(self.engine())?;
        let done = engine.maintain(job, false).await;
        self.noted(done)
    }

    /// Flushes until all parts of records are in them, or so often that something fails.
    pub async fn settle(&mut self) {
        for _ in 0..20 {
            let Some(engine) = self.engine.clone() else { return };
            if engine.status().waiting_halves == 0 || !self.flush().await {
                return;
            }
            for _ in 0..100 {
                if engine.status().waiting_halves == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    pub async fn copy(&mut self) -> bool {
        self.starts.push(self.disk.len());
        self.note(&[Wish::Copy], false);
        let copied = copy(&self.disk).await;
        let is_done = self.noted(copied).is_some();
        if is_done {
            self.note(&[Wish::Copy], true);
        }
        is_done
    }

    fn is_acked(&self, wish: &Wish) -> bool {
        self.events.iter().any(|event| event.is_acked && event.wish == *wish)
    }

    /// Sends everything again that has no ack, as clients do, and some of what has one.
    pub async fn send_again(&mut self) {
        let mut wishes: Vec<Wish> = Vec::new();
        for event in &self.events {
            if !wishes.contains(&event.wish) {
                wishes.push(event.wish.clone());
            }
        }
        let newest = newest_of_each(&self.events);
        for wish in wishes {
            let is_acked = self.is_acked(&wish);
            match wish {
                Wish::Record(id) if !self.is_leaving(&id) => {
                    self.records(&[&id]).await;
                }
                Wish::Part(id, part) if !is_acked => {
                    self.part(&id, part).await;
                }
                Wish::Feedback(id, value) if !is_acked => {
                    self.feedback(&id, i32::try_from(value).unwrap_or_default()).await;
                }
                // A key that was revoked stays so.
                Wish::Key(name, state)
                    if !is_acked || newest.get(&name) == Some(&Wish::Key(name.clone(), state)) =>
                {
                    self.key(&name, state).await;
                }
                Wish::Plan(organisation, plan) if !is_acked => {
                    let gone: Vec<String> = self.leaving();
                    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
                    self.plan(&organisation, &plan, &gone).await;
                }
                Wish::Erasure(ids) if !is_acked => {
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    self.erase("org-a", &ids).await;
                }
                _ => {}
            }
        }
    }

    /// Clients send again what has no ack to an engine that met a fault, and it flushes again.
    pub async fn go_on(&mut self, is_copy: bool) {
        if is_copy {
            self.copy().await;
        } else if self.engine.is_some() {
            self.send_again().await;
            self.flush().await;
            self.flush().await;
        }
    }

    /// Records that were asked to go.
    fn leaving(&self) -> Vec<String> {
        let gone = self.events.iter().filter_map(|event| match &event.wish {
            Wish::Gone(ids) => Some(ids.clone()),
            _ => None,
        });
        gone.flatten().collect()
    }

    fn is_leaving(&self, id: &str) -> bool {
        self.leaving().iter().any(|gone| gone == id)
    }
}

fn newest_of_each(events: &[Event]) -> BTreeMap<String, Wish> {
    let keys = events.iter().filter_map(|event| match &event.wish {
        Wish::Key(name, _) => Some((name.clone(), event.wish.clone())),
        _ => None,
    });
    keys.collect()
}

/// An error with its causes.
pub fn chain(error: &Error) -> String {
    let (mut text, mut next) = (error.to_string(), std::error::Error::source(error));
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Copies the data folder, as `gatelog copy` does after the flush.
async fn copy(disk: &SimDisk) -> Result<()> {
    let (from, to) = (store(disk, DATA)?, store(disk, COPY)?);
    let plan = gatelog::copy::plan(&from).await?;
    let id = "00000000-0000-4000-8000-00000000c0b1".to_owned();
    gatelog::copy::run(&from, &to, &plan, id, &|_| ()).await.map(|_| ())
}
