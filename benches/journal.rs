//! What it takes to keep the replicated state on a disk: records per second by policy, beside a file that is written and synced by hand, and how long a node
//! takes to start with what it kept. `cargo bench --package meshwork --bench journal`, with `--features redb` for the database as well. It prints and decides
//! nothing.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a bench reads the clock and ends where the disk does")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use meshwork::crdt::journal::Record;
use meshwork::crdt::wire::{Body, Entry};
use meshwork::crdt::{Key, Stamp};
use meshwork::runtime::Durability;
use meshwork::runtime::journal::{AppendError, Backend, Config, Journal, SyncPolicy};
use meshwork::{Node, PeerId};

fn main() {
    let dir = std::env::temp_dir().join(format!("meshwork-bench-journal-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    rates(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(restarts(&dir));
    let _ = fs::remove_dir_all(&dir);
}

fn entry(serial: u64, value: Vec<u8>) -> Record {
    let (key, body) = (Key::try_from(format!("serial/{serial}").as_str()).expect("a short key"), Body::Register(value.into()));
    Record::Entry(Entry { key, stamp: Stamp::from_bits(serial), origin: PeerId::from_bytes([1; 32]), body })
}

/// How many records each policy takes per second.
fn rates(dir: &Path) {
    let value = || vec![7; 100];
    let backends = [
        Backend::Files,
        #[cfg(feature = "redb")]
        Backend::Redb,
    ];
    let print = |name: &str, records: u64, from: Instant, more: String| {
        println!("{name:34} {:>10.0} records/s{more}", records as f64 / from.elapsed().as_secs_f64());
    };
    for (name, records, is_synced) in [("file, synced after each record", 300, true), ("file, never synced", 200_000, false)] {
        let (mut file, from) = (File::create(dir.join("file")).expect("a file"), Instant::now());
        for _ in 0..records {
            file.write_all(&[7; 170]).expect("room");
            if is_synced {
                file.sync_data().expect("a disk");
            }
        }
        print(name, records, from, String::new());
    }
    let policies = [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_millis(10)), SyncPolicy::Never];
    for backend in backends {
        // One at a time waits for each; else as many are under way as the queue takes.
        for (policy, is_alone) in [(policies[0], true), (policies[0], false), (policies[1], false), (policies[2], false)] {
            let records = if is_alone { 300 } else { 50_000 };
            let folder = dir.join(format!("{backend:?}{policy:?}{is_alone}"));
            let (journal, _) = Journal::open(&folder, Config { backend, sync: policy, ..Config::default() }).expect("a journal");
            let (status, from) = (journal.status(), Instant::now());
            for serial in 1..=records {
                let mut batch = vec![entry(serial % 10_000, value())];
                while let Err(AppendError::Full(refused)) = journal.append(batch, serial) {
                    batch = refused;
                    thread::yield_now();
                }
                while is_alone && status.borrow().durable < serial {
                    thread::yield_now();
                }
            }
            let counters = journal.close().map(|_| status.borrow().counters).expect("a disk");
            let name = format!("{backend:?}, {policy:?}{}", if is_alone { ", one at a time" } else { "" });
            print(&name, records, from, format!(", {} syncs, {} snapshots", counters.syncs, counters.snapshots));
        }
    }
}

/// How long the parts of a life take with so many entries.
async fn restarts(dir: &Path) {
    for entries in [1_000_u64, 4_000, 16_000] {
        let dir = dir.join(format!("node-{entries}"));
        let start = || {
            let builder = Node::builder("bench").listen(([127, 0, 0, 1], 0).into()).insecure_without_secret().mdns(false).data_dir(&dir);
            builder.durability(Durability::Log { sync: SyncPolicy::Always }).start()
        };
        let node = start().await.expect("a node");
        for number in 0..entries {
            node.state().set(format!("serial/{number}"), vec![7; 20]).await.expect("a node");
        }
        node.state().set_durable("last", "v").await.expect("a node");
        node.leave().await;
        let folder = dir.join("state");
        let from = Instant::now();
        let (journal, _) = Journal::open(&folder, Config::default()).expect("a node");
        let opened = from.elapsed();
        journal.close().expect("a node");
        let closed = from.elapsed() - opened;
        let from = Instant::now();
        let node = start().await.expect("a node");
        let started = from.elapsed();
        node.state().set_durable("first", "v").await.expect("a node");
        let first = from.elapsed() - started;
        node.state().set_durable("second", "v").await.expect("a node");
        let second = from.elapsed() - started - first;
        println!(
            "{entries:>6} entries: journal opened {opened:.1?}, closed {closed:.1?}; node started {started:.1?}, first durable write {first:.1?}, second {second:.1?}"
        );
        node.leave().await;
    }
}
