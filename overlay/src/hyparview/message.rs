//! What two nodes say to each other.

use meshwork_channels::Bounded;
use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;

/// Peers in the list of a shuffle or of its answer, the origin excluded.
pub const SHUFFLE_LEN_MAX: usize = 16;
/// Peers given along with an answer or a farewell. A smaller bound than that of a shuffle, because nothing is given in return.
pub const CANDIDATES_LEN_MAX: usize = 8;

/// A list of peers on the wire.
pub type Peers<I> = Bounded<I, SHUFFLE_LEN_MAX>;

/// How much a peer wants to be our neighbor (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// Accepted by a node with a free slot only.
    Low,
    /// The view of the peer is empty: accepted by a full node as well, which evicts a neighbor, at a limited rate.
    High,
    /// The peer was on the other side of a partition: accepted by a full node as well, at a limited rate of its own.
    Heal,
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Farewell {
    /// The sender made room. The first peer of the list took the place and has one to spare itself.
    Evicted,
    /// The sender leaves the cluster.
    Leaving,
    /// The sender holds no such link.
    NoLink,
    /// The sender took a nearer peer. The first peer of the list was given up by that one and will ask for the place.
    Swapped,
}

/// A message. The wire enum only grows at its end.
///
/// A `link` is the number that the asking side drew for the link it asks for; whatever speaks of the link later quotes it, so that a late
/// message never touches the link that came after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<I> {
    /// Asks a contact to be let in (section 4.2). Answered with [`Message::NeighborReply`].
    Join {
        /// The link that it would become.
        link: u32,
    },
    /// Walks through the overlay in search of neighbors for a node (section 4.2).
    ForwardJoin {
        /// The node that wants neighbors.
        joiner: I,
        /// Steps left.
        ttl: u8,
        /// How many neighbors it misses.
        missing: u8,
    },
    /// Asks to become neighbors (section 4.3). Answered with [`Message::NeighborReply`].
    Neighbor {
        /// The link that it would become.
        link: u32,
        /// How much it is wanted.
        priority: Priority,
    },
    /// Answers a join or a neighbor request.
    NeighborReply {
        /// The link that was asked for.
        link: u32,
        /// Whether it stands from now on.
        accepted: bool,
        /// Peers that the asking side may try next, at most [`CANDIDATES_LEN_MAX`].
        peers: Peers<I>,
    },
    /// Ends a link (section 4.4).
    Disconnect {
        /// The link.
        link: u32,
        /// Why.
        reason: Farewell,
        /// Peers with which the receiver may replace the sender, at most [`CANDIDATES_LEN_MAX`].
        peers: Peers<I>,
    },
    /// Walks through the overlay and exchanges a sample of views with the node where it ends (section 4.5).
    Shuffle {
        /// The node that wants the exchange; a part of its sample.
        origin: I,
        /// Quoted by the answer.
        nonce: u32,
        /// Steps left.
        ttl: u8,
        /// The rest of its sample.
        peers: Peers<I>,
    },
    /// Answers a shuffle, straight to its origin.
    ShuffleReply {
        /// That of the shuffle.
        nonce: u32,
        /// A sample of the passive view of the sender.
        peers: Peers<I>,
    },
    /// Says that the sender holds this link. A receiver that does not answers with [`Message::Disconnect`].
    Alive {
        /// The link.
        link: u32,
    },
    /// Asks how far the receiver is. Answered with [`Message::ProbeReply`] at once.
    Probe {
        /// Quoted by the answer.
        nonce: u32,
    },
    /// Answers a probe.
    ProbeReply {
        /// That of the probe.
        nonce: u32,
        /// Quoted by [`Message::Swap`], so that nobody can send one before this has arrived.
        token: u32,
    },
    /// Asks, upon the answer to a probe and at once, to become neighbors in the place of one neighbor of each side. Answered with
    /// [`Message::NeighborReply`], which names the neighbor that the receiver gave up.
    Swap {
        /// The link that it would become.
        link: u32,
        /// That of the answer.
        token: u32,
        /// The neighbor that the sender would give up.
        old: I,
        /// Its other neighbors. None of them may be a neighbor of the receiver too.
        others: Peers<I>,
    },
}

impl<I: Identifier> Message<I> {
    /// Calls `visit` with every peer that the message names and that somebody may come to dial.
    pub fn visit_peers(&self, visit: &mut dyn FnMut(I)) {
        match self {
            Message::Join { .. }
            | Message::Neighbor { .. }
            | Message::Alive { .. }
            | Message::Probe { .. }
            | Message::ProbeReply { .. } => {}
            // Nobody dials the others.
            Message::Swap { old, .. } => visit(*old),
            Message::ForwardJoin { joiner, .. } => visit(*joiner),
            Message::NeighborReply { peers, .. } | Message::Disconnect { peers, .. } | Message::ShuffleReply { peers, .. } => {
                peers.iter().copied().for_each(visit);
            }
            Message::Shuffle { origin, peers, .. } => {
                visit(*origin);
                peers.iter().copied().for_each(visit);
            }
        }
    }

    /// Whether the receiver may give up a neighbor for a nearer one.
    pub(crate) fn may_swap(&self) -> bool {
        // That a link is alive tells as well that a request was accepted, when the answer to it is late.
        matches!(
            self,
            Message::ProbeReply { .. } | Message::Swap { .. } | Message::NeighborReply { accepted: true, .. } | Message::Alive { .. }
        )
    }

    /// A short stable name for logs and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Join { .. } => "join",
            Message::ForwardJoin { .. } => "forward_join",
            Message::Neighbor { .. } => "neighbor",
            Message::NeighborReply { .. } => "neighbor_reply",
            Message::Disconnect { .. } => "disconnect",
            Message::Shuffle { .. } => "shuffle",
            Message::ShuffleReply { .. } => "shuffle_reply",
            Message::Alive { .. } => "alive",
            Message::Probe { .. } => "probe",
            Message::ProbeReply { .. } => "probe_reply",
            Message::Swap { .. } => "swap",
        }
    }
}
