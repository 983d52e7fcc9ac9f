//! The work of engines when the power goes, a process dies, or a sync fails.

use std::sync::Arc;

use gatelog::Job;

use super::client::{Event, KeyState, Part};
use super::driver::Driver;
use super::journal::Recording;
use super::medium::Medium;
use super::sim::SimDisk;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    FirstStart,
    Ingest,
    Flush,
    LateParts,
    Merge,
    Seal,
    Expiry,
    Erasure,
    Checkpoint,
    CleanLog,
    Vacuum,
    Keys,
    Copy,
    Reopen,
}

impl Scenario {
    pub const ALL: [Self; 14] = [
        Self::FirstStart,
        Self::Ingest,
        Self::Flush,
        Self::LateParts,
        Self::Merge,
        Self::Seal,
        Self::Expiry,
        Self::Erasure,
        Self::Checkpoint,
        Self::CleanLog,
        Self::Vacuum,
        Self::Keys,
        Self::Copy,
        Self::Reopen,
    ];

    /// Time that parts of records wait for the rest.
    pub fn join_seconds(self) -> u64 {
        if self == Self::LateParts { 0 } else { 1_000_000 }
    }

    /// Work before the fault.
    async fn prepare(self, driver: &mut Driver) {
        if self == Self::FirstStart {
            return;
        }
        driver.open().await;
        match self {
            Self::FirstStart => {}
            Self::Ingest => {
                driver.records(&["r-1a", "r-2b"]).await;
            }
            Self::Flush => {
                driver.records(&["r-1a", "r-2b", "old-1a"]).await;
                driver.feedback("f-1", 3).await;
                driver.part("p-1a", Part::Figures).await;
            }
            Self::LateParts => {
                driver.part("p-1a", Part::Figures).await;
                driver.part("p-2b", Part::Content).await;
                driver.records(&["r-1a"]).await;
                driver.flush().await;
            }
            Self::Merge => {
                for number in 0..8 {
                    driver.records(&[&format!("r-{number}a"), &format!("r-{number}b")]).await;
                    driver.feedback(&format!("f-{number}"), number).await;
                    driver.flush().await;
                }
            }
            Self::Seal | Self::Vacuum => {
                for number in 0..2 {
                    driver.records(&[&format!("old-{number}a"), &format!("r-{number}b")]).await;
                    driver.flush().await;
                }
                if self == Self::Vacuum {
                    driver.maintain(Job::Compact).await;
                }
            }
            Self::Expiry => {
                driver.plan("org-b", "enterprise", &[]).await;
                driver.records(&["old-1b", "r-2b", "old-3a"]).await;
                driver.flush().await;
                driver.records(&["old-4b", "r-5b"]).await;
                driver.flush().await;
            }
            Self::Erasure => {
                driver.records(&["r-1a", "r-2b", "r-3a"]).await;
                driver.feedback("f-1", 1).await;
                driver.flush().await;
                driver.records(&["old-1a", "r-4b"]).await;
                driver.flush().await;
            }
            Self::Checkpoint | Self::CleanLog | Self::Copy => {
                for number in 0..3 {
                    driver.records(&[&format!("r-{number}a")]).await;
                    driver.feedback("f-1", number).await;
                    driver.flush().await;
                }
                if self != Self::Checkpoint {
                    driver.maintain(Job::Checkpoint).await;
                    driver.records(&["r-8b"]).await;
                    driver.flush().await;
                }
                if self == Self::Copy {
                    driver.key("k-1", KeyState::Active).await;
                }
            }
            Self::Keys => {
                driver.key("k-1", KeyState::Active).await;
                driver.plan("org-a", "enterprise", &[]).await;
            }
            Self::Reopen => {
                driver.records(&["r-1a", "r-2b"]).await;
                driver.flush().await;
                driver.records(&["r-3a"]).await;
                driver.part("p-1a", Part::Figures).await;
                driver.feedback("f-1", 5).await;
                driver.key("k-1", KeyState::Active).await;
            }
        }
        driver.end();
    }

    /// Work during the fault.
    pub async fn act(self, driver: &mut Driver) {
        if self == Self::Copy {
            driver.copy().await;
            return;
        }
        driver.open().await;
        match self {
            Self::FirstStart => {
                driver.key("k-1", KeyState::Active).await;
                driver.records(&["r-1a"]).await;
                driver.close().await;
            }
            Self::Ingest => ingest(driver).await,
            Self::Flush => {
                driver.records(&["r-3a"]).await;
                driver.flush().await;
                driver.records(&["r-4a"]).await;
                driver.feedback("f-1", 4).await;
                driver.flush().await;
                driver.part("p-1a", Part::Content).await;
                driver.flush().await;
            }
            Self::LateParts => {
                driver.part("p-1a", Part::Content).await;
                driver.records(&["r-2b"]).await;
                driver.settle().await;
                driver.part("p-2b", Part::Figures).await;
                driver.settle().await;
            }
            Self::Merge => {
                driver.records(&["r-20a"]).await;
                driver.maintain(Job::Compact).await;
                driver.records(&["r-21b"]).await;
                driver.flush().await;
            }
            Self::Seal => {
                driver.maintain(Job::Compact).await;
                driver.records(&["old-8a"]).await;
                driver.flush().await;
                driver.maintain(Job::Compact).await;
            }
            Self::Expiry => {
                driver.plan("org-b", "developer", &["old-1b", "old-4b"]).await;
                driver.records(&["r-6b"]).await;
                driver.maintain(Job::Expire).await;
            }
            Self::Erasure => {
                driver.records(&["r-5a"]).await;
                driver.erase("org-a", &["r-1a", "r-5a"]).await;
                driver.maintain(Job::Expire).await;
                driver.records(&["r-6a"]).await;
            }
            Self::Checkpoint => {
                driver.maintain(Job::Checkpoint).await;
                driver.records(&["r-9a"]).await;
                driver.flush().await;
                driver.maintain(Job::Checkpoint).await;
            }
            Self::CleanLog => {
                driver.maintain(Job::CleanLog).await;
                driver.records(&["r-9a"]).await;
                driver.flush().await;
                driver.maintain(Job::Checkpoint).await;
                driver.maintain(Job::CleanLog).await;
            }
            Self::Vacuum => {
                driver.maintain(Job::Vacuum).await;
                driver.records(&["r-9a"]).await;
                driver.flush().await;
            }
            Self::Keys => {
                driver.key("k-2", KeyState::Active).await;
                driver.key("k-1", KeyState::Revoked).await;
                driver.plan("org-a", "production", &[]).await;
                driver.plan("org-b", "developer", &[]).await;
                driver.key("k-2", KeyState::Revoked).await;
            }
            Self::Reopen => {
                driver.end();
                driver.open().await;
                driver.records(&["r-4b"]).await;
                driver.close().await;
                driver.open().await;
                driver.close().await;
            }
            Self::Copy => {}
        }
    }
}

async fn ingest(driver: &mut Driver) {
    driver.records(&["r-10a", "r-11b"]).await;
    driver.records(&["r-10a"]).await;
    driver.feedback("f-1", 1).await;
    driver.part("p-1a", Part::Figures).await;
    driver.records(&["r-12a", "r-13a", "r-14b", "r-15b", "r-16a"]).await;
    driver.feedback("f-1", 2).await;
    driver.part("p-2b", Part::Content).await;
    driver.part("p-1a", Part::Content).await;
    driver.records(&["r-17a"]).await;
}

/// A scenario as it went without a fault.
#[derive(Clone, Debug)]
pub struct Run {
    pub scenario: Scenario,
    /// From the moment when it was prepared.
    pub recording: Arc<Recording>,
    /// Those before that moment have the time 0.
    pub events: Vec<Event>,
    /// Syncs since.
    pub syncs: usize,
    /// Bytes that were written since.
    pub bytes: usize,
}

impl Run {
    pub async fn of(scenario: Scenario) -> Self {
        let mut driver = Driver::on(SimDisk::over(Medium::empty(false)), scenario.join_seconds());
        scenario.prepare(&mut driver).await;
        let prepared = driver.disk.len();
        driver.disk.arm(super::sim::Fault::None);
        scenario.act(&mut driver).await;
        assert!(
            driver.errors.is_empty(),
            "{scenario:?} failed without a fault: {:?}",
            driver.errors
        );
        assert!(driver.wrong.is_empty(), "{scenario:?} without a fault: {:?}", driver.wrong);
        let mut recording = driver.disk.recording(Medium::empty(false), Medium::empty(true));
        recording.advance(prepared);
        let syncs = recording.steps.iter().filter(|step| step.op.is_sync()).count();
        let bytes = recording.steps.iter().map(|step| step.op.bytes()).sum();
        let events = since(driver.events, prepared);
        Self { scenario, recording: Arc::new(recording), events, syncs, bytes }
    }
}

/// Events as they are counted from a later moment on.
pub fn since(events: Vec<Event>, moment: usize) -> Vec<Event> {
    events.into_iter().map(|event| Event { at: event.at.saturating_sub(moment), ..event }).collect()
}
