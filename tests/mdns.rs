//! Nodes with no address given find each other by mDNS, in a network namespace of their own.

use std::process::Command;

/// What the script exits with where it may not make network namespaces.
const SKIPPED: i32 = 77;

#[test]
fn five_nodes_with_no_address_find_each_other() {
    let output = Command::new("bash")
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mdns_namespace.sh"), env!("CARGO_BIN_EXE_meshwork")])
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(SKIPPED) {
        println!("{said}");
        return;
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
