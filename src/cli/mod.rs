//! The command.

/// Runs it.
pub fn main() {}
