//! The `meshwork-sim` command.

fn main() {}
