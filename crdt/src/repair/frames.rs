//! Entries on their way to a neighbor, how many frames it may ask for, and how many forgeries it may bring.

use std::collections::BTreeSet;
use std::time::Duration;

use meshwork_channels::{Bounded, PeerId, Time};

use super::{Repair, Turn};
use crate::key::Key;
use crate::store::Held;
use crate::wire::packed::{ORIGIN_BYTES, bytes_max};
use crate::wire::{ENTRIES_MAX, Entry, FRAME_BUDGET_BYTES, Message};

/// How long an allowance takes to fill up again.
const ALLOWANCE: Duration = Duration::from_secs(4);
/// How many signatures that do not hold a peer can make this replica verify in a second in the long run: two milliseconds of its time. Honest peers verify what they hand on.
const FORGERIES_PER_SECOND: u32 = 16;

/// Entries packed into a bounded number of frames.
pub(super) struct Frames {
    frames: Vec<Bounded<Entry, ENTRIES_MAX>>,
    frames_max: usize,
    /// Entries of one frame.
    entries_max: usize,
    /// Bytes of the last frame, and the origins that it names.
    bytes: usize,
    origins: BTreeSet<PeerId>,
}

impl Frames {
    pub(super) fn new(frames_max: usize) -> Self {
        Frames { frames: Vec::new(), frames_max, entries_max: ENTRIES_MAX, bytes: 0, origins: BTreeSet::new() }
    }

    /// Room for one entry.
    pub(super) fn of_one_entry() -> Self {
        Frames { entries_max: 1, ..Self::new(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds an entry, or says that there is no room.
    pub(super) fn push(&mut self, key: &Key, held: &Held) -> bool {
        let mut bytes = bytes_max(key.len(), held.encoded_len());
        if !self.origins.contains(&*held.marker.origin) {
            bytes += ORIGIN_BYTES;
        }
        if self.frames.last().is_none_or(|frame| frame.len() == self.entries_max || self.bytes + bytes > FRAME_BUDGET_BYTES) {
            if self.frames.len() == self.frames_max {
                return false;
            }
            self.frames.push(Bounded::new());
            (self.bytes, bytes) = (0, bytes_max(key.len(), held.encoded_len()) + ORIGIN_BYTES);
            self.origins.clear();
        }
        self.bytes += bytes;
        self.origins.insert(*held.marker.origin);
        let entry = Entry { key: key.clone(), stamp: held.marker.stamp, origin: *held.marker.origin, body: held.body() };
        self.frames.last_mut().is_some_and(|frame| frame.push(entry).is_ok())
    }

    pub(super) fn send(self, to: PeerId, turn: &mut Turn<'_>) {
        for entries in self.frames {
            turn.counters.entries_sent += entries.len() as u64;
            turn.send(to, Message::Entries { entries });
        }
    }
}

/// What a peer may still ask for, as the moment until which its share is used up (the leaky bucket as a virtual schedule: ITU-T I.371,
/// annex A).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    used_until: Time,
    /// The same for forgeries.
    forged_until: Time,
}

impl Allowance {
    pub(super) fn is_left(&self, now: Time) -> bool {
        self.used_until <= now + ALLOWANCE
    }

    pub(super) fn charge(&mut self, frames: usize, per_second: u32, now: Time) {
        self.used_until = self.used_until.max(now) + Duration::from_secs(1) / per_second * u32::try_from(frames).unwrap_or(u32::MAX);
    }
}

impl Repair {
    /// Whether what a peer hands on is worth a verification.
    pub(crate) fn is_believed(&mut self, peer: PeerId, now: Time) -> bool {
        self.allowance(peer).forged_until <= now + ALLOWANCE
    }

    /// A signature did not hold.
    pub(crate) fn believe_less(&mut self, peer: PeerId, now: Time) {
        let allowance = self.allowance(peer);
        allowance.forged_until = allowance.forged_until.max(now) + Duration::from_secs(1) / FORGERIES_PER_SECOND;
    }
}
