//! The world: nodes, the connections between them, and virtual time.
//!
//! It plays the part that sockets, clocks and operating systems play for a real node, and nothing else: it decides nothing that a node
//! decides. Rules of the model:
//!
//! 1. A dial takes two round trips on the side of the dialer and one and a half on the other, as TLS 1.3 and the proof of admission do. A
//!    dial to an address where nobody listens or that cannot be reached from there, or across a partition, fails after a timeout.
//! 2. Frames arrive in order for each connection, direction and channel; a loss delays them. Datagrams are lost and overtake each other. Both share the
//!    lines of their nodes, where those have a limit, in the order in which they come to them; what belongs to handshakes and goodbyes is too small to count.
//! 3. A connection that is closed is gone for the peer after one latency, and what was still under way on it is lost. A crashed process
//!    tells nobody: its peers notice after the idle timeout.
//! 4. Nothing crosses a partition. Connections across it break after the idle timeout; a shorter partition only delays their frames.
//! 5. A cause never has its effect at the same moment: the smallest delay is one microsecond.
//!
//! All memory of a connection lies with its two nodes, and each has its own number for it, so no number depends on what other nodes do.

mod arrival;
mod carried;
mod clock;
mod connections;
mod entries;
mod faults;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use meshwork::crdt::{Kind, Stamp, Value};
use meshwork_channels::random::hash;
use meshwork_channels::{ChannelId, Now, PeerId, Time};
use serde::{Deserialize, Serialize};

use self::arrival::Arrival;
pub use self::arrival::Step;
use self::clock::WallClock;
pub use self::seen::{Moved, Seen, Sight, Traffic};
use crate::deed::Place;
use crate::digest::{Digest, hash_bytes};
use crate::disk::Disk;
use crate::host::{self, Connection, Effect, Host, Input, Observation, Plant, Tally};
use crate::invariants::View;
use crate::network::{Full, Link, Measured, Network, Shape};
use crate::schedule::{SCHEDULE, Schedule};
use crate::wheel::{Event, Wheel};

/// A node that asks this often in a row for a deadline that has passed would never let time move on.
const SPINS_MAX: u32 = 10_000;

/// What a world is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Feeds every draw.
    pub seed: u64,
    /// How many nodes the schedule may name.
    pub nodes: u32,
    /// The links between them.
    pub link: Link,
    /// What the network is like beside that.
    pub shape: Shape,
    /// How far the wall clock of a node may be from the true time, in microseconds; the distance is drawn for each node.
    pub skew: u64,
    /// Bytes of a broadcast, at least 8.
    pub payload_bytes: usize,
    /// Bytes of a written value, at least 8.
    pub value_bytes: usize,
    /// How long after a write a disk is synced, in microseconds, where a node keeps it over a restart; 0 for the default of a node.
    #[serde(default, skip_serializing_if = "crate::plan::is_zero")]
    pub sync: u64,
    /// A bug for one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plant: Option<(u32, Plant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// We dialed and wait for the answer or the admission.
    Dialing {
        expected: Option<PeerId>,
    },
    /// We answered and wait for the proof.
    Answering,
    Open,
    /// We closed it and are about to be told.
    Closing,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    id: Connection,
    peer: u32,
    /// The peer's number for the connection; 0 until it is known.
    remote: Connection,
    incarnation: u64,
    address: SocketAddr,
    stage: Stage,
    /// When the last frame of each channel arrives at the peer, so that none overtakes another.
    clocks: Vec<(ChannelId, u64)>,
    /// Nothing on a stream arrives before this: the handshake's own last packet.
    opened: u64,
}

#[derive(Debug)]
struct Slot<H> {
    host: Option<H>,
    life: u32,
    /// How often it came back at another address.
    moves: u16,
    /// The ends of its connections by number, which only grow.
    ends: Vec<End>,
    last_connection: Connection,
    sequence: u64,
    /// The earliest wake-up that is queued.
    wake: u64,
    spins: u32,
    paused_until: u64,
    /// Until when the node is slow, and what it takes for an input, in microseconds.
    slow_until: u64,
    slow_by: u64,
    clock: WallClock,
    leaving: bool,
    /// Where members were that it knew when it last stopped: what a node has in its data folder.
    remembered: Vec<SocketAddr>,
    /// Whether it has a disk at all: a restart keeps it.
    has_disk: bool,
    /// Its disk while it is not alive.
    disk: Option<Disk>,
}

impl<H> Slot<H> {
    fn end(&mut self, id: Connection) -> Option<&mut End> {
        let index = self.ends.binary_search_by_key(&id, |end| end.id).ok()?;
        Some(&mut self.ends[index])
    }

    fn take_end(&mut self, id: Connection) -> Option<End> {
        let index = self.ends.binary_search_by_key(&id, |end| end.id).ok()?;
        Some(self.ends.remove(index))
    }
}

/// Nodes in virtual time.
pub struct World<H: Host> {
    setup: Setup,
    params: H::Params,
    schedule: Schedule,
    network: Network,
    wheel: Wheel<Arrival>,
    now: u64,
    slots: Vec<Slot<H>>,
    peers: Vec<PeerId>,
    payloads: Vec<Option<Bytes>>,
    /// By broadcast: payloads of it that nodes received, when somebody wants to know.
    carried: Vec<u32>,
    seen: Vec<Seen>,
    digest: Digest,
    events: u64,
    traffic: Traffic,
    /// By node.
    moved: Vec<Moved>,
    /// Of lives that ended.
    tally: Tally,
    happened: BTreeMap<&'static str, u64>,
    scratch: H::Scratch,
    effects: Vec<Effect>,
    /// The steps since they were taken last, when somebody wants them.
    trace: Option<Vec<Step>>,
}

impl<H: Host> World<H> {
    /// A world at time 0, in which nothing has happened yet.
    ///
    /// # Panics
    ///
    /// If the schedule names a node that the setup does not have, or payloads are too small to carry their number.
    pub fn new(setup: Setup, params: H::Params, schedule: Schedule) -> Self {
        assert!(setup.nodes <= host::NODES_MAX, "the addresses of 10.0.0.0/8 reach for {} nodes", host::NODES_MAX);
        assert!(setup.payload_bytes >= 8 && setup.value_bytes >= 8, "8 bytes carry the number of a message");
        let mut wheel = Wheel::new();
        for (index, entry) in schedule.entries().iter().enumerate() {
            assert!(entry.what.node().is_none_or(|node| node < setup.nodes), "the schedule names a node that is not there");
            let to = entry.what.node().unwrap_or(SCHEDULE);
            wheel.push(Event { at: entry.at.max(1), to, from: SCHEDULE, sequence: index as u64, what: Arrival::Entry });
        }
        let keepers: BTreeSet<u32> =
            schedule.entries().iter().filter(|entry| entry.what.keeps_disk()).filter_map(|entry| entry.what.node()).collect();
        let slots = (0..setup.nodes)
            .map(|index| Slot {
                host: None,
                life: 0,
                moves: 0,
                ends: Vec::new(),
                last_connection: 0,
                sequence: 0,
                wake: u64::MAX,
                spins: 0,
                paused_until: 0,
                slow_until: 0,
                slow_by: 0,
                clock: WallClock::drawn(setup.seed, index, setup.skew),
                leaving: false,
                remembered: Vec::new(),
                has_disk: keepers.contains(&index),
                disk: None,
            })
            .collect();
        World {
            network: Network::shaped(setup.seed, setup.nodes, setup.link, setup.shape),
            peers: (0..setup.nodes).map(|index| host::peer_id(setup.seed, index)).collect(),
            payloads: vec![None; schedule.messages()],
            carried: Vec::new(),
            moved: vec![Moved::default(); setup.nodes as usize],
            setup,
            params,
            schedule,
            wheel,
            now: 0,
            slots,
            seen: Vec::new(),
            digest: Digest::default(),
            events: 0,
            traffic: Traffic::default(),
            tally: Tally::default(),
            happened: BTreeMap::new(),
            scratch: H::Scratch::default(),
            effects: Vec::new(),
            trace: None,
        }
    }

    /// From now on every event is kept for [`take_trace`](Self::take_trace).
    pub fn trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// Takes the events since the last time, in order; none unless they are traced.
    pub fn take_trace(&mut self, into: &mut Vec<Step>) {
        into.clear();
        if let Some(trace) = &mut self.trace {
            std::mem::swap(trace, into);
        }
    }

    /// Lets time pass until a moment, in microseconds since the start; everything up to it has happened then.
    pub fn run_until(&mut self, until: u64) {
        while let Some(event) = self.wheel.pop(until) {
            self.now = event.at;
            self.take(event);
        }
        self.now = self.now.max(until);
    }

    /// Takes what was seen since the last time, in order.
    pub fn take_seen(&mut self, into: &mut Vec<Seen>) {
        into.clear();
        std::mem::swap(&mut self.seen, into);
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The digest of everything that has happened.
    pub fn digest(&self) -> u128 {
        self.digest.value()
    }

    /// How many events nodes have handled.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What was moved.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// What each node moved.
    pub fn moved(&self) -> &[Moved] {
        &self.moved
    }

    /// Datagrams that were lost, and packets of streams that had to be sent again.
    pub fn losses(&self) -> u64 {
        self.network.losses
    }

    /// What was measured of the network.
    pub fn measured(&self) -> Measured {
        self.network.measured()
    }

    /// How many entries of the schedule had an effect, by name.
    pub fn happened(&self, name: &str) -> u64 {
        self.happened.get(name).copied().unwrap_or(0)
    }

    /// How many entries of the schedule had an effect, of each name that had one.
    pub fn all_happened(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.happened.iter().map(|(name, count)| (*name, *count))
    }

    /// The counters of all nodes and lives.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        self.slots.iter().filter_map(|slot| slot.host.as_ref()).for_each(|host| tally.add(&host.tally()));
        tally
    }

    /// How many nodes are alive.
    pub fn alive(&self) -> usize {
        self.slots.iter().filter(|slot| slot.host.is_some()).count()
    }

    /// What the nodes share.
    pub(crate) fn scratch(&self) -> &H::Scratch {
        &self.scratch
    }

    /// A living node.
    pub fn host(&self, node: u32) -> Option<&H> {
        self.slots.get(node as usize)?.host.as_ref()
    }

    /// By how much the clock of a living node's replica is ahead of the true time, in milliseconds; a replica that has seen nothing has none.
    pub fn ahead(&self, node: u32) -> Option<i64> {
        let clock = self.host(node)?.state_clock();
        (clock > Stamp::ZERO).then(|| clock.millis() as i64 - WallClock::drawn(0, 0, 0).at(self.now).as_millis() as i64)
    }

    fn clock(&self, node: u32) -> Now {
        Now { time: Time::from_micros(self.now), wall: self.slots[node as usize].clock.at(self.now) }
    }

    fn take(&mut self, event: Event<Arrival>) {
        let Event { at, to, from, sequence, mut what } = event;
        if let Arrival::Entry = what {
            let entry = &self.schedule.entries()[sequence as usize].what;
            let paused_until = entry.node().map_or(0, |node| self.slots[node as usize].paused_until);
            if entry.is_workload() && paused_until > at {
                // The application stands still with the rest of the process.
                self.wheel.push(Event { at: paused_until, to, from, sequence, what });
            } else {
                self.note(at, to, from, what.code(), sequence);
                self.on_entry(sequence as usize);
            }
            return;
        }
        let slot = &mut self.slots[to as usize];
        if slot.host.is_none() {
            self.traffic.frames_lost += u64::from(matches!(what, Arrival::Frame { .. }));
            return;
        }
        let before_line = match &mut what {
            Arrival::Frame { bytes, through, .. } => Some((through, bytes.len(), Full::Wait)),
            Arrival::Datagram { bytes, through, .. } => Some((through, bytes.len(), Full::Drop)),
            _ => None,
        };
        if let Some((through, bytes, full)) = before_line
            && !*through
        {
            *through = true;
            match self.network.enter(to, bytes, at, full) {
                Some(0) => {}
                // The same source and sequence, as below.
                Some(waits) => return self.wheel.push(Event { at: at + waits, to, from, sequence, what }),
                None => return,
            }
        }
        if slot.paused_until > at {
            // The same source and sequence, so that whatever waits comes in the order in which it was sent.
            let at = slot.paused_until;
            if let Arrival::Wake = what {
                slot.wake = at;
            }
            self.wheel.push(Event { at, to, from, sequence, what });
            return;
        }
        if slot.slow_until > at {
            slot.paused_until = at + slot.slow_by;
        }
        match what {
            Arrival::Wake => self.on_wake(to),
            Arrival::Hello { dial, peer_moves, moves } => self.on_hello(to, from, dial, peer_moves, moves),
            Arrival::Welcome { dial, accept, incarnation } => self.on_welcome(to, from, dial, accept, incarnation),
            Arrival::Proof { accept, incarnation } => self.on_proof(to, from, accept, incarnation),
            Arrival::Admitted { dial } => self.on_admitted(to, from, dial),
            Arrival::GiveUp { connection, why } => self.on_give_up(to, connection, why),
            Arrival::Closed { connection, unneeded } => {
                self.on_gone(to, connection, 6, unneeded);
            }
            Arrival::Silence { connection } => {
                if self.on_gone(to, connection, 7, false) {
                    self.traffic.connections_lost += 1;
                }
            }
            Arrival::Frame { connection, channel, bytes, .. } => match slot.end(connection) {
                Some(end) if end.stage == Stage::Open => {
                    self.moved[to as usize].received += bytes.len() as u64;
                    self.note(at, to, from, 8 | u64::from(channel.0) << 8, hash_bytes(&bytes));
                    self.feed_frame(to, connection, channel, bytes);
                }
                _ => self.traffic.frames_lost += 1,
            },
            Arrival::Datagram { connection, bytes, sent, .. } => {
                self.network.arrived(from, to, at - sent);
                if slot.end(connection).is_some_and(|end| end.stage == Stage::Open) {
                    self.moved[to as usize].received += bytes.len() as u64;
                    self.note(at, to, from, 9, hash_bytes(&bytes));
                    self.feed(to, Input::Datagram { connection, bytes });
                }
            }
            Arrival::Stop { life } => {
                if slot.life == life {
                    let open: Vec<Connection> = slot.ends.iter().filter(|end| end.stage == Stage::Open).map(|end| end.id).collect();
                    self.note(at, to, from, 10, 0);
                    open.into_iter().for_each(|connection| self.close(to, connection, false));
                    let in_order = self.slots[to as usize].leaving;
                    self.stop(to, in_order);
                }
            }
            Arrival::Entry => unreachable!("handled above"),
        }
    }

    /// Takes an event that has an effect into the digest.
    fn note(&mut self, at: u64, to: u32, from: u32, code: u64, detail: u64) {
        self.events += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(Step { at, node: to, from, code, detail });
        }
        self.digest.number(at);
        self.digest.number(u64::from(to) << 32 | u64::from(from));
        self.digest.number(code.rotate_left(48) ^ detail);
    }

    fn see(&mut self, node: u32, what: Sight) {
        let life = self.slots[node as usize].life;
        self.seen.push(Seen { at: self.now, node, life, what });
    }

    fn push(&mut self, from: u32, to: u32, at: u64, what: Arrival) {
        let slot = &mut self.slots[from as usize];
        slot.sequence += 1;
        self.wheel.push(Event { at: at.max(self.now + 1), to, from, sequence: slot.sequence, what });
    }

    fn on_wake(&mut self, node: u32) {
        let slot = &mut self.slots[node as usize];
        if slot.wake != self.now {
            return;
        }
        slot.wake = u64::MAX;
        let due = slot.host.as_ref().and_then(|host| host.next_deadline()).is_some_and(|at| at <= Time::from_micros(self.now));
        if due {
            slot.spins += 1;
            assert!(slot.spins < SPINS_MAX, "node {node} asks again and again to be woken at a moment that has passed");
            self.note(self.now, node, node, Arrival::Wake.code(), 0);
            self.feed(node, Input::DeadlineReached);
        } else {
            self.arm(node);
        }
    }

    /// Queues the next wake-up of a node unless one that is early enough is queued.
    fn arm(&mut self, node: u32) {
        let slot = &mut self.slots[node as usize];
        let Some(deadline) = slot.host.as_ref().and_then(|host| host.next_deadline()) else { return };
        let at = deadline.as_nanos().div_ceil(1_000);
        if at > self.now {
            slot.spins = 0;
        }
        let at = at.max(self.now + 1);
        if at < slot.wake {
            slot.wake = at;
            self.push(node, node, at, Arrival::Wake);
        }
    }

    fn feed(&mut self, node: u32, input: Input) {
        self.call(node, |host, now, scratch, effects| host.handle(input, now, scratch, effects));
    }

    /// Lets a living node act, carries out what it decided and queues its next deadline.
    fn call<T: Default>(&mut self, node: u32, act: impl FnOnce(&mut H, Now, &mut H::Scratch, &mut Vec<Effect>) -> T) -> T {
        let clock = self.clock(node);
        let Some(host) = self.slots[node as usize].host.as_mut() else { return T::default() };
        let mut effects = std::mem::take(&mut self.effects);
        let answer = act(host, clock, &mut self.scratch, &mut effects);
        let mut neighbors_changed = false;
        for effect in effects.drain(..) {
            match effect {
                Effect::Dial { address, expected } => self.dial(node, address, expected),
                Effect::Send { connection, channel, frame } => self.send_frame(node, connection, channel, frame),
                Effect::SendDatagram { connection, bytes } => self.send_datagram(node, connection, bytes),
                Effect::Close { connection, unneeded } => self.close(node, connection, unneeded),
                Effect::Observed(Observation::NeighborsChanged) => neighbors_changed = true,
                Effect::Observed(observation) => self.observe(node, observation),
            }
        }
        self.effects = effects;
        if neighbors_changed {
            let mut len = 0;
            if let Some(host) = self.host(node) {
                host.visit_neighbors(&mut |_| len += 1);
            }
            self.see(node, Sight::Neighbors { len });
        }
        self.arm(node);
        answer
    }

    fn observe(&mut self, node: u32, observation: Observation) {
        let what = match observation {
            Observation::Delivered { payload, hops } => {
                self.note(self.now, node, node, 12, hash_bytes(&payload));
                let message = payload.first_chunk().map(|number| u64::from_le_bytes(*number) as usize);
                match message.filter(|number| matches!(self.payloads.get(*number), Some(Some(sent)) if *sent == payload)) {
                    Some(message) => Sight::Delivered { message: message as u32, hops },
                    None => Sight::Garbled,
                }
            }
            Observation::Received { from, payload } => {
                self.note(self.now, node, host::index_of(from), 13, hash_bytes(&payload));
                let message = payload.first_chunk().and_then(|number| u32::try_from(u64::from_le_bytes(*number)).ok());
                match message.filter(|message| self.direct(*message) == payload) {
                    Some(message) => Sight::Received { from: host::index_of(from), message },
                    None => Sight::Garbled,
                }
            }
            Observation::MemberUp { peer, generation } => Sight::HeldForAlive { node: host::index_of(peer), generation },
            Observation::MemberFailed { peer, generation } => Sight::HeldForDead { node: host::index_of(peer), generation },
            Observation::MemberLeft(peer) => Sight::HeldForGone { node: host::index_of(peer) },
            Observation::Restored { fault } => Sight::Restored { fault },
            Observation::Synced => Sight::Synced,
            Observation::MemberSuspected(peer) => Sight::Suspected { node: host::index_of(peer) },
            Observation::Misbehaved { peer, rule } => Sight::Blamed { node: host::index_of(peer), rule },
            Observation::NeighborsChanged => return,
        };
        self.see(node, what);
    }
}

/// The name of the key of a plain register.
pub fn key_name(key: u32) -> String {
    Place { kind: Kind::Lww, key }.name()
}

/// Bytes that begin with a number and go on with what only this number gives.
fn numbered(seed: u64, number: u64, len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&number.to_le_bytes());
    let filler = hash(&[seed, number]).to_le_bytes();
    bytes.extend(filler.iter().cycle().take(len - 8));
    Bytes::from(bytes)
}

impl<H: Host> View for World<H> {
    fn now(&self) -> u64 {
        self.now
    }

    fn nodes(&self) -> u32 {
        self.setup.nodes
    }

    fn is_alive(&self, node: u32) -> bool {
        self.slots[node as usize].host.is_some() && !self.slots[node as usize].leaving
    }

    fn visit_neighbors(&self, node: u32, visit: &mut dyn FnMut(u32)) {
        if let Some(host) = self.host(node) {
            host.visit_neighbors(&mut |peer| visit(host::index_of(peer)));
        }
    }

    fn visit_members(&self, node: u32, visit: &mut dyn FnMut(u32)) {
        if let Some(host) = self.host(node) {
            host.visit_members(&mut |peer| visit(host::index_of(peer)));
        }
    }

    fn state_digest(&self, node: u32) -> u128 {
        self.host(node).map_or(0, Host::state_digest)
    }

    fn has_key(&self, node: u32, key: u32) -> bool {
        self.host(node).is_some_and(|host| host.value(&key_name(key)).is_some())
    }

    fn read(&self, node: u32, place: Place) -> Option<Value> {
        self.host(node)?.read(&place.name())
    }
}
