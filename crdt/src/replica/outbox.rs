//! What was written here and not yet broadcast: writes that follow each other closely share a delta, and writes of one key become one.

use std::collections::BTreeMap;

use meshwork_channels::{Bounded, PeerId, Time, encode};

use crate::hlc::Stamp;
use crate::key::Key;
use crate::store::Store;
use crate::value::Step;
use crate::wire::{Body, Delta, FRAME_BUDGET_BYTES, WRITES_MAX, Write, entry_bytes_max};

/// What is to be told of a key.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) stamp: Stamp,
    /// What was done since the last broadcast; `None` where all that the key holds is to be told.
    pub(super) step: Option<Step>,
}

/// Keys with what is to be told of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    pending: BTreeMap<Key, Pending>,
    /// When the last delta left.
    pub(super) flushed_at: Option<Time>,
    /// When the next one is due.
    pub(super) flush_at: Option<Time>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn push(&mut self, key: Key, new: Pending) {
        let step = match self.pending.remove(&key) {
            None => new.step,
            Some(Pending { step, .. }) => step.zip(new.step).and_then(|(step, later)| step.then(later)),
        };
        self.pending.insert(key, Pending { stamp: new.stamp, step });
    }

    /// Takes as much as one delta carries; `None` when nothing is left. Steps of more than `value_bytes_max` are told by all that the key holds.
    pub(super) fn next_delta(&mut self, store: &Store, me: PeerId, value_bytes_max: usize) -> Option<Delta> {
        let mut writes = Bounded::<Write, WRITES_MAX>::new();
        let mut bytes = 0;
        while let Some((key, pending)) = self.pending.pop_first() {
            let Some(held) = store.get(&key) else { continue };
            let step = pending.step.as_ref().map(|step| (step, encode(step).len())).filter(|(_, len)| *len <= value_bytes_max);
            let (stamp, len, body) = match (held.is_typed(), step) {
                (true, Some((step, len))) => (pending.stamp, len, Body::Step(Box::new(step.clone()))),
                (true, None) => (pending.stamp, held.encoded_len(), held.body()),
                (false, _) if *held.marker.origin == me => (held.marker.stamp, held.encoded_len(), held.body()),
                // Overwritten from elsewhere since: that write has its own broadcast.
                (false, _) => continue,
            };
            bytes += entry_bytes_max(key.len(), len);
            if writes.len() == WRITES_MAX || bytes > FRAME_BUDGET_BYTES {
                self.pending.insert(key, pending);
                break;
            }
            writes.push(Write { key, stamp, body }).expect("the length was checked above");
        }
        (!writes.is_empty()).then_some(Delta::Writes(writes))
    }
}
