//! The `gatelog` program: parses the command line, sets up tracing, runs the command and turns its
//! result into an exit code.

use std::process::ExitCode;

mod cli;

// Queries and ingestion allocate and free buffers of megabytes on many threads at once. glibc's
// allocator keeps most of the freed memory in per-thread arenas, so the resident memory of a server
// grows past every budget. jemalloc returns it.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    let result = cli::start(&command).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(cli::run(command));
        // The command has closed everything that matters. A thread that still waits for a terminal
        // must not delay the exit.
        runtime.shutdown_background();
        result
    });
    cli::exit(result)
}
