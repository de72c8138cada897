//! What can happen to a node, what it decides, and what it tells the application.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::dial::{ConnectionId, DialFailure, Direction};
use meshwork_channels::frame::Frame;
use meshwork_channels::reliable::Sequence;
use meshwork_channels::{ChannelId, Misbehavior, PeerId};
use meshwork_crdt::confirm::Confirmed;
use meshwork_crdt::replica::Reunion;
use meshwork_crdt::{Key, Stamp, Value};
use meshwork_overlay::topology::DownReason;

use crate::services;

/// The identity of a broadcast in a node.
pub type MessageId = meshwork_overlay::MessageId<PeerId>;

/// A member of the cluster as this node sees it.
pub type Member = meshwork_overlay::swim::Member<PeerId>;

/// What can happen to a node. Every cause of a decision is in this list.
#[derive(Clone, Debug)]
pub enum Input {
    /// An admitted connection stands.
    Connected {
        /// Its number, unique in this process.
        connection: ConnectionId,
        /// Who proved to be at the other end.
        peer: PeerId,
        /// Which life of that node.
        incarnation: u64,
        /// Where it is.
        address: SocketAddr,
        /// Who dialed.
        direction: Direction,
    },
    /// A connection is gone.
    Disconnected {
        /// Its number.
        connection: ConnectionId,
        /// Who was at the other end.
        peer: PeerId,
        /// Whether either side closed it because nobody needed it; anything else may mean that the peer is in trouble.
        unneeded: bool,
    },
    /// A dial that was asked for did not lead to a connection.
    DialFailed {
        /// Where to.
        address: SocketAddr,
        /// Why.
        failure: DialFailure,
    },
    /// A frame arrived on a stream.
    Frame {
        /// Over this connection.
        connection: ConnectionId,
        /// On this channel.
        channel: ChannelId,
        /// The frame.
        frame: Frame,
    },
    /// A datagram arrived.
    Datagram {
        /// Over this connection.
        connection: ConnectionId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A source of addresses found some worth dialing. It never says who is a member.
    Discovered {
        /// The name of the source.
        source: &'static str,
        /// What it found.
        candidates: Vec<Candidate>,
    },
    /// A queue that may not lose frames is full, or the peer takes nothing from it: the peer is too slow.
    Stalled {
        /// Its connection.
        connection: ConnectionId,
    },
    /// A peer broke a rule of the transport, and the connection was closed for it. Its [`Input::Disconnected`] follows.
    Misbehaved {
        /// Its connection.
        connection: ConnectionId,
        /// The rule.
        what: Misbehavior,
    },
    /// Messages went over a connection past this node: it is in use.
    Used {
        /// The connection.
        connection: ConnectionId,
    },
    /// The frame of a call found its queue full, and was not queued.
    Refused {
        /// The call.
        call: CallId,
    },
    /// The application took a message that [`Action::DeliverGuaranteed`] handed out: from now on its sender need not keep it.
    Taken {
        /// As handed out.
        from: PeerId,
        /// As handed out.
        incarnation: u64,
        /// As handed out.
        channel: ChannelId,
        /// As handed out.
        sequence: Sequence,
    },
    /// A frame of [`Action::SendGuaranteed`] was not queued: the peer does not have the channel, or has it on other terms.
    Disagreed {
        /// The connection.
        connection: ConnectionId,
        /// The channel.
        channel: ChannelId,
    },
    /// The application, or the driver in its place, answers a request.
    Respond {
        /// The request.
        token: RequestToken,
        /// The answer.
        answer: Result<Bytes, Refusal>,
    },
    /// The moment of [`Node::next_deadline`](super::Node::next_deadline) has come.
    DeadlineReached,
}

/// An address worth dialing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub address: SocketAddr,
    /// Who should be there, if known; anybody else is refused.
    pub peer: Option<PeerId>,
    /// A seed is tried for ever, others a few times.
    pub keep: bool,
}

/// What a node decides. A driver carries it out without ever waiting.
#[derive(Clone, Debug)]
pub enum Action {
    /// Dial; the answer is [`Input::Connected`] or [`Input::DialFailed`].
    Dial {
        /// Where to.
        address: SocketAddr,
        /// Who must be there.
        expected: Option<PeerId>,
    },
    /// Queue a whole frame on a channel of a connection. When the queue is full and `call` is given, the answer is [`Input::Refused`]; when the channel may
    /// not lose frames, the answer is [`Input::Stalled`]; otherwise the frame is dropped and counted.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The channel.
        channel: ChannelId,
        /// The frame with its length prefix.
        frame: Bytes,
        /// Who waits for the answer.
        call: Option<CallId>,
    },
    /// Queue a whole frame on a channel of a connection, in order with the others of this kind, as long as the connection stands. When the queue is full, the driver keeps the
    /// frame until there is room; how many there can be at once is bounded by what is unacknowledged. When the peer does not have the channel, the answer is
    /// [`Input::Disagreed`].
    SendGuaranteed {
        /// The connection.
        connection: ConnectionId,
        /// The channel.
        channel: ChannelId,
        /// The frame with its length prefix.
        frame: Bytes,
    },
    /// Send a datagram; it may be lost.
    SendDatagram {
        /// The connection.
        connection: ConnectionId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Close a connection.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Why; the peer is told.
        reason: CloseReason,
    },
    /// Tell the application what happened.
    Event(Event),
    /// Hand a broadcast to the application.
    Deliver(Delivery),
    /// Hand a message that a peer sent to this node alone to the application.
    Message {
        /// Who sent it.
        from: PeerId,
        /// On this channel.
        channel: ChannelId,
        /// The bytes.
        payload: Bytes,
    },
    /// Hand a message of guaranteed delivery to the application, and report with [`Input::Taken`] when it took it. The number of those that
    /// it has not taken is bounded for each peer, so nothing needs to be dropped.
    DeliverGuaranteed {
        /// Who sent it.
        from: PeerId,
        /// Which life of it. With the channel and the sequence it names the message, also when this node got it in an earlier life.
        incarnation: u64,
        /// On this channel.
        channel: ChannelId,
        /// Its number.
        sequence: Sequence,
        /// The bytes.
        payload: Bytes,
    },
    /// What became of a message that [`Node::send_guaranteed`](super::Node::send_guaranteed) took.
    Settled {
        /// To whom.
        to: PeerId,
        /// On this channel.
        channel: ChannelId,
        /// Its number. For [`Settlement::Taken`], all before it that were not reported otherwise are meant too.
        sequence: Sequence,
        /// What.
        outcome: Settlement,
    },
    /// Hand a request to the application, which answers with [`Input::Respond`].
    Request {
        /// Who asks, and which of its requests it is.
        token: RequestToken,
        /// The bytes.
        payload: Bytes,
    },
    /// Nobody waits for the answer to a request any more that was handed out and is not answered: its asker gave it up, its time is over there, or the
    /// asker started anew. [`Input::Respond`] is still due, and its answer goes nowhere.
    Cancelled {
        /// As handed out.
        token: RequestToken,
    },
    /// A call of the application has its answer.
    Answer {
        /// The call.
        call: CallId,
        /// How it ended.
        outcome: Result<Bytes, CallError>,
    },
    /// What [`Node::apply_with`](super::Node::apply_with), [`Node::ask`](super::Node::ask) or [`Node::await_write`](super::Node::await_write) began is over.
    Confirmed {
        /// The call.
        call: CallId,
        /// How it ended.
        confirmed: Confirmed,
    },
    /// A key of the replicated state has a new visible value.
    Changed {
        /// The key.
        key: Key,
        /// What it holds; none when the key was removed.
        value: Option<Value>,
        /// The stamp of the write.
        stamp: Stamp,
        /// The number of the change on this node, from one on.
        revision: u64,
    },
    /// A service tells something.
    Service(services::Event),
}

/// What became of a message of guaranteed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The application of the peer took it.
    Taken,
    /// Its time was over before it was sent.
    Expired,
    /// The peer left, or was gone for too long.
    Undelivered {
        /// The content, given back.
        payload: Bytes,
        /// Whether it was sent, so that it may have arrived all the same.
        transmitted: bool,
    },
    /// The peer that is connected now does not have the channel, or has it on other terms. An earlier life of it may have taken the message.
    Disagreed {
        /// The content, given back.
        payload: Bytes,
    },
}

/// Why we close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// Two connections to one peer; the other one stays.
    Duplicate,
    /// Nobody needs it at the moment.
    Unneeded,
    /// The peer sent bytes that are not messages, or broke a rule that ends the connection.
    Misbehaved,
    /// The peer takes our frames too slowly.
    TooSlow,
    /// This node leaves the cluster.
    Leaving,
}

impl CloseReason {
    /// A short stable name for logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Duplicate => "duplicate",
            CloseReason::Unneeded => "unneeded",
            CloseReason::Misbehaved => "misbehaved",
            CloseReason::TooSlow => "too_slow",
            CloseReason::Leaving => "leaving",
        }
    }
}

/// A call of the application that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

impl CallId {
    /// Nobody's call: what is sent for it may be lost without a word when its queue is full.
    pub(crate) const NOBODY: CallId = CallId(0);
}

/// Which request of which peer an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestToken {
    /// Who asked.
    pub from: PeerId,
    /// Which life of it.
    pub incarnation: u64,
    /// Which of its requests.
    pub id: u64,
}

/// How a request is turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The application answers no requests.
    NoHandler,
    /// The application cannot take another request at the moment.
    Busy,
}

/// How a call failed. Whether it had an effect is said by each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No connection to the peer could be made. Nothing was sent.
    Unreachable,
    /// The queue to the peer is full. Nothing was sent; try again later.
    Full,
    /// No answer came in time. The peer may or may not have acted.
    TimedOut,
    /// The peer answers no requests.
    NoHandler,
    /// The peer could not queue the request. It did not act; try again later.
    Busy,
    /// This node is leaving. Nothing was sent.
    Leaving,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallError::Unreachable => "the peer cannot be reached",
            CallError::Full => "the queue to the peer is full; try again later",
            CallError::TimedOut => "no answer came in time",
            CallError::NoHandler => "the peer answers no requests",
            CallError::Busy => "the peer is busy; try again later",
            CallError::Leaving => "this node is leaving the cluster",
        })
    }
}

impl std::error::Error for CallError {}

/// A broadcast as it reaches the application: exactly once for each life of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which message.
    pub id: MessageId,
    /// The bytes.
    pub payload: Bytes,
    /// How many links it crossed on the way here, the first counted as 1.
    pub hops: u16,
}

/// What a node tells the application about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is there that was not known, or one that had left or failed is back.
    MemberJoined(Member),
    /// A member lives on with another address or in another life.
    MemberUpdated(Member),
    /// A member did not answer a probe. It has some seconds to answer another way.
    MemberSuspected(Member),
    /// A suspected member answered.
    MemberRecovered(Member),
    /// A member is held for dead.
    MemberFailed(Member),
    /// A member said goodbye.
    MemberLeft(Member),
    /// A peer is a neighbor in the overlay from now on.
    NeighborUp(PeerId),
    /// A peer is no neighbor any more.
    NeighborDown(PeerId, DownReason),
    /// The node has its first neighbor, or one again.
    Connected,
    /// The node has lost its last neighbor, and looks for others.
    Isolated,
    /// Members are back that were held for dead, and what they wrote to the replicated state meanwhile is here.
    Reunited(Reunion),
    /// A peer takes our frames too slowly; the connection to it was closed.
    SlowPeer(PeerId),
    /// A peer broke a rule.
    Misbehaved(PeerId, Misbehavior),
    /// An address does not lead into this cluster.
    DialFailed(SocketAddr, DialFailure),
}

impl Event {
    /// A short stable name for logs and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Event::MemberJoined(_) => "member_joined",
            Event::MemberUpdated(_) => "member_updated",
            Event::MemberSuspected(_) => "member_suspected",
            Event::MemberRecovered(_) => "member_recovered",
            Event::MemberFailed(_) => "member_failed",
            Event::MemberLeft(_) => "member_left",
            Event::NeighborUp(_) => "neighbor_up",
            Event::NeighborDown(..) => "neighbor_down",
            Event::Connected => "connected",
            Event::Isolated => "isolated",
            Event::Reunited(_) => "reunited",
            Event::SlowPeer(_) => "slow_peer",
            Event::Misbehaved(..) => "misbehaved",
            Event::DialFailed(..) => "dial_failed",
        }
    }
}

/// A broadcast that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which message.
    pub id: MessageId,
    /// Neighbors at that moment. With none, the message waits for the first one for as long as payloads are kept.
    pub neighbors: usize,
}

/// A message that cannot be sent. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The payload is too large.
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The most that are allowed.
        len_max: usize,
    },
    /// Applications cannot send on this channel.
    UnknownChannel(ChannelId),
    /// The channel makes another promise: those for messages that are acknowledged carry nothing else, and no other defined channel carries them.
    Unsuited(ChannelId),
    /// The message is addressed to this very node.
    Myself,
    /// Nobody here knows how to reach this peer.
    UnknownPeer(PeerId),
    /// Too many requests wait for answers.
    TooManyCalls,
    /// As much as may be is kept for the peer already, because it has not taken it. Try again when something is settled.
    Full,
    /// Messages of guaranteed delivery are under way to or from as many peers as may be.
    TooManyPeers,
    /// The node is leaving.
    Leaving,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::TooLarge { len, len_max } => write!(f, "the payload has {len} bytes; {len_max} are allowed"),
            SendError::UnknownChannel(channel) => write!(f, "applications cannot send on the channel `{channel}`"),
            SendError::Unsuited(channel) => write!(f, "the reliability of the channel `{channel}` is not what this call is for"),
            SendError::Myself => f.write_str("a node cannot send to itself"),
            SendError::UnknownPeer(peer) => write!(f, "no address of {} is known", peer.short()),
            SendError::TooManyCalls => write!(f, "{} requests wait for answers already", super::requests::CALLS_MAX),
            SendError::Full => f.write_str("the window to the peer is full; it has to take something first"),
            SendError::TooManyPeers => write!(f, "messages are under way to or from {} peers already", super::guaranteed::PEERS_MAX),
            SendError::Leaving => f.write_str("this node is leaving the cluster"),
        }
    }
}

impl std::error::Error for SendError {}

/// Whether the node has company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// It has never had a neighbor.
    Alone,
    /// It has neighbors.
    Connected,
    /// It had neighbors and lost the last one.
    Isolated,
}

impl Connectivity {
    /// A short stable name for logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Connectivity::Alone => "alone",
            Connectivity::Connected => "connected",
            Connectivity::Isolated => "isolated",
        }
    }
}

/// What happened inside a node, counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Broken rules by name, over all peers.
    pub misbehaved: BTreeMap<&'static str, u64>,
    /// Frames and datagrams of kinds that this version does not know.
    pub skipped: u64,
    /// Broadcasts handed to the application.
    pub delivered: u64,
    /// Peers that were too slow for a channel that may not lose frames.
    pub stalled: u64,
    /// Bytes of the frames with which the replicated state is repaired, sent or given up.
    pub repair_bytes: u64,
    /// Frames that were given up because their peer could not be reached or too many waited for it.
    pub dropped: u64,
}
