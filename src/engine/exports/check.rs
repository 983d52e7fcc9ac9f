//! Checks the rights to an export job.

use crate::catalog::{Document, ExportJob, holds_bodies};
use crate::error::{Error, Result};
use crate::export::Selection;
use crate::record::json::Encoder;

/// Returns the keys of a job's lines, and its selection. Returns an error if the creator of the job
/// may not read one of them.
pub(super) fn checked(document: &Document, job: &ExportJob) -> Result<(Vec<String>, Selection)> {
    let denied = document.denied(job.organisation.as_deref(), job.workspace.as_deref());
    let columns = match &job.columns {
        None => denied.allowed(job.bodies),
        Some(columns) => {
            Encoder::new(Some(columns))?;
            denied.check(columns)?;
            if let Some(name) = columns.iter().find(|name| !job.bodies && holds_bodies(name)) {
                return Err(Error::denied(format!(
                    "column `{name}` holds bodies, and the key lacks the scope `logs.read`; leave the column out"
                )));
            }
            columns.clone()
        }
    };
    let selection = Selection::read(&job.filters)?;
    denied.check_filter(selection.filter.columns().iter().map(String::as_str))?;
    Ok((columns, selection))
}
