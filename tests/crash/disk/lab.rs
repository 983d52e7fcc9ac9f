//! Opens disk images and judges what the engine shows. Images that are byte for byte the same are
//! opened once.

use gatelog::error::ErrorKind;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::client::{Event, Expected, Shown};
use super::driver::{self, COPY, DATA, Driver};
use super::journal::{Op, Outcome, Recording};
use super::medium::{Image, Medium, Model};
use super::scenario::{Run, Scenario, since};
use super::sim::{Fault, SimDisk};

/// Failures that are reported in full.
const TOLD: usize = 8;

/// One thing to try.
#[derive(Clone, Debug)]
pub enum Trial {
    /// A cut after so many operations.
    Cut { run: Arc<Run>, step: usize },
    /// The process dies after so many operations; another one goes on, and the cut comes later.
    Death { run: Arc<Run>, step: usize },
    /// A sync fails once; the cut comes later, also after a restart.
    Sync { run: Arc<Run>, number: usize, outcome: Outcome },
    /// The disk is full for a while.
    Full { run: Arc<Run>, room: usize },
}

/// Mode in which an image is inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Look {
    Plain,
    /// Late parts are added to their records first.
    Settled,
    /// The copy is made again first.
    CopiedAgain,
    /// The copy is looked at as it is.
    Copied,
}

/// Tells apart what was looked at: the digest of an image, and how.
type Key = ([u8; 32], Look);

/// Result of the inspection of an image.
#[derive(Debug)]
struct Found {
    shown: Result<Shown, String>,
    copy: Option<Result<Shown, String>>,
}

/// State that all trials share.
#[derive(Debug, Default)]
pub struct Lab {
    found: Mutex<HashMap<Key, Arc<Found>>>,
    pub images: AtomicUsize,
    pub opened: AtomicUsize,
    pub lives: AtomicUsize,
    failures: Mutex<Vec<String>>,
    only: Option<String>,
    rounds: u64,
}

impl Lab {
    pub fn new() -> Self {
        let rounds =
            std::env::var("GATELOG_TEST_DISK_ROUNDS").map_or(1, |text| text.parse().unwrap());
        Self { only: std::env::var("GATELOG_TEST_DISK").ok(), rounds, ..Self::default() }
    }

    /// Does the trials with two threads; answers what failed.
    pub fn run(&self, trials: Vec<Trial>) {
        let queue = Mutex::new(trials.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    while let Some(trial) = next() {
                        runtime.block_on(self.try_one(trial));
                    }
                    runtime.shutdown_background();
                });
            }
        });
    }

    /// Fails if anything was found; `least` is how many images there must have been.
    pub fn conclude(&self, what: &str, least: usize) {
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        let (images, opened, lives) =
            (count(&self.images), count(&self.opened), count(&self.lives));
        println!(
            "{what}: {images} disk images, {opened} of them distinct; {lives} processes that went on"
        );
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let told = failures.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            failures.is_empty(),
            "{what}: {} of {images} images are wrong:\n{told}",
            failures.len()
        );
        assert!(
            images >= least || self.only.is_some(),
            "{what}: {images} images, expected {least} at least"
        );
    }

    /// Returns whether more is tried than there is time for by default, or one failure again.
    pub fn is_thorough(&self) -> bool {
        self.rounds > 1 || self.only.is_some()
    }

    /// Returns whether it is among what is tried.
    pub fn wants(&self, label: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| label.starts_with(only.as_str()) || only.starts_with(label))
    }

    fn fail(&self, label: &str, what: &str) {
        let text = format!("[{label}] {what}");
        if self.only.is_some() {
            println!("{text}");
        }
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    async fn try_one(&self, trial: Trial) {
        match trial {
            Trial::Cut { run, step } => self.cut_after(&run, step).await,
            Trial::Death { run, step } => self.death_after(&run, step).await,
            Trial::Sync { run, number, outcome } => self.failed_sync(&run, number, outcome).await,
            Trial::Full { run, room } => self.full_disk(&run, room).await,
        }
    }

    async fn cut_after(&self, run: &Run, step: usize) {
        let label = format!("{:?}: cut after operation {step}", run.scenario);
        if !self.wants(&label) {
            return;
        }
        let mut recording = Recording::clone(&run.recording);
        recording.advance(step);
        let expected = Expected::at(&run.events, step);
        for model in models(step as u64, 4 * self.rounds, 2 * self.rounds) {
            let label = format!("{label}, {model:?}");
            let image = recording.cut(model);
            self.check(run.scenario, &image, &expected, &label).await;
            // Now and then a process goes on from there, and the power goes once more.
            let goes_on = matches!(model, Model::Subset { seed } if seed % 16 == 1);
            if goes_on && run.scenario != Scenario::Copy {
                let (media, events) =
                    ([image.medium(false), image.medium(true)], until(&run.events, step));
                self.live_on(run.scenario, media, events, &label, 2).await;
            }
        }
    }

    async fn death_after(&self, run: &Run, step: usize) {
        let label = format!("{:?}: death after operation {step}", run.scenario);
        if !self.wants(&label) {
            return;
        }
        let mut recording = Recording::clone(&run.recording);
        // A process may die in the middle of a write.
        if let Some(Op::Append { bytes, .. }) =
            recording.steps.get_mut(step - 1).map(|step| &mut step.op)
            && step.is_multiple_of(3)
        {
            let short = bytes.len() * (step % 7) / 7;
            *bytes = bytes[..short].into();
        }
        recording.advance(step);
        let media = [recording.posix, recording.ordered];
        self.live_on(run.scenario, media, until(&run.events, step), &label, 4).await;
    }

    async fn failed_sync(&self, run: &Run, number: usize, outcome: Outcome) {
        let label = format!("{:?}: sync {number} fails ({outcome:?})", run.scenario);
        if !self.wants(&label) {
            return;
        }
        let disk = SimDisk::over(run.recording.posix.clone());
        let mut driver = Driver::on(disk.clone(), run.scenario.join_seconds());
        driver.events = until(&run.events, 0);
        disk.arm(Fault::Sync { number, outcome });
        run.scenario.act(&mut driver).await;
        let Some(failed) = disk.failed() else { return };
        let label = format!("{label}, {failed}");
        driver.go_on(run.scenario == Scenario::Copy).await;
        self.go_on_after_fault(run, driver, &label, outcome).await;
    }

    async fn full_disk(&self, run: &Run, room: usize) {
        let label = format!("{:?}: full after {room} bytes", run.scenario);
        if !self.wants(&label) {
            return;
        }
        let disk = SimDisk::over(run.recording.posix.clone());
        let mut driver = Driver::on(disk.clone(), run.scenario.join_seconds());
        driver.events = until(&run.events, 0);
        disk.arm(Fault::Full { room });
        run.scenario.act(&mut driver).await;
        if disk.failed().is_none() {
            return;
        }
        disk.arm(Fault::None);
        driver.go_on(run.scenario == Scenario::Copy).await;
        if driver.engine.is_some() && !driver.records(&["r-97a"]).await {
            self.fail(
                &label,
                &format!("there is room again, and no record is taken: {:?}", driver.errors.last()),
            );
        }
        self.go_on_after_fault(run, driver, &label, Outcome::Done).await;
    }

    /// What an engine that met a fault left behind: cuts now, and after a restart.
    async fn go_on_after_fault(
        &self,
        run: &Run,
        mut driver: Driver,
        label: &str,
        outcome: Outcome,
    ) {
        driver.end();
        for wrong in &driver.wrong {
            self.fail(label, wrong);
        }
        let [posix, ordered] = [run.recording.posix.clone(), run.recording.ordered.clone()];
        let mut recording = driver.disk.recording(posix, ordered);
        let steps = recording.steps.len();
        let fault = recording.steps.iter().position(|step| step.op.has_failed()).unwrap_or(0);
        let names_lost =
            recording.steps.get(fault).is_some_and(|step| matches!(step.op, Op::SyncFolder { .. }))
                && outcome == Outcome::Dropped;
        // Names of that folder are seen from now on and may never be written. The process that met
        // the error knows it, and closes writes. One that comes after cannot tell these names from
        // others, and no call of the file system tells it: another sync reports success. It writes
        // the files again that it builds on next (the end of the log, the newest entry of each
        // table), but a folder, or a file that is older, it takes as it is. So what is judged ends
        // there.
        let next_start = driver.starts.iter().copied().find(|start| *start > fault);
        let judged = if names_lost { next_start.unwrap_or(steps) } else { steps };
        let mut done = 0;
        for step in sampled(fault + 1, judged, 3) {
            recording.advance(step - done);
            done = step;
            let expected = Expected::at(&driver.events, step);
            // A journal whose names are lost is a disk that takes no writes any more.
            for model in models(step as u64, 1, 1)
                .into_iter()
                .filter(|model| !names_lost || !model.is_ordered())
            {
                let label = format!("{label}, cut after operation {step}, {model:?}");
                self.check(run.scenario, &recording.cut(model), &expected, &label).await;
            }
        }
        if names_lost || run.scenario == Scenario::Copy {
            return;
        }
        recording.advance(recording.steps.len());
        let media = [recording.posix, recording.ordered];
        self.live_on(
            run.scenario,
            media,
            until(&driver.events, steps),
            &format!("{label}, restart"),
            3,
        )
        .await;
    }

    /// A process opens what is seen on a disk, its clients send again, and the power goes at one of
    /// its operations.
    async fn live_on(
        &self,
        scenario: Scenario,
        media: [Medium; 2],
        events: Vec<Event>,
        label: &str,
        cuts: usize,
    ) {
        let [posix, ordered] = media;
        let disk = SimDisk::over(posix.clone());
        let mut driver = Driver::on(disk.clone(), scenario.join_seconds());
        driver.events = events;
        self.lives.fetch_add(1, Ordering::Relaxed);
        let seed =
            label.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        if scenario == Scenario::Copy {
            driver.copy().await;
        } else if driver.open().await {
            if !parts_come_late(scenario, label) {
                self.judge_live(&driver, label).await;
            }
            driver.send_again().await;
            driver.records(&["r-99a"]).await;
            if seed % 3 != 0 {
                driver.flush().await;
                driver.records(&["r-98b"]).await;
            }
        }
        driver.end();
        if !driver.errors.is_empty() || !driver.wrong.is_empty() {
            self.fail(label, &format!("{:?} {:?}", driver.errors, driver.wrong));
        }
        let mut recording = disk.recording(posix, ordered);
        let (steps, mut done) = (recording.steps.len(), 0);
        for step in sampled(0, steps, cuts) {
            recording.advance(step - done);
            done = step;
            let expected = Expected::at(&driver.events, step);
            for model in models(seed.wrapping_add(step as u64), 1, 1) {
                let label = format!("{label}, then cut after operation {step}, {model:?}");
                self.check(scenario, &recording.cut(model), &expected, &label).await;
            }
        }
    }

    /// Answers of the engine before the power goes.
    async fn judge_live(&self, driver: &Driver, label: &str) {
        let Some(engine) = &driver.engine else { return };
        let judged = match driver::shown(engine).await {
            Ok(shown) => Expected::at(&driver.events, 0).check(&shown),
            Err(error) => Err(driver::chain(&error)),
        };
        if let Err(what) = judged {
            self.fail(label, &what);
        }
    }

    /// Opens an image and compares.
    async fn check(&self, scenario: Scenario, image: &Image, expected: &Expected, label: &str) {
        if !self.wants(label) {
            return;
        }
        self.images.fetch_add(1, Ordering::Relaxed);
        let look = match scenario {
            _ if parts_come_late(scenario, label) => Look::Settled,
            Scenario::Copy if expected.has_copy => Look::Copied,
            Scenario::Copy => Look::CopiedAgain,
            _ => Look::Plain,
        };
        let key = (image.digest(), look);
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                // A check of every file takes as long as all the rest; each one in four says enough
                // of the same folders.
                let with_doctor = self.only.is_some() || key.0[0] % 4 == 0;
                let found =
                    Arc::new(look_at(image, look, scenario.join_seconds(), with_doctor).await);
                self.opened.fetch_add(1, Ordering::Relaxed);
                let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(key, Arc::clone(&found));
                found
            }
        };
        let judged = found.judge(expected);
        if self.only.is_some() {
            println!("[{label}] {judged:?}\n{}", image.listing());
        }
        if let Err(what) = judged {
            self.fail(label, &what);
        }
    }
}

impl Found {
    fn judge(&self, expected: &Expected) -> Result<(), String> {
        expected.check(self.shown.as_ref().map_err(Clone::clone)?)?;
        match &self.copy {
            None => Ok(()),
            Some(copy) => {
                let shown = copy.as_ref().map_err(|what| format!("the copy: {what}"))?;
                expected.check(shown).map_err(|what| format!("the copy: {what}"))
            }
        }
    }
}

async fn look_at(image: &Image, look: Look, join_seconds: u64, with_doctor: bool) -> Found {
    let disk = SimDisk::over(image.medium(false));
    if with_doctor && disk.has(DATA) {
        match driver::complaints(&disk, DATA, join_seconds).await {
            Ok(complaints) if complaints.is_empty() => {}
            Ok(complaints) => {
                return Found { shown: Err(format!("doctor: {complaints:?}")), copy: None };
            }
            // Before the first start got as far as a catalog; what was acked is looked for below.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Found {
                    shown: Err(format!("doctor: {}", driver::chain(&error))),
                    copy: None,
                };
            }
        }
    }
    let shown = look_in(&disk, DATA, look, join_seconds).await;
    let copy = match look {
        Look::Copied => Some(look_in(&disk, COPY, look, join_seconds).await),
        Look::CopiedAgain => {
            let mut driver = Driver::on(disk.clone(), join_seconds);
            driver.copy().await;
            match driver.errors.pop() {
                Some(error) => Some(Err(error)),
                None => Some(look_in(&disk, COPY, look, join_seconds).await),
            }
        }
        Look::Plain | Look::Settled => None,
    };
    Found { shown, copy }
}

/// Returns the answers of an engine over a folder.
async fn look_in(
    disk: &SimDisk,
    folder: &str,
    look: Look,
    join_seconds: u64,
) -> Result<Shown, String> {
    let told = |error: gatelog::Error| driver::chain(&error);
    let mut driver = Driver::on(disk.clone(), join_seconds);
    let opened = driver::open(disk, folder, join_seconds).await;
    let engine = opened.map_err(|error| format!("does not open: {}", told(error)))?;
    driver.engine = Some(engine.clone());
    if look == Look::Settled {
        driver.settle().await;
    }
    driver::shown(&engine).await.map_err(told)
}

/// Returns whether parts may come after their record was stored, so that the next flush adds them:
/// a part that waits while the disk is full becomes a record alone.
fn parts_come_late(scenario: Scenario, label: &str) -> bool {
    scenario == Scenario::LateParts
        || (scenario == Scenario::Flush && label.contains(": full after "))
}

fn models(seed: u64, subsets: u64, journals: u64) -> Vec<Model> {
    let seed = seed.wrapping_mul(1_000_003);
    let subsets = (0..subsets).map(|number| Model::Subset { seed: seed.wrapping_add(number) });
    let journals =
        (0..journals).map(|number| Model::LongerJournal { seed: seed.wrapping_add(number) });
    [Model::Nothing, Model::Journal].into_iter().chain(subsets).chain(journals).collect()
}

fn until(events: &[Event], step: usize) -> Vec<Event> {
    since(events.iter().filter(|event| event.at <= step).cloned().collect(), step)
}

/// At most so many steps of a range, evenly, the last among them.
fn sampled(from: usize, to: usize, most: usize) -> Vec<usize> {
    let count = (to + 1).saturating_sub(from);
    let most = most.min(count);
    (1..=most).map(|place| from + count * place / most - 1).collect()
}
