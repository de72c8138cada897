//! The overlay of one node: membership, topology and broadcast, composed by one routing loop.
//!
//! The three cores never call each other. Each handles an input and appends actions; [`State`] turns the actions of one into inputs of another
//! until nothing is left to route. There is one `match` for each core and one arm for each arrow of the picture:
//!
//! ```text
//! swim ──member up, back, down──▶ topology ──neighbor up, down──▶ plumtree
//!   └────────── events ──────────────┴─────────── deliveries ────────┴──▶ Action
//! ```
//!
//! What a peer can make it store is what it can make its three cores store; each states its own bounds.

use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::{ChannelId, Misbehavior, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;
use crate::plumtree::{self, BroadcastError, MessageId};
use crate::swim;
use crate::topology::{self, DownReason, Topology};

/// What can happen to the overlay.
#[derive(Clone, Debug)]
pub enum Input<I> {
    /// A connection to the peer stands.
    Connected {
        /// The peer.
        peer: I,
        /// Where it is.
        address: SocketAddr,
        /// Which life of it.
        generation: u64,
    },
    /// The last connection to the peer is gone.
    Disconnected {
        /// The peer.
        peer: I,
        /// Whether nobody wished it: membership asks questions then. A connection that either side closed because it was unused says nothing.
        broken: bool,
    },
    /// No connection to the peer could be made.
    Unreached(I),
    /// Enter the overlay through a peer to which a connection stands.
    Join {
        /// The peer.
        contact: I,
    },
    /// A message arrived on a stream.
    Received {
        /// From this peer.
        from: I,
        /// The message.
        message: Message<I>,
    },
    /// A datagram arrived.
    Datagram {
        /// From this peer.
        from: I,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Say goodbye.
    Leave,
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What the overlay decides.
#[derive(Clone, Debug)]
pub enum Action<I> {
    /// Send a message on a stream, over a connection that is dialed if there is none.
    Send {
        /// The peer.
        to: I,
        /// Where it is, if the overlay knows.
        address: Option<SocketAddr>,
        /// The message.
        message: Message<I>,
    },
    /// Send a datagram, over a connection that is dialed if there is none. It may be lost.
    Datagram {
        /// The peer.
        to: I,
        /// Where it is.
        address: SocketAddr,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Hand a broadcast to the application.
    Deliver {
        /// Which message.
        id: MessageId<I>,
        /// The bytes.
        payload: Bytes,
        /// Links crossed on the way, the first counted as 1.
        hops: u16,
    },
    /// A peer is a neighbor from now on.
    NeighborUp(I),
    /// A peer is no neighbor any more.
    NeighborDown(I, DownReason),
    /// The membership changed.
    Member(swim::Event<I>),
    /// A peer broke a rule.
    Misbehaved {
        /// The peer.
        peer: I,
        /// The rule.
        what: Misbehavior,
    },
}

/// A message of the overlay on a stream. The wire enum only grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<I> {
    /// Of the topology.
    Topology(topology::Message<I>),
    /// Of the broadcast.
    Plumtree(plumtree::Message<I>),
    /// Of the membership.
    Swim(swim::Message<I>),
}

impl<I: Identifier> Message<I> {
    /// The channel on which it travels: a payload on that of its broadcast, everything else on the control channel.
    pub fn channel(&self) -> ChannelId {
        match self {
            Message::Plumtree(message) => message.channel().unwrap_or(ChannelId::CONTROL),
            Message::Topology(_) | Message::Swim(_) => ChannelId::CONTROL,
        }
    }

    /// Calls `visit` with every peer that the message names and that the receiver may have to dial.
    pub fn visit_peers(&self, visit: &mut dyn FnMut(I)) {
        match self {
            Message::Topology(message) => message.visit_peers(visit),
            // Membership carries its own addresses; nobody dials the origin of a broadcast.
            Message::Plumtree(_) | Message::Swim(_) => {}
        }
    }
}

/// The parameters of the three cores.
#[derive(Clone, Debug)]
pub struct Params {
    /// Which topology.
    pub topology: topology::Params,
    /// Of the broadcast.
    pub plumtree: plumtree::Params,
    /// Of the membership.
    pub membership: swim::Params,
}

/// The overlay of one node.
#[derive(Debug)]
pub struct State<I: Identifier + Serialize + DeserializeOwned> {
    topology: Topology<I>,
    plumtree: plumtree::State<I>,
    membership: swim::State<I>,
    // Reused buffers: one of each, empty between inputs.
    topology_actions: Vec<topology::Action<I>>,
    plumtree_actions: Vec<plumtree::Action<I>>,
    membership_actions: Vec<swim::Action<I>>,
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// The overlay of `me`, reachable at `address`, in the life `generation`; `seed` feeds every generator.
    pub fn new(me: I, generation: u64, address: SocketAddr, params: Params, seed: u64, now: Time) -> Self {
        State {
            topology: Topology::new(me, params.topology, seed),
            plumtree: plumtree::State::new(me, generation, params.plumtree, seed),
            membership: swim::State::new(me, generation, address, params.membership, seed, now),
            topology_actions: Vec::new(),
            plumtree_actions: Vec::new(),
            membership_actions: Vec::new(),
        }
    }

    /// Handles one input; appends what was decided.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match input {
            Input::Connected { peer, address, generation } => {
                self.membership.handle(swim::Input::Connected { peer, address, generation }, now, &mut self.membership_actions);
            }
            Input::Disconnected { peer, broken } => {
                if broken {
                    self.membership.handle(swim::Input::Disconnected(peer), now, &mut self.membership_actions);
                }
                self.topology.handle(topology::Input::Unreachable(peer), now, &mut self.topology_actions);
            }
            Input::Unreached(peer) => {
                self.membership.handle(swim::Input::Unreached(peer), now, &mut self.membership_actions);
                self.topology.handle(topology::Input::Unreachable(peer), now, &mut self.topology_actions);
            }
            Input::Join { contact } => self.topology.handle(topology::Input::Join { contact }, now, &mut self.topology_actions),
            Input::Received { from, message } => match message {
                Message::Topology(message) => {
                    if message.may_swap() {
                        let carrying = self.plumtree.carrying().collect();
                        self.topology.handle(topology::Input::Carrying(carrying), now, &mut self.topology_actions);
                    }
                    self.topology.handle(topology::Input::Received { from, message }, now, &mut self.topology_actions);
                }
                Message::Plumtree(message) => {
                    self.plumtree.handle(plumtree::Input::Received { from, message }, now, &mut self.plumtree_actions);
                }
                Message::Swim(message) => {
                    self.membership.handle(swim::Input::Received { from, message }, now, &mut self.membership_actions);
                }
            },
            Input::Datagram { from, bytes } => {
                self.membership.handle(swim::Input::Datagram { from, bytes }, now, &mut self.membership_actions);
            }
            Input::Leave => {
                self.membership.handle(swim::Input::Leave, now, &mut self.membership_actions);
                self.topology.handle(topology::Input::Leave, now, &mut self.topology_actions);
            }
            Input::DeadlineReached => {
                if self.membership.next_deadline().is_some_and(|at| at <= now) {
                    self.membership.handle(swim::Input::DeadlineReached, now, &mut self.membership_actions);
                }
                if self.topology.next_deadline().is_some_and(|at| at <= now) {
                    self.topology.handle(topology::Input::DeadlineReached, now, &mut self.topology_actions);
                }
                if self.plumtree.next_deadline().is_some_and(|at| at <= now) {
                    self.plumtree.handle(plumtree::Input::DeadlineReached, now, &mut self.plumtree_actions);
                }
            }
        }
        self.route(now, actions);
    }

    /// Broadcasts a payload to every node of the cluster but this one.
    ///
    /// # Errors
    ///
    /// [`BroadcastError`] when the payload is too large. Nothing was sent then.
    pub fn broadcast(
        &mut self,
        channel: ChannelId,
        payload: Bytes,
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) -> Result<MessageId<I>, BroadcastError> {
        let id = self.plumtree.broadcast(channel, payload, now, &mut self.plumtree_actions)?;
        self.route(now, actions);
        Ok(id)
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        [self.membership.next_deadline(), self.topology.next_deadline(), self.plumtree.next_deadline()].into_iter().flatten().min()
    }

    /// Which peers are neighbors.
    pub fn topology(&self) -> &Topology<I> {
        &self.topology
    }

    /// How broadcasts travel.
    pub fn plumtree(&self) -> &plumtree::State<I> {
        &self.plumtree
    }

    /// Who is in the cluster.
    pub fn membership(&self) -> &swim::State<I> {
        &self.membership
    }

    /// Routes the actions of the cores until nothing is left. It ends because every arrow points down: membership feeds the topology, the
    /// topology feeds the broadcast, and the broadcast feeds nobody.
    fn route(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        for action in self.membership_actions.drain(..) {
            match action {
                swim::Action::Send { to, address, message } => {
                    actions.push(Action::Send { to, address: Some(address), message: Message::Swim(message) });
                }
                swim::Action::News(news) => {
                    for (to, message) in news.for_neighbors(self.topology.neighbors()) {
                        actions.push(Action::Send { to, address: None, message: Message::Swim(message) });
                    }
                }
                swim::Action::Datagram { to, address, bytes } => actions.push(Action::Datagram { to, address, bytes }),
                swim::Action::Misbehaved { peer, what } => actions.push(Action::Misbehaved { peer, what }),
                swim::Action::Event(event) => {
                    if let Some(input) = topology_input(&event) {
                        self.topology.handle(input, now, &mut self.topology_actions);
                    }
                    let nodes = u32::try_from(self.membership.view().up_len() + 1).unwrap_or(u32::MAX);
                    self.plumtree.handle(plumtree::Input::ClusterSize(nodes), now, &mut self.plumtree_actions);
                    actions.push(Action::Member(event));
                }
            }
        }
        for action in self.topology_actions.drain(..) {
            match action {
                topology::Action::Send { to, message } => {
                    let address = self.membership.member(to).map(|member| member.address);
                    actions.push(Action::Send { to, address, message: Message::Topology(message) });
                }
                topology::Action::NeighborUp(peer) => {
                    self.plumtree.handle(plumtree::Input::NeighborUp(peer), now, &mut self.plumtree_actions);
                    actions.push(Action::NeighborUp(peer));
                }
                topology::Action::NeighborDown(peer, reason) => {
                    self.plumtree.handle(plumtree::Input::NeighborDown(peer), now, &mut self.plumtree_actions);
                    actions.push(Action::NeighborDown(peer, reason));
                }
                topology::Action::Misbehaved { peer, what } => actions.push(Action::Misbehaved { peer, what }),
            }
        }
        for action in self.plumtree_actions.drain(..) {
            match action {
                plumtree::Action::Send { to, message } => {
                    actions.push(Action::Send { to, address: None, message: Message::Plumtree(message) });
                }
                plumtree::Action::Deliver { id, payload, hops, .. } => actions.push(Action::Deliver { id, payload, hops }),
                plumtree::Action::Misbehaved { peer, what } => actions.push(Action::Misbehaved { peer, what }),
            }
        }
    }
}

/// What a change of the membership means to the topology.
fn topology_input<I: Identifier>(event: &swim::Event<I>) -> Option<topology::Input<I>> {
    Some(match event {
        swim::Event::Joined(member) => topology::Input::MemberUp(member.peer),
        swim::Event::Recovered { member, was_down: true } => topology::Input::MemberBack(member.peer),
        swim::Event::Failed(member) => topology::Input::MemberDown(member.peer),
        swim::Event::Left(member) => topology::Input::MemberLeft(member.peer),
        swim::Event::Recovered { was_down: false, .. }
        | swim::Event::Suspected(_)
        | swim::Event::Updated(_)
        | swim::Event::Renewed { .. } => return None,
    })
}
