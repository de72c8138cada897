//! Nodes with no address given find each other by mDNS, in a network namespace of their own; the example of the README among them.

#![allow(clippy::disallowed_methods, reason = "the test runs a script")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the script exits with where it may not make network namespaces.
const SKIPPED: i32 = 77;

/// The example of the README, which is built with the tests.
fn example() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_meshwork")).with_file_name("examples").join("embed")
}

#[test]
fn nodes_with_no_address_find_each_other() {
    let output = Command::new("bash")
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mdns_namespace.sh"), env!("CARGO_BIN_EXE_meshwork")])
        .args([example()])
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(SKIPPED) {
        println!("{said}");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
