//! The binary: logging, a runtime, the command line.

use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The system's allocator keeps an arena for each of many short-lived worker threads, which more than doubled the memory
/// of a long copy.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads for calls that may wait, made when they are needed. Each call of a filer that hangs keeps one, up to 64 a
/// location (`filer/posix/calls.rs`) and 64 of what operators ask (`control/asked.rs`): this is room for sixty locations
/// that hang altogether, and at it nothing else gets on.
const WAITING_MAX: usize = 4096;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TAIN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A line that cannot be written (a full disk, a pipe that nobody reads) is lost. To complain of it on stderr would
    // fail as well, and panic, wherever the line came from: in the middle of an operation.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(WAITING_MAX).build() {
            Ok(runtime) => runtime,
            Err(e) => {
                eprintln!("tain: no threads can be started: {e}");
                return ExitCode::FAILURE;
            }
        };
    let code = runtime.block_on(tain::cli::main());
    // A call that hangs in a filer must not keep the process: what it does is in the journal.
    runtime.shutdown_background();
    code
}
