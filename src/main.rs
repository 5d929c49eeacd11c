//! The program: reads the command line and runs one command.

mod cli;

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// It gives memory back that a flood of connections took, of which the system's keeps most, and is faster.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
