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
use crate::sorted::Sorted;
use crate::tally::Tally;

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

#[expect(clippy::box_collection, reason = "a pointer is all that a simulated million pays for what is rarely there")]
#[derive(Clone, Debug)]
pub(crate) struct Seen<I> {
    streams: Sorted<Stream<I>, Track>,
    /// The streams by last use, oldest first; made when the first has to go.
    by_use: Option<Box<BTreeMap<u64, Stream<I>>>>,
    uses: u64,
    ranges_len: usize,
    /// Where the stream lies that was used last: what comes next is mostly of the same.
    last_place: u32,
}

#[derive(Clone, Debug)]
struct Track {
    ranges: Ranges,
    used: u64,
    moved: Time,
}

impl Track {
    fn is_impossible(&self, sequence: u64, now: Time, bounds: &Bounds) -> bool {
        sequence > self.ranges.highest().saturating_add(bounds.ahead_max) && now - self.moved <= bounds.idle
    }
}

/// A number that no node can honestly have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Impossible;

/// First and last of each interval, ascending, never adjacent, never empty.
#[expect(clippy::box_collection, reason = "a pointer is all that a simulated million pays for what is rarely there")]
#[derive(Clone, Debug)]
enum Ranges {
    /// Nearly always.
    One(u32, u32),
    Many(Box<Vec<(u64, u64)>>),
}

impl Ranges {
    fn of(sequence: u64) -> Self {
        match u32::try_from(sequence) {
            Ok(sequence) => Ranges::One(sequence, sequence),
            Err(_) => Ranges::Many(Box::new(vec![(sequence, sequence)])),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&[(u64, u64)]) -> T) -> T {
        match self {
            Ranges::One(first, last) => read(&[(u64::from(*first), u64::from(*last))]),
            Ranges::Many(ranges) => read(ranges),
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Vec<(u64, u64)>) -> T) -> T {
        if let Ranges::One(first, last) = self {
            *self = Ranges::Many(Box::new(vec![(u64::from(*first), u64::from(*last))]));
        }
        let Ranges::Many(ranges) = self else { unreachable!("the other form was replaced") };
        let changed = change(ranges);
        *self = std::mem::replace(self, Ranges::One(0, 0)).packed();
        changed
    }

    fn packed(self) -> Self {
        if let Ranges::Many(ranges) = &self
            && let [(first, last)] = ranges[..]
            && let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last))
        {
            return Ranges::One(first, last);
        }
        self
    }

    fn len(&self) -> usize {
        match self {
            Ranges::One(..) => 1,
            Ranges::Many(ranges) => ranges.len(),
        }
    }

    /// The interval that holds a number, or the first one above it.
    fn at_or_above(&self, sequence: u64) -> Option<(u64, u64)> {
        self.read(|ranges| ranges.get(ranges.partition_point(|(_, last)| *last < sequence)).copied())
    }

    fn contains(&self, sequence: u64) -> bool {
        self.at_or_above(sequence).is_some_and(|(first, _)| first <= sequence)
    }

    fn highest(&self) -> u64 {
        self.read(|ranges| ranges.last().map_or(0, |(_, last)| *last))
    }

    /// Adds a number that is in no interval.
    fn insert(&mut self, sequence: u64) {
        if let Ranges::One(_, last) = self
            && u64::from(*last) + 1 == sequence
            && let Ok(sequence) = u32::try_from(sequence)
        {
            *last = sequence;
            return;
        }
        self.change(|ranges| {
            let at = ranges.partition_point(|(_, last)| *last < sequence);
            let joins_left = at > 0 && ranges[at - 1].1.checked_add(1) == Some(sequence);
            let joins_right = ranges.get(at).is_some_and(|(first, _)| sequence.checked_add(1) == Some(*first));
            match (joins_left, joins_right) {
                (true, true) => {
                    ranges[at - 1].1 = ranges[at].1;
                    ranges.remove(at);
                }
                (true, false) => ranges[at - 1].1 = sequence,
                (false, true) => ranges[at].0 = sequence,
                (false, false) => ranges.insert(at, (sequence, sequence)),
            }
        });
    }

    /// Closes the lowest of several gaps; gives the first and the last number of it.
    fn close_lowest(&mut self) -> (u64, u64) {
        self.change(|ranges| {
            let (first, below) = ranges.remove(0);
            let gap = (below + 1, ranges[0].0 - 1);
            ranges[0].0 = first;
            gap
        })
    }
}

impl<I: Identifier> Seen<I> {
    pub(crate) const fn new() -> Self {
        Seen { streams: Sorted::new(), by_use: None, uses: 0, ranges_len: 0, last_place: 0 }
    }

    pub(crate) fn contains(&self, id: &MessageId<I>) -> bool {
        self.track(&id.stream()).is_some_and(|track| track.ranges.contains(id.sequence))
    }

    fn track(&self, stream: &Stream<I>) -> Option<&Track> {
        self.streams.get_near(self.last_place as usize, stream)
    }

    /// Whether a stream was ever forgotten: only then can something be held that is not seen.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.by_use.is_some()
    }

    /// Whether no node can honestly have reached this number: 0 is none, and a stream that we follow does not jump.
    pub(crate) fn is_impossible(&self, id: &MessageId<I>, now: Time, bounds: &Bounds) -> bool {
        id.sequence == 0 || self.track(&id.stream()).is_some_and(|track| track.is_impossible(id.sequence, now, bounds))
    }

    /// The first interval of unseen numbers of a stream inside `first..=last`; an error when one of these is [impossible](Self::is_impossible).
    pub(crate) fn first_unseen(
        &self,
        stream: &Stream<I>,
        first: u64,
        last: u64,
        now: Time,
        bounds: &Bounds,
    ) -> Result<Option<(u64, u64)>, Impossible> {
        let track = self.track(stream);
        if first == 0 || track.is_some_and(|track| track.is_impossible(last, now, bounds)) {
            return Err(Impossible);
        }
        Ok(Self::unseen_of(track, first, last))
    }

    /// The first interval of unseen numbers of a stream inside `first..=last`.
    pub(crate) fn next_unseen(&self, stream: &Stream<I>, first: u64, last: u64) -> Option<(u64, u64)> {
        Self::unseen_of(self.track(stream), first, last)
    }

    fn unseen_of(track: Option<&Track>, first: u64, last: u64) -> Option<(u64, u64)> {
        if first > last {
            return None;
        }
        let Some(track) = track else { return Some((first, last)) };
        let Some((seen_first, seen_last)) = track.ranges.at_or_above(first) else { return Some((first, last)) };
        if seen_first > first {
            return Some((first, last.min(seen_first - 1)));
        }
        let first = seen_last.checked_add(1).filter(|first| *first <= last)?;
        let last = track.ranges.at_or_above(first).map_or(last, |(next, _)| last.min(next - 1));
        Some((first, last))
    }

    /// Records a message. The gap that was closed for it, if any, holds messages that count as seen from now on.
    pub(crate) fn insert(&mut self, id: &MessageId<I>, now: Time, bounds: &Bounds, counters: &mut Tally<Counters>) -> Option<(u64, u64)> {
        let stream = id.stream();
        let used = self.uses + 1;
        let Some(track) = self.streams.get_mut_near(&mut self.last_place, &stream) else {
            self.uses = used;
            if self.streams.len() >= bounds.streams_max {
                self.evict(counters);
            }
            self.streams.insert(stream, Track { ranges: Ranges::of(id.sequence), used, moved: now });
            self.ranges_len += 1;
            self.last_place = self.streams.place(&stream);
            if let Some(by_use) = &mut self.by_use {
                by_use.insert(used, stream);
            }
            return None;
        };
        if track.ranges.contains(id.sequence) {
            return None;
        }
        self.uses = used;
        if let Some(by_use) = &mut self.by_use {
            by_use.remove(&track.used);
            by_use.insert(used, stream);
        }
        track.used = used;
        track.moved = now;
        let before = track.ranges.len();
        track.ranges.insert(id.sequence);
        self.ranges_len = self.ranges_len - before + track.ranges.len();
        if track.ranges.len() > bounds.stream_ranges_max || (self.ranges_len > bounds.ranges_max && track.ranges.len() > 1) {
            // The lowest gap is the oldest, so it is the one that is least likely to be filled.
            let gap = track.ranges.close_lowest();
            self.ranges_len -= 1;
            counters.count(|counters| counters.gaps_closed += 1);
            return Some(gap);
        }
        None
    }

    fn evict(&mut self, counters: &mut Tally<Counters>) {
        let streams = &self.streams;
        let by_use = self.by_use.get_or_insert_with(|| Box::new(streams.iter().map(|(stream, track)| (track.used, *stream)).collect()));
        if let Some((_, stream)) = by_use.pop_first()
            && let Some(track) = self.streams.remove(&stream)
        {
            self.ranges_len -= track.ranges.len();
            counters.count(|counters| counters.streams_evicted += 1);
        }
    }

    /// Reads what is known of the stream that was used last, or of more of them; see [`super::State::warm`].
    pub(crate) fn warm(&self, is_new: bool) -> u64 {
        let Sorted::Few(few) = &self.streams else { return 0 };
        let read = |at: usize| few.get(at).map_or(0, |(stream, track)| stream.incarnation ^ track.used);
        let last = read(self.last_place as usize);
        // Where a search looks first.
        if is_new { last ^ read(few.len() / 4) ^ read(few.len() / 2) ^ read(few.len() / 4 * 3) } else { last }
    }

    pub(crate) fn streams_len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn ranges_len(&self) -> usize {
        self.ranges_len
    }
}
