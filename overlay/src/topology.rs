//! The interface behind which every kind of overlay stands: it decides which peers are neighbors.
//!
//! A neighbor is symmetric: when A reports B up, B reports A up or A soon reports B down again. Neighbors are leases on connections; the
//! driver dials whoever a message is addressed to, and reports [`Input::Unreachable`] when it cannot.

use meshwork_channels::{Misbehavior, Time};
use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;
use crate::{hyparview, mesh};

/// What can happen to a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<I> {
    /// Enter the overlay through a peer that is known to be reachable. Given again at any time, for example after isolation.
    Join {
        /// The peer to start from.
        contact: I,
    },
    /// A message of this topology arrived.
    Received {
        /// The peer that sent it over its own connection.
        from: I,
        /// The message.
        message: Message<I>,
    },
    /// The connection to the peer is gone, or could not be made.
    Unreachable(I),
    /// The membership saw this peer alive for the first time.
    MemberUp(I),
    /// The membership sees this peer alive again after it was down: the sides of a partition meet, so a link across is worth more than one inside.
    MemberBack(I),
    /// The membership holds this peer for dead.
    MemberDown(I),
    /// The membership heard this peer say goodbye.
    MemberLeft(I),
    /// Over these neighbors broadcasts travel now, so none of them is given up for a nearer one. Told in front of each message that
    /// [may lead to that](Message::may_swap); without it any neighbor may be given up.
    Carrying(Vec<I>),
    /// This node is about to leave: tell the neighbors.
    Leave,
    /// The moment of [`Topology::next_deadline`] has come.
    DeadlineReached,
}

/// What a topology decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<I> {
    /// Send a message to a peer, over a connection that is dialed if there is none.
    Send {
        /// The peer.
        to: I,
        /// The message.
        message: Message<I>,
    },
    /// The peer is a neighbor from now on.
    NeighborUp(I),
    /// The peer is no neighbor any more.
    NeighborDown(I, DownReason),
    /// The peer broke a rule.
    Misbehaved {
        /// The peer.
        peer: I,
        /// The rule.
        what: Misbehavior,
    },
}

/// Why a neighbor is no neighbor any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DownReason {
    /// We made room for another peer.
    Evicted,
    /// It made room for another peer.
    EvictedUs,
    /// It said that it leaves.
    Left,
    /// The connection to it is gone.
    Disconnected,
    /// The membership holds it for dead.
    Failed,
    /// We are leaving.
    Leaving,
}

impl DownReason {
    /// A short stable name for logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            DownReason::Evicted => "evicted",
            DownReason::EvictedUs => "evicted_us",
            DownReason::Left => "left",
            DownReason::Disconnected => "disconnected",
            DownReason::Failed => "failed",
            DownReason::Leaving => "leaving",
        }
    }
}

/// A message of one of the topologies. The wire enum only grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<I> {
    /// Of [`hyparview`].
    Hyparview(hyparview::Message<I>),
    /// Of [`mesh`].
    Mesh(mesh::Message),
}

impl<I: Identifier> Message<I> {
    /// Calls `visit` with every peer that the message names, so that a driver can send along how to reach them.
    pub fn visit_peers(&self, visit: &mut dyn FnMut(I)) {
        match self {
            Message::Hyparview(message) => message.visit_peers(visit),
            Message::Mesh(_) => {}
        }
    }

    /// Whether the topology may give up a neighbor for a nearer one when it gets this message.
    pub fn may_swap(&self) -> bool {
        matches!(self, Message::Hyparview(message) if message.may_swap())
    }
}

/// Which topology, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// Partial views: a handful of neighbors whatever the size of the cluster.
    Hyparview(hyparview::Params),
    /// Everybody is everybody's neighbor.
    Mesh(mesh::Params),
}

/// A topology that runs.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a node has one; the large variant is the usual one, and a box would cost a simulated million"
)]
pub enum Topology<I> {
    /// Partial views.
    Hyparview(hyparview::State<I>),
    /// Full mesh.
    Mesh(mesh::State<I>),
}

impl<I: Identifier> Topology<I> {
    /// A topology for the node `me`; `seed` feeds its generator.
    pub fn new(me: I, params: Params, seed: u64) -> Self {
        match params {
            Params::Hyparview(params) => Topology::Hyparview(hyparview::State::new(me, params, seed)),
            Params::Mesh(params) => Topology::Mesh(mesh::State::new(me, params, seed)),
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match self {
            Topology::Hyparview(state) => state.handle(input, now, actions),
            Topology::Mesh(state) => state.handle(input, now, actions),
        }
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self {
            Topology::Hyparview(state) => state.next_deadline(),
            Topology::Mesh(state) => state.next_deadline(),
        }
    }

    /// The neighbors, in order.
    pub fn neighbors(&self) -> &[I] {
        match self {
            Topology::Hyparview(state) => state.neighbors(),
            Topology::Mesh(state) => state.neighbors(),
        }
    }

    /// `hyparview` or `mesh`.
    pub fn name(&self) -> &'static str {
        match self {
            Topology::Hyparview(_) => "hyparview",
            Topology::Mesh(_) => "mesh",
        }
    }
}
