//! Plans merges: today's files by size class, past days as a whole. Pure; the module doc of
//! `maintain` has the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::expire::{Disposition, disposition};
use super::tools::{MAX_FILES, MAX_OPEN_BYTES, Policy, held};
use crate::plan::Rules;
use crate::table::{DataFile, FileIndex};

/// Files of one size class that make a merge worthwhile.
const FILES_OF_A_CLASS: usize = 8;
/// Maximum bytes of sealed files that are merged again, as a multiple of the bytes that join them.
const MAX_SEALED_PER_FRESH: u64 = 4;
/// Divisor of the target size below which a sealed file is small. Files of a sealed day are bigger,
/// except the last.
const SMALL_PART: u64 = 8;
const SECONDS_A_DAY: i64 = 86_400;

/// Files of one partition to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// Date of the partition.
    pub date: i32,
    /// Retention of the partition in days.
    pub retention_days: i32,
    /// Files to merge.
    pub files: Vec<Arc<DataFile>>,
    /// True if the results are sealed. Otherwise the result is one file.
    pub seal: bool,
}

impl Merge {
    /// Returns the total size of the files in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        bytes(&self.files)
    }
}

type Files = Vec<Arc<DataFile>>;

/// Returns the merges that are due, oldest day first. Skips files that the rules drop or rewrite.
pub(crate) fn plan(
    now: DateTime<Utc>,
    index: &FileIndex,
    rules: &Rules,
    policy: Policy,
) -> Vec<Merge> {
    let today = i32::try_from(now.timestamp().div_euclid(SECONDS_A_DAY)).unwrap_or(i32::MAX);
    let mut merges = Vec::new();
    for ((date, retention_days), files) in index.partitions() {
        // A past day that still receives files, as during an import, is treated as today until it
        // is quiet.
        let newest_ms = files.iter().map(|file| file.modified_ms).max().unwrap_or(0);
        let quiet = now.timestamp_millis() - newest_ms >= policy.quiet_ms;
        let stays = |file: &&Arc<DataFile>| {
            disposition(file, rules, now.timestamp_micros()) == Disposition::Stay
        };
        let mut files: Files = files.iter().filter(stays).map(Arc::clone).collect();
        // Small files first: they gain most, and a merge that reaches its limits stops before the
        // big ones.
        files.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.path.cmp(&b.path)));
        let (sealed, fresh) = files.into_iter().partition(|file| file.is_sealed());
        let seal = date < today && quiet;
        let groups = if seal { past_day(fresh, sealed, policy) } else { open_day(fresh, policy) };
        merges.extend(groups.into_iter().map(|files| Merge { date, retention_days, files, seal }));
    }
    merges
}

/// Plans merges of a day that still receives files.
fn open_day(mut fresh: Files, policy: Policy) -> Vec<Files> {
    fresh.retain(|file| file.bytes < policy.target_bytes);
    size_classes(fresh).into_iter().flat_map(|class| bounded(class, policy)).collect()
}

/// Plans merges of a past day: all new files, and only as many sealed ones as are worth rewriting.
fn past_day(fresh: Files, sealed: Files, policy: Policy) -> Vec<Files> {
    let mut groups = Vec::new();
    let mut room = bytes(&fresh).saturating_mul(MAX_SEALED_PER_FRESH);
    let mut whole = fresh;
    let mut small = Vec::new();
    for file in sealed {
        if file.bytes <= room {
            room -= file.bytes;
            whole.push(file);
        } else {
            // The next file is at least as big, so no more of them fit.
            room = 0;
            small.push(file);
        }
    }
    if !whole.is_empty() {
        groups.push(whole);
    }
    small.retain(|file| file.bytes < policy.target_bytes / SMALL_PART);
    groups.extend(size_classes(small));
    groups
}

/// Groups files within a factor of four in size, and returns the groups that are large enough to
/// merge.
fn size_classes(files: Files) -> Vec<Files> {
    let mut classes: BTreeMap<u32, Files> = BTreeMap::new();
    for file in files {
        classes.entry(file.bytes.max(1).ilog2() / 2).or_default().push(file);
    }
    classes.into_values().filter(|class| class.len() >= FILES_OF_A_CLASS).collect()
}

/// Splits a group into merges within the limits of size, number and memory. Leaves out files that
/// would be alone.
fn bounded(files: Files, policy: Policy) -> Vec<Files> {
    let mut merges: Vec<Files> = Vec::new();
    let mut current = Vec::new();
    let mut bytes = 0;
    let mut open = 0;
    for file in files {
        let over = bytes + file.bytes > policy.target_bytes
            || open + held(file.bytes) > MAX_OPEN_BYTES
            || current.len() == MAX_FILES;
        if over && !current.is_empty() {
            merges.push(std::mem::take(&mut current));
            (bytes, open) = (0, 0);
        }
        (bytes, open) = (bytes + file.bytes, open + held(file.bytes));
        current.push(file);
    }
    merges.push(current);
    merges.retain(|files| files.len() > 1);
    merges
}

fn bytes(files: &[Arc<DataFile>]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::tools::QUIET_MS;
    use crate::plan::{Erased, Erasure, Moving, Terms};
    use crate::store::data_path;
    use std::collections::{HashMap, HashSet};
    use uuid::Uuid;

    const MIB: u64 = 1 << 20;
    const MICROS_A_DAY: i64 = SECONDS_A_DAY * 1_000_000;
    const POLICY: Policy =
        Policy { target_bytes: 100 * MIB, zstd_level: 3, sealed_zstd_level: 6, quiet_ms: QUIET_MS };

    fn file(date: i32, name: u128, bytes: u64) -> DataFile {
        with_class(0, date, name, bytes, false)
    }

    fn sealed(date: i32, name: u128, bytes: u64) -> DataFile {
        with_class(0, date, name, bytes, true)
    }

    fn with_class(
        retention_days: i32,
        date: i32,
        name: u128,
        bytes: u64,
        sealed: bool,
    ) -> DataFile {
        DataFile {
            path: data_path(retention_days, date, Uuid::from_u128(name), sealed),
            bytes,
            rows: 1,
            retention_days,
            date,
            modified_ms: 0,
            min_created_at: i64::from(date) * MICROS_A_DAY,
            max_created_at: i64::from(date) * MICROS_A_DAY + MICROS_A_DAY - 1,
            min_organisation: Some("acme".to_owned()),
            max_organisation: Some("zoo".to_owned()),
            min_id: None,
            max_id: None,
        }
    }

    fn day(date: i32) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::from(date) * SECONDS_A_DAY + 3_600, 0).unwrap()
    }

    fn planned(now: i32, files: Vec<DataFile>) -> Vec<(usize, bool)> {
        let merges = plan(day(now), &FileIndex::new(files), &Rules::without_plans(0), POLICY);
        merges.iter().map(|merge| (merge.files.len(), merge.seal)).collect()
    }

    const NONE: [(usize, bool); 0] = [];

    #[test]
    fn a_past_day_is_sealed_whole() {
        assert_eq!(planned(101, vec![file(100, 1, 5 * MIB), file(100, 2, 60 * MIB)]), [(2, true)]);
        assert_eq!(
            planned(101, vec![file(100, 1, 5 * MIB)]),
            [(1, true)],
            "a lone file is packed for good too"
        );
        assert_eq!(
            planned(101, vec![file(100, 1, 5 * MIB), file(100, 2, 300 * MIB)]),
            [(2, true)],
            "a big one too"
        );
        assert_eq!(
            planned(101, (0..300).map(|name| file(100, name, 60 * MIB)).collect()),
            [(300, true)]
        );
    }

    #[test]
    fn a_sealed_day_is_left_alone() {
        assert_eq!(planned(101, vec![sealed(100, 1, 5 * MIB)]), NONE);
        assert_eq!(planned(101, (0..20).map(|name| sealed(100, name, 90 * MIB)).collect()), NONE);
        assert_eq!(planned(101, vec![sealed(100, 1, 90 * MIB), sealed(100, 2, MIB)]), NONE);
    }

    #[test]
    fn a_past_day_that_files_come_to_is_not_sealed() {
        let files = |count: u128, modified_ms| {
            (0..count)
                .map(move |name| DataFile { modified_ms, ..file(100, name, MIB) })
                .collect::<Vec<_>>()
        };
        let now_ms = day(101).timestamp_millis();
        assert_eq!(planned(101, files(7, now_ms - QUIET_MS + 1)), NONE);
        assert_eq!(planned(101, files(8, now_ms - QUIET_MS + 1)), [(8, false)]);
        assert_eq!(planned(101, files(7, now_ms - QUIET_MS)), [(7, true)]);
    }

    #[test]
    fn late_files_take_in_sealed_ones_up_to_four_times_their_bytes() {
        let late = |bytes: u64, sealed_bytes: &[u64]| {
            let before =
                sealed_bytes.iter().zip(10..).map(|(bytes, name)| sealed(100, name, *bytes));
            planned(101, before.chain([file(100, 1, bytes)]).collect())
        };
        assert_eq!(late(1_000, &[500 * MIB]), [(1, true)], "ten rows do not rewrite a big file");
        assert_eq!(late(25 * MIB, &[100 * MIB]), [(2, true)]);
        assert_eq!(late(25 * MIB - 1, &[100 * MIB]), [(1, true)]);
        assert_eq!(late(25 * MIB, &[40 * MIB, 60 * MIB, 90 * MIB]), [(3, true)]);
        assert_eq!(late(20 * MIB, &[10 * MIB, 90 * MIB]), [(2, true)]);
    }

    #[test]
    fn small_sealed_files_are_joined_by_eight() {
        let many = |count: u128| (0..count).map(|name| sealed(100, name, MIB)).collect::<Vec<_>>();
        assert_eq!(planned(101, many(7)), NONE);
        assert_eq!(planned(101, many(8)), [(8, true)]);
        let late = many(9).into_iter().chain([file(100, 90, MIB / 8)]).collect();
        assert_eq!(
            planned(101, late),
            [(1, true), (9, true)],
            "the late one alone is worth half a file"
        );
    }

    /// Sums the bytes that sealing writes for late rows: one file of the same size per hour, for a
    /// day that is already sealed.
    #[test]
    fn sealing_late_files_writes_at_most_five_times_their_bytes_and_leaves_few() {
        let mut files = vec![sealed(100, 0, 500 * MIB)];
        let mut written = 0;
        let mut fresh = 0;
        for name in 0..1_000_u128 {
            let size = 1_000 + (name as u64 * 7_919) % 50_000;
            files.push(file(100, 10_000 + name, size));
            fresh += size;
            for merge in
                plan(day(101), &FileIndex::new(files.clone()), &Rules::without_plans(0), POLICY)
            {
                assert!(merge.seal && merge.bytes() < 100 * MIB, "the big file stays");
                written += merge.bytes();
                files.retain(|file| !merge.files.iter().any(|joined| joined.path == file.path));
                files.push(sealed(100, 100_000 + files.len() as u128 + name * 100, merge.bytes()));
            }
        }
        // Five for sealing, and one for each merge of eight sealed files into one.
        assert!(written <= 9 * fresh, "{written} for {fresh}");
        assert!(files.len() < 60, "{} files", files.len());
    }

    #[test]
    fn today_waits_for_eight_files_of_a_size() {
        let files = |count: u128| (0..count).map(|name| file(100, name, MIB)).collect::<Vec<_>>();
        assert_eq!(planned(100, files(7)), NONE);
        assert_eq!(planned(100, files(8)), [(8, false)]);
        assert_eq!(
            planned(100, files(7).into_iter().chain([file(100, 90, 50 * MIB)]).collect()),
            NONE
        );
        assert_eq!(
            planned(99, files(8)),
            [(8, false)],
            "a day in the future of a fast clock is not past"
        );
    }

    #[test]
    fn a_merge_of_today_stays_within_number_size_and_memory() {
        let small = (0..200).map(|name| file(100, name, 1_000)).collect();
        assert_eq!(planned(100, small), [(64, false), (64, false), (64, false), (8, false)]);
        let big = (0..9).map(|name| file(100, name, 40 * MIB)).collect();
        assert_eq!(planned(100, big), [(2, false); 4]);
    }

    #[test]
    fn files_that_expire_or_are_rewritten_are_not_merged() {
        let now = day(140);
        let of = |retention_days, date, name| with_class(retention_days, date, name, MIB, false);
        let files = vec![
            of(30, 109, 1),
            of(30, 109, 2),
            of(30, 110, 3),
            of(30, 110, 4),
            of(0, 110, 5),
            of(0, 110, 6),
        ];
        let index = FileIndex::new(files);
        let days = |rules: &Rules| {
            let merges = plan(now, &index, rules, POLICY);
            merges.iter().map(|merge| (merge.date, merge.retention_days)).collect::<Vec<_>>()
        };
        let rules = |erasures, moving| {
            let terms = HashMap::from([("acme".to_owned(), Terms::without_plan(0))]);
            Rules::new(Terms::without_plan(30), terms, HashSet::new(), erasures, moving)
        };
        // Day 110 is kept until its end is past the retention.
        assert_eq!(days(&rules(vec![], vec![])), [(110, 0), (110, 30)]);
        let moving = Moving { organisation: "acme".to_owned(), from_days: 30, clean_before_ms: 0 };
        assert_eq!(days(&rules(vec![], vec![moving])), [(110, 0)]);
        let what = Erased::User { user: "ada".to_owned(), until: i64::MAX };
        let [id, organisation] = ["1", "acme"].map(str::to_owned);
        let erasure = Erasure {
            id,
            organisation,
            what,
            feedback: HashSet::new(),
            arrived_ms: i64::MIN,
            clean_before_ms: 0,
        };
        assert_eq!(days(&rules(vec![erasure], vec![])), []);
    }
}
