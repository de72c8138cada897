//! What the world asks of a node, and the one place that knows the real one.
//!
//! The world drives anything that is a [`Host`]: it starts it, feeds it inputs with the time, and carries out its effects. The vocabulary
//! here is narrower than that of a real node, because the world looks at frames as bytes and at events only as far as an invariant reads them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use meshwork::crdt::{Key, Op, Stamp, Value};
use meshwork::node::{self, Action, Candidate, CloseReason, Event, Identity, Kind, Node};
use meshwork_channels::buggify::{Buggify, Site, Sites};
use meshwork_channels::dial::{self, ConnectionId, Direction};
use meshwork_channels::frame::Decoder;
use meshwork_channels::{ChannelId, Now, PeerId, Time, limits};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Recovered};
use crate::plan::Tuning;

/// The number of a connection in one node; never used twice by it.
pub type Connection = u64;

/// What can happen to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// An admitted connection stands.
    Connected {
        /// Its number.
        connection: Connection,
        /// Who is at the other end.
        peer: PeerId,
        /// Which life of that node.
        incarnation: u64,
        /// Where it is.
        address: SocketAddr,
        /// Whether this node dialed.
        outbound: bool,
    },
    /// A connection is gone, also after the node closed it itself.
    Disconnected {
        /// Its number.
        connection: Connection,
        /// Who was at the other end.
        peer: PeerId,
        /// Whether either side closed it because nobody needed it.
        unneeded: bool,
    },
    /// A dial did not lead to a connection.
    DialFailed {
        /// Where to.
        address: SocketAddr,
        /// Why.
        why: DialFailure,
    },
    /// A whole frame arrived on a stream.
    Frame {
        /// Over this connection.
        connection: Connection,
        /// On this channel.
        channel: ChannelId,
        /// The frame with its length.
        bytes: Bytes,
    },
    /// A datagram arrived.
    Datagram {
        /// Over this connection.
        connection: Connection,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Addresses worth dialing.
    Discovered(Vec<SocketAddr>),
    /// The moment of [`Host::next_deadline`] has come.
    DeadlineReached,
}

/// Why a dial led nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody answered.
    TimedOut,
    /// Somebody else than expected answered, in which life.
    WrongPeer(PeerId),
    /// The address is this node's own.
    Myself,
    /// The connection ended before it stood.
    Lost,
}

/// What a node decides.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Dial.
    Dial {
        /// Where to.
        address: SocketAddr,
        /// Who must be there.
        expected: Option<PeerId>,
    },
    /// Send a whole frame.
    Send {
        /// Over this connection.
        connection: Connection,
        /// On this channel.
        channel: ChannelId,
        /// The frame with its length.
        frame: Bytes,
    },
    /// Send a datagram.
    SendDatagram {
        /// Over this connection.
        connection: Connection,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Close a connection and tell the peer.
    Close {
        /// Its number.
        connection: Connection,
        /// Whether that is because nobody needs it.
        unneeded: bool,
    },
    /// Something that the application would see.
    Observed(Observation),
}

/// What the application of a node would see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A broadcast.
    Delivered {
        /// Its payload.
        payload: Bytes,
        /// Links that it crossed.
        hops: u16,
    },
    /// A message of guaranteed delivery, which the application took at once.
    Received {
        /// Who sent it.
        from: PeerId,
        /// Its payload.
        payload: Bytes,
    },
    /// The set of neighbors changed.
    NeighborsChanged,
    /// A member is up in a generation, or goes on in another.
    MemberUp {
        /// Who.
        peer: PeerId,
        /// Which of its runs.
        generation: u64,
    },
    /// A member is held for dead in a generation.
    MemberFailed {
        /// Who.
        peer: PeerId,
        /// Which of its runs.
        generation: u64,
    },
    /// A member said goodbye.
    MemberLeft(PeerId),
    /// A member is suspected.
    MemberSuspected(PeerId),
    /// It goes on from what it had on its disk; with what is wrong with that, in words.
    Restored {
        /// What is wrong.
        fault: Option<String>,
    },
    /// All that it did to the replicated state is durable.
    Synced,
    /// A peer broke a rule.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// Which rule.
        rule: &'static str,
    },
}

/// What a node is born with.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Its number in the world.
    pub index: u32,
    /// Its name.
    pub peer: PeerId,
    /// Which life this is, from 1.
    pub incarnation: u64,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Feeds its generators.
    pub seed: u64,
    /// A bug that it has on purpose.
    pub plant: Option<Plant>,
}

/// A bug that is planted on purpose, to see that what should notice it does. One node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// It ignores every frame that repairs its replica.
    NeverRepairs,
    /// It hands each broadcast to its application twice.
    DeliverTwice,
    /// It hands no broadcast to its application.
    DeliverNever,
    /// It hands broadcasts to its application with a byte changed.
    DeliverGarbled,
    /// It hides one of its neighbors.
    HideNeighbor,
    /// It goes on counting neighbors that it does not have any more.
    KeepNeighbors,
    /// It goes on counting members that are gone.
    KeepMembers,
    /// It is not told of connections that end.
    IgnoreDisconnects,
    /// It dials nobody.
    NeverDials,
    /// It reports broken rules that nobody broke.
    BlameOthers,
    /// It never wakes at its deadlines.
    NeverWakes,
    /// It starts again with the incarnation of its first life.
    StaleIncarnation,
    /// It says that it wrote a key and did not.
    LoseWrites,
    /// It says that it removed a key or took out a member and did not.
    LoseRemovals,
    /// Its disk loses in a crash what it had synced.
    LoseSynced,
    /// It panics when it has two neighbors.
    Panic,
    /// It sends to its peers in the order of a map of the standard library, which is another in each process.
    HashOrder,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 17] = [
        Plant::NeverRepairs,
        Plant::DeliverTwice,
        Plant::DeliverNever,
        Plant::DeliverGarbled,
        Plant::HideNeighbor,
        Plant::KeepNeighbors,
        Plant::KeepMembers,
        Plant::IgnoreDisconnects,
        Plant::NeverDials,
        Plant::BlameOthers,
        Plant::NeverWakes,
        Plant::StaleIncarnation,
        Plant::LoseWrites,
        Plant::LoseRemovals,
        Plant::LoseSynced,
        Plant::Panic,
        Plant::HashOrder,
    ];

    /// What is typed to plant it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::NeverRepairs => "never-repairs",
            Plant::DeliverTwice => "deliver-twice",
            Plant::DeliverNever => "deliver-never",
            Plant::DeliverGarbled => "deliver-garbled",
            Plant::HideNeighbor => "hide-neighbor",
            Plant::KeepNeighbors => "keep-neighbors",
            Plant::KeepMembers => "keep-members",
            Plant::IgnoreDisconnects => "ignore-disconnects",
            Plant::NeverDials => "never-dials",
            Plant::BlameOthers => "blame-others",
            Plant::NeverWakes => "never-wakes",
            Plant::StaleIncarnation => "stale-incarnation",
            Plant::LoseWrites => "lose-writes",
            Plant::LoseRemovals => "lose-removals",
            Plant::LoseSynced => "lose-synced",
            Plant::Panic => "panic",
            Plant::HashOrder => "hash-order",
        }
    }

    /// What must notice it: an invariant, `panic`, or `check`, which compares two runs.
    pub fn caught_by(self) -> &'static str {
        match self {
            Plant::NeverRepairs => "state_converged",
            Plant::DeliverTwice | Plant::DeliverGarbled => "delivered_once",
            Plant::DeliverNever | Plant::NeverWakes | Plant::StaleIncarnation => "delivered_to_all_survivors",
            Plant::HideNeighbor | Plant::IgnoreDisconnects => "neighbors_symmetric",
            Plant::KeepNeighbors => "bounded_views",
            Plant::NeverDials => "one_component",
            Plant::BlameOthers => "no_misbehavior",
            Plant::KeepMembers => "views_complete",
            Plant::LoseWrites => "writes_kept",
            Plant::LoseRemovals => "nothing_resurrected",
            Plant::LoseSynced => "durable_kept",
            Plant::Panic => "panic",
            Plant::HashOrder => "check",
        }
    }
}

/// Counters of one node, summed over all nodes and lives for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Payload-carrying broadcast messages received, duplicates included.
    pub payloads_received: u64,
    /// Of those, the ones that were known already.
    pub duplicates: u64,
    /// Lazy announcements sent.
    pub announcements: u64,
    /// Payloads asked for after an announcement.
    pub grafts: u64,
    /// Tree links cut after a duplicate.
    pub prunes: u64,
    /// Frames of a kind or state that the node dropped.
    pub dropped: u64,
    /// Generations that a node took after its first, because it was held for dead.
    pub renewals: u64,
    /// Bytes of the frames that repaired replicas, sent.
    pub repair_bytes: u64,
    /// Entries that repair brought and that were news.
    pub repaired: u64,
    /// Entries that were sent to repair.
    pub entries_sent: u64,
    /// Removed keys that were forgotten.
    pub collected: u64,
    /// Entries that nodes gave up for which nobody had waited.
    pub given_up: u64,
    /// How often each place of rare behavior fired, by its number.
    pub buggified: [u64; Site::LEN],
}

impl Tally {
    /// Adds another node's counters.
    pub fn add(&mut self, other: &Tally) {
        self.payloads_received += other.payloads_received;
        self.duplicates += other.duplicates;
        self.announcements += other.announcements;
        self.grafts += other.grafts;
        self.prunes += other.prunes;
        self.dropped += other.dropped;
        self.renewals += other.renewals;
        self.repair_bytes += other.repair_bytes;
        self.repaired += other.repaired;
        self.entries_sent += other.entries_sent;
        self.collected += other.collected;
        self.given_up += other.given_up;
        self.buggified.iter_mut().zip(other.buggified).for_each(|(sum, fired)| *sum += fired);
    }
}

/// A node as the world drives it.
pub trait Host: Sized {
    /// Its parameters; one value serves all nodes.
    type Params;
    /// Memory that all nodes of a world share while they handle an input, one at a time.
    type Scratch: Default;

    /// The parameters for a tuning.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    fn params(tuning: &Tuning) -> Result<Self::Params, String>;
    /// The most neighbors that a node with these parameters may have in a world of `nodes`.
    fn neighbors_max(params: &Self::Params, nodes: u32) -> usize;

    /// A node that begins to live.
    fn start(birth: &Birth, params: &Self::Params, now: Now) -> Self;
    /// Goes on from what is on a disk, and keeps its replicated state there from now on: what it wrote is synced so long after the first of it. For a node that
    /// has just begun to live. A host without replicated state keeps nothing.
    fn keep(&mut self, _disk: Disk, _sync: Duration, _now: Now, _scratch: &mut Self::Scratch, _effects: &mut Vec<Effect>) {}
    /// Gives its disk back, for its life is over; in good order or in the middle of things.
    fn give_disk(&mut self, _in_order: bool, _now: Now) -> Option<Disk> {
        None
    }
    /// Handles one input.
    fn handle(&mut self, input: Input, now: Now, scratch: &mut Self::Scratch, effects: &mut Vec<Effect>);
    /// When [`Input::DeadlineReached`] is due.
    fn next_deadline(&self) -> Option<Time>;

    /// Broadcasts; says whether the node accepted it.
    fn broadcast(&mut self, payload: Bytes, now: Now, scratch: &mut Self::Scratch, effects: &mut Vec<Effect>) -> bool;
    /// Sends a message of guaranteed delivery; says whether the node accepted it. A host that has none accepts none.
    fn send_guaranteed(
        &mut self,
        _to: PeerId,
        _payload: Bytes,
        _now: Now,
        _scratch: &mut Self::Scratch,
        _effects: &mut Vec<Effect>,
    ) -> bool {
        false
    }
    /// Does something to keys of the replicated state, all of it or nothing; gives the stamp, or none when the node refused it or it changed nothing.
    fn write(&mut self, writes: Vec<(String, Op)>, now: Now, scratch: &mut Self::Scratch, effects: &mut Vec<Effect>) -> Option<Stamp>;
    /// Tells its application the input with this number; says whether it was told. A host without an application tells nobody.
    fn tell(&mut self, _input: u32, _now: Now, _scratch: &mut Self::Scratch, _effects: &mut Vec<Effect>) -> bool {
        false
    }
    /// Says goodbye.
    fn leave(&mut self, now: Now, scratch: &mut Self::Scratch, effects: &mut Vec<Effect>);

    /// Its neighbors in the overlay.
    fn visit_neighbors(&self, visit: &mut dyn FnMut(PeerId));
    /// The members that it holds for alive, itself included.
    fn visit_members(&self, visit: &mut dyn FnMut(PeerId));
    /// Where members are that it would write down for its next life.
    fn visit_remembered(&self, _visit: &mut dyn FnMut(SocketAddr)) {}
    /// The visible value of a key.
    fn value(&self, key: &str) -> Option<&Bytes>;
    /// What a key holds, of whatever kind.
    fn read(&self, key: &str) -> Option<Value>;
    /// A digest of its replica: equal when the replicas are.
    fn state_digest(&self) -> u128;
    /// How many keys are visible in its replica.
    fn state_len(&self) -> usize;
    /// Bytes of all keys and values of its replica.
    fn state_bytes(&self) -> usize;
    /// The greatest stamp that its replica gave out or accepted.
    fn state_clock(&self) -> Stamp {
        Stamp::ZERO
    }
    /// Its counters.
    fn tally(&self) -> Tally;
}

/// The name of the node with this number under a seed: a hash, so that the order of names says nothing, with the number at the end.
pub fn peer_id(seed: u64, index: u32) -> PeerId {
    let mut bytes = [0; 32];
    for (part, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&meshwork_channels::random::hash(&[seed, 0x7065_6572, u64::from(index), part as u64]).to_be_bytes());
    }
    bytes[28..].copy_from_slice(&index.to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// The number of the node with this name, if the world gave the name.
pub fn index_of(peer: PeerId) -> u32 {
    let bytes = peer.as_bytes();
    u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]])
}

/// Most nodes of a world: the number of a node is the host part of its address in 10.0.0.0/8.
pub const NODES_MAX: u32 = 1 << 24;
const PORT: u16 = 7_000;

/// Where a node is after it moved this many times.
pub fn address(index: u32, moves: u16) -> SocketAddr {
    let [_, b, c, d] = index.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), PORT.saturating_add(moves))
}

/// Which node may be at an address, and after how many moves.
pub fn at_address(address: SocketAddr) -> Option<(u32, u16)> {
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, b, c, d] => Some((u32::from_be_bytes([0, b, c, d]), address.port().checked_sub(PORT)?)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

/// The real node.
#[derive(Debug)]
pub struct RealNode {
    node: Node,
    buggify: Buggify,
    plant: Option<Plant>,
    /// Whoever was a neighbor or a member, for [`Plant::KeepNeighbors`] and [`Plant::KeepMembers`].
    kept: BTreeSet<PeerId>,
    keeper: Option<Box<Keeper>>,
}

/// What keeps the state of a node on a disk, as the runtime does with a journal.
#[derive(Debug)]
struct Keeper {
    disk: Disk,
    sync: Duration,
    sync_at: Option<Time>,
}

impl Keeper {
    /// Writes down what the node wants written down, and syncs when that is due.
    fn write_down(&mut self, node: &mut Node, now: Now, effects: &mut Vec<Effect>) {
        if node.unrecorded() > 0 {
            self.disk.append(node.records(usize::MAX, now));
            self.sync_at = self.sync_at.or(Some(now.time + self.sync));
        }
        if self.sync_at.is_some_and(|at| at <= now.time) {
            self.sync(node);
            effects.push(Effect::Observed(Observation::Synced));
        }
    }

    fn sync(&mut self, node: &Node) {
        self.disk.sync(digest_of(node));
        self.sync_at = None;
    }
}

fn digest_of(node: &Node) -> u128 {
    let digest = node.state().digest();
    digest.sum ^ (u128::from(digest.keys) << 64)
}

/// What one would configure for nodes with a tuning.
pub fn config(tuning: &Tuning) -> node::Config {
    let mut config = node::Config { topology: if tuning.full_mesh { Kind::Mesh } else { Kind::Hyparview }, ..node::Config::default() };
    config.hyparview.active_len_max = tuning.active as usize;
    config.hyparview.active_len_min = config.hyparview.active_len_min.min(tuning.active as usize);
    config.hyparview.passive_len_max = tuning.passive as usize;
    if tuning.suspicion > 0 {
        config.membership.suspicion = Duration::from_micros(tuning.suspicion);
    }
    config.membership.without.extend(tuning.without);
    if tuning.no_repair {
        config.state.repair_period = None;
    }
    if tuning.collect_after > 0 {
        config.state.collect_after = Some(Duration::from_micros(tuning.collect_after));
    }
    if tuning.absent_max > 0 {
        config.state.absent_max = Duration::from_micros(tuning.absent_max);
    }
    config.broadcast.payload_retention = Duration::from_micros(tuning.retention);
    config
}

/// The parameters of real nodes.
#[derive(Clone, Debug)]
pub struct RealParams {
    params: node::Params,
    buggify: Sites,
    neighbors_max: Option<usize>,
}

impl RealNode {
    fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Turns what the node decided into effects. Messages of guaranteed delivery are taken at once.
    fn translate(&mut self, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) {
        let mut taken = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::DeliverGuaranteed { from, incarnation, channel, sequence, payload } => {
                    effects.push(Effect::Observed(Observation::Received { from, payload }));
                    taken.push(node::Input::Taken { from, incarnation, channel, sequence });
                }
                Action::Dial { .. } if self.has(Plant::NeverDials) => {}
                Action::Dial { address, expected } => effects.push(Effect::Dial { address, expected }),
                Action::Send { connection, channel, frame, call: _ } | Action::SendGuaranteed { connection, channel, frame } => {
                    effects.push(Effect::Send { connection: connection.0, channel, frame });
                }
                Action::SendDatagram { connection, bytes } => effects.push(Effect::SendDatagram { connection: connection.0, bytes }),
                Action::Close { connection, reason } => {
                    let unneeded = matches!(reason, CloseReason::Unneeded | CloseReason::Duplicate);
                    effects.push(Effect::Close { connection: connection.0, unneeded });
                }
                Action::Event(event) => self.translate_event(&event, effects),
                Action::Deliver(delivery) if delivery.id.channel == ChannelId::EVENTS => {
                    let times = if self.has(Plant::DeliverNever) { 0 } else { 1 + usize::from(self.has(Plant::DeliverTwice)) };
                    let payload = match self.has(Plant::DeliverGarbled) {
                        true => delivery.payload.iter().map(|byte| byte ^ 1).collect(),
                        false => delivery.payload,
                    };
                    let observation = Observation::Delivered { payload, hops: delivery.hops };
                    effects.extend(std::iter::repeat_n(Effect::Observed(observation), times));
                }
                // Scenarios ask nothing of single nodes yet, and read the replicated state instead of following it.
                Action::Deliver(_)
                | Action::Message { .. }
                | Action::Settled { .. }
                | Action::Request { .. }
                | Action::Cancelled { .. }
                | Action::Answer { .. }
                | Action::Confirmed { .. }
                | Action::Changed { .. }
                | Action::Service(_) => {}
            }
        }
        if !taken.is_empty() {
            taken.into_iter().for_each(|input| self.node.handle(input, now, actions));
            self.translate(now, actions, effects);
        }
    }

    fn translate_event(&self, event: &Event, effects: &mut Vec<Effect>) {
        let observation = match event {
            Event::NeighborUp(_) | Event::NeighborDown(..) => Observation::NeighborsChanged,
            Event::MemberJoined(member) | Event::MemberUpdated(member) => {
                Observation::MemberUp { peer: member.peer, generation: member.generation }
            }
            Event::MemberFailed(member) => Observation::MemberFailed { peer: member.peer, generation: member.generation },
            Event::MemberLeft(member) => Observation::MemberLeft(member.peer),
            Event::MemberSuspected(member) => Observation::MemberSuspected(member.peer),
            Event::Misbehaved(peer, what) => Observation::Misbehaved { peer: *peer, rule: what.name() },
            _ => return,
        };
        effects.push(Effect::Observed(observation));
        if let Event::NeighborUp(peer) = event
            && self.has(Plant::BlameOthers)
        {
            effects.push(Effect::Observed(Observation::Misbehaved { peer: *peer, rule: "planted" }));
        }
    }

    /// What an input is to the node itself; none when nothing of it arrives.
    pub(crate) fn input_of(&self, input: Input, effects: &mut Vec<Effect>) -> Option<node::Input> {
        Some(match input {
            Input::Disconnected { .. } if self.has(Plant::IgnoreDisconnects) => return None,
            Input::Connected { connection, peer, incarnation, address, outbound } => node::Input::Connected {
                connection: ConnectionId(connection),
                peer,
                incarnation,
                address,
                direction: if outbound { Direction::Outbound } else { Direction::Inbound },
            },
            Input::Disconnected { connection, peer, unneeded } => {
                node::Input::Disconnected { connection: ConnectionId(connection), peer, unneeded }
            }
            Input::DialFailed { address, why } => {
                let failure = match why {
                    DialFailure::TimedOut => dial::DialFailure::TimedOut,
                    DialFailure::WrongPeer(_) => dial::DialFailure::NotExpected,
                    DialFailure::Myself => dial::DialFailure::Myself,
                    DialFailure::Lost => dial::DialFailure::Broken,
                };
                node::Input::DialFailed { address, failure }
            }
            Input::Frame { channel: ChannelId::STATE, .. } if self.has(Plant::NeverRepairs) => return None,
            Input::Frame { connection, channel, bytes } => {
                // The frame goes through the decoder of a real stream: what does not survive that does not arrive.
                let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
                decoder.push(bytes);
                let Ok(Some(frame)) = decoder.next() else {
                    let me = self.node.id();
                    effects.push(Effect::Observed(Observation::Misbehaved { peer: me, rule: "undecodable frame" }));
                    return None;
                };
                node::Input::Frame { connection: ConnectionId(connection), channel, frame }
            }
            Input::Datagram { connection, bytes } => node::Input::Datagram { connection: ConnectionId(connection), bytes },
            Input::Discovered(addresses) => {
                let candidates = addresses.into_iter().map(|address| Candidate { address, peer: None, keep: true }).collect();
                node::Input::Discovered { source: "static", candidates }
            }
            Input::DeadlineReached => node::Input::DeadlineReached,
        })
    }

    /// Lets the node act, and turns what it decided into effects.
    pub(crate) fn act<T>(
        &mut self,
        now: Now,
        actions: &mut Vec<Action>,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Node, &mut Vec<Action>) -> T,
    ) -> T {
        let answer = act(&mut self.node, actions);
        self.translate(now, actions, effects);
        if let Some(keeper) = &mut self.keeper {
            keeper.write_down(&mut self.node, now, effects);
        }
        match self.plant {
            Some(Plant::KeepNeighbors) => self.kept.extend(self.node.neighbors()),
            Some(Plant::KeepMembers) => {
                self.kept.extend(self.node.members().filter(|member| member.status.is_up()).map(|member| member.peer));
            }
            Some(Plant::Panic) => assert!(self.node.neighbors().len() < 2, "a planted panic"),
            Some(Plant::HashOrder) => {
                let order = RandomState::new();
                effects.sort_by_cached_key(|effect| match effect {
                    Effect::Send { connection, .. } => order.hash_one(connection),
                    _ => 0,
                });
            }
            _ => {}
        }
        answer
    }
}

impl Host for RealNode {
    type Params = RealParams;
    type Scratch = Vec<Action>;

    fn params(tuning: &Tuning) -> Result<RealParams, String> {
        let params = config(tuning).build().map_err(|error| format!("the nodes cannot have these parameters: {error}"))?;
        Ok(RealParams { params, buggify: tuning.buggify, neighbors_max: (!tuning.full_mesh).then_some(tuning.active as usize) })
    }

    fn neighbors_max(params: &RealParams, nodes: u32) -> usize {
        params.neighbors_max.unwrap_or(nodes as usize - 1)
    }

    fn start(birth: &Birth, params: &RealParams, now: Now) -> Self {
        let identity = Identity { peer: birth.peer, incarnation: birth.incarnation, address: birth.address };
        let buggify = Buggify::new(birth.seed, params.buggify);
        let mut own = params.params.clone();
        if !params.buggify.is_empty() {
            own = own.with_buggify(&buggify);
        }
        let node = Node::new(identity, own, birth.seed, now);
        RealNode { node, buggify, plant: birth.plant, kept: BTreeSet::new(), keeper: None }
    }

    fn keep(&mut self, mut disk: Disk, sync: Duration, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) {
        let is_new = disk.is_new();
        let Recovered { records, digest, mut fault } = disk.recover();
        let restored = self.node.restore(records, now, actions);
        if restored.refused > 0 || digest.is_some_and(|digest| digest != digest_of(&self.node)) {
            fault.get_or_insert_with(|| "the replica is not what it was when it was synced".to_owned());
        }
        let mut keeper = Keeper { disk, sync, sync_at: None };
        keeper.sync(&self.node);
        self.keeper = Some(Box::new(keeper));
        let restored = (!is_new).then_some(Observation::Restored { fault });
        effects.extend(restored.into_iter().chain([Observation::Synced]).map(Effect::Observed));
        self.translate(now, actions, effects);
    }

    fn give_disk(&mut self, in_order: bool, now: Now) -> Option<Disk> {
        let mut keeper = self.keeper.take()?;
        if in_order {
            let mut records = self.node.records(usize::MAX, now);
            records.push(self.node.ended());
            keeper.disk.append(records);
            keeper.sync(&self.node);
            // That all was synced stands in the log too.
            keeper.disk.append(Vec::new());
            keeper.sync(&self.node);
        }
        Some(keeper.disk)
    }

    fn handle(&mut self, input: Input, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) {
        if let Some(input) = self.input_of(input, effects) {
            self.act(now, actions, effects, |node, actions| node.handle(input, now, actions));
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let sync_at = self.keeper.as_ref().and_then(|keeper| keeper.sync_at);
        self.node.next_deadline().into_iter().chain(sync_at).min().filter(|_| !self.has(Plant::NeverWakes))
    }

    fn broadcast(&mut self, payload: Bytes, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) -> bool {
        self.act(now, actions, effects, |node, actions| node.broadcast(ChannelId::EVENTS, payload, now, actions).is_ok())
    }

    fn send_guaranteed(&mut self, to: PeerId, payload: Bytes, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) -> bool {
        self.act(now, actions, effects, |node, actions| node.send_guaranteed(to, ChannelId::DATA, payload, None, now, actions).is_ok())
    }

    fn write(&mut self, writes: Vec<(String, Op)>, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) -> Option<Stamp> {
        let takes = writes.iter().any(|(_, op)| matches!(op, Op::Remove | Op::Take(_)));
        if self.has(if takes { Plant::LoseRemovals } else { Plant::LoseWrites }) {
            return Some(Stamp::from_parts(now.wall.as_millis(), 0));
        }
        self.act(now, actions, effects, |node, actions| match &writes[..] {
            [(key, op)] => node.apply(key, op.clone(), now, actions).ok()?,
            _ => {
                let key = |(key, op): (String, Op)| Some((Key::try_from(&key[..]).ok()?, op));
                node.batch(writes.into_iter().map(key).collect::<Option<_>>()?, now, actions).ok()?
            }
        })
    }

    fn leave(&mut self, now: Now, actions: &mut Vec<Action>, effects: &mut Vec<Effect>) {
        self.act(now, actions, effects, |node, actions| node.leave(now, actions));
    }

    fn visit_neighbors(&self, visit: &mut dyn FnMut(PeerId)) {
        match self.plant {
            Some(Plant::KeepNeighbors) => self.kept.iter().copied().for_each(visit),
            plant => self.node.neighbors().iter().skip(usize::from(plant == Some(Plant::HideNeighbor))).copied().for_each(visit),
        }
    }

    fn visit_remembered(&self, visit: &mut dyn FnMut(SocketAddr)) {
        self.node.worth_remembering().for_each(|(_, address)| visit(address));
    }

    fn visit_members(&self, visit: &mut dyn FnMut(PeerId)) {
        match self.plant {
            Some(Plant::KeepMembers) => self.kept.iter().copied().for_each(visit),
            _ => self.node.members().filter(|member| member.status.is_up()).for_each(|member| visit(member.peer)),
        }
    }

    fn value(&self, key: &str) -> Option<&Bytes> {
        self.node.get(key)
    }

    fn read(&self, key: &str) -> Option<Value> {
        self.node.state().read(key)
    }

    fn state_digest(&self) -> u128 {
        digest_of(&self.node)
    }

    fn state_len(&self) -> usize {
        self.node.state().len()
    }

    fn state_bytes(&self) -> usize {
        self.node.state().bytes()
    }

    fn state_clock(&self) -> Stamp {
        self.node.state().last_stamp()
    }

    fn tally(&self) -> Tally {
        let (counters, state) = (self.node.overlay().plumtree().counters(), self.node.state().counters());
        let node = self.node.counters();
        Tally {
            payloads_received: counters.delivered + counters.duplicates,
            duplicates: counters.duplicates,
            announcements: counters.ihave_ids_sent,
            grafts: counters.grafts_sent,
            prunes: counters.prunes_sent,
            dropped: node.dropped,
            renewals: self.node.overlay().membership().counters().renewals,
            repair_bytes: node.repair_bytes,
            repaired: state.repaired,
            entries_sent: state.entries_sent,
            collected: state.collected,
            given_up: state.given_up,
            buggified: self.buggify.fired(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_lead_back_to_the_number() {
        for index in [0, 1, 255, 256, 70_000, NODES_MAX - 1] {
            assert_eq!(index_of(peer_id(3, index)), index);
            assert_eq!(at_address(address(index, 2)), Some((index, 2)));
        }
        assert_ne!(peer_id(1, 5), peer_id(2, 5));
        assert_eq!(at_address(SocketAddr::from(([192, 168, 0, 1], 7_000))), None);
        assert_eq!(at_address(SocketAddr::from(([10, 0, 0, 1], 6_999))), None);
    }
}
