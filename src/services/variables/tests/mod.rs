//! Services by hand: each over a replica of its own, with deltas handed over when a test says so.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::generator;
use meshwork_channels::{DecodeError, Now, PeerId, Time, WallTime};
use meshwork_crdt::{Stamp, replica};
use rand::RngExt;

use super::limits::*;
use super::policy::{Candidate, resolve};
use super::record::{FORMAT, Record, definition_key, open, seal, value_key};
use super::*;

mod hostile;
mod kinds;
mod policies;
mod replicas;
mod spaces;
mod verbs;

const EPOCH: WallTime = WallTime::from_millis(1_700_000_000_000);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names<const N: usize>(texts: [&str; N]) -> [Name; N] {
    texts.map(name)
}

fn peer(number: usize) -> PeerId {
    PeerId::from_bytes([number as u8; 32])
}

/// A float of 0 to 10.
fn float(text: &str) -> Definition {
    Definition::new(name(text), Kind::float(0.0, 10.0), 1.0)
}

fn sum_at_most(texts: &[&str], bound: f64) -> Constraint {
    Constraint::Always(Condition::sum(texts.iter().map(|text| name(text)), Relation::AtMost, bound))
}

struct Node {
    variables: State,
    replica: replica::State,
    events: Vec<Event>,
}

struct Cluster {
    nodes: Vec<Node>,
    millis: u64,
    /// Deltas that nobody else has yet, with who wrote them.
    pending: Vec<(usize, Bytes)>,
}

impl Cluster {
    fn new(count: usize) -> Self {
        let node = |index| {
            let config = replica::Config { flush_delay: Duration::ZERO, ..replica::Config::default() };
            let replica = replica::State::new(peer(index), config.build().unwrap(), 1);
            Node { variables: State::new(peer(index)), replica, events: Vec::new() }
        };
        Cluster { nodes: (0..count).map(node).collect(), millis: 0, pending: Vec::new() }
    }

    /// Later than everything before.
    fn now(&mut self) -> Now {
        self.millis += 1;
        let time = Time::from_millis(self.millis);
        Now { time, wall: EPOCH + time.since(Time::ZERO) }
    }

    fn register(&mut self, index: usize, definition: Definition) -> Result<(), RegisterError> {
        let node = &mut self.nodes[index];
        let writes = node.variables.register(&node.replica, definition, &mut node.events)?;
        self.apply(index, writes);
        Ok(())
    }

    fn update(&mut self, index: usize, name: &str, update: impl Into<Update>) -> Result<(), UpdateError> {
        let now = self.now();
        let node = &mut self.nodes[index];
        let writes = node.variables.update(&node.replica, name, update, now, &mut node.events)?;
        self.apply(index, writes);
        Ok(())
    }

    fn delete(&mut self, index: usize, name: &str) -> Result<(), DeleteError> {
        let node = &mut self.nodes[index];
        let writes = node.variables.delete(&node.replica, name, &mut node.events)?;
        self.apply(index, writes);
        Ok(())
    }

    fn apply(&mut self, index: usize, writes: Vec<Write>) {
        let now = self.now();
        let node = &mut self.nodes[index];
        let mut actions = Vec::new();
        for Write { key, op } in writes {
            node.replica.apply(&key, op, now, &mut actions).unwrap();
        }
        self.execute(index, actions, now);
    }

    /// Writes past the service, as a node of another mind can.
    fn write(&mut self, index: usize, key: &str, value: impl Into<Bytes>) {
        let key = meshwork_crdt::Key::try_from(key).unwrap();
        let write = if key.starts_with("@variables/val/") { Write::put(key, value) } else { Write::set(key, value) };
        self.apply(index, vec![write]);
    }

    fn write_value(&mut self, index: usize, text: &str, value: impl Into<Value>, version: u64) {
        let record = Record { value: value.into(), version, score: None, agent: None };
        self.write(index, &value_key(&name(text)), seal(&record));
    }

    fn execute(&mut self, index: usize, actions: Vec<replica::Action>, now: Now) {
        let node = &mut self.nodes[index];
        for action in actions {
            match action {
                replica::Action::Broadcast(bytes) => self.pending.push((index, bytes)),
                replica::Action::Changed { key, .. } => node.variables.on_changed(&key, &node.replica, now, &mut node.events),
                other => panic!("{other:?}"),
            }
        }
        let visible = node.variables.list(&node.replica, &Filter::default());
        for (name, version) in visible {
            let (Ok(version), Ok(definition)) = (version, node.variables.definition(&node.replica, &name)) else { continue };
            assert!(definition.kind.name() == "composite" || definition.check_value(&version.value).is_ok(), "{name} shows {version:?}");
        }
    }

    /// Hands all deltas to everybody.
    fn exchange(&mut self) {
        for (origin, bytes) in std::mem::take(&mut self.pending) {
            for index in (0..self.nodes.len()).filter(|index| *index != origin) {
                self.deliver(index, origin, bytes.clone());
            }
        }
    }

    fn deliver(&mut self, index: usize, origin: usize, bytes: Bytes) {
        let now = self.now();
        let mut actions = Vec::new();
        self.nodes[index].replica.handle(replica::Input::Delta { origin: peer(origin), bytes }, now, &mut actions);
        self.execute(index, actions, now);
    }

    fn get(&self, index: usize, name: &str) -> Result<Version, GetError> {
        self.nodes[index].variables.get(&self.nodes[index].replica, name)
    }

    fn value(&self, index: usize, name: &str) -> Value {
        self.get(index, name).unwrap().value
    }

    /// The values of all nodes, which must be the same one.
    fn shared(&self, name: &str) -> Value {
        let first = self.get(0, name).unwrap();
        for index in 1..self.nodes.len() {
            assert_eq!(self.get(index, name), Ok(first.clone()), "node {index}");
        }
        first.value
    }

    fn events(&mut self, index: usize) -> Vec<Event> {
        std::mem::take(&mut self.nodes[index].events)
    }
}

fn updated(text: &str, old: impl Into<Value>, new: impl Into<Value>, version: u64, by: usize) -> Event {
    let by = Some(Author { node: peer(by), agent: None });
    Event::Updated { name: name(text), old: Some(old.into()), new: new.into(), version, by }
}

fn refused(text: &str, why: Refusal) -> Event {
    Event::Refused { name: text.to_owned(), why }
}
