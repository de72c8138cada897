//! Which messages were delivered already: the reason why each is delivered once, whatever way it comes.
//!
//! Sequence numbers have no gaps at their origin, so what a node has seen of a stream is nearly always one interval, whatever its length.
//! Gaps appear while messages overtake each other and close again. Numbers below the first interval count as unseen, since a node that
//! joins late may meet a stream anywhere.
//!
//! Bounds: streams (the one unused for longest goes), intervals of one stream and of all streams (the lowest gap is closed, which gives its
//! messages up for lost), and how far one step may lead ahead.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_channels::Time;

use super::{Counters, MessageId, Stream};
use crate::identifier::Identifier;

/// What is bounded, see the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) streams_max: usize,
    pub(crate) stream_ranges_max: usize,
    pub(crate) ranges_max: usize,
    pub(crate) ahead_max: u64,
    /// A stream that stood still for this long may continue anywhere: we were cut off for longer than anybody retains what we missed.
    pub(crate) idle: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen<I> {
    streams: BTreeMap<Stream<I>, Track>,
    /// The streams by last use, oldest first.
    by_use: BTreeMap<u64, Stream<I>>,
    uses: u64,
    ranges_len: usize,
}

#[derive(Clone, Debug)]
struct Track {
    /// First and last of each interval, ascending, never adjacent, never empty.
    ranges: Vec<(u64, u64)>,
    used: u64,
    moved: Time,
}

impl<I: Identifier> Seen<I> {
    pub(crate) const fn new() -> Self {
        Seen { streams: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, ranges_len: 0 }
    }

    pub(crate) fn contains(&self, id: &MessageId<I>) -> bool {
        self.streams.get(&id.stream()).is_some_and(|track| {
            let at = track.ranges.partition_point(|(_, last)| *last < id.sequence);
            track.ranges.get(at).is_some_and(|(first, _)| *first <= id.sequence)
        })
    }

    /// Whether no node can honestly have reached this number: 0 is none, and a stream that we follow does not jump.
    pub(crate) fn is_impossible(&self, id: &MessageId<I>, now: Time, bounds: &Bounds) -> bool {
        if id.sequence == 0 {
            return true;
        }
        self.streams.get(&id.stream()).is_some_and(|track| {
            let highest = track.ranges.last().map_or(0, |(_, last)| *last);
            id.sequence > highest.saturating_add(bounds.ahead_max) && now - track.moved <= bounds.idle
        })
    }

    /// The first interval of unseen numbers of a stream inside `first..=last`.
    pub(crate) fn next_unseen(&self, stream: &Stream<I>, first: u64, last: u64) -> Option<(u64, u64)> {
        if first > last {
            return None;
        }
        let Some(track) = self.streams.get(stream) else { return Some((first, last)) };
        let at = track.ranges.partition_point(|(_, seen_last)| *seen_last < first);
        let Some((seen_first, seen_last)) = track.ranges.get(at).copied() else { return Some((first, last)) };
        if seen_first > first {
            return Some((first, last.min(seen_first - 1)));
        }
        let first = seen_last.checked_add(1).filter(|first| *first <= last)?;
        let last = track.ranges.get(at + 1).map_or(last, |(next, _)| last.min(next - 1));
        Some((first, last))
    }

    /// Records a message. The gap that was closed for it, if any, holds messages that count as seen from now on.
    pub(crate) fn insert(&mut self, id: &MessageId<I>, now: Time, bounds: &Bounds, counters: &mut Counters) -> Option<(u64, u64)> {
        if self.contains(id) {
            return None;
        }
        let stream = id.stream();
        self.uses += 1;
        if !self.streams.contains_key(&stream) && self.streams.len() >= bounds.streams_max {
            self.evict(counters);
        }
        let track = self.streams.entry(stream).or_insert(Track { ranges: Vec::new(), used: 0, moved: now });
        self.by_use.remove(&track.used);
        self.by_use.insert(self.uses, stream);
        track.used = self.uses;
        track.moved = now;

        let before = track.ranges.len();
        let at = track.ranges.partition_point(|(_, last)| *last < id.sequence);
        let joins_left = at > 0 && track.ranges[at - 1].1.checked_add(1) == Some(id.sequence);
        let joins_right = track.ranges.get(at).is_some_and(|(first, _)| id.sequence.checked_add(1) == Some(*first));
        match (joins_left, joins_right) {
            (true, true) => {
                track.ranges[at - 1].1 = track.ranges[at].1;
                track.ranges.remove(at);
            }
            (true, false) => track.ranges[at - 1].1 = id.sequence,
            (false, true) => track.ranges[at].0 = id.sequence,
            (false, false) => track.ranges.insert(at, (id.sequence, id.sequence)),
        }
        self.ranges_len = self.ranges_len - before + track.ranges.len();
        if track.ranges.len() > bounds.stream_ranges_max || (self.ranges_len > bounds.ranges_max && track.ranges.len() > 1) {
            // The lowest gap is the oldest, so it is the one that is least likely to be filled.
            let (first, below) = track.ranges.remove(0);
            let gap = (below + 1, track.ranges[0].0 - 1);
            track.ranges[0].0 = first;
            self.ranges_len -= 1;
            counters.gaps_closed += 1;
            return Some(gap);
        }
        None
    }

    fn evict(&mut self, counters: &mut Counters) {
        if let Some((_, stream)) = self.by_use.pop_first()
            && let Some(track) = self.streams.remove(&stream)
        {
            self.ranges_len -= track.ranges.len();
            counters.streams_evicted += 1;
        }
    }

    pub(crate) fn streams_len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn ranges_len(&self) -> usize {
        self.ranges_len
    }
}
