//! What two sides make of their sketches: how many cells it takes, which names differ, and what is held under these.

use std::cmp::Ordering;

use meshwork_channels::{Bounded, random};

use super::frames::Frames;
use super::rows::Answer;
use crate::hlc::Stamp;
use crate::sketch::{CELLS_MAX, Cells, Decoder, Difference, Failure, Progress};
use crate::store::Store;
use crate::wire::{GLIMPSE_BITS, GLIMPSE_BYTES, Name, Named, ROWS_MAX, Range, SHARDS, ShardSum};

/// Cells that are sent before anybody asks: enough for ten keys that were written on one side, twenty items, nine times out of ten.
pub(super) const CELLS_FIRST: usize = 40;
/// Cells that are asked for at least.
const CELLS_MORE_MIN: usize = 16;
/// Requests for cells of one session. From the first guess on, each asks for at least twice as many as came, so this is only reached when the
/// peer's replica changes between all of them.
const ASKS_MAX: u32 = 8;
/// By how much the numbers of keys may differ: each key that one side lacks is an item, and takes 1.4 cells of 4,096.
const KEYS_APART_MAX: u64 = 2_500;
/// Bytes of the cells and of the name for each key that one side lacks.
const KEY_APART_BYTES: u64 = 26;
/// Bytes of all shards, and of a row.
const SHARDS_BYTES: u64 = 2_048;
const ROW_BYTES: u64 = 24;

/// A sketch of a peer on its way.
#[derive(Clone, Debug)]
pub(super) struct Decoding {
    pub(super) version: u64,
    decoder: Decoder,
    /// How many cells it will probably take.
    guess: usize,
    /// How many cells of the peer are of use.
    cells_max: usize,
    asks: u32,
}

/// What to do after cells came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for these cells.
    Ask(std::ops::Range<usize>),
    /// These names differ, in order; `true` where only we hold something.
    Compare(Vec<(Name, bool)>),
    /// Compare in another way.
    GiveUp,
}

impl Decoding {
    pub(super) fn new(version: u64, guess: usize, store: &Store) -> Self {
        let ours = store.sketch();
        Decoding { version, decoder: Decoder::new(&ours), guess, cells_max: ours.cell_count(), asks: 0 }
    }

    /// Takes cells of a version of the peer's sketch. The first ones of another version begin again, with our sketch as it is by then.
    pub(super) fn feed(&mut self, version: u64, cells: &Cells, store: &Store) -> Next {
        if version != self.version && cells.first == 0 {
            *self = Decoding { asks: self.asks, ..Decoding::new(version, self.guess, store) };
        }
        let progress = match version == self.version {
            true => self.decoder.feed(cells),
            false => Progress::Failed(Failure::OutOfOrder),
        };
        match progress {
            Progress::Done(Difference { theirs, ours }) if !(theirs.is_empty() && ours.is_empty()) => {
                let theirs = theirs.into_iter().map(|item| (Name::of(item), false));
                let mut names: Vec<(Name, bool)> = theirs.chain(ours.into_iter().map(|item| (Name::of(item), true))).collect();
                // Of both, what the peer holds comes first and stays.
                names.sort_unstable();
                names.dedup_by_key(|(name, _)| *name);
                Next::Compare(names)
            }
            Progress::NeedMore if self.asks < ASKS_MAX => {
                self.asks += 1;
                let wants = self.decoder.wants();
                // The guess counts once: what is still missing then is not what it told.
                let end = if self.asks == 1 { self.guess.max(wants.start + CELLS_MORE_MIN) } else { wants.end };
                Next::Ask(wants.start..end.min(self.cells_max))
            }
            // Digests differ and sketches do not: an item stands for two entries.
            Progress::Done(_) | Progress::NeedMore | Progress::Failed(_) => Next::GiveUp,
        }
    }
}

/// Whether sketches are worth trying on replicas of so many keys: not where one is to receive most of the other's.
pub(super) fn are_near(ours: u64, theirs: u64) -> bool {
    let apart = ours.abs_diff(theirs);
    apart <= KEYS_APART_MAX && apart * KEY_APART_BYTES <= SHARDS_BYTES + ours.min(theirs) * ROW_BYTES
}

/// The lowest bits of all sums.
pub(super) fn glimpse(sums: impl Iterator<Item = ShardSum>) -> Bounded<u8, GLIMPSE_BYTES> {
    let mut bytes = vec![0; GLIMPSE_BYTES];
    for (shard, sum) in sums.enumerate() {
        let at = shard * GLIMPSE_BITS;
        bytes[at / 8] |= (sum.0 as u8 & ((1 << GLIMPSE_BITS) - 1)) << (at % 8);
    }
    Bounded::first_of(bytes)
}

/// How many cells it probably takes, by how many shards differ: keys fall into shards at random, so the k-th shard to differ takes, on average,
/// 1 / (1 - k/256) keys more (linear counting: Whang, Vander-Zanden and Taylor, "A Linear-Time Probabilistic Counting Algorithm for Database
/// Applications", TODS 1990).
pub(super) fn cells_for(ours: &[u8], theirs: &[u8], keys_apart: u64) -> usize {
    let mask = (1 << GLIMPSE_BITS) - 1;
    let shards = |byte: u8| (0..8 / GLIMPSE_BITS).filter(|index| (byte >> (index * GLIMPSE_BITS)) & mask != 0).count();
    let seen: usize = ours.iter().zip(theirs).map(|(ours, theirs)| shards(ours ^ theirs)).sum();
    // One in four that differ looks alike.
    let differ = (seen << GLIMPSE_BITS) / mask as usize;
    if differ >= SHARDS - 1 {
        return CELLS_MAX;
    }
    let keys: f64 = (0..differ).map(|k| SHARDS as f64 / (SHARDS - k) as f64).sum();
    // Two items for each key, and one for each that only one side has; 1.4 cells for each item, and a fifth more because it is a guess.
    let items = (2.0 * keys - keys_apart as f64).max(keys);
    (1.7 * items) as usize + 16
}

/// A short sum of the names that differ.
pub(super) fn sum_of(names: &[(Name, bool)]) -> u64 {
    names.iter().fold(0, |sum, (name, _)| random::hash(&[sum, u64::from(name.0)]))
}

/// Entries that the peer lacks, with the names that are left. Those are what only we hold, and what changed here since `synced` and so, as a rule,
/// not there; if it did, the peer sends its own back. What was written after `settled` is probably on its way by broadcast: the peer is asked.
pub(super) fn push(names: Vec<(Name, bool)>, store: &Store, [synced, settled]: [Stamp; 2], mut frames: Frames) -> (Frames, Vec<Name>) {
    let mut left = Vec::new();
    for (name, is_only_ours) in names {
        let is_due = |stamp: Stamp| (is_only_ours || stamp > synced) && stamp < settled;
        let mut all = store.held(name.range());
        match (all.next(), all.next()) {
            (Some((_, key, held)), None) if is_due(held.marker.stamp) && frames.push(key, held) => {}
            _ => left.push(name),
        }
    }
    (frames, left)
}

/// What our side holds under the names of ranges.
pub(super) fn named<'a>(ranges: impl Iterator<Item = &'a Range>, store: &Store) -> impl Iterator<Item = Named> {
    ranges.map(|range| {
        let name = Name::of(range.first.0);
        let mut stamps = store.held(name.range()).map(|(_, _, held)| held.marker.stamp);
        let stamp = match (stamps.next(), stamps.next()) {
            (None, _) => Stamp::ZERO,
            (Some(stamp), None) => stamp,
            (Some(_), Some(_)) => Stamp::MAX,
        };
        Named { name, stamp }
    })
}

/// What the side that does not lead makes of a `Want`.
pub(super) fn answer(store: &Store, names: &[Named], mut frames: Frames) -> Answer {
    let mut want = Vec::new();
    for Named { name, stamp } in names {
        let Range { first, last } = name.range();
        let ours: Vec<_> = store.held(Range { first, last }).collect();
        // One entry on each side is nearly always of one key. Of several nobody knows which is meant: both sides tell all of them.
        let is_one = ours.len() == 1 && *stamp != Stamp::MAX;
        let was_empty = frames.is_empty();
        let mut is_wanted = !is_one && *stamp > Stamp::ZERO;
        let mut has_room = want.len() < ROWS_MAX;
        for (_, key, held) in ours {
            // Of typed values stamps tell nothing: the leader joins ours with its own, and returns what we lack then.
            let order = if is_one && !held.is_typed() { held.marker.stamp.cmp(stamp) } else { Ordering::Greater };
            match order {
                Ordering::Less => is_wanted = true,
                // A broadcast brought it meanwhile. If it is another one of the same stamp, rows will tell.
                Ordering::Equal => {}
                Ordering::Greater => has_room &= frames.push(key, held) || was_empty,
            }
        }
        if !has_room {
            return Answer { frames, want, through: first.0.saturating_sub(1) };
        }
        if is_wanted {
            want.push(first);
        }
    }
    Answer { frames, want, through: names.last().map_or(0, |named| named.name.range().last.0) }
}
