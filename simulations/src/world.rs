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

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::random::hash;
use meshwork_channels::{ChannelId, Now, PeerId, Time, WallTime};
use serde::Serialize;

use crate::digest::{Digest, hash_bytes};
use crate::host::{self, Birth, Connection, DialFailure, Effect, Host, Input, Observation, Plant, Tally};
use crate::invariants::View;
use crate::network::{DIAL_TIMEOUT, Fate, Full, IDLE_TIMEOUT, Link, Network, Shape};
use crate::schedule::{Happening, SCHEDULE, Schedule};
use crate::wheel::{Event, Wheel};

/// The wall clock at the start of every run: 2026-01-01, in microseconds since the Unix epoch.
const EPOCH: u64 = 1_767_225_600_000_000;
/// A node that asks this often in a row for a deadline that has passed would never let time move on.
const SPINS_MAX: u32 = 10_000;

/// What a world is made of.
#[derive(Clone, Debug, Serialize)]
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
    /// A bug for one node.
    #[serde(skip)]
    pub plant: Option<(u32, Plant)>,
}

/// What the world saw happen, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, in microseconds since the start.
    pub at: u64,
    /// At which node.
    pub node: u32,
    /// In which of its lives, from 1.
    pub life: u32,
    /// What.
    pub what: Sight,
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The node started.
    Started,
    /// The node crashed, or stopped after its goodbye.
    Stopped,
    /// The node broadcast a message.
    Sent {
        /// Its number.
        message: u32,
    },
    /// The node handed a message to its application.
    Delivered {
        /// Its number.
        message: u32,
        /// Links that it crossed.
        hops: u16,
    },
    /// The node accepted a message of guaranteed delivery.
    Accepted {
        /// Its number.
        message: u32,
    },
    /// The node handed a message of guaranteed delivery to its application.
    Received {
        /// Who sent it.
        from: u32,
        /// Its number.
        message: u32,
    },
    /// The node handed bytes to its application that nobody sent.
    Garbled,
    /// The node wrote a key.
    Wrote {
        /// The key.
        key: u32,
        /// The number of the write.
        write: u32,
    },
    /// The node removed a key.
    Removed {
        /// The key.
        key: u32,
    },
    /// The node has another number of neighbors, or others.
    Neighbors {
        /// How many.
        len: usize,
    },
    /// The node holds another for dead.
    HeldForDead {
        /// Which.
        node: u32,
    },
    /// The node suspects another.
    Suspected {
        /// Which.
        node: u32,
    },
    /// The node says that another broke a rule.
    Blamed {
        /// Which.
        node: u32,
        /// The rule.
        rule: &'static str,
    },
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames on streams.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Dials.
    pub dials: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Connections that broke without a goodbye.
    pub connections_lost: u64,
    /// Frames that were sent on, or under way on, a connection that was gone.
    pub frames_lost: u64,
}

/// What one node moved, in all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of frames and datagrams that it sent, lost ones included.
    pub sent: u64,
    /// Bytes that reached it.
    pub received: u64,
}

/// What arrives at a node.
#[derive(Debug)]
enum Arrival {
    /// A deadline of the node itself.
    Wake,
    /// The first packet of a dial.
    Hello {
        dial: Connection,
        peer_moves: u16,
        moves: u16,
    },
    /// Its answer.
    Welcome {
        dial: Connection,
        accept: Connection,
        incarnation: u64,
    },
    /// The dialer's proof of admission.
    Proof {
        accept: Connection,
        incarnation: u64,
    },
    /// The proof of the other side.
    Admitted {
        dial: Connection,
    },
    /// A handshake took too long, or cannot succeed.
    GiveUp {
        connection: Connection,
        why: DialFailure,
    },
    /// The other side closed the connection.
    Closed {
        connection: Connection,
        unneeded: bool,
    },
    /// Nothing was heard of the other side for the idle timeout.
    Silence {
        connection: Connection,
    },
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
        through: bool,
    },
    /// A node that said goodbye stops.
    Stop {
        life: u32,
    },
    /// An entry of the schedule.
    Entry,
}

impl Arrival {
    fn code(&self) -> u64 {
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
    /// What the wall clock is ahead of the true time, in microseconds.
    skew: i64,
    leaving: bool,
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
        let skew = |index| match setup.skew {
            0 => 0,
            skew => (hash(&[setup.seed, 0x736b_6577, u64::from(index)]) % (2 * skew + 1)) as i64 - skew as i64,
        };
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
                skew: skew(index),
                leaving: false,
            })
            .collect();
        World {
            network: Network::shaped(setup.seed, setup.nodes, setup.link, setup.shape),
            peers: (0..setup.nodes).map(|index| host::peer_id(setup.seed, index)).collect(),
            payloads: vec![None; schedule.count("broadcast") as usize],
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

    /// How many entries of the schedule had an effect, by name.
    pub fn happened(&self, name: &str) -> u64 {
        self.happened.get(name).copied().unwrap_or(0)
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

    /// A living node.
    pub fn host(&self, node: u32) -> Option<&H> {
        self.slots.get(node as usize)?.host.as_ref()
    }

    fn clock(&self, node: u32) -> Now {
        let wall = (EPOCH + self.now).saturating_add_signed(self.slots[node as usize].skew);
        Now { time: Time::from_micros(self.now), wall: WallTime::from_micros(wall) }
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
                    self.feed(to, Input::Frame { connection, channel, bytes });
                }
                _ => self.traffic.frames_lost += 1,
            },
            Arrival::Datagram { connection, bytes, .. } => {
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
                    self.stop(to);
                }
            }
            Arrival::Entry => unreachable!("handled above"),
        }
    }

    /// Takes an event that has an effect into the digest.
    fn note(&mut self, at: u64, to: u32, from: u32, code: u64, detail: u64) {
        self.events += 1;
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

    // ---- The schedule ----

    fn on_entry(&mut self, index: usize) {
        let what = self.schedule.entries()[index].what.clone();
        let name = what.name();
        let effective = match what {
            Happening::Start { node, contacts } => self.start(node, &contacts, false),
            Happening::Restart { node, contacts, moved } => self.slots[node as usize].life > 0 && self.start(node, &contacts, moved),
            Happening::Crash { node } => self.stop(node),
            Happening::Leave { node } => self.leave(node),
            Happening::Pause { node, micros } => {
                let slot = &mut self.slots[node as usize];
                slot.paused_until = slot.paused_until.max(self.now + micros);
                slot.host.is_some()
            }
            Happening::Break { node } => self.break_all(node),
            Happening::Partition { until, side } => self.partition(&side, until),
            Happening::Calm => {
                self.network.calm();
                true
            }
            Happening::Broadcast { node, message } => self.broadcast(node, message),
            Happening::Send { node, to, message } => self.send(node, to, message),
            Happening::Write { node, key, write } => self.write(node, key, write),
            Happening::Remove { node, key } => self.remove(node, key),
        };
        if effective {
            *self.happened.entry(name).or_default() += 1;
        }
    }

    fn start(&mut self, node: u32, contacts: &[u32], moved: bool) -> bool {
        let now = self.now;
        let clock = self.clock(node);
        let slot = &mut self.slots[node as usize];
        if slot.host.is_some() {
            return false;
        }
        slot.life += 1;
        slot.moves += u16::from(moved);
        slot.wake = u64::MAX;
        slot.paused_until = now;
        slot.leaving = false;
        let birth = Birth {
            index: node,
            peer: self.peers[node as usize],
            incarnation: u64::from(slot.life),
            address: host::address(node, slot.moves),
            seed: hash(&[self.setup.seed, 0x6e6f_6465, u64::from(node), u64::from(slot.life)]),
            plant: self.setup.plant.filter(|(planted, _)| *planted == node).map(|(_, plant)| plant),
        };
        slot.host = Some(H::start(&birth, &self.params, clock));
        self.see(node, Sight::Started);
        // What people configure is an address, so a contact that moved is looked for where it was first.
        let contacts: Vec<SocketAddr> = contacts.iter().map(|contact| host::address(*contact, 0)).collect();
        if contacts.is_empty() {
            self.arm(node);
        } else {
            self.feed(node, Input::Discovered(contacts));
        }
        true
    }

    /// A process ends without a word.
    fn stop(&mut self, node: u32) -> bool {
        let slot = &mut self.slots[node as usize];
        let Some(host) = slot.host.take() else { return false };
        let ends = std::mem::take(&mut slot.ends);
        self.tally.add(&host.tally());
        for end in ends.into_iter().filter(|end| end.remote != 0) {
            self.push(node, end.peer, self.now + IDLE_TIMEOUT, Arrival::Silence { connection: end.remote });
        }
        self.see(node, Sight::Stopped);
        true
    }

    fn leave(&mut self, node: u32) -> bool {
        let slot = &mut self.slots[node as usize];
        if slot.host.is_none() || slot.leaving {
            return false;
        }
        slot.leaving = true;
        let life = slot.life;
        self.call(node, |host, now, scratch, effects| host.leave(now, scratch, effects));
        self.push(node, node, self.now + 1_000_000, Arrival::Stop { life });
        true
    }

    fn break_all(&mut self, node: u32) -> bool {
        let slot = &self.slots[node as usize];
        let open: Vec<(Connection, u32, Connection)> =
            slot.ends.iter().filter(|end| end.stage == Stage::Open).map(|end| (end.id, end.peer, end.remote)).collect();
        for (id, peer, remote) in &open {
            self.push(node, node, self.now + 1, Arrival::Silence { connection: *id });
            self.push(node, *peer, self.now + self.network.latency(node, *peer), Arrival::Silence { connection: *remote });
        }
        !open.is_empty()
    }

    fn partition(&mut self, side: &[u32], until: u64) -> bool {
        self.network.cut(self.slots.len(), side, self.now, until);
        let mut crossing = 0;
        for node in 0..self.setup.nodes {
            for index in 0..self.slots[node as usize].ends.len() {
                let end = &self.slots[node as usize].ends[index];
                let (id, peer) = (end.id, end.peer);
                if end.stage == Stage::Open && self.network.cut_between(node, peer, self.now).is_some() {
                    crossing += 1;
                    self.fear_silence(node, peer, id);
                }
            }
        }
        crossing > 0
    }

    /// Breaks an open connection across a partition when the partition outlasts the idle timeout.
    fn fear_silence(&mut self, node: u32, peer: u32, connection: Connection) {
        if let Some((began, until)) = self.network.cut_between(node, peer, self.now)
            && until - began >= IDLE_TIMEOUT
        {
            self.push(node, node, began + IDLE_TIMEOUT, Arrival::Silence { connection });
        }
    }

    fn broadcast(&mut self, node: u32, message: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let payload = numbered(self.setup.seed, u64::from(message), self.setup.payload_bytes);
        if let Some(place) = self.payloads.get_mut(message as usize) {
            *place = Some(payload.clone());
        }
        // Before the node acts, so that its own delivery, if it makes one, comes after.
        self.see(node, Sight::Sent { message });
        let accepted = self.call(node, |host, now, scratch, effects| host.broadcast(payload, now, scratch, effects));
        if !accepted {
            self.seen.retain(|seen| seen.what != Sight::Sent { message });
        }
        accepted
    }

    fn send(&mut self, node: u32, to: u32, message: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let payload = self.direct(message);
        let to = self.peers[to as usize];
        let accepted = self.call(node, |host, now, scratch, effects| host.send_guaranteed(to, payload, now, scratch, effects));
        if accepted {
            self.see(node, Sight::Accepted { message });
        }
        accepted
    }

    /// The payload of a message to one node.
    fn direct(&self, message: u32) -> Bytes {
        numbered(self.setup.seed ^ 2, u64::from(message), self.setup.payload_bytes)
    }

    fn write(&mut self, node: u32, key: u32, write: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let value = numbered(self.setup.seed ^ 1, u64::from(write), self.setup.value_bytes);
        let accepted = self.call(node, |host, now, scratch, effects| host.set(&key_name(key), value, now, scratch, effects));
        if accepted {
            self.see(node, Sight::Wrote { key, write });
        }
        accepted
    }

    fn remove(&mut self, node: u32, key: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let removed = self.call(node, |host, now, scratch, effects| host.remove(&key_name(key), now, scratch, effects));
        if removed {
            self.see(node, Sight::Removed { key });
        }
        removed
    }

    // ---- Connections ----

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

    fn dial(&mut self, node: u32, address: SocketAddr, expected: Option<PeerId>) {
        self.traffic.dials += 1;
        let slot = &mut self.slots[node as usize];
        slot.last_connection += 1;
        let dial = slot.last_connection;
        let peer_moves = slot.moves;
        let target = host::at_address(address).filter(|(index, _)| (*index as usize) < self.peers.len());
        let peer = target.map_or(node, |(index, _)| index);
        let end =
            End { id: dial, peer, remote: 0, incarnation: 0, address, stage: Stage::Dialing { expected }, clocks: Vec::new(), opened: 0 };
        slot.ends.push(end);
        match target {
            Some((index, moves)) if index == node && moves == peer_moves => {
                self.push(node, node, self.now + 1, Arrival::GiveUp { connection: dial, why: DialFailure::Myself });
            }
            Some((index, moves)) if index != node && self.network.can_dial(node, index) => {
                self.send_packet(node, index, Arrival::Hello { dial, peer_moves, moves });
                self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: dial, why: DialFailure::TimedOut });
            }
            _ => self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: dial, why: DialFailure::TimedOut }),
        }
    }

    /// Sends a packet of a handshake, which is sent again when it is lost; gives its arrival.
    fn send_packet(&mut self, from: u32, to: u32, what: Arrival) -> Option<u64> {
        let at = self.arrival(from, to, 0)?;
        self.push(from, to, at, what);
        Some(at)
    }

    /// When something that is sent again until it arrives does arrive, and that first waits for its line; none when it never does.
    fn arrival(&mut self, from: u32, to: u32, waits: u64) -> Option<u64> {
        let start = match self.network.cut_between(from, to, self.now) {
            Some((began, until)) if until - began < IDLE_TIMEOUT => until,
            Some(_) => return None,
            None => self.now,
        };
        let slot = &mut self.slots[from as usize];
        match self.network.stream(from, to, slot.sequence + 1) {
            Fate::After(micros) => Some(start.max(self.now + waits) + micros),
            Fate::Breaks => {
                // What is lost uses up its number too, or the next packet would share its fate.
                slot.sequence += 1;
                None
            }
        }
    }

    fn on_hello(&mut self, node: u32, from: u32, dial: Connection, peer_moves: u16, moves: u16) {
        let slot = &mut self.slots[node as usize];
        if slot.moves != moves {
            return;
        }
        slot.last_connection += 1;
        let accept = slot.last_connection;
        let incarnation = u64::from(slot.life);
        let end = End {
            id: accept,
            peer: from,
            remote: dial,
            incarnation: 0,
            address: host::address(from, peer_moves),
            stage: Stage::Answering,
            clocks: Vec::new(),
            opened: 0,
        };
        slot.ends.push(end);
        self.note(self.now, node, from, 1, dial);
        self.send_packet(node, from, Arrival::Welcome { dial, accept, incarnation });
        self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: accept, why: DialFailure::TimedOut });
    }

    fn on_welcome(&mut self, node: u32, from: u32, dial: Connection, accept: Connection, incarnation: u64) {
        let found = self.peers[from as usize];
        let slot = &mut self.slots[node as usize];
        let life = u64::from(slot.life);
        let Some(end) = slot.end(dial) else { return };
        let Stage::Dialing { expected } = end.stage else { return };
        end.remote = accept;
        end.incarnation = incarnation;
        self.note(self.now, node, from, 2, dial);
        if expected.is_some_and(|expected| expected != found) {
            self.on_give_up(node, dial, DialFailure::WrongPeer(found));
        } else {
            self.send_packet(node, from, Arrival::Proof { accept, incarnation: life });
        }
    }

    fn on_proof(&mut self, node: u32, from: u32, accept: Connection, incarnation: u64) {
        let slot = &mut self.slots[node as usize];
        let Some(end) = slot.end(accept) else { return };
        if end.stage != Stage::Answering {
            return;
        }
        end.stage = Stage::Open;
        end.incarnation = incarnation;
        let (remote, address) = (end.remote, end.address);
        self.note(self.now, node, from, 3, accept);
        let opened = self.send_packet(node, from, Arrival::Admitted { dial: remote });
        if let Some(end) = self.slots[node as usize].end(accept) {
            end.opened = opened.unwrap_or(u64::MAX);
        }
        self.fear_silence(node, from, accept);
        let peer = self.peers[from as usize];
        self.feed(node, Input::Connected { connection: accept, peer, incarnation, address, outbound: false });
    }

    fn on_admitted(&mut self, node: u32, from: u32, dial: Connection) {
        let Some(end) = self.slots[node as usize].end(dial) else { return };
        if !matches!(end.stage, Stage::Dialing { .. }) {
            return;
        }
        end.stage = Stage::Open;
        let (incarnation, address) = (end.incarnation, end.address);
        self.note(self.now, node, from, 4, dial);
        self.fear_silence(node, from, dial);
        let peer = self.peers[from as usize];
        self.feed(node, Input::Connected { connection: dial, peer, incarnation, address, outbound: true });
    }

    fn on_give_up(&mut self, node: u32, connection: Connection, why: DialFailure) {
        let slot = &mut self.slots[node as usize];
        if slot.end(connection).is_none_or(|end| matches!(end.stage, Stage::Open | Stage::Closing)) {
            return;
        }
        let Some(end) = slot.take_end(connection) else { return };
        self.note(self.now, node, end.peer, 5, connection);
        if end.remote != 0 {
            self.send_packet(node, end.peer, Arrival::Closed { connection: end.remote, unneeded: false });
        }
        if let Stage::Dialing { .. } = end.stage {
            self.traffic.dials_failed += 1;
            self.feed(node, Input::DialFailed { address: end.address, why });
        }
    }

    /// A connection is gone; says whether it stood.
    fn on_gone(&mut self, node: u32, connection: Connection, code: u64, unneeded: bool) -> bool {
        let Some(end) = self.slots[node as usize].take_end(connection) else { return false };
        self.note(self.now, node, end.peer, code, connection);
        match end.stage {
            Stage::Open | Stage::Closing => {
                let peer = self.peers[end.peer as usize];
                self.feed(node, Input::Disconnected { connection, peer, unneeded });
            }
            Stage::Dialing { .. } => {
                self.traffic.dials_failed += 1;
                self.feed(node, Input::DialFailed { address: end.address, why: DialFailure::Lost });
            }
            Stage::Answering => {}
        }
        end.stage == Stage::Open
    }

    fn send_frame(&mut self, node: u32, connection: Connection, channel: ChannelId, bytes: Bytes) {
        self.traffic.frames += 1;
        self.traffic.frame_bytes += bytes.len() as u64;
        self.moved[node as usize].sent += bytes.len() as u64;
        let Some((peer, remote, opened)) =
            self.slots[node as usize].end(connection).filter(|end| end.stage == Stage::Open).map(|end| (end.peer, end.remote, end.opened))
        else {
            self.traffic.frames_lost += 1;
            return;
        };
        let waits = self.network.leave(node, bytes.len(), self.now, Full::Wait).unwrap_or(0);
        let arrival = self.arrival(node, peer, waits);
        let Some(at) = arrival else {
            self.traffic.frames_lost += 1;
            if self.network.cut_between(node, peer, self.now).is_none() {
                let silence = self.now + IDLE_TIMEOUT;
                self.push(node, node, silence, Arrival::Silence { connection });
                self.push(node, peer, silence, Arrival::Silence { connection: remote });
            }
            // Whatever follows on this channel waits behind the lost frame for ever.
            self.delay(node, connection, channel, u64::MAX);
            return;
        };
        let at = self.delay(node, connection, channel, at.max(opened));
        let through = !self.network.has_lines_down();
        if at < u64::MAX {
            self.push(node, peer, at, Arrival::Frame { connection: remote, channel, bytes, through });
        } else {
            self.traffic.frames_lost += 1;
        }
    }

    /// The arrival of a frame behind those that were sent before it.
    fn delay(&mut self, node: u32, connection: Connection, channel: ChannelId, at: u64) -> u64 {
        let Some(end) = self.slots[node as usize].end(connection) else { return at };
        match end.clocks.iter_mut().find(|(known, _)| *known == channel) {
            Some((_, clock)) => {
                *clock = (*clock).max(at);
                *clock
            }
            None => {
                end.clocks.push((channel, at));
                at
            }
        }
    }

    fn send_datagram(&mut self, node: u32, connection: Connection, bytes: Bytes) {
        self.traffic.datagrams += 1;
        self.traffic.datagram_bytes += bytes.len() as u64;
        self.moved[node as usize].sent += bytes.len() as u64;
        let slot = &mut self.slots[node as usize];
        let sequence = slot.sequence + 1;
        let Some((peer, remote)) = slot.end(connection).filter(|end| end.stage == Stage::Open).map(|end| (end.peer, end.remote)) else {
            return;
        };
        if let Some(micros) = self.network.datagram(node, peer, sequence, bytes.len(), self.now) {
            let through = !self.network.has_lines_down();
            let second = self.network.double(node, peer, sequence).map(|micros| (micros, bytes.clone()));
            self.push(node, peer, self.now + micros, Arrival::Datagram { connection: remote, bytes, through });
            if let Some((micros, bytes)) = second {
                self.push(node, peer, self.now + micros, Arrival::Datagram { connection: remote, bytes, through });
            }
        } else {
            // As above: what is lost uses up its number.
            self.slots[node as usize].sequence = sequence;
        }
    }

    fn close(&mut self, node: u32, connection: Connection, unneeded: bool) {
        let slot = &mut self.slots[node as usize];
        let Some(end) = slot.end(connection).filter(|end| end.stage == Stage::Open) else { return };
        end.stage = Stage::Closing;
        let (peer, remote) = (end.peer, end.remote);
        if self.send_packet(node, peer, Arrival::Closed { connection: remote, unneeded }).is_none() {
            self.push(node, peer, self.now + IDLE_TIMEOUT, Arrival::Silence { connection: remote });
        }
        // The node hears of the end like of any other, after it has decided everything else that belongs to this input.
        self.push(node, node, self.now + 1, Arrival::Closed { connection, unneeded });
    }

    // ---- Nodes ----

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
            Observation::MemberFailed(peer) => Sight::HeldForDead { node: host::index_of(peer) },
            Observation::MemberSuspected(peer) => Sight::Suspected { node: host::index_of(peer) },
            Observation::Misbehaved { peer, rule } => Sight::Blamed { node: host::index_of(peer), rule },
            Observation::NeighborsChanged => return,
        };
        self.see(node, what);
    }
}

/// The name of a key.
pub fn key_name(key: u32) -> String {
    format!("key-{key}")
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
}
