//! The replicated state over restarts: what stands between the driver, which never waits, and the journal.
//!
//! Once in each turn of its loop the driver hands over what the node wants written down. While the journal has no room, the node keeps the keys and is asked
//! again later; of a key that changed meanwhile the latest is enough. Whoever waits for the disk is answered when the journal says that all is durable that
//! was handed over up to then.
//!
//! Invariants: a durable write is answered with success only once all that the node held after it is on the disk; nothing here waits for the disk but the start and
//! the end. What a peer can make it store: nothing beyond the queue of the journal and one key for each entry of the replica.

#![expect(clippy::disallowed_methods, reason = "the journal is opened and closed where it may wait, and the driver reads the clock")]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_channels::Now;
use meshwork_crdt::Stamp;
use meshwork_crdt::journal::Record;
use meshwork_crdt::replica::SetError;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::journal::{AppendError, Backend, Config, Journal, OpenError, Recovered, Status, SyncPolicy};
use super::storage::{StorageError, failed};
use super::{Stopped, Verdict};
use crate::node::Node;

/// The folder of the journal within the data folder of a node.
const FOLDER: &str = "state";
/// Entries that are handed over at once.
const ENTRIES_MAX: usize = 1_024;
/// How long after the journal had no room it is asked again.
const ROOM_AGAIN: Duration = Duration::from_millis(50);
/// Durable writes that wait for the disk at once.
const WAITERS_MAX: usize = 16_384;

/// How the replicated state is kept over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Not at all: a node that starts again gets from others what reached them.
    None,
    /// In a log with snapshots. Where syncing is left to the system, each life counts under a new name, as after a crash, which makes counters longer.
    Log {
        /// When what was written is synced.
        sync: SyncPolicy,
    },
    /// In an embedded database (feature `redb`).
    #[cfg(feature = "redb")]
    Database {
        /// When what was written is synced.
        sync: SyncPolicy,
    },
}

impl Durability {
    /// A log that is synced 100 ms after a write: a guess that costs a disk at most ten syncs a second.
    pub const DEFAULT: Durability = Durability::Log { sync: SyncPolicy::Interval(Duration::from_millis(100)) };

    fn config(self) -> Option<Config> {
        match self {
            Durability::None => None,
            Durability::Log { sync } => Some(Config { backend: Backend::Files, sync, ..Config::default() }),
            #[cfg(feature = "redb")]
            Durability::Database { sync } => Some(Config { backend: Backend::Redb, sync, ..Config::default() }),
        }
    }
}

/// Why a write is not known to be durable.
#[derive(Clone, Debug)]
pub enum DurableError {
    /// The node has stopped. Whether a write that was under way was made is open.
    Stopped,
    /// The write was refused. Nothing was changed.
    Set(SetError),
    /// The node keeps its state in memory only, or leaves it to the system when it is synced. Nothing was changed.
    Off,
    /// 16,384 writes wait for the disk already. Nothing was changed.
    Busy,
    /// The disk takes nothing at present; it may be full. Nothing was changed. Reads and other writes go on.
    Unavailable(Arc<StorageError>),
    /// The disk failed after the write was made. It is visible and goes to other nodes, and it becomes durable here once the disk works again, if it does
    /// before the process ends.
    Undecided(Arc<StorageError>),
}

impl fmt::Display for DurableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurableError::Stopped => Stopped.fmt(f),
            DurableError::Set(error) => error.fmt(f),
            DurableError::Off => f.write_str("this node makes no write durable: it has no data folder, or syncing is switched off"),
            DurableError::Busy => write!(f, "{WAITERS_MAX} writes wait for the disk already; try again later"),
            DurableError::Unavailable(failure) => write!(f, "not written, because the disk fails: {failure}"),
            DurableError::Undecided(failure) => write!(f, "written, and not durable yet, because the disk fails: {failure}"),
        }
    }
}

impl std::error::Error for DurableError {}

impl From<Stopped> for DurableError {
    fn from(Stopped: Stopped) -> Self {
        DurableError::Stopped
    }
}

/// How a node fares that keeps its state over restarts.
#[derive(Clone, Debug)]
pub struct JournalReport {
    /// How the journal fares.
    pub status: Status,
    /// The last number under which something was handed to it: what [`Status::durable`] reaches once all of that is on the disk.
    pub sequence: u64,
    /// Entries that are still to be handed to it.
    pub unrecorded: usize,
    /// Durable writes that wait.
    pub waiting: usize,
}

/// Who waits for a durable write.
struct Waiter {
    stamp: Option<Stamp>,
    reply: oneshot::Sender<Verdict>,
}

/// What keeps the state of one node.
pub(super) struct Keeper {
    journal: Journal,
    status: watch::Receiver<Status>,
    sync: SyncPolicy,
    sequence: u64,
    /// Not asked again before this moment: there was no room.
    room_at: Option<Instant>,
    /// Those whose writes are not all handed over.
    behind: Vec<Waiter>,
    /// Those whose writes are handed over up to a number, in the order of the numbers.
    waiting: VecDeque<(u64, Waiter)>,
    /// Why the journal ended by itself.
    broken: Option<Arc<StorageError>>,
}

/// Opens the journal of a data folder, and reads what it holds.
///
/// Only somebody who took the end of the last life back durably may go on from it; from anybody else it is held back.
pub(super) async fn open(dir: &Path, durability: Durability) -> Result<Option<(Keeper, Vec<Record>)>, OpenError> {
    let Some(config) = durability.config() else { return Ok(None) };
    let (dir, sync) = (dir.join(FOLDER), config.sync);
    let (reply, answer) = oneshot::channel();
    let run = move || drop(reply.send(Journal::open(&dir, config)));
    std::thread::Builder::new().name("meshwork-open".into()).spawn(run).map_err(failed("start a thread that reads the state"))?;
    let ended = |_| failed("read the state")(io::Error::other("the thread that reads it ended"));
    let (journal, Recovered { mut records, torn, missing, passed_over }) = answer.await.map_err(ended)??;
    if let Some(torn) = torn {
        warn!(at = torn.at, bytes = torn.bytes, "the last life of the node ended in a crash, and what it had not synced is gone");
    }
    if let Some(name) = missing {
        warn!(
            name,
            "the log beside the snapshot is missing or empty; unless the node ended at its very first start, what was in it is gone"
        );
    }
    for name in passed_over {
        info!(name, "a snapshot that was not complete is passed over");
    }
    let mut status = journal.status();
    let mut sequence = 0;
    if records.iter().any(|record| matches!(record, Record::Ended(_))) {
        sequence = 1;
        let is_taken = journal.append(vec![Record::Begun], sequence).is_ok() && sync != SyncPolicy::Never;
        let is_durable = |status: &Status| status.durable >= sequence || status.failure.is_some();
        let is_ours = is_taken && status.wait_for(is_durable).await.is_ok_and(|status| status.failure.is_none());
        if !is_ours {
            records.retain(|record| !matches!(record, Record::Ended(_)));
        }
    }
    let keeper = Keeper { journal, status, sync, sequence, room_at: None, behind: Vec::new(), waiting: VecDeque::new(), broken: None };
    Ok(Some((keeper, records)))
}

impl Keeper {
    /// Why no write can be expected to become durable now.
    pub(super) fn refusal(&self) -> Option<DurableError> {
        match self.failure() {
            Some(failure) => Some(DurableError::Unavailable(failure)),
            None if self.sync == SyncPolicy::Never => Some(DurableError::Off),
            None if self.behind.len() + self.waiting.len() >= WAITERS_MAX => Some(DurableError::Busy),
            None => None,
        }
    }

    /// Answers once all is durable that the node holds now.
    pub(super) fn expect(&mut self, stamp: Option<Stamp>, reply: oneshot::Sender<Verdict>) {
        self.behind.push(Waiter { stamp, reply });
    }

    /// Hands over what the node wants written down, as long as there is room.
    pub(super) fn write_down(&mut self, node: &mut Node, now: Now) {
        let has_nothing = node.unrecorded() == 0 && self.behind.is_empty();
        if has_nothing || self.broken.is_some() || self.room_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.room_at = None;
        while node.unrecorded() > 0 {
            match self.journal.append(node.records(ENTRIES_MAX, now), self.sequence + 1) {
                Ok(()) => self.sequence += 1,
                Err(AppendError::Full(records)) => {
                    node.give_back(&records);
                    self.room_at = Some(Instant::now() + ROOM_AGAIN);
                    return;
                }
                Err(error) => {
                    warn!(%error, "the state is not kept any more");
                    self.broken = Some(Arc::new(failed("write the state down")(io::Error::other(error.to_string()))));
                    return self.settle();
                }
            }
        }
        let sequence = self.sequence;
        self.waiting.extend(self.behind.drain(..).map(|waiter| (sequence, waiter)));
        // It may be durable already, when there was nothing new.
        self.settle();
    }

    /// When to hand over what found no room.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.room_at.filter(|_| self.broken.is_none())
    }

    /// Returns when the journal says something new while somebody waits for that.
    pub(super) async fn spoke(keeper: &mut Option<Keeper>) {
        match keeper {
            // Of its end `settle` takes note.
            Some(keeper) if !keeper.waiting.is_empty() || !keeper.behind.is_empty() => drop(keeper.status.changed().await),
            _ => std::future::pending().await,
        }
    }

    /// Answers those whose writes are durable, and all when the disk fails.
    pub(super) fn settle(&mut self) {
        if self.status.has_changed().is_err() && self.broken.is_none() {
            self.broken = Some(Arc::new(failed("write the state down")(io::Error::other("the thread of the journal ended"))));
        }
        let durable = self.status.borrow_and_update().durable;
        while let Some((_, Waiter { stamp, reply })) = self.waiting.pop_front_if(|(sequence, _)| *sequence <= durable) {
            // Whoever asked may have gone away.
            let _ = reply.send(Ok(stamp));
        }
        if let Some(failure) = self.failure() {
            let waiting = self.waiting.drain(..).map(|(_, waiter)| waiter);
            for waiter in waiting.chain(self.behind.drain(..)) {
                let _ = waiter.reply.send(Err(DurableError::Undecided(failure.clone())));
            }
        }
    }

    /// How the journal fares: what it is, and a way to wait for changes.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    pub(super) fn report(&self, unrecorded: usize) -> JournalReport {
        let mut status = self.status.borrow().clone();
        status.failure = self.failure();
        JournalReport { status, sequence: self.sequence, unrecorded, waiting: self.behind.len() + self.waiting.len() }
    }

    /// Writes down the rest and that this is the end, and waits for the disk.
    pub(super) async fn close(mut self, node: &mut Node, now: Now) {
        let mut records = node.records(usize::MAX, now);
        records.push(node.ended());
        let (journal, sequence) = (self.journal, self.sequence + 1);
        let closed = tokio::task::spawn_blocking(move || journal.close_with(records, sequence)).await;
        let ended = |_| Err(Arc::new(failed("end the journal")(io::Error::other("its thread panicked"))));
        let closed = closed.unwrap_or_else(ended);
        if let Err(failure) = &closed {
            warn!(%failure, "the last writes are not on the disk");
        }
        for Waiter { stamp, reply } in self.waiting.drain(..).map(|(_, waiter)| waiter).chain(self.behind.drain(..)) {
            let _ = reply.send(closed.clone().map(|_| stamp).map_err(DurableError::Undecided));
        }
    }

    fn failure(&self) -> Option<Arc<StorageError>> {
        self.broken.clone().or_else(|| self.status.borrow().failure.clone())
    }
}
