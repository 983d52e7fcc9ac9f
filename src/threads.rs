//! Threads for work that takes long: queries, exports, flushes, merges, parsing of large bodies.
//!
//! They have a lower priority than the threads that answer requests and write the log. So a small
//! write is acknowledged soon, however much work there is. Bodies and answers of many bytes, whose
//! senders do not wait for each single record, come after queries and flushes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// Stack of a thread that plans. Planning recurses over a statement's tree and takes about 1 KiB of
/// stack for the smallest step; the length of a statement is limited so that this is enough. Only
/// the used part takes memory.
pub(crate) const STACK_BYTES: usize = 256 << 20;

/// Time after which threads that still run are left to themselves.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Priority of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// That of queries and flushes.
    Low,
    /// That of bodies and answers of many bytes.
    Lowest,
}

impl Priority {
    /// Returns the nice value. The system gives a thread three times as much time as one whose
    /// value is higher by 5.
    #[cfg(target_os = "linux")]
    fn nice(self) -> i32 {
        match self {
            Self::Low => 5,
            Self::Lowest => 10,
        }
    }
}

/// A runtime whose threads have a lower priority. It may be dropped inside another one.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts a runtime with so many threads for tasks.
    pub(crate) fn start(name: &str, threads: usize, priority: Priority) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(move || lower(priority))
            .enable_all()
            .build()
            .map_err(|cause| {
                Error::internal(format!("cannot start the threads `{name}`")).with_source(cause)
            })?;
        Ok(Self(Some(runtime)))
    }

    /// Returns the handle for spawning.
    pub(crate) fn handle(&self) -> Result<Handle> {
        self.0
            .as_ref()
            .map(|runtime| runtime.handle().clone())
            .ok_or_else(|| Error::closed("the threads have ended"))
    }
}

impl Drop for Threads {
    /// Ends the threads in the background. Dropping a runtime inside another one panics, and
    /// `shutdown_background` detaches threads that are about to end: glibc then reads their stack,
    /// which is unmapped at once if it is as large as these ([`STACK_BYTES`]). So a small thread
    /// waits for them.
    fn drop(&mut self) {
        let Some(runtime) = self.0.take() else { return };
        let runtime = Arc::new(Mutex::new(Some(runtime)));
        let waiting = Arc::clone(&runtime);
        let wait = move || {
            let ended = waiting.lock().take();
            if let Some(runtime) = ended {
                runtime.shutdown_timeout(MAX_WAIT);
            }
        };
        if std::thread::Builder::new().name("gatelog-end".to_owned()).spawn(wait).is_err()
            && let Some(runtime) = runtime.lock().take()
        {
            runtime.shutdown_background();
        }
    }
}

/// Sets the priority of the calling thread. On Linux, the nice value belongs to the thread; other
/// systems have only one for the process, which stays as it is.
fn lower(priority: Priority) {
    #[cfg(not(target_os = "linux"))]
    let _ = priority;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, priority.nice()) {
        // A sandbox may forbid it. Then all threads share the time equally.
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn its_threads_have_a_lower_priority_and_others_keep_theirs() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        for priority in [Priority::Low, Priority::Lowest] {
            let threads = Threads::start("test", 1, priority).unwrap();
            let handle = threads.handle().unwrap();
            let task = handle.block_on(handle.spawn(async move { nice() })).unwrap();
            let blocking = handle.block_on(handle.spawn_blocking(nice)).unwrap();
            let lower = priority.nice().max(before);
            assert_eq!((task, blocking, nice()), (lower, lower, before));
        }
        assert!(Priority::Low.nice() < Priority::Lowest.nice());
    }
}
