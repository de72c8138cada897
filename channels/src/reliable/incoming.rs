//! The receiver's half: what arrived, what the application took, and what the sender is told of both.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::{
    AHEAD_MAX, Action, Counters, FIRST, Held, LANES_MAX, LaneIndex, MISSING_RANGES_MAX, Message, POSITIONS_MAX, Params, Position,
    Reliability, Sequence, misbehaved,
};
use crate::channel::ChannelId;
use crate::codec::Bounded;
use crate::error::{DecodeError, Misbehavior};
use crate::time::Time;

/// Lanes that grew beyond this many messages give their memory back when they are empty.
const KEPT_HANDED: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Incoming {
    params: Params,
    /// The life of the peer that the lanes belong to.
    incarnation: Option<u64>,
    is_connected: bool,
    /// One for each channel of the params, in the same order.
    pub(super) channels: Vec<Channel>,
    /// What the application has not taken, of all lives.
    pub(super) untaken: Held,
    /// The part of earlier lives: it still fills the queue of the application.
    pub(super) former: VecDeque<Former>,
    /// Lanes with something to acknowledge.
    to_acknowledge: Vec<LaneIndex>,
    /// Lanes that dropped something and have not asked for it again.
    to_resume: Vec<LaneIndex>,
    /// Bytes taken since the last acknowledgment.
    taken_bytes: usize,
    /// When something was said last, and when it is next.
    said: Option<Time>,
    due: Option<Time>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    /// As many as the highest that was used.
    pub(super) lanes: Vec<Lane>,
    /// What the application has not taken, of all lives.
    pub(super) untaken: Held,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Above every message that arrived or will never come.
    pub(super) next: Sequence,
    /// Messages below `next` that have not arrived, ascending. Always empty for guaranteed ones.
    pub(super) missing: Vec<Range<Sequence>>,
    /// Messages that the application has or had, from the oldest that it has not taken, ascending.
    pub(super) handed: VecDeque<Handed>,
    /// How many of those it took. They leave when they are first, or when they are most.
    taken: usize,
    is_to_acknowledge: bool,
    is_to_resume: bool,
    /// Whether what comes before the sender went back is dropped without a word: it was sent before we asked.
    is_dropping: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Handed {
    sequence: Sequence,
    bytes: usize,
    is_taken: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Former {
    incarnation: u64,
    at: LaneIndex,
    sequence: Sequence,
    bytes: usize,
}

/// What becomes of a message.
enum Verdict {
    Deliver,
    Duplicate,
    /// There is a gap before it.
    Gap,
}

impl Incoming {
    pub(super) fn new(params: Params) -> Self {
        let channels = params.config().channels.iter().map(|_| Channel::default()).collect();
        Incoming {
            params,
            incarnation: None,
            is_connected: false,
            channels,
            untaken: Held::default(),
            former: VecDeque::new(),
            to_acknowledge: Vec::new(),
            to_resume: Vec::new(),
            taken_bytes: 0,
            said: None,
            due: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn untaken(&self) -> Held {
        self.untaken
    }

    pub(super) fn connected(&mut self, incarnation: u64, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        self.disconnected();
        self.is_connected = true;
        if self.incarnation != Some(incarnation) {
            self.forget_life();
            self.incarnation = Some(incarnation);
        }
        // Acknowledgments may have been lost with the last link, and what was taken since was not told at all. They go first: what is
        // acknowledged needs no place to go on from.
        let mut acks = Vec::new();
        let mut resumes = Vec::new();
        for (channel, state) in self.params.config().channels.iter().zip(&mut self.channels) {
            for (lane, state) in (0_u8..).zip(&mut state.lanes) {
                let position = |next| Position { channel: channel.id, lane, next };
                if state.taken_before() > FIRST {
                    acks.push(position(state.taken_before()));
                }
                if state.expected() > FIRST {
                    resumes.push(position(state.expected()));
                }
            }
        }
        if !acks.is_empty() {
            send_acks(&acks, counters, actions);
        }
        send_resumes(&resumes, true, actions);
        self.said = Some(now);
    }

    /// Forgets everything that holds for one link only.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.due = None;
        self.taken_bytes = 0;
        self.to_acknowledge.clear();
        self.to_resume.clear();
        for lane in self.channels.iter_mut().flat_map(|channel| &mut channel.lanes) {
            lane.is_to_acknowledge = false;
            lane.is_to_resume = false;
            lane.is_dropping = false;
        }
    }

    /// The process at the other end is another one: its numbers begin anew. What the application has of the old one stays counted.
    fn forget_life(&mut self) {
        let Some(incarnation) = self.incarnation else { return };
        for (index, channel) in (0_u16..).zip(&mut self.channels) {
            for (number, lane) in (0_u8..).zip(channel.lanes.drain(..)) {
                self.former.extend(lane.handed.into_iter().filter(|handed| !handed.is_taken).map(|handed| Former {
                    incarnation,
                    at: (index, number),
                    sequence: handed.sequence,
                    bytes: handed.bytes,
                }));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input, and the counters of its owner")]
    pub(super) fn on_data(
        &mut self,
        channel: ChannelId,
        lane: u8,
        sequence: Sequence,
        payload: Bytes,
        now: Time,
        counters: &mut Counters,
        actions: &mut Vec<Action>,
    ) {
        let (Some(at), Some(sender_incarnation)) = (self.open(channel, lane), self.incarnation) else {
            return misbehaved(Misbehavior::WrongChannel, counters, actions);
        };
        if sequence == Sequence::MAX {
            // There is no number after it, so it could not be told apart from its copies.
            return misbehaved(Misbehavior::SequenceAhead, counters, actions);
        }
        let len = payload.len();
        let has_room = self.has_room(at.0, 1);
        let reliability = self.params.spec(at.0).reliability;
        let state = &mut self.channels[usize::from(at.0)];
        let state_lane = &mut state.lanes[usize::from(lane)];
        match state_lane.judge(sequence, reliability) {
            Verdict::Deliver if has_room => {
                state_lane.take_in(sequence, len);
                state_lane.is_dropping = false;
                state.untaken.add(len);
                self.untaken.add(len);
                counters.received += 1;
                actions.push(Action::Deliver { channel, lane, sequence, payload, sender_incarnation });
            }
            Verdict::Deliver => {
                counters.dropped += 1;
                state_lane.is_dropping = true;
                self.set_resume(at);
                self.schedule(now, counters, actions);
            }
            Verdict::Duplicate => {
                // The sender may not have what we said of it.
                counters.duplicates += 1;
                self.set_acknowledge(at);
                self.schedule(now, counters, actions);
            }
            Verdict::Gap => {
                self.drop_behind_gap(at, now, counters, actions);
            }
        }
    }

    /// Drops what has a gap before it. Where we dropped something ourselves, the gap is our own: all of it comes again once the sender went
    /// back. Anything else is a fault, of which the lane recovers in the same way.
    fn drop_behind_gap(&mut self, at: LaneIndex, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        counters.dropped += 1;
        if !std::mem::replace(&mut self.lane(at).is_dropping, true) {
            misbehaved(Misbehavior::SequenceAhead, counters, actions);
            self.set_resume(at);
            self.schedule(now, counters, actions);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, and the counters of its owner")]
    pub(super) fn on_skip(
        &mut self,
        channel: ChannelId,
        lane: u8,
        from: Sequence,
        to: Sequence,
        now: Time,
        counters: &mut Counters,
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.open(channel, lane) else { return misbehaved(Misbehavior::WrongChannel, counters, actions) };
        if from < FIRST || from >= to {
            return misbehaved(Misbehavior::Undecodable(DecodeError::Invalid), counters, actions);
        }
        let reliability = self.params.spec(at.0).reliability;
        let lane = self.lane(at);
        let before = lane.taken_before();
        if lane.skip(from, to, reliability) {
            lane.is_dropping = false;
            // What only waited for these may be acknowledged now, and the application may take nothing more that would cause it.
            if reliability == Reliability::AtLeastOnce && lane.taken_before() > before {
                self.set_acknowledge(at);
                self.schedule(now, counters, actions);
            }
        } else {
            self.drop_behind_gap(at, now, counters, actions);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input, and the counters of its owner")]
    pub(super) fn on_taken(
        &mut self,
        incarnation: u64,
        channel: ChannelId,
        lane: u8,
        sequence: Sequence,
        now: Time,
        counters: &mut Counters,
        actions: &mut Vec<Action>,
    ) {
        let Some(index) = self.params.index(channel) else { return };
        let at = (index, lane);
        let bytes = if self.incarnation == Some(incarnation) {
            let lane = self.channels[usize::from(index)].lanes.get_mut(usize::from(lane));
            let Some((bytes, advanced)) = lane.and_then(|lane| lane.take(sequence)) else { return };
            self.taken_bytes = self.taken_bytes.saturating_add(bytes);
            if advanced {
                self.set_acknowledge(at);
            }
            bytes
        } else {
            let is_it = |former: &Former| former.incarnation == incarnation && former.at == at && former.sequence == sequence;
            let Some(place) = self.former.iter().position(is_it) else { return };
            self.former.remove(place).map_or(0, |former| former.bytes)
        };
        self.channels[usize::from(index)].untaken.remove(bytes);
        self.untaken.remove(bytes);
        self.schedule(now, counters, actions);
    }

    pub(super) fn on_deadline(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        if self.due.is_some_and(|due| due <= now) {
            self.say(now, counters, actions);
        }
    }

    /// Says what there is to say: at once after a quiet time or much that was taken, else when the delay is over.
    fn schedule(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        if !self.is_connected || (self.to_acknowledge.is_empty() && self.to_resume.is_empty()) {
            return;
        }
        let config = self.params.config();
        let due = self.said.map_or(now, |said| said + config.ack_delay);
        if due <= now || (self.taken_bytes >= config.ack_bytes && !self.to_acknowledge.is_empty()) {
            self.say(now, counters, actions);
        } else {
            self.due = Some(due);
        }
    }

    fn say(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        self.due = None;
        let acks: Vec<Position> = std::mem::take(&mut self.to_acknowledge)
            .into_iter()
            .map(|at| {
                let channel = self.params.spec(at.0).id;
                let lane = self.lane(at);
                lane.is_to_acknowledge = false;
                Position { channel, lane: at.1, next: lane.taken_before() }
            })
            .collect();
        if !acks.is_empty() {
            send_acks(&acks, counters, actions);
            self.taken_bytes = 0;
        }
        let mut resumes = Vec::new();
        for at in std::mem::take(&mut self.to_resume) {
            // With room for one more message it would be dropped again soon, so half must be free. What the application takes next asks
            // again.
            if self.has_room(at.0, 2) {
                let channel = self.params.spec(at.0).id;
                let lane = self.lane(at);
                lane.is_to_resume = false;
                resumes.push(Position { channel, lane: at.1, next: lane.expected() });
            } else {
                self.to_resume.push(at);
            }
        }
        if !resumes.is_empty() {
            send_resumes(&resumes, false, actions);
        }
        if !(acks.is_empty() && resumes.is_empty()) {
            self.said = Some(now);
        }
    }

    /// The lane, made if it is new; `None` when there can be none. It expects the first message then.
    fn open(&mut self, channel: ChannelId, lane: u8) -> Option<LaneIndex> {
        let index = self.params.index(channel).filter(|_| lane < LANES_MAX)?;
        let lanes = &mut self.channels[usize::from(index)].lanes;
        if lanes.len() <= usize::from(lane) {
            lanes.resize_with(usize::from(lane) + 1, Lane::new);
        }
        Some((index, lane))
    }

    /// Whether there is room within one `part`th of the limits.
    fn has_room(&self, channel: u16, part: usize) -> bool {
        let (config, channel) = (self.params.config(), &self.channels[usize::from(channel)].untaken);
        channel.is_below(config.untaken_messages_max.div_ceil(part), config.untaken_bytes_max.div_ceil(part))
            && self.untaken.is_below(config.untaken_peer_messages_max.div_ceil(part), config.untaken_peer_bytes_max.div_ceil(part))
    }

    fn set_acknowledge(&mut self, at: LaneIndex) {
        if !std::mem::replace(&mut self.lane(at).is_to_acknowledge, true) {
            self.to_acknowledge.push(at);
        }
    }

    fn set_resume(&mut self, at: LaneIndex) {
        if !std::mem::replace(&mut self.lane(at).is_to_resume, true) {
            self.to_resume.push(at);
        }
    }

    fn lane(&mut self, at: LaneIndex) -> &mut Lane {
        &mut self.channels[usize::from(at.0)].lanes[usize::from(at.1)]
    }
}

impl Lane {
    fn new() -> Self {
        Lane {
            next: FIRST,
            missing: Vec::new(),
            handed: VecDeque::new(),
            taken: 0,
            is_to_acknowledge: false,
            is_to_resume: false,
            is_dropping: false,
        }
    }

    /// The oldest message that has not arrived.
    fn expected(&self) -> Sequence {
        self.missing.first().map_or(self.next, |range| range.start)
    }

    /// The application took everything before this.
    fn taken_before(&self) -> Sequence {
        self.handed.front().map_or(self.next, |handed| handed.sequence).min(self.expected())
    }

    fn judge(&self, sequence: Sequence, reliability: Reliability) -> Verdict {
        if sequence < self.next {
            return match self.missing.iter().any(|range| range.contains(&sequence)) {
                true if self.can_fill(&(sequence..sequence + 1)) => Verdict::Deliver,
                true => Verdict::Gap,
                false => Verdict::Duplicate,
            };
        }
        if sequence == self.next || (reliability == Reliability::AtLeastOnce && self.reaches(sequence)) {
            Verdict::Deliver
        } else {
            Verdict::Gap
        }
    }

    /// Whether something may come this early, leaving a gap.
    fn reaches(&self, sequence: Sequence) -> bool {
        self.missing.len() < MISSING_RANGES_MAX && sequence - self.expected() < AHEAD_MAX
    }

    /// Takes in a message that was judged to be delivered.
    fn take_in(&mut self, sequence: Sequence, bytes: usize) {
        let handed = Handed { sequence, bytes, is_taken: false };
        if sequence < self.next {
            self.fill(sequence..sequence + 1);
            let place = self.handed.partition_point(|handed| handed.sequence < sequence);
            self.handed.insert(place, handed);
            return;
        }
        if sequence > self.next {
            self.missing.push(self.next..sequence);
        }
        self.next = sequence + 1;
        self.handed.push_back(handed);
    }

    /// Whether a range can be removed from the missing ones: out of the middle of one, it makes two of it.
    fn can_fill(&self, range: &Range<Sequence>) -> bool {
        self.missing.len() < MISSING_RANGES_MAX
            || !self.missing.iter().any(|missing| missing.start < range.start && range.end < missing.end)
    }

    /// Removes a range from the missing ones.
    fn fill(&mut self, range: Range<Sequence>) {
        let mut rest = Vec::with_capacity(self.missing.len() + 1);
        for missing in self.missing.drain(..) {
            let before = missing.start..missing.end.min(range.start);
            let after = missing.start.max(range.end)..missing.end;
            rest.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
        self.missing = rest;
    }

    /// Takes note that messages will never come; says whether that could be.
    fn skip(&mut self, from: Sequence, to: Sequence, reliability: Reliability) -> bool {
        if from > self.next {
            if reliability == Reliability::Guaranteed || !self.reaches(from) {
                return false;
            }
            self.missing.push(self.next..from);
        } else if self.can_fill(&(from..to)) {
            self.fill(from..to);
        } else {
            return false;
        }
        self.next = self.next.max(to);
        true
    }

    /// Takes note that the application took a message: its bytes, and whether there is more to acknowledge. `None` when it does not have
    /// it.
    fn take(&mut self, sequence: Sequence) -> Option<(usize, bool)> {
        let before = self.taken_before();
        let place = match self.handed.front()? {
            first if first.sequence == sequence => 0,
            _ => self.handed.binary_search_by_key(&sequence, |handed| handed.sequence).ok()?,
        };
        let handed = self.handed.get_mut(place).filter(|handed| !handed.is_taken)?;
        handed.is_taken = true;
        let bytes = handed.bytes;
        self.taken += 1;
        while self.handed.pop_front_if(|handed| handed.is_taken).is_some() {
            self.taken -= 1;
        }
        if self.handed.is_empty() && self.handed.capacity() > KEPT_HANDED {
            self.handed = VecDeque::new();
        }
        // An application that never takes the first one must not make this grow.
        if self.taken > KEPT_HANDED && self.taken * 2 > self.handed.len() {
            self.handed.retain(|handed| !handed.is_taken);
            self.taken = 0;
        }
        Some((bytes, self.taken_before() > before))
    }
}

fn send_acks(positions: &[Position], counters: &mut Counters, actions: &mut Vec<Action>) {
    for positions in positions.chunks(POSITIONS_MAX) {
        counters.acks += 1;
        actions.push(Action::Send { on: None, message: Message::Ack(Bounded::first_of(positions.iter().copied())) });
    }
}

/// At least one message when it is the `last`.
fn send_resumes(positions: &[Position], last: bool, actions: &mut Vec<Action>) {
    let mut rest = positions;
    loop {
        let (positions, after) = rest.split_at(rest.len().min(POSITIONS_MAX));
        rest = after;
        let positions = Bounded::first_of(positions.iter().copied());
        actions.push(Action::Send { on: None, message: Message::Resume { positions, last: last && rest.is_empty() } });
        if rest.is_empty() {
            return;
        }
    }
}
