//! Splits `memory` into shares, one for each use.
//!
//! A share whose setting is given keeps that value. The others divide the rest: each gets its
//! minimum, then a part of the rest in proportion to its weight, up to its maximum. Queries get the
//! remainder that no other share can use. The sum of all shares never exceeds `memory`. A
//! configuration is refused if the given values leave too little for the other shares.

use super::found::Found;
use super::settings::{Config, MIB};
use crate::error::{Error, Result};

/// Bytes that one remembered id takes.
const ID_BYTES: u64 = 40;
/// Maximum number of remembered ids unless a setting asks for more.
const MAX_IDS: u64 = 8_000_000;
/// Minimum `memory` that the server works with.
const LEAST_MEMORY: u64 = 64 * MIB;
/// Largest record if `max_record_bytes` is not set and there is memory for it.
const MAX_RECORD: u64 = 64 * MIB;
/// Memory for a body in multiples of its largest record: packed, unpacked, parsed and encoded.
const BODIES_PER_RECORD: u64 = 4;
/// Maximum bytes of rows at which a flush starts.
const MAX_FLUSH: u64 = 32 * MIB;
/// Query memory that justifies one more statement at a time.
const MEMORY_A_QUERY: u64 = 24 * MIB;
/// Minimum number of statements that run at once: one organisation never holds the only place.
const MIN_QUERIES: u64 = 2;
/// Maximum number of statements that run at once.
const MAX_QUERIES: u64 = 8;
/// `memory` that justifies one more thread: each decodes and encodes batches of its own.
const MEMORY_A_THREAD: u64 = 64 * MIB;

/// One share of `memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Use of the share.
    pub name: &'static str,
    /// The setting that overrides the share. `None` if it follows `memory` alone.
    pub setting: Option<&'static str>,
    /// Size of the share.
    pub bytes: u64,
}

/// Definition of a share.
struct Kind {
    name: &'static str,
    setting: Option<&'static str>,
    /// Bytes of one unit of the setting.
    unit: u64,
    least: u64,
    weight: u64,
    most: u64,
}

const fn kind(
    name: &'static str,
    setting: &'static str,
    least: u64,
    weight: u64,
    most: u64,
) -> Kind {
    Kind { name, setting: Some(setting), unit: 1, least: least * MIB, weight, most: most * MIB }
}

/// The shares in the order in which they are shown. Rows are first. Queries, which get the
/// remainder, are second.
const KINDS: [Kind; 8] = [
    kind("rows", "memtable_bytes", 8, 20, 192),
    kind("queries", "query_memory_bytes", 16, 28, 8 << 10),
    kind("exports", "export_memory_bytes", 6, 12, 1 << 10),
    kind("bodies", "body_memory_bytes", 8, 14, 256),
    kind("maintenance", "maintenance_memory_bytes", 8, 12, 512),
    kind("footers", "cache_bytes", 2, 4, 64),
    Kind {
        name: "ids",
        setting: Some("dedupe_ids"),
        unit: ID_BYTES,
        least: MIB,
        weight: 5,
        most: MAX_IDS * ID_BYTES,
    },
    Kind { name: "tables", setting: None, unit: 1, least: 2 * MIB, weight: 0, most: 512 * MIB },
];
/// The file index, the catalog and the counts have no setting. They get a twentieth of `memory`.
const TABLES_PART: u64 = 20;
const ROWS: usize = 0;
const QUERIES: usize = 1;
const BODIES: usize = 3;

impl Config {
    /// Returns the configuration with every setting that follows `memory` filled in. Keeps settings
    /// that are given. A settled configuration does not change.
    pub fn settled(&self, found: &Found) -> Result<Self> {
        let mut config = self.clone();
        if config.memory == 0 {
            config.memory = (found.memory / 2).max(LEAST_MEMORY);
        }
        if config.memory < LEAST_MEMORY {
            return Err(Error::invalid(format!(
                "setting `memory` is {}; expected at least {}",
                shown(config.memory),
                shown(LEAST_MEMORY)
            )));
        }
        let shares = split(&config)?;
        for (kind, bytes) in KINDS.iter().zip(shares) {
            if let Some(setting) = config.share_mut(kind.setting)
                && *setting == 0
            {
                *setting = (bytes / kind.unit).max(1);
            }
        }
        config.settle_parts(found);
        config.check_parts()?;
        Ok(config)
    }

    /// Returns the shares of a settled configuration.
    pub fn shares(&self) -> Vec<Share> {
        let bytes = split(self).unwrap_or_default();
        KINDS
            .iter()
            .zip(bytes)
            .map(|(kind, bytes)| Share { name: kind.name, setting: kind.setting, bytes })
            .collect()
    }

    /// Returns one line with `memory` and every share.
    pub fn memory_line(&self) -> String {
        let share = |share: &Share| format!("{} {}", share.name, shown(share.bytes));
        let shares = self.shares().iter().map(share).collect::<Vec<_>>().join(", ");
        format!("memory {}: {shares}", shown(self.memory))
    }

    /// Returns the size of a row group in new files. It is small if memory is small, because every
    /// reader and writer of a file holds one row group.
    pub fn row_group_bytes(&self) -> u64 {
        (self.maintenance_memory_bytes / 8).clamp(MIB, 32 * MIB)
    }

    /// Fills in the settings that depend on the shares.
    fn settle_parts(&mut self, found: &Found) {
        if self.flush_bytes == 0 {
            self.flush_bytes =
                MAX_FLUSH.min(self.memtable_bytes / 4).max(64 << 10).min(self.memtable_bytes);
        }
        if self.max_record_bytes == 0 {
            let bodies = self.body_memory_bytes / BODIES_PER_RECORD;
            self.max_record_bytes =
                MAX_RECORD.min(bodies).min(self.export_memory_bytes / 4).max(1 << 10);
        }
        if self.query_concurrency == 0 {
            self.query_concurrency =
                (self.query_memory_bytes / MEMORY_A_QUERY).clamp(MIN_QUERIES, MAX_QUERIES);
        }
        if self.threads == 0 {
            self.threads = found.cores.min(self.memory / MEMORY_A_THREAD).max(1);
        }
    }

    /// Checks relations between settings that are known only after the split.
    fn check_parts(&self) -> Result<()> {
        check_flush(self.flush_bytes, self.memtable_bytes)?;
        let needed = self.max_record_bytes.saturating_mul(BODIES_PER_RECORD);
        if self.body_memory_bytes < needed {
            return Err(Error::invalid(format!(
                "setting `body_memory_bytes` is {}; expected at least four times `max_record_bytes`, {}",
                self.body_memory_bytes, needed
            )));
        }
        Ok(())
    }

    /// Returns the setting of a share by its name.
    fn share_mut(&mut self, setting: Option<&str>) -> Option<&mut u64> {
        Some(match setting? {
            "memtable_bytes" => &mut self.memtable_bytes,
            "query_memory_bytes" => &mut self.query_memory_bytes,
            "export_memory_bytes" => &mut self.export_memory_bytes,
            "body_memory_bytes" => &mut self.body_memory_bytes,
            "maintenance_memory_bytes" => &mut self.maintenance_memory_bytes,
            "cache_bytes" => &mut self.cache_bytes,
            "dedupe_ids" => &mut self.dedupe_ids,
            _ => return None,
        })
    }

    /// Returns the values that are given, in the order of [`KINDS`].
    fn given(&self) -> [u64; KINDS.len()] {
        [
            self.memtable_bytes,
            self.query_memory_bytes,
            self.export_memory_bytes,
            self.body_memory_bytes,
            self.maintenance_memory_bytes,
            self.cache_bytes,
            self.dedupe_ids,
            (self.memory / TABLES_PART).clamp(2 * MIB, 512 * MIB),
        ]
    }
}

/// Refuses to flush more rows than there is memory for. `memtable_bytes` may be 0, which stands for
/// its share.
pub(super) fn check_flush(flush_bytes: u64, memtable_bytes: u64) -> Result<()> {
    let most = if memtable_bytes == 0 { KINDS[ROWS].most } else { memtable_bytes };
    if flush_bytes > most {
        return Err(Error::invalid(format!(
            "setting `flush_bytes` is {flush_bytes}; expected at most `memtable_bytes`, {most}"
        )));
    }
    Ok(())
}

/// Divides `memory`; returns the shares in the order of [`KINDS`].
fn split(config: &Config) -> Result<[u64; KINDS.len()]> {
    let given = config.given();
    let mut least = KINDS.map(|kind| kind.least);
    if given[BODIES] == 0 {
        least[BODIES] =
            least[BODIES].max(config.max_record_bytes.saturating_mul(BODIES_PER_RECORD));
    }
    let mut shares = least;
    for (place, kind) in KINDS.iter().enumerate() {
        if given[place] > 0 {
            shares[place] = given[place].saturating_mul(kind.unit);
        }
    }
    let taken = shares.iter().fold(0_u64, |sum, share| sum.saturating_add(*share));
    let Some(rest) = config.memory.checked_sub(taken) else {
        return Err(does_not_fit(config, taken, &shares, &given));
    };
    let open = |place: &usize| given[*place] == 0;
    let weights: u64 = (0..KINDS.len()).filter(open).map(|place| KINDS[place].weight).sum();
    let mut left = rest;
    for place in (0..KINDS.len()).filter(open) {
        let kind = &KINDS[place];
        let part = u128::from(rest) * u128::from(kind.weight) / u128::from(weights);
        let part = u64::try_from(part)
            .unwrap_or(rest)
            .min(kind.most.saturating_sub(shares[place]))
            .min(left);
        shares[place] += part;
        left -= part;
    }
    if open(&QUERIES) {
        shares[QUERIES] += left.min(KINDS[QUERIES].most.saturating_sub(shares[QUERIES]));
    }
    Ok(shares)
}

fn does_not_fit(config: &Config, taken: u64, shares: &[u64], given: &[u64]) -> Error {
    let memory = config.memory;
    let part = |(place, kind): (usize, &Kind)| {
        let bytes = shown(shares[place]);
        match kind.setting {
            Some(setting) if given[place] > 0 => format!("{} {bytes} (`{setting}`)", kind.name),
            _ if place == BODIES && config.max_record_bytes > 0 => {
                format!("{} at least {bytes} (four times `max_record_bytes`)", kind.name)
            }
            _ => format!("{} at least {bytes}", kind.name),
        }
    };
    let parts = KINDS.iter().enumerate().map(part).collect::<Vec<_>>().join(", ");
    Error::invalid(format!(
        "the shares of `memory` add up to {}, but `memory` is {}: {parts}; raise `memory` or lower one of the named settings",
        shown(taken),
        shown(memory)
    ))
}

/// Formats a size in MiB, or in KiB or bytes if it is smaller than that.
fn shown(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..MIB => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(config: &Config, memory: u64) -> Config {
        config.settled(&Found { memory, cores: 64 }).unwrap()
    }

    fn sum(config: &Config) -> u64 {
        config.shares().iter().map(|share| share.bytes).sum()
    }

    #[test]
    fn a_record_that_does_not_fit_is_named() {
        let config = Config { memory: 128 * MIB, max_record_bytes: 64 * MIB, ..Config::default() };
        let error = config.settled(&Found { memory: 1 << 30, cores: 2 }).unwrap_err();
        assert!(
            error.message().contains("bodies at least 256 MiB (four times `max_record_bytes`)"),
            "{error}"
        );
    }

    #[test]
    fn shares_fit_in_memory_of_any_size() {
        let mut machine = 128 * MIB;
        while machine <= 1 << 40 {
            let config = settled(&Config::default(), machine);
            assert_eq!(config.memory, machine / 2, "half of what was found");
            assert!(sum(&config) <= config.memory, "{}", config.memory_line());
            assert!(
                config.shares().iter().zip(&KINDS).all(|(share, kind)| share.bytes >= kind.least)
            );
            assert!(config.flush_bytes <= config.memtable_bytes);
            assert!(config.max_record_bytes * BODIES_PER_RECORD <= config.body_memory_bytes);
            assert!((MIN_QUERIES..=MAX_QUERIES).contains(&config.query_concurrency));
            assert!(
                config.threads >= 1
                    && config.threads * MEMORY_A_THREAD <= config.memory.max(MEMORY_A_THREAD)
            );
            config.validate().unwrap();
            // Steps of about a fiftieth, so that no size is special.
            machine += machine / 51 + 4_097;
        }
    }

    #[test]
    fn every_share_follows_memory_or_its_setting() {
        let small = settled(&Config::default(), 512 * MIB);
        let large = settled(&Config::default(), 16 << 30);
        for (place, kind) in KINDS.iter().enumerate() {
            assert!(
                large.shares()[place].bytes > small.shares()[place].bytes,
                "{} grows",
                kind.name
            );
            let Some(setting) = kind.setting else { continue };
            let mut config = Config::default();
            let figure = (kind.least + 5 * MIB) / kind.unit;
            config.set(setting, &figure.to_string()).unwrap();
            let settled = settled(&config, 512 * MIB);
            assert_eq!(
                settled.get(setting),
                Some(figure.to_string()),
                "{setting} stays as it was set"
            );
            assert_eq!(settled.shares()[place].bytes, figure * kind.unit);
            assert!(sum(&settled) <= settled.memory);
        }
        assert_eq!(
            KINDS.iter().filter(|kind| kind.setting.is_none()).count(),
            1,
            "tables have no setting"
        );
    }

    #[test]
    fn settling_again_changes_nothing() {
        for machine in [128 * MIB, 512 * MIB, 2 << 30, 16 << 30, 1 << 40] {
            let once = settled(&Config::default(), machine);
            assert_eq!(settled(&once, 1 << 20), once);
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_names_and_figures() {
        let config =
            Config { memory: 256 * MIB, query_memory_bytes: 400 * MIB, ..Config::default() };
        let error = config.settled(&Found { memory: 1 << 30, cores: 2 }).unwrap_err();
        for words in
            ["`memory` is 256 MiB", "queries 400 MiB (`query_memory_bytes`)", "add up to 445 MiB"]
        {
            assert!(error.message().contains(words), "{error} does not contain {words}");
        }
        let config = Config { memory: 32 * MIB, ..Config::default() };
        let error = config.settled(&Found { memory: 1 << 30, cores: 2 }).unwrap_err();
        assert!(
            error.message().contains("`memory` is 32 MiB; expected at least 64 MiB"),
            "{error}"
        );
        let config = Config { body_memory_bytes: MIB, max_record_bytes: MIB, ..Config::default() };
        let error = config.settled(&Found { memory: 1 << 30, cores: 2 }).unwrap_err();
        assert!(error.message().contains("`body_memory_bytes`"), "{error}");
    }

    #[test]
    fn a_machine_without_much_memory_gets_the_least() {
        let config = settled(&Config::default(), 16 * MIB);
        assert_eq!((config.memory, config.threads), (LEAST_MEMORY, 1));
        assert!(sum(&config) <= LEAST_MEMORY);
    }
}
