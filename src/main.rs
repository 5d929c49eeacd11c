//! The server's binary; everything else is in the library.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// jemalloc is faster here and, unlike glibc's malloc, returns memory after a flood of connections.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    vigie::cli::run()
}
