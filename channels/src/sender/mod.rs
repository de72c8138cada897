//! Which frame to a peer goes next: one core for each peer, between the parts that produce frames and the streams that take them.
//!
//! Producers [`push`](State::push) whole frames; the driver [`pop`](State::pop)s the one that leaves next whenever a stream can take one,
//! and reports with [`sent`](State::sent) what the transport took. The core never waits: a full queue is answered at once.
//!
//! # Order
//!
//! 1. Frames of one channel leave in the order in which they came.
//! 2. Classes are strict: while a channel of a higher class has a frame and a stream that takes it, lower classes wait.
//! 3. Except for the floor: a class that waits gets one byte for every 63 that went past it, so that background work goes on under any
//!    load. The share is counted in bytes, because one large frame in 64 would be most of the bytes of a channel of small ones.
//! 4. Inside a class, channels share bytes evenly: each has a virtual time that advances by the bytes it sent, and the one that is furthest
//!    behind goes next (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996, section 2, with equal weights and frames for
//!    packets). A channel that was empty, or whose stream took nothing, saves nothing up.
//!
//! # Bounds
//!
//! A peer that stops reading makes this core hold at most what its [`Params`] allow: frames and bytes for each channel, and bytes
//! altogether. Queues of [`Class::Control`] are inside that total but reserved: other classes cannot use their part.
//! What was popped is the driver's to hold; it takes at most one frame for each stream.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::channel::{ChannelId, ChannelSpec, Class, Overflow};
use crate::error::ConfigError;
use crate::time::Time;
use crate::{frame, limits};

/// Channels to one peer.
pub const CHANNELS_MAX: usize = 1_024;

/// Bytes that go past a waiting class for one byte of its own.
const FLOOR_ONE_IN: u64 = 63;

/// Queues that grew beyond this many frames give their memory back when they are empty.
const KEPT_FRAMES: usize = 64;

/// The channels to a peer and their limits. Cloning is cheap: all peers share one table.
#[derive(Clone, Debug)]
pub struct Params {
    /// In the order of their numbers.
    channels: Arc<[ChannelSpec]>,
    peer_bytes_max: usize,
    /// What classes other than control may queue: the total without what is reserved.
    shared_bytes_max: usize,
}

impl Params {
    /// Bytes that may wait for one peer unless other params say so: what the built-in channels may hold together. A guess; with the
    /// limit of connections it is also what a process full of stalled peers holds for them.
    pub const PEER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

    /// Checks a table of channels.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] when there are more than [`CHANNELS_MAX`] channels, two have one number or one name, a name is empty, a queue
    /// could never hold a frame of the largest size, or `peer_bytes_max` leaves no room for one beside what control reserves.
    pub fn new(channels: impl IntoIterator<Item = ChannelSpec>, peer_bytes_max: usize) -> Result<Self, ConfigError> {
        const FRAME: usize = limits::FRAME_BYTES_MAX + frame::OVERHEAD_BYTES_MAX;
        let mut channels: Vec<ChannelSpec> = channels.into_iter().collect();
        if channels.len() > CHANNELS_MAX {
            return Err(ConfigError::new("channels", channels.len(), format_args!("at most {CHANNELS_MAX}")));
        }
        let mut names: Vec<&str> = channels.iter().map(|channel| &*channel.name).collect();
        names.sort_unstable();
        if let Some(name) = names.windows(2).find(|pair| pair[0] == pair[1] || pair[0].is_empty()).map(|pair| pair[0]) {
            return Err(ConfigError::new("channels.name", name, "a name of its own"));
        }
        if names == [""] {
            return Err(ConfigError::new("channels.name", "", "a name of its own"));
        }
        channels.sort_by_key(|channel| channel.id);
        if let Some(pair) = channels.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ConfigError::new("channels.id", pair[0].id.0, "a number of its own"));
        }
        for channel in &channels {
            if channel.queued_frames_max == 0 {
                return Err(ConfigError::new("channels.queued_frames_max", 0, "at least 1"));
            }
            if channel.queued_bytes_max < FRAME {
                let limit = format!("at least {FRAME}, one frame of the largest size");
                return Err(ConfigError::new("channels.queued_bytes_max", channel.queued_bytes_max, limit));
            }
        }
        let reserved = channels
            .iter()
            .filter(|channel| channel.class == Class::Control)
            .fold(0_usize, |sum, channel| sum.saturating_add(channel.queued_bytes_max));
        let least = reserved.saturating_add(FRAME);
        if peer_bytes_max < least {
            let limit = format!("at least {least}: what control channels reserve, and one frame of the largest size");
            return Err(ConfigError::new("peer_bytes_max", peer_bytes_max, limit));
        }
        Ok(Params { channels: channels.into(), peer_bytes_max, shared_bytes_max: peer_bytes_max - reserved })
    }

    /// The channels in the order of their numbers.
    pub fn channels(&self) -> &[ChannelSpec] {
        &self.channels
    }

    /// The channel with this number.
    pub fn channel(&self, id: ChannelId) -> Option<&ChannelSpec> {
        self.index(id).map(|index| &self.channels[index])
    }

    /// Bytes that may wait for one peer.
    pub fn peer_bytes_max(&self) -> usize {
        self.peer_bytes_max
    }

    fn index(&self, id: ChannelId) -> Option<usize> {
        self.channels.binary_search_by_key(&id, |channel| channel.id).ok()
    }
}

/// The built-in channels ([`ChannelSpec::built_in`]).
impl Default for Params {
    fn default() -> Self {
        Params::new(ChannelSpec::built_in(), Params::PEER_BYTES_MAX).expect("the built-in table is valid, as a test says")
    }
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Frames.
    pub frames: usize,
    /// Bytes of those frames.
    pub bytes: usize,
}

/// What one channel to one peer has seen since the core was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames accepted.
    pub frames: u64,
    /// Bytes accepted.
    pub bytes: u64,
    /// Frames refused, whatever became of them then.
    pub refused: u64,
    /// Bytes that the transport took.
    pub sent_bytes: u64,
    /// The most that ever waited, frames and bytes each for themselves.
    pub high: Queued,
}

/// A frame that was not queued, and what to do now. Nothing changed but a counter.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused {
    /// The frame, given back.
    pub frame: Bytes,
    /// Why.
    pub reason: Reason,
    /// What the channel says happens then: the caller carries it out. [`Overflow::Refuse`] for a channel that does not exist.
    pub overflow: Overflow,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The channel's queue has no room for it.
    ChannelFull,
    /// The channel has room, but all the channels to the peer together have not.
    PeerFull,
    /// The params name no such channel.
    UnknownChannel,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({:?}, {:?}, {} bytes)", self.reason, self.overflow, self.frame.len())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::ChannelFull => "the channel's queue to the peer is full",
            Reason::PeerFull => "the queues to the peer are full",
            Reason::UnknownChannel => "there is no such channel",
        })
    }
}

impl std::error::Error for Refused {}

/// The queues to one peer.
pub struct State {
    params: Params,
    /// One for each channel of the params, in the same order.
    queues: Vec<Queue>,
    /// One for each class, lowest first.
    classes: [Turns; Class::ALL.len()],
    total: Queued,
    /// The part of the total that is not of control.
    shared_bytes: usize,
    waiting_since: Option<Time>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Virtual time: the bytes that the channel sent, moved forward over the times when it had nothing to send.
    turn: u64,
    counters: Counters,
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
        let queues = params.channels.iter().map(|_| Queue::default()).collect();
        State { params, queues, classes: Default::default(), total: Queued::default(), shared_bytes: 0, waiting_since: None }
    }

    /// The params.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Queues a whole frame ([`frame::encode`]) for a channel.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the frame back when there is no room or no such channel.
    pub fn push(&mut self, channel: ChannelId, frame: Bytes, now: Time) -> Result<(), Refused> {
        let Some(index) = self.params.index(channel) else {
            return Err(Refused { frame, reason: Reason::UnknownChannel, overflow: Overflow::Refuse });
        };
        let (spec, queue) = (&self.params.channels[index], &mut self.queues[index]);
        let len = frame.len();
        let shared = spec.class != Class::Control;
        let reason = if queue.frames.len() >= spec.queued_frames_max || len > spec.queued_bytes_max - queue.bytes {
            Some(Reason::ChannelFull)
        } else if shared && len > self.params.shared_bytes_max - self.shared_bytes {
            Some(Reason::PeerFull)
        } else {
            None
        };
        if let Some(reason) = reason {
            queue.counters.refused += 1;
            return Err(Refused { frame, reason, overflow: spec.overflow });
        }
        if queue.frames.is_empty() {
            queue.turn = queue.turn.max(self.classes[spec.class as usize].clock);
        }
        queue.frames.push_back(frame);
        queue.bytes += len;
        queue.counters.frames += 1;
        queue.counters.bytes += len as u64;
        queue.counters.high.frames = queue.counters.high.frames.max(queue.frames.len());
        queue.counters.high.bytes = queue.counters.high.bytes.max(queue.bytes);
        self.total.frames += 1;
        self.total.bytes += len;
        if shared {
            self.shared_bytes += len;
        }
        self.waiting_since.get_or_insert(now);
        self.check();
        Ok(())
    }

    /// Takes the frame that leaves next, among the channels whose stream is `ready` to take one; `None` when there is none.
    ///
    /// Asks once for each channel that has a frame.
    pub fn pop(&mut self, ready: impl Fn(ChannelId) -> bool) -> Option<(ChannelId, Bytes)> {
        // For each class the channel that is furthest behind; the lower number breaks a tie.
        let mut next: [Option<usize>; Class::ALL.len()] = [None; Class::ALL.len()];
        for (index, spec) in self.params.channels.iter().enumerate() {
            if self.queues[index].frames.is_empty() {
                continue;
            }
            let class = spec.class as usize;
            if !ready(spec.id) {
                // Its own stream holds it back, not the others: it has no claim on them for that time.
                self.queues[index].turn = self.queues[index].turn.max(self.classes[class].clock);
            } else if next[class].is_none_or(|best| self.queues[index].turn < self.queues[best].turn) {
                next[class] = Some(index);
            }
        }
        let highest = next.iter().rposition(Option::is_some)?;
        // The lowest class that is owed its next frame goes before the highest that has one.
        let owed = (0..highest).find(|class| {
            next[*class].is_some_and(|index| self.classes[*class].passed >= FLOOR_ONE_IN.saturating_mul(self.queues[index].next_cost()))
        });
        let class = owed.unwrap_or(highest);
        let index = next[class]?;
        let (queue, turns) = (&mut self.queues[index], &mut self.classes[class]);
        let cost = queue.next_cost();
        turns.clock = turns.clock.max(queue.turn);
        turns.passed = turns.passed.saturating_sub(FLOOR_ONE_IN.saturating_mul(cost));
        queue.turn = queue.turn.saturating_add(cost);
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.len();
        if queue.frames.is_empty() && queue.frames.capacity() > KEPT_FRAMES {
            queue.frames = VecDeque::new();
        }
        for (lower, _) in self.classes.iter_mut().zip(next).take(class).filter(|(_, waiting)| waiting.is_some()) {
            lower.passed = lower.passed.saturating_add(cost);
        }
        self.total.frames -= 1;
        self.total.bytes -= frame.len();
        if self.params.channels[index].class != Class::Control {
            self.shared_bytes -= frame.len();
        }
        if self.total.frames == 0 {
            self.waiting_since = None;
            // Nobody waits, so nobody is owed anything.
            self.classes.iter_mut().for_each(|turns| turns.passed = 0);
        }
        self.check();
        Some((self.params.channels[index].id, frame))
    }

    /// Says that the transport took bytes of a popped frame, all or a part: progress.
    pub fn sent(&mut self, channel: ChannelId, bytes: usize, now: Time) {
        if let Some(index) = self.params.index(channel) {
            self.queues[index].counters.sent_bytes += bytes as u64;
        }
        if let Some(since) = &mut self.waiting_since {
            *since = (*since).max(now);
        }
    }

    /// The channel on which most bytes wait, with what waits there and how many bytes the transport has taken of it so far; `None` while
    /// nothing waits. A peer that takes too little of one channel is seen here, whatever it takes of the others.
    pub fn fullest(&self) -> Option<(ChannelId, Queued, u64)> {
        let waiting = self.params.channels.iter().zip(&self.queues).filter(|(_, queue)| !queue.frames.is_empty());
        let (channel, queue) = waiting.max_by_key(|(_, queue)| queue.bytes)?;
        Some((channel.id, Queued { frames: queue.frames.len(), bytes: queue.bytes }, queue.counters.sent_bytes))
    }

    /// What waits on one channel; nothing on a channel that does not exist.
    pub fn queued(&self, channel: ChannelId) -> Queued {
        let queue = self.params.index(channel).map(|index| &self.queues[index]);
        queue.map(|queue| Queued { frames: queue.frames.len(), bytes: queue.bytes }).unwrap_or_default()
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
        self.params.channels.iter().zip(&self.queues).map(|(channel, queue)| (channel.id, queue.counters))
    }

    fn check(&self) {
        debug_assert_eq!(self.total.frames == 0, self.waiting_since.is_none(), "a wait has a start");
        debug_assert_eq!(self.total.frames, self.queues.iter().map(|queue| queue.frames.len()).sum(), "the frames add up");
        debug_assert_eq!(self.total.bytes, self.queues.iter().map(|queue| queue.bytes).sum(), "the bytes add up");
        debug_assert!(self.shared_bytes <= self.params.shared_bytes_max, "control keeps what is reserved for it");
        debug_assert!(self.total.bytes <= self.params.peer_bytes_max, "the peer keeps to its total");
    }
}

impl Queue {
    /// What its next frame costs. An empty frame is not free, or it could go first for ever.
    fn next_cost(&self) -> u64 {
        self.frames.front().map_or(1, |frame| frame.len().max(1) as u64)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("total", &self.total).field("waiting_since", &self.waiting_since).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
