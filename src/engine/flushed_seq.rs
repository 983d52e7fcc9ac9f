//! Reads how far the tables cover the log.

use uuid::Uuid;

use crate::error::Result;
use crate::record::Rows;
use crate::store::Store;
use crate::table::Table;
use crate::wal::{self, FlushedSeq};

/// Returns the id of the log that belongs to a store, or `None` if the log does not exist yet.
pub(super) fn wal_id_of(store: &Store) -> Result<Option<Uuid>> {
    store.wal_folder().map_or(Ok(None), |folder| wal::read_identity(&**store.disk(), &folder))
}

/// Opens the tables as they are now, and returns them with the frames of the log that they cover.
pub(super) async fn covered_now(
    store: &Store,
    wal_id: Uuid,
) -> Result<(Option<Table>, Option<Table>, FlushedSeq)> {
    let logs = Table::open(store, Rows::Logs).await?;
    let feedback = Table::open(store, Rows::Feedback).await?;
    let covered = covered(logs.as_ref(), feedback.as_ref(), wal_id).await?;
    Ok((logs, feedback, covered))
}

/// Returns the last sequence of the log that each table covers.
pub(super) async fn covered(
    logs: Option<&Table>,
    feedback: Option<&Table>,
    wal_id: Uuid,
) -> Result<FlushedSeq> {
    let mut covered = [0; 2];
    for (place, table) in [logs, feedback].into_iter().enumerate() {
        let Some(table) = table else { continue };
        let version = table.app_version(&wal_id.to_string()).await?;
        covered[place] = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
    }
    Ok(FlushedSeq { logs: covered[0], feedback: covered[1] })
}
