//! Maintenance of a table (`logs` or `feedback`): expiry, compaction and sealing.
//!
//! [`plan_expiry`] and [`plan`] decide from metadata alone. Expiry comes first, so an expiring file
//! is not merged before.
//!
//! - **Expiry** ([`plan_expiry`]): a commit drops files without any visible row, unread. Files that
//!   may hold rows of another retention class than their own, or rows to be erased, are rewritten
//!   without them ([`rewrite`]).
//! - **Today**: eight files within a factor of four in size are merged into one. Each merge makes
//!   the file of a row about eight times as big, so in a day of n flushes a row is written about
//!   log8(n) times: four times for 2,880.
//! - **Sealing**: once a day is past and received no file for ten minutes, all of it is rewritten
//!   once more, fully sorted, at a higher zstd level, into files of at most the target size with
//!   disjoint ranges of the sort key. The file names mark them as sealed, and they stay. Later
//!   files are sealed too, after each quiet period, together with as many sealed files, smallest
//!   first, as amount to at most four times their bytes. So sealing writes at most five bytes for a
//!   late one, and a few late rows leave a day's big files alone. Small sealed files are merged by
//!   eight, as today's are.
//! - **Memory**: a merge holds a row group, some decompressed pages and a batch of every input, in
//!   sizes that the footers give. If the sum exceeds `maintenance_memory_bytes`, the smallest inputs
//!   are first merged into runs, which are deleted when the merge is done. Two files can always be
//!   merged, in batches of single rows if rows are huge. Planning assumes [`MAX_OPEN_BYTES`], of
//!   which big inputs are merged by three, so n of them are written at most ⌈log3(n)⌉ times
//!   including the last pass: 1.5 GB of full-sized files once, 4.5 GB twice.
//!
//! The new files mark the same records as open as the files that they replace.
//!
//! Each change replaces files in one commit. A query that started before continues to read the old
//! files, which vacuum deletes after the grace period.

mod compact;
mod expire;
mod merge;
mod open;
mod rewrite;
mod tools;

#[cfg(test)]
mod tests;

pub(crate) use compact::{Merge, plan};
pub(crate) use expire::{commit_dropped, plan_expiry};
pub(crate) use merge::{commit_merged, write_merged};
pub(crate) use open::with_marks;
pub(crate) use rewrite::{commit_replaced, commit_rewritten, rewrite, rewrite_without};
pub(crate) use tools::{Policy, Tools};
