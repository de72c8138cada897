//! A network in virtual time that drives real cores: latencies, lost datagrams, loss-free streams, crashes, freezes, partitions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Time, codec, limits};
use rand::RngExt;

use super::super::*;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn address(peer: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (peer >> 8) as u8, peer as u8], 4_433))
}

pub(super) struct Host {
    pub(super) state: State<u32>,
    pub(super) is_up: bool,
    frozen_until: Time,
    /// What arrived while the process stood still.
    inbox: Vec<Input<u32>>,
    /// A number for each process that ran here, so that nothing reaches its successor by mistake.
    pub(super) run: u32,
    timer: Option<Time>,
}

enum What {
    Input(Input<u32>),
    Timer,
    Thaw,
}

pub(super) struct Network {
    pub(super) now: Time,
    pub(super) hosts: BTreeMap<u32, Host>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    what: BTreeMap<u64, (u32, u32, What)>,
    sequence: u64,
    connections: BTreeSet<(u32, u32)>,
    random: Generator,
    seed: u64,
    pub(super) loss: f64,
    /// The side of each host while there is a partition.
    pub(super) sides: BTreeMap<u32, u8>,
    pub(super) params: Params,
    pub(super) events: Vec<(Time, u32, Event<u32>)>,
    pub(super) faults: Vec<(u32, u32, meshwork_channels::Misbehavior)>,
    /// A running hash of every action, to compare runs.
    pub(super) trace: u64,
    pub(super) bytes: u64,
    /// When each datagram was sent.
    pub(super) datagrams: Vec<Time>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Network {
            now: Time::ZERO,
            hosts: BTreeMap::new(),
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            sequence: 0,
            connections: BTreeSet::new(),
            random: generator(seed, "network", 0),
            seed,
            loss: 0.0,
            sides: BTreeMap::new(),
            params: Params::default(),
            events: Vec::new(),
            faults: Vec::new(),
            trace: 0,
            bytes: 0,
            datagrams: Vec::new(),
        }
    }

    /// A cluster of `n` that all met through the first, grown until everybody knows everybody.
    pub(super) fn formed(n: u32, seed: u64) -> Self {
        Network::formed_with(n, seed, Config::default())
    }

    /// The same with other settings.
    pub(super) fn formed_with(n: u32, seed: u64, config: Config) -> Self {
        let mut net = Network::new(seed);
        net.params = config.build().unwrap();
        for peer in 0..n {
            net.start(peer, 1);
            net.connect(peer, 0);
        }
        for _ in 0..200 {
            net.run(ms(100));
            if net.is_complete() {
                break;
            }
        }
        assert!(net.is_complete(), "the cluster forms");
        // The quick exchanges end, probes are under way.
        net.run(secs(6));
        net.events.clear();
        net
    }

    pub(super) fn start(&mut self, peer: u32, generation: u64) {
        self.start_at(peer, generation, address(peer));
    }

    pub(super) fn start_at(&mut self, peer: u32, generation: u64, at: SocketAddr) {
        let run = self.hosts.get(&peer).map_or(0, |host| host.run + 1);
        let seed = meshwork_channels::random::hash(&[self.seed, u64::from(peer), u64::from(run)]);
        let state = State::new(peer, generation, at, self.params.clone(), seed, self.now);
        self.connections.retain(|(a, b)| *a != peer && *b != peer);
        self.hosts.insert(peer, Host { state, is_up: true, frozen_until: Time::ZERO, inbox: Vec::new(), run, timer: None });
        self.set_timer(peer);
    }

    fn push(&mut self, at: Time, peer: u32, what: What) {
        let Some(host) = self.hosts.get(&peer) else { return };
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.what.insert(self.sequence, (peer, host.run, what));
    }

    fn set_timer(&mut self, peer: u32) {
        let now = self.now;
        let host = self.hosts.get_mut(&peer).unwrap();
        if let Some(at) = host.state.next_deadline()
            && host.timer.is_none_or(|set| at < set)
        {
            host.timer = Some(at);
            self.push(at.max(now), peer, What::Timer);
        }
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random.random_range(300..=1_000))
    }

    pub(super) fn can_reach(&self, a: u32, b: u32) -> bool {
        self.hosts.get(&b).is_some_and(|host| host.is_up) && self.sides.get(&a) == self.sides.get(&b)
    }

    /// Dials; both ends hear of the connection after a handshake.
    pub(super) fn connect(&mut self, a: u32, b: u32) {
        if a == b || !self.can_reach(a, b) || !self.connections.insert((a.min(b), a.max(b))) {
            return;
        }
        let at = self.now + ms(1);
        for (me, peer) in [(a, b), (b, a)] {
            let other = &self.hosts[&peer].state;
            let (generation, address) = (other.generation(), other.me().address);
            self.push(at, me, What::Input(Input::Connected { peer, address, generation }));
        }
    }

    pub(super) fn disconnect(&mut self, a: u32, b: u32) {
        if self.connections.remove(&(a.min(b), a.max(b))) {
            for (me, peer) in [(a, b), (b, a)] {
                self.push(self.now + ms(1), me, What::Input(Input::Disconnected(peer)));
            }
        }
    }

    /// The process is gone; its connections break at once if the system says so, or are never heard of again.
    pub(super) fn crash(&mut self, peer: u32, says_so: bool) {
        self.hosts.get_mut(&peer).unwrap().is_up = false;
        let broken: Vec<(u32, u32)> = self.connections.iter().copied().filter(|(a, b)| *a == peer || *b == peer).collect();
        for (a, b) in broken {
            if says_so {
                self.disconnect(a, b);
            } else {
                self.connections.remove(&(a, b));
            }
        }
    }

    pub(super) fn freeze(&mut self, peer: u32, span: Duration) {
        let until = self.now + span;
        self.hosts.get_mut(&peer).unwrap().frozen_until = until;
        self.push(until, peer, What::Thaw);
    }

    pub(super) fn input(&mut self, peer: u32, input: Input<u32>) {
        let host = self.hosts.get_mut(&peer).unwrap();
        if !host.is_up {
            return;
        }
        if self.now < host.frozen_until {
            host.inbox.push(input);
            return;
        }
        let mut actions = Vec::new();
        host.state.handle(input, self.now, &mut actions);
        for action in actions {
            self.carry_out(peer, action);
        }
        self.set_timer(peer);
    }

    fn carry_out(&mut self, from: u32, action: Action<u32>) {
        for byte in format!("{:?}{from}{action:?}", self.now).bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        match action {
            Action::Datagram { to, bytes, .. } => {
                assert!(bytes.len() <= limits::MEMBERSHIP_BYTES_MAX);
                self.datagrams.push(self.now);
                self.bytes += bytes.len() as u64;
                self.connect(from, to);
                if self.can_reach(from, to) && !self.random.random_bool(self.loss) {
                    let at = self.now + ms(1) + self.latency();
                    self.push(at, to, What::Input(Input::Datagram { from, bytes }));
                }
            }
            Action::Send { to, message, .. } => {
                let bytes = codec::encode(&message);
                assert!(bytes.len() < limits::CONTROL_BYTES_MAX);
                self.bytes += bytes.len() as u64;
                let message = codec::decode(&bytes).unwrap();
                self.connect(from, to);
                if self.can_reach(from, to) {
                    let at = self.now + ms(1) + self.latency();
                    self.push(at, to, What::Input(Input::Received { from, message }));
                }
            }
            Action::News(news) => {
                let up = self.up();
                let mut neighbors: Vec<u32> = Vec::new();
                if let Ok(at) = up.binary_search(&from) {
                    let places = [1, 7, 31].map(|step| step % up.len()).map(|step| [at + step, at + up.len() - step]);
                    neighbors = places.into_iter().flatten().map(|place| up[place % up.len()]).filter(|peer| *peer != from).collect();
                }
                neighbors.sort_unstable();
                neighbors.dedup();
                for (to, message) in news.for_neighbors(&neighbors) {
                    self.carry_out(from, Action::Send { to, address: address(to), message });
                }
            }
            Action::Event(event) => self.events.push((self.now, from, event)),
            Action::Misbehaved { peer, what } => self.faults.push((from, peer, what)),
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, sequence))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            let (peer, run, what) = self.what.remove(&sequence).unwrap();
            self.now = at;
            let host = self.hosts.get_mut(&peer).unwrap();
            if host.run != run {
                continue;
            }
            match what {
                What::Input(input) => self.input(peer, input),
                What::Timer => {
                    if host.timer == Some(at) || host.timer.is_some_and(|set| set <= at) {
                        host.timer = None;
                        if at < host.frozen_until {
                            continue;
                        }
                        if host.state.next_deadline().is_some_and(|due| due <= at) {
                            self.input(peer, Input::DeadlineReached);
                        } else {
                            self.set_timer(peer);
                        }
                    }
                }
                // The worst case: timers first, then what waits in the sockets.
                What::Thaw => {
                    let inbox = std::mem::take(&mut host.inbox);
                    host.timer = None;
                    self.input(peer, Input::DeadlineReached);
                    for input in inbox {
                        self.input(peer, input);
                    }
                }
            }
        }
        self.now = end;
    }

    pub(super) fn up(&self) -> Vec<u32> {
        self.hosts.iter().filter(|(_, host)| host.is_up).map(|(peer, _)| *peer).collect()
    }

    /// Whether everybody that runs sees exactly everybody else that runs, under its present generation.
    pub(super) fn is_complete(&self) -> bool {
        let up = self.up();
        up.iter().all(|me| {
            let view = self.hosts[me].state.view();
            view.up_len() + 1 == up.len()
                && view.up().all(|member| {
                    let host = &self.hosts[&member.peer];
                    host.is_up && host.state.generation() == member.generation
                })
        })
    }

    pub(super) fn run_until_complete(&mut self, max: Duration) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < max {
            self.run(ms(50));
            if self.is_complete() {
                return Some(self.now.since(start));
            }
        }
        None
    }

    pub(super) fn failures(&self) -> Vec<(Time, u32, u32)> {
        let failed = |(at, by, event): &(Time, u32, Event<u32>)| match event {
            Event::Failed(member) => Some((*at, *by, member.peer)),
            _ => None,
        };
        self.events.iter().filter_map(failed).collect()
    }

    pub(super) fn renewals(&self) -> u64 {
        self.hosts.values().map(|host| host.state.counters().renewals).sum()
    }

    /// Foca's whole table against the view, on every host.
    pub(super) fn audit(&self) {
        for host in self.hosts.values() {
            host.state.audit();
        }
    }

    /// Who sees whom up, for [`Network::check_stories`].
    pub(super) fn clone_views(&self) -> BTreeMap<(u32, u32), Status> {
        let views = self.hosts.iter().flat_map(|(me, host)| host.state.view().members().map(|member| ((*me, member.peer), member.status)));
        views.collect()
    }

    /// Events alone, in their order, lead from one view to the next.
    pub(super) fn check_stories(&self, mut seen: BTreeMap<(u32, u32), Status>) {
        for (at, by, event) in &self.events {
            let (member, is_legal) = {
                let was = |member: &Member<u32>| seen.get(&(*by, member.peer)).copied();
                let up = |member: &Member<u32>| was(member).is_some_and(Status::is_up);
                match event {
                    Event::Joined(member) => (member, !up(member) && was(member) != Some(Status::Down)),
                    Event::Recovered { member, was_down: true } => (member, was(member) == Some(Status::Down)),
                    Event::Recovered { member, .. } => (member, was(member) == Some(Status::Suspect)),
                    Event::Suspected(member) => (member, up(member)),
                    Event::Updated(member) | Event::Failed(member) | Event::Left(member) => (member, up(member)),
                    Event::Renewed { .. } => continue,
                }
            };
            // A process that started again has no memory.
            assert!(is_legal || self.hosts[by].run > 0, "{at} {by} {event:?} after {:?}", seen.get(&(*by, member.peer)));
            seen.insert((*by, member.peer), member.status);
        }
    }
}
