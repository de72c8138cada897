//! What arrives at a node, and as what it goes into the digest.

use bytes::Bytes;
use meshwork_channels::ChannelId;

use crate::host::{Connection, DialFailure};

/// What arrives at a node.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A deadline of the node itself.
    Wake,
    /// The first packet of a dial.
    Hello { dial: Connection, peer_moves: u16, moves: u16 },
    /// Its answer.
    Welcome { dial: Connection, accept: Connection, incarnation: u64 },
    /// The dialer's proof of admission.
    Proof { accept: Connection, incarnation: u64 },
    /// The proof of the other side.
    Admitted { dial: Connection },
    /// A handshake took too long, or cannot succeed.
    GiveUp { connection: Connection, why: DialFailure },
    /// The other side closed the connection.
    Closed { connection: Connection, unneeded: bool },
    /// Nothing was heard of the other side for the idle timeout.
    Silence { connection: Connection },
    Frame {
        connection: Connection,
        channel: ChannelId,
        bytes: Bytes,
        /// Whether it has come through the line of the receiver.
        through: bool,
    },
    Datagram {
        connection: Connection,
        bytes: Bytes,
        /// When it was sent.
        sent: u64,
        through: bool,
    },
    /// A node that said goodbye stops.
    Stop { life: u32 },
    /// An entry of the schedule.
    Entry,
}

impl Arrival {
    pub(super) fn code(&self) -> u64 {
        match self {
            Arrival::Wake => 0,
            Arrival::Hello { .. } => 1,
            Arrival::Welcome { .. } => 2,
            Arrival::Proof { .. } => 3,
            Arrival::Admitted { .. } => 4,
            Arrival::GiveUp { .. } => 5,
            Arrival::Closed { .. } => 6,
            Arrival::Silence { .. } => 7,
            Arrival::Frame { .. } => 8,
            Arrival::Datagram { .. } => 9,
            Arrival::Stop { .. } => 10,
            Arrival::Entry => 11,
        }
    }
}

/// One event that a node handled, as it goes into the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in microseconds since the start.
    pub at: u64,
    /// At which node.
    pub node: u32,
    /// From which node; [`SCHEDULE`](crate::schedule::SCHEDULE) for the schedule.
    pub from: u32,
    pub(super) code: u64,
    pub(super) detail: u64,
}

impl Step {
    /// What it was, in a word.
    pub fn what(&self) -> &'static str {
        match self.code & 0xff {
            0 => "deadline",
            1 => "dial",
            2 => "answer to a dial",
            3 => "proof of admission",
            4 => "admission",
            5 => "failed handshake",
            6 => "end of a connection",
            7 => "silence on a connection",
            8 => "frame",
            9 => "datagram",
            10 => "stop",
            11 => "entry of the schedule",
            12 => "delivery of a broadcast",
            _ => "delivery of a message",
        }
    }
}
