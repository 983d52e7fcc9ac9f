//! The `gatelog` program: parse what was typed, set up tracing, run the command, turn its result into an exit code.

use std::process::ExitCode;

use gatelog::cli;

// Queries and ingest allocate and free buffers of megabytes on many threads at once. glibc's allocator keeps most of what
// was freed in per-thread arenas, so a server's resident memory creeps past every budget; jemalloc hands it back.
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
        // Whatever matters was closed by the command; a thread that still waits for a terminal must not hold up the exit.
        runtime.shutdown_background();
        result
    });
    cli::exit(result)
}
