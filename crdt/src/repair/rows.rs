//! What two sides make of the rows of ranges: whole shards of them, or the few keys that a session has left.

use std::collections::VecDeque;

use meshwork_channels::Bounded;

use super::frames::Frames;
use crate::store::Store;
use crate::wire::{KeyHash, RANGES_MAX, ROWS_MAX, Range, Row, ShardSum};

/// Whether ranges are ascending, disjoint, and none is inside out.
pub(super) fn are_ascending(ranges: &[Range]) -> bool {
    ranges.iter().all(|range| range.first <= range.last) && ranges.is_sorted_by(|a, b| a.last < b.first)
}

/// Whether rows are strictly ascending and each is within one of the ranges, which are ascending.
pub(super) fn are_within(rows: &[Row], ranges: &[Range]) -> bool {
    let mut ranges = ranges.iter().peekable();
    rows.is_sorted_by(|a, b| a < b)
        && rows.iter().all(|row| {
            while ranges.next_if(|range| range.last < row.key).is_some() {}
            ranges.peek().is_some_and(|range| range.first <= row.key)
        })
}

/// The shards whose sums differ, neighbors among them joined.
pub(super) fn ranges_that_differ(ours: impl Iterator<Item = ShardSum>, theirs: &[ShardSum]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (shard, (ours, theirs)) in (0_u64..).zip(ours.zip(theirs)) {
        if ours == *theirs {
            continue;
        }
        let first = shard << 56;
        let last = KeyHash(first | u64::MAX >> 8);
        match ranges.last_mut() {
            Some(range) if range.last.0.checked_add(1) == Some(first) => range.last = last,
            _ => ranges.push(Range { first: KeyHash(first), last }),
        }
    }
    ranges
}

/// Removes everything up to and including `through` from the front.
pub(super) fn trim(todo: &mut VecDeque<Range>, through: u64) {
    while let Some(range) = todo.front_mut() {
        if range.last.0 <= through {
            todo.pop_front();
        } else {
            // `through` is below `last` here, so adding one cannot overflow.
            range.first = range.first.max(KeyHash(through + 1));
            return;
        }
    }
}

/// As many of the ranges as the rows of one message cover, with all our rows in them.
pub(super) fn rows_within(todo: &VecDeque<Range>, store: &Store) -> (Bounded<Range, RANGES_MAX>, Bounded<Row, ROWS_MAX>) {
    let mut ranges: Vec<Range> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    'all: for range in todo.iter().take(RANGES_MAX) {
        for (row, _, _) in store.rows(*range) {
            if rows.len() == ROWS_MAX {
                // The cut falls between two hashes, because the other side takes a row that is missing for an entry that is.
                let whole = rows.iter().rposition(|held| held.key != row.key).map_or(0, |index| index + 1);
                let mut last = KeyHash(row.key.0.saturating_sub(1));
                if whole > 0 {
                    rows.truncate(whole);
                } else {
                    // More keys with one hash than rows in a message: what is left out we merely receive although we hold it.
                    last = row.key;
                }
                if range.first <= last {
                    ranges.push(Range { first: range.first, last });
                }
                break 'all;
            }
            rows.push(row);
        }
        ranges.push(*range);
    }
    // The store orders equal hashes by key, the wire by content.
    rows.sort_unstable();
    (Bounded::first_of(ranges), Bounded::first_of(rows))
}

/// What the side that does not lead makes of a `Compare`.
pub(super) struct Answer {
    pub(super) frames: Frames,
    pub(super) want: Vec<KeyHash>,
    /// The last hash that was compared.
    pub(super) through: u64,
}

pub(super) fn answer(store: &Store, ranges: &[Range], mut theirs: &[Row], mut frames: Frames) -> Answer {
    let mut want = Vec::new();
    for range in ranges {
        let mut ours = store.rows(*range).peekable();
        loop {
            // The smallest hash that is left on either side, and both sides' rows of it: one each, unless hashes collide.
            let their_hash = theirs.first().map(|row| row.key).filter(|hash| *hash <= range.last);
            let Some(hash) = ours.peek().map(|(row, _, _)| row.key).into_iter().chain(their_hash).min() else { break };
            let our_group: Vec<_> = std::iter::from_fn(|| ours.next_if(|(row, _, _)| row.key == hash)).collect();
            let their_group = &theirs[..theirs.iter().take_while(|row| row.key == hash).count()];

            let we_lack = their_group.iter().any(|row| our_group.iter().all(|(held, _, _)| held != row));
            let mut is_wanted = we_lack;
            let was_empty = frames.is_empty();
            for (row, key, held) in &our_group {
                if their_group.contains(row) {
                    continue;
                }
                if let ([_], [their_row]) = (&our_group[..], their_group) {
                    // The same key on both sides. Of registers only the newer entry travels, or both if their stamps do not tell; of anything
                    // else stamps tell nothing: the leader joins ours with its own, and returns what we lack then.
                    is_wanted = !held.is_typed() && their_row.stamp >= row.stamp;
                    if !held.is_typed() && their_row.stamp > row.stamp {
                        continue;
                    }
                }
                if !frames.push(key, held) && !was_empty {
                    return Answer { frames, want, through: hash.0.saturating_sub(1) };
                }
            }
            if is_wanted {
                want.push(hash);
            }
            theirs = &theirs[their_group.len()..];
        }
    }
    Answer { frames, want, through: ranges.last().map_or(0, |range| range.last.0) }
}
