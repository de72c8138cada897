//! The `meshwork-sim` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshwork_simulations::command::main::<meshwork_simulations::host::RealNode>()
}
