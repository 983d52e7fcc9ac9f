//! Checks of a whole configuration.

use super::memory::check_flush;
use super::plans::MAX_DAYS;
use super::settings::{Config, MIB};
use crate::error::{Error, Result};

/// Longest time, in seconds, for which files of other nodes in a bucket may not belong to any
/// version.
const LEAST_SHARED_GRACE: u64 = 900;

impl Config {
    /// Checks ranges and the relations between settings.
    pub fn validate(&self) -> Result<()> {
        let at_least = |name: &str, value: u64, least: u64| {
            if value < least {
                return Err(Error::invalid(format!(
                    "setting `{name}` is {value}; expected at least {least}"
                )));
            }
            Ok(())
        };
        let at_least_if_set = |name: &str, value: u64, least: u64| match value {
            0 => Ok(()),
            value => at_least(name, value, least),
        };
        at_least_if_set("memtable_bytes", self.memtable_bytes, MIB)?;
        at_least_if_set("flush_bytes", self.flush_bytes, 64 << 10)?;
        at_least("flush_seconds", self.flush_seconds, 1)?;
        at_least_if_set("query_memory_bytes", self.query_memory_bytes, 16 * MIB)?;
        at_least_if_set("export_memory_bytes", self.export_memory_bytes, MIB)?;
        at_least_if_set("maintenance_memory_bytes", self.maintenance_memory_bytes, MIB)?;
        at_least("query_timeout_seconds", self.query_timeout_seconds, 1)?;
        at_least("checkpoint_commits", self.checkpoint_commits, 1)?;
        at_least_if_set("max_record_bytes", self.max_record_bytes, 1 << 10)?;
        at_least("refresh_seconds", self.refresh_seconds, 1)?;
        at_least("lease_seconds", self.lease_seconds, 5)?;
        at_least("max_staleness_seconds", self.max_staleness_seconds, 3)?;
        at_least("replay_timeout_seconds", self.replay_timeout_seconds, 1)?;
        check_url("gateway_url", &self.gateway_url, "http://127.0.0.1:8787/v1")?;
        check_url("public_url", &self.public_url, "https://logs.example.com")?;
        if self.refresh_seconds > 60 {
            // Maintenance relies on every node knowing of a change after a few minutes.
            return Err(Error::invalid(format!(
                "setting `refresh_seconds` is {}; expected 1 to 60",
                self.refresh_seconds
            )));
        }
        if self.data.starts_with("s3") && self.vacuum_grace_seconds < LEAST_SHARED_GRACE {
            return Err(Error::invalid(format!(
                "setting `vacuum_grace_seconds` is {}; expected at least {LEAST_SHARED_GRACE} for a bucket, whose other nodes may be \
                 about to commit files",
                self.vacuum_grace_seconds
            )));
        }
        for (name, level) in
            [("zstd_level", self.zstd_level), ("sealed_zstd_level", self.sealed_zstd_level)]
        {
            if !(1..=22).contains(&level) {
                return Err(Error::invalid(format!(
                    "setting `{name}` is {level}; expected 1 to 22"
                )));
            }
        }
        if self.retention_days > MAX_DAYS.unsigned_abs().into() {
            let days = self.retention_days;
            return Err(Error::invalid(format!(
                "setting `retention_days` is {days}; expected 0 (for ever) to 36500"
            )));
        }
        check_flush(self.flush_bytes, self.memtable_bytes)
    }
}

/// Refuses a URL that is not absolute, or that would carry a password into records, responses and
/// errors.
fn check_url(name: &str, text: &str, such_as: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let plain = |url: &url::Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    match url::Url::parse(text) {
        Ok(url) if plain(&url) => Ok(()),
        _ => Err(Error::invalid(format!(
            "setting `{name}` is not an http:// or https:// URL without user, password, query and fragment; expected a URL such as \
             {such_as}"
        ))),
    }
}
