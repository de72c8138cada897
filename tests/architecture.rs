//! The arrows between the packages are those of `docs/architecture.md`, and the README says what the example does.

#![allow(clippy::disallowed_methods, reason = "the test asks cargo")]

use std::collections::BTreeSet;
use std::process::Command;

type Arrows = BTreeSet<(String, String)>;

fn documented() -> Arrows {
    let text = include_str!("../docs/architecture.md");
    let (_, rest) = text.split_once("<!-- arrows:begin -->").expect("the list of arrows begins");
    let (list, _) = rest.split_once("<!-- arrows:end -->").expect("the list of arrows ends");
    list.lines()
        .filter_map(|line| line.strip_prefix("- ")?.split_once(" -> "))
        .map(|(from, to)| (from.trim().to_owned(), to.trim().to_owned()))
        .collect()
}

fn built() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut arrows = Arrows::new();
    for package in packages {
        let from = package["name"].as_str().expect("a package has a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a dependency has a name");
            // What tests alone need is no arrow of the design.
            if names.contains(to) && dependency["kind"].is_null() {
                arrows.insert((from.to_owned(), to.to_owned()));
            }
        }
    }
    arrows
}

#[test]
fn the_arrows_between_packages_are_the_documented_ones() {
    let (built, documented) = (built(), documented());
    assert!(!documented.is_empty());
    let undocumented: Vec<_> = built.difference(&documented).collect();
    let imagined: Vec<_> = documented.difference(&built).collect();
    assert!(undocumented.is_empty() && imagined.is_empty(), "not in docs/architecture.md: {undocumented:?}; only there: {imagined:?}");
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/embed.rs");
    let code = &example[example.find("use meshwork::Node;").expect("the example begins with its import")..];
    assert!(readme.contains(code.trim_end()), "the code of examples/embed.rs stands in README.md word for word");
    assert!(readme.contains("cargo meshwork demo") && readme.contains("cargo test"));
}
