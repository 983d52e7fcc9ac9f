//! Power cuts, process deaths, failed syncs and full disks on a simulated disk, with the real
//! engine over it.
//!
//! Each scenario is run once, and every operation of the disk recorded. A cut is then computed from
//! the record: after every operation, in three models (nothing that was not synced survives; any
//! subset of it, by seed; a prefix of an ordered journal). Each image is opened by `doctor` and by
//! a fresh engine, and what was acked before the cut must be there, once.
//!
//! A failure names its scenario, operation and model. `GATELOG_TEST_DISK="Merge: cut after
//! operation 17"` tries only what begins with that text, and prints what is on the disk.
//! `GATELOG_TEST_DISK_ROUNDS=10` tries ten times as many seeds.

mod client;
mod driver;
mod file;
mod journal;
mod lab;
mod medium;
mod reads;
mod scenario;
mod sim;

use std::sync::Arc;

use journal::Outcome;
use lab::{Lab, Trial};
use scenario::{Run, Scenario};

/// All scenarios that are wanted, as they go without a fault.
fn runs(lab: &Lab) -> Vec<Arc<Run>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let record = |scenario| Arc::new(runtime.block_on(Run::of(scenario)));
    let wanted = Scenario::ALL.into_iter().filter(|scenario| lab.wants(&format!("{scenario:?}")));
    let runs: Vec<_> = wanted.map(record).collect();
    runtime.shutdown_background();
    runs
}

fn steps_of(run: &Arc<Run>) -> impl Iterator<Item = (Arc<Run>, usize)> + use<> {
    let run = Arc::clone(run);
    (0..=run.recording.steps.len()).map(move |step| (Arc::clone(&run), step))
}

#[test]
fn what_was_acked_survives_a_power_cut_after_every_operation() {
    let lab = Lab::new();
    let trials =
        runs(&lab).iter().flat_map(steps_of).map(|(run, step)| Trial::Cut { run, step }).collect();
    lab.run(trials);
    lab.conclude("power cuts", 9_000);
}

#[test]
fn what_was_acked_survives_a_process_death_and_a_power_cut_later() {
    let lab = Lab::new();
    let deaths = |run: &Arc<Run>| {
        let place = run.scenario as usize;
        let some = steps_of(run)
            .skip(1)
            .filter(|(_, step)| lab.is_thorough() || (step + place).is_multiple_of(2));
        some.map(|(run, step)| Trial::Death { run, step }).collect::<Vec<_>>()
    };
    lab.run(runs(&lab).iter().flat_map(deaths).collect());
    lab.conclude("process deaths", 6_000);
}

#[test]
fn what_was_acked_survives_a_failed_sync_and_a_power_cut_later() {
    let lab = Lab::new();
    let syncs = |run: &Arc<Run>| {
        let place = run.scenario as usize;
        let both = |number| [Outcome::Kept, Outcome::Dropped].map(|outcome| (number, outcome));
        // One of the two for each sync, unless there is time.
        let some = (0..run.syncs).flat_map(both).filter(|(number, outcome)| {
            lab.is_thorough() || (number + place).is_multiple_of(2) == (*outcome == Outcome::Kept)
        });
        let trial = |(number, outcome)| Trial::Sync { run: Arc::clone(run), number, outcome };
        some.map(trial).collect::<Vec<_>>()
    };
    lab.run(runs(&lab).iter().flat_map(syncs).collect());
    lab.conclude("failed syncs", 5_000);
}

#[test]
fn what_was_acked_survives_a_full_disk_and_a_power_cut_later() {
    let lab = Lab::new();
    let parts = if lab.is_thorough() { 48 } else { 6 };
    let full = |run: &Arc<Run>| {
        let trial = |part| Trial::Full { run: Arc::clone(run), room: run.bytes * part / parts };
        (0..parts).map(trial).collect::<Vec<_>>()
    };
    lab.run(runs(&lab).iter().flat_map(full).collect());
    lab.conclude("full disks", 500);
}
