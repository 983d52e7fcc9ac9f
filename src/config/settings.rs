//! Definition of every setting: name, type, default, unit and meaning.

use std::fmt;

use super::plans::Plans;
use super::redact::Redact;
use super::renamed;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::nearest::{clip, hint, nearest};

/// A text that logs, errors and `gatelog config` never show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(not set)" } else { "(set)" })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Description of one setting, for `gatelog config` and `gatelog.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file. In the environment `GATELOG_` and the key in capitals.
    pub name: &'static str,
    /// Unit of the value, or the kind of text.
    pub unit: &'static str,
    /// Meaning of the value.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:expr, $unit:literal, $doc:literal;)*) => {
        /// The settings of an engine and its server. `Default` is the configuration of `gatelog
        /// serve` without any settings.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $(#[doc = concat!($doc, " (", $unit, ")")] pub $name: $type,)*
        }

        /// The table of settings, in the order of [`Config`].
        pub const SETTINGS: &[Setting] =
            &[$(Setting { name: stringify!($name), unit: $unit, doc: $doc },)*];

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Config {
            /// Sets one setting from its text form.
            pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
                let name = renamed::current(name);
                match name {
                    $(stringify!($name) => self.$name = parse(name, value, $unit)?,)*
                    _ => return Err(unknown(name)),
                }
                Ok(())
            }

            /// Returns one setting in its text form. For a secret, the text only shows if it is
            /// set.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($name) => Some(self.$name.to_string()),)*
                    _ => None,
                }
            }
        }
    };
}

pub(super) const MIB: u64 = 1 << 20;
settings! {
    data: String = "gatelog-data".to_owned(), "path or URL", "location of the tables and of the write-ahead log";
    listen: String = "127.0.0.1:8080".to_owned(), "address:port", "address that the server listens on; port 0 takes a free port";
    admin_key: Secret = Secret::default(), "text", "admin key; without it the first start creates one and prints it once";
    memory: u64 = 0, "bytes (0 means half of the memory of the container or the machine)", "memory that is divided among rows, queries, exports, bodies, caches and maintenance; the other half is for code, decoding and the allocator";
    threads: u64 = 0, "threads (0 means one for each core, at most one for each 64 MiB of `memory`)", "threads that work on queries, flushes and compactions";
    retention_days: u64 = 0, "days (0 means for ever)", "retention of records of organisations without a plan";
    plans: Plans = Plans::default(), "table of plans", "custom plans, beside developer, production and enterprise; `[plans.NAME]`: see `gatelog guide organisations`";
    do_not_track_failures: Failures = Failures::Strict, "strict or portkey", "content that is kept of failed calls that must not be tracked: `strict` keeps none, `portkey` keeps the response";
    redact: Redact = Redact::default(), "table of rules", "content that is removed from records before they are stored; `[redact.NAME]`: see `gatelog guide privacy`";
    span_labels: String = String::new(), "names separated by commas; * at the end of a name matches any rest", "further attributes of OpenTelemetry spans that become metadata, beside those that are known to hold no content";
    prices_file: String = String::new(), "path", "file of prices that override the built-in ones, in the form of `data/prices.csv`";
    wal: String = String::new(), "path", "folder of the write-ahead log, on a disk of this node; default: `wal` in the data folder, `gatelog-wal` for a bucket";
    s3_endpoint: String = String::new(), "URL", "S3 endpoint; default: AWS_ENDPOINT_URL, or Amazon's";
    s3_region: String = String::new(), "name", "S3 region; default: AWS_REGION, or us-east-1";
    s3_access_key_id: String = String::new(), "text", "S3 key; default: AWS_ACCESS_KEY_ID, or the role of the machine";
    s3_secret_access_key: Secret = Secret::default(), "text", "S3 secret; default: AWS_SECRET_ACCESS_KEY";
    s3_session_token: Secret = Secret::default(), "text", "S3 session token; default: AWS_SESSION_TOKEN";
    s3_path_style: bool = true, "true or false", "true names the bucket in the path, as most S3 servers need it; false names it in the host name";
    disk_cache_bytes: u64 = 1024 * MIB, "bytes (0 means none)", "disk space for parts of files read from a bucket";
    refresh_seconds: u64 = 2, "seconds", "interval at which a node looks for changes by other nodes or by the command line";
    max_staleness_seconds: u64 = 60, "seconds", "time for which a node that cannot read the catalog still answers reads and admin requests; after that it only accepts records, from keys that it knows";
    lease_seconds: u64 = 60, "seconds", "for a bucket: time of silence of a node after which another node takes over maintenance, or its write-ahead log";
    memtable_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "memory for acknowledged rows that are not in a table file yet; when it is full, writers wait and are then refused";
    append_wait_ms: u64 = 5_000, "ms", "time that a writer waits for free memory before it is refused with 429";
    flush_bytes: u64 = 0, "bytes (0 means a quarter of `memtable_bytes`, at most 32 MiB)", "rows in memory that start a flush";
    flush_seconds: u64 = 30, "seconds", "age of the oldest row in memory that starts a flush";
    max_record_bytes: u64 = 0, "bytes (0 means a quarter of the memory for bodies or exports, at most 64 MiB)", "largest record that is accepted";
    dedupe_hours: u64 = 24, "hours", "time for which an id is remembered, so that sending it again adds no record";
    join_seconds: u64 = 600, "seconds", "time that a partial record, from a source that sends a record in two parts, waits for the other part";
    dedupe_ids: u64 = 0, "ids (0 means a share of `memory`, at most 8 million)", "maximum number of remembered ids; beyond it the organisation with the most ids forgets its oldest (30 to 50 bytes each)";
    query_memory_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "memory that all running queries share, of which those of one organisation take at most half; beyond it, sorts and joins spill to disk";
    export_memory_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "memory that all running exports share, of which those of one organisation take at most half; beyond it, they sort on disk";
    body_memory_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "memory for request bodies and the records parsed from them";
    maintenance_memory_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "memory for flushes, merges and rewrites of files; a row group takes an eighth of it, 1 to 32 MiB";
    spill_folder: String = String::new(), "path", "folder for data that queries and exports spill; default: `spill` in the folder of the write-ahead log";
    spill_bytes: u64 = 10 * 1024 * MIB, "bytes (0 means none)", "disk space for data that queries and exports spill, of which those of one organisation take at most half; a twentieth of the disk stays free";
    query_timeout_seconds: u64 = 60, "seconds", "longest time of one query";
    query_max_rows: u64 = 1_000_000, "rows (0 means no limit)", "maximum number of rows that one query may return; exports have no limit";
    query_concurrency: u64 = 0, "queries (0 follows `query_memory_bytes`, at most 8)", "number of queries that run at once; further ones wait";
    query_share: u64 = 0, "queries (0 means half of query_concurrency)", "number of queries of one organisation that run at once; eight times as many wait, further ones are refused with 429";
    cache_bytes: u64 = 0, "bytes (0 means a share of `memory`)", "Parquet footers that are kept in memory";
    zstd_level: u64 = 3, "zstd level 1 to 22", "compression of merged files; flushes use level 1";
    sealed_zstd_level: u64 = 6, "zstd level 1 to 22", "compression of sealed files, into which the files of a past day are merged";
    compact_schedule: Schedule = Schedule::every_seconds(60), "schedule", "schedule of merging small files and sealing past days";
    expire_schedule: Schedule = Schedule::every_seconds(600), "schedule", "schedule of removing records from files that are past their retention or were deleted on request";
    compact_target_bytes: u64 = 512 * MIB, "bytes", "target size of merged files";
    vacuum_schedule: Schedule = Schedule::every_seconds(3_600), "schedule", "schedule of deleting files that no version lists";
    vacuum_grace_seconds: u64 = 3_600, "seconds", "time that a replaced file is kept for readers that still hold it";
    checkpoint_schedule: Schedule = Schedule::every_seconds(5), "schedule", "schedule of checking if a checkpoint of the Delta log is due";
    checkpoint_commits: u64 = 100, "commits", "commits to the Delta log between two checkpoints";
    clean_log_schedule: Schedule = Schedule::every_seconds(3_600), "schedule", "schedule of deleting entries of the Delta log before the last checkpoint";
    export_keep_days: u64 = 7, "days (0 means for ever)", "time for which the file of an export job can be downloaded";
    export_bytes: u64 = 16 * 1024 * MIB, "bytes (0 means no limit)", "space of the compressed files of all export jobs; one organisation uses at most as much as remains free";
    gateway_url: String = String::new(), "URL", "base URL of the gateway that replays are sent to, such as http://127.0.0.1:8787/v1; without it nothing is sent";
    gateway_logs: bool = false, "true or false", "true if that gateway sends its own records here; a replay then writes no record beside them";
    replay_timeout_seconds: u64 = 120, "seconds", "longest time of a replay, until its last byte";
    public_url: String = String::new(), "URL", "URL at which clients reach this server, such as https://logs.example.com; signed URLs begin with it";
    share_links: bool = false, "true or false", "true lets a signed link, which expires and can be revoked, open one log without a key";
    clean_log_seconds: u64 = 86_400, "seconds", "time that entries of the Delta log are kept, for readers of older versions";
}

/// Content that is kept of a failed call that must not be tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failures {
    /// No content, as for any other call.
    #[default]
    Strict,
    /// The response, which may quote the request.
    Portkey,
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Portkey => "portkey",
        })
    }
}

/// Parses a value. Sizes take the suffixes KiB, MiB and GiB.
fn parse<T: Value>(name: &str, text: &str, unit: &str) -> Result<T> {
    T::from_text(text.trim(), unit).map_err(|why| match why {
        Some(error) => Error::invalid(format!("setting `{name}`: {error}")),
        None => {
            let near = nearest(text, T::NAMES.iter().copied());
            let meant =
                near.first().map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Error::invalid(format!("setting `{name}` is `{}`; expected {unit}{meant}", clip(text)))
        }
    })
}

trait Value: Sized {
    /// All values, if there are only a few.
    const NAMES: &'static [&'static str] = &[];

    /// Parses a value in the unit of the setting. The error is `None` if the unit is explanation
    /// enough.
    fn from_text(text: &str, unit: &str) -> Result<Self, Option<Error>>;
}

impl Value for bool {
    const NAMES: &'static [&'static str] = &["true", "false"];

    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        text.parse().map_err(|_| None)
    }
}

impl Value for Schedule {
    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        text.parse().map_err(Some)
    }
}

impl Value for Plans {
    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        Self::parse(text).map_err(Some)
    }
}

impl Value for Redact {
    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        Self::parse(text).map_err(Some)
    }
}

impl Value for Failures {
    const NAMES: &'static [&'static str] = &["strict", "portkey"];

    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        [Self::Strict, Self::Portkey]
            .into_iter()
            .find(|value| value.to_string() == text)
            .ok_or(None)
    }
}

impl Value for String {
    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        Ok(text.to_owned())
    }
}

impl Value for Secret {
    fn from_text(text: &str, _: &str) -> Result<Self, Option<Error>> {
        Ok(Self(text.to_owned()))
    }
}

impl Value for u64 {
    fn from_text(text: &str, unit: &str) -> Result<Self, Option<Error>> {
        if is_size(unit) {
            return size(text).ok_or_else(|| Some(no_size(text)));
        }
        whole(text).ok_or(None)
    }
}

/// Returns true if values of a unit are sizes, which take KiB, MiB and GiB.
pub fn is_size(unit: &str) -> bool {
    unit.starts_with("bytes")
}

fn whole(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// Splits a number from the letters after it, in lower case.
fn with_suffix(text: &str) -> (Option<u64>, String) {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    (whole(digits.trim()), text[digits.len()..].to_ascii_lowercase())
}

fn size(text: &str) -> Option<u64> {
    let (number, suffix) = with_suffix(text);
    let factor: u64 = match suffix.as_str() {
        "" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number?.checked_mul(factor)
}

/// Returns the error of a text that is not a size. Units of 1,000 are refused, since many people
/// use them for 1,024.
fn no_size(text: &str) -> Error {
    let (number, suffix) = with_suffix(text);
    let meant = match suffix.as_str() {
        "k" | "kb" | "ki" => Some(("KiB", 1_000_u64)),
        "m" | "mb" | "mi" => Some(("MiB", 1_000_000)),
        "g" | "gb" | "gi" => Some(("GiB", 1_000_000_000)),
        _ => None,
    };
    let meant = number
        .zip(meant)
        .and_then(|(number, (unit, factor))| Some((number, unit, number.checked_mul(factor)?)));
    let meant = meant.map_or_else(String::new, |(number, unit, bytes)| {
        format!("; write `{number}{unit}`, or `{bytes}` for units of 1,000")
    });
    Error::invalid(format!(
        "`{}` is not a size; expected bytes, or a whole number with KiB, MiB or GiB, such as `128MiB` (1 MiB = 1,048,576 \
         bytes){meant}",
        clip(text)
    ))
}

fn unknown(name: &str) -> Error {
    let known = SETTINGS.iter().map(|setting| setting.name);
    let hint = hint(name, known, "settings", "`gatelog config`");
    Error::invalid(format!("setting `{}` is unknown; {hint}", clip(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Origin};

    fn layers(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let file = Some(("gatelog.toml".to_owned(), file.to_owned()));
        Layers { file, environment: owned(environment), flags: owned(flags) }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let effective = layers(
            "flush_seconds = 5\nlisten = '127.0.0.1:1'\nmemtable_bytes = '64 MiB'\nflush_bytes = '1MiB'",
            &[("GATELOG_LISTEN", "127.0.0.1:2"), ("GATELOG_DATA", "/a")],
            &[("data", "/b")],
        )
        .resolve()
        .unwrap();
        assert_eq!(effective.config.flush_seconds, 5);
        assert_eq!(effective.config.memtable_bytes, 64 * MIB);
        assert_eq!(
            (effective.config.listen.as_str(), effective.origin("listen")),
            ("127.0.0.1:2", Origin::Environment)
        );
        assert_eq!(
            (effective.config.data.as_str(), effective.origin("data")),
            ("/b", Origin::Flag)
        );
        assert_eq!(effective.origin("zstd_level"), Origin::Default);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (file, words) in [
            ("flush_secs = 1", "setting `flush_secs` is unknown"),
            ("flush_seconds = 'soon'", "setting `flush_seconds` is `soon`; expected seconds"),
            ("flush_seconds = 1.5", "setting `flush_seconds` in `gatelog.toml` is a float"),
            ("zstd_level = 40", "setting `zstd_level` is 40"),
            ("flush_bytes = '9GiB'", "setting `flush_bytes`"),
            ("= 1", "not valid TOML"),
        ] {
            let error = layers(file, &[], &[]).resolve().unwrap_err();
            assert!(error.message().contains(words), "{error} does not contain {words}");
        }
    }

    #[test]
    fn a_misspelt_setting_of_file_or_flag_is_an_error_that_names_the_nearest() {
        let file = layers("flush_secs = 1", &[], &[]).resolve().unwrap_err();
        assert_eq!(
            file.message(),
            "`gatelog.toml`: setting `flush_secs` is unknown; did you mean `flush_seconds`?"
        );
        let flag = layers("", &[], &[("datta", "x")]).resolve().unwrap_err();
        assert_eq!(flag.message(), "--set: setting `datta` is unknown; did you mean `data`?");
    }

    #[test]
    fn a_former_name_of_a_setting_is_read_with_a_warning() {
        let former = "upkeep_memory_bytes";
        let variable = [("GATELOG_UPKEEP_MEMORY_BYTES", "3MiB")];
        for given in [
            layers("upkeep_memory_bytes = \"3MiB\"", &[], &[]),
            layers("", &variable, &[]),
            layers("", &[], &[(former, "3MiB")]),
        ] {
            let effective = given.resolve().unwrap();
            assert_eq!(effective.config.maintenance_memory_bytes, 3 << 20);
            assert_ne!(effective.origin("maintenance_memory_bytes"), Origin::Default);
            let expected =
                format!("setting `{former}` is now named `maintenance_memory_bytes`; rename it");
            assert_eq!(effective.warnings, [expected]);
        }
    }

    #[test]
    fn unknown_variables_are_one_warning_and_near_misses_of_guarded_settings_are_errors() {
        let service =
            [("GATELOG_PORT", "tcp://10.96.0.7:8790"), ("GATELOG_SERVICE_HOST", "10.96.0.7")];
        assert!(layers("", &service, &[]).resolve().unwrap().warnings.is_empty());
        let unknown = layers("", &[("GATELOG_FLUSH_SECS", "1")], &[]).resolve().unwrap();
        assert_eq!(
            unknown.warnings,
            [
                "environment variable `GATELOG_FLUSH_SECS` (nearest: `GATELOG_FLUSH_SECONDS`) ignored: not a setting; \
              `gatelog config` lists all settings"
            ]
        );
        let many: Vec<String> = (0..8).map(|number| format!("GATELOG_ZZ_{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
        let warnings = layers("", &many, &[]).resolve().unwrap().warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("and 3 more ignored") && !warning.contains('\n'), "{warning}");
        for (variable, setting) in [
            ("GATELOG_ADMINKEY", "ADMIN_KEY"),
            ("GATELOG_DATA_DIR", "DATA"),
            ("GATELOG_WALL", "WAL"),
        ] {
            let error = layers("", &[(variable, "s3cret")], &[]).resolve().unwrap_err();
            let expected = format!("`{variable}` is unknown; did you mean `GATELOG_{setting}`?");
            assert!(error.message().contains(&expected), "{error}");
            assert!(!error.message().contains("s3cret"));
        }
    }

    #[test]
    fn a_size_takes_units_of_1024_and_says_so() {
        let of = |text: &str| {
            let mut config = Config::default();
            config.set("memory", text).map(|()| config.memory)
        };
        for (text, bytes) in [
            ("128MiB", 128 * MIB),
            ("128 mib", 128 * MIB),
            ("1GiB", 1024 * MIB),
            ("64KiB", 64 << 10),
            ("1_000", 1_000),
        ] {
            assert_eq!(of(text).unwrap(), bytes, "{text}");
        }
        for (text, right) in [
            ("128MB", "write `128MiB`, or `128000000` for units of 1,000"),
            ("2g", "write `2GiB`, or `2000000000` for units of 1,000"),
            ("64k", "write `64KiB`"),
            ("1.5GiB", "a whole number with KiB, MiB or GiB, such as `128MiB`"),
            ("20000000000GiB", "is not a size"),
            ("much", "1 MiB = 1,048,576 bytes"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.message().starts_with("setting `memory`: `"), "{error}");
            assert!(error.message().contains(right), "{error}");
        }
        // Settings that are not sizes take no size units.
        for setting in SETTINGS.iter().filter(|setting| !is_size(setting.unit)) {
            let mut config = Config::default();
            let number = config.get(setting.name).is_some_and(|value| value.parse::<u64>().is_ok());
            assert!(!number || config.set(setting.name, "5KiB").is_err(), "{}", setting.name);
        }
    }

    #[test]
    fn a_misspelt_value_is_answered_with_the_nearest_of_the_few_that_there_are() {
        for (setting, value, near) in [
            ("share_links", "ture", "true"),
            ("s3_path_style", "flase", "false"),
            ("gateway_logs", "True", "true"),
            ("do_not_track_failures", "strickt", "strict"),
            ("do_not_track_failures", "port-key", "portkey"),
        ] {
            let error = Config::default().set(setting, value).unwrap_err();
            let expected = format!("setting `{setting}` is `{value}`; expected ");
            assert!(error.message().starts_with(&expected), "{error}");
            assert!(error.message().ends_with(&format!("; did you mean `{near}`?")), "{error}");
        }
    }

    #[test]
    fn broken_toml_is_placed_and_not_quoted() {
        let error = layers("flush_seconds = 5\nadmin_key = s3cret-s3cret\n", &[], &[])
            .resolve()
            .unwrap_err();
        assert!(error.chain().starts_with("`gatelog.toml` is not valid TOML in line 2"), "{error}");
        assert!(!error.chain().contains("s3cret"), "{error}");
    }

    #[test]
    fn the_admin_key_is_never_shown() {
        let mut config = Config::default();
        config.set("admin_key", "s3cret").unwrap();
        assert_eq!(config.get("admin_key").as_deref(), Some("(set)"));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_gateway_is_a_plain_url() {
        let of =
            |text: &str| Config { gateway_url: text.to_owned(), ..Config::default() }.validate();
        for fine in ["", "http://127.0.0.1:8787/v1", "https://gateway.example/v1/"] {
            assert!(of(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "gateway:8787",
            "ftp://h/v1",
            "http://u:p@h/v1",
            "http://u@h",
            "http://h/v1?a=b",
            "http://h/#x",
        ] {
            let error = of(wrong).unwrap_err();
            assert!(
                error.message().contains("`gateway_url`") && !error.message().contains("u:p"),
                "{error}"
            );
        }
    }
}
