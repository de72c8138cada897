//! What the thread of a journal decides: when to sync, when to begin a new snapshot, when to try again. It is told the time.
//!
//! Invariants: [`Status::durable`] never passes what was synced; after an error no file that was open then is written again.

use std::sync::Arc;
use std::time::Instant;

use meshwork_crdt::journal::{Image, Record};
use tokio::sync::watch;

use super::files::Files;
#[cfg(feature = "redb")]
use super::redb::Redb;
use super::{Batch, Config, Status, SyncPolicy};
use crate::runtime::storage::StorageError;

/// A back-end that is open.
#[derive(Debug)]
pub(super) enum Store {
    Files(Files),
    #[cfg(feature = "redb")]
    Redb(Redb),
}

impl Store {
    /// Begins anew, durably, with all of `image`. What was open and may have failed is not used again.
    fn begin(&mut self, image: &Image) -> Result<(), StorageError> {
        match self {
            Store::Files(files) => files.begin(image),
            #[cfg(feature = "redb")]
            Store::Redb(redb) => redb.begin(image),
        }
    }

    fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), StorageError> {
        match self {
            Store::Files(files) => files.append(records),
            #[cfg(feature = "redb")]
            Store::Redb(redb) => redb.append(records),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        match self {
            Store::Files(files) => files.sync(),
            #[cfg(feature = "redb")]
            Store::Redb(redb) => redb.sync(),
        }
    }

    /// Gives up what is open: it failed.
    fn abandon(&mut self) {
        match self {
            Store::Files(files) => files.abandon(),
            #[cfg(feature = "redb")]
            Store::Redb(redb) => redb.abandon(),
        }
    }

    /// Makes all durable, and that it is all.
    fn close(&mut self) -> Result<(), StorageError> {
        match self {
            Store::Files(files) => files.close(),
            #[cfg(feature = "redb")]
            Store::Redb(redb) => redb.sync(),
        }
    }

    /// Bytes that a new snapshot would make superfluous.
    fn log_bytes(&self) -> u64 {
        match self {
            Store::Files(files) => files.log_bytes(),
            #[cfg(feature = "redb")]
            Store::Redb(_) => 0,
        }
    }
}

pub(super) struct Worker {
    store: Store,
    image: Image,
    config: Config,
    /// The last sequence that is in the image.
    sequence: u64,
    /// When to begin anew, while nothing is open: from the start, and after each error.
    begin_at: Option<Instant>,
    /// When to sync what was written.
    sync_at: Option<Instant>,
    status: watch::Sender<Status>,
}

impl Worker {
    pub(super) fn new(store: Store, image: Image, config: Config, status: watch::Sender<Status>, now: Instant) -> Self {
        Worker { store, image, config, sequence: 0, begin_at: Some(now), sync_at: None, status }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.begin_at.into_iter().chain(self.sync_at).min()
    }

    pub(super) fn on_batches(&mut self, batches: Vec<Batch>, now: Instant) {
        if batches.is_empty() {
            return;
        }
        // A database that was recovered is as old as the image was then, so it is begun before anything is added.
        if self.begin_at.is_some_and(|at| at <= now) {
            self.begin(now);
        }
        let is_open = self.begin_at.is_none();
        let records = batches.iter().flat_map(|batch| &batch.records);
        let count = records.clone().count() as u64;
        // Whoever goes on from the end of an earlier life waits for this before the node starts.
        let is_begun = records.clone().any(|record| matches!(record, Record::Begun));
        let written = if is_open { self.store.append(records) } else { Ok(()) };
        for Batch { records, sequence } in batches {
            self.sequence = self.sequence.max(sequence);
            records.into_iter().for_each(|record| self.image.apply(record));
        }
        self.status.send_modify(|status| {
            status.counters.records += count;
            status.counters.writes += u64::from(is_open);
        });
        match (written, self.config.sync) {
            (Err(error), _) => self.fail(error, now),
            _ if !is_open => {}
            (Ok(()), SyncPolicy::Always) => self.sync(now),
            (Ok(()), SyncPolicy::Interval(_)) if is_begun => self.sync(now),
            (Ok(()), SyncPolicy::Interval(interval)) => self.sync_at = self.sync_at.or(Some(now + interval)),
            (Ok(()), SyncPolicy::Never) => {}
        }
        if self.begin_at.is_none() && self.store.log_bytes() > self.config.log_bytes_min.max(2 * self.image.bytes() as u64) {
            self.begin(now);
        }
    }

    pub(super) fn on_due(&mut self, now: Instant) {
        if self.begin_at.is_some_and(|at| at <= now) {
            self.begin(now);
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync(now);
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        if self.begin_at.is_some() {
            self.begin(now);
        }
        if self.begin_at.is_none() {
            let closed = self.store.close();
            self.synced(closed, now);
        }
    }

    fn begin(&mut self, now: Instant) {
        (self.begin_at, self.sync_at) = (None, None);
        if let Err(error) = self.store.begin(&self.image) {
            return self.fail(error, now);
        }
        self.status.send_modify(|status| {
            if status.failure.take().is_some() {
                tracing::info!("the state is durable again");
            }
            status.durable = self.sequence;
            status.counters.snapshots += 1;
        });
    }

    fn sync(&mut self, now: Instant) {
        let synced = self.store.sync();
        self.synced(synced, now);
    }

    fn synced(&mut self, synced: Result<(), StorageError>, now: Instant) {
        self.sync_at = None;
        match synced {
            Ok(()) => self.status.send_modify(|status| {
                status.durable = self.sequence;
                status.counters.syncs += 1;
            }),
            Err(error) => self.fail(error, now),
        }
    }

    pub(super) fn fail(&mut self, error: StorageError, now: Instant) {
        tracing::warn!(%error, "the state is not durable");
        self.store.abandon();
        (self.begin_at, self.sync_at) = (Some(now + self.config.retry_after), None);
        self.status.send_modify(|status| {
            status.failure = Some(Arc::new(error));
            status.counters.failures += 1;
        });
    }
}
