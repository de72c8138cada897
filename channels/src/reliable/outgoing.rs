//! The sender's half: what is kept for the peer, and what of it is on the wire.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Counters, FIRST, Held, LaneIndex, Message, Params, Position, Reason, Refused, Reliability, Sequence, misbehaved};
use crate::channel::ChannelId;
use crate::error::Misbehavior;
use crate::limits;
use crate::time::Time;
use crate::timers::Timers;

/// The least time between two searches of a lane for messages whose time is over. A search costs as much as messages wait there, so
/// deadlines that lie close together share one.
const SWEEP: Duration = Duration::from_millis(10);

/// Lanes that grew beyond this many messages give their memory back when they are empty.
const KEPT_SLOTS: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) params: Params,
    /// One for each channel of the params, in the same order.
    pub(super) channels: Vec<Channel>,
    pub(super) kept: Held,
    is_connected: bool,
    timers: Timers<Key>,
    /// The number of the first message on each lane.
    first: Sequence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The peer has not said what it has.
    Resume,
    /// A resend that came too soon after the last.
    Rewind(LaneIndex),
    /// A message went unacknowledged for long.
    Retransmit(LaneIndex),
    /// The time of a waiting message is over.
    Sweep(LaneIndex),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    /// Empty until the first message.
    pub(super) lanes: Vec<Lane>,
    pub(super) kept: Held,
    /// What is on the wire of the present link, or held by the receiver, and not acknowledged.
    pub(super) in_flight: Held,
    /// The lane that goes next when lanes wait for room.
    turn: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// What was on the wire of any link, in the order of the sequences.
    pub(super) sent: VecDeque<Slot>,
    /// How many of those were on the wire of the present link, or are with the receiver as it said.
    pub(super) cursor: usize,
    /// What was never on the wire: the only messages that may expire. They follow those of `sent`.
    pub(super) waiting: VecDeque<Slot>,
    /// The number of the next message.
    pub(super) next: Sequence,
    /// Above every number that a receiver can have heard of.
    reached: Sequence,
    /// What the receiver expects next, once it has read what is on the wire of the present link.
    expected: Sequence,
    /// The last acknowledgment on the present link.
    acked: Sequence,
    /// Whether messages may go on the wire: there is a link, and it is known where to begin.
    is_ready: bool,
    /// When the last resend began that the receiver asked for within a link, and whether the next one waits for its time.
    rewound: Option<Time>,
    is_held: bool,
    /// When the earliest deadline of the waiting messages is looked for.
    sweep: Time,
    /// How long the oldest message may stay unacknowledged now.
    patience: Duration,
    is_retransmit_set: bool,
    /// Whether the oldest message was sent twice on this link, so that others may be missing too.
    is_retrying: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) sequence: Sequence,
    pub(super) payload: Bytes,
    /// `Time::MAX` for none.
    deadline: Time,
    /// When it was put on the wire last.
    sent: Time,
}

impl Outgoing {
    pub(super) fn new(params: Params, first: Sequence) -> Self {
        let channels = params.config().channels.iter().map(|_| Channel::default()).collect();
        Outgoing { params, channels, kept: Held::default(), is_connected: false, timers: Timers::new(), first }
    }

    /// Above every number that was given to a message.
    pub(super) fn next(&self) -> Sequence {
        self.channels.iter().flat_map(|channel| &channel.lanes).map(|lane| lane.next).max().unwrap_or(self.first)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    pub(super) fn kept(&self) -> Held {
        self.kept
    }

    pub(super) fn kept_on(&self, channel: ChannelId) -> Held {
        self.params.index(channel).map_or_else(Held::default, |index| self.channels[usize::from(index)].kept)
    }

    #[expect(clippy::too_many_arguments, reason = "the public verb, and the counters of its owner")]
    pub(super) fn send(
        &mut self,
        channel: ChannelId,
        lane: u8,
        payload: Bytes,
        deadline: Option<Time>,
        now: Time,
        counters: &mut Counters,
        actions: &mut Vec<Action>,
    ) -> Result<Sequence, Refused> {
        let len = payload.len();
        let index = match self.admit(channel, lane, len) {
            Ok(index) => index,
            Err(reason) => {
                counters.refused += 1;
                return Err(Refused { payload, reason });
            }
        };
        let at = (index, lane);
        let channel = &mut self.channels[usize::from(index)];
        let lane = &mut channel.lanes[usize::from(lane)];
        let sequence = lane.next;
        lane.next += 1;
        let is_first = lane.waiting.is_empty();
        let deadline = deadline.unwrap_or(Time::MAX);
        lane.waiting.push_back(Slot { sequence, payload, deadline, sent: now });
        channel.kept.add(len);
        self.kept.add(len);
        counters.accepted += 1;
        counters.high.messages = counters.high.messages.max(self.kept.messages);
        counters.high.bytes = counters.high.bytes.max(self.kept.bytes);
        // Whoever waits already waits for room, so nobody is overtaken here.
        if is_first {
            self.transmit_next(at, now, counters, actions);
        }
        if deadline < Time::MAX && !self.lane(at).waiting.is_empty() {
            self.set_sweep(at, deadline);
        }
        Ok(sequence)
    }

    /// Where the channel stands, if a message of `len` bytes may enter the lane.
    fn admit(&mut self, channel: ChannelId, lane: u8, len: usize) -> Result<u16, Reason> {
        let index = self.params.index(channel).ok_or(Reason::UnknownLane)?;
        let (spec, config) = (self.params.spec(index), self.params.config());
        let channel = &mut self.channels[usize::from(index)];
        if lane >= spec.lanes {
            return Err(Reason::UnknownLane);
        }
        if len > limits::MESSAGE_BYTES_MAX {
            return Err(Reason::TooLarge);
        }
        if !channel.kept.takes(len, spec.window_messages_max, spec.window_bytes_max) {
            return Err(Reason::ChannelFull);
        }
        if !self.kept.takes(len, config.peer_messages_max, config.peer_bytes_max) {
            return Err(Reason::PeerFull);
        }
        if channel.lanes.is_empty() {
            channel.lanes = (0..spec.lanes).map(|_| Lane::new(self.first, self.is_connected, config.retransmit)).collect();
        }
        if channel.lanes[usize::from(lane)].next == Sequence::MAX {
            return Err(Reason::Exhausted);
        }
        Ok(index)
    }

    pub(super) fn connected(&mut self, same_life: bool, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        self.reset_link();
        self.is_connected = true;
        let mut must_wait = false;
        for lane in self.channels.iter_mut().flat_map(|channel| &mut channel.lanes) {
            // A receiver that never heard of the lane has nothing to say about it.
            lane.is_ready = !same_life || lane.reached == FIRST;
            must_wait |= !lane.is_ready;
        }
        if must_wait {
            self.timers.set(Key::Resume, now + self.params.config().resume_wait);
        }
        self.transmit_all(now, counters, actions);
    }

    pub(super) fn disconnected(&mut self) {
        self.reset_link();
        self.is_connected = false;
    }

    /// Forgets everything that holds for one link only.
    fn reset_link(&mut self) {
        let retransmit = self.params.config().retransmit;
        self.timers.cancel(&Key::Resume);
        for (index, channel) in (0_u16..).zip(&mut self.channels) {
            channel.in_flight = Held::default();
            for (number, lane) in (0_u8..).zip(&mut channel.lanes) {
                lane.cursor = 0;
                lane.expected = FIRST;
                lane.acked = FIRST;
                lane.is_ready = false;
                lane.rewound = None;
                lane.is_retrying = false;
                lane.patience = retransmit;
                if std::mem::take(&mut lane.is_held) {
                    self.timers.cancel(&Key::Rewind((index, number)));
                }
                if std::mem::take(&mut lane.is_retransmit_set) {
                    self.timers.cancel(&Key::Retransmit((index, number)));
                }
            }
        }
    }

    pub(super) fn on_ack(&mut self, positions: &[Position], now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        for position in positions {
            if let Err(what) = self.acknowledge(position, now, counters, actions) {
                misbehaved(what, counters, actions);
            }
        }
    }

    fn acknowledge(
        &mut self,
        position: &Position,
        now: Time,
        counters: &mut Counters,
        actions: &mut Vec<Action>,
    ) -> Result<(), Misbehavior> {
        let index = self.check_position(position)?;
        let at = (index, position.lane);
        let retransmit = self.params.config().retransmit;
        let channel = &mut self.channels[usize::from(index)];
        let lane = &mut channel.lanes[usize::from(position.lane)];
        lane.acked = position.next;
        // It has all of that, so it expects no less, whatever it says later about where to go on.
        lane.expected = lane.expected.max(position.next);
        let mut last = None;
        while let Some(slot) = lane.sent.pop_front_if(|slot| slot.sequence < position.next) {
            let len = slot.payload.len();
            if lane.cursor > 0 {
                lane.cursor -= 1;
                channel.in_flight.remove(len);
            }
            channel.kept.remove(len);
            self.kept.remove(len);
            counters.delivered += 1;
            last = Some(slot.sequence);
        }
        let Some(sequence) = last else { return Ok(()) };
        if lane.sent.is_empty() && lane.sent.capacity() > KEPT_SLOTS {
            lane.sent = VecDeque::new();
        }
        actions.push(Action::Delivered { channel: position.channel, lane: position.lane, sequence });
        lane.patience = retransmit;
        if lane.is_retrying {
            // What was sent again was missing, so what followed it may be missing too: there is no use in waiting for each of them.
            lane.is_retrying = lane.cursor > 0 && lane.sent.front().is_some_and(|slot| slot.sent + retransmit <= now);
            if lane.is_retrying {
                lane.is_retransmit_set = true;
                self.timers.set(Key::Retransmit(at), now);
            }
        }
        self.transmit_channel(index, now, counters, actions);
        Ok(())
    }

    /// Where the channel of a position stands, if the receiver can be there.
    fn check_position(&self, position: &Position) -> Result<u16, Misbehavior> {
        let index = self.params.index(position.channel).ok_or(Misbehavior::Unasked)?;
        let lane = self.channels[usize::from(index)].lanes.get(usize::from(position.lane)).ok_or(Misbehavior::Unasked)?;
        if position.next > lane.reached {
            return Err(Misbehavior::SequenceAhead);
        }
        if position.next < lane.acked {
            return Err(Misbehavior::SequenceBehind);
        }
        Ok(index)
    }

    pub(super) fn on_resume(&mut self, positions: &[Position], last: bool, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        for position in positions {
            if let Err(what) = self.resume(position, now, counters, actions) {
                misbehaved(what, counters, actions);
            }
        }
        // Only a new link makes lanes wait for this, so a peer that repeats it costs nothing.
        if last && self.timers.cancel(&Key::Resume) {
            self.resume_rest(now, counters, actions);
        }
    }

    fn resume(&mut self, position: &Position, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) -> Result<(), Misbehavior> {
        let index = self.check_position(position)?;
        let at = (index, position.lane);
        let ack_delay = self.params.config().ack_delay;
        let channel = &mut self.channels[usize::from(index)];
        let lane = &mut channel.lanes[usize::from(position.lane)];
        if lane.is_held {
            return Err(Misbehavior::TooManyRequests);
        }
        if lane.is_ready && position.next == lane.expected {
            return Ok(());
        }
        let is_rewind = lane.is_ready && position.next < lane.expected;
        lane.expected = position.next;
        while let Some(slot) = lane.cursor.checked_sub(1).map(|before| &lane.sent[before]).filter(|slot| slot.sequence >= position.next) {
            channel.in_flight.remove(slot.payload.len());
            lane.cursor -= 1;
        }
        while let Some(slot) = lane.sent.get(lane.cursor).filter(|slot| slot.sequence < position.next) {
            channel.in_flight.add(slot.payload.len());
            lane.cursor += 1;
        }
        lane.is_ready = true;
        if is_rewind {
            // Each resend is asked for, and a peer may ask for it without end: its own delay between two acknowledgments is between two of
            // them.
            let allowed = lane.rewound.map_or(now, |rewound| rewound + ack_delay);
            if allowed > now {
                lane.is_ready = false;
                lane.is_held = true;
                self.timers.set(Key::Rewind(at), allowed);
            }
            lane.rewound = Some(allowed.max(now));
        }
        self.set_retransmit(at, now);
        self.transmit_channel(index, now, counters, actions);
        Ok(())
    }

    /// Begins on the lanes that the receiver did not name.
    fn resume_rest(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        for lane in self.channels.iter_mut().flat_map(|channel| &mut channel.lanes) {
            lane.is_ready |= !lane.is_held;
        }
        self.transmit_all(now, counters, actions);
    }

    pub(super) fn on_deadline(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        while let Some((_, key)) = self.timers.pop_due(now) {
            match key {
                Key::Resume => self.resume_rest(now, counters, actions),
                Key::Rewind(at) => {
                    let lane = self.lane(at);
                    lane.is_held = false;
                    lane.is_ready = true;
                    self.transmit_channel(at.0, now, counters, actions);
                }
                Key::Retransmit(at) => self.on_retransmit_due(at, now, counters, actions),
                Key::Sweep(at) => self.on_sweep_due(at, now, counters, actions),
            }
        }
    }

    fn on_retransmit_due(&mut self, at: LaneIndex, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        let (channel, retransmit_max) = (self.params.spec(at.0).id, self.params.config().retransmit_max);
        let lane = self.lane(at);
        lane.is_retransmit_set = false;
        if !lane.is_ready || lane.cursor == 0 {
            return;
        }
        let patience = lane.patience;
        let Some(slot) = lane.sent.front_mut() else { return };
        if slot.sent + patience <= now {
            // Only the oldest: acknowledgments are cumulative, so its absence may be all that holds back the others.
            slot.sent = now;
            counters.resent += 1;
            actions.push(Action::Transmit { channel, lane: at.1, sequence: slot.sequence, payload: slot.payload.clone() });
            lane.patience = patience.saturating_mul(2).min(retransmit_max);
            lane.is_retrying = true;
        }
        let due = lane.sent.front().map_or(now, |slot| slot.sent) + lane.patience;
        lane.is_retransmit_set = true;
        self.timers.set(Key::Retransmit(at), due);
    }

    fn on_sweep_due(&mut self, at: LaneIndex, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        let id = self.params.spec(at.0).id;
        let channel = &mut self.channels[usize::from(at.0)];
        let lane = &mut channel.lanes[usize::from(at.1)];
        let mut earliest = Time::MAX;
        lane.waiting.retain(|slot| {
            let stays = slot.deadline > now;
            if stays {
                earliest = earliest.min(slot.deadline);
            } else {
                channel.kept.remove(slot.payload.len());
                self.kept.remove(slot.payload.len());
                counters.expired += 1;
                actions.push(Action::Expired { channel: id, lane: at.1, sequence: slot.sequence });
            }
            stays
        });
        lane.sweep = Time::MAX;
        if earliest < Time::MAX {
            self.set_sweep(at, earliest.max(now + SWEEP));
        }
    }

    pub(super) fn abandon(&mut self, counters: &mut Counters, actions: &mut Vec<Action>) {
        for index in (0_u16..).take(self.channels.len()) {
            self.abandon_at(index, counters, actions);
        }
    }

    pub(super) fn abandon_on(&mut self, channel: ChannelId, counters: &mut Counters, actions: &mut Vec<Action>) {
        if let Some(index) = self.params.index(channel) {
            self.abandon_at(index, counters, actions);
        }
    }

    fn abandon_at(&mut self, index: u16, counters: &mut Counters, actions: &mut Vec<Action>) {
        let id = self.params.spec(index).id;
        let channel = &mut self.channels[usize::from(index)];
        for (number, lane) in (0_u8..).zip(&mut channel.lanes) {
            let sent = lane.sent.drain(..).map(|slot| (slot, true));
            for (slot, transmitted) in sent.chain(lane.waiting.drain(..).map(|slot| (slot, false))) {
                counters.undelivered += 1;
                let Slot { sequence, payload, .. } = slot;
                actions.push(Action::Undelivered { channel: id, lane: number, sequence, payload, transmitted });
            }
            lane.cursor = 0;
        }
        self.kept.messages -= channel.kept.messages;
        self.kept.bytes -= channel.kept.bytes;
        channel.kept = Held::default();
        channel.in_flight = Held::default();
    }

    fn transmit_all(&mut self, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        for index in (0_u16..).take(self.channels.len()) {
            self.transmit_channel(index, now, counters, actions);
        }
    }

    /// Puts on the wire what there is room for, one message of each lane in turn.
    fn transmit_channel(&mut self, index: u16, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) {
        let lanes = self.channels[usize::from(index)].lanes.len();
        let mut idle = 0;
        while idle < lanes {
            let turn = self.channels[usize::from(index)].turn % lanes;
            let did = u8::try_from(turn).is_ok_and(|lane| self.transmit_next((index, lane), now, counters, actions));
            idle = if did { 0 } else { idle + 1 };
            self.channels[usize::from(index)].turn = turn + 1;
        }
    }

    /// Puts the next message of a lane on the wire, if there is one and it may.
    fn transmit_next(&mut self, at: LaneIndex, now: Time, counters: &mut Counters, actions: &mut Vec<Action>) -> bool {
        let config = self.params.config();
        let id = self.params.spec(at.0).id;
        let channel = &mut self.channels[usize::from(at.0)];
        let lane = &mut channel.lanes[usize::from(at.1)];
        if !lane.is_ready {
            return false;
        }
        if lane.cursor == lane.sent.len() {
            // What is over is not worth the wire. Nothing was said of it yet, so it leaves no trace but the gap in the numbers.
            while let Some(slot) = lane.waiting.pop_front_if(|slot| slot.deadline <= now) {
                channel.kept.remove(slot.payload.len());
                self.kept.remove(slot.payload.len());
                counters.expired += 1;
                actions.push(Action::Expired { channel: id, lane: at.1, sequence: slot.sequence });
            }
        }
        let slot = lane.sent.get(lane.cursor).or(lane.waiting.front());
        let Some(len) = slot.map(|slot| slot.payload.len()) else { return false };
        if !channel.in_flight.is_below(config.in_flight_messages_max, config.in_flight_bytes_max) {
            return false;
        }
        if lane.cursor < lane.sent.len() {
            counters.resent += 1;
        } else {
            counters.transmitted += 1;
            lane.sent.extend(lane.waiting.pop_front());
        }
        let slot = &mut lane.sent[lane.cursor];
        slot.sent = now;
        if slot.sequence > lane.expected {
            let message = Message::Skip { channel: id, lane: at.1, from: lane.expected, to: slot.sequence };
            actions.push(Action::Send { on: Some((id, at.1)), message });
        }
        lane.expected = slot.sequence + 1;
        lane.reached = lane.reached.max(lane.expected);
        lane.cursor += 1;
        channel.in_flight.add(len);
        actions.push(Action::Transmit { channel: id, lane: at.1, sequence: slot.sequence, payload: slot.payload.clone() });
        self.set_retransmit(at, now);
        true
    }

    fn set_retransmit(&mut self, at: LaneIndex, now: Time) {
        if self.params.spec(at.0).reliability == Reliability::AtLeastOnce {
            let lane = self.lane(at);
            if lane.cursor > 0 && !lane.is_retransmit_set {
                lane.is_retransmit_set = true;
                let due = now + lane.patience;
                self.timers.set(Key::Retransmit(at), due);
            }
        }
    }

    fn set_sweep(&mut self, at: LaneIndex, due: Time) {
        let lane = self.lane(at);
        if due < lane.sweep {
            lane.sweep = due;
            self.timers.set(Key::Sweep(at), due);
        }
    }

    fn lane(&mut self, at: LaneIndex) -> &mut Lane {
        &mut self.channels[usize::from(at.0)].lanes[usize::from(at.1)]
    }
}

impl Lane {
    fn new(first: Sequence, is_ready: bool, patience: Duration) -> Self {
        Lane {
            sent: VecDeque::new(),
            cursor: 0,
            waiting: VecDeque::new(),
            next: first,
            reached: first,
            expected: FIRST,
            acked: FIRST,
            is_ready,
            rewound: None,
            is_held: false,
            sweep: Time::MAX,
            patience,
            is_retransmit_set: false,
            is_retrying: false,
        }
    }
}
