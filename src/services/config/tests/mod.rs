//! Nodes by hand: real replicas whose deltas are handed over, and of each node what its events alone tell, which has to be what it shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::generator;
use meshwork_channels::{DecodeError, Now, PeerId, Time, WallTime, encode};
use meshwork_crdt::replica::{self, Action, Input};
use meshwork_crdt::value::Actor;
use meshwork_crdt::{Key, Op, Stamp};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::conflict::resolve;
use super::record::{Past, Record};
use super::value::Token;
use super::*;
use crate::services::Write;

mod cluster;
mod hostile;
mod local;
mod policies;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn path(text: &str) -> Path {
    Path::try_from(text).unwrap()
}

fn at_millis(millis: u64) -> Now {
    let time = Time::from_millis(millis);
    Now { time, wall: WallTime::from_millis(1_700_000_000_000) + time.since(Time::ZERO) }
}

fn stamp(millis: u64) -> Stamp {
    Stamp::from_parts(millis, 0)
}

fn tree(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn synced() -> Config {
    Config { is_synced: true, ..Config::default() }
}

/// Whole numbers from 0 to 9.
fn digit() -> Validator {
    Arc::new(|_, value| match value {
        Value::Integer(0..=9) => Ok(()),
        _ => Err("not a digit".to_owned()),
    })
}

struct Node {
    replica: replica::State,
    config: State,
    events: Vec<Event>,
    /// What the events alone tell.
    seen: BTreeMap<Path, Value>,
    /// Every delta that this node broadcast.
    deltas: Vec<Bytes>,
    number: u8,
}

impl Node {
    fn new(number: u8, config: Config) -> Self {
        Node::with(number, State::new(peer(number), config))
    }

    fn with(number: u8, config: State) -> Self {
        let params = replica::Config { flush_delay: Duration::ZERO, ..replica::Config::default() }.build().unwrap();
        let replica = replica::State::new(peer(number), params, 7);
        Node { replica, config, events: Vec::new(), seen: BTreeMap::new(), deltas: Vec::new(), number }
    }

    /// Does something with the service, and checks that its events tell all that became visible.
    fn with_config<T>(&mut self, act: impl FnOnce(&mut State, &replica::State, &mut Vec<Event>) -> T) -> T {
        let from = self.events.len();
        let result = act(&mut self.config, &self.replica, &mut self.events);
        self.check(from);
        result
    }

    fn set(&mut self, at: &str, value: Value, millis: u64) {
        let writes = self.config.set_cluster_wide(&self.replica, at, &value).unwrap();
        self.apply(writes, millis);
    }

    fn apply(&mut self, writes: Vec<Write>, millis: u64) {
        writes.into_iter().for_each(|write| self.write_op(&write.key, write.op, millis));
    }

    fn write(&mut self, key: &str, bytes: Bytes, millis: u64) {
        self.write_op(key, Op::Put(bytes), millis);
    }

    fn write_op(&mut self, key: &str, op: Op, millis: u64) {
        let mut actions = Vec::new();
        self.replica.apply(key, op, at_millis(millis), &mut actions).unwrap();
        self.execute(actions, millis);
    }

    fn receive(&mut self, origin: u8, bytes: &Bytes, millis: u64) {
        let mut actions = Vec::new();
        self.replica.handle(Input::Delta { origin: peer(origin), bytes: bytes.clone() }, at_millis(millis), &mut actions);
        self.execute(actions, millis);
    }

    fn execute(&mut self, actions: Vec<Action>, millis: u64) {
        let from = self.events.len();
        for action in actions {
            match action {
                Action::Changed { key, .. } => self.config.on_changed(&key, &self.replica, at_millis(millis), &mut self.events),
                Action::Broadcast(bytes) => self.deltas.push(bytes),
                _ => {}
            }
        }
        self.check(from);
    }

    fn check(&mut self, from: usize) {
        for event in &self.events[from..] {
            if let Event::Updated { path, old, new, .. } = event {
                let seen = match new {
                    Some(value) => self.seen.insert(path.clone(), value.clone()),
                    None => self.seen.remove(path),
                };
                assert_eq!(seen, *old, "{path}");
                assert_ne!(old, new, "{path}");
            }
        }
        assert_eq!(self.shown(), self.seen, "events tell all that is visible");
    }

    fn shown(&self) -> BTreeMap<Path, Value> {
        let paths = self.config.paths(&self.replica, None);
        paths.into_iter().map(|path| (path.clone(), self.config.read(&self.replica, path.as_str()).unwrap().value)).collect()
    }

    fn get(&self, at: &str) -> Option<Value> {
        self.config.read(&self.replica, at).ok().map(|found| found.value)
    }

    fn integer(&self, at: &str) -> Option<i64> {
        self.config.get(&self.replica, at).ok()
    }

    /// The paths and new values of the updates since `from`.
    fn updates(&self, from: usize) -> Vec<(String, Option<Value>)> {
        let one = |event: &Event| match event {
            Event::Updated { path, new, .. } => Some((path.to_string(), new.clone())),
            _ => None,
        };
        self.events[from..].iter().filter_map(one).collect()
    }
}

/// Hands all deltas of all nodes to all others.
fn exchange(nodes: &mut [&mut Node], millis: u64) {
    let deltas: Vec<(u8, Bytes)> = nodes.iter().flat_map(|node| node.deltas.iter().map(|bytes| (node.number, bytes.clone()))).collect();
    for node in nodes {
        // What came before that on which it rests is taken in a later pass.
        loop {
            let before = node.replica.digest();
            for (origin, bytes) in &deltas {
                if *origin != node.number {
                    node.receive(*origin, bytes, millis);
                }
            }
            if node.replica.digest() == before {
                break;
            }
        }
    }
}
