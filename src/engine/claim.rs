//! Ensures that one live node uses a log: with a bucket, `nodes/<log id>.json` names the node that
//! has the log open.
//!
//! Two nodes with one log, such as a cloned machine, would give the same sequences to different
//! records, and the table would treat the second as a repetition of the first: acknowledged records
//! would be lost. So the node that opens a log claims it by a conditional put, and renews the claim
//! three times per lease. Another node that sees the claim renewed is refused. One that sees no
//! renewal for a lease takes the claim over. The same log folder on the same running machine needs
//! no wait, since its lock shows that the previous process is gone. A node whose claim was taken
//! over commits nothing more and refuses writes.
//!
//! Each claim has an epoch, a UUID, which is also noted in the folder of the log
//! ([`crate::wal::Epochs`]). A folder without the epoch of the bucket's claim was left behind:
//! another copy of its log was opened since. Frames that it acknowledged and did not flush have
//! sequences under which the other copy may have flushed other records, so it is not opened while
//! it holds frames ([`refuse_left_behind`]). `gatelog wal adopt` imports them ([`super::adopt`]).
//!
//! A store in a folder needs none of this, because its lock admits one process.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::folders::Folders;
use crate::wal::{self, Epochs};

/// Attempts to read a claim that the folder does not know.
const LOOKS: u32 = 3;
/// Interval at which a claim of another node is read while it may still be renewed.
const LOOK: Duration = Duration::from_millis(500);
/// Conflicting changes of other nodes after which an attempt ends.
const RACES: u32 = 20;
/// Puts of this node without an answer whose notes it recognises.
const MAX_TRIED: usize = 8;

/// The document in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Identifies the log folder on the running machine.
    site: String,
    /// Description of the node, for messages.
    node: String,
    /// Random name of the claim, by which its author recognises its notes; empty in notes of
    /// earlier versions.
    #[serde(default)]
    owner: String,
    /// Changes with each open of the log; none in notes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    /// No other node may have the log before this time; none after a release.
    #[serde(default)]
    until: Option<DateTime<Utc>>,
    /// Identifies the put, so that its author recognises it when the answer was lost.
    change: String,
}

impl Note {
    /// Returns true if the node at `site` may take the log at once. Clocks of two machines may
    /// differ by a lease.
    fn is_free_for(&self, site: &str, now: DateTime<Utc>, lease: chrono::Duration) -> bool {
        self.site == site || self.until.is_none_or(|until| until + lease <= now)
    }
}

/// The claim of this node.
#[derive(Debug)]
pub(super) struct Claim {
    store: Store,
    wal_id: Uuid,
    lease: chrono::Duration,
    held: tokio::sync::Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    note: Note,
    version: Option<UpdateVersion>,
    /// Changes of the latest puts. A note with another change belongs to another process, even if
    /// the owner is the same, as on a machine that was cloned while it ran.
    tried: VecDeque<String>,
}

impl Held {
    fn is_own(&self, note: &Note) -> bool {
        note.owner == self.note.owner
            && (note.change == self.note.change || self.tried.contains(&note.change))
    }

    fn try_next(&mut self, next: &Note) {
        self.tried.push_back(next.change.clone());
        if self.tried.len() > MAX_TRIED {
            self.tried.pop_front();
        }
    }
}

/// A log: its folder, and the folders of the disk that it is on.
type Log<'a> = (&'a Folders, &'a Path);

/// Result of an attempt to put a note.
enum Put {
    /// The note is stored.
    Done(UpdateVersion),
    /// Another note was stored first.
    Lost,
}

impl Claim {
    /// Claims a log. Returns `None` for a store in a folder, which others cannot open anyway, and
    /// for a log without an id, which was never copied. Waits for a claim of another node to be
    /// renewed ([`crate::error::ErrorKind::Busy`]) or to expire.
    pub(super) async fn take(
        store: &Store,
        wal_id: Option<Uuid>,
        log: Log<'_>,
        config: &Config,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Option<Self>> {
        let Some(wal_id) = wal_id.filter(|_| store.is_shared()) else { return Ok(None) };
        let lease = chrono::Duration::seconds(i64::try_from(config.lease_seconds).unwrap_or(60));
        let site = site(log.1);
        let node = node(log.1);
        let owner = Uuid::new_v4().to_string();
        let epoch = Some(Uuid::new_v4().to_string());
        let note = Note { site, node, owner, epoch, until: None, change: String::new() };
        let held = tokio::sync::Mutex::new(Held { note, version: None, tried: VecDeque::new() });
        let claim = Self { store: store.clone(), wal_id, lease, held };
        let patience = Duration::from_secs(config.lease_seconds);
        claim.wait_and_take(log, patience, now).await?;
        Ok(Some(claim))
    }

    async fn wait_and_take(
        &self,
        log: Log<'_>,
        patience: Duration,
        now: fn() -> DateTime<Utc>,
    ) -> Result<()> {
        let mut held = self.held.lock().await;
        let mut seen: Option<(String, tokio::time::Instant)> = None;
        let mut races = 0;
        while races < RACES {
            let found = read(&self.store, self.wal_id).await?;
            if let Some((note, _)) = &found {
                refuse_unless_known(note, log)?;
            }
            let other = found
                .as_ref()
                .map(|(note, _)| note)
                .filter(|note| !note.is_free_for(&held.note.site, now(), self.lease));
            if let Some(other) = other {
                let (change, since) = seen.get_or_insert_with(|| {
                    tracing::warn!(
                        node = other.node,
                        "another node had this log open; waiting to see if it is alive"
                    );
                    (other.change.clone(), tokio::time::Instant::now())
                });
                if *change != other.change {
                    return Err(self.refused(other));
                }
                if since.elapsed() < patience {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            }
            let next = self.next(&held.note, now());
            note_asked(log, &next)?;
            match self.put(&next, found.map(|(_, version)| version)).await? {
                Put::Done(version) => {
                    note_held(log, &next)?;
                    *held = Held { note: next, version: Some(version), tried: VecDeque::new() };
                    return Ok(());
                }
                Put::Lost => races += 1,
            }
        }
        Err(self.contended())
    }

    /// Renews the claim. Returns [`crate::error::ErrorKind::Conflict`] if another node has taken it
    /// over.
    pub(super) async fn renew(&self, now: DateTime<Utc>) -> Result<()> {
        let mut held = self.held.lock().await;
        let next = self.next(&held.note, now);
        self.replace(&mut held, next).await
    }

    /// Ensures that the claim is valid before a commit under the log's id.
    pub(super) async fn ensure(&self, now: DateTime<Utc>) -> Result<()> {
        let is_fresh = self.held.lock().await.note.until.is_some_and(|until| until > now);
        if is_fresh { Ok(()) } else { self.renew(now).await }
    }

    /// Releases the log, so that another machine does not wait for it.
    pub(super) async fn release(&self) {
        let mut held = self.held.lock().await;
        let next = Note { until: None, change: Uuid::new_v4().to_string(), ..held.note.clone() };
        // If this fails, the claim expires.
        let _ = self.replace(&mut held, next).await;
    }

    /// Replaces this node's own note by `next`.
    async fn replace(&self, held: &mut Held, next: Note) -> Result<()> {
        held.try_next(&next);
        for _ in 0..RACES {
            if let Put::Done(version) = self.put(&next, held.version.clone()).await? {
                held.note = next;
                held.version = Some(version);
                return Ok(());
            }
            match read(&self.store, self.wal_id).await? {
                // An earlier put succeeded, and its answer was lost.
                Some((note, version)) if held.is_own(&note) => held.version = Some(version),
                found => return Err(self.taken_over(found.map(|(note, _)| note).as_ref())),
            }
        }
        Err(self.contended())
    }

    fn contended(&self) -> Error {
        Error::busy(format!(
            "the claim of log {} changed {RACES} times in a row; try again",
            self.wal_id
        ))
    }

    fn next(&self, before: &Note, now: DateTime<Utc>) -> Note {
        Note { until: Some(now + self.lease), change: Uuid::new_v4().to_string(), ..before.clone() }
    }

    /// Puts the note in the place of the version `before`, or where there is none.
    async fn put(&self, note: &Note, before: Option<UpdateVersion>) -> Result<Put> {
        let path = self.store.node_path(self.wal_id);
        let bytes = serde_json::to_vec_pretty(note).map_err(|cause| {
            Error::internal("cannot encode the claim of a log").with_source(cause)
        })?;
        let mode = before.map_or(PutMode::Create, PutMode::Update);
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.object_store().put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(put) => Ok(Put::Done(UpdateVersion { e_tag: put.e_tag, version: put.version })),
            Err(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. },
            ) => {
                // A store may execute a put, lose the answer, and refuse its own second attempt.
                match read(&self.store, self.wal_id).await? {
                    Some((found, version)) if found.change == note.change => Ok(Put::Done(version)),
                    _ => Ok(Put::Lost),
                }
            }
            Err(cause) => Err(Error::storage(format!("cannot write `{path}`")).with_source(cause)),
        }
    }

    fn refused(&self, other: &Note) -> Error {
        Error::busy(format!(
            "write-ahead log {} is in use by another live node ({}): this one has a copy of its log folder, as a cloned machine \
             has; stop one of them, and give a clone a new folder with the setting `wal`",
            self.wal_id, other.node
        ))
    }

    fn taken_over(&self, other: Option<&Note>) -> Error {
        let by = other.map_or_else(|| "unknown".to_owned(), |note| note.node.clone());
        Error::conflict(format!(
            "write-ahead log {} was taken over by another node ({by}), which has a copy of its log folder; stop this one, and \
             import what it acked and did not flush with `gatelog wal adopt FOLDER`",
            self.wal_id
        ))
    }
}

/// Reads the note about a log, with the version for a conditional put.
async fn read(store: &Store, wal_id: Uuid) -> Result<Option<(Note, UpdateVersion)>> {
    let path = store.node_path(wal_id);
    let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
    let found = match store.object_store().get(&path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => return Err(unreadable(cause)),
    };
    let version =
        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
    let bytes = found.bytes().await.map_err(unreadable)?;
    let note = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::damaged(format!("`{path}` does not say which node has the log open; delete it"))
            .with_source(cause)
    })?;
    Ok(Some((note, version)))
}

/// Notes in the folder of the log the claim that is about to be requested.
fn note_asked((folders, folder): Log<'_>, next: &Note) -> Result<()> {
    let Some(epoch) = &next.epoch else { return Ok(()) };
    let mut epochs = wal::read_epochs(&**folders.disk(), folder)?;
    if epochs.knows(epoch) {
        return Ok(());
    }
    epochs.asked.push(epoch.clone());
    wal::write_epochs(folders, folder, &epochs)
}

/// Notes in the folder of the log the claim that the bucket accepted.
fn note_held((folders, folder): Log<'_>, given: &Note) -> Result<()> {
    let Some(epoch) = &given.epoch else { return Ok(()) };
    wal::write_epochs(folders, folder, &Epochs { held: epoch.clone(), asked: Vec::new() })
}

/// Returns an error for a log with frames if the claim is one of another copy of it.
fn refuse_unless_known(note: &Note, log: Log<'_>) -> Result<()> {
    if is_known(note, log)? || !wal::has_frames(&**log.0.disk(), log.1)? {
        return Ok(());
    }
    let folder = log.1.display();
    let by = &note.node;
    Err(Error::conflict(format!(
        "a copy of the write-ahead log `{folder}` was opened by another node since ({by}), so the tables may lack records of \
         this log even though they have its sequences; import its records with `gatelog wal adopt {folder}`, which leaves an \
         unused folder behind"
    )))
}

/// Returns true if the log in a folder knows the claim, so that no other copy of it was opened
/// since. Claims of earlier versions have no epoch and count as known.
fn is_known(note: &Note, (folders, folder): Log<'_>) -> Result<bool> {
    let Some(epoch) = &note.epoch else { return Ok(true) };
    Ok(wal::read_epochs(&**folders.disk(), folder)?.knows(epoch))
}

/// Returns an error for a log that was left behind ([`refuse_unless_known`]). Writes nothing.
pub(super) async fn refuse_left_behind(store: &Store) -> Result<()> {
    let Some(folder) = store.wal_folder().filter(|_| store.is_shared()) else { return Ok(()) };
    let log = (&**store.folders(), folder.as_path());
    let Some(wal_id) = wal::read_identity(&**store.disk(), &folder)? else { return Ok(()) };
    let mut last = Ok(());
    for _ in 0..LOOKS {
        let Some((note, _)) = read(store, wal_id).await? else { return Ok(()) };
        last = refuse_unless_known(&note, log);
        // A node that opens the log meanwhile notes the claim here before the bucket has it.
        if last.is_ok() {
            return Ok(());
        }
    }
    last
}

/// Identifies the log folder on this running machine, also against copies on other machines.
fn site(folder: &Path) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {}", boot.trim(), folder_id(folder))
}

#[cfg(unix)]
fn folder_id(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder)
        .map_or_else(|_| String::new(), |about| format!("{:x}:{:x}", about.dev(), about.ino()))
}

#[cfg(not(unix))]
fn folder_id(folder: &Path) -> String {
    folder.display().to_string()
}

/// Returns the description of this node for messages.
fn node(folder: &Path) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "this host" } else { host.trim() };
    format!("process {} on {host}, log `{}`", std::process::id(), folder.display())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::error::ErrorKind;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn start() -> DateTime<Utc> {
        at(0)
    }

    fn store() -> Store {
        Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap()
    }

    async fn take(store: &Store, folder: &Path) -> Result<Claim> {
        let config = Config { lease_seconds: 1, ..Config::default() };
        let log = (&**store.folders(), folder);
        Ok(Claim::take(store, Some(Uuid::from_u128(7)), log, &config, start).await?.unwrap())
    }

    #[test]
    fn a_claim_is_free_for_its_own_site_and_for_others_once_it_ran_out() {
        let note = Note {
            site: "a".to_owned(),
            node: String::new(),
            owner: String::new(),
            epoch: None,
            until: Some(at(60)),
            change: String::new(),
        };
        let is_free = |note: &Note, site: &str, now| {
            note.is_free_for(site, at(now), chrono::Duration::seconds(10))
        };
        assert!(is_free(&note, "a", 0) && !is_free(&note, "b", 69) && is_free(&note, "b", 70));
        assert!(is_free(&Note { until: None, ..note }, "b", 0));
    }

    #[tokio::test]
    async fn a_copy_of_the_log_is_refused_while_the_node_lives_and_admitted_when_it_is_silent() {
        let store = store();
        let one = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let first = take(&store, one.path()).await.unwrap();
        let renewing = async {
            loop {
                first.renew(at(1)).await.unwrap();
                tokio::time::sleep(LOOK / 10).await;
            }
        };
        let refused = tokio::select! {
            refused = take(&store, copy.path()) => refused.unwrap_err(),
            () = renewing => unreachable!("it renews for ever"),
        };
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert!(refused.message().contains(&one.path().display().to_string()), "{refused}");
        // Without renewals the claim is taken over after a lease, and the previous node gets an
        // error.
        let second = take(&store, copy.path()).await.unwrap();
        first.ensure(at(1)).await.unwrap();
        for late in [first.ensure(at(99)).await, first.renew(at(1)).await] {
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
        }
        second.release().await;
        assert_eq!(read(&store, second.wal_id).await.unwrap().unwrap().0.until, None);
        take(&store, one.path()).await.unwrap();
    }

    #[tokio::test]
    async fn the_same_folder_is_admitted_at_once_and_others_once_its_time_is_over() {
        let store = store();
        let folder = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let killed = take(&store, folder.path()).await.unwrap();
        take(&store, folder.path()).await.unwrap();
        assert_eq!(killed.renew(at(1)).await.unwrap_err().kind(), ErrorKind::Conflict);
        let mut note = read(&store, killed.wal_id).await.unwrap().unwrap();
        note.0.until = Some(at(-1));
        assert!(matches!(killed.put(&note.0, Some(note.1)).await.unwrap(), Put::Done(_)));
        take(&store, copy.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_node_recognises_its_own_note_when_the_answer_to_the_put_was_lost() {
        let store = store();
        let folder = tempfile::tempdir().unwrap();
        let claim = take(&store, folder.path()).await.unwrap();
        let lose_an_answer = async || {
            let mut held = claim.held.lock().await;
            let landed = claim.next(&held.note, at(2));
            held.try_next(&landed);
            assert!(matches!(
                claim.put(&landed, held.version.clone()).await.unwrap(),
                Put::Done(_)
            ));
        };
        lose_an_answer().await;
        claim.renew(at(3)).await.unwrap();
        lose_an_answer().await;
        claim.release().await;
        assert_eq!(read(&store, claim.wal_id).await.unwrap().unwrap().0.until, None);
    }

    /// Writes a frame into the log of a folder.
    fn append(folder: &Path) {
        let folders = Folders::new(Arc::new(crate::store::disk::LocalDisk));
        let schema = crate::record::schema();
        let new = (Uuid::from_u128(7), crate::engine::Dependencies::default().random);
        let unused = |_| Ok((wal::FlushedSeq::default(), wal::Noted::default()));
        let mut log =
            wal::Wal::open(folder, &schema, &folders, new, &unused, &mut |_, _| Ok(())).unwrap();
        let mut builder = crate::record::BatchBuilder::new();
        builder.append(&crate::Record::default());
        log.append(&[&wal::Payload::encode(&builder.finish()).unwrap()], 0).unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    #[tokio::test]
    async fn a_log_that_was_left_behind_is_refused_as_long_as_it_holds_frames() {
        let store = store();
        let one = tempfile::tempdir().unwrap();
        let clone = tempfile::tempdir().unwrap();
        let first = take(&store, one.path()).await.unwrap();
        append(one.path());
        copy(one.path(), clone.path());
        let second = take(&store, clone.path()).await.unwrap();
        second.release().await;
        let refused = take(&store, one.path()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let remedy = format!("`gatelog wal adopt {}`", one.path().display());
        let by = clone.path().display().to_string();
        assert!(
            refused.message().contains(&remedy) && refused.message().contains(&by),
            "{refused}"
        );
        // The same holds if the folder never knew an epoch, and the claim has one.
        let known = wal::read_epochs(&crate::store::disk::LocalDisk, one.path()).unwrap();
        std::fs::remove_file(one.path().join("claim.json")).unwrap();
        assert_eq!(take(&store, one.path()).await.unwrap_err().kind(), ErrorKind::Conflict);
        wal::write_epochs(store.folders(), one.path(), &known).unwrap();
        // The clone may continue.
        take(&store, clone.path()).await.unwrap().release().await;
        // A log without frames has nothing to lose; then the other log is left behind.
        std::fs::remove_file(one.path().join(format!("{:020}.wal", 1))).unwrap();
        take(&store, one.path()).await.unwrap().release().await;
        assert_eq!(take(&store, clone.path()).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(first.renew(at(1)).await.unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn claims_of_earlier_versions_and_requested_claims_admit_the_log() {
        let store = store();
        let folder = tempfile::tempdir().unwrap();
        append(folder.path());
        let put = async |note: &Note| {
            let claim = take(&store, folder.path()).await.unwrap();
            let (_, version) = read(&store, claim.wal_id).await.unwrap().unwrap();
            assert!(matches!(claim.put(note, Some(version)).await.unwrap(), Put::Done(_)));
        };
        let text = r#"{"site":"s","node":"of before","until":null,"change":"c"}"#;
        put(&serde_json::from_str(text).unwrap()).await;
        std::fs::remove_file(folder.path().join("claim.json")).unwrap();
        take(&store, folder.path()).await.unwrap();
        // The process died after the bucket had stored its claim, before it got the answer.
        let given = Note { epoch: Some("given".to_owned()), ..serde_json::from_str(text).unwrap() };
        let mut epochs = wal::read_epochs(&crate::store::disk::LocalDisk, folder.path()).unwrap();
        put(&given).await;
        epochs.asked = vec!["lost".to_owned(), "given".to_owned()];
        wal::write_epochs(store.folders(), folder.path(), &epochs).unwrap();
        take(&store, folder.path()).await.unwrap();
        let epochs = wal::read_epochs(&crate::store::disk::LocalDisk, folder.path()).unwrap();
        assert!(epochs.asked.is_empty() && epochs.held != "given", "{epochs:?}");
    }

    #[tokio::test]
    async fn a_machine_that_was_cloned_while_it_ran_does_not_take_the_claim_of_its_clone() {
        let store = store();
        let folder = tempfile::tempdir().unwrap();
        let one = take(&store, folder.path()).await.unwrap();
        let held = one.held.lock().await;
        let note = held.note.clone();
        let version = held.version.clone();
        drop(held);
        let held = tokio::sync::Mutex::new(Held { note, version, tried: VecDeque::new() });
        let twin = Claim { store: store.clone(), wal_id: one.wal_id, lease: one.lease, held };
        twin.renew(at(1)).await.unwrap();
        assert_eq!(one.renew(at(2)).await.unwrap_err().kind(), ErrorKind::Conflict);
        twin.renew(at(3)).await.unwrap();
    }
}
