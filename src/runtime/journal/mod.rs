//! The replicated state on disk: every record that is reported as durable is there after a crash at any moment.
//!
//! A [`Journal`] has a thread of its own. [`Journal::append`] puts records into a bounded queue and never waits; the thread writes what has
//! come together meanwhile, syncs once for all of it, and says up to which sequence everything is durable ([`Status::durable`]). Records,
//! and what of a broken file is a crash's trace and what is damage: [`meshwork_crdt::journal`].
//!
//! | file | what |
//! |---|---|
//! | `worker` | what the thread decides: when to sync, to begin a new snapshot, to try again |
//! | `files` | the back-end of a log and snapshots |
//! | `redb` | the back-end of an embedded database (feature `redb`) |
//! | `disk` | the operations on files, which the tests make fail |
//!
//! The folder holds `lock`, and `snapshot-N` with `log-N`. A snapshot is written under another name, synced and renamed; then its log
//! begins; then what is older is removed. So one pair is enough at every moment, and a log is never continued by another life or after an error.
//! Every life begins with a snapshot, which also tells whether the disk can be written.
//!
//! After an error, and above all after a failed sync, the file that it hit is never written or synced again: the system may have dropped
//! what it could not write, and would call the next sync a success (Rebello et al., "Can Applications Recover from fsync Failures?",
//! USENIX ATC 2020). The journal keeps taking records into memory, says [`Status::failure`], refuses [`Journal::append_durable`], and tries
//! again with a snapshot in new files.
//!
//! Memory: the queue, at most twice [`Config::queue_bytes_max`] and a batch; an image of all entries, which shares keys and registers with the
//! replica and is bounded by it; one file while the journal is opened. Peers choose what entries hold, but not how many the replica takes.

#![expect(clippy::disallowed_methods, reason = "the journal has a thread and reads the clock for it")]

mod disk;
#[cfg(test)]
mod faults;
mod files;
#[cfg(feature = "redb")]
mod redb;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use meshwork_channels::error::ConfigError;
use meshwork_crdt::journal::{Damage, Fault, HeadError, Image, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::storage::{self, StorageError, failed};
use disk::Disk;
use files::Files;
use worker::{Store, Worker};

/// What a batch costs in the queue beside its records.
const BATCH_BYTES: usize = 64;

/// How a journal keeps what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What holds the records. Default: [`Backend::Files`].
    pub backend: Backend,
    /// When what was written is synced. Default: [`SyncPolicy::Always`], the one that promises what people expect.
    pub sync: SyncPolicy,
    /// Bytes of a log below which no new snapshot begins, however small the state is. Raising it writes fewer snapshots and reads more at
    /// the start. A log may always grow to twice the bytes of the entries as well. Default 4 MiB: a guess, read in some 10 ms.
    pub log_bytes_min: u64,
    /// Bytes of records that wait for the thread. Raising it bridges longer snapshots and stalls of the disk, and takes as much memory.
    /// Default 16 MiB: a guess, a quarter of the largest state.
    pub queue_bytes_max: usize,
    /// How long after an error the journal tries again. Lowering it comes back sooner and writes more in vain: on a full disk each attempt writes until
    /// the room ends. Default 5 s: a guess.
    pub retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            backend: Backend::Files,
            sync: SyncPolicy::Always,
            log_bytes_min: 4 * 1_024 * 1_024,
            queue_bytes_max: 16 * 1_024 * 1_024,
            retry_after: Duration::from_secs(5),
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        let (milli, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        let limits = format_args!("{milli:?} to {minute:?}");
        match self.sync {
            SyncPolicy::Interval(interval) if !(milli..=minute).contains(&interval) => {
                return Err(ConfigError::new("sync", format_args!("{interval:?}"), limits));
            }
            _ => {}
        }
        if !(milli..=minute).contains(&self.retry_after) {
            return Err(ConfigError::new("retry_after", format_args!("{:?}", self.retry_after), limits));
        }
        Ok(())
    }
}

/// What holds the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// A snapshot and a log.
    Files,
    /// The embedded database `redb`: no snapshots and less to read into memory at the start, and more bytes written for each record.
    #[cfg(feature = "redb")]
    Redb,
}

/// When what was written is synced. Snapshots always are, because they replace what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncPolicy {
    /// At once, once for all that came together. Nothing that was reported durable is lost.
    Always,
    /// So long after the first write that is not synced; 1 ms to 60 s. What asks for durability waits for it. Fewer syncs under load.
    Interval(Duration),
    /// When the system likes. Only snapshots and the end of the journal make anything durable, so [`Journal::append_durable`] is refused.
    /// A crash of the process loses nothing that was written; one of the system may lose all since the last snapshot.
    Never,
}

/// How the journal fares. The latest is what counts: one that nobody looked at in between is replaced.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// All records of appends up to this sequence are on the disk, or newer ones of the same keys.
    pub durable: u64,
    /// Why nothing becomes durable at present. Records that were appended but are not durable stay in memory until the journal recovers.
    pub failure: Option<Arc<StorageError>>,
    /// What the journal did so far.
    pub counters: Counters,
}

/// What a journal did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records taken from the queue.
    pub records: u64,
    /// Turns of writing: less than appends when several came together.
    pub writes: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Snapshots, or with a database that it was opened.
    pub snapshots: u64,
    /// Errors of the disk.
    pub failures: u64,
}

/// What a journal held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The fewest records that amount to what was appended: the latest of each key, the highest clock and reservation.
    pub records: Vec<Record>,
    /// The end of the log, if a crash broke it. It was not durable.
    pub torn: Option<Torn>,
    /// The log that should continue the snapshot and is not there, or has nothing in it. Either a crash came in the moment between the first snapshot and its log, or what was in it is lost.
    pub missing: Option<String>,
    /// Snapshots that were not complete but had not replaced their predecessor yet, whose names are told for the log.
    pub passed_over: Vec<String>,
}

/// What a crash left at the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The offset of the first byte that is not part of a whole record.
    pub at: u64,
    /// What is wrong there.
    pub why: Fault,
    /// Bytes from there on, which are not read.
    pub bytes: u64,
    /// Whole records among them.
    pub behind: u64,
}

/// Why a journal was not opened. Its files are as they were.
#[derive(Debug)]
pub enum OpenError {
    /// A setting is outside its limits.
    Config(ConfigError),
    /// The folder or a file cannot be used; another node using it is one reason.
    Storage(StorageError),
    /// A file lacks what was reported as durable. Whoever can do without it moves the folder away and starts with none: other nodes hold
    /// the entries that reached them, but the reserved numbers and the clock are gone.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Damaged,
    },
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// It does not begin as it should, or belongs to another version.
    Head(HeadError),
    /// It is a file of another name.
    Misnamed,
    /// It is broken where it was synced.
    Content(Damage),
    /// It is a log with records whose snapshot is not there.
    Alone,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Config(error) => error.fmt(f),
            OpenError::Storage(error) => error.fmt(f),
            OpenError::Damaged { path, why } => {
                write!(f, "cannot use {}: ", path.display())?;
                match why {
                    Damaged::Head(error) => error.fmt(f),
                    Damaged::Misnamed => f.write_str("it was written under another name"),
                    Damaged::Content(damage) => damage.fmt(f),
                    Damaged::Alone => f.write_str("the snapshot that it continues is missing"),
                }
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        OpenError::Storage(error)
    }
}

/// Why records were not appended. None of them was.
#[derive(Debug)]
pub enum AppendError {
    /// A record does not [fit](Record::fits): its value is larger than any that a replica takes, or only a part of what the key holds.
    Unfit(Vec<Record>),
    /// Too much waits for the disk. What was refused can be offered again later; of each key its latest entry is enough.
    Full(Vec<Record>),
    /// Nothing can become durable at present. Only [`Journal::append_durable`] says this.
    Failed {
        /// The records.
        records: Vec<Record>,
        /// Why not.
        failure: Arc<StorageError>,
    },
    /// Nothing becomes durable by [`SyncPolicy::Never`]. Only [`Journal::append_durable`] says this.
    NeverSynced(Vec<Record>),
    /// The thread has ended.
    Closed(Vec<Record>),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Unfit(_) => f.write_str("a record is too large, or a part of one"),
            AppendError::Full(_) => f.write_str("too much waits for the disk"),
            AppendError::Failed { failure, .. } => write!(f, "nothing can be made durable now: {failure}"),
            AppendError::NeverSynced(_) => f.write_str("nothing is made durable, because syncing is switched off"),
            AppendError::Closed(_) => f.write_str("the journal has ended"),
        }
    }
}

impl std::error::Error for AppendError {}

/// The journal of one replica. Dropping it ends it as [`Journal::close`] does, but without waiting.
///
/// ```
/// # use meshwork::crdt::journal::{Record, Reserved};
/// # use meshwork::runtime::journal::{Config, Journal};
/// # let dir = std::env::temp_dir().join(format!("meshwork-journal-example-{}", std::process::id()));
/// let record = Record::Reserved(Reserved { incarnation: 1, sequence: 100 });
/// let (journal, recovered) = Journal::open(&dir, Config::default())?;
/// assert!(recovered.records.is_empty());
/// journal.append(vec![record.clone()], 1)?;
/// assert_eq!(journal.close()?, 1);
///
/// let (journal, recovered) = Journal::open(&dir, Config::default())?;
/// assert_eq!(recovered.records, [record]);
/// # journal.close()?;
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    status: watch::Receiver<Status>,
    thread: Option<JoinHandle<()>>,
    queue_bytes_max: usize,
    sync: SyncPolicy,
}

impl Journal {
    /// Opens the journal in a folder, which is made if it is missing and belongs to this journal alone, and reads what it holds. This waits
    /// for the disk.
    ///
    /// # Errors
    ///
    /// An [`OpenError`]. A disk that can be read but not written, such as a full one, is none: that is told by [`Status::failure`].
    pub fn open(dir: &Path, config: Config) -> Result<(Self, Recovered), OpenError> {
        config.check().map_err(OpenError::Config)?;
        let lock = storage::lock_dir(dir)?;
        disk::sync_parents(dir)?;
        let (store, image, recovered) = recover(dir, config.backend)?;
        let (queue, (sender, status)) = (Arc::new(Queue::default()), watch::channel(Status::default()));
        let (queue_bytes_max, sync) = (config.queue_bytes_max, config.sync);
        let mut worker = Worker::new(store, image, config, sender, Instant::now());
        let taken = Arc::clone(&queue);
        let run = move || {
            let _lock = lock;
            loop {
                let (batches, is_closing) = taken.take(worker.next_deadline());
                worker.on_batches(batches, Instant::now());
                worker.on_due(Instant::now());
                if is_closing {
                    break worker.close(Instant::now());
                }
            }
        };
        let thread =
            thread::Builder::new().name("meshwork-journal".into()).spawn(run).map_err(failed("start the thread of the journal"))?;
        Ok((Journal { queue, status, thread: Some(thread), queue_bytes_max, sync }, recovered))
    }

    /// Hands records to the journal, in the order in which the replica took them; never waits. `sequence` counts what is appended and never goes back: once
    /// [`Status::durable`] reaches it, the records are durable. They are taken also while the disk fails, and become durable once it
    /// works again.
    ///
    /// # Errors
    ///
    /// [`AppendError::Unfit`], [`AppendError::Full`] or [`AppendError::Closed`], with the records.
    pub fn append(&self, records: Vec<Record>, sequence: u64) -> Result<(), AppendError> {
        if !records.iter().all(Record::fits) {
            return Err(AppendError::Unfit(records));
        }
        let bytes = BATCH_BYTES + records.iter().map(Record::bytes_max).sum::<usize>();
        let mut waiting = self.queue.lock();
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(AppendError::Closed(records));
        }
        // Whoever offers more than all the room at once holds it in memory already, and would never get rid of it otherwise.
        if !waiting.batches.is_empty() && waiting.bytes + bytes > self.queue_bytes_max {
            return Err(AppendError::Full(records));
        }
        waiting.bytes += bytes;
        waiting.batches.push(Batch { records, sequence });
        drop(waiting);
        self.queue.wake.notify_one();
        Ok(())
    }

    /// As [`Journal::append`], for somebody who waits until the records are durable: refused when that cannot be expected. Should the disk
    /// fail after that, [`Status::failure`] says so before the sequence is durable, and the outcome is open: it becomes durable if the disk
    /// works again before the process ends.
    ///
    /// # Errors
    ///
    /// An [`AppendError`], with the records.
    pub fn append_durable(&self, records: Vec<Record>, sequence: u64) -> Result<(), AppendError> {
        let failure = self.status.borrow().failure.clone();
        match failure {
            Some(failure) => Err(AppendError::Failed { records, failure }),
            None if self.sync == SyncPolicy::Never => Err(AppendError::NeverSynced(records)),
            None => self.append(records, sequence),
        }
    }

    /// How the journal fares: what it is, and a way to wait for changes. It is closed when the thread ends.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Makes everything durable whatever the policy, ends the thread, and frees the folder; waits for the disk. Returns the last sequence
    /// that is durable.
    ///
    /// # Errors
    ///
    /// The failure that kept the last records from becoming durable.
    pub fn close(self) -> Result<u64, Arc<StorageError>> {
        self.close_with(Vec::new(), 0)
    }

    /// As [`Journal::close`], with last records, which are taken however much waits already.
    ///
    /// # Errors
    ///
    /// As [`Journal::close`].
    ///
    /// # Panics
    ///
    /// When a record does not [fit](Record::fits).
    pub fn close_with(mut self, records: Vec<Record>, sequence: u64) -> Result<u64, Arc<StorageError>> {
        assert!(records.iter().all(Record::fits), "a replica holds nothing that does not fit");
        if !records.is_empty() {
            self.queue.lock().batches.push(Batch { records, sequence });
        }
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(Arc::new(failed("end the journal")(std::io::Error::other("its thread panicked"))));
        }
        let status = self.status.borrow();
        status.failure.clone().map_or(Ok(status.durable), Err)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Opens what holds the records, and reads it.
fn recover(dir: &Path, backend: Backend) -> Result<(Store, Image, Recovered), OpenError> {
    match backend {
        Backend::Files => Files::recover(Disk::new(dir)).map(|(files, image, recovered)| (Store::Files(files), image, recovered)),
        #[cfg(feature = "redb")]
        Backend::Redb => redb::Redb::recover(dir).map(|(redb, image, recovered)| (Store::Redb(redb), image, recovered)),
    }
}

/// Records that were appended together.
#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    sequence: u64,
}

/// What waits for the thread.
#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<Batch>,
    bytes: usize,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Queue {
    /// The lock is held for a few moves only. Whoever panicked meanwhile left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closing = true;
        self.wake.notify_one();
    }

    /// Waits for batches, the end, or the deadline, and takes everything.
    fn take(&self, deadline: Option<Instant>) -> (Vec<Batch>, bool) {
        let mut waiting = self.lock();
        while waiting.batches.is_empty() && !waiting.is_closing {
            waiting = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => self.wake.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
        waiting.bytes = 0;
        (std::mem::take(&mut waiting.batches), waiting.is_closing)
    }
}
