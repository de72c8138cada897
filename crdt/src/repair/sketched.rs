//! The messages of a comparison by sketches.

use meshwork_channels::{DecodeError, Misbehavior, PeerId};

use super::frames::Frames;
use super::names::{self, Decoding, Next};
use super::{By, Neighbor, Repair, Session, Timer, Turn};
use crate::hlc::Stamp;
use crate::sketch::{CELLS_MAX, Cells};
use crate::wire::{GLIMPSE_BYTES, Message, Name, Named};

/// How long a write is taken to be on its way by broadcast: twice what it takes through a tree of a thousand nodes over a WAN.
const IN_FLIGHT_MILLIS: u64 = 400;

impl Repair {
    pub(super) fn on_differs(&mut self, from: PeerId, keys: u64, version: u64, glimpse: &[u8], cells: &Cells, turn: &mut Turn<'_>) {
        if glimpse.len() != GLIMPSE_BYTES || cells.first != 0 {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        // An answer that comes after its session was given up changes nothing.
        if !self.is_probed(from) {
            return;
        }
        turn.counters.different += 1;
        self.end_session(from);
        if self.may_lead(from, turn.now.time) {
            let ours = names::glimpse(turn.store.shard_sums());
            let guess = names::cells_for(&ours, glimpse, keys.abs_diff(turn.store.digest().keys));
            self.decode(from, Box::new(Decoding::new(version, guess, turn.store)), version, cells, turn);
        }
    }

    pub(super) fn on_cells(&mut self, from: PeerId, version: u64, cells: &Cells, turn: &mut Turn<'_>) {
        let Some(Neighbor { session, .. }) = self.neighbors.get_mut(&from) else { return };
        match std::mem::replace(session, Session::Idle) {
            Session::Decoding(decoding) => self.decode(from, decoding, version, cells, turn),
            other => *session = other,
        }
    }

    fn decode(&mut self, peer: PeerId, mut decoding: Box<Decoding>, version: u64, cells: &Cells, turn: &mut Turn<'_>) {
        let next = decoding.feed(version, cells, turn.store);
        let Some(neighbor) = self.neighbors.get_mut(&peer) else { return };
        self.timers.set(Timer::Session(peer), turn.now.time + self.config.session_timeout);
        match next {
            Next::Ask(range) => {
                let (first, end) = (range.start as u16, range.end as u16);
                let version = decoding.version;
                neighbor.session = Session::Decoding(decoding);
                turn.send(peer, Message::AskCells { version, first, end });
            }
            Next::Compare(names) => {
                turn.counters.sketched += 1;
                let sum = names::sum_of(&names);
                let is_again = neighbor.names_before.replace(sum) == Some(sum);
                // Whoever is to hold all that the other does takes no guess at what that is.
                let synced = if neighbor.told.is_some() { Stamp::MAX } else { neighbor.synced };
                self.end_session(peer);
                if is_again {
                    return self.lead(peer, By::Rows, names.into_iter().map(|(name, _)| name.range()).collect(), turn);
                }
                let settled = Stamp::from_parts(turn.now.wall.as_millis().saturating_sub(IN_FLIGHT_MILLIS), 0);
                let (frames, left) = names::push(names, turn.store, [synced, settled], Frames::new(self.config.burst_frames));
                self.send_frames(peer, frames, turn);
                self.lead(peer, By::Names, left.into_iter().map(Name::range).collect(), turn);
            }
            Next::GiveUp => {
                turn.counters.sketches_failed += 1;
                neighbor.session = Session::AskedShards;
                turn.send(peer, Message::AskShards);
            }
        }
    }

    pub(super) fn on_ask_cells(&mut self, from: PeerId, version: u64, range: std::ops::Range<usize>, turn: &mut Turn<'_>) {
        if range.is_empty() || range.end > CELLS_MAX {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        if !self.allows(from, turn) {
            return;
        }
        self.charge(from, 1, turn.now.time);
        self.note_led(from, turn.now.time);
        let ours = super::version(turn.store);
        let first = if ours == version { range.start } else { 0 };
        let cells = turn.store.sketch().cells(first..range.end);
        turn.send(from, Message::Cells { version: ours, cells });
    }

    pub(super) fn on_ask_shards(&mut self, from: PeerId, turn: &mut Turn<'_>) {
        if self.allows(from, turn) {
            self.charge(from, 1, turn.now.time);
            self.send_shards(from, turn);
        }
    }

    pub(super) fn on_want(&mut self, from: PeerId, round: u32, names: &[Named], turn: &mut Turn<'_>) {
        if names.is_empty() || !names.is_sorted_by(|a, b| a.name < b.name) {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        self.answer(from, round, turn, |store, frames| names::answer(store, names, frames));
    }
}
