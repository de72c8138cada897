//! Registries over real replicas that hand each other their deltas. Of every one it is checked after every step that its events, folded, give what it
//! shows, and that its index is what a pass over its replica makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{DecodeError, Now, PeerId, Time, WallTime};
use meshwork_crdt::{Key, replica};
use rand::RngExt;

use super::*;

mod encoding;
mod hostile;
mod members;
mod picking;
mod property;
mod registering;

const EPOCH: WallTime = WallTime::from_millis(1_700_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn peer(index: usize) -> PeerId {
    PeerId::from_bytes([index as u8 + 1; 32])
}

fn id(name: &str, node: usize, instance: &str) -> Id {
    Id { namespace: "test".into(), name: name.into(), node: peer(node), instance: instance.into() }
}

fn registration(name: &str, instance: &str) -> Registration {
    Registration::new("test", name, instance)
}

fn named(found: &[Instance]) -> Vec<String> {
    found.iter().map(|instance| format!("{}/{}@{}", instance.id.name, instance.id.instance, instance.id.node.as_bytes()[0] - 1)).collect()
}

struct Node {
    replica: replica::State,
    registry: State,
    lease: LeaseId,
    /// What the events say.
    shown: BTreeMap<Id, Details>,
    hidden: BTreeSet<Id>,
    /// Since they were last taken.
    events: Vec<Event>,
}

struct Cluster {
    time: Time,
    nodes: Vec<Node>,
    /// Deltas under way: whose they are, to whom, and what.
    deltas: Vec<(usize, usize, Bytes)>,
    /// Whom nothing reaches and who reaches nobody.
    cut: BTreeSet<usize>,
    reasserted_or_purged: usize,
}

impl Cluster {
    /// Nodes that all know each other.
    fn new(count: usize) -> Self {
        Self::with(count, |_| Config::default())
    }

    fn with(count: usize, config: impl Fn(usize) -> Config) -> Self {
        let node = |index| {
            let params = meshwork_crdt::config::Config::default().build().unwrap();
            let mut registry = State::new(peer(index), config(index).build().unwrap());
            let lease = registry.open_lease().unwrap();
            let replica = replica::State::new(peer(index), params, index as u64);
            Node { replica, registry, lease, shown: BTreeMap::new(), hidden: BTreeSet::new(), events: Vec::new() }
        };
        let mut cluster = Cluster {
            time: Time::ZERO,
            nodes: (0..count).map(node).collect(),
            deltas: Vec::new(),
            cut: BTreeSet::new(),
            reasserted_or_purged: 0,
        };
        for a in 0..count {
            for b in 0..count {
                cluster.member(a, b, true);
            }
        }
        cluster
    }

    fn now(&self) -> Now {
        Now { time: self.time, wall: EPOCH + self.time.since(Time::ZERO) }
    }

    /// Runs a verb of the registry of a node and makes its writes.
    fn write<E>(&mut self, index: usize, verb: impl FnOnce(&mut Node, Now) -> Result<Vec<Write>, E>) -> Result<usize, E> {
        let now = self.now();
        let writes = verb(&mut self.nodes[index], now)?;
        let count = writes.len();
        self.make(index, writes);
        Ok(count)
    }

    fn register(&mut self, index: usize, registration: Registration) -> Result<usize, RegisterError> {
        self.write(index, |node, now| node.registry.register(node.lease, registration, &node.replica, now))
    }

    fn make(&mut self, index: usize, writes: Vec<Write>) {
        for Write { key, op } in writes {
            let (now, mut actions) = (self.now(), Vec::new());
            self.nodes[index].replica.apply(&key, op, now, &mut actions).unwrap();
            self.execute(index, actions);
        }
    }

    /// Writes past the registry.
    fn set(&mut self, index: usize, key: &str, value: Option<Bytes>) {
        let (now, mut actions) = (self.now(), Vec::new());
        let replica = &mut self.nodes[index].replica;
        let _ = match value {
            Some(value) => Some(replica.set(key, value, now, &mut actions).unwrap()),
            None => replica.remove(key, now, &mut actions).unwrap(),
        };
        self.execute(index, actions);
    }

    fn execute(&mut self, index: usize, actions: Vec<replica::Action>) {
        let (now, count) = (self.now(), self.nodes.len());
        let mut events = Vec::new();
        for action in actions {
            match action {
                replica::Action::Changed { key, .. } => {
                    let node = &mut self.nodes[index];
                    node.registry.on_changed(&key, &node.replica, now, &mut events);
                    let len = events.len();
                    node.registry.on_changed(&key, &node.replica, now, &mut events);
                    assert!(Parts::of(&key).is_none() || events.len() == len, "being told twice of one change changes nothing");
                }
                replica::Action::Broadcast(bytes) => {
                    self.deltas.extend((0..count).filter(|to| *to != index).map(|to| (index, to, bytes.clone())));
                }
                other => panic!("{other:?}"),
            }
        }
        self.fold(index, events);
    }

    fn fold(&mut self, index: usize, events: Vec<Event>) {
        let node = &mut self.nodes[index];
        for event in &events {
            match event.clone() {
                Event::Registered(instance) => {
                    assert!(!node.hidden.contains(&instance.id));
                    assert_eq!(node.shown.insert(instance.id, instance.details), None);
                }
                Event::Updated(instance) => {
                    assert_ne!(node.shown.insert(instance.id, instance.details.clone()).unwrap(), instance.details);
                }
                Event::Shown(instance) => {
                    assert!(node.hidden.remove(&instance.id));
                    assert_eq!(node.shown.insert(instance.id, instance.details), None);
                }
                Event::Hidden(id) => {
                    assert!(node.shown.remove(&id).is_some());
                    assert!(node.hidden.insert(id));
                }
                Event::Unregistered(id) => assert!(node.shown.remove(&id).is_some() ^ node.hidden.remove(&id)),
                Event::Rejected { .. } => {}
            }
        }
        node.events.extend(events);
    }

    fn member(&mut self, index: usize, other: usize, is_up: bool) {
        let (now, mut events) = (self.now(), Vec::new());
        let node = &mut self.nodes[index];
        match is_up {
            true => node.registry.member_up(peer(other), &node.replica, &mut events),
            false => node.registry.member_down(peer(other), now, &mut events),
        }
        self.fold(index, events);
    }

    /// Takes one of the deltas that are under way, if it can arrive.
    fn deliver(&mut self, at: usize) -> bool {
        let (from, to, _) = self.deltas[at];
        if self.cut.contains(&from) || self.cut.contains(&to) {
            return false;
        }
        let (_, _, bytes) = self.deltas.remove(at);
        let (now, mut actions) = (self.now(), Vec::new());
        self.nodes[to].replica.handle(replica::Input::Delta { origin: peer(from), bytes }, now, &mut actions);
        self.execute(to, actions);
        true
    }

    /// Lets time pass; what is sent arrives at once.
    fn run_for(&mut self, duration: Duration) {
        let end = self.time + duration;
        loop {
            while (0..self.deltas.len()).any(|at| self.deliver(at)) {}
            let deadline = |node: &Node| [node.replica.next_deadline(), node.registry.next_deadline()].into_iter().flatten().min();
            let due = (0..self.nodes.len()).filter_map(|index| Some((deadline(&self.nodes[index])?, index))).min();
            let Some((at, index)) = due.filter(|(at, _)| *at <= end) else { break };
            self.time = self.time.max(at);
            self.deadline_reached(index);
        }
        self.time = end;
    }

    fn deadline_reached(&mut self, index: usize) {
        let (now, mut actions, mut events) = (self.now(), Vec::new(), Vec::new());
        let node = &mut self.nodes[index];
        node.replica.handle(replica::Input::DeadlineReached, now, &mut actions);
        let writes = node.registry.deadline_reached(&node.replica, now, &mut events);
        assert!(writes.len() <= 2 * limits::PASS_WRITES_MAX);
        self.reasserted_or_purged += writes.len();
        self.execute(index, actions);
        self.fold(index, events);
        self.make(index, writes);
    }

    /// Lets what was written arrive.
    fn settle(&mut self) {
        self.run_for(Duration::from_millis(20));
        self.check();
    }

    fn check(&self) {
        for node in &self.nodes {
            let found = node.registry.find(&node.replica, &Query::new());
            let found: BTreeMap<Id, Details> = found.into_iter().map(|instance| (instance.id, instance.details)).collect();
            assert_eq!(found, node.shown, "events tell all that can be found");
            let mut rebuilt = State::new(node.registry.me, Config::default().build().unwrap());
            for (key, _) in node.replica.iter(PREFIX) {
                rebuilt.on_changed(key, &node.replica, self.now(), &mut Vec::new());
            }
            assert_eq!(node.registry.index.without_told(), rebuilt.index.without_told(), "the index is what the replica holds");
        }
    }

    fn lookup(&self, index: usize, name: &str) -> Vec<String> {
        named(&self.nodes[index].registry.lookup(&self.nodes[index].replica, "test", name))
    }

    fn events(&mut self, index: usize) -> Vec<Event> {
        std::mem::take(&mut self.nodes[index].events)
    }
}
