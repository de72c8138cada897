//! Processes that write to a journal are killed at random moments: what they were told is durable is there.

#![allow(clippy::disallowed_methods, reason = "the test starts processes and kills them")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use meshwork::PeerId;
use meshwork::crdt::journal::Record;
use meshwork::crdt::wire::{Body, Entry};
use meshwork::crdt::{Key, Stamp};
use meshwork::runtime::journal::{Backend, Config, Journal, Recovered};

const DIR: &str = "MESHWORK_TEST_JOURNAL_DIR";
const FIRST: &str = "MESHWORK_TEST_JOURNAL_FIRST";
const BACKEND: &str = "MESHWORK_TEST_JOURNAL_BACKEND";
const KILLS: &str = "MESHWORK_TEST_JOURNAL_KILLS";

fn entry(serial: u64, value: Vec<u8>) -> Record {
    let (key, body) = (Key::try_from(format!("serial/{serial}").as_str()).expect("a short key"), Body::Register(value.into()));
    Record::Entry(Entry { key, stamp: Stamp::from_bits(serial), origin: PeerId::from_bytes([1; 32]), body })
}

fn serials(recovered: &Recovered) -> BTreeSet<u64> {
    let serial = |record: &Record| match record {
        Record::Entry(entry) => Some(entry.stamp.to_bits()),
        _ => None,
    };
    recovered.records.iter().filter_map(serial).collect()
}

fn backend(name: &str) -> Backend {
    match name {
        #[cfg(feature = "redb")]
        "redb" => Backend::Redb,
        _ => Backend::Files,
    }
}

/// A small log, so that many snapshots are hit as well.
fn config(backend: Backend) -> Config {
    Config { backend, log_bytes_min: 16 * 1_024, ..Config::default() }
}

fn scratch(name: &str) -> PathBuf {
    let dir = env::temp_dir().join(format!("meshwork-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// What the process does that is killed: prints what it tries, and what is durable. No test by itself.
#[test]
#[ignore = "run by the test below in a process of its own"]
fn writes_until_it_is_killed() {
    let (Ok(dir), Ok(first)) = (env::var(DIR), env::var(FIRST)) else { return };
    let config = config(backend(&env::var(BACKEND).unwrap_or_default()));
    let (journal, _) = Journal::open(Path::new(&dir), config).expect("the journal opens");
    let status = journal.status();
    let mut output = std::io::stdout();
    // Whatever the harness printed before ends here.
    writeln!(output).expect("somebody reads");
    let (mut serial, mut durable) = (first.parse::<u64>().expect("a number"), 0);
    loop {
        writeln!(output, "tries {serial}").expect("somebody reads");
        output.flush().expect("somebody reads");
        journal.append_durable(vec![entry(serial, vec![serial as u8; 20])], serial).expect("the journal takes it");
        serial += 1;
        while serial > durable + 8 && status.borrow().durable < serial - 8 {
            thread::yield_now();
        }
        let now = status.borrow().durable;
        if now > durable {
            durable = now;
            writeln!(output, "durable {durable}").expect("somebody reads");
        }
    }
}

fn kill_writers(name: &str) {
    let dir = scratch(&format!("kills-{name}"));
    let kills: u64 = env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let (mut first, mut acknowledged, mut tried) = (1, BTreeSet::new(), BTreeSet::new());
    for kill in 0..kills {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .envs([(DIR, dir.as_os_str()), (FIRST, first.to_string().as_ref()), (BACKEND, name.as_ref())])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // The moment is counted from the first line on: starting takes long and writes little. Some are killed while they open.
        let delay = Duration::from_micros(kill.wrapping_mul(7_919_771) % 40_000);
        let mut started = None;
        for line in lines.map_while(Result::ok) {
            if let Some(serial) = line.strip_prefix("tries ") {
                tried.insert(serial.parse::<u64>().expect("a number"));
            } else if let Some(serial) = line.strip_prefix("durable ") {
                acknowledged.extend(first..=serial.parse::<u64>().expect("a number"));
            }
            let started = *started.get_or_insert_with(Instant::now);
            if started.elapsed() >= delay {
                child.kill().expect("it still runs");
            }
        }
        assert!(!child.wait().expect("it was started").success());
        let (journal, recovered) = Journal::open(&dir, config(backend(name))).expect("what is left is a journal");
        let recovered = serials(&recovered);
        assert!(acknowledged.is_subset(&recovered), "kill {kill}: lost {:?}", acknowledged.difference(&recovered).collect::<Vec<_>>());
        assert!(recovered.is_subset(&tried), "kill {kill}: {:?} out of nowhere", recovered.difference(&tried).collect::<Vec<_>>());
        first = tried.last().map_or(1, |last| last + 1);
        drop(journal.close());
    }
    println!("{kills} kills: {} acknowledged, {} tried", acknowledged.len(), tried.len());
    assert!(acknowledged.len() as u64 > kills, "the processes wrote before they were killed");
    let _ = fs::remove_dir_all(&dir);
}

#[test]
fn nothing_durable_is_lost_when_processes_are_killed() {
    kill_writers("files");
}

#[cfg(feature = "redb")]
#[test]
fn nothing_durable_is_lost_from_a_database_when_processes_are_killed() {
    kill_writers("redb");
}
