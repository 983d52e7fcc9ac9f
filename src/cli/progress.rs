//! Progress of long commands: a bar on a terminal, otherwise a line at most every five seconds,
//! nothing with `--quiet`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::say;

/// Shortest time between two lines, so that progress does not flood a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Unit of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Records,
    Steps,
}

/// Progress of one piece of work.
#[derive(Debug)]
pub(super) struct Progress {
    verb: &'static str,
    unit: Unit,
    total: Option<u64>,
    started: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    /// Starts the progress. `total` is the final value of `done`, if known.
    pub(super) fn start(verb: &'static str, unit: Unit, total: Option<u64>, quiet: bool) -> Self {
        let started = Instant::now();
        let shown = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Bar(bar(verb, unit, total)),
            (false, false) => Shown::Lines { last: started },
        };
        Self { verb, unit, total, started, shown }
    }

    /// Sets the progress to `done`. `note` returns a remark to show beside it.
    pub(super) fn set(&mut self, done: u64, note: impl FnOnce() -> String) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(note());
                bar.set_position(done);
            }
            Shown::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let total = self
                    .total
                    .map(|total| format!(" of {}", self.unit.amount(total)))
                    .unwrap_or_default();
                let counts = format!("{}{total}{}", self.unit.amount(done), self.unit.word());
                let left = left(done, self.total, self.started.elapsed());
                let parts = [counts, note(), left].into_iter().filter(|part| !part.is_empty());
                say!("{}: {}", self.verb, parts.collect::<Vec<_>>().join(", "));
            }
            _ => {}
        }
    }

    /// Prints a message without breaking the bar.
    pub(super) fn say(&self, words: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| say!("{words}")),
            _ => say!("{words}"),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// Returns the seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(verb: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let counts = match (unit, total) {
        (Unit::Bytes, Some(_)) => {
            "[{wide_bar:.cyan/dim}] {decimal_bytes} of {decimal_total_bytes}  {msg}  {eta} left"
        }
        (Unit::Bytes, None) => "{spinner} {decimal_bytes}  {msg}  {elapsed}",
        (Unit::Records | Unit::Steps, Some(_)) => {
            "[{wide_bar:.cyan/dim}] {human_pos} of {human_len}  {msg}  {eta} left"
        }
        (Unit::Records | Unit::Steps, None) => "{spinner} {human_pos}  {msg}  {elapsed}",
    };
    let style = ProgressStyle::with_template(&format!("{verb} {counts}"))
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(style.progress_chars("=> "));
    bar
}

fn left(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    match total {
        Some(total) if done > 0 && total >= done => {
            format!("{} left", clock(elapsed.as_secs_f64() * (total - done) as f64 / done as f64))
        }
        _ => String::new(),
    }
}

fn clock(seconds: f64) -> String {
    let whole = seconds.ceil() as u64;
    if whole < 3_600 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
    }
}

impl Unit {
    fn amount(self, count: u64) -> String {
        match self {
            Self::Bytes => bytes(count),
            Self::Records | Self::Steps => thousands(count),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Records => " records",
            Self::Bytes | Self::Steps => "",
        }
    }
}

/// Formats bytes in decimal units, as disks and networks are sold.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Formats `1234567` as `1,234,567`.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1_000), bytes(999_960)],
            ["0 B", "999 B", "1.0 kB", "1.0 MB"]
        );
        assert_eq!(
            [thousands(7), thousands(1_000), thousands(1_234_567)],
            ["7", "1,000", "1,234,567"]
        );
        assert_eq!([clock(0.2), clock(61.0), clock(3_725.0)], ["0:01", "1:01", "1:02:05"]);
        assert_eq!(left(50, Some(100), Duration::from_secs(10)), "0:10 left");
        assert_eq!(left(0, Some(100), Duration::from_secs(10)), "");
    }
}
