//! The `meshwork-sim` command.

use std::process::ExitCode;

/// A run allocates and frees small pieces all over a large heap; the allocator of the platform spends a third of a large run on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshwork_simulations::command::main::<meshwork_simulations::host::RealNode>()
}
