//! Nodes that keep their state over restarts, in processes that end in good order, are killed, or run out of disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests of real nodes and processes, in which a panic is the verdict"
)]

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use meshwork::crdt::journal::Record;
use meshwork::crdt::{Op, Value};
use meshwork::runtime::journal::{self, Journal, OpenError, SyncPolicy};
use meshwork::runtime::{Durability, DurableError};
use meshwork::services::config as settings;
use meshwork::services::variables::{Definition, Kind};
use meshwork::{Builder, Node, StartError};
use support::{on_loopback, within_patience};

const DIR: &str = "MESHWORK_TEST_DURABLE_DIR";
const FIRST: &str = "MESHWORK_TEST_DURABLE_FIRST";
const KILLS: &str = "MESHWORK_TEST_DURABLE_KILLS";

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// A folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("meshwork-durable-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn keeping(dir: &Path) -> Builder {
    on_loopback().data_dir(dir)
}

fn synced_at_once(dir: &Path) -> Builder {
    keeping(dir).durability(Durability::Log { sync: SyncPolicy::Always })
}

#[test]
fn a_restart_keeps_state_of_every_kind_and_removes_nothing() {
    run(async {
        let scratch = Scratch::new("kinds");
        let mut config = meshwork::node::Config::default();
        config.services.config.is_synced = true;
        let start = || keeping(&scratch.0).config(config.clone()).start();
        let node = start().await.unwrap();
        let ops = [
            ("lww", Op::Set("a".into())),
            ("best", Op::Best(2.5, "b".into())),
            ("mv", Op::Put("c".into())),
            ("count", Op::Add(-3)),
            ("g_count", Op::Grow(4)),
            ("set", Op::Insert("d".into())),
            ("g_set", Op::Include("e".into())),
            ("gone", Op::Set("f".into())),
            ("gone meanwhile", Op::SetFor("h".into(), Duration::from_secs(1))),
            ("gone set", Op::Insert("g".into())),
        ];
        for (key, op) in ops.clone() {
            node.state().apply(key, op).await.unwrap();
        }
        node.state().remove("gone").await.unwrap();
        node.state().remove("gone set").await.unwrap();
        node.config().set("app/limit", 7_u32).await.unwrap();
        let kind = Kind::Integer { min: 0, max: 100, step: 1 };
        node.variables().register(Definition::new("speed".parse().unwrap(), kind, 10_i64)).await.unwrap();
        node.variables().update("speed", 20_i64).await.unwrap();
        let before = node.report().await.unwrap();
        node.leave().await;

        tokio::time::sleep(Duration::from_secs(2)).await;
        let node = start().await.unwrap();
        assert_eq!(node.report().await.unwrap().digest, before.digest, "not a single entry or tombstone differs");
        let read = async |key: &str| node.state().read(key).await.unwrap();
        assert_eq!(read("lww").await, Some(Value::Lww("a".into())));
        assert_eq!(read("best").await, Some(Value::Best(2.5, "b".into())));
        assert!(matches!(read("mv").await, Some(Value::Mv(siblings)) if siblings.len() == 1 && siblings[0].value == "c"));
        assert_eq!(read("set").await, Some(Value::Set(vec!["d".into()])));
        assert_eq!(read("g_set").await, Some(Value::GSet(vec!["e".into()])));
        assert_eq!((read("gone").await, read("gone set").await, read("gone meanwhile").await), (None, None, None));
        // The services were told of what is there.
        assert_eq!(node.config().get::<u32>("app/limit").await.unwrap().unwrap(), 7);
        assert_eq!(node.variables().get("speed").await.unwrap().unwrap().value, 20_i64.into());
        assert!(matches!(node.config().get::<u32>("app/other").await.unwrap(), Err(settings::ReadError::NotFound)));
        // And all of it goes on.
        node.state().apply("count", Op::Add(5)).await.unwrap();
        node.state().apply("g_count", Op::Grow(6)).await.unwrap();
        assert_eq!((read("count").await, read("g_count").await), (Some(Value::Count(2)), Some(Value::GCount(10))));
        node.leave().await;
    });
}

#[test]
fn counts_survive_the_loss_of_a_disk_and_a_killed_node() {
    run(async {
        let scratch = Scratch::new("counts");
        let other = on_loopback().start().await.unwrap();
        let start = async || loop {
            // A node that was killed may hold its folder for another moment.
            match synced_at_once(&scratch.0).join(other.address().to_string()).start().await {
                Err(StartError::Storage(_) | StartError::State(OpenError::Storage(_))) => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                started => break started.unwrap(),
            }
        };
        let counted = async |sum: i64| {
            let is_so = async || other.state().read("hits").await.unwrap() == Some(Value::Count(sum));
            within_patience(&format!("{sum} hits"), is_so).await;
        };
        other.state().apply("hits", Op::Add(1)).await.unwrap();
        let mut sum = 1;
        for end in ["leaves", "is killed", "leaves", "loses its disk", "leaves"] {
            let node = start().await;
            node.state().apply_durable("hits", Op::Add(10)).await.unwrap();
            sum += 10;
            counted(sum).await;
            match end {
                "is killed" => node.kill().await,
                _ => node.leave().await,
            }
            if end == "loses its disk" {
                fs::remove_dir_all(scratch.0.join("state")).unwrap();
            }
        }
        other.leave().await;
    });
}

#[test]
fn a_node_that_keeps_nothing_says_so_and_a_folder_is_needed_to_keep_something() {
    run(async {
        let node = on_loopback().start().await.unwrap();
        assert!(matches!(node.state().set_durable("k", "v").await, Err(DurableError::Off)));
        assert_eq!(node.state().get("k").await.unwrap(), None, "nothing was changed");
        assert!(node.report().await.unwrap().journal.is_none());
        node.leave().await;

        let error = on_loopback().durability(Durability::DEFAULT).start().await.unwrap_err();
        assert!(matches!(&error, StartError::Config(error) if error.field == "durability"), "{error}");

        let scratch = Scratch::new("never");
        for (durability, kept) in [(Durability::None, None), (Durability::Log { sync: SyncPolicy::Never }, Some("v".into()))] {
            for before in [None, kept] {
                let node = keeping(&scratch.0).durability(durability).start().await.unwrap();
                assert_eq!(node.state().get("k").await.unwrap(), before, "{durability:?}");
                assert!(matches!(node.state().set_durable("k", "v").await, Err(DurableError::Off)));
                node.state().set("k", "v").await.unwrap();
                node.leave().await;
            }
        }
    });
}

#[test]
fn a_damaged_folder_stops_the_start_and_the_error_names_the_file() {
    run(async {
        let scratch = Scratch::new("damaged");
        let node = keeping(&scratch.0).start().await.unwrap();
        node.state().set("k", "v").await.unwrap();
        node.leave().await;
        // The next life begins with all of that in a snapshot.
        keeping(&scratch.0).start().await.unwrap().leave().await;
        let is_snapshot = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snapshot"));
        let snapshot = fs::read_dir(scratch.0.join("state")).unwrap().map(|file| file.unwrap().path()).find(is_snapshot).unwrap();
        let mut content = fs::read(&snapshot).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&snapshot, &content).unwrap();

        let error = keeping(&scratch.0).start().await.unwrap_err();
        assert!(matches!(&error, StartError::State(OpenError::Damaged { path, .. }) if *path == snapshot), "{error}");
        let said = error.to_string();
        assert!(said.contains(&*snapshot.to_string_lossy()) && said.contains("move it away"), "{said}");
        fs::rename(scratch.0.join("state"), scratch.0.join("state.damaged")).unwrap();
        let node = keeping(&scratch.0).start().await.unwrap();
        assert!(node.state().entries("").await.unwrap().is_empty());
        node.leave().await;
    });
}

/// Starts a test of this program in a process of its own.
fn in_process(name: &str, dir: &Path, before: &[&str]) -> Command {
    let this = env::current_exe().expect("this program");
    let mut words = before.iter().map(|word| std::ffi::OsStr::new(*word)).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least this program"));
    command.args(words).args(["--exact", name, "--ignored", "--nocapture"]).env(DIR, dir);
    command
}

/// What the process does that is killed: prints what it tries, and what is durable. No test by itself.
#[test]
#[ignore = "run by the test below in a process of its own"]
fn writes_until_it_is_killed() {
    let (Ok(dir), Ok(first)) = (env::var(DIR), env::var(FIRST)) else { return };
    run(async {
        let mut output = std::io::stdout();
        writeln!(output).expect("somebody reads");
        let node = synced_at_once(Path::new(&dir)).start().await.expect("what is left can be used");
        let mut serial: u64 = first.parse().expect("a number");
        loop {
            writeln!(output, "tries {serial}").expect("somebody reads");
            output.flush().expect("somebody reads");
            let state = node.state();
            let write = async |part: u64| state.set_durable(format!("serial/{}", 4 * serial + part), vec![serial as u8; 20]).await;
            let count = state.apply_durable("hits", Op::Grow(1));
            let (a, b, c, d, hits) = tokio::join!(write(0), write(1), write(2), write(3), count);
            assert!([a, b, c, d].iter().all(Result::is_ok) && hits.is_ok(), "the disk takes it");
            writeln!(output, "durable {serial}").expect("somebody reads");
            serial += 1;
        }
    });
}

#[test]
fn no_durable_write_is_lost_when_nodes_are_killed() {
    let scratch = Scratch::new("kills");
    let kills: u64 = env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let (mut acknowledged, mut tried, mut writers) = (BTreeSet::new(), BTreeSet::new(), 0);
    for kill in 0..kills {
        let first = tried.last().map_or(1, |last| last + 1);
        let mut command = in_process("writes_until_it_is_killed", &scratch.0, &[]);
        let mut child = command.env(FIRST, first.to_string()).stdout(Stdio::piped()).spawn().expect("this program starts again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // Most are killed some time after their first durable write, or reading what is there would take all of it once there is much; every fourth
        // is killed some time after it began, which may be while it reads.
        let (is_early, mut killer, mut is_writer) = (kill % 4 == 0, None, false);
        let delay = Duration::from_micros(kill.wrapping_mul(79_197_711) % if is_early { 400_000 } else { 30_000 });
        let mut child = Some(child);
        for line in lines.map_while(Result::ok) {
            if let Some(serial) = line.strip_prefix("tries ") {
                tried.insert(serial.parse::<u64>().expect("a number"));
            } else if let Some(serial) = line.strip_prefix("durable ") {
                acknowledged.insert(serial.parse::<u64>().expect("a number"));
                is_writer = true;
            }
            if let Some(mut child) = (is_early || is_writer).then(|| child.take()).flatten() {
                killer = Some(thread::spawn(move || {
                    thread::sleep(delay);
                    child.kill().expect("it still runs");
                    assert!(!child.wait().expect("it was started").success());
                }));
            }
        }
        killer.expect("it did not end by itself").join().expect("it was killed");
        writers += u64::from(is_writer);
        if kill == 0 && !scratch.0.join("state").exists() {
            continue;
        }
        let (journal, recovered) = Journal::open(&scratch.0.join("state"), journal::Config::default()).expect("what is left is a journal");
        drop(journal.close());
        let keys = recovered.records.iter().filter_map(|record| match record {
            Record::Entry(entry) => entry.key.strip_prefix("serial/"),
            _ => None,
        });
        let there: BTreeSet<u64> = keys.map(|serial| serial.parse().expect("a number")).collect();
        let lost: Vec<&u64> = acknowledged.iter().filter(|serial| !(0..4).all(|part| there.contains(&(4 * *serial + part)))).collect();
        assert!(lost.is_empty(), "kill {kill}: lost {lost:?}");
        assert!(there.iter().all(|serial| tried.contains(&(serial / 4))), "kill {kill}: something out of nowhere");
    }
    println!("{kills} kills, {writers} amid writes: {} acknowledged, {} tried", 5 * acknowledged.len(), 5 * tried.len());
    assert!(writers >= kills - kills.div_ceil(4), "most processes wrote before they were killed: {writers} of {kills}");
    run(async {
        let node = keeping(&scratch.0).start().await.unwrap();
        let Some(Value::GCount(hits)) = node.state().read("hits").await.unwrap() else { panic!("no hits") };
        assert!(hits >= acknowledged.len() as u64 && hits <= tried.len() as u64, "{hits} of {}", tried.len());
        node.leave().await;
    });
}

/// What a node does whose disk is full, and has room again. No test by itself.
#[test]
#[ignore = "run by the test below in a process with a small disk"]
fn fills_a_small_disk() {
    let Ok(dir) = env::var(DIR) else { return };
    let (filler, data) = (Path::new(&dir).join("filler"), Path::new(&dir).join("data"));
    run(async {
        fs::write(&filler, vec![7; 1_200 * 1_024]).expect("room");
        let node = synced_at_once(&data).start().await.unwrap();
        let is_full = |failure: &meshwork::runtime::StorageError| failure.source.kind() == ErrorKind::StorageFull;
        let mut written = 0;
        loop {
            match node.state().set_durable(format!("k{written}"), vec![written as u8; 16 * 1_024]).await {
                Ok(_) => written += 1,
                Err(DurableError::Undecided(failure) | DurableError::Unavailable(failure)) if is_full(&failure) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written > 10, "there was room for {written}");
        // Reads and other writes go on, and the next durable write is refused before it is made.
        assert!(matches!(node.state().set_durable("refused", "v").await, Err(DurableError::Unavailable(failure)) if is_full(&failure)));
        assert_eq!(node.state().get("refused").await.unwrap(), None);
        assert_eq!(node.state().get("k0").await.unwrap(), Some(vec![0; 16 * 1_024].into()));
        node.state().set("later", "v").await.unwrap();
        assert_eq!(node.state().get("later").await.unwrap(), Some("v".into()));
        let journal = node.report().await.unwrap().journal.unwrap();
        assert!(is_full(journal.status.failure.as_ref().unwrap()) && journal.status.durable < journal.sequence, "{journal:?}");

        fs::remove_file(&filler).unwrap();
        within_patience("a disk with room", async || node.state().set_durable("again", "v").await.is_ok()).await;
        node.kill().await;
        let node = loop {
            match keeping(&data).start().await {
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(node) => break node,
            }
        };
        assert_eq!(node.state().get("later").await.unwrap(), Some("v".into()), "what was written meanwhile is durable too");
        let keys = node.state().keys("k").await.unwrap().len();
        assert!(keys >= written, "{keys} of {written}");
        node.leave().await;
        println!("filled with {written}");
    });
}

/// Needs a file system of its own in memory, which the system gives to root, or to whoever may make a user namespace.
#[test]
fn a_full_disk_refuses_durable_writes_with_a_typed_error_and_nothing_else() {
    let scratch = Scratch::new("full");
    fs::create_dir_all(&scratch.0).unwrap();
    let mount = r#"mount -t tmpfs -o size=2m none "$MESHWORK_TEST_DURABLE_DIR" || exit 77; exec "$0" "$@""#;
    let output = in_process("fills_a_small_disk", &scratch.0, &["unshare", "--map-root-user", "--mount", "sh", "-c", mount]).output();
    let Ok(output) = output else { return println!("not run: there is no unshare") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || text.contains("unshare:") {
        return println!("not run: this user may not mount: {text}");
    }
    assert!(output.status.success() && text.contains("filled with"), "{text}");
}

/// A write of one handle while the disk syncs at intervals: it waits for the interval, and not longer.
#[test]
fn writes_that_wait_share_a_sync() {
    run(async {
        let scratch = Scratch::new("share");
        let node: Node = keeping(&scratch.0).start().await.unwrap();
        let state = node.state();
        let all = async |from: u64| {
            let write = async |number: u64| state.set_durable(format!("k{}", from + number), "v").await.unwrap();
            tokio::join!(write(0), write(1), write(2), write(3), write(4), write(5), write(6), write(7))
        };
        let before = node.report().await.unwrap().journal.unwrap().status.counters.syncs;
        all(0).await;
        all(8).await;
        let journal = node.report().await.unwrap().journal.unwrap();
        assert!(journal.status.counters.syncs - before <= 4, "16 writes: {journal:?}");
        assert_eq!((journal.status.durable, journal.unrecorded, journal.waiting), (journal.sequence, 0, 0));
        // What holds nothing new waits for nothing.
        assert_eq!(state.apply_durable("none", Op::Remove).await.unwrap(), None);
        node.leave().await;
    });
}
