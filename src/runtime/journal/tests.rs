//! Journals on a disk that fails, and after every crash that it can leave: what was reported durable is there.
//!
//! A history writes serial numbers. Each batch holds an entry with the serial under one of a few keys, and reserves the serial, so that what was
//! recovered tells up to which serial it goes.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use meshwork_channels::PeerId;
use meshwork_channels::random::generator;
use meshwork_crdt::journal::{HEAD_BYTES, RECORD_BYTES_MAX, Reserved};
use meshwork_crdt::wire::{Body, Entry};
use meshwork_crdt::{Key, Stamp};
use rand::RngExt;

use super::faults::Faults;
use super::*;

const KEYS: u64 = 5;
const RETRY: Duration = Duration::from_millis(100);

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let dir = env::temp_dir().join(format!("meshwork-journal-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(sync: SyncPolicy) -> Config {
    Config { sync, log_bytes_min: 600, retry_after: RETRY, ..Config::default() }
}

fn entry(name: &str, stamp: u64, value: impl Into<Bytes>) -> Record {
    let (key, body) = (Key::try_from(name).unwrap(), Body::Register(value.into()));
    Record::Entry(Entry { key, stamp: Stamp::from_bits(stamp), origin: PeerId::from_bytes([7; 32]), body })
}

fn batch(serial: u64) -> Batch {
    Batch { records: records(serial), sequence: serial }
}

fn records(serial: u64) -> Vec<Record> {
    let entry = entry(&format!("k{}", serial % KEYS), serial, serial.to_string());
    vec![entry, Record::Reserved(Reserved { incarnation: 1, sequence: serial })]
}

/// The serial up to which all records are there; that it is one, is checked.
fn serial_of(recovered: &Recovered) -> u64 {
    let mut image = Image::default();
    recovered.records.iter().cloned().for_each(|record| image.apply(record));
    let reserved = recovered.records.iter().find_map(|record| match record {
        Record::Reserved(reserved) => Some(reserved.sequence),
        _ => None,
    });
    // An entry stands before its reservation, so the last one may lack it.
    let Some(last) = reserved else {
        let alone = image.records().filter(|record| matches!(record, Record::Entry(_))).count();
        assert!(alone <= 1, "{recovered:?}");
        return 0;
    };
    let mut expected = BTreeMap::new();
    for serial in 1..=last {
        expected.insert(format!("k{}", serial % KEYS), serial);
    }
    let mut next = last + 1;
    for record in &recovered.records {
        if let Record::Entry(entry) = record {
            let serial = entry.stamp.to_bits();
            assert_eq!(entry.body, Body::Register(serial.to_string().into()));
            if expected.remove(entry.key.as_str()) != Some(serial) {
                assert_eq!(serial, next, "an entry that is neither the latest nor the one after: {recovered:?}");
                next = 0;
            }
        }
    }
    assert!(expected.is_empty(), "{expected:?} of {last} are missing");
    last
}

/// A worker without its thread, on a disk with faults.
struct Life {
    worker: Worker,
    status: watch::Receiver<Status>,
    now: Instant,
    serial: u64,
}

impl Life {
    fn begin(dir: &Path, faults: &Faults, config: Config, serial: u64) -> (Self, Recovered) {
        let (files, image, recovered) = Files::recover(Disk::with_faults(dir, faults.clone())).unwrap();
        let (sender, status) = watch::channel(Status::default());
        let now = Instant::now();
        let mut worker = Worker::new(Store::Files(files), image, config, sender, now);
        worker.on_due(now);
        (Life { worker, status, now, serial }, recovered)
    }

    fn write(&mut self, batches: u64) {
        let batches = (0..batches).map(|_| {
            self.serial += 1;
            batch(self.serial)
        });
        let batches = batches.collect();
        self.worker.on_batches(batches, self.now);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.worker.next_deadline().is_some_and(|at| at <= self.now) {
            self.worker.on_due(self.now);
        }
    }

    fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

/// Writes until the disk crashes or the history ends, and returns what was durable and what was tried.
fn history(dir: &Path, faults: &Faults, batches: u64) -> (u64, u64) {
    let (mut life, _) = Life::begin(dir, faults, config(SyncPolicy::Always), 0);
    for _ in 0..batches {
        life.write(1);
        if faults.lock().is_crashed {
            break;
        }
    }
    (life.status().durable, life.serial)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = Disk::new(dir).names().unwrap();
    names.sort();
    names
}

fn recover(dir: &Path) -> Recovered {
    Files::recover(Disk::new(dir)).unwrap().2
}

#[test]
fn a_crash_at_any_byte_loses_nothing_that_was_durable() {
    let (scratch, whole) = (Scratch::new(), Faults::model());
    assert_eq!(history(&scratch.0, &whole, 10), (10, 10));
    let bytes = whole.lock().bytes;
    assert!(bytes > 1_000, "{bytes}");
    let mut generator = generator(1, "crash", 0);
    let mut torn = 0;
    for at in 0..bytes {
        let (scratch, faults) = (Scratch::new(), Faults::model());
        faults.lock().bytes_to_crash = Some(at);
        let (durable, tried) = history(&scratch.0, &faults, 10);
        assert!(faults.lock().is_crashed);
        faults.lock().lose(&scratch.0, &mut generator);
        let recovered = recover(&scratch.0);
        torn += u64::from(recovered.torn.is_some());
        let serial = serial_of(&recovered);
        assert!((durable..=tried).contains(&serial), "byte {at}: {durable} were durable, {serial} are there, {tried} were tried");
    }
    assert!(torn > bytes / 10, "{torn} of {bytes}");
}

#[test]
fn a_crash_before_any_operation_loses_nothing_that_was_durable() {
    let (scratch, whole) = (Scratch::new(), Faults::model());
    history(&scratch.0, &whole, 40);
    let ops = whole.lock().ops;
    for at in 0..ops {
        for seed in 0..4 {
            let mut generator = generator(seed, "operation", at);
            let (scratch, faults) = (Scratch::new(), Faults::model());
            faults.lock().ops_to_crash = Some(at);
            let (durable, tried) = history(&scratch.0, &faults, 40);
            assert!(faults.lock().is_crashed);
            faults.lock().lose(&scratch.0, &mut generator);
            let serial = serial_of(&recover(&scratch.0));
            assert!((durable..=tried).contains(&serial), "operation {at}: {durable} were durable, {serial} are there, {tried} were tried");
        }
    }
}

#[test]
fn a_log_cut_at_any_byte_keeps_what_was_durable_by_then() {
    let scratch = Scratch::new();
    let (mut life, _) = Life::begin(&scratch.0, &Faults::model(), Config { log_bytes_min: 1 << 20, ..config(SyncPolicy::Always) }, 0);
    let log = scratch.0.join("log-1");
    let mut lengths = vec![HEAD_BYTES as u64];
    for _ in 0..8 {
        life.write(1);
        lengths.push(fs::metadata(&log).unwrap().len());
    }
    for cut in (HEAD_BYTES as u64..=*lengths.last().unwrap()).rev() {
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(cut).unwrap();
        let durable = lengths.iter().filter(|len| **len <= cut).count() as u64 - 1;
        assert_eq!(serial_of(&recover(&scratch.0)), durable, "cut at {cut}");
    }
}

#[test]
fn whatever_the_disk_does_what_is_durable_stays() {
    let (mut crashes, mut failures, mut full, mut failed_syncs, mut short) = (0, 0, 0, 0, 0);
    for seed in 0..150 {
        let mut generator = generator(seed, "swarm", 0);
        let (scratch, mut serial, mut durable) = (Scratch::new(), 0, 0);
        for _ in 0..4 {
            let faults = Faults::model();
            let sync = match generator.random_range(0..4) {
                0 => SyncPolicy::Never,
                1 => SyncPolicy::Interval(Duration::from_millis(20)),
                _ => SyncPolicy::Always,
            };
            let (mut life, recovered) = Life::begin(&scratch.0, &faults, config(sync), serial);
            let found = serial_of(&recovered);
            assert!((durable..=serial).contains(&found), "seed {seed}: {durable} were durable, {found} are there, {serial} were tried");
            // What was tried and is not there was never reported; it is written again, as a node would.
            life.serial = found;
            for _ in 0..30 {
                match generator.random_range(0..12) {
                    0 => faults.lock().chunk = generator.random_range(0..40),
                    1 => faults.lock().bytes_left = Some(generator.random_range(0..400)),
                    2 => faults.lock().bytes_left = None,
                    3 => faults.lock().failing_syncs = 1,
                    4 => life.wait(Duration::from_millis(generator.random_range(0..150))),
                    _ => life.write(generator.random_range(1..4)),
                }
                let status = life.status();
                assert!(status.durable <= life.serial);
                durable = durable.max(status.durable);
            }
            failures += life.status().counters.failures;
            serial = life.serial;
            let mut model = faults.lock();
            (full, failed_syncs, short) = (full + model.full, failed_syncs + model.failed_syncs, short + model.short_writes);
            model.lose(&scratch.0, &mut generator);
            crashes += 1;
        }
    }
    assert!(
        crashes == 600 && failures > 300 && full > 100 && failed_syncs > 100 && short > 1_000,
        "{failures} {full} {failed_syncs} {short}"
    );
}

#[test]
fn a_full_disk_is_told_and_all_is_durable_once_there_is_room() {
    let (scratch, faults) = (Scratch::new(), Faults::model());
    let (mut life, _) = Life::begin(&scratch.0, &faults, config(SyncPolicy::Always), 0);
    life.write(1);
    assert_eq!(life.status().durable, 1);
    faults.lock().bytes_left = Some(50);
    life.write(1);
    life.write(1);
    // Each attempt has a little more room, so that they fail at all places; none leaves a file behind, nor loses what was durable.
    let mut attempts = 0;
    while let Some(failure) = life.status().failure {
        assert_eq!(failure.source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(life.status().durable, 1);
        assert_eq!(serial_of(&recover(&scratch.0)), 1);
        assert_eq!(names(&scratch.0), ["log-1", "snapshot-1"]);
        attempts += 1;
        faults.lock().bytes_left = Some(10 * attempts);
        life.wait(RETRY);
    }
    let status = life.status();
    assert!(attempts > 20 && status.counters.failures == attempts && status.durable == 3, "{status:?}");
    assert_eq!(serial_of(&recover(&scratch.0)), 3);
}

#[test]
fn a_failed_sync_is_never_taken_back() {
    let (scratch, faults) = (Scratch::new(), Faults::model());
    let (mut life, _) = Life::begin(&scratch.0, &faults, config(SyncPolicy::Always), 0);
    faults.lock().failing_syncs = 1;
    life.write(1);
    life.write(1);
    assert_eq!(life.status().durable, 0);
    life.wait(RETRY);
    assert_eq!(life.status().durable, 2);
    assert_eq!(names(&scratch.0), ["log-2", "snapshot-2"], "nothing is written to the file that failed");
}

#[test]
fn an_interval_shares_a_sync_and_never_leaves_it_to_snapshots() {
    let scratch = Scratch::new();
    let (mut life, _) = Life::begin(&scratch.0, &Faults::model(), config(SyncPolicy::Interval(Duration::from_millis(10))), 0);
    life.write(1);
    life.wait(Duration::from_millis(9));
    life.write(1);
    assert_eq!((life.status().durable, life.status().counters.syncs), (0, 0));
    life.wait(Duration::from_millis(1));
    assert_eq!((life.status().durable, life.status().counters.syncs), (2, 1));
    life.worker.on_batches(vec![Batch { records: vec![Record::Begun], sequence: 3 }], life.now);
    assert_eq!((life.status().durable, life.status().counters.syncs), (3, 2), "a node waits for this before it starts");

    let scratch = Scratch::new();
    let (mut life, _) = Life::begin(&scratch.0, &Faults::model(), config(SyncPolicy::Never), 0);
    while life.status().durable == 0 {
        life.write(1);
    }
    let status = life.status();
    assert!(status.durable > 1 && status.counters.syncs == 0 && status.counters.snapshots == 2, "{status:?}");
}

#[test]
fn damage_is_told_and_nothing_is_changed() {
    let scratch = Scratch::new();
    let (mut life, _) = Life::begin(&scratch.0, &Faults::model(), config(SyncPolicy::Always), 0);
    life.write(1);
    life.write(1);
    life.worker.close(life.now);
    let (log, snapshot) = (scratch.0.join("log-1"), scratch.0.join("snapshot-1"));
    let whole = fs::read(&log).unwrap();
    let refused = || match Files::recover(Disk::new(&scratch.0)).unwrap_err() {
        OpenError::Damaged { path, why } => (path, why),
        error => panic!("{error}"),
    };
    for at in HEAD_BYTES..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&log, &bytes).unwrap();
        // The last mark says that all before it was synced; itself is synced too, but nothing says so.
        match Files::recover(Disk::new(&scratch.0)) {
            Err(OpenError::Damaged { why: Damaged::Content(damage), .. }) => assert!(damage.at <= at as u64),
            Ok((.., recovered)) => assert!(recovered.torn.is_some() && serial_of(&recovered) == 2 && at > whole.len() - 30),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(fs::read(&log).unwrap(), bytes);
    }
    fs::remove_file(&log).unwrap();
    let (.., recovered) = Files::recover(Disk::new(&scratch.0)).unwrap();
    assert_eq!(recovered.missing.as_deref(), Some("log-1"));
    fs::write(&log, &whole).unwrap();
    assert_eq!(Files::recover(Disk::new(&scratch.0)).unwrap().2.missing, None);
    let content = fs::read(&snapshot).unwrap();
    fs::write(&snapshot, &content[..content.len() - 1]).unwrap();
    assert!(matches!(refused(), (path, Damaged::Content(_)) if path == snapshot));
    fs::remove_file(&snapshot).unwrap();
    assert_eq!(refused(), (log.clone(), Damaged::Alone));
    fs::rename(&log, &snapshot).unwrap();
    assert_eq!(refused(), (snapshot, Damaged::Misnamed));
}

#[test]
fn a_journal_keeps_what_it_is_given_and_serves_one_node() {
    let scratch = Scratch::new();
    let backends = [
        Backend::Files,
        #[cfg(feature = "redb")]
        Backend::Redb,
    ];
    for backend in backends {
        let dir = scratch.0.join(format!("{backend:?}"));
        let config = Config { backend, ..Config::default() };
        let (journal, recovered) = Journal::open(&dir, config.clone()).unwrap();
        assert_eq!(recovered, Recovered::default());
        let error = Journal::open(&dir, config.clone()).unwrap_err();
        assert!(error.to_string().contains("another node runs with it"), "{error}");
        for serial in 1..=500 {
            journal.append(records(serial), serial).unwrap();
        }
        journal.append_durable(vec![entry("gone", 1, "x"), Record::Forgotten("gone".try_into().unwrap())], 501).unwrap();
        let counters = journal.status().borrow().counters;
        assert_eq!(counters.failures, 0);
        assert_eq!(journal.close().unwrap(), 501);

        let (journal, recovered) = Journal::open(&dir, config.clone()).unwrap();
        assert_eq!(serial_of(&recovered), 500, "{backend:?}");
        assert_eq!(recovered.records.len() as u64, KEYS + 2, "entries, the reservation and the clock");
        journal.close().unwrap();
        let (journal, recovered) = Journal::open(&dir, config).unwrap();
        assert_eq!(serial_of(&recovered), 500, "{backend:?}");
        journal.close().unwrap();
    }
}

#[cfg(feature = "redb")]
#[test]
fn a_database_that_failed_is_written_anew() {
    let scratch = Scratch::new();
    let (redb, image, _) = redb::Redb::recover(&scratch.0).unwrap();
    let ((sender, status), now) = (watch::channel(Status::default()), Instant::now());
    let mut worker = Worker::new(Store::Redb(redb), image, config(SyncPolicy::Always), sender, now);
    worker.on_batches(vec![batch(1)], now);
    assert_eq!(status.borrow().durable, 1);
    worker.fail(failed("write")(io::ErrorKind::StorageFull.into()), now);
    worker.on_batches(vec![batch(2)], now);
    assert_eq!(status.borrow().durable, 1);
    worker.on_batches(vec![batch(3)], now + RETRY);
    assert!(status.borrow().durable == 3 && status.borrow().failure.is_none());
    drop(worker);
    assert_eq!(serial_of(&redb::Redb::recover(&scratch.0).unwrap().2), 3);
    // What was recovered is not written again, and takes what comes before anything else was done.
    let (redb, image, _) = redb::Redb::recover(&scratch.0).unwrap();
    let mut worker = Worker::new(Store::Redb(redb), image, config(SyncPolicy::Always), watch::channel(Status::default()).0, now);
    worker.on_batches(vec![batch(4)], now);
    drop(worker);
    assert_eq!(serial_of(&redb::Redb::recover(&scratch.0).unwrap().2), 4);
}

#[test]
fn a_full_queue_gives_back_what_it_does_not_take() {
    // A thread that takes nothing until it is told to end.
    let (_end, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let (sender, status) = watch::channel(Status::default());
    let thread = Some(thread::spawn(move || ended.recv().unwrap_or_default()));
    let journal = Journal { queue: Arc::default(), status, thread, queue_bytes_max: 1_000, sync: SyncPolicy::Always };
    let mut serial = 0;
    let refused = loop {
        serial += 1;
        match journal.append(records(serial), serial) {
            Ok(()) => {}
            Err(AppendError::Full(refused)) => break refused,
            Err(error) => panic!("{error}"),
        }
    };
    assert!((3..10).contains(&serial) && refused == records(serial), "{serial}");
    let large = vec![entry("large", 1, vec![0; RECORD_BYTES_MAX])];
    assert!(matches!(journal.append(large.clone(), 99), Err(AppendError::Unfit(given)) if given == large));
    assert_eq!(journal.queue.take(None).0.len() as u64, serial - 1);
    journal.append(refused, serial).unwrap();

    // While the disk fails, only those are refused that wait for it.
    let failure = Arc::new(failed("write")(io::ErrorKind::StorageFull.into()));
    sender.send_modify(|status| status.failure = Some(failure));
    journal.append(records(serial), serial).unwrap();
    assert!(matches!(journal.append_durable(records(serial), serial), Err(AppendError::Failed { .. })));
    sender.send_modify(|status| status.failure = None);
    journal.append_durable(records(serial), serial).unwrap();
    let status = journal.status();
    let journal = Journal { queue: Arc::default(), status, thread: None, queue_bytes_max: 1_000, sync: SyncPolicy::Never };
    assert!(matches!(journal.append_durable(records(serial), serial), Err(AppendError::NeverSynced(_))));
    assert!(matches!(journal.append(records(serial), serial), Err(AppendError::Closed(_))));
}

#[test]
fn a_setting_outside_its_limits_is_refused_by_name() {
    let scratch = Scratch::new();
    let sync = SyncPolicy::Interval(Duration::ZERO);
    let error = Journal::open(&scratch.0, Config { sync, ..Config::default() }).unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
    let error = Journal::open(&scratch.0, Config { retry_after: Duration::ZERO, ..Config::default() }).unwrap_err();
    assert!(error.to_string().contains("retry_after"), "{error}");
}
