//! What a replica wants written down, and how it goes on from that in its next life.
//!
//! A replica that was [restored](State::restore), from nothing if need be, notes the key of every entry that it takes, also of those that nobody
//! can read, and the highest stamp that may have been given out. Whoever owns the [journal](crate::journal) fetches both as records whenever there is
//! room for them: of a key that changed again meanwhile the latest entry is enough. A replica that lives in memory only notes nothing.
//!
//! Three decisions need their reasons:
//!
//! 1. Stamps are reserved a little ahead, so that the clock goes on behind what was told to others and not yet on the disk, even if the wall clock was set
//!    back. The reservation is short, because after a crash the next stamp is that far ahead, and others must take it. A write after a longer
//!    pause that a crash keeps from the disk is therefore not covered; the wall clock must be set back as well for that to matter, and what others
//!    hold mends it.
//! 2. Steps of counters and sets are told to others before they are on the disk, so a crash may lose the last ones. Whoever went on under the same
//!    [`Actor`] would give their numbers to others, and one of both would be lost. So the name is kept only by [`Record::Ended`], which is written behind
//!    everything else, and which whoever goes on takes back durably ([`Record::Begun`]) before its first step. After a crash there is a new name.
//! 3. Others forget a removal once we told them that we hold it, so they are told what was handed to the journal long enough ago to be on the disk. While the
//!    disk fails, nothing more is told, and all keep their tombstones: what is on it would bring back what they forgot.
//!
//! What a peer can make this store: one key for each entry of the replica.

use std::collections::BTreeSet;
use std::time::Duration;

use meshwork_channels::Now;

use super::State;
use crate::floor::second_of;
use crate::hlc::Stamp;
use crate::journal::{Collected, Ended, Record};
use crate::key::Key;
use crate::store::Merged;
use crate::value::Step;
use crate::wire::{self, Body};

/// How far ahead of the wall clock stamps are reserved, unless half of what others take is less: more than the minute in which a journal syncs at the latest
/// would serve nobody.
const RESERVED_MAX: Duration = Duration::from_secs(60);

/// What is to be written down.
#[derive(Clone, Debug, Default)]
pub(super) struct Unrecorded {
    keys: BTreeSet<Key>,
    /// Stamps up to this one are reserved.
    reserved: Stamp,
    /// How far collection had come when that was last told.
    collected: Collected,
}

impl Unrecorded {
    pub(super) fn note(&mut self, key: &Key) {
        if !self.keys.contains(key) {
            self.keys.insert(key.clone());
        }
    }
}

/// What a replica began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Entries that it holds again, tombstones included.
    pub entries: usize,
    /// Entries that do not fit within the bounds, which must have been higher before, or are not signed as they must be now. Nothing removes them from where they came from.
    pub refused: usize,
    /// Whether it goes on under the name under which it counted before.
    pub is_continued: bool,
}

impl State {
    /// Takes what an earlier life wrote down, and notes from now on what is to be written down. For a replica that has seen nothing yet. Stamps are not
    /// judged: they were when the entries came. What expired meanwhile is not there any more.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>, now: Now) -> Restored {
        assert!(self.store.keys() == 0 && self.counters == super::Counters::default(), "only a new replica is restored");
        let (mut restored, mut reserved, mut ended) = (Restored::default(), Stamp::ZERO, None);
        let mut collected = Collected::default();
        for record in records {
            match record {
                Record::Entry(entry) => match self.hold(entry) {
                    true => restored.entries += 1,
                    false => restored.refused += 1,
                },
                Record::Clock(stamp) => reserved = reserved.max(stamp),
                Record::Ended(end) => ended = Some(end),
                Record::Begun => ended = None,
                Record::Collected(position) => collected = position,
                // Of what is forgotten nothing is there, and no number is counted here.
                Record::Forgotten(_) | Record::Reserved(_) => {}
            }
        }
        match ended {
            Some(Ended { actor, clock }) => {
                self.actor = actor;
                self.clock.resume(clock);
            }
            None => self.clock.resume(reserved),
        }
        restored.is_continued = ended.is_some();
        self.repair.floor_mut().resume(collected);
        self.written_at = self.clock.last();
        self.unrecorded = Some(Box::new(Unrecorded { collected, ..Unrecorded::default() }));
        while let Some((key, _)) = self.store.expire_next(self.repair.second(now)) {
            self.note(&key);
        }
        self.await_expiry(now);
        self.check();
        restored
    }

    /// Takes an entry of an earlier life, if it fits. Its signature was verified when it came, and whoever can change the disk has the key of this node as well.
    fn hold(&mut self, wire::Entry { key, stamp, origin, body }: wire::Entry) -> bool {
        if matches!(&body, Body::Step(step) if !matches!(**step, Step::Whole(_)) || !step.is_sound()) {
            return false;
        }
        if self.signing_of(&key).is_some() != matches!(body, Body::Signed(_)) {
            return false;
        }
        let Ok(Some(held)) = self.store.joined(&key, stamp, origin, &body) else { return false };
        self.clock.resume(held.latest());
        self.store.replace(key, held) != Merged::Refused
    }

    /// All that a key holds, a tombstone included.
    pub fn entry_of(&self, key: &Key) -> Option<wire::Entry> {
        let held = self.store.get(key)?;
        Some(wire::Entry { key: key.clone(), stamp: held.marker.stamp, origin: *held.marker.origin, body: held.body() })
    }

    /// How many entries are to be written down.
    pub fn unrecorded(&self) -> usize {
        let collected = usize::from(self.collected_since().is_some());
        self.unrecorded.as_ref().map_or(0, |unrecorded| unrecorded.keys.len() + collected)
    }

    /// How far collection has come, if that is to be written down: of what others hold only where something was written here that they did not.
    fn collected_since(&self) -> Option<Collected> {
        let told = self.unrecorded.as_ref()?.collected;
        let now = self.repair.floor().position();
        let written = second_of(self.written_at);
        let is_news =
            (now.floor, now.complete) != (told.floor, told.complete) || (told.acknowledged <= written && now.acknowledged > written);
        is_news.then_some(now)
    }

    /// What is to be written down, of so many entries at most: each is told once, unless it changes again or is given back.
    pub fn records(&mut self, entries_max: usize, now: Now) -> Vec<Record> {
        let ahead = RESERVED_MAX.min(self.config.stamp_ahead_max / 2);
        let wall = self.wall(now);
        let (least, reservation) = (self.clock.reservation(wall, ahead / 2, 0), self.clock.reservation(wall, ahead, 1));
        let (collected, second) = (self.collected_since(), self.repair.second(now));
        let Some(unrecorded) = &mut self.unrecorded else { return Vec::new() };
        let mut keys = std::mem::take(&mut unrecorded.keys);
        let mut records = Vec::new();
        if unrecorded.reserved < least && !keys.is_empty() {
            unrecorded.reserved = reservation;
            records.push(Record::Clock(reservation));
        }
        for _ in 0..entries_max {
            let Some(key) = keys.pop_first() else { break };
            records.push(self.entry_of(&key).map_or(Record::Forgotten(key), Record::Entry));
        }
        if let Some(unrecorded) = &mut self.unrecorded {
            // It rests on what was written down before.
            if let Some(collected) = collected.filter(|_| keys.is_empty()) {
                unrecorded.collected = collected;
                records.push(Record::Collected(collected));
                self.repair.floor_mut().write_down(second);
            }
            unrecorded.keys = keys;
        }
        records
    }

    /// Takes records back for which there was no room.
    pub fn give_back(&mut self, records: &[Record]) {
        let Some(unrecorded) = &mut self.unrecorded else { return };
        for record in records {
            match record {
                Record::Entry(entry) => unrecorded.note(&entry.key),
                Record::Forgotten(key) => unrecorded.note(key),
                Record::Collected(_) => {
                    unrecorded.collected = Collected::default();
                    self.repair.floor_mut().give_back();
                }
                Record::Clock(_) => unrecorded.reserved = Stamp::ZERO,
                _ => {}
            }
        }
    }

    /// The last record of a life, behind all others. Nothing may be done with the replica after it.
    pub fn ended(&self) -> Record {
        debug_assert!(self.unrecorded() == 0, "the end stands behind everything");
        Record::Ended(Ended { actor: self.actor, clock: self.clock.last() })
    }
}
