//! A network of cores in virtual time: links with latency and order, that can be cut, replaced, or made to lose pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::{Generator, generator, hash};
use meshwork_channels::{ChannelId, Time, encode, limits};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::super::message::{Message, Push};
use super::super::{Action, Input, MessageId, Params, State};

pub(super) type Id = MessageId<u32>;

#[derive(Debug)]
enum Event {
    Frame { from: u32, to: u32, life: u64, message: Message<u32> },
    Up { at: u32, peer: u32 },
    Down { at: u32, peer: u32 },
    Deadline { at: u32 },
}

pub(super) struct Network {
    pub(super) now: Time,
    pub(super) nodes: Vec<Option<State<u32>>>,
    /// Connections by their ends, with the number of their life.
    connections: BTreeMap<(u32, u32), u64>,
    lives: u64,
    /// What a node was or will be told last about a peer, and when.
    told: BTreeMap<(u32, u32), Time>,
    events: BTreeMap<(Time, u64), Event>,
    pushed: u64,
    deadlines: Vec<Option<Time>>,
    /// How often each message was delivered on each node.
    pub(super) delivered: BTreeMap<Id, BTreeMap<u32, u32>>,
    /// Who sent each message, and when.
    pub(super) sent: BTreeMap<Id, u32>,
    /// Payload frames sent for each message.
    pub(super) payloads: BTreeMap<Id, u64>,
    pub(super) hops_max: BTreeMap<Id, u16>,
    pub(super) control: u64,
    pub(super) misbehaved: u64,
    /// Of a thousand eager pushes, how many are lost; and how many were.
    pub(super) lost_pushes_per_mille: u64,
    pub(super) lost_pushes: u64,
    /// Changes with every action.
    pub(super) digest: u64,
    seed: u64,
    generator: Generator,
}

impl Network {
    pub(super) fn new(len: u32, params: &Params, seed: u64) -> Self {
        Network {
            now: Time::from_secs(1),
            nodes: (0..len).map(|me| Some(State::new(me, 1, params.clone(), hash(&[seed, u64::from(me)])))).collect(),
            connections: BTreeMap::new(),
            lives: 0,
            told: BTreeMap::new(),
            events: BTreeMap::new(),
            pushed: 0,
            deadlines: vec![None; len as usize],
            delivered: BTreeMap::new(),
            sent: BTreeMap::new(),
            payloads: BTreeMap::new(),
            hops_max: BTreeMap::new(),
            control: 0,
            misbehaved: 0,
            lost_pushes_per_mille: 0,
            lost_pushes: 0,
            digest: 0,
            seed,
            generator: generator(seed, "network", 0),
        }
    }

    /// A network whose links are a random connected graph of the degree.
    pub(super) fn regular(len: u32, degree: u32, params: &Params, seed: u64) -> Self {
        let mut network = Network::new(len, params, seed);
        for (a, b) in regular_graph(len, degree, &mut network.generator) {
            network.link(a, b);
        }
        network.run(Duration::from_secs(1));
        network
    }

    pub(super) fn alive(&self) -> Vec<u32> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()).map(|(at, _)| at as u32).collect()
    }

    pub(super) fn draw(&mut self, below: usize) -> usize {
        self.generator.random_range(0..below)
    }

    pub(super) fn node(&self, at: u32) -> &State<u32> {
        self.nodes[at as usize].as_ref().unwrap()
    }

    pub(super) fn connections(&self) -> Vec<(u32, u32)> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn neighbors(&self, at: u32) -> Vec<u32> {
        let other = |(a, b): &(u32, u32)| if *a == at { Some(*b) } else { (*b == at).then_some(*a) };
        self.connections.keys().filter_map(other).collect()
    }

    /// One way, from 10 to 50 ms, the same for every frame of a link, so that frames stay in order.
    fn latency(&self, from: u32, to: u32) -> Duration {
        let (a, b) = (from.min(to), from.max(to));
        Duration::from_micros(10_000 + hash(&[self.seed, 7, u64::from(a), u64::from(b)]) % 40_000)
    }

    fn push(&mut self, at: Time, event: Event) {
        self.pushed += 1;
        self.events.insert((at, self.pushed), event);
    }

    /// The two sides hear of a change at different moments, but each hears of changes in order.
    fn tell(&mut self, at: u32, peer: u32, event: Event) {
        let heard = self.now + Duration::from_micros(self.generator.random_range(0..60_000));
        let heard = self.told.get(&(at, peer)).map_or(heard, |last| heard.max(*last + Duration::from_nanos(1)));
        self.told.insert((at, peer), heard);
        self.push(heard, event);
    }

    pub(super) fn link(&mut self, a: u32, b: u32) {
        let ends = (a.min(b), a.max(b));
        if a != b && !self.connections.contains_key(&ends) {
            self.lives += 1;
            self.connections.insert(ends, self.lives);
            self.tell(a, b, Event::Up { at: a, peer: b });
            self.tell(b, a, Event::Up { at: b, peer: a });
        }
    }

    pub(super) fn cut(&mut self, a: u32, b: u32) {
        if self.connections.remove(&(a.min(b), a.max(b))).is_some() {
            self.tell(a, b, Event::Down { at: a, peer: b });
            self.tell(b, a, Event::Down { at: b, peer: a });
        }
    }

    pub(super) fn crash(&mut self, at: u32) {
        for peer in self.neighbors(at) {
            self.cut(at, peer);
        }
        self.nodes[at as usize] = None;
    }

    pub(super) fn broadcast(&mut self, at: u32, payload: &[u8]) -> Id {
        let mut actions = Vec::new();
        let node = self.nodes[at as usize].as_mut().unwrap();
        let id = node.broadcast(ChannelId::EVENTS, Bytes::copy_from_slice(payload), self.now, &mut actions).unwrap();
        self.sent.insert(id, at);
        self.perform(at, actions);
        id
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= end
        {
            let ((now, _), event) = self.events.pop_first().unwrap();
            self.now = now;
            let (at, input) = match event {
                Event::Frame { from, to, life, message } => {
                    if self.connections.get(&(from.min(to), from.max(to))) != Some(&life) {
                        continue;
                    }
                    (to, Input::Received { from, message })
                }
                Event::Up { at, peer } => (at, Input::NeighborUp(peer)),
                Event::Down { at, peer } => (at, Input::NeighborDown(peer)),
                Event::Deadline { at } => {
                    if self.deadlines[at as usize].is_none_or(|due| due > now) {
                        continue;
                    }
                    self.deadlines[at as usize] = None;
                    (at, Input::DeadlineReached)
                }
            };
            let mut actions = Vec::new();
            let Some(node) = self.nodes[at as usize].as_mut() else { continue };
            node.handle(input, now, &mut actions);
            self.perform(at, actions);
        }
        self.now = end;
    }

    fn perform(&mut self, at: u32, actions: Vec<Action<u32>>) {
        for action in actions {
            match action {
                Action::Send { to, message } => {
                    self.digest = hash(&[self.digest, self.now.as_nanos(), u64::from(at), u64::from(to)]);
                    if let Message::Gossip { id, push, .. } = &message {
                        *self.payloads.entry(*id).or_default() += 1;
                        if *push == Push::Eager && self.generator.random_range(0..1_000) < self.lost_pushes_per_mille {
                            self.lost_pushes += 1;
                            continue;
                        }
                    } else {
                        self.control += 1;
                        if self.control.is_multiple_of(16) {
                            assert!(encode(&message).len() <= limits::CONTROL_BYTES_MAX);
                        }
                    }
                    if let Some(life) = self.connections.get(&(at.min(to), at.max(to))).copied() {
                        let arrival = self.now + self.latency(at, to);
                        self.push(arrival, Event::Frame { from: at, to, life, message });
                    }
                }
                Action::Deliver { id, hops, .. } => {
                    self.digest = hash(&[self.digest, self.now.as_nanos(), u64::from(at), id.sequence, u64::from(hops)]);
                    *self.delivered.entry(id).or_default().entry(at).or_default() += 1;
                    let most = self.hops_max.entry(id).or_default();
                    *most = (*most).max(hops);
                }
                Action::Misbehaved { .. } => self.misbehaved += 1,
            }
        }
        let due = self.nodes[at as usize].as_ref().and_then(State::next_deadline);
        if let Some(due) = due
            && self.deadlines[at as usize].is_none_or(|planned| due < planned || planned < self.now)
        {
            self.deadlines[at as usize] = Some(due);
            self.push(due.max(self.now), Event::Deadline { at });
        }
    }

    /// Pairs of a message and a node that is alive and has not got it.
    pub(super) fn lost(&self) -> Vec<(Id, u32)> {
        let alive = self.alive();
        let mut lost = Vec::new();
        for (id, origin) in &self.sent {
            let delivered = self.delivered.get(id);
            let missed = |at: &u32| at != origin && delivered.is_none_or(|delivered| !delivered.contains_key(at));
            lost.extend(alive.iter().copied().filter(missed).map(|at| (*id, at)));
        }
        lost
    }

    /// Each message once on each node that is alive, nothing twice anywhere, nothing still expected.
    pub(super) fn assert_complete(&self) {
        let lost = self.lost();
        assert!(lost.is_empty(), "seed {}: {} lost, first {:?}", self.seed, lost.len(), lost.first());
        self.assert_once();
        for at in self.alive() {
            assert_eq!(self.node(at).missing_len(), 0, "seed {}: node {at} still expects something", self.seed);
        }
    }

    pub(super) fn assert_once(&self) {
        for (id, delivered) in &self.delivered {
            assert!(delivered.values().all(|count| *count == 1), "seed {}: {id:?} was delivered twice", self.seed);
            assert!(!delivered.contains_key(&id.origin), "seed {}: {id:?} was delivered to its sender", self.seed);
        }
        assert_eq!(self.misbehaved, 0, "seed {}: an honest node was blamed", self.seed);
    }

    /// Relative message redundancy (section 2.3 of the paper): payloads for each node that received, less one.
    pub(super) fn rmr(&self, id: &Id) -> f64 {
        self.payloads[id] as f64 / self.delivered[id].len() as f64 - 1.0
    }

    /// Adds links until all nodes that are alive are connected.
    pub(super) fn reconnect(&mut self) {
        self.reconnect_those(self.alive());
    }

    /// The same for all nodes but one.
    pub(super) fn reconnect_all_but(&mut self, left_out: u32) {
        self.reconnect_those(self.alive().into_iter().filter(|at| *at != left_out).collect());
    }

    fn reconnect_those(&mut self, alive: Vec<u32>) {
        loop {
            let mut reached = BTreeSet::from([alive[0]]);
            let mut open = vec![alive[0]];
            while let Some(at) = open.pop() {
                for peer in self.neighbors(at) {
                    if reached.insert(peer) {
                        open.push(peer);
                    }
                }
            }
            let outside: Vec<u32> = alive.iter().copied().filter(|at| !reached.contains(at)).collect();
            let Some(first) = outside.first().copied() else { return };
            let inside: Vec<u32> = reached.into_iter().collect();
            let chosen = inside[self.draw(inside.len())];
            self.link(first, chosen);
        }
    }
}

/// A random connected graph where every node has `degree` links (pairs of half-links, mended by swapping).
fn regular_graph(len: u32, degree: u32, generator: &mut Generator) -> BTreeSet<(u32, u32)> {
    loop {
        let mut halves: Vec<u32> = (0..len).flat_map(|at| (0..degree).map(move |_| at)).collect();
        let mut links = BTreeSet::new();
        for _ in 0..200 {
            halves.shuffle(generator);
            let mut rest = Vec::new();
            for pair in halves.chunks(2) {
                let &[a, b] = pair else { continue };
                if a == b || !links.insert((a.min(b), a.max(b))) {
                    rest.extend([a, b]);
                }
            }
            halves = rest;
            if halves.is_empty() {
                break;
            }
        }
        let mut reached = BTreeSet::from([0]);
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            for (a, b) in &links {
                let peer = if *a == at { *b } else { *a };
                if (*a == at || *b == at) && reached.insert(peer) {
                    open.push(peer);
                }
            }
        }
        if reached.len() == len as usize {
            return links;
        }
    }
}
