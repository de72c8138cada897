//! Dependencies stay above the versions that fixed what could be used against a node, and out of what must not be there.
//!
//! The list follows the RustSec and GitHub advisories of the crates in the tree; it is refreshed by hand, because an audit needs a database from outside.

use std::collections::BTreeMap;

type Version = (u64, u64, u64);

/// Crate, lowest version that is accepted, and why.
const FLOORS: [(&str, Version, &str); 9] = [
    ("quinn-proto", (0, 11, 18), "RUSTSEC-2026-0341: gapped streams pinned gigabytes; 0.11.17 stalled large streams"),
    ("rustls", (0, 23, 18), "RUSTSEC-2024-0399: a fragmented ClientHello panicked"),
    ("ring", (0, 17, 12), "RUSTSEC-2025-0009: a packet panicked where overflow is checked"),
    ("bytes", (1, 11, 1), "RUSTSEC-2026-0007: overflow"),
    ("tracing-subscriber", (0, 3, 20), "RUSTSEC-2025-0055: escape sequences of peers reached the log"),
    ("mdns-sd", (0, 21, 0), "a malformed local packet ended the daemon of early versions"),
    ("tokio", (1, 44, 2), "RUSTSEC-2025-0023: a broadcast channel cloned without synchronization"),
    ("foca", (2, 0, 0), "the wire format and the presets that the membership relies on"),
    ("rustls-webpki", (0, 103, 13), "RUSTSEC-2026-0104: a revocation list panicked before its signature was checked"),
];

/// Crates that must not be in the tree, and why.
const ABSENT: [(&str, &str); 6] = [
    ("aws-lc-rs", "a second crypto provider doubles the build; ring is the one"),
    ("bincode", "RUSTSEC-2025-0141: unmaintained"),
    ("backoff", "RUSTSEC-2025-0012: unmaintained"),
    ("instant", "RUSTSEC-2024-0384: unmaintained"),
    ("openssl", "TLS is rustls"),
    ("protobuf", "RUSTSEC-2024-0437: recursion"),
];

fn locked() -> BTreeMap<&'static str, Vec<Version>> {
    let mut crates: BTreeMap<_, Vec<Version>> = BTreeMap::new();
    let mut name = None;
    for line in include_str!("../Cargo.lock").lines() {
        let quoted = |key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        if let Some(found) = quoted("name") {
            name = Some(found);
        }
        if let (Some(version), Some(name)) = (quoted("version"), name.take_if(|_| line.starts_with("version"))) {
            let plain = version.split(['-', '+']).next().unwrap_or_default();
            let mut numbers = plain.split('.').map(|number| number.parse().unwrap_or(0));
            let mut next = || numbers.next().unwrap_or(0);
            crates.entry(name).or_default().push((next(), next(), next()));
        }
    }
    crates
}

#[test]
fn every_dependency_is_above_its_floor() {
    let locked = locked();
    assert!(locked.len() > 50, "the lock file is read");
    for (name, floor, why) in FLOORS {
        for version in locked.get(name).into_iter().flatten() {
            assert!(*version >= floor, "{name} {version:?} is below {floor:?}: {why}");
        }
    }
    assert!(locked.contains_key("quinn-proto") && locked.contains_key("rustls"), "the floors are about something");
}

#[test]
fn what_must_not_be_there_is_not() {
    let locked = locked();
    for (name, why) in ABSENT {
        assert!(!locked.contains_key(name), "{name} is in the tree: {why}");
    }
}
