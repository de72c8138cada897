//! `meshwork sim`: hands over to the simulator, which is a program of its own so that it never links a socket.

#![expect(clippy::disallowed_methods, reason = "the command hands over to another one")]

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use super::Failure;

const SIMULATOR: &str = "meshwork-sim";

#[derive(Args, Debug)]
pub(super) struct SimArgs {
    /// Arguments of `meshwork-sim`; `meshwork sim help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Replaces this process by the simulator: the one beside this program, else the one on the PATH.
pub(super) fn run(args: &SimArgs) -> Result<(), Failure> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(SIMULATOR))).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| SIMULATOR.into());
    let error = Command::new(&program).args(&args.arguments).exec();
    Err(match error.kind() {
        ErrorKind::NotFound => Failure::new(
            "the simulator is not installed: no `meshwork-sim` beside this program or on the PATH; `cargo install meshwork-simulations` brings it",
        ),
        _ => Failure::new(format!("cannot run {}: {error}", program.display())),
    })
}
