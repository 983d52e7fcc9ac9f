//! The API of export jobs: create, count and show jobs, serve their files, and delete files.
//!
//! The catalog's document decides what a key may do with a job. This module counts the records,
//! writes the job into the catalog, and leaves the rest to [`work`], which writes files in the
//! background and deletes files that jobs lost. Maintenance deletes a file that no job names once
//! the grace time has passed and no job is in progress anywhere that could name it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde_json::{Map, Value};

use super::handle::{Engine, Inner};
use super::reader::Reader;
use crate::catalog::{
    Access, Document, ExportChange, ExportFile, ExportJob, ExportStatus, ExportView, LINK_SECONDS,
    Scope,
};
use crate::error::{Error, Result};
use crate::store::is_export_name;
use check::checked;

mod blocks;
mod check;
pub(super) mod running;
mod upload;
mod work;

/// A job to be created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewExport {
    /// Id of the job. If the id exists, the existing job is returned.
    pub id: String,
    /// The workspace whose records the job reads; `None` means the key's.
    pub workspace: Option<String>,
    /// Selection of records, in the form of Portkey's `filters`.
    pub filters: Map<String, Value>,
    /// Keys of each line; `None` means all that may be exported.
    pub columns: Option<Vec<String>>,
    /// Purpose of the export.
    pub description: Option<String>,
}

impl Engine {
    /// Creates a job as a draft, and counts the records that match it.
    pub async fn create_export(&self, access: &Access, new: NewExport) -> Result<ExportJob> {
        let now = self.now();
        let mut job = ExportJob {
            id: new.id,
            organisation: access.organisation.clone(),
            workspace: self
                .inner
                .catalog
                .state()
                .document
                .export_workspace(access, new.workspace)?,
            bodies: access.may(Scope::Read),
            filters: new.filters,
            columns: new.columns,
            description: new.description,
            status: ExportStatus::Draft,
            total: 0,
            run: 0,
            error: None,
            created_by: access.key_id.clone(),
            created_at: now,
            updated_at: now,
            started_at: None,
            ended_at: None,
            file: None,
            file_gone: None,
            narrowed: BTreeSet::new(),
        };
        job.total = self.inner.count_export(&job).await?;
        let add = |document: &mut Document| {
            document.add_export(job.clone())?;
            document.export(&job.id, access).cloned()
        };
        self.inner.catalog.change_as(access, add).await
    }

    /// Changes a job that is not in progress, and makes it a draft.
    pub async fn update_export(
        &self,
        access: &Access,
        id: &str,
        change: &ExportChange,
    ) -> Result<ExportJob> {
        let job = self.inner.catalog.state().document.updated_export(id, access, change)?;
        let total = self.inner.count_export(&job).await?;
        let now = self.now();
        let update = |document: &mut Document| {
            document.update_export(id, access, change, total, now).cloned()
        };
        self.inner.catalog.change_as(access, update).await
    }

    /// Starts a job, which is written in the background. Its previous file is deleted.
    pub async fn start_export(&self, access: &Access, id: &str) -> Result<()> {
        let now = self.now();
        let state = self.inner.catalog.state();
        let job = state.document.export(id, access)?;
        checked(&state.document, job)?;
        Reader::over(&self.inner, job.access()).may_export()?;
        let start = |document: &mut Document| document.start_export(id, access, now).map(|_| ());
        self.inner.catalog.change_as(access, start).await?;
        self.inner.exports.wanted.notify_one();
        Ok(())
    }

    /// Stops a job that is in progress.
    pub async fn cancel_export(&self, access: &Access, id: &str) -> Result<()> {
        let now = self.now();
        let cancel = |document: &mut Document| document.cancel_export(id, access, now).map(|_| ());
        self.inner.catalog.change_as(access, cancel).await?;
        self.inner.exports.wanted.notify_one();
        Ok(())
    }

    /// Lists the jobs that a key reaches, newest first, of one workspace or of all.
    pub fn exports(&self, access: &Access, workspace: Option<&str>) -> Vec<ExportView> {
        let state = self.inner.catalog.state();
        let jobs = state.document.exports(access, workspace);
        jobs.into_iter().map(|job| self.inner.shown_export(&state.document, job)).collect()
    }

    /// Returns a job that a key reaches.
    pub fn export_job(&self, access: &Access, id: &str) -> Result<ExportView> {
        let state = self.inner.catalog.state();
        Ok(self.inner.shown_export(&state.document, state.document.export(id, access)?))
    }

    /// Returns a token that opens the file of a job for its bearer, and the time at which the token
    /// expires.
    pub async fn export_token(&self, access: &Access, id: &str) -> Result<(String, DateTime<Utc>)> {
        let now = self.now();
        let keep_days = self.inner.config.export_keep_days;
        let random = self.random();
        let expires_at = now + TimeDelta::seconds(LINK_SECONDS);
        let token = |document: &Document| {
            let file = document.export_file(id, access, now, keep_days)?;
            Ok::<_, Error>(document.export_token(file, expires_at))
        };
        if let Some(token) = token(&self.inner.catalog.state().document)? {
            return Ok((token, expires_at));
        }
        let make = |document: &mut Document| {
            document.ensure_secret(random);
            token(document)
        };
        let made = self.inner.catalog.change_as(access, make).await?;
        Ok((made.ok_or_else(|| Error::internal("a secret vanished"))?, expires_at))
    }

    /// Returns the file that a token opens, with its job.
    pub fn open_export(&self, token: &str) -> Option<(ExportJob, ExportFile)> {
        let state = self.inner.catalog.state();
        let opened =
            state.document.open_export(token, self.now(), self.inner.config.export_keep_days);
        opened.map(|(job, file)| (job.clone(), file.clone()))
    }

    /// Reads a file, in chunks that are fetched a few ahead of the reader.
    pub fn read_export(
        &self,
        file: &ExportFile,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let store = Arc::clone(self.inner.store.object_store());
        let path = self.inner.store.export_path(&file.name);
        blocks::read(store, path, file, range)
    }

    /// Reads a file for the bearer of a token. The stream ends with an error when the token no
    /// longer opens the file.
    pub fn download_export(
        &self,
        token: String,
        file: &ExportFile,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let inner = Arc::clone(&self.inner);
        let gate = self.inner.gate();
        let name = file.name.clone();
        let opens = move || {
            let state = inner.catalog.state();
            let keep_days = inner.config.export_keep_days;
            let opened = state.document.open_export(&token, (inner.now)(), keep_days);
            opened.is_some_and(|(_, file)| file.name == name)
        };
        let checked = self.read_export(file, range).then(move |fragment| {
            let gate = gate.clone();
            let opens = opens();
            async move {
                gate.refuse_if_stale().await?;
                if opens {
                    fragment
                } else {
                    Err(Error::denied("the file of the export may no longer be read"))
                }
            }
        });
        checked.boxed()
    }
}

impl Inner {
    /// Counts the records that match a job, and checks the job.
    async fn count_export(&self, job: &ExportJob) -> Result<u64> {
        let (_, selection) = checked(&self.catalog.state().document, job)?;
        Reader::over(self, job.access()).count_selected(&selection).await
    }

    fn shown_export(&self, document: &Document, job: &ExportJob) -> ExportView {
        let running = self.exports.running.lock();
        let here = running
            .get(&job.id)
            .filter(|running| running.run == job.run && job.status == ExportStatus::InProgress);
        let progress = here.map(|running| {
            let [records, bytes] =
                [0, 1].map(|place| running.written[place].load(Ordering::Relaxed));
            (records, bytes)
        });
        document.shown_export(job, progress, self.config.export_keep_days)
    }

    /// Deletes the files that may no longer be read, and files older than the grace time that no
    /// job names.
    pub(super) async fn expire_exports(&self, dry_run: bool) -> Result<Vec<String>> {
        // In this order: a file that is listed and no longer being written was reported to the
        // catalog before the catalog is read.
        let now = (self.now)();
        let listed = self.listed_exports().await?;
        let writing = self.exports.writing();
        self.catalog.refresh().await?;
        let mut document = self.catalog.state().document.clone();
        document.expire_exports(now, self.config.export_keep_days);
        let mut gone = document.export_leftovers.clone();
        // Another node may be about to report a file that it wrote.
        if document.started_exports().is_empty() {
            let known = document.known_export_files();
            let kept = |name: &str| known.contains(name) || writing.contains(name);
            gone.extend(self.old_exports(listed, now).filter(|name| !kept(name)));
        }
        let lines = gone.iter().map(|name| format!("delete export file `{name}`")).collect();
        if !dry_run && !gone.is_empty() {
            let expire = |document: &mut Document| {
                document.expire_exports(now, self.config.export_keep_days);
                Ok(())
            };
            self.catalog.change(expire).await?;
            self.delete_exports(&gone).await?;
        }
        Ok(lines)
    }

    /// Deletes files that no job has, and removes them from the catalog.
    async fn delete_exports(&self, gone: &BTreeSet<String>) -> Result<()> {
        for name in gone {
            self.delete_export(name).await?;
        }
        let forget = |document: &mut Document| {
            document.forget_exports(gone);
            Ok(())
        };
        self.catalog.change(forget).await
    }

    async fn listed_exports(&self) -> Result<Vec<ObjectMeta>> {
        let listed =
            self.store.object_store().list(Some(&self.store.exports_path())).try_collect().await;
        listed.map_err(|cause| {
            Error::storage("the files of exports cannot be listed").with_source(cause)
        })
    }

    /// Returns the names of files that were completed before the grace time began.
    fn old_exports(
        &self,
        listed: Vec<ObjectMeta>,
        now: DateTime<Utc>,
    ) -> impl Iterator<Item = String> {
        let grace =
            i64::try_from(self.config.vacuum_grace_seconds).ok().and_then(TimeDelta::try_seconds);
        let old = move |object: &ObjectMeta| {
            grace.is_some_and(|grace| now - object.last_modified >= grace)
        };
        let name = |object: ObjectMeta| {
            object.location.filename().filter(|name| is_export_name(name)).map(str::to_owned)
        };
        listed.into_iter().filter(old).filter_map(name)
    }

    async fn delete_export(&self, name: &str) -> Result<()> {
        match self.store.object_store().delete(&self.store.export_path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => {
                Err(Error::storage("the file of an export cannot be deleted").with_source(cause))
            }
        }
    }
}
