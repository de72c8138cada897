//! The messages by which neighbors learn how far removals may be forgotten: see [`floor`](crate::floor).
//!
//! ```text
//! A: Floor{floor}, AskMembers, Probe  ->
//!                                     <- B: Members{frames, table}, and what answers the probe
//! A holds all that B held: `Equal` came, or A led the comparison to its end
//! A: AskFrames                        ->  (after the latter: was any entry lost on the way?)
//!                                     <- B: Frames
//! A adopts the table
//!
//! C, for which nobody waited: anything ->
//!                                     <- B: Away{floor}
//! C gives up what is older: Back      ->  and takes part again
//! ```

use std::time::Duration;

use meshwork_channels::{Bounded, PeerId, Time};

use super::{Repair, Timer, Turn};
use crate::floor::MEMBERS_MAX;
use crate::wire::{KNOWN_MAX, Known, Message};

/// As how many frames a higher floor counts: for it all entries are gone through.
const RISE_FRAMES: usize = 64;

/// What a neighbor told of the members, until it is certain that we hold all that it held then.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    table: Vec<Known>,
    is_whole: bool,
    /// Messages of entries that it had sent and we had got.
    sent: u32,
    got: u32,
}

impl Repair {
    /// What goes before a probe.
    pub(super) fn send_floor(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        self.tell_floor(peer, turn);
        let Some(neighbor) = self.neighbors.get_mut(&peer) else { return };
        neighbor.told = None;
        // Also where nothing was removed yet: whoever goes away before it is must be known by then.
        if self.members_due.is_some_and(|at| at <= turn.now.time) {
            neighbor.told = Some(Box::default());
            self.members_due = self.floor.period().map(|period| turn.now.time + period);
            turn.send(peer, Message::AskMembers);
        }
    }

    /// Whoever hears of a floor forgets first what it passed, and compares then.
    pub(super) fn tell_floor(&self, peer: PeerId, turn: &mut Turn<'_>) {
        let floor = self.floor.position().floor;
        if floor > 0 {
            turn.send(peer, Message::Floor { floor });
        }
    }

    pub(super) fn on_floor(&mut self, from: PeerId, floor: u32, turn: &mut Turn<'_>) {
        let is_news = floor > self.floor.position().floor && self.neighbors.contains_key(&from);
        if is_news && self.allows(from, turn) {
            self.charge(from, RISE_FRAMES, turn.now.time);
            let now = self.second(turn.now);
            self.has_risen |= self.floor.rise(floor, now);
        }
    }

    pub(super) fn on_ask_members(&mut self, from: PeerId, turn: &mut Turn<'_>) {
        let Some(frames) = self.neighbors.get(&from).map(|neighbor| neighbor.frames_sent) else { return };
        if !self.allows(from, turn) {
            return;
        }
        let now = self.second(turn.now);
        let table = self.floor.table(turn.clock, now);
        let parts = table.chunks(KNOWN_MAX);
        self.charge(from, parts.len(), turn.now.time);
        let last = parts.len() - 1;
        for (index, part) in parts.enumerate() {
            let table = Bounded::first_of(part.iter().copied());
            turn.send(from, Message::Members { frames, table, is_last: index == last });
        }
    }

    pub(super) fn on_members(&mut self, from: PeerId, frames: u32, table: &[Known], is_last: bool, turn: &mut Turn<'_>) {
        let now = self.second(turn.now);
        let Some(neighbor) = self.neighbors.get_mut(&from) else { return };
        let Some(told) = neighbor.told.as_mut().filter(|told| !told.is_whole) else { return };
        if told.table.len() + table.len() > MEMBERS_MAX {
            neighbor.told = None;
            return;
        }
        (told.sent, told.got) = (frames, neighbor.frames_got);
        told.table.extend_from_slice(table);
        told.is_whole = is_last;
        self.floor.heard(from, table, now);
    }

    /// A comparison with a neighbor that we led is over, and if every message came, we hold all that it held.
    pub(super) fn ask_frames(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        if self.neighbors.get(&peer).is_some_and(|neighbor| neighbor.told.as_ref().is_some_and(|told| told.is_whole)) {
            turn.send(peer, Message::AskFrames);
        }
    }

    pub(super) fn on_ask_frames(&mut self, from: PeerId, turn: &mut Turn<'_>) {
        if let Some(frames) = self.neighbors.get(&from).map(|neighbor| neighbor.frames_sent)
            && self.allows(from, turn)
        {
            self.charge(from, 1, turn.now.time);
            turn.send(from, Message::Frames { frames });
        }
    }

    pub(super) fn on_frames(&mut self, from: PeerId, frames: u32, turn: &mut Turn<'_>) {
        let Some(neighbor) = self.neighbors.get(&from) else { return };
        if let Some(told) = &neighbor.told
            && frames.wrapping_sub(told.sent) == neighbor.frames_got.wrapping_sub(told.got)
        {
            self.adopt(from, turn);
        }
    }

    /// We hold all that a neighbor held when it told of the members, if it did.
    pub(super) fn adopt(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        let now = self.second(turn.now);
        let Some(neighbor) = self.neighbors.get_mut(&peer) else { return };
        if let Some(told) = neighbor.told.take_if(|told| told.is_whole) {
            self.has_risen |= self.floor.adopt(&told.table, now);
        }
    }

    /// Whether nobody waits for a peer, who is told so.
    pub(crate) fn is_kept_out(&mut self, peer: PeerId, turn: &mut Turn<'_>) -> bool {
        let now = self.second(turn.now);
        let is_away = self.floor.is_away(peer, now);
        if is_away && self.allows(peer, turn) {
            self.charge(peer, 1, turn.now.time);
            let table = Bounded::first_of(self.floor.away(peer, now).take(KNOWN_MAX));
            turn.send(peer, Message::Away { floor: self.floor.highest(now), table });
        }
        is_away
    }

    pub(super) fn on_back(&mut self, from: PeerId, back: u32, turn: &mut Turn<'_>) {
        if self.neighbors.contains_key(&from) {
            let now = self.second(turn.now);
            self.floor.is_back(from, back, now);
            let delay = self.around(self.config.first_repair_delay, 0.5);
            self.timers.set(Timer::Probe(from), turn.now.time + delay);
        }
    }

    pub(crate) fn is_neighbor(&self, peer: PeerId) -> bool {
        self.neighbors.contains_key(&peer)
    }

    /// Something that a neighbor sent found no place here.
    pub(crate) fn lacks(&mut self, from: PeerId) {
        if let Some(neighbor) = self.neighbors.get_mut(&from) {
            neighbor.told = None;
        }
    }

    /// Whether the floor rose since this was last asked.
    pub(crate) fn take_risen(&mut self) -> bool {
        std::mem::take(&mut self.has_risen)
    }

    /// Tables are compared from now on.
    pub(super) fn begin_members(&mut self, now: Time) {
        if self.members_due.is_none() {
            self.members_due = self.floor.period().map(|period: Duration| now + period);
        }
    }
}
