//! Limits of what one organisation puts into the catalog. Every node reads the document, and every
//! change rewrites it as a whole, so no organisation may make it large. Each list has a maximum
//! length, and all texts of an organisation together have a maximum size.

use super::model::{Document, ErasureEntry};
use crate::error::{Error, Result};

/// Most active keys of an organisation, and of the operator. Of inactive keys the newest so many
/// stay on record.
pub(super) const MAX_KEYS: usize = 1_000;
/// Most workspaces of an organisation.
pub(super) const MAX_WORKSPACES: usize = 1_000;
/// Most erasures of an organisation under way. Of completed ones the newest so many stay in the
/// document.
pub(super) const MAX_ERASURES: usize = 2_000;
/// Most records that one erasure names by id.
pub(super) const MAX_IDS: usize = 10_000;
/// Longest id or user name in an erasure, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 512;
/// Most text of an organisation in the document, in bytes: names of erasures, saved filters and
/// export jobs.
pub(super) const MAX_TEXT_BYTES: usize = 2 << 20;
/// Approximate size of an entry without its texts, in bytes.
const ENTRY_BYTES: usize = 300;

impl Document {
    /// Refuses another text if the texts of the organisation would take too much of the document.
    /// `what` names the texts, and `remedy` tells how to make room.
    pub(super) fn check_room(
        &self,
        organisation: &str,
        more: usize,
        what: &str,
        remedy: &str,
    ) -> Result<()> {
        let held = self.text_bytes(organisation);
        if held + more > MAX_TEXT_BYTES {
            return Err(Error::limit(format!(
                "{what} of organisation `{organisation}` would take {} bytes of the catalog; at most {MAX_TEXT_BYTES} are kept: \
                 {remedy}",
                held + more
            )));
        }
        Ok(())
    }

    /// Returns the size of an organisation's texts, in bytes.
    pub(super) fn text_bytes(&self, organisation: &str) -> usize {
        let erasures = self.erasures.iter().filter(|erasure| erasure.organisation == organisation);
        let erasures: usize = erasures.map(erasure_bytes).sum();
        let filters = self.saved_filters.get(organisation).into_iter().flatten();
        let filters: usize =
            filters.map(|(name, filter)| ENTRY_BYTES + name.len() + filter.query.len()).sum();
        let jobs =
            self.export_jobs.iter().filter(|job| job.organisation.as_deref() == Some(organisation));
        let job_bytes = |text: Option<&String>| text.map_or(0, String::len);
        let jobs: usize = jobs
            .map(|job| {
                let filters = serde_json::to_string(&job.filters).map_or(0, |text| text.len());
                2 * ENTRY_BYTES + filters + job_bytes(job.description.as_ref())
            })
            .sum();
        erasures + filters + jobs
    }
}

/// Returns the approximate size of an erasure, in bytes.
pub(super) fn erasure_bytes(erasure: &ErasureEntry) -> usize {
    let names = erasure.user.iter().chain(&erasure.ids).chain(&erasure.feedback);
    ENTRY_BYTES + names.map(|name| name.len() + 8).sum::<usize>()
}
