//! Messages that survive the connection: what one peer is sent is kept until the application there took it, however often the link breaks.
//!
//! One core for each peer, both directions in it. A message belongs to a lane of a channel and has a sequence number there, counted from 1
//! in each life (incarnation) of the sender's process. The sender keeps it in a bounded window until it is acknowledged; the receiver
//! acknowledges when the application took it, not when it arrived. There is no paper behind this: it is a resend window with cumulative
//! acknowledgments as TCP has it (RFC 9293), one level up, where it outlives the connection.
//!
//! # What is promised
//!
//! 1. [`Reliability::Guaranteed`]: while both processes live, every message reaches the application once, and in the order of its lane.
//! 2. [`Reliability::AtLeastOnce`]: the same without the order when something was resent; and what a connected receiver does not
//!    acknowledge is sent again after a while, for transports and applications that lose messages without losing the connection.
//! 3. When the receiver's process starts anew, what it did not acknowledge is delivered again under the same (incarnation, sequence), by
//!    which an application can make the effect happen once. When the sender's process starts anew, what it had not delivered is gone with
//!    it.
//! 4. Nothing disappears in silence: a message ends as [`Action::Delivered`], [`Action::Expired`] or [`Action::Undelivered`]. One that is
//!    not accepted is given back ([`Refused`]).
//!
//! # How
//!
//! 1. On one connection a lane is a stream in order, so nothing is sent twice there. A new connection begins with an [`Message::Ack`] and a
//!    [`Message::Resume`] from each side: what was taken and, for each lane, which message is expected next. From there the sender goes on.
//!    Lanes that are not named begin with the oldest message that is kept. A sender that is not told for [`Config::resume_wait`] begins
//!    there too; the receiver drops what it has.
//! 2. A receiver expects message 1 on a lane that it knows nothing of. Wherever the sender cannot send what is expected, because it was
//!    acknowledged by an earlier life of the receiver or because it expired, it says so first ([`Message::Skip`]). So every other jump is a
//!    fault of the peer.
//! 3. An application that takes slowly stops the sender through the missing acknowledgments: what is on the wire is limited. A receiver
//!    whose own limit is lower than what is sent to it drops the rest, and asks with a `Resume` to go on from there when half of its room
//!    is free.
//! 4. A time to live counts until the message is put on the wire for the first time. After that nobody can know whether it arrived, and it
//!    is kept like any other.
//! 5. Acknowledgments leave at once after a quiet time, else every [`Config::ack_delay`] or [`Config::ack_bytes`], whichever comes
//!    first. So a sender with a full window waits for at most that delay and a round trip after the application took something.
//!
//! # Bounds
//!
//! Sending: the windows of [`Config`], in messages and bytes for each channel and for the peer. Receiving: this core holds no payload, only
//! 24 bytes for each message that the application has not taken; how many those are, and their bytes, is limited for each channel and for
//! the peer, so that the queue of the application is limited too. That includes messages of earlier lives of the sender. Otherwise a peer
//! can make us hold [`LANES_MAX`] lanes for each configured channel with [`MISSING_RANGES_MAX`] ranges each. It can make us resend a lane
//! once for each `ack_delay`.
//!
//! Invariants, which the tests check after every step: the counts of what is held are right and within their limits; sequences in a window
//! ascend; what is on the wire of the present connection comes first in the window.
//!
//! The node's router talks to this core, and the driver carries what it says: messages of the application as [`KIND_DATA`] frames on the
//! stream of their lane ([`encode_data`]), and [`Message`]s as [`KIND_MESSAGE`] frames in the encoding of the [`codec`](crate::codec).

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::incoming::Incoming;
use self::outgoing::Outgoing;
use crate::channel::ChannelId;
use crate::codec::Bounded;
use crate::error::{ConfigError, DecodeError, Misbehavior};
use crate::time::Time;
use crate::{frame, limits};

/// Channels with these promises.
pub const CHANNELS_MAX: usize = 1_024;
/// Lanes of one channel.
pub const LANES_MAX: u8 = 16;
/// Lanes that one message speaks of; more are said in several messages.
pub const POSITIONS_MAX: usize = 1_024;
/// Ranges of messages of one lane that are remembered as missing, on channels whose messages may arrive out of order.
pub const MISSING_RANGES_MAX: usize = 64;
/// How far ahead of the oldest missing message another may arrive.
pub const AHEAD_MAX: u64 = 1 << 20;

/// The kind of frames that hold a message of the application ([`encode_data`]). Kinds up to 79 are kept free for this core.
pub const KIND_DATA: u16 = 64;
/// The kind of frames that hold a [`Message`].
pub const KIND_MESSAGE: u16 = 65;

/// The number of a message on its lane, from [`FIRST`] in each life of the sender. `u64::MAX` is never reached.
pub type Sequence = u64;
/// The number of the first message on a lane.
pub const FIRST: Sequence = 1;

/// What a channel promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reliability {
    /// Each message once in one life of both processes, in the order of its lane.
    Guaranteed,
    /// Each message, and duplicates are dropped; in order while nothing had to be resent.
    AtLeastOnce,
}

/// One channel with such a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its number on the wire.
    pub id: ChannelId,
    /// The promise.
    pub reliability: Reliability,
    /// Streams of the channel towards one peer, 1 to [`LANES_MAX`]. Only messages of one lane keep their order; a lost packet stalls one
    /// lane.
    pub lanes: u8,
    /// Messages that are kept for one peer until it acknowledges them. More ride out a longer loss of the link.
    pub window_messages_max: usize,
    /// Bytes of those messages; at least one message of the largest size ([`limits::MESSAGE_BYTES_MAX`]).
    pub window_bytes_max: usize,
}

/// How much is kept, and how often is acknowledged. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The channels. Unless told otherwise `coordination`, guaranteed on three lanes, and `data`, at least once on five, with the numbers
    /// of messages of [`ChannelSpec::built_in`](crate::ChannelSpec::built_in); the lanes are those of the feature list.
    pub channels: Vec<Channel>,
    /// Messages of all channels that are kept for one peer. A guess: both channels full, with some room.
    pub peer_messages_max: usize,
    /// Bytes of those messages. The 8 MiB for each peer of the throughput study.
    pub peer_bytes_max: usize,
    /// Messages of one channel on the wire that were not acknowledged. Keep it below the queue of the channel in [`crate::sender`], and
    /// that queue never refuses one. Higher fills a longer path with small messages. A guess: less than the smallest queue.
    pub in_flight_messages_max: usize,
    /// Bytes of those messages; the last one may go beyond. The throughput on a path is this over its round trip; what is above waits here,
    /// where it may still expire. A guess: 20 MB/s at 50 ms, and with the last message below the smallest queue.
    pub in_flight_bytes_max: usize,
    /// Messages of one channel that the application may leave untaken before more are dropped and asked for again. Twice what a peer with
    /// equal settings can have on the wire, so that it never comes to that.
    pub untaken_messages_max: usize,
    /// Bytes of those messages; the last one may go beyond. More than twice what is on the wire, as above.
    pub untaken_bytes_max: usize,
    /// As `untaken_messages_max`, for all channels of the peer. A guess: several channels full.
    pub untaken_peer_messages_max: usize,
    /// As `untaken_bytes_max`, for all channels of the peer. A guess: several channels full.
    pub untaken_peer_bytes_max: usize,
    /// The least time between two acknowledgments, unless `ack_bytes` were taken. Lower frees windows sooner and costs frames.
    /// From the throughput study, section 3.2.
    pub ack_delay: Duration,
    /// Bytes that the application took after which an acknowledgment leaves at once. From the throughput study, section 3.2.
    pub ack_bytes: usize,
    /// How long a sender waits on a new connection to be told what the receiver has. Lower sends more twice on slow paths. A guess: several
    /// round trips.
    pub resume_wait: Duration,
    /// How long an unacknowledged message stays on the wire of [`Reliability::AtLeastOnce`] before it is sent again; doubles from try to
    /// try. From the feature list.
    pub retransmit: Duration,
    /// Where doubling ends. A guess: an application that takes nothing costs its peer one message in that time.
    pub retransmit_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1_024 * 1_024;
        let channel = |id, reliability, lanes, window_messages_max, window_bytes_max| Channel {
            id,
            reliability,
            lanes,
            window_messages_max,
            window_bytes_max,
        };
        Config {
            channels: vec![
                channel(ChannelId::COORDINATION, Reliability::Guaranteed, 3, 1_000, 2 * MIB),
                channel(ChannelId::DATA, Reliability::AtLeastOnce, 5, 10_000, 4 * MIB),
            ],
            peer_messages_max: 16_384,
            peer_bytes_max: 8 * MIB,
            in_flight_messages_max: 960,
            in_flight_bytes_max: 960 * 1_024,
            untaken_messages_max: 1_920,
            untaken_bytes_max: 3 * MIB,
            untaken_peer_messages_max: 8_192,
            untaken_peer_bytes_max: 16 * MIB,
            ack_delay: Duration::from_millis(25),
            ack_bytes: 64 * 1_024,
            resume_wait: Duration::from_secs(1),
            retransmit: Duration::from_secs(1),
            retransmit_max: Duration::from_secs(32),
        }
    }
}

impl Config {
    /// Checks the fields against each other.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the field: for more than [`CHANNELS_MAX`] channels or two with one number, for lanes outside 1 to
    /// [`LANES_MAX`], for windows that could never take a message of the largest size, and for numbers and durations of zero.
    pub fn build(self) -> Result<Params, ConfigError> {
        let mut config = self;
        if config.channels.len() > CHANNELS_MAX {
            return Err(ConfigError::new("channels", config.channels.len(), format_args!("at most {CHANNELS_MAX}")));
        }
        config.channels.sort_by_key(|channel| channel.id);
        if let Some(pair) = config.channels.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ConfigError::new("channels.id", pair[0].id.0, "a number of its own"));
        }
        let windows = config.channels.iter().map(|channel| ("channels.window_bytes_max", channel.window_bytes_max));
        if let Some((field, value)) =
            windows.chain([("peer_bytes_max", config.peer_bytes_max)]).find(|(_, value)| *value < limits::MESSAGE_BYTES_MAX)
        {
            return Err(ConfigError::new(field, value, format_args!("at least {}, one message", limits::MESSAGE_BYTES_MAX)));
        }
        if let Some(channel) = config.channels.iter().find(|channel| !(1..=LANES_MAX).contains(&channel.lanes)) {
            return Err(ConfigError::new("channels.lanes", channel.lanes, format_args!("between 1 and {LANES_MAX}")));
        }
        let messages = config.channels.iter().map(|channel| ("channels.window_messages_max", channel.window_messages_max));
        let numbers = [
            ("peer_messages_max", config.peer_messages_max),
            ("in_flight_messages_max", config.in_flight_messages_max),
            ("in_flight_bytes_max", config.in_flight_bytes_max),
            ("untaken_messages_max", config.untaken_messages_max),
            ("untaken_bytes_max", config.untaken_bytes_max),
            ("untaken_peer_messages_max", config.untaken_peer_messages_max),
            ("untaken_peer_bytes_max", config.untaken_peer_bytes_max),
            ("ack_bytes", config.ack_bytes),
        ];
        if let Some((field, value)) = messages.chain(numbers).find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(field, value, "at least 1"));
        }
        let durations = [("ack_delay", config.ack_delay), ("resume_wait", config.resume_wait), ("retransmit", config.retransmit)];
        if let Some((field, value)) = durations.into_iter().find(|(_, value)| value.is_zero()) {
            return Err(ConfigError::new(field, format_args!("{value:?}"), "more than zero"));
        }
        if config.retransmit_max < config.retransmit {
            return Err(ConfigError::new("retransmit_max", format_args!("{:?}", config.retransmit_max), "at least retransmit"));
        }
        // Numbers of defined channels are spread over half of all numbers: a table up to them would be large and empty.
        let low = config.channels.iter().filter(|channel| !channel.id.is_defined()).map(|channel| usize::from(channel.id.0));
        let mut index = vec![None; low.clone().next_back().map_or(0, |last| last + 1)];
        for (position, id) in low.enumerate() {
            index[id] = u16::try_from(position).ok();
        }
        Ok(Params(Arc::new(Checked { config, index })))
    }
}

/// A checked [`Config`]. Cloning is cheap: all peers share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(Arc<Checked>);

#[derive(Debug, PartialEq, Eq)]
struct Checked {
    config: Config,
    /// Where the channel of a number stands, so that no message searches for it; without those that applications defined, which come last.
    index: Vec<Option<u16>>,
}

impl Params {
    /// What was checked, with the channels in the order of their numbers.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The channel with this number.
    pub fn channel(&self, id: ChannelId) -> Option<&Channel> {
        self.index(id).map(|index| self.spec(index))
    }

    fn index(&self, id: ChannelId) -> Option<u16> {
        if id.is_defined() {
            let place = self.0.config.channels.binary_search_by_key(&id, |channel| channel.id).ok()?;
            return u16::try_from(place).ok();
        }
        self.0.index.get(usize::from(id.0)).copied().flatten()
    }

    fn spec(&self, index: u16) -> &Channel {
        &self.0.config.channels[usize::from(index)]
    }
}

impl Default for Params {
    fn default() -> Self {
        Config::default().build().expect("the default config is valid, as a test says")
    }
}

/// A place on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The channel.
    pub channel: ChannelId,
    /// The lane.
    pub lane: u8,
    /// The first message that is not meant.
    pub next: Sequence,
}

/// What the two cores say to each other. Grows at its end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// From the receiver: on these lanes, the application took everything before `next`.
    Ack(Bounded<Position, POSITIONS_MAX>),
    /// From the receiver: on these lanes, go on with `next`.
    Resume {
        /// The lanes.
        positions: Bounded<Position, POSITIONS_MAX>,
        /// Whether no more will follow on this connection unasked: lanes that were not named begin with their oldest message.
        last: bool,
    },
    /// From the sender, on the stream of the lane: messages that will never come. `from` is not 0, and less than `to`.
    Skip {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The first of them.
        from: Sequence,
        /// The first that may come again.
        to: Sequence,
    },
}

/// The whole frame of a message of the application, for the stream of its lane: [`KIND_DATA`], the sequence as a varint, the payload. The
/// sequence is explicit, so that a reader needs no state.
pub fn encode_data(sequence: Sequence, payload: &[u8]) -> Bytes {
    let body_len = frame::varint_len(sequence) + payload.len();
    let mut bytes = Vec::with_capacity(frame::encoded_len(KIND_DATA, body_len));
    frame::put_varint((frame::varint_len(u64::from(KIND_DATA)) + body_len) as u64, &mut bytes);
    frame::put_varint(u64::from(KIND_DATA), &mut bytes);
    frame::put_varint(sequence, &mut bytes);
    bytes.extend_from_slice(payload);
    Bytes::from(bytes)
}

/// The sequence and the payload in the body of a [`KIND_DATA`] frame. The payload shares memory with the body.
///
/// # Errors
///
/// A [`DecodeError`] when the sequence is incomplete, above 64 bits or not in its shortest form.
pub fn decode_data(body: &Bytes) -> Result<(Sequence, Bytes), DecodeError> {
    match frame::parse_varint(body, u64::MAX)? {
        Some((sequence, len)) => Ok((sequence, body.slice(len..))),
        None => Err(DecodeError::Truncated),
    }
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub messages: usize,
    /// Their payload bytes.
    pub bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// Whether one more fits.
    fn takes(&self, bytes: usize, messages_max: usize, bytes_max: usize) -> bool {
        self.messages < messages_max && bytes <= bytes_max.saturating_sub(self.bytes)
    }

    /// Whether neither limit is reached. Where this decides, the last message may go beyond the limit of bytes: otherwise small messages of
    /// one lane could keep a large one of another from ever finding room.
    fn is_below(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.messages < messages_max && self.bytes < bytes_max
    }
}

/// A message that was not accepted. Nothing changed but a counter.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused {
    /// The payload, given back.
    pub payload: Bytes,
    /// Why.
    pub reason: Reason,
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The window of the channel is full: the peer acknowledged too little. Try again after [`Action::Delivered`].
    ChannelFull,
    /// The windows of all channels to the peer are full together.
    PeerFull,
    /// The payload is above [`limits::MESSAGE_BYTES_MAX`].
    TooLarge,
    /// No such channel has these promises, or it has no such lane.
    UnknownLane,
    /// The lane has used all its numbers, which no process lives long enough for.
    Exhausted,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({:?}, {} bytes)", self.reason, self.payload.len())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::ChannelFull => "the channel's window to the peer is full",
            Reason::PeerFull => "the windows to the peer are full",
            Reason::TooLarge => "the message is too large",
            Reason::UnknownLane => "there is no such channel or lane with this promise",
            Reason::Exhausted => "the lane has no numbers left",
        })
    }
}

impl std::error::Error for Refused {}

/// What can happen.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    /// A link to the peer stands, or another takes over. Generations ascend; one that does not is ignored, as is an incarnation below a
    /// known one.
    Connected {
        /// The number that the driver gave to the link. What arrives is taken only under the number of the present link.
        generation: u64,
        /// Which life of the peer's process is at the other end: a later start has a larger number.
        incarnation: u64,
    },
    /// The link is gone. Ignored unless it is the present one.
    Disconnected {
        /// Its number.
        generation: u64,
    },
    /// A message of the application arrived.
    Data {
        /// The link that it came over.
        generation: u64,
        /// The channel of its stream.
        channel: ChannelId,
        /// The lane of its stream.
        lane: u8,
        /// Its number.
        sequence: Sequence,
        /// Its content.
        payload: Bytes,
    },
    /// A message of the core at the other end arrived.
    Received {
        /// The link that it came over.
        generation: u64,
        /// The message.
        message: Message,
    },
    /// The application took a delivered message: it will not ask for it again, whatever happens to the process. In any order.
    Taken {
        /// As in [`Action::Deliver`].
        sender_incarnation: u64,
        /// As in [`Action::Deliver`].
        channel: ChannelId,
        /// As in [`Action::Deliver`].
        lane: u8,
        /// As in [`Action::Deliver`].
        sequence: Sequence,
    },
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What is decided.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Put a message on the stream of its lane ([`encode_data`]). One that the driver cannot queue ends the link: the next one resumes.
    Transmit {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The number.
        sequence: Sequence,
        /// The content.
        payload: Bytes,
    },
    /// Send a message to the core at the other end.
    Send {
        /// The lane whose stream carries it, behind what was transmitted there; `None`: any stream that keeps order.
        on: Option<(ChannelId, u8)>,
        /// The message.
        message: Message,
    },
    /// Hand a message to the application, and report with [`Input::Taken`] when it took it.
    Deliver {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The number.
        sequence: Sequence,
        /// The content. It may share memory with what it came in.
        payload: Bytes,
        /// Which life of the peer sent it.
        sender_incarnation: u64,
    },
    /// The application of the peer took this message and all before it on the lane that were not reported otherwise.
    Delivered {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The number.
        sequence: Sequence,
    },
    /// The time of a message was over before it was ever put on the wire: it was dropped.
    Expired {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The number.
        sequence: Sequence,
    },
    /// The peer is gone for good ([`State::abandon`]) and this message was not acknowledged.
    Undelivered {
        /// The channel.
        channel: ChannelId,
        /// The lane.
        lane: u8,
        /// The number.
        sequence: Sequence,
        /// The content, given back.
        payload: Bytes,
        /// Whether it was on the wire, so that it may have arrived all the same.
        transmitted: bool,
    },
    /// The peer broke a rule; its message had no effect.
    Misbehaved(Misbehavior),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Connected { generation, incarnation } => write!(f, "Connected({generation}, life {incarnation})"),
            Input::Disconnected { generation } => write!(f, "Disconnected({generation})"),
            Input::Data { generation, channel, lane, sequence, payload } => {
                write!(f, "Data({generation}, {channel}/{lane} {sequence}, {} bytes)", payload.len())
            }
            Input::Received { generation, message } => write!(f, "Received({generation}, {message:?})"),
            Input::Taken { sender_incarnation, channel, lane, sequence } => {
                write!(f, "Taken({channel}/{lane} {sequence} of life {sender_incarnation})")
            }
            Input::DeadlineReached => f.write_str("DeadlineReached"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Transmit { channel, lane, sequence, payload } => {
                write!(f, "Transmit({channel}/{lane} {sequence}, {} bytes)", payload.len())
            }
            Action::Send { on, message } => write!(f, "Send({on:?}, {message:?})"),
            Action::Deliver { channel, lane, sequence, payload, sender_incarnation } => {
                write!(f, "Deliver({channel}/{lane} {sequence} of life {sender_incarnation}, {} bytes)", payload.len())
            }
            Action::Delivered { channel, lane, sequence } => write!(f, "Delivered({channel}/{lane} {sequence})"),
            Action::Expired { channel, lane, sequence } => write!(f, "Expired({channel}/{lane} {sequence})"),
            Action::Undelivered { channel, lane, sequence, payload, transmitted } => {
                write!(f, "Undelivered({channel}/{lane} {sequence}, {} bytes, transmitted: {transmitted})", payload.len())
            }
            Action::Misbehaved(what) => write!(f, "Misbehaved({what})"),
        }
    }
}

/// What this core has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages accepted from the application here.
    pub accepted: u64,
    /// Messages given back at once.
    pub refused: u64,
    /// Messages put on the wire for the first time.
    pub transmitted: u64,
    /// Messages put on the wire again, for whatever reason.
    pub resent: u64,
    /// Messages acknowledged by the peer.
    pub delivered: u64,
    /// Messages whose time was over before they were on the wire.
    pub expired: u64,
    /// Messages given back because the peer was abandoned.
    pub undelivered: u64,
    /// The most messages that were ever kept, and the most bytes, each for themselves.
    pub high: Held,
    /// Messages handed to the application here.
    pub received: u64,
    /// Messages that arrived and were known.
    pub duplicates: u64,
    /// Messages that arrived and were dropped to be asked for again: no room, or a jump before them.
    pub dropped: u64,
    /// Messages of the application, and of the other core, that came over a link that is not the present one.
    pub stale: u64,
    /// Acknowledging messages sent.
    pub acks: u64,
    /// Faults of the peer.
    pub misbehaved: u64,
}

/// Everything about one peer.
#[derive(Clone, Debug)]
pub struct State {
    /// The present link.
    link: Option<u64>,
    /// Links up to this one are over, or present.
    generation: Option<u64>,
    /// The latest life of the peer.
    incarnation: Option<u64>,
    outgoing: Outgoing,
    incoming: Incoming,
    counters: Counters,
}

impl State {
    /// Nothing kept, no link.
    pub fn new(params: Params) -> Self {
        State::starting_at(FIRST, params)
    }

    /// Nothing kept, no link, and messages are counted from `first` on: for whoever forgot an earlier state of this life about the peer, and
    /// begins above every number that it gave then ([`State::next_sequence`]). The peer, which may remember them, is told of the gap.
    pub fn starting_at(first: Sequence, params: Params) -> Self {
        State {
            link: None,
            generation: None,
            incarnation: None,
            outgoing: Outgoing::new(params.clone(), first.max(FIRST)),
            incoming: Incoming::new(params),
            counters: Counters::default(),
        }
    }

    /// Takes a message for the peer, whether it is connected or not. `deadline` is when it is not worth sending any more.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the payload back when there is no room, no such lane, or it is too large.
    pub fn send(
        &mut self,
        channel: ChannelId,
        lane: u8,
        payload: Bytes,
        deadline: Option<Time>,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> Result<Sequence, Refused> {
        self.outgoing.send(channel, lane, payload, deadline, now, &mut self.counters, actions)
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, input: Input, now: Time, actions: &mut Vec<Action>) {
        match input {
            Input::Connected { generation, incarnation } => self.on_connected(generation, incarnation, now, actions),
            Input::Disconnected { generation } => {
                if self.link == Some(generation) {
                    self.link = None;
                    self.outgoing.disconnected();
                    self.incoming.disconnected();
                }
            }
            Input::Data { generation, .. } | Input::Received { generation, .. } if self.link != Some(generation) => {
                self.counters.stale += 1
            }
            Input::Data { channel, lane, sequence, payload, .. } => {
                self.incoming.on_data(channel, lane, sequence, payload, now, &mut self.counters, actions);
            }
            Input::Received { message, .. } => match message {
                Message::Ack(positions) => self.outgoing.on_ack(&positions, now, &mut self.counters, actions),
                Message::Resume { positions, last } => self.outgoing.on_resume(&positions, last, now, &mut self.counters, actions),
                Message::Skip { channel, lane, from, to } => {
                    self.incoming.on_skip(channel, lane, from, to, now, &mut self.counters, actions);
                }
            },
            Input::Taken { sender_incarnation, channel, lane, sequence } => {
                self.incoming.on_taken(sender_incarnation, channel, lane, sequence, now, &mut self.counters, actions);
            }
            Input::DeadlineReached => {
                self.incoming.on_deadline(now, &mut self.counters, actions);
                self.outgoing.on_deadline(now, &mut self.counters, actions);
            }
        }
    }

    /// Gives back everything that was not acknowledged: the peer is gone for good. What it sent before may still be taken, and it may be
    /// sent to again, should it come back after all.
    pub fn abandon(&mut self, actions: &mut Vec<Action>) {
        self.outgoing.abandon(&mut self.counters, actions);
    }

    /// Gives back what was not acknowledged on one channel: the peer does not have it. Otherwise as [`State::abandon`].
    pub fn abandon_on(&mut self, channel: ChannelId, actions: &mut Vec<Action>) {
        self.outgoing.abandon_on(channel, &mut self.counters, actions);
    }

    /// When [`Input::DeadlineReached`] is due. It may turn out that nothing is to be done then.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.outgoing.next_deadline(), self.incoming.next_deadline()].into_iter().flatten().min()
    }

    /// Above every number that a message got here.
    pub fn next_sequence(&self) -> Sequence {
        self.outgoing.next()
    }

    /// What is kept for the peer until it acknowledges it.
    pub fn kept(&self) -> Held {
        self.outgoing.kept()
    }

    /// What is kept on one channel; nothing on a channel that does not exist.
    pub fn kept_on(&self, channel: ChannelId) -> Held {
        self.outgoing.kept_on(channel)
    }

    /// What the application was handed and has not taken, from all lives of the peer.
    pub fn untaken(&self) -> Held {
        self.incoming.untaken()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_connected(&mut self, generation: u64, incarnation: u64, now: Time, actions: &mut Vec<Action>) {
        // A link that is older than the present one brings nothing; a process that was replaced by a later one neither.
        if self.generation.is_some_and(|known| generation <= known) || self.incarnation.is_some_and(|known| incarnation < known) {
            return;
        }
        let same_life = self.incarnation == Some(incarnation);
        self.link = Some(generation);
        self.generation = Some(generation);
        self.incarnation = Some(incarnation);
        self.incoming.connected(incarnation, now, &mut self.counters, actions);
        self.outgoing.connected(same_life, now, &mut self.counters, actions);
    }
}

/// A lane among all lanes: where its channel stands, and its number.
type LaneIndex = (u16, u8);

fn misbehaved(what: Misbehavior, counters: &mut Counters, actions: &mut Vec<Action>) {
    counters.misbehaved += 1;
    actions.push(Action::Misbehaved(what));
}
