//! Some nodes on a table, in virtual time, and a member that says to the first one whatever it likes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use meshwork::channels::dial::{ConnectionId, DialFailure, Direction};
use meshwork::channels::frame::{Decoder, Frame};
use meshwork::channels::{Now, Time, WallTime, limits};
use meshwork::node::{Action, Candidate, CloseReason, Config, Event, Identity, Input, Node};
use meshwork::overlay::swim::Status;
use meshwork::{ChannelId, PeerId};

/// The node that is attacked.
pub(crate) const VICTIM: usize = 0;
pub(crate) const HOSTILE: PeerId = PeerId::from_bytes([0xee; 32]);

/// Nodes whose connections never break and whose messages take no time.
pub(crate) struct Table {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Now,
    incarnation: u64,
    connections: BTreeMap<ConnectionId, (usize, ConnectionId)>,
    last: u64,
    inputs: VecDeque<(usize, Input)>,
    pub(crate) delivered: Vec<Vec<Bytes>>,
    /// Everything that the nodes said to each other, while somebody listens.
    pub(crate) heard: Option<Vec<Said>>,
    /// The connection of the hostile member to the victim.
    hostile: ConnectionId,
    /// What the victim answered it.
    pub(crate) answers: Vec<(ChannelId, Frame)>,
    /// How often the victim closed it, and how often it complained of it.
    pub(crate) closed: u64,
    pub(crate) complaints: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Said {
    Frame(ChannelId, Frame),
    Datagram(Bytes),
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7_000))
}

pub(crate) fn peer(index: usize) -> PeerId {
    PeerId::from_bytes([index as u8 + 1; 32])
}

impl Table {
    /// Nodes that have found each other, and then the hostile member at the door of the first.
    pub(crate) fn new(count: usize, incarnation: u64, config: &Config) -> Self {
        let now = Now { time: Time::ZERO, wall: WallTime::from_millis(1_800_000_000_000) };
        let nodes = (0..count)
            .map(|index| {
                let identity = Identity { peer: peer(index), incarnation, address: address(index) };
                Node::new(identity, config.clone().build().unwrap(), index as u64, now)
            })
            .collect();
        let mut table = Table {
            nodes,
            now,
            incarnation,
            connections: BTreeMap::new(),
            last: 0,
            inputs: VecDeque::new(),
            delivered: vec![Vec::new(); count],
            heard: Some(Vec::new()),
            hostile: ConnectionId(0),
            answers: Vec::new(),
            closed: 0,
            complaints: 0,
        };
        for index in 1..count {
            let candidates = vec![Candidate { address: address(0), peer: None, keep: true }];
            table.inputs.push_back((index, Input::Discovered { source: "static", candidates }));
        }
        table.run(Duration::from_secs(5));
        table.let_in_hostile();
        table
    }

    fn let_in_hostile(&mut self) {
        self.last += 1;
        self.hostile = ConnectionId(self.last);
        let (connection, address) = (self.hostile, SocketAddr::from(([10, 0, 9, 9], 7_000)));
        let direction = Direction::Inbound;
        self.inputs.push_back((VICTIM, Input::Connected { connection, peer: HOSTILE, incarnation: 1, address, direction }));
        self.settle();
    }

    /// The hostile member says something to the victim; the most bytes that the victim held for it at once, beside what it keeps.
    pub(crate) fn say(&mut self, said: Said) -> u64 {
        let connection = self.hostile;
        let input = match said {
            Said::Frame(channel, frame) => Input::Frame { connection, channel, frame },
            Said::Datagram(bytes) => Input::Datagram { connection, bytes },
        };
        let mut actions = Vec::new();
        let (node, now) = (&mut self.nodes[VICTIM], self.now);
        let cost = measure(|| node.handle(input, now, &mut actions));
        self.carry_out(VICTIM, actions);
        self.settle();
        cost.bytes_max - u64::try_from(cost.bytes_current).unwrap_or(0)
    }

    pub(crate) fn with(&mut self, index: usize, act: impl FnOnce(&mut Node, Now, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        act(&mut self.nodes[index], self.now, &mut actions);
        self.carry_out(index, actions);
        self.settle();
    }

    fn carry_out(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { address: to, .. } => {
                    let Some(other) = (0..self.nodes.len()).find(|other| address(*other) == to) else {
                        self.inputs.push_back((index, Input::DialFailed { address: to, failure: DialFailure::TimedOut }));
                        continue;
                    };
                    self.last += 2;
                    let (ours, theirs) = (ConnectionId(self.last - 1), ConnectionId(self.last));
                    self.connections.insert(ours, (index, theirs));
                    self.connections.insert(theirs, (other, ours));
                    for (at, connection, whom, direction) in
                        [(index, ours, other, Direction::Outbound), (other, theirs, index, Direction::Inbound)]
                    {
                        let (peer, address, incarnation) = (peer(whom), address(whom), self.incarnation);
                        let input = Input::Connected { connection, peer, incarnation, address, direction };
                        self.inputs.push_back((at, input));
                    }
                }
                Action::Send { connection, channel, frame, .. } => {
                    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
                    decoder.push(frame);
                    let frame = decoder.next().unwrap().unwrap();
                    if connection == self.hostile {
                        self.answers.push((channel, frame));
                    } else if let Some((_, theirs)) = self.connections.get(&connection) {
                        self.heard.iter_mut().for_each(|heard| heard.push(Said::Frame(channel, frame.clone())));
                        self.inputs.push_back((self.connections[theirs].0, Input::Frame { connection: *theirs, channel, frame }));
                    }
                }
                Action::SendDatagram { connection, bytes } => {
                    if let Some((_, theirs)) = self.connections.get(&connection) {
                        self.heard.iter_mut().for_each(|heard| heard.push(Said::Datagram(bytes.clone())));
                        self.inputs.push_back((self.connections[theirs].0, Input::Datagram { connection: *theirs, bytes }));
                    }
                }
                Action::Close { connection, reason } => self.close(connection, reason),
                Action::Deliver(delivery) => self.delivered[index].push(delivery.payload),
                Action::Event(Event::Misbehaved(whom, what)) => {
                    // Broadcasts are not signed, so whoever passes on a forged one looks like the forger. It must cost it nothing.
                    assert!(whom == HOSTILE || !what.is_fatal(), "{index} throws an honest node out: {what}");
                    self.complaints += u64::from(whom == HOSTILE);
                }
                _ => {}
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        if connection == self.hostile {
            self.closed += 1;
            self.inputs.push_back((VICTIM, Input::Disconnected { connection, peer: HOSTILE, unneeded: false }));
            self.settle();
            // It always comes back.
            return self.let_in_hostile();
        }
        let Some((at, theirs)) = self.connections.remove(&connection) else { return };
        let Some((other, _)) = self.connections.remove(&theirs) else { return };
        assert_ne!(reason, CloseReason::Misbehaved, "an honest node is thrown out");
        let unneeded = matches!(reason, CloseReason::Unneeded | CloseReason::Duplicate);
        for (at, end, whom) in [(at, connection, other), (other, theirs, at)] {
            self.inputs.push_back((at, Input::Disconnected { connection: end, peer: peer(whom), unneeded }));
        }
    }

    pub(crate) fn settle(&mut self) {
        let mut steps = 0;
        while let Some((index, input)) = self.inputs.pop_front() {
            steps += 1;
            assert!(steps < 100_000, "nodes answer each other for ever: {input:?}");
            let mut actions = Vec::new();
            self.nodes[index].handle(input, self.now, &mut actions);
            self.carry_out(index, actions);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now.time + duration;
        self.settle();
        let mut turns = 0;
        while let Some(next) = self.nodes.iter().filter_map(Node::next_deadline).min().filter(|next| *next <= end) {
            turns += 1;
            assert!(turns < 1_000_000, "a deadline comes back for ever at {next}");
            self.pass_to(next.max(self.now.time));
            for index in 0..self.nodes.len() {
                if self.nodes[index].next_deadline().is_some_and(|at| at <= self.now.time) {
                    self.inputs.push_back((index, Input::DeadlineReached));
                    self.settle();
                }
            }
        }
        self.pass_to(end);
    }

    fn pass_to(&mut self, time: Time) {
        self.now.wall = self.now.wall + time.since(self.now.time);
        self.now.time = time;
    }

    /// Broken rules that the victim has counted.
    pub(crate) fn misbehaved(&self) -> u64 {
        self.nodes[VICTIM].counters().misbehaved.values().sum()
    }

    /// That the honest nodes hold each other for alive, deliver to each other once, and agree on their state.
    pub(crate) fn assert_works(&mut self) {
        self.run(Duration::from_secs(60));
        for (index, node) in self.nodes.iter().enumerate() {
            for other in 0..self.nodes.len() {
                let member = node.members().find(|member| member.peer == peer(other));
                assert_eq!(member.map(|member| member.status), Some(Status::Alive), "{other} as {index} sees it");
            }
        }
        for index in 0..self.nodes.len() {
            let payload = Bytes::from(format!("after all, {index}"));
            self.delivered.iter_mut().for_each(Vec::clear);
            // Whoever is let in can fill the replicated state, and then nobody can add a key. That is known, and not what is asked here.
            let mut is_written = false;
            self.with(index, |node, now, actions| {
                node.broadcast(ChannelId::EVENTS, payload.clone(), now, actions).unwrap();
                is_written = node.set(&format!("after/{index}"), payload.clone(), now, actions).is_ok();
            });
            self.run(Duration::from_secs(10));
            for other in (0..self.nodes.len()).filter(|other| *other != index) {
                let got = self.delivered[other].iter().filter(|got| **got == payload).count();
                assert_eq!(got, 1, "from {index} to {other}");
                assert_eq!(self.nodes[other].get(&format!("after/{index}")), is_written.then_some(&payload));
            }
        }
        self.run(Duration::from_secs(60));
        let digests: Vec<_> = self.nodes.iter().map(|node| node.state().digest()).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "the states are equal again");
    }
}
