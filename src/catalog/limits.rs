//! Bounds what one organisation puts into the catalog. The document is read by every node and rewritten as a whole by every change,
//! so none may make it large: each list has a number of entries, and all of an organisation's texts together have a size.

use super::document::Document;
use super::erasures::ErasureEntry;
use crate::error::{Error, Result};

/// Active keys of an organisation, and of the operator; of keys that open nothing any more, the newest so many stay on record.
pub(super) const MOST_KEYS: usize = 1_000;
/// Workspaces of an organisation.
pub(super) const MOST_WORKSPACES: usize = 1_000;
/// Erasures of an organisation that are not done yet; of those that are, the newest so many stay on record in the document.
pub(super) const MOST_ERASURES: usize = 2_000;
/// Records that one erasure names by id.
pub(super) const MOST_IDS: usize = 10_000;
/// Longest id or user that an erasure names, in bytes.
pub(super) const MOST_NAME_BYTES: usize = 512;
/// Texts of an organisation in the document: names of erasures, saved filters, export jobs.
pub(super) const MOST_TEXT_BYTES: usize = 2 << 20;
/// What an entry takes beside its own texts, about.
const ENTRY_BYTES: usize = 300;

impl Document {
    /// Refuses a further text where the organisation's texts would take too much of the document. `what` names the texts, and
    /// `remedy` says what makes room.
    pub(super) fn check_room(&self, organisation: &str, more: usize, what: &str, remedy: &str) -> Result<()> {
        let held = self.text_bytes(organisation);
        if held + more > MOST_TEXT_BYTES {
            return Err(Error::limit(format!(
                "{what} of organisation `{organisation}` would take {} bytes of the catalog; at most {MOST_TEXT_BYTES} are kept: \
                 {remedy}",
                held + more
            )));
        }
        Ok(())
    }

    /// Bytes that the texts of an organisation take.
    pub(super) fn text_bytes(&self, organisation: &str) -> usize {
        let erasures = self.erasures.iter().filter(|erasure| erasure.organisation == organisation);
        let erasures: usize = erasures.map(erasure_bytes).sum();
        let filters = self.saved_filters.get(organisation).into_iter().flatten();
        let filters: usize = filters.map(|(name, filter)| ENTRY_BYTES + name.len() + filter.query.len()).sum();
        let jobs = self.export_jobs.iter().filter(|job| job.organisation.as_deref() == Some(organisation));
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

/// Bytes that an erasure takes, about.
pub(super) fn erasure_bytes(erasure: &ErasureEntry) -> usize {
    let names = erasure.user.iter().chain(&erasure.ids).chain(&erasure.feedback);
    ENTRY_BYTES + names.map(|name| name.len() + 8).sum::<usize>()
}
