//! What goes over the reliable stream, beside the datagrams that foca writes.

use std::net::SocketAddr;

use foca::{Incarnation, Member as Update, State as Verdict};
use meshwork_channels::{Bounded, DecodeError, Misbehavior};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, is_reachable};
use super::view::Status;
use crate::identifier::Identifier;

/// Records in one frame: at most 19 KB with 32-byte names, and little enough work to be done in one turn.
pub const RECORDS_MAX: usize = 256;

/// Records in the answer of a busy node.
pub const SAMPLE_MAX: usize = 16;

/// The incarnation that says that a member is down because it left. It travels in ordinary gossip, so that whoever hears of a departure
/// hears that it was one. No living member reaches it: it renews its generation first.
pub(super) const LEFT: Incarnation = Incarnation::MAX;

/// What one node knows of one member, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<I> {
    /// The member.
    pub peer: I,
    /// Which of its runs.
    pub generation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// How often it has refuted a suspicion in this generation.
    pub incarnation: u16,
    /// What the sender holds of it.
    pub status: Status,
    /// For how many seconds the sender has held it for gone; zero for one that is up. It lets a tombstone age as it travels.
    pub down_for_secs: u32,
}

impl<I: Identifier> Record<I> {
    pub(super) fn identity(&self) -> Identity<I> {
        Identity { peer: self.peer, generation: self.generation, address: self.address }
    }

    pub(super) fn update(&self) -> Update<Identity<I>> {
        let (incarnation, verdict) = match self.status {
            Status::Alive => (self.incarnation, Verdict::Alive),
            Status::Suspect => (self.incarnation, Verdict::Suspect),
            // A record of a failure must not read as one of a departure.
            Status::Down => (self.incarnation.min(LEFT - 1), Verdict::Down),
            Status::Left => (LEFT, Verdict::Down),
        };
        Update::new(self.identity(), incarnation, verdict)
    }

    /// Whether this record would win against the other one of the same peer (SWIM 4.2): a later run over an earlier, down over anything
    /// of the same run, then the higher incarnation, then suspect over alive.
    pub(super) fn beats(&self, other: &Self) -> bool {
        self.precedence() > other.precedence()
    }

    fn precedence(&self) -> (u64, SocketAddr, bool, Incarnation, bool) {
        match self.status {
            Status::Down | Status::Left => (self.generation, self.address, true, 0, false),
            Status::Alive => (self.generation, self.address, false, self.incarnation, false),
            Status::Suspect => (self.generation, self.address, false, self.incarnation, true),
        }
    }

    pub(super) fn fault(&self) -> Option<Misbehavior> {
        (!is_reachable(self.address)).then_some(Misbehavior::BadAddress)
    }
}

/// A message of the membership over a reliable stream. The wire enum only grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<I> {
    /// Opens a state exchange. Equal hashes end it.
    Digest {
        /// Hash of all that the sender knows, itself included.
        hash: u64,
        /// The sender.
        sender: Record<I>,
    },
    /// Answers a digest, or a [`Message::Next`]: all that the sender knows of the peers in a range.
    Table {
        /// Start of the range, excluded; nothing means from the first peer on.
        after: Option<I>,
        /// End of the range, included; nothing means to the last peer, and that this was the last part.
        until: Option<I>,
        /// The records, in the order of their peers.
        records: Bounded<Record<I>, RECORDS_MAX>,
    },
    /// Answers a digest: the sender knows the same.
    Equal,
    /// Answers a digest: the sender has no time, and names a few members to ask instead.
    Busy {
        /// The records.
        records: Bounded<Record<I>, SAMPLE_MAX>,
    },
    /// Asks for the part of the table that follows.
    Next {
        /// Where the last part ended.
        after: I,
    },
    /// What the sender knows better than the part of a table that it was sent.
    Push {
        /// The records.
        records: Bounded<Record<I>, RECORDS_MAX>,
    },
    /// Asks for a sign of life where no datagram is lost.
    Ping {
        /// What is held against the receiver.
        accusation: Accusation,
    },
    /// The sign of life.
    Pong {
        /// The sender, with the incarnation or generation that refutes the accusation.
        sender: Record<I>,
    },
    /// The sender leaves the cluster.
    Leaving {
        /// Which of its runs.
        generation: u64,
    },
    /// What the sender has just come to know, told to a neighbor; as fresh as gossip.
    News {
        /// The records.
        records: Bounded<Record<I>, RECORDS_MAX>,
    },
}

/// What a ping says of its receiver. The wire enum only grows at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accusation {
    /// Nothing: the connection to it broke.
    Nothing,
    /// It is suspected in this generation and incarnation: a higher incarnation refutes that.
    Suspected {
        /// The generation.
        generation: u64,
        /// The incarnation.
        incarnation: u16,
    },
    /// Some node holds it for dead in this generation: only a higher generation brings it back.
    Dead {
        /// The generation.
        generation: u64,
    },
}

/// A datagram, taken apart: foca reads its own bytes again, but only once all that they name has been looked at.
pub(super) struct Packet<I> {
    pub(super) header: foca::Header<Identity<I>>,
    pub(super) updates: Vec<Update<Identity<I>>>,
}

impl<I: Identifier + Serialize + for<'de> Deserialize<'de>> Packet<I> {
    /// Takes a datagram apart. The work is bounded by its length: every update is at least one byte of it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let blame = |error| match error {
            postcard::Error::DeserializeUnexpectedEnd => DecodeError::Truncated,
            _ => DecodeError::Invalid,
        };
        let (header, rest) = postcard::take_from_bytes::<foca::Header<Identity<I>>>(bytes).map_err(blame)?;
        let mut updates = Vec::new();
        if let Some((count, mut rest)) = rest.split_first_chunk::<2>() {
            if matches!(header.message, foca::Message::Announce | foca::Message::TurnUndead | foca::Message::Broadcast) {
                return Err(DecodeError::Trailing);
            }
            for _ in 0..u16::from_be_bytes(*count) {
                let (update, after) = postcard::take_from_bytes::<Update<Identity<I>>>(rest).map_err(blame)?;
                updates.push(update);
                rest = after;
            }
            if !rest.is_empty() {
                return Err(DecodeError::Trailing);
            }
        } else if !rest.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(Packet { header, updates })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        meshwork_channels::codec::encode_into(&self.header, &mut bytes);
        // No more updates than a decoded packet had, whose count was 16 bits.
        bytes.extend_from_slice(&u16::try_from(self.updates.len()).unwrap_or(0).to_be_bytes());
        for update in &self.updates {
            meshwork_channels::codec::encode_into(update, &mut bytes);
        }
        bytes
    }
}
