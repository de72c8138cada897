//! Which frame to a peer goes next: one core for each peer, between the parts that produce frames and the streams that take them.
//!
//! Producers [`push`](State::push) frames; the driver [`pop`](State::pop)s what leaves next whenever a stream can take something, one frame or many
//! small ones in one piece, and reports with [`sent`](State::sent) what the transport took. The core never waits: a full queue is answered at once.
//!
//! # Order
//!
//! 1. Frames of one lane of a channel leave in the order in which they came.
//! 2. Classes are strict: while a channel of a higher class has a frame and a stream that takes it, lower classes wait.
//! 3. Except for the floor: a class that waits gets one byte for every 63 that went past it, so that background work goes on under any
//!    load. The share is counted in bytes, because one large frame in 64 would be most of the bytes of a channel of small ones.
//! 4. Inside a class, channels share bytes evenly: each has a virtual time that advances by the bytes it sent, and the one that is furthest
//!    behind goes next (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996, section 2, with equal weights and frames for
//!    packets). A channel that was empty, or whose stream took nothing, saves nothing up.
//!
//! # Memory
//!
//! A small message is encoded straight into the block at the end of its lane, and whole runs of such frames leave as one piece without another copy: what
//! small messages cost is a lock, a copy and four bytes. Blocks grow with the traffic, up to [`BLOCK_BYTES`], and an idle lane holds none. Large frames keep their own memory.
//!
//! On a channel of the reliability [`Latest`] a frame that waits is replaced by the next one of its key, in its place, and little is
//! under way at once: what was popped cannot be replaced any more. How much follows what the peer credits ([`State::credit`]).
//!
//! [`Latest`]: crate::channel::Reliability::Latest
//!
//! # Time to live
//!
//! A message can have a deadline ([`State::push_until`]): one that still waits when it would leave is dropped then, and counted as expired. Messages without
//! one cost nothing for it.
//!
//! # Bounds
//!
//! A peer that stops reading makes this core hold at most what its [`Params`] allow: frames and bytes for each channel, and bytes
//! altogether. Queues of [`Class::Control`] are inside that total but reserved: other classes cannot use their part.
//! What was popped is the driver's to hold; it takes at most one frame for each stream.
//!
//! # Figures
//!
//! What [`State::metrics`] tells is counted here, for each channel and lane, with as many readings of the clock as `measure` says. The driver reports what becomes of
//! everything that it popped: with [`State::sent`], [`State::unwanted`] or, in the end, [`State::clear`].
//!
//! # Lanes
//!
//! Whoever sends asks once for its lane ([`State::lane_for`]) and keeps it. Senders without a key get one of few lanes, whose number grows while that brings more and
//! is on record ([`ChannelMetrics::lane_changes`](crate::metrics::ChannelMetrics::lane_changes)); lanes that are blocked are given to nobody. The clock for this is [`State::turn`], one comparison for each turn of the driver.

mod admission;
mod figures;
mod frames;
mod growth;
mod lanes;
mod measure;
mod pace;
mod params;
mod spread;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

pub use self::admission::{Reason, Refused};
pub use self::figures::Counters;
use self::frames::Frames;
pub use self::frames::{BLOCK_BYTES, SHARED_FRAME_BYTES_MAX};
use self::lanes::Window;
use self::measure::{Busy, Stamps, Waits};
use self::pace::Pace;
pub use self::params::{CHANNELS_MAX, LANES_MAX, Params};
use self::spread::Spread;
use crate::channel::{ChannelId, ChannelSpec, Class, Overflow, Reliability};
use crate::histogram::Histogram;
use crate::time::Time;

/// Bytes that go past a waiting class for one byte of its own.
pub(crate) const FLOOR_ONE_IN: u64 = 63;

/// Queues that grew beyond this many frames give their memory back when they are empty.
const KEPT_FRAMES: usize = 64;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Frames.
    pub frames: usize,
    /// Bytes of those frames.
    pub bytes: usize,
}

/// The queues to one peer.
pub struct State {
    params: Params,
    /// One for each channel of the params, in the same order.
    channels: Vec<Channel>,
    /// One for each lane of each channel, in the same order.
    queues: Vec<LaneQueue>,
    /// One for each class, lowest first.
    classes: [Turns; Class::ALL.len()],
    total: Queued,
    /// The part of the total that is not of control.
    shared_bytes: usize,
    waiting_since: Option<Time>,
    /// The most bytes of frames that fit in a datagram.
    datagram_bytes_max: usize,
    /// Whether a frame that waits may have a deadline.
    has_deadlines: bool,
    stamps: Stamps,
    window: Window,
    /// Frames for channels that do not exist.
    unknown: u64,
    /// The channel and the lane of the last frame, and where they are: most come for the same as the one before.
    recent: Option<(ChannelId, u8, usize, usize)>,
}

/// What all lanes of a channel hold and have seen.
#[derive(Default)]
struct Channel {
    queued: Queued,
    counters: Counters,
    /// Virtual time: the bytes that the channel sent, moved forward over the times when it had nothing to send.
    turn: u64,
    /// The virtual time, among its lanes, at which the last lane was served.
    clock: u64,
    /// How much may be under way, on a channel that keeps the latest.
    pace: Option<Box<Pace>>,
    /// What was popped of it and is not settled.
    under_way: Queued,
    waited: Histogram,
    busy: Busy,
    /// Whether anybody asked for a lane.
    has_senders: bool,
    /// Which lanes they get, once that is more than the first one for all.
    spread: Option<Box<Spread>>,
}

#[derive(Default)]
struct Queue {
    frames: Frames,
    waits: Waits,
    /// Virtual time among the lanes of its channel, which share evenly what is the channel's.
    turn: u64,
}

/// A lane that nothing was ever sent on costs nothing: its queue reads as an empty one, and is made when it is first changed.
#[derive(Default)]
struct LaneQueue(Option<Box<Queue>>);

static UNUSED: LazyLock<Queue> = LazyLock::new(Queue::default);

impl LaneQueue {
    fn used(&mut self) -> Option<&mut Queue> {
        self.0.as_deref_mut()
    }
}

impl Deref for LaneQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        self.0.as_deref().unwrap_or_else(|| &UNUSED)
    }
}

impl DerefMut for LaneQueue {
    #[inline]
    fn deref_mut(&mut self) -> &mut Queue {
        self.0.get_or_insert_default()
    }
}

/// What leaves next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popped {
    /// The channel.
    pub channel: ChannelId,
    /// The lane of the channel.
    pub lane: u8,
    /// How many frames it is.
    pub frames: usize,
    /// Whole frames, one behind the other.
    pub bytes: Bytes,
}

impl Queue {
    /// Takes what is next, and follows it until it is settled.
    fn pop(&mut self, max: usize) -> Option<(usize, Bytes)> {
        let kept = self.frames.kept_since();
        let (frames, bytes) = self.frames.pop(max)?;
        match kept {
            Some(at) => self.waits.pop_kept(at, bytes.len()),
            None => self.waits.pop(frames, bytes.len()),
        }
        Some((frames, bytes))
    }
}

/// Whose turn it is, for one class.
#[derive(Clone, Copy, Default)]
struct Turns {
    /// The virtual time at which the last channel was served. No channel is left behind it.
    clock: u64,
    /// Bytes of higher classes that went past while this class waited, less what it was given for them.
    passed: u64,
}

impl State {
    /// Empty queues.
    pub fn new(params: Params) -> Self {
        let queues = (0..params.lanes.last().copied().unwrap_or(0)).map(|_| LaneQueue::default()).collect();
        let pace = |spec: &ChannelSpec| (spec.reliability == Reliability::Latest).then(Box::<Pace>::default);
        let channels = params.channels.iter().map(|spec| Channel { pace: pace(spec), ..Channel::default() }).collect();
        State {
            params,
            channels,
            queues,
            classes: Default::default(),
            total: Queued::default(),
            shared_bytes: 0,
            waiting_since: None,
            stamps: Stamps::default(),
            window: Window::default(),
            unknown: 0,
            recent: None,
            datagram_bytes_max: 0,
            has_deadlines: false,
        }
    }

    /// Tells the time, for what is queued and what leaves from now on.
    pub fn set_now(&mut self, now: Time) {
        self.stamps.tell(now);
    }

    /// Tells how many bytes of frames fit in a datagram: what is popped of a channel of [`Reliability::BestEffort`] fits, or is a single frame that does not.
    pub fn set_datagram_bytes_max(&mut self, bytes: usize) {
        self.datagram_bytes_max = bytes;
    }

    /// Notes how many frames of a channel that keeps the latest the peer has had in all. Says whether there can be so many.
    pub fn credit(&mut self, channel: ChannelId, total: u64, now: Time) -> bool {
        self.set_now(now);
        let pace = self.params.index(channel).and_then(|index| self.channels[index].pace.as_deref_mut());
        pace.is_some_and(|pace| pace.on_credit(total, now))
    }

    /// The params.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Drops the next frame of a queue, of which nothing has left; how many frames that was.
    fn drop_next(&mut self, index: usize, at: usize) -> u64 {
        let mut dropped = 0;
        while let Some((frames, bytes)) = self.queues[at].frames.pop(0) {
            dropped += frames as u64;
            self.queues[at].waits.drop_queued(frames, bytes.len());
            self.release(index, frames, bytes.len());
            if !self.queues[at].frames.is_cut() {
                break;
            }
        }
        dropped
    }

    /// Drops what would leave next and whose time is over.
    fn drop_expired(&mut self) {
        self.has_deadlines = false;
        for index in 0..self.channels.len() {
            for at in self.params.lanes[index]..self.params.lanes[index + 1] {
                while self.queues[at].frames.is_expired(self.stamps.now()) {
                    self.channels[index].counters.expired += self.drop_next(index, at);
                }
                self.has_deadlines |= self.queues[at].frames.has_deadlines();
            }
            // What was dropped may have been the last that anybody waited for.
            self.settle(index, 0, 0);
        }
        if self.total.frames == 0 {
            self.waiting_since = None;
            self.classes.iter_mut().for_each(|turns| turns.passed = 0);
        }
    }

    #[inline]
    fn hold(&mut self, index: usize, frames: usize, bytes: usize) {
        let Channel { queued, counters, .. } = &mut self.channels[index];
        queued.frames += frames;
        queued.bytes += bytes;
        counters.high.frames = counters.high.frames.max(queued.frames);
        counters.high.bytes = counters.high.bytes.max(queued.bytes);
        self.total.frames += frames;
        self.total.bytes += bytes;
        if self.params.channels[index].class != Class::Control {
            self.shared_bytes += bytes;
        }
    }

    fn release(&mut self, index: usize, frames: usize, bytes: usize) {
        let queued = &mut self.channels[index].queued;
        queued.frames -= frames;
        queued.bytes -= bytes;
        self.total.frames -= frames;
        self.total.bytes -= bytes;
        if self.params.channels[index].class != Class::Control {
            self.shared_bytes -= bytes;
        }
    }

    /// Takes what leaves next, among the lanes whose stream is `ready` to take something; `None` when there is nothing. It is one frame, and those
    /// behind it in the lane as far as they fit in `max` bytes together and lie in one piece.
    ///
    /// Asks once for each lane that has a frame.
    pub fn pop(&mut self, max: usize, ready: impl Fn(ChannelId, u8) -> bool) -> Option<Popped> {
        if self.has_deadlines {
            self.drop_expired();
        }
        // For each class the channel that is furthest behind, and of that the lane; the lower number breaks a tie.
        let mut next: [Option<(usize, usize)>; Class::ALL.len()] = [None; Class::ALL.len()];
        for (index, spec) in self.params.channels.iter().enumerate() {
            let channel = &mut self.channels[index];
            if channel.queued.frames == 0 {
                continue;
            }
            let mut first: Option<usize> = None;
            let is_open = channel.pace.as_deref_mut().is_none_or(Pace::is_open);
            for lane in 0..spec.lanes {
                let at = self.params.lanes[index] + usize::from(lane);
                if self.queues[at].frames.is_empty() {
                    continue;
                }
                if !is_open || !ready(spec.id, lane) {
                    // Its own stream holds it back, not the others: it has no claim on them for that time.
                    self.queues[at].turn = self.queues[at].turn.max(channel.clock);
                } else if first.is_none_or(|best| self.queues[at].turn < self.queues[best].turn) {
                    first = Some(at);
                }
            }
            let class = spec.class as usize;
            match first {
                None => channel.turn = channel.turn.max(self.classes[class].clock),
                Some(lane) => {
                    let turn = channel.turn;
                    if next[class].is_none_or(|(best, _)| turn < self.channels[best].turn) {
                        next[class] = Some((index, lane));
                    }
                }
            }
        }
        let highest = next.iter().rposition(Option::is_some)?;
        // The lowest class that is owed its next frame goes before the highest that has one, and gets no more than is owed.
        let owed = (0..highest).find(|class| {
            let cost = next[*class].map(|(_, queue)| FLOOR_ONE_IN.saturating_mul(self.queues[queue].frames.next_cost()));
            cost.is_some_and(|cost| self.classes[*class].passed >= cost)
        });
        let class = owed.unwrap_or(highest);
        let (index, queue) = next[class]?;
        let max = match owed {
            Some(class) => max.min(usize::try_from(self.classes[class].passed / FLOOR_ONE_IN).unwrap_or(usize::MAX)),
            None => max,
        };
        let max = if self.params.channels[index].reliability == Reliability::BestEffort { max.min(self.datagram_bytes_max) } else { max };
        let (frames, bytes) = self.queues[queue].pop(max)?;
        let under_way = &mut self.channels[index].under_way;
        (under_way.frames, under_way.bytes) = (under_way.frames + frames, under_way.bytes + bytes.len());
        let cost = bytes.len().max(frames) as u64;
        if let Some(pace) = &mut self.channels[index].pace {
            pace.on_sent(bytes.len(), self.stamps.now());
        }
        let (turns, owner, lane) = (&mut self.classes[class], &mut self.channels[index], &mut self.queues[queue]);
        turns.clock = turns.clock.max(owner.turn);
        turns.passed = turns.passed.saturating_sub(FLOOR_ONE_IN.saturating_mul(cost));
        owner.clock = owner.clock.max(lane.turn);
        owner.turn = owner.turn.saturating_add(cost);
        lane.turn = lane.turn.saturating_add(cost);
        for (lower, _) in self.classes.iter_mut().zip(next).take(class).filter(|(_, waiting)| waiting.is_some()) {
            lower.passed = lower.passed.saturating_add(cost);
        }
        let (channel, lane) = (self.params.channels[index].id, (queue - self.params.lanes[index]) as u8);
        self.release(index, frames, bytes.len());
        if self.total.frames == 0 {
            self.waiting_since = None;
            // Nobody waits, so nobody is owed anything.
            self.classes.iter_mut().for_each(|turns| turns.passed = 0);
        }
        self.check();
        Some(Popped { channel, lane, frames, bytes })
    }

    /// Says that the transport took bytes of what was popped from a lane, all or a part: progress.
    pub fn sent(&mut self, channel: ChannelId, lane: u8, bytes: usize, now: Time) {
        self.set_now(now);
        if let Some((index, queue)) = self.place(channel, lane) {
            let Channel { counters, waited, .. } = &mut self.channels[index];
            let frames = self.queues[queue].waits.sent(bytes, now, waited);
            counters.sent_frames += frames;
            counters.sent_bytes += bytes as u64;
            counters.writes += u64::from(bytes > 0);
            self.settle(index, frames, bytes);
        }
        if let Some(since) = &mut self.waiting_since {
            *since = (*since).max(now);
        }
    }

    /// Says that bytes of what was popped from a lane were given up, because the peer does not take the channel.
    pub fn unwanted(&mut self, channel: ChannelId, lane: u8, bytes: usize, now: Time) {
        self.set_now(now);
        if let Some((index, queue)) = self.place(channel, lane) {
            let frames = self.queues[queue].waits.drop_popped(bytes);
            self.channels[index].counters.unwanted += frames;
            self.settle(index, frames, bytes);
        }
    }

    /// Says that a stream of a channel held something back for so long.
    pub fn blocked(&mut self, channel: ChannelId, is_opening: bool, time: Duration) {
        if let Some(index) = self.params.index(channel) {
            let blocked = &mut self.channels[index].counters.blocked;
            let sum = if is_opening { &mut blocked.opening } else { &mut blocked.stream };
            *sum = sum.saturating_add(time);
        }
    }

    /// Forgets what waits, and what was popped and not settled, and counts it as lost: the connection is gone.
    pub fn clear(&mut self, now: Time) {
        self.set_now(now);
        self.channels.iter_mut().filter_map(|channel| channel.pace.as_deref_mut()).for_each(Pace::give_up);
        while self.pop(usize::MAX, |_, _| true).is_some() {}
        for index in 0..self.channels.len() {
            let lanes = self.params.lanes[index]..self.params.lanes[index + 1];
            let lost: u64 = self.queues[lanes].iter_mut().filter_map(LaneQueue::used).map(|queue| queue.waits.drop_all_popped()).sum();
            self.channels[index].counters.lost += lost;
            self.settle(index, lost, usize::MAX);
        }
    }

    /// What was popped has gone one way or the other.
    fn settle(&mut self, index: usize, frames: u64, bytes: usize) {
        let channel = &mut self.channels[index];
        channel.under_way.frames = channel.under_way.frames.saturating_sub(frames as usize);
        channel.under_way.bytes = channel.under_way.bytes.saturating_sub(bytes);
        if channel.queued.frames == 0 && channel.under_way.frames == 0 {
            channel.busy.end(self.stamps.now());
        }
    }

    /// The channel whose queue is fullest, in frames or in bytes, among those whose overflow ends the connection, with what waits there and how many bytes the transport has taken of it
    /// so far; `None` while nothing waits there. A peer that takes too little of one channel is seen here, whatever it takes of the others.
    pub fn fullest(&self) -> Option<(ChannelId, Queued, u64)> {
        let waiting = self.params.channels.iter().zip(&self.channels);
        let waiting = waiting.filter(|(spec, channel)| spec.overflow == Overflow::Disconnect && channel.queued.frames > 0);
        let fill = |spec: &ChannelSpec, queued: Queued| {
            let part = |of: usize, max: usize| of.saturating_mul(1_000) / max;
            part(queued.bytes, spec.queued_bytes_max).max(part(queued.frames, spec.queued_frames_max))
        };
        let (spec, channel) = waiting.max_by_key(|(spec, channel)| fill(spec, channel.queued))?;
        Some((spec.id, channel.queued, channel.counters.sent_bytes))
    }

    /// What waits on one channel; nothing on a channel that does not exist.
    pub fn queued(&self, channel: ChannelId) -> Queued {
        self.params.index(channel).map(|index| self.channels[index].queued).unwrap_or_default()
    }

    /// What waits on the channels like this.
    pub fn queued_where(&self, like: impl Fn(&ChannelSpec) -> bool) -> Queued {
        let like = self.params.channels.iter().zip(&self.channels).filter(|(spec, channel)| channel.queued.frames > 0 && like(spec));
        like.fold(Queued::default(), |sum, (_, Channel { queued, .. })| Queued {
            frames: sum.frames + queued.frames,
            bytes: sum.bytes + queued.bytes,
        })
    }

    /// Whether anything waits on a lane of a channel; lanes beyond the last begin anew from the first.
    pub fn is_lane_waiting(&self, channel: ChannelId, lane: u8) -> bool {
        self.params.index(channel).is_some_and(|index| {
            let lane = usize::from(lane % self.params.channels[index].lanes);
            !self.queues[self.params.lanes[index] + lane].frames.is_empty()
        })
    }

    /// Whether all channels together leave no room for a frame of so many bytes on this one, whatever its own queue says.
    pub fn is_peer_full(&self, channel: ChannelId, bytes: usize) -> bool {
        let is_shared = self.params.channel(channel).is_some_and(|spec| spec.class != Class::Control);
        is_shared && bytes.min(self.params.shared_bytes_max) > self.params.shared_bytes_max - self.shared_bytes
    }

    /// Whether anything waits on a channel like this.
    pub fn is_waiting(&self, like: impl Fn(&ChannelSpec) -> bool) -> bool {
        self.params.channels.iter().zip(&self.channels).any(|(spec, channel)| channel.queued.frames > 0 && like(spec))
    }

    /// What waits on all channels.
    pub fn total(&self) -> Queued {
        self.total
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.total.frames == 0
    }

    /// Since when something waits and the transport took nothing; `None` while nothing waits. The caller decides how long is too long.
    ///
    /// A frame that was popped does not wait here any more: a driver that holds one for a blocked stream sees that by itself.
    pub fn stalled_since(&self) -> Option<Time> {
        self.waiting_since
    }

    /// What each channel has seen, in the order of their numbers.
    pub fn counters(&self) -> impl Iterator<Item = (ChannelId, Counters)> {
        self.params.channels.iter().zip(&self.channels).map(|(spec, channel)| (spec.id, channel.counters))
    }

    /// Frames that were meant for channels that do not exist.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn check(&self) {
        debug_assert_eq!(self.total.frames == 0, self.waiting_since.is_none(), "a wait has a start");
        debug_assert_eq!(self.total.frames, self.channels.iter().map(|channel| channel.queued.frames).sum::<usize>(), "the frames add up");
        debug_assert_eq!(self.total.frames, self.queues.iter().map(|queue| queue.frames.len()).sum::<usize>(), "also those of the lanes");
        debug_assert_eq!(self.total.bytes, self.channels.iter().map(|channel| channel.queued.bytes).sum::<usize>(), "the bytes add up");
        debug_assert!(self.shared_bytes <= self.params.shared_bytes_max, "control keeps what is reserved for it");
        debug_assert!(self.total.bytes <= self.params.peer_bytes_max, "the peer keeps to its total");
        debug_assert!(
            self.channels.iter().all(|Channel { queued, under_way, counters, .. }| {
                let held = (queued.frames + under_way.frames) as u64;
                counters.frames == counters.sent_frames + counters.superseded + counters.expired + counters.unwanted + counters.lost + held
            }),
            "each frame that was taken is accounted for"
        );
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("total", &self.total).field("waiting_since", &self.waiting_since).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
