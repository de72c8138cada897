//! The scenario files of this package: each can be run, and says what it expects.

#![cfg(feature = "command")]
#![allow(clippy::disallowed_methods, reason = "a test that reads its files")]

use std::path::Path;

use meshwork_simulations::file::File;

#[test]
fn every_file_can_be_run_and_says_what_it_expects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut found = 0;
    let list = |folder| std::fs::read_dir(folder).expect("the folder is there");
    for entry in list(folder.clone()).chain(list(folder.join("long"))) {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let (name, text) = (path.display().to_string(), std::fs::read_to_string(&path).expect("a text"));
            let file = File::parse(&name, &text).unwrap_or_else(|error| panic!("{error}"));
            assert!(file.expectations().count() > 0, "{name}");
            found += 1;
        }
    }
    assert!(found >= 25, "{found}");
}
