//! What comes into the queues to a peer, and what is said when there is no room for it.

use std::fmt;

use bytes::Bytes;

use super::{SHARED_FRAME_BYTES_MAX, State};
use crate::channel::{ChannelId, Class, Overflow, Reliability};
use crate::frame;
use crate::time::Time;

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

impl State {
    /// Queues a whole frame ([`frame::encode`]) on the first lane of a channel.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the frame back when there is no room or no such channel.
    pub fn push(&mut self, channel: ChannelId, frame: Bytes, now: Time) -> Result<(), Refused> {
        self.push_on(channel, 0, frame, now)
    }

    /// Queues a whole frame on a lane of a channel; lanes beyond the last begin anew from the first.
    ///
    /// # Errors
    ///
    /// As [`State::push`].
    pub fn push_on(&mut self, channel: ChannelId, lane: u8, frame: Bytes, now: Time) -> Result<(), Refused> {
        if self.params.channel(channel).is_some_and(|spec| spec.reliability == Reliability::Latest) {
            return self.push_latest(channel, Bytes::new(), frame, now);
        }
        self.set_now(now);
        match self.admit(channel, lane, frame.len(), frame::body_len(&frame), || now) {
            Ok(queue) => {
                self.queues[queue].waits.push(self.stamps.now(), frame.len());
                self.queues[queue].frames.push(frame);
                self.check();
                Ok(())
            }
            Err((reason, overflow)) => Err(Refused { frame, reason, overflow }),
        }
    }

    /// Encodes and queues a message, on the way that costs least. `now` is asked when nothing waited on the lane before, and now and then. Says whether something
    /// waited there before.
    ///
    /// # Errors
    ///
    /// Why there is no room, and what the channel says happens then.
    pub fn push_message(
        &mut self,
        channel: ChannelId,
        lane: u8,
        kind: u16,
        body: &[u8],
        now: impl FnOnce() -> Time,
    ) -> Result<bool, (Reason, Overflow)> {
        let len = frame::encoded_len(kind, body.len());
        let at = self.admit(channel, lane, len, body.len(), now)?;
        let queue = &mut *self.queues[at];
        let waited = !queue.frames.is_empty();
        queue.waits.push(self.stamps.now(), len);
        if len <= SHARED_FRAME_BYTES_MAX {
            queue.frames.push_message(kind, body, len);
        } else {
            queue.frames.push(frame::encode(kind, body));
        }
        self.check();
        Ok(waited)
    }

    /// Queues a message that is dropped when it still waits at its deadline. On a channel that keeps the latest it is a message as any other: the newest
    /// always arrives.
    ///
    /// # Errors
    ///
    /// As [`State::push_message`].
    pub fn push_until(
        &mut self,
        channel: ChannelId,
        lane: u8,
        kind: u16,
        body: &[u8],
        deadline: Time,
        now: Time,
    ) -> Result<bool, (Reason, Overflow)> {
        let waited = self.push_message(channel, lane, kind, body, || now)?;
        if let Some((_, at)) = self.place(channel, lane) {
            self.queues[at].frames.set_deadline(deadline);
            self.has_deadlines = true;
        }
        Ok(waited)
    }

    /// Queues a message without copying it when it is large.
    ///
    /// # Errors
    ///
    /// As [`State::push_message`].
    pub fn push_shared(
        &mut self,
        channel: ChannelId,
        lane: u8,
        kind: u16,
        body: Bytes,
        now: impl FnOnce() -> Time,
    ) -> Result<bool, (Reason, Overflow)> {
        let len = frame::encoded_len(kind, body.len());
        if len <= SHARED_FRAME_BYTES_MAX {
            return self.push_message(channel, lane, kind, &body, now);
        }
        let at = self.admit(channel, lane, len, body.len(), now)?;
        let queue = &mut *self.queues[at];
        let waited = !queue.frames.is_empty();
        queue.waits.push(self.stamps.now(), len);
        queue.frames.push_shared(kind, body, len);
        self.check();
        Ok(waited)
    }

    /// Queues a whole frame on a channel that keeps the latest of each key: one that waits with the same key is replaced where it stands.
    ///
    /// # Errors
    ///
    /// As [`State::push`]; a frame that replaces another is refused only when it is larger and there is no room for the difference.
    pub fn push_latest(&mut self, channel: ChannelId, key: Bytes, frame: Bytes, now: Time) -> Result<(), Refused> {
        self.set_now(now);
        let body_len = frame::body_len(&frame);
        let place = self.params.index(channel).and_then(|index| Some((index, self.queues[self.params.lanes[index]].frames.place(&key)?)));
        if let Some((index, at)) = place {
            let queue = self.params.lanes[index];
            let before = self.queues[queue].frames.len_at(at);
            // As if the old one had left, so that limits and counters see one of them.
            self.release(index, 1, before);
            let admitted = self.admit(channel, 0, frame.len(), body_len, || now);
            return match admitted {
                Ok(_) => {
                    self.channels[index].counters.superseded += 1;
                    self.queues[queue].waits.dropped += 1;
                    self.queues[queue].frames.replace(at, frame, self.stamps.now());
                    self.check();
                    Ok(())
                }
                Err((reason, overflow)) => {
                    self.hold(index, 1, before);
                    self.check();
                    Err(Refused { frame, reason, overflow })
                }
            };
        }
        match self.admit(channel, 0, frame.len(), body_len, || now) {
            Ok(queue) => {
                self.queues[queue].frames.push_latest(key, frame, self.stamps.now());
                self.check();
                Ok(())
            }
            Err((reason, overflow)) => Err(Refused { frame, reason, overflow }),
        }
    }

    /// Makes room for a frame, or says why there is none. The caller puts it into the queue with the number that is returned.
    #[inline]
    fn admit(
        &mut self,
        channel: ChannelId,
        lane: u8,
        len: usize,
        body_len: usize,
        now: impl FnOnce() -> Time,
    ) -> Result<usize, (Reason, Overflow)> {
        let Some((index, at)) = self.place(channel, lane) else {
            self.unknown += 1;
            return Err((Reason::UnknownChannel, Overflow::Refuse));
        };
        if self.lacks_room(index, len).is_some() {
            self.make_room(index, at, len)?;
        }
        let (channel, queue) = (&mut self.channels[index], &mut *self.queues[at]);
        let is_first = queue.frames.is_empty();
        let now = self.stamps.stamp(is_first, now);
        if is_first {
            if channel.queued.frames == 0 {
                channel.busy.begin(now);
                channel.turn = channel.turn.max(self.classes[self.params.channels[index].class as usize].clock);
            }
            queue.turn = queue.turn.max(channel.clock);
            self.waiting_since.get_or_insert(now);
        }
        let counters = &mut channel.counters;
        counters.frames += 1;
        counters.bytes += len as u64;
        counters.body_bytes += body_len as u64;
        self.hold(index, 1, len);
        Ok(at)
    }

    /// [`Params::place`](super::Params), without a search for the same as before.
    #[inline]
    pub(super) fn place(&mut self, channel: ChannelId, lane: u8) -> Option<(usize, usize)> {
        if let Some((.., index, at)) = self.recent.filter(|recent| (recent.0, recent.1) == (channel, lane)) {
            return Some((index, at));
        }
        let (index, at) = self.params.place(channel, lane)?;
        self.recent = Some((channel, lane, index, at));
        Some((index, at))
    }

    /// Why a channel has no room for so many bytes.
    #[inline]
    fn lacks_room(&self, index: usize, len: usize) -> Option<Reason> {
        let (spec, queued) = (&self.params.channels[index], self.channels[index].queued);
        if queued.frames >= spec.queued_frames_max || len > spec.queued_bytes_max - queued.bytes {
            Some(Reason::ChannelFull)
        } else if len > self.params.shared_bytes_max - self.shared_bytes && spec.class != Class::Control {
            Some(Reason::PeerFull)
        } else {
            None
        }
    }

    /// Drops what gives way to a frame that there is no room for, where the channel says so.
    #[cold]
    fn make_room(&mut self, index: usize, at: usize, len: usize) -> Result<(), (Reason, Overflow)> {
        let (overflow, bytes_max) = (self.params.channels[index].overflow, self.params.channels[index].queued_bytes_max);
        while let Some(reason) = self.lacks_room(index, len) {
            if overflow == Overflow::DropOldest && len <= bytes_max && self.drop_oldest(index, at) {
                continue;
            }
            self.channels[index].counters.refused += 1;
            self.channels[index].counters.peer_full += u64::from(reason == Reason::PeerFull);
            return Err((reason, overflow));
        }
        Ok(())
    }

    /// Drops the oldest frame of the lane that the new one is for, or of the first lane of the channel that has one to drop; says whether there was any.
    fn drop_oldest(&mut self, index: usize, queue: usize) -> bool {
        let mut lanes = std::iter::once(queue).chain(self.params.lanes[index]..self.params.lanes[index + 1]);
        // Of a frame whose start has left the rest must follow.
        let Some(at) = lanes.find(|lane| !self.queues[*lane].frames.is_empty() && !self.queues[*lane].frames.is_cut()) else {
            return false;
        };
        let dropped = self.drop_next(index, at);
        self.channels[index].counters.superseded += dropped;
        self.channels[index].counters.oldest += dropped;
        true
    }
}
